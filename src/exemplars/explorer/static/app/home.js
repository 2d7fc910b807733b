/** All open dictionaries, and how they are related. */
import { html } from "app/html";
import { useLoaded } from "app/api";
import { about, dictionaries, loadDictionary } from "app/state";
import { href } from "app/router";
import { count, compact, fixed } from "app/format";
import { describe } from "app/dictionary";
import { plain } from "app/text";
import { Section } from "app/ui";
import { TinySphere } from "app/sphere-view";

function Card({ x }) {
  return html`<a class="card dictionary" href=${href(["d", x.slug])}>
    <${TinySphere} d=${x} />
    <div><h2>${plain(x.title || x.slug, 80)}</h2>${dictionaries.value.some((y) => y.slug !== x.slug && y.title === x.title) ? html`<p class="key">${plain(x.slug, 60)}</p>` : null}<p class="note">${describe(x).map((s) => plain(s, 60)).join(" · ")}</p>
      <dl class="facts"><div><dt>regions</dt><dd>${count(x.k)}</dd></div><div><dt>θ</dt><dd>${fixed(x.theta, 3)}</dd></div>
        <div><dt>percentile</dt><dd>${x.percentile ?? "–"}</dd></div><div><dt>tokens seen</dt><dd>${compact(x.tokens_seen)}</dd></div></dl></div></a>`;
}

/** Coarser to finer, and checkpoint to checkpoint, as rows of one table that is drawn. */
function Relations() {
  const all = dictionaries.value;
  const answer = useLoaded(all.map((x) => x.slug).join(" "), () => Promise.all(all.map((x) => loadDictionary(x.slug))));
  if (!answer.data) return null;
  const titles = Object.fromEntries(all.map((x) => [x.slug, plain(x.title || x.slug, 60)]));
  const rows = answer.data.flatMap((x) => [
    ...(x.relations?.finer ?? []).map((to) => [x.slug, "is coarser than", to]),
    ...(x.relations?.checkpoints ?? []).filter((to) => x.slug < to).map((to) => [x.slug, "compares with", to]),
  ]);
  if (!rows.length) return html`<p class="note">None of these dictionaries is of the same site as another.</p>`;
  return html`<ul class="relations">${rows.map(([a, how, b]) => html`<li key=${a + how + b}><a href=${href(["d", a])}>${titles[a]}</a> <span>${how}</span> <a href=${href(["d", b])}>${titles[b]}</a>
    ${how === "compares with" ? html` <a class="quiet" href=${href(["drift", a, b])}>what changed</a>` : null}</li>`)}</ul>`;
}

export function Home() {
  const all = dictionaries.value;
  const file = about.value?.export;
  return html`<div class="page"><h1>${all.length === 1 ? "One dictionary" : `${count(all.length)} dictionaries`}</h1>
    ${file ? html`<p class="note">A file of ${count(file.regions)} of ${count(file.of)} regions, made ${plain(file.created, 30)}. ${(file.left_out ?? []).map((s) => plain(s, 300)).join(" ")}</p>` : null}${file?.drift ? html`<p><a href=${href(["drift"])}>What changed to another dictionary</a></p>` : null}
    <div class="cards wide">${all.map((x) => html`<${Card} key=${x.slug} x=${x} />`)}</div>
    ${all.length > 1 ? html`<${Section} title="Relations" id="relations">${() => html`<${Relations} />`}</${Section}>` : null}</div>`;
}
