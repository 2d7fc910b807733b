/** The sphere, large: a projection of all regions, or an exact slice of some. */
import { html, useEffect, useMemo, useState } from "app/html";
import { useLoaded, getBinary } from "app/api";
import { hovered, selected, tray } from "app/state";
import { route, setQuery } from "app/router";
import { columnName, count, percent, plural } from "app/format";
import { COLOURS } from "app/colour";
import { useColumns } from "app/dictionary";
import { Fidelity, fidelityText, useColouring, useSphere } from "app/sphere-view";
import { Coverage, sliceLabels, useSlice } from "app/slice-view";
import { PictureBox } from "app/picture-box";
import { Badge, Choice, CopyButton, Problem, Select, Table, Waiting } from "app/ui";
import { Inspector } from "app/frame";
import { plain } from "app/text";

/** The regions that the query in the address keeps bright, asked for as numbers only. */
export function useFilter(d) {
  const { query } = route.value;
  const kept = Object.entries(query).filter(([name]) => name.includes("__") || name === "_search" || name === "ids");
  const text = kept.length ? new URLSearchParams(kept).toString() : null;
  const answer = useLoaded(text === null ? null : `${d.slug}?${text}`, async () =>
    new Uint32Array(await getBinary(`/d/${encodeURIComponent(d.slug)}/regions?${text}&view=ids`)));
  return { ids: text === null ? null : answer.data, text, error: answer.error };
}

export function FilterField({ filter }) {
  const { query } = route.value;
  const asked = query._search ?? "";
  const [text, setText] = useState(asked);
  useEffect(() => { setText(asked); }, [asked]); // another address
  return html`<form class="filter-field" role="search" onSubmit=${(e) => { e.preventDefault(); setQuery({ _search: text.trim() || null }, { replace: false }); }}>
    <input type="search" aria-label="Keep bright the regions that match" placeholder="Keep bright …" value=${text} onInput=${(e) => setText(e.currentTarget.value)} />
    ${filter.ids ? html`<span class="note">${count(filter.ids.length)} bright</span>` : null}</form>`;
}

export function ColourChoice({ d, columns, value }) {
  const there = COLOURS.filter((c) => columns?.[c] || d.later?.includes(c));
  return html`<${Select} label="Colour" value=${value} options=${there.map((c) => [c, columnName(c)])} onChange=${(c) => setQuery({ colour: c }, { replace: false })} />`;
}

const SPHERE_HINT = html`<p>Point at a region, or choose one with the keyboard, to read it here.</p><p>A picture, not the partition: exemplars are projected on three principal directions, and cells are those of the projections. What is near here may be far in all dimensions, so arcs lead to the true nearest regions.</p><p>Drag to turn, wheel to come nearer, double click to open.</p>`;
const SLICE_HINT = html`<p>Point at a region, or choose one with the keyboard, to read it here.</p><p>The true partition, cut by a space of three dimensions: each point lies in the region that owns it in all dimensions. Few regions meet such a cut.</p><p>Hatched parts lie farther than θ from every exemplar: the model was not seen there.</p>`;

export function SpherePage({ d }) {
  const { query } = route.value;
  const slicing = query.mode === "slice";
  const colour = query.colour ?? "coherence";
  const columns = useColumns(d, colour);
  const of = useColouring(columns.data, colour);
  const filter = useFilter(d);
  const here = tray.value.filter((p) => p.d === d.slug).slice(0, 3);
  const bases = [["pca.0.1.2", "Principal directions 1 2 3"], ["pca.3.4.5", "Principal directions 4 5 6"],
    ...(here.length === 3 ? [[`r.${here.map((p) => p.id).join(".")}`, "Through three of the tray"]] : []), ...(selected.value?.d === d.slug ? [[`local.${selected.value.id}`, `Around region ${selected.value.id}`]] : []), ["random.0", "At random"]];
  const basis = query.basis ?? "pca.0.1.2";
  if (!bases.some(([key]) => key === basis)) bases.push([basis, plain(basis, 30)]);
  return html`<div class="page full with-inspector"><div class="stagewrap"><header class="controls">
      <h1 class="unseen">Sphere</h1><${Choice} label="What is drawn" value=${slicing ? "slice" : "projected"} options=${[["projected", "Projected"], ["slice", "Exact slice"]]} onChange=${(mode) => setQuery({ mode: mode === "slice" ? "slice" : null, cam: null }, { replace: false })} />
      ${slicing ? html`<${Select} label="Through" hideLabel value=${basis} options=${bases} onChange=${(b) => setQuery({ basis: b, cam: null }, { replace: false })} />` : null}
      <${ColourChoice} d=${d} columns=${columns.data} value=${of?.column ?? colour} /><${FilterField} filter=${filter} /><span class="spring" /><${CopyButton} label="copy link" text=${() => location.href} /></header>
    ${!of ? (columns.error ? html`<${Problem} error=${columns.error} />` : html`<${Waiting} what="Loading the columns" />`)
      : slicing ? html`<${Slice} d=${d} basis=${basis} of=${of} columns=${columns.data} filter=${filter} query=${query} key=${basis} />`
      : html`<${Projected} d=${d} of=${of} columns=${columns.data} filter=${filter} query=${query} />`}</div>
    <${Inspector} hint=${slicing ? SLICE_HINT : SPHERE_HINT} /></div>`;
}

function Projected({ d, of, columns, filter, query }) {
  const sphere = useSphere(d);
  if (sphere.error) return html`<div class="picture undrawn"><${Problem} error=${sphere.error} /></div>`;
  if (!sphere.scene) return html`<${Waiting} what="Loading the sphere" />`;
  const over = hovered.value?.d === d.slug ? hovered.value.id : null;
  const together = over === null ? 1 : sphere.scene.together(over);
  return html`<${PictureBox} d=${d} scene=${sphere.scene} colouring=${of} filter=${filter.ids} camera=${query.cam} onCamera=${(cam) => setQuery({ cam })} members=${columns.member_count} name=${`PCA picture of ${plural(d.k, "region")}`} figure=${{ of: d, name: "sphere", said: `PCA picture of ${plural(d.k, "region")}: ${fidelityText(sphere.data.about)}` }}>
    <p class="badges"><${Fidelity} about=${sphere.data.about} />${together > 1 ? html`<${Badge}>${together} regions here</${Badge}>` : null}<span class="note">Arcs lead to the true nearest regions.</span></p></${PictureBox}>`;
}

/** Cosine of a token's direction with the slice from which on it is drawn there. */
const IN_THE_SLICE = Math.SQRT1_2;

function Slice({ d, basis, of, columns, filter, query }) {
  const slice = useSlice(d, basis);
  const [tabular, setTabular] = useState(false);
  const labels = useMemo(() => (slice.data ? sliceLabels(slice.data) : []), [slice.data]);
  const passage = useMemo(() => (slice.data?.passage ?? []).filter((p) => p.within >= IN_THE_SLICE), [slice.data]);
  const points = useMemo(() => [...(slice.data?.marks ?? []), ...passage].map((m) => m.y), [passage]);
  if (slice.error) return html`<div class="picture undrawn"><${Problem} error=${slice.error} /></div>`;
  if (!slice.scene) return html`<${Waiting} what="Cutting the partition" />`;
  return html`<${PictureBox} d=${d} scene=${slice.scene} colouring=${of} filter=${filter.ids} camera=${query.cam} onCamera=${(cam) => setQuery({ cam })} members=${columns.member_count} labels=${labels} points=${points} name=${`Exact slice, ${slice.data.cells.length} regions`} figure=${{ of: d, name: "slice", said: `Exact slice through ${plural(slice.data.cells.length, "region")} of ${count(d.k)}: ${percent(slice.data.covered_fraction, 0)} inside θ, the rest hatched` }}>
    <p class="badges"><${Coverage} answer=${slice.data} /><span class="note">${slice.data.title ? plain(slice.data.title, 100) + ". " : ""}${plural(slice.data.cells.length, "region")} of ${count(d.k)} meet it. Hatched: outside every region.${slice.data.passage ? ` Dots: ${count(passage.length)} of ${plural(slice.data.passage.length, "token")}, those within 45° of the slice.` : ""}</span>
      <button type="button" class="quiet" aria-pressed=${tabular} onClick=${() => setTabular(!tabular)}>as table</button></p>
    ${tabular ? html`<div class="sheet"><${Table} caption="Regions of the slice" head=${["region", "name", "share of the slice"]} numeric=${[0, 2]} rows=${(slice.data.area_fraction ?? []).map((a) => [html`<a href=${`#/d/${encodeURIComponent(d.slug)}/r/${a.id}`}>${a.id}</a>`, plain(slice.data.labels?.find((l) => l.id === a.id)?.text ?? "", 40), percent(a.f, 2)])} /></div>` : null}</${PictureBox}>`;
}
