/** A run in words: the line of the node, a step's numbers, and the text alternative. Pure. */

import { counts, reached, stepName, waiting } from "./course.mjs";
import { duration, number, plain } from "./figures.mjs";
import { isRunning } from "./store.mjs";

/** {lead, parts}: how far the run is, and what else there is to say, most important first. */
export function stateOf(run, course, words) {
  if (!run) return { lead: words.text("state.none"), parts: [] };
  return { lead: progress(run, course, words), parts: details(run, course, words) };
}

/** The state as one line. */
export function stateLine(run, course, words) {
  const { lead, parts } = stateOf(run, course, words);
  return [lead, ...parts].join(" · ");
}

function progress(run, course, words) {
  const at = reached(course.steps);
  const total = Math.max(run.total ?? 0, at);
  if (isRunning(run) && !at) return words.text("state.starting");
  const taken = course.steps.reduce((sum, step) => sum + (step.ms ?? 0), 0);
  if (run.status === "done" && !at) return words.text("state.alone");
  const time = duration(taken);
  if (run.status === "done") return words.counted("state.done", at, { time });
  return words.text(`state.${run.status}`, { step: at, total });
}

function details(run, course, words) {
  const found = counts(course.steps);
  const rows = course.steps.length;
  const alone = rows > 0 && found.local + found.single === rows;
  const mode = words.text(`mode.${run.mode}`);
  if (run.mode === "off") return [...run.reasons, ...(rows ? [mode] : [])];
  const side = waitingWords(waiting(course.steps), words);
  const faster = alone || !rows ? [] : ratios(run, words);
  const why = whyLocal(run, found, rows, words);
  const first = run.status === "failed" ? [...why, ...faster] : [...faster, ...why];
  return [...first, side, mode].filter(Boolean);
}

function waitingWords(waits, words) {
  if (!waits?.side) return waits && words.text("wait.none");
  return words.text(`wait.${waits.side}`, { time: duration(waits.ms) });
}

function ratios(run, words) {
  const ideal = number(run.ideal, 3);
  if (run.ratio == null) return run.ideal == null ? [] : [words.text("ratio.ideal", { ideal })];
  const ratio = number(run.ratio, 3);
  return [words.text(isRunning(run) ? "ratio.running" : "ratio.done", { ratio, ideal })];
}

function whyLocal(run, found, rows, words) {
  const reasons = run.reasons ?? [];
  const unready = reasons.length ? "" : ".unready"; // nothing failed: it is yet to come
  let said = null;
  if (found.local === rows && rows) said = words.text(`local.all${unready}`);
  else if (found.local) said = words.counted(`local.some${unready}`, found.local);
  else if (found.single && found.single === rows) said = words.text("local.single");
  if (said && reasons.length) return [`${said}: ${reasons[0]}`, ...reasons.slice(1)];
  return said ? [said] : reasons;
}

/** A step in words: {title, lines: [[name, value]]}. */
export function stepWords(run, course, index, words) {
  const step = course.steps[index];
  const kind = words.text(`kind.${step.kind}`);
  const name = stepName(course.steps, index);
  const title = words.text("step.title", { step: name, total: run.total, kind });
  const stage = course.stages.length ? words.text(`stage.${step.stage}`) : null;
  const known = step.discrepancy != null;
  const measured = known ? number(step.discrepancy) : words.text("step.unknown");
  const lines = [[words.text("step.discrepancy"), measured]];
  if (step.drift != null) {
    const [drift, tolerance] = [number(step.drift, 2), plain(run.tolerance)];
    const value = run.tolerance == null ? drift : words.text("step.drift.of", { drift, tolerance });
    lines.push([words.text("step.drift"), value]);
  }
  if (step.branch != null) lines.push([words.text("step.branch"), words.text(`branch.${step.branch}`)]);
  lines.push([words.text("step.sigma"), number(step.sigma)]);
  lines.push([words.text("step.time"), duration(step.ms)]);
  const add = (name, ms, waited) => lines.push([words.text(name), sideWords(ms, waited, words)]);
  if (step.own_ms != null) add("step.own", step.own_ms, step.waited_ms);
  if (step.worker_ms != null) add("step.worker", step.worker_ms, step.worker_waited_ms);
  return { title, stage, lines };
}

function sideWords(ms, waited, words) {
  const time = duration(ms);
  if (waited == null || waited < Math.max(0.5, 0.02 * ms)) return time;
  return words.text("step.waited", { time, waited: duration(waited) });
}

/** What the plot shows, for those who do not see it. */
export function description(run, course, words) {
  const sentences = [words.text("alt.title", { state: stateLine(run, course, words) })];
  if (!run) return sentences[0];
  for (const stage of course.stages) {
    sentences.push(
      words.text("alt.stage", {
        stage: words.text(`stage.${stage.name}`),
        from: stepName(course.steps, stage.from),
        to: stepName(course.steps, stage.to - 1),
      }),
    );
  }
  const seen = course.steps.filter((step) => step.discrepancy != null);
  if (seen.length) {
    const lowest = seen.reduce((low, step) => (step.discrepancy < low.discrepancy ? step : low));
    sentences.push(
      words.text("alt.curve", {
        first: number(seen[0].discrepancy),
        lowest: number(lowest.discrepancy),
        step: stepName(course.steps, lowest.index),
        last: number(seen.at(-1).discrepancy),
      }),
    );
  }
  const found = counts(course.steps);
  const kinds = Object.keys(found).filter((kind) => found[kind]);
  const counted = kinds.map((kind) => `${words.text(`kind.${kind}`)}: ${found[kind]}`);
  if (counted.length) sentences.push(counted.join(", "));
  return sentences.map((sentence) => sentence.replace(/\.$/, "")).join(". ") + ".";
}
