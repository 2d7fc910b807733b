/** The list of regions: search, filters, facets, sort. Its address is its query. */
import { html, useEffect, useMemo, useState } from "app/html";
import { getJson, useGet } from "app/api";
import { hover, lastList } from "app/state";
import { href, route, setQuery } from "app/router";
import { columnName, count, fixed, percent, theta } from "app/format";
import { Histogram } from "app/charts";
import { Choice, CopyButton, Empty, Problem, RegionLink, Select, Waiting } from "app/ui";
import { Lens, Name, PinButton, RegionCard } from "app/card";
import { Context, Token, plain } from "app/text";

const SORTS = ["member_count", "coherence", "mean_dist_theta", "p95_dist_theta", "distinct_tokens", "nn1_cos", "lens_entropy", "parent_share", "pieces", "change_cosine", "first_seen", "id"];
const FACETS = ["member_count", "coherence", "mean_dist_theta", "lens_entropy", "parent", "parent_share", "token"];
const FILTERS = ["member_count", "coherence", "mean_dist_theta", "p95_dist_theta", "distinct_tokens", "first_seen", "nn1_cos", "lens_entropy", "parent", "parent_share", "pieces", "change_cosine"];
/** Columns that only some dictionaries have, or have once they are asked for. */
const OPTIONAL = ["lens_entropy", "parent", "parent_share", "pieces", "change_cosine"];
const known = (d, names) => names.filter((c) => !OPTIONAL.includes(c) || d.columns?.some((x) => x.name === c));
const askable = (d, names) => names.filter((c) => known(d, [c]).length || d.later?.includes(c));
const OPERATIONS = [["gte", "≥"], ["lte", "≤"], ["exact", "="]];
const SIGN = { gte: "≥", lte: "≤", gt: ">", lt: "<", exact: "=", not: "≠", contains: "contains", in: "in", isnull: "is unknown" };

/** The query of the address as the server takes it: all but what only the page reads. */
function served(query) {
  const { view, facet, ...rest } = query;
  if (!rest._sort && !rest._sort_desc && !rest.ids) rest._sort_desc = "member_count";
  return rest;
}

const pathOf = (d, query) => `/d/${encodeURIComponent(d)}/regions?${new URLSearchParams(query)}`;

export function Regions({ d }) {
  const { query } = route.value;
  const asked = served(query);
  const view = query.view ?? "cards";
  const base = pathOf(d.slug, { ...asked, _size: view === "table" ? 100 : 48 });
  const first = useGet(base);
  const facets = useGet(`${pathOf(d.slug, { ...withoutSort(asked), _size: 1 })}${known(d, FACETS).map((f) => `&_facet=${f}`).join("")}`);
  const [more, setMore] = useState({ base: null, rows: [], next: null, loading: false });
  const pages = more.base === base ? more : { rows: [], next: first.data?.next ?? null, loading: false };
  const rows = [...(first.data?.rows ?? []), ...pages.rows];
  useEffect(() => { lastList.value = { d: d.slug, ids: rows.map((r) => r.id) }; }, [base, rows.length]);
  const load = async () => {
    setMore({ ...pages, base, loading: true });
    const page = await getJson(`${base}&_next=${encodeURIComponent(pages.next)}`);
    setMore({ base, rows: [...pages.rows, ...page.rows], next: page.next, loading: false });
  };
  const sort = query._sort ?? query._sort_desc ?? "member_count", falling = !query._sort;
  return html`<div class="page with-side"><aside class="side" aria-label="Filters"><${Filters} query=${query} d=${d} facets=${facets.data?.facets} /></aside>
    <div class="list"><header class="list-head"><h1>${first.data ? html`${count(first.data.count)} <span>of ${count(d.k)} regions</span>` : "Regions"}</h1>
      <span class="spring" /><${Select} label="Sort by" value=${sort} options=${askable(d, SORTS).map((c) => [c, c === "id" ? "number" : columnName(c)])} onChange=${(c) => setQuery(order(c, falling), { replace: false })} />
      <button type="button" class="quiet" aria-label=${falling ? "Largest first; turn round" : "Smallest first; turn round"} onClick=${() => setQuery(order(sort, !falling), { replace: false })}>${falling ? "↓" : "↑"}</button>
      <${Choice} label="View" value=${view} options=${[["cards", "Cards"], ["table", "Table"]]} onChange=${(v) => setQuery({ view: v === "cards" ? null : v }, { replace: false })} />
      <${CopyButton} label="copy link" text=${() => location.href} /></header>
      <${Chips} query=${query} />
      ${first.error ? html`<${Problem} error=${first.error} />` : !first.data ? html`<${Waiting} what="Listing" />`
        : !rows.length ? html`<${Empty}>No region is like that. <a href=${href(["d", d.slug, "regions"])}>All regions</a></${Empty}>`
        : view === "table" ? html`<${RegionTable} d=${d.slug} rows=${rows} />`
        : html`<div class="cards"><h2 class="unseen">Regions listed</h2>${rows.map((row) => html`<${RegionCard} key=${row.id} d=${d.slug} row=${row} />`)}</div>`}
      ${pages.next ? html`<p class="more"><button type="button" class="button" disabled=${pages.loading} onClick=${load}>${pages.loading ? "Loading …" : "More regions"}</button></p>` : null}
    </div></div>`;
}

const order = (column, falling) => (falling ? { _sort_desc: column, _sort: null } : { _sort: column, _sort_desc: null });
function withoutSort({ _sort, _sort_desc, ...rest }) {
  return rest;
}

/** What the list is narrowed by; each can be taken away. */
function Chips({ query }) {
  const chips = Object.entries(query).filter(([name]) => name.includes("__") || name === "_search" || name === "ids");
  if (!chips.length) return null;
  return html`<ul class="chips" aria-label="Filters in force">${chips.map(([name, value]) => {
    const [column, op] = name.split("__");
    const said = name === "_search" ? `“${plain(value, 40)}”` : name === "ids" ? `${value.split(",").length} chosen` : `${columnName(column)} ${SIGN[op] ?? op} ${plain(value, 30)}`;
    return html`<li key=${name}><button type="button" class="chip-button" aria-label=${`Take away: ${said}`} onClick=${() => setQuery({ [name]: null }, { replace: false })}>${said}<span aria-hidden="true"> ×</span></button></li>`;
  })}</ul>`;
}

function Filters({ query, d, facets }) {
  const unfolded = useMemo(() => matchMedia("(min-width: 761px)").matches, []);
  const asked = query._search ?? "";
  const [text, setText] = useState(asked);
  useEffect(() => { setText(asked); }, [asked]); // another address
  const [column, setColumn] = useState("member_count");
  const [op, setOp] = useState("gte");
  const [value, setValue] = useState("");
  const add = (e) => {
    e.preventDefault();
    if (value.trim()) setQuery({ [`${column}__${op}`]: value.trim() }, { replace: false });
    setValue("");
  };
  const search = (e) => {
    e.preventDefault();
    setQuery({ _search: text.trim() || null }, { replace: false });
  };
  return html`<form class="stack" onSubmit=${search}><label>Token, label or context<input type="search" value=${text} onInput=${(e) => setText(e.currentTarget.value)} placeholder="tax" /></label></form>
    <form class="filter" onSubmit=${add} aria-label="Add a filter"><${Select} label="Column" hideLabel value=${column} options=${askable(d, FILTERS).map((c) => [c, columnName(c)])} onChange=${setColumn} />
      <${Select} label="Comparison" hideLabel value=${op} options=${OPERATIONS} onChange=${setOp} /><input aria-label="Value" inputmode="decimal" value=${value} onInput=${(e) => setValue(e.currentTarget.value)} /><button type="submit" class="quiet">add</button></form>
    ${(d.shelves ?? []).length ? html`<nav aria-label="Shelves"><h2>Shelves</h2><ul class="plain">${d.shelves.map((s) => html`<li key=${s.name}><a href=${`${href(["d", d.slug, "regions"])}?${s.query}`} title=${s.description}>${s.title}</a></li>`)}</ul></nav>` : null}
    ${facets ? html`<details class="facets" open=${unfolded}><summary>Distributions</summary>${facets.map((f) => html`<section class="facet" key=${f.name} aria-label=${columnName(f.name)}><h2>${columnName(f.name)}</h2>${f.bins ? html`<${Histogram} name=${`${columnName(f.name)} of the regions listed`} height=${96}
        bins=${[...f.bins.map((b) => b.lo), f.bins[f.bins.length - 1]?.hi]} counts=${f.bins.map((b) => b.count)} onPick=${(lo, hi) => setQuery({ [`${f.name}__gte`]: +lo.toPrecision(6), [`${f.name}__lte`]: +hi.toPrecision(6) }, { replace: false })} />`
      : html`<ul class="values">${(f.values ?? []).slice(0, 10).map((v) => html`<li key=${String(v.value)}><button type="button" class="link" onClick=${() => setQuery({ [`${f.name}__exact`]: v.value }, { replace: false })}><${Token} text=${v.value} /></button><span class="num">${count(v.count)}</span></li>`)}</ul>`}</section>`)}</details>` : null}`;
}

function RegionTable({ d, rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Regions"><table class="regions"><caption class="unseen">Regions</caption>
    <thead><tr><th scope="col" class="num">region</th><th scope="col">exemplar</th><th scope="col">context</th><th scope="col" class="num">members</th><th scope="col" class="num">share</th><th scope="col" class="num">coherence</th><th scope="col" class="num">mean distance</th><th scope="col">promotes</th><th scope="col"><span class="unseen">Pin</span></th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.id} onMouseEnter=${() => hover(d, row.id)}><td class="num">${row.id}</td><th scope="row"><${RegionLink} d=${d} id=${row.id}><${Name} row=${row} /></${RegionLink}></th>
      <td class="wide"><${Context} ...${row.context ?? {}} before=${24} around=${50} class="one-line" /></td><td class="num">${count(row.member_count)}</td><td class="num">${percent(row.share, 2)}</td><td class="num">${fixed(row.coherence, 3)}</td><td class="num">${theta(row.mean_dist_theta)}</td><td><${Lens} tokens=${row.lens} /></td><td><${PinButton} d=${d} row=${row} /></td></tr>`)}</tbody></table></div>`;
}

