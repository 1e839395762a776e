/** Where a node is in the workflow on screen. */

import { app } from "../../../scripts/app.js";

/** The graph of the workflow, null before there is one: asking earlier is logged as an error. */
export function rootGraph() {
  if (app.isGraphReady === false) return null;
  return app.rootGraph ?? app.graph ?? null;
}

export const workflowId = () => String(rootGraph()?.id ?? "");

/** The node with an execution id such as "4" or, inside a subgraph, "4:2". */
export function nodeAt(executionId) {
  let graph = rootGraph();
  let node = null;
  for (const part of String(executionId).split(":")) {
    node = graph?.getNodeById?.(/^\d+$/.test(part) ? Number(part) : part) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/** Whether `node` is in the workflow on screen, in a subgraph that nobody uses included. */
export function isHeld(node) {
  const [root, graph] = [rootGraph(), node.graph];
  const known = graph && (graph === root || root?.subgraphs?.get(graph.id) === graph);
  return Boolean(known) && graph.getNodeById(node.id) === node;
}

/** The first execution id of `node`; a subgraph that is used twice gives its nodes several. */
export function executionId(node) {
  const search = (graph, prefix) => {
    for (const other of graph?.nodes ?? graph?._nodes ?? []) {
      if (other === node) return `${prefix}${other.id}`;
      const inside = other.subgraph && search(other.subgraph, `${prefix}${other.id}:`);
      if (inside) return inside;
    }
    return null;
  };
  return search(rootGraph(), "");
}

/** The runs of `node` in the workflow on screen: its slot in the store, the latest of several. */
export function slotOf(store, node) {
  let best = null;
  for (const slot of store.slots(workflowId())) {
    if (best && slot.current.started <= best.current.started) continue;
    if (nodeAt(slot.node) === node) best = slot;
  }
  return best;
}
