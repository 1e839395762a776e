import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Calm } from "../../web/lib/plot/calm.mjs";

/** How often a Calm of 2 s acts when `changes` (ms, occasion) come, until 10 s. */
function acts(changes) {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { now } = performance;
  let ms = 1000;
  performance.now = () => ms;
  try {
    const at = [];
    const calm = new Calm(2000, () => at.push(ms - 1000));
    for (let step = 0; step < 10_000; step += 100) {
      for (const [when, occasion] of changes) if (when === step) calm.changed(occasion);
      ms += 100;
      mock.timers.tick(100);
    }
    return at;
  } finally {
    performance.now = now;
    mock.timers.reset();
  }
}

test("changes_that_follow_each_other_are_told_with_a_pause_and_the_last_one_too", () => {
  const changes = Array.from({ length: 30 }, (_, i) => [i * 100, "run"]);
  assert.deepEqual(acts(changes), [0, 2000, 4000]);
});

test("a_new_occasion_does_not_wait", () => {
  assert.deepEqual(acts([[0, "running"], [100, "running"], [300, "done"]]), [0, 300]);
});

test("one_change_is_told_once", () => {
  assert.deepEqual(acts([[500, "run"]]), [500]);
});
