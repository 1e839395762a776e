/** The plot as a list of shapes: a function of its arguments. Pure; paint.mjs draws it. */

import { stepTicks, valueScale } from "./axes.mjs";
import { bands } from "./bands.mjs";
import { bars } from "./bars.mjs";
import { curve, faint } from "./curve.mjs";
import { drift } from "./drift.mjs";
import { empty } from "./empty.mjs";
import { legend } from "./legend.mjs";
import { SIZE, label, line } from "./shapes.mjs";

export const DEFAULTS = {
  left: 38, // pixels for the ticks' numbers
  right: 5,
  header: 16, // pixels for the stages' names
  footer: 15, // pixels for the steps' numbers
  footerFrom: 80, // least height of a plot that has them
  legend: 18, // pixels for the marks' names
  legendFrom: 240,
  bars: 0.2, // share of the height for the times of the steps
  mark: 3.2, // largest half width of a mark
  apart: 4.2, // least distance of two marks
  toleranceAt: 0.42, // height of the tolerance in the plot: the drift has its own scale
  driftReach: 20, // the drift's logarithmic scale ends at so many times the tolerance
};

/**
 * The whole scene: {shapes, area, x(row number), nearest(px)}.
 *
 * now, before: {run, course} of the current and the previous run, or null. view: {width, height,
 * log, hover (row number or null), words, measure(text, size) in px}. kinds: Kinds.
 */
export function scene(now, before, view, kinds, options = DEFAULTS) {
  const area = areaOf(view, options);
  const span = now?.course.span ?? before?.course.span ?? 20;
  const steps = now?.course.steps ?? [];
  const seen = [...steps, ...(before?.course.steps ?? [])].map((step) => step.discrepancy);
  const values = valueScale(seen, view.log, area.bottom - area.top > 70 ? 5 : 3);
  const pitch = (area.right - area.left) / span;
  const frame = {
    area, view, options, span, pitch, values, kinds,
    edge: (index) => area.left + index * pitch,
    x: (index) => area.left + (index + 0.5) * pitch,
    y: (value) => area.bottom - values.at(value) * (area.bottom - area.top),
  };
  const change = now ? drift(now, frame) : { lines: [], labels: [] };
  const shapes = [
    ...(now ? bands(now.course, frame) : before ? [] : empty(view, kinds, options)),
    ...(now || before ? grid((now ?? before).course.perStep, frame) : []),
    ...(before ? faint(before.course.steps, frame) : []),
    ...change.lines,
    ...(now ? [...curve(steps, frame), ...bars(steps, frame)] : []),
    ...change.labels,
    ...(area.legend ? legend(steps, before !== null, frame) : []),
    ...pointer(steps, frame),
  ];
  const nearest = (px) => {
    if (!steps.length) return null;
    return Math.min(steps.length - 1, Math.max(0, Math.floor((px - area.left) / pitch)));
  };
  return { shapes, area, x: frame.x, nearest };
}

function areaOf({ width, height }, options) {
  const footer = height < options.footerFrom ? 0 : options.footer;
  const legend = height < options.legendFrom ? 0 : options.legend;
  const low = height - footer - legend;
  const bars = Math.max(6, Math.round((low - options.header) * options.bars));
  return {
    left: options.left,
    right: width - options.right,
    top: options.header + 2,
    bottom: low - bars - 3,
    barsTop: low - bars,
    barsBottom: low,
    footer,
    legend,
  };
}

function grid(perStep, { area, view, x, y, values, span }) {
  const { left, right, barsBottom } = area;
  const shapes = [line([left, barsBottom, right, barsBottom], "border", 1, 1)];
  for (const tick of values.ticks) {
    shapes.push(line([left, y(tick), right, y(tick)], "border", 0.55, 1));
    shapes.push(label(left - 3, y(tick) + 4, String(tick), { align: "right" }));
  }
  if (!area.footer) return shapes;
  const total = Math.max(1, Math.round(span / perStep));
  for (const tick of stepTicks(total, Math.floor((right - left) / 40))) {
    const text = String(tick);
    const last = view.width - view.measure(text, SIZE) / 2;
    const at = Math.min(x((tick - 1) * perStep), last);
    shapes.push(label(at, barsBottom + 12, text, { align: "center" }));
  }
  return shapes;
}

function pointer(steps, { area, x, view }) {
  if (view.hover === null || !steps[view.hover]) return [];
  const at = x(view.hover);
  return [line([at, area.top, at, area.barsBottom], "text", 0.8, 1)];
}
