/** The plot as the last widget of a node, in the classic canvas and in Nodes 2.0. */

import { app } from "../../../scripts/app.js";
import { store, watchers } from "./events.mjs";
import { executionId, isHeld, nodeAt, slotOf, workflowId } from "./graph.mjs";
import { HEIGHT, Plot } from "./plot.mjs";
import { isLive } from "./prefs.mjs";

export const NODES = new Set(["Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_Monitor"]);
const MARGIN = 6;
const WIDTH = 270; // px of a new node: KSampler's
const hosts = new Map(); // graph and node id -> the element that last held the node's plot
const FRAMES = 6; // to wait for the renderer to place the element

export const plotOf = (node) => [...watchers].find((plot) => plot.node === node) ?? null;

export const minHeight = () => (isLive() ? HEIGHT.live : HEIGHT.quiet) + 2 * MARGIN;

/** Give `node` its plot. Call from nodeCreated. */
export function addPlot(node) {
  const plot = new Plot({
    slot: () => slotOf(store, node),
    zoom: () => app.canvas?.ds?.scale ?? 1,
  });
  plot.node = node;
  const widget = node.addDOMWidget("hybrid_plot", "HYBRID_PLOT", plot.element, {
    serialize: false, // not in the API's prompt
    hideOnZoom: false,
    hideInPanel: true,
    margin: MARGIN,
    getMinHeight: minHeight,
    getValue: () => undefined,
    setValue: () => {},
  });
  widget.serialize = false; // not among the workflow's values
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], height)]);
  forward(plot.element);
  after(node, "onAdded", () => mount(plot)); // copying makes throw-away nodes that are never added
  before(node, "onRemoved", () => unmount(plot));
  after(node, "onResize", () => node.setDirtyCanvas(true, true)); // elements move when it draws
  after(node, "onExecuted", (output) => {
    const runs = output?.hybrid_run;
    if (!runs?.length) return;
    const told = runs.at(-1).node; // not the node's own where the output is another workflow's
    const id = nodeAt(told) === node ? told : executionId(node) ?? String(node.id);
    store.replay(runs, workflowId(), id);
  });
}

function mount(plot) {
  plot.host = `${plot.node.graph?.id}:${plot.node.id}`;
  watchers.add(plot);
  plot.start();
  settle(plot, FRAMES);
}

/**
 * On undo and redo Nodes 2.0 makes the node anew and keeps the old widget's element on screen: put
 * the new one in its place.
 */
function settle(plot, frames) {
  if (!watchers.has(plot)) return;
  const host = hosts.get(plot.host);
  const late = !plot.element.isConnected && frames < FRAMES - 1;
  if (late && host?.isConnected) host.replaceChildren(plot.element);
  if (plot.element.isConnected) plot.schedule();
  else if (frames > 0) requestAnimationFrame(() => settle(plot, frames - 1));
}

/** Let go of plots whose nodes went with their graph: not every frontend tells nodes in subgraphs. */
export function dropLost() {
  for (const plot of watchers) if (!isHeld(plot.node)) unmount(plot);
}

function unmount(plot) {
  if (plot.element.parentElement) {
    hosts.delete(plot.host);
    hosts.set(plot.host, plot.element.parentElement);
    for (const key of hosts.keys()) {
      if (hosts.size <= 64) break;
      hosts.delete(key);
    }
  }
  plot.stop();
  watchers.delete(plot);
}

/** The classic canvas lies under the element: let it have the wheel and the middle button. */
function forward(element) {
  const classic = () => !window.LiteGraph.vueNodesMode;
  for (const action of ["Down", "Move", "Up"]) {
    element.addEventListener(`pointer${action.toLowerCase()}`, (event) => {
      const middle = event.button === 1 || event.buttons & 4;
      if (classic() && middle) app.canvas[`processMouse${action}`](event);
    });
  }
  const wheel = (event) => classic() && app.canvas.processMouseWheel(event);
  element.addEventListener("wheel", wheel, { passive: false });
}

function after(node, name, then) {
  const old = node[name];
  node[name] = function (...values) {
    const result = old?.apply(this, values);
    then(...values);
    return result;
  };
}

function before(node, name, first) {
  const old = node[name];
  node[name] = function (...values) {
    first(...values);
    return old?.apply(this, values);
  };
}
