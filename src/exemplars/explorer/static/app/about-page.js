/** About: what is open, what it is made of, what this browser can do. */
import { html, useMemo } from "app/html";
import { useLoaded } from "app/api";
import { embedded } from "app/embedded";
import { about, dictionaries, loadDictionary } from "app/state";
import { cannotDraw, gpu } from "app/gl";
import { count, fixed, significant } from "app/format";
import { CopyButton, Section, Table } from "app/ui";
import { plain } from "app/text";

export function AboutPage() {
  const a = about.value;
  const all = useLoaded(dictionaries.value.map((x) => x.slug).join(" "), () => Promise.all(dictionaries.value.map((x) => loadDictionary(x.slug))));
  const card = useMemo(() => gpu(), []);
  const rows = [
    ["version", a.version], ["graphics", card ? `${card.renderer}${card.software ? " (software: large pictures are coarser while they move)" : ""}` : `none: ${cannotDraw.value}`],
    ...["trace", "steer", "fts", "write", "drift", "lens"].map((c) => [c, a.capabilities?.[c] ? "yes" : plain(a.reasons?.[c] ?? "no", 200)]),
    ["models", (a.models ?? []).map((m) => `${plain(m.name, 60)}: ${plain(m.status, 20)}${m.reason ? `, ${plain(m.reason, 100)}` : ""}`).join("; ") || "none"], ["browser", navigator.userAgent],
  ];
  return html`<div class="page narrow"><h1>About</h1><p>exemplars reads the activations of a model as regions: each is all that lies nearer to one observed activation, its exemplar, than to any other. Nothing on these pages is fetched from elsewhere, and nothing leaves this machine.</p>
    <${Section} title="Dictionaries" id="provenance">${() => (all.data ?? []).map((d) => html`<div class="provenance" key=${d.slug}><h3>${plain(d.title || d.slug, 100)}</h3><${Table} caption=${`Provenance of ${plain(d.slug, 60)}`} head=${["what", "value"]} rows=${provenance(d)} /></div>`)}</${Section}>
    <${Section} title="This session" id="diagnostics" actions=${html`<${CopyButton} label="copy" text=${() => rows.map((r) => r.join(": ")).join("\n")} />`}>${() => html`<${Table} caption="Diagnostics" head=${["what", "value"]} rows=${rows} />`}</${Section}>
    <${Section} title="Licences" id="licences">${() => html`<p>exemplars is under the MIT licence. The page uses Preact and its signals (MIT) and htm (Apache-2.0)${embedded ? "." : "; "}${embedded ? "" : html`their texts are in <a href="static/vendor/LICENSES.txt">LICENSES.txt</a>. `} Colour tables are from matplotlib (CC0).</p>`}</${Section}></div>`;
}

const provenance = (d) => [
  ["model", plain(d.model?.name, 100)], ["revision", plain(d.model?.revision ?? "–", 100)], ["site", plain(d.model?.site ?? d.model?.hook ?? "–", 100)], ["regions", count(d.k)], ["width", count(d.dim)],
  ["θ", fixed(d.theta, 4)], ["percentile", String(d.percentile ?? "–")], ["membership", plain(d.membership ?? "–", 60)], ["tokens seen", count(d.build?.tokens_seen ?? d.rows)], ["corpus", plain(d.build?.corpus ?? "–", 200)],
  ["seed", String(d.build?.seed ?? "–")], ["made by", plain(d.build?.tool_version ?? "–", 60)], ["median norm", significant(d.activation_norm?.median)], ["fingerprint", plain(d.fingerprint, 80)],
].map(([name, value]) => [name, value]);
