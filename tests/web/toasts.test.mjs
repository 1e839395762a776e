import assert from "node:assert/strict";
import { test } from "node:test";

import { RunChanges, Twins, WorkerChanges } from "../../web/lib/shell/toasts_changes.mjs";
import { kinds } from "./runs.mjs";

const titleOf = ({ node }) => `node ${node}`;
const ROWS = [{ kind: "exact" }, { kind: "pipelined" }];
let count = 0;

/** The messages of one run of a node from its start to its end. */
function ran(changes, { node = "4", reasons = [], rows = ROWS, status = "done", mode = "adaptive" } = {}) {
  const run = { run: String(++count), node, workflow_id: "w", mode, reasons: [], rows: [] };
  return [
    changes.change({ ...run, status: "running" }, titleOf),
    changes.change({ ...run, status: "running", reasons, rows }, titleOf),
    changes.change({ ...run, status, reasons, rows }, titleOf),
  ].filter(Boolean);
}

const keys = (messages) => messages.map(({ key }) => key);
const LOCAL = { reasons: ["out of memory"], rows: [{ kind: "local" }] };

test("run after run with the same outcome tells nothing", () => {
  const changes = new RunChanges(kinds);
  for (const run of [{}, {}, {}]) assert.deepEqual(ran(changes, run), []);
  const alone = new RunChanges(kinds);
  for (const run of [LOCAL, LOCAL]) assert.deepEqual(ran(alone, run), []);
});

test("going local is told once, with the reason and the node's title", () => {
  const changes = new RunChanges(kinds);
  ran(changes);
  const [message, ...more] = ran(changes, LOCAL);
  assert.deepEqual(message, {
    severity: "warn", key: "toast.now_local", values: { title: "node 4", reason: "out of memory" },
  });
  assert.deepEqual(more, []);
  assert.deepEqual(ran(changes, LOCAL), []);
});

test("a reason of a run that stays shared is no news: another sampler, another data plane", () => {
  const changes = new RunChanges(kinds);
  ran(changes);
  const exact = { reasons: ["both branches in full"], rows: [{ kind: "exact" }, { kind: "exact" }] };
  assert.deepEqual(ran(changes, exact), []);
  assert.deepEqual(ran(changes), []);
  assert.deepEqual(keys(ran(changes, LOCAL)), ["toast.now_local"]);
});

test("coming back is told once, when the run has ended", () => {
  const changes = new RunChanges(kinds);
  ran(changes);
  ran(changes, LOCAL);
  assert.deepEqual(keys(ran(changes)), ["toast.now_shared"]);
  assert.deepEqual(ran(changes), []);
});

test("a machine that was always alone gets no message when it becomes shared", () => {
  const changes = new RunChanges(kinds);
  ran(changes, LOCAL);
  assert.deepEqual(ran(changes), []);
  assert.deepEqual(keys(ran(changes, LOCAL)), ["toast.now_local"]);
});

test("the same reason is told for one node only, and so is the way back", () => {
  const changes = new RunChanges(kinds);
  for (const node of ["4", "5"]) ran(changes, { node });
  assert.equal(ran(changes, { ...LOCAL, node: "4" }).length, 1);
  assert.equal(ran(changes, { ...LOCAL, node: "5" }).length, 0);
  assert.equal(ran(changes, { node: "4" }).length, 1);
  assert.equal(ran(changes, { node: "5" }).length, 0);
});

test("mode off, interrupted runs and runs of one branch change nothing", () => {
  const changes = new RunChanges(kinds);
  ran(changes);
  assert.deepEqual(ran(changes, { ...LOCAL, mode: "off" }), []);
  assert.deepEqual(ran(changes, { status: "interrupted" }), []);
  assert.deepEqual(ran(changes, { rows: [[0, "single"]] }), []);
  assert.deepEqual(keys(ran(changes, LOCAL)), ["toast.now_local"]);
});

test("runs from before the page was opened are where it starts from, the latest counts", () => {
  const changes = new RunChanges(kinds);
  const old = { node: "4", workflow_id: "w", mode: "adaptive", status: "done" };
  changes.change({ ...old, run: "a", reasons: ["x"], rows: [] }, titleOf);
  assert.equal(changes.change({ ...old, run: "b", reasons: [], rows: ROWS }, titleOf), null);
  assert.deepEqual(keys(ran(changes, LOCAL)), ["toast.now_local"]);
});

test("a result from the cache is no news", () => {
  const changes = new RunChanges(kinds);
  ran(changes);
  const cached = { run: "c", node: "4", workflow_id: "w", mode: "adaptive", status: "done", ...LOCAL };
  assert.equal(changes.change(cached, titleOf), null);
  assert.deepEqual(ran(changes), []);
});

test("the nodes of two workflows are told apart", () => {
  const changes = new RunChanges(kinds);
  ran(changes);
  const run = { run: "z", node: "4", workflow_id: "other", mode: "adaptive", reasons: ["x"], rows: [] };
  assert.equal(changes.change({ ...run, status: "running" }, titleOf), null);
});

const worker = (state, last_error = null) => ({ worker: { state, last_error } });

test("a second process that ends with an error is told, and that it is back", () => {
  const changes = new WorkerChanges();
  changes.start(worker("busy"));
  assert.deepEqual(changes.change(worker("none", "killed")), {
    severity: "warn", key: "toast.worker_ended", values: { error: "killed" },
  });
  assert.equal(changes.change(worker("starting", "killed")), null);
  assert.equal(changes.change(worker("ready")).key, "toast.worker_back");
  assert.equal(changes.change(worker("busy")), null);
});

test("starting, working and ending after the idle time are no news", () => {
  const changes = new WorkerChanges();
  changes.start(worker("none"));
  for (const state of ["starting", "ready", "busy", "ready", "none"]) {
    assert.equal(changes.change(worker(state)), null);
  }
});

test("an error from before the page was opened is no news", () => {
  const changes = new WorkerChanges();
  changes.start(worker("none", "old"));
  assert.equal(changes.change(worker("starting", "old")), null);
  assert.equal(changes.change(worker("ready", "old")), null);
});

test("an error of a process that lives on is told as such", () => {
  const changes = new WorkerChanges();
  assert.equal(changes.change(worker("ready", "cannot load")).key, "toast.worker_failed");
  assert.equal(changes.change(worker("busy", "cannot load")), null);
});

test("one event is told once, by whichever side notices it first", () => {
  const twins = new Twins();
  const told = (severity, key, now) => twins.pass({ severity, key }, now);
  assert.equal(told("warn", "toast.now_local", 0), true);
  assert.equal(told("warn", "toast.now_local", 10), true);
  assert.equal(told("warn", "toast.worker_ended", 100), false);
  assert.equal(told("success", "toast.worker_back", 200), true);
  assert.equal(told("success", "toast.now_shared", 5300), true);
});
