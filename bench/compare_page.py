# ruff: noqa: E501  (lines of a page are as long as the page has them)
"""docs/compare.md and its figure from the newest rows of bench/results/compare.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import COLORS, QUIET, drawing, save_figure
from rows import markdown as table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "compare.md"
FIGURE = HERE.parent / "docs" / "figures" / "compare"
OWN, ONE, SHARED = "own frames", "one frame", "shared rows"

HEAD = """# Comparing two dictionaries

What changed between A and B: two checkpoints, two layers, two seeds, a model and its fine-tune?

```
exemplars compare base-l15-p2 tuned-l15-p2 --text corpus/ --save-baseline noise.json
exemplars compare base-l15-p2 later-l15-p2 --baseline noise.json --figure changes.svg
exemplars compare base-l9-p2 base-l15-p2 --activations kept/ --space shared-rows
```

The first line answers: so many regions persisted, moved, were dropped, are new, and whether that is more
than seed noise. Then come the numbers beside their nulls, the largest changes with texts of both sides,
what differs in how the two were made, and what cannot be concluded. In Python:
`exemplars.analyses.comparison.compare`.

## How regions are paired

One to one. Up to 5,000 regions on the larger side the matching is the one of the largest sum
("hungarian"); above, the pair of the largest cosine first, then the next of what is left ("greedy"): found
through pairs that are each other's nearest, without ever holding all cosines. The method is named in the
table. Every region of the smaller side gets a partner, however bad: a partner means nothing by itself.

Three ways, each where it can be had:

| in | what is compared | what it needs |
|---|---|---|
| own frames | directions (means or exemplars), each as its dictionary sees it from its own center | one width |
| one frame | the same, B's directions moved to A's center | one width, and norms |
| shared rows | the regions that the same tokens fall into on both sides: F1 of their rows, normalised mutual information | the same texts through both models, with one tokenizer; no common space |

*Exact and not.* Two centers make two directions of one vector. Moving a direction to another center needs the
vector's distance from its own, and a dictionary does not keep those of its exemplars. With rows, each region's
mean distance is taken, without them the site's median; the text says how far the mean cosine would differ
with the 5th or the 95th percentile. By shared rows nothing has to be moved.

## What counts as a change

Leader clustering depends on the order of its rows. Two dictionaries of *one* model on random halves of *one*
text are far from equal, so a fixed cosine such as the published 0.7 calls many regions changed that did
not. The yardstick here is a baseline: the documents are split into random halves (20 times), a dictionary is
built from each with A's center and θ, and the halves are matched with each other. Frequent regions agree
far better than rare ones, so the cutoff is taken share by share: what 5 % of pairs stay below whose smaller region has
about the same share of all rows (between the same powers of 1/2, classes joined until each has 100 pairs).

| a pair | is |
|---|---|
| at the cutoff or above, and better than chance | *persisted* |
| below the cutoff, better than chance | *moved* |
| below the cutoff, no better than chance; or a region without a partner | *dropped* (A's), *introduced* (B's) |
| at the cutoff or above, no better than chance | *too small to tell*: halves of one text do no better |

*Chance* is the 97.5th percentile of pairs of that share where nothing corresponds: B's directions after a random
rotation, which keeps all angles between them; by shared rows, permuted rows. Two more nulls stand in the tables:
as many random rows of B as exemplars, and rows permuted among rows of one token (what the tokens alone
explain).

By construction 5 % of pairs lie below the cutoff when nothing changed; a single region that "moved" may always be one of
them. So the first line judges all pairs together: of the pairs of halves that are like a pair of A and B, how many agree
more? By noise alone half of them do (none of them for A itself). If more do than among 97.5 % of the halves (each held against the others), B differs
from A by more than seed noise. The mean cosine is shown too (*drift* is 1 − the mean score) and does not decide: it depends on
how many rare regions there are.

*Within seed noise is not unchanged.* Dictionaries of the same rows in the same order are nearer to each other than two
orders of one model are. A model can change by less than another order changes its dictionary; that shows in what the same
tokens do, not in directions of regions.

Where A and B are of the *same rows* (a model and its fine-tune on one text, two layers), `--noise orders` is the sharper yardstick:
pairs of dictionaries of all these rows in two random orders. Halves differ by what was read too.

The baseline is made from `--text` or `--activations`, can be kept (`--save-baseline`) and given
(`--baseline`). Its halves have half as many rows as are read, so it is a little noisier than two dictionaries of
all rows. Two folders alone can be compared too: pairs are told
from chance, and nothing is said to have moved.
"""

PAPER = """## Beside the publication

Published (Gemma-2-2b base against instruction-tuned, p = 10; another model, another stream, cosines of
exemplars): median matched cosine .24 at layer 12 and .20 at layer 20; 15 and 5 pairs at .7 or above, which is what
counts as persisted there. The publication's own seeds match with .60 (lowest fifth of D) to .83 (highest), so .7
lies within its seed noise; no baseline and no null stand beside the drift. They cannot be compared with
ours but in kind.
"""


def read() -> list[dict]:
    """The last row of each measurement."""
    rows = {}
    kept = HERE / "results" / "compare.jsonl"
    for line in kept.read_text().splitlines() if kept.exists() else ():
        row = {"noise": "halves", **json.loads(line)}
        told_by = ("text", "site", "percentile", "basis", "noise", "compared_with")
        key = tuple(row.get(name, "") for name in told_by)
        rows[key] = row
    return list(rows.values())


def span(values: list[float] | None) -> str:
    return "–" if values is None else f"{values[0]:.3f} to {values[-1]:.3f}"


def noise_table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        means, quantiles = row["mean_score"]["directions"], row["quantiles"]
        low, high = np.quantile(means, [0.025, 0.975])
        cutoff = dict(zip((round(1 / x) for x in row["shares"]), row["cutoff"], strict=True))
        fresh = np.array(row["fresh_exceeded"])
        limit = np.quantile(row["exceeded"], 0.975)
        lines.append(
            [
                row["text"],
                row["site"],
                f"{row['percentile']:g}",
                row["noise"],
                "{:,} to {:,}".format(*row["half_regions"]),
                f"{low:.3f} to {high:.3f}",
                *(f"{quantiles[q]:.2f}" for q in ("0.05", "0.25", "0.5", "0.75")),
                *(f"{cutoff[n]:.2f}" for n in (2**14, 2**10, 2**6)),
                f"{min(row['nmi']):.3f} to {max(row['nmi']):.3f}",
                f"{(fresh > limit).sum()} of {len(fresh)}",
            ]
        )
    header = [
        *("text", "site", "p", "noise of", "regions", "mean cosine"),
        *("5th percentile", "25th", "median", "75th"),
        *("cutoff, share 1/16,384", "1/1,024", "1/64", "NMI", "fresh pairs beyond"),
    ]
    return table(header, lines)


def drift_table(rows: list[dict], space: str) -> str:
    lines = []
    for row in rows:
        found = row["spaces"].get(space)
        if found is None:
            continue
        beyond = found["beyond_noise"]
        nulls = [f"{name} {np.mean(values):.3f}" for name, values in found["nulls"].items()]
        lines.append(
            [
                row["site"],
                f"{row['percentile']:g}",
                row["compared_with"],
                row["noise"],
                "{:,}, {:,}".format(*row["n_regions"]),
                f"{found['drift']:.3f}",
                span(found["drift_of_noise"]),
                f"{found['below_cutoff']:.1%}",
                f"{found['exceeded']:.0%}",
                f"{found['exceeded_of_noise'][0]:.0%} to {found['exceeded_of_noise'][2]:.0%}",
                f"**{'outside' if beyond else 'within'}**",
                *(f"{found[name]:,}" for name in ("persisted", "moved", "dropped", "introduced")),
                f"{found['unclear']:,}",
                "; ".join(nulls),
            ]
        )
    header = [
        *("site", "p", "A beside", "noise of", "regions", "drift", "by noise", "below cutoff"),
        *("noise agrees more", "by noise"),
        *("seed noise", "persisted", "moved", "dropped", "introduced", "too small"),
        "mean score of nulls",
    ]
    return table(header, lines)


def rows_table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        nulls = row["nmi_nulls"]
        lines.append(
            [
                row["site"],
                f"{row['percentile']:g}",
                row["compared_with"],
                f"{row['nmi']:.3f} ± {row['nmi_error']:.3f}",
                span(row["nmi_of_noise"]),
                f"{np.mean(nulls['permuted rows']):.3f}",
                f"{np.mean(nulls['permuted within tokens']):.3f}",
                f"{row['same_partner']:.0%}",
            ]
        )
    header = [
        *("site", "p", "A beside", "NMI", "of halves", "rows permuted"),
        *("permuted within tokens", "pairs that directions name too"),
    ]
    return table(header, lines)


def page(rows: list[dict]) -> str:
    noise = [row for row in rows if row.get("kind") == "seed noise"]
    ours = "answers of AxBench"
    every = [row for row in rows if "spaces" in row and row["basis"] == "mean"]
    every.sort(key=lambda row: (row["site"], -row["percentile"], row["noise"]))
    compared = [row for row in every if row["text"] == ours]
    halves = [row for row in compared if row["noise"] == "halves"]
    other = [row for row in every if row["text"] != ours]
    noise.sort(key=lambda row: (row["text"], row["site"], -row["percentile"], row["noise"]))
    first = next(row for row in noise if row["text"] == ours)
    return "\n".join(
        [
            HEAD,
            f"""## Measured

{first["model"]}, {first["rows"]:,} rows of {first["documents"]:,} documents (answers of AxBench), float32, means.
Each model is calibrated on the first 20,480 of its own rows; dictionaries of the noise share A's calibration. *null* is a
fine-tune on the model's own answers, *topic* one on answers about beekeeping (`bench/taboo.py`). *Drift* is 1 − the
mean score of the pairs; *noise agrees more* is what decides, beside its span among the baseline's own pairs. "Fresh pairs" are
further ones of the baseline's kind, judged as B is: how often noise alone is called a change (about one in twenty is to be
expected, as 20 pairs give the span).

*{first["date"]}, commit {first["commit"]}, {first["machine"]}, `bench/compare.py`; tables by
`bench/compare_page.py`.*

### Seed noise ({first["splits"]} pairs of dictionaries)
""",
            noise_table(noise),
            "\n![Cosines of random halves and of comparisons](figures/compare.png)\n",
            "### By direction, own frames\n",
            drift_table(compared, OWN),
            "\n### By direction, one frame\n",
            drift_table(halves, ONE),
            "\n### By shared rows\n",
            drift_table(compared, SHARED),
            "",
            rows_table(halves),
            "\n### Noise alone, on other texts\n",
            "The rule that decides was chosen with the comparisons above in view; here it is on texts that were not looked at before.\n",
            drift_table(other, OWN),
            "",
            reading(compared),
            PAPER,
        ]
    )


def reading(rows: list[dict]) -> str:
    """How many of each known answer lie beyond the noise."""
    kinds: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        name = row["compared_with"].split(",")[0]
        name = f"{name} ({row['site']})" if name.startswith("resid") else name
        kinds.setdefault((name, row["noise"]), []).append(row)
    lines = [
        [
            *kind,
            *(
                f"{sum(r['spaces'][s]['beyond_noise'] for r in mine if s in r['spaces'])} of "
                f"{sum(s in r['spaces'] for r in mine)}"
                for s in (OWN, ONE, SHARED)
            ),
        ]
        for kind, mine in kinds.items()
    ]
    header = ["A beside", "noise of", *(f"beyond noise, {s}" for s in (OWN, ONE, SHARED))]
    return "### In short\n\n" + table(header, lines) + "\n"


def figure(rows: list[dict]) -> None:
    ours = [r for r in rows if r["basis"] == "mean" and r["text"] == "answers of AxBench"]
    noise = [r for r in ours if r.get("kind") == "seed noise" and r["noise"] == "halves"]
    compared = [r for r in ours if "spaces" in r]
    with drawing(8.4, 3.2, columns=2) as (made, (left, right)):
        for number, row in enumerate(noise):
            label = f"{row['site']}, p = {row['percentile']:g}"
            shares, cutoff = np.array(row["shares"]), np.array(row["cutoff"])
            left.step(shares, cutoff, where="post", color=COLORS[number % 6], label=label)
        left.axhline(0.7, color=QUIET, linestyle=":", label="the published cutoff")
        left.set_xscale("log")
        left.set_ylim(0, 1.25)
        left.set_xlabel("share of rows of the smaller region")
        left.set_ylabel("5th percentile of cosines of halves")
        left.legend(loc="upper left", fontsize=7)
        names = list(dict.fromkeys(r["compared_with"].split(",")[0] for r in compared))
        for number, kind in enumerate(("halves", "orders")):
            mine = [r for r in compared if r["noise"] == kind]
            place = [names.index(r["compared_with"].split(",")[0]) + 0.2 * number for r in mine]
            x = [r["spaces"][OWN]["exceeded"] for r in mine]
            right.plot(x, place, "o", color=COLORS[number], markersize=4, label=f"noise of {kind}")
        limits = [r["spaces"][OWN]["exceeded_of_noise"] for r in compared]
        right.axvspan(
            min(s[0] for s in limits), max(s[2] for s in limits), color=COLORS[2], alpha=0.4
        )
        right.set_yticks(range(len(names)), names)
        right.set_xlim(-0.02, 1.02)
        right.set_xlabel("pairs of the noise that agree more; band: by noise")
        right.legend(loc="lower right")
        save_figure(made, FIGURE)


if __name__ == "__main__":
    found = read()
    if found:
        figure(found)
    PAGE.write_text(page(found) if found else f"{HEAD}\n{PAPER}", encoding="utf-8")
