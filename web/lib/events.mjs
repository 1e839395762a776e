/** The store, fed by the server; it listens from the start, or early events would be lost. */

import { api } from "../../../scripts/api.js";
import { Follower } from "./follow.mjs";
import { workflowId } from "./graph.mjs";
import { RunStore } from "./store.mjs";

export const store = new RunStore();
export const watchers = new Set(); // the plots on screen

export const follower = new Follower(store, {
  watching: () => watchers.size > 0 && !document.hidden,
  async fetchRuns() {
    const workflow = workflowId();
    const query = new URLSearchParams({ workflow_id: workflow });
    const answer = await api.fetchApi(`/hybrid_ksampler/runs?${query}`);
    return answer.ok ? { ...(await answer.json()), workflow } : null;
  },
});

const OVER = ["execution_success", "execution_error", "execution_interrupted"];

api.addEventListener("hybrid_ksampler.run", ({ detail }) => follower.event(store.receive(detail)));
api.addEventListener("reconnected", () => follower.request());
api.addEventListener("execution_start", () => follower.own(true));
for (const name of OVER) api.addEventListener(name, () => follower.own(false));
api.addEventListener("status", ({ detail }) => {
  follower.queue(detail?.exec_info?.queue_remaining ?? 0);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) follower.wake();
});
