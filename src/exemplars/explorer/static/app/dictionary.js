/** A dictionary's record and its columns, for the pages that show it. */
import { useGet, useLoaded } from "app/api";
import { loadColumns } from "app/state";

export { Problem, Waiting } from "app/ui";

export const useGetDictionary = (d) => useGet(`/d/${encodeURIComponent(d)}`);

/** @returns {import("app/api").Answer} Column name → typed array. */
export const useColumns = (d) => useLoaded(`${d.slug}/${d.fingerprint}`, () => loadColumns(d));

/** "SmolLM2 · layer 12 · 99th percentile", from what the record says. */
export function describe(x) {
  const layer = x.layer ?? x.model?.layer;
  return [
    typeof x.model === "string" ? x.model : x.model?.name,
    x.site ?? x.model?.site ?? (layer === null || layer === undefined ? null : `layer ${layer}`),
  ].filter(Boolean).map(String);
}
