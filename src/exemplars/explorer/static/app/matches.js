/** What became of regions, from the columns of drift and a cutoff. */

export const KINDS = ["kept", "moved", "dropped", "introduced"];

/** @typedef {{a: Uint8Array, b: Uint8Array, toB: Int32Array, toA: Int32Array, counts: Record<string, number>}} Matches */

/** kept: matched one to one, no farther than the cutoff; moved: matched, but farther. A pair no better
 * than chance is none: its region of A was dropped, its region of B introduced.
 * @param {Record<string, any>} c Columns of drift. @param {number} cutoff @returns {Matches}
 *   For each region of A and of B the index of its kind, and its partner or -1. */
export function matchesOf(c, cutoff) {
  const kA = c.match_b.length, kB = c.best_a.length;
  const a = new Uint8Array(kA).fill(2), b = new Uint8Array(kB).fill(3);
  const toB = new Int32Array(kA).fill(-1), toA = new Int32Array(kB).fill(-1), numbers = [0, 0, kA, kB];
  for (let i = 0; i < kA; i++) {
    const j = c.match_b[i];
    if (j < 0 || !(c.match_cos[i] > (c.match_chance?.[i] ?? -2))) continue;
    const kind = c.match_cos[i] >= cutoff ? 0 : 1;
    a[i] = b[j] = kind;
    toB[i] = j;
    toA[j] = i;
    numbers[kind] += 1;
    numbers[2] -= 1;
    numbers[3] -= 1;
  }
  return { a, b, toB, toA, counts: Object.fromEntries(KINDS.map((kind, n) => [kind, numbers[n]])) };
}

/** Regions of one kind; null for all. @param {Uint8Array} kinds @param {string | null} kind */
export function ofKind(kinds, kind) {
  const n = KINDS.indexOf(kind), out = [];
  if (n < 0) return null;
  for (let i = 0; i < kinds.length; i++) if (kinds[i] === n) out.push(i);
  return Uint32Array.from(out);
}
