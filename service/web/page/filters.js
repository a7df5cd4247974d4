// Which photos take part and how they are ranked: a form from the gallery's fields, and the options in the contract's JSON.

import { byId, element } from "./dom.js";

export const K = 24;
const GREEK = { 1: "alpha", 2: "beta", 3: "gamma" };

export class Options extends EventTarget {
  #fields = {};

  constructor() {
    super();
    byId("options").addEventListener("input", () => this.#changed());
    byId("options").addEventListener("reset", () => setTimeout(() => this.#changed()));
    byId("options").addEventListener("submit", (event) => event.preventDefault());
  }

  setFields(fields) {
    this.#fields = fields;
    byId("filters").replaceChildren(...Object.entries(fields).map(([name, kind]) => control(name, kind)));
    byId("no-fields").hidden = Object.keys(fields).length > 0;
    this.#say();
  }

  // The JSON form of SearchOptions.
  message(k = K) {
    const parts = Object.entries(this.#fields).flatMap(([name, kind]) => PREDICATES[kind](name, this.#read(name)));
    const mode = byId("mode").value;
    return {
      k,
      weights: Object.fromEntries([1, 2, 3].map((parts) => [`granularity_${parts}`, Number(byId(GREEK[parts]).value)])),
      ...(parts.length && { filter: { all_of: { filters: parts } } }),
      ...(mode === "exact" ? { exact: {} } : mode.endsWith("ms") ? { budget_ms: parseFloat(mode) } : { approximate: { recall: Number(mode) } }),
    };
  }

  #read(name) {
    const controls = [...byId("filters").querySelectorAll("[data-field]")].filter((one) => one.dataset.field === name);
    return Object.fromEntries(controls.map((one) => [one.dataset.part, one.value.trim()]));
  }

  #changed() {
    this.#say();
    this.dispatchEvent(new Event("change"));
  }

  // Says beside the controls what they are set to.
  #say() {
    for (const name of Object.values(GREEK)) byId(`${name}-value`).textContent = Number(byId(name).value).toFixed(1);
    const count = this.message().filter?.all_of.filters.length ?? 0;
    byId("filter-count").textContent = count ? ` (${count} on)` : "";
  }
}

const texts = (value) => value.split(",").map((text) => text.trim()).filter(Boolean);
// `least` and `most` are what stands in the form: "0" is an end, "" is none.
const range = (field, least, most, value) =>
  least || most ? [{ range: { field, ...(least && { least: value(least) }), ...(most && { most: value(most) }) } }] : [];

const PREDICATES = {
  string: (field, { is }) => (is ? [{ one_of: { field, values: texts(is).map((text) => ({ text })) } }] : []),
  number: (field, { least, most }) => range(field, least, most, (text) => ({ number: Number(text) })),
  bool: (field, { is }) => (is ? [{ equals: { field, value: { flag: is === "yes" } } }] : []),
  date: (field, { least, most }) => range(field, least, most, (date) => ({ date })),
  tags: (field, { is }) => texts(is).map((tag) => ({ has_tag: { field, tag } })),
};

function control(name, kind) {
  const input = (part, type, label, placeholder) => element("input", { type, "data-field": name, "data-part": part, "aria-label": label, placeholder, step: type === "number" ? "any" : null });
  const controls = {
    string: () => [input("is", "text", `${name} is one of`, "any, or several with commas")],
    number: () => [input("least", "number", `${name} at least`, "from"), input("most", "number", `${name} at most`, "to")],
    bool: () => [element("select", { "data-field": name, "data-part": "is", "aria-label": name }, ["any", "yes", "no"].map((word) => element("option", { value: word === "any" ? "" : word }, word)))],
    date: () => [input("least", "date", `${name} from`, ""), input("most", "date", `${name} to`, "")],
    tags: () => [input("is", "text", `${name} has`, "tags with commas, all of them")],
  }[kind]();
  return element("div", { class: "field" }, element("span", { class: "field-name", "aria-hidden": "true" }, name), ...controls);
}
