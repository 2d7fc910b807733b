/** Where the regions of A go in B: bands on either side, and streams between them. */
import { html, useState } from "app/html";
import { useGet } from "app/api";
import { Plot, spread } from "app/charts";
import { href } from "app/router";
import { compact, count, percent, plural } from "app/format";
import { Choice, Loaded, Section } from "app/ui";
import { plain } from "app/text";

const H = 340, GAP = 3, BAND = 10;

/** What a band is called. */
export function bandName(band, side, most = 24) {
  if (band.kind === "others") return "others";
  if (band.kind === "none") return side === "left" ? "introduced" : "dropped";
  return `${plain(band.name, most).trim() || "∅"} · ${band.id}`;
}

/** Tops and heights of the bands of a side, in its order. */
function stacked(bands, by, scale) {
  let y = 0;
  return bands.map((band) => {
    const at = { y, height: band[by] * scale };
    if (at.height > 0) y += at.height + GAP;
    return at;
  });
}

/** The streams, each with where it leaves and where it arrives. */
function streams(page, by, scale, places) {
  const free = places.map((side) => side.map((p) => p.y));
  return page.flows.filter((f) => f[by] > 0).map((f) => {
    const height = f[by] * scale, y0 = free[0][f.from], y1 = free[1][f.to];
    free[0][f.from] += height;
    free[1][f.to] += height;
    return { ...f, y0, y1, height };
  });
}

/** @param {{page: any, by: "regions" | "members", name: string}} props */
export function Alluvial({ page, by, name }) {
  const [over, setOver] = useState(null);
  const total = page.flows.reduce((sum, f) => sum + f[by], 0) || 1;
  const most = Math.max(...[page.left, page.right].map((side) => side.filter((band) => band[by] > 0).length), 1);
  const scale = (H - GAP * (most - 1)) / total;
  const places = [stacked(page.left, by, scale), stacked(page.right, by, scale)];
  const flows = streams(page, by, scale, places);
  const colour = (i) => (page.left[i].kind === "region" ? `s${i % 8}` : "rest");
  return html`<${Plot} name=${name} height=${H + 20} class="alluvial">${(W) => {
    const side = Math.min(190, W * 0.3), x0 = side + BAND, x1 = W - side - BAND, mid = (x0 + x1) / 2, f1 = (v) => v.toFixed(1);
    const bands = (list, k) => {
      const shown = list.map((band, i) => ({ band, i, ...places[k][i] })).filter((b) => b.height > 0);
      const ys = spread(shown.map((b) => Math.max(8, b.y + b.height / 2)), 13, 8, H - 4);
      return shown.map(({ band, i, y, height }, n) => html`<g key=${i}><rect class=${`part ${k ? "band" : colour(i)}`} x=${k ? x1 : x0 - BAND} y=${f1(y)} width=${BAND} height=${f1(Math.max(1, height))} />
        <text class="tick strong" x=${k ? x1 + BAND + 6 : x0 - BAND - 6} y=${f1(ys[n] + 4)} text-anchor=${k ? "start" : "end"}>${bandName(band, k ? "right" : "left", side > 120 ? 16 : 6)} <tspan class="tick">${compact(band[by])}</tspan></text></g>`);
    };
    return html`${flows.map((f, n) => html`<path key=${n} class=${`stream ${colour(f.from)} ${over === null || over === n ? "" : "dim"}`} onMouseEnter=${() => setOver(n)} onMouseLeave=${() => setOver(null)}
      d=${`M${f1(x0)} ${f1(f.y0)}C${f1(mid)} ${f1(f.y0)} ${f1(mid)} ${f1(f.y1)} ${f1(x1)} ${f1(f.y1)}v${f.height.toFixed(2)}C${f1(mid)} ${f1(f.y1 + f.height)} ${f1(mid)} ${f1(f.y0 + f.height)} ${f1(x0)} ${f1(f.y0 + f.height)}Z`}>
      <title>${`${bandName(page.left[f.from], "left")} → ${bandName(page.right[f.to], "right")}: ${plural(f.regions, "region")}, ${plural(f.members, "member")}`}</title></path>`)}
    ${bands(page.left, 0)}${bands(page.right, 1)}
    <text class="tick" x=${x0} y=${H + 16} text-anchor="end">A</text><text class="tick" x=${x1} y=${H + 16}>B</text>`;
  }}</${Plot}>`;
}

const BY = [["regions", "Regions"], ["members", "Members"]];

/** The section of the page of drift. */
export function WhereRegionsGo({ asked, one, two, coarse }) {
  const answer = useGet(`/drift/flows?${asked}`);
  const [chosen, setBy] = useState(null);
  const parents = answer.data?.by === "parents";
  const by = chosen ?? (parents ? "regions" : "members"); // a band of one region is as wide as its members
  const title = plain(coarse(answer.data?.of) ?? "", 50);
  const note = answer.data === null ? "" : parents ? `pairs, by the regions of ${title} that they lie in` : "each region of A goes to the region of B nearest to it; the largest have bands";
  const link = (band, side) => {
    const d = parents ? answer.data.of : side === "left" ? one.slug : two.slug;
    const said = bandName(band, side, 40);
    return band.kind === "region" ? html`<a href=${href(["d", d, "r", band.id])}>${said}</a>` : said;
  };
  const table = () => ({
    head: ["from (A)", "to (B)", "regions", "members", "share of its band"], numeric: [2, 3, 4],
    rows: (answer.data?.flows ?? []).map((f) => [link(answer.data.left[f.from], "left"), link(answer.data.right[f.to], "right"), count(f.regions), count(f.members), percent(f[by] / answer.data.left[f.from][by], 0)]),
    plain: (answer.data?.flows ?? []).map((f) => [bandName(answer.data.left[f.from], "left", 60), bandName(answer.data.right[f.to], "right", 60), f.regions, f.members, f[by] / answer.data.left[f.from][by]]),
  });
  return html`<${Section} title="Where regions go" id="flows" note=${note} table=${answer.data ? table : null} figure=${{ of: [one, two], name: "where-regions-go", said: note }}>${() => html`<div class="controls"><${Choice} label="Width of the bands" value=${by} options=${BY} onChange=${setBy} /></div>
    <${Loaded} answer=${answer} what="Grouping the regions">${(page) => html`<${Alluvial} page=${page} by=${by} name=${`Where regions go: ${count(page.flows.length)} streams between ${page.left.length} bands of A and ${page.right.length} of B`} />`}</${Loaded}>`}</${Section}>`;
}
