/** From a column of numbers to one of 255 steps of a colour table, and the legend that says so. */
import { html } from "app/html";
import { COLUMNS, columnName, writeColumn } from "app/format";
import { nth } from "app/order";
import { css, TABLES } from "app/tables";

/** The step that stands for "unknown". */
export const UNKNOWN = 255;

/** @typedef {{column: string, steps: Uint8Array, lo: number, hi: number, log: boolean, clipped: boolean, unknown: number, table: string}} Colouring */

/** Coherence of one member is 1 whatever the member: it says nothing, so it is not coloured. */
const NEEDS_TWO = ["coherence", "mean_dist_theta", "p95_dist_theta"];

/** A column with the values left out that say nothing.
 * @param {Record<string, any>} columns */
export function telling(columns, column) {
  const values = columns[column], members = columns.member_count;
  if (!members || !NEEDS_TWO.includes(column)) return values;
  const out = new Float32Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = members[i] > 1 ? values[i] : NaN;
  return out;
}

/** Scales a column between its 1st and 99th percentiles (all of it where it is short).
 * @param {string} column @param {ArrayLike<number>} values @returns {Colouring} */
export function colouring(column, values, table = "viridis") {
  const log = Boolean(COLUMNS[column]?.log);
  const f = log ? (x) => Math.log(x + 1) : (x) => x;
  const all = new Float64Array(values.length);
  let n = 0;
  for (let i = 0; i < values.length; i++) if (Number.isFinite(values[i])) all[n++] = values[i];
  const known = all.subarray(0, n);
  const at = (q) => (n ? nth(known, Math.round(q * (n - 1))) : 0);
  const clipped = known.length > 200;
  const [lo, hi] = clipped ? [at(0.01), at(0.99)] : [at(0), at(1)];
  const a = f(lo), span = f(hi) - a || 1;
  const steps = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    steps[i] = Number.isFinite(v) ? Math.min(254, Math.max(0, Math.round(((f(v) - a) / span) * 254))) : UNKNOWN;
  }
  return { column, steps, lo, hi, log, clipped, unknown: values.length - known.length, table };
}

/** Columns that a picture can be coloured by, of those that a dictionary has. */
export const COLOURS = ["coherence", "member_count", "mean_dist_theta", "p95_dist_theta", "distinct_tokens", "nn1_cos", "lens_entropy", "parent_share", "pieces", "change_cosine", "first_seen"];

/** A scale with numbers, marks where values are clipped, and the swatch of the unknown.
 * @param {{of: Colouring}} props */
export function Legend({ of }) {
  const middle = of.log ? Math.expm1((Math.log1p(of.lo) + Math.log1p(of.hi)) / 2) : (of.lo + of.hi) / 2;
  const id = `legend-${of.column}-${of.table}`;
  const stops = Array.from({ length: 17 }, (_, i) => css(of.table, Math.round(i * 254 / 16)));
  const said = (x) => writeColumn(of.column, of.column === "member_count" || of.column === "distinct_tokens" || of.column === "first_seen" ? Math.round(x) : x);
  return html`<figure class="legend"><figcaption>${columnName(of.column)}</figcaption>
    <svg viewBox="0 0 160 10" preserveAspectRatio="none" aria-hidden="true"><defs><linearGradient id=${id}>${stops.map((c, i) => html`<stop key=${i} offset=${i / 16} stop-color=${c} />`)}</linearGradient></defs><rect width="160" height="10" fill=${`url(#${id})`} /></svg>
    <div class="numbers"><span>${of.clipped ? "≤ " : ""}${said(of.lo)}</span><span>${said(middle)}</span><span>${of.clipped ? "≥ " : ""}${said(of.hi)}</span></div>
    ${of.unknown ? html`<div class="numbers"><span><i class="swatch unknown" /> ${NEEDS_TWO.includes(of.column) ? "one member" : "unknown"}</span></div>` : null}</figure>`;
}

/** 256 RGBA pixels: the table, and a grey for the unknown. @param {string} table @param {number[]} unknown RGB */
export function lut(table, unknown) {
  const out = new Uint8Array(1024);
  for (let i = 0; i < 255; i++) out.set([...TABLES[table].subarray(3 * i, 3 * i + 3), 255], 4 * i);
  out.set([...unknown, 255], 1020);
  return out;
}
