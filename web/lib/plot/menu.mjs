/** What can be done with a plot: its scale, and saving it. */

import { csv, fileName } from "../run/table.mjs";

/** Open the menu where an event was; with the keyboard, below the button. plot: a Plot. */
export function openMenu(plot, event) {
  const box = event.currentTarget.getBoundingClientRect();
  const at = { clientX: box.left, clientY: box.bottom };
  const click = event.detail || event.type !== "click" ? event : new MouseEvent("click", at);
  const title = plot.words.text("menu.title");
  const menu = new window.LiteGraph.ContextMenu(menuItems(plot), { event: click, title });
  reachable(menu, event.currentTarget);
}

/** Let the keyboard choose in a LiteGraph menu; origin gets the focus back. */
function reachable(menu, origin) {
  const { root } = menu;
  const entries = [...root.querySelectorAll(".litemenu-entry:not(.disabled)")];
  root.setAttribute("role", "menu");
  for (const entry of entries) Object.assign(entry, { role: "menuitem", tabIndex: -1 });
  const leave = (act) => {
    act();
    origin.focus();
  };
  root.addEventListener("keydown", (event) => {
    const at = entries.indexOf(document.activeElement);
    const to = (index) => entries.at(index % entries.length).focus();
    const act = {
      ArrowDown: () => to(at + 1),
      ArrowUp: () => to(at - 1),
      Enter: () => leave(() => entries[at]?.click()),
      " ": () => leave(() => entries[at]?.click()),
      Escape: () => leave(() => menu.close()),
      Tab: () => leave(() => menu.close()),
    }[event.key];
    event.stopPropagation();
    if (!act) return;
    event.preventDefault();
    act();
  });
  entries[0]?.focus({ preventScroll: true });
}

/** Items for a LiteGraph menu. plot: a Plot. */
export function menuItems(plot) {
  const { words, prefs } = plot;
  const disabled = !plot.shown();
  const scale = words.text(prefs.log ? "menu.linear" : "menu.log");
  const fold = words.text(plot.opened() ? "plot.fold" : "plot.open");
  return [
    { content: fold, callback: () => plot.toggle() },
    { content: scale, callback: () => plot.toggleScale() },
    { content: words.text("menu.png"), disabled, callback: () => savePng(plot) },
    { content: words.text("menu.csv"), disabled, callback: () => saveCsv(plot) },
  ];
}

async function savePng(plot) {
  const shown = plot.shown();
  if (!shown) return;
  const blob = await new Promise((done) => plot.picture().toBlob(done, "image/png"));
  download(blob, fileName(shown.run, "png"));
}

function saveCsv(plot) {
  const shown = plot.shown();
  if (!shown) return;
  const { run, course } = shown;
  download(new Blob([csv(run, course)], { type: "text/csv" }), fileName(run, "csv"));
}

function download(blob, name) {
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}
