/** What a picture draws: the projected sphere, an exact slice, the map. CPU arrays are kept, so that
 * everything on the card can be made again. */
import { apply, Turn, Window } from "app/cameras";
import { falling } from "app/order";

/** Octahedral codes of 24 bits → unit vectors. @param {Int32Array} oct (2k) @returns {Float32Array} (3k) */
export function decodeOctahedral(oct) {
  const k = oct.length / 2, out = new Float32Array(3 * k), most = 2 ** 23 - 1;
  for (let i = 0; i < k; i++) {
    let x = oct[2 * i] / most, y = oct[2 * i + 1] / most;
    const z = 1 - Math.abs(x) - Math.abs(y);
    if (z < 0) {
      x -= x < 0 ? z : -z;
      y -= y < 0 ? z : -z;
    }
    const n = Math.hypot(x, y, z);
    out[3 * i] = x / n;
    out[3 * i + 1] = y / n;
    out[3 * i + 2] = z / n;
  }
  return out;
}

const CHUNK = 20000;

/** Points of one level of detail, widest first, with the radius of each. */
class Level {
  /** @param {Float32Array} xyz (3k) @param {ArrayLike<number>} ids @param {Float32Array} radii Of ids, in their order; 0 is not drawn. */
  constructor(xyz, ids, radii) {
    const widest = falling(new Uint32Array(radii.buffer, radii.byteOffset, radii.length));
    let n = widest.length;
    while (n > 0 && !(radii[widest[n - 1]] > 0)) n--;
    this.order = new Uint32Array(n);
    this.sorted = new Float32Array(n);
    this.geometry = new Float32Array(4 * n);
    for (let j = 0; j < n; j++) {
      const id = ids[widest[j]];
      this.order[j] = id;
      this.sorted[j] = radii[widest[j]];
      for (let c = 0; c < 3; c++) this.geometry[4 * j + c] = xyz[3 * id + c];
      this.geometry[4 * j + 3] = this.sorted[j];
    }
  }

  /** How many are wider than a radius. */
  wider(radius) {
    let lo = 0, hi = this.sorted.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.sorted[mid] > radius) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  /** @param {import("app/gl").Gpu} gpu */
  upload(gpu, made) {
    if (this.made === made) return;
    const { gl } = gpu;
    this.made = made;
    this.places = gpu.buffer(this.geometry);
    this.slots = gpu.buffer(this.order);
    this.points = this.array(gl, 0);
    this.quads = this.array(gl, 1);
  }

  array(gl, divisor) {
    const made = gl.createVertexArray();
    gl.bindVertexArray(made);
    this.attributes(gl, 0);
    for (const slot of [0, 1]) {
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribDivisor(slot, divisor);
    }
    gl.bindVertexArray(null);
    return made;
  }

  attributes(gl, from) {
    gl.bindBuffer(gl.ARRAY_BUFFER, this.places);
    gl.vertexAttribPointer(0, 4, gl.FLOAT, false, 0, from * 16);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.slots);
    gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_INT, 0, from * 4);
  }

  /** Draws those from `from` up to `to`: squares where a point would be too large. */
  draw(gpu, uniforms, from, to) {
    const { gl } = gpu;
    const large = Math.min(to, this.wider((gpu.mostPoint - 2) / (2 * uniforms.scale)));
    if (large > from) {
      gpu.use(uniforms.flat ? "flatQuads" : "quads", uniforms);
      gl.bindVertexArray(this.quads);
      this.attributes(gl, from);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, large - from);
    }
    const start = Math.max(from, large);
    if (to > start) {
      gpu.use(uniforms.flat ? "flatPoints" : "points", uniforms);
      gl.bindVertexArray(this.points);
      gl.drawArrays(gl.POINTS, start, to - start);
    }
  }
}

/** What is drawn on a ball; each kind says in which direction a region is. */
export class Ball {
  round = true;
  /** Radians from the middle to the edge of an unrolled picture; 0 for a ball. */
  span = 0;

  /** Where a region is in the picture, or null when it is behind. @param {{width: number, height: number}} view */
  place(id, view) {
    const g = this.direction(id);
    return g ? this.placeOf(g, view) : null;
  }

  placeOf(g, view) {
    return placed(this.camera, g, view, this.span);
  }

  faces(id) {
    const g = this.direction(id);
    if (g) this.camera.face(g);
  }
}

export class SphereScene extends Ball {
  kind = "sphere";
  walls = true;
  wallWidth = 0;

  /** @param {Record<string, {data: any}>} tensors Of GET sphere. @param {number} k
   * @param {Float32Array} [xyz] (3k) Places, where the codes of the sphere are not. */
  constructor(tensors, k, xyz = decodeOctahedral(tensors.oct.data)) {
    super();
    this.k = k;
    this.camera = new Turn();
    this.xyz = xyz;
    const order = tensors.lod_order?.data;
    this.levels = [];
    for (const n of [2000, 20000]) {
      const radii = tensors[`lod_radius_${n}`]?.data;
      if (order && radii && k > n) this.levels.push(new Level(this.xyz, order.subarray(0, n), Float32Array.from(radii)));
    }
    /** Of each region's cell, a chord; its walls are the fainter the smaller it is. */
    this.radii = Float32Array.from(tensors.radius.data);
    this.levels.push(new Level(this.xyz, Uint32Array.from(this.radii.keys()), this.radii));
    this.drawnFor = new Map();
    const rep = tensors.rep?.data ?? [];
    for (let i = 0; i < rep.length; i += 2) this.drawnFor.set(rep[i], rep[i + 1]);
  }

  /** How many regions lie where one is drawn. */
  together(id) {
    let n = 1;
    for (const kept of this.drawnFor.values()) if (kept === id) n++;
    return n;
  }

  direction(id) {
    const at = 3 * (this.drawnFor.get(id) ?? id);
    return this.xyz.subarray(at, at + 3);
  }

  /** @returns {number} The step after `from`, or -1 when all is drawn. */
  draw(gpu, made, uniforms, { level, from }) {
    const chosen = this.levels[level];
    chosen.upload(gpu, made);
    const n = chosen.order.length;
    if (level < this.levels.length - 1 || n <= 2 * CHUNK) {
      chosen.draw(gpu, uniforms, 0, n);
      return -1;
    }
    const to = Math.min(n, from + CHUNK);
    chosen.draw(gpu, uniforms, from, to);
    return to < n ? to : -1;
  }
}

function placed(camera, g, view, span = 0) {
  const p = apply(camera.matrix, g), s = camera.scale(view);
  if (span > 0) {
    const angle = Math.acos(Math.max(-1, Math.min(1, p[2]))), flat = Math.hypot(p[0], p[1]) || 1, r = (angle / span) * s;
    return angle > span ? null : [view.width / 2 + (p[0] / flat) * r, view.height / 2 - (p[1] / flat) * r];
  }
  return p[2] < 0 ? null : [view.width / 2 + p[0] * s, view.height / 2 - p[1] * s];
}

export class SliceScene extends Ball {
  kind = "slice";
  walls = true;
  wallWidth = 60;
  levels = [null];

  /** @param {{cells: {id: number, p: number[], cap?: number[]}[], cos_theta: number}} answer Of POST slice.
   * @param {number} [span] Radians from the middle to the edge of an unrolled picture; 0 for a ball. */
  constructor(answer, k, span = 0) {
    super();
    this.k = k;
    this.span = span;
    this.camera = new Turn();
    this.cells = answer.cells;
    this.cover = answer.cos_theta;
    const n = this.cells.length;
    this.rows = new Float32Array(4 * n);
    this.caps = new Float32Array(4 * n);
    this.most = 1e-6;
    this.cells.forEach(({ id, p, cap }, i) => {
      this.rows.set([p[0], p[1], p[2], id], 4 * i);
      this.caps.set(cap ?? [...unit(p), 2], 4 * i);
      this.most = Math.max(this.most, Math.hypot(...p));
    });
    this.byId = new Map(this.cells.map((c) => [c.id, c]));
    this.centres = new Map((answer.labels ?? []).map((l) => [l.id, l.y]));
  }

  together() {
    return 1;
  }

  direction(id) {
    const cell = this.byId.get(id);
    return this.centres.get(id) ?? (cell ? cell.cap?.slice(0, 3) ?? unit(cell.p) : null);
  }

  upload(gpu, made) {
    if (this.made === made) return;
    this.made = made;
    this.rowTexture = gpu.texels("vec4", this.rows);
    this.capTexture = gpu.texels("vec4", this.caps);
  }

  draw(gpu, made, uniforms) {
    const { gl } = gpu;
    this.upload(gpu, made);
    gpu.use("slice", { ...uniforms, cover: this.cover, most: this.most, span: this.span }, { geometry: this.capTexture, rows: this.rowTexture });
    gl.bindVertexArray(gpu.empty);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.cells.length);
    return -1;
  }
}

const unit = (p) => {
  const n = Math.hypot(...p) || 1;
  return p.map((v) => v / n);
};

export class MapScene {
  kind = "map";
  round = false;
  walls = false;
  wallWidth = 0;
  levels = [null];

  /** @param {Uint16Array} xy (2k) @param {ArrayLike<number>} members @param {number} aspect */
  constructor(xy, members, aspect) {
    this.k = xy.length / 2;
    this.camera = new Window(aspect);
    this.xy = Float32Array.from(xy, (v, i) => (i % 2 ? 1 - v / 65535 : v / 65535));
    let most = 1;
    for (let i = 0; i < this.k; i++) most = Math.max(most, members[i] || 0);
    this.widths = Float32Array.from({ length: this.k }, (_, i) => Math.sqrt((members[i] || 0) / most));
    this.base = Math.max(2.4, Math.min(9, 520 / Math.sqrt(this.k)));
    this.members = members;
  }

  together() {
    return 1;
  }

  upload(gpu, made) {
    if (this.made === made) return;
    const { gl } = gpu;
    this.made = made;
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    [[this.xy, 2], [this.widths.map((w) => this.base * (0.55 + 3.2 * w)), 1]].forEach(([data, n], slot) => {
      gpu.buffer(data);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, n, gl.FLOAT, false, 0, 0);
    });
  }

  draw(gpu, made, { size, fine, guard, view }) {
    const { gl } = gpu;
    this.upload(gpu, made);
    const [sx, sy] = this.camera.stretch(view);
    const middle = [guard + fine * (view.width / 2 - this.camera.x * sx), guard + fine * (view.height / 2 - (1 - this.camera.y) * sy)];
    gpu.use("discs", { size, middle, stretch: [sx * fine, sy * fine], grow: fine * Math.min(3, this.camera.zoom ** 0.45) });
    gl.bindVertexArray(this.array);
    gl.drawArrays(gl.POINTS, 0, this.k);
    return -1;
  }

  /** @param {{width: number, height: number}} view */
  placeOf([x, y], view) {
    const [sx, sy] = this.camera.stretch(view);
    return [view.width / 2 + (x - this.camera.x) * sx, view.height / 2 + (y - this.camera.y) * sy];
  }

  place(id, view) {
    return this.placeOf([this.xy[2 * id], 1 - this.xy[2 * id + 1]], view);
  }

  faces(id) {
    this.camera.x = this.xy[2 * id];
    this.camera.y = 1 - this.xy[2 * id + 1];
  }

  /** Where on the map a point of the view lies; the map is 0 to 1 each way. */
  under([x, y], view) {
    const [sx, sy] = this.camera.stretch(view);
    return [this.camera.x + (x - view.width / 2) / sx, this.camera.y + (y - view.height / 2) / sy];
  }
}
