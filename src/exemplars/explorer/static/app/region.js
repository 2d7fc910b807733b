/** One region: everything that is known of it, in sections that load as they come near. */
import { html, useEffect, useRef, useState } from "app/html";
import { useGet, getJson } from "app/api";
import { announced, lastList, regionPath, select, togglePin } from "app/state";
import { go, href } from "app/router";
import { useKeys } from "app/keys";
import { atPercentile, count, fixed, isNumber, percent, significant, theta } from "app/format";
import { Histogram, Shares } from "app/charts";
import { Badge, Choice, Empty, Figure, Loaded, RegionLink, Section } from "app/ui";
import { LabelEditor, Name, PinButton, PythonButton, nameOf, pinOf, pythonFor } from "app/card";
import { Context, Token, plain } from "app/text";
import { Portrait } from "app/slice-view";
import { NoteEditor } from "app/notes-page";
import { describe } from "app/dictionary";
import { Witness, WitnessBar, useWitnesses } from "app/witness";

export function RegionPage({ d, id }) {
  const answer = useGet(regionPath(d.slug, encodeURIComponent(id)));
  if (answer.error) return html`<div class="page narrow"><h1>Region ${plain(id)}</h1><p class="problem">${answer.error.message}.</p><p><a href=${href(["d", d.slug, "regions"])}>All regions</a></p></div>`;
  if (!answer.data) return html`<div class="page"><p class="waiting" role="status">Region ${plain(id)} …</p></div>`;
  return html`<${Page} key=${answer.data.id} d=${d} row=${answer.data} />`;
}

/** Neighbours in the list last shown, else by number. */
function beside(d, row) {
  const { d: of, ids } = lastList.value;
  const at = of === d.slug ? ids.indexOf(row.id) : -1;
  if (at < 0) return { previous: row.prev ?? (row.id > 0 ? row.id - 1 : null), next: row.next ?? (row.id + 1 < d.k ? row.id + 1 : null), by: "by number" };
  return { previous: ids[at - 1] ?? null, next: ids[at + 1] ?? null, by: "in the list" };
}

function Page({ d, row }) {
  const [labelling, setLabelling] = useState(false);
  const [fresh, setFresh] = useState(row);
  const [mark, setMark] = useState(null);
  const { previous, next, by } = beside(d, fresh);
  const path = regionPath(d.slug, row.id);
  const to = (id) => id !== null && id !== undefined && go(href(["d", d.slug, "r", id]));
  const relative = async (which) => {
    const found = (await getJson(`${path}/resolution`))[which]?.[0];
    if (found) go(href(["d", found.dict, "r", found.id]));
    else announced.value = which === "parents" ? "No coarser dictionary is open." : "No finer dictionary is open.";
  };
  const near = async (which) => {
    const { rows } = await getJson(`${path}/neighbours?k=20`);
    to(rows[which]?.id);
  };
  useKeys({
    j: () => to(next), k: () => to(previous), p: () => togglePin(pinOf(d.slug, fresh)), l: () => setLabelling(true), u: () => relative("parents"), d: () => relative("children"),
    "[": () => near(0), "]": () => near(1),
    c: () => navigator.clipboard.writeText(pythonFor(d.folder_name, row.id)).then(() => { announced.value = "Copied as Python."; }, () => { announced.value = "The browser did not allow the copy."; }),
  });
  useEffect(() => { select(d.slug, row.id); }, [row.id]);
  const labelButton = useRef(null);
  const done = async (changed) => {
    setLabelling(false);
    labelButton.current?.focus();
    if (changed) setFresh(await getJson(path));
  };
  const at = (more) => `${path}/${more}`;
  return html`<div class="page region"><header class="region-head">
      <div><p class="crumb"><a href=${href(["d", d.slug, "regions"])}>Regions</a> · <span class="key">${row.key}</span> · ${describe(d).map((s) => plain(s, 40)).join(" · ")}</p>
        <h1><${Name} row=${fresh} />${fresh.label ? html` <small><${Token} text=${fresh.token?.text} /></small>` : null}</h1></div>
      <div class="actions"><${PinButton} d=${d.slug} row=${fresh} /><button type="button" class="button" ref=${labelButton} aria-expanded=${labelling} onClick=${() => setLabelling(!labelling)}>label</button>
        <a class="button" href=${href(["d", d.slug, "steer"], { regions: row.id })}>steer</a><a class="button" href=${href(["d", d.slug, "steer"], { regions: row.id, op: "ablate" })}>ablate</a>
        <a class="button" href=${href(["d", d.slug, "sphere"], { mode: "slice", basis: `local.${row.id}` })}>slice</a><${PythonButton} folder=${d.folder_name} id=${row.id} />
        <span class="pager" title=${by}><a class="button" aria-disabled=${previous === null} href=${previous === null ? null : href(["d", d.slug, "r", previous])} aria-label="Previous region">‹</a><a class="button" aria-disabled=${next === null} href=${next === null ? null : href(["d", d.slug, "r", next])} aria-label="Next region">›</a></span></div>
    </header>
    ${labelling ? html`<${LabelEditor} d=${d.slug} row=${fresh} onDone=${done} />` : null}
    <dl class="figures"><${Figure} name="members" value=${count(row.member_count)} note=${percent(row.share, 2)} /><${Figure} name="coherence" value=${fixed(row.coherence, 3)} />
      <${Figure} name="mean distance" value=${theta(row.dist_theta?.mean ?? row.mean_dist_theta)} /><${Figure} name="95th percentile" value=${theta(row.dist_theta?.p95 ?? row.p95_dist_theta)} />
      <${Figure} name="founded at token" value=${count(row.first_seen)} /><${Figure} name="θ" value=${fixed(d.theta, 3)} note=${atPercentile(d.percentile)} /></dl>
    <div class="two"><div class="col">
      <${Section} title="Exemplar in context" id="exemplar" note=${place(row.exemplar)}>${() => html`<p class="passage"><${Context} ...${row.exemplar?.context ?? row.context ?? {}} around=${400} lines /></p>`}</${Section}>
      <${Members} d=${d} row=${row} path=${at("members")} onMark=${setMark} />
      <${Distances} d=${d} path=${at("histogram")} mark=${mark} row=${row} />
      <${Neighbours} d=${d} row=${row} path=${at("neighbours")} />
    </div><div class="col slim">
      <${Section} title="Portrait" id="portrait" note="exact local slice">${() => html`<${Portrait} d=${d} id=${row.id} />`}</${Section}>
      <${LensSection} path=${at("lens")} />
      <${Makeup} path=${at("tokens")} />
      <${Resolution} d=${d} path=${at("resolution")} />
      <${Checkpoint} d=${d} row=${row} />
      <${Section} title="Notes" id="notes">${() => html`<${NoteEditor} d=${d.slug} id=${row.id} />`}</${Section}>
    </div></div></div>`;
}

const place = (x) => [x?.name ?? (isNumber(x?.doc) ? `document ${count(x.doc)}` : null), isNumber(x?.position) ? `token ${count(x.position)}` : null].filter(Boolean).map((s) => plain(s, 60)).join(", ");

const AROUND = { stacked: 28, snippet: 90, full: Infinity };
const BANDS = ["0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1"];

function Members({ d, row, path, onMark }) {
  const [kind, setKind] = useState("nearest");
  const [band, setBand] = useState(BANDS[1]);
  const [size, setSize] = useState("snippet");
  const [collapse, setCollapse] = useState(true);
  const answer = useGet(`${path}?kind=${kind}${kind === "band" ? `&band=${band}` : ""}&_size=20${collapse ? "&collapse=1" : ""}`);
  const rows = answer.data?.rows ?? [];
  return html`<${Section} title="Members" id="members" note=${`${count(row.member_count)} in all${answer.data ? `, ${count(answer.data.kept ?? rows.length)} with their text kept` : ""}`}
    table=${() => ({ head: ["distance in θ", "document", "position", "text"], rows: rows.map((m) => [fixed(m.theta_ratio, 3), String(m.name ?? m.doc ?? ""), m.position, m.text]), numeric: [0, 2] })}>${() => html`
    <div class="controls"><${Choice} label="Which members" value=${kind} options=${[["nearest", "Nearest"], ["farthest", "Farthest"], ["random", "Random"], ["band", "By distance"]]} onChange=${setKind} />
      ${kind === "band" ? html`<${Choice} label="Distance in θ" value=${band} options=${BANDS.map((b) => [b, b.replace("-", "–")])} onChange=${setBand} />` : null}
      <${Choice} label="How much text" value=${size} options=${[["stacked", "Stacked"], ["snippet", "Snippet"], ["full", "Full"]]} onChange=${setSize} />
      <label class="check"><input type="checkbox" checked=${collapse} onChange=${(e) => setCollapse(e.currentTarget.checked)} /> collapse duplicates</label></div>
    <${Loaded} answer=${answer} what="Members">${() => rows.length ? html`<ol class=${`members ${size}`}>${rows.map((m, i) => html`<li key=${i} onMouseEnter=${() => onMark(m.theta_ratio)} onMouseLeave=${() => onMark(null)}>
        <span class=${`num ${m.theta_ratio > 1 ? "outside" : ""}`} title="distance to the exemplar">${fixed(m.theta_ratio)} θ</span><${Context} text=${m.text} span=${m.span ?? m.tokens?.[m.hit ?? 0]} around=${AROUND[size]} lines=${size === "full"} />
        ${m.duplicates > 1 ? html`<span class="note">×${m.duplicates}</span>` : null}${m.exemplar ? html`<${Badge}>exemplar</${Badge}>` : null}
        <a class="quiet hoverable" href=${href(["d", d.slug, "text"], { q: String(m.text ?? "").slice(0, 600) })}>live text</a></li>`)}</ol>` : html`<${Empty}>No member of this kind has its text kept.</${Empty}>`}</${Loaded}>`}</${Section}>`;
}

function Distances({ d, path, mark, row }) {
  const answer = useGet(path);
  const h = answer.data;
  return html`<${Section} title="Distances" id="distances" note="of all members to the exemplar" figure=${{ of: d, name: `distances-${row.id}`, said: `Distances of the ${count(row.member_count)} members of region ${row.id} (${nameOf(row)}) to its exemplar, in θ` }}
    table=${() => ({ head: ["from θ", "to θ", "members"], rows: (h?.counts ?? []).map((n, i) => [fixed(h.bins[i], 3), fixed(h.bins[i + 1], 3), count(n)]), numeric: [0, 1, 2] })}>${() => html`
    <${Loaded} answer=${answer}>${() => html`<${Histogram} bins=${h.bins} counts=${h.counts} mark=${1} markName="θ" at=${mark} unit="θ" name=${`Distances of ${count(row.member_count)} members to the exemplar, in θ`} />`}</${Loaded}>`}</${Section}>`;
}

function LensSection({ path }) {
  const [direction, setDirection] = useState("exemplar");
  const answer = useGet(`${path}?direction=${direction}&k=12`);
  const list = (name, rows) => html`<div><h3>${name}</h3><ol class="lens-list">${(rows ?? []).map((t, i) => html`<li key=${i}><${Token} text=${t.text ?? t} /><span class="num">${isNumber(t.value) ? significant(t.value) : ""}</span></li>`)}</ol></div>`;
  return html`<${Section} title="Logit lens" id="lens" table=${() => ({ head: ["", "token", "value"], rows: ["promoted", "suppressed"].flatMap((k) => (answer.data?.[k] ?? []).map((t) => [k, t.text ?? t, t.value ?? ""])) })}>${() => html`
    <div class="controls"><${Choice} label="Direction" value=${direction} options=${[["exemplar", "Exemplar"], ["mean", "Mean of members"]]} onChange=${setDirection} /></div>
    <${Loaded} answer=${answer}>${(a) => html`<div class="pair">${list("promoted", a.promoted)}${list("suppressed", a.suppressed)}</div>
      <p class="note">${a.normed ? "Through the model's final normalisation. " : "Without the final normalisation. "}${isNumber(a.entropy) ? `Lens entropy ${fixed(a.entropy)} nats. ` : ""}${a.source === "stored" ? "As kept when the dictionary was built." : ""}</p>`}</${Loaded}>`}</${Section}>`;
}

function Makeup({ path }) {
  const answer = useGet(path);
  return html`<${Section} title="Token make-up" id="makeup" note="is it one word or an idea?" table=${() => ({ head: ["token", "count", "share"], rows: (answer.data?.rows ?? []).map((t) => [t.text, t.count, percent(t.share)]), numeric: [1, 2] })}>${() => html`
    <${Loaded} answer=${answer}>${(a) => a.rows.length ? html`<${Shares} name="Shares of the tokens" parts=${a.rows.slice(0, 8).map((t) => ({ name: `${plain(t.text)}: ${percent(t.share, 0)}`, value: t.count }))} />
      <ol class="lens-list wide-list">${a.rows.slice(0, 10).map((t, i) => html`<li key=${i}><${Token} text=${t.text} /><span class="num">${percent(t.share, 0)}</span></li>`)}</ol><p class="note">${count(a.distinct)} distinct among ${count(a.sampled)} members whose text is kept.</p>` : html`<${Empty}>No texts were kept.</${Empty}>`}</${Loaded}>`}</${Section}>`;
}

function Neighbours({ d, row, path }) {
  const answer = useGet(`${path}?k=20`);
  const witnesses = useWitnesses(d, row.id);
  return html`<${Section} title="Neighbours" id="neighbours" note="the 20 true nearest, in all dimensions"
    table=${() => ({ head: ["region", "name", "members", "cosine", "wall at"], rows: (answer.data?.rows ?? []).map((n) => [n.id, nameOf(n), count(n.member_count), fixed(n.cosine, 3), isNumber(n.boundary?.wall_theta) ? theta(n.boundary.wall_theta) : ""]), numeric: [0, 2, 3, 4] })}>${() => html`
    <${Loaded} answer=${answer}>${(a) => html`<ol class="neighbours">${a.rows.map((n) => html`<li key=${n.id}><span class="num" title=${`cosine ${fixed(n.cosine, 4)}`}>${fixed(n.cosine, 3)}</span>
        <span class="who"><${RegionLink} d=${d.slug} id=${n.id}><${Name} row=${n} /></${RegionLink}><small>${n.id}</small></span><${Context} ...${n.context ?? {}} around=${40} class="one-line" />
        <small class="wall">${isNumber(n.boundary?.wall_theta) ? html`wall at ${theta(n.boundary.wall_theta)}${n.boundary.shared ? "" : ", not shared"}` : null}</small>
        <${Witness} of=${witnesses.by.get(n.id)} /></li>`)}</ol>
      <p class="note">Cosine of the two exemplars. The wall is where the two are equally near; where it is not shared, a third region lies between.</p><${WitnessBar} found=${witnesses} />`}</${Loaded}>`}</${Section}>`;
}

/** A share with its interval and what chance would give. */
const shareOf = (r) => (isNumber(r.share) ? `${percent(r.share, 0)} of this region's members (95 % interval ${percent(r.low, 0)} to ${percent(r.high, 0)}; by chance ${percent(r.share_by_chance, 1)})` : r.exemplar_inside ? "holds this region's exemplar; shares are not known in this direction" : "shares are not known in this direction");

function Resolution({ d, path }) {
  const answer = useGet(path);
  const line = (r) => html`<li key=${`${r.dict}/${r.id}`} title=${shareOf(r)}><span class="share-bar">${isNumber(r.share) ? html`<meter value=${r.share} min="0" max="1" aria-label=${shareOf(r)} />` : null}</span><span class="num">${isNumber(r.share) ? percent(r.share, 0) : ""}</span><a href=${href(["d", r.dict, "r", r.id])}><${Name} row=${r} /></a><small>${r.dict} ${r.id}, cosine ${fixed(r.cosine)}</small></li>`;
  return html`<${Section} title="Resolution" id="resolution" table=${() => ({ head: ["", "dictionary", "region", "share", "cosine"], rows: ["parents", "children"].flatMap((k) => (answer.data?.[k] ?? []).map((r) => [k === "parents" ? "coarser" : "finer", r.dict, r.id, isNumber(r.share) ? percent(r.share) : "", fixed(r.cosine, 3)])), numeric: [2, 3, 4] })}>${() => html`
    <${Loaded} answer=${answer}>${(a) => a.parents.length + a.children.length === 0 ? html`<${Empty}>No coarser or finer dictionary of this site is open.</${Empty}>` : html`
      ${a.parents.length ? html`<h3>Coarser</h3><ul class="relatives">${a.parents.map(line)}</ul>` : null}${a.children.length ? html`<h3>Finer</h3><ul class="relatives">${a.children.slice(0, 12).map(line)}</ul>` : null}
      <p class="note">Resolutions are not nested: shares say how much of one lies in the other. ${(a.notes ?? []).map((n) => plain(n, 200)).join(" ")}</p>`}</${Loaded}>`}</${Section}>`;
}

/** The best match in each checkpoint that is open. */
function Checkpoint({ d, row }) {
  const others = d.relations?.checkpoints ?? [];
  const answer = useGet(others.length ? `${regionPath(d.slug, row.id)}?_extra=drift` : null);
  if (!others.length) return null;
  return html`<${Section} title="Other checkpoint" id="checkpoint">${() => html`<${Loaded} answer=${answer}>${(a) => html`<ul class="relatives">${(a.drift?.rows ?? []).map((m) => html`<li key=${m.dict}>${m.match ? html`<a href=${href(["d", m.dict, "r", m.match.id])}><${Name} row=${m.match} /></a>` : html`<span>no match</span>`}<small>${m.dict}, cosine ${fixed(m.cosine, 3)}, by chance ${fixed(m.chance, 3)}${m.match && row.member_count ? `, members ×${significant(m.match.member_count / row.member_count, 2)}` : ""}</small></li>`)}</ul>
      ${others.map((to) => html`<p key=${to} class="note"><a href=${href(["drift", d.slug, to])}>What changed from here to ${plain(to, 40)}</a></p>`)}`}</${Loaded}>`}</${Section}>`;
}

