/** The colours in force, read from ComfyUI's CSS variables. */

const VARIABLES = {
  background: "var(--comfy-input-bg, #222)",
  text: "var(--input-text, #ddd)",
  border: "var(--border-color, #4e4e4e)",
};
const CONTRAST = 3.5; // at least, of lines, marks and cells with the background

/** The colours as the browser resolves them at `element`; those of kinds.json for its ground. */
function themeAt(element, kinds) {
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
  const ground = luminance(rgb(theme.background)) < 0.2 ? "dark" : "light";
  const add = (name, look) => {
    theme[name] = readable(hex(look[ground]), theme.background, theme.text);
  };
  for (const kind of kinds.names) add(kind, kinds.of(kind));
  for (const [name, look] of Object.entries(kinds.lines)) add(name, look);
  for (const [name, look] of Object.entries(kinds.stages)) add(`stage.${name}`, look);
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

const hex = (colour) =>
  `rgb(${[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(", ")})`;

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

  /** kinds: Kinds. */
  constructor(kinds) {
    this.kinds = kinds;
  }

  /** The colours now, read once for each change. */
  at(element) {
    const version = `${this.version} ${this.kinds.loaded}`;
    if (this.#cached?.version !== version) {
      this.#cached = { version, colours: themeAt(element, this.kinds) };
    }
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
