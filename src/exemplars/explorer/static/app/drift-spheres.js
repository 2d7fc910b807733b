/** A's and B's spheres in one basis, and the way from one to the other. One camera turns all. */
import { html, signal, useEffect, useLayoutEffect, useMemo, useRef, useState } from "app/html";
import { getBinary, useGet, useLoaded } from "app/api";
import { readSafetensors } from "app/safetensors";
import { calm, hovered, loadColumns, regionPath, select, selected } from "app/state";
import { href, route, setQuery } from "app/router";
import { SphereScene } from "app/scenes";
import { MorphScene } from "app/morph-scene";
import { colouring, Legend } from "app/colour";
import { count, fixed, percent } from "app/format";
import { KINDS, ofKind } from "app/matches";
import { Badge, Choice, Problem, Waiting } from "app/ui";
import { Fidelity, fidelityText, useSphere } from "app/sphere-view";
import { PictureBox } from "app/picture-box";
import { Name } from "app/card";

/** The region that another part of the page asks to be turned to. */
const turnTo = signal(null);
export function show(d, id) {
  select(d, id);
  turnTo.value = { d, id };
}

const SEEN = {
  "one center": ["exact", "same center", "Both were built about one center, so directions mean the same on both sides."],
  "moved to A's center": ["caution", "B moved to A’s center", "The centers differ. B's directions are drawn as A's center sees them, each at the median norm of its site, since a dictionary does not keep the norms of its exemplars."],
  "each from its own center": ["caution", "centers differ", "The centers differ, and B does not say how long its vectors are: its directions are drawn from its own center, so a place means another direction in B."],
};

function useBeside(asked, k) {
  return useLoaded(`sphere ${asked}`, async () => {
    const { tensors, metadata } = readSafetensors(await getBinary(`/drift/sphere?${asked}`));
    const scene = new SphereScene(tensors, k);
    scene.about = JSON.parse(metadata.about ?? "{}");
    return scene;
  });
}

/** One scale of colours for the cosines of both. */
function useMatchColours(c) {
  return useMemo(() => {
    const both = new Float32Array(c.cos_a.length + c.cos_b.length);
    both.set(c.cos_a);
    both.set(c.cos_b, c.cos_a.length);
    const of = colouring("match", both);
    return [{ ...of, steps: of.steps.slice(0, c.cos_a.length) }, { ...of, steps: of.steps.slice(c.cos_a.length) }];
  }, [c]);
}

export function DriftSpheres({ one, two, c, matches, kind, titles, asked }) {
  const a = useSphere(one), b = useBeside(asked, two.k);
  const columns = useLoaded(`${one.slug} ${two.slug}`, () => Promise.all([loadColumns(one), loadColumns(two)]));
  const colours = useMatchColours(c);
  const bright = useMemo(() => [ofKind(matches.a, kind), ofKind(matches.b, kind)], [matches, kind]);
  const scenes = useMemo(() => {
    if (!a.scene || !b.data) return null;
    const mine = Object.create(b.data);
    mine.camera = a.scene.camera;
    return [a.scene, mine];
  }, [a.scene, b.data]);
  const morph = useMemo(() => {
    if (!scenes || !columns.data) return null;
    const made = new MorphScene(scenes[0], scenes[1], matches.toB, columns.data.map((x) => x.member_count));
    made.camera = scenes[0].camera;
    return made;
  }, [scenes, columns.data, c]);
  const box = useRef(null);
  const pictures = () => [...(box.current?.querySelectorAll("canvas") ?? [])].map((canvas) => canvas.picture).filter(Boolean);
  const follow = (scene) => () => pictures().forEach((p) => p.scene !== scene && p.moved(true));
  useEffect(() => {
    const { d, id } = turnTo.value ?? {};
    if (!scenes || id === undefined) return;
    scenes[d === one.slug ? 0 : 1].faces(id);
    pictures().forEach((p) => p.moved(true));
    turnTo.value = null;
  }, [turnTo.value, scenes]);
  const error = a.error ?? b.error ?? columns.error;
  if (error) return html`<${Problem} error=${error} />`;
  if (!scenes || !morph) return html`<${Waiting} what="Turning B into the basis of A" />`;
  const inB = (p) => (p.d === one.slug && matches.toB[p.id] >= 0 ? matches.toB[p.id] : null);
  const inA = (p) => (p.d === two.slug && matches.toA[p.id] >= 0 ? matches.toA[p.id] : null);
  const said = (n, k) => (bright[n] ? `${count(bright[n].length)} ${kind} bright` : `${count(k)} regions`);
  const [badge, short, long] = SEEN[b.data.about.seen] ?? SEEN["one center"];
  const cam = { camera: route.peek().query.cam, onCamera: (text) => route.peek().path[0] === "drift" && setQuery({ cam: text }) };
  const figure = (n, d, about) => ({ of: [one, two], name: n ? "drift-b" : "drift-a", said: `${titles[n]} in the basis of ${titles[0]}; ${fidelityText(about)}${n ? `; ${short}` : ""}` });
  return html`<div ref=${box} class="drift-spheres">
    <figure><figcaption>A · ${titles[0]} <small>${said(0, one.k)}</small></figcaption><${PictureBox} d=${one} scene=${scenes[0]} colouring=${colours[0]} filter=${bright[0]} small list=${false} counterpart=${inA} onMove=${follow(scenes[0])} ...${cam} name=${`Sphere of A, ${titles[0]}`} figure=${figure(0, one, a.data.about)}>
      <p class="badges"><${Fidelity} about=${a.data.about} /></p></${PictureBox}></figure>
    <figure><figcaption>B · ${titles[1]} <small>${said(1, two.k)}</small></figcaption><${PictureBox} d=${two} scene=${scenes[1]} colouring=${colours[1]} filter=${bright[1]} small list=${false} counterpart=${inB} onMove=${follow(scenes[1])} onCamera=${cam.onCamera} name=${`Sphere of B, ${titles[1]}, in the basis of A`} figure=${figure(1, two, b.data.about)}>
      <p class="badges"><${Fidelity} about=${b.data.about} what="on A’s directions" /><${Badge} kind=${badge} title=${long}>${short}</${Badge}></p></${PictureBox}></figure>
    <${Morph} one=${one} two=${two} scene=${morph} colours=${colours[0]} bright=${bright[0]} inA=${inA} onMove=${follow(morph)} counts=${matches.counts} />
    <div class="drift-key"><${Legend} of=${colours[0]} /><${PairLine} one=${one} two=${two} c=${c} matches=${matches} /></div></div>`;
}

/** The slider from A to B, and what it moves. */
function Morph({ one, two, scene, colours, bright, inA, onMove, counts }) {
  const [t, setT] = useState(0);
  const box = useRef(null);
  useLayoutEffect(() => { // so that what is said is what is there
    scene.t = t;
    box.current?.querySelector("canvas")?.picture?.moved(true);
  }, [t, scene]);
  const matched = count(counts.kept + counts.moved);
  return html`<figure ref=${box}><figcaption>From A to B <small>${matched} matched regions move, ${count(counts.dropped)} dropped shrink</small></figcaption>
    <${PictureBox} d=${one} scene=${scene} colouring=${colours} filter=${bright} small list=${false} counterpart=${inA} onMove=${onMove} name=${`Regions on their way from A to B, ${percent(t, 0)} of it`} figure=${{ of: [one, two], name: "drift-between", said: `${percent(t, 0)} of the way from A to B; a dot is a region, as large as its members` }}>
      ${calm.value ? html`<div class="controls"><${Choice} label="Where between A and B" value=${String(t)} options=${[["0", "at A"], ["0.5", "half-way"], ["1", "at B"]]} onChange=${(v) => setT(+v)} /><span class="note">In steps, since your system asks for less motion.</span></div>`
        : html`<label class="check way">A <input type="range" min="0" max="1" step="0.01" value=${t} aria-label="From A to B" aria-valuetext=${`${percent(t, 0)} of the way from A to B`} onInput=${(e) => setT(+e.currentTarget.value)} /> B</label>`}</${PictureBox}></figure>`;
}

/** The pair that is pointed at, in words. */
function PairLine({ one, two, c, matches }) {
  const p = [hovered.value, selected.value].find((x) => x && (x.d === one.slug || x.d === two.slug)) ?? null;
  const left = p === null ? -1 : p.d === one.slug ? p.id : matches.toA[p.id];
  const right = p === null ? -1 : p.d === one.slug ? matches.toB[p.id] : p.id;
  const rows = [useGet(left >= 0 ? regionPath(one.slug, left) : null), useGet(right >= 0 ? regionPath(two.slug, right) : null)];
  if (p === null) return html`<p class="note pair-line">Point at a region to see it in both, or choose “show” in the table below. Drag to turn all three.</p>`;
  const side = (d, id, answer) => (id < 0 ? html`<b>none</b>` : html`<a href=${href(["d", d.slug, "r", id])}>${answer.data?.id === id ? html`<${Name} row=${answer.data} />` : `region ${id}`}</a> <small>${id}${answer.data?.id === id ? `, ${count(answer.data.member_count)} members` : ""}</small>`);
  const kind = KINDS[left >= 0 ? matches.a[left] : matches.b[right]];
  const cosine = left >= 0 && right >= 0 ? c.match_cos[left] : left >= 0 ? c.cos_a[left] : c.cos_b[right];
  return html`<p class="pair-line" role="status">A ${side(one, left, rows[0])} → B ${side(two, right, rows[1])} · ${kind} · ${left >= 0 && right >= 0 ? "cosine" : "nearest at cosine"} ${fixed(cosine, 3)}</p>`;
}
