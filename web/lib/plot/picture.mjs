/** The plot as a picture to keep, larger than on the node. */

import { sentenceLine } from "../run/sentence.mjs";
import { font, paint } from "./paint.mjs";
import { DEFAULTS, scene } from "./scene.mjs";

const SIZE = { width: 840, height: 400, head: 26, margin: 12, scale: 2 };
const OPTIONS = { ...DEFAULTS, left: 44, mark: 4.2 };

/** shown: {run, course, before}. Returns a canvas. */
export function drawPicture(shown, { log, words, kinds, theme }) {
  const { width, height, head, margin, scale } = SIZE;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: width * scale, height: height * scale });
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.fillStyle = theme.background;
  context.fillRect(0, 0, width, height);
  context.fillStyle = theme.text;
  context.font = font(13);
  const line = sentenceLine(shown, { words, kinds });
  context.fillText(fitting(context, line, width - 2 * margin), margin, 20);
  context.translate(margin, head + 4);
  const size = { width: width - 2 * margin, height: height - head - margin };
  const view = { ...size, log, hover: null, words, measure: measurer(context) };
  const { shapes } = scene(shown, shown.before, view, kinds, OPTIONS);
  paint(context, shapes, theme, size.width, size.height);
  return canvas;
}

/** A function (text, size) -> width in px. */
export function measurer(context) {
  const known = new Map();
  return (text, size) => {
    const key = `${size}|${text}`;
    if (!known.has(key)) {
      context.font = font(size);
      known.set(key, context.measureText(text).width);
    }
    return known.get(key);
  };
}

function fitting(context, line, width) {
  if (context.measureText(line).width <= width) return line;
  let length = line.length;
  while (length > 1 && context.measureText(`${line.slice(0, length)}…`).width > width) length--;
  return `${line.slice(0, length)}…`;
}
