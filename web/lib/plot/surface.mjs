/** The canvas of a plot: its size, and how sharply it is drawn. */

import { paint } from "./paint.mjs";
import { measurer } from "./picture.mjs";

const LEAST = { width: 40, height: 8 }; // px of a canvas worth drawing on
const SHARPNESS = { zoom: 3, pixels: 4e6 }; // of the canvas at most

export class Surface {
  width = 0; // CSS pixels without the zoom, as an observer told them: asking costs a layout
  height = 0;

  /** zoom(): scale at which the canvas is shown. */
  constructor(canvas, zoom) {
    Object.assign(this, { canvas, zoom });
    this.context = canvas.getContext("2d", { alpha: false });
    this.measure = measurer(this.context);
  }

  get visible() {
    return this.width > LEAST.width && this.height > LEAST.height;
  }

  /** Canvas pixels for each CSS pixel. */
  get scale() {
    const zoom = Math.min(SHARPNESS.zoom, Math.max(1, Math.ceil(this.zoom() * 2) / 2));
    const most = Math.sqrt(SHARPNESS.pixels / Math.max(1, this.width * this.height));
    return Math.min(most, (window.devicePixelRatio || 1) * zoom);
  }

  /** colours: of a Theme. */
  draw(shapes, colours) {
    const { canvas, context, width, height, scale } = this;
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== wide || canvas.height !== high) {
      Object.assign(canvas, { width: wide, height: high });
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    paint(context, shapes, colours, width, height);
  }

  /** Where on the canvas, in its CSS pixels, a client x is; and the way back. */
  toLocal(x) {
    const box = this.canvas.getBoundingClientRect();
    return ((x - box.left) * this.width) / box.width;
  }

  toClient(x) {
    const box = this.canvas.getBoundingClientRect();
    return { x: box.left + (x * box.width) / this.width, y: box.top };
  }
}
