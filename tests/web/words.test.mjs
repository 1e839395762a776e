import assert from "node:assert/strict";
import { test } from "node:test";
import { duration, number, plain } from "../../web/lib/run/figures.mjs";
import { Words } from "../../web/lib/shell/words.mjs";
import { kinds } from "./runs.mjs";

const messages = {
  en: {
    hybrid_ksampler: {
      hello: "Hello {name}",
      "step.one": "{count} step",
      "step.other": "{count} steps",
      only: "only here",
    },
  },
  ja: { hybrid_ksampler: { hello: "{name}さん" } },
  fr: { g: {} },
};

const words = new Words();
const text = (...given) => words.text(...given);

test("nothing_is_said_before_the_words_are_there", () => {
  assert.equal(text("hello"), "");
});

test("the_language_in_use_is_asked_each_time", () => {
  let language = "ja";
  words.load(messages, () => language);
  assert.equal(text("hello", { name: "A" }), "Aさん");
  language = "en";
  assert.equal(text("hello", { name: "A" }), "Hello A");
});

test("what_a_language_lacks_is_english_and_what_nobody_has_is_the_key", () => {
  for (const language of ["ja", "fr", "xx"]) {
    words.load(messages, () => language);
    assert.equal(text("only"), "only here");
    assert.equal(text("nowhere"), "nowhere");
  }
});

test("a_placeholder_without_a_value_stays", () => {
  words.load(messages, () => "en");
  assert.equal(text("hello"), "Hello {name}");
  assert.equal(words.counted("step", 1), "1 step");
  assert.equal(words.counted("step", 20), "20 steps");
});

test("numbers_and_durations_are_written_for_people", () => {
  const numbers = [0.04321, 1.98, 12.345, 1234.5, 0, null, NaN, 1e-7].map((one) => number(one));
  const written = ["0.0432", "1.98", "12.3", "1235", "0", "–", "–", "0.000000100"];
  assert.deepEqual(numbers, written);
  assert.deepEqual([0.006, 0.0125, 1, null].map(plain), ["0.006", "0.0125", "1", "–"]);
  const times = [0.52, 8, 812.4, 6903, 200_000, null].map(duration);
  assert.deepEqual(times, ["0.52 ms", "8.0 ms", "812 ms", "6.9 s", "3 min 20 s", "–"]);
});

test("every_kind_line_and_stage_has_its_words_in_the_four_languages", () => {
  const found = kinds.words();
  assert.deepEqual(Object.keys(found).sort(), ["en", "ja", "ko", "zh"]);
  const keys = Object.keys(found.en);
  for (const kind of kinds.names) assert.ok(keys.includes(`kind.${kind}.says`), kind);
  for (const key of ["line.difference.says", "line.change", "stage.warmup", "stage.connecting"]) {
    assert.ok(keys.includes(key), key);
  }
  for (const texts of Object.values(found)) {
    assert.deepEqual(Object.keys(texts), keys);
    for (const [key, text] of Object.entries(texts)) assert.ok(text.trim(), key);
  }
});
