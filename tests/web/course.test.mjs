import assert from "node:assert/strict";
import { test } from "node:test";
import { counts, course as courseOf, reached, stepName, waiting } from "../../web/lib/run/course.mjs";
import { kinds as all, rows, run } from "./runs.mjs";

const course = (one) => courseOf(one, all);

const kinds = (found) => found.steps.map((step) => all.of(step.kind).letter).join("");
const stages = (found) => found.stages.map(({ name, from, to }) => `${name} ${from}-${to}`);

for (const [what, status, sent, seen, bounds] of [
  ["no_short_step", "done", "EEEE", "EEEE", []],
  ["one_block", "done", "EEpppE", "EEpppE", ["warmup 0-2", "parallelism 2-5", "connecting 5-6"]],
  ["refreshes", "done", "EEppEpE", "EEppRpE", ["warmup 0-2", "parallelism 2-6", "connecting 6-7"]],
  ["foreseen_steps", "done", "EFEFpE", "EFRFpE", ["warmup 0-1", "parallelism 1-5", "connecting 5-6"]],
  ["one_device", "done", "LLFLFL", "LLFLFL", ["warmup 0-2", "parallelism 2-5", "connecting 5-6"]],
  ["end_in_parallelism", "done", "EEpp", "EEpp", ["warmup 0-2", "parallelism 2-4"]],
  ["still_running", "running", "EEppE", "EEppR", ["warmup 0-2", "parallelism 2-5"]],
  ["an_end", "interrupted", "EEppE", "EEppE", ["warmup 0-2", "parallelism 2-4", "connecting 4-5"]],
  ["local_steps", "done", "EEpLL", "EEpLL", ["warmup 0-2", "parallelism 2-3", "connecting 3-5"]],
]) {
  test(`stages_with_${what}`, () => {
    const found = course(run(sent, { status }));
    assert.equal(kinds(found), seen);
    assert.deepEqual(stages(found), bounds);
  });
}

test("tau2_is_known_when_the_run_has_ended", () => {
  assert.deepEqual([course(run("EppE")).tau1, course(run("EppE")).tau2], [1, null]);
  assert.equal(course(run("EppE", { status: "done" })).tau2, 3);
  assert.equal(course(run("EEEE")).tau1, null);
});

test("a_mode_without_stages_has_none", () => {
  assert.deepEqual(course(run("EEEE", { mode: "exact" })).stages, []);
  assert.deepEqual(course(run("LLLL")).stages, []);
});

test("the_axis_has_the_schedules_steps_and_more_for_samplers_with_two_calls", () => {
  assert.equal(course(run("EEE")).span, 20);
  const heun = course(run("", { rows: rows("EEEEEE", { calls: 2 }) }));
  assert.deepEqual([heun.perStep, heun.span], [2, 40]);
  assert.deepEqual([0, 1, 2, 3].map((i) => stepName(heun.steps, i)), ["1", "1b", "2", "2b"]);
  assert.equal(reached(heun.steps), 3);
});

test("rows_off_the_schedule_count_to_the_step_before", () => {
  const found = rows("EEEE").map((row, i) => ({ ...row, step: [0, null, 1, null][i] }));
  const { steps, perStep } = course(run("", { rows: found }));
  assert.deepEqual([0, 1, 2, 3].map((i) => stepName(steps, i)), ["1", "1b", "2", "2b"]);
  assert.equal(perStep, 2);
  assert.equal(reached(steps), 2);
});

test("the_side_that_waits_is_the_faster_one", () => {
  const side = (own, worker) => waiting(course(run("EEpp", {}, { own, worker })).steps, all);
  assert.deepEqual(side(100, 80), { side: "worker", ms: 20 });
  assert.deepEqual(side(80, 100), { side: "own", ms: 20 });
  assert.equal(side(100, 99.5).side, null);
  assert.equal(waiting(course(run("LLs")).steps, all), null);
});

test("an_empty_run_has_a_course", () => {
  const found = course(run("", { total: 0 }));
  assert.deepEqual([found.steps, found.stages, found.span, reached(found.steps)], [[], [], 1, 0]);
});

test("steps_are_counted_by_kind_and_refreshes_are_full_ones", () => {
  const found = counts(course(run("EppEpFL")).steps, all);
  assert.deepEqual(found, [["exact", 2], ["pipelined", 3], ["forecast", 1], ["local", 1]]);
});
