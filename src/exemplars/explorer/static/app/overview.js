/** A dictionary at a glance: pictures, key figures, growth, and shelves to start from. */
import { html, useMemo } from "app/html";
import { useGet } from "app/api";
import { hovered, selected } from "app/state";
import { go, href } from "app/router";
import { atPercentile, compact, count, fixed, percent, plural, significant } from "app/format";
import { describe, useColumns } from "app/dictionary";
import { Fidelity, useColouring, useSphere } from "app/sphere-view";
import { MapPicture } from "app/map-view";
import { PictureBox } from "app/picture-box";
import { Legend } from "app/colour";
import { Spark } from "app/charts";
import { Figure, Problem, RegionLink, Section, Waiting } from "app/ui";
import { Inspected, Name } from "app/card";
import { Context, plain } from "app/text";

export function Overview({ d }) {
  const columns = useColumns(d);
  const of = useColouring(columns.data, "coherence");
  const norm = d.activation_norm ?? {};
  const p = hovered.value?.d === d.slug ? hovered.value : selected.value?.d === d.slug ? selected.value : null;
  return html`<div class="page overview"><header class="lead"><div><h1>${plain(d.title || d.slug, 100)}</h1><p class="note">${describe(d).map((s) => plain(s, 60)).join(" · ")}${d.build?.corpus ? ` · ${plain(d.build.corpus, 60)}` : ""}</p></div></header>
    <dl class="figures"><${Figure} name="regions" value=${count(d.k)} /><${Figure} name="θ" value=${fixed(d.theta, 3)} note=${atPercentile(d.percentile)} />
      <${Figure} name="tokens seen" value=${compact(d.build?.tokens_seen ?? d.rows)} /><${Figure} name="median members" value=${compact(d.stats?.member_count?.median)} />
      <${Figure} name="singletons" value=${percent((d.stats?.member_count?.singletons ?? 0) / d.k, 0)} note=${compact(d.stats?.member_count?.singletons)} /><${Figure} name="median coherence" value=${fixed(d.stats?.coherence?.p50, 2)} />
      <${Figure} name="median norm" value=${significant(norm.median)} note=${d.dim ? `${d.dim} wide` : ""} /></dl>
    <div class="pictures">${columns.error ? html`<${Problem} error=${columns.error} />` : !of ? html`<${Waiting} what="Loading the columns" />` : html`
      <figure><figcaption><a href=${href(["d", d.slug, "sphere"])}>Sphere</a></figcaption><${Sphere} d=${d} of=${of} columns=${columns.data} /></figure>
      <figure><figcaption><a href=${href(["d", d.slug, "map"])}>Map</a></figcaption><${MapPicture} d=${d} of=${of} columns=${columns.data} small onChoose=${(id) => id !== null && go(href(["d", d.slug, "r", id]))} /></figure>
      <aside class="beside" aria-label="Inspector">${p ? html`<${Inspected} d=${d.slug} id=${p.id} />` : html`<div class="hint"><p>Each cell is a <b>region</b>: all activations nearer to its exemplar than to any other. Point at one to read it; click to open it.</p><p>The sphere is a picture of three principal directions; the <a href=${href(["d", d.slug, "sphere"], { mode: "slice" })}>exact slice</a> cuts the real partition.</p></div>`}<${Legend} of=${of} /><${Growth} d=${d} /></aside>`}</div>
    <div class="shelves">${(d.shelves ?? []).map((s) => html`<${Shelf} key=${s.name} d=${d} shelf=${s} />`)}</div></div>`;
}

function Sphere({ d, of, columns }) {
  const sphere = useSphere(d);
  if (sphere.error) return html`<div class="picture undrawn"><${Problem} error=${sphere.error} /></div>`;
  if (!sphere.scene) return html`<${Waiting} what="Loading the sphere" />`;
  return html`<${PictureBox} d=${d} scene=${sphere.scene} colouring=${of} small list=${false} members=${columns.member_count} name=${`PCA picture of ${plural(d.k, "region")}`} onChoose=${(id) => id !== null && go(href(["d", d.slug, "r", id]))}>
    <p class="badges"><${Fidelity} about=${sphere.data.about} /></p></${PictureBox}>`;
}

function Growth({ d }) {
  const answer = useGet(d.has_growth === false ? null : `/d/${encodeURIComponent(d.slug)}/growth`);
  const own = answer.data?.series?.find((s) => s.dict === d.slug) ?? answer.data?.series?.[0];
  if (!own?.k?.length) return null;
  return html`<a class="growth-spark" href=${href(["d", d.slug, "growth"])}><span>Growth <small>${compact(own.k[own.k.length - 1])} regions after ${compact(own.x[own.x.length - 1])} tokens</small></span><${Spark} values=${own.k} name="Regions as tokens were read" /></a>`;
}

function Shelf({ d, shelf }) {
  const link = `${href(["d", d.slug, "regions"])}?${shelf.query}`;
  return html`<${Section} title=${shelf.title} id=${`shelf-${shelf.name}`} note=${shelf.description} actions=${html`<a class="quiet" href=${link}>all</a>`}>${() => html`<${ShelfRows} d=${d} query=${shelf.query} />`}</${Section}>`;
}

function ShelfRows({ d, query }) {
  const answer = useGet(`/d/${encodeURIComponent(d.slug)}/regions?${query}&_size=6`);
  const rows = useMemo(() => answer.data?.rows ?? [], [answer.data]);
  if (answer.error) return html`<${Problem} error=${answer.error} />`;
  if (!answer.data) return html`<${Waiting} />`;
  if (!rows.length) return html`<p class="empty">None.</p>`;
  return html`<ol class="shelf">${rows.map((row) => html`<li key=${row.id} onMouseEnter=${() => { hovered.value = { d: d.slug, id: row.id }; }} onMouseLeave=${() => { hovered.value = null; }}>
    <${RegionLink} d=${d.slug} id=${row.id}><${Name} row=${row} /></${RegionLink}><span class="num">${compact(row.member_count)}</span><${Context} ...${row.context ?? {}} before=${14} around=${40} class="one-line" /></li>`)}</ol>`;
}

