/** This pack's own words, from locales/<language>/main.json under "hybrid_ksampler". */

const SECTION = "hybrid_ksampler";

export class Words {
  #languages = {};
  #language = () => "en";

  /**
   * messages: the answer of /i18n, {language: {section: {key: text}}}. language(): the one in use.
   * more: {language: {key: text}} that come from elsewhere.
   */
  load(messages, language, more = {}) {
    this.#languages = Object.fromEntries(
      Object.entries(messages).map(([code, sections]) => [
        code,
        { ...sections?.[SECTION], ...more[code] },
      ]),
    );
    this.#language = language;
  }

  /** The language whose words `text` gives. */
  get language() {
    return this.#language();
  }

  /**
   * The text of `key` with {name} replaced by values.name: English where the language lacks it, the
   * key where nobody has it, nothing before the words are loaded.
   */
  text(key, values = {}) {
    const { en } = this.#languages;
    if (!en) return "";
    const found = this.#languages[this.language]?.[key] ?? en[key] ?? key;
    return found.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  }

  /** A sentence in the form for `count`: key.one for 1, key.other otherwise. */
  counted(key, count, values = {}) {
    return this.text(`${key}.${count === 1 ? "one" : "other"}`, { count, ...values });
  }
}
