/** What the server says of runs, led into the store. */

const OVER = ["execution_success", "execution_error", "execution_interrupted"];

/** Asks the server for the whole runs of the workflow on screen; null where it does not answer. */
export function snapshots(api, workflow) {
  return async () => {
    const { id } = workflow;
    const query = new URLSearchParams({ workflow_id: id });
    const answer = await api.fetchApi(`/hybrid_ksampler/runs?${query}`);
    return answer.ok ? { ...(await answer.json()), workflow: id } : null;
  };
}

/** Listen. To be called when the page loads: of what comes earlier the frontend knows no type. */
export function feed(api, page, store, follower) {
  api.addEventListener("hybrid_ksampler.run", ({ detail }) =>
    follower.event(store.receive(detail)),
  );
  api.addEventListener("reconnected", () => follower.request());
  api.addEventListener("execution_start", () => follower.own(true));
  for (const name of OVER) api.addEventListener(name, () => follower.own(false));
  api.addEventListener("status", ({ detail }) => {
    follower.queue(detail?.exec_info?.queue_remaining ?? 0);
  });
  page.addEventListener("visibilitychange", () => {
    if (!page.hidden) follower.wake();
  });
}
