/** The settings dialog's entries, and the defaults of new nodes. */

import { app } from "../../../scripts/app.js";
import { readWorker, sendIdleSeconds } from "./panel_client.mjs";
import { CATEGORY, ENTRIES, ID, defaultsOf, isIdleSeconds } from "./settings_entries.mjs";

/** Settings for registerExtension. */
export const settings = ENTRIES.map((entry) => ({
  ...entry,
  category: [CATEGORY, ...entry.category],
  ...(entry.id === ID.idle && { onChange: idleChanged }),
}));

/** The value of one of this pack's settings; ids are in ID of settings_entries.mjs. */
export function setting(id) {
  return app.extensionManager.setting.get(id);
}

/**
 * Give a new node the user's mode and tolerance. To be called in nodeCreated, at once: the values
 * of a loaded, pasted or restored node come after it and replace them.
 */
export function applyDefaults(node) {
  for (const [name, value] of defaultsOf(node.comfyClass, setting)) {
    const widget = node.widgets?.find((one) => one.name === name);
    if (widget) widget.value = value;
  }
}

/** Tell the server the idle time of this user where it has another. To be called in setup. */
export async function setupSettings() {
  const wanted = setting(ID.idle);
  try {
    const { idle_seconds: current } = await readWorker();
    if (isIdleSeconds(wanted) && wanted !== current) await sendIdleSeconds(wanted);
  } catch (error) {
    console.warn("Hybrid KSampler: the idle time was not sent:", error);
  }
}

/** value: the new one. before: undefined when the setting is only being registered. */
async function idleChanged(value, before) {
  if (before === undefined || !isIdleSeconds(value)) return;
  try {
    await sendIdleSeconds(value);
  } catch (error) {
    console.warn("Hybrid KSampler: the idle time was not sent:", error);
  }
}
