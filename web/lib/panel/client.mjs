/** What the page asks the server about the second process. */

export class WorkerClient {
  last = null; // the state that was told last
  #listeners = new Set();

  /** To be made when the page loads: of events that come earlier the frontend knows no type. */
  constructor(api) {
    this.api = api;
    api.addEventListener("hybrid_ksampler.worker", ({ detail }) => {
      this.last = detail;
      for (const listener of this.#listeners) listener(detail);
    });
  }

  /** Call listener(state) on each change that the server reports; returns what ends it. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The state of both processes, as GET /hybrid_ksampler/worker gives it. */
  read() {
    return this.#ask("worker");
  }

  /** Start, free or restart a worker, the first one is 0; the state after it. */
  order(name, number = 0) {
    return this.#ask(`worker/${name}?number=${number}`, {});
  }

  /** Tell the server how long the second process may be idle; the state after it. */
  sendIdleSeconds(seconds) {
    return this.#ask("settings", { idle_seconds: seconds });
  }

  /** Tell the server where other computers are; the state after it. */
  sendRay(address, weights) {
    return this.#ask("settings", { ray: { address, weights } });
  }

  /** Throws an Error with the server's words when it refuses, or with the status it answered. */
  async #ask(path, body) {
    const answer = await this.api.fetchApi(`/hybrid_ksampler/${path}`, body && {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.ok) return (this.last = await answer.json());
    const refusal = await answer.json().catch(() => null);
    throw new Error(refusal?.error ?? `HTTP ${answer.status}`);
  }
}
