/** Text from corpora and models: shown exactly, and never as markup. */
import { html } from "app/html";

/** Characters that have no shape of their own, with the glyph that stands for each. */
const GLYPHS = { "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u007f": "␡", "\u00ad": "‐" };
const HIDDEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;
/** Joins emoji and scripts that need it: hidden only where it stands alone. */
const JOINER = "\u200d";
const LONG = 4000;

/** @typedef {{text: string, code: string | null}} Piece */

/** Plain runs, and single hidden characters with the name of their code point.
 * @param {unknown} value @returns {Piece[]} */
export function pieces(value) {
  const whole = String(value ?? "");
  const text = whole.length > LONG ? whole.slice(0, LONG) : whole;
  const out = [];
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    const c = match[0];
    if (c === JOINER && match.index > 0 && match.index + 1 < text.length) continue;
    if (c === "\ufe0f" && match.index > 0) continue;
    if (match.index > from) out.push({ text: text.slice(from, match.index), code: null });
    out.push({ text: glyph(c), code: "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") });
    from = match.index + c.length;
  }
  if (from < text.length) out.push({ text: text.slice(from), code: null });
  if (whole.length > LONG) out.push({ text: `… ${whole.length - LONG} more characters`, code: "cut" });
  return out;
}

function glyph(c) {
  const code = c.codePointAt(0);
  if (GLYPHS[c]) return GLYPHS[c];
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return `‹${code.toString(16).toUpperCase()}›`;
}

/** Text with its hidden characters made visible. */
export function Shown({ text }) {
  return pieces(text).map((piece) =>
    piece.code === null ? piece.text : html`<span class="glyph" title=${piece.code}>${piece.text}</span>`);
}

/** One line of plain text for titles and names: the same glyphs, no elements. */
export const plain = (value, most = 200) => {
  const text = pieces(value).map((p) => p.text).join("");
  return text.length > most ? text.slice(0, most) + "…" : text;
};

/** A token by itself. A leading space is shown, since it is part of the token. */
export function Token({ text, bytes, class: more = "" }) {
  const shown = String(text ?? "");
  const space = shown.startsWith(" ") && shown.length > 1;
  return html`<bdi class=${`token ${more}`} translate="no" dir="auto">${
    bytes && /^\ufffd*$/.test(shown) ? html`<span class="glyph" title="bytes of a part of a character">${plain(bytes)}</span>`
      : shown === "" ? html`<span class="glyph" title="no characters of its own">∅</span>`
      : shown === " " ? html`<span class="glyph" title="space">␣</span>`
      : html`${space ? html`<span class="space" aria-hidden="true">·</span>` : null}<${Shown} text=${space ? shown.slice(1) : shown} />`
  }</bdi>`;
}

/** A stretch of text around a span, the span marked.
 * @param {{text: string, span: [number, number] | null, around?: number, class?: string}} props
 *   Offsets count UTF-16 units; `around` cuts to so many characters on each side. */
export function Context({ text, span, around = Infinity, before = around, lines = false, class: more = "" }) {
  const whole = String(text ?? "");
  const [start, end] = span ?? [0, 0];
  const [first, last] = kept(whole, start, end);
  const from = wordStart(whole, Math.max(first, boundary(whole, start - before)), start), to = wordEnd(whole, Math.min(last, boundary(whole, end + around)), end);
  const tidy = (part) => (lines ? part : part.replace(/\s*\n\s*/g, "\n"));
  return html`<bdi class=${`context ${more}`} dir="auto" translate="no"><span class="aside">${from > 0 ? "…" : null}<${Shown} text=${tidy(whole.slice(from, start))} /></span>${
    end > start ? html`<mark><${Shown} text=${whole.slice(start, end)} /></mark>` : null
  }<span class="aside"><${Shown} text=${tidy(whole.slice(end, to))} />${to < whole.length ? "…" : null}</span></bdi>`;
}

/** Bytes of text that a dictionary keeps on each side of a token, of which a few may be lost to a character. */
const KEPT = { before: 84, after: 42 }, LOST = 3;
const bytes = (text) => new TextEncoder().encode(text).length;

/** Where whole words begin and end, if the dictionary cut the text in the middle of one. */
function kept(text, start, end) {
  const cutLeft = bytes(text.slice(0, start)) >= KEPT.before - LOST, cutRight = bytes(text.slice(end)) >= KEPT.after - LOST;
  const gap = text.slice(0, Math.min(start, 14)).search(/\s/);
  const tail = text.slice(Math.max(end, text.length - 14)).search(/\s\S*$/);
  return [cutLeft && gap >= 0 ? gap + 1 : 0, cutRight && tail >= 0 ? Math.max(end, text.length - 14) + tail : text.length];
}

/** Moves a cut to the next white space, if that is near. */
function wordStart(text, at, most) {
  if (at === 0 || /\s/.test(text[at - 1])) return at;
  const gap = text.slice(at, Math.min(most, at + 12)).search(/\s/);
  return gap < 0 ? at : at + gap + 1;
}

function wordEnd(text, at, least) {
  if (at >= text.length || /\s/.test(text[at])) return at;
  const part = text.slice(Math.max(least, at - 12), at), gap = part.search(/\s\S*$/);
  return gap < 0 ? at : at - (part.length - gap);
}

/** Does not cut a pair of surrogates in two. */
function boundary(text, at) {
  if (!Number.isFinite(at)) return at < 0 ? 0 : text.length;
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at + 1 : at;
}
