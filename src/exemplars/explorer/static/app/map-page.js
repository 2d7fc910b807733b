/** The map, large. */
import { html } from "app/html";
import { route, setQuery, href, go } from "app/router";
import { useColumns } from "app/dictionary";
import { useColouring } from "app/sphere-view";
import { MapPicture } from "app/map-view";
import { ColourChoice, FilterField, useFilter } from "app/sphere-page";
import { CopyButton, Problem, Waiting } from "app/ui";
import { Inspector } from "app/frame";

const MOST_IN_LINK = 200;

export function MapPage({ d }) {
  const { query } = route.value;
  const columns = useColumns(d, query.colour ?? null);
  const of = useColouring(columns.data, query.colour ?? "coherence");
  const filter = useFilter(d);
  const boxed = (ids) => ids.length && go(href(["d", d.slug, "regions"], { ids: ids.slice(0, MOST_IN_LINK).join(",") }));
  return html`<div class="page full with-inspector"><div class="stagewrap"><header class="controls"><h1 class="unseen">Map</h1>
      <${ColourChoice} d=${d} columns=${columns.data} value=${of?.column ?? "coherence"} /><${FilterField} filter=${filter} /><span class="spring" /><${CopyButton} label="copy link" text=${() => location.href} /></header>
    ${columns.error ? html`<${Problem} error=${columns.error} />` : !of ? html`<${Waiting} what="Loading the columns" />`
      : html`<${MapPicture} d=${d} of=${of} columns=${columns.data} filter=${filter.ids} camera=${query.cam} onCamera=${(cam) => setQuery({ cam })} onBox=${boxed} />`}</div>
    <${Inspector} /></div>`;
}
