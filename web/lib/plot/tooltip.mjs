/** The numbers of a step beside the pointer, readable at any zoom; one element for all plots. */

const GAP = 14; // px from the pointer

export class Tooltip {
  #box = null;
  #size = { width: 0, height: 0 };

  /** told: {title, says, lines: [[name, value]]}. x, y: where it points to, in client pixels. */
  show(told, x, y) {
    this.#box ??= build();
    fill(this.#box, told);
    if (!this.#box.isConnected) document.body.append(this.#box);
    this.#size = this.#box.getBoundingClientRect();
    this.move(x, y);
  }

  move(x, y) {
    if (!this.#box) return;
    const { width, height } = this.#size;
    const left = x + GAP + width > innerWidth ? x - width - GAP : x + GAP;
    const above = y - height - GAP / 2;
    const top = Math.min(above < 4 ? y + GAP : above, innerHeight - height - 4);
    const at = { left: `${Math.max(4, left)}px`, top: `${Math.max(4, top)}px` };
    Object.assign(this.#box.style, at);
  }

  hide() {
    this.#box?.remove();
  }
}

function build() {
  const element = document.createElement("div");
  element.className = "hybrid-plot-tip";
  element.dataset.testid = "hybrid-plot-tip";
  element.setAttribute("aria-hidden", "true"); // the plot itself says it to screen readers
  return element;
}

function fill(box, { title, says, lines }) {
  const list = document.createElement("dl");
  for (const [name, value] of lines) list.append(row("dt", name), row("dd", value));
  box.replaceChildren(row("strong", title), ...(says ? [row("em", says)] : []), list);
}

function row(tag, content) {
  return Object.assign(document.createElement(tag), { textContent: content });
}
