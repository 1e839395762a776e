/** The workflow on screen, and where its nodes are. */

import { capture, settle, trackerOf } from "./undo.mjs";

export class OpenWorkflow {
  constructor(app) {
    this.app = app;
  }

  /** Its graph, null before there is one: asking earlier is logged as an error. */
  get root() {
    if (this.app.isGraphReady === false) return null;
    return this.app.rootGraph ?? this.app.graph ?? null;
  }

  get id() {
    return String(this.root?.id ?? "");
  }

  /** Let undo know of a change that no mouse or key of the frontend's own made. */
  async noteChange() {
    const tracker = trackerOf(this.app);
    if (!tracker) return;
    capture(tracker);
    await settle(this.app, tracker);
  }

  /** The node with an execution id such as "4" or, inside a subgraph, "4:2". */
  nodeAt(executionId) {
    let graph = this.root;
    let node = null;
    for (const part of String(executionId).split(":")) {
      node = graph?.getNodeById?.(/^\d+$/.test(part) ? Number(part) : part) ?? null;
      graph = node?.subgraph;
    }
    return node;
  }

  /** Whether `node` is in it, in a subgraph that nobody uses included. */
  holds(node) {
    const { root } = this;
    const { graph } = node;
    const known = graph && (graph === root || root?.subgraphs?.get(graph.id) === graph);
    return Boolean(known) && graph.getNodeById(node.id) === node;
  }

  /** The first execution id of `node`; a subgraph that is used twice gives its nodes several. */
  executionId(node) {
    const search = (graph, prefix) => {
      for (const other of graph?.nodes ?? graph?._nodes ?? []) {
        if (other === node) return `${prefix}${other.id}`;
        const inside = other.subgraph && search(other.subgraph, `${prefix}${other.id}:`);
        if (inside) return inside;
      }
      return null;
    };
    return search(this.root, "");
  }

  /** The runs of `node`: its slot in the store, the latest of several. */
  slotOf(store, node) {
    let best = null;
    for (const slot of store.slots(this.id)) {
      if (best && slot.current.started <= best.current.started) continue;
      if (this.nodeAt(slot.node) === node) best = slot;
    }
    return best;
  }
}
