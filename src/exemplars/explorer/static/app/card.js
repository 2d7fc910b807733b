/** A region in brief: on a card, in the inspector, in the tray. */
import { html, useState } from "app/html";
import { useGet, send, forget } from "app/api";
import { about, announced, can, hover, hovered, isPinned, regionPath, select, togglePin } from "app/state";
import { count, fixed, isNumber, percent, theta } from "app/format";
import { Context, Token, plain } from "app/text";
import { CopyButton, IconButton, RegionLink } from "app/ui";

export const nameOf = (row) => (row.label ? plain(row.label, 60) : row.token?.text !== undefined && row.token?.text !== null ? `‘${plain(row.token.text, 40)}’` : `region ${row.id}`);

/** The label, or the exemplar's token where there is none. */
export function Name({ row, class: more = "" }) {
  if (row.label) {
    return html`<bdi class=${`label ${row.label_source === "yours" ? "yours" : ""} ${more}`} dir="auto" title=${row.label_source === "yours" ? "your label" : "label made by a program"}>${plain(row.label, 120)}</bdi>`;
  }
  if (row.token?.text === undefined || row.token?.text === null) return html`<span class=${`label ${more}`}>region ${row.id}</span>`;
  return html`<${Token} text=${row.token.text} class=${more} />`;
}

/** How far the members lie, on a scale of θ. */
export function DistanceBar({ mean, p95 }) {
  if (!isNumber(mean)) return null;
  const at = (x) => Math.min(100, Math.max(0, (x / 1.1) * 100));
  return html`<svg class="distance-bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
      aria-label=${`mean distance ${theta(mean)}${isNumber(p95) ? `, 95th percentile ${theta(p95)}` : ""}`}>
    <rect class="track" x="0" y="3" width="100" height="2" />
    ${isNumber(p95) ? html`<rect class="reach" x=${at(mean)} y="3" width=${Math.max(0, at(p95) - at(mean))} height="2" />` : null}
    <rect class="mean" x=${at(mean) - 0.6} y="0" width="1.2" height="8" />
    <rect class="theta" x=${at(1) - 0.4} y="0" width="0.8" height="8" />
  </svg>`;
}

export const Lens = ({ tokens, most = 3 }) =>
  tokens?.length ? html`<span class="lens">${tokens.slice(0, most).map((t, i) => html`<${Token} key=${i} text=${t.text ?? t} class="chip" />`)}</span>` : null;

export const pinOf = (d, row) => ({ d, id: row.id, token: String(row.token?.text ?? ""), label: row.label ? String(row.label) : null });

export const PinButton = ({ d, row }) => html`<${IconButton} icon="pin" class=${`icon-button ${isPinned(d, row.id) ? "on" : ""}`}
  aria-pressed=${isPinned(d, row.id)} label=${isPinned(d, row.id) ? "Take out of the tray" : "Pin to the tray"} onClick=${() => togglePin(pinOf(d, row))} />`;

/** A card in a list: one link, the rest is read. */
export function RegionCard({ d, row }) {
  const lit = hovered.value?.d === d && hovered.value?.id === row.id;
  return html`<article class=${`card ${lit ? "lit" : ""}`} onMouseEnter=${() => hover(d, row.id)} onMouseLeave=${() => hover(d, null)}>
    <header><h3><${RegionLink} d=${d} id=${row.id}><${Name} row=${row} /></${RegionLink}></h3>
      <span class="key">${row.key ?? row.id}</span><${PinButton} d=${d} row=${row} /></header>
    <p class="say"><${Context} ...${row.context ?? {}} around=${70} /></p>
    <footer><span>${count(row.member_count)} <small>members</small></span><span>${fixed(row.coherence)} <small>coherence</small></span>
      <${DistanceBar} mean=${row.mean_dist_theta} p95=${row.p95_dist_theta} /></footer>
    <${Lens} tokens=${row.lens} />
  </article>`;
}

/** The inspector's card, asked for by number; the last one stays until the next is there. */
export function Inspected({ d, id, extra }) {
  const answer = useGet(d !== null && id !== null ? regionPath(d, id) : null);
  const row = answer.data;
  if (answer.error) return html`<p class="problem">${answer.error.message}.</p>`;
  if (!row) return html`<p class="waiting">Region ${id} …</p>`;
  return html`<article class=${`inspected ${row.id === id ? "" : "stale"}`}>
    <header><h2><${RegionLink} d=${d} id=${row.id}><${Name} row=${row} /></${RegionLink}></h2><${PinButton} d=${d} row=${row} /></header>
    <p class="key">region ${row.key ?? row.id}</p>
    <p class="say"><${Context} ...${row.exemplar?.context ?? row.context ?? {}} around=${90} /></p>
    <dl class="facts"><div><dt>members</dt><dd>${count(row.member_count)}</dd></div><div><dt>share</dt><dd>${percent(row.share, 2)}</dd></div>
      <div><dt>coherence</dt><dd>${fixed(row.coherence, 3)}</dd></div><div><dt>mean distance</dt><dd>${theta(row.mean_dist_theta)}</dd></div></dl>
    <${DistanceBar} mean=${row.mean_dist_theta} p95=${row.p95_dist_theta} />
    ${row.lens?.length ? html`<p class="row"><small>promotes</small> <${Lens} tokens=${row.lens} most=${5} /></p>` : null}
    ${extra}
  </article>`;
}

/** Edits the label of a region; what is written by hand is marked as yours. */
export function LabelEditor({ d, row, onDone }) {
  const [text, setText] = useState(row.label_source === "yours" ? row.label ?? "" : "");
  const [error, setError] = useState(null);
  const save = async (event) => {
    event.preventDefault();
    try {
      await send("PUT", `${regionPath(d, row.id)}/label`, { label: text.trim() });
      forget(`/d/${encodeURIComponent(d)}/regions`);
      announced.value = "Label kept.";
      onDone(true);
    } catch (problem) {
      setError(problem);
    }
  };
  if (!can("write")) return html`<p class="note">Labels cannot be written: ${about.value?.reasons?.write ?? "this is read-only"}.</p>`;
  return html`<form class="inline-form" onSubmit=${save}><label>Your label <input value=${text} maxlength="200" autofocus onInput=${(e) => setText(e.currentTarget.value)}
      onKeyDown=${(e) => e.key === "Escape" && onDone(false)} ref=${(el) => el && !el.dataset.seen && (el.dataset.seen = "1", el.focus())} /></label>
    <button type="submit" class="solid">Keep</button><button type="button" class="quiet" onClick=${() => onDone(false)}>Cancel</button>
    ${error ? html`<span class="problem" role="alert">${error.message}.</span>` : null}</form>`;
}

export const pythonFor = (folder, id) =>
  `import exemplars as ex\n\ndictionary = ex.load(${JSON.stringify(folder)})\nregion = dictionary.region(${id})\n`;

export const PythonButton = ({ folder, id }) => html`<${CopyButton} label="copy as Python" text=${pythonFor(folder, id)} />`;

export { select };
