import assert from "node:assert/strict";
import { test } from "node:test";
import { course as courseOf } from "../../web/lib/run/course.mjs";
import { csv, fileName } from "../../web/lib/run/table.mjs";
import { kinds, run } from "./runs.mjs";

const course = (one) => courseOf(one, kinds);

test("the_table_has_a_line_for_each_step_and_empty_cells_for_what_is_unknown", () => {
  const one = run("EpE", { status: "done" });
  const lines = csv(one, course(one)).split("\r\n");
  assert.equal(lines.length, 5);
  assert.equal(lines[0].split(",").length, 13);
  assert.equal(lines[1], "1,exact,,warmup,10,0.5,0.01,0.006,101,100,80,0,20");
  assert.equal(lines[2], "2,pipelined,uncond,parallelism,9.9,,,0.006,101,100,80,0,20");
  assert.equal(lines.at(-1), "");
});

test("the_file_is_named_by_time_and_mode", () => {
  assert.match(fileName(run(""), "csv"), /^hybrid_1970-01-01_\d\d-\d\d-\d\d_adaptive\.csv$/);
});
