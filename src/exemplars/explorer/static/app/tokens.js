/** A strip of tokens: background says the region, underline how far; one tab stop, arrows inside. */
import { html, useMemo, useRef } from "app/html";
import { Shown } from "app/text";
import { isNumber, theta } from "app/format";

/** @typedef {{i: number, start: number, end: number, text?: string, special?: boolean, region: number | null,
 *   theta_ratio: number | null}} TokenRow */
/** @typedef {{start: number, end: number, rows: TokenRow[]}} Cluster */

/** Tokens that are parts of one character, together: what is shown is always whole characters.
 * @param {TokenRow[]} rows In order. @returns {Cluster[]} */
export function clusters(rows) {
  const out = [];
  for (const row of rows) {
    const last = out[out.length - 1];
    const shares = last && row.start < last.end && row.end > last.start && (row.end > row.start || last.end > last.start);
    if (shares) {
      last.rows.push(row);
      last.end = Math.max(last.end, row.end);
      last.start = Math.min(last.start, row.start);
    } else {
      out.push({ start: row.start, end: row.end, rows: [row] });
    }
  }
  return out;
}

/** How far, in three steps that do not rest on colour. */
export const reach = (ratio) => (!isNumber(ratio) ? "none" : ratio > 1 ? "outside" : ratio > 0.9 ? "edge" : "inside");

export const LETTERS = "ABCDEFGH";

/** The regions that are met most often in a passage, twice at least if any is, get a letter and a colour each.
 * @param {TokenRow[]} rows @returns {Map<number, number>} region → 0..7 */
export function lettered(rows) {
  const times = new Map();
  for (const r of rows) if (isNumber(r.region) && !r.special) times.set(r.region, (times.get(r.region) ?? 0) + 1);
  const most = [...times].some(([, n]) => n > 1) ? 2 : 1;
  const order = [...times].filter(([, n]) => n >= most).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 8);
  return new Map(order.map(([region], i) => [region, i]));
}

/** What a token is called by a screen reader. */
export const spoken = (text, row) => {
  const where = row.special ? "special token, left out" : !isNumber(row.region) ? "no region"
    : `region ${row.region}, ${theta(row.theta_ratio)}${row.theta_ratio > 1 ? ", outside" : ""}`;
  return `${text.trim() || "white space"}: ${where}`;
};

/** @param {{text: string, rows: TokenRow[], letters: Map<number, number>, mode: "region" | "distance", at: number | null,
 *   onAt: (i: number | null) => void, onOpen?: (row: TokenRow) => void, changed?: Set<number>, name: string}} props */
export function TokenStrip({ text, rows, letters, mode = "region", at, onAt, onOpen, changed, name }) {
  const groups = useMemo(() => clusters(rows), [rows]);
  const ref = useRef(null);
  const here = Math.max(0, groups.findIndex((g) => g.rows.some((r) => r.i === at)));
  const move = (k) => {
    const next = Math.min(groups.length - 1, Math.max(0, k));
    onAt(groups[next].rows[0].i);
    ref.current?.querySelectorAll("[role=option]")[next]?.focus();
  };
  const down = (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[e.key];
    if (step) move(here + step);
    else if (e.key === "Home") move(0);
    else if (e.key === "End") move(groups.length - 1);
    else if (e.key === "Enter") onOpen?.(groups[here].rows[0]);
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  let last = 0;
  const parts = [];
  groups.forEach((g, k) => {
    if (g.start > last) parts.push(html`<span class="between" key=${`b${k}`}>${text.slice(last, g.start)}</span>`);
    const row = g.rows.find((r) => !r.special) ?? g.rows[0];
    const shown = g.end > g.start ? text.slice(g.start, g.end) : String(row.text ?? "");
    const letter = letters.get(row.region);
    const first = letter !== undefined && letters.get(groups[k - 1]?.rows[0].region) !== letter;
    const kind = row.special ? "special" : mode === "distance" ? `d${step(row.theta_ratio)}` : letter === undefined ? "plain" : `s${letter}`;
    parts.push(html`<span key=${k} role="option" aria-selected=${k === here && at !== null} tabindex=${k === here ? 0 : -1} dir="auto" translate="no"
      class=${`tok ${kind} ${reach(row.theta_ratio)} ${changed?.has(row.i) ? "changed" : ""}`} aria-label=${spoken(shown, row)}
      onMouseEnter=${() => onAt(row.i)} onClick=${() => { onAt(row.i); onOpen?.(row); }} onFocus=${() => onAt(row.i)}>${
      mode === "region" && first ? html`<sup aria-hidden="true">${LETTERS[letter]}</sup>` : null}<${Shown} text=${shown} />${
      g.rows.length > 1 ? html`<i class="ticks" title=${`${g.rows.length} tokens in one character`}>${"·".repeat(g.rows.length - 1)}</i>` : null}</span>${/\n/.test(shown) ? html`<br />` : null}`);
    last = Math.max(last, g.end);
  });
  if (last < text.length && rows.length) parts.push(html`<span class="between">${text.slice(last)}</span>`);
  return html`<div class="strip" role="listbox" aria-label=${name} aria-orientation="horizontal" ref=${ref} onKeyDown=${down}>${parts}</div>`;
}

/** Ten steps of distance up to θ, and one beyond. */
const step = (ratio) => (!isNumber(ratio) ? "x" : ratio > 1 ? "o" : Math.min(9, Math.floor(ratio * 10)));
