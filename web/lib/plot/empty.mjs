/** What a plot shows before the first run: the marks of the steps with their names. Pure. */

import { cell, label, mark } from "./shapes.mjs";

const [ROW, LEFT, TOP] = [19, 12, 22]; // px

/** Shapes, as many rows as there is room for. view: {height, words}. */
export function empty({ height, words }, kinds, options) {
  const room = Math.floor((height - TOP) / ROW);
  return kinds.names.slice(0, room).flatMap((kind, index) => {
    const { height: share, fill, mark: form } = kinds.of(kind);
    const base = TOP + index * ROW;
    const h = 13 * share;
    return [
      ...cell(LEFT, base - h, 9, h, fill, kind),
      mark(form, kind, LEFT + 24, base - 6, options.mark),
      label(LEFT + 38, base - 2, words.text(`kind.${kind}`), { align: "left", alpha: 0.75 }),
    ];
  });
}
