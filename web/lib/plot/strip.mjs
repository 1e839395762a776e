/** The strip of steps, a cell a step, filled while they are made. Pure; paint.mjs draws it. */

import { cell, line, rect } from "./shapes.mjs";

const EDGE = 2; // px
const GROOVE = 0.16; // of a step that is still to come

/** As scene() of scene.mjs, {shapes, x(row number), nearest(px)}. view: {width, height, hover}. */
export function strip(now, view, kinds) {
  const steps = now?.course.steps ?? [];
  const span = now?.course.span ?? 20;
  const pitch = (view.width - 2 * EDGE) / span;
  const gap = pitch >= 6 ? 1.5 : pitch >= 3 ? 1 : 0;
  const left = (index) => EDGE + index * pitch;
  const x = (index) => left(index) + pitch / 2;
  const room = view.height - EDGE;
  const shapes = [];
  for (const { index, kind } of steps) {
    const { height, fill } = kinds.of(kind);
    const h = Math.max(2, room * height);
    shapes.push(...cell(left(index), view.height - h, Math.max(0.6, pitch - gap), h, fill, kind));
  }
  shapes.push(...toCome(steps.length, span, { left, pitch, gap, view }));
  if (view.hover !== null && steps[view.hover]) {
    const at = x(view.hover);
    shapes.push(line([at, 0, at, view.height], "text", 1, 1));
  }
  const nearest = (px) => {
    if (!steps.length) return null;
    return Math.min(steps.length - 1, Math.max(0, Math.floor((px - EDGE) / pitch)));
  };
  return { shapes, x, nearest };
}

/** A low groove for each step that is still to come; one for all where they are narrow. */
function toCome(done, span, { left, pitch, gap, view }) {
  if (done >= span) return [];
  const h = 3;
  const y = view.height - h;
  if (!gap) return [rect(left(done), y, left(span) - left(done), h, "text", GROOVE)];
  return Array.from({ length: span - done }, (_, i) =>
    rect(left(done + i), y, pitch - gap, h, "text", GROOVE),
  );
}
