/** The numbers of a step beside the pointer, readable at any zoom; one element for all plots. */

const GAP = 14; // px from the pointer
let box = null;
let size = { width: 0, height: 0 };

/** words: {title, stage, lines: [[name, value]]}. x, y: where it points to, in client pixels. */
export function showTip(words, x, y) {
  box ??= build();
  fill(words);
  if (!box.isConnected) document.body.append(box);
  size = box.getBoundingClientRect();
  moveTip(x, y);
}

export function moveTip(x, y) {
  if (!box) return;
  const { width, height } = size;
  const left = x + GAP + width > innerWidth ? x - width - GAP : x + GAP;
  const above = y - height - GAP / 2;
  const top = Math.min(above < 4 ? y + GAP : above, innerHeight - height - 4);
  Object.assign(box.style, { left: `${Math.max(4, left)}px`, top: `${Math.max(4, top)}px` });
}

export function hideTip() {
  box?.remove();
}

function build() {
  const element = document.createElement("div");
  element.className = "hybrid-plot-tip";
  element.dataset.testid = "hybrid-plot-tip";
  element.setAttribute("aria-hidden", "true"); // the plot itself says it to screen readers
  return element;
}

function fill({ title, stage, lines }) {
  const list = document.createElement("dl");
  for (const [name, value] of lines) list.append(row("dt", name), row("dd", value));
  box.replaceChildren(row("strong", title), ...(stage ? [row("em", stage)] : []), list);
}

function row(tag, content) {
  return Object.assign(document.createElement(tag), { textContent: content });
}
