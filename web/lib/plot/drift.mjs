/** The change that the adaptive policy expects of a shorter step, against its tolerance. Pure. */

import { plain } from "../run/figures.mjs";
import { SIZE, label, line } from "./shapes.mjs";

const ROOM_FOR_LABEL = 60; // px of the plot's height
const LABEL_SHARE = 0.7; // of the width that it may take

/**
 * {lines, labels}. The tolerance is always at the same height: what counts is which side of it the
 * change is on. Labels go on top of everything.
 */
export function drift({ run, course }, { area, x, view, options }) {
  if (!(run.tolerance > 0)) return { lines: [], labels: [] };
  const height = area.bottom - area.top;
  const share = view.log ? logarithmic(options) : linear(options);
  const y = (value) => {
    const at = Math.min(1, Math.max(0, share(value / run.tolerance)));
    return area.bottom - at * height;
  };
  const level = y(run.tolerance);
  const lines = [line([area.left, level, area.right, level], "change", 0.9, 1, [6, 3])];
  const known = course.steps.filter((step) => step.drift != null);
  const points = known.flatMap((step) => [x(step.index), y(step.drift)]);
  if (known.length > 1) lines.push(line(points, "change", 0.95, 1.4, [1.5, 1.8]));
  if (height < ROOM_FOR_LABEL) return { lines, labels: [] };
  const tolerance = plain(run.tolerance);
  const most = LABEL_SHARE * (area.right - area.left);
  const whole = view.words.text("plot.tolerance", { tolerance });
  const text = view.measure(whole, SIZE) <= most ? whole : tolerance;
  const style = { align: "right", ink: "change", alpha: 1, backed: true };
  return { lines, labels: [label(area.right - 2, level - 4, text, style)] };
}

const linear = ({ toleranceAt }) => (ratio) => ratio * toleranceAt;

function logarithmic({ toleranceAt, driftReach }) {
  const decade = (1 - toleranceAt) / Math.log10(driftReach);
  return (ratio) => toleranceAt + decade * Math.log10(Math.max(ratio, 1e-9));
}
