/** How plots are shown, the same for all of them. */

const KEY = "hybrid_ksampler.scale";

const listeners = new Set();
let log = stored() !== "linear";
let live = true;

export const isLog = () => log;
export const isLive = () => live;

/** Call listener() after each change. */
export function onPrefs(listener) {
  listeners.add(listener);
}

export function setLog(on) {
  log = on;
  try {
    localStorage.setItem(KEY, on ? "log" : "linear");
  } catch {
    // a browser that keeps nothing: the choice then lasts as long as the page
  }
  tell();
}

/** The setting HybridKSampler.LivePlot. */
export function setLive(on) {
  live = on;
  tell();
}

function tell() {
  for (const listener of listeners) listener();
}

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
