/** The 2-D map: the same sphere unrolled, so that its neighbours are the sphere's. */
import { html, useMemo } from "app/html";
import { getBinary, useLoaded } from "app/api";
import { readSafetensors } from "app/safetensors";
import { MapScene } from "app/scenes";
import { PictureBox } from "app/picture-box";
import { percent, plural } from "app/format";
import { Badge, Problem, Waiting } from "app/ui";

/** @type {Map<string, Promise<any>>} */
const layouts = new Map();

function loadLayout({ slug, fingerprint }, name) {
  const path = `/d/${encodeURIComponent(slug)}/layout/${name}/${fingerprint}`;
  if (!layouts.has(path)) {
    const loading = getBinary(path).then((buffer) => {
      const { tensors, metadata } = readSafetensors(buffer);
      return { xy: tensors.xy.data, about: JSON.parse(metadata.about ?? "{}") };
    });
    loading.catch(() => layouts.delete(path));
    layouts.set(path, loading);
  }
  return layouts.get(path);
}

/** @param {{d: any, of: any, columns: any, small?: boolean, filter?: any, [key: string]: any}} props */
export function MapPicture({ d, of, columns, small = false, layout = "unrolled", passage, ...rest }) {
  const answer = useLoaded(`${d.slug}/${d.fingerprint}/${layout}`, () => loadLayout(d, layout));
  const scene = useMemo(() => (answer.data ? new MapScene(answer.data.xy, columns.member_count ?? [], answer.data.about.aspect ?? 2.05) : null), [answer.data]);
  const labels = useMemo(() => (answer.data?.about.labels ?? []).map((l) => ({ id: l.id, text: l.text, ...(l.x === undefined ? {} : { xy: [l.x / 65535, l.y / 65535] }) })), [answer.data]);
  if (answer.error) return html`<div class="picture undrawn"><${Problem} error=${answer.error} /></div>`;
  if (!scene) return html`<${Waiting} what="Loading the map" />`;
  const { about } = answer.data;
  return html`<${PictureBox} d=${d} scene=${scene} colouring=${of} labels=${labels} members=${columns.member_count} small=${small} list=${!small} passage=${passage} name=${`Map of ${plural(d.k, "region")}`} ...${rest}>
    <p class="badges"><${Badge} kind="caution" title="The sphere of three principal directions, unrolled (Equal Earth).">unrolled sphere${about.nn10 === null || about.nn10 === undefined ? "" : ` · keeps ${percent(about.nn10, 0)} of 10 nearest`}</${Badge}>${small ? null : html`<span class="note">Larger discs have more members. Shift and drag marks a box.</span>`}</p></${PictureBox}>`;
}
