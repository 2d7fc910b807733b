/** Other layers of the map: the cells round each place, and how dense places are. */
import { MapScene, SphereScene } from "app/scenes";
import { Window } from "app/cameras";
import { TABLES } from "app/tables";

/** Half the width of the unrolled sphere at each height, 1 at the equator; 0 is the top.
 * Source: Šavrič, Patterson, Jenny 2019, The Equal Earth map projection. */
const RIM = rim(256);

function rim(n) {
  const [a1, a2, a3, a4] = [1.340264, -0.081106, 0.000893, 0.003796], root = Math.sqrt(3) / 2, top = Math.asin(root);
  const height = (t) => t * (a1 + a2 * t ** 2 + t ** 6 * (a3 + a4 * t ** 2));
  return Array.from({ length: n + 1 }, (_, i) => {
    const t = top * (1 - (2 * i) / n), wide = (Math.cos(t) * a1) / (a1 + 3 * a2 * t ** 2 + t ** 6 * (7 * a3 + 9 * a4 * t ** 2));
    return { y: 0.5 - 0.5 * (height(t) / height(top)), wide };
  });
}

/** The map's width at a height, from 0 to 1 of the box. */
export function widthAt(y) {
  let lo = 0, hi = RIM.length - 1;
  if (y < 0 || y > 1) return 0;
  while (hi - lo > 1) {
    const middle = (lo + hi) >> 1;
    if (RIM[middle].y <= y) lo = middle;
    else hi = middle;
  }
  const t = (y - RIM[lo].y) / (RIM[hi].y - RIM[lo].y || 1);
  return RIM[lo].wide * (1 - t) + RIM[hi].wide * t;
}

/** Cells of the map, by the same buffer of ids as those of the sphere: what is picked is exact. */
export class CellScene extends SphereScene {
  kind = "cells";
  round = false;

  /** @param {Record<string, {data: any}>} tensors Of GET cells. @param {Uint16Array} xy (2k)
   * @param {{aspect: number, globe: boolean}} about */
  constructor(tensors, xy, about) {
    const k = xy.length / 2, places = new Float32Array(3 * k);
    for (let i = 0; i < k; i++) {
      places[3 * i] = xy[2 * i] / 65535;
      places[3 * i + 1] = (1 - xy[2 * i + 1] / 65535) / about.aspect;
    }
    super(tensors, k, places);
    this.camera = new Window(about.aspect);
    this.globe = about.globe;
  }

  draw(gpu, made, { size, fine, guard, view }, where) {
    const [sx, sy] = this.camera.stretch(view);
    const middle = [guard + fine * (view.width / 2 - this.camera.x * sx), guard + fine * (view.height / 2 - (1 - this.camera.y) * sy)];
    return super.draw(gpu, made, { flat: true, size, middle, scale: sx * fine }, where);
  }

  placeOf(p, view) {
    return MapScene.prototype.placeOf.call(this, p, view);
  }

  under(at, view) {
    return MapScene.prototype.under.call(this, at, view);
  }

  place(id, view) {
    const [x, y] = this.direction(id);
    return this.placeOf([x, 1 - y * this.camera.aspect], view);
  }

  faces(id) {
    const [x, y] = this.direction(id);
    this.camera.x = x;
    this.camera.y = 1 - y * this.camera.aspect;
  }

  /** Keeps what is drawn to the map. @param {CanvasRenderingContext2D} c */
  outline(c, view) {
    const corners = this.globe ? [...RIM.map(({ y, wide }) => [0.5 + wide / 2, y]), ...[...RIM].reverse().map(({ y, wide }) => [0.5 - wide / 2, y])] : [[0, 0], [1, 0], [1, 1], [0, 1]];
    c.beginPath();
    corners.forEach((p, i) => (i ? c.lineTo(...this.placeOf(p, view)) : c.moveTo(...this.placeOf(p, view))));
    c.clip();
  }

  /** Whether a point of the view is off the map. */
  beyond(at, view) {
    const [x, y] = this.under(at, view);
    return y < 0 || y > 1 || Math.abs(x - 0.5) > (this.globe ? widthAt(y) / 2 : 0.5);
  }
}

/** How many places fall in each square of a map. @param {Uint16Array} xy (2k)
 * @param {number} across Squares in the width. @param {number} down @param {Iterable<number> | null} ids Null for all.
 * @returns {Uint32Array} Row by row from the top. */
export function counted(xy, across, down, ids = null) {
  const out = new Uint32Array(across * down);
  const add = (id) => { out[((xy[2 * id + 1] * down) >> 16) * across + ((xy[2 * id] * across) >> 16)] += 1; };
  if (ids === null) for (let id = 0; id < xy.length / 2; id++) add(id);
  else for (const id of ids) add(id);
  return out;
}

/** Squares across, at most, far out; near, when one of them is so many pixels wide, four times as many. */
const FAR = 256, NEARER = 4, COARSE = 5;

/** How dense the map is. Regions are picked as in the map of discs. */
export class DensityScene extends MapScene {
  kind = "density";

  /** @param {Uint16Array} xy @param {ArrayLike<number>} members @param {number} aspect */
  constructor(xy, members, aspect, table = "viridis") {
    super(xy, members, aspect);
    this.places = xy;
    this.table = table;
    this.images = new Map();
    this.far = Math.min(FAR, Math.max(32, 2 ** Math.round(Math.log2(2 * Math.sqrt(this.k)))));
  }

  /** Squares across at this zoom. */
  across(view) {
    return this.camera.stretch(view)[0] / this.far < COARSE * (FAR / this.far) ? this.far : NEARER * this.far;
  }

  /** The numbers, and an image of them: of no region nothing, else on a scale of logarithms. */
  image(across, ids) {
    const kept = this.images.get(across);
    if (kept?.ids === ids) return kept;
    const down = Math.round(across / this.camera.aspect), counts = counted(this.places, across, down, ids);
    let most = 1;
    for (const n of counts) if (n > most) most = n;
    const canvas = document.createElement("canvas"), table = TABLES[this.table];
    canvas.width = across;
    canvas.height = down;
    const c = canvas.getContext("2d"), pixels = c.createImageData(across, down), top = Math.log(most + 1) - Math.log(2) || 1;
    for (let i = 0; i < counts.length; i++) if (counts[i]) {
      const step = Math.min(254, Math.round(((Math.log(counts[i] + 1) - Math.log(2)) / top) * 254));
      pixels.data.set(table.subarray(3 * step, 3 * step + 3), 4 * i);
      pixels.data[4 * i + 3] = 255;
    }
    c.putImageData(pixels, 0, 0);
    this.images.set(across, { ids, canvas, counts, most });
    return this.images.get(across);
  }

  /** @param {CanvasRenderingContext2D} c */
  paint(c, view, ids) {
    const { canvas, most } = this.image(this.across(view), ids), [x, y] = this.placeOf([0, 0], view), [sx, sy] = this.camera.stretch(view);
    c.imageSmoothingEnabled = false;
    c.drawImage(canvas, x, y, sx, sy);
    /** The scale of what was drawn last, as a colouring says it. */
    this.shown = { column: "density", lo: 1, hi: most, log: true, clipped: false, unknown: 0, table: this.table };
  }
}
