/** The member of a region that lies nearest to each neighbour: read again, since vectors are not kept. */
import { html, useEffect, useRef, useState } from "app/html";
import { streamLines } from "app/api";
import { dictionaries } from "app/state";
import { count, plural, theta } from "app/format";
import { Context, plain } from "app/text";
import { CLIENT } from "app/text-page";

const NOTHING = { by: new Map(), end: null, running: false, said: "", error: null };

/** What was found for a region, once it is asked for. */
export function useWitnesses(d, id) {
  const [state, setState] = useState(NOTHING);
  const held = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => held.current?.abort(), []);
  const start = async () => {
    held.current?.abort();
    const abort = (held.current = new AbortController());
    setState({ ...NOTHING, running: true, said: "Waiting for the model" });
    try {
      for await (const line of streamLines(`/d/${encodeURIComponent(d.slug)}/regions/${id}/witnesses`, { k: 20, client: CLIENT }, abort.signal)) {
        if (line.type === "progress") setState((s) => ({ ...s, said: `${count(line.done)} of ${plural(line.of, "member")} read again` }));
        else if (line.type === "end") setState((s) => ({ ...s, end: line, by: new Map(line.rows.map((r) => [r.id, r])) }));
        else if (line.type === "error") throw new Error(line.error);
      }
      setState((s) => ({ ...s, running: false }));
    } catch (error) {
      if (error.name !== "AbortError") setState((s) => ({ ...s, running: false, error }));
    }
  };
  return { ...state, possible: Boolean(dictionaries.value.find((x) => x.slug === d.slug)?.trace), start };
}

/** The button, how far it is, and among how many the witnesses are. */
export function WitnessBar({ found }) {
  const { possible, running, said, end, error, start } = found;
  if (!possible) return null;
  return html`<div class="controls">${end || running ? null : html`<button type="button" class="quiet" title="Reads up to 32 kept members through the model" onClick=${start}>find the members at the walls</button>`}
    <span class="note" role="status">${error ? "" : running ? `${said} …` : end ? (end.read ? `Members at the walls: among ${plural(end.read, "member")} read again from ${plain(end.source, 60)}${end.read < end.asked ? ` (${count(end.asked - end.read)} more did not read as they had)` : ""}.` : `None of ${plural(end.asked, "member")} read as it had, from ${plain(end.source, 60)}: no member at a wall can be named.`) : ""}</span>
    ${error ? html`<p class="problem" role="alert">${plain(error.message, 300)}.</p>` : null}</div>`;
}

/** The member nearest to one neighbour. */
export const Witness = ({ of }) => of ? html`<p class="witness"><small title="The member of this region that lies nearest to the neighbour's exemplar: its distance to that, and to its own">nearest member, ${theta(of.to_neighbour_theta)}; own exemplar ${theta(of.theta_ratio)}</small> <${Context} text=${of.text} span=${of.span} before=${22} around=${60} class="one-line" /></p>` : null;
