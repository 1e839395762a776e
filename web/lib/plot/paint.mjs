/** Draws a scene's shapes on a canvas. */

const TURN = 2 * Math.PI;
const FONT = "Inter, system-ui, sans-serif";

export const font = (size) => `${size}px ${FONT}`;

/** context: scaled so that a unit is a CSS pixel. theme: {background, text, ...} as colours. */
export function paint(context, shapes, theme, width, height) {
  context.globalAlpha = 1;
  context.fillStyle = theme.background;
  context.fillRect(0, 0, width, height);
  context.lineJoin = "round";
  let size = null;
  for (const shape of shapes) {
    if (shape.type === "text" && shape.size !== size) {
      context.font = font((size = shape.size)); // costs more than the text itself
    }
    DRAW[shape.type](context, shape, theme);
  }
  context.globalAlpha = 1;
}

const DRAW = {
  rect(context, { x, y, w, h, ink, alpha }, theme) {
    context.globalAlpha = alpha;
    context.fillStyle = theme[ink];
    context.fillRect(x, y, w, h);
  },
  line(context, { points, ink, alpha, width, dash }, theme) {
    context.globalAlpha = alpha;
    context.strokeStyle = theme[ink];
    context.lineWidth = width;
    context.setLineDash(dash ?? []);
    context.beginPath();
    context.moveTo(points[0], points[1]);
    for (let i = 2; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
    context.stroke();
    context.setLineDash([]);
  },
  text(context, { x, y, text, ink, align, alpha, halo }, theme) {
    context.globalAlpha = alpha;
    context.textAlign = align;
    if (halo) {
      context.strokeStyle = theme.background;
      context.lineWidth = 2.5;
      context.strokeText(text, x, y);
    }
    context.fillStyle = theme[ink];
    context.fillText(text, x, y);
  },
  mark(context, { kind, x, y, r }, theme) {
    context.globalAlpha = 1;
    context.lineWidth = 1.2;
    context.strokeStyle = theme.accent;
    context.fillStyle = theme.accent;
    context.beginPath();
    MARKS[kind]?.(context, x, y, r, theme);
  },
};

/** Kinds differ in shape: disc, diamond, hollow triangle, square, cross. */
const MARKS = {
  exact(context, x, y, r) {
    context.arc(x, y, r * 0.9, 0, TURN);
    context.fill();
  },
  refresh(context, x, y, r, theme) {
    const d = r * 1.55;
    polygon(context, [x, y - d, x + d, y, x, y + d, x - d, y]);
    context.fill();
    context.strokeStyle = theme.background;
    context.stroke();
  },
  pipelined(context, x, y, r, theme) {
    const d = r * 1.05;
    polygon(context, [x - d * 0.8, y - d, x + d, y, x - d * 0.8, y + d]);
    context.fillStyle = theme.background;
    context.fill();
    context.stroke();
  },
  local(context, x, y, r, theme) {
    context.fillStyle = theme.text;
    context.fillRect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
  },
  single(context, x, y, r) {
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
