/** The time of each step: solid what this process computed, light its waiting. Pure. */

import { rect } from "./shapes.mjs";

const TALLEST = 2.5; // typical steps: a slow one must not flatten the others

export function bars(steps, { area, x, pitch }) {
  const top = largest(steps.map((step) => step.ms ?? 0));
  const room = area.barsBottom - area.barsTop;
  const height = (ms) => (Math.min(ms, top) / top) * room;
  const w = Math.max(0.8, pitch > 4 ? pitch - 1.5 : pitch * 0.85);
  return steps.flatMap(({ index, kind, ms, own_ms: own }) => {
    if (ms == null) return [];
    const left = x(index) - w / 2;
    const [whole, solid] = [height(ms), height(Math.min(own ?? ms, ms))];
    const shapes = [rect(left, area.barsBottom - solid, w, solid, kind, 0.85)];
    if (whole - solid > 0.3) {
      shapes.push(rect(left, area.barsBottom - whole, w, whole - solid, kind, 0.4));
    }
    if (ms > top * 1.02) shapes.push(rect(left, area.barsTop - 1.5, w, 1, "text", 0.9)); // cut off
    return shapes;
  });
}

/** The time that the tallest bar stands for. */
function largest(times) {
  const sorted = times.toSorted((a, b) => a - b);
  const typical = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return Math.min(sorted.at(-1) ?? 0, TALLEST * typical) || 1;
}
