/** The live plot of one node: one redraw for each frame in which something changed. */

import { course } from "../run/course.mjs";
import { description, details, sentence, stepWords } from "../run/sentence.mjs";
import { Calm } from "./calm.mjs";
import { buildPlot, put } from "./elements.mjs";
import { openMenu } from "./menu.mjs";
import { drawPicture } from "./picture.mjs";
import { scene } from "./scene.mjs";
import { strip } from "./strip.mjs";
import { Surface } from "./surface.mjs";

const TALL = 280; // px: room for more lines of words
const CALM = 2000; // ms between two changes of the text alternative

export class Plot {
  draws = 0; // redraws so far, and the milliseconds of the last one with all that goes with it
  lastMs = 0;
  #parts = buildPlot();
  #frame = 0;
  #drawn = ""; // what the last refresh showed
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
    Object.assign(this, { slot, opened, toggle, prefs, words, kinds, theme, tip, key });
    Object.assign(this, { element: this.#parts.root, canvas: this.#parts.canvas });
    this.surface = new Surface(this.canvas, zoom);
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

  #resized(entries) {
    for (const { target, contentRect } of entries) {
      const { width, height } = contentRect;
      if (target === this.element) this.#tall = height >= TALL;
      else Object.assign(this.surface, { width, height });
    }
    this.schedule();
  }

  #refresh() {
    const began = performance.now();
    const { log } = this.prefs;
    const open = this.opened();
    const shown = this.shown();
    const { width, height, scale, visible } = this.surface;
    const drawn = [
      shown?.run.version, shown?.before?.run.version, this.#hover?.index, width, height, scale,
      this.#tall, this.theme.version, log, open, this.words.language, this.kinds.loaded,
    ].join("|");
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    if (visible) this.#draw(shown, open); // first: changed elements slow fonts down
    this.#write(shown, open);
    if (this.#hover) this.#tell(shown);
    if (!visible) return;
    this.draws++;
    this.lastMs = performance.now() - began;
  }

  #draw(shown, open) {
    const { surface, words, kinds } = this;
    const { width, height, measure } = surface;
    const { log } = this.prefs;
    const view = { width, height, log, hover: this.#hover?.index ?? null, words, measure };
    this.#scene = open ? scene(shown, shown?.before ?? null, view, kinds) : strip(shown, view, kinds);
    surface.draw(this.#scene.shapes, this.theme.at(this.element));
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
    openMenu(this, event);
  }

  #follow({ clientX: x, clientY: y }) {
    const index = this.#scene?.nearest(this.surface.toLocal(x)) ?? null;
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
    const at = this.surface.toClient(this.#scene?.x(index) ?? 0);
    this.#point(index === null ? null : { index, ...at, aloud: true });
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
