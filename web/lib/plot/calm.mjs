/** Things that should not change too often, such as what a screen reader says. */

/** Calls its function at most once in `pause` ms, or at once when the occasion is another. */
export class Calm {
  #at = -Infinity;
  #timer = null;
  #occasion = null;

  constructor(pause, act) {
    Object.assign(this, { pause, act });
  }

  /** Something changed. occasion: any text; a new one does not wait. */
  changed(occasion) {
    const wait = occasion === this.#occasion ? this.#at + this.pause - performance.now() : 0;
    this.#occasion = occasion;
    if (wait > 0 && this.#timer !== null) return;
    this.stop();
    if (wait > 0) this.#timer = setTimeout(() => this.#now(), wait);
    else this.#now();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #now() {
    this.#timer = null;
    this.#at = performance.now();
    this.act();
  }
}
