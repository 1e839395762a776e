/** The menu items and commands that swap samplers in the open workflow. */

import { app } from "../../../scripts/app.js";
import { TO_HYBRID, TO_KSAMPLER, blank, swapped } from "./swap.mjs";
import { counted, text } from "./words.mjs";

const NAMES = new Map([
  [TO_HYBRID, "hybrid"],
  [TO_KSAMPLER, "ksampler"],
]);

/**
 * Swap the live nodes in `nodes`, or with null all nodes of the workflow, subgraphs included.
 * kinds: TO_HYBRID or TO_KSAMPLER. Returns how many nodes were swapped.
 *
 * The new state goes through the frontend's own redo, so one undo step takes it back.
 */
export async function swap(kinds, nodes = null) {
  const key = (graphId, nodeId) => `${graphId}:${nodeId}`;
  const wanted = nodes && new Set(nodes.map((node) => key(node.graph.id, node.id)));
  const chosen = (node, graphId) => !wanted || wanted.has(key(graphId, node.id));
  const workflow = JSON.parse(JSON.stringify(app.rootGraph.serialize()));
  const result = swapped(workflow, kinds, blanksOf(kinds), chosen);
  if (result.count) await apply(result.workflow);
  return result.count;
}

/** The entries for a node's context menu: none for nodes that have no counterpart. */
export function swapMenuItems(node) {
  const kinds = kindsOf(node);
  if (!kinds) return [];
  const nodes = swappable(kinds);
  const targets = nodes.includes(node) ? nodes : [node];
  const content = counted(`swap.to_${NAMES.get(kinds)}`, targets.length);
  return [{ content, callback: () => void swap(kinds, targets) }];
}

/** The ids of the commands that the selection toolbox offers for `item`, one of the selection. */
export function swapToolboxCommands(item) {
  const kinds = kindsOf(item);
  return kinds ? [`HybridKSampler.SwapSelection.${NAMES.get(kinds)}`] : [];
}

/** Commands for registerExtension. */
export const swapCommands = [
  selectionCommand(TO_HYBRID, "Swap selected KSamplers to Hybrid KSampler"),
  selectionCommand(TO_KSAMPLER, "Swap selected Hybrid KSamplers to KSampler"),
  workflowCommand(TO_HYBRID, "Swap all KSamplers to Hybrid KSampler"),
  workflowCommand(TO_KSAMPLER, "Swap all Hybrid KSamplers to KSampler"),
];

/** Menu entries for registerExtension. */
export const menuCommands = [
  { path: ["Extensions", "Hybrid KSampler"], commands: swapCommands.map(({ id }) => id) },
];

function selectionCommand(kinds, label) {
  return {
    id: `HybridKSampler.SwapSelection.${NAMES.get(kinds)}`,
    label,
    icon: "pi pi-sync",
    function: async () => {
      const nodes = swappable(kinds);
      if (!nodes.length) return tell("info", `swap.none_selected_to_${NAMES.get(kinds)}`);
      await swap(kinds, nodes);
    },
  };
}

function workflowCommand(kinds, label) {
  return {
    id: `HybridKSampler.SwapWorkflow.${NAMES.get(kinds)}`,
    label,
    icon: "pi pi-sync",
    function: async () => {
      const count = await swap(kinds);
      if (!count) return tell("info", `swap.none_to_${NAMES.get(kinds)}`);
      tell("success", `swap.done_to_${NAMES.get(kinds)}`, count);
    },
  };
}

function kindsOf(node) {
  return [...NAMES.keys()].find((kinds) => Object.hasOwn(kinds, node?.type ?? ""));
}

/** The selected nodes of the open graph that can be swapped so. */
function swappable(kinds) {
  return [...app.canvas.selectedItems].filter((item) => kindsOf(item) === kinds);
}

function blanksOf(kinds) {
  const types = Object.entries(kinds).flat();
  return Object.fromEntries(
    types.map((type) => {
      const node = window.LiteGraph.createNode(type);
      return [type, blank(node, node.constructor.title)];
    }),
  );
}

async function apply(workflow) {
  const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
  const selected = new Set([...app.canvas.selectedItems].map(({ id }) => String(id)));
  (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
  tracker.redoQueue.length = 0;
  tracker.redoQueue.push(workflow);
  await tracker.redo();
  const nodes = app.canvas.graph.nodes.filter(({ id }) => selected.has(String(id)));
  app.canvas.selectItems(nodes);
  await settle(tracker);
}

/** Take sizes that the layout corrects after loading into the same step. */
async function settle(tracker) {
  const steps = tracker.undoQueue.length;
  for (let frame = 0; frame < 3; frame += 1) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
  const current = app.extensionManager.workflow.activeWorkflow?.changeTracker === tracker;
  if (!current || tracker.undoQueue.length !== steps) return;
  tracker.activeState = JSON.parse(JSON.stringify(app.rootGraph.serialize()));
}

function tell(severity, key, count) {
  const detail = count === undefined ? text(key) : counted(key, count);
  app.extensionManager.toast.add({ severity, summary: "Hybrid KSampler", detail, life: 4000 });
}
