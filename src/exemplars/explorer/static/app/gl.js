/** One WebGL2 context for the whole page. Pictures draw into it in turn and copy what they drew. */
import { signal } from "app/html";
import { SOURCES } from "app/shaders";

const WIDE = 4096;

/** Grows by one when a lost context comes back: what was on the card must be made again. */
export const generation = signal(0);
/** Why nothing can be drawn, or null. */
export const cannotDraw = signal(null);

/** @type {Gpu | null} */
let shared = null;

/** The context, made on first use; null where the browser gives none (see `cannotDraw`). */
export function gpu() {
  if (shared) return shared.lost ? null : shared;
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, depth: false, powerPreference: "high-performance" });
  if (!gl) {
    cannotDraw.value = "this browser gives no WebGL2 context (it may be turned off, or the graphics driver blocked)";
    return null;
  }
  try {
    shared = new Gpu(canvas, gl);
  } catch (error) {
    cannotDraw.value = `the graphics driver refused the drawing programs (${error.message})`;
    return null;
  }
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    shared.lost = true;
    cannotDraw.value = "the graphics context was lost; it is drawn again when the browser gives it back";
  });
  canvas.addEventListener("webglcontextrestored", () => {
    shared.start();
    cannotDraw.value = null;
    generation.value += 1;
  });
  return shared;
}

class Gpu {
  /** @param {HTMLCanvasElement} canvas @param {WebGL2RenderingContext} gl */
  constructor(canvas, gl) {
    this.canvas = canvas;
    this.gl = gl;
    this.start();
  }

  start() {
    const { gl } = this;
    this.lost = false;
    this.programs = Object.fromEntries(Object.entries(SOURCES).map(([name, s]) => [name, program(gl, s)]));
    this.empty = gl.createVertexArray();
    const about = gl.getExtension("WEBGL_debug_renderer_info");
    this.renderer = String(gl.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
    this.software = /swiftshader|llvmpipe|software|basic render/i.test(this.renderer);
    this.mostPoint = Math.min(48, gl.getParameter(gl.ALIASED_POINT_SIZE_RANGE)[1]);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  }

  /** Makes a program current and sets its uniforms. Numbers are floats unless wrapped by `int`. */
  use(name, uniforms, textures = {}) {
    const { gl } = this;
    const { handle, places } = this.programs[name];
    gl.useProgram(handle);
    for (const [key, value] of Object.entries(uniforms)) set(gl, places[key], value);
    Object.entries(textures).forEach(([key, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      if (places[key]) gl.uniform1i(places[key].at, unit);
    });
  }

  buffer(data, kind = this.gl.ARRAY_BUFFER) {
    const made = this.gl.createBuffer();
    this.gl.bindBuffer(kind, made);
    this.gl.bufferData(kind, data, this.gl.STATIC_DRAW);
    return made;
  }

  /** One texel for each region, 4,096 to a row. @param {"style"|"vec4"} kind */
  texels(kind, data, texture = null) {
    const { gl } = this;
    const [format, layout, type, wide] = { style: [gl.RG32UI, gl.RG_INTEGER, gl.UNSIGNED_INT, 2], vec4: [gl.RGBA32F, gl.RGBA, gl.FLOAT, 4] }[kind];
    const n = data.length / wide, rows = Math.max(1, Math.ceil(n / WIDE)), width = Math.min(WIDE, Math.max(1, n));
    const whole = data.length === width * rows * wide ? data : new data.constructor(width * rows * wide);
    if (whole !== data) whole.set(data);
    const made = texture ?? this.texture(format, width, rows);
    gl.bindTexture(gl.TEXTURE_2D, made);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, rows, layout, type, whole);
    return made;
  }

  texture(format, width, height) {
    const { gl } = this;
    const made = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, made);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
    for (const [key, value] of [[gl.TEXTURE_MIN_FILTER, gl.NEAREST], [gl.TEXTURE_MAG_FILTER, gl.NEAREST], [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]]) gl.texParameteri(gl.TEXTURE_2D, key, value);
    return made;
  }

  /** A buffer of ids with exact depth. */
  target(width, height) {
    const { gl } = this;
    const ids = this.texture(gl.R32UI, width, height);
    const depth = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, depth);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.DEPTH_COMPONENT32F, width, height);
    const frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, ids, 0);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.RENDERBUFFER, depth);
    if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) throw new Error("the card has no buffers of whole numbers");
    return { width, height, ids, depth, frame };
  }

  drop(target) {
    const { gl } = this;
    gl.deleteTexture(target.ids);
    gl.deleteRenderbuffer(target.depth);
    gl.deleteFramebuffer(target.frame);
  }

  into(target, { clear = true } = {}) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, target.width, target.height);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LESS);
    if (!clear) return;
    gl.clearBufferuiv(gl.COLOR, 0, [0, 0, 0, 0]);
    gl.clearBufferfv(gl.DEPTH, 0, [1]);
  }

  /** The page's own canvas, at least so large. */
  intoCanvas(width, height) {
    const { gl, canvas } = this;
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    gl.disable(gl.DEPTH_TEST);
  }

  /** The id at a pixel of a target, from its lower left. */
  read(target, x, y, width = 1, height = 1) {
    const { gl } = this;
    const out = new Uint32Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.readPixels(x, y, width, height, gl.RGBA_INTEGER, gl.UNSIGNED_INT, out);
    return width * height === 1 ? out[0] : out.filter((_, i) => i % 4 === 0);
  }
}

function program(gl, { vertex, fragment }) {
  const handle = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(handle, shader);
  }
  gl.linkProgram(handle);
  if (!gl.getProgramParameter(handle, gl.LINK_STATUS)) {
    const logs = gl.getAttachedShaders(handle).map((s) => gl.getShaderInfoLog(s)).join(" ");
    throw new Error(`${gl.getProgramInfoLog(handle) ?? ""} ${logs}`.trim() || "no reason given");
  }
  const places = {};
  for (let i = 0; i < gl.getProgramParameter(handle, gl.ACTIVE_UNIFORMS); i++) {
    const { name, type } = gl.getActiveUniform(handle, i);
    places[name] = { at: gl.getUniformLocation(handle, name), type };
  }
  return { handle, places };
}

function set(gl, place, value) {
  if (!place) return;
  const { at, type } = place;
  switch (type) {
    case gl.FLOAT: gl.uniform1f(at, value); break;
    case gl.FLOAT_VEC2: gl.uniform2fv(at, value); break;
    case gl.FLOAT_VEC3: gl.uniform3fv(at, value); break;
    case gl.FLOAT_MAT3: gl.uniformMatrix3fv(at, false, value); break;
    case gl.INT_VEC2: gl.uniform2iv(at, value); break;
    case gl.UNSIGNED_INT: gl.uniform1ui(at, value); break;
    case gl.BOOL: gl.uniform1i(at, value ? 1 : 0); break;
    default: gl.uniform1i(at, value);
  }
}
