/** Orders of many numbers, without comparing them in pairs. */

const BITS = 11;

/** Indices of numbers, the largest first; ties by index.
 * @param {Uint32Array} keys For floats that are not negative: their bits. @returns {Uint32Array} */
export function falling(keys) {
  const n = keys.length, mask = (1 << BITS) - 1;
  let from = Uint32Array.from({ length: 0 }), order = new Uint32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  for (let shift = 0; shift < 32; shift += BITS) {
    const starts = new Uint32Array(mask + 2);
    for (let i = 0; i < n; i++) starts[((~keys[i] >>> shift) & mask) + 1]++;
    for (let b = 0; b <= mask; b++) starts[b + 1] += starts[b];
    [from, order] = [order, from.length ? from : new Uint32Array(n)];
    for (let i = 0; i < n; i++) order[starts[(~keys[from[i]] >>> shift) & mask]++] = from[i];
  }
  return order;
}

/** The number that would be at a place if an array were sorted, smallest first. Reorders the array.
 * @param {Float64Array} values @param {number} place */
export function nth(values, place) {
  let lo = 0, hi = values.length - 1;
  while (lo < hi) {
    const pivot = values[(lo + hi) >> 1];
    let i = lo, j = hi;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const kept = values[i];
      values[i++] = values[j];
      values[j--] = kept;
    }
    if (place <= j) hi = j;
    else if (place >= i) lo = i;
    else break;
  }
  return values[place];
}
