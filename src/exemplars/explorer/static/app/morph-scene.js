/** Regions of A on their way to their partners in B: dots, as large as their members. */
import { Turn } from "app/cameras";
import { Ball } from "app/scenes";

export class MorphScene extends Ball {
  kind = "morph";
  walls = false;
  wallWidth = 0;
  /** 0 is A, 1 is B. */
  t = 0;

  /** @param {any} from Sphere of A. @param {any} to Sphere of B on the axes of A.
   * @param {Int32Array} partner Of each region of A, -1 for none: it shrinks where it is.
   * @param {ArrayLike<number>[]} members Of A and of B. */
  constructor(from, to, partner, members) {
    super();
    this.k = from.k;
    this.camera = new Turn();
    const most = Math.sqrt(Math.max(1, largest(members[0]), largest(members[1])));
    const width = (n) => 2.4 + 12 * (Math.sqrt(n || 0) / most);
    this.start = new Float32Array(3 * this.k);
    this.end = new Float32Array(3 * this.k);
    this.widths = new Float32Array(2 * this.k);
    for (let i = 0; i < this.k; i++) {
      const j = partner[i];
      this.start.set(from.direction(i), 3 * i);
      this.end.set(j < 0 ? from.direction(i) : to.direction(j), 3 * i);
      this.widths[2 * i] = width(members[0][i]);
      this.widths[2 * i + 1] = j < 0 ? 0 : width(members[1][j]);
    }
    const all = Uint32Array.from({ length: this.k }, (_, i) => i);
    this.levels = [...from.levels.slice(0, -1).map(({ order }) => ({ order })), { order: all }];
  }

  together() {
    return 1;
  }

  /** The unit vector where a region is now: on the great circle from A to B. */
  direction(id) {
    const p = [0, 1, 2].map((n) => this.start[3 * id + n] * (1 - this.t) + this.end[3 * id + n] * this.t), n = Math.hypot(...p);
    return n > 1e-4 ? p.map((v) => v / n) : [...this.start.subarray(3 * id, 3 * id + 3)];
  }

  upload(gpu, made) {
    if (this.made === made) return;
    const { gl } = gpu;
    this.made = made;
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    [[this.start, 3], [this.end, 3], [this.widths, 2]].forEach(([data, n], slot) => {
      gpu.buffer(data);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, n, gl.FLOAT, false, 0, 0);
    });
    this.orders = this.levels.map(({ order }) => gpu.buffer(order, gl.ELEMENT_ARRAY_BUFFER));
  }

  draw(gpu, made, uniforms, { level }) {
    const { gl } = gpu;
    this.upload(gpu, made);
    gpu.use("dots", { ...uniforms, t: this.t, grow: uniforms.fine * Math.min(4, this.camera.zoom ** 0.6) });
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.orders[level]);
    gl.drawElements(gl.POINTS, this.levels[level].order.length, gl.UNSIGNED_INT, 0);
    return -1;
  }
}

function largest(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i];
  return most;
}
