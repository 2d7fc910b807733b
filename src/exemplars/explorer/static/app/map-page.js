/** The map, large: its layers, and parts of it that are chosen. */
import { html, useMemo, useState } from "app/html";
import { announced } from "app/state";
import { route, setQuery, href } from "app/router";
import { useColumns } from "app/dictionary";
import { useColouring } from "app/sphere-view";
import { MapPicture, useLayout } from "app/map-view";
import { ColourChoice, FilterField, useFilter } from "app/sphere-page";
import { both, largest, readArea, rectangle, within, writeArea } from "app/areas";
import { count, plural } from "app/format";
import { Choice, CopyButton, Problem, Select, Waiting } from "app/ui";
import { Inspector } from "app/frame";

/** Regions that a link names, at most: the largest of what was chosen. */
const MOST_IN_LINK = 1000;
const LAYERS = [["discs", "Discs"], ["cells", "Cells"], ["density", "Density"]];
const TOOLS = [["pan", "Move"], ["rectangle", "Rectangle"], ["lasso", "Lasso"]];
const known = (value, options) => (options.some(([key]) => key === value) ? value : options[0][0]);

export function MapPage({ d }) {
  const { query } = route.value;
  const columns = useColumns(d, query.colour ?? null);
  const of = useColouring(columns.data, query.colour ?? "coherence");
  const filter = useFilter(d);
  const [tool, setTool] = useState("pan");
  const layer = known(query.layer, LAYERS), layout = query.layout === "umap" ? "umap" : "unrolled";
  const places = useLayout(d, layout);
  const area = useMemo(() => readArea(query.area), [query.area]);
  const inside = useMemo(() => (area && places.data ? within(places.data.tensors.xy.data, area) : null), [area, places.data]);
  const bright = useMemo(() => both(inside, filter.ids), [inside, filter.ids]);
  const chooseArea = (corners) => {
    const text = corners && writeArea(corners);
    setQuery({ area: text });
    const found = corners && places.data ? both(within(places.data.tensors.xy.data, readArea(text) ?? []), filter.ids) : null;
    announced.value = found ? `${plural(found.length, "region")} chosen.` : "Nothing is chosen.";
  };
  const umap = (d.layouts ?? []).find((one) => one.name === "umap");
  const layouts = [["unrolled", "unrolled sphere"], ["umap", umap?.status === "available" ? "UMAP" : "UMAP (not installed)"]];
  return html`<div class="page full with-inspector"><div class="stagewrap"><header class="controls"><h1 class="unseen">Map</h1>
      <${Choice} label="Layer" value=${layer} options=${LAYERS} onChange=${(l) => setQuery({ layer: l === "discs" ? null : l })} />
      <${Select} label="Layout" value=${layout} options=${layouts} onChange=${(l) => setQuery({ layout: l === "unrolled" ? null : l, area: null, cam: null })} />
      <${ColourChoice} d=${d} columns=${columns.data} value=${of?.column ?? "coherence"} /><${FilterField} filter=${filter} />
      <${Choice} label="What a drag does" value=${tool} options=${TOOLS} onChange=${setTool} /><span class="spring" /><${CopyButton} label="copy link" text=${() => location.href} /></header>
    ${columns.error ? html`<${Problem} error=${columns.error} />` : !of ? html`<${Waiting} what="Loading the columns" />`
      : html`<${MapPicture} d=${d} of=${of} columns=${columns.data} filter=${bright} layer=${layer} layout=${layout} camera=${query.cam} onCamera=${(cam) => setQuery({ cam })} tool=${tool} area=${area} onArea=${chooseArea}>
        <${Chosen} d=${d} area=${area} bright=${area ? bright : null} members=${columns.data.member_count} onArea=${chooseArea} /></${MapPicture}>`}</div>
    <${Inspector} /></div>`;
}

/** What is chosen, what can be done with it, and how to choose by numbers. */
function Chosen({ d, area, bright, members, onArea }) {
  const [open, setOpen] = useState(false);
  const ids = bright && largest(bright, members, MOST_IN_LINK).join(",");
  const cut = bright && bright.length > MOST_IN_LINK ? ` (the ${count(MOST_IN_LINK)} largest)` : "";
  const inView = (e) => {
    const { picture } = e.currentTarget.closest(".picture").querySelector("canvas");
    const clamped = (p) => p.map((v) => Math.min(1, Math.max(0, v)));
    const a = clamped(picture.scene.under([0, 0], picture.view)), b = clamped(picture.scene.under([picture.width, picture.height], picture.view));
    onArea(rectangle(a, b));
  };
  return html`${bright ? html`<span class="chosen-area"><b>${plural(bright.length, "region")} chosen</b>${bright.length ? html` · <a href=${href(["d", d.slug, "regions"], { ids })}>list${cut}</a> · <a href=${href(["d", d.slug, "sphere"], { ids })}>on the sphere${cut}</a>` : null}
      <button type="button" class="quiet" onClick=${() => onArea(null)}>let go</button></span>` : html`<span class="note">Shift and drag chooses a rectangle.</span>`}
    <button type="button" class="quiet" onClick=${inView}>choose all in view</button><button type="button" class="quiet" aria-expanded=${open} onClick=${() => setOpen(!open)}>by numbers</button>
    ${open ? html`<${Numbers} area=${area} onArea=${onArea} />` : null}`;
}

const SIDES = ["left", "top", "right", "bottom"];

/** A rectangle by its sides, in percent of the map. */
function Numbers({ area, onArea }) {
  const now = area ? writeArea(area).split(",") : [];
  const start = now.length === 4 ? now : ["25", "25", "75", "75"];
  const submit = (e) => {
    e.preventDefault();
    const [x0, y0, x1, y1] = SIDES.map((side) => e.currentTarget.elements[side].valueAsNumber / 100);
    if ([x0, y0, x1, y1].every(Number.isFinite)) onArea(rectangle([Math.min(x0, x1), Math.min(y0, y1)], [Math.max(x0, x1), Math.max(y0, y1)]));
  };
  return html`<form class="by-numbers" aria-label="A rectangle, in percent of the map" onSubmit=${submit}>${SIDES.map((side, i) => html`<label key=${side}>${side} <input name=${side} type="number" min="0" max="100" step="any" required value=${start[i]} /> %</label>`)}<button type="submit" class="button">choose</button></form>`;
}
