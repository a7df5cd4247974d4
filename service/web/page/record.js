// A drawing and what it found as one picture, PNG or PDF: for a file that is kept, with what it must not be taken for.

import { loaded, thumbnailUrl } from "./dom.js";
import { canvasOf, paintPhoto, paintSketch } from "./paint.js";

const [WIDTH, HEIGHT, MARGIN] = [1240, 1754, 90]; // A4 at 150 dots an inch
const SKETCH = 620;
const COLUMNS = 5;
const MOST_LINES = 12; // a purpose takes up to five

// shown: {state, hits, target, ranks}; facts: lines of text below the title.
export async function recordCanvas({ state, hits, target, ranks }, gallery, facts) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [WIDTH, HEIGHT];
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, WIDTH, HEIGHT);
  const write = (text, x, y, font = "24px", color = "#23211e") => {
    context.font = `${font} system-ui, sans-serif`;
    context.fillStyle = color;
    context.fillText(text, x, y);
  };
  write("Record of a drawing", MARGIN, 130, "600 44px");
  write("The order is one of resemblance to the drawing: a lead, not an identification.", MARGIN, 175, "24px", "#8a3b12");
  const sketch = canvasOf(SKETCH);
  paintSketch(sketch.getContext("2d"), state, SKETCH);
  context.drawImage(sketch, MARGIN, 215);
  context.strokeStyle = "#bbb";
  context.strokeRect(MARGIN + 0.5, 215.5, SKETCH, SKETCH);
  const lines = facts.flatMap((fact) => fact.match(/.{1,46}/gu) ?? []).slice(0, MOST_LINES);
  lines.forEach((line, i) => write(line, MARGIN + SKETCH + 40, 245 + 36 * i, "22px", "#55504a"));
  const top = Math.max(560, 290 + 36 * lines.length);
  if (target) drawRanks(context, ranks, MARGIN + SKETCH + 40, top, WIDTH - 2 * MARGIN - SKETCH - 40, 800 - top, write, target);
  const side = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * 24) / COLUMNS;
  const pictures = await Promise.all(hits.slice(0, 2 * COLUMNS).map((hit) => loaded(thumbnailUrl(gallery, hit.photo_id))));
  hits.slice(0, 2 * COLUMNS).forEach((hit, i) => {
    const [x, y] = [MARGIN + (i % COLUMNS) * (side + 24), 930 + Math.floor(i / COLUMNS) * (side + 110)];
    paintPhoto(context, pictures[i], side, x, y);
    write(`${hit.rank}   ${hit.distance.toFixed(3)}`, x, y + side + 32, "600 24px", hit.photo_id === target ? "#12734a" : "#23211e");
    write(hit.photo_id.length > 20 ? `…${hit.photo_id.slice(-19)}` : hit.photo_id, x, y + side + 60, "18px", "#55504a");
  });
  return canvas;
}

function drawRanks(context, ranks, x, y, width, height, write, target) {
  write(`rank of ${target}`.slice(0, 34), x, y - 16, "20px", "#55504a");
  const most = Math.log10(Math.max(10, ...ranks.map((rank) => rank ?? 1)));
  context.strokeStyle = "#12734a";
  context.lineWidth = 3;
  context.beginPath();
  ranks.forEach((rank, i) => rank && context.lineTo(x + (width * i) / Math.max(1, ranks.length - 1), y + (height * Math.log10(rank)) / most));
  context.stroke();
  write("1", x - 20, y + 8, "18px", "#55504a");
  write(`stage 1 to ${ranks.length}`, x, y + height + 30, "18px", "#55504a");
}

export const blobOf = (canvas, type, quality) => new Promise((resolve) => canvas.toBlob(resolve, type, quality));

// A PDF of one A4 page that is filled by a JPEG file, which PDF takes as it is.
export async function pdfOf(canvas) {
  const jpeg = new Uint8Array(await (await blobOf(canvas, "image/jpeg", 0.92)).arrayBuffer());
  const content = "q 595 0 0 842 0 0 cm /Page Do Q";
  const objects = [
    ["<< /Type /Catalog /Pages 2 0 R >>"],
    ["<< /Type /Pages /Kids [3 0 R] /Count 1 >>"],
    ["<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /XObject << /Page 5 0 R >> >> >>"],
    [`<< /Length ${content.length} >>\nstream\n${content}\nendstream`],
    [`<< /Type /XObject /Subtype /Image /Width ${canvas.width} /Height ${canvas.height} /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode /Length ${jpeg.length} >>\nstream\n`, jpeg, "\nendstream"],
  ];
  const parts = [];
  let length = 0;
  const put = (part) => {
    const bytes = typeof part === "string" ? new TextEncoder().encode(part) : part;
    parts.push(bytes);
    length += bytes.length;
  };
  put("%PDF-1.4\n");
  const starts = objects.map((object, i) => {
    const start = length;
    for (const part of [`${i + 1} 0 obj\n`, ...object, "\nendobj\n"]) put(part);
    return start;
  });
  const table = length;
  put(`xref\n0 6\n0000000000 65535 f \n${starts.map((start) => `${String(start).padStart(10, "0")} 00000 n \n`).join("")}`);
  put(`trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n${table}\n%%EOF\n`);
  return new Blob(parts, { type: "application/pdf" });
}
