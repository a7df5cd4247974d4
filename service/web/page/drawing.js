// The drawing: what is on the canvas, and how it came there. The page keeps it, so that no lost connection loses it.
// A stroke is {points: [[x, y], ...], width, pressure: [...] or null, times_ms: [...]} in canvas units, 0 to 1.

export const DEFAULT_WIDTH = 0.008;
export const MAX_STROKE_POINTS = 10000;
const MOST_PICTURE = 4 * 1024 * 1024; // base64 of the 3 MiB that the service takes
const MOST_STEPS = 500;
const FORMAT = "mgrl-drawing/1";

export class Drawing extends EventTarget {
  #past = [];
  #future = [];
  // Frozen in use: an edit makes a new list, so that earlier ones can be gone back to and compared by identity. Only what
  // is known of whom it shows, {target, gallery}, is the same for all states of a drawing.
  state = { strokes: [], picture: null, known: {} };

  get isEmpty() {
    return !this.state.strokes.length && !this.state.picture;
  }
  get canUndo() {
    return this.#past.length > 0;
  }
  get canRedo() {
    return this.#future.length > 0;
  }

  add(strokes) {
    this.#step({ ...this.state, strokes: [...this.state.strokes, ...strokes] });
  }
  put(strokes) {
    this.#step({ ...this.state, strokes });
  }
  lay(picture) {
    this.#step({ ...this.state, picture });
  }
  clear() {
    if (!this.isEmpty) this.#step({ strokes: [], picture: null, known: {} });
  }
  open(state) {
    this.#step(state);
  }
  undo() {
    this.#travel(this.#past, this.#future);
  }
  redo() {
    this.#travel(this.#future, this.#past);
  }

  #step(state) {
    if (this.isEmpty && state.known === this.state.known) state.known = {}; // who is drawn next may be somebody else
    this.#past.push(this.state);
    if (this.#past.length > MOST_STEPS) this.#past.shift();
    this.#future = [];
    this.#become(state);
  }
  #travel(from, to) {
    if (!from.length) return;
    to.push(this.state);
    this.#become(from.pop());
  }
  #become(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
}

// The photo of a gallery that was confirmed for a drawing; "" when none was.
export const targetOf = ({ known }, gallery) => (known.gallery === gallery ? known.target : "");

export function toJson(state, more = {}) {
  const strokes = state.strokes.map(({ points, width, pressure, times_ms }) => ({
    points: points.map(([x, y]) => [round(x, 4), round(y, 4)]),
    width: round(width, 5),
    ...(pressure && { pressure: pressure.map((p) => round(p, 3)) }),
    ...(times_ms && { times_ms: times_ms.map(Math.round) }),
  }));
  return { format: FORMAT, strokes, ...(state.picture && { picture: state.picture.base64 }), ...more };
}

// The drawing in a file; throws an Error that says what is wrong with it.
export function fromJson(text) {
  let raw;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new Error("That file is no drawing: it is not JSON.");
  }
  if (!raw || !Array.isArray(raw.strokes)) throw new Error("That file is no drawing: it has no list of strokes.");
  if ((raw.format ?? FORMAT) !== FORMAT) throw new Error(`This page opens drawings of the format ${FORMAT}.`);
  if (raw.strokes.length > 20000) throw new Error("A drawing may have 20,000 strokes.");
  const strokes = raw.strokes.map(checkedStroke);
  const picture = typeof raw.picture === "string" ? raw.picture : null;
  if (picture?.length > MOST_PICTURE) throw new Error("The picture in that file is above 3 MiB; scale it down.");
  const name = (value) => (typeof value === "string" ? value : "");
  return { strokes, picture, target: name(raw.target), gallery: name(raw.gallery) };
}

function checkedStroke(raw, number) {
  const isUnit = (value) => typeof value === "number" && value >= 0 && value <= 1;
  const points = raw?.points;
  const isRight =
    Array.isArray(points) && points.length > 0 && points.length <= MAX_STROKE_POINTS &&
    points.every((point) => Array.isArray(point) && point.length === 2 && point.every(isUnit));
  if (!isRight) throw new Error(`Stroke ${number} of that file must be points from 0 to 1.`);
  const list = (values, isRight) => (Array.isArray(values) && values.length === points.length && values.every(isRight) ? values : null);
  const width = Number.isFinite(raw.width) && raw.width > 0 && raw.width <= 0.2 ? raw.width : DEFAULT_WIDTH;
  return { points, width, pressure: list(raw.pressure, isUnit), times_ms: list(raw.times_ms, Number.isFinite) };
}

const round = (value, digits) => Number(value.toFixed(digits));
