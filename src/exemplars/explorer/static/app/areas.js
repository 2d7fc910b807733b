/** Parts of a map that were chosen: a rectangle or a loop, as short text in the address. */

/** Corners that a loop keeps, at most. */
const MOST_CORNERS = 60;
const short = (v) => +(100 * v).toFixed(2);

/** The corners of a rectangle, from two that lie across. */
export const rectangle = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];

/** Corners as text: percent of the map; four numbers are a rectangle, more are corners of a loop.
 * @param {number[][]} corners Of the map, 0 to 1 each way. @returns {string} */
export function writeArea(corners) {
  const xs = corners.map((p) => p[0]), ys = corners.map((p) => p[1]);
  const sides = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  const straight = corners.every(([x, y]) => (x === sides[0] || x === sides[2]) && (y === sides[1] || y === sides[3]));
  if (straight) return sides.map(short).join(",");
  const n = Math.min(corners.length, MOST_CORNERS);
  const kept = Array.from({ length: n }, (_, i) => corners[Math.floor((i * corners.length) / n)]);
  return kept.flat().map(short).join(",");
}

/** @param {string | undefined} text @returns {number[][] | null} Corners, or null if it says none. */
export function readArea(text) {
  const v = String(text ?? "").split(",").map((part) => (part.trim() === "" ? NaN : Number(part) / 100));
  if (v.length < 4 || v.length % 2 || v.length > 2 * MOST_CORNERS || !v.every(Number.isFinite)) return null;
  if (v.length === 4) return rectangle(v, v.slice(2));
  return Array.from({ length: v.length / 2 }, (_, i) => [v[2 * i], v[2 * i + 1]]);
}

/** Regions whose place lies inside; by the rule of even and odd where the line crosses itself.
 * @param {Uint16Array} xy (2k) 0 to 65535. @param {number[][]} corners @returns {Uint32Array} */
export function within(xy, corners) {
  const xs = corners.map((p) => p[0] * 65535), ys = corners.map((p) => p[1] * 65535), n = corners.length, out = [];
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const straight = n === 4 && corners.every(([x, y]) => (x * 65535 === x0 || x * 65535 === x1) && (y * 65535 === y0 || y * 65535 === y1)); // its sides belong to it
  for (let id = 0; id < xy.length / 2; id++) {
    const x = xy[2 * id], y = xy[2 * id + 1];
    if (x < x0 || x > x1 || y < y0 || y > y1) continue;
    let odd = straight;
    if (!straight) for (let i = 0, j = n - 1; i < n; j = i++) if (ys[i] > y !== ys[j] > y && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i]) odd = !odd;
    if (odd) out.push(id);
  }
  return Uint32Array.from(out);
}

/** Of two lists of regions those in both; null is all of them.
 * @param {Uint32Array | null} a @param {Uint32Array | null} b @returns {Uint32Array | null} */
export function both(a, b) {
  if (a === null || b === null) return a ?? b;
  const known = new Set(b);
  return a.filter((id) => known.has(id));
}

/** Those of most members, in falling order. @param {Uint32Array} ids @param {ArrayLike<number>} members */
export const largest = (ids, members, most) => [...ids].sort((a, b) => members[b] - members[a] || a - b).slice(0, most);
