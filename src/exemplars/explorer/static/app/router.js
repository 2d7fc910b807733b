/** Hash routes: the address is the state. The same links work served and exported. */
import { signal } from "app/html";

/** @typedef {{path: string[], query: Record<string, string>}} Route */

/** @param {string} hash @returns {Route} */
export function parseHash(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { path: parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Query values that are null, undefined, or "" are left out.
 * @param {(string|number)[]} path @param {Record<string, any>} [query] */
export function href(path, query = {}) {
  const kept = Object.entries(query).filter(([, v]) => v !== null && v !== undefined && v !== "");
  const q = new URLSearchParams(kept.map(([k, v]) => [k, String(v)])).toString();
  return "#/" + path.map((p) => encodeURIComponent(String(p))).join("/") + (q ? "?" + q : "");
}

export const route = signal(parseHash(location.hash));

/** The hash that `route` is of. It is followed at once, since the browser's event comes later. */
let shown = location.hash;

function follow(hash) {
  shown = hash;
  route.value = parseHash(hash);
}

export function startRouter() {
  follow(location.hash);
  addEventListener("hashchange", () => {
    if (location.hash !== shown) follow(location.hash);
  });
}

/** @param {string} target A link made by `href`. */
export function go(target, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", target);
    follow(location.hash);
  } else if (location.hash !== target) {
    location.hash = target;
    follow(location.hash);
  }
}

/** Changes part of the query and stays on the page; null takes a parameter out. */
export function setQuery(patch, { replace = true } = {}) {
  if (location.hash !== shown) return; // a link has been followed whose event is still to come: this page is being left
  const { path, query } = route.peek();
  go(href(path, { ...query, ...patch }), { replace });
}
