/** The stages as shaded bands with their names. Pure. */

import { SIZE, label, line, rect } from "./shapes.mjs";

const HEADER = 0.1; // what the band behind a name has more

/** Shapes of a course's stages. */
export function bands({ stages, tau1, tau2 }, frame) {
  const shaded = stages.flatMap((stage) => band(stage, frame));
  return [...shaded, ...border(tau1, frame), ...border(tau2, frame)];
}

/** A light band, a stronger one behind the name, and the name where it fits. */
function band({ name, from, to }, { area, view, options, edge, kinds }) {
  const { header } = options;
  const [x, w] = [edge(from), edge(to) - edge(from)];
  const [ink, alpha] = [`stage.${name}`, kinds.stages[name]?.strength ?? 0];
  const shapes = [
    rect(x, header, w, area.barsBottom - header, ink, alpha),
    rect(x, 0, Math.max(0, w - 0.5), header, ink, alpha + HEADER),
  ];
  const text = view.words.text(`stage.${name}`);
  if (view.measure(text, SIZE) <= w - 4) {
    shapes.push(label(x + w / 2, header - 4, text, { align: "center", alpha: 1 }));
  }
  return shapes;
}

function border(row, { area, edge }) {
  if (row === null) return [];
  const x = edge(row);
  return [line([x, 0, x, area.barsBottom], "text", 0.45, 1, [1, 2])];
}
