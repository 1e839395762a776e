import assert from "node:assert/strict";
import { test } from "node:test";
import { course } from "../../web/lib/course.mjs";
import { description, stateLine, stepWords } from "../../web/lib/state.mjs";
import { english, run } from "./runs.mjs";

const words = english();
const line = (one) => stateLine(one, course(one), words);

for (const [what, one, expected] of [
  ["running", run("EEpp"), "Step 4 of 20 · 1.98x so far, 2.41x by step count · 2nd device waits 20 ms a step · adaptive"],
  ["starting", run("", { ratio: null, ideal: null }), "Starting · adaptive"],
  ["first_step", run("E", { ratio: null, ideal: 2 }, { worker: 100 }), "Step 1 of 20 · 2.00x by step count · neither device waits · adaptive"],
  ["done", run("EEEE", { status: "done", total: 4, mode: "exact", ideal: 2 }, { worker: 120 }), "4 steps in 484 ms · 1.98x (2.00x by step count) · 1st device waits 20 ms a step · exact"],
  ["interrupted", run("EE", { status: "interrupted" }, { worker: 100 }), "Interrupted at step 2 of 20 · 1.98x (2.41x by step count) · neither device waits · adaptive"],
  ["failed", run("LL", { status: "failed" }), "Failed at step 2 of 20 · on one device while the second process starts · adaptive"],
  ["local", run("LL", { status: "done", reasons: ["there is no second GPU"] }), "2 steps in 202 ms · on one device: there is no second GPU · adaptive"],
  ["partly_local", run("EL", { reasons: ["it ended"] }, { worker: 100 }), "Step 2 of 20 · 1.98x so far, 2.41x by step count · 1 step on one device: it ended · neither device waits · adaptive"],
  ["starting_the_second_process", run("LLE", {}, { worker: 100 }), "Step 3 of 20 · 1.98x so far, 2.41x by step count · 2 steps on one device while the second process starts · neither device waits · adaptive"],
  ["one_branch", run("ss", { status: "done" }), "2 steps in 202 ms · one branch only, nothing to share · adaptive"],
  ["off", run("LL", { status: "done", mode: "off" }), "2 steps in 202 ms · off: as KSampler, on one device"],
  ["ksampler's_own", run("", { status: "done", mode: "off", reasons: ["cfg 1"] }), "Ran as KSampler, on one device · cfg 1"],
]) {
  test(`the_line_of_a_run_${what}`, () => assert.equal(line(one), expected));
}

test("a_node_without_a_run_says_what_will_be_here", () => {
  assert.match(stateLine(null, null, words), /when this node runs/);
});

test("a_steps_words_name_what_is_not_measured", () => {
  const one = run("EEpp");
  const exact = stepWords(one, course(one), 1, words);
  assert.equal(exact.title, "Step 2 of 20: exact");
  assert.equal(exact.stage, "Warm-Up");
  assert.deepEqual(exact.lines, [
    ["Discrepancy (rel-MAE)", "0.250"],
    ["Expected drift", "0.0050 of 0.006"],
    ["Sigma", "9.90"],
    ["Time", "101 ms"],
    ["First device", "100 ms"],
    ["Second device", "80 ms, waits 20 ms"],
  ]);
  assert.deepEqual(stepWords(one, course(one), 2, words).lines[0], ["Discrepancy (rel-MAE)", "not measured"]);
});

test("the_text_alternative_tells_stages_and_curve", () => {
  const one = run("EEppEpE", { status: "done" });
  const told = description(one, course(one), words);
  for (const part of ["Warm-Up: step 1 to 2", "Parallelism: step 3 to 6", "Fully-Connecting: step 7 to 7", "0.500 at first", "refresh: 1"]) {
    assert.ok(told.includes(part), `${part} in ${told}`);
  }
});
