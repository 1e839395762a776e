/** The elements of a plot. */

let serial = 0;

/** {root, canvas, view, lead, rest, line, scale, more, hint, now} of a new plot. */
export function buildPlot() {
  const hint = `hybrid-plot-hint-${++serial}`;
  const root = document.createElement("div");
  root.className = "hybrid-plot";
  root.dataset.testid = "hybrid-plot";
  root.innerHTML = `
    <div class="head">
      <div class="state" data-testid="hybrid-plot-state"><b></b><span></span></div>
      <button type="button" class="scale" data-testid="hybrid-plot-scale"></button>
      <button type="button" class="more" data-testid="hybrid-plot-menu">⋯</button>
    </div>
    <div class="view">
      <canvas role="img" tabindex="0" aria-describedby="${hint}"
        data-testid="hybrid-plot-canvas"></canvas>
    </div>
    <p class="hint unseen" id="${hint}"></p>
    <p class="now unseen" aria-live="polite"></p>`;
  const find = (selector) => root.querySelector(selector);
  return {
    root,
    canvas: find("canvas"),
    view: find(".view"),
    line: find(".state"),
    lead: find(".state b"),
    rest: find(".state span"),
    scale: find(".scale"),
    more: find(".more"),
    hint: find(".hint"),
    now: find(".now"),
  };
}

/** Set an element's text, if it is another. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
