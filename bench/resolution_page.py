"""docs/resolution.md and its figure from the newest rows of bench/results/resolution.jsonl."""
# ruff: noqa: E501  # lines of a page are as long as they are

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import COLORS, QUIET, drawing, save_figure
from rows import markdown as table

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

**What was found**, with the numbers below. More regions tell more of a row, mostly its token; as many random rows of the
stream as exemplars tell about as much, in Gemma more, and only at SmolLM2's finest percentile less. Resolutions do not nest:
far more than regions dealt out at random, a little more than partitions by random rows in SmolLM2, no more in Gemma; about half
of the coarser exemplars or more are no exemplars of the next finer dictionary. Regions that are neighbours at the coarsest
resolution are mostly no closer at finer ones than others as far apart, though the way between them has fewer hops than through random
rows. What a percentile does decide is the scale of a distinction: in prompts with two colours the last one is told at large
percentiles, and the one before it, which the position does not spell, at small ones, in all three models.
"""


def newest(study: str) -> list[dict]:
    """The last row of each measurement."""
    rows: dict[str, dict] = {}
    for line in (HERE / "results" / "resolution.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["what"]] = row
    return [row for row in rows.values() if row["study"] == study]


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


def paths_said(rows: list[dict]) -> str:
    """Of the finer resolutions, how often differences exclude 0."""
    lines = []
    for row in rows:
        fine = [x for x in row["levels"][1:] if x["hops less " + PAIRS]]
        with_rows = [x for x in fine if x["hops less " + RANDOM]]
        pairs, random = (
            sum(x[f"hops less {null}"][2] < 0 for x in some)
            for null, some in ((PAIRS, fine), (RANDOM, with_rows))
        )
        kept = [x for x in fine if x["shared_kept"]]
        lines.append(
            f"*{row['model']}, {row['kind']}.* At the {len(fine)} finer resolutions the path has fewer hops than pairs as far apart in {pairs}, "
            f"than through random rows in {random} of {len(with_rows)}; of the neighbours shared at the coarsest "
            f"{span([100 * x['shared_kept'][0] for x in kept], 0)} % are kept, of all regions {span([100 * x['shared_kept_by_chance'][0] for x in kept], 0)} %."
        )
    return "\n\n".join(lines)


def toy_lines(rows: list[dict]) -> list[list[str]]:
    """One line for each site, over the draws of numbers."""
    lines = []
    for model in SHOWN:
        for site in sites_of(rows, model):
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


def sites_of(rows: list[dict], model: str) -> list[str]:
    """In the order of layers."""
    found = {r["site"] for r in rows if r["model"] == model}
    return sorted(found, key=lambda site: int(site.split(".")[1]))


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


def kept_said(rows: list[dict]) -> str:
    steps = [x for row in rows for x in row["steps"]]
    return (
        f"Of the sampled members, {span([100 * x['found'] for x in steps], 0)} % are kept by the finer dictionary. The share is "
        f"off by {span([x['mean_error'] for x in steps], 3)} on average and by {span([x['mean_absolute_error'] for x in steps])} in size, and its 95 % interval "
        f"holds the share of all rows in {span([100 * x['interval_holds'] for x in steps], 0)} % of the regions. Which finer region is the largest, "
        f"30 rows do not settle where there are many: it is the same in {span([100 * x['same_largest'] for x in steps], 0)} %."
    )


def figure(rows: list[dict]) -> None:
    """ARI against the percentile at the middle layer of each model."""
    with drawing(7.4, 2.9, columns=3) as (drawn, axes):
        for axis, model in zip(axes, SHOWN, strict=True):
            sites = sites_of(rows, model)
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
        axes[0].legend(fontsize=6.5, loc="upper right")
        save_figure(drawn, FIGURE)


def span(values: list[float], places: int = 2) -> str:
    """The least and the largest of some numbers."""
    low, high = f"{min(values):.{places}f}", f"{max(values):.{places}f}"
    return low if low == high else f"{low} to {high}"


def probabilities(rows: list[dict], nearer: tuple, farther: tuple) -> list[float]:
    return [float(found) for row in rows if (found := ladder([row], nearer, farther)) != "–"]


def permuted(rows: list[dict]) -> str:
    """The range that permuted labels give to these probabilities."""
    found = [
        c[side]
        for r in rows
        for c in r["ladder"]["comparisons"]
        for side in ("null_low", "null_high")
    ]
    return span(found)


def at_chosen(rows: list[dict], label: str) -> list[float]:
    return [
        d["at_chosen"]["estimate"] for r in rows for d in r["distinctions"] if d["label"] == label
    ]


def colours(rows: list[dict]) -> str:
    sites = dict.fromkeys((r["model"], r["site"]) for r in rows)
    above = [r for r in rows if r["site"] != "resid_post.0"]
    first = [d for r in rows for d in r["distinctions"] if d["label"] == "first"]
    appears = [d["appears_at"] for d in first if d["appears_at"] is not None]
    given = [d["at_chosen"]["null_high"] for d in first]
    both, final = ("final", "first"), ("final",)
    return f"""## The ordered colours

Prompts "{{n}} ({{first}}) {{final}}": a number below 100 and an ordered pair of red, blue, yellow; 50 prompts for each of the six
pairs, read at the final position, which is the final colour's token. Partitions are of 150 prompts, in their own
calibration (one block), in five halvings for each of three draws of the numbers; everything shown is of the other 150.
The first colour is never the final one, so regions of the final colour alone tell something of the first: labels other
than the final colour are permuted within its classes, and *given final* is the 97.5th percentile of that.

{toy(rows)}

*In short.* At all {len(sites)} sites the final colour is three regions at a coarse resolution (ARI {span(at_chosen(rows, "final"))} on the other
half). The first colour, which nothing at this position spells, appears beyond it in {len(appears)} of {len(first)} runs, at p = {span(appears, 0)} (median {np.median(appears):g})
(ARI {span(at_chosen(above, "first"))} where chosen, above layer 0; the final colour alone gives up to {span(given)}), and both together are
regions with ARI {span(at_chosen(above, "condition"))}. The ladder of distances holds at every site: a pair that agrees in both is nearer than one
that agrees in the final colour alone with probability {span(probabilities(rows, both, final))}, and that one is nearer than a pair with another
final colour with {span([*probabilities(rows, final, ("first",)), *probabilities(rows, final, ())])} (permuted labels {permuted(rows)}). So a large p gives the final colour only and a
small p the background colour too, as the paper finds for Gemma-2-2b at layer 12. A small p goes on dividing what no
label names: at p = 1 each region is pure, and there are many to a colour.

Percentiles are relative. At layer 0 the first colour appears at the same p as later, at a θ {theta_ratio(rows)} times smaller: that it is told by
regions of these prompts' own partition does not say that a dictionary of general text, with its larger θ, tells it.

{figure_line()}

All percentiles of SmolLM2-135M-Instruct at layer 15, mean of the draws:

{rungs(rows, "SmolLM2-135M-Instruct", "resid_post.15")}
"""


def theta_ratio(rows: list[dict]) -> str:
    """θ at the percentile where the first colour appears, at SmolLM2's layer 15 over its layer 0."""
    found = {}
    for site in ("resid_post.0", "resid_post.15"):
        mine = [r for r in rows if (r["model"], r["site"]) == (SHOWN[0], site)]
        thetas = []
        for row in mine:
            one = next(d for d in row["distinctions"] if d["label"] == "first")
            thetas += [
                s["threshold"] for s in one["separations"] if s["percentile"] == one["appears_at"]
            ]
        found[site] = np.mean(thetas) if thetas else np.nan
    return f"{found['resid_post.15'] / found['resid_post.0']:.0f}"


def figure_line() -> str:
    return f"![ARI of final colour, first colour, and both against the percentile](figures/{FIGURE.name}.png)"


def nests(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        nested = [s["nested"] for s in row["steps"]]
        random = [np.mean(n["nulls"][RANDOM]) for n in nested if n["nulls"][RANDOM]]
        tokens = [(x["named"]["token"], np.mean(x["named"]["token"]["nulls"][RANDOM]))
                  for x in row["levels"] if x["named"]["token"]["nulls"][RANDOM]]  # fmt: skip
        shared = [s["shared_exemplars"] for s in row["steps"]]
        lines.append(
            f"*{row['model']}.* In a step, {span([100 * n['estimate'] for n in nested], 0)} % of rows lie in the coarser "
            f"region that their finer one mostly lies in; with random rows in the place of the finer exemplars it is "
            f"{span([100 * r for r in random], 0)} %. Of the coarser exemplars {span([100 * s for s in shared], 0)} % are exemplars of the "
            f"next finer dictionary. What is told grows with the number of regions: the token from "
            f"{100 * tokens[0][0]['estimate']:.0f} to {100 * row['levels'][-1]['named']['token']['estimate']:.0f} %, less that of as many random rows "
            f"{span([100 * (t['estimate'] - r) for t, r in tokens], 1)} points."
        )
    return "\n\n".join(lines)


def conditions(rows: list[dict]) -> str:
    dates = sorted({(r["date"], r["commit"]) for r in rows})
    commits = ", ".join(dict.fromkeys(c for _, c in dates))
    return f"*{dates[-1][0]}, commits {commits}, {rows[0]['machine']}; `bench/resolution.py`, tables by `bench/resolution_page.py`.*"


def speed() -> str:
    found = newest("speed")
    if not found:
        return ""
    row = found[0]
    fine, coarse, width = row["shape"]
    said = ", ".join(
        f"{name} {median * 1000:.0f} ms (slowest of 20: {most * 1000:.0f})"
        for name, (median, most) in row["seconds"].items()
    )
    return f"""## How fast

One region's relatives among {fine:,} and {coarse:,} regions of width {width}: {said}. From exemplars alone unless it says rows, of
which there were {row["rows"]:,}. The coarser holder of all {fine:,} exemplars takes {row["holders_of_all_s"]:.1f} s.
"""


def page() -> str:
    every = [row for study in ("nesting", "paths", "kept", "toy", "speed") for row in newest(study)]
    nesting_rows = newest("nesting")
    return "\n".join(
        [
            HEAD,
            conditions(every),
            "",
            NESTING,
            nests(nesting_rows),
            "",
            *(nesting(row) for row in nesting_rows),
            PATHS,
            paths_said(newest("paths")),
            "",
            paths(newest("paths")),
            "",
            KEPT,
            kept_said(newest("kept")),
            "",
            kept(newest("kept")),
            "",
            colours(newest("toy")),
            speed(),
        ]
    )


NESTING = """## Do resolutions nest, and what do they tell?

Dictionaries of State of the Union addresses (a stretch of 1,100 characters of each kept address) at several percentiles of
one pass; the rows are of a stretch of each held-out address. *token, previous, next*: rows whose token (the one before, the one
after) is the commonest of their region; *random* and *perm.* are the nulls. *exemplars shared*: coarser exemplars that
founded a finer region too, *chance* for a random row. *nested*: rows in the commonest coarser region of their finer one;
*by exemplar*: rows in the coarser region that their finer region's exemplar lies in. Bits are plug-in entropies: *added*
is H(finer | coarser), *lost* is H(coarser | finer), which is 0 where partitions nest; intervals are over addresses.
"""

PATHS = """## Paths

Forty pairs of regions that are joined at the coarsest resolution (*joined*), and forty random pairs of it, at every one;
3 neighbours, fewest hops. Differences are paired, with 95 % intervals over the pairs; bold ones exclude 0. A random pair
less pairs as far apart must be about 0: it is the check of that null. *shared kept*: of the neighbours that both share at
the coarsest, those that lie in shared neighbours at this p.
"""

KEPT = """## What the dictionaries know without text

Each coarse region with 30 rows or more: the share of its rows in the finer region where most of its sampled members lie,
by the sampled members that the finer dictionary keeps, against the share among all rows of the build, assigned to the
finished dictionaries. (Members joined while streaming and may have a nearer exemplar since, so the two differ beyond
sampling.)
"""


if __name__ == "__main__":
    figure(newest("toy"))
    PAGE.write_text(page(), encoding="utf-8")
