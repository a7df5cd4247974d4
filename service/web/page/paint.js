// Strokes, sketches and heat maps onto a 2-D canvas; the pad, the candidate view, the replay and the record share it.

export const INK = "#23211e";

export function paintStroke(context, { points, width, pressure }, size, from = 0) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = INK;
  const at = ([x, y]) => [x * size, y * size];
  const thickness = (i) => Math.max(0.6, width * size * (pressure ? pressure[i] : 1));
  if (points.length === 1) {
    context.beginPath();
    context.arc(...at(points[0]), thickness(0) / 2, 0, 7);
    context.fill();
    return;
  }
  if (pressure) {
    for (let i = Math.max(1, from); i < points.length; i++) {
      context.lineWidth = (thickness(i - 1) + thickness(i)) / 2;
      context.beginPath();
      context.moveTo(...at(points[i - 1]));
      context.lineTo(...at(points[i]));
      context.stroke();
    }
    return;
  }
  context.lineWidth = thickness(0);
  context.beginPath();
  context.moveTo(...at(points[0]));
  // Through the middles, bent at the points: smooth, and nowhere farther from the points than they are apart.
  for (let i = 1; i < points.length - 1; i++) {
    const middle = [0, 1].map((axis) => (points[i][axis] + points[i + 1][axis]) / 2);
    context.quadraticCurveTo(...at(points[i]), ...at(middle));
  }
  context.lineTo(...at(points.at(-1)));
  context.stroke();
}

export function paintSketch(context, { strokes, picture }, size, paper = "#fff") {
  if (paper) {
    context.fillStyle = paper;
    context.fillRect(0, 0, size, size);
  }
  if (picture?.image) {
    context.save();
    context.globalCompositeOperation = "multiply";
    context.drawImage(picture.image, 0, 0, size, size);
    context.restore();
  }
  for (const stroke of strokes) paintStroke(context, stroke, size);
}

// The centred square of a photo, which is what is searched; grey where there is none.
export function paintPhoto(context, image, size, x = 0, y = 0) {
  context.fillStyle = "#bbb";
  context.fillRect(x, y, size, size);
  if (!image) return;
  const side = Math.min(image.naturalWidth, image.naturalHeight);
  context.drawImage(image, (image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2, side, side, x, y, size, size);
}

// The 14 regions as [granularity, left, top, side], in parts of the square, by region id.
export const REGIONS = [1, 2, 3].flatMap((parts) =>
  Array.from({ length: parts * parts }, (_, i) => [parts, (i % parts) / parts, Math.floor(i / parts) / parts, 1 / parts]),
);
const NAMES = {
  1: ["whole face"],
  2: ["upper left quarter", "upper right quarter", "lower left quarter", "lower right quarter"],
  3: ["upper", "middle", "lower"].flatMap((row) => ["left", "middle", "right"].map((column) => `${row} ${column} ninth`)),
};
export const REGION_NAMES = [1, 2, 3].flatMap((parts) => NAMES[parts]);

// For each region, -1 (much closer than the other photos shown) to 1 (much farther), null without ink.
export function comparison(hit, hits, inked) {
  return REGIONS.map((_, region) => {
    if (!inked.includes(region)) return null;
    const all = hits.map((other) => other.region_distances[region]).sort((a, b) => a - b);
    const middle = all[all.length >> 1];
    const spread = Math.max(all.at(-1) - all[0], 1e-6) / 2;
    return Math.max(-1, Math.min(1, (hit.region_distances[region] - middle) / spread));
  });
}

// Lays the comparison over a picture: teal where the photo is closer than the others shown, orange where it is farther.
export function paintHeat(context, values, size) {
  const cell = size / 6;
  for (let row = 0; row < 6; row++) {
    for (let column = 0; column < 6; column++) {
      const over = REGIONS.map(([, left, top, side], region) => {
        const [x, y] = [(column + 0.5) / 6, (row + 0.5) / 6];
        return x > left && x < left + side && y > top && y < top + side ? values[region] : null;
      }).filter((value) => value !== null);
      if (!over.length) continue;
      const mean = over.reduce((sum, value) => sum + value, 0) / over.length;
      context.fillStyle = `rgb(${mean < 0 ? "0 150 136" : "230 110 20"} / ${Math.min(0.5, Math.abs(mean) * 0.62).toFixed(3)})`;
      context.fillRect(Math.round(column * cell), Math.round(row * cell), Math.ceil(cell), Math.ceil(cell));
    }
  }
}

export function canvasOf(size, label) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  if (label) {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
  }
  return canvas;
}
