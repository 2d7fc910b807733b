/** What an exported file holds of texts, steering and drift: made before, and said so. */
import { html, useMemo, useState } from "app/html";
import { useGet } from "app/api";
import { about } from "app/state";
import { href, route, setQuery } from "app/router";
import { count, fixed, isNumber, significant } from "app/format";
import { Histogram } from "app/charts";
import { Badge, Choice, Empty, Loaded, Section, Select } from "app/ui";
import { Name } from "app/card";
import { Token, plain } from "app/text";
import { Passage } from "app/text-page";
import { Answer } from "app/steer-page";
import { DriftFigures, PairsTable } from "app/drift-page";
import { Inspector } from "app/frame";

/** "model, revision, dtype, seed", as far as they are known. */
const made = (x) => [x.model ?? "a model without a name", x.revision ? `revision ${x.revision}` : null, x.site, x.dtype, x.seed === null || x.seed === undefined ? null : `seed ${x.seed}`].filter(Boolean).map((s) => plain(s, 80)).join(" · ");

/** Says that this was made when the file was, and by what. */
const FrozenBadge = ({ of, name = "" }) => html`<p class="badges"><${Badge} title="Made when this file was written; nothing is computed here.">frozen</${Badge}><span class="note">${name}${made(of)}${about.value?.export?.created ? `, in a file made ${plain(about.value.export.created, 30)}` : ""}.</span></p>`;

/** The number in the address, or the first. */
function useChosen(n) {
  const asked = Number(route.value.query.frozen ?? 0);
  return Number.isInteger(asked) && asked >= 0 && asked < n ? asked : 0;
}

const Which = ({ label, names, chosen }) => names.length > 1 ? html`<${Select} label=${label} value=${String(chosen)} options=${names.map((name, i) => [String(i), `${i + 1}. ${plain(name, 70)}`])} onChange=${(i) => setQuery({ frozen: i === "0" ? null : i }, { replace: false })} />` : null;

export function FrozenText({ d }) {
  const { traces } = d.frozen, chosen = useChosen(traces.length);
  const [mode, setMode] = useState("region");
  const answer = useGet(`/d/${encodeURIComponent(d.slug)}/frozen/trace/${chosen}`);
  return html`<div class="page with-inspector text-page"><div><h1>Live text</h1>
    <div class="controls"><${Which} label="Text" names=${traces} chosen=${chosen} /><${Choice} label="Colour by" value=${mode} options=${[["region", "Regions"], ["distance", "Distance"]]} onChange=${setMode} /></div>
    <${Loaded} answer=${answer}>${(found) => html`<${FrozenBadge} of=${found.about} /><${Passage} key=${chosen} d=${d} trace=${found} mode=${mode} />`}</${Loaded}></div>
    <${Inspector} hint="Point at a token to see its region here." /></div>`;
}

/** An answer as the page for steering keeps it while it is written. */
const column = (answer, i) => ({ key: String(i), name: plain(answer.name, 60), tokens: answer.tokens, scores: new Map(answer.tokens.map((t) => [t.i, t])), end: answer.end ?? { reason: "stopped" } });

const said = (x) => [x.op === "ablate" ? "take out" : x.op, isNumber(x.strength) && x.op !== "ablate" ? `${fixed(x.strength)}×` : null, x.positions].filter(Boolean).map((s) => plain(s, 30)).join(" ");

export function FrozenSteer({ d }) {
  const { sessions } = d.frozen, chosen = useChosen(sessions.length);
  const [diff, setDiff] = useState(true);
  const answer = useGet(`/d/${encodeURIComponent(d.slug)}/frozen/session/${chosen}`);
  return html`<div class="page steer"><h1>Steer</h1><div class="controls"><${Which} label="Session" names=${sessions} chosen=${chosen} /><label class="check"><input type="checkbox" checked=${diff} onChange=${(e) => setDiff(e.currentTarget.checked)} /> mark where they part from the baseline</label></div>
    <${Loaded} answer=${answer}>${(found) => html`<${FrozenBadge} of=${found.about} /><${Session} d=${d} found=${found} diff=${diff} />`}</${Loaded}></div>`;
}

function Session({ d, found, diff }) {
  const { asked } = found;
  const columns = useMemo(() => found.answers.map(column), [found]);
  const messages = asked.messages ?? [{ role: "prompt", content: asked.prompt ?? "" }];
  return html`<section class="section" aria-label="What was asked">${messages.map((m, i) => html`<p key=${i} class="passage"><small>${plain(m.role, 20)}</small> <${Token} text=${m.content} /></p>`)}
      <p class="note">At most ${count(asked.max_new_tokens)} tokens, temperature ${significant(asked.temperature)}, seed ${count(asked.seed)}.</p>
      <ol class="plain" aria-label="Variants">${asked.variants.map((v, i) => html`<li key=${i}>${v.items.map((x, j) => html`<span key=${j}>${j ? ", " : ""}${said(x)} of <${Place} d=${d} row=${x} id=${x.region}>region ${x.region}</${Place}></span>`)}</li>`)}</ol></section>
    <h2>Answers</h2><div class=${`answers ${columns.length > 5 ? "rows" : ""}`}>${columns.map((c) => html`<${Answer} key=${c.key} column=${c} baseline=${columns[0]} diff=${diff} />`)}</div>`;
}

/** A link to a region's page where the file has it. */
function Place({ d, id, children }) {
  const answer = useGet(`/d/${encodeURIComponent(d.slug)}/regions?ids=${id}&_size=1`);
  return answer.data?.rows?.length ? html`<a href=${href(["d", d.slug, "r", id])}>${children}</a>` : children;
}

const KINDS = [["moved", "Moved"], ["dropped", "Dropped"], ["introduced", "Introduced"], ["kept", "Kept"]];

export function FrozenDrift() {
  const answer = useGet("/frozen/drift");
  return html`<div class="page"><h1>Drift</h1><${Loaded} answer=${answer}>${(x) => html`<${Summary} x=${x} />`}</${Loaded}></div>`;
}

function Summary({ x }) {
  const [kind, setKind] = useState("moved");
  const own = about.value.dictionaries[0];
  const titles = x.titles.map((t) => plain(t, 50)), found = x.pairs[kind];
  const side = (k, row) => (k === 0 ? html`<${Place} d=${own} id=${row.id}><${Name} row=${row} /></${Place}>` : html`<${Name} row=${row} />`);
  return html`<p class="note"><a href=${href(["d", own.slug])}>${titles[0]}</a> → ${titles[1]}</p>${x.about.map((of, i) => html`<${FrozenBadge} key=${i} of=${of} name=${`${titles[i]}: `} />`)}
    <${DriftFigures} of=${x} counts=${x.counts} />
    <p class="badges"><${Badge} title="How regions were matched">${plain(x.method, 120)}</${Badge}>${x.comparable.warnings.map((w, i) => html`<${Badge} key=${i} kind="caution">${plain(w, 300)}</${Badge}>`)}</p>
    <${Section} title="Cosines of matched regions" id="cosines" table=${() => ({ head: ["from", "to", "pairs"], rows: x.cosines.counts.map((n, i) => [fixed(x.cosines.bins[i]), fixed(x.cosines.bins[i + 1]), count(n)]), numeric: [0, 1, 2] })}>${() => html`<${Histogram} ...${x.cosines} mark=${x.cutoff} markName="counts as kept" name="Cosines of matched regions" height=${160} />`}</${Section}>
    <${Section} title="Regions" id="pairs">${() => html`<div class="controls"><${Choice} label="Which" value=${kind} options=${KINDS} onChange=${setKind} /><span class="note">${count(found.rows.length)} of ${count(found.count)}</span></div>
      ${found.rows.length ? html`<${PairsTable} key=${kind} rows=${found.rows} titles=${titles} side=${side} />` : html`<${Empty}>None.</${Empty}>`}`}</${Section}>`;
}
