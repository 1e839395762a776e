/** A run as a table for other programs. Pure. */

const COLUMNS = [
  ["step", (step) => (step.step == null ? null : step.step + 1)],
  ["kind", (step) => step.kind],
  ["branch", (step) => step.branch],
  ["stage", (step, course) => (course.stages.length ? step.stage : null)],
  ["sigma", (step) => step.sigma],
  ["rel_mae", (step) => step.discrepancy],
  ["drift", (step) => step.drift],
  ["tolerance", (step, course, run) => run.tolerance],
  ["ms", (step) => step.ms],
  ["own_ms", (step) => step.own_ms],
  ["worker_ms", (step) => step.worker_ms],
  ["own_waited_ms", (step) => step.waited_ms],
  ["worker_waited_ms", (step) => step.worker_waited_ms],
];

/** Comma-separated values with a header; steps count from 1 as in the plot, times are in ms. */
export function csv(run, course) {
  const header = COLUMNS.map(([name]) => name).join(",");
  const cells = (step) => COLUMNS.map(([, value]) => cell(value(step, course, run)));
  const lines = course.steps.map((step) => cells(step).join(","));
  return [header, ...lines, ""].join("\r\n");
}

function cell(value) {
  if (value == null) return "";
  return typeof value === "number" ? String(Number(value.toPrecision(7))) : value;
}

/** A file name for a run: "hybrid_2026-11-21_15-49-25_adaptive.csv", in local time. */
export function fileName(run, extension) {
  const at = new Date((run.started ?? 0) * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join("-");
  return `hybrid_${day}_${time}_${run.mode}.${extension}`;
}
