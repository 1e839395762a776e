/** What the page asks the server about the second process. Listens from the moment it is imported. */

import { api } from "../../../scripts/api.js";

const listeners = new Set();

api.addEventListener("hybrid_ksampler.worker", ({ detail }) => {
  for (const listener of listeners) listener(detail);
});

/** Call listener(state) whenever the server reports a change; returns the function that ends it. */
export function onWorker(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The state of both processes, as GET /hybrid_ksampler/worker gives it. */
export function readWorker() {
  return ask("worker");
}

/** Start, free or restart the second process; the state after it. */
export function orderWorker(order) {
  return ask(`worker/${order}`, {});
}

/** Tell the server how long the second process may be idle; the state after it. */
export function sendIdleSeconds(seconds) {
  return ask("settings", { idle_seconds: seconds });
}

/** Throws an Error with the server's words when it refuses, or with the status it answered. */
async function ask(path, body) {
  const answer = await api.fetchApi(`/hybrid_ksampler/${path}`, body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) return answer.json();
  const refusal = await answer.json().catch(() => null);
  throw new Error(refusal?.error ?? `HTTP ${answer.status}`);
}
