/** Charts in SVG: few marks, labelled where they stand, numbers on the axes. */
import { html, useLayoutEffect, useRef, useState } from "app/html";
import { compact, significant } from "app/format";

/** About n round numbers that span [lo, hi]. */
export function ticks(lo, hi, n = 5) {
  if (!(hi > lo)) return [lo];
  const raw = (hi - lo) / n, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const out = [];
  for (let v = Math.ceil(lo / step) * step; v <= hi + step * 1e-9; v += step) out.push(+(Math.round(v / step) * step).toPrecision(12));
  return out;
}

const logTicks = (lo, hi) => {
  const out = [];
  for (let p = Math.ceil(Math.log10(lo)); p <= Math.log10(hi) + 1e-9; p++) out.push(10 ** p);
  return out.length > 1 ? out : [lo, hi];
};

const scale = (lo, hi, a, b, log) => {
  const f = log ? Math.log10 : (x) => x;
  const l = f(lo), h = f(hi);
  return (x) => a + ((f(x) - l) / (h - l || 1)) * (b - a);
};

/** An SVG as wide as its place, so that its text has the size of the page's.
 * @param {{name: string, height: number, children: (width: number) => any}} props */
export function Plot({ name, height, class: more = "", children, ...rest }) {
  const ref = useRef(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    watch.observe(ref.current);
    setWidth(Math.round(ref.current.getBoundingClientRect().width));
    return () => watch.disconnect();
  }, []);
  return html`<div class="plot" ref=${ref}><svg class=${`chart ${more}`} width=${width} height=${height} role="img" aria-label=${name} ...${rest}>${width > 0 ? children(width) : null}</svg></div>`;
}

/** Bars over `bins` edges. `mark` draws a line at a value, `at` fills the bar of one.
 * @param {{bins: number[], counts: number[], mark?: number, markName?: string, at?: number | null, unit?: string, name: string}} props */
export function Histogram({ bins, counts, mark, markName, at = null, unit = "", name, height = 120, onPick }) {
  const [over, setOver] = useState(null);
  const H = height, base = H - 22, most = Math.max(1, ...counts);
  const shown = over ?? (at === null ? null : counts.findIndex((_, i) => at >= bins[i] && at <= bins[i + 1]));
  return html`<${Plot} name=${name} height=${H} onMouseLeave=${() => setOver(null)}>${(W) => {
    const x = scale(bins[0], bins[bins.length - 1], 4, W - 4);
    return html`<line class="axis" x1="4" x2=${W - 4} y1=${base} y2=${base} />
    ${counts.map((n, i) => html`<g key=${i} onMouseEnter=${() => setOver(i)} onClick=${() => onPick?.(bins[i], bins[i + 1])} class=${onPick ? "pickable" : ""}>
      <rect class="hit" x=${x(bins[i])} width=${Math.max(0, x(bins[i + 1]) - x(bins[i]))} y="0" height=${base} />
      <rect class=${i === shown ? "bar lit" : "bar"} x=${x(bins[i]) + 0.5} width=${Math.max(0.5, x(bins[i + 1]) - x(bins[i]) - 1)}
        y=${base - (n / most) * (base - 16)} height=${(n / most) * (base - 16)} /></g>`)}
    ${ticks(bins[0], bins[bins.length - 1], W / 90).map((v) => html`<text key=${v} class="tick" x=${x(v)} y=${H - 6} text-anchor=${x(v) < 14 ? "start" : x(v) > W - 14 ? "end" : "middle"}>${significant(v)}</text>`)}
    ${mark !== undefined ? html`<g><line class="mark" x1=${x(mark)} x2=${x(mark)} y1="2" y2=${base} /><text class="tick strong" x=${x(mark) + 5} y="12">${markName}</text></g>` : null}
    ${shown !== null && shown >= 0 ? html`<text class="tick strong" x="6" y="12">${compact(counts[shown])} at ${significant(bins[shown])}–${significant(bins[shown + 1])} ${unit}</text>` : null}
    ${unit ? html`<text class="tick" x=${W - 4} y=${base - 6} text-anchor="end">${unit}</text>` : null}`;
  }}</${Plot}>`;
}

/** Lines with their names at their ends.
 * @param {{series: {name: string, x: number[], y: number[], soft?: boolean}[], logX?: boolean, logY?: boolean, xName: string, yName: string, name: string}} props */
export function Lines({ series, logX, logY, xName, yName, name, height = 260, write = compact }) {
  const H = height, left = 56, top = 14, base = H - 34;
  const ok = (v, log) => Number.isFinite(v) && (!log || v > 0);
  const drawn = series.map((s) => ({ ...s, points: s.x.map((v, i) => [v, s.y[i]]).filter(([a, b]) => ok(a, logX) && ok(b, logY)) })).filter((s) => s.points.length);
  if (!drawn.length) return html`<p class="empty">There is nothing to draw.</p>`;
  const all = drawn.flatMap((s) => s.points);
  const bounds = (j, log) => {
    let lo = Infinity, hi = -Infinity;
    for (const p of all) { lo = Math.min(lo, p[j]); hi = Math.max(hi, p[j]); }
    return log ? [lo, hi] : [Math.min(0, lo), hi];
  };
  const [x0, x1] = bounds(0, logX), [y0, y1] = bounds(1, logY);
  const y = scale(y0, y1, base, top, logY), ys = logY ? logTicks(y0, y1) : ticks(y0, y1, 4);
  const ends = spread(drawn.map((s) => y(s.points[s.points.length - 1][1])), 13, top, base);
  return html`<${Plot} name=${name} height=${H}>${(W) => {
    const right = W - 120, x = scale(x0, x1, left, right, logX), xs = logX ? logTicks(x0, x1) : ticks(x0, x1, W / 130);
    return html`${ys.map((v) => html`<g key=${"y" + v}><line class="grid" x1=${left} x2=${right} y1=${y(v)} y2=${y(v)} /><text class="tick" x=${left - 6} y=${y(v) + 4} text-anchor="end">${write(v)}</text></g>`)}
    ${xs.map((v) => html`<text key=${"x" + v} class="tick" x=${x(v)} y=${base + 16} text-anchor="middle">${compact(v)}</text>`)}
    <text class="tick" x=${right} y=${H - 4} text-anchor="end">${xName}</text><text class="tick" x="2" y="10">${yName}</text>
    <line class="axis" x1=${left} x2=${right} y1=${base} y2=${base} />
    ${drawn.map((s, i) => html`<g key=${s.name} class=${`series s${i % 8} ${s.soft ? "soft" : ""}`}>
      <path d=${"M" + thin(s.points).map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L")} />
      <text class="tick strong" x=${right + 6} y=${ends[i] + 4}>${s.name}</text></g>`)}`;
  }}</${Plot}>`;
}

/** Charts without text are stretched to their place. */
const W = 640;

/** A line too small for axes. With `onPick` it is a slider: the mouse and the arrow keys move along it.
 * @param {{values: number[], marks?: number[], line?: number, name: string, at?: number | null, height?: number,
 *   onPick?: (i: number) => void, said?: (i: number) => string}} props `said` is what a screen reader says of a value. */
export function Spark({ values, marks = [], line, name, at = null, height = 40, onPick, said = (i) => significant(values[i]) }) {
  const H = height, most = Math.max(line ?? 0, ...values.filter(Number.isFinite)) || 1;
  const x = (i) => 2 + (i / Math.max(1, values.length - 1)) * (W - 4), y = (v) => H - 3 - (v / most) * (H - 6);
  const move = (e) => {
    const box = e.currentTarget.getBoundingClientRect();
    onPick?.(Math.round(((e.clientX - box.left) / box.width) * (values.length - 1)));
  };
  const now = Math.max(0, at ?? 0), last = values.length - 1;
  const key = (e) => {
    const to = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageDown: now - 10, PageUp: now + 10, Home: 0, End: last }[e.key];
    if (to === undefined) return;
    onPick(Math.min(last, Math.max(0, at === null ? now : to)));
    e.preventDefault();
    e.stopPropagation();
  };
  const slider = onPick ? { role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": last, "aria-valuenow": now, "aria-valuetext": said(now), onMouseMove: move, onClick: move, onKeyDown: key } : { role: "img" };
  const runs = [];
  values.forEach((v, i) => {
    if (!Number.isFinite(v)) return;
    if (i && Number.isFinite(values[i - 1])) runs[runs.length - 1].push([i, v]);
    else runs.push([[i, v]]);
  });
  return html`<svg class="chart spark" viewBox=${`0 0 ${W} ${H}`} preserveAspectRatio="none" aria-label=${name} ...${slider}>
    ${line ? html`<line class="mark" x1="0" x2=${W} y1=${y(line)} y2=${y(line)} />` : null}
    ${runs.map((run, k) => html`<path key=${k} d=${run.length > 1 ? "M" + run.map(([i, v]) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("L") : `M${x(run[0][0]) - 1} ${y(run[0][1])}h2`} />`)}
    ${marks.map((i) => html`<circle key=${i} cx=${x(i)} cy=${y(values[i])} r="2.5" />`)}
    ${at !== null && Number.isFinite(values[at]) ? html`<line class="cursor" x1=${x(at)} x2=${x(at)} y1="0" y2=${H} />` : null}
  </svg>`;
}

/** Points, with lines at zero where the axes hold it. */
export function Scatter({ points, xName, yName, name, onPick, height = 260 }) {
  const H = height, left = 48, top = 12, base = H - 32;
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const y = scale(y0, y1, base, top);
  return html`<${Plot} name=${name} height=${H}>${(W) => {
    const right = W - 10, x = scale(x0, x1, left, right);
    return html`${ticks(y0, y1, 4).map((v) => html`<g key=${"y" + v}><line class="grid" x1=${left} x2=${right} y1=${y(v)} y2=${y(v)} /><text class="tick" x=${left - 6} y=${y(v) + 4} text-anchor="end">${significant(v)}</text></g>`)}
    ${ticks(x0, x1, 5).map((v) => html`<text key=${"x" + v} class="tick" x=${x(v)} y=${base + 15} text-anchor="middle">${significant(v)}</text>`)}
    <text class="tick" x=${right} y=${H - 3} text-anchor="end">${xName}</text><text class="tick" x="2" y="9">${yName}</text>
    ${points.map((p, i) => html`<circle key=${i} class=${`point ${p.kind ?? ""}`} cx=${x(p.x)} cy=${y(p.y)} r="2.4" onClick=${() => onPick?.(p)}><title>${p.name}</title></circle>`)}`;
  }}</${Plot}>`;
}

/** Shares of one row: a bar cut in parts, widest first. */
export function Shares({ parts, name, onPick }) {
  const total = parts.reduce((a, p) => a + p.value, 0) || 1;
  let at = 0;
  return html`<svg class="chart shares" viewBox=${`0 0 ${W} 26`} preserveAspectRatio="none" role="img" aria-label=${name}>
    ${parts.map((p, i) => {
      const x = (at / total) * W, w = (p.value / total) * W;
      at += p.value;
      return html`<rect key=${i} class=${`part s${i % 8}`} x=${x + 0.5} width=${Math.max(0.5, w - 1)} y="1" height="24" onClick=${() => onPick?.(p)}><title>${p.name}</title></rect>`;
    })}</svg>`;
}

/** Positions at least `gap` apart, as near as may be to where they should be. */
export function spread(wanted, gap, lo, hi) {
  const order = wanted.map((v, i) => [v, i]).sort((a, b) => a[0] - b[0]);
  let last = -Infinity;
  const out = [];
  for (const [v, i] of order) out[i] = last = Math.max(v, last + gap);
  const over = last - hi;
  return over > 0 ? out.map((v) => Math.max(lo, v - over)) : out;
}

/** At most 400 points of a line, ends kept. */
function thin(points) {
  if (points.length <= 400) return points;
  const step = (points.length - 1) / 399;
  return Array.from({ length: 400 }, (_, i) => points[Math.round(i * step)]);
}
