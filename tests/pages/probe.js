// Put into each page before anything else: counts what is drawn on canvases and looks at the widget
// from outside, so that the tests know nothing of the extension's own code.
(() => {
  const drawing = ["fillRect", "clearRect", "strokeRect", "fill", "stroke", "fillText", "drawImage", "putImageData"];
  const counts = new WeakMap();
  let open = new Set();
  const note = (canvas) => {
    if (open.has(canvas)) return;
    if (open.size === 0) queueMicrotask(() => (open = new Set()));
    open.add(canvas);
    const count = counts.get(canvas) ?? { redraws: 0, frames: 0, last: null };
    const now = document.timeline.currentTime;
    count.redraws += 1;
    if (count.last !== now) count.frames += 1;
    count.last = now;
    counts.set(canvas, count);
  };
  for (const name of drawing) {
    const original = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...args) {
      note(this.canvas);
      return original.apply(this, args);
    };
  }

  const observed = new Map();
  window.ResizeObserver = class extends ResizeObserver {
    observe(target, ...rest) {
      if (!observed.has(this)) observed.set(this, new Set());
      observed.get(this).add(target);
      super.observe(target, ...rest);
    }
    unobserve(target) {
      observed.get(this)?.delete(target);
      super.unobserve(target);
    }
    disconnect() {
      observed.delete(this);
      super.disconnect();
    }
  };
  const detachedPlots = () =>
    [...observed.values()].flatMap((targets) => [...targets])
      .filter((t) => !t.isConnected && (t.tagName === "CANVAS" || t.querySelector("canvas"))).length;

  const nodes = (graph) => graph.nodes ?? graph._nodes ?? [];
  const root = () => app.rootGraph ?? app.graph;
  const api = () => window.comfyAPI.api.api;

  function node(id) {
    let graph = root(), found;
    for (const part of String(id).split(":")) {
      found = nodes(graph).find((n) => String(n.id) === part);
      if (!found) return undefined;
      graph = found.subgraph;
    }
    return found;
  }
  const widget = (id) => node(id)?.widgets?.filter((w) => w.element && w.element.tagName !== "TEXTAREA").at(-1);
  const canvas = (id) => widget(id)?.element.querySelector("canvas");

  // What is on the canvas. background: the colour of its corner; drawn: pixels of other colours.
  function pixels(id) {
    const c = canvas(id);
    if (!c || !c.width || !c.height) return null;
    const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    const colours = new Set();
    let [drawn, hash] = [0, 0];
    const background = (data[0] << 16) | (data[1] << 8) | data[2];
    for (let i = 0; i < data.length; i += 4) {
      const colour = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
      colours.add(colour);
      drawn += colour === background ? 0 : 1;
      hash = (hash * 31 + colour) | 0;
    }
    return {
      width: c.width, height: c.height, colours: colours.size, drawn, hash,
      background: background.toString(16).padStart(6, "0"),
    };
  }

  function onScreen(id) {
    const element = widget(id)?.element;
    if (!element?.isConnected || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return null;
    const box = element.getBoundingClientRect();
    if (!(box.width > 0 && box.height > 0)) return null;
    return { x: box.x, y: box.y, width: box.width, height: box.height };
  }

  // The text alternative: what a screen reader finds in the widget.
  function said(id) {
    const element = widget(id)?.element;
    if (!element) return "";
    const labels = [element, ...element.querySelectorAll("[aria-label]")].map((e) => e.getAttribute("aria-label"));
    return [element.textContent, ...labels].filter(Boolean).join(" ");
  }

  // What the extension hands out: its runs, plots and follower.
  const pack = () => app.extensions.find(({ name }) => name === "hybrid_ksampler")?.hybrid;
  const slot = (id) => pack()?.store.slots(String(root().id)).find((s) => s.node === id);

  window.probe = {
    said,
    rows: (id) => slot(id)?.current?.rows ?? [],
    pack,
    shown: (id) => [...(pack()?.plots ?? [])].find(({ node }) => node === window.probe.node(id))?.shown()?.run.rows.length,
    node, widget, canvas, pixels, onScreen, root, api,
    detachedPlots,
    events: [],
    prompts: [],
    counts: (id) => counts.get(canvas(id)) ?? { redraws: 0, frames: 0 },
    async calm(id) {
      let [seen, frames] = [0, 0];
      while (!seen || frames < 3) {
        await new Promise(requestAnimationFrame);
        const { redraws } = probe.counts(id);
        frames = redraws === seen ? frames + 1 : 0;
        seen = redraws;
      }
    },
    values: (id) => node(id).widgets.filter((w) => w.serialize !== false).map((w) => w.value),
    feed: (detail) => api().dispatchEvent(new CustomEvent("hybrid_ksampler.run", { detail })),
    async ready() {
      const own = api();
      if (own.probed) return;
      own.probed = true;
      own.addEventListener("hybrid_ksampler.run", (e) =>
        probe.events.push({ at: performance.now(), detail: structuredClone(e.detail) }));
      const queue = own.queuePrompt;
      own.queuePrompt = async (...args) => {
        const answer = await queue.apply(own, args);
        probe.prompts.push(answer.prompt_id);
        return answer;
      };
    },
  };
})();
