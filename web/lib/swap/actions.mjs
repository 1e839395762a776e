/** The menu items and commands that swap samplers in the open workflow. */

import { capture, serialized, settle, trackerOf } from "../shell/undo.mjs";
import { ATTACH, attached, detached } from "./attach.mjs";
import { grownTo, remembers } from "./room.mjs";
import { TO_HYBRID, TO_KSAMPLER, blank, foldedHeight, swapped } from "./swap.mjs";

const DIRECTIONS = new Map([
  [TO_HYBRID, "hybrid"],
  [TO_KSAMPLER, "ksampler"],
]);

export class Swapping {
  /** toasts: a Toasts. */
  constructor({ app, words, toasts }) {
    Object.assign(this, { app, words, toasts });
    this.commands = [
      this.#ofSelection(TO_HYBRID, "Swap selected KSamplers to Hybrid KSampler"),
      this.#ofSelection(TO_KSAMPLER, "Swap selected Hybrid KSamplers to KSampler"),
      this.#ofWorkflow(TO_HYBRID, "Swap all KSamplers to Hybrid KSampler"),
      this.#ofWorkflow(TO_KSAMPLER, "Swap all Hybrid KSamplers to KSampler"),
    ];
    const commands = this.commands.map(({ id }) => id);
    this.menuCommands = [{ path: ["Extensions", "Hybrid KSampler"], commands }];
  }

  /** The entries for a node's context menu: none for nodes that have no counterpart. */
  menuItems(node) {
    const types = typesFor(node);
    if (!types) return [];
    const nodes = this.#swappable(types);
    const targets = nodes.includes(node) ? nodes : [node];
    const content = this.words.counted(`swap.to_${DIRECTIONS.get(types)}`, targets.length);
    return [{ content, callback: () => void this.swap(types, targets) }];
  }

  /** The ids of the commands that the selection toolbox offers for `item`, one of the selection. */
  toolboxCommands(item) {
    const types = typesFor(item);
    return types ? [`HybridKSampler.SwapSelection.${DIRECTIONS.get(types)}`] : [];
  }

  /** Swap the live nodes in `nodes`. types: TO_HYBRID or TO_KSAMPLER. */
  async swap(types, nodes) {
    const key = (graphId, nodeId) => `${graphId}:${nodeId}`;
    const wanted = new Set(nodes.map((node) => key(node.graph.id, node.id)));
    const chosen = (node, graphId) => wanted.has(key(graphId, node.id));
    const result = swapped(serialized(this.app), types, blanksOf(types), chosen);
    if (result.count) await this.#apply(result.workflow);
  }

  /**
   * Swap all nodes of the workflow, subgraphs included; other samplers get Hybrid Attach Model behind
   * their model, or lose it. Returns {count, others}: how many of both there were.
   */
  async swapAll(types) {
    const { workflow, count } = swapped(serialized(this.app), types, blanksOf(types));
    const others = types === TO_HYBRID ? attached(workflow, blankOf(ATTACH)) : detached(workflow);
    if (count + others.count) await this.#apply(others.workflow);
    return { count, others: others.count };
  }

  #ofSelection(types, label) {
    const direction = DIRECTIONS.get(types);
    return {
      id: `HybridKSampler.SwapSelection.${direction}`,
      label,
      icon: "pi pi-sync",
      function: async () => {
        const nodes = this.#swappable(types);
        if (nodes.length) await this.swap(types, nodes);
        else this.toasts.show("info", this.words.text(`swap.none_selected_to_${direction}`));
      },
    };
  }

  #ofWorkflow(types, label) {
    const direction = DIRECTIONS.get(types);
    return {
      id: `HybridKSampler.SwapWorkflow.${direction}`,
      label,
      icon: "pi pi-sync",
      function: async () => {
        const { words, toasts } = this;
        const { count, others } = await this.swapAll(types);
        const told = [
          count && words.counted(`swap.done_to_${direction}`, count),
          others && words.counted(`swap.others_to_${direction}`, others),
        ].filter(Boolean);
        if (told.length) toasts.show("success", told.join(" "));
        else toasts.show("info", words.text(`swap.none_to_${direction}`));
      },
    };
  }

  /** The selected nodes of the open graph that can be swapped so. */
  #swappable(types) {
    return [...this.app.canvas.selectedItems].filter((item) => typesFor(item) === types);
  }

  /** Through the frontend's own redo, so that one undo step takes it back. */
  async #apply(workflow) {
    const { app } = this;
    const tracker = trackerOf(app);
    const selected = new Set([...app.canvas.selectedItems].map(({ id }) => String(id)));
    const known = new Set(app.canvas.graph.nodes.filter(remembers).map(({ id }) => id));
    capture(tracker);
    tracker.redoQueue.length = 0;
    tracker.redoQueue.push(workflow);
    await tracker.redo();
    const nodes = app.canvas.graph.nodes.filter(({ id }) => selected.has(String(id)));
    app.canvas.selectItems(nodes);
    await settle(app, tracker, () => {
      for (const node of app.canvas.graph.nodes.filter(remembers)) {
        if (!known.has(node.id)) grownTo(node, foldedHeight(node));
      }
    });
  }
}

function typesFor(node) {
  return [...DIRECTIONS.keys()].find((types) => Object.hasOwn(types, node?.type ?? ""));
}

function blanksOf(types) {
  const all = Object.entries(types).flat();
  return Object.fromEntries(all.map((type) => [type, blankOf(type)]));
}

function blankOf(type) {
  const node = window.LiteGraph.createNode(type);
  return blank(node, node.constructor.title);
}
