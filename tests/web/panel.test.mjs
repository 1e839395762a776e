import assert from "node:assert/strict";
import { test } from "node:test";

import { bytes, content, span } from "../../web/lib/panel/content.mjs";
import { english } from "./runs.mjs";

const GIB = 1024 ** 3;
const PARENT = { device: "cuda:0 A", pid: 1, memory_used: 3 * GIB, memory_free: GIB, model: "SD3" };
const NONE = {
  state: "none", device: "cuda:1 B", pid: null, memory_used: null, memory_free: null,
  model: null, age_seconds: null, last_error: null,
};
const READY = {
  ...NONE, state: "ready", pid: 2, memory_used: GIB, memory_free: 3 * GIB, model: "SD3", age_seconds: 75,
};
const state = (worker, more = {}) => ({ obstacle: null, parent: PARENT, worker, idle_seconds: 600, ...more });
const values = (rows) => Object.fromEntries(rows.map(({ label, value }) => [label, value]));

const words = english();
const view = (told) => content(told, words);

test("bytes are said in binary units", () => {
  const said = [0, 512, 1024, 1536, 10 * 1024 ** 2, 3.44 * GIB, 139.8 * GIB, 9.96 * GIB].map(bytes);
  assert.deepEqual(said, ["0 B", "512 B", "1.0 KiB", "1.5 KiB", "10 MiB", "3.4 GiB", "140 GiB", "10 GiB"]);
  assert.deepEqual([null, undefined, NaN].map(bytes), ["–", "–", "–"]);
});

test("spans are said in the largest two units", () => {
  assert.deepEqual([0.4, 59, 61, 600, 3600, 7500].map((seconds) => span(seconds, words)), [
    "0 s", "59 s", "1 min 1 s", "10 min", "1 h 0 min", "2 h 5 min",
  ]);
  assert.equal(span(null, words), "–");
});

test("a process that is ready shows everything and can be freed and restarted", () => {
  const { parent, worker, can, obstacle, idle } = view(state(READY));
  assert.deepEqual(values(worker.rows), {
    State: "ready", Device: "cuda:1 B", Model: "SD3", "Running for": "1 min 15 s",
  });
  assert.deepEqual(worker.memory, { used: "1.0 GiB used", free: "3.0 GiB free", share: 0.25 });
  assert.equal(parent.memory.share, 0.75);
  assert.deepEqual(can, { start: false, free: true, restart: true });
  assert.equal(obstacle, null);
  assert.match(idle, /after 10 min without/);
});

test("how tensors travel, why, and how the cards differ are told where they are known", () => {
  const reason = "cuda_ipc: WSL2 does not share GPU memory";
  const told = { data_plane: "host_pinned", data_plane_reason: reason, differs: "RTX 3060 beside RTX 3090" };
  const { worker } = view(state({ ...READY, ...told }));
  assert.equal(values(worker.rows).Exchange, `through the computer's memory (${reason})`);
  assert.equal(values(worker.rows)["Other card"], "RTX 3060 beside RTX 3090");
  const plain = view(state({ ...READY, data_plane: "cuda_ipc", data_plane_reason: null, differs: null }));
  assert.equal(values(plain.worker.rows).Exchange, "directly between the GPUs");
  assert.ok(!("Other card" in values(plain.worker.rows)));
});

test("without a process only start makes sense and there is no memory to show", () => {
  const { worker, can } = view(state(NONE));
  assert.equal(worker.memory, null);
  assert.deepEqual(values(worker.rows), { State: "not started", Device: "cuda:1 B" });
  assert.deepEqual(can, { start: true, free: false, restart: false });
});

test("a working process is not freed under its run, a starting one is left alone", () => {
  const busy = view(state({ ...READY, state: "busy" })).can;
  const starting = view(state({ ...NONE, state: "starting" })).can;
  assert.deepEqual(busy, { start: false, free: false, restart: true });
  assert.deepEqual(starting, { start: false, free: false, restart: false });
});

test("an obstacle is said in words and nothing can be started", () => {
  const { obstacle, can } = view(state(NONE, { obstacle: "there is no second GPU" }));
  assert.match(obstacle, /there is no second GPU/);
  assert.deepEqual(can, { start: false, free: false, restart: false });
});

test("the last error is marked and told to screen readers", () => {
  const { worker, said } = view(state({ ...NONE, last_error: "out of memory" }));
  const { label, value, alarm } = worker.rows.at(-1);
  assert.deepEqual([label, value, alarm], ["Last error", "out of memory", true]);
  assert.equal(said, "Second GPU: not started. out of memory");
});

test("memory that only one side knows is shown without a bar", () => {
  const { worker } = view(state({ ...READY, memory_free: null }));
  assert.deepEqual(worker.memory, { used: "1.0 GiB used", free: null, share: null });
});

test("a model or device that is not there is said so", () => {
  const { parent } = view(state(NONE, { parent: { ...PARENT, model: null, device: null } }));
  assert.deepEqual(values(parent.rows), { Device: "–", Model: "none" });
});

test("further workers have rows and orders of their own, and what is not used says why", () => {
  const others = [READY, { ...NONE, device: "GPU 3 C", last_error: "out of memory" }];
  const { others: shown, left } = view(state(READY, { others, left_out: { "GPU 4, A100": "it is divided" } }));
  assert.deepEqual(shown.map(({ name }) => name), ["GPU 3", "GPU 4"]);
  assert.deepEqual(shown[1].can, { start: true, free: false, restart: false });
  assert.equal(values(shown[1].worker.rows)["Last error"], "out of memory");
  assert.equal(values(shown[0].worker.rows).State, "ready");
  assert.deepEqual(left, ["GPU 4, A100 is not used: it is divided."]);
  assert.deepEqual(view(state(READY)).others, []);
});
