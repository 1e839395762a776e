/** What cells, marks and lines mean, beside the button that asks for it; one for all plots. */

import { paint } from "./paint.mjs";
import { cell, line, mark } from "./shapes.mjs";

const SAMPLE = { width: 40, height: 16, scale: 2 };

export class Key {
  #box = null;
  #button = null;
  #ends = null;

  constructor({ words, kinds }) {
    Object.assign(this, { words, kinds });
  }

  /** Show or hide it at `button`. theme: the plot's colours. */
  toggle(button, theme) {
    const shown = this.#button === button;
    this.hide();
    if (!shown) this.#show(button, theme);
  }

  hide() {
    if (!this.#box) return;
    this.#ends.abort();
    this.#box.remove();
    this.#button.setAttribute("aria-expanded", "false");
    [this.#box, this.#button] = [null, null];
  }

  #show(button, theme) {
    [this.#box, this.#button] = [this.#build(theme), button];
    document.body.append(this.#box);
    button.setAttribute("aria-expanded", "true");
    const [at, size] = [button.getBoundingClientRect(), this.#box.getBoundingClientRect()];
    const left = Math.max(4, Math.min(at.right - size.width, innerWidth - size.width - 4));
    const top = Math.max(4, Math.min(at.bottom + 4, innerHeight - size.height - 4));
    Object.assign(this.#box.style, { left: `${left}px`, top: `${top}px` });
    this.#ends = new AbortController();
    const { signal } = this.#ends;
    const out = ({ target }) => {
      if (!this.#box.contains(target) && !button.contains(target)) this.hide();
    };
    document.addEventListener("pointerdown", out, { capture: true, signal });
    document.addEventListener("wheel", out, { capture: true, passive: true, signal });
    const escape = (event) => event.key === "Escape" && this.hide();
    document.addEventListener("keydown", escape, { signal });
    button.addEventListener("blur", () => this.hide(), { signal });
  }

  #build(theme) {
    const { words, kinds } = this;
    const box = document.createElement("div");
    box.className = "hybrid-plot-key";
    box.dataset.testid = "hybrid-plot-key-box";
    box.setAttribute("role", "status");
    const list = document.createElement("dl");
    const add = (shapes, name, says) => {
      const term = row("dt", "");
      term.append(sample(shapes, theme), row("strong", name));
      list.append(term, row("dd", says));
    };
    for (const kind of kinds.names) {
      const { height, fill, mark: form } = kinds.of(kind);
      const h = 13 * height;
      const shapes = [...cell(2, 15 - h, 9, h, fill, kind), mark(form, kind, 26, 9, 4)];
      add(shapes, words.text(`kind.${kind}`), words.text(`kind.${kind}.says`));
    }
    const flat = (ink, alpha, dash) => [line([2, 8, 36, 8], ink, alpha, 1.6, dash)];
    add(flat("difference", 1), words.text("line.difference"), words.text("line.difference.says"));
    add(flat("change", 1, [1.5, 1.8]), words.text("line.change"), words.text("line.change.says"));
    add(flat("change", 1, [6, 3]), words.text("key.tolerance"), words.text("key.tolerance.says"));
    add(flat("text", 0.4), words.text("plot.previous"), words.text("key.previous.says"));
    box.append(row("strong", words.text("key.title")), list);
    return box;
  }
}

function sample(shapes, theme) {
  const { width, height, scale } = SAMPLE;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: width * scale, height: height * scale });
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  paint(context, shapes, theme, width, height);
  return canvas;
}

function row(tag, content) {
  return Object.assign(document.createElement(tag), { textContent: content });
}
