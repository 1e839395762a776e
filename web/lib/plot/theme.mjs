/** The colours in force, read from ComfyUI's CSS variables. */

const VARIABLES = {
  background: "var(--comfy-input-bg, #222)",
  text: "var(--input-text, #ddd)",
  border: "var(--border-color, #4e4e4e)",
  accent: "var(--p-primary-color, #4f9cf9)",
};
const CONTRAST = 3.5; // at least, of lines and marks with the background

/** {background, text, border, accent, drift} as the browser resolves them at `element`. */
function themeAt(element) {
  const probe = document.createElement("span");
  probe.style.display = "none";
  element.append(probe);
  const style = getComputedStyle(probe);
  const theme = {};
  for (const [name, value] of Object.entries(VARIABLES)) {
    probe.style.color = value;
    theme[name] = style.color;
  }
  probe.remove();
  const orange = luminance(rgb(theme.background)) < 0.2 ? "rgb(240, 160, 48)" : "rgb(150, 62, 0)";
  theme.accent = readable(theme.accent, theme.background, theme.text);
  theme.drift = readable(orange, theme.background, theme.text);
  return theme;
}

/** `colour`, mixed with that of the text as far as it takes to stand out from the background. */
function readable(colour, background, text) {
  const [from, to, behind] = [colour, text, background].map(rgb);
  for (let share = 0; share < 1; share += 0.1) {
    const mixed = from.map((value, i) => Math.round(value + share * (to[i] - value)));
    if (contrast(mixed, behind) >= CONTRAST) return `rgb(${mixed.join(", ")})`;
  }
  return text;
}

/** The contrast of two colours as WCAG defines it, 1 to 21. */
function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function luminance(colour) {
  const [red, green, blue] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const rgb = (colour) => (colour.match(/[\d.]+/g) ?? [0, 0, 0]).slice(0, 3).map(Number);

export class Theme {
  version = 1; // grows whenever the colours may have changed
  #cached = null;

  /** The colours now, read once for each change. */
  at(element) {
    const { version } = this;
    if (this.#cached?.version !== version) this.#cached = { version, colours: themeAt(element) };
    return this.#cached.colours;
  }

  /** Call changed() when ComfyUI's palette changes: variables on <html>, classes on <body>. */
  watch(changed) {
    const observer = new MutationObserver(() => {
      this.version++;
      changed();
    });
    const attributeFilter = ["style", "class"];
    observer.observe(document.documentElement, { attributeFilter });
    observer.observe(document.body, { attributeFilter });
  }
}
