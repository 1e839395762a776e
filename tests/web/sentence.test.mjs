import assert from "node:assert/strict";
import { test } from "node:test";
import { course } from "../../web/lib/run/course.mjs";
import { description, stateLine, stepWords } from "../../web/lib/run/sentence.mjs";
import { english, run } from "./runs.mjs";

const words = english();
const line = (one) => stateLine(one, course(one), words);

const even = { worker: 100 }; // as long as this process takes

for (const [what, one, expected] of [
  [
    "running",
    run("EEpp", { mode: "paper" }),
    "Step 4 of 20 · about 1.98x so far, 2.41x by step count · 2nd device waits 20 ms a step · paper",
  ],
  ["starting", run("", { ratio: null, ideal: null }), "Starting · adaptive"],
  [
    "at_its_first_step",
    run("E", { ratio: null, ideal: 2 }, even),
    "Step 1 of 20 · 2.00x by step count · neither device waits · adaptive",
  ],
  [
    "done",
    run("EEEE", { status: "done", mode: "exact", ideal: 2 }, { worker: 120 }),
    "4 steps in 484 ms · about 1.98x (2.00x by step count) · 1st device waits 20 ms a step · exact",
  ],
  [
    "interrupted",
    run("EE", { status: "interrupted", mode: "exact" }, even),
    "Interrupted at step 2 of 20 · about 1.98x (2.41x by step count) · neither device waits · exact",
  ],
  [
    "failed",
    run("LL", { status: "failed", reasons: ["it is full"] }),
    "Failed at step 2 of 20 · on one device: it is full · adaptive",
  ],
  [
    "local",
    run("LL", { status: "done", reasons: ["there is no second GPU", "and no third"] }),
    "2 steps in 202 ms · on one device: there is no second GPU · and no third · adaptive",
  ],
  [
    "partly_local",
    run("EL", { reasons: ["it ended"], ratio: null, ideal: null }, even),
    "Step 2 of 20 · 1 step on one device: it ended · neither device waits · adaptive",
  ],
  [
    "whose_second_process_starts",
    run("LLE", { ratio: null, ideal: null }, even),
    "Step 3 of 20 · 2 steps on one device until the second process is ready · " +
      "neither device waits · adaptive",
  ],
  [
    "with_one_branch",
    run("ss", { status: "done" }),
    "2 steps in 202 ms · one branch only, nothing to share · adaptive",
  ],
  [
    "in_mode_off",
    run("LL", { status: "done", mode: "off" }),
    "2 steps in 202 ms · off: as KSampler, on one device",
  ],
  [
    "that_was_ksampler's",
    run("", { status: "done", mode: "off", reasons: ["cfg 1"] }),
    "Ran as KSampler, on one device · cfg 1",
  ],
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
  const pipelined = stepWords(one, course(one), 2, words);
  assert.deepEqual(pipelined.lines[0], ["Discrepancy (rel-MAE)", "not measured"]);
  assert.deepEqual(pipelined.lines[1], ["Evaluated", "negative prompt"]);
});

test("the_text_alternative_tells_stages_and_curve", () => {
  const one = run("EEppEpE", { status: "done" });
  const told = description(one, course(one), words);
  for (const part of [
    "Warm-Up: step 1 to 2",
    "Parallelism: step 3 to 6",
    "Fully-Connecting: step 7 to 7",
    "0.500 at first",
    "refresh: 1",
  ]) {
    assert.ok(told.includes(part), `${part} in ${told}`);
  }
});
