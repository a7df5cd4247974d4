// The closest photos as cards that move to their new ranks, how steady the ranking is, and where the time went.

import { byId, element, isStill, portrait, thumbnailUrl, write } from "./dom.js";

export const SHOWN = 12;
const MOVE_MS = 320;
const FETCH_AFTER_MS = 400; // no sooner: the ranking comes first

export class Ranking extends EventTarget {
  #list = byId("ranking");
  #cards = new Map();
  #gallery = "";
  #fetched = new Set();
  #isLost = false; // the service was gone, and pictures may be missing for that
  result = null;

  // What could not be loaded meanwhile is loaded with the next ranking.
  lose() {
    this.#isLost = true;
  }

  begin(gallery) {
    if (gallery !== this.#gallery) {
      this.#list.replaceChildren();
      this.#cards.clear();
      this.#fetched.clear();
      this.result = null; // the photos of another gallery are not to be found in this one
      this.#judge({}, false);
      document.querySelector(".timings").hidden = true;
    }
    this.#gallery = gallery;
  }

  hits() {
    return this.result?.ranking?.hits ?? [];
  }

  shown() {
    return this.hits().slice(0, SHOWN);
  }

  // `isMuch`: the drawing is more than a beginning, so that a single answer to it is not early.
  show(result, isMuch) {
    this.result = result;
    const hits = this.shown();
    const places = isStill() ? null : this.#places();
    const focused = document.activeElement;
    for (const id of [...this.#cards.keys()]) if (!hits.some((hit) => hit.photo_id === id)) this.#drop(id);
    hits.forEach((hit, place) => {
      const card = this.#cards.get(hit.photo_id) ?? this.#add(hit.photo_id);
      if (this.#isLost && card.querySelector(".no-picture")) card.querySelector(".portrait").replaceWith(portrait(this.#gallery, hit.photo_id));
      if (this.#list.children[place] !== card) this.#list.insertBefore(card, this.#list.children[place] ?? null);
      label(card, hit);
    });
    this.#isLost = false;
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
    if (places) this.#glide(places);
    setTimeout(() => this.#fetchAhead(), FETCH_AFTER_MS);
    this.#judge(result, isMuch);
  }

  // Of each card in turn: where it is seen, perhaps on its way, and where its place is.
  #places() {
    const { left, top } = this.#list.getBoundingClientRect();
    const [x, y] = [left - this.#list.offsetLeft, top - this.#list.offsetTop];
    return [...this.#list.children].map((card) => ({ card, seen: card.getBoundingClientRect(), left: card.offsetLeft + x, top: card.offsetTop + y }));
  }

  // Moves cards from where they were seen to their new places, which lie where they lay: nothing need be laid out to know.
  #glide(places) {
    const seen = new Map(places.map((place) => [place.card, place.seen]));
    [...this.#list.children].forEach((card, rank) => {
      const [from, to] = [seen.get(card), places[rank]];
      const way = from && to && [from.left - to.left, from.top - to.top];
      if (way?.every((pixels) => !pixels)) return;
      const start = way ? { transform: `translate(${way[0]}px, ${way[1]}px)` } : { opacity: 0, transform: "scale(0.92)" };
      card.animate([start, { opacity: 1, transform: "none" }], { duration: MOVE_MS, easing: "cubic-bezier(.2,.8,.2,1)" });
    });
  }

  // The photos that may come next, so that they are there when they do.
  #fetchAhead() {
    for (const { photo_id } of this.hits().slice(SHOWN)) {
      if (this.#fetched.has(photo_id)) continue;
      this.#fetched.add(photo_id);
      new Image().src = thumbnailUrl(this.#gallery, photo_id);
    }
  }

  // Whether the ranking has settled, as the service says; nothing of a whole drawing's only answer, which is not early.
  #judge({ strokes, stability }, isMuch) {
    const hides = !stability || (isMuch && stability.overlap === undefined);
    const verdict = hides ? "none" : stability.too_early ? "early" : "steady";
    const count = stability?.settled_strokes ?? 0;
    const since = strokes && count ? ` for ${count} stroke${count === 1 ? "" : "s"}` : "";
    byId("verdict").dataset.verdict = verdict;
    write(byId("verdict"), { none: "", early: "Too early to tell", steady: `Settled${since}` }[verdict]);
  }

  #add(id) {
    const button = element("button", { type: "button", onclick: () => this.#open(id) }, portrait(this.#gallery, id), element("span", { class: "rank" }), element("span", { class: "moved" }), element("span", { class: "name" }, id), element("span", { class: "distance" }));
    const card = element("li", { "data-id": id }, button);
    this.#cards.set(id, card);
    return card;
  }

  #drop(id) {
    this.#cards.get(id).remove();
    this.#cards.delete(id);
  }

  #open(id) {
    this.dispatchEvent(new CustomEvent("open", { detail: id }));
  }
}

function label(card, hit) {
  const [rank, moved, distance] = ["rank", "moved", "distance"].map((name) => card.querySelector(`.${name}`));
  const change = hit.is_new ? "new" : Math.sign(hit.rank_change ?? 0);
  card.dataset.rank = hit.rank;
  write(rank, `${hit.rank}`);
  moved.dataset.way = change === "new" ? "new" : { 1: "up", 0: "", "-1": "down" }[change];
  write(moved, change === "new" ? "new" : change > 0 ? `▲${hit.rank_change}` : change < 0 ? `▼${-hit.rank_change}` : "");
  write(distance, hit.distance.toFixed(3));
  card.firstElementChild.setAttribute("aria-label", `Rank ${hit.rank}: ${hit.photo_id}, distance ${hit.distance.toFixed(3)}${described(change, hit)}`);
}

function described(change, hit) {
  if (change === "new") return ", new here";
  if (!change) return "";
  return change > 0 ? `, up ${hit.rank_change}` : `, down ${-hit.rank_change}`;
}

const THERE = "there before pen-up";
const PHASES = [["raster_ms", "raster"], ["encode_ms", "encode"], ["search_ms", "search"]];

// Shows where the time of an answer went; `shown_ms` is from pen up to the repainted ranking, null when nobody drew.
export function showTimings(timings, ranking, shown_ms) {
  const parts = PHASES.map(([key, name]) => [name, timings[key]]);
  const own = parts.reduce((sum, [, ms]) => sum + ms, 0);
  if (shown_ms) parts.push(["to the screen", Math.max(0, shown_ms - own)]);
  const all = parts.reduce((sum, [, ms]) => sum + ms, 0) || 1;
  document.querySelector(".timings").hidden = !ranking;
  byId("timing-bar").replaceChildren(
    ...parts.map(([name, ms]) => {
      const bar = element("span", { "data-phase": name });
      bar.style.flexGrow = ms / all;
      return bar;
    }),
  );
  byId("timing").replaceChildren(...parts.map(([name, ms]) => element("span", { "data-phase": name }, `${name} ${ms.toFixed(1)} ms`)), shown_ms === 0 ? THERE : "");
  byId("how").textContent = ranking ? `${Number(ranking.gallery_photos).toLocaleString("en")} photos ranked ${ranking.exact ? "exactly" : "approximately"}` : "";
  Object.assign(byId("timing").dataset, { own: own.toFixed(2), shown: shown_ms?.toFixed(2) ?? "" });
}
