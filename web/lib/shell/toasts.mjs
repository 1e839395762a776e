/** Messages at the edge of the screen, only when something has changed. */

import { RunChanges, Twins, WorkerChanges } from "./toasts_changes.mjs";

export class Toasts {
  #twins = new Twins();

  /** workflow: an OpenWorkflow. */
  constructor({ app, words, kinds, workflow }) {
    Object.assign(this, { app, words, kinds, workflow });
  }

  /** Watch runs and the second process from now on. store: a RunStore. worker: a WorkerClient. */
  async watch(store, worker) {
    const runs = new RunChanges(this.kinds);
    const states = new WorkerChanges();
    store.subscribe((run) => this.#changed(runs.change(run, (one) => this.#titleOf(one))));
    worker.subscribe((state) => this.#changed(states.change(state)));
    try {
      states.start(await worker.read());
    } catch (error) {
      console.warn("Hybrid KSampler: the second process's state is not known:", error);
    }
  }

  #changed(change) {
    if (!change || !this.#twins.pass(change, performance.now())) return;
    const life = change.severity === "warn" ? 8000 : 4000;
    this.show(change.severity, this.words.text(change.key, change.values), life);
  }

  show(severity, detail, life = 4000) {
    this.app.extensionManager.toast.add({ severity, summary: "Hybrid KSampler", detail, life });
  }

  /** The title of the node that a run is of while its workflow is open, else the pack's name. */
  #titleOf(run) {
    const here = !run.workflow_id || run.workflow_id === this.workflow.id;
    return (here && this.workflow.nodeAt(run.node)?.title) || "Hybrid KSampler";
  }
}
