"""The last section of docs/sae.md and its figure, from the newest row of results/sae.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import COLORS, QUIET, drawing, save_figure
from rows import markdown
from sae_curves import EP, RANDOM_ROWS, SAE, UNTRAINED

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "sae.md"
FIGURE = HERE.parent / "docs" / "figures" / "ep_against_sae"
HEADING = "## Quality against tokens and seconds\n"
MEASURES = {
    "detection": "detection, AUROC",
    "probe 1": "probe of one unit, accuracy",
    "match": "F1 with another SAE",
}
SIDES = {EP: COLORS[0], SAE: COLORS[1], RANDOM_ROWS: QUIET}


def newest() -> dict:
    rows = [json.loads(line) for line in (HERE / "results" / "sae.jsonl").read_text().splitlines()]
    return next(row for row in reversed(rows) if row["what"].startswith("EP against"))


def bounds(found: dict) -> list[float]:
    """Of a mean: the interval over concepts, or the range over seeds where there are none."""
    return found["interval"] if "interval" in found else found["seed_range"]


def measured(row: dict) -> dict[str, str]:
    """The measures that every point has, with their titles."""
    return {n: title for n, title in MEASURES.items() if all(n in e for e in row["points"])}


def seeds(row: dict) -> str:
    """How many orders of the stream each side was measured with."""
    found = []
    for name, title in measured(row).items():
        each = {e["side"]: e[name]["seeds"] for e in row["points"]}
        if len(set(each.values())) == 1:
            found.append(f"{title}: {min(each.values())} of every side")
        else:
            found.append(f"{title}: " + ", ".join(f"{n} of {side}" for side, n in each.items()))
    return "; ".join(found)


def draw(row: dict):
    """Quality against tokens above, and against the processor's seconds below."""
    from matplotlib.lines import Line2D

    measures = measured(row)
    with drawing(3.2 * len(measures), 5.8) as (figure, first):
        first.remove()
        grid = figure.subplots(2, len(measures), sharey="col", sharex="row")
        for (name, title), (above, below) in zip(measures.items(), grid.T, strict=True):
            above.set_title(title, fontsize=9)
            curves(above, row, name, "tokens")
            curves(below, row, name, "cpu_seconds")
            above.set_xlabel("tokens read")
            below.set_xlabel("CPU seconds of one core,\nwithout the forward pass")
            for axes in (above, below):
                axes.set_xscale("log")
        lines = [
            Line2D([], [], color=color, marker="o", markersize=3.2, label=side)
            for side, color in SIDES.items()
        ]
        lines.append(Line2D([], [], color=QUIET, linestyle=":", label=UNTRAINED))
        figure.legend(handles=lines, loc="outside lower center", ncols=4)
    return figure


def curves(axes, row: dict, name: str, against: str) -> None:
    """All sides of one measure; what has no training is a level line in the lower row."""
    for side, color in SIDES.items():
        mine = [e for e in row["points"] if e["side"] == side and name in e]
        means = np.array([e[name]["mean"] for e in mine])
        low, high = np.array([bounds(e[name]) for e in mine]).T
        if against in mine[0]:
            x = [e[against] for e in mine]
            axes.plot(x, means, "o-", color=color, markersize=3.2, linewidth=1.4)
            axes.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
        else:
            axes.axhline(means[-1], color=color, linewidth=1.2, alpha=0.8)
    untrained = next(e for e in row["points"] if e["side"] == UNTRAINED)
    axes.axhline(untrained[name]["mean"], color=QUIET, linewidth=1.0, linestyle=":")


def table(row: dict) -> str:
    def value(found: dict) -> str:
        low, high = bounds(found)
        return f"{found['mean']:.3f} [{low:.3f}, {high:.3f}]"

    order = {side: k for k, side in enumerate((UNTRAINED, *SIDES))}
    points = sorted(row["points"], key=lambda e: (e["tokens"], order[e["side"]]))
    lines = [
        [
            f"{e['tokens']:,}",
            e["side"],
            f"{e['units']:,.0f}",
            f"{e['cpu_seconds']:.2f}" if "cpu_seconds" in e else "–",
            *(value(e[name]) for name in measured(row)),
        ]
        for e in points
    ]
    return markdown(["tokens", "side", "units", "CPU s", *measured(row).values()], lines)


def less(row: dict, other: str) -> str:
    """EP less another side, by tokens."""
    found = {(d["measure"], d["tokens"]): d for d in row[other]}
    tokens = sorted({t for _, t in found})

    def value(d: dict) -> str:
        low, high = bounds(d)
        text = f"{d['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        return f"**{text}**" if low > 0 or high < 0 else text

    lines = [[f"{t:,}", *(value(found[name, t]) for name in measured(row))] for t in tokens]
    return markdown(["tokens", *measured(row).values()], lines)


def section(row: dict) -> str:
    inputs, (batch, rate) = row["inputs"], row["chosen"]
    left = ", ".join(f"{e['fvu']:.2f}" for e in row["points"] if e["side"] == SAE)
    f1 = F1 if "match" in measured(row) else ""
    return f"""{HEADING}
![EP and an SAE against tokens and against seconds](figures/{FIGURE.name}.png)

{inputs["model"]}, {inputs["site"]}; the stream is the rows of AxBench's training texts,
without labels. EP at p = {inputs["percentile"]:g} is calibrated on the first 20,480 rows at most
and built on the first n. The SAE is a TopK SAE of SAELens with k = 32 and as many latents as EP has
regions after one pass; it is trained on the same rows in the same order, in batches of {batch} with
learning rate {rate:g}, the best of four settings by the reconstruction of held-out training rows.
Both are evaluated on the evaluation texts of 26 concepts:

- *Detection*: of the region means (largest cosine over a text's positions) or the latents (largest
  activation) the one of the best AUROC on a concept's training texts; its AUROC on the test texts.
- *Probe of one unit*: a text's mean one-hot code, or mean latents; the unit whose class means
  differ most on training texts, a logistic regression on it, accuracy on test texts.
{f1}
{table(row)}

Means over orders of the stream, with an SAE trained and random rows drawn for each ({seeds(row)}).
Brackets: the 95 % interval over concepts, or the least and the most of the orders where a measure
has no concepts.

EP less the SAE, paired (bold: without 0):

{less(row, "ep_less_sae")}

EP less as many random rows:

{less(row, "ep_less_random_rows")}

{READING}
At these numbers of tokens the SAE leaves {left} of the variance of
held-out rows unexplained. Seconds are of the processor, one thread, on a machine that did other
work; EP's are the median of three runs of calibration and build. The forward pass, which both need
for each token, is not in them.

*{row["date"]}, commit {row["commit"]}. `python bench/sae_curves.py` measures (`rows`, `train`,
`measure`, `write`), `python bench/sae_page.py` writes this section.*
"""


F1 = """\
- *F1 with another SAE*: one more SAE of the same kind, of another order and seed, after one pass.
  Each of its latents as its top rows of one half of 30,000 evaluation rows; the unit of the largest
  F1 there; their F1 on the other half, mean over latents. It asks how much of what an SAE finds a
  side finds too, so an SAE has the advantage.
"""
READING = """\
What it shows. For detection EP is above the SAE at each number of tokens, with an interval that
excludes 0, and after one pass for a thirty-fifth of its seconds; the SAE does not overtake it
within that pass. Most of that any directions from the data have: as many random rows are .006 to
.012 below EP, at six of seven numbers of tokens by an interval that excludes 0. Before the whole
pass EP has fewer units than the SAE.

For the probe of one unit the order is the other way: the SAE is above EP, and so are random rows
nearly everywhere. EP gets worse at it as it grows: its regions are small, and a text hits one or
does not. The SAE gains little at it by training, so this probe hardly measures what training adds.

In the F1 with another SAE EP is ahead of the SAE up to 20,480 tokens and behind it from 50,176 on;
so it is against as many random rows. After one pass they agree with another SAE better than EP
does, as on the published F1.

What it does not show. One model, one layer, one pass over few rows: an SAE is usually trained on a
thousand times as many, and this one is small and has not converged. Repeated passes, other widths
and full probes are not in the figure. An SAE has a reconstruction, which EP does not aim at.
"""


def main() -> None:
    row = newest()
    print(*save_figure(draw(row), FIGURE))
    head, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    PAGE.write_text(head + section(row), encoding="utf-8")


if __name__ == "__main__":
    main()
