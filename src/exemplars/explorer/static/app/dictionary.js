/** A dictionary's record and its columns, for the pages that show it. */
import { useEffect, useMemo, useState } from "app/html";
import { cached, forget, useLoaded } from "app/api";
import { loadColumns } from "app/state";

export { Problem, Waiting } from "app/ui";

const AGAIN = 2000;

/** The record of a dictionary, asked for again while the server finds out more. */
export function useGetDictionary(d) {
  const [n, setN] = useState(0);
  const path = `/d/${encodeURIComponent(d)}`;
  const answer = useLoaded(`${path} ${n}`, () => {
    if (n) forget(path);
    return cached(path);
  });
  useEffect(() => {
    if (answer.loading || answer.data?.settled !== false) return undefined;
    const timer = setTimeout(() => setN(n + 1), AGAIN);
    return () => clearTimeout(timer);
  }, [answer]);
  return answer;
}

/** @param {any} d @param {string | null} [wanted] A column that may have to be made first: the others are there meanwhile.
 * @returns {import("app/api").Answer} Column name → typed array. */
export function useColumns(d, wanted = null) {
  const there = useLoaded(`${d.slug}/${d.fingerprint}`, () => loadColumns(d));
  const fresh = there.data ? (d.columns ?? []).map((c) => c.name).filter((name) => !(name in there.data)).join(",") : "";
  const later = d.later?.includes(wanted) ? wanted : "";
  const found = [fresh, later].map((names) => useLoaded(names ? `${d.slug}/${d.fingerprint}/${names}` : null, () => loadColumns(d, names)));
  const more = found.map((answer, i) => ([fresh, later][i] ? answer.data : null));
  const data = useMemo(() => there.data && Object.assign({}, there.data, ...more), [there.data, ...more]);
  return { ...there, data };
}

/** "SmolLM2 · layer 12 · 99th percentile", from what the record says. */
export function describe(x) {
  const layer = x.layer ?? x.model?.layer;
  return [
    typeof x.model === "string" ? x.model : x.model?.name,
    x.site ?? x.model?.site ?? (layer === null || layer === undefined ? null : `layer ${layer}`),
  ].filter(Boolean).map(String);
}
