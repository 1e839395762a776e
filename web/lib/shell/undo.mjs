/** Undo, as the frontend's change tracker keeps it. */

const FRAMES = 3; // until Nodes 2.0 has measured its nodes anew

export const trackerOf = (app) => app.extensionManager?.workflow?.activeWorkflow?.changeTracker;

/** The workflow as a file has it. */
export const serialized = (app) => JSON.parse(JSON.stringify(app.rootGraph.serialize()));

/** Make what is different from the latest state a step of undo. */
export function capture(tracker) {
  (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

/**
 * Take sizes that the layout corrects in the next frames into the latest step, unless something else
 * changes meanwhile. remember: called before, may write to the graph.
 */
export async function settle(app, tracker, remember = () => {}) {
  const steps = tracker.undoQueue.length;
  const before = sizeless(serialized(app));
  for (let frame = 0; frame < FRAMES; frame += 1) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
  if (trackerOf(app) !== tracker || tracker.undoQueue.length < steps) return;
  if (sizeless(serialized(app)) !== before) return;
  remember();
  tracker.undoQueue.length = steps;
  tracker.activeState = serialized(app);
}

const sizeless = (state) =>
  JSON.stringify(state, (key, value) => (key === "size" || key === "extra" ? undefined : value));
