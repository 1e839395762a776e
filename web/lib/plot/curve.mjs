/** The difference of the two prompts over the steps, with a mark for each step's kind. Pure. */

import { line, mark } from "./shapes.mjs";

const known = (steps) => steps.filter((step) => step.discrepancy != null);

/** The previous run's curve. */
export function faint(steps, frame) {
  const seen = known(steps).filter((step) => step.index < frame.span);
  return pieces(seen, frame).map(({ points }) => line(points, "text", 0.32, 1.2));
}

/** The curve, dashed where steps in between were not measured, and the marks. */
export function curve(steps, frame) {
  const seen = known(steps);
  const lines = pieces(seen, frame).map(({ points, bridge }) =>
    bridge ? line(points, "difference", 0.8, 1, [3, 2.5]) : line(points, "difference", 1, 1.6),
  );
  return [...lines, ...marks(steps, heights(steps, seen, frame), frame)];
}

/** Measured steps as pieces of a line: those in a row together, a bridge over each gap. */
function pieces(seen, { x, y }) {
  const found = [];
  let piece = null;
  seen.forEach((step, i) => {
    const point = [x(step.index), y(step.discrepancy)];
    if (piece && step.index > seen[i - 1].index + 1) {
      found.push({ points: [...piece.points.slice(-2), ...point], bridge: true });
      piece = null;
    }
    if (!piece) found.push((piece = { points: [], bridge: false }));
    piece.points.push(...point);
  });
  return found;
}

/** Where each step's mark is: on the curve, between its neighbours, or at the bottom. */
function heights(steps, seen, { y, area }) {
  let next = 0;
  return steps.map(({ index }) => {
    while (next < seen.length && seen[next].index < index) next++;
    const [left, right] = [seen[next - 1], seen[next]];
    if (!left && right?.index !== index) return area.bottom - 4;
    if (!right) return y(left.discrepancy);
    if (right.index === index) return y(right.discrepancy);
    const share = (index - left.index) / (right.index - left.index);
    return y(left.discrepancy) + share * (y(right.discrepancy) - y(left.discrepancy));
  });
}

/** As many marks as have room; a change of the kind and a refresh go before the others. */
function marks(steps, at, { x, pitch, options, kinds }) {
  const r = Math.max(1.7, Math.min(options.mark, pitch * 0.42));
  const shapes = [];
  let [last, before] = [-Infinity, null];
  for (const { index, kind } of steps) {
    const rare = kind !== before || kind === "refresh";
    if (x(index) - last < (rare ? options.apart / 2 : options.apart)) continue;
    shapes.push(mark(kinds.of(kind).mark, kind, x(index), at[index], r));
    [last, before] = [x(index), kind];
  }
  return shapes;
}
