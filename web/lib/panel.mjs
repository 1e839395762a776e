/** The sidebar tab with both processes. */

import { onWorker, orderWorker, readWorker } from "./panel_client.mjs";
import { buildPanel } from "./panel_elements.mjs";
import { view } from "./panel_view.mjs";
import { text } from "./words.mjs";

const PERIOD = 2000; // ms

let shown = null; // the panel on screen

/** A tab for app.extensionManager.registerSidebarTab. */
export const panelTab = {
  id: "hybrid-ksampler",
  icon: "pi pi-microchip",
  title: "Hybrid KSampler",
  label: "Hybrid",
  tooltip: "Hybrid KSampler",
  type: "custom",
  render(element) {
    if (shown?.host === element) return; // the frontend renders again whenever it likes
    shown?.close();
    shown = open(element);
  },
  destroy() {
    shown?.close();
    shown = null;
  },
};

function open(host) {
  const panel = buildPanel({ start: order, free: order, restart: order });
  host.replaceChildren(panel.root);
  let asking = false;
  let ended = false;
  let refused = false; // the last order; its answer stays until the next one

  function show(state) {
    if (ended) return;
    panel.show(view(state));
    if (!refused) panel.fail(null);
  }
  async function order(name) {
    refused = false;
    panel.busy(true);
    try {
      show(await orderWorker(name));
    } catch (error) {
      refused = true;
      panel.fail(text("panel.refused", { reason: error.message }));
    }
    panel.busy(false);
  }
  async function poll() {
    if (asking || document.hidden || !host.isConnected) return;
    asking = true;
    try {
      show(await readWorker());
    } catch (error) {
      if (!refused) panel.fail(text("panel.unreachable", { reason: error.message }));
    }
    asking = false;
  }

  const timer = setInterval(poll, PERIOD);
  document.addEventListener("visibilitychange", poll);
  const forget = onWorker(show);
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
