import assert from "node:assert/strict";
import { test } from "node:test";
import { course } from "../../web/lib/run/course.mjs";
import { scene } from "../../web/lib/plot/scene.mjs";
import { english, kinds, run } from "./runs.mjs";

const words = english();
const measure = (text, size) => text.length * size * 0.55;
const view = { width: 250, height: 130, log: true, hover: null, words, measure };
const both = (one) => ({ run: one, course: course(one, kinds) });

function drawn(one, changes = {}, before = null) {
  return scene(one && both(one), before && both(before), { ...view, ...changes }, kinds);
}

function of({ shapes }, type, wanted = () => true) {
  return shapes.filter((shape) => shape.type === type && wanted(shape));
}

function assertInside({ shapes }, { width, height }) {
  for (const shape of shapes) {
    const { x, y, w = 0, h = 0 } = shape;
    (shape.points ?? [x, y, x + w, y + h]).forEach((value, i) => {
      assert.ok(Number.isFinite(value), JSON.stringify(shape));
      assert.ok(value >= -0.01 && value <= (i % 2 ? height : width) + 0.01, JSON.stringify(shape));
    });
  }
}

test("everything_is_inside_at_every_size_and_scale", () => {
  const long = run("Ep".repeat(100), { total: 200 });
  const letters = ["", "E", "EEEppEppE", "LLLLLLLLLLLLLLLLLLLL", "ss"];
  for (const one of [null, long, ...letters.map((kinds) => run(kinds))]) {
    for (const [width, height] of [[120, 60], [250, 130], [900, 500]]) {
      for (const log of [true, false]) {
        const found = drawn(one, { width, height, log, hover: 0 }, run("EEpE", { run: "b" }));
        assertInside(found, { width, height });
      }
    }
  }
});

test("the_last_step's_number_is_whole", () => {
  const long = drawn(run("E".repeat(300), { total: 300 }));
  const numbers = of(long, "text", (shape) => shape.align === "center" && /^\d+$/.test(shape.text));
  assert.equal(numbers.at(-1).text, "300");
  for (const { x, text } of numbers) {
    assert.ok(x + measure(text, 12) / 2 <= view.width, `${text} at ${x}`);
  }
});

test("kinds_are_told_apart_by_their_marks", () => {
  const found = of(drawn(run("EEppEpLs", { total: 8, status: "done" })), "mark");
  assert.equal(
    found.map((mark) => mark.ink).join(" "),
    "exact exact pipelined pipelined refresh pipelined local single",
  );
});

test("a_pipelined_step_is_between_its_neighbours", () => {
  const [left, middle, right] = of(drawn(run("EpE", { total: 3 })), "mark").map((mark) => mark.y);
  assert.ok(left < middle && middle < right);
  assert.ok(Math.abs(middle - (left + right) / 2) < 1e-9);
});

test("the_curve_is_dashed_where_nothing_was_measured", () => {
  const lines = of(drawn(run("EEppEE", { total: 6 })), "line", (line) => line.ink === "difference");
  assert.deepEqual(lines.map((line) => Boolean(line.dash)), [false, true, false]);
});

test("stages_are_bands_with_their_names", () => {
  const found = drawn(run("EEEEppppEEEE", { total: 12, status: "done" }));
  const texts = of(found, "text").map((text) => text.text);
  for (const text of ["Full", "Shortened"]) {
    assert.ok(texts.includes(text), texts.join());
  }
  const headers = of(found, "rect", (rect) => rect.y === 0);
  assert.equal(headers.length, 3);
});

test("the_tolerance_is_where_the_expected_change_crosses_it", () => {
  for (const log of [true, false]) {
    const rows = run("EEE").rows.map((row) => ({ ...row, drift: 0.006 }));
    const found = drawn(run("", { rows, total: 3 }), { log });
    const lines = of(found, "line", (line) => line.ink === "change");
    assert.equal(lines.length, 2);
    assert.equal(lines[0].points[1], lines[1].points[1]);
  }
});

test("the_previous_run_is_fainter_than_this_one", () => {
  const found = drawn(run("EEE"), {}, run("EEEE", { run: "b" }));
  const faint = of(found, "line", (line) => line.ink === "text" && line.points.length === 8);
  assert.equal(faint.length, 1);
  assert.ok(faint[0].alpha < 0.5);
});

test("the_pointer_finds_the_nearest_step_and_no_step_that_is_not_there", () => {
  const found = drawn(run("EEEEE"));
  assert.equal(found.nearest(found.x(3) + 1), 3);
  assert.equal(found.nearest(found.x(19)), 4);
  assert.equal(found.nearest(0), 0);
  assert.equal(drawn(run("")).nearest(100), null);
});

test("marks_keep_apart_where_there_are_many_steps", () => {
  const found = of(drawn(run("E".repeat(200), { total: 200 })), "mark").map((mark) => mark.x);
  assert.ok(found.length < 80);
  for (let i = 1; i < found.length; i++) assert.ok(found[i] - found[i - 1] >= 2);
});

test("one_slow_step_does_not_flatten_the_others", () => {
  const rows = run("EEEEE").rows.map((row, i) => (i ? row : { ...row, ms: 60_000 }));
  const solid = (rect) => rect.ink === "exact" && rect.alpha === 0.85;
  const found = of(drawn(run("", { rows, total: 5 })), "rect", solid);
  assert.ok(found[1].h > 5);
});
