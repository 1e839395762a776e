/** Runs as the server sends them, for the tests. */

import { readFileSync } from "node:fs";
import { Kinds } from "../../web/lib/run/kinds.mjs";
import { Words } from "../../web/lib/shell/words.mjs";

export const ENGLISH = JSON.parse(
  readFileSync(new URL("../../locales/en/main.json", import.meta.url), "utf-8"),
);

const file = new URL("../../hybrid_core/telling/kinds.json", import.meta.url);
export const kinds = new Kinds();
kinds.load(JSON.parse(readFileSync(file, "utf-8")));

/** The pack's words in English. */
export function english() {
  const words = new Words();
  words.load({ en: ENGLISH }, () => "en", kinds.words());
  return words;
}

const LETTERS = Object.fromEntries(kinds.names.map((kind) => [kinds.of(kind).letter, kind]));

/** A row for each of these letters: E exact, p pipelined, F forecast, L local, s single. */
export function rows(letters, { own = 100, worker = 80, calls = 1 } = {}) {
  return [...letters].map((letter, index) => {
    const kind = LETTERS[letter];
    const shared = kind === "exact" || kind === "pipelined";
    const known = kind === "exact" || kind === "local";
    const waited = Math.max(0, worker - own);
    return {
      step: Math.floor(index / calls),
      kind,
      branch: kind === "pipelined" ? "uncond" : null,
      sigma: 10 - index / 10,
      discrepancy: known ? 0.5 / (index + 1) : null,
      drift: known ? 0.01 / (index + 1) : null,
      ms: own + (shared ? waited : 0) + 1,
      own_ms: own,
      worker_ms: shared ? worker : null,
      waited_ms: shared ? waited : null,
    };
  });
}

/** A snapshot; letters as for rows. */
export function run(letters, changes = {}, times = {}) {
  return {
    run: "r1",
    node: "4",
    prompt_id: "p1",
    workflow_id: "w",
    seq: 1,
    start: 0,
    rows: rows(letters, times),
    total: 20,
    mode: "adaptive",
    tolerance: 0.006,
    status: "running",
    reasons: [],
    seconds: null,
    ideal: 2.41,
    ratio: 1.98,
    cut: null,
    started: 1000,
    ...changes,
  };
}

/** An event with the rows of `whole` from `start` to `end`. */
export function event(whole, seq, start, end, changes = {}) {
  return { ...whole, seq, start, rows: whole.rows.slice(start, end), ...changes };
}
