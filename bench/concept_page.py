"""docs/concepts.md and its figure from the newest rows of bench/results/concepts.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import probe_table
from exemplars.figures import COLORS, QUIET, drawing, save_figure
from rows import markdown

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "concepts.md"
FIGURE = HERE.parent / "docs" / "figures" / "concepts"
SETS = {"concept10_2b_l20": "Concept10", "conceptFD_2b_l20": "ConceptFD"}
SHOWN = (("SmolLM2-135M-Instruct", "resid_post.18"), ("Gemma-3-270m", "resid_post.9"))
"""Of the figure."""
WHITENED = " whitened"
"""Ends the name of rows of this way alone."""
TOKENS, MEANS, DIFFERENCE = "logistic probe, tokens", "logistic probe, means", "difference of means"

HEAD = """# Detecting concepts

Which region tells texts with a concept from texts without it, and what is that worth?

```
exemplars concepts smollm2-l15-p2 --positive with.txt --negative without.txt
exemplars concepts smollm2-l15-p2 --axbench concept10 --figure concepts.svg --json
```

Two files with a text on each line (or JSONL, Parquet, a folder) are enough; half of each is set aside to
test on, or give `--test-positive` and `--test-negative`. The table has a line for each way to make a
detector, all on the same activations; below it is the card of the region whose mean detects the concept
best on training texts. The ways, the null and the intervals are defined in
[method.md](method.md#concept-detectors). In Python: `exemplars.analyses.concepts.detect_concepts`.

How to read it. *train* is on the texts the detector was found with, and too high. *valid.* is what to choose a
percentile or a way by. *AUROC* is on test texts. *less null* is what a dictionary adds to as many rows of the
stream drawn at random and searched through in the same way: where its interval includes 0, nothing was shown.

"""


def newest() -> list[dict]:
    """A row for each stream of a site and each set: what was measured last of every percentile and
    method, and the percentiles that validation chooses among all of them.
    """
    rows: dict[str, dict] = {}
    for line in (HERE / "results" / "concepts.jsonl").read_text().splitlines():
        new = json.loads(line)
        what = new["what"].removesuffix(WHITENED)
        if what != new["what"]:
            for part in ("methods", "differences"):
                new[part] = {k: v for k, v in new[part].items() if "whitened" in k}
        row = rows.setdefault(what, {**new, "what": what, "commits": {}})
        for part in ("methods", "differences", "regions"):
            row[part] = row[part] | new[part]
        row["regions"] = dict(sorted(row["regions"].items(), key=lambda item: float(item[0])))
        row["commits"] |= {new["commit"]: new["date"]}
    sites: dict[tuple, list[dict]] = {}
    for row in rows.values():
        sites.setdefault((row["model"], row["site"], row["stream_rows"]), []).append(row)
    for both in sites.values():
        chosen = choose(both)
        for row in both:
            row["chosen_percentile"] = chosen
    return list(rows.values())


def choose(rows: list[dict]) -> dict[str, float]:
    """Each way's percentile of the best validation AUROC, over the concepts of a site's sets."""
    found: dict[str, dict[float, float]] = {}
    for key in rows[0]["methods"]:
        values = [row["methods"][key]["validation"] for row in rows]
        if None not in values:
            name, _, p = key.partition(" @")
            pairs = zip(rows, values, strict=True)
            found.setdefault(name, {})[float(p)] = sum(r["concepts"] * v for r, v in pairs)
    return {name: max(values, key=lambda p: values[p]) for name, values in found.items()}


def place(row: dict) -> tuple[str, int]:
    return row["model"], int(row["site"].split(".")[1])


def at(row: dict, name: str) -> str:
    """A method with the percentile that validation chose for it."""
    p = row["chosen_percentile"].get(name)
    return name if p is None else f"{name} @{p:g}"


def auroc(row: dict, name: str, interval: bool = True) -> str:
    if name not in row["methods"]:
        return "–"
    found = row["methods"][name]["cosine"]
    low, high = found["interval"]
    return f"{found['auroc']:.3f}" + (f" ({low:.3f}–{high:.3f})" if interval else "")


def difference(row: dict, ours: str, other: str) -> str:
    found = row["differences"].get(f"{ours} − {other}")
    if found is None:
        return "–"
    estimate, low, high = found
    text = f"{estimate:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def k_means(row: dict, p: float) -> str:
    """At the chosen percentile if it was fitted there, else at p = 2."""
    found = auroc(row, f"k-means centroid @{p:g}", False)
    return found if found != "–" else f"{auroc(row, 'k-means centroid @2', False)} (p = 2)"


def overview(rows: list[dict], key: str) -> str:
    lines = []
    for row in rows:
        p = row["chosen_percentile"]["region mean"]
        ways = [f"region mean, 3 {way}" for way in ("summed", "anchored")]
        lines.append(
            [
                row["model"],
                row["site"].split(".")[1],
                f"{p:g}",
                auroc(row, f"region mean @{p:g}"),
                auroc(row, f"census mean @{p:g}", False),
                *(auroc(row, at(row, name), False) for name in ("exemplar", *ways)),
                auroc(row, at(row, "region mean, 3 whitened")),
                auroc(row, f"random rows @{p:g}", False),
                k_means(row, p),
                *(auroc(row, name, False) for name in (DIFFERENCE, TOKENS, MEANS)),
            ]
        )
    header = ["model", "layer", "p", "region mean", "census mean", "exemplar", "3 summed", "3 anchored", "3 whitened",
              "random rows", "k-means", "diff. of means", "probe, tokens", "probe, means"]  # fmt: skip
    return f"""### {SETS[key]}

{markdown(header, lines)}
"""


def against(rows: list[dict], key: str) -> str:
    lines = []
    for row in rows:
        mean, white = at(row, "region mean"), at(row, "region mean, 3 whitened")
        p, q = mean.partition("@")[2], white.partition("@")[2]
        lines.append(
            [
                row["model"],
                row["site"].split(".")[1],
                difference(row, mean, f"random rows @{p}"),
                difference(row, mean, TOKENS),
                difference(row, white, f"random rows @{q}"),
                difference(row, white, f"random rows, 3 whitened @{q}"),
                difference(row, white, TOKENS),
                difference(row, white, MEANS),
            ]
        )
    header = ["model", "layer", "mean − random rows", "mean − probe, tokens", "whitened − random rows",
              "whitened − random rows whitened", "whitened − probe, tokens", "whitened − probe, means"]  # fmt: skip
    return f"""### {SETS[key]}: paired differences

{markdown(header, lines)}
"""


def by_percentile(rows: list[dict], key: str) -> str:
    lines = []
    for row in rows:
        for p, sizes in row["regions"].items():
            names = [
                f"{base}{way} @{p}"
                for way in ("", ", 3 anchored", ", 3 whitened")
                for base in ("region mean", "random rows")
            ]
            lines.append(
                [
                    row["model"],
                    row["site"].split(".")[1],
                    p,
                    f"{sorted(sizes)[len(sizes) // 2]:,}",
                    auroc(row, names[0], False),
                    "–".join(f"{v:.3f}" for v in row["methods"][names[0]]["cosine"]["seed_range"]),
                    f"{row['methods'][names[0]]['dot']['auroc']:.3f}",
                    auroc(row, f"exemplar @{p}", False),
                    auroc(row, f"region mean, contrast @{p}", False),
                    auroc(row, names[1], False),
                    difference(row, names[0], names[1]),
                    auroc(row, names[2], False),
                    difference(row, names[2], names[3]),
                    auroc(row, names[4], False),
                    difference(row, names[4], names[5]),
                ]
            )
    header = ["model", "layer", "p", "K", "mean", "its orders", "mean, dot", "exemplar", "mean, contrast",
              "random rows", "mean − random", "3 anchored", "anchored − random anchored",
              "3 whitened", "whitened − random whitened"]  # fmt: skip
    return f"""### {SETS[key]}: every percentile

{markdown(header, lines)}
"""


def figure(rows: list[dict]) -> None:
    """AUROC against percentile at two sites, both sets."""
    lines = {
        "region mean": ("region mean", COLORS[0], "-"),
        "3 anchored": ("region mean, 3 anchored", COLORS[1], "-"),
        "random rows": ("random rows", QUIET, "-"),
        "random rows, 3 anchored": ("random rows, 3 anchored", QUIET, ":"),
    }
    with drawing(7.2, 5.4, columns=2, rows=2) as (drawn, axes):
        for line, key in zip(axes, SETS, strict=True):
            for axis, (model, site) in zip(line, SHOWN, strict=True):
                row = next(
                    r for r in rows if (r["model"], r["site"], r["set"]) == (model, site, key)
                )
                at_p = list(row["regions"])
                for label, (name, color, style) in lines.items():
                    found = [row["methods"][f"{name} @{p}"]["cosine"] for p in at_p]
                    axis.plot(
                        range(len(at_p)),
                        [f["auroc"] for f in found],
                        style,
                        color=color,
                        label=label,
                        marker="o",
                        markersize=3,
                    )
                    if style == "-":
                        axis.fill_between(
                            range(len(at_p)),
                            [f["seed_range"][0] for f in found],
                            [f["seed_range"][1] for f in found],
                            color=color,
                            alpha=0.15,
                            linewidth=0,
                        )
                for name, style, label in (
                    (TOKENS, "--", "logistic probe"),
                    (DIFFERENCE, "-.", "difference of means"),
                ):
                    axis.axhline(
                        row["methods"][name]["cosine"]["auroc"],
                        color=COLORS[2],
                        linestyle=style,
                        linewidth=1.2,
                        label=label,
                    )
                axis.set_xticks(range(len(at_p)), at_p)
                axis.set_title(f"{model}, layer {site.split('.')[1]}, {SETS[key]}", fontsize=8.5)
                axis.set_ylim(0.85, 1.0)
        for axis in axes[:, 0]:
            axis.set_ylabel("mean test AUROC")
        for axis in axes[1]:
            axis.set_xlabel("percentile p (small: many regions)")
        axes[0, 0].legend(fontsize=7, loc="lower left")
        save_figure(drawn, FIGURE)


def shows(rows: list[dict]) -> str:
    """Counts over models, layers and sets of intervals that exclude 0, and on which side."""
    names = {
        "one region's mean, less as many random rows": ("region mean", "random rows"),
        "one region's mean, less the token probe": ("region mean", TOKENS),
        "3 summed, less 3 random rows summed": ("region mean, 3 summed", "random rows, 3 summed"),
        "3 whitened, less as many random rows": ("region mean, 3 whitened", "random rows"),
        "3 whitened, less random rows whitened": (
            "region mean, 3 whitened",
            "random rows, 3 whitened",
        ),
        "3 whitened, less the token probe": ("region mean, 3 whitened", TOKENS),
        "3 whitened, less the probe on means": ("region mean, 3 whitened", MEANS),
    }
    lines = []
    for title, (ours, other) in names.items():
        found: dict[str, list] = {row["model"]: [] for row in rows}
        for row in rows:
            mine = at(row, ours)
            p = mine.partition(" @")[2]
            key = f"{mine} − {other if other.startswith('logistic') else f'{other} @{p}'}"
            if key in row["differences"]:
                found[row["model"]].append(row["differences"][key])
        every = [d for several in found.values() for d, _, _ in several]
        line = [title, f"{sum(every) / len(every):+.3f}"]
        for several in found.values():
            above = sum(low > 0 for _, low, _ in several)
            below = sum(high < 0 for _, _, high in several)
            line.append(f"{above} / {len(several) - above - below} / {below}")
        lines.append(line)
    header = ["difference of test AUROC", "mean", *dict.fromkeys(row["model"] for row in rows)]
    return f"""### In short

Of the pairs of a site and a set, how many have a 95 % interval above 0 / about 0 / below 0, at the percentile
that validation chose:

{markdown(header, lines)}

So *one* region detects about as well as one of as many random rows, a little better on SmolLM2, not on Gemma, and
worse than a probe, on Gemma nearly everywhere. Three regions that say where to look, with labels and the stream's covariance saying what to
look for, come to what a logistic probe reaches with all tokens; random rows whitened do nearly the same,
so little of it is the dictionary's.
"""


PAPER = {
    "region mean, by AUROC": (".937", "region mean"),
    "exemplar, by AUROC": (".832", "exemplar"),
    "exemplar, by contrast": (".881 (first version)", "exemplar, contrast"),
    "SAE, one latent": (".755 (GemmaScope)", None),
    "SAE-A": (".911", None),
    "random rows, by AUROC": ("not reported", "random rows"),
    "logistic probe, tokens": ("not reported", TOKENS),
}
"""By way: what the paper reports, and our name of the method."""


def published(rows: list[dict]) -> str:
    """The paper's numbers, each beside ours at p = 2: AxBench's score, the raw product."""

    def ours(row: dict, name: str | None) -> str:
        key = name if name is None or name in row["methods"] else f"{name} @2"
        return "–" if key not in row["methods"] else f"{row['methods'][key]['dot']['auroc']:.3f}"

    first = [row for row in rows if row["set"] == next(iter(SETS))]
    shown = [r for r in first if (r["model"], r["site"]) in SHOWN and "exemplar @2" in r["methods"]]
    site = {row["model"]: row for row in sorted(shown, key=lambda row: row["stream_rows"])}
    lines = [
        [way, theirs, *(ours(row, name) for row in site.values())]
        for way, (theirs, name) in PAPER.items()
    ]
    header = ["score: raw product", "the paper's", *(
        f"ours: {r['model']}, layer {r['site'].split('.')[1]}, {r['stream_rows']:,} rows"
        for r in site.values()
    )]  # fmt: skip
    return f"""## The paper's numbers, which are of another kind

{markdown(header, lines)}

The paper's are its own, of Concept500 with Gemma-2-2b-it, layer 20, p = 1. Ours are of Concept10, p = 2, other models
(135M and 270M parameters), other layers, and a stream of thousands of rows instead of millions of tokens. They do not
test the paper's, and cannot be compared with them but in kind. The mean detects better than the exemplar on SmolLM2, as in
the paper, and on Gemma hardly differs. AUROC chooses better than contrast in both of ours; of the paper's exemplars it is
the other way, but these two are of different versions of its texts. An SAE of ours is in [sae.md](sae.md#quality-against-tokens-and-seconds).
"""


def page() -> str:
    found = newest()
    rows = sorted((r for r in found if not r["what"].endswith("rows")), key=place, reverse=False)
    rows.sort(key=lambda r: r["model"], reverse=True)
    parts = [
        HEAD,
        conditions(rows),
        shows(rows),
        f"![Detection against percentile](figures/{FIGURE.name}.png)\n",
    ]
    for key in SETS:
        mine = [row for row in rows if row["set"] == key]
        parts += [overview(mine, key), against(mine, key)]
    for key in SETS:
        parts.append(by_percentile([row for row in rows if row["set"] == key], key))
    larger = [row for row in found if row["what"].endswith("rows")]
    for row in larger:
        parts.append(
            by_percentile([row], row["set"]).replace(
                "every percentile", f"a stream of {row['stream_rows']:,} rows"
            )
        )
    return "\n".join([*parts, probe_table.section(), published(found)])


def not_measured(row: dict, percentiles: Iterable[str]) -> Iterator[str]:
    """What a site lacks of the percentiles of others."""
    where = f"{row['model']} layer {place(row)[1]}"
    if absent := [p for p in percentiles if p not in row["regions"]]:
        yield f"{where} was not measured at p = {', '.join(absent)}. "
    if absent := [
        p for p in row["regions"] if f"region mean, 3 whitened @{p}" not in row["methods"]
    ]:
        yield f"Whitened was not measured at p = {', '.join(absent)} at {where}. "


def conditions(rows: list[dict]) -> str:
    smol, gemma = (next(r for r in rows if r["model"] == model) for model, _ in SHOWN)
    percentiles = ", ".join(smol["regions"])
    lacking = dict.fromkeys(line for row in rows for line in not_measured(row, smol["regions"]))
    chosen = [
        p
        for row in rows
        if row["set"] == next(iter(SETS))
        for name, p in row["chosen_percentile"].items()
        if name.startswith("region mean")
    ]
    smallest = sum(p == min(map(float, smol["regions"])) for p in chosen)
    commits = {commit: date for row in rows for commit, date in row["commits"].items()}
    return f"""## Measured on AxBench

Concept10 and ConceptFD of AxBench (10 and 16 concepts; 72 positive and 216 shared negative training texts,
36 and 36 evaluation texts each). Dictionaries are built from the training texts of both sets together, without
labels: {smol["stream_rows"]:,} rows for {smol["model"]}, {gemma["stream_rows"]:,} for {gemma["model"]}, in
{smol["methods"]["region mean @2"]["seeds"]} orders of their documents with one calibration; every number is the mean over them, of random
rows over {smol["methods"]["random rows @2"]["seeds"]} draws. So the regions are of the same kind of text as the test, which favours all that
draws on the stream, the null too. The percentile is the one of the best validation AUROC for each way
(training texts only), of {percentiles}: the smallest in {smallest} of {len(chosen)} pairs of a way of region means
and a site, so a smaller one might do better. So is the probes' C. Activations are in {smol["dtype"]}. AUROC is of cosines but where
it says dot. Bold: the 95 % interval excludes 0. {smol["texts_without_rows"]} and {gemma["texts_without_rows"]} texts have no row but
the masked first position, and are left out.

{"".join(lacking)}Summed and anchored were first tried on {smol["model"]} layer 18 with a look at
its test texts. Whitened came last, after the table of {gemma["model"]} layer 9 without it had been seen; it was chosen and
its shrinkage set by validation alone.

*{min(commits.values())} to {max(commits.values())}, commits {", ".join(commits)}, `bench/concepts.py`; tables by
`bench/concept_page.py`.*
"""


if __name__ == "__main__":
    figure(newest())
    PAGE.write_text(page(), encoding="utf-8")
