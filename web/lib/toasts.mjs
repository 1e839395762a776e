/** Messages at the edge of the screen, only when something has changed. */

import { app } from "../../../scripts/app.js";
import { nodeAt, workflowId } from "./graph.mjs";
import { onWorker, readWorker } from "./panel_client.mjs";
import { RunChanges, Twins, WorkerChanges } from "./toasts_changes.mjs";
import { text } from "./words.mjs";

const twins = new Twins();

/** Watch runs and the second process from now on. store: with subscribe(listener(run)). */
export async function watchForToasts(store) {
  const runs = new RunChanges();
  const worker = new WorkerChanges();
  store.subscribe((run) => show(runs.change(run, titleOf)));
  onWorker((state) => show(worker.change(state)));
  try {
    worker.start(await readWorker());
  } catch (error) {
    console.warn("Hybrid KSampler: the second process's state is not known:", error);
  }
}

function show(change) {
  if (!change || !twins.pass(change, performance.now())) return;
  app.extensionManager.toast.add({
    severity: change.severity,
    summary: "Hybrid KSampler",
    detail: text(change.key, change.values),
    life: change.severity === "warn" ? 8000 : 4000,
  });
}

/** The title of the node that a run is of while its workflow is open, the pack's name otherwise. */
function titleOf(run) {
  const here = !run.workflow_id || run.workflow_id === workflowId();
  return (here && nodeAt(run.node)?.title) || "Hybrid KSampler";
}
