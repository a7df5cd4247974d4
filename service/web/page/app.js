// The page: connects the pad, the drawing, the link to the service, and what shows its answers.

import { Candidates } from "./candidate.js";
import { Drawing, fromJson, targetOf, toJson } from "./drawing.js";
import { byId, download, element, getJson, write } from "./dom.js";
import { Options } from "./filters.js";
import { Link } from "./link.js";
import { Pad } from "./pad.js";
import { Purpose } from "./purpose.js";
import { Ranking, showTimings } from "./ranking.js";
import { blobOf, pdfOf, recordCanvas } from "./record.js";
import { Replay } from "./replay.js";

const KEPT_AS = "mgrl-drawing"; // in sessionStorage: each tab has its own, gone when the tab is closed
const MOST_FILE_BYTES = 20 * 1024 * 1024;
const BEGINNING = 12; // strokes
const PAUSE_MS = 150;
const WELCOME = "Draw, and the closest photos appear here. Head in the middle, shoulders at the lower edge, as in a portrait photo.";

const drawing = new Drawing();
const link = new Link(drawing.state);
drawing.addEventListener("change", () => sync()); // before the pad hears of it: a stroke is sent first and painted then
const pad = new Pad(byId("pad"), drawing);
const ranking = new Ranking();
const options = new Options();
const purpose = new Purpose();
const candidates = new Candidates(ranking, drawing);
const replay = new Replay();
let galleries = [];
let keptGallery = ""; // which was drawn for before a reload
let penUp = null; // when the pen left the sheet, until what it drew is ranked on the screen
let onScreen = null; // the result whose ranking is on the screen
let isCounted = false; // the service has refused some for coming too fast: from then on lines are sent when they are whole
let ranked = null; // the state of the drawing that the latest ranking is of, as the options say

// ---- drawing

pad.addEventListener("live", ({ detail }) => (isCounted && detail.length ? null : sync(detail)));
pad.addEventListener("commit", ({ detail }) => (penUp = link.isOpen ? detail.time : null));
pad.addEventListener("zoom", () => (byId("zoom-value").textContent = `${Math.round(pad.zoom * 100)} %`));

// `live`: what is being drawn at the moment.
function sync(live = []) {
  const { strokes, picture } = drawing.state;
  link.sync({ strokes: live.length ? [...strokes, ...live] : strokes, picture });
  noteRanked();
  showBusy();
  if (penUp !== null && link.isCurrent && onScreen) account(penUp); // the pen rested, and its ranking was there before it left
}
function noteRanked() {
  if (link.isCurrent) ranked = drawing.state;
}
function showBusy() {
  byId("ranking").setAttribute("aria-busy", !link.isCurrent);
}
drawing.addEventListener("change", () => {
  byId("undo").disabled = !drawing.canUndo;
  byId("redo").disabled = !drawing.canRedo;
  byId("clear").disabled = byId("open-replay").disabled = byId("save").disabled = byId("record-png").disabled = drawing.isEmpty;
  byId("hint").hidden = !drawing.isEmpty;
  byId("stroke-count").textContent = `${drawing.state.strokes.length} stroke${drawing.state.strokes.length === 1 ? "" : "s"}`;
  scheduleKeep();
});

let keepTimer = 0;
function scheduleKeep() {
  clearTimeout(keepTimer);
  keepTimer = setTimeout(keep, 1000);
}
function keep() {
  try {
    if (drawing.isEmpty) sessionStorage.removeItem(KEPT_AS);
    else sessionStorage.setItem(KEPT_AS, drawingFile());
  } catch {
    // Full: the drawing is still on the page, only not for a reload.
  }
}
addEventListener("pagehide", keep);

function drawingFile() {
  const name = gallery() || keptGallery;
  const target = targetOf(drawing.state, name);
  return JSON.stringify(toJson(drawing.state, { ...(target && { target }), gallery: name }));
}

async function openDrawing(text) {
  const file = fromJson(text);
  const laid = file.picture && (await laidOut(file.picture));
  drawing.open({ strokes: file.strokes, picture: laid || null, known: { target: file.target, gallery: file.gallery || gallery() } });
  return file.gallery;
}

async function laidOut(base64) {
  try {
    return await pictureOf(new Blob([Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0))], { type: "image/png" }));
  } catch {
    throw new Error("The picture in that file cannot be read.");
  }
}

function setTool(tool) {
  pad.tool = tool;
  for (const name of ["pen", "eraser"]) byId(name).setAttribute("aria-pressed", name === tool);
  byId("pad").dataset.tool = tool;
}
function setWidth(width) {
  pad.width = Math.min(0.04, Math.max(0.003, width));
  byId("width").value = Math.round(pad.width * 1000);
}
function toggleGuide() {
  const on = byId("guide").getAttribute("aria-pressed") !== "true";
  byId("guide").setAttribute("aria-pressed", on);
  pad.hasGuide = on;
}

// ---- scans and files

async function take(file) {
  if (!file) return;
  try {
    if (file.size > MOST_FILE_BYTES) throw new Error("A file may have 20 MiB; scale the picture down.");
    if (file.name?.toLowerCase().endsWith(".json") || file.type === "application/json") {
      await openDrawing(await file.text());
      return;
    }
    byId("busy").hidden = false;
    const response = await fetch("/api/scan", { method: "POST", body: file });
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).message ?? "The sketchpad's command has stopped.");
    drawing.lay(await pictureOf(await response.blob()));
    say("Scan cleaned. Draw on top of it, or undo.");
  } catch (error) {
    say(error instanceof TypeError ? "That file could not be sent: the sketchpad's command has stopped." : error.message, true);
  } finally {
    byId("busy").hidden = true;
  }
}

// A picture that can be painted and sent; its image is a data URL, which the page may load and a canvas may be read with.
async function pictureOf(blob) {
  const url = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
  const image = new Image();
  image.src = url;
  await image.decode();
  return { base64: url.slice(url.indexOf(",") + 1), image };
}

// ---- answers

link.addEventListener("result", ({ detail: result }) => {
  setConnection("on", "Connected");
  showBusy();
  // What answers the beginning of a stream that a drawing follows on says nothing about the drawing.
  if (result.no_ink && !result.strokes && !drawing.isEmpty && !link.isCurrent) return;
  noteRanked();
  onScreen = null;
  // Asked for first: a frame takes the browser some milliseconds to begin, in which the ranking is made. A task right after
  // it: the ranking is on the screen.
  requestAnimationFrame(() => setTimeout(() => shown(result)));
  ranking.show(result, result.strokes > BEGINNING || Boolean(drawing.state.picture));
  candidates.refresh();
  write(byId("empty"), emptyWords(result));
});

function shown(result) {
  if (result !== ranking.result) return; // a newer one has come
  onScreen = result;
  account(performance.now());
}

// Says where the time of the ranking on the screen went, from the pen's leaving the sheet when that is what it answers.
function account(time) {
  const answersPen = penUp !== null && link.isCurrent;
  showTimings(onScreen.timings, onScreen.ranking, answersPen ? time - penUp : null);
  if (answersPen) penUp = null;
}
link.addEventListener("refused", ({ detail: { message, isRetried } }) => {
  setConnection("on", "Connected");
  isCounted ||= isRetried;
  say(isRetried ? `${sentence(message)} Your drawing is kept, and sent then.` : message, true);
});
link.addEventListener("asleep", () => setConnection("on", "Resting"));
link.addEventListener("lost", ({ detail: { message, isFinal, wantsPurpose } }) => {
  if (wantsPurpose) purpose.ask();
  ranking.lose();
  setConnection("off", isFinal ? "Refused" : "Reconnecting…");
  const next = isFinal ? (wantsPurpose ? "." : ". Choose otherwise, or reload the page.") : "; trying again.";
  showTrouble(`${sentence(message)} Your drawing is kept${next}`);
});

function showTrouble(text) {
  byId("trouble-text").textContent = text;
  byId("trouble").hidden = false;
}
const sentence = (text) => (text.endsWith(".") ? text : `${text}.`);

// `result`: null when there is none yet.
function emptyWords(result) {
  const isEmpty = galleries.some(({ name, photos }) => name === gallery() && !photos);
  if (isEmpty && !result?.ranking?.hits.length) return "This gallery is empty. Put photos in with mgrl ingest, and reload.";
  if (drawing.isEmpty && (!result || result.no_ink)) return WELCOME;
  if (!result) return "";
  if (result.no_ink) return "No ink yet that counts: draw a little more.";
  return result.ranking.hits.length ? "" : "No photo passes the filters.";
}

function setConnection(way, words) {
  byId("connection").dataset.way = way;
  write(byId("connection"), words);
  if (way === "on") byId("trouble").hidden = true;
}

let sayTimer = 0;
function say(text, isError = false) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.dataset.kind = isError ? "error" : "note";
  toast.hidden = false;
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => (toast.hidden = true), isError ? 9000 : 4000);
}

// ---- galleries and options

const gallery = () => byId("gallery").value;

function chooseGallery() {
  const chosen = galleries.find(({ name }) => name === gallery());
  options.setFields(chosen.fields);
  byId("empty").textContent = emptyWords(null);
  byId("photos").textContent = `${chosen.photos.toLocaleString("en")} photos`;
  ranking.begin(gallery());
  candidates.begin(gallery());
  begin();
}

function begin() {
  ranked = onScreen = null;
  link.begin(gallery(), options.message(), purpose.value);
}
purpose.addEventListener("change", () => galleries.length && begin());

async function loadGalleries() {
  try {
    galleries = await getJson("/api/galleries");
    if (!galleries.length) throw new Error("No gallery is served yet.");
  } catch (error) {
    setConnection("off", "Reconnecting…");
    showTrouble(`${error instanceof TypeError ? "The sketchpad's command has stopped." : sentence(error.message)} Your drawing is kept; trying again.`);
    setTimeout(loadGalleries, 2000);
    return;
  }
  byId("gallery").replaceChildren(...galleries.map(({ name }) => element("option", { value: name }, name)));
  if (galleries.some(({ name }) => name === keptGallery)) byId("gallery").value = keptGallery;
  byId("gallery").hidden = galleries.length < 2;
  byId("gallery-name").textContent = galleries.length < 2 ? galleries[0].name : "";
  chooseGallery();
}

let optionTimer = 0;
options.addEventListener("change", () => {
  clearTimeout(optionTimer);
  optionTimer = setTimeout(() => {
    if (!galleries.length) return; // the first stream begins with what the form says
    ranking.begin(gallery());
    ranked = null;
    link.choose(options.message());
  }, PAUSE_MS);
});
byId("gallery").addEventListener("change", chooseGallery);

// ---- replay, files, record

function openReplay() {
  if (drawing.isEmpty || !galleries.length) return;
  const photos = galleries.find(({ name }) => name === gallery()).photos;
  replay.open(drawing.state, gallery(), photos, options.message(), purpose.value, [...candidates.pins.keys()]);
}

function save() {
  download("drawing.json", new Blob([drawingFile()], { type: "application/json" }));
}

async function exportRecord(kind) {
  if (!replay.isOpen && ranked !== drawing.state) return say("This drawing is not ranked yet; export it when it is.", true);
  const shown = replay.isOpen ? replay.shown : { state: drawing.state, hits: ranking.hits(), target: "", ranks: [] };
  if (!shown) return;
  const { weights } = options.message();
  const facts = [
    new Date().toLocaleString(),
    `gallery ${gallery()}, ${byId("photos").textContent}`,
    `${shown.state.strokes.length} strokes${shown.state.picture ? " on a scan" : ""}`,
    `weights ${Object.values(weights).join(", ")}`,
    byId("filter-count").textContent ? `filters${byId("filter-count").textContent}` : "no filters",
    purpose.value && `purpose: ${purpose.value}`,
  ];
  const canvas = await recordCanvas(shown, gallery(), facts);
  if (kind === "png") download("drawing.png", await blobOf(canvas, "image/png"));
  else download("drawing.pdf", await pdfOf(canvas));
}

// ---- buttons, keys, drops

const ACTIONS = {
  pen: () => setTool("pen"),
  eraser: () => setTool("eraser"),
  undo: () => drawing.undo(),
  redo: () => drawing.redo(),
  clear: () => drawing.clear(),
  guide: toggleGuide,
  "zoom-in": () => pad.zoomBy(1.5),
  "zoom-out": () => pad.zoomBy(1 / 1.5),
  "zoom-reset": () => pad.zoomBy(1 / pad.zoom),
  scan: () => byId("file").click(),
  "open-replay": openReplay,
  save,
  "save-target": save,
  png: () => exportRecord("png"),
  pdf: () => exportRecord("pdf"),
  "record-png": () => exportRecord("png"),
  "open-help": () => byId("help").showModal(),
  theme: toggleTheme,
};
for (const [id, action] of Object.entries(ACTIONS)) byId(id).addEventListener("click", action);
byId("width").addEventListener("input", () => setWidth(byId("width").value / 1000));
byId("file").addEventListener("change", () => {
  take(byId("file").files[0]);
  byId("file").value = "";
});
for (const button of document.querySelectorAll("dialog [data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

const KEYS = { p: "pen", e: "eraser", g: "guide", o: "scan", r: "open-replay", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", 0: "zoom-reset", "?": "open-help" };
addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=range]), select, textarea");
  if (isTyping || document.querySelector("dialog[open]")) return;
  const key = event.key.toLowerCase();
  const isCommand = event.ctrlKey || event.metaKey;
  let action = null;
  if (isCommand) action = { z: event.shiftKey ? "redo" : "undo", y: "redo", s: "save" }[key];
  else if (key === "[" || key === "]") return setWidth(pad.width + (key === "[" ? -0.001 : 0.001));
  else if (!event.altKey) action = KEYS[key];
  if (!action) return;
  event.preventDefault();
  if (!byId(action).disabled) ACTIONS[action]();
});

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])][0];
  if (file) take(file);
});

function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
}

// ---- start

setTool("pen");
setWidth(pad.width);
const kept = sessionStorage.getItem(KEPT_AS);
if (kept) keptGallery = await openDrawing(kept).catch(() => sessionStorage.removeItem(KEPT_AS));
loadGalleries();
