/** A run in words: the node's sentence, what there is behind it, a step's numbers. Pure. */

import { counts, reached, stepName, waiting } from "./course.mjs";
import { duration, number, plain } from "./figures.mjs";
import { isRunning } from "./store.mjs";

const FASTER = 1.05; // a ratio from which a run is called faster

/**
 * {lead, parts}: how far the run is, and what else is worth its place on the node, most important
 * first. shown: {run, course, before} or null. told: {words, kinds}.
 */
export function sentence(shown, told) {
  const { words } = told;
  if (!shown) return { lead: words.text("state.none"), parts: [] };
  const { run } = shown;
  const parts = run.mode === "off" ? offParts(shown, told) : sharedParts(shown, told);
  return { lead: lead(shown, words), parts };
}

/** The sentence as one line. */
export function sentenceLine(shown, told) {
  const { lead: first, parts } = sentence(shown, told);
  return [first, ...parts].join(" · ");
}

function lead({ run, course }, words) {
  const at = reached(course.steps);
  const total = Math.max(run.total ?? 0, at);
  if (isRunning(run) && !at) return words.text("state.starting");
  if (run.status !== "done") return words.text(`state.${run.status}`, { step: at, total });
  const ms = taken(run, course);
  return ms ? duration(ms) : words.text("state.done");
}

/** Milliseconds of the whole run: what it took, or what its steps took where that is not known. */
function taken(run, course) {
  if (run.seconds != null) return run.seconds * 1000;
  return course.steps.reduce((sum, step) => sum + (step.ms ?? 0), 0);
}

function offParts({ run, course, before }, { words }) {
  const parts = [words.text("off.alone"), ...run.reasons];
  const mine = taken(run, course);
  const theirs = before && before.run.mode !== "off" && before.run.status === "done";
  const other = theirs ? taken(before.run, before.course) : 0;
  if (run.status === "done" && mine && other) {
    const ratio = number(mine / other, 2);
    parts.push(words.text("off.against", { time: duration(other), ratio }));
  }
  return parts;
}

function sharedParts({ run, course }, { words, kinds }) {
  const found = counts(course.steps, kinds);
  const alone = found.every(([kind]) => !kinds.isBoth(kind) && !kinds.isShort(kind));
  const why = reasons(run, found, { words, kinds });
  if (run.status === "failed") return why;
  const faster = alone ? [] : ratio(run, course, { words, kinds });
  if (isRunning(run)) return [...faster, ...why];
  const list = found.length ? [countList(found, words)] : [];
  return alone && why.length ? why : [...faster, ...why, ...uneven(run.who), ...list];
}

const UNEVEN = 0.05; // of a share, before the sentence says who did how much

/** "RTX 4090 62 %, RTX 3060 38 %". */
export function whoDid(who) {
  return who.map(({ device, share }) => `${shortName(device)} ${Math.round(100 * share)} %`).join(", ");
}

/** A card without its maker and number. */
function shortName(device) {
  return device.replace(/^GPU \d+, /, "").replace(/^NVIDIA (GeForce )?/, "");
}

function uneven(who = []) {
  const even = who.every(({ share }) => Math.abs(share - 1 / who.length) < UNEVEN);
  return who.length > 2 || (who.length === 2 && !even) ? [whoDid(who)] : [];
}

function ratio(run, course, { words, kinds }) {
  if (run.ratio == null) return [];
  if (run.ratio < FASTER) return isRunning(run) ? [] : [words.text("ratio.none")];
  const both = course.steps.some(({ kind }) => kinds.isBoth(kind));
  const key = isRunning(run) ? "ratio.running" : both ? "ratio.done" : "ratio.alone";
  return [words.text(key, { ratio: number(run.ratio, 2) })];
}

/** "31 full, 19 short steps". */
function countList(found, words) {
  const items = found.map(([kind, count]) =>
    words.text("count.item", { count, kind: words.text(`kind.${kind}`) }),
  );
  const list = items.reduce((all, item) => words.text("count.and", { list: all, item }));
  return words.counted("count.list", found.at(-1)[1], { list });
}

function reasons(run, found, { words, kinds }) {
  const known = new Map(found);
  const rows = run.rows.length;
  const local = known.get("local") ?? 0;
  const joined = found.some(([kind]) => kinds.isBoth(kind));
  if (run.reasons.length && local && local === rows) {
    const [reason, ...rest] = run.reasons;
    return [words.text("local.all", { reason: sentenceEnd(reason) }), ...rest.map(sentenceEnd)];
  }
  if (run.reasons.length) return run.reasons.map(sentenceEnd);
  if (rows && !joined && (run.waiting || local === rows)) {
    return [words.text(isRunning(run) ? "local.getting_ready" : "local.unready")];
  }
  if (joined && (run.waiting || local)) return [words.text("local.some.unready")];
  if (known.get("single") === rows && rows) return [words.text("local.single")];
  return [];
}

const sentenceEnd = (reason) => reason.replace(/\.$/, "");

/** What is behind the sentence: {title, lines: [[name, value]]}. */
export function details(shown, told) {
  const { words, kinds } = told;
  const { lead: title } = sentence(shown, told);
  if (!shown) return { title, lines: [] };
  const { run, course } = shown;
  const lines = [];
  const add = (key, value) => lines.push([words.text(key), value]);
  add("details.mode", modeWords(run, words));
  if (course.steps.length && run.mode !== "off") {
    if (run.ratio != null) add("details.ratio", words.text("details.about", { ratio: number(run.ratio) }));
    if (run.ideal != null) add("details.ideal", words.text("details.times", { ratio: number(run.ideal) }));
  }
  for (const [kind, count] of counts(course.steps, kinds)) {
    lines.push([words.text("details.count", { kind: words.text(`kind.${kind}`) }), String(count)]);
  }
  const waits = waiting(course.steps, kinds);
  if (waits) {
    const time = duration(waits.ms);
    add("details.waits", words.text(`wait.${waits.side ?? "none"}`, { time }));
  }
  if (run.who?.length > 1) add("details.who", whoDid(run.who));
  for (const reason of run.reasons) add("details.reason", reason);
  if (run.unshortened) add("details.unshortened", run.unshortened);
  return { title, lines };
}

function modeWords(run, words) {
  const mode = words.text(`mode.${run.mode}`);
  if (run.tolerance == null) return mode;
  return words.text("details.tolerance", { mode, tolerance: plain(run.tolerance) });
}

/** A step in words: {title, says, lines: [[name, value]]}. */
export function stepWords({ run, course }, index, { words }) {
  const step = course.steps[index];
  const kind = words.text(`kind.${step.kind}`);
  const name = stepName(course.steps, index);
  const title = words.text("step.title", { step: name, total: run.total, kind });
  const lines = [[words.text("step.time"), duration(step.ms)]];
  if (step.discrepancy != null) {
    lines.push([words.text("step.difference"), number(step.discrepancy)]);
  }
  if (step.drift != null) {
    const [change, tolerance] = [number(step.drift, 2), plain(run.tolerance)];
    const value = run.tolerance == null ? change : words.text("step.change.of", { change, tolerance });
    lines.push([words.text("step.change"), value]);
  }
  if (step.branch != null) lines.push([words.text("step.branch"), words.text(`branch.${step.branch}`)]);
  const add = (key, ms, waited) => lines.push([words.text(key), sideWords(ms, waited, words)]);
  if (step.own_ms != null) add("step.own", step.own_ms, step.waited_ms);
  if (step.worker_ms != null) add("step.worker", step.worker_ms, step.worker_waited_ms);
  return { title, says: words.text(`kind.${step.kind}.says`), lines };
}

function sideWords(ms, waited, words) {
  const time = duration(ms);
  if (waited == null || waited < Math.max(0.5, 0.02 * ms)) return time;
  return words.text("step.waited", { time, waited: duration(waited) });
}

/** What the plot shows, for those who do not see it. */
export function description(shown, told) {
  const { words, kinds } = told;
  const sentences = [words.text("alt.title", { state: sentenceLine(shown, told) })];
  if (!shown) return sentences[0];
  const { course } = shown;
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
  const found = counts(course.steps, kinds);
  if (found.length) sentences.push(countList(found, words));
  return sentences.map((one) => one.replace(/\.$/, "")).join(". ") + ".";
}
