/** What the panel says about the processes, as plain data. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const NONE = "–";

/** Bytes as a person says them: "512 MiB", "3.4 GiB"; "–" for none. */
export function bytes(count) {
  if (!Number.isFinite(count)) return NONE;
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10));
  const amount = count / 1024 ** power;
  return `${amount.toFixed(power > 0 && amount < 9.95 ? 1 : 0)} ${UNITS[power]}`;
}

/** Seconds as "42 s", "10 min", "3 min 20 s" or "2 h 5 min"; "–" for none. */
export function span(seconds, words) {
  if (!Number.isFinite(seconds)) return NONE;
  const whole = Math.round(seconds);
  if (whole < 60) return words.text("panel.seconds", { s: whole });
  const minutes = Math.floor(whole / 60);
  if (whole % 60 === 0 && minutes < 60) return words.text("panel.whole_minutes", { min: minutes });
  if (minutes < 60) return words.text("panel.minutes", { min: minutes, s: whole % 60 });
  return words.text("panel.hours", { h: Math.floor(minutes / 60), min: minutes % 60 });
}

/**
 * state: what GET /hybrid_ksampler/worker answers. Gives {obstacle, idle, left, said, parent, worker,
 * can, others}: texts or null; parent and worker are {memory, rows}, rows of {label, value, alarm};
 * said is what a screen reader is told; can says which of start, free and restart make sense; left
 * has a line for each device that is not used; others are {name, worker, can} of further workers.
 */
export function content(state, words) {
  const text = (key, values) => words.text(key, values);
  const { obstacle, parent, worker, others = [] } = state;
  const condition = text(`panel.state.${worker.state}`);
  return {
    obstacle: obstacle && text("panel.obstacle", { reason: obstacle.replace(/\.$/, "") }),
    idle: text("panel.idle", { time: span(state.idle_seconds, words) }),
    left: Object.entries(state.left_out ?? {}).map(([device, reason]) =>
      text("panel.left_out", { device, reason }),
    ),
    said: [text("panel.said", { state: condition }), worker.last_error].filter(Boolean).join(" "),
    parent: {
      memory: memory(parent, text),
      rows: [
        row("device", parent.device, text),
        row("model", parent.model ?? text("panel.no_model"), text),
      ],
    },
    worker: process(worker, words),
    can: orders(worker, obstacle),
    others: others.map((other, index) => ({
      name: text("panel.worker.further", { number: index + 3 }),
      worker: process(other, words),
      can: orders(other, null),
    })),
  };
}

const row = (key, value, text) => ({ label: text(`panel.${key}`), value: value || NONE });

/** What is said of one worker. */
function process(worker, words) {
  const text = (key, values) => words.text(key, values);
  const running = worker.state !== "none";
  return {
    memory: running ? memory(worker, text) : null,
    rows: [
      row("state", text(`panel.state.${worker.state}`), text),
      row("device", worker.device, text),
      running && row("model", worker.model ?? text("panel.no_model"), text),
      running && row("age", span(worker.age_seconds, words), text),
      running && worker.data_plane && row("data_plane", exchange(worker, text), text),
      worker.differs && row("differs", worker.differs, text),
      worker.last_error && { ...row("last_error", worker.last_error, text), alarm: true },
    ].filter(Boolean),
  };
}

function orders({ state }, obstacle) {
  const running = state !== "none";
  return {
    start: !running && !obstacle,
    free: state === "ready",
    restart: running && state !== "starting",
  };
}

/** How tensors travel, and why not in a better way. */
function exchange({ data_plane: plane, data_plane_reason: reason }, text) {
  const way = text(`panel.plane.${plane}`);
  return reason ? `${way} (${reason})` : way;
}

/** {used, free: texts or null, share: the used part of all, 0 to 1, or null}; null: nothing known. */
function memory({ memory_used: used, memory_free: free }, text) {
  if (!Number.isFinite(used)) return null;
  const whole = Number.isFinite(free) && used + free > 0;
  return {
    used: text("panel.used", { size: bytes(used) }),
    free: whole ? text("panel.free", { size: bytes(free) }) : null,
    share: whole ? Math.min(1, Math.max(0, used / (used + free))) : null,
  };
}
