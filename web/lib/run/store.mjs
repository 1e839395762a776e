/** Runs of the Hybrid nodes, outside widgets, by workflow and execution id. No DOM, no ComfyUI. */

export const LIMITS = { keys: 64, rows: 2000, reasons: 20 };

const keyOf = (workflow, node) => `${workflow ?? ""}|${node}`;

/**
 * Keeps the current and the previous run of each key. Messages are events (deltas) and snapshots
 * (whole runs), both as nodes/monitor sends them; a held run has all of its rows.
 */
export class RunStore {
  #slots = new Map(); // key -> {workflow, node, current, previous}, oldest first
  #listeners = new Set();
  #version = 0;

  constructor(limits = {}) {
    this.limits = { ...LIMITS, ...limits };
  }

  get size() {
    return this.#slots.size;
  }

  /** Call listener(run, slot) after each change; returns the function that ends it. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** {workflow, node, current, previous} of each key of a workflow. */
  slots(workflow) {
    return [...this.#slots.values()].filter((slot) => slot.workflow === (workflow ?? ""));
  }

  running() {
    return [...this.#slots.values()].map((slot) => slot.current).filter(isRunning);
  }

  /** Take an event: "applied", "stale", or "gap" when something before it is missing here. */
  receive(event) {
    const slot = this.#slots.get(keyOf(event.workflow_id, event.node));
    const held = find(slot, event.run);
    if (held ? event.seq <= held.seq : isOlder(event, slot)) return "stale";
    const rows = held?.rows ?? [];
    const fits = event.start <= rows.length;
    this.#put(event, fits ? [...rows.slice(0, event.start), ...event.rows] : rows, false);
    const missed = !fits || (held !== undefined && event.seq > held.seq + 1);
    return missed && rows.length < this.limits.rows ? "gap" : "applied";
  }

  /** Take a whole run: "applied" or "stale". */
  restore(snapshot) {
    return this.#restore(snapshot, false);
  }

  /**
   * Take the runs that a node's output holds: the last one is what the node shows now. One that is
   * still to come ("waiting") is none yet.
   */
  replay(snapshots, workflow, node) {
    for (const snapshot of snapshots) {
      if (snapshot.status === "waiting") continue;
      this.#restore({ ...snapshot, workflow_id: workflow, node }, true);
    }
  }

  /** End the runs among `asked` (ids) that the server no longer knows: it was restarted. */
  settle(asked, known) {
    for (const run of this.running()) {
      if (!asked.has(run.run) || known.has(run.run)) continue;
      this.#put({ ...run, status: "interrupted" }, run.rows, false);
    }
  }

  #restore(snapshot, current) {
    const slot = this.#slots.get(keyOf(snapshot.workflow_id, snapshot.node));
    const held = find(slot, snapshot.run);
    const fresh = held ? this.#isNews(snapshot, held) : current || !isOlder(snapshot, slot);
    const moves = current && held !== undefined && held !== slot.current;
    if (!fresh && !moves) return "stale";
    const latest = fresh ? snapshot : held;
    this.#put(latest, latest.rows, current);
    return "applied";
  }

  #isNews(snapshot, held) {
    if (snapshot.seq !== held.seq) return snapshot.seq > held.seq;
    const length = Math.min(snapshot.rows.length, this.limits.rows);
    return length !== held.rows.length || snapshot.status !== held.status;
  }

  #put(message, rows, current) {
    const key = keyOf(message.workflow_id, message.node);
    const { workflow_id: workflow, node } = message;
    const slot = this.#slots.get(key) ?? { workflow: workflow ?? "", node };
    const { start, ...rest } = message;
    const run = {
      ...rest,
      reasons: (message.reasons ?? []).slice(0, this.limits.reasons),
      rows: rows.slice(0, this.limits.rows),
      version: ++this.#version,
    };
    this.#place(slot, run, current);
    this.#slots.delete(key); // and to the end: the oldest is first
    this.#slots.set(key, slot);
    this.#forget();
    for (const listener of this.#listeners) listener(run, slot);
  }

  #place(slot, run, current) {
    const older = slot.current && !current && run.started < slot.current.started;
    if (slot.current?.run === run.run || !slot.current) slot.current = run;
    else if (slot.previous?.run === run.run && !current) slot.previous = run;
    else if (older) slot.previous = run;
    else [slot.previous, slot.current] = [slot.current, run];
  }

  #forget() {
    for (const key of this.#slots.keys()) {
      if (this.#slots.size <= this.limits.keys) return;
      this.#slots.delete(key);
    }
  }
}

export const isRunning = (run) => run?.status === "running";

const find = (slot, id) => [slot?.current, slot?.previous].find((run) => run?.run === id);

/** Whether a run that is not held is older than those that are. */
function isOlder(message, slot) {
  if (!slot?.current || message.started >= slot.current.started) return false;
  return slot.previous !== undefined && message.started <= slot.previous.started;
}
