/** What the marks mean, for plots with room for it. Pure. */

import { label, line, mark } from "./shapes.mjs";

const KINDS = ["exact", "pipelined", "refresh", "local", "single"];
const [SIZE, SAMPLE, GAP] = [9, 11, 12]; // of the text, room for a mark, between two entries

/** Shapes of one row at the bottom: the kinds of steps that occur, and the previous run. */
export function legend(steps, previous, { area, view, options }) {
  const present = new Set(steps.map((step) => step.kind));
  const y = view.height - 4;
  const shapes = [];
  let x = area.left;
  const add = (text, sample) => {
    const w = SAMPLE + view.measure(text, SIZE);
    if (x + w > area.right) return;
    shapes.push(sample(x), label(x + SAMPLE, y, text, { align: "left", size: SIZE }));
    x += w + GAP;
  };
  for (const kind of KINDS.filter((one) => present.has(one))) {
    add(view.words.text(`kind.${kind}`), (at) => mark(kind, at + 4, y - 3, options.mark));
  }
  if (previous) {
    const sample = (at) => line([at, y - 3, at + 8, y - 3], "text", 0.4, 1.2);
    add(view.words.text("plot.previous"), sample);
  }
  return shapes;
}
