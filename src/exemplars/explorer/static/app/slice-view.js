/** Exact slices: the true partition, cut by a three-dimensional subspace. */
import { html, useEffect, useMemo, useState } from "app/html";
import { send, useLoaded } from "app/api";
import { SliceScene } from "app/scenes";
import { useColumns } from "app/dictionary";
import { useColouring } from "app/sphere-view";
import { PictureBox } from "app/picture-box";
import { percent } from "app/format";
import { Badge, Problem, Waiting } from "app/ui";

/** @type {Map<string, Promise<any>>} */
const slices = new Map();

/** "pca.0.1.2", "r.12.88.301", "local.12", "random.7", "run.ID.3.4.5" → what the server takes. */
export function basisOf(text) {
  const [kind, ...rest] = String(text || "pca.0.1.2").split(".");
  const n = rest.map(Number).filter(Number.isFinite);
  if (kind === "r") return { kind: "regions", ids: n.slice(0, 3) };
  if (kind === "local") return { kind: "local", id: n[0] };
  if (kind === "random") return { kind: "random", seed: n[0] ?? 0 };
  if (kind === "run") return { kind: "run", run: rest[0], positions: rest.slice(1, 4).map(Number) };
  return { kind: "pca", components: n.length === 3 ? n : [0, 1, 2] };
}

export function loadSlice(slug, basis) {
  const key = `${slug} ${JSON.stringify(basis)}`;
  if (!slices.has(key)) {
    const loading = send("POST", `/d/${encodeURIComponent(slug)}/slice`, { basis });
    loading.catch(() => slices.delete(key));
    slices.set(key, loading);
    if (slices.size > 40) slices.delete(slices.keys().next().value);
  }
  return slices.get(key);
}

export function useSlice(d, text, span = 0) {
  const basis = basisOf(text);
  const answer = useLoaded(text === null ? null : `${d.slug} ${JSON.stringify(basis)}`, () => loadSlice(d.slug, basis));
  const scene = useMemo(() => (answer.data ? new SliceScene(answer.data, d.k, span) : null), [answer.data]);
  return { ...answer, scene };
}

/** Names of the cells with the largest share, and of the directions that were asked for. */
export function sliceLabels(answer) {
  const marks = (answer.marks ?? []).map((m) => ({ id: m.id ?? -1, text: m.text, y3: m.y, named: true }));
  return [...marks, ...(answer.labels ?? []).map((l) => ({ id: l.id, text: l.text, y3: l.y }))];
}

export const Coverage = ({ answer }) => html`<${Badge} kind="exact" title="A true cross-section: every point of it lies in the region that owns it in all dimensions.">exact slice</${Badge}>
  <${Badge} title="The rest is hatched: it lies farther than θ from every exemplar.">${percent(answer.covered_fraction, 0)} inside θ</${Badge}>`;

/** Radians from the exemplar to the edge of its portrait. */
const PORTRAIT_SPAN = 2;

/** A region among its true neighbours, as the partition really is around it. */
export function Portrait({ d, id }) {
  const [painted, setPainted] = useState(false);
  useEffect(() => setPainted(true), []); // after a paint: cutting takes all cores of the server, and what stands above is shown first
  const slice = useSlice(d, painted ? `local.${id}` : null, PORTRAIT_SPAN);
  const columns = useColumns(d);
  const of = useColouring(columns.data, "coherence");
  if (slice.error) return html`<${Problem} error=${slice.error} />`;
  if (!slice.scene || !of) return html`<${Waiting} what="Cutting" />`;
  return html`<${Drawn} d=${d} slice=${slice} of=${of} id=${id} columns=${columns.data} />`;
}

function Drawn({ d, slice, of, id, columns }) {
  useMemo(() => {
    const mark = (slice.data.marks ?? []).find((m) => m.id === id);
    if (mark) slice.scene.camera.face(mark.y);
    else slice.scene.faces(id);
  }, [slice.scene]);
  const labels = useMemo(() => sliceLabels(slice.data), [slice.data]);
  return html`<${PictureBox} d=${d} scene=${slice.scene} colouring=${of} name=${`Exact slice around region ${id}, unrolled: the distance from the middle is the angle`} small list=${false} labels=${labels} members=${columns.member_count} figure=${{ of: d, name: `portrait-${id}`, said: `Exact slice around region ${id}, unrolled: the distance from the middle is the angle; dashed: θ; hatched: outside every region` }}>
    <p class="badges"><${Coverage} answer=${slice.data} /></p>
    <p class="note">Unrolled about the exemplar: the distance from the middle is the angle to it. Dashed: θ. Hatched: outside every region.</p></${PictureBox}>`;
}
