/** Answers carried by an exported file, which has no server: looked up by the path asked. */

const element = document.getElementById("export-data");

/** Null when the page is served. */
export const embedded = element ? carried(JSON.parse(element.textContent)) : null;

/** @param {{json: Record<string, any>, rows: Record<string, any[]>, binary: Record<string, string>}} data */
function carried(data) {
  return {
    async json(asked) {
      const path = asked.replace(/^\//, "");
      return data.json[path] ?? listed(data, path) ?? section(data, path) ?? missing();
    },
    async binary(asked) {
      const path = asked.replace(/^\//, "");
      if (/\/regions\?.*view=ids/.test(path)) return Uint32Array.from(listed(data, `${path}&_size=1000000`).rows, (row) => row.id).buffer;
      const text = data.binary[path] ?? data.binary[path.split("?")[0]] ?? missing();
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      return new Response(stream).arrayBuffer();
    },
    async post(path, body) {
      const { kind, id } = body?.basis ?? {};
      const slug = path.split("/")[2];
      const name = kind === "local" ? `slice:local:${id}` : `slice:${kind}`;
      return data.json[`d/${slug}/${name}`] ?? data.json[name] ?? missing();
    },
    async *lines() {
      missing();
    },
  };
}

function missing() {
  const error = new Error("this file does not carry that; open the dictionary with `exemplars explore`");
  throw Object.assign(error, { status: 404 });
}

/** The list of regions and the search, answered from the rows that the file carries. */
function listed(data, path) {
  const found = /^d\/([^/]+)\/(regions|search)(?:\?(.*))?$/.exec(path);
  const rows = found && data.rows?.[decodeURIComponent(found[1])];
  if (!rows) return null;
  const query = new URLSearchParams(found[3] ?? "");
  return found[2] === "regions" ? chosen(rows, query) : searched(rows, query);
}

/** A region, or a section of its page, out of the region's whole record. */
function section(data, path) {
  const found = /^(d\/[^/]+\/regions\/[^/?]+)(?:\/(\w+))?(?:\?(.*))?/.exec(path);
  const record = found && data.json[`${found[1]}?_extra=members,lens,neighbours,resolution,tokens,histogram`];
  if (!record) return null;
  const query = new URLSearchParams(found[3] ?? "");
  if (!found[2]) return { ...record, lens: (record.lens?.promoted ?? []).map((t) => t.text ?? t)};
  const part = record[found[2]];
  if (part?.error) throw Object.assign(new Error(part.error), { status: 409 });
  if (found[2] === "members") return members(part, query.get("kind") ?? "nearest", query.get("band"));
  if (found[2] === "lens" && part && query.get("direction") !== part.direction) missing();
  return part;
}

/** The kept members of one tab. */
function members(part, kind, band) {
  if (!part) return null;
  const [lo, hi] = (band ?? "0-1").split("-").map(Number);
  const rows = kind === "band" ? part.rows.filter((m) => m.theta_ratio >= lo && m.theta_ratio < hi)
    : part.rows.filter((m) => (m.ranks?.[kind] ?? -1) >= 0).sort((a, b) => a.ranks[kind] - b.ranks[kind]);
  return { ...part, rows: rows.slice(0, 20), count: rows.length, next: null };
}

const text = (row) => `${row.id} ${row.label ?? ""} ${row.token?.text ?? ""} ${row.context?.text ?? ""}`.toLowerCase();

const TESTS = {
  gte: (a, b) => a >= +b, lte: (a, b) => a <= +b, gt: (a, b) => a > +b, lt: (a, b) => a < +b,
  exact: (a, b) => String(a) === b, not: (a, b) => String(a) !== b,
  contains: (a, b) => String(a).toLowerCase().includes(b.toLowerCase()), in: (a, b) => b.split(",").includes(String(a)),
};

function chosen(all, query) {
  let rows = all.slice();
  for (const [name, value] of query) {
    const [column, test] = name.split("__");
    const read = (row) => (column === "token" ? row.token?.text : row[column]);
    if (TESTS[test]) rows = rows.filter((row) => read(row) !== null && TESTS[test](read(row), value));
    if (name === "_search") rows = rows.filter((row) => text(row).includes(value.toLowerCase()));
    if (name === "ids") rows = rows.filter((row) => value.split(",").includes(String(row.id)));
  }
  const by = query.get("_sort_desc") ?? query.get("_sort");
  if (by) {
    const sign = query.has("_sort_desc") ? -1 : 1;
    rows.sort((a, b) => sign * ((a[by] ?? -Infinity) - (b[by] ?? -Infinity)) || a.id - b.id);
  }
  const size = +(query.get("_size") ?? 50), from = +(query.get("_next") ?? 0);
  const next = from + size < rows.length ? String(from + size) : null;
  return { ok: true, rows: rows.slice(from, from + size), count: rows.length, next, facets: [] };
}

function searched(rows, query) {
  const q = (query.get("q") ?? "").toLowerCase();
  const hits = rows.filter((row) => q && text(row).includes(q)).slice(0, +(query.get("k") ?? 50));
  return {
    hits: hits.map((row) => ({ ...row, field: "context", text: row.context?.text ?? "", spans: [] })),
    truncated: false,
  };
}
