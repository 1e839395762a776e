/**
 * What a scene is made of, in CSS pixels. Pure; paint.mjs draws it. Inks are names of colours in
 * theme.mjs, those of the kinds of steps among them; points are [x0, y0, x1, y1, ...].
 */

export const SIZE = 12; // px of all letters

export const rect = (x, y, w, h, ink, alpha) => ({ type: "rect", x, y, w, h, ink, alpha });

export const line = (points, ink, alpha, width, dash) => ({
  type: "line", points, ink, alpha, width, dash,
});

/** form: a kind's mark; r: half of its width. */
export const mark = (form, ink, x, y, r) => ({ type: "mark", form, ink, x, y, r });

/** backed: whether to cover what is behind the letters. */
export const label = (x, y, text, { align, ink, alpha, backed }) => ({
  type: "text", x, y, text, align, ink: ink ?? "text", alpha: alpha ?? 0.9, backed,
});

/** The cell of a step as rectangles: fill is how a kind's cells are told apart without colour. */
export function cell(x, y, w, h, fill, ink) {
  const solid = (top, height) => rect(x, y + top, w, height, ink, 1);
  const thin = w < 4 || h < 5;
  if (fill === "solid" || (thin && fill !== "hollow")) return [solid(0, h)];
  if (fill === "split") return [solid(0, h / 2 - 0.75), solid(h / 2 + 0.75, h / 2 - 0.75)];
  if (fill === "striped") return [0, 2, 4].map((fifth) => solid((fifth * h) / 5, h / 5));
  if (fill === "notched") {
    const notch = Math.min(w - 2, 4);
    return [solid(0, h), rect(x + (w - notch) / 2, y, notch, h * 0.35, "background", 1)];
  }
  if (w < 3) return [rect(x, y, w, h, ink, 0.6)];
  return [
    solid(0, 1), solid(h - 1, 1),
    rect(x, y + 1, 1, h - 2, ink, 1), rect(x + w - 1, y + 1, 1, h - 2, ink, 1),
  ];
}
