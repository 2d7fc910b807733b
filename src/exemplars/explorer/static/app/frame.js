/** What stands around every page: the bar, search, commands, help, inspector, tray. */
import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "app/html";
import { cached, preparing, reconnect, server } from "app/api";
import { announced, current, dark, dictionaries, hovered, loadRegion, regionPath, select, selected, shortcuts, slug, theme, togglePin, tray, MOST_PINNED } from "app/state";
import { go, href, route } from "app/router";
import { KEY_MAP, useKeys } from "app/keys";
import { Dialog, Icon, IconButton } from "app/ui";
import { count, plural } from "app/format";
import { Token, plain } from "app/text";
import { Inspected, pinOf } from "app/card";

/** Which dialog is open: "palette", "help", or null. */
export const opened = signal(null);

export const PAGES = [
  ["", "Overview"], ["sphere", "Sphere"], ["map", "Map"], ["regions", "Regions"], ["text", "Live text"],
  ["steer", "Steer"], ["growth", "Growth"], ["resolution", "Resolution"],
];

const Mark = () => html`<svg class="mark" viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="8.6" /><path d="M1.6 8.4 7 7l3.4-5.5M7 7l1.6 6.5-5 2.5M8.6 13.5l6.9 2.2M8.6 13.5 13.5 9l-1.7-7M13.5 9l5 1.7" /></svg>`;

export function TopBar() {
  const { path } = route.value;
  const d = slug.value;
  const page = path[0] === "d" ? (path[2] === "r" ? "regions" : path[2] ?? "") : null;
  return html`<header class="top">
    <a class="home" href="#/" aria-label="exemplars: all dictionaries"><${Mark} /><span>exemplars</span></a>
    ${d !== null ? html`<${Switcher} d=${d} page=${page} />
      <nav class="tabs" aria-label="Pages of this dictionary">${PAGES.map(([key, name]) => html`<a key=${key}
        href=${href(key ? ["d", d, key] : ["d", d])} aria-current=${page === key ? "page" : null}>${name}</a>`)}</nav>`
      : html`<nav class="tabs" aria-label="Pages"><a href="#/" aria-current=${path.length ? null : "page"}>Dictionaries</a>
        <a href="#/notes" aria-current=${path[0] === "notes" ? "page" : null}>Notes</a><a href="#/about" aria-current=${path[0] === "about" ? "page" : null}>About</a></nav>`}
    <span class="spring" />
    ${d !== null ? html`<${Search} d=${d} />` : null}
    <div class="tools"><${IconButton} icon="command" label="Commands (Ctrl or ⌘ K)" onClick=${() => { opened.value = "palette"; }} />
      <${IconButton} icon=${dark.value ? "sun" : "moon"} label=${dark.value ? "Light theme" : "Dark theme"} onClick=${() => { theme.value = dark.peek() ? "light" : "dark"; }} />
      <${IconButton} icon="help" label="Help (?)" onClick=${() => { opened.value = "help"; }} /></div>
  </header>`;
}

function Switcher({ d, page }) {
  return html`<label class="switcher"><span class="unseen">Dictionary</span><select value=${d}
    onChange=${(e) => go(href(page ? ["d", e.currentTarget.value, page] : ["d", e.currentTarget.value]))}>
    ${dictionaries.value.map((x) => html`<option key=${x.slug} value=${x.slug} selected=${x.slug === d}>${plain(x.title || x.slug, 60)}</option>`)}
  </select></label>`;
}

/** Milliseconds without a key until what was typed is asked for: less than between two keys. */
const PAUSE = 40;

/** Search as one types: a field with a list of regions under it. */
function Search({ d }) {
  const [text, setText] = useState("");
  const [hits, setHits] = useState(null);
  const [at, setAt] = useState(-1);
  const field = useRef(null);
  useKeys({ "/": () => field.current.focus() }, { under: true });
  useEffect(() => {
    setAt(-1);
    if (!text.trim()) {
      setHits(null);
      return undefined;
    }
    let live = true;
    const timer = setTimeout(() => cached(`/d/${encodeURIComponent(d)}/search?q=${encodeURIComponent(text)}&k=12`)
      .then((a) => live && setHits(a), (e) => live && setHits({ hits: [], error: e.message })), PAUSE);
    return () => {
      live = false;
      clearTimeout(timer);
    };
  }, [text, d]);
  const close = () => { setText(""); setHits(null); };
  const all = () => { go(href(["d", d, "regions"], { _search: text })); close(); field.current.blur(); };
  const open = (hit) => { go(href(["d", d, "r", hit.id])); close(); field.current.blur(); };
  const list = hits?.hits ?? [];
  const down = (e) => {
    if (e.key === "ArrowDown") setAt(Math.min(list.length - 1, at + 1));
    else if (e.key === "ArrowUp") setAt(Math.max(-1, at - 1));
    else if (e.key === "Enter") { if (at >= 0) open(list[at]); else if (text.trim()) all(); }
    else if (e.key === "Escape") { close(); field.current.blur(); }
    else return;
    e.preventDefault();
  };
  return html`<div class="search" role="search" onFocusOut=${(e) => !e.currentTarget.contains(e.relatedTarget) && setHits(null)}>
    <${Icon} name="search" /><input ref=${field} type="search" role="combobox" aria-expanded=${list.length > 0} aria-controls="search-list" aria-autocomplete="list"
      aria-activedescendant=${at >= 0 ? `hit-${at}` : null} aria-label="Search the regions" placeholder="Search" value=${text} onInput=${(e) => setText(e.currentTarget.value)} onKeyDown=${down} /><kbd aria-hidden="true">/</kbd>
    ${hits ? html`<div class="popup"><ul id="search-list" role="listbox" aria-label="Regions found">${list.map((hit, i) => html`<li key=${i} id=${`hit-${i}`} role="option" aria-selected=${i === at}
        onMouseDown=${(e) => { e.preventDefault(); open(hit); }} onMouseEnter=${() => setAt(i)}><span class="hit-name">${hit.label ? plain(hit.label, 40) : html`<${Token} text=${hit.token?.text ?? hit.id} />`}</span>
        <${Marked} text=${hit.text} spans=${hit.spans} /><span class="num">${count(hit.member_count)}</span></li>`)}</ul>
      <p class="note">${hits.error ? `${hits.error}.` : list.length ? html`Enter lists all matches${hits.truncated ? "; there are more" : ""}` : "No region matches."}</p></div>` : null}
  </div>`;
}

/** Text with spans marked, cut around the first. */
export function Marked({ text, spans = [], around = 36 }) {
  const whole = String(text ?? "");
  const first = spans?.[0]?.[0] ?? 0;
  const from = Math.max(0, first - around), to = Math.min(whole.length, first + around * 2);
  const parts = [from > 0 ? "…" : ""];
  let at = from;
  for (const [start, end] of spans ?? []) {
    if (start < at || end > to) continue;
    parts.push(plain(whole.slice(at, start)), html`<mark>${plain(whole.slice(start, end))}</mark>`);
    at = end;
  }
  parts.push(plain(whole.slice(at, to)), to < whole.length ? "…" : "");
  return html`<bdi class="snippet" dir="auto" translate="no">${parts}</bdi>`;
}

function commands() {
  const d = slug.peek();
  const of = d === null ? [] : [
    ...PAGES.map(([key, name]) => ({ name, hint: "page", run: () => go(href(key ? ["d", d, key] : ["d", d])) })),
    { name: "Sphere: exact slice", hint: "view", run: () => go(href(["d", d, "sphere"], { mode: "slice" })) },
    { name: "Largest regions", hint: "list", run: () => go(href(["d", d, "regions"], { _sort_desc: "member_count" })) },
    { name: "Most coherent regions of 20 members or more", hint: "list", run: () => go(href(["d", d, "regions"], { member_count__gte: 20, _sort_desc: "coherence" })) },
    ...dictionaries.peek().filter((x) => x.slug !== d).map((x) => ({ name: `Drift from here to ${plain(x.title || x.slug)}`, hint: "compare", run: () => go(href(["drift", d, x.slug])) })),
  ];
  return [
    ...of,
    { name: "All dictionaries", hint: "page", run: () => go("#/") }, { name: "Notes, pins and labels", hint: "page", run: () => go("#/notes") },
    { name: "About, licences, diagnostics", hint: "page", run: () => go("#/about") },
    ...dictionaries.peek().map((x) => ({ name: `Open ${plain(x.title || x.slug)}`, hint: plural(x.k, "region"), run: () => go(href(["d", x.slug])) })),
    { name: dark.peek() ? "Light theme" : "Dark theme", hint: "setting", run: () => { theme.value = dark.peek() ? "light" : "dark"; } },
    { name: "Theme of the system", hint: "setting", run: () => { theme.value = "auto"; } },
    { name: shortcuts.peek() ? "Single-key shortcuts off" : "Single-key shortcuts on", hint: "setting", run: () => { shortcuts.value = !shortcuts.peek(); } },
    { name: "Empty the tray", hint: "tray", run: () => { tray.value = []; } },
    { name: "Keyboard help", hint: "?", run: () => { opened.value = "help"; } },
  ];
}

/** Those that a text asks for, or the region that a number names. */
function commandsFor(text) {
  const number = /^#?(\d+)$/.exec(text.trim());
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = commands().filter((c) => words.every((w) => c.name.toLowerCase().includes(w)));
  const d = slug.peek();
  if (number && d !== null) found.unshift({ name: `Region ${number[1]}`, hint: "open", run: () => go(href(["d", d, "r", number[1]])) });
  return found.slice(0, 12);
}

function Palette() {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const list = commandsFor(text);
  const run = (c) => {
    opened.value = null;
    c.run();
  };
  const down = (e) => {
    if (e.key === "ArrowDown") setAt(Math.min(list.length - 1, at + 1));
    else if (e.key === "ArrowUp") setAt(Math.max(0, at - 1));
    else if (e.key === "Enter") { // what was typed a moment ago may not be drawn yet
      const typed = e.currentTarget.value;
      const chosen = typed === text ? list[at] : commandsFor(typed)[0];
      if (chosen) run(chosen);
    }
    else return;
    e.preventDefault();
  };
  return html`<${Dialog} title="Commands" class="palette" onClose=${() => { if (opened.peek() === "palette") opened.value = null; }}>
    <input type="text" role="combobox" aria-expanded="true" aria-controls="command-list" aria-label="Command, or the number of a region" placeholder="A command, or the number of a region" autofocus
      aria-activedescendant=${list.length ? `command-${at}` : null} value=${text} onInput=${(e) => { setText(e.currentTarget.value); setAt(0); }} onKeyDown=${down} />
    <ul id="command-list" role="listbox" aria-label="Commands">${list.map((c, i) => html`<li key=${c.name} id=${`command-${i}`} role="option" aria-selected=${i === at} onMouseEnter=${() => setAt(i)} onClick=${() => run(c)}>
      <span>${c.name}</span><small>${c.hint}</small></li>`)}</ul>
  </${Dialog}>`;
}

function Help() {
  return html`<${Dialog} title="Help" class="help" onClose=${() => { if (opened.peek() === "help") opened.value = null; }}>
    <header><h2>Keys</h2><form method="dialog"><button class="quiet">Close</button></form></header>
    <div class="keys">${KEY_MAP.map(([title, keys]) => html`<section key=${title}><h3>${title}</h3><dl>${keys.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl></section>`)}</div>
    <label class="check"><input type="checkbox" checked=${shortcuts.value} onChange=${(e) => { shortcuts.value = e.currentTarget.checked; }} /> Single-key shortcuts</label>
    <h2>Words</h2>
    <dl class="words"><div><dt>region</dt><dd>one cell of the partition: all activations nearer to its exemplar than to any other</dd></div>
      <div><dt>exemplar</dt><dd>the observed activation that founded the region</dd></div>
      <div><dt>θ</dt><dd>the threshold: an activation farther than θ (cosine distance) from every exemplar lies outside all regions</dd></div>
      <div><dt>percentile</dt><dd>where in the distances of the data θ was set</dd></div><div><dt>site</dt><dd>the place in the model that the activations come from</dd></div></dl>
  </${Dialog}>`;
}

/** The region that is pointed at, or else the one chosen. */
export function Inspector({ hint = "Point at a region, or choose one with the keyboard, to see it here." }) {
  const here = (x) => (x !== null && (slug.value === null || x.d === slug.value) ? x : null);
  const p = here(hovered.value) ?? here(selected.value);
  return html`<aside class="inspector" aria-label="Inspector">${p ? html`<${Inspected} d=${p.d} id=${p.id} />` : html`<div class="hint">${hint}</div>`}
    ${here(selected.value) ? html`<p class="row"><button type="button" class="quiet" onClick=${() => select(null, null)}>let go of region ${selected.value.id}</button></p>` : null}</aside>`;
}

function Tray() {
  return tray.value.length ? html`<${Pinned} />` : null;
}

function Pinned() {
  const d = slug.value;
  const here = tray.value.filter((p) => p.d === d);
  const list = useRef(null);
  const takeOut = (pin, i) => { // the focus goes to the one that takes its place
    togglePin(pin);
    const left = [...list.current?.querySelectorAll("button") ?? []].filter((_, j) => j !== i);
    (left[Math.min(i, left.length - 1)] ?? document.getElementById("main"))?.focus();
  };
  const drop = (e) => {
    e.preventDefault();
    const { from } = JSON.parse(e.dataTransfer.getData("application/x-pin") || "{}");
    const to = [...e.currentTarget.querySelectorAll("li")].findIndex((li) => e.clientX < li.getBoundingClientRect().right);
    if (from === undefined) return;
    const pins = tray.peek().slice();
    pins.splice(to < 0 ? pins.length : to, 0, ...pins.splice(from, 1));
    tray.value = pins;
  };
  return html`<section class="tray" aria-label="Tray of pinned regions"><ul ref=${list} onDragOver=${(e) => e.preventDefault()} onDrop=${drop}>${tray.value.map((pin, i) => html`<li key=${`${pin.d}/${pin.id}`} draggable="true"
      onDragStart=${(e) => e.dataTransfer.setData("application/x-pin", JSON.stringify({ from: i }))} onMouseEnter=${() => { hovered.value = pin.d === slug.peek() ? { d: pin.d, id: pin.id } : null; }} onMouseLeave=${() => { hovered.value = null; }}>
      <a href=${href(["d", pin.d, "r", pin.id])}>${pin.label ? plain(pin.label, 24) : html`<${Token} text=${pin.token} />`}<small>${pin.d === d ? pin.id : `${pin.d} ${pin.id}`}</small></a>
      <button type="button" class="icon-button" aria-label=${`Take region ${pin.id} out of the tray`} onClick=${() => takeOut(pin, i)}><${Icon} name="close" /></button></li>`)}</ul>
    <div class="actions"><small>${tray.value.length} of ${MOST_PINNED}</small>
      ${here.length >= 3 ? html`<a class="button" href=${href(["d", d, "sphere"], { mode: "slice", basis: `r.${here.slice(0, 3).map((p) => p.id).join(".")}` })}>slice through 3</a>` : null}
      ${here.length ? html`<a class="button" href=${href(["d", d, "steer"], { regions: here.slice(0, 4).map((p) => p.id).join(".") })}>steer</a>
      <a class="button" href=${href(["d", d, "regions"], { ids: here.map((p) => p.id).join(",") })}>compare</a>` : null}
      <button type="button" class="quiet" onClick=${() => { tray.value = []; document.getElementById("main").focus(); }}>empty</button></div></section>`;
}

function Banner() {
  const [asking, setAsking] = useState(false);
  if (server.value.up) return null;
  const retry = async () => {
    setAsking(true);
    await reconnect().catch(() => undefined); // the banner stays, which says it
    setAsking(false);
  };
  return html`<div class="banner" role="alert"><span>The server does not answer. What is on this page stays readable; start <code>exemplars explore</code> again, then</span>
    <button type="button" class="solid" disabled=${asking} onClick=${retry}>${asking ? "asking …" : "try again"}</button></div>`;
}

const Preparing = () => preparing.value ? html`<p class="preparing" role="status">${preparing.value.stage ?? "Preparing the view cache"}${
  preparing.value.progress ? ` ${Math.round(preparing.value.progress * 100)} %` : ""} …</p>` : null;

/** What keys do to the region that is pointed at or chosen; the page of a region has its own. */
function subjectKeys() {
  const subject = () => [hovered.peek(), selected.peek()].find((p) => p !== null && p.d === slug.peek()) ?? null;
  const open = (id) => id !== undefined && id !== null && go(href(["d", slug.peek(), "r", id]));
  const near = async (k) => {
    const p = subject();
    if (!p) return;
    const { rows } = await cached(`${regionPath(p.d, p.id)}/neighbours?k=8`);
    if (rows[k]) select(p.d, rows[k].id);
  };
  return {
    o: () => open(subject()?.id),
    p: async () => {
      const p = subject();
      if (p) togglePin(pinOf(p.d, await loadRegion(p.d, p.id)));
    },
    l: () => open(subject()?.id), "[": () => near(0), "]": () => near(1),
  };
}

/** @param {{children: any}} props */
export function Frame({ children }) {
  const page = (key) => () => slug.peek() !== null && go(href(key ? ["d", slug.peek(), key] : ["d", slug.peek()]));
  useKeys({
    "mod+k": () => { opened.value = opened.peek() === "palette" ? null : "palette"; }, "?": () => { opened.value = "help"; },
    v: page(""), s: page("sphere"), m: page("map"), r: page("regions"), t: page("text"), g: page("growth"),
    Escape: () => { select(null, null); hovered.value = null; }, ...subjectKeys(),
  }, { under: true });
  const main = useRef(null);
  const where = route.value.path.join("/");
  const first = useRef(true);
  useLayoutEffect(() => { // at once: later it would take the focus from where a quick user has put it
    if (!first.current) {
      // the switcher keeps the focus, so that its next entry is one more key away
      if (!document.activeElement?.closest(".switcher")) main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
    hovered.value = null;
  }, [where]);
  const title = current.value ? `${plain(current.value.title || current.value.slug, 60)} · exemplars` : "exemplars";
  useEffect(() => { document.title = title; }, [title]);
  return html`<a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); main.current.focus(); }}>Skip to the page</a><${TopBar} /><${Banner} /><${Preparing} />
    <main id="main" tabindex="-1" ref=${main}>${children}</main><${Tray} />
    ${opened.value === "palette" ? html`<${Palette} />` : null}${opened.value === "help" ? html`<${Help} />` : null}
    <div class="unseen" role="status" aria-live="polite">${announced.value}</div>`;
}
