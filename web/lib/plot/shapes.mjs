/**
 * What a scene is made of, in CSS pixels. Pure; paint.mjs draws it. Inks are names of colours in
 * theme.mjs; points are [x0, y0, x1, y1, ...].
 */

export const rect = (x, y, w, h, ink, alpha) => ({ type: "rect", x, y, w, h, ink, alpha });

export const line = (points, ink, alpha, width, dash) => ({
  type: "line", points, ink, alpha, width, dash,
});

/** kind: of the step; r: half of its width. */
export const mark = (kind, x, y, r) => ({ type: "mark", kind, x, y, r });

/** halo: whether to keep what is behind away from the letters. */
export const label = (x, y, text, { align, ink, size, alpha, halo }) => ({
  type: "text", x, y, text, align, ink: ink ?? "text", size: size ?? 9, alpha: alpha ?? 0.85, halo,
});
