/** A dictionary's record and its columns, for the pages that show it. */
import { useMemo } from "app/html";
import { useGet, useLoaded } from "app/api";
import { loadColumns } from "app/state";

export { Problem, Waiting } from "app/ui";

export const useGetDictionary = (d) => useGet(`/d/${encodeURIComponent(d)}`);

/** @param {any} d @param {string | null} [wanted] A column that may have to be made first: the others are there meanwhile.
 * @returns {import("app/api").Answer} Column name → typed array. */
export function useColumns(d, wanted = null) {
  const later = d.later?.includes(wanted) ? wanted : null;
  const there = useLoaded(`${d.slug}/${d.fingerprint}`, () => loadColumns(d));
  const made = useLoaded(later === null ? null : `${d.slug}/${d.fingerprint}/${later}`, () => loadColumns(d, later));
  const data = useMemo(() => (there.data && later && made.data ? { ...there.data, ...made.data } : there.data), [there.data, made.data, later]);
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
