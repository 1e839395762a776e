import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

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

test("English names and tooltips are those of the dialog's language file", () => {
  const file = new URL("../../locales/en/settings.json", import.meta.url);
  const words = JSON.parse(readFileSync(file, "utf8"));
  for (const { id, name, tooltip } of ENTRIES) {
    const entry = words[id.replaceAll(".", "_")];
    assert.deepEqual([entry.name, entry.tooltip], [name, tooltip], id);
  }
});
