/** The plots on screen, each the last widget of its node, in the classic canvas and in Nodes 2.0. */

import { Key } from "./key.mjs";
import { Plot } from "./plot.mjs";
import { isOpen, resize, setOpen } from "./room.mjs";
import { Theme } from "./theme.mjs";
import { Tooltip } from "./tooltip.mjs";

const NODES = new Set(["Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_Monitor"]);
const HEIGHT = { open: 220, folded: 36 }; // px at least
const MARGIN = 4;
const WIDTH = 270; // px of a new node: KSampler's
const FRAMES = 6; // to wait for the renderer to place the element
const HOSTS = 64;
const SETTLED = 150; // ms without a change of the zoom

export class Plots {
  #plots = new Set();
  #hosts = new Map(); // graph and node id -> the element that last held the node's plot
  #tip = new Tooltip();

  /** workflow: an OpenWorkflow. store: a RunStore. */
  constructor({ app, workflow, store, prefs, words, kinds }) {
    Object.assign(this, { app, workflow, store, prefs, words, kinds });
    this.theme = new Theme(kinds);
    this.key = new Key({ words, kinds });
    store.subscribe(() => this.redraw());
    prefs.subscribe(() => this.redraw());
  }

  [Symbol.iterator]() {
    return this.#plots.values();
  }

  get size() {
    return this.#plots.size;
  }

  of(node) {
    return [...this.#plots].find((plot) => plot.node === node) ?? null;
  }

  redraw() {
    for (const plot of this.#plots) plot.schedule();
  }

  /** Watch what changes the look of all plots. To be called in setup. */
  setUp() {
    this.theme.watch(() => this.redraw());
    this.#watchZoom();
  }

  /** The zoom has no event of its own: sharpen the plots when it comes to rest. */
  #watchZoom() {
    let timer = 0;
    const { ds } = this.app.canvas;
    const plots = this;
    const { onChanged } = ds;
    ds.onChanged = function (...values) {
      onChanged?.apply(this, values);
      clearTimeout(timer);
      timer = setTimeout(() => plots.redraw(), SETTLED);
    };
  }

  /** The kinds or the words of another language are there. */
  relearn() {
    for (const plot of this.#plots) plot.relearn();
  }

  /** The setting of those nodes that have none of their own changed. */
  setOpen(open) {
    const before = [...this.#plots].map((plot) => plot.opened());
    this.prefs.setOpen(open);
    for (const [index, plot] of [...this.#plots].entries()) {
      if (plot.opened() !== before[index]) this.#makeRoom(plot.node, plot.opened());
    }
  }

  /** Open a node's plot or fold it; the node remembers it. */
  #toggle(node) {
    const open = !isOpen(node, this.prefs);
    setOpen(node, open);
    this.#makeRoom(node, open);
    void this.workflow.noteChange();
  }

  /** Give or take the room that the plot has more than the strip, where the node has no other. */
  #makeRoom(node, open) {
    resize(node, open, HEIGHT.open - HEIGHT.folded);
    this.redraw();
    this.app.canvas?.setDirty(true, true);
  }

  /** Give `node` its plot, if it is one that has one. Call from nodeCreated. */
  add(node) {
    if (!NODES.has(node.comfyClass)) return;
    const { app, workflow, store, prefs, words, kinds } = this;
    const plot = new Plot({
      slot: () => workflow.slotOf(store, node),
      zoom: () => app.canvas?.ds?.scale ?? 1,
      opened: () => isOpen(node, prefs),
      toggle: () => this.#toggle(node),
      prefs,
      words,
      kinds,
      theme: this.theme,
      tip: this.#tip,
      key: this.key,
    });
    plot.node = node;
    const height = () => (isOpen(node, prefs) ? HEIGHT.open : HEIGHT.folded);
    const widget = node.addDOMWidget("hybrid_plot", "HYBRID_PLOT", plot.element, {
      serialize: false, // not in the API's prompt
      hideOnZoom: false,
      hideInPanel: true,
      margin: MARGIN,
      getMinHeight: () => height() + 2 * MARGIN,
      getMaxHeight: () => (isOpen(node, prefs) ? undefined : height() + 2 * MARGIN),
      getValue: () => undefined,
      setValue: () => {},
    });
    widget.serialize = false; // not among the workflow's values
    const [width, least] = node.computeSize();
    node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], least)]);
    forward(plot.element, app);
    // copying makes throw-away nodes that are never added
    after(node, "onAdded", () => this.#mount(plot));
    before(node, "onRemoved", () => this.#unmount(plot));
    after(node, "onResize", () => node.setDirtyCanvas(true, true)); // elements move when it draws
    after(node, "onExecuted", (output) => this.#replay(node, output?.hybrid_run));
  }

  /** Show the runs that a node's output holds. */
  #replay(node, runs) {
    if (!runs?.length) return;
    const { workflow } = this;
    const told = runs.at(-1).node; // not the node's own where the output is another workflow's
    const own = workflow.nodeAt(told) === node;
    const id = own ? told : workflow.executionId(node) ?? String(node.id);
    this.store.replay(runs, workflow.id, id);
  }

  #mount(plot) {
    plot.host = `${plot.node.graph?.id}:${plot.node.id}`;
    this.#plots.add(plot);
    plot.start();
    this.#settle(plot, FRAMES);
  }

  /**
   * On undo and redo Nodes 2.0 makes the node anew and keeps the old widget's element on screen: put
   * the new one in its place.
   */
  #settle(plot, frames) {
    if (!this.#plots.has(plot)) return;
    const host = this.#hosts.get(plot.host);
    const late = !plot.element.isConnected && frames < FRAMES - 1;
    if (late && host?.isConnected) host.replaceChildren(plot.element);
    if (plot.element.isConnected) plot.schedule();
    else if (frames > 0) requestAnimationFrame(() => this.#settle(plot, frames - 1));
  }

  /** Let go of plots whose nodes went with their graph: not every frontend tells nodes in subgraphs. */
  dropLost() {
    for (const plot of this.#plots) if (!this.workflow.holds(plot.node)) this.#unmount(plot);
  }

  #unmount(plot) {
    if (plot.element.parentElement) {
      this.#hosts.delete(plot.host);
      this.#hosts.set(plot.host, plot.element.parentElement);
      for (const key of this.#hosts.keys()) {
        if (this.#hosts.size <= HOSTS) break;
        this.#hosts.delete(key);
      }
    }
    plot.stop();
    this.#plots.delete(plot);
  }
}

/** The classic canvas lies under the element: let it have the wheel and the middle button. */
function forward(element, app) {
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
