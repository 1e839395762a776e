/** The stages as shaded bands with their names, and tau1 and tau2 between them. Pure. */

import { label, line, rect } from "./shapes.mjs";

const SHADES = { warmup: 0.05, parallelism: 0.17, connecting: 0.11 };
const INKS = { warmup: "text", parallelism: "accent", connecting: "text" };
const HEADER = 0.1; // what the band behind a name has more

/** Shapes of a course's stages. */
export function bands({ stages, tau1, tau2 }, frame) {
  const shaded = stages.flatMap((stage) => band(stage, frame));
  return [...shaded, ...tau("τ₁", tau1, frame), ...tau("τ₂", tau2, frame)];
}

/** A light band, a stronger one behind the name, and as much of the name as fits. */
function band({ name, from, to }, { area, view, options, edge }) {
  const { header } = options;
  const [x, w, ink, alpha] = [edge(from), edge(to) - edge(from), INKS[name], SHADES[name]];
  const shapes = [
    rect(x, header, w, area.barsBottom - header, ink, alpha),
    rect(x, 0, Math.max(0, w - 0.5), header, ink, alpha + HEADER),
  ];
  const names = [view.words.text(`stage.${name}`), view.words.text(`stage.${name}.short`)];
  const text = names.find((one) => view.measure(one, 9) <= w - 3);
  if (text) shapes.push(label(x + w / 2, header - 3.5, text, { align: "center", alpha: 0.95 }));
  return shapes;
}

function tau(text, row, { area, edge }) {
  if (row === null) return [];
  const x = edge(row);
  const flip = x + 14 > area.right;
  const [at, align] = flip ? [x - 2, "right"] : [x + 2, "left"];
  return [
    line([x, 0, x, area.barsBottom], "text", 0.55, 1, [1, 2]),
    label(at, area.top + 8, text, { align, size: 10, alpha: 0.95, halo: true }),
  ];
}
