// What an eraser leaves: strokes are cut where it enters and leaves them, and times and pressure go with their points.

// The strokes that are left after passing over a path with a radius; the same list when nothing was hit.
export function erased(strokes, path, radius) {
  let hit = false;
  const left = strokes.flatMap((stroke) => {
    const reach = radius + stroke.width / 2;
    if (!boxesMeet(stroke.points, path, reach)) return [stroke];
    const dense = densified(stroke, reach / 2);
    const keep = dense.points.map((point) => path.every((_, i) => toSegment(point, path[Math.max(0, i - 1)], path[i]) > reach));
    if (keep.every(Boolean)) return [stroke];
    hit = true;
    return runs(keep).map(([start, end]) => part(dense, start, end));
  });
  return hit ? left : strokes;
}

function boxesMeet(points, path, reach) {
  return [0, 1].every((axis) => {
    const [a, b] = [points, path].map((list) => list.map((point) => point[axis]));
    return Math.min(...a) - reach <= Math.max(...b) && Math.min(...b) - reach <= Math.max(...a);
  });
}

function toSegment([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const along = dx || dy ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy))) : 0;
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}

// The same stroke with no two neighbours farther apart than `step`, so that a long straight line can be cut in the middle.
function densified({ points, width, pressure, times_ms }, step) {
  const spots = [[0, 0, 0]]; // [before, after, share of the way]
  for (let i = 1; i < points.length; i++) {
    const length = Math.hypot(points[i][0] - points[i - 1][0], points[i][1] - points[i - 1][1]);
    const pieces = Math.max(1, Math.ceil(length / step));
    for (let k = 1; k <= pieces; k++) spots.push([i - 1, i, k / pieces]);
  }
  const mixed = (list) => list && spots.map(([before, after, share]) => list[before] + (list[after] - list[before]) * share);
  const [x, y] = [0, 1].map((axis) => mixed(points.map((point) => point[axis])));
  return { points: x.map((value, i) => [value, y[i]]), width, pressure: mixed(pressure), times_ms: mixed(times_ms) };
}

// [start, end) of every run of kept points that still makes a line.
function runs(keep) {
  const found = [];
  keep.forEach((kept, i) => {
    if (kept && !keep[i - 1]) found.push([i, i]);
    if (kept) found.at(-1)[1] = i + 1;
  });
  return found.filter(([start, end]) => end - start > 1);
}

function part({ points, width, pressure, times_ms }, start, end) {
  const cut = (list) => list && list.slice(start, end);
  return { points: cut(points), width, pressure: cut(pressure), times_ms: cut(times_ms) };
}
