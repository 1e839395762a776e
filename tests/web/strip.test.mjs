import assert from "node:assert/strict";
import { test } from "node:test";
import { strip } from "../../web/lib/plot/strip.mjs";
import { course } from "../../web/lib/run/course.mjs";
import { kinds, run } from "./runs.mjs";

const view = { width: 270, height: 13, hover: null };
const drawn = (one, changes = {}) =>
  strip(one && { run: one, course: course(one, kinds) }, { ...view, ...changes }, kinds);
const heights = ({ shapes }, ink) => {
  const mine = shapes.filter((shape) => shape.ink === ink);
  return Math.max(...mine.map(({ y, h }) => 13 - y + 0 * h));
};

test("a_cell_is_as_high_as_its_kind_costs", () => {
  const found = drawn(run("EpFL", { total: 4, status: "done" }));
  const [full, short, foreseen, alone] = ["exact", "pipelined", "forecast", "local"].map((kind) =>
    heights(found, kind),
  );
  assert.ok(full > short && short > foreseen && foreseen > 0);
  assert.equal(alone, full);
});

test("everything_is_inside_at_every_length_and_width", () => {
  for (const letters of ["", "E", "EpEFLsd", "Ep".repeat(100)]) {
    for (const width of [60, 270, 900]) {
      for (const { x, y, w = 0, h = 0, points } of drawn(run(letters), { width, hover: 0 }).shapes) {
        const [left, top, right, low] = points ?? [x, y, x + w, y + h];
        assert.ok(left >= 0 && right <= width + 0.01 && top >= -0.01 && low <= 13.01);
      }
    }
  }
});

test("what_is_to_come_is_a_low_groove", () => {
  const grooves = ({ shapes }) => shapes.filter(({ ink, h }) => ink === "text" && h === 3).length;
  assert.equal(grooves(drawn(run("EEE"))), 17);
  assert.equal(grooves(drawn(run("EEE", { total: 3, status: "done" }))), 0);
  assert.equal(grooves(drawn(null)), 20);
});

test("the_pointer_finds_the_nearest_step_that_is_there", () => {
  const found = drawn(run("EEEEE"));
  assert.equal(found.nearest(found.x(3)), 3);
  assert.equal(found.nearest(250), 4);
  assert.equal(drawn(run("")).nearest(100), null);
});
