/** Steering: the same prompt with and without interventions on regions, side by side, as it is written. */
import { html, useEffect, useMemo, useRef, useState } from "app/html";
import { getJson, send, streamLines } from "app/api";
import { about, can, regionPath, tray, whyNot } from "app/state";
import { href, parseHash, route, setQuery } from "app/router";
import { fixed, isNumber, percent, significant } from "app/format";
import { Spark } from "app/charts";
import { Badge, Choice, CopyButton, Empty, Icon, IconButton, RegionLink, Select } from "app/ui";
import { download } from "app/figures";
import { Shown, plain } from "app/text";
import { nameOf } from "app/card";
import { CLIENT } from "app/text-page";

const OPERATIONS = [["add", "add"], ["ablate", "take out"], ["cap", "cap"]];
const POSITIONS = [["generated", "generated tokens"], ["all", "all tokens"]];
const SWEEP = [-2, -1, -0.5, 0, 0.5, 1, 2];
const MOST = 4;
const MARKS = [[0.1, "0.1"], [0.5, "gentle"], [1, "1"], [2, "hard"], [4, "4"]];
const PROMPT = "My fellow citizens, the state of our";

/** @typedef {{region: number, op: string, strength: number, positions: string}} Item */
/** @typedef {{name: string, items: Item[]}} Variant */

const item = (region, op = "add") => ({ region, op, strength: 0.5, positions: "generated" });

const EDIT = /^(\d+)-(add|ablate|cap)-(generated|all)-(-?\d*\.?\d+)$/;
/** "7-add-generated-0.5_11-ablate-all-1" in the address is two variants; "*" joins the edits of one.
 * @param {Variant[]} variants */
const written = (variants) => variants.map((v) => v.items.map((x) => [x.region, x.op, x.positions, x.strength].join("-")).join("*")).join("_");

/** @returns {Variant[]} What cannot be read is left out. */
const read = (text, k) => text.split("_").map((v) => v.split("*").map((x) => EDIT.exec(x)).filter((m) => m && +m[1] < k).map(([, region, op, positions, strength]) => (
  { region: +region, op, positions, strength: Math.min(100, Math.max(-100, +strength)) }))).filter((items) => items.length).slice(0, MOST).map((items) => ({ name: "", items }));

/** The edits of the address; else its regions, else those of the tray, one variant each. */
function first(d, query) {
  if (query.edits !== undefined) return read(query.edits, d.k);
  const ids = String(query.regions ?? "").split(".").filter(Boolean).map(Number).filter(Number.isInteger);
  const from = ids.length ? ids : tray.peek().filter((p) => p.d === d.slug).map((p) => p.id);
  return from.slice(0, MOST).map((id) => ({ name: "", items: [item(id, query.op)] }));
}

/** What is set stands in the address. Another address, by a link or by going back, sets all anew. */
export function SteerPage({ d }) {
  const { query } = route.value;
  const here = new URLSearchParams(query).toString();
  const own = useRef(null), from = useRef(here);
  if (here !== own.current) from.current = here;
  const keep = (patch) => {
    own.current = new URLSearchParams(parseHash(href([], { ...route.peek().query, regions: null, op: null, ...patch })).query).toString();
    setQuery({ regions: null, op: null, ...patch });
  };
  return html`<${Steering} key=${from.current} d=${d} query=${query} keep=${keep} />`;
}

const whole = (text, start, least, most) => (/^\d+$/.test(text ?? "") ? Math.min(most, Math.max(least, +text)) : start);

function Steering({ d, query, keep }) {
  const most = about.value?.limits?.new_tokens ?? 256;
  const [variants, setVariants] = useState(() => first(d, query));
  const [prompt, setPrompt] = useState(query.prompt ?? PROMPT);
  const [chat, setChat] = useState(query.chat === "1");
  const [tokens, setTokens] = useState(() => whole(query.tokens, 40, 1, most));
  const [seed, setSeed] = useState(() => whole(query.seed, 0, 0, 2 ** 31));
  const [temperature, setTemperature] = useState(() => Math.min(2, Math.max(0, +query.temperature || 0)));
  const [diff, setDiff] = useState(true);
  const run = useSteering(d);
  const norm = d.activation_norm?.median;
  const change = (k, next) => setVariants(variants.map((v, i) => (i === k ? next : v)));
  const body = (sent) => ({ ...(chat ? { messages: [{ role: "user", content: prompt }] } : { prompt }), max_new_tokens: tokens, temperature, seed, client: CLIENT,
    variants: sent.map((v) => ({ name: v.name || described(v), items: v.items.map((x) => ({ ...x, unit: "norm" })) })) });
  const link = { edits: written(variants) || "none", prompt: prompt === PROMPT || prompt.length > 1500 ? null : prompt, chat: chat ? 1 : null, tokens: tokens === 40 ? null : tokens, seed: seed || null, temperature: temperature || null };
  const said = JSON.stringify(link);
  useEffect(() => {
    const timer = setTimeout(() => route.peek().path[2] === "steer" && keep(link), 400);
    return () => clearTimeout(timer);
  }, [said]);
  const sweep = () => {
    const base = variants[0];
    run.sweep(SWEEP.map((s) => ({ ...base, name: `${fixed(s, 1)}×`, items: base.items.map((x) => ({ ...x, strength: s })) })).filter((v) => v.items[0].strength !== 0), body);
  };
  const usable = variants.filter((v) => v.items.length);
  return html`<div class="page steer"><h1>Steer</h1>${can("steer") ? null : html`<p class="problem">Nothing can be written: ${whyNot("steer")}. Interventions can be prepared here, and their Python copied.</p>`}
    <div class="steer-grid"><section class="composer"><textarea rows="3" aria-label="Prompt" value=${prompt} onInput=${(e) => setPrompt(e.currentTarget.value)} />
      <div class="controls"><label class="check"><input type="checkbox" checked=${chat} onChange=${(e) => setChat(e.currentTarget.checked)} /> as a chat message</label><label class="check">tokens <input type="number" min="1" max=${most} value=${tokens} onInput=${(e) => setTokens(+e.currentTarget.value)} /></label>
        <label class="check">temperature <input type="number" min="0" max="2" step="0.1" value=${temperature} onInput=${(e) => setTemperature(+e.currentTarget.value)} /></label><label class="check">seed <input type="number" min="0" value=${seed} onInput=${(e) => setSeed(+e.currentTarget.value)} /></label>
        <span class="spring" /><button type="button" class="solid" disabled=${!run.running && (!can("steer") || !prompt.trim())} onClick=${() => (run.running ? run.stop() : run.start(body(usable)))}><${Icon} name=${run.running ? "stop" : "play"} /> ${run.running ? "Stop" : "Write"}</button>
        <button type="button" class="button" disabled=${run.running || !can("steer") || !usable.length} onClick=${sweep} title="Six strengths of the first variant, from −2 to 2">Sweep</button><${CopyButton} label="copy as Python" text=${() => python(d, prompt, usable, { chat, tokens, temperature, seed })} /></div></section>
    <section class="variants" aria-label="Variants">${variants.map((v, k) => html`<${Variant} key=${k} d=${d} variant=${v} k=${k} norm=${norm} onChange=${(next) => change(k, next)} onRemove=${() => setVariants(variants.filter((_, i) => i !== k))} />`)}
      ${variants.length < MOST ? html`<${AddVariant} d=${d} onAdd=${(id) => setVariants([...variants, { name: "", items: [item(id)] }])} />` : null}</section></div>
    ${run.error ? html`<p class="problem" role="alert">${plain(run.error.message, 300)}.</p>` : null}${run.note ? html`<p class="note" role="status">${run.note}</p>` : null}
    ${run.columns.length ? html`<div class="controls"><h2>Answers</h2><label class="check"><input type="checkbox" checked=${diff} onChange=${(e) => setDiff(e.currentTarget.checked)} /> mark where they part from the baseline</label><span class="spring" /><${CopyButton} label="copy JSON" text=${() => JSON.stringify(session(d, body(usable), run.columns), null, 1)} /><button type="button" class="quiet" onClick=${() => download(new Blob([JSON.stringify(session(d, body(usable), run.columns), null, 1)], { type: "application/json" }), `steering-${d.folder_name}.json`)}>save JSON</button></div>
    <div class=${`answers ${run.columns.length > 5 ? "rows" : ""}`}>${run.columns.map((c) => html`<${Answer} key=${c.key} column=${c} baseline=${run.columns[0]} diff=${diff} />`)}</div>` : html`<${Empty}>The baseline and the variants are written with the same seed, and compared token by token.</${Empty}>`}</div>`;
}

const described = (v) => v.items.map((x) => `${x.op === "add" ? `+${fixed(x.strength, 2)}×` : x.op} ${x.region}`).join(", ");

/** The stream of a session, kept as columns; a sweep runs several sessions in turn. */
function useSteering(d) {
  const [state, setState] = useState({ columns: [], running: false, error: null, note: "" });
  const held = useRef({ abort: null, session: null });
  useEffect(() => () => held.current.abort?.abort(), []);

  const one = async (body, before, abort) => {
    const at = (v) => before.length + v - (before.length ? 1 : 0);
    const edit = (v, f) => setState((s) => ({ ...s, columns: s.columns.map((c, i) => (i === (v === 0 ? 0 : at(v)) ? f(c) : c)) }));
    let session = null;
    for await (const line of streamLines(`/d/${encodeURIComponent(d.slug)}/steer`, body, abort.signal)) {
      if (line.type === "loading") setState((s) => ({ ...s, note: `Loading ${plain(line.model, 60)}; this happens once` }));
      else if (line.type === "start") {
        held.current.session = session = line.session;
        const fresh = line.variants.map((v) => ({ key: `${session}/${v.v}`, name: v.v === 0 ? "baseline" : plain(v.name, 60), model: line.model, tokens: [], scores: new Map(), end: null }));
        setState((s) => ({ ...s, note: "", columns: before.length ? [...s.columns, ...fresh.slice(1)] : fresh }));
      } else if (line.type === "token" && !(before.length && line.v === 0)) edit(line.v, (c) => ({ ...c, tokens: [...c.tokens, line] }));
      else if (line.type === "scores" && !(before.length && line.v === 0)) edit(line.v, (c) => ({ ...c, scores: new Map(line.rows.map((r) => [r.i, r])) }));
      else if (line.type === "end" && !(before.length && line.v === 0)) edit(line.v, (c) => ({ ...c, end: line }));
      else if (line.type === "error") throw new Error(line.error);
    }
  };

  const guarded = async (work) => {
    held.current.abort?.abort();
    const abort = new AbortController();
    held.current.abort = abort;
    setState({ columns: [], running: true, error: null, note: "" });
    let problem = null;
    try {
      await work(abort);
    } catch (error) {
      if (error.name !== "AbortError") problem = error;
    }
    if (held.current.abort !== abort) return; // a later one writes here now
    setState((s) => ({ ...s, running: false, error: problem, columns: s.columns.map((c) => (c.end ? c : { ...c, end: { reason: "stopped" } })) }));
  };
  return {
    ...state,
    start: (body) => guarded((abort) => one(body, [], abort)),
    sweep: (variants, body) => guarded(async (abort) => {
      let done = [];
      for (let i = 0; i < variants.length; i += MOST) {
        await one(body(variants.slice(i, i + MOST)), done, abort);
        done = [0, ...variants.slice(0, i + MOST)];
      }
    }),
    stop: () => {
      const { session, abort } = held.current;
      if (session) send("POST", `/sessions/${encodeURIComponent(session)}/cancel`, {}).catch(() => undefined); // the abort below ends it too
      abort?.abort();
    },
  };
}

function Variant({ d, variant, k, norm, onChange, onRemove }) {
  const edit = (j, patch) => onChange({ ...variant, items: variant.items.map((x, i) => (i === j ? { ...x, ...patch } : x)) });
  return html`<fieldset class="variant"><legend class="unseen">Variant ${k + 1}</legend><${IconButton} icon="close" label=${`Take variant ${k + 1} away`} onClick=${onRemove} />${variant.items.map((x, j) => html`<div class="item" key=${j}><${RegionName} d=${d} id=${x.region} />
    <${Choice} label="What is done" value=${x.op} options=${OPERATIONS} onChange=${(op) => edit(j, { op })} /><${Select} label="Where" hideLabel value=${x.positions} options=${POSITIONS} onChange=${(positions) => edit(j, { positions })} />
    ${x.op === "ablate" ? null : html`<${Strength} value=${x.strength} norm=${norm} onChange=${(strength) => edit(j, { strength })} />`}</div>`)}</fieldset>`;
}

function RegionName({ d, id }) {
  const [row, setRow] = useState(null);
  useEffect(() => { getJson(regionPath(d.slug, id)).then(setRow, () => setRow(null)); }, [id]);
  return html`<${RegionLink} d=${d.slug} id=${id} class="who"><bdi>${row ? nameOf(row) : "region"}</bdi> <small>${id}</small></${RegionLink}>`;
}

/** Strength in median activation norms: a log slider with a sign, and the raw number beside it. */
function Strength({ value, norm, onChange }) {
  const sign = value < 0 ? -1 : 1, size = Math.max(0.1, Math.abs(value));
  const at = Math.log10(size / 0.1) / Math.log10(40);
  const id = useMemo(() => `strength-${crypto.randomUUID()}`, []);
  return html`<div class="strength"><label for=${id}>strength</label><button type="button" class="quiet" aria-label="Turn the sign round" onClick=${() => onChange(-value)}>${sign < 0 ? "−" : "+"}</button>
    <span class="slider"><input id=${id} type="range" min="0" max="1" step="0.01" value=${at} aria-valuetext=${`${fixed(value)} median norms`} onInput=${(e) => onChange(+(sign * 0.1 * 40 ** +e.currentTarget.value).toFixed(3))} /><span class="ticks" aria-hidden="true">${MARKS.map(([v, name]) => html`<span key=${v} style=${{ left: `${(Math.log10(v / 0.1) / Math.log10(40)) * 100}%` }}>${name}</span>`)}</span></span>
    <output class="num">${fixed(value)}×</output>${isNumber(norm) ? html`<label class="check"><span class="unseen">raw strength</span><input type="number" step="any" value=${+(value * norm).toPrecision(4)} onChange=${(e) => onChange(+(+e.currentTarget.value / norm).toPrecision(4))} /> raw</label>` : null}</div>`;
}

function AddVariant({ d, onAdd }) {
  const [text, setText] = useState("");
  const add = (e) => {
    e.preventDefault();
    const id = Number(text);
    if (text.trim() && Number.isInteger(id) && id >= 0 && id < d.k) {
      onAdd(id);
      setText("");
    }
  };
  return html`<form class="row" onSubmit=${add}><label class="check">add a variant with region <input class="short" inputmode="numeric" value=${text} onInput=${(e) => setText(e.currentTarget.value)} placeholder=${`0–${d.k - 1}`} /></label><button type="submit" class="button">add</button>
    ${tray.value.filter((p) => p.d === d.slug).slice(0, 6).map((p) => html`<button type="button" key=${p.id} class="quiet" onClick=${() => onAdd(p.id)}>+ ${p.label ? plain(p.label, 20) : `‘${plain(p.token, 20)}’`}</button>`)}</form>`;
}

/** One text as it grows, with what it cost: KL, perplexity without the steering, hits, and tokens outside. */
export function Answer({ column, baseline, diff }) {
  const { tokens, scores, end } = column;
  const parts = column === baseline ? Infinity : tokens.findIndex((t, i) => t.id !== baseline.tokens[i]?.id);
  const kl = tokens.map((t) => scores.get(t.i)?.kl ?? NaN);
  const s = end?.stats ?? {};
  return html`<article class="answer" aria-busy=${end === null}><header><h3>${column.name}</h3>${end ? html`<small>${end.reason === "limit" ? "at the limit" : end.reason}</small>` : html`<small role="status">writing …</small>`}</header>
    <p class="written"><bdi dir="auto" translate="no">${tokens.map((t, i) => html`<span key=${i} class=${`${diff && parts >= 0 && i >= parts ? "apart" : ""} ${diff && i === parts ? "parting" : ""} ${scores.get(t.i)?.theta_ratio > 1 ? "tok outside" : ""}`}><${Shown} text=${t.text} /></span>`)}</bdi></p>
    ${kl.some(Number.isFinite) && column !== baseline ? html`<${Spark} values=${kl} name="KL from the baseline's distribution, token by token" height=${28} /><small>KL, token by token</small>` : null}
    <dl class="facts"><div><dt>perplexity, unsteered</dt><dd>${significant(s.ppl_base)}</dd></div>${column === baseline ? null : html`<div><dt>mean KL</dt><dd>${significant(s.mean_kl)}</dd></div>`}<div><dt>in the region</dt><dd>${percent(s.target_hit, 0)}</dd></div><div><dt>outside θ</dt><dd>${percent(s.ood, 0)}</dd></div></dl>
    ${s.ppl_base > 60 && column !== baseline ? html`<${Badge} kind="caution">the unsteered model finds this text unlikely</${Badge}>` : null}</article>`;
}

/** What was asked and written, to keep. */
const session = (d, asked, columns) => ({
  dictionary: d.folder_name, fingerprint: d.fingerprint, model: columns[0]?.model ?? d.model, asked,
  answers: columns.map((c) => ({ name: c.name, text: c.tokens.map((t) => t.text).join(""), tokens: c.tokens.map((t) => ({ ...t, ...c.scores.get(t.i) })), end: c.end })),
});

const call = (x) => ({ add: `add(dictionary.region(${x.region}), ${x.strength}`, ablate: `ablate(dictionary.region(${x.region})`, cap: `cap(dictionary.region(${x.region}), ${x.strength}` })[x.op];

/** The same in Python. @param {Variant[]} variants */
const python = (d, prompt, variants, { chat, tokens, temperature, seed }) => `import exemplars as ex

model = ex.load_model(${JSON.stringify(d.model?.name ?? "MODEL")})
dictionary = ex.load(${JSON.stringify(d.folder_name)})
prompt = ${JSON.stringify(prompt)}
how = dict(chat=${chat ? "True" : "False"}, max_new_tokens=${tokens}, temperature=${temperature}, seed=${seed})
print(ex.generate(model, [prompt], **how)[0].text)
${variants.map((v) => `edits = [${v.items.map((x) => `ex.Edit.${call(x)}, positions="${x.positions}")`).join(", ")}]\nprint(ex.generate(model, [prompt], edits, **how)[0].text)`).join("\n")}
`;
