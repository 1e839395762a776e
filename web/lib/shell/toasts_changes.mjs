/** Which changes are worth a message: {severity, key, values} of words.mjs, or null. */

const LIMIT = 200; // nodes
const TWIN = 5000; // ms

/**
 * Runs that stop or start being shared between the devices. The first run of a node tells nothing
 * new, nor does a second one with the same outcome, nor a second node with the same reason.
 */
export class RunChanges {
  #nodes = new Map(); // workflow and node -> {local, told, live}
  #live = new Set(); // runs seen while they ran
  #said = new Set(); // reasons told and still in force

  /** kinds: Kinds. */
  constructor(kinds) {
    this.kinds = kinds;
  }

  /** run: as the store holds it. titleOf(run): the title of its node, for the message. */
  change(run, titleOf) {
    if (run.mode === "off") return null;
    const live = this.#follow(run);
    const local = outcome(run, this.kinds);
    const key = `${run.workflow_id ?? ""}|${run.node}`;
    const before = this.#nodes.get(key);
    if (local === null || (before?.live && !live)) return null;
    if (!before || !live || before.local === local) {
      this.#keep(key, { local, live, told: live && (before?.told ?? false) });
      return null;
    }
    return local ? this.#nowLocal(key, run, titleOf) : this.#nowShared(key, before, run, titleOf);
  }

  #nowLocal(key, run, titleOf) {
    const reason = run.reasons[0];
    const told = !this.#said.has(reason);
    this.#said.add(reason);
    this.#keep(key, { local: true, live: true, told });
    if (!told) return null;
    return { severity: "warn", key: "toast.now_local", values: { title: titleOf(run), reason } };
  }

  #nowShared(key, before, run, titleOf) {
    this.#said.clear();
    this.#keep(key, { local: false, live: true, told: false });
    if (!before.told) return null;
    return { severity: "success", key: "toast.now_shared", values: { title: titleOf(run) } };
  }

  #follow(run) {
    if (run.status === "running") this.#live.add(run.run);
    const live = this.#live.has(run.run);
    if (run.status !== "running") this.#live.delete(run.run);
    return live;
  }

  #keep(key, entry) {
    this.#nodes.delete(key);
    this.#nodes.set(key, entry);
    if (this.#nodes.size > LIMIT) this.#nodes.delete(this.#nodes.keys().next().value);
  }
}

/** Keeps one event from being told twice: as the node's change and as the second process's. */
export class Twins {
  #last = null;

  /** Whether to show `change`. now: ms. */
  pass(change, now) {
    const worker = change.key.startsWith("toast.worker");
    const { at, severity, worker: other } = this.#last ?? {};
    const twin = severity === change.severity && other !== worker && now - at < TWIN;
    if (!twin) this.#last = { at: now, severity: change.severity, worker };
    return !twin;
  }
}

/** true: in one process. false: shared, whatever else there is to say. null: not known, or neither. */
function outcome(run, kinds) {
  if (run.reasons.length && !kinds.isBoth(run.rows.at(-1)?.kind)) return true;
  const shared = run.status === "done" && run.rows.some(({ kind }) => kinds.isBoth(kind));
  return shared ? false : null;
}

/** The second process failing and coming back. */
export class WorkerChanges {
  #error = null;
  #gone = false;

  /** The state when the page was opened: nothing in it is news. */
  start({ worker }) {
    this.#error = worker.last_error;
  }

  /** state: as the event hybrid_ksampler.worker brings it. */
  change({ worker }) {
    const error = worker.last_error;
    const fresh = error !== null && error !== undefined && error !== this.#error;
    this.#error = error;
    if (fresh) {
      this.#gone = worker.state === "none" || worker.state === "starting";
      const key = this.#gone ? "toast.worker_ended" : "toast.worker_failed";
      return { severity: "warn", key, values: { error } };
    }
    if (!this.#gone || (worker.state !== "ready" && worker.state !== "busy")) return null;
    this.#gone = false;
    return { severity: "success", key: "toast.worker_back", values: {} };
  }
}
