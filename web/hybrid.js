/** Hybrid KSampler in ComfyUI's page: makes the parts that are in lib/ and leads them together. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { WorkerClient } from "./lib/panel/client.mjs";
import { panelTab } from "./lib/panel/tab.mjs";
import { menuItems } from "./lib/plot/menu.mjs";
import { Plots } from "./lib/plot/plots.mjs";
import { feed, snapshots } from "./lib/run/feed.mjs";
import { Follower } from "./lib/run/follow.mjs";
import { Kinds } from "./lib/run/kinds.mjs";
import { RunStore } from "./lib/run/store.mjs";
import { Prefs } from "./lib/shell/prefs.mjs";
import { Settings } from "./lib/shell/settings.mjs";
import { Toasts } from "./lib/shell/toasts.mjs";
import { Words } from "./lib/shell/words.mjs";
import { OpenWorkflow } from "./lib/shell/workflow.mjs";
import { Swapping } from "./lib/swap/actions.mjs";

const words = new Words();
const kinds = new Kinds();
const workflow = new OpenWorkflow(app);
const store = new RunStore();
const prefs = new Prefs(() => localStorage);
const plots = new Plots({ app, workflow, store, words, kinds, prefs });
const follower = new Follower(store, {
  watching: () => plots.size > 0 && !document.hidden,
  fetchRuns: snapshots(api, workflow),
});
feed(api, document, store, follower);
const worker = new WorkerClient(api);
const settings = new Settings({ app, worker, plots });
const toasts = new Toasts({ app, words, kinds, workflow });
const swapping = new Swapping({ app, words, toasts });

let readied = false; // once: whoever frees the second GPU afterwards means it
const pack = { cnr_id: "hybrid-ksampler", ver: "" }; // saved with nodes, for who lacks the pack

async function loadWords() {
  const ask = async (path) => {
    const answer = await api.fetchApi(path);
    return answer.ok ? answer.json() : {};
  };
  const [messages, told] = await Promise.all([ask("/i18n"), ask("/hybrid_ksampler/pack")]);
  pack.ver = told.version ?? "";
  kinds.load(told.looks ?? {});
  words.load(messages, locale(), kinds.words());
  plots.relearn();
}

/** A function that gives the language in use; reading a setting is slow: at most once a second. */
function locale() {
  let [code, readAt] = ["en", -Infinity];
  return () => {
    if (performance.now() - readAt < 1000) return code;
    [code, readAt] = [settings.of("Comfy.Locale") ?? "en", performance.now()];
    return code;
  };
}

/** With the demo open the second GPU gets ready, so that its first run is shared from the start. */
async function readyForDemo() {
  const demo = workflow.root?.nodes.some(({ type }) => type === "Hybrid_DemoModel");
  const state = worker.last;
  if (!demo || readied || !state || state.obstacle || state.worker.state !== "none") return;
  readied = true;
  await worker.order("start").catch(() => {}); // the node says why it is not shared
}

const style = document.createElement("link");
const href = new URL("./lib/plot/plot.css", import.meta.url).href;
Object.assign(style, { rel: "stylesheet", href });
document.head.append(style);

app.registerExtension({
  name: "hybrid_ksampler",
  settings: settings.entries,
  commands: swapping.commands,
  menuCommands: swapping.menuCommands,
  getSelectionToolboxCommands: (item) => swapping.toolboxCommands(item),

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Hybrid_")) return;
    Object.assign(node.properties, pack);
    settings.applyDefaults(node);
    plots.add(node);
  },

  getNodeMenuItems(node) {
    const plot = plots.of(node);
    const items = [...swapping.menuItems(node), ...(plot ? menuItems(plot) : [])];
    return items.length ? [null, ...items] : [];
  },

  async setup() {
    plots.setUp();
    await loadWords();
    app.extensionManager.registerSidebarTab(panelTab(worker, words));
    await Promise.all([settings.setUp(), toasts.watch(store, worker)]);
  },

  afterConfigureGraph() {
    plots.dropLost();
    follower.request();
    readyForDemo();
  },

  /** For tests and the curious: the runs, the plots on screen, and the requests for snapshots. */
  hybrid: { store, plots, follower },
});
