/** The sidebar tab with the processes. */

import { content } from "./content.mjs";
import { buildPanel } from "./elements.mjs";

const PERIOD = 2000; // ms

/** A tab for app.extensionManager.registerSidebarTab. client: a WorkerClient. */
export function panelTab(client, words) {
  let shown = null; // the panel on screen
  return {
    id: "hybrid-ksampler",
    icon: "pi pi-microchip",
    title: "Hybrid KSampler",
    label: "Hybrid",
    tooltip: "Hybrid KSampler",
    type: "custom",
    render(element) {
      if (shown?.host === element) return; // the frontend renders again whenever it likes
      shown?.close();
      shown = open(element, client, words);
    },
    destroy() {
      shown?.close();
      shown = null;
    },
  };
}

function open(host, client, words) {
  const panel = buildPanel({ start: order, free: order, restart: order }, words);
  host.replaceChildren(panel.root);
  let asking = false;
  let ended = false;
  let refused = false; // the last order; its answer stays until the next one

  function show(state) {
    if (ended) return;
    panel.show(content(state, words));
    if (!refused) panel.fail(null);
  }
  async function order(name, number) {
    refused = false;
    panel.busy(true);
    try {
      show(await client.order(name, number));
    } catch (error) {
      refused = true;
      panel.fail(words.text("panel.refused", { reason: error.message }));
    }
    panel.busy(false);
  }
  async function poll() {
    if (asking || document.hidden || !host.isConnected) return;
    asking = true;
    try {
      show(await client.read());
    } catch (error) {
      if (!refused) panel.fail(words.text("panel.unreachable", { reason: error.message }));
    }
    asking = false;
  }

  const timer = setInterval(poll, PERIOD);
  document.addEventListener("visibilitychange", poll);
  const forget = client.subscribe(show);
  if (client.last) show(client.last); // at once; the answer to poll() takes a moment
  poll();
  return {
    host,
    close() {
      ended = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", poll);
      forget();
      panel.root.remove();
    },
  };
}
