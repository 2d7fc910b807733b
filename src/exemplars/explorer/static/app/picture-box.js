/** A picture on the page, with what belongs to it: legend, list of the regions in view, reasons. */
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "app/html";
import { useGet, cached } from "app/api";
import { announced, dark, hover, hovered, regionPath, select, selected, tray } from "app/state";
import { go, href } from "app/router";
import { cannotDraw, gpu } from "app/gl";
import { Picture } from "app/picture";
import { Legend } from "app/colour";
import { count, plural, theta } from "app/format";
import { Name, nameOf } from "app/card";
import { plain } from "app/text";
import { IconButton } from "app/ui";
import { falling } from "app/order";
import { SaveButton, savePicture } from "app/figures";

const NONE = [];

/** @param {{d: any, scene: any, colouring: any, name: string, filter?: any, onCamera?: (text: string) => void, camera?: string,
 *   labels?: any, still?: boolean, small?: boolean, members?: ArrayLike<number>, passage?: number[], points?: number[][],
 *   counterpart?: (pointed: {d: string, id: number}) => number | null, onMove?: () => void,
 *   figure?: any,
 *   onOver?: (id: number | null, gap: boolean) => void, onArea?: (corners: number[][]) => void, tool?: string, area?: number[][] | null, children?: any, list?: boolean}} props */
export function PictureBox({ d, scene, colouring, name, filter = null, onCamera, camera, labels, still = false, small = false, members, passage = NONE, points = NONE, onOver, onArea, tool = "pan", area = null, onChoose, onMove, counterpart = () => null, figure = small ? null : { of: d, name: scene.kind, said: name }, children, list = true }) {
  const canvas = useRef(null);
  const picture = useRef(/** @type {Picture | null} */ (null));
  const [state, setState] = useState(null);
  const [gap, setGap] = useState(false);
  const [drawn, setDrawn] = useState(0);
  const [rested, setRested] = useState(0);
  const broken = cannotDraw.value;
  const drawable = useMemo(() => gpu() !== null || broken !== null && /lost/.test(broken), [broken]);
  const mine = (p) => (p === null ? null : p.d === d.slug ? p.id : counterpart(p));
  const over = mine(hovered.value), chosen = mine(selected.value);
  const calls = useRef({}), looked = useRef(camera);
  calls.current = { onCamera, onOver, onArea, onChoose, onMove, labels };

  useLayoutEffect(() => {
    if (!drawable || !canvas.current) return undefined;
    if (camera) scene.camera.text = camera;
    const made = new Picture(canvas.current, scene, still ? {} : {
      onOver: (id, isGap) => {
        hover(d.slug, id);
        setGap(isGap);
        calls.current.onOver?.(id, isGap);
      },
      onChoose: (id) => (calls.current.onChoose ? calls.current.onChoose(id) : select(d.slug, id)),
      onOpen: (id) => go(href(["d", d.slug, "r", id])),
      onCamera: (text) => {
        looked.current = text;
        calls.current.onCamera?.(text);
      },
      onMove: () => calls.current.onMove?.(),
      onArea: (corners) => calls.current.onArea?.(corners),
      onState: (now) => setState((was) => (was?.shown === now.shown && was.complete === now.complete ? was : now)),
      onDrawn: (moving) => {
        if (calls.current.labels) setDrawn((n) => n + 1);
        if (!moving) setRested((n) => n + 1);
      },
    });
    made.still = still || small;
    picture.current = made;
    canvas.current.picture = made;
    return () => made.close();
  }, [scene, drawable]);
  useEffect(() => { // the address has another camera than the picture's own, as after going back
    if (!onCamera || camera === looked.current) return;
    looked.current = camera;
    if (camera) scene.camera.text = camera;
    else scene.camera.reset();
    picture.current?.redraw();
  }, [camera]);
  useEffect(() => { if (colouring) picture.current?.colourBy(colouring); }, [colouring, scene, drawable]);
  useEffect(() => { picture.current?.rethemed(); }, [dark.value]);
  useEffect(() => { picture.current?.filterBy(filter); }, [filter, scene, drawable]);
  useLayoutEffect(() => { if (picture.current) picture.current.tool = tool; }, [tool, scene, drawable]);
  const pins = tray.value.filter((p) => p.d === d.slug).map((p) => p.id);
  useEffect(() => { picture.current?.mark({ over, chosen, pins, passage, points, area, arcs: [] }); }, [over, chosen, String(pins), passage, points, area, scene, drawable]);
  useArcs(d, still ? null : over ?? chosen, picture);

  const key = (e) => {
    if (e.target !== e.currentTarget) return;
    if (e.key === "Enter" && chosen !== null) go(href(["d", d.slug, "r", chosen]));
    else if (!picture.current?.key(e.key)) return;
    e.preventDefault();
    e.stopPropagation();
  };
  if (!drawable) {
    return html`<div class="picture undrawn"><p class="problem" role="status">Cannot draw because ${broken}. The regions are listed instead.</p>${children}
      <${InView} d=${d} scene=${scene} members=${members} picture=${null} /></div>`;
  }
  return html`<div class=${`picture ${small ? "small" : ""}`}><div class="stage" tabindex=${still ? null : 0} role=${still ? "img" : "application"} aria-label=${`${name}${still ? "" : ". Arrows turn it, plus and minus come nearer or go farther, 0 returns."}`} onKeyDown=${still ? null : key}>
      <canvas ref=${canvas} aria-hidden="true" />
      ${labels ? html`<${Labels} labels=${labels} scene=${scene} picture=${picture} drawn=${drawn} d=${d} />` : null}
      ${broken ? html`<p class="problem over">Cannot draw because ${broken}.</p>` : null}
      ${gap ? html`<p class="over note gap-note">outside every region</p>` : null}</div>
    ${still || small ? null : html`<${ViewKeys} picture=${picture} />`}
    ${figure && !still ? html`<${SaveButton} what=${name} onSave=${() => savePicture(picture.current, figure, picture.current.placed)} />` : null}
    ${children}
    ${colouring && !still && !small ? html`<${Legend} of=${scene.shown ?? colouring} />` : null}
    ${state && !still && state.shown < state.of ? html`<p class="status" role="status">${count(state.shown)} of ${count(state.of)} while moving</p>` : null}
    ${list && !still && !small ? html`<${InView} d=${d} scene=${scene} members=${members} picture=${picture.current} drawn=${rested} />` : null}</div>`;
}

const VIEW_KEYS = [["ArrowLeft", "left", "Left"], ["ArrowRight", "right", "Right"], ["ArrowUp", "up", "Up"], ["ArrowDown", "down", "Down"],
  ["+", "plus", "Come nearer"], ["-", "minus", "Go farther"], ["0", "reset", "Start view"]];

/** What the keys do, for a pointer that cannot drag or a wheel that is not there. */
const ViewKeys = ({ picture }) => html`<div class="view-keys" role="group" aria-label="View">${VIEW_KEYS.map(([key, icon, label]) =>
  html`<${IconButton} key=${key} icon=${icon} label=${label} onClick=${() => picture.current?.key(key)} />`)}</div>`;

/** Arcs from the region in question to its eight true neighbours, asked for when one lingers. */
function useArcs(d, id, picture) {
  useEffect(() => {
    if (id === null) return undefined;
    let current = true;
    const timer = setTimeout(() => cached(`${regionPath(d.slug, id)}/neighbours?k=8`).then(
      (a) => current && picture.current?.mark({ arcs: a.rows.map((r) => r.id) }),
      () => undefined, // no arcs then; the inspector says why
    ), 140);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [d.slug, id]);
}

/** The fifty largest regions in view as a list box: hover and choice go both ways. */
function InView({ d, scene, members, picture, drawn }) {
  const ids = useMemo(() => largest(scene, members, picture), [scene, members, drawn]);
  const answer = useGet(ids.length ? `/d/${encodeURIComponent(d.slug)}/regions?ids=${ids.join(",")}&_size=50` : null);
  const rows = useMemo(() => {
    const by = new Map((answer.data?.rows ?? []).map((r) => [r.id, r]));
    return ids.map((id) => by.get(id)).filter(Boolean);
  }, [answer.data, ids]);
  const [at, setAt] = useState(0);
  const list = useRef(null);
  const show = (k) => {
    const next = Math.max(0, Math.min(rows.length - 1, k));
    setAt(next);
    select(d.slug, rows[next].id);
    list.current.children[next]?.scrollIntoView({ block: "nearest" });
  };
  const near = async (id, back) => {
    const found = await cached(`${regionPath(d.slug, id)}/neighbours?k=8`);
    const next = found.rows[back ? 0 : 1];
    if (next === undefined) return;
    select(d.slug, next.id);
    picture?.faces(next.id);
    announced.value = `Region ${next.id}, ${nameOf(next)}, ${plural(next.member_count, "member")}, ${theta(next.theta_ratio)} from the one before.`;
  };
  const down = (e) => {
    const step = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[e.key];
    const id = selected.peek()?.d === d.slug ? selected.peek().id : rows[at]?.id; // the chosen one may be out of view
    if (step !== undefined && rows.length) show(step);
    else if (id === undefined) return;
    else if (e.key === "ArrowLeft" || e.key === "[") near(id, true);
    else if (e.key === "ArrowRight" || e.key === "]") near(id, false);
    else if (e.key === "Enter") go(href(["d", d.slug, "r", id]));
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  const chosen = selected.value?.d === d.slug ? selected.value.id : null, over = hovered.value?.d === d.slug ? hovered.value.id : null;
  return html`<section class="in-view" aria-label="Regions in view"><h2>In view <small>largest first</small></h2>
    <ul role="listbox" tabindex="0" ref=${list} aria-label="Regions in view, largest first" aria-activedescendant=${rows[at] ? `view-${rows[at].id}` : null} onKeyDown=${down}>${rows.map((row, i) => html`<li key=${row.id} id=${`view-${row.id}`} role="option"
      aria-selected=${row.id === chosen} class=${row.id === over ? "lit" : ""} onMouseEnter=${() => hover(d.slug, row.id)} onMouseLeave=${() => hover(d.slug, null)} onClick=${() => { setAt(i); select(d.slug, row.id); picture?.faces(row.id); }} onDblClick=${() => go(href(["d", d.slug, "r", row.id]))}>
      <${Name} row=${row} /><span class="num">${count(row.member_count)}</span></li>`)}</ul></section>`;
}

/** Regions by members, the largest first, sorted once for each column.
 * @type {WeakMap<object, Uint32Array>} */
const orders = new WeakMap();

function bySize(members, k) {
  if (!members) return Uint32Array.from({ length: k }, (_, i) => i);
  if (!orders.has(members)) orders.set(members, falling(Uint32Array.from(members)));
  return orders.get(members);
}

/** The fifty largest regions in view, or of all where there is no picture. */
function largest(scene, members, picture) {
  const out = [];
  for (const id of bySize(members, scene.k)) {
    if (picture) {
      const at = scene.kind === "slice" && !scene.byId.has(id) ? null : scene.place(id, picture.view);
      if (!at || at[0] < 0 || at[1] < 0 || at[0] > picture.width || at[1] > picture.height) continue;
    }
    if (out.push(id) === 50) break;
  }
  return out;
}

/** Names on the picture, the first that fit. They are text of the page, not of the canvas. */
function Labels({ labels, scene, picture, drawn, d }) {
  const p = picture.current;
  const placed = useMemo(() => {
    if (!p) return [];
    const taken = [], out = [];
    for (const label of labels) {
      if (out.length >= 60) break;
      const at = label.y3 ? scene.placeOf(label.y3, p.view) : label.xy ? scene.placeOf(label.xy, p.view) : scene.place(label.id, p.view);
      if (!at || at[0] < 0 || at[1] < 0 || at[0] > p.width || at[1] > p.height) continue;
      const text = plain(label.text, 26).trim();
      if (!text) continue;
      const w = text.length * 6.4 + 10, h = 17;
      const box = [at[0] - w / 2, at[1] - h / 2, at[0] + w / 2, at[1] + h / 2];
      if (box[0] < 0 || box[2] > p.width || taken.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1])) continue;
      taken.push(box);
      out.push({ ...label, text, at });
    }
    p.placed = out;
    return out;
  }, [labels, scene, drawn, p]);
  return html`<div class="labels" aria-hidden="true">${placed.map((label) => html`<bdi key=${`${label.id}${label.text}`} dir="auto" translate="no" class=${label.named ? "named" : ""} style=${{ transform: `translate(${label.at[0].toFixed(1)}px, ${label.at[1].toFixed(1)}px) translate(-50%, -50%)` }}>${label.text}</bdi>`)}</div>`;
}
