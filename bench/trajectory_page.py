"""docs/trajectories.md and a figure from the newest rows of bench/results/trajectories.jsonl."""

# ruff: noqa: E501

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import COLORS, QUIET, drawing, save_figure

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "trajectories.md"
FIGURE = HERE.parent / "docs" / "figures" / "centering"
STUDIES = {
    "words": "*words*: \"The ‹word›\", ten words of each of five categories, final position the word",
    "before": "*before*: twenty prompts of each of four categories that end where a word of it would follow",
    "instructions": "*instructions*: sixty of each kind through the chat template, final position the template's end",
    "ends": "*ends*: the same prompts, in dictionaries of final positions of other instructions alone",
}  # fmt: skip

HEAD = """# Paths from site to site

Through which regions do prompts pass, layer by layer, and do sets of prompts part?

```
exemplars build HuggingFaceTB/SmolLM2-135M-Instruct --site resid_post.9 --site resid_post.15 \\
    --site resid_post.24 -p 2 --text corpus/ --rows 100000 --out sites
exemplars trajectories sites/resid_post.9-p2 sites/resid_post.15-p2 sites/resid_post.24-p2 \\
    --prompts numbers.txt --prompts colours.txt --lens --figure paths.svg
```

Dictionaries of several sites of one model, as `build` makes them in one pass, and one file of prompts for each set. The
model reads each prompt once. In Python: `exemplars.analyses.trajectories` (`read_paths`, `flows`, `set_paths`,
`set_overlaps`) and `exemplars.analyses.alignment` (`category_distances`, `lens_alignment`, `centering`).

## What is asked, and what it stands beside

- **Flows**: how many tokens go from which region to which between neighbouring sites; what a token's region at the one
  site tells of its region at the other, in bits. Mutual information of sparse tables is biased upwards: read it against
  *by chance* (second regions permuted among all tokens) and *by token alone* (permuted among tokens of the same id).
- **Paths** of final positions: the most frequent, with Wilson intervals; *if independent*: the product of the shares at each
  site. Different paths of a set, against as many prompts drawn from all sets.
- **Overlap** of two sets at a site: Jaccard of the regions they end in, and the shared part of their shares. Both depend on how
  large the sets are, so they stand beside shuffled sets. The published Jaccard has no null.
- **Categories**: mean distance of the exemplars of two prompts' regions, within a set and between sets; a pair in one region
  counts 0 on both sides, and the test has two sides. *As published* leaves such pairs out within a category and keeps them between
  categories, which drops the strongest evidence.
- **Centering**: the share of a prompt's nearest prompts that are of its set, by cosines of raw vectors, of vectors less the
  dictionary's center, and less these prompts' own mean (which a dictionary does not know).
- **Lens** (`--lens`): Spearman's correlation, ties at their mean rank, of regions' distances with Jensen-Shannon divergences
  of what the logit lens reads them as; Mantel's permutation of regions; and *turned*: exemplars turned at random before the
  lens reads them, which keeps distances and destroys meaning.

"""


def newest() -> dict[str, dict]:
    rows = {}
    for line in (HERE / "results" / "trajectories.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["what"]] = row
    return rows


def of(rows: dict[str, dict], study: str, percentile: float) -> list[dict]:
    """The orders of one study."""
    return [r for r in rows.values() if r["study"] == study and r.get("percentile") == percentile]


def mean(values: list) -> float:
    kept = [v for v in values if v is not None]
    return float(np.mean(kept)) if kept else float("nan")


def show(value: float | None, digits: int = 2, sign: str = "") -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:{sign}.{digits}f}"


def span(values: list, digits: int = 3) -> str:
    kept = [v for v in values if v is not None]
    if not kept:
        return "–"
    low, high = (f"{value:.{digits}f}" for value in (min(kept), max(kept)))
    return low if low == high else f"{low}–{high}"


def flow_table(rows: dict[str, dict], percentiles: list[float]) -> str:
    lines = [
        "| study | p | sites | entropy, bits | information | by chance | by token alone | p, token |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for study in STUDIES:
        for p in percentiles:
            orders = of(rows, study, p)
            for k in range(len(orders[0]["flows"]) if orders else 0):
                flows = [row["flows"][k] for row in orders]
                lines.append(
                    f"| {study} | {p:g} | {' → '.join(short(s) for s in flows[0]['sites'])} | "
                    f"{show(mean([f['entropy'] for f in flows]))} | "
                    f"**{show(mean([f['information'] for f in flows]))}** | "
                    f"{show(mean([f['chance'][0] for f in flows]))} | "
                    f"{show(mean([f['given_token'][0] for f in flows]))} | "
                    f"{span([f['given_token'][3] for f in flows], 2)} |"
                )
    return "\n".join(lines)


def short(site: str) -> str:
    return site.removeprefix("resid_post.")


def category_table(rows: dict[str, dict], percentiles: list[float]) -> str:
    lines = [
        "| study | p | layer | regions in all | within | between | difference | p | difference as published | p |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for study in STUDIES:
        for p in percentiles:
            orders = of(rows, study, p)
            for k in range(len(orders[0]["categories"]) if orders else 0):
                found = [row["categories"][k] for row in orders]
                apart = [
                    None if c["cohesion_apart"] is None else c["separation"] - c["cohesion_apart"]
                    for c in found
                ]
                regions = [row["regions"][k] for row in orders]
                lines.append(
                    f"| {study} | {p:g} | {short(found[0]['site'])} | {mean(regions):.0f} | "
                    f"{show(mean([c['cohesion'] for c in found]), 3)} | "
                    f"{show(mean([c['separation'] for c in found]), 3)} | "
                    f"**{span([c['separation'] - c['cohesion'] for c in found])}** | "
                    f"{span([c['chance'][3] for c in found], 4)} | {span(apart)} | "
                    f"{span([c['chance_apart'][3] for c in found], 4)} |"
                )
    return "\n".join(lines)


def overlap_table(rows: dict[str, dict], percentile: float) -> str:
    lines = [
        "| study | layer | pairs of sets | Jaccard | shuffled | pairs with p ≤ .05 | shared | shuffled | pairs with p ≤ .05 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for study in STUDIES:
        orders = of(rows, study, percentile)
        for site in orders[0]["sites"] if orders else ():
            found = [o for row in orders for o in row["overlaps"] if o["site"] == site]
            parts = [f"{study} | {short(site)} | {len(found)}"]
            for name in ("jaccard", "shared"):
                null = [o[f"{name}_chance"] for o in found]
                parts += [
                    f"**{show(mean([o[name] for o in found]))}**",
                    show(mean([c[0] for c in null])),
                    f"{sum(c[3] <= 0.05 for c in null)}",
                ]
            lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def path_table(rows: dict[str, dict], percentile: float) -> str:
    lines = [
        "| study | set | different paths | of random prompts | most frequent path (exemplars) | share | if independent |",
        "|---|---|---|---|---|---|---|",
    ]
    for study in STUDIES:
        for row in of(rows, study, percentile)[:1]:
            for found in row["paths"]:
                top = found["top"][0]
                words = " → ".join(visible(text) for text in top["exemplars"])
                lines.append(
                    f"| {study} | {found['set']} | {found['different']} of {found['prompts']} | "
                    f"{show(found['chance'][0], 1)} (p {show(found['chance'][3], 3)}) | {words} | "
                    f"{100 * top['share']:.0f} % | {100 * top['independent']:.0f} % |"
                )
    return "\n".join(lines)


def visible(text: str) -> str:
    shown = text[-14:].replace("\n", "⏎").replace("|", "¦").replace("`", "'").replace("<", "&lt;")
    return f"{shown}"


def centering_table(rows: dict[str, dict], percentile: float) -> str:
    lines = [
        "| study | layer | k | raw | less center | gain (p) | less plain mean | gain (p) | by chance | gap raw / center / mean |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for study in STUDIES:
        for row in of(rows, study, percentile)[:1]:
            for found in row["centering"]:
                for i, k in enumerate(found["neighbours"]):
                    if k == 5:
                        lines.append(
                            f"| {study} | {short(found['site'])} | {k} | {purity(found, i)} | "
                            f"{show(found['chance'], 3)} | "
                            f"{' / '.join(show(v) for v in found['gap'])} |"
                        )
    return "\n".join(lines)


def purity(found: dict, i: int) -> str:
    raw, center, plain = (line[i] for line in found["purity"])
    gains = [
        f"{show(g[i], 3, '+')} ({show(p[i], 3)})"
        for g, p in zip(found["gains"], found["p_gains"], strict=True)
    ]
    return f"{show(raw, 3)} | {show(center, 3)} | {gains[0]} | {show(plain, 3)} | {gains[1]}"


def lens_table(rows: dict[str, dict], percentiles: list[float]) -> str:
    lines = ["| p | layer | regions | Spearman | permuted, 95 % | p | turned at random |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for p in percentiles:
        for row in of(rows, "words", p)[:1]:
            for found in row["lens"]:
                c = found["chance"]
                lines.append(
                    f"| {p:g} | {short(found['site'])} | {found['regions']} | "
                    f"**{show(found['correlation'], 3)}** | {show(c[1], 3)} to {show(c[2], 3)} | "
                    f"{show(c[3], 3)} | {span(found['rotated'])} |"
                )
    return "\n".join(lines)


def figure(row: dict) -> None:
    """Purity of *words* at every layer, k = 9."""
    with drawing(6.4, 3.0) as (drawn, axes):
        layers = [int(short(found["site"])) for found in row["centering"]]
        i = row["centering"][0]["neighbours"].index(9)
        names = ("raw", "less the calibration center", "less the plain mean")
        for v, (name, color) in enumerate(zip(names, (QUIET, *COLORS), strict=False)):
            axes.plot(
                layers, [f["purity"][v][i] for f in row["centering"]], color=color, label=name
            )
        axes.axhline(
            row["centering"][0]["chance"],
            color=QUIET,
            linestyle=":",
            linewidth=1,
            label="by chance",
        )
        axes.set_xlabel("layer")
        axes.set_ylabel("share of 9 nearest of one category")
        axes.legend(loc="lower right")
    save_figure(drawn, FIGURE)


def page(rows: dict[str, dict]) -> str:
    any_row = next(r for r in rows.values() if r["study"] in STUDIES)
    percentiles = sorted({r["percentile"] for r in rows.values() if "percentile" in r})
    n = {study: len(of(rows, study, percentiles[0])) for study in STUDIES}
    counts = ", ".join(
        f"{of(rows, study, percentiles[0])[0]['stream_rows']:,} rows in {k} order{'s' * (k != 1)} for *{study}*"
        for study, k in n.items()
        if k
    )
    last = percentiles[-1]
    done = [STUDIES[s] for s in STUDIES if of(rows, s, percentiles[0])]
    parts = [
        HEAD, "## Measured\n\n",
        f"{any_row['model']}, layers {', '.join(short(s) for s in any_row['sites'])}; dictionaries of "
        f"{counts}, of AxBench's outputs (for *instructions* and *ends*: of other instructions, through the template); "
        "ranges are over orders. "
        f"{'; '.join(done)}. Activations in bfloat16.\n\n",
        conclusion(rows), "\n\n### Do prompts of one category land in close regions?\n\n",
        category_table(rows, percentiles), "\n\n### Do sets end in the same regions?\n\n",
        f"p = {last:g}; means over pairs of sets and orders.\n\n", overlap_table(rows, last),
        "\n\n### Paths\n\n", f"p = {last:g}, the first order.\n\n", path_table(rows, last),
        "\n\n![Paths of prompts that end before a word](figures/trajectories.png)\n\n### Flows, over all tokens\n\n",
        flow_table(rows, percentiles), "\n\n### Centering\n\n", centering_table(rows, last),
        "\n\n",
    ]  # fmt: skip
    if "trajectories layers" in rows:
        parts.append("![Purity at every layer](figures/centering.png)\n\n")
    parts += [
        "### Are close regions read alike?\n\n", lens_table(rows, percentiles), "\n\n", TAIL,
        f"\n*{any_row['date']}, commit {any_row['commit']}, `bench/trajectories.py`; tables by "
        "`bench/trajectory_page.py`.*\n",
    ]  # fmt: skip
    return "".join(parts)


def conclusion(rows: dict[str, dict]) -> str:
    """What the rows say, in words."""
    measured = [r for r in rows.values() if r["study"] in STUDIES]
    found = [(r, c) for r in measured for c in r["categories"]]
    apart = [c for _, c in found if c["separation"] > c["cohesion"] and c["chance"][3] <= 0.05 / 3]
    published = [c for _, c in found if c["cohesion_apart"] is None]
    one = [r for r, c in found if c["separation"] == 0]
    lens = [found for r in measured for found in r["lens"]]
    within = sum(found["correlation"] <= max(found["rotated"]) for found in lens)
    overlaps = [o for r in measured for o in r["overlaps"]]
    parted = sum(
        o["jaccard_chance"][3] <= 0.05 and o["jaccard"] < o["jaccard_chance"][0] for o in overlaps
    )
    shared = sum(
        o["shared_chance"][3] <= 0.05 and o["shared"] < o["shared_chance"][0] for o in overlaps
    )
    said = [
        f"**Categories.** In {len(apart)} of {len(found)} cases (study, percentile, order, layer) prompts of one category end "
        f"in regions closer together than prompts of two (p ≤ .05 over three layers). The published measure, without pairs "
        f"in one region, has no value in {len(published)} of them: some category has all of its prompts in one region. "
        f"In {len(one)} cases all prompts end in one region, which only says that the resolution is too coarse there.",
        f"**Overlap.** Jaccard lies below shuffled sets in {parted} of {len(overlaps)} pairs of sets (p ≤ .05, each by itself), "
        f"shared shares in {shared}.",
    ]
    whole, ends = ([c for r, c in found if r["study"] == s] for s in ("instructions", "ends"))
    if whole and ends:
        said.insert(
            1,
            f"**The end of a template.** In dictionaries of all rows all 240 instructions end in one region in "
            f"{sum(c['separation'] == 0 for c in whole)} of {len(whole)} cases: the region is the template's end. In dictionaries of final positions "
            f"alone harmful, harmless, code and math instructions part in {sum(c in apart for c in ends)} of {len(ends)} (difference "
            f"{span([c['separation'] - c['cohesion'] for c in ends])}).",
        )
    if lens:
        said.append(
            f"**Geometry against lens: a correlation that means nothing by itself.** Distances and readings of regions correlate "
            f"({span([f['correlation'] for f in lens])}, p = {span([f['chance'][3] for f in lens])} by Mantel's test), and in "
            f"{within} of {len(lens)} cases as strongly with exemplars turned at random ({span([v for f in lens for v in f['rotated']])}), "
            "whose readings are of no meaning. Near directions read alike through any smooth map; the published test cannot tell that from semantics."
        )
    if "trajectories layers" in rows:
        layers = rows["trajectories layers"]["centering"]
        i = layers[0]["neighbours"].index(9)
        better = [
            sum(f["gains"][v][i] > 0 and f["p_gains"][v][i] <= 0.05 for f in layers) for v in (0, 1)
        ]
        worse = [
            sum(f["gains"][v][i] < 0 and f["p_gains"][v][i] <= 0.05 for f in layers) for v in (0, 1)
        ]
        said.append(
            f"**Centering.** Of {len(layers)} layers, 9 nearest of *words*: less the calibration center, purity is above raw in "
            f"{better[0]} and below in {worse[0]} (p ≤ .05, each by itself); less the plain mean above in {better[1]} and below in "
            f"{worse[1]}."
        )
    return "\n\n".join(said)


TAIL = """## What this does not say

- A flow is no cause: tokens of one kind lie together at every site. Whether a region acts is for `behavior`, `steer` and `patch`.
- Tokens of a text, and prompts made from one frame, are alike; tests treat them as if each were drawn by itself, so that p-values
  are too small.
- *before*, *instructions* and *ends* have categories that differ in wording and in how the prompt ends, not only in what would follow.
- The paper's numbers of these experiments were not published.
"""

if __name__ == "__main__":
    found = newest()
    if "trajectories layers" in found:
        figure(found["trajectories layers"])
    PAGE.write_text(page(found), encoding="utf-8")
