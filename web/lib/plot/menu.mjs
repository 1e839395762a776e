/** What can be done with a plot: its scale, and saving it. */

import { csv, fileName } from "../run/table.mjs";

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
