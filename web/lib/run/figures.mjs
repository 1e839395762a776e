/** Figures as people write them. Pure. */

/** A number with `digits` significant digits, never in exponent form; "–" for none. */
export function number(value, digits = 3) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 12));
}

/** A number as a person typed it: "0.006". */
export function plain(value) {
  return value == null || !Number.isFinite(value) ? "–" : String(Number(value.toPrecision(6)));
}

/** Milliseconds as a person says them: "8 ms", "1.2 s", "3 min 20 s". */
export function duration(ms) {
  if (ms == null || !Number.isFinite(ms)) return "–";
  if (ms < 10) return `${number(ms, 2)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 99_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
