/** The elements of a plot. */

let serial = 0;

/** {root, head, sentence, lead, rest, key, scale, more, view, canvas, hint, now} of a new plot. */
export function buildPlot() {
  const hint = `hybrid-plot-hint-${++serial}`;
  const root = document.createElement("div");
  root.className = "hybrid-plot";
  root.dataset.testid = "hybrid-plot";
  root.innerHTML = `
    <div class="head">
      <button type="button" class="sentence" data-testid="hybrid-plot-sentence"
        ><b></b><span></span></button>
      <button type="button" class="key" data-testid="hybrid-plot-key" aria-expanded="false"
        >?</button>
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
    sentence: find(".sentence"),
    lead: find(".sentence b"),
    rest: find(".sentence span"),
    key: find(".key"),
    scale: find(".scale"),
    more: find(".more"),
    view: find(".view"),
    canvas: find("canvas"),
    hint: find(".hint"),
    now: find(".now"),
  };
}

/** Set an element's text, if it is another. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
