/** Notes, pins and labels: what a person wrote. It is kept beside the view cache. */
import { html, signal, useEffect, useState } from "app/html";
import { getJson, send } from "app/api";
import { announced, can, tray, whyNot } from "app/state";
import { href } from "app/router";
import { Empty, Problem, Section, Table } from "app/ui";
import { plain } from "app/text";

/** The server's notes, with the version that a change must name. */
const kept = signal(null);

async function load() {
  kept.value = await getJson("/notes");
}

/** Writes notes; where somebody else wrote meanwhile, theirs are read and this one is put on top. */
async function write(change) {
  for (let left = 2; ; left--) {
    const { pins = [], notes = {}, version } = kept.peek();
    const body = { pins, notes: { ...notes, ...change } };
    for (const [key, text] of Object.entries(body.notes)) if (!text) delete body.notes[key];
    try {
      await send("PUT", "/notes", body, { headers: { "If-Match": String(version) } });
      await load();
      return;
    } catch (error) {
      if (error.status !== 412 || left === 0) throw error;
      await load();
    }
  }
}

/** @param {{d: string, id: number}} props */
export function NoteEditor({ d, id }) {
  const key = `${d}/${id}`;
  const [text, setText] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => { load().catch(setError); }, [key]);
  if (error) return html`<${Problem} error=${error} />`;
  const there = kept.value?.notes?.[key] ?? "";
  if (!can("write")) return html`<p class="passage">${there ? plain(there, 4000) : ""}</p><p class="note">Notes cannot be written: ${whyNot("write")}.</p>`;
  const save = async (e) => {
    e.preventDefault();
    try {
      await write({ [key]: (text ?? there).trim() });
      setText(null);
      announced.value = "Note kept.";
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<form class="stack" onSubmit=${save}><label><span class="unseen">Note on region ${id}</span><textarea rows="3" maxlength="4000" placeholder="What is this region about?" value=${text ?? there} onInput=${(e) => setText(e.currentTarget.value)} /></label>
    ${text !== null && text !== there ? html`<p class="row"><button type="submit" class="solid">Keep the note</button></p>` : null}</form>`;
}

export function NotesPage() {
  const [error, setError] = useState(null);
  useEffect(() => { load().catch(setError); }, []);
  const { notes = {}, labels = {} } = kept.value ?? {};
  const link = (key) => {
    const [d, id] = [key.slice(0, key.lastIndexOf("/")), key.slice(key.lastIndexOf("/") + 1)];
    return html`<a href=${href(["d", d, "r", id])}>${plain(d, 40)} ${id}</a>`;
  };
  const listed = (name, all) => (Object.keys(all).length ? html`<${Table} caption=${name} head=${["region", name]} rows=${Object.entries(all).map(([key, text]) => [link(key), plain(text, 500)])} />` : html`<${Empty}>None yet.</${Empty}>`);
  return html`<div class="page narrow"><h1>Notes</h1>${error ? html`<${Problem} error=${error} />` : null}
    <${Section} title="In the tray" id="pins">${() => (tray.value.length ? html`<ul class="plain">${tray.value.map((p) => html`<li key=${p.d + p.id}>${link(`${p.d}/${p.id}`)} ${p.label ? plain(p.label, 80) : `‘${plain(p.token, 40)}’`}</li>`)}</ul>` : html`<${Empty}>Nothing is pinned. Press P on a region.</${Empty}>`)}</${Section}>
    <${Section} title="Your labels" id="labels">${() => listed("label", labels)}</${Section}>
    <${Section} title="Your notes" id="notes">${() => listed("note", notes)}</${Section}></div>`;
}
