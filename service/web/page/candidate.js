// One photo beside the sketch, or under it, with the regions that speak for and against it; pinned photos side by side.

import { byId, element, getJson, loaded, portrait, thumbnailUrl, write } from "./dom.js";
import { REGION_NAMES, canvasOf, comparison, paintHeat, paintPhoto, paintSketch } from "./paint.js";

const SIDE = 480;
const MOST_PINS = 6;

export class Candidates {
  pins = new Map(); // photo id -> its card
  #dialog = byId("candidate");
  #ranking;
  #drawing;
  #gallery = "";
  #shown = "";
  #photo = null; // what is loaded of the photo that is shown

  constructor(ranking, drawing) {
    [this.#ranking, this.#drawing] = [ranking, drawing];
    ranking.addEventListener("open", ({ detail }) => this.open(detail));
    for (const name of ["overlay", "heat"]) byId(name).addEventListener("input", () => this.#paint());
    byId("pin").addEventListener("click", () => this.#togglePin(this.#shown));
    byId("open-compare").addEventListener("click", () => this.#compare());
    byId("compare-heat").addEventListener("input", () => this.#compare());
    byId("previous").addEventListener("click", () => this.#step(-1));
    byId("next").addEventListener("click", () => this.#step(1));
    this.#dialog.addEventListener("keydown", (event) => {
      const step = event.target.type === "range" ? 0 : { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.#step(step);
    });
  }

  begin(gallery) {
    if (gallery !== this.#gallery) this.pins.clear();
    this.#gallery = gallery;
    this.#putPins();
  }

  async open(photoId) {
    this.#shown = photoId;
    if (!this.#dialog.open) this.#dialog.showModal();
    byId("candidate-name").textContent = photoId;
    byId("candidate-facts").replaceChildren();
    this.#photo = null;
    this.refresh();
    const asked = `/api/photo?${new URLSearchParams({ gallery: this.#gallery, id: photoId })}`;
    const [known, image] = await Promise.all([getJson(asked).catch((error) => ({ source: error.message })), loaded(thumbnailUrl(this.#gallery, photoId))]);
    if (this.#shown !== photoId) return;
    this.#photo = image;
    const facts = Object.entries({ file: known.source, ...known.metadata });
    byId("candidate-facts").replaceChildren(
      ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, Array.isArray(value) ? value.join(", ") : String(value))]),
    );
    this.#paint();
  }

  // The ranking has changed, or the drawing: what is open follows.
  refresh() {
    this.#labelPins();
    if (!this.#dialog.open) return;
    const hit = this.#hit(this.#shown);
    byId("candidate-rank").textContent = hit ? `rank ${hit.rank}, distance ${hit.distance.toFixed(3)}` : "not among the photos shown";
    byId("pin").setAttribute("aria-pressed", this.pins.has(this.#shown));
    byId("pin").textContent = this.pins.has(this.#shown) ? "Unpin" : "Pin to compare";
    byId("regions").replaceChildren(...this.#regionRows(hit));
    this.#paint();
  }

  #putPins() {
    byId("pinned").hidden = !this.pins.size;
    byId("pins").replaceChildren(...this.pins.values());
    this.#labelPins();
  }

  // The cards stay, as who came from one goes back to it.
  #labelPins() {
    for (const [id, card] of this.pins) {
      const hit = this.#hit(id);
      card.firstElementChild.setAttribute("aria-label", `Pinned: ${id}, ${hit ? `rank ${hit.rank}` : "not among the photos shown"}`);
      write(card.querySelector(".rank"), hit ? `${hit.rank}` : "–");
      write(card.querySelector(".distance"), hit ? hit.distance.toFixed(3) : "");
    }
  }

  #pinCard(id) {
    const parts = [portrait(this.#gallery, id), element("span", { class: "rank" }), element("span", { class: "distance" })];
    return element("li", {}, element("button", { type: "button", class: "pinned-photo", onclick: () => this.open(id) }, ...parts));
  }

  // The sketch and every pinned photo in a row, each with the regions that speak for and against it.
  async #compare() {
    const ids = [...this.pins.keys()];
    const images = await Promise.all(ids.map((id) => loaded(thumbnailUrl(this.#gallery, id))));
    const sketch = canvasOf(SIDE, "The sketch");
    paintSketch(sketch.getContext("2d"), this.#drawing.state, SIDE);
    const figures = ids.map((id, i) => {
      const [canvas, hit] = [canvasOf(SIDE, `The photo ${id}`), this.#hit(id)];
      const context = canvas.getContext("2d");
      paintPhoto(context, images[i], SIDE);
      if (hit && byId("compare-heat").checked) paintHeat(context, this.#values(id), SIDE);
      const where = hit ? `rank ${hit.rank}, distance ${hit.distance.toFixed(3)}` : "not among the photos shown";
      return element("figure", {}, canvas, element("figcaption", {}, element("b", {}, id), ` ${where}`));
    });
    byId("compared").replaceChildren(element("figure", {}, sketch, element("figcaption", {}, "Sketch")), ...figures);
    if (!byId("compare").open) byId("compare").showModal();
  }

  #hit(id) {
    return this.#ranking.hits().find((hit) => hit.photo_id === id);
  }

  #values(id) {
    const hit = this.#hit(id);
    return hit ? comparison(hit, this.#ranking.shown(), this.#ranking.result.ranking.inked_regions) : null;
  }

  #paint() {
    const [sketch, photo] = ["side-sketch", "side-photo"].map((name) => byId(name).getContext("2d"));
    const values = byId("heat").checked ? this.#values(this.#shown) : null;
    const blend = Number(byId("overlay").value) / 100;
    paintSketch(sketch, this.#drawing.state, SIDE);
    paintPhoto(photo, this.#photo, SIDE);
    if (blend) {
      const layer = canvasOf(SIDE);
      paintSketch(layer.getContext("2d"), this.#drawing.state, SIDE);
      photo.save();
      photo.globalAlpha = blend;
      photo.globalCompositeOperation = "multiply";
      photo.drawImage(layer, 0, 0);
      photo.restore();
    }
    if (values) for (const context of [sketch, photo]) paintHeat(context, values, SIDE);
  }

  #regionRows(hit) {
    const values = this.#values(this.#shown);
    if (!values) return [];
    return REGION_NAMES.flatMap((name, region) => {
      if (values[region] === null) return [];
      const word = values[region] < -0.15 ? "closer" : values[region] > 0.15 ? "farther" : "as the others";
      return [element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, hit.region_distances[region].toFixed(3)), element("td", {}, hit.contributions[region].toFixed(3)), element("td", { "data-side": word }, word))];
    });
  }

  #togglePin(id) {
    if (!this.pins.delete(id)) this.pins.set(id, this.#pinCard(id));
    if (this.pins.size > MOST_PINS) this.pins.delete(this.pins.keys().next().value);
    this.#putPins();
    this.refresh();
  }

  #step(way) {
    const hits = this.#ranking.hits();
    const place = hits.findIndex((hit) => hit.photo_id === this.#shown) + way;
    if (hits[place]) this.open(hits[place].photo_id);
  }
}
