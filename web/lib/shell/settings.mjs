/** The settings dialog's entries, and the defaults of new nodes. */

import { CATEGORY, ENTRIES, ID, defaultsOf, isIdleSeconds } from "./settings_entries.mjs";

export class Settings {
  /** worker: a WorkerClient. plots: Plots. */
  constructor({ app, worker, plots }) {
    Object.assign(this, { app, worker });
    this.changed = {
      [ID.idle]: (value, before) => this.#idleChanged(value, before),
      [ID.open]: (value) => plots.setOpen(value),
      [ID.ray]: (_, before) => this.#rayChanged(before),
      [ID.weights]: (_, before) => this.#rayChanged(before),
    };
  }

  /** For registerExtension. */
  get entries() {
    return ENTRIES.map((entry) => ({
      ...entry,
      category: [CATEGORY, ...entry.category],
      ...(entry.id in this.changed && { onChange: this.changed[entry.id] }),
    }));
  }

  /** The value of one of this pack's settings; ids are in ID of settings_entries.mjs. */
  of(id) {
    return this.app.extensionManager.setting.get(id);
  }

  /**
   * Give a new node the user's mode and tolerance. To be called in nodeCreated, at once: the values
   * of a loaded, pasted or restored node come after it and replace them.
   */
  applyDefaults(node) {
    for (const [name, value] of defaultsOf(node.comfyClass, (id) => this.of(id))) {
      const widget = node.widgets?.find((one) => one.name === name);
      if (widget) widget.value = value;
    }
  }

  /** Tell the server what this user has otherwise than it has. To be called in setup. */
  async setUp() {
    const wanted = this.of(ID.idle);
    await this.#try(async () => {
      const { idle_seconds: current, ray } = await this.worker.read();
      if (isIdleSeconds(wanted) && wanted !== current) await this.worker.sendIdleSeconds(wanted);
      const [address, weights] = this.#ray;
      if (address && (address !== ray.address || weights !== ray.weights)) {
        await this.worker.sendRay(address, weights);
      }
    });
  }

  get #ray() {
    return [String(this.of(ID.ray) ?? "").trim(), this.of(ID.weights) === true];
  }

  /** before: undefined when the setting is only being registered. */
  async #rayChanged(before) {
    if (before === undefined) return;
    await this.#try(() => this.worker.sendRay(...this.#ray));
  }

  /** value: the new one. before: undefined when the setting is only being registered. */
  async #idleChanged(value, before) {
    if (before === undefined || !isIdleSeconds(value)) return;
    await this.#try(() => this.worker.sendIdleSeconds(value));
  }

  async #try(send) {
    try {
      await send();
    } catch (error) {
      console.warn("Hybrid KSampler: a setting was not sent:", error);
    }
  }
}
