/** Drift: what became of the regions between two dictionaries. */
import { html, useEffect, useMemo, useState } from "app/html";
import { getBinary, useGet, useLoaded } from "app/api";
import { readSafetensors } from "app/safetensors";
import { dictionaries, loadColumns, loadDictionary } from "app/state";
import { href, route, setQuery } from "app/router";
import { count, fixed, isNumber, percent, significant } from "app/format";
import { Histogram, Scatter } from "app/charts";
import { Badge, Choice, Empty, Figure, Loaded, Problem, Section, Waiting } from "app/ui";
import { Name } from "app/card";
import { plain } from "app/text";
import { WhereRegionsGo } from "app/alluvial";
import { DriftSpheres, show } from "app/drift-spheres";
import { matchesOf } from "app/matches";
import { TokenStrip, lettered } from "app/tokens";
import { CLIENT, useTrace } from "app/text-page";

const KINDS = [["", "All"], ["kept", "Kept"], ["moved", "Moved"], ["dropped", "Dropped"], ["introduced", "Introduced"]];

export function DriftPage({ a, b }) {
  const both = useLoaded(`${a} ${b}`, () => Promise.all([loadDictionary(a), loadDictionary(b)]));
  const asked = new URLSearchParams({ a, b }).toString();
  const summary = useGet(`/drift?${asked}`);
  if (both.error ?? summary.error) return html`<div class="page"><h1>Drift</h1><${Problem} error=${both.error ?? summary.error} /></div>`;
  if (!both.data || !summary.data) return html`<div class="page"><h1>Drift</h1><${Waiting} what="Matching regions" /></div>`;
  return html`<${Drift} one=${both.data[0]} two=${both.data[1]} summary=${summary.data} asked=${asked} />`;
}

function Drift({ one, two, summary, asked }) {
  const [cutoff, setCutoff] = useState(+(route.peek().query.cutoff ?? summary.cutoff ?? 0.7));
  const columns = useLoaded(asked, async () => {
    const { tensors } = readSafetensors(await getBinary(`/drift/columns?${asked}`));
    return Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, t.data]));
  });
  const matches = useMemo(() => columns.data && matchesOf(columns.data, cutoff), [columns.data, cutoff]);
  const counts = matches?.counts ?? summary.counts;
  const kind = KINDS.some(([key]) => key === route.value.query.kind) ? route.value.query.kind : "";
  useEffect(() => {
    const timer = setTimeout(() => route.peek().path[0] === "drift" && setQuery({ cutoff }), 400);
    return () => clearTimeout(timer);
  }, [cutoff]);
  const titles = [one, two].map((x) => plain(x.title || x.slug, 50));
  return html`<div class="page"><header class="lead"><div><h1>Drift</h1><p class="note"><a href=${href(["d", one.slug])}>${titles[0]}</a> → <a href=${href(["d", two.slug])}>${titles[1]}</a> · <a href=${href(["drift", two.slug, one.slug])}>the other way round</a></p></div></header>
    <${DriftFigures} of=${summary} counts=${counts} />
    <div class="controls"><label class="check">cosine that counts as the same <input type="range" min="0" max="1" step="0.01" value=${cutoff} onInput=${(e) => setCutoff(+e.currentTarget.value)} /> <output class="num">${fixed(cutoff)}</output></label><${Choice} label="Which regions" value=${kind} options=${KINDS} onChange=${(k) => setQuery({ kind: k || null })} /><${Badge} title="How regions were matched">${plain(summary.method, 120)}</${Badge}>
      ${(summary.comparable?.warnings ?? []).map((w, i) => html`<${Badge} key=${i} kind="caution">${plain(w, 300)}</${Badge}>`)}</div>
    <div class="two even"><${Section} title="Cosine of each region to its best match" id="cosines" figure=${{ of: [one, two], name: "cosines", said: `All regions of A with members; the line is the cutoff ${fixed(cutoff)}` }} table=${() => cosineTable(columns.data)}>${() => html`<${Loaded} answer=${columns}>${(c) => html`<${Cosines} c=${c} cutoff=${cutoff} setCutoff=${setCutoff} />`}</${Loaded}>`}</${Section}>
      <${Section} title="Cosine and members" id="scatter" note="matched pairs; up is more members" figure=${{ of: [one, two], name: "cosine-and-members", said: `Matched pairs, at most ${count(MOST)} of them; cutoff ${fixed(cutoff)}`, legend: [["#0072b2", "kept"], ["#c77c00", "moved"]] }}>${() => html`<${Loaded} answer=${columns}>${(c) => html`<${Pairs} c=${c} one=${one} two=${two} cutoff=${cutoff} />`}</${Loaded}>`}</${Section}></div>
    <${Section} title="Spheres" id="spheres" note="both on A's principal directions; matched regions are outlined in both">${() => html`<${Loaded} answer=${columns}>${(c) => html`<${DriftSpheres} one=${one} two=${two} c=${c} matches=${matches} kind=${kind} titles=${titles} asked=${asked} />`}</${Loaded}>`}</${Section}>
    <${WhereRegionsGo} asked=${asked} one=${one} two=${two} coarse=${(slug) => dictionaries.value.find((d) => d.slug === slug)?.title ?? slug} />
    <${Changed} one=${one} two=${two} asked=${asked} cutoff=${cutoff} kind=${kind || "moved"} />
    <${SameText} one=${one} two=${two} titles=${titles} /></div>`;
}

/** What became of the regions, and what was compared. */
export const DriftFigures = ({ of, counts }) => html`<dl class="figures">${["kept", "moved", "dropped", "introduced"].map((k) => html`<${Figure} key=${k} name=${k} value=${count(counts[k])} note=${percent(counts[k] / (k === "introduced" ? of.k_b : of.k_a), 0)} />`)}<${Figure} name="cosine of the centres" value=${fixed(of.comparable?.centre_cos, 3)} /><${Figure} name="θ" value=${fixed(of.theta_a, 3)} note=${`→ ${fixed(of.theta_b, 3)}`} /></dl>`;

/** Pairs of regions. `side` shows a region of A (0) or B (1); `action` makes of a pair a button.
 * @param {{rows: any[], titles: string[], side: (k: number, row: any) => any, action?: (pair: any) => any}} props */
export const PairsTable = ({ rows, titles, side, action }) => html`<div class="scroll" tabindex="0" role="region" aria-label="Changed regions"><table><thead><tr><th scope="col">${titles[0]}</th><th scope="col">${titles[1]}</th><th scope="col" class="num">cosine</th><th scope="col" class="num">members</th>${action ? html`<th scope="col"><span class="unseen">Show in the spheres</span></th>` : null}</tr></thead>
  <tbody>${rows.map((p, i) => html`<tr key=${i}>${[p.a, p.b].map((row, k) => html`<td key=${k}>${row ? html`${side(k, row)} <small>${row.id}, ${count(row.member_count)} members</small>` : html`<small>none</small>`}</td>`)}<td class="num">${fixed(p.cosine, 3)}</td><td class="num">${isNumber(p.members_log_ratio) ? `×${significant(Math.exp(p.members_log_ratio), 2)}` : ""}</td>${action ? html`<td>${action(p)}</td>` : null}</tr>`)}</tbody></table></div>`;

const binned = (values) => {
  const bins = Array.from({ length: 41 }, (_, i) => -1 + i / 20), counts = new Array(40).fill(0);
  let lowest = 39;
  for (const v of values) if (Number.isFinite(v)) {
    const i = Math.min(39, Math.max(0, Math.floor((v + 1) * 20)));
    counts[i]++;
    lowest = Math.min(lowest, i);
  }
  return { bins: bins.slice(lowest), counts: counts.slice(lowest) };
};
const cosineTable = (c) => {
  const { bins, counts } = binned(c?.cos_a ?? []);
  return { head: ["from", "to", "regions"], rows: counts.map((n, i) => [fixed(bins[i]), fixed(bins[i + 1]), count(n)]), numeric: [0, 1, 2] };
};

function Cosines({ c, cutoff, setCutoff }) {
  const { bins, counts } = useMemo(() => binned(c.cos_a), [c]);
  return html`<${Histogram} bins=${bins} counts=${counts} mark=${cutoff} markName="cutoff" name="Cosine of each region to its best match" height=${200} onPick=${(lo) => setCutoff(+lo.toFixed(2))} />`;
}

const MOST = 1500;

function Pairs({ c, one, two, cutoff }) {
  const sizes = useLoaded(`${one.slug} ${two.slug}`, () => Promise.all([loadColumns(one), loadColumns(two)]));
  const points = useMemo(() => {
    if (!sizes.data) return [];
    const [a, b] = sizes.data.map((x) => x.member_count), out = [];
    const stride = Math.max(1, Math.ceil(c.match_b.length / MOST));
    for (let i = 0; i < c.match_b.length; i += stride) {
      const j = c.match_b[i];
      if (j >= 0 && a[i] && b[j]) out.push({ id: i, x: c.match_cos[i], y: Math.log2(b[j] / a[i]), kind: c.match_cos[i] < cutoff ? "moved" : "", name: `region ${i} → ${j}` });
    }
    return out;
  }, [sizes.data, c, cutoff]);
  if (!points.length) return html`<${Empty}>No pair is matched one to one.</${Empty}>`;
  return html`<${Scatter} points=${points} xName="cosine" yName="log₂ of the ratio of members" name="Cosine and change of members of matched regions" onPick=${(p) => show(one.slug, p.id)} height=${200} />`;
}

function Changed({ one, two, asked, cutoff, kind }) {
  const answer = useGet(`/drift/pairs?${asked}&cutoff=${cutoff}&kind=${kind}&_size=40`);
  const sides = [one, two], side = (k, x) => html`<a href=${href(["d", sides[k].slug, "r", x.id])}><${Name} row=${x} /></a>`;
  return html`<${Section} title=${`Regions ${kind}`} id="pairs" note="those that changed most first" table=${() => ({ head: ["from", "to", "cosine", "members ×"], rows: (answer.data?.rows ?? []).map((p) => [p.a?.id ?? "", p.b?.id ?? "", fixed(p.cosine, 3), isNumber(p.members_log_ratio) ? significant(Math.exp(p.members_log_ratio)) : ""]), numeric: [2, 3] })}>${() => html`
    <${Loaded} answer=${answer}>${(x) => (x.rows.length ? html`<${PairsTable} rows=${x.rows} titles=${sides.map((d) => plain(d.title || d.slug, 40))} side=${side} action=${(p) => html`<button type="button" class="quiet" aria-label=${`Show region ${p.a?.id ?? p.b.id} of ${p.a ? "A" : "B"} in the spheres`} onClick=${() => show(p.a ? one.slug : two.slug, (p.a ?? p.b).id)}>show</button>`} />` : html`<${Empty}>None at this cutoff.</${Empty}>`)}</${Loaded}>`}</${Section}>`;
}

/** The same passage through both; tokens whose regions do not match are marked. */
function SameText({ one, two, titles }) {
  const [text, setText] = useState("");
  const traces = dictionaries.value.filter((x) => x.slug === one.slug || x.slug === two.slug).every((x) => x.trace);
  const trace = useTrace(traces ? "/drift/trace" : null, text.trim() ? { a: one.slug, b: two.slug, text, client: CLIENT } : null);
  const sides = ["a", "b"].map((k) => trace.rows.map((r) => ({ ...r, region: r[k]?.region ?? null, theta_ratio: r[k]?.theta_ratio ?? null })));
  const changed = new Set(trace.rows.filter((r) => r.matched === false).map((r) => r.i));
  const [at, setAt] = useState(null);
  if (!traces) return null;
  return html`<${Section} title="The same text" id="same-text" note="tokens underlined where the two regions are not matched">${() => html`<textarea rows="2" aria-label="Text for both" value=${text} onInput=${(e) => setText(e.currentTarget.value)} placeholder="A passage to read through both" />
    ${trace.error ? html`<p class="problem">${plain(trace.error.message, 300)}.</p>` : null}
    ${trace.rows.length ? sides.map((rows, k) => html`<div key=${k}><h3>${titles[k]}</h3><${TokenStrip} text=${trace.text} rows=${rows} letters=${lettered(rows)} at=${at} onAt=${setAt} changed=${changed} name=${`Tokens through ${titles[k]}`} /></div>`) : null}`}</${Section}>`;
}
