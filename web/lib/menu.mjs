/** What can be done with a plot: its scale, and saving it. */

import { isLog } from "./prefs.mjs";
import { csv, fileName } from "./table.mjs";
import { text } from "./words.mjs";

/** Items for a LiteGraph menu. plot: a Plot. */
export function menuItems(plot) {
  const disabled = !plot.shown();
  return [
    { content: text(isLog() ? "menu.linear" : "menu.log"), callback: () => plot.toggleScale() },
    { content: text("menu.png"), disabled, callback: () => savePng(plot) },
    { content: text("menu.csv"), disabled, callback: () => saveCsv(plot) },
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
