/** What a run's rows say: steps, stages, refreshes, and which side waited. Pure. */

import { isRunning } from "./store.mjs";

export const STAGES = ["warmup", "parallelism", "connecting"];

/**
 * The course of a run: steps (one for each row, kind "refresh" where an exact row is inside the
 * shortened part), tau1 and tau2 (row numbers where that part begins and ends, null without a short
 * row), stages [{name, from, to}) in rows, span (rows on the axis) and perStep (rows a step).
 */
export function course(run, kinds) {
  const short = run.rows.map(({ kind }) => kinds.isShort(kind));
  const first = short.indexOf(true);
  const tau1 = first < 0 ? null : first;
  const open = isRunning(run);
  const last = short.lastIndexOf(true) + 1;
  const tau2 = tau1 === null ? null : open ? short.length : last;
  const steps = run.rows.map((row, index) => stepOf(row, index, tau1, tau2));
  const perStep = rowsAStep(run);
  return {
    steps,
    tau1,
    tau2: open ? null : tau2,
    stages: stagesOf(run, tau1, tau2),
    perStep,
    span: Math.max(run.rows.length, Math.round((run.total || 0) * perStep), 1),
    open,
  };
}

/** A row, of which the fields are in hybrid_core/telling/live.py, and what its place says of it. */
function stepOf(row, index, tau1, tau2) {
  const { kind, own_ms: own, worker_ms: worker } = row;
  const inside = tau1 !== null && index >= tau1 && index < tau2;
  return {
    ...row,
    index,
    kind: inside && kind === "exact" ? "refresh" : kind,
    stage: tau1 === null || index < tau1 ? "warmup" : inside ? "parallelism" : "connecting",
    worker_waited_ms: own == null || worker == null ? null : Math.max(0, own - worker),
  };
}

function stagesOf(run, tau1, tau2) {
  if (tau1 === null) return [];
  const bounds = [0, tau1, tau2, run.rows.length];
  const stages = STAGES.map((name, i) => ({ name, from: bounds[i], to: bounds[i + 1] }));
  return stages.filter((stage) => stage.to > stage.from);
}

/** Rows a step: 1, or more for samplers that evaluate a step more than once. */
function rowsAStep(run) {
  for (let index = run.rows.length - 1; index >= 0; index--) {
    const { step } = run.rows[index];
    if (step == null) continue;
    const calls = Math.round((index + 1) / (step + 1));
    return index > step ? Math.max(1, calls) : 1;
  }
  return 1;
}

/**
 * Who waited for the other: {side: "own" | "worker" | null, ms in the mean of a step of both}, with
 * null where the difference is not worth a word; null without such steps.
 */
export function waiting(steps, kinds) {
  const timed = (step) => step.waited_ms != null && step.worker_waited_ms != null;
  const both = steps.filter((step) => kinds.isBoth(step.kind) && timed(step));
  if (!both.length) return null;
  const mean = (name) => both.reduce((sum, step) => sum + (step[name] ?? 0), 0) / both.length;
  const [own, worker, whole] = [mean("waited_ms"), mean("worker_waited_ms"), mean("ms")];
  const ms = Math.max(own, worker);
  if (ms < 0.5 || ms < 0.03 * whole) return { side: null, ms };
  return { side: own >= worker ? "own" : "worker", ms };
}

/** How many steps are of each kind that occurs, refreshes among the full ones: [[kind, count]]. */
export function counts(steps, kinds) {
  const found = new Map();
  for (const { kind } of steps) {
    const counted = kinds.countsAs(kind);
    found.set(counted, (found.get(counted) ?? 0) + 1);
  }
  const rank = (kind) => (kinds.names.indexOf(kind) + 1 || Infinity);
  return [...found].sort(([one], [other]) => rank(one) - rank(other));
}

/** The number of a step as a person counts, from 1: "7", or "7b" for a second evaluation of it. */
export function stepName(steps, index) {
  let first = index; // of the evaluations of this step
  while (first > 0 && steps[first].step == null) first--;
  const { step } = steps[first];
  if (step == null) return `${index + 1}`;
  while (first > 0 && steps[first - 1].step === step) first--;
  const nth = index - first;
  return `${step + 1}${nth ? String.fromCharCode(97 + Math.min(nth, 25)) : ""}`;
}

/** The last step reached, from 1; 0 before the first. */
export function reached(steps) {
  const step = steps.findLast((one) => one.step != null)?.step;
  return step == null ? steps.length : step + 1;
}
