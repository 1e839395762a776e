/** Draws a scene's shapes on a canvas. */

import { SIZE } from "./shapes.mjs";

const TURN = 2 * Math.PI;
const FONT = "Inter, system-ui, sans-serif";

export const font = (size) => `${size}px ${FONT}`;

/** context: scaled so that a unit is a CSS pixel. theme: {background, text, ...} as colours. */
export function paint(context, shapes, theme, width, height) {
  context.globalAlpha = 1;
  context.fillStyle = theme.background;
  context.fillRect(0, 0, width, height);
  context.lineJoin = "round";
  context.font = font(SIZE);
  for (const shape of shapes) DRAW[shape.type](context, shape, theme);
  context.globalAlpha = 1;
}

const DRAW = {
  rect(context, { x, y, w, h, ink, alpha }, theme) {
    context.globalAlpha = alpha;
    context.fillStyle = colour(theme, ink);
    context.fillRect(x, y, w, h);
  },
  line(context, { points, ink, alpha, width, dash }, theme) {
    context.globalAlpha = alpha;
    context.strokeStyle = colour(theme, ink);
    context.lineWidth = width;
    context.setLineDash(dash ?? []);
    context.beginPath();
    context.moveTo(points[0], points[1]);
    for (let i = 2; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
    context.stroke();
    context.setLineDash([]);
  },
  text(context, { x, y, text, ink, align, alpha, backed }, theme) {
    context.textAlign = align;
    if (backed) {
      const w = context.measureText(text).width + 4;
      const left = { left: x - 2, right: x - w + 2, center: x - w / 2 }[align];
      context.globalAlpha = 0.85;
      context.fillStyle = theme.background;
      context.fillRect(left, y - SIZE + 1, w, SIZE + 2);
    }
    context.globalAlpha = alpha;
    context.fillStyle = colour(theme, ink);
    context.fillText(text, x, y);
  },
  mark(context, { form, ink, x, y, r }, theme) {
    context.globalAlpha = 1;
    context.lineWidth = 1.3;
    context.strokeStyle = colour(theme, ink);
    context.fillStyle = colour(theme, ink);
    context.beginPath();
    MARKS[form](context, x, y, r, theme);
  },
};

const colour = (theme, ink) => theme[ink] ?? theme.text;

/** Kinds differ in shape. Each gets the path begun, and colour for both fill and stroke. */
const MARKS = {
  disc(context, x, y, r) {
    context.arc(x, y, r * 0.9, 0, TURN);
    context.fill();
  },
  ring(context, x, y, r, theme) {
    context.arc(x, y, r * 0.85, 0, TURN);
    context.fillStyle = theme.background;
    context.fill();
    context.stroke();
  },
  diamond(context, x, y, r, theme) {
    const d = r * 1.55;
    polygon(context, [x, y - d, x + d, y, x, y + d, x - d, y]);
    context.fill();
    context.strokeStyle = theme.background;
    context.stroke();
  },
  triangle(context, x, y, r, theme) {
    const d = r * 1.05;
    polygon(context, [x - d * 0.8, y - d, x + d, y, x - d * 0.8, y + d]);
    context.fillStyle = theme.background;
    context.fill();
    context.stroke();
  },
  square(context, x, y, r) {
    context.fillRect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
  },
  plus(context, x, y, r) {
    context.lineWidth = 2;
    context.moveTo(x - r, y);
    context.lineTo(x + r, y);
    context.moveTo(x, y - r);
    context.lineTo(x, y + r);
    context.stroke();
  },
  cross(context, x, y, r) {
    context.moveTo(x - r, y - r);
    context.lineTo(x + r, y + r);
    context.moveTo(x - r, y + r);
    context.lineTo(x + r, y - r);
    context.stroke();
  },
};

function polygon(context, points) {
  context.moveTo(points[0], points[1]);
  for (let i = 2; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
  context.closePath();
}
