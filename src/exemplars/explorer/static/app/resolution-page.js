/** Resolution: the dictionaries of one site from coarse to fine, and where regions go. */
import { html, useState } from "app/html";
import { useGet, useLoaded } from "app/api";
import { dictionaries, loadDictionary, regionPath } from "app/state";
import { href } from "app/router";
import { atPercentile, compact, count, fixed, isNumber, percent } from "app/format";
import { Empty, Loaded, Problem, RegionLink, Section, Waiting } from "app/ui";
import { Name } from "app/card";
import { plain } from "app/text";

export function ResolutionPage({ d }) {
  const relatives = [...(d.relations?.coarser ?? []), d.slug, ...(d.relations?.finer ?? [])];
  const all = useLoaded(relatives.join(" "), () => Promise.all(relatives.map(loadDictionary)));
  const ladder = (all.data ?? []).slice().sort((a, b) => b.theta - a.theta);
  return html`<div class="page"><h1>Resolution</h1><p class="note">The same site at several thresholds. Resolutions are not nested: a finer region may have members in several coarser ones, so shares are shown.</p>
    ${all.error ? html`<${Problem} error=${all.error} />` : !all.data ? html`<${Waiting} />` : html`
    <ol class="ladder">${ladder.map((x) => html`<li key=${x.slug} class=${x.slug === d.slug ? "here" : ""}><a href=${href(["d", x.slug, "resolution"])}>${plain(x.title || x.slug, 60)}</a><span class="num">θ ${fixed(x.theta, 3)}</span><span class="num">${atPercentile(x.percentile)}</span>
      <span class="bar-cell"><meter value=${Math.log10(x.k)} min="0" max=${Math.log10(Math.max(...ladder.map((y) => y.k)))} aria-label=${`${count(x.k)} regions, on a log scale`} /></span><span class="num">${count(x.k)} regions</span></li>`)}</ol>
    ${relatives.length < 2 ? html`<${Empty}>No coarser or finer dictionary of this site is open. Open several: <code>exemplars explore COARSE FINE</code>.</${Empty}>` : html`<${Splits} d=${d} />`}`}</div>`;
}

/** The largest regions here, each with its coarser and finer relatives. */
function Splits({ d }) {
  const [size, setSize] = useState(12);
  const answer = useGet(`/d/${encodeURIComponent(d.slug)}/regions?_sort_desc=member_count&_size=${size}`);
  return html`<${Section} title="Where regions go" id="splits" note="the largest regions, with the shares of their relatives">${() => html`<${Loaded} answer=${answer}>${(a) => html`<ol class="splits">${a.rows.map((row) => html`<${Split} key=${row.id} d=${d} row=${row} />`)}</ol>
    ${a.next ? html`<p class="more"><button type="button" class="button" onClick=${() => setSize(size + 12)}>More</button></p>` : null}`}</${Loaded}>`}</${Section}>`;
}

function Split({ d, row }) {
  const answer = useGet(`${regionPath(d.slug, row.id)}/resolution`);
  const parents = answer.data?.parents ?? [], children = answer.data?.children ?? [];
  const title = (slug) => plain(dictionaries.value.find((x) => x.slug === slug)?.title ?? slug, 40);
  const cell = (r) => html`<li key=${`${r.dict}/${r.id}`} title=${title(r.dict)}><a href=${href(["d", r.dict, "r", r.id])}><${Name} row=${r} /></a><small>${isNumber(r.share) ? percent(r.share, 0) : r.exemplar_inside ? "holds the exemplar" : ""}</small></li>`;
  return html`<li class="split"><ul class="up" aria-label="Coarser">${parents.slice(0, 3).map(cell)}</ul>
    <div class="mid"><${RegionLink} d=${d.slug} id=${row.id}><${Name} row=${row} /></${RegionLink}><small>${compact(row.member_count)}</small></div>
    <div class="down">${children.length ? html`<${Icicle} parts=${children} title=${title} />` : answer.data || answer.error ? html`<span class="note">${answer.error ? answer.error.message : "none finer"}</span>` : html`<${Waiting} />`}</div></li>`;
}

/** The finer regions as boxes, as wide as their share of the members. */
function Icicle({ parts, title }) {
  const shown = parts.slice(0, 10);
  const rest = Math.max(0, 1 - shown.reduce((a, p) => a + (p.share ?? 0), 0));
  return html`<ul class="icicle" aria-label="Finer, by share of the members">${shown.map((p, i) => html`<li key=${p.id} class=${`letter s${i % 8}`} style=${{ flexGrow: String(Math.max(0.02, p.share ?? 0)) }} title=${`${title(p.dict)}: ${percent(p.share, 0)}`}><a href=${href(["d", p.dict, "r", p.id])}><${Name} row=${p} /><small>${percent(p.share, 0)}</small></a></li>`)}
    ${rest > 0.02 ? html`<li class="rest" style=${{ flexGrow: String(rest) }} title="others"><small>${percent(rest, 0)}</small></li>` : null}</ul>`;
}
