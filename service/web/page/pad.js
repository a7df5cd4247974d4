// The sheet to draw on: mouse, touch, pen and keyboard to strokes; zoom; the guide. Holds no drawing of its own.

import { DEFAULT_WIDTH, MAX_STROKE_POINTS } from "./drawing.js";
import { erased } from "./eraser.js";
import { Pace, distance } from "./pace.js";
import { paintSketch, paintStroke } from "./paint.js";

const LEAST_STEP = 0.0015; // a third of a pixel of what the network sees
const MOST_ZOOM = 8;
const KEY_STEP = 0.01;
const ERASER_BUTTON = 5; // the other end of a pen
const REST_MS = 30; // two frames: a pen that moves sends something in each
const BREATH_MS = 100; // between two rankings of a line that goes on, for one reason

export class Pad extends EventTarget {
  tool = "pen";
  width = DEFAULT_WIDTH;
  #canvas;
  #drawing;
  #layer = document.createElement("canvas"); // the drawing without what is being drawn
  #painted = { strokes: [], picture: null }; // what is on it
  #view = { zoom: 1, x: 0, y: 0 };
  #fingers = new Map();
  #live = null; // {strokes, pace} of the pen, of which the last stroke grows; {path, left} of the eraser
  #restTimer = 0;
  #toldAt = { resting: -Infinity, ending: -Infinity }; // when what is being drawn was last told of, by the reason
  #started = performance.now();
  #sawPen = false;
  #hasGuide = false;
  #cursor = null; // where the keyboard's pen is
  #isDirty = false;

  constructor(canvas, drawing) {
    super();
    this.#canvas = canvas;
    this.#drawing = drawing;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#cancel(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#penUpByKey());
    // A ring around the sheet is for keys; who draws with a hand sees where.
    canvas.addEventListener("focus", () => canvas.toggleAttribute("data-keys", !this.#fingers.size));
    drawing.addEventListener("change", () => this.#follow());
  }

  get zoom() {
    return this.#view.zoom;
  }
  set hasGuide(value) {
    this.#hasGuide = value;
    this.#paint();
  }

  // Zooms by a factor about a spot of the sheet, in parts of it; the middle unless given.
  zoomBy(factor, spot = [0.5, 0.5]) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.#view.zoom * factor));
    const at = this.#toCanvas(spot);
    this.#look(zoom, spot[0] - at[0] * zoom, spot[1] - at[1] * zoom);
  }

  // What was only added to is painted on; anything else anew. What is being erased is erased from what is there now.
  #follow() {
    if (this.#live?.path) {
      const pass = (left, point, i, path) => erased(left, [path[i - 1] ?? point, point], this.#radius);
      this.#live.left = this.#live.path.reduce(pass, this.#drawing.state.strokes);
      return this.refresh();
    }
    const [before, now] = [this.#painted, this.#drawing.state];
    const added = now.strokes.slice(before.strokes.length);
    if (before.picture !== now.picture || before.strokes.some((stroke, i) => stroke !== now.strokes[i])) return this.refresh();
    for (const stroke of added) paintStroke(this.#layer.getContext("2d"), stroke, this.#layer.width);
    this.#painted = now;
    this.#paint();
  }

  refresh() {
    const context = this.#layer.getContext("2d");
    const size = this.#layer.width;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, size, size);
    this.#transform(context, size);
    this.#painted = { ...this.#drawing.state, strokes: this.#live?.left ?? this.#drawing.state.strokes };
    paintSketch(context, this.#painted, size, "");
    this.#paint();
  }

  #look(zoom, x, y) {
    const clamp = (value) => Math.min(0, Math.max(1 - zoom, value));
    this.#view = { zoom, x: clamp(x), y: clamp(y) };
    this.refresh();
    this.dispatchEvent(new Event("zoom"));
  }

  #fit() {
    const size = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (!size || size === this.#canvas.width) return;
    for (const canvas of [this.#canvas, this.#layer]) canvas.width = canvas.height = size;
    this.refresh();
  }

  #transform(context, size) {
    const { zoom, x, y } = this.#view;
    context.setTransform(zoom, 0, 0, zoom, x * size, y * size);
  }

  #paint() {
    if (this.#isDirty) return;
    this.#isDirty = true;
    requestAnimationFrame(() => {
      this.#isDirty = false;
      const context = this.#canvas.getContext("2d");
      const size = this.#canvas.width;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, size, size);
      context.drawImage(this.#layer, 0, 0);
      this.#transform(context, size);
      for (const stroke of this.#drawn()) paintStroke(context, stroke, size);
      if (this.#hasGuide) paintGuide(context, size, this.#view.zoom);
      if (this.#live?.path) paintRing(context, size, this.#live.path.at(-1), this.#radius, this.#view.zoom);
      if (this.#cursor) paintCross(context, size, this.#cursor, this.#view.zoom);
    });
  }

  get #radius() {
    return Math.max(0.015, 1.5 * this.width);
  }

  #toCanvas([u, v]) {
    const { zoom, x, y } = this.#view;
    return [(u - x) / zoom, (v - y) / zoom];
  }
  #spot(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #down(event) {
    if (event.button > 1 && event.button !== ERASER_BUTTON) return;
    event.preventDefault();
    this.#penUpByKey();
    // Once a pen was seen, a hand on the sheet is a hand: it neither draws nor keeps the pen from drawing.
    const isPen = event.pointerType === "pen";
    this.#sawPen ||= isPen;
    const isHand = this.#sawPen && event.pointerType === "touch";
    if (isHand && this.#live) return;
    if (isPen && this.#fingers.size) {
      this.#fingers.clear();
      this.#abandon();
    }
    this.#fingers.set(event.pointerId, this.#spot(event));
    this.#canvas.removeAttribute("data-keys");
    this.#canvas.focus({ preventScroll: true });
    this.#canvas.setPointerCapture(event.pointerId);
    if (this.#fingers.size > 1 || event.button === 1) {
      this.#abandon();
    } else if (!isHand) {
      this.#begin(isPen, event.button === ERASER_BUTTON);
      this.#take([event]);
      this.#foresee(event);
    }
  }

  #move(event) {
    const before = this.#fingers.get(event.pointerId);
    if (!before) return;
    const spot = this.#spot(event);
    if (this.#live) {
      const events = event.getCoalescedEvents?.() ?? [];
      this.#take(events.length ? events : [event]);
      this.#foresee(event);
    } else if (this.#fingers.size === 2) {
      this.#pinch(event.pointerId, before, spot);
    } else {
      this.#look(this.#view.zoom, this.#view.x + spot[0] - before[0], this.#view.y + spot[1] - before[1]);
    }
    this.#fingers.set(event.pointerId, spot);
  }

  #pinch(id, before, spot) {
    const other = [...this.#fingers].find(([key]) => key !== id)[1];
    const far = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1e-3;
    const middle = [0, 1].map((axis) => (spot[axis] + other[axis]) / 2);
    this.zoomBy(far(spot) / far(before), middle);
    this.#look(this.#view.zoom, this.#view.x + (spot[0] - before[0]) / 2, this.#view.y + (spot[1] - before[1]) / 2);
  }

  #up(event) {
    if (!this.#fingers.delete(event.pointerId) || !this.#live) return;
    this.#take([event]);
    this.#commit(event.timeStamp);
  }

  #cancel(event) {
    if (this.#fingers.delete(event.pointerId)) this.#abandon();
  }

  #abandon() {
    this.#end();
    this.#tell("live", []);
    this.refresh();
  }

  #begin(hasPressure, isErasing = false) {
    if (this.tool === "eraser" || isErasing) this.#live = { path: [], left: this.#drawing.state.strokes };
    else this.#live = { strokes: [emptyStroke(this.width, hasPressure)], pace: new Pace() };
  }

  // What the pen has drawn since it was put down.
  #drawn() {
    return this.#live?.strokes?.filter((stroke) => stroke.points.length) ?? [];
  }

  #take(events) {
    for (const event of events) {
      const point = this.#toCanvas(this.#spot(event));
      this.#go(point, event.pressure || 0, event.timeStamp);
    }
  }

  #go(point, pressure, time) {
    const live = this.#live;
    if (live.path) {
      const before = live.path.at(-1) ?? point;
      live.path.push(point);
      const left = erased(live.left, [before, point], this.#radius);
      if (left !== live.left) {
        live.left = left;
        this.refresh();
      }
    } else {
      this.#draw(live.strokes, point, pressure, time);
    }
    this.#paint();
  }

  #draw(strokes, point, pressure, time) {
    clearTimeout(this.#restTimer);
    // A slow hand, or one on the arrow keys, rests after every point.
    const breath = this.#toldAt.resting + BREATH_MS - performance.now();
    this.#restTimer = setTimeout(() => this.#rest(), Math.max(REST_MS, breath));
    const stroke = strokes.at(-1);
    const last = stroke.points.at(-1);
    if (point.some((value) => value < 0 || value > 1) || stroke.points.length >= MAX_STROKE_POINTS) {
      // Over the edge the line ends; it begins anew where it comes back.
      if (last) strokes.push(emptyStroke(stroke.width, Boolean(stroke.pressure)));
      return;
    }
    if (last && distance(point, last) < LEAST_STEP) return;
    stroke.points.push(point);
    stroke.pressure?.push(pressure);
    stroke.times_ms.push(Math.max(0, time - this.#started));
  }

  #rest() {
    const isLate = navigator.scheduling?.isInputPending({ includeContinuous: true }); // the browser, not the pen
    if (!isLate) this.#tellLive("resting", performance.now());
  }

  // A line that ends before its next point is as good as drawn.
  #foresee(event) {
    const last = this.#live.strokes?.at(-1).points.at(-1);
    if (!last) return;
    const point = this.#toCanvas(this.#spot(event));
    const left = distance(last, point) + this.#live.pace.ahead(point, event.timeStamp);
    const isSoon = event.timeStamp - this.#toldAt.ending < BREATH_MS;
    if (left < LEAST_STEP && !isSoon) this.#tellLive("ending", event.timeStamp);
  }

  // A pen that rests or is about to is likely to be lifted: what it drew can be ranked already.
  #tellLive(reason, time) {
    clearTimeout(this.#restTimer);
    this.#toldAt[reason] = time;
    this.#tell("live", this.#drawn());
  }

  #commit(time) {
    const [live, drawn] = [this.#live, this.#drawn()];
    this.#end();
    const hasErased = live.path && live.left !== this.#drawing.state.strokes;
    if (hasErased || drawn.length) this.#tell("commit", { time });
    if (hasErased) this.#drawing.put(live.left);
    else if (drawn.length) this.#drawing.add(drawn);
    this.#paint();
  }

  #end() {
    clearTimeout(this.#restTimer);
    this.#live = null;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #wheel(event) {
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 400), this.#spot(event));
  }

  // Arrows move a cross; Enter or space puts the pen down and lifts it.
  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || this.#fingers.size) return;
    if (way) {
      const step = event.shiftKey ? KEY_STEP / 4 : KEY_STEP;
      const from = this.#cursor ?? [0.5, 0.5];
      this.#cursor = from.map((value, axis) => Math.min(1, Math.max(0, value + way[axis] * step)));
      if (this.#live) this.#go(this.#cursor, 1, event.timeStamp);
    } else if (event.key === "Enter" || event.key === " ") {
      this.#cursor ??= [0.5, 0.5];
      if (this.#live) {
        this.#commit(event.timeStamp);
      } else {
        this.#begin(false);
        this.#go(this.#cursor, 1, event.timeStamp);
      }
    } else {
      return;
    }
    event.preventDefault();
    this.#canvas.setAttribute("data-keys", "");
    this.#paint();
  }

  #penUpByKey() {
    if (this.#cursor && this.#live) this.#commit(performance.now());
    this.#cursor = null;
    this.#paint();
  }
}

function emptyStroke(width, hasPressure) {
  return { points: [], width, pressure: hasPressure ? [] : null, times_ms: [] };
}

function paintGuide(context, size, zoom) {
  const line = (color, dash, parts) => {
    context.strokeStyle = color;
    context.lineWidth = (1.2 * devicePixelRatio) / zoom;
    context.setLineDash(dash.map((length) => length / zoom));
    context.beginPath();
    for (let i = 1; i < parts; i++) {
      const at = (i / parts) * size;
      context.moveTo(at, 0);
      context.lineTo(at, size);
      context.moveTo(0, at);
      context.lineTo(size, at);
    }
    context.stroke();
  };
  context.save();
  line("rgb(40 90 160 / 0.45)", [], 2);
  line("rgb(170 80 30 / 0.45)", [7, 7], 3);
  context.setLineDash([2, 5]);
  context.strokeStyle = "rgb(60 60 60 / 0.4)";
  context.beginPath();
  context.ellipse(size / 2, size * 0.46, size * 0.25, size * 0.33, 0, 0, 7);
  context.stroke();
  context.restore();
}

function paintRing(context, size, [x, y], radius, zoom) {
  context.strokeStyle = "rgb(60 60 60 / 0.8)";
  context.lineWidth = 1.5 / zoom;
  context.beginPath();
  context.arc(x * size, y * size, radius * size, 0, 7);
  context.stroke();
}

function paintCross(context, size, [x, y], zoom) {
  const arm = 12 / zoom;
  context.strokeStyle = "#b3261e";
  context.lineWidth = 2 / zoom;
  context.beginPath();
  context.moveTo(x * size - arm, y * size);
  context.lineTo(x * size + arm, y * size);
  context.moveTo(x * size, y * size - arm);
  context.lineTo(x * size, y * size + arm);
  context.stroke();
}
