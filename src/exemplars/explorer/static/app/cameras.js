/** Where one looks from: a turn of the sphere, or a window on the map. Both are short text in the address. */

/** @typedef {{width: number, height: number}} View in CSS pixels */

export class Turn {
  constructor() {
    this.reset();
  }

  reset() {
    this.q = quaternion([0.25, 0.97, 0], 0.55);
    this.zoom = 1;
  }

  /** Column-major 3 × 3, exemplar space → view space. */
  get matrix() {
    const [x, y, z, w] = this.q;
    return Float32Array.of(
      1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w),
      2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w),
      2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y),
    );
  }

  /** Pixels from the centre of the sphere to its edge. @param {View} view */
  scale({ width, height }) {
    return Math.min(width, height) * 0.47 * this.zoom;
  }

  /** A drag turns the point under the pointer with it. @param {View} view */
  drag(dx, dy, view) {
    const r = this.scale(view);
    this.q = normal(times(times(quaternion([0, 1, 0], dx / r), quaternion([1, 0, 0], dy / r)), this.q));
  }

  zoomBy(factor) {
    this.zoom = Math.min(60, Math.max(0.5, this.zoom * factor));
  }

  /** Turns so that a direction faces the eye. @param {ArrayLike<number>} g */
  face(g) {
    const p = apply(this.matrix, g);
    const axis = [p[1], -p[0], 0], sine = Math.hypot(axis[0], axis[1]);
    if (sine > 1e-6) this.q = normal(times(quaternion(axis, Math.atan2(sine, p[2])), this.q));
  }

  get text() {
    return [...this.q, this.zoom].map((v) => +v.toFixed(3)).join(",");
  }

  set text(value) {
    const v = String(value ?? "").split(",").map(Number);
    if (v.length !== 5 || !v.every(Number.isFinite) || Math.hypot(v[0], v[1], v[2], v[3]) < 0.1) return;
    this.q = normal(v.slice(0, 4));
    this.zoom = Math.min(60, Math.max(0.5, v[4]));
  }
}

export class Window {
  /** @param {number} aspect Width over height of the map. */
  constructor(aspect) {
    this.aspect = aspect;
    this.reset();
  }

  reset() {
    this.x = 0.5;
    this.y = 0.5;
    this.zoom = 1;
  }

  /** Pixels that one unit of x, and one of y, take. @param {View} view */
  stretch({ width, height }) {
    const across = Math.min(width, height * this.aspect) * 0.96 * this.zoom;
    return [across, across / this.aspect];
  }

  /** Pixels that the width of the map takes. @param {View} view */
  scale(view) {
    return this.stretch(view)[0];
  }

  drag(dx, dy, view) {
    const [sx, sy] = this.stretch(view);
    this.x -= dx / sx;
    this.y -= dy / sy;
  }

  /** Zooms about a point. @param {number[]} [at] CSS pixels @param {View} [view] */
  zoomBy(factor, at, view) {
    const zoom = Math.min(400, Math.max(0.7, this.zoom * factor));
    if (at && view) {
      const [sx, sy] = this.stretch(view), f = 1 - this.zoom / zoom;
      this.x += ((at[0] - view.width / 2) / sx) * f;
      this.y += ((at[1] - view.height / 2) / sy) * f;
    }
    this.zoom = zoom;
  }

  get text() {
    return [this.x, this.y, this.zoom].map((v) => +v.toFixed(4)).join(",");
  }

  set text(value) {
    const v = String(value ?? "").split(",").map(Number);
    if (v.length === 3 && v.every(Number.isFinite)) [this.x, this.y, this.zoom] = v;
  }
}

const quaternion = (axis, angle) => {
  const n = Math.hypot(...axis) || 1, s = Math.sin(angle / 2) / n;
  return [axis[0] * s, axis[1] * s, axis[2] * s, Math.cos(angle / 2)];
};
const times = ([a, b, c, d], [e, f, g, h]) => [d * e + a * h + b * g - c * f, d * f - a * g + b * h + c * e, d * g + a * f - b * e + c * h, d * h - a * e - b * f - c * g];
const normal = (q) => {
  const n = Math.hypot(...q);
  return q.map((v) => v / n);
};

/** A 3 × 3 column-major matrix times a vector. */
export const apply = (m, g) => [
  m[0] * g[0] + m[3] * g[1] + m[6] * g[2], m[1] * g[0] + m[4] * g[1] + m[7] * g[2], m[2] * g[0] + m[5] * g[1] + m[8] * g[2],
];
