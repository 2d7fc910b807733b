/** The projected sphere of a dictionary: loading it, and showing it large or small. */
import { html, useEffect, useMemo, useRef, useState } from "app/html";
import { getBinary, useLoaded } from "app/api";
import { loadColumns } from "app/state";
import { readSafetensors } from "app/safetensors";
import { SphereScene } from "app/scenes";
import { Turn } from "app/cameras";
import { COLOURS, colouring, telling } from "app/colour";
import { PictureBox } from "app/picture-box";
import { percent } from "app/format";
import { Badge } from "app/ui";

/** @type {Map<string, Promise<SphereScene>>} */
const scenes = new Map();

/** The scene of a dictionary, made once; each view has a camera of its own. */
export function loadSphere({ slug, fingerprint, k }) {
  const path = `/d/${encodeURIComponent(slug)}/sphere/${fingerprint}`;
  if (!scenes.has(path)) {
    const loading = getBinary(path).then((buffer) => {
      const { tensors, metadata } = readSafetensors(buffer);
      const scene = new SphereScene(tensors, k);
      scene.about = JSON.parse(metadata.about ?? "{}");
      return scene;
    });
    loading.catch(() => scenes.delete(path));
    scenes.set(path, loading);
  }
  return scenes.get(path);
}

export function useSphere(d) {
  const answer = useLoaded(`${d.slug}/${d.fingerprint}`, () => loadSphere(d));
  const scene = useMemo(() => {
    if (!answer.data) return null;
    const mine = Object.create(answer.data);
    mine.camera = new Turn();
    return mine;
  }, [answer.data]);
  return { ...answer, scene };
}

/** A colouring by a column, or by the first that there is. */
export function useColouring(columns, wanted) {
  return useMemo(() => {
    if (!columns) return null;
    const name = columns[wanted] ? wanted : COLOURS.find((c) => columns[c]) ?? Object.keys(columns)[0];
    return name ? colouring(name, telling(columns, name)) : null;
  }, [columns, wanted]);
}

/** How far the picture keeps what is true in all dimensions, in words. */
export const fidelityText = (about, what = "projected") => [what,
  about?.nn10 === null || about?.nn10 === undefined ? "" : `keeps ${percent(about.nn10, 0)} of 10 nearest`,
  about?.variance === null || about?.variance === undefined ? "" : `${percent(about.variance, 0)} of variance`].filter(Boolean).join(" · ");

export function Fidelity({ about, what }) {
  if (!about) return null;
  return html`<${Badge} kind="caution" title="A picture of three principal directions. Cells are those of the projected exemplars, not of the partition; the share says how many of the ten true nearest regions are still among the ten nearest here.">${fidelityText(about, what)}</${Badge}>`;
}

/** A still picture for a card, drawn when it comes into view. */
export function TinySphere({ d }) {
  const ref = useRef(null);
  const [near, setNear] = useState(false);
  useEffect(() => {
    const watch = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && setNear(true));
    watch.observe(ref.current);
    return () => watch.disconnect();
  }, []);
  return html`<div class="tiny" ref=${ref} aria-hidden="true">${near ? html`<${Tiny} d=${d} />` : null}</div>`;
}

function Tiny({ d }) {
  const { scene } = useSphere(d);
  const columns = useLoaded(`${d.slug}/${d.fingerprint}`, () => loadColumns(d));
  const of = useColouring(columns.data, "coherence");
  if (!scene || !of) return null;
  return html`<${PictureBox} d=${d} scene=${scene} colouring=${of} name="Sphere" still small list=${false} />`;
}

