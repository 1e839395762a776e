import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Settings } from "../../web/lib/shell/settings.mjs";
import { ENTRIES, ID, defaultsOf, isIdleSeconds } from "../../web/lib/shell/settings_entries.mjs";

const given = (values) => (id) => values[id];

test("new samplers and attached models start with the user's mode and tolerance", () => {
  const setting = given({ [ID.mode]: "exact", [ID.tolerance]: 0 });
  for (const type of ["Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_AttachModel"]) {
    assert.deepEqual(defaultsOf(type, setting), [["mode", "exact"], ["tolerance", 0]]);
  }
});

test("other nodes are left alone", () => {
  const setting = given({ [ID.mode]: "exact", [ID.tolerance]: 0.1 });
  for (const type of ["KSampler", "Hybrid_Options", undefined]) {
    assert.deepEqual(defaultsOf(type, setting), []);
  }
});

test("settings that no node would take change nothing", () => {
  assert.deepEqual(defaultsOf("Hybrid_KSampler", given({ [ID.mode]: "fast", [ID.tolerance]: 2 })), []);
  assert.deepEqual(defaultsOf("Hybrid_KSampler", given({})), []);
});

test("an idle time is a number of at least 10 seconds", () => {
  assert.deepEqual([600, 10].map(isIdleSeconds), [true, true]);
  assert.deepEqual([9.9, NaN, null, "60"].map(isIdleSeconds), [false, false, false, false]);
});

/** Settings with these values, and what was sent to a server that has `current`. */
function dialog(values, current) {
  const sent = [];
  const worker = {
    read: async () => current,
    sendIdleSeconds: async (seconds) => sent.push(["idle", seconds]),
    sendRay: async (...told) => sent.push(["ray", ...told]),
  };
  const app = { extensionManager: { setting: { get: given(values) } } };
  return { settings: new Settings({ app, worker, plots: {} }), sent };
}

const NONE = { idle_seconds: 600, ray: { address: "", weights: false } };

test("a user's other computers reach a server that has none", async () => {
  const values = { [ID.idle]: 600, [ID.ray]: " 10.0.0.2:6379 ", [ID.weights]: true };
  const { settings, sent } = dialog(values, NONE);
  await settings.setUp();
  assert.deepEqual(sent, [["ray", "10.0.0.2:6379", true]]);
});

test("a user without other computers leaves the server's alone", async () => {
  const started = { idle_seconds: 600, ray: { address: "by.environment:6379", weights: false } };
  const { settings, sent } = dialog({ [ID.idle]: 600, [ID.ray]: "" }, started);
  await settings.setUp();
  assert.deepEqual(sent, []);
});

test("a changed address is sent, also an empty one, and not while it is registered", async () => {
  const { settings, sent } = dialog({ [ID.ray]: "" }, NONE);
  const [changed] = settings.entries.filter(({ id }) => id === ID.ray);
  await changed.onChange("", undefined);
  await changed.onChange("", "10.0.0.2:6379");
  assert.deepEqual(sent, [["ray", "", false]]);
});

test("English names and tooltips are those of the dialog's language file", () => {
  const file = new URL("../../locales/en/settings.json", import.meta.url);
  const words = JSON.parse(readFileSync(file, "utf8"));
  for (const { id, name, tooltip } of ENTRIES) {
    const entry = words[id.replaceAll(".", "_")];
    assert.deepEqual([entry.name, entry.tooltip], [name, tooltip], id);
  }
});
