/** Small pieces that every page is made of. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "app/html";
import { announced } from "app/state";
import { href } from "app/router";
import { SaveButton, saveChart } from "app/figures";

const ICONS = {
  search: "M10.5 10.5 14 14M12 7A5 5 0 1 1 2 7a5 5 0 0 1 10 0Z",
  pin: "M8 2v7M5 2h6M6 2v4L4 9h8l-2-3V2M8 9v5",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M6 5h7v9H6zM3 11V2h7",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5Z",
  help: "M6 6a2 2 0 1 1 2.6 1.9c-.4.2-.6.5-.6 1V9.5M8 12v.3M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13Z",
  command: "M5.5 5.5h5v5h-5zM5.5 5.5H4A1.7 1.7 0 1 1 5.5 4zM10.5 5.5V4A1.7 1.7 0 1 1 12 5.5zM10.5 10.5H12A1.7 1.7 0 1 1 10.5 12zM5.5 10.5V12A1.7 1.7 0 1 1 4 10.5z",
  table: "M2 3h12v10H2zM2 6.5h12M2 10h12M6.5 3v10",
  left: "M10 3 5 8l5 5", right: "M6 3l5 5-5 5", down: "M3 6l5 5 5-5", up: "M3 10l5-5 5 5", minus: "M3 8h10", reset: "M3.5 5.500A5.200 5.200 0 1 1 2.800 9M3.500 2v3.500H7",
  link: "M7 9a2.5 2.5 0 0 0 3.5 0l2.5-2.5A2.5 2.5 0 0 0 9.5 3L8.5 4M9 7a2.5 2.5 0 0 0-3.5 0L3 9.5A2.5 2.5 0 0 0 6.5 13l1-1",
  play: "M5 3l8 5-8 5z", stop: "M4 4h8v8H4z", plus: "M8 3v10M3 8h10",
  edit: "M3 13l.6-2.8L11 2.8 13.2 5 5.8 12.400z",
};

export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;

export const IconButton = ({ icon, label, ...rest }) =>
  html`<button type="button" class="icon-button" aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} /></button>`;

/** A note on how far a view is to be trusted. */
export const Badge = ({ kind = "note", children, title }) =>
  html`<span class=${`badge ${kind}`} title=${title}>${children}</span>`;

export const Figure = ({ value, name, note }) =>
  html`<div class="figure"><dt>${name}</dt><dd>${value}${note ? html`<small> ${note}</small>` : null}</dd></div>`;

/** A choice among few, as buttons in a row. */
export function Choice({ label, value, options, onChange, class: more = "" }) {
  return html`<div class=${`choice ${more}`} role="group" aria-label=${label}>${options.map(([key, name]) =>
    html`<button type="button" key=${key} aria-pressed=${value === key} onClick=${() => onChange(key)}>${name}</button>`)}</div>`;
}

export function Select({ label, value, options, onChange, hideLabel = false }) {
  return html`<label class="select"><span class=${hideLabel ? "unseen" : ""}>${label}</span>
    <select value=${value} aria-label=${label} onChange=${(e) => onChange(e.currentTarget.value)}>${options.map(([key, name]) =>
      html`<option key=${key} value=${key} selected=${key === value}>${name}</option>`)}</select></label>`;
}

export const Waiting = ({ what = "Loading" }) => html`<p class="waiting" role="status">${what} …</p>`;
export const Problem = ({ error, again }) => html`<p class="problem" role="alert">${capital(error?.message ?? error)}.
  ${again ? html` <button type="button" class="link" onClick=${again}>Try again</button>` : null}</p>`;
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;
const capital = (s) => {
  const text = String(s).replace(/\.$/, "");
  return text.charAt(0).toUpperCase() + text.slice(1);
};

/** What an answer has to show: its data, that it is awaited, or why it is not there. */
export function Loaded({ answer, what, children }) {
  if (answer.error) return html`<${Problem} error=${answer.error} />`;
  if (answer.data === null || answer.data === undefined) return html`<${Waiting} what=${what} />`;
  return children(answer.data);
}

export function CopyButton({ label, text }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "function" ? await text() : text);
      setDone(true);
      announced.value = "Copied.";
      setTimeout(() => setDone(false), 1200);
    } catch {
      announced.value = "The browser did not allow the copy.";
    }
  };
  return html`<button type="button" class="quiet" onClick=${copy}>${done ? "Copied" : label}</button>`;
}

/** Plain text of a table, for pasting into a sheet; `plain` are its rows where cells are elements. */
export const asTsv = (table) => [table.head, ...(table.plain ?? table.rows)].map((r) => r.map((c) => String(c ?? "").replace(/[\t\n\r]/g, " ")).join("\t")).join("\n");

/** A table. `head` are names; cells are text or elements; `numeric` names columns by index. */
export function Table({ caption, head, rows, numeric = [], class: more = "" }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`${caption}, as a table`}><table class=${more}>
    <caption class="unseen">${caption}</caption>
    <thead><tr>${head.map((name, j) => html`<th scope="col" class=${numeric.includes(j) ? "num" : ""}>${name}</th>`)}</tr></thead>
    <tbody>${rows.map((row, i) => html`<tr key=${i}>${row.map((cell, j) =>
      html`<td class=${numeric.includes(j) ? "num" : ""}>${cell}</td>`)}</tr>`)}</tbody></table></div>`;
}

/** A titled part of a page. It is made when it comes near the window, and can be read as a table.
 * @param {{title: string, id: string, table?: () => {head: string[], rows: any[][], numeric?: number[]}, children: any}} props
 *   `children` is a function, called when the section is near; `figure` says what is saved of its chart. */
export function Section({ title, id, note, table, figure, actions, open = true, children }) {
  const ref = useRef(null);
  const [near, setNear] = useState(false);
  const [tabular, setTabular] = useState(false);
  useLayoutEffect(() => {
    if (ref.current.getBoundingClientRect().top < innerHeight) { // no need to wait for the observer
      setNear(true);
      return undefined;
    }
    const watch = new IntersectionObserver((entries) => {
      if (entries.some((e) => e.isIntersecting)) {
        setNear(true);
        watch.disconnect();
      }
    }, { rootMargin: "200px" });
    watch.observe(ref.current);
    return () => watch.disconnect();
  }, []);
  const made = tabular && table ? table() : null;
  return html`<section ref=${ref} class="section" aria-labelledby=${`h-${id}`}>
    <header><h2 id=${`h-${id}`}>${title}</h2>${note ? html`<span class="note">${note}</span>` : null}<span class="spring" />${near ? actions : null}
      ${table && near ? html`<button type="button" class="quiet" aria-pressed=${tabular} onClick=${() => setTabular(!tabular)}>as table</button>
        <${CopyButton} label="copy" text=${() => asTsv(table())} />` : null}
      ${figure && near && !made ? html`<${SaveButton} what=${title} onSave=${() => saveChart(ref.current, figure)} />` : null}
    </header>
    ${made ? html`<${Table} caption=${title} ...${made} />` : near && open ? children() : html`<div class="unmade" />`}
  </section>`;
}

/** A modal dialog of the browser: focus stays in it, and Escape closes it. */
export function Dialog({ title, onClose, children, class: more = "" }) {
  const ref = useRef(null);
  useLayoutEffect(() => { // before the next key is pressed
    const dialog = ref.current;
    dialog.showModal();
    return () => dialog.close(); // which gives the focus back
  }, []);
  return html`<dialog ref=${ref} class=${more} aria-label=${title} onClose=${onClose}
    onClick=${(e) => e.target === ref.current && ref.current.close()}>
    <div class="dialog">${children}</div></dialog>`;
}

export const RegionLink = ({ d, id, children, ...rest }) =>
  html`<a href=${href(["d", d, "r", id])} ...${rest}>${children ?? `Region ${id}`}</a>`;
