// A drawing ranked again stage by stage: scrubbed through, with the rank of a confirmed target along it.

import { byId, element, portrait } from "./dom.js";
import { targetOf } from "./drawing.js";
import { paintSketch } from "./paint.js";
import { Stream, parcels, rasterAction, strokesAction } from "./stream.js";

const MOST_STAGES = 70;
const MOST_PHOTOS = 1000; // of one answer; a target beyond has no rank
const SHOWN = 6;
const KEPT = 100;
const SIDE = 360;

export class Replay {
  #dialog = byId("replay");
  #stages = []; // {strokes, hits: [{photo_id, rank, distance}], ranks: Map} by stage
  #state = null;
  #gallery = "";
  #pinned = []; // ids of photos
  #stream = null;
  #timer = 0;
  #worst = 10; // lowest rank of the curve: 10, 100 or 1000

  constructor() {
    byId("stage").addEventListener("input", () => this.#show());
    byId("target").addEventListener("change", () => this.#confirm(byId("target").value));
    byId("play").addEventListener("click", () => this.#play());
    this.#dialog.addEventListener("close", () => this.#stop());
  }

  get isOpen() {
    return this.#dialog.open;
  }

  // The stages that are ranked, the one that is shown, and the drawing at it: what a record is made of.
  get shown() {
    const stage = this.#stages[Number(byId("stage").value)];
    return stage && { ...stage, target: this.#target, ranks: this.#ranks(), state: this.#cut(stage.strokes) };
  }

  open(state, gallery, photos, options, purpose, pinned) {
    this.#stop();
    [this.#state, this.#gallery, this.#pinned, this.#stages] = [state, gallery, pinned, []];
    this.#worst = [10, 100, MOST_PHOTOS].find((most) => photos <= most) ?? MOST_PHOTOS;
    this.#dialog.showModal();
    const ends = stageEnds(state.strokes.length, Boolean(state.picture));
    Object.assign(byId("stage"), { max: ends.length - 1, value: ends.length - 1, disabled: true });
    byId("target").disabled = true;
    // Of an earlier one.
    for (const id of ["replay-hits", "stage-label", "curve"]) byId(id).replaceChildren();
    this.#paint(state);
    byId("replay-note").textContent = "Ranking every stage…";
    this.#run(ends, { gallery, options: { ...options, k: Math.min(photos, MOST_PHOTOS) }, purpose });
  }

  #run(ends, begin) {
    const sent = new Map(); // a stage's messages by number
    let [asked, held] = [0, 0]; // the latest of them; how many were refused for now
    const send = (action) => {
      asked = stream.send(action);
      sent.set(asked, action);
    };
    const ask = () => {
      sent.clear();
      const stage = this.#stages.length;
      const strokes = this.#state.strokes.slice(stage ? ends[stage - 1] : 0, ends[stage]);
      if (!stage && this.#state.picture) send(rasterAction(this.#state.picture));
      for (const some of parcels(strokes)) send(strokesAction(some));
    };
    const fail = (message) => {
      byId("replay-note").textContent = message;
      stream.drop();
    };
    const again = (sequence) => {
      held -= 1;
      if (stream === this.#stream && this.isOpen) send(sent.get(sequence));
    };
    const stream = new Stream(() => ({ begin }), {
      open: ask,
      result: (sequence, result) => {
        if (held || sequence < asked) return;
        const hits = result.ranking?.hits ?? [];
        const ranks = new Map(hits.map((hit) => [hit.photo_id, hit.rank]));
        this.#stages.push({ strokes: ends[this.#stages.length], hits: hits.slice(0, KEPT), ranks });
        byId("replay-note").textContent = `Ranking stage ${this.#stages.length} of ${ends.length}…`;
        if (this.#stages.length < ends.length) return ask();
        stream.drop();
        this.#finish();
      },
      error: (sequence, message, retry_ms) => {
        if (retry_ms === null) return fail(message);
        held += 1;
        setTimeout(() => again(sequence), retry_ms);
      },
      ended: ({ message }) => fail(message),
    });
    this.#stream = stream;
  }

  #finish() {
    byId("stage").disabled = byId("target").disabled = false;
    const last = this.#stages.at(-1).hits;
    const ids = [...new Set([this.#target, ...this.#pinned, ...last.map((hit) => hit.photo_id)])].filter(Boolean);
    byId("target").replaceChildren(element("option", { value: "" }, "nobody yet"), ...ids.map((id) => element("option", { value: id }, id)));
    byId("target").value = this.#target;
    this.#showTarget();
  }

  get #target() {
    return targetOf(this.#state, this.#gallery);
  }

  #confirm(target) {
    Object.assign(this.#state.known, { target, gallery: this.#gallery });
    this.#showTarget();
  }

  #showTarget() {
    const id = this.#target;
    const ranks = this.#ranks();
    byId("replay-note").textContent = id ? summary(this.#stages, ranks) : "Choose the photo that was confirmed, to see its rank along the drawing.";
    byId("curve").replaceChildren(...(id ? [curve(this.#stages, ranks, this.#worst)] : []));
    this.#show();
  }

  #ranks() {
    return this.#stages.map((stage) => stage.ranks.get(this.#target) ?? null);
  }

  #cut(strokes) {
    return { ...this.#state, strokes: this.#state.strokes.slice(0, strokes) };
  }

  #paint(state) {
    paintSketch(byId("replay-sketch").getContext("2d"), state, SIDE);
  }

  #show() {
    const number = Number(byId("stage").value);
    const stage = this.#stages[number];
    if (!stage) return;
    this.#paint(this.#cut(stage.strokes));
    byId("stage").setAttribute("aria-valuetext", `stage ${number + 1} of ${this.#stages.length}, ${stage.strokes} strokes`);
    const target = this.#target;
    const rank = stage.ranks.get(target);
    byId("stage-label").textContent = `${stage.strokes} stroke${stage.strokes === 1 ? "" : "s"}${rank ? ` · ${target} at rank ${rank}` : ""}`;
    byId("replay-hits").replaceChildren(
      ...stage.hits.slice(0, SHOWN).map((hit) =>
        element("li", { "data-id": hit.photo_id, class: hit.photo_id === target ? "target" : "" }, portrait(this.#gallery, hit.photo_id), element("span", { class: "rank" }, String(hit.rank)), element("span", { class: "name" }, hit.photo_id)),
      ),
    );
    const mark = byId("curve").querySelector(".now");
    mark?.setAttribute("cx", xOf(number, this.#stages.length));
    mark?.setAttribute("cy", rank ? yOf(rank, this.#worst) : -10);
  }

  #play() {
    if (this.#timer) return this.#pause();
    const stage = byId("stage");
    if (stage.disabled) return;
    if (Number(stage.value) >= Number(stage.max)) stage.value = 0;
    byId("play").textContent = "Pause";
    this.#timer = setInterval(() => {
      this.#show();
      if (Number(stage.value) >= Number(stage.max)) this.#pause();
      else stage.value = Number(stage.value) + 1;
    }, 160);
  }

  #pause() {
    clearInterval(this.#timer);
    this.#timer = 0;
    byId("play").textContent = "Play";
  }

  #stop() {
    this.#pause();
    this.#stream?.drop();
  }
}

// Strokes at the end of each stage: every stroke a stage, or as many as can be scrubbed through.
export function stageEnds(strokes, hasPicture) {
  const count = Math.min(strokes, MOST_STAGES);
  const ends = Array.from({ length: count }, (_, i) => Math.round(((i + 1) * strokes) / count));
  return hasPicture ? [0, ...ends] : ends;
}

function summary(stages, ranks) {
  const within = (most) => stages[ranks.findIndex((_, i) => ranks.slice(i).every((rank) => rank && rank <= most))]?.strokes;
  const last = ranks.at(-1);
  const parts = [last ? `rank ${last} at the end` : "not among the photos that were ranked"];
  for (const most of [10, 5, 1]) if (within(most) !== undefined) parts.push(`top ${most} for good after ${within(most)} strokes`);
  return parts.join(" · ");
}

const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [640, 170, 44, 10, 140];
const xOf = (stage, stages) => LEFT + ((WIDTH - LEFT - 12) * stage) / Math.max(1, stages - 1);
const yOf = (rank, most) => TOP + ((BOTTOM - TOP) * Math.log10(rank)) / Math.log10(most);

function curve(stages, ranks, most) {
  const svg = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Rank of the target by stage: ${ranks.map((rank) => rank ?? "beyond").join(", ")}` });
  for (const rank of [1, 10, 100, 1000].filter((rank) => rank <= most)) {
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 12, y1: yOf(rank, most), y2: yOf(rank, most) }), svg("text", { x: LEFT - 8, y: yOf(rank, most) + 4, "text-anchor": "end" }, String(rank)));
  }
  picture.append(svg("text", { x: LEFT, y: HEIGHT - 8 }, "1st stroke"), svg("text", { x: WIDTH - 12, y: HEIGHT - 8, "text-anchor": "end" }, `${stages.at(-1).strokes} strokes`));
  const points = ranks.map((rank, i) => rank && `${xOf(i, ranks.length)},${yOf(rank, most)}`).filter(Boolean);
  picture.append(svg("polyline", { class: "line", points: points.join(" ") }), svg("circle", { class: "now", r: 5, cx: -10, cy: -10 }));
  return picture;
}
