import assert from "node:assert/strict";
import { test } from "node:test";
import { stepTicks, valueScale } from "../../web/lib/plot/axes.mjs";

test("a_linear_scale_begins_at_zero_and_ends_at_a_round_number", () => {
  const scale = valueScale([0.02, 0.43], false);
  assert.deepEqual(scale.ticks, [0, 0.2, 0.4, 0.6]);
  assert.deepEqual([scale.at(0), scale.at(0.3), scale.at(0.6), scale.at(9)], [0, 0.5, 1, 1]);
});

test("a_logarithmic_scale_holds_its_values_and_has_ticks_among_them", () => {
  for (const values of [[0.02, 0.43], [0.3, 0.31], [1e-5, 2], [0.004]]) {
    const scale = valueScale(values, true);
    for (const value of values) assert.ok(scale.at(value) > 0 && scale.at(value) < 1, `${values}`);
    assert.ok(scale.ticks.length >= 1 && scale.ticks.length <= 4, `${values}: ${scale.ticks}`);
    for (const tick of scale.ticks) {
      assert.ok(tick >= scale.low * 0.99 && tick <= scale.high * 1.01, `${tick}`);
    }
  }
});

test("what_a_logarithm_does_not_have_is_at_the_bottom", () => {
  const scale = valueScale([0, 0.1, null, NaN], true);
  assert.equal(scale.at(0), 0);
  assert.ok(Number.isFinite(scale.low) && Number.isFinite(scale.high));
});

test("a_scale_without_values_is_usable", () => {
  for (const log of [true, false]) {
    const scale = valueScale([null], log);
    assert.deepEqual(scale.ticks, []);
    assert.ok(scale.at(0.3) > 0 && scale.at(0.3) < 1);
  }
});

test("ticks_of_steps_are_round_and_few", () => {
  assert.deepEqual(stepTicks(20, 6), [1, 5, 10, 15, 20]);
  assert.deepEqual(stepTicks(1, 6), [1]);
  assert.deepEqual(stepTicks(4, 6), [1, 2, 3, 4]);
  assert.deepEqual(stepTicks(200, 6), [1, 50, 100, 150, 200]);
  for (const total of [2, 7, 30, 1000]) assert.ok(stepTicks(total, 6).length <= 7, `${total}`);
});
