/** Growth: how many regions there are after so many tokens, and whether more would come. */
import { html } from "app/html";
import { useGet } from "app/api";
import { route, setQuery } from "app/router";
import { compact, count, fixed, isNumber, percent, significant } from "app/format";
import { Lines } from "app/charts";
import { Badge, Choice, Empty, Figure, Loaded, Section } from "app/ui";
import { plain } from "app/text";

export function GrowthPage({ d }) {
  const answer = useGet(`/d/${encodeURIComponent(d.slug)}/growth`);
  return html`<div class="page"><h1>Growth</h1><${Loaded} answer=${answer} what="Reading the growth">${(a) => (a.series?.length ? html`<${Grown} d=${d} a=${a} />` : html`<${Empty}>This dictionary does not say how it grew.</${Empty}>`)}</${Loaded}></div>`;
}

function Grown({ d, a }) {
  const { axes = "log", which = "all" } = route.value.query;
  const log = axes !== "linear";
  const shown = which === "all" ? a.series : a.series.filter((s) => s.dict === d.slug);
  const own = a.series.find((s) => s.dict === d.slug) ?? a.series[0];
  const heaps = a.fit?.heaps, exponent = a.fit?.exponent;
  const named = (key) => shown.map((s) => ({ name: plain(s.name, 18), x: s.x, y: s[key] ?? [], soft: s !== own }));
  const last = own.k.length - 1;
  return html`<dl class="figures"><${Figure} name="regions" value=${count(own.k[last])} note=${`after ${compact(own.x[last])} tokens`} />
      <${Figure} name="chance that the next token founds a region" value=${isNumber(a.good_turing) ? percent(a.good_turing, 2) : percent(own.new_rate?.[last], 2)} />
      ${exponent ? html`<${Figure} name="exponent of growth" value=${fixed(exponent.estimate, 3)} note=${`${fixed(exponent.low, 3)} to ${fixed(exponent.high, 3)}`} />`
        : heaps ? html`<${Figure} name="Heaps exponent" value=${fixed(heaps.b, 3)} note=${heaps.ci ? `${fixed(heaps.ci[0], 3)} to ${fixed(heaps.ci[1], 3)}` : ""} />` : null}</dl>
    ${a.fit?.verdict ? html`<p>${plain(a.fit.verdict, 400)}</p>` : null}
    ${a.warnings?.length ? html`<p class="badges">${a.warnings.map((w, i) => html`<${Badge} key=${i} kind="caution">${plain(w, 400)}</${Badge}>`)}</p>` : null}
    <div class="controls"><${Choice} label="Axes" value=${log ? "log" : "linear"} options=${[["log", "log–log"], ["linear", "linear"]]} onChange=${(v) => setQuery({ axes: v === "log" ? null : v })} />${a.series.length > 1 ? html`<${Choice} label="Which dictionaries" value=${which} options=${[["all", "all open"], ["own", "this one"]]} onChange=${(v) => setQuery({ which: v === "all" ? null : v })} />` : null}</div>
    <${Section} title="Regions" id="growth" figure=${{ of: d, name: "growth" }} table=${() => ({ head: ["dictionary", "tokens", "regions"], rows: shown.flatMap((s) => s.x.map((x, i) => [plain(s.name), count(x), count(s.k[i])])), numeric: [1, 2] })}>${() => html`<${Lines} series=${named("k")} logX=${log} logY=${log} xName="tokens read" yName="regions" name="Regions as tokens were read" />`}</${Section}>
    <div class="two even"><${Section} title="New regions" id="new" note="share of tokens that founded one" figure=${{ of: d, name: "new-regions" }} table=${() => ({ head: ["dictionary", "tokens", "rate"], rows: shown.flatMap((s) => s.x.map((x, i) => [plain(s.name), count(x), significant(s.new_rate?.[i])])), numeric: [1, 2] })}>${() => html`<${Lines} series=${named("new_rate")} logX=${log} logY=${log} xName="tokens read" yName="rate" name="Share of tokens that founded a region" write=${significant} />`}</${Section}>
    <${Section} title="Hits" id="hits" note="share of tokens within θ of an exemplar" figure=${{ of: d, name: "hits" }} table=${() => ({ head: ["dictionary", "tokens", "rate"], rows: shown.flatMap((s) => s.x.map((x, i) => [plain(s.name), count(x), significant(s.hit_rate?.[i])])), numeric: [1, 2] })}>${() => html`<${Lines} series=${named("hit_rate")} logX=${log} xName="tokens read" yName="rate" name="Share of tokens that fell in a region" write=${significant} />`}</${Section}></div>`;
}
