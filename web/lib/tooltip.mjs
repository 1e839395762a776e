/** The numbers of a step beside the pointer, readable at any zoom; one element for all plots. */

let box = null;

/** words: {title, stage, lines: [[name, value]]}. x, y: where it points to, in client pixels. */
export function showTip({ title, stage, lines }, x, y) {
  box ??= Object.assign(document.createElement("div"), { className: "hybrid-plot-tip" });
  box.dataset.testid = "hybrid-plot-tip";
  box.setAttribute("aria-hidden", "true"); // the plot's own live text says it
  const head = row("strong", title);
  const list = document.createElement("dl");
  for (const [name, value] of lines) list.append(row("dt", name), row("dd", value));
  box.replaceChildren(head, ...(stage ? [row("em", stage)] : []), list);
  if (!box.isConnected) document.body.append(box);
  const { width, height } = box.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - width - 14 : x + 14;
  const above = y - height - 8;
  const top = Math.min(above < 4 ? y + 14 : above, innerHeight - height - 4);
  Object.assign(box.style, { left: `${Math.max(4, left)}px`, top: `${Math.max(4, top)}px` });
}

export function hideTip() {
  box?.remove();
}

function row(tag, content) {
  return Object.assign(document.createElement(tag), { textContent: content });
}
