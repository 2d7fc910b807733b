/** Reads the safetensors format: a length, a JSON header, then raw little-endian columns. */

const BYTES = { U8: 1, I8: 1, BOOL: 1, U16: 2, I16: 2, F16: 2, U32: 4, I32: 4, F32: 4, U64: 8, I64: 8, F64: 8 };

/** @typedef {{dtype: string, shape: number[], data: ArrayLike<number> & ArrayBufferView}} Tensor */

/** Numbers of every type come as typed arrays; F16 is widened to F32, 64-bit integers to F64.
 * @param {ArrayBuffer} buffer
 * @returns {{tensors: Record<string, Tensor>, metadata: Record<string, string>}} */
export function readSafetensors(buffer) {
  const view = new DataView(buffer);
  const length = Number(view.getBigUint64(0, true));
  if (length > buffer.byteLength - 8) throw new Error("this is not a safetensors file");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, about] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [start, end] = about.data_offsets;
    const size = BYTES[about.dtype];
    const n = about.shape.reduce((a, b) => a * b, 1);
    if (!size || end - start !== n * size || 8 + length + end > buffer.byteLength) {
      throw new Error(`column ${name} is damaged`);
    }
    tensors[name] = { dtype: about.dtype, shape: about.shape, data: column(buffer, 8 + length + start, n, about.dtype) };
  }
  return { tensors, metadata: header.__metadata__ ?? {} };
}

function column(buffer, at, n, dtype) {
  const size = BYTES[dtype];
  const aligned = at % size === 0 ? buffer : buffer.slice(at, at + n * size);
  const from = aligned === buffer ? at : 0;
  switch (dtype) {
    case "U8": case "BOOL": return new Uint8Array(aligned, from, n);
    case "I8": return new Int8Array(aligned, from, n);
    case "U16": return new Uint16Array(aligned, from, n);
    case "I16": return new Int16Array(aligned, from, n);
    case "U32": return new Uint32Array(aligned, from, n);
    case "I32": return new Int32Array(aligned, from, n);
    case "F32": return new Float32Array(aligned, from, n);
    case "F64": return new Float64Array(aligned, from, n);
    case "U64": return Float64Array.from(new BigUint64Array(aligned, from, n), Number);
    case "I64": return Float64Array.from(new BigInt64Array(aligned, from, n), Number);
    default: return widened(new Uint16Array(aligned, from, n));
  }
}

/** All 65,536 half-precision numbers, made on first use. */
let halves = null;

/** @param {Uint16Array} bits */
function widened(bits) {
  halves ??= Float32Array.from({ length: 65536 }, (_, b) => {
    const sign = b & 0x8000 ? -1 : 1, exponent = (b >> 10) & 31, fraction = b & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = halves[bits[i]];
  return out;
}
