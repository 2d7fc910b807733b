/** Live text: which region each token of a text falls in, and how far from its exemplar, as one types. */
import { html, useEffect, useMemo, useState } from "app/html";
import { send, streamLines, useGet, useLoaded } from "app/api";
import { about, hover, select, whyNot } from "app/state";
import { href, route, setQuery } from "app/router";
import { count, fixed, percent, plural, theta } from "app/format";
import { Spark } from "app/charts";
import { TokenStrip, LETTERS, lettered, spoken } from "app/tokens";
import { Token, plain } from "app/text";
import { Choice, CopyButton, Empty, RegionLink, Section, asTsv } from "app/ui";
import { Inspector } from "app/frame";
import { useColumns } from "app/dictionary";
import { useColouring, useSphere } from "app/sphere-view";
import { PictureBox } from "app/picture-box";

const EXAMPLE = "The treaty was signed in Paris on the third of September 1783; 東京 and naïve readers — 👩‍👩‍👧 — may disagree.";
const DEBOUNCE = 250;
const NONE = [];
const WAITING = "Waiting for the model, which loads once";
export const CLIENT = crypto.randomUUID();

/** Runs a stream whenever its body changes; the one before is dropped.
 * @param {string | null} path @param {any} body */
export function useTrace(path, body) {
  const [state, setState] = useState({ rows: [], text: "", run: null, error: null, running: false, note: "", ms: null, start: null });
  const key = path === null || body === null ? null : JSON.stringify(body);
  useEffect(() => {
    if (key === null) {
      setState({ rows: [], text: "", run: null, error: null, running: false, note: "", ms: null, start: null });
      return undefined;
    }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      let rows = [];
      setState((s) => ({ ...s, running: true, error: null, note: "" }));
      const slow = setTimeout(() => setState((s) => ({ ...s, note: WAITING })), 1000);
      abort.signal.addEventListener("abort", () => clearTimeout(slow));
      try {
        for await (const line of streamLines(path, body, abort.signal)) {
          clearTimeout(slow);
          if (line.type === "start") setState((s) => ({ ...s, start: line, run: line.run, nextText: line.text ?? body.text, note: "" }));
          else if (line.type === "loading") setState((s) => ({ ...s, note: `Loading ${plain(line.model, 60)}; this happens once` }));
          else if (line.type === "tokens") {
            rows = [...rows.slice(0, line.from ?? rows.length), ...line.rows];
            const all = rows;
            setState((s) => ({ ...s, rows: all, text: s.nextText ?? body.text }));
          } else if (line.type === "error") throw new Error(line.error);
          else if (line.type === "end") setState((s) => ({ ...s, ms: line.ms, reused: line.reused ?? 0 }));
        }
        setState((s) => ({ ...s, running: false }));
      } catch (error) {
        clearTimeout(slow);
        if (error.name !== "AbortError") setState((s) => ({ ...s, running: false, note: "", error }));
      }
    }, DEBOUNCE);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [path, key]);
  return state;
}

export function TextPage({ d }) {
  const { query } = route.value;
  const [text, setText] = useState(query.q ?? EXAMPLE);
  const [chat, setChat] = useState(query.chat === "1");
  const [mode, setMode] = useState(query.colour === "distance" ? "distance" : "region");
  const listed = (about.value?.dictionaries ?? []).find((x) => x.slug === d.slug);
  const possible = listed?.trace ?? about.value?.capabilities?.trace;
  const limit = about.value?.limits?.text_tokens ?? 2048;
  const body = text.trim() === "" ? null : chat ? { messages: [{ role: "user", content: text }], topk: 3, skip_special: true, client: CLIENT } : { text, topk: 3, skip_special: true, client: CLIENT };
  const trace = useTrace(possible ? `/d/${encodeURIComponent(d.slug)}/trace` : null, body);
  useEffect(() => {
    const timer = setTimeout(() => route.peek().path[2] === "text" && setQuery({ q: text.length < 1500 ? text : null, chat: chat ? 1 : null, colour: mode === "distance" ? mode : null }), 600);
    return () => clearTimeout(timer);
  }, [text, chat, mode]);
  const read = trace.rows.filter((r) => !r.special).length;
  return html`<div class="page with-inspector text-page"><div><h1>Live text</h1>
    ${possible ? html`<div class="composer"><textarea rows="3" aria-label="Text to read" spellcheck="false" value=${text} onInput=${(e) => setText(e.currentTarget.value)} placeholder="Type, or paste a passage" />
      <div class="controls"><${Choice} label="Colour by" value=${mode} options=${[["region", "Regions"], ["distance", "Distance"]]} onChange=${setMode} /><label class="check"><input type="checkbox" checked=${chat} onChange=${(e) => setChat(e.currentTarget.checked)} /> as a chat message</label><span class="spring" />
        <span class="note" role="status">${trace.error ? "" : trace.note || (trace.running ? "reading …" : trace.ms ? `${plural(read, "token")} in ${count(Object.values(trace.ms).reduce((a, b) => a + b, 0))} ms${trace.start?.exact ? ", exact" : ""}${trace.reused ? `; ${count(trace.reused)} kept from before` : ""}` : "")}</span><${CopyButton} label="copy link" text=${() => location.href} /></div>
      ${trace.error ? html`<p class="problem" role="alert">${plain(trace.error.message, 300)}.</p>` : null}</div>
      ${trace.rows.length ? null : html`<${Empty}>Up to ${count(limit)} tokens.</${Empty}>`}<${Passage} d=${d} trace=${trace} mode=${mode} />`
    : html`<p class="problem">Text cannot be read: ${whyNot("trace")}.</p>`}</div>
    <${Inspector} hint="Point at a token to see its region here." /></div>`;
}

/** A text that was read: its tokens, how far each is, which regions it meets, and where they lie.
 * @param {{d: any, trace: {rows: any[], text: string, run?: string | null}, mode: "region" | "distance"}} props */
export function Passage({ d, trace, mode }) {
  const [at, setAt] = useState(null);
  const letters = useMemo(() => lettered(trace.rows), [trace.rows]);
  const row = at === null ? null : trace.rows.find((r) => r.i === at) ?? null;
  useEffect(() => { hover(d.slug, row?.region ?? null); }, [row?.region]);
  const outside = trace.rows.filter((r) => !r.special && r.theta_ratio > 1).length, read = trace.rows.filter((r) => !r.special).length;
  const some = trace.rows.length > 0;
  return html`${some ? html`<${TokenStrip} text=${trace.text} rows=${trace.rows} letters=${letters} mode=${mode} at=${at} onAt=${setAt} onOpen=${(r) => r.region !== null && select(d.slug, r.region)} name="Tokens of the text, with their regions" />
      <div class="spark-row"><${Spark} values=${trace.rows.map((r) => (r.special ? NaN : r.theta_ratio ?? NaN))} line=${1} at=${at === null ? null : trace.rows.findIndex((r) => r.i === at)} marks=${trace.rows.map((r, i) => (!r.special && r.theta_ratio > 1 ? i : -1)).filter((i) => i >= 0)}
        name="Distance to the nearest exemplar, token by token, in θ" onPick=${(i) => trace.rows[i] && setAt(trace.rows[i].i)} said=${(i) => (trace.rows[i] ? spoken(trace.text.slice(trace.rows[i].start, trace.rows[i].end) || String(trace.rows[i].text ?? ""), trace.rows[i]) : "")} /><span class="note">distance in θ; the line is θ</span></div>` : null}
    <p class="note key-line">${mode === "region" ? html`Background and letter: the regions met most often here. ` : html`Background: distance, up to θ. `}Dotted underline: beyond 0.9 θ. Double: beyond θ, outside every region${read ? ` (${percent(outside / read, 0)})` : ""}. Greyed and framed: special tokens, left out. · in a token: parts of one character.</p>
    ${row ? html`<${TokenDetail} d=${d} row=${row} text=${trace.text} />` : null}
    ${some ? html`<${Here} d=${d} rows=${trace.rows} letters=${letters} text=${trace.text} frozen=${trace.regions} />` : null}
    ${some ? html`<${Section} title="On the sphere" id="passage" note="the regions of this text, and where its tokens lie" actions=${trace.run ? html`<${RunSlice} d=${d} run=${trace.run} rows=${trace.rows} at=${at} />` : null}>${() => html`<${OnSphere} d=${d} rows=${trace.rows} trace=${trace} at=${at} />`}</${Section}>` : null}`;
}

/** A slice through three tokens of the passage: the one in question and the two that follow it. */
function RunSlice({ d, run, rows, at }) {
  const usable = rows.filter((r) => !r.special && r.region !== null);
  const from = Math.max(0, usable.findIndex((r) => r.i === at));
  const three = usable.slice(from, from + 3).map((r) => r.i);
  if (three.length < 3) return null;
  return html`<a class="quiet" href=${href(["d", d.slug, "sphere"], { mode: "slice", basis: `run.${run}.${three.join(".")}` })}>slice through three tokens</a>`;
}

function TokenDetail({ d, row, text }) {
  return html`<p class="token-detail"><${Token} text=${text.slice(row.start, row.end) || row.text} /> <span class="num">${row.special ? "special token" : html`${theta(row.theta_ratio)}, margin ${fixed(row.margin, 3)}, norm ${fixed(row.norm, 1)}${row.outlier ? ", norm outlier" : ""}`}</span>
    ${(row.top ?? []).map(([id, distance], k) => html`<span key=${id} class="num">${k + 1}. <${RegionLink} d=${d.slug} id=${id}>${id}</${RegionLink}> ${fixed(distance / d.theta)} θ</span>`)}</p>`;
}

/** The regions of the passage, most frequent first. */
function Here({ d, rows, letters, text, frozen = NONE }) {
  const table = useMemo(() => {
    const by = new Map();
    for (const r of rows) {
      if (r.special || r.region === null) continue;
      const entry = by.get(r.region) ?? { id: r.region, n: 0, sum: 0, tokens: new Map() };
      const token = text.slice(r.start, r.end) || r.text;
      entry.n += 1;
      entry.sum += r.theta_ratio;
      entry.tokens.set(token, (entry.tokens.get(token) ?? 0) + 1);
      by.set(r.region, entry);
    }
    return [...by.values()].sort((a, b) => b.n - a.n || a.id - b.id);
  }, [rows, text]);
  const ids = table.slice(0, 60).map((e) => e.id);
  const names = useGet(ids.length ? `/d/${encodeURIComponent(d.slug)}/regions?ids=${ids.slice().sort((a, b) => a - b).join(",")}&_size=60` : null);
  const label = new Map((names.data?.rows ?? []).map((r) => [r.id, r])), called = new Map(frozen.map((r) => [r.id, r]));
  const name = (id) => { const row = label.get(id) ?? called.get(id); return row?.label ? plain(row.label, 40) : html`${id} ${row?.token ? html`<${Token} text=${row.token.text} />` : null}`; };
  const tokens = (e) => [...e.tokens].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([t]) => t);
  return html`<section class="section"><header><h2>Regions in this text</h2><span class="note">${plural(table.length, "region")}</span><span class="spring" /><${CopyButton} label="copy" text=${() => asTsv({ head: ["region", "tokens", "mean distance in θ", "which"], rows: table.map((e) => [e.id, e.n, (e.sum / e.n).toFixed(3), tokens(e).join(" ")]) })} /></header>
    <div class="scroll" tabindex="0" role="region" aria-label="Regions in this text"><table><thead><tr><th scope="col"><span class="unseen">Letter</span></th><th scope="col">region</th><th scope="col" class="num">tokens</th><th scope="col" class="num">mean distance</th><th scope="col">which</th></tr></thead>
    <tbody>${table.slice(0, 60).map((e) => html`<tr key=${e.id} onMouseEnter=${() => hover(d.slug, e.id)}><td>${letters.has(e.id) ? html`<span class=${`letter s${letters.get(e.id)}`}>${LETTERS[letters.get(e.id)]}</span>` : null}</td>
      <td>${called.has(e.id) && !label.has(e.id) ? name(e.id) : html`<${RegionLink} d=${d.slug} id=${e.id}>${name(e.id)}</${RegionLink}>`}</td><td class="num">${e.n}</td><td class="num">${theta(e.sum / e.n)}</td><td>${tokens(e).map((t) => html`<${Token} text=${t} class="chip" /> `)}</td></tr>`)}</tbody></table></div></section>`;
}

/** The regions of the text, bright, and a dot for each token, by the same projection. */
function OnSphere({ d, rows, trace, at }) {
  const sphere = useSphere(d);
  const columns = useColumns(d);
  const of = useColouring(columns.data, "coherence");
  const done = !trace.running;
  const placed = useLoaded(trace.points || !trace.run || !done ? null : `${d.slug} ${trace.run}`, () => send("POST", `/d/${encodeURIComponent(d.slug)}/passage`, { run: trace.run }));
  const tokens = trace.points ?? placed.data?.points;
  const ids = useMemo(() => [...new Set(rows.filter((r) => !r.special && r.region !== null).map((r) => r.region))], [rows]);
  const points = useMemo(() => {
    const ordinary = new Set(rows.filter((r) => !r.special).map((r) => r.i));
    return (tokens ?? []).filter((p) => ordinary.has(p.i) && (at === null || p.i === at)).map((p) => p.y);
  }, [tokens, rows, at]);
  if (sphere.error || !sphere.scene || !of) return null;
  return html`<div class="half"><${PictureBox} d=${d} scene=${sphere.scene} colouring=${of} filter=${ids} passage=${NONE} points=${points} small list=${false} name="Sphere with the regions of the text" />
    <p class="note">${tokens ? `${plural(points.length, "dot")}: ${at === null ? "the tokens" : "the token in question"}, projected as the exemplars are. ` : ""}Bright: the regions that they lie in, in all dimensions.</p></div>`;
}
