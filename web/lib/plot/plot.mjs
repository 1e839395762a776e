/** The live plot of one node: one redraw for each frame in which something changed. */

import { course } from "../run/course.mjs";
import { description, details, sentence, stepWords } from "../run/sentence.mjs";
import { Calm } from "./calm.mjs";
import { buildPlot, put } from "./elements.mjs";
import { menuItems } from "./menu.mjs";
import { paint } from "./paint.mjs";
import { drawPicture, measurer } from "./picture.mjs";
import { scene } from "./scene.mjs";
import { strip } from "./strip.mjs";

const TALL = 280; // px: room for more lines of words
const LEAST = { width: 40, height: 8 }; // px of a canvas worth drawing on
const SHARPNESS = { zoom: 3, pixels: 4e6 }; // of the canvas at most
const CALM = 2000; // ms between two changes of the text alternative

export class Plot {
  draws = 0; // redraws so far, and the milliseconds of the last one with all that goes with it
  lastMs = 0;
  #parts = buildPlot();
  #frame = 0;
  #drawn = ""; // what the last refresh showed
  #size = { width: 0, height: 0 }; // of the canvas
  #tall = false;
  #hover = null; // {index, x, y}: a row and the place of its numbers on the screen
  #told = ""; // which row's numbers are on the screen
  #scene = null;
  #courses = new Map(); // of the two runs on screen
  #alternative = new Calm(CALM, () => this.#describe());

  /**
   * slot(): {current, previous} of the node or null. zoom(): scale at which the node is shown.
   * opened(): whether it is the plot or only the strip. toggle(): a click on the sentence.
   * prefs, words, kinds, theme, tip, key: a Prefs, Words, Kinds, Theme, Tooltip and Key.
   */
  constructor({ slot, zoom, opened, toggle, prefs, words, kinds, theme, tip, key }) {
    Object.assign(this, { slot, zoom, opened, toggle, prefs, words, kinds, theme, tip, key });
    Object.assign(this, { element: this.#parts.root, canvas: this.#parts.canvas });
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.measure = measurer(this.context);
    this.observer = new ResizeObserver((entries) => this.#resized(entries));
    this.#listen();
  }

  start() {
    this.observer.observe(this.#parts.view);
    this.observer.observe(this.element);
    this.schedule();
  }

  stop() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#alternative.stop();
    this.observer.disconnect();
    this.#point(null);
    this.key.hide();
    this.#courses.clear();
  }

  /** Look at the next frame whether something changed. */
  schedule() {
    if (this.#frame || !this.element.isConnected) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#refresh();
    });
  }

  /** {run, course, before: {run, course} or null} on screen, or null. */
  shown() {
    const slot = this.slot();
    if (!slot) return null;
    const both = (run) => ({ run, course: this.#course(run) });
    return { ...both(slot.current), before: slot.previous ? both(slot.previous) : null };
  }

  #course(run) {
    if (!this.#courses.has(run)) {
      if (this.#courses.size > 3 || !this.kinds.loaded) this.#courses.clear();
      this.#courses.set(run, course(run, this.kinds));
    }
    return this.#courses.get(run);
  }

  /** The kinds or the words of another language are there. */
  relearn() {
    this.#courses.clear();
    this.#drawn = "";
    this.schedule();
  }

  toggleScale() {
    this.prefs.setLog(!this.prefs.log);
  }

  /** A canvas with the plot and its line of words, of a size for reports; null without a run. */
  picture() {
    const shown = this.shown();
    const { words, kinds } = this;
    const { log } = this.prefs;
    const theme = this.theme.at(this.element);
    return shown && drawPicture(shown, { log, words, kinds, theme });
  }

  /** Sizes come from here, in CSS pixels without the zoom: asking for them costs a layout. */
  #resized(entries) {
    for (const { target, contentRect } of entries) {
      const { width, height } = contentRect;
      if (target === this.element) this.#tall = height >= TALL;
      else this.#size = { width, height };
    }
    this.schedule();
  }

  #refresh() {
    const began = performance.now();
    const { log } = this.prefs;
    const open = this.opened();
    const shown = this.shown();
    const { width, height } = this.#size;
    const scale = this.#sharpness(width, height);
    const drawn = [
      shown?.run.version, shown?.before?.run.version, this.#hover?.index, width, height, scale,
      this.#tall, this.theme.version, log, open, this.words.language, this.kinds.loaded,
    ].join("|");
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const visible = width > LEAST.width && height > LEAST.height;
    // first: changed elements slow fonts down
    if (visible) this.#draw(shown, { width, height, open }, scale);
    this.#write(shown, open);
    if (this.#hover) this.#tell(shown);
    if (!visible) return;
    this.draws++;
    this.lastMs = performance.now() - began;
  }

  #sharpness(width, height) {
    const zoom = Math.min(SHARPNESS.zoom, Math.max(1, Math.ceil(this.zoom() * 2) / 2));
    const most = Math.sqrt(SHARPNESS.pixels / Math.max(1, width * height));
    return Math.min(most, (window.devicePixelRatio || 1) * zoom);
  }

  #draw(shown, { width, height, open }, scale) {
    const { canvas, context, measure, words, kinds } = this;
    const { log } = this.prefs;
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== wide || canvas.height !== high) {
      Object.assign(canvas, { width: wide, height: high });
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const view = { width, height, log, hover: this.#hover?.index ?? null, words, measure };
    this.#scene = open ? scene(shown, shown?.before ?? null, view, kinds) : strip(shown, view, kinds);
    paint(context, this.#scene.shapes, this.theme.at(this.element), width, height);
  }

  #write(shown, open) {
    const { root, sentence: button, lead, rest, key, scale, more, hint } = this.#parts;
    const { words } = this;
    const { log } = this.prefs;
    const said = sentence(shown, this);
    put(lead, said.lead);
    put(rest, said.parts.map((part) => ` · ${part}`).join(""));
    root.dataset.status = shown?.run.status ?? "none";
    root.classList.toggle("open", open);
    root.classList.toggle("tall", open && this.#tall);
    button.setAttribute("aria-expanded", String(open));
    button.setAttribute("aria-description", words.text(open ? "plot.fold" : "plot.open"));
    name(key, words.text("key.title"));
    put(scale, words.text(log ? "plot.log" : "plot.linear"));
    scale.title = words.text(log ? "menu.linear" : "menu.log");
    name(more, words.text("menu.title"));
    put(hint, words.text("alt.hint"));
    const { run, status } = shown?.run ?? {};
    this.#alternative.changed(`${run} ${status} ${words.language} ${hint.textContent}`);
  }

  #describe() {
    this.canvas.setAttribute("aria-label", description(this.shown(), this));
  }

  #listen() {
    const { canvas, element } = this;
    const { sentence: button, key, scale, more } = this.#parts;
    canvas.addEventListener("pointermove", (event) => this.#follow(event));
    canvas.addEventListener("pointerleave", () => this.#point(null));
    canvas.addEventListener("blur", () => this.#point(null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("click", () => !this.opened() && this.toggle());
    button.addEventListener("click", () => this.toggle());
    button.addEventListener("pointermove", (event) => this.#detail(event.clientX, event.clientY));
    button.addEventListener("pointerleave", () => this.tip.hide());
    button.addEventListener("focus", () => this.#detailAtFocus());
    button.addEventListener("blur", () => this.tip.hide());
    key.addEventListener("click", () => this.key.toggle(key, this.theme.at(element)));
    scale.addEventListener("click", () => this.toggleScale());
    more.addEventListener("click", (event) => this.#menu(event));
    element.addEventListener("contextmenu", (event) => this.#menu(event));
  }

  /** Show what is behind the sentence. */
  #detail(x, y) {
    const shown = this.shown();
    if (shown) this.tip.show(details(shown, this), x, y);
  }

  #detailAtFocus() {
    const { sentence: button } = this.#parts;
    if (!button.matches(":focus-visible")) return;
    const { left, top } = button.getBoundingClientRect();
    this.#detail(left, top);
  }

  #menu(event) {
    event.preventDefault();
    event.stopPropagation();
    this.#point(null);
    const title = this.words.text("menu.title");
    new window.LiteGraph.ContextMenu(menuItems(this), { event, title });
  }

  #follow({ clientX: x, clientY: y }) {
    const box = this.canvas.getBoundingClientRect();
    const px = ((x - box.left) * this.#size.width) / box.width;
    const index = this.#scene?.nearest(px) ?? null;
    this.#point(index === null ? null : { index, x, y });
  }

  #key(event) {
    const last = (this.shown()?.course.steps.length ?? 0) - 1;
    if (last < 0) return;
    const left = Math.max(0, (this.#hover?.index ?? last + 1) - 1);
    const right = Math.min(last, (this.#hover?.index ?? -1) + 1);
    const rows = { ArrowLeft: left, ArrowRight: right, Home: 0, End: last, Escape: null };
    if (!Object.hasOwn(rows, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const index = rows[event.key];
    const box = this.canvas.getBoundingClientRect();
    const x = box.left + ((this.#scene?.x(index) ?? 0) * box.width) / this.#size.width;
    this.#point(index === null ? null : { index, x, y: box.top, aloud: true });
  }

  #point(hover) {
    if (!hover && !this.#hover) return;
    this.#hover = hover;
    if (hover) this.#tell(this.shown());
    else {
      this.#told = "";
      this.tip.hide();
      put(this.#parts.now, "");
    }
    this.schedule();
  }

  /** Show the numbers of the row pointed to; by keyboard they are read out too. */
  #tell(shown) {
    const { index, x, y, aloud } = this.#hover;
    if (!shown || index >= shown.course.steps.length) {
      this.#point(null);
      return;
    }
    this.tip.move(x, y);
    const told = `${shown.run.version} ${index} ${this.words.language}`;
    if (told === this.#told) return;
    this.#told = told;
    const said = stepWords(shown, index, this);
    this.tip.show(said, x, y);
    const lines = said.lines.map((one) => one.join(" "));
    if (aloud) put(this.#parts.now, [said.title, said.says, ...lines].join(", "));
  }
}

function name(button, text) {
  button.title = text;
  button.setAttribute("aria-label", text);
}
