"""docs/families.md and its figure from the newest rows of bench/results/families.jsonl."""

# ruff: noqa: E501

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from exemplars.figures import QUIET, drawing, save_figure

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "families.md"
FIGURE = HERE.parent / "docs" / "figures" / "families"
HEADLINE = 12.0
READINGS = {"as used": "through their chat templates (Gemma, a base model, as plain text)",
            "plain": "as plain text"}  # fmt: skip
SHORT = {"SmolLM2-135M-Instruct": "SmolLM2", "Qwen2.5-Coder-0.5B-Instruct": "Qwen",
         "Gemma-3-270m": "Gemma"}  # fmt: skip

HEAD = """# Two models and the same prompts

Do these models represent the same prompts together?

```
exemplars families HuggingFaceTB/SmolLM2-135M-Instruct Qwen/Qwen2.5-0.5B-Instruct \\
    --positive harmful.txt --negative harmless.txt --figure families.svg
exemplars families gpt2 EleutherAI/pythia-70m --prompts questions.txt --json
```

Exemplars are observed, so two models can be compared without a common space: by *which prompts* stand for
their regions. Both models read the prompts, one after the other; at every layer the activations at the prompts'
final positions are partitioned. From a region of the first model, its exemplar's prompt lies in some region of the
second; that region's exemplar's prompt lies in some region of the first. The *round trip* returns if that is the region
it began with. Classes come out equal in number; `--prompts FILE` without classes, or several files, a class each, will
do too. Models with a chat template are read through it (`--plain`: not). In Python:
`exemplars.analyses.families.compare_families`.

## What returns although nothing is shared

A round trip through many regions returns easily: with as many regions as prompts it always does. So every share stands
beside these, over the same pairs of layers:

- *by chance*: prompts matched at random between the models. The expectation is exact, for each pair of layers
  (`rounds.chance_of_return`); p-values are of random matchings, the same for all pairs of a draw, and corrected over
  the grid by the largest deviation in it (Westfall and Young 1993).
- *same class*: matched at random within harmful and within harmless prompts: what classes alone give.
- *wordings*: partitions of the texts in the second model's place, with as many regions as its layer has: k-means and
  leader clustering of TF-IDF, leader clustering of mean token embeddings (no order of words), and of the last token's
  embedding.
- *same layer, other layers*: through the model itself, in another order: what order costs, and what another depth does.

**Each model has the prompts in an order of its own.** Clustering takes prompts in order. Where both models have one order, as
in the published experiment, early prompts found regions in both, and a trip between two founders returns though the models share
nothing else. *By the order alone* shows how many do: prompts matched by their place in two unlike orders. The published
null (prompts matched at random after clustering) does not have this in it, and is too low for what it is compared with.

The adjusted Rand index asks the same of members instead of exemplars: 0 by chance, 1 for equal partitions.

"""


def newest() -> dict[str, dict]:
    rows = {}
    for line in (HERE / "results" / "families.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["what"]] = row
    return rows


def three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def span(values: list[float | None]) -> str:
    kept = [f"{v:.3f}" for v in sorted(v for v in values if v is not None)]
    return "–" if not kept else kept[0] if kept[0] == kept[-1] else f"{kept[0]}–{kept[-1]}"


def short(name: str) -> str:
    return SHORT.get(name, name)


def best_text(grid: dict) -> tuple[str, float]:
    kept = {name: v for name, v in grid["texts"].items() if v is not None}
    name = max(kept, key=lambda n: kept[n])
    return name, kept[name]


def grids_of(row: dict, headline_only: bool) -> list[dict]:
    """Those of the first subset and of all regions, both ways; or the first subset's alone."""
    subsets = list(dict.fromkeys(grid["subset"] for grid in row["grids"]))
    wanted = subsets[:1] if headline_only else (subsets[0], subsets[-1])
    return [
        grid for grid in row["grids"] if grid["subset"] in wanted and grid["estimate"] is not None
    ]


def trips_table(rows: list[dict], headline_only: bool) -> str:
    lines = [
        "| from → through → back | regions of | n | return | pairs of orders | by chance | same class | best wording | "
        "layers above wordings | same layer | other layers | p |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for grid in grids_of(row, headline_only):
            text, share = best_text(grid)
            lines.append(
                f"| {short(grid['start'])} → {short(grid['through'])} | {grid['subset']} | "
                f"{grid['regions']:.1f} | **{three(grid['estimate'])}** | {span(grid['by_orders'])} | "
                f"{three(grid['chance'])} | {three(grid['chance_in_class'])} | {three(share)} ({text}) | "
                f"{100 * grid['share_above_text']:.0f} % | {three(grid['same_layer'])} | "
                f"{three(grid['other_layers'])} | {grid['p_grid']:.3f} |"
            )
    return "\n".join(lines)


def order_table(rows: list[dict]) -> str:
    """One order for both, as published."""
    lines = [
        "| from → through → back | regions of | own orders | one order | by the order alone | by chance | best wording, one order |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for grid in grids_of(row, False):
            best = max(v for v in grid["texts_one_order"].values() if v is not None)
            lines.append(
                f"| {short(grid['start'])} → {short(grid['through'])} | {grid['subset']} | "
                f"{three(grid['estimate'])} | **{three(grid['one_order'])}** | {three(grid['order_alone'])} | "
                f"{three(grid['chance'])} | {three(best)} |"
            )
    return "\n".join(lines)


def wording_table(rows: list[dict]) -> str:
    names = list(rows[0]["grids"][0]["texts"])
    lines = [
        f"| from → through → back | regions of | return | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for row in rows:
        for grid in grids_of(row, False):
            texts = " | ".join(three(grid["texts"][name]) for name in names)
            lines.append(
                f"| {short(grid['start'])} → {short(grid['through'])} | {grid['subset']} | "
                f"{three(grid['estimate'])} | {texts} |"
            )
    return "\n".join(lines)


def rand_table(rows: list[dict]) -> str:
    names = list(rows[0]["rand"]["texts"])
    lines = [
        f"| models | each other | {' | '.join(f'first, {n}' for n in names)} | "
        "first, classes | second, classes |",
        f"|---|---|{'---|' * len(names)}---|---|",
    ]
    for row in rows:
        rand = row["rand"]
        texts = " | ".join(three(rand["texts"][name]) for name in names)
        one, two = map(short, row["models"])
        lines.append(
            f"| {one}, {two} | **{three(rand['estimate'])}** | "
            f"{texts} | {' | '.join(map(three, rand['classes']))} |"
        )
    return "\n".join(lines)


def percentile_table(rows: list[dict]) -> str:
    lines = [
        "| prompts | models | p | regions | return | by chance | best wording | other layers | Rand | "
        "Rand, best wording |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        grid = row["grids"][len(row["grids"]) // 2 - 1]  # all regions, from the first model
        text, share = best_text(grid)
        sizes = " and ".join(f"{n:.0f}" for n in row["regions"])
        rand = max(v for v in row["rand"]["texts"].values() if v is not None)
        lines.append(
            f"| {row['set']} | {short(row['models'][0])} → {short(row['models'][1])} | "
            f"{row['percentile']:g} | {sizes} | {three(grid['estimate'])} | "
            f"{three(grid['chance'])} | {three(share)} ({text}) | {three(grid['other_layers'])} "
            f"| {three(row['rand']['estimate'])} | {three(rand)} |"
        )
    return "\n".join(lines)


def summary(rows: list[dict]) -> str:
    """Counts over directions, subsets and readings at the published percentile."""
    grids = [g for row in rows for g in grids_of(row, False)]
    n = len(grids)
    chance = sum(g["p_grid"] <= 0.05 for g in grids)
    text = sum(g["estimate"] > best_text(g)[1] for g in grids)
    surely = sum(g["verdict"].startswith("Yes") for g in grids)
    rand = sum(
        row["rand"]["estimate"] > max(v for v in row["rand"]["texts"].values() if v is not None)
        for row in rows
    )
    return (
        f"Of {n} grids (sets of prompts, readings, pairs of models both ways; regions of the first class, and all "
        f"regions), {chance} have a mean above random matching (p ≤ .05), {text} above the best of four wordings, "
        f"**{surely} in every pair of orders**. By the adjusted Rand index {rand} of {len(rows)} pairs agree more with "
        "each other than the first model does with any wording."
    )


def figure(rows: list[dict]) -> None:
    """Of harmful and harmless prompts as used: trips over all pairs of layers, and the wording's."""
    with drawing(9.0, 2.6 * len(rows), columns=3, rows=len(rows)) as (drawn, axes):
        for line, row in zip(np.atleast_2d(axes), rows, strict=True):
            found = row["headline_grid"]
            panels = (
                (found["estimate"], "through the other model"),
                (found["text"], f"through {found['best_text']}"),
                (found["rand"], "adjusted Rand index"),
            )
            for place, (values, title) in zip(line, panels, strict=True):
                image = place.imshow(
                    np.array(values, float), origin="lower", vmin=0, vmax=1, cmap="cividis",
                    aspect="auto",
                )  # fmt: skip
                place.set_title(title, fontsize=8)
                place.grid(visible=False)
                place.set_xlabel(f"layer of {short(row['models'][1])}", color=QUIET, fontsize=8)
            line[0].set_ylabel(f"layer of {short(row['models'][0])}", color=QUIET, fontsize=8)
        drawn.colorbar(image, ax=axes, label="share that returns, or index", shrink=0.7)
    save_figure(drawn, FIGURE)


def section(rows: dict[str, dict], name: str, reading: str) -> list[dict]:
    return [
        row
        for row in rows.values()
        if (row["set"], row["reading"], row["percentile"]) == (name, reading, HEADLINE)
    ]


def page(rows: dict[str, dict]) -> str:
    first = next(iter(rows.values()))
    main = [row for row in rows.values() if row["percentile"] == HEADLINE]
    parts = [
        HEAD,
        "## Measured: three small models of three families\n\n",
        f"{', '.join(SHORT)}; every layer of each; p = {HEADLINE:g}, as published; "
        f"{first['orders']} orders of the prompts, {first['draws']} matchings. *refusal*: "
        "harmful instructions and as many harmless ones (299 each, of `refusal/`). *benign*: "
        "AxBench's instructions about text, code and math (120 each). Activations in bfloat16; of "
        "Gemma only the base model is to be had, so that \"as used\" it reads what follows no "
        "template and ends in the prompt's last token, where the others end in the template's.\n\n",
        f"{conclusion(rows)}\n\n{summary(main)}\n\n",
        "![Round trips over layer pairs](figures/families.png)\n\n",
    ]  # fmt: skip
    for name, title in (("refusal", "Harmful and harmless"), ("benign", "Text, code, math")):
        for reading, how in READINGS.items():
            found = section(rows, name, reading)
            if not found:
                continue
            parts += [
                f"### {title}: read {how}\n\n", trips_table(found, name == "benign"), "\n\n",
                "By members (adjusted Rand index, mean over all pairs of layers):\n\n",
                rand_table(found), "\n\n",
            ]  # fmt: skip
            if name == "refusal":
                parts += ["Every wording:\n\n", wording_table(found), "\n\n"]
            if (name, reading) == ("refusal", "as used"):
                parts += ["One order for both models:\n\n", order_table(found), "\n\n"]
    others = sorted(
        (r for r in rows.values() if r["reading"] == "as used"),
        key=lambda r: (r["set"] != "refusal", r["models"], r["percentile"]),
    )
    parts += [
        "### Other percentiles (as used, all regions)\n\n", percentile_table(others), "\n\n", TAIL,
        f"\n*{first['date']}, commit {main[-1]['commit']}, `bench/families.py`; tables by "
        "`bench/family_page.py`.*\n",
    ]  # fmt: skip
    return "".join(parts)


def conclusion(rows: dict[str, dict]) -> str:
    """What the rows say, in words: each sentence only if its rows are there."""
    said = []
    tuned = found_of(rows, "refusal", "as used", ("SmolLM2", "Qwen"))
    if tuned:
        every = [g for g in tuned["grids"] if g["subset"] == "all regions"]
        first = tuned["grids"][0]
        better = all(g["estimate"] > best_text(g)[1] for g in every)
        said.append(
            f"**Two tuned models, read through their templates** (SmolLM2 and Qwen, refusal): "
            f"{'yes, and more than the words give' if better else 'no more than the words give'}. "
            f"{numbers(every)} With one order for both, as published, it would be "
            f"{span([g['one_order'] for g in every])}, of which the order alone gives "
            f"{span([g['order_alone'] for g in every])} where random matching gives {span([g['chance'] for g in every])}. "
            f"By members the models agree at {three(tuned['rand']['estimate'])}, the best wording at "
            f"{three(max(tuned['rand']['texts'].values()))}. The published headline, wholly harmful regions, is of "
            f"{first['regions']:.1f} regions a layer here ({three(first['estimate'])} against "
            f"{three(best_text(first)[1])} by the best wording): too few to say more. "
        )
    unlike = [
        row
        for pair in (("SmolLM2", "Gemma"), ("Qwen", "Gemma"))
        if (row := found_of(rows, "refusal", "as used", pair))
    ]
    if unlike:
        grids = [g for row in unlike for g in row["grids"] if g["subset"] == "all regions"]
        n = sum(g["estimate"] > best_text(g)[1] for g in grids)
        said.append(
            f"**A tuned model through its template and a base model without** (either and Gemma): above the best "
            f"wording in {n} of {len(grids)} grids. {numbers(grids)}"
        )
    plain = [
        row for row in rows.values() if row["reading"] == "plain" and row["percentile"] == HEADLINE
    ]
    for name in ("refusal", "benign"):
        several = [row for row in plain if row["set"] == name]
        if several:
            rand = [row["rand"] for row in several]
            said.append(
                f"**All read as plain text, {name}**: models agree at "
                f"{span([r['estimate'] for r in rand])} (Rand), and the first with its last token's embedding alone at "
                f"{span([r['texts']['last token, EP'] for r in rand])}."
            )
    benign = [
        r
        for r in rows.values()
        if (r["set"], r["reading"], r["percentile"]) == ("benign", "as used", HEADLINE)
    ]
    if benign:
        rand = [row["rand"] for row in benign]
        said.append(
            f"**Harmless instructions of three kinds, as used**: models agree at "
            f"{span([r['estimate'] for r in rand])} (Rand) against {span([max(r['texts'].values()) for r in rand])} by the "
            f"best wording and {span([c for r in rand for c in r['classes']])} with the three kinds."
        )
    return "\n\n".join(said)


def numbers(grids: list[dict]) -> str:
    """Estimate and what it stands beside, over all regions of several grids."""
    return (
        f"All regions: {span([g['estimate'] for g in grids])} return; "
        f"{span([g['chance'] for g in grids])} by chance, {span([best_text(g)[1] for g in grids])} by the best "
        f"wording, {span([g['other_layers'] for g in grids])} between layers of the model it starts in."
    )


def found_of(rows: dict[str, dict], name: str, reading: str, pair: tuple[str, str]) -> dict | None:
    return next(
        (
            row for row in section(rows, name, reading)
            if tuple(map(short, row["models"])) == pair
        ),
        None,
    )  # fmt: skip


TAIL = """## What this does not say

- That models put prompts together for the same reasons, or along directions that correspond.
- What two models do that were trained on much more: these have 135M to 500M parameters. The published figures, of Gemma-2-2b and
  Llama-3.1-8B on 2,352 prompts (wholly harmful regions, mean over all layer pairs: .187 between base models, .439
  between tuned ones; null for one layer pair, .078), are in one order, with neither the null of order nor a wording in a model's place. Ours cannot
  be set against them but in kind.
- Layers of one model are alike: the grid's pairs are far fewer than they seem, and the best pair is chosen by looking.
- Prompts that one author wrote share phrases. A partition by TF-IDF is one wording of many.
"""

if __name__ == "__main__":
    found = newest()
    figure(section(found, "refusal", "as used"))
    PAGE.write_text(page(found), encoding="utf-8")
