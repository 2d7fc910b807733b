/** The 2-D map: the same sphere unrolled, so that its neighbours are the sphere's; or another layout. */
import { html, useMemo } from "app/html";
import { getBinary, useLoaded } from "app/api";
import { readSafetensors } from "app/safetensors";
import { MapScene } from "app/scenes";
import { CellScene, DensityScene } from "app/map-scenes";
import { PictureBox } from "app/picture-box";
import { percent, plural } from "app/format";
import { Badge, Problem, Waiting } from "app/ui";

/** @type {Map<string, Promise<any>>} */
const kept = new Map();

function arrays(path) {
  if (!kept.has(path)) {
    const loading = getBinary(path).then((buffer) => {
      const { tensors, metadata } = readSafetensors(buffer);
      return { tensors, about: JSON.parse(metadata.about ?? "{}") };
    });
    loading.catch(() => kept.delete(path));
    kept.set(path, loading);
  }
  return kept.get(path);
}

const of = (kind, { slug, fingerprint }, name) => `/d/${encodeURIComponent(slug)}/${kind}/${name}/${fingerprint}`;

export const useLayout = (d, name) => useLoaded(of("layout", d, name), arrays);

const LAYER = {
  discs: ["Map of", "larger discs have more members"],
  cells: ["Cells of the map of", "each point has the colour of the region nearest to it on the map"],
  density: ["Density of the map of", "regions in a square"],
};
const LAYOUT = { unrolled: ["unrolled sphere", "The sphere of three principal directions, unrolled (Equal Earth)."], umap: ["UMAP", "Places by UMAP with the cosine distance: near is likely near, far says nothing."] };

/** What is said of how far a map is to be trusted. */
export const mapText = (layout, about) => `${LAYOUT[layout][0]}${about.nn10 === null || about.nn10 === undefined ? "" : ` · keeps ${percent(about.nn10, 0)} of 10 nearest`}`;

/** @param {{d: any, of: any, columns: any, small?: boolean, filter?: any, layout?: string, layer?: string, [key: string]: any}} props */
export function MapPicture({ d, of: colours, columns, small = false, layout = "unrolled", layer = "discs", passage, children, ...rest }) {
  const answer = useLayout(d, layout);
  const cells = useLoaded(layer === "cells" ? of("cells", d, layout) : null, arrays);
  const scene = useMemo(() => {
    if (!answer.data || (layer === "cells" && !cells.data)) return null;
    const { tensors, about } = answer.data, xy = tensors.xy.data;
    if (layer === "cells") return new CellScene(cells.data.tensors, xy, about);
    return new (layer === "density" ? DensityScene : MapScene)(xy, columns.member_count ?? [], about.aspect);
  }, [answer.data, cells.data, layer]);
  const labels = useMemo(() => (layer === "density" ? null : (answer.data?.about.labels ?? []).map((l) => ({ id: l.id, text: l.text, ...(l.x === undefined ? {} : { xy: [l.x / 65535, l.y / 65535] }) }))), [answer.data, layer]);
  const error = answer.error ?? (layer === "cells" ? cells.error : null);
  if (error) return html`<div class="picture undrawn"><${Problem} error=${error} /></div>`;
  if (!scene) return html`<${Waiting} what=${layer === "cells" ? "Finding the cells" : "Loading the map"} />`;
  const { about } = answer.data, name = `${LAYER[layer][0]} ${plural(d.k, "region")}`;
  return html`<${PictureBox} d=${d} scene=${scene} colouring=${colours} labels=${labels} members=${columns.member_count} small=${small} list=${!small} passage=${passage} name=${name} ...${small ? {} : { figure: { of: d, name: `map-${layer}`, said: `${name}: ${mapText(layout, about)}; ${LAYER[layer][1]}` } }} ...${rest}>
    <p class="badges"><${Badge} kind="caution" title=${`${LAYOUT[layout][1]} The share says how many of the ten true nearest regions are still among the ten nearest on this map.`}>${mapText(layout, about)}</${Badge}>${small ? null : html`<span class="note">${LAYER[layer][1]}</span>`}${children}</p></${PictureBox}>`;
}
