/** The kinds of steps, the plot's lines and stages: hybrid_core/telling/kinds.json. Pure. */

const UNKNOWN = { letter: "?", mark: "disc", height: 1, fill: "hollow", name: {}, says: {} };

export class Kinds {
  loaded = false;
  lines = {};
  stages = {};
  #kinds = {};

  /** looks: the file's content. */
  load({ kinds = {}, lines = {}, stages = {} }) {
    [this.#kinds, this.lines, this.stages] = [kinds, lines, stages];
    this.loaded = true;
  }

  /** All kinds, in the order of legends. */
  get names() {
    return Object.keys(this.#kinds);
  }

  of(kind) {
    return this.#kinds[kind] ?? UNKNOWN;
  }

  /** Whether it leaves something of a full step out. */
  isShort(kind) {
    return Boolean(this.of(kind).short);
  }

  /** Whether both devices work on it. */
  isBoth(kind) {
    return Boolean(this.of(kind).both);
  }

  countsAs(kind) {
    return this.of(kind).counts_as ?? kind;
  }

  /** The words of it all, {language: {key: text}}: "kind.exact", "kind.exact.says", "line.change". */
  words() {
    const found = {};
    const add = (key, texts = {}) => {
      for (const [language, text] of Object.entries(texts)) (found[language] ??= {})[key] = text;
    };
    const groups = { kind: this.#kinds, line: this.lines, stage: this.stages };
    for (const [group, looks] of Object.entries(groups)) {
      for (const [name, look] of Object.entries(looks)) {
        add(`${group}.${name}`, look.name);
        add(`${group}.${name}.says`, look.says);
      }
    }
    return found;
  }
}
