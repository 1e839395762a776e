/** Scales and their ticks. Pure. */

const LEAST_RATIO = 4; // of the ends of a logarithmic scale

/** A scale of `values` onto [0, 1]: {at(value), ticks, low, high}; no values, no ticks. */
export function valueScale(values, log, most = 4) {
  const found = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
  const scale = log ? logScale(found, most) : linearScale(found, most);
  return found.length ? scale : { ...scale, ticks: [] };
}

function linearScale(values, most) {
  const top = Math.max(...values, 0) || 1;
  const step = niceStep(top, most);
  const high = tidy(Math.ceil(top / step - 1e-9) * step);
  const ticks = Array.from({ length: Math.round(high / step) + 1 }, (_, i) => tidy(i * step));
  return { low: 0, high, ticks, at: (value) => clamp(value / high) };
}

function logScale(values, most) {
  const [least, largest] = values.length ? [Math.min(...values), Math.max(...values)] : [0.02, 0.5];
  const room = Math.max(1.2, Math.sqrt((LEAST_RATIO * least) / largest)); // on both sides
  const [low, high] = [least / room, largest * room];
  const [a, b] = [Math.log10(low), Math.log10(high)];
  return {
    low,
    high,
    ticks: logTicks(low, high, most),
    at: (value) => (value > 0 ? clamp((Math.log10(value) - a) / (b - a)) : 0),
  };
}

function logTicks(low, high, most) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of [1, 2, 5]) {
      const tick = tidy(digit * 10 ** power);
      if (tick >= low * 0.999 && tick <= high * 1.001) all.push(tick);
    }
  }
  if (all.length <= most) return all;
  const decades = all.filter((tick) => Number.isInteger(tidy(Math.log10(tick))));
  return decades.length >= 2 ? thinned(decades, most) : thinned(all, most);
}

/** Steps of an axis from 1 to `total`: tick numbers that fit `most`. */
export function stepTicks(total, most) {
  if (total <= 1) return [1];
  const step = Math.max(1, niceStep(total, Math.max(1, most - 1)));
  const ticks = [1];
  for (let at = step; at <= total; at += step) if (at > 1) ticks.push(Math.round(at));
  if (step > 1 && ticks[1] - 1 <= step / 2) ticks.shift();
  return ticks;
}

function niceStep(range, most) {
  const rough = range / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  return tidy([1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999) * power);
}

function thinned(ticks, most) {
  const every = Math.ceil(ticks.length / most);
  return ticks.filter((_, i) => i % every === 0);
}

const clamp = (share) => Math.min(1, Math.max(0, share));
const tidy = (value) => Number(value.toPrecision(6));
