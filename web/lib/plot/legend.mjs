/** What the marks mean, for plots with room for it. Pure. */

import { SIZE, label, line, mark } from "./shapes.mjs";

const [SAMPLE, GAP] = [13, 12]; // room for a mark, between two entries

/** Shapes of one row at the bottom: the kinds of steps that occur, and the previous run. */
export function legend(steps, previous, { area, view, options, kinds }) {
  const present = new Set(steps.map((step) => step.kind));
  const y = view.height - 4;
  const shapes = [];
  let x = area.left;
  const add = (text, sample) => {
    const w = SAMPLE + view.measure(text, SIZE);
    if (x + w > area.right) return;
    shapes.push(sample(x), label(x + SAMPLE, y, text, { align: "left" }));
    x += w + GAP;
  };
  for (const kind of kinds.names.filter((one) => present.has(one))) {
    add(view.words.text(`kind.${kind}`), (at) => mark(kinds.of(kind).mark, kind, at + 4, y - 4, options.mark));
  }
  if (previous) {
    const sample = (at) => line([at, y - 4, at + 9, y - 4], "text", 0.4, 1.2);
    add(view.words.text("plot.previous"), sample);
  }
  return shapes;
}
