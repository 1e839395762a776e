import assert from "node:assert/strict";
import { test } from "node:test";
import { RunStore } from "../../web/lib/run/store.mjs";
import { event, run } from "./runs.mjs";

const held = (store) => store.slots("w")[0];
const whole = run("EEEEEE");

test("deltas_make_the_whole_run", () => {
  const store = new RunStore();
  assert.equal(store.receive(event(whole, 1, 0, 2)), "applied");
  assert.equal(store.receive(event(whole, 2, 1, 5)), "applied");
  assert.equal(store.receive(event(whole, 3, 4, 6, { status: "done" })), "applied");
  assert.deepEqual(held(store).current.rows, whole.rows);
  assert.equal(held(store).current.status, "done");
});

test("a_row_that_is_sent_again_replaces_the_first", () => {
  const store = new RunStore();
  const unknown = { ...whole.rows[1], discrepancy: null };
  store.receive({ ...event(whole, 1, 0, 1), rows: [whole.rows[0], unknown] });
  store.receive(event(whole, 2, 1, 3));
  assert.deepEqual(held(store).current.rows, whole.rows.slice(0, 3));
});

test("a_message_that_comes_late_is_ignored", () => {
  const store = new RunStore();
  store.receive(event(whole, 2, 0, 4));
  assert.equal(store.receive(event(whole, 1, 0, 2)), "stale");
  assert.equal(store.receive(event(whole, 2, 0, 2)), "stale");
  assert.equal(held(store).current.rows.length, 4);
});

test("rows_beyond_what_is_here_are_a_gap_until_a_snapshot_comes", () => {
  const store = new RunStore();
  assert.equal(store.receive(event(whole, 5, 3, 5)), "gap");
  assert.equal(held(store).current.rows.length, 0);
  assert.equal(store.receive(event(whole, 6, 4, 6)), "gap");
  assert.equal(store.restore({ ...whole, seq: 4 }), "stale");
  assert.equal(store.restore({ ...whole, seq: 6 }), "applied");
  assert.equal(held(store).current.rows.length, 6);
});

test("a_jump_of_seq_is_a_gap_even_where_the_rows_fit", () => {
  const store = new RunStore();
  store.receive(event(whole, 1, 0, 2));
  assert.equal(store.receive(event(whole, 3, 1, 4)), "gap");
  assert.equal(held(store).current.rows.length, 4);
});

test("an_equal_snapshot_changes_nothing", () => {
  const store = new RunStore();
  store.restore(whole);
  const { version } = held(store).current;
  assert.equal(store.restore(structuredClone(whole)), "stale");
  assert.equal(held(store).current.version, version);
});

test("a_new_run_makes_the_old_one_the_previous", () => {
  const store = new RunStore();
  store.restore(run("EE", { run: "a", started: 1 }));
  store.restore(run("EE", { run: "b", started: 2 }));
  store.receive(run("E", { run: "c", started: 3 }));
  assert.deepEqual([held(store).current.run, held(store).previous.run], ["c", "b"]);
});

test("snapshots_in_any_order_leave_the_two_latest", () => {
  const store = new RunStore();
  for (const at of [2, 4, 1, 3]) store.restore(run("E", { run: `r${at}`, started: at }));
  assert.deepEqual([held(store).current.run, held(store).previous.run], ["r4", "r3"]);
});

test("one_node_id_in_two_workflows_is_two_slots", () => {
  const store = new RunStore();
  store.restore(run("E", { run: "a", workflow_id: "one" }));
  store.restore(run("EE", { run: "b", workflow_id: "two" }));
  store.restore(run("EEE", { run: "c", workflow_id: null }));
  assert.equal(store.slots("one")[0].current.rows.length, 1);
  assert.equal(store.slots("two")[0].current.rows.length, 2);
  assert.deepEqual(store.slots("three"), []);
});

test("a_replayed_run_is_shown_even_where_it_is_older", () => {
  const store = new RunStore();
  store.restore(run("EE", { run: "old", started: 1 }));
  store.restore(run("EE", { run: "new", started: 2 }));
  store.replay([run("EE", { run: "old", started: 1, workflow_id: "another" })], "w", "4");
  assert.deepEqual([held(store).current.run, held(store).previous.run], ["old", "new"]);
});

test("a_replayed_run_that_this_tab_knows_better_keeps_its_rows", () => {
  const store = new RunStore();
  store.restore(run("EEEE", { run: "old", started: 1, seq: 9 }));
  store.restore(run("EE", { run: "new", started: 2 }));
  store.replay([run("", { run: "old", started: 1, seq: 0 })], "w", "4");
  assert.equal(held(store).current.run, "old");
  assert.equal(held(store).current.rows.length, 4);
});

test("a_run_that_is_still_to_come_is_not_shown", () => {
  const store = new RunStore();
  store.replay([run("", { status: "waiting" })], "w", "4");
  assert.equal(store.size, 0);
});

test("a_running_run_that_the_server_no_longer_knows_was_interrupted", () => {
  const store = new RunStore();
  store.restore(run("EE", { run: "lost" }));
  store.restore(run("EE", { run: "known", node: "5" }));
  store.settle(new Set(["lost", "known"]), new Set(["known"]));
  assert.deepEqual(store.running().map((one) => one.run), ["known"]);
  assert.equal(held(store).current.run, "known");
});

test("a_thousand_runs_stay_within_the_bounds", () => {
  const store = new RunStore();
  const long = "E".repeat(30);
  for (let i = 0; i < 1000; i++) {
    store.restore(run(long, { run: `r${i}`, node: String(i % 200), started: i, status: "done" }));
  }
  assert.equal(store.size, 64);
  const kept = store.slots("w").map((slot) => Number(slot.node));
  assert.deepEqual(kept, Array.from({ length: 64 }, (_, i) => 136 + i));
});

test("rows_beyond_the_bound_are_dropped", () => {
  const store = new RunStore({ rows: 4 });
  assert.equal(store.receive(event(whole, 1, 0, 3)), "applied");
  assert.equal(store.receive(event(whole, 2, 2, 5)), "applied");
  assert.equal(store.receive(event(whole, 3, 4, 6)), "applied");
  assert.equal(store.receive(event(whole, 4, 5, 6)), "applied");
  assert.equal(held(store).current.rows.length, 4);
});

test("listeners_hear_changes_only_and_can_leave", () => {
  const store = new RunStore();
  const heard = [];
  const leave = store.subscribe((one, slot) => heard.push([one.seq, slot.node]));
  store.receive(event(whole, 1, 0, 2));
  store.receive(event(whole, 1, 0, 2));
  leave();
  store.receive(event(whole, 2, 1, 3));
  assert.deepEqual(heard, [[1, "4"]]);
});
