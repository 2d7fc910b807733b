/** A canvas that shows a scene: draws on demand, coarser while moving, and tells what is under the pointer. */
import { generation, gpu } from "app/gl";
import { lut } from "app/colour";

const GUARD = 32;
const GAP = 0xffffffff;
/** Milliseconds from one moving frame to the next, above which a coarser level is drawn. */
const BUDGET = { card: 40, software: 80 };
/** Regions that software draws at most while moving, before it has learnt what it can. */
const MOVING_IN_SOFTWARE = 20000;
/** Pixels that software draws to one of the page while moving, across and down: it is bound by pixels. */
const COARSE_IN_SOFTWARE = 0.5;
/** Milliseconds between two looks at a picture that is still being completed. */
const GLIMPSE = 200;
const REST = 160;
/** Regions up to which software draws at twice the resolution when the picture rests. */
const FINE_IN_SOFTWARE = 4000;
/** In software a change of colours is seen at one sample a pixel first, and at four after this rest. */
const REFINE = 250;

/** @typedef {{onOver?: (id: number | null, gap: boolean) => void, onChoose?: (id: number | null) => void, onOpen?: (id: number) => void,
 *   onCamera?: (text: string) => void, onState?: (said: {shown: number, of: number, complete: boolean}) => void, onArea?: (corners: number[][]) => void,
 *   onDrawn?: (moving: boolean) => void, onMove?: () => void}} Listeners */

export class Picture {
  /** @param {HTMLCanvasElement} canvas @param {any} scene @param {Listeners} listeners
   * @param {number | null} [ratio] Pixels of the canvas to one of the page; null for those of the screen. */
  constructor(canvas, scene, listeners = {}, ratio = null) {
    this.fixedRatio = ratio;
    this.canvas = canvas;
    this.scene = scene;
    this.listeners = listeners;
    this.context = canvas.getContext("2d");
    this.marks = { over: null, chosen: null, arcs: [], pins: [], passage: [] };
    this.filter = null;
    this.moving = false;
    this.level = scene.levels.length - 1;
    this.times = [];
    this.targets = {};
    this.want = { geometry: true, colour: true };
    this.made = -1;
    this.closed = false;
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(canvas);
    this.stopWatching = generation.subscribe(() => this.redraw());
    this.visibility = () => { if (document.visibilityState === "visible") this.redraw(); };
    document.addEventListener("visibilitychange", this.visibility);
    this.listen();
    this.fit();
  }

  get view() {
    return { width: this.width, height: this.height };
  }

  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    this.ratio = this.fixedRatio ?? Math.min(2, devicePixelRatio || 1);
    this.width = Math.max(1, Math.round(width));
    this.height = Math.max(1, Math.round(height));
    const w = Math.round(this.width * this.ratio), h = Math.round(this.height * this.ratio);
    if (this.canvas.width === w && this.canvas.height === h && this.fitted) return;
    this.fitted = true;
    this.canvas.width = w;
    this.canvas.height = h;
    this.redraw();
  }

  /** @param {import("app/colour").Colouring} colouring */
  colourBy(colouring) {
    this.colouring = colouring;
    this.fresh = true;
    this.restyle();
  }

  /** @param {Set<number> | Uint32Array | null} ids The regions that stay bright; null for all. */
  filterBy(ids) {
    this.filter = ids;
    this.fresh = true;
    this.restyle();
  }

  mark(marks) {
    const pins = marks.pins && String(marks.pins) !== String(this.marks.pins);
    Object.assign(this.marks, marks);
    if (pins) this.fresh = true;
    this.restyle();
  }

  rethemed() {
    this.fresh = true;
    this.restyle();
  }

  redraw() {
    this.want.geometry = true;
    this.from = 0;
    this.restyle();
  }

  restyle() {
    if (this.closed || this.frame || !this.width) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  /** Called on every change of the camera; the exact picture follows when it rests.
   * @param {boolean} [told] By another picture that has the same camera, so that it knows. */
  moved(told = false) {
    this.moving = true;
    if (!told) this.listeners.onMove?.();
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.moving = false;
      this.redraw();
      this.listeners.onCamera?.(this.scene.camera.text);
    }, REST);
    this.redraw();
  }

  target(card, fine) {
    const width = Math.round(this.canvas.width * fine) + 2 * GUARD, height = Math.round(this.canvas.height * fine) + 2 * GUARD;
    const there = this.targets[fine];
    if (there && there.width === width && there.height === height) return there;
    if (there) card.drop(there);
    this.targets[fine] = card.target(width, height);
    return this.targets[fine];
  }

  render() {
    const card = gpu();
    if (!card || document.visibilityState === "hidden" || !this.colouring) return;
    if (this.made !== generation.peek()) {
      this.made = generation.peek();
      this.targets = {};
      this.styles = null;
      this.fresh = true;
      this.want.geometry = true;
      this.from = 0;
    }
    const started = performance.now();
    const last = this.scene.levels.length - 1;
    let next = -1;
    if (this.want.geometry) next = this.drawGeometry(card, last);
    if (next >= 0 && started - (this.coloured ?? 0) < GLIMPSE) {
      this.goOn(next);
      return;
    }
    this.coloured = started;
    const quick = card.software && this.fine === 2 && !this.refining;
    this.refining = false;
    const theme = themeColours(this.canvas);
    this.drawColours(card, !quick && this.fine === 2, theme);
    this.overlay(theme);
    clearTimeout(this.later);
    if (quick) {
      this.later = setTimeout(() => {
        this.refining = true;
        this.restyle();
      }, REFINE);
    }
    if (this.moving) this.learn(started, card);
    const shown = this.drawnLevel === last ? this.scene.k : this.scene.levels[this.drawnLevel].order.length;
    this.listeners.onState?.({ shown, of: this.scene.k, complete: next < 0 && this.drawnLevel === last });
    if (next >= 0) this.goOn(next);
    else this.listeners.onDrawn?.(this.moving);
  }

  /** The next part of a large picture, on top of what is there. */
  goOn(next) {
    this.want.geometry = true;
    this.from = next;
    this.restyle();
  }

  /** Fills the buffer of ids. @returns {number} Where to go on, or -1. */
  drawGeometry(card, last) {
    const large = this.scene.k > FINE_IN_SOFTWARE;
    if (card.software && !this.careful) {
      this.careful = true;
      while (this.level > 0 && this.scene.levels[this.level].order.length > MOVING_IN_SOFTWARE) this.level -= 1;
    }
    const level = this.moving ? this.level : last;
    const rest = this.ratio >= 2 || (card.software && (large || this.scene.span > 0)) ? 1 : 2;
    const fine = !this.moving ? rest : card.software ? COARSE_IN_SOFTWARE / this.ratio : 1;
    const target = this.target(card, fine);
    const from = this.from ?? 0;
    card.into(target, { clear: from === 0 });
    const uniforms = this.uniforms(target, fine);
    if (from === 0 && level === last && last > 0) this.scene.draw(card, this.made, uniforms, { level: last - 1, from: 0 });
    const next = this.scene.draw(card, this.made, uniforms, { level, from });
    this.fine = fine;
    this.drawnLevel = level;
    this.want.geometry = false;
    return next;
  }

  uniforms(target, fine) {
    const scale = this.scene.camera.scale?.(this.view) ?? 1;
    const per = this.ratio * fine;
    return {
      turn: this.scene.camera.matrix, middle: [GUARD + (this.canvas.width / 2) * fine, GUARD + (this.canvas.height / 2) * fine],
      scale: scale * per, span: 0, size: [target.width, target.height], fine: per, guard: GUARD, view: this.view,
    };
  }

  /** @param {boolean} four Samples of a pixel of the canvas, or one. */
  drawColours(card, four, theme = themeColours(this.canvas)) {
    const { gl } = card;
    if (this.fresh) this.styles = card.texels("style", this.style(theme), this.styles);
    this.fresh = false;
    const of = Math.min(1, this.fine); // pixels drawn to one of the canvas
    const width = Math.round(this.canvas.width * of), height = Math.round(this.canvas.height * of);
    card.intoCanvas(width, height);
    const scale = (this.scene.camera.scale?.(this.view) ?? 1) * this.ratio * of;
    card.use(four ? "resolve4" : "resolve", {
      fine: this.fine / of, guard: [GUARD, GUARD], scale, middle: [(this.canvas.width / 2) * of, (this.canvas.height / 2) * of],
      ball: this.scene.round && !this.scene.span, walls: this.scene.walls, wallWidth: this.scene.wallWidth, over: (this.marks.over ?? -1) + 1, chosen: (this.marks.chosen ?? -1) + 1,
      ink: theme.wall, paper: theme.paper, accent: theme.accent, gap: theme.gap, filtered: this.filter !== null,
    }, { ids: this.targets[this.fine].ids, style: this.styles });
    gl.bindVertexArray(card.empty);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.context.save();
    this.context.scale(this.ratio, this.ratio);
    this.scene.outline?.(this.context, this.view); // what is drawn ends there
    if (this.scene.paint) this.scene.paint(this.context, this.view, this.filter);
    else this.context.drawImage(card.canvas, 0, card.canvas.height - height, width, height, 0, 0, this.width, this.height);
    this.context.restore();
  }

  /** Two words for each region, as the shader reads them. */
  style(theme) {
    const { steps, table } = this.colouring, { k } = this.scene, radii = this.scene.radii ?? new Float32Array(0);
    const bits = new Uint32Array(radii.buffer, radii.byteOffset, radii.length);
    const colours = new Uint32Array(lut(table, theme.unknown.map((v) => v * 255)).buffer);
    const out = new Uint32Array(2 * k);
    for (let i = 0; i < k; i++) out[2 * i] = colours[steps[i]] & 0xffffff;
    for (let i = 0; i < bits.length; i++) out[2 * i + 1] = bits[i];
    for (const id of this.filter ?? []) out[2 * id] |= 1 << 24;
    for (const id of this.marks.pins) out[2 * id] |= 2 << 24;
    return out;
  }

  /** Arcs to the true neighbours, dots of a passage, and marks: on the copy, so they cost nothing. */
  overlay(theme = themeColours(this.canvas)) {
    const { context: c, scene, view, ratio } = this;
    const [ink, paper, accent] = [theme.ink, theme.paper, theme.accent].map(rgb);
    c.save();
    c.scale(ratio, ratio);
    c.lineWidth = 1.5;
    if (scene.round) {
      c.strokeStyle = rgb(theme.soft);
      c.beginPath();
      c.arc(view.width / 2, view.height / 2, scene.camera.scale(view), 0, 7);
      c.stroke();
    }
    if (scene.span > 0) {
      const { width, height } = view, r = (Math.acos(scene.cover) / scene.span) * scene.camera.scale(view);
      c.setLineDash([5, 4]);
      for (const [line, style] of [[3, "#0008"], [1.5, "#fff"]]) {
        c.lineWidth = line;
        c.strokeStyle = style;
        c.beginPath();
        c.arc(width / 2, height / 2, r, 0, 7);
        c.stroke();
      }
      c.setLineDash([]);
      c.font = "600 13px sans-serif";
      c.lineWidth = 3;
      c.strokeStyle = "#0008";
      c.strokeText("θ", width / 2 + r * 0.71 + 4, height / 2 - r * 0.71 - 4);
      c.fillStyle = "#fff";
      c.fillText("θ", width / 2 + r * 0.71 + 4, height / 2 - r * 0.71 - 4);
    }
    for (const id of this.marks.arcs) {
      const line = scene.round ? great(scene, this.marks.over ?? this.marks.chosen, id, view) : straight(scene, this.marks.over ?? this.marks.chosen, id, view);
      if (!line) continue;
      for (const [width, style] of [[4, paper], [1.6, accent]]) {
        c.lineWidth = width;
        c.strokeStyle = style;
        c.beginPath();
        line.forEach(([x, y, seen], i) => (i && seen ? c.lineTo(x, y) : c.moveTo(x, y)));
        c.stroke();
      }
      dot(c, scene.place(id, view), 3, accent, paper);
    }
    for (const id of this.marks.passage) dot(c, scene.place(id, view), 3.2, paper, ink);
    for (const g of this.marks.points ?? []) dot(c, scene.placeOf?.(g, view), 4, accent, paper);
    if (scene.paint) for (const id of [this.marks.chosen, this.marks.over]) if (id !== null) dot(c, scene.place(id, view), 5, id === this.marks.chosen ? accent : ink, paper);
    for (const area of [this.marks.area?.map((p) => scene.placeOf(p, view)), this.drawing]) outlined(c, area, ink, paper);
    c.restore();
  }

  /** Draws a coarser level when three moving frames in a row came too slowly. The time between
   * frames is what counts: the card works on after the calls return. */
  learn(started, card) {
    const gap = started - (this.lastMoving ?? -Infinity);
    this.lastMoving = started;
    if (gap > 1000) return;
    this.times = [...this.times, gap].slice(-3);
    const mean = this.times.reduce((a, b) => a + b, 0) / this.times.length;
    if (this.times.length === 3 && mean > (card.software ? BUDGET.software : BUDGET.card) && this.level > 0) {
      this.level -= 1;
      this.times = [];
    }
  }

  /** The region at a point of the canvas, in CSS pixels: an id, null for none, or "gap". */
  pick(x, y) {
    const card = gpu();
    const target = this.targets[this.fine];
    if (!card || !target || this.made !== generation.peek()) return null;
    const per = this.ratio * this.fine;
    const px = GUARD + Math.floor(x * per), py = target.height - 1 - GUARD - Math.floor(y * per);
    if (px < 0 || py < 0 || px >= target.width || py >= target.height || this.scene.beyond?.([x, y], this.view)) return null;
    const id = card.read(target, px, py);
    return id === 0 ? null : id === GAP ? "gap" : id - 1;
  }

  /** Waits for the card to finish, for timing. */
  settle() {
    const card = gpu();
    if (card && this.targets[this.fine]) card.read(this.targets[this.fine], 0, 0);
    this.context.getImageData(0, 0, 1, 1);
  }

  listen() {
    const { canvas } = this;
    const place = (e) => {
      const box = canvas.getBoundingClientRect();
      return [e.clientX - box.left, e.clientY - box.top];
    };
    /** @type {Map<number, number[]>} */
    const held = new Map();
    let travelled = 0, from = null;
    const over = (e) => {
      if (this.hovering) return;
      const at = place(e);
      this.hovering = requestAnimationFrame(() => {
        this.hovering = 0;
        const found = this.pick(...at);
        this.listeners.onOver?.(found === "gap" ? null : found, found === "gap");
      });
    };
    this.on("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      held.set(e.pointerId, place(e));
      travelled = 0;
      from = this.scene.under && (e.shiftKey || this.tool === "rectangle" || this.tool === "lasso") ? place(e) : null;
      this.drawing = from && this.tool === "lasso" ? [from] : null;
    });
    this.on("pointermove", (e) => {
      const before = held.get(e.pointerId);
      if (!before) {
        if (e.pointerType !== "touch") over(e);
        return;
      }
      const now = place(e);
      travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (from) {
        if (this.tool === "lasso") this.drawing = [...this.drawing, now];
        else this.drawing = [from, [now[0], from[1]], now, [from[0], now[1]]];
        this.restyle();
      } else if (held.size === 2) {
        const other = [...held].find(([id]) => id !== e.pointerId)[1];
        const was = Math.hypot(before[0] - other[0], before[1] - other[1]), is = Math.hypot(now[0] - other[0], now[1] - other[1]);
        if (was > 0) this.scene.camera.zoomBy(is / was, now, this.view);
        this.moved();
      } else if (travelled > 3) {
        this.scene.camera.drag(now[0] - before[0], now[1] - before[1], this.view);
        this.moved();
      }
      held.set(e.pointerId, now);
    });
    const up = (e) => {
      if (!held.delete(e.pointerId)) return;
      if (from && travelled > 3) {
        if (e.type === "pointerup") this.listeners.onArea?.(this.drawing.map((p) => this.scene.under(p, this.view)));
      } else if (travelled <= 3 && e.type === "pointerup") {
        const found = this.pick(...place(e));
        this.listeners.onChoose?.(typeof found === "number" ? found : null);
      }
      from = this.drawing = null;
      this.restyle();
    };
    this.on("pointerup", up);
    this.on("pointercancel", up);
    this.on("pointerleave", () => this.listeners.onOver?.(null, false));
    this.on("dblclick", (e) => {
      const found = this.pick(...place(e));
      if (typeof found === "number") this.listeners.onOpen?.(found);
    });
    this.on("wheel", (e) => {
      if (this.still) return;
      e.preventDefault();
      this.scene.camera.zoomBy(Math.exp(-e.deltaY * (e.deltaMode ? 0.03 : 0.0015)), place(e), this.view);
      this.moved();
    }, { passive: false });
  }

  on(type, handler, options) {
    this.handlers ??= [];
    this.handlers.push([type, handler, options]);
    this.canvas.addEventListener(type, handler, options);
  }

  /** Arrow keys, + − 0. @returns {boolean} Whether the key was meant for the picture. */
  key(name) {
    const by = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[name];
    if (by) this.scene.camera.drag(...by, this.view);
    else if (name === "+" || name === "=") this.scene.camera.zoomBy(1.25);
    else if (name === "-" || name === "_") this.scene.camera.zoomBy(0.8);
    else if (name === "0") this.scene.camera.reset();
    else return false;
    this.moved();
    return true;
  }

  /** Turns to a region. */
  faces(id) {
    this.scene.faces(id);
    this.moved();
  }

  close() {
    this.closed = true;
    cancelAnimationFrame(this.frame);
    clearTimeout(this.rest);
    clearTimeout(this.later);
    this.resize.disconnect();
    this.stopWatching();
    document.removeEventListener("visibilitychange", this.visibility);
    for (const [type, handler, options] of this.handlers) this.canvas.removeEventListener(type, handler, options);
    const card = gpu();
    if (card && this.made === generation.peek()) {
      for (const target of Object.values(this.targets)) card.drop(target);
      if (this.styles) card.gl.deleteTexture(this.styles);
    }
  }
}

/** Points of the great circle between two regions; the third number says whether it is in front. */
function great(scene, a, b, view) {
  const p = a === null ? null : scene.direction(a), q = scene.direction(b);
  if (!p || !q) return null;
  const out = [];
  for (let i = 0; i <= 24; i++) {
    const t = i / 24, g = [0, 1, 2].map((j) => p[j] * (1 - t) + q[j] * t), n = Math.hypot(...g) || 1;
    const at = scene.placeOf ? scene.placeOf(g.map((v) => v / n), view) : placeDirection(scene, g.map((v) => v / n), view);
    out.push(at ? [...at, true] : [0, 0, false]);
  }
  return out;
}

function placeDirection(scene, g, view) {
  const m = scene.camera.matrix, s = scene.camera.scale(view);
  const z = m[2] * g[0] + m[5] * g[1] + m[8] * g[2];
  return z < 0 ? null : [view.width / 2 + (m[0] * g[0] + m[3] * g[1] + m[6] * g[2]) * s, view.height / 2 - (m[1] * g[0] + m[4] * g[1] + m[7] * g[2]) * s];
}

function straight(scene, a, b, view) {
  return a === null ? null : [[...scene.place(a, view), true], [...scene.place(b, view), true]];
}

/** A closed line, seen on any colour. */
function outlined(c, corners, ink, paper) {
  if (!corners?.length) return;
  c.beginPath();
  corners.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.closePath();
  for (const [width, style, dash] of [[3, paper, []], [1.5, ink, [5, 4]]]) {
    c.setLineDash(dash);
    c.lineWidth = width;
    c.strokeStyle = style;
    c.stroke();
  }
  c.setLineDash([]);
}

function dot(c, at, radius, fill, edge) {
  if (!at) return;
  c.beginPath();
  c.arc(at[0], at[1], radius, 0, 7);
  c.fillStyle = fill;
  c.strokeStyle = edge;
  c.lineWidth = 1.5;
  c.fill();
  c.stroke();
}

const rgb = (c) => `rgb(${c.map((v) => Math.round(v * 255)).join(" ")})`;

/** The custom properties that hold where a canvas stands, as numbers in 0..1. */
function themeColours(canvas) {
  const style = getComputedStyle(canvas);
  const read = (name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
  };
  return {
    ink: read("--ink"), soft: read("--rim"), wall: read("--wall"), paper: read("--surface"), accent: read("--accent"), gap: read("--gap"), unknown: read("--unknown"),
  };
}
