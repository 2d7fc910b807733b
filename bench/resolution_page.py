"""docs/resolution.md and its figure from the newest rows of bench/results/resolution.jsonl."""
# ruff: noqa: E501  # lines of a page are as long as they are

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import COLORS, QUIET, drawing, save_figure

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "resolution.md"
FIGURE = HERE.parent / "docs" / "figures" / "resolution"
SHOWN = ("SmolLM2-135M-Instruct", "Qwen2.5-Coder-0.5B-Instruct", "Gemma-3-270m")
PERMUTED, RANDOM = "permuted rows", "random rows"
PAIRS = "pairs as far apart"

HEAD = """# Resolutions

What does a finer resolution show that a coarser one does not?

```
exemplars resolution smollm2-l15 --text held-out/                  # what is told, and how far it nests
exemplars resolution smollm2-l15 --region 12 --at 4                # one region's relatives
exemplars resolution smollm2-l15 --path 12 40 --at 4 --text held-out/
exemplars resolution smollm2-l15 --labels colours.jsonl --label-column final --label-column first
```

`smollm2-l15` is the folder of a build with several percentiles (`exemplars build ... -p 1 -p 2 -p 4`), or name the
dictionaries one by one. They must share their center, as those of one pass do. `--at` says whose region numbers
`--region` and `--path` give; without it they are the first folder's. Every question has `--json` and `--figure`. In
Python: `exemplars.analyses.resolution.compare_resolutions`, `exemplars.analyses.relatives.relatives`,
`exemplars.analyses.paths.region_paths`, `exemplars.analyses.distinctions.distinctions`.

**All of it.** With `--text` or `--activations` (best such as the build has not read) the same rows are assigned at every
resolution. The table says how often a row's token, the one before it and the one after it are the commonest of the row's
region, and how far each step nests: how many rows lie in the coarser region that their finer region mostly lies in.
Whatever is named is named on one half of the documents and counted on the other, so that a region of one row names
nothing. Beside each number are *random rows* (as many rows of other documents as exemplars) and *permuted rows* (the
regions dealt out at random). Without rows, the exemplars alone are compared.

**One region.** Regions are not nested, so a region has no parent: it has relatives, with the share of its rows that lie
in each, and the share of theirs that lie in it. From the exemplars alone one knows the region that holds its exemplar,
and those whose exemplar it holds. Without any text the sampled members give shares in finer regions too: all
dictionaries of a pass sample members by one hash of rows. With text, shares are of rows, both ways.

**A way between two regions.** Regions are joined to their nearest three, and the shortest path is read by its exemplars
in context and, where it is stored, by the lens. Any graph of neighbours has paths: beside each are the paths of random
pairs of regions about as far apart, and those between the same two exemplars through random rows.

**Labels.** Which of several labels of texts do regions tell apart, and from which percentile on? By the dictionaries, or
with `-p` by partitions of the texts themselves. The percentile that separates a label best is chosen on half of the texts
and reported on the other half; a label *appears* at the coarsest percentile whose adjusted Rand index (ARI) is above
chance at 5 % over the whole ladder. `--within LABEL` permutes the other labels within its classes only, so that chance is
what that label gives already: two labels that have to do with each other need it.

**What it cannot conclude.** That a finer region is a part of a coarser one; that a path is a way the model goes; that the
model uses a distinction; that a distinction is absent because no region shows it. A probe may still find it.
"""


def newest(study: str) -> list[dict]:
    """The last row of each measurement."""
    rows: dict[str, dict] = {}
    for line in (HERE / "results" / "resolution.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["what"]] = row
    return [row for row in rows.values() if row["study"] == study]


def table(header: list[str], lines: list[list[str]]) -> str:
    rule = "|".join(["---"] * len(header))
    return "\n".join(
        [f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def share(found: dict, interval: bool = True) -> str:
    text = f"{found['estimate']:.1%}"
    return text + (f" ({found['low']:.1%}–{found['high']:.1%})" if interval else "")


def null(found: dict, name: str) -> str:
    values = found["nulls"][name]
    return f"{np.mean(values):.1%}" if values else "–"


def nesting(row: dict) -> str:
    levels = [
        [
            f"{x['percentile']:g}", f"{x['threshold']:.3f}", f"{x['n_regions']:,}", f"{x['met']:,}",
            f"{x['entropy_bits']:.2f}",
            *(
                part
                for name in ("token", "previous token", "next token")
                for part in (share(x["named"][name], name == "token"), null(x["named"][name], RANDOM),
                             null(x["named"][name], PERMUTED))
            ),
        ]
        for x in row["levels"]
    ]  # fmt: skip
    steps = [
        [
            f"{x['coarse']:g} → {x['fine']:g}", f"{x['shared_exemplars']:.0%}",
            f"{x['shared_by_chance']:.1%}", " / ".join(f"{v:g}" for v in x["inside"]),
            share(x["nested"]), null(x["nested"], RANDOM), null(x["nested"], PERMUTED),
            share(x["holder"], False), null(x["holder"], RANDOM), f"{x['added_bits']:.2f}",
            f"{x['lost_bits']:.2f}", f"{np.mean(x['lost_by_chance']):.2f}",
        ]
        for x in row["steps"]
    ]  # fmt: skip
    return f"""### {row["model"]}, {row["site"]}

{row["rows"]:,} rows of {row["documents"]} addresses; the dictionaries are of {row["build_rows"]:,} rows of others; {len(row["seeds"])} draws of each null.

{table(["p", "θ", "regions", "met", "bits", "token", "random", "perm.", "previous", "random", "perm.", "next", "random", "perm."], levels)}

{table(["step", "exemplars shared", "chance", "finer inside, least / median / most", "nested", "random", "perm.", "by exemplar", "random", "bits added", "bits lost", "lost, perm."], steps)}
"""


def number(found: list | None, places: int = 2, sign: bool = False) -> str:
    if found is None or found[0] is None:
        return "–"
    s = "+" if sign else ""
    text = f"{found[0]:{s}.{places}f} ({found[1]:{s}.{places}f} to {found[2]:{s}.{places}f})"
    return f"**{text}**" if sign and (found[1] > 0 or found[2] < 0) else text


def paths(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        for x in row["levels"]:
            kept = "–" if x["shared_kept"] is None else f"{x['shared_kept'][0]:.0%}"
            chance = (
                "–"
                if x["shared_kept_by_chance"] is None
                else f"{x['shared_kept_by_chance'][0]:.0%}"
            )
            lines.append(
                [
                    row["model"], row["kind"], f"{x['percentile']:g}", f"{x['regions']:,}",
                    f"{x['paths']}", f"{x['hops'][0]:.1f}" if x["hops"] else "–",
                    number(x[f"hops less {PAIRS}"], sign=True),
                    number(x[f"hops less {RANDOM}"], sign=True),
                    number(x[f"stretch less {PAIRS}"], sign=True),
                    number(x[f"stretch less {RANDOM}"], sign=True), kept, chance,
                ]
            )  # fmt: skip
    header = ["model", "pairs", "p", "regions", "paths", "hops", "less pairs as far apart", "less random rows",
              "stretch, less pairs", "less random rows", "shared kept", "by chance"]  # fmt: skip
    return table(header, lines)


def toy_lines(rows: list[dict]) -> list[list[str]]:
    """One line for each site, over the draws of numbers."""
    lines = []
    for model in SHOWN:
        sites = dict.fromkeys(r["site"] for r in rows if r["model"] == model)
        for site in sites:
            mine = [r for r in rows if (r["model"], r["site"]) == (model, site)]
            labels = {
                name: [next(d for d in r["distinctions"] if d["label"] == name) for r in mine]
                for name in ("final", "first", "condition")
            }
            line = [model, site.split(".")[1]]
            for name, found in labels.items():
                chosen = sorted({p for d in found for p in d["chosen"]}, reverse=True)
                span = f"{chosen[0]:g}" if len(chosen) == 1 else f"{chosen[0]:g}–{chosen[-1]:g}"
                ari = np.mean([d["at_chosen"]["estimate"] for d in found])
                chance = np.mean([d["at_chosen"]["null_high"] for d in found])
                appears = sorted({d["appears_at"] or 0 for d in found}, reverse=True)
                said = "–".join(
                    "never" if p == 0 else f"{p:g}"
                    for p in dict.fromkeys((appears[0], appears[-1]))
                )
                line += [f"{ari:.2f} at {span}", f"{chance:.2f}"]
                if name == "first":
                    line.append(said)
            line += [ladder(mine, ("final", "first"), ("final",)), different(mine)]
            lines.append(line)
    return lines


def ladder(rows: list[dict], nearer: tuple, farther: tuple) -> str:
    """How often a pair of the one group is nearer than one of the other, over the draws."""
    found = []
    for row in rows:
        for c in row["ladder"]["comparisons"]:
            one, other = tuple(c["nearer"]), tuple(c["farther"])
            if (one, other) == (nearer, farther):
                found.append(c["probability"])
            elif (one, other) == (farther, nearer):
                found.append(1 - c["probability"])
    return f"{np.mean(found):.2f}" if found else "–"


def different(rows: list[dict]) -> str:
    """Same final colour, other first, against pairs with another final colour."""
    return " / ".join(ladder(rows, ("final",), other) for other in (("first",), ()))


def toy(rows: list[dict]) -> str:
    header = ["model", "layer", "final: ARI, p", "chance", "first: ARI, p", "given final", "first appears at",
              "both: ARI, p", "given final", "both alike < final alike", "final alike < first alike / none alike"]  # fmt: skip
    return table(header, toy_lines(rows))


def rungs(rows: list[dict], model: str, site: str) -> str:
    """Every percentile of one site, mean over draws."""
    mine = [r for r in rows if (r["model"], r["site"]) == (model, site)]
    lines = []
    for k, p in enumerate(mine[0]["percentiles"]):
        line = [f"{p:g}"]
        for number_of, name in enumerate(("final", "first", "condition")):
            found = [
                next(d for d in r["distinctions"] if d["label"] == name)["separations"][k]
                for r in mine
            ]
            if not number_of:
                line += [
                    f"{np.mean([s['threshold'] for s in found]):.3f}",
                    f"{np.mean([s['regions'] for s in found]):.1f}",
                ]
            ari = [s["scores"]["ARI"] for s in found]
            line += [
                f"{np.mean([s['estimate'] for s in ari]):.2f}",
                f"{np.mean([s['null_high'] for s in ari]):.2f}",
            ]
            if name == "condition":
                line.append(f"{np.mean([s['scores']['purity']['estimate'] for s in found]):.2f}")
                line.append(f"{np.mean([s['scores']['named']['estimate'] for s in found]):.2f}")
        lines.append(line)
    header = [
        "p",
        "θ",
        "regions",
        "final",
        "chance",
        "first",
        "given final",
        "both",
        "given final",
        "purity",
        "named",
    ]
    return table(header, lines)


def kept(rows: list[dict]) -> str:
    lines = [
        [row["model"], f"{x['coarse']:g} → {x['fine']:g}", f"{x['regions']:,}", f"{x['found']:.0%}",
         f"{x['mean_error']:+.3f}", f"{x['mean_absolute_error']:.3f}", f"{x['interval_holds']:.0%}",
         f"{x['same_largest']:.0%}"]
        for row in rows
        for x in row["steps"]
    ]  # fmt: skip
    header = ["model", "p", "coarse regions", "sampled rows found", "mean error", "mean absolute error",
              "interval holds", "largest is the largest"]  # fmt: skip
    return table(header, lines)


def figure(rows: list[dict]) -> None:
    """ARI against the percentile at the middle layer of each model."""
    with drawing(7.4, 2.9, columns=3) as (drawn, axes):
        for axis, model in zip(axes, SHOWN, strict=True):
            sites = list(dict.fromkeys(r["site"] for r in rows if r["model"] == model))
            if not sites:
                continue
            site = sites[len(sites) // 2]
            mine = [r for r in rows if (r["model"], r["site"]) == (model, site)]
            at = [f"{p:g}" for p in mine[0]["percentiles"]]
            for name, color in zip(("final", "first", "condition"), COLORS, strict=False):
                curves, chance = [], []
                for row in mine:
                    found = next(d for d in row["distinctions"] if d["label"] == name)[
                        "separations"
                    ]
                    curves.append([s["scores"]["ARI"]["estimate"] for s in found])
                    chance.append([s["scores"]["ARI"]["null_high"] for s in found])
                label = {"final": "final colour", "first": "first colour", "condition": "both"}[
                    name
                ]
                axis.plot(
                    at,
                    np.mean(curves, axis=0),
                    color=color,
                    marker="o",
                    markersize=2.5,
                    label=label,
                )
                axis.fill_between(
                    at,
                    np.min(curves, axis=0),
                    np.max(curves, axis=0),
                    color=color,
                    alpha=0.15,
                    linewidth=0,
                )
                axis.plot(
                    at,
                    np.mean(chance, axis=0),
                    ":",
                    color=color if name != "final" else QUIET,
                    linewidth=0.9,
                )
            axis.set_title(f"{model.split('-Inst')[0]}, layer {site.split('.')[1]}", fontsize=8)
            axis.set_ylim(-0.05, 1.05)
            axis.tick_params(axis="x", labelsize=6)
            axis.set_xlabel("percentile p")
        axes[0].set_ylabel("ARI on the other half")
        axes[0].legend(fontsize=7, loc="lower left")
        save_figure(drawn, FIGURE)
