# ruff: noqa: E501  (lines of a page are as long as the page has them)
"""docs/stability.md and its figure from the newest rows of bench/results/stability.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from compare_page import table
from exemplars.figures import COLORS, QUIET, drawing, save_figure

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "stability.md"
FIGURE = HERE.parent / "docs" / "figures" / "stability"
D = "D = log10 N c²"

HEAD = """# Which regions another seed finds again

A dictionary depends on the order of its stream. Which of its regions would another order have found, and can one
tell beforehand?

```
exemplars stability seed0 seed1 seed2 --save
exemplars stability smollm2-l15-p2 --text corpus/ --seeds 5 --figure stability.svg
exemplars build MODEL --site resid_post.15 --text corpus/ --activations kept/ --seeds 5 --out smollm2-l15
exemplars show smollm2-l15 42
```

Several dictionaries of one stream in different orders are matched pairwise and one to one
([how](compare.md#how-regions-are-paired)), once by the means of their regions and once by their exemplars. A
region's *stability* is the mean cosine with its partners in the others. Each pair is matched once and counts for the
regions of both sides. With one folder and `--text` or `--activations`, the other orders are built from
those rows, with the folder's calibration. `--save`, and `build --seeds N`, store the score of every region beside the
dictionary ([format](format.md#stabilityparquet)); `show` shows it. In Python:
`exemplars.analyses.stability.stability`.

*What may tell beforehand*: members N, coherence c (the length of the mean of the member directions), the published
D = log10(N c²), relatives of it, the members' distances, how near other regions are, and when the region was founded. Beside each
stands Spearman's ρ with the stability (mean over dictionaries; the interval is that of one dictionary's regions, since
the same regions come back in the others), ρ given log10 N, the mean stability in each fifth of the regions, and ρ where
*random rows of the stream* stand for the exemplars.

*Nulls of the cosines*: as many random rows of the stream as exemplars, with the means of the rows nearest to each;
one side randomly rotated; unit vectors of random direction.
"""

PAPER = """## Beside the publication

Published (Gemma-2-2b, layer 12, five seeds, p = 2, 4, 8, 50 million tokens): ρ of D with the matched cosine of means about
**+.68**; matched cosine about **.60** in the lowest fifth of D and **.81 to .83** in the highest. One direction of each pair is
used, no interval, no partial correlation of D and no random rows are reported. Ours is another, smaller
model on a thousandth of the tokens.
"""


def read() -> list[dict]:
    """The last row of each measurement."""
    rows = {}
    kept = HERE / "results" / "stability.jsonl"
    for line in kept.read_text().splitlines() if kept.exists() else ():
        row = json.loads(line)
        rows[row["site"], row["percentile"], row["seeds"]] = row
    return list(rows.values())


def predictor(row: dict, name: str, basis: str = "mean") -> dict:
    return next(p for p in row["predictors"] if (p["name"], p["basis"]) == (name, basis))


def cosines(row: dict, basis: str, statistic: str) -> list[float]:
    return [pair[f"{statistic}_cosine"][basis] for pair in row["pairs"]]


def where(row: dict) -> list[str]:
    return [row["site"], f"{row['percentile']:g}", row["seeds"]]


def cosine_table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        for basis in ("mean", "exemplar"):
            median = cosines(row, basis, "median")
            nulls = (np.mean(values[basis]) for values in row["nulls"].values())
            lines.append(
                [
                    *where(row),
                    f"{min(row['n_regions']):,} to {max(row['n_regions']):,}",
                    f"{basis}s",
                    f"{np.mean(cosines(row, basis, 'mean')):.3f}",
                    f"{np.mean(median):.3f} ({min(median):.3f} to {max(median):.3f})",
                    f"{np.mean(cosines(row, basis, 'p10')):.3f}",
                    *(f"{value:.3f}" for value in nulls),
                ]
            )
    header = [
        *("site", "p", "seeds", "regions", "of", "mean", "median (of pairs)", "10th percentile"),
        *rows[0]["nulls"],
    ]
    return table(header, lines)


def predictor_table(rows: list[dict], basis: str, names: list[str]) -> str:
    lines = []
    for row in rows:
        for name in names:
            p = predictor(row, name, basis)
            lines.append(
                [
                    *where(row),
                    name,
                    f"{p['rho']:+.2f} ({p['low']:+.2f} to {p['high']:+.2f})",
                    *(signed(p[key]) for key in ("partial", "random_rows")),
                    *(f"{value:.2f}" for value in p["fifths"]),
                ]
            )
    header = [
        *("site", "p", "seeds", "predictor", "ρ (95 %)", "given log10 N", "of random rows"),
        *("lowest fifth", "2nd", "3rd", "4th", "highest"),
    ]
    return table(header, lines)


def every_predictor(rows: list[dict], basis: str) -> str:
    """ρ of every predictor, a column for each measurement, best first."""
    names = [p["name"] for p in rows[0]["predictors"] if p["basis"] == basis]
    names.sort(key=lambda n: -abs(np.mean([predictor(r, n, basis)["rho"] for r in rows])))
    lines = [
        [
            name,
            *(
                f"{predictor(r, name, basis)['rho']:+.2f} "
                f"({signed(predictor(r, name, basis)['partial'])})"
                for r in rows
            ),
        ]
        for name in names
    ]
    header = [f"{r['site'].removeprefix('resid_post.')}, p {r['percentile']:g}" for r in rows]
    return table(["predictor", *header], lines)


def signed(value: float) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:+.2f}"


def page(rows: list[dict]) -> str:
    first = rows[0]
    orders = [row for row in rows if row["seeds"] == "orders"]
    fifths = [row for row in rows if row["seeds"] != "orders"]
    shown = [D, "log10 N"]
    return "\n".join(
        [
            HEAD,
            f"""## Measured

{first["model"]}, {first["rows"][0]:,} rows of AxBench's answers, one calibration. *Orders*: the same rows, their documents in
{first["n_seeds"]} orders. *Disjoint documents*: {first["n_seeds"]} dictionaries of a fifth of the documents each, which
differ by what they read too.

*{first["date"]}, commit {first["commit"]}, {first["machine"]}, `bench/stability.py`; tables by
`bench/stability_page.py`.*

### Matched cosines
""",
            cosine_table(rows),
            "\n![Matched cosine by fifth of D](figures/stability.png)\n",
            "### What tells beforehand: means\n",
            predictor_table(rows, "mean", shown),
            "\nAll predictors, ρ with the stability of means (and given log10 N), orders:\n",
            every_predictor(orders, "mean"),
            "\nThe same, disjoint documents:\n",
            every_predictor(fifths, "mean"),
            "\n### What tells beforehand: exemplars\n",
            every_predictor(orders, "exemplar"),
            "",
            reading(rows),
            PAPER,
        ]
    )


def reading(rows: list[dict]) -> str:
    def over(values: list[float]) -> str:
        return f"{min(values):+.2f} to {max(values):+.2f}"

    found = {
        name: [predictor(r, name)["rho"] for r in rows] for name in (D, "log10 N", "coherence c")
    }
    partial = [predictor(r, D)["partial"] for r in rows]
    null = [predictor(r, D)["random_rows"] for r in rows]
    gain = [
        np.mean(cosines(r, "mean", "mean")) - np.mean(r["nulls"]["random rows"]["mean"])
        for r in rows
    ]
    gain_e = [
        np.mean(cosines(r, "exemplar", "mean")) - np.mean(r["nulls"]["random rows"]["exemplar"])
        for r in rows
    ]
    return f"""### In short

- ρ of D with the stability of means: {over(found[D])}; of log10 N alone {over(found["log10 N"])}; of D given log10 N
  {over(partial)}; of coherence alone {over(found["coherence c"])}.
- For random rows of the stream in the place of exemplars ρ of D is {over(null)}: what D tells is how well a mean of
  N members is known, whatever founded the region.
- The matched cosine of means, less that of as many random rows of the same stream: {over(gain)}; of exemplars {over(gain_e)}.
  What a pass founds is not found again better than what a draw at random picks: random rows lie where rows are dense, and
  a draw has fewer rare regions. The reproducible part is the means of frequent, coherent cells.
"""


def figure(rows: list[dict]) -> None:
    with drawing(7.6, 3.6, columns=2) as (made, panels):
        for axes, seeds in zip(panels, ("orders", "disjoint documents"), strict=True):
            mine = [row for row in rows if row["seeds"] == seeds]
            for number, row in enumerate(mine):
                label = f"{row['site']}, p = {row['percentile']:g}"
                fifths = predictor(row, D)["fifths"]
                axes.plot(range(1, 6), fifths, "o-", color=COLORS[number % 6], label=label)
            axes.plot([1, 5], [0.60, 0.82], "x", color=QUIET, label="published (Gemma-2-2b)")
            axes.set_title(seeds, fontsize=9)
            axes.set_xlabel(f"fifth of the regions by {D}")
            axes.set_xticks(range(1, 6))
        panels[0].set_ylabel("mean matched cosine of means")
        panels[1].legend(loc="lower right", fontsize=7)
        save_figure(made, FIGURE)


if __name__ == "__main__":
    found = read()
    if found:
        figure(found)
    PAGE.write_text(page(found) if found else f"{HEAD}\n{PAPER}", encoding="utf-8")
