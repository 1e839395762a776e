/** Hybrid KSampler in ComfyUI's page. The parts are in lib/. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { follower, store, watchers } from "./lib/events.mjs";
import { menuItems } from "./lib/menu.mjs";
import { panelTab } from "./lib/panel.mjs";
import { onPrefs, setLive } from "./lib/prefs.mjs";
import { applyDefaults, settings, setupSettings } from "./lib/settings.mjs";
import { ID } from "./lib/settings_entries.mjs";
import {
  menuCommands,
  swapCommands,
  swapMenuItems,
  swapToolboxCommands,
} from "./lib/swap_actions.mjs";
import { watchTheme } from "./lib/theme.mjs";
import { watchForToasts } from "./lib/toasts.mjs";
import { addPlot, dropLost, minHeight, NODES, plotOf } from "./lib/widget.mjs";
import { use } from "./lib/words.mjs";

const redraw = () => {
  for (const plot of watchers) plot.schedule();
};

store.subscribe(redraw);
onPrefs(redraw);

async function loadWords() {
  const answer = await api.fetchApi("/i18n");
  use(answer.ok ? await answer.json() : {}, locale());
  redraw();
}

/** A function that gives the language in use; reading a setting is slow: at most once a second. */
function locale() {
  let [code, readAt] = ["en", -Infinity];
  return () => {
    if (performance.now() - readAt < 1000) return code;
    [code, readAt] = [app.extensionManager.setting.get("Comfy.Locale") ?? "en", performance.now()];
    return code;
  };
}

/** The zoom has no event of its own: sharpen the plots when it comes to rest. */
function watchZoom() {
  let timer = 0;
  const { ds } = app.canvas;
  const { onChanged } = ds;
  ds.onChanged = function (...values) {
    onChanged?.apply(this, values);
    clearTimeout(timer);
    timer = setTimeout(redraw, 150);
  };
}

/** The plot as one line of words only, or in full; the nodes give or take the room. */
function showLive(on) {
  const height = minHeight();
  setLive(on);
  const more = minHeight() - height;
  if (!more) return;
  for (const { node } of watchers) node.setSize([node.size[0], node.size[1] + more]);
  app.canvas?.setDirty(true, true);
}

const style = document.createElement("link");
Object.assign(style, { rel: "stylesheet", href: new URL("./lib/plot.css", import.meta.url).href });
document.head.append(style);

app.registerExtension({
  name: "hybrid_ksampler",
  settings: settings.map((entry) => ({
    ...entry,
    ...(entry.id === ID.live && { onChange: showLive }),
  })),
  commands: swapCommands,
  menuCommands,
  getSelectionToolboxCommands: swapToolboxCommands,

  nodeCreated(node) {
    applyDefaults(node);
    if (NODES.has(node.comfyClass)) addPlot(node);
  },

  getNodeMenuItems(node) {
    const plot = plotOf(node);
    const items = [...swapMenuItems(node), ...(plot ? menuItems(plot) : [])];
    return items.length ? [null, ...items] : [];
  },

  async setup() {
    watchTheme(redraw);
    watchZoom();
    await loadWords();
    app.extensionManager.registerSidebarTab(panelTab);
    await Promise.all([setupSettings(), watchForToasts(store)]);
  },

  afterConfigureGraph() {
    dropLost();
    follower.request();
  },

  /** For tests and the curious: the runs, the plots on screen, and the requests for snapshots. */
  hybrid: { store, plots: watchers, follower, plotOf },
});
