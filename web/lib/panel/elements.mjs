/** The panel's elements. Texts are set only where they differ, so that nothing loses the focus. */

const STYLE = new URL("./panel.css", import.meta.url).href;
const ORDERS = { start: "pi-play", free: "pi-eraser", restart: "pi-refresh" };

/** orders: {start, free, restart}: called with the name and the worker's number. Gives {root, show,
 * fail, busy}.
 */
export function buildPanel(orders, words) {
  const text = (key) => words.text(key);
  const root = element("section", { class: "hybrid-panel", "aria-label": text("panel.title") });
  const style = element("link", { rel: "stylesheet", href: STYLE });
  const obstacle = element("p", { class: "hybrid-note", role: "note" });
  const failure = element("p", { class: "hybrid-note hybrid-alarm", role: "alert" });
  const said = element("p", { class: "hybrid-said", "aria-live": "polite" });
  const idle = element("p", { class: "hybrid-hint" });
  const left = element("p", { class: "hybrid-hint" });
  const parent = card(text("panel.parent"), text("panel.memory"));
  const workers = [workerCard(text("panel.worker"), 0, orders, text)];
  const title = element("h2", {}, text("panel.title"));
  workers[0].root.append(idle);
  root.append(style, title, failure, obstacle, parent.root, workers[0].root, left, said);
  let busy = false;

  put(obstacle, null);
  put(failure, null);
  put(left, null);
  for (const process of [parent, workers[0]]) process.show({ rows: [], memory: null });
  return {
    root,
    /** Show what content() gives. */
    show(content) {
      put(obstacle, content.obstacle);
      put(idle, content.obstacle ? null : content.idle);
      put(left, content.left.length ? content.left.join(" ") : null);
      put(said, content.said);
      parent.show(content.parent);
      const { worker, can, others } = content;
      while (workers.length > 1 + others.length) workers.pop().root.remove();
      for (const [index, { name }] of others.entries()) {
        if (index + 1 < workers.length) continue;
        const added = workerCard(name, index + 1, orders, text);
        workers.at(-1).root.after(added.root);
        workers.push(added);
      }
      for (const [index, one] of [{ worker, can }, ...others].entries()) {
        workers[index].show(one.worker);
        workers[index].enable(one.can, busy);
      }
    },
    /** Say that the server did not answer or refused; null takes it back. */
    fail(sentence) {
      put(failure, sentence);
    },
    busy(on) {
      busy = on;
      for (const worker of workers) worker.enable(worker.can, busy);
    },
  };
}

/** A card with the buttons of one worker. */
function workerCard(name, number, orders, text) {
  const made = card(name, text("panel.memory"));
  const buttons = Object.entries(orders).map(([key, order]) => button(key, order, text));
  const actions = element("div", { class: "hybrid-actions", role: "group" });
  actions.setAttribute("aria-label", text("panel.orders"));
  actions.append(...buttons.map(({ root: one }) => one));
  made.root.append(actions);
  for (const { name: key, root: one, order } of buttons) {
    one.addEventListener("click", () => {
      if (one.getAttribute("aria-disabled") !== "true") order(key, number);
    });
  }
  const worker = {
    ...made,
    can: {},
    enable(can, busy) {
      worker.can = can;
      for (const { name: key, root: one } of buttons) {
        one.setAttribute("aria-disabled", String(busy || !can[key]));
      }
    },
  };
  worker.enable({}, false);
  return worker;
}

function button(name, order, text) {
  const root = element("button", { type: "button", class: "hybrid-button", "data-order": name });
  const icon = element("i", { class: `pi ${ORDERS[name]}`, "aria-hidden": "true" });
  root.append(icon, text(`panel.order.${name}`));
  root.title = text(`panel.order.${name}.hint`);
  return { name, root, order };
}

/** One process: its name, a bar for the memory, and rows of label and value. */
function card(name, memoryName) {
  const root = element("section", { class: "hybrid-card", "aria-label": name });
  const list = element("dl", {});
  const meter = element("div", { class: "hybrid-meter", role: "meter" });
  const bar = element("div", {});
  const used = element("span", {});
  const free = element("span", {});
  const legend = element("div", { class: "hybrid-legend" });
  meter.setAttribute("aria-label", memoryName);
  meter.append(bar);
  legend.append(used, free);
  root.append(element("h3", {}, name), list, meter, legend);
  return {
    root,
    show({ rows, memory }) {
      fill(list, rows);
      legend.hidden = !memory;
      meter.hidden = memory?.share == null;
      put(used, memory?.used);
      put(free, memory?.free);
      if (meter.hidden) return;
      bar.style.width = `${(100 * memory.share).toFixed(1)}%`;
      meter.setAttribute("aria-valuenow", Math.round(100 * memory.share));
      meter.setAttribute("aria-valuetext", `${memory.used}, ${memory.free}`);
    },
  };
}

function fill(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  for (const [index, { label, value, alarm }] of rows.entries()) {
    const line = list.children[index] ?? list.appendChild(element("div", {}));
    if (!line.children.length) line.append(element("dt", {}), element("dd", {}));
    line.className = alarm ? "hybrid-alarm" : "";
    put(line.children[0], label);
    put(line.children[1], value);
  }
}

/** Set a text; null hides the element. */
function put(target, text) {
  target.hidden = text == null;
  if (text != null && target.textContent !== text) target.textContent = text;
}

function element(tag, attributes, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}
