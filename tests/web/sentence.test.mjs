import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { course } from "../../web/lib/run/course.mjs";
import { description, details, sentenceLine, stepWords, whoDid } from "../../web/lib/run/sentence.mjs";
import { english, kinds, run } from "./runs.mjs";

const told = { words: english(), kinds };
const both = (one) => ({ run: one, course: course(one, kinds) });
const shown = (one, before = null) => ({ ...both(one), before: before && both(before) });
const line = (one, before) => sentenceLine(shown(one, before), told);

const even = { worker: 100 }; // as long as this process takes
const done = { status: "done" };

// Hybrid Curve Image says the same: tests/unit/test_curve_image.py reads this file too.
const SENTENCES = JSON.parse(readFileSync(new URL("sentences.json", import.meta.url), "utf-8"));

for (const { name, letters, run: changes, sentence } of SENTENCES) {
  test(`the_sentence_of_a_run_${name.replaceAll(" ", "_")}`, () => {
    const one = run(letters, changes);
    for (const row of one.rows) row.ms = 100;
    assert.equal(line(one), sentence);
  });
}

for (const [what, one, expected] of [
  ["running", run("EEpp", { ratio: 1.71 }), "Step 4 of 20 · 1.7x faster than one GPU so far"],
  ["starting", run("", { ratio: null, ideal: null }), "Starting"],
  ["at_its_first_step", run("E", { ratio: null, ideal: 2 }, even), "Step 1 of 20"],
  [
    "whose_second_process_starts",
    run("LLE", { ratio: null, ideal: null }, even),
    "Step 3 of 20 · the second GPU joined on the way",
  ],
  [
    "that_waits_for_its_second_process",
    run("LLF", { ratio: null, ideal: null, waiting: 2 }, even),
    "Step 3 of 20 · the second GPU is getting ready",
  ],
  [
    "of_which_the_whole_time_is_known",
    run("EEppEpE", { ...done, ratio: 1.83, seconds: 16.14 }),
    "16.1 s · 1.8x faster than one GPU · 4 full, 3 short steps",
  ],
  ["in_mode_off", run("", { ...done, mode: "off", seconds: 24.3 }), "24.3 s · mode off"],
]) {
  test(`the_sentence_of_a_run_${what}`, () => assert.equal(line(one), expected));
}

test("mode_off_is_told_against_the_run_before", () => {
  const before = run("EE", { ...done, run: "b", seconds: 13.5 });
  const off = run("", { ...done, mode: "off", seconds: 24.3 });
  assert.equal(line(off, before), "24.3 s · mode off · before: 13.5 s, 1.8x faster");
  assert.equal(line(off, { ...before, mode: "off" }), "24.3 s · mode off");
});

test("a_node_without_a_run_says_what_will_be_here", () => {
  assert.match(sentenceLine(null, told), /during a run/);
});

test("behind_the_sentence_is_everything_else", () => {
  const one = run("EEppL", { ...done, reasons: ["it ended"] });
  assert.deepEqual(details(shown(one), told).lines, [
    ["Mode", "adaptive, tolerance 0.006"],
    ["Against one GPU, by time", "about 1.98x"],
    ["By counting steps", "2.41x"],
    ["Steps: full", "2"],
    ["Steps: short", "2"],
    ["Steps: one-GPU", "1"],
    ["Waits for the other", "the second GPU, 20 ms a step"],
    ["Note", "it ended"],
  ]);
});

test("a_steps_words_leave_out_what_is_not_measured", () => {
  const one = run("EEpp");
  const exact = stepWords(shown(one), 1, told);
  assert.equal(exact.title, "Step 2 of 20: full");
  assert.equal(exact.says, "Both prompts in full, one on each GPU.");
  assert.deepEqual(exact.lines, [
    ["Time", "101 ms"],
    ["Difference of the prompts", "0.250"],
    ["Expected change of the image", "0.0050 of 0.006 allowed"],
    ["First GPU", "100 ms"],
    ["Second GPU", "80 ms, waits 20 ms"],
  ]);
  const short = stepWords(shown(one), 2, told);
  assert.deepEqual(short.lines[1], ["Computed", "negative prompt"]);
});

test("a_kind_that_this_page_does_not_know_is_named_as_it_is", () => {
  const one = run("E", done);
  one.rows[0].kind = "warped";
  assert.match(line(one), /1 kind.warped step/);
});

test("the_text_alternative_tells_stages_and_curve", () => {
  const one = run("EEppEpE", done);
  const said = description(shown(one), told);
  for (const part of ["Full: step 1 to 2", "Shortened: step 3 to 6", "Finish: step 7 to 7", "0.500 at first", "4 full, 3 short steps"]) {
    assert.ok(said.includes(part), `${part} in ${said}`);
  }
});

test("who did how much names cards without their maker and number", () => {
  const who = [
    { device: "NVIDIA GeForce RTX 4090", share: 0.62 }, { device: "GPU 1, NVIDIA GeForce RTX 3060", share: 0.38 },
  ];
  assert.equal(whoDid(who), "RTX 4090 62 %, RTX 3060 38 %");
});
