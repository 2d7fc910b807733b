# ruff: noqa: E501
"""docs/growth.md and its figure from the newest rows of bench/results/growth.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import COLORS, QUIET, drawing, save_figure
from rows import markdown as table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "growth.md"
FIGURE = HERE.parent / "docs" / "figures" / "growth"

HEAD = """# Growth: is a domain covered?

How many regions has a text, how many are still to come, and when has one read enough?

```
exemplars growth smollm2-l15-p2 --more 1000000 --figure growth.svg
exemplars growth smollm2-l15-p2 --watch 30                       # a build that runs
exemplars growth smollm2-l15-p2 --text code/ --text prose/       # domains, with one calibration
exemplars growth smollm2-l15-p2 --by-source --text corpus/       # the folders of the build's texts
```

It reads the growth table that a build keeps (regions where each document ends), or the last checkpoint of a
build that runs or was interrupted. With `--text`, a model reads each domain once with the dictionary's center
and θ, from no regions at all: one curve a domain, which ends where the documents do. In Python:
`exemplars.analyses.growth.growth(curve_of(dictionary))`, `exemplars.analyses.domains.read_domain`.

How to read it. *Chance of a new one*: of all rows of the next document, the share that founds a region, with a
95 % interval. *Covered*: all of that interval lies below `--target`, so the chance is below it with 97.5 %
confidence; *not covered*: all lies above. *Singletons/N* is the usual estimate of that chance where rows are
independent; rows of a document are not, and it is far too low. The table below the first one is the same
forecast made from the first 30 % of the rows, beside what came: if it missed, so may the one that matters.

## The law

The document is the sampling unit. New regions of documents in random order are counts with expectation

    Λ(n) = A ((n + n₀)^β − n₀^β) / β

in the first n rows: Heaps' law where n₀ = 0, a logarithm where β = 0, and with β < 0 an end. Growth bends on a
log-log plot, so plain Heaps' law foretells too many regions. (β, n₀) lie on a grid, β from −1 to 1, n₀ from 2⁻¹²
to 4 times the rows there are. Each point weighs by its quasi-likelihood: that of Poisson counts, over the
dispersion of documents (their squared residuals over the expected counts), where a document weighs as its place in
the stream. What the rows leave open is so in every interval: of the chance, the forecast, the rows to the target.

## What it cannot tell

- Documents in another order than a random one: build with `--seed`. The command says so where the
  manifest has no seed, and where the backtest missed.
- Other texts than those of the stream. A forecast beyond ten times the rows rests on the law alone.
- Fewer than 10 documents: no chance is given. Fewer than 30: a warning.
- A build that stops when it is quiet (`--patience`) ends at a moment that looks quieter than the text is.
- Curves with different θ, center, site, model or masks: their numbers of regions cannot be compared. The
  command says what differs.
- The chance is of a row of the next document while it is read: its first rows found regions that its later rows
  join. Of the same rows more lie outside all regions there are (*outside*, below).

"""


def newest() -> list[dict]:
    """The last row of each measurement."""
    rows: dict[str, dict] = {}
    for line in (HERE / "results" / "growth.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["what"]] = row
    return sorted(rows.values(), key=lambda r: (r["model"], layer(r), r["corpus"], r["percentile"]))


def layer(row: dict) -> int:
    return int(row["site"].split(".")[1])


def of(row: dict, name: str) -> np.ndarray:
    return np.array(row["splits"][name], float)


def covered(row: dict) -> int:
    rate = of(row, "rate")
    return int(((of(row, "low") <= rate) & (rate <= of(row, "high"))).sum())


def within(row: dict, name: str = "forecast", limit: float = 0.15) -> int:
    return int((np.abs(of(row, name)) <= limit).sum())


def told(row: dict) -> int:
    return int(((of(row, "forecast_low") <= 0) & (of(row, "forecast_high") >= 0)).sum())


def place(row: dict) -> list[str]:
    return [row["model"], str(layer(row)), row["corpus"], f"{row['percentile']:g}"]


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def chances(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        rate, mean = of(row, "rate"), of(row, "rate").mean()
        width = (of(row, "high") - of(row, "low")) / mean
        lines.append(
            [
                *place(row),
                f"{of(row, 'documents').mean():.0f}",
                f"{of(row, 'regions').mean():,.0f}",
                f"{percent(mean)} ± {percent(rate.std())}",
                percent(of(row, "chance").mean()),
                f"{covered(row)}/{len(rate)}",
                f"{np.median(width):.2f}",
                *(f"{of(row, n).mean() / mean:.2f}" for n in ("singletons", "own", "last_tenth")),
                f"{of(row, 'outside').mean() / mean:.1f}",
            ]
        )
    header = [
        "model", "layer", "corpus", "p", "documents", "regions", "held-back rate", "estimate",
        "interval holds it", "width", "singletons/N", "own/N", "last tenth", "outside",
    ]  # fmt: skip
    return table(header, lines)


def foretold(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        if "forecast" not in row["splits"]:
            continue
        error = of(row, "forecast")
        width = of(row, "forecast_high") - of(row, "forecast_low")
        lines.append(
            [
                *place(row),
                f"{row['rows']:,}",
                f"{of(row, 'found').mean():,.0f}",
                f"{np.median(error):+.1%}",
                f"{np.abs(error).mean():.1%}",
                f"{within(row)}/{len(error)}",
                f"{told(row)}/{len(error)}",
                f"{np.median(width):.2f}",
                f"{np.median(of(row, 'heaps')):+.1%}",
                f"{np.median(of(row, 'as_now')):+.1%}",
            ]
        )
    header = [
        "model", "layer", "corpus", "p", "rows", "regions", "median error", "mean size of it",
        "within 15 %", "interval holds it", "width", "plain Heaps", "chance unchanged",
    ]  # fmt: skip
    return table(header, lines)


def by_name(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        low, high = row["forecast_low"], row["forecast_high"]
        held = "yes" if low <= 0 <= high else "no"
        lines.append(
            [
                *place(row), f"{row['found']:,}", f"{row['forecast']:+.1%}",
                f"{low:+.0%} to {high:+.0%}", held, f"{row['heaps']:+.1%}",
            ]
        )  # fmt: skip
    header = [
        "model", "layer", "corpus", "p", "regions", "error", "interval of it", "holds 0",
        "plain Heaps",
    ]  # fmt: skip
    return table(header, lines)


def summary(rows: list[dict]) -> str:
    """The counts over rows that nothing was chosen on."""
    splits = sum(len(of(r, "rate")) for r in rows)
    above = sum(int((of(r, "rate") > of(r, "expected_high")).sum()) for r in rows)
    with_forecast = [r for r in rows if "forecast" in r["splits"]]
    orders = sum(len(of(r, "forecast")) for r in with_forecast)
    corpora = {r["corpus"] for r in with_forecast}
    corpora -= {r["corpus"] for r in with_forecast if within(r) < 18}
    medians = sum(abs(np.median(of(r, "forecast"))) <= 0.15 for r in with_forecast)
    stopped = [(r, of(r, "quiet")) for r in rows]
    early = [(q[q >= 0], len(q)) for _, q in stopped]
    left = np.concatenate([1 - q for q, _ in early])
    enough = sum(covered(r) >= 18 for r in rows)
    heaps = sum(within(r, "heaps") for r in with_forecast)
    return "\n".join(
        [
            f"- The 95 % interval of the chance holds the held-back rate in at least 18 of 20 splits for "
            f"{enough} of {len(rows)} (corpus, site, p); in {sum(map(covered, rows))} of {splits} "
            f"splits in all. Its median width is "
            f"{np.median([width(r) for r in rows]):.2f} times the rate.",
            f'- The held-back rate was above the bound of the verdict ("fewer than") in {above} of {splits} '
            f"splits ({above / splits:.1%}; 2.5 % and what the held-back documents vary by).",
            f"- The forecast from the first 30 % of the rows is within 15 % in {sum(map(within, with_forecast))} of "
            f"{orders} orders (plain Heaps' law: {heaps}); the median over 20 orders is for {medians} of "
            f"{len(with_forecast)} (corpus, site, p). In at least 18 of 20 orders at every site and p: "
            f"{', '.join(sorted(corpora)) or 'none'}. Its 95 % interval holds what came in "
            f"{sum(map(told, with_forecast))} of {orders}.",
            f"- Over the splits the estimate is off by {spread(rows, 'chance'):.0%} of the rate (root mean square, "
            f"median over the rows of the table), the rate in the stream's last tenth by {spread(rows, 'last_tenth'):.0%}; "
            f"the held-back rate itself varies.",
            f"- Singletons/N is {low(rows, 'singletons'):.2f} of the held-back rate in the median; the "
            f"regions that only one document has, over N, {low(rows, 'own'):.2f}.",
            f"- The published rule (one quiet batch of 32 documents) stopped in {len(left)} of {splits} streams; "
            + (
                f"{np.median(left):.1%} of the stream's regions were still to come in the median, {left.max():.1%} at "
                "most. In the others it did not stop."
                if len(left)
                else "so it never came."
            ),
        ]
    )


def width(row: dict) -> float:
    return float(np.median((of(row, "high") - of(row, "low")) / of(row, "rate").mean()))


def spread(rows: list[dict], name: str) -> float:
    errors = [np.sqrt(np.mean((of(r, name) / of(r, "rate").mean() - 1) ** 2)) for r in rows]
    return float(np.median(errors))


def low(rows: list[dict], name: str) -> float:
    return float(np.median([of(r, name).mean() / of(r, "rate").mean() for r in rows]))


def draw(rows: list[dict]) -> None:
    """Estimate against held-back rate, and the forecast's error beside plain Heaps'."""
    with drawing(6.4, 3.1, columns=2) as (figure, (left, right)):
        for k, corpus in enumerate(sorted({r["corpus"] for r in rows})):
            mine = [r for r in rows if r["corpus"] == corpus]
            rate = np.concatenate([of(r, "rate") for r in mine])
            chance = np.concatenate([of(r, "chance") for r in mine])
            left.plot(rate, chance, ".", color=COLORS[k % len(COLORS)], markersize=2, label=corpus)
        single = [(of(r, "rate").mean(), of(r, "singletons").mean()) for r in rows]
        left.plot(*zip(*single, strict=True), "x", color=QUIET, markersize=4, label="singletons/N")
        ends = [1e-4, 0.3]
        left.plot(ends, ends, color=QUIET, linewidth=0.8)
        left.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        left.set_xlabel("held-back rate")
        left.set_ylabel("estimate")
        left.legend(fontsize=6, markerscale=2)
        for name, color, label in (
            ("heaps", QUIET, "plain Heaps"), ("forecast", COLORS[0], "with offset"),
        ):  # fmt: skip
            error = np.sort(np.concatenate([of(r, name) for r in rows if name in r["splits"]]))
            right.plot(error, np.arange(1, len(error) + 1) / len(error), color=color, label=label)
        right.axvspan(-0.15, 0.15, color=COLORS[0], alpha=0.1, linewidth=0)
        right.set_xlim(-0.6, 0.6)
        right.set_xlabel("error of the forecast from 30 % of the rows")
        right.set_ylabel("share of orders")
        right.legend(fontsize=7)
    save_figure(figure, FIGURE)


def main() -> None:
    """Write both."""
    found = newest()
    every = [r for r in found if "order" not in r]
    chosen = {r["corpus"] for r in every if r["tuned"]}
    rows = [r for r in every if r["corpus"] not in chosen]
    tuned = [r for r in every if r["corpus"] in chosen]
    ordered = [r for r in found if "order" in r]
    draw(rows)
    last = max(every, key=lambda r: r["date"])
    parts = [
        HEAD + "## Measured\n",
        "Each corpus' documents are read once and replayed in 20 random orders. The first half of the documents is the\n"
        "stream; each of the others is then read next, by itself: the share of its rows that found regions is the\n"
        "held-back rate, which the interval among as many rows must hold. *Width* is the interval's over the\n"
        "rate. *Singletons/N*, *own/N* (regions with members of one document only), *last tenth* (the rate in the last tenth of\n"
        "the stream) and *outside* (rows outside all regions, before the document founds any) are over the held-back rate.\n"
        "The law was chosen, among plain Heaps' law and other weights and grids, on three corpora (addresses, code,\n"
        "reference) at layer 9 of SmolLM2-135M-Instruct, with 32,000 rows each. They have tables of their own, below;\n"
        "nothing was chosen on the others, which the summary and the figure are of.\n",
        f"*{last['date']}, commit {last['commit']}, `bench/growth.py`; tables by `bench/growth_page.py`.*\n",
        "### In short\n\n" + summary(rows) + "\n",
        "![Estimates and forecasts](figures/growth.png)\n",
        "### Chance of a new region\n\n" + chances(rows) + "\n",
        "### Regions foretold from the first 30 % of the rows\n\n" + foretold(rows) + "\n",
    ]  # fmt: skip
    if ordered:
        parts += [
            "### Where documents do not come in random order\n",
            "The same forecast, where documents come in the order of their names, as from a folder: addresses by\n"
            "year, functions by file, manual pages by section and name.\n",
            by_name(ordered) + "\n",
        ]
    if tuned:
        elsewhere = [r for r in tuned if not r["tuned"]]
        parts += [
            "### The corpora that the law was chosen on\n",
            "At the site of the choice (layer 9; more rows than it was made with) and at others.\n",
            *([summary(elsewhere) + "\n"] if elsewhere else []),
            chances(tuned) + "\n",
            foretold(tuned) + "\n",
        ]
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
