/** How plots are shown, the same for all of them. */

const KEY = "hybrid_ksampler.scale";

export class Prefs {
  open = false; // the setting HybridKSampler.OpenPlot
  #listeners = new Set();

  /** storage(): localStorage, or anything with getItem and setItem; each may throw. */
  constructor(storage) {
    this.storage = storage;
    this.log = this.#stored() !== "linear";
  }

  /** Call listener() after each change. */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  setLog(on) {
    this.log = on;
    try {
      this.storage().setItem(KEY, on ? "log" : "linear");
    } catch {
      // a browser that keeps nothing: the choice then lasts as long as the page
    }
    this.#tell();
  }

  setOpen(on) {
    this.open = on;
    this.#tell();
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }

  #stored() {
    try {
      return this.storage().getItem(KEY);
    } catch {
      return null;
    }
  }
}
