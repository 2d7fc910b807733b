/** How numbers are written. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const isNumber = (x) => typeof x === "number" && Number.isFinite(x);
const or = (x, write) => (isNumber(x) ? write(x) : "–");

export const count = (n) => or(n, whole.format);
export const compact = (n) => or(n, (x) => (Math.abs(x) < 10000 ? whole.format(x) : short.format(x)));
export const fixed = (x, digits = 2) => or(x, (v) => v.toFixed(digits).replace("-", "−"));
export const significant = (x, digits = 3) =>
  or(x, (v) => (v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e6) ? v.toExponential(digits - 1) : String(+v.toPrecision(digits))).replace("-", "−"));
export const theta = (x) => or(x, (v) => `${v.toFixed(2)} θ`);
export const percent = (x, digits = 1) =>
  or(x, (v) => (v > 0 && v * 100 < 10 ** -digits ? `< ${(10 ** -digits).toFixed(digits)} %` : `${(v * 100).toFixed(digits)} %`));
/** "the 2nd percentile" is a place in an order; θ's percentile is a number, so it is said as one. */
export const atPercentile = (p) => (isNumber(p) ? `percentile ${significant(p)}` : "");
export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

/** What a column of the dictionary is called, and how its values are written. */
export const COLUMNS = {
  member_count: { name: "members", write: count, log: true },
  share: { name: "share of members", write: (x) => percent(x, 2) },
  coherence: { name: "coherence", write: (x) => fixed(x, 3) },
  mean_dist: { name: "mean distance", write: theta },
  mean_dist_theta: { name: "mean distance", write: theta },
  p95_dist: { name: "95th percentile of distance", write: theta },
  first_seen: { name: "founded at token", write: count },
  distinct_tokens: { name: "distinct tokens", write: count, log: true },
  lens_entropy: { name: "lens entropy", write: (x) => `${fixed(x, 2)} nats` },
  parent: { name: "coarser region", write: count },
  parent_share: { name: "share in coarser region, estimated", write: (x) => percent(x, 0) },
  density: { name: "regions in a square", write: count, log: true },
  match: { name: "cosine to the best match", write: (x) => fixed(x, 3) },
  pieces: { name: "finer regions, effective", write: (x) => fixed(x, 1) },
  change_cosine: { name: "cosine to the other checkpoint", write: (x) => fixed(x, 3) },
  nn1: { name: "nearest region", write: count },
  nn1_cos: { name: "cosine to nearest region", write: (x) => fixed(x, 3) },
};
export const columnName = (name) => COLUMNS[name]?.name ?? name.replaceAll("_", " ");
export const writeColumn = (name, x) => (COLUMNS[name]?.write ?? significant)(x);
