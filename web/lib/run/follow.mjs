/** When to ask the server for whole runs: after gaps, and while runs send no events here. Pure. */

/** Milliseconds: between polls, least between two requests, and of silence before a poll. */
export const PACE = { poll: 1000, apart: 250, silence: 2000 };

/**
 * A tab whose own prompt runs gets its events; another tab learns of the queue only, and polls.
 *
 * fetchRuns(): {workflow, runs}, the snapshots of the workflow on screen, or null. watching():
 * whether someone looks at a plot. now(): milliseconds.
 */
export class Follower {
  #queue = 0;
  #own = false;
  #busySince = -Infinity;
  #heard = -Infinity;
  #asked = -Infinity;
  #timer = null;
  #inFlight = null;
  #again = false;

  constructor(store, { fetchRuns, watching, now = () => performance.now(), pace = PACE }) {
    Object.assign(this, { store, fetchRuns, watching, now, pace, requests: 0 });
  }

  /** An event of a run came: this tab is the one that gets them. */
  event(outcome) {
    [this.#heard, this.#own] = [this.now(), true];
    if (outcome === "gap") this.request();
    else this.#plan();
  }

  /** This tab's prompt began (true) or ended (false). */
  own(is) {
    this.#own = is;
    this.#plan();
  }

  /** The number of prompts that run or wait, from anyone. */
  queue(remaining) {
    const was = this.#queue;
    this.#queue = remaining;
    if (!was && remaining) this.#busySince = this.now();
    if (!remaining) this.#own = false;
    if (was && !remaining && this.#missed) this.request();
    else this.#plan();
  }

  /** Whether a run may have ended without a word to this tab, since the queue began. */
  get #missed() {
    const silent = this.#heard < this.#busySince && this.watching();
    return silent || this.store.running().length > 0;
  }

  /** Fetch now, or right after the request that is under way. */
  request() {
    if (this.#inFlight) {
      this.#again = true;
      return this.#inFlight;
    }
    this.#inFlight = this.#fetch().finally(() => {
      this.#inFlight = null;
      const again = this.#again;
      this.#again = false;
      if (again) this.request();
      else this.#plan();
    });
    return this.#inFlight;
  }

  async #fetch() {
    const rest = this.#asked + this.pace.apart - this.now();
    if (rest > 0) await new Promise((done) => setTimeout(done, rest));
    this.#asked = this.now();
    this.requests++;
    const before = this.store.running();
    const answer = await this.fetchRuns().catch(() => null);
    if (!answer) return;
    for (const snapshot of answer.runs) this.store.restore(snapshot);
    const asked = before.filter((run) => (run.workflow_id ?? "") === answer.workflow);
    const ids = (runs) => new Set(runs.map((run) => run.run));
    this.store.settle(ids(asked), ids(answer.runs));
  }

  /** Whether something goes on that this tab would miss without asking. */
  get polling() {
    if (!this.watching()) return false;
    const silent = this.now() - this.#heard >= this.pace.silence;
    return !this.#own && silent && this.#queue > 0;
  }

  /** Ask again when someone looks again. */
  wake() {
    if (this.#queue > 0 || this.store.running().length) this.request();
  }

  #plan() {
    if (this.#timer !== null || this.#inFlight || !this.#queue || this.#own) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.polling) this.request();
      else this.#plan();
    }, this.pace.poll);
  }
}
