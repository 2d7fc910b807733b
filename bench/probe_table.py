"""docs/concepts.md on k-sparse probes, from the newest rows of results/probing.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from exemplars.analyses.probing import (
    CODES,
    COMPONENTS,
    PERMUTED,
    PUBLISHED_RATIO,
    RANDOM_ROWS,
    RAW,
)
from rows import markdown

FILE = Path(__file__).parent / "results" / "probing.jsonl"
METHODS = {
    RAW: ("raw activations", None),
    COMPONENTS: ("principal components", None),
    CODES: ("one-hot codes", "binary"),
    RANDOM_ROWS: ("random rows, one-hot", "binary"),
    PERMUTED: ("permuted labels, one-hot", "binary"),
}
K_SPARSE = (1, 2, 5, 20, None)


def newest() -> list[dict]:
    """The last row of each site."""
    rows = {}
    for line in FILE.read_text().splitlines() if FILE.exists() else ():
        row = json.loads(line)
        rows[row["what"]] = row
    return list(rows.values())


def value(found: list[float] | None) -> str:
    """Of a mean with its interval over concepts, or the range over a null's draws."""
    if found is None:
        return "–"
    mean, low, high = found
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def lines(row: dict) -> list[list[str]]:
    """Of each dictionary, a line for each method: accuracy by number of dimensions."""
    found = []
    for one in row["dictionaries"]:
        for method, (title, readout) in METHODS.items():
            scores = {
                score.get("k"): score
                for score in one["scores"]
                if score["method"] == method
                and score.get("readout") == readout
                and score.get("basis", "exemplar") == "exemplar"
            }
            of_raw = scores.get(None, {}).get("of_raw")
            found.append(
                [
                    row["inputs"]["model"],
                    row["inputs"]["site"].split(".")[1],
                    f"{one['percentile']:g}",
                    f"{one['regions']:,}",
                    title,
                    *(value(scores.get(k, {}).get("accuracy")) for k in K_SPARSE),
                    value(of_raw),
                ]
            )
    return found


def section() -> str:
    rows = newest()
    if not rows:
        return ""
    header = ["model", "layer", "p", "K", "code", *(f"k = {k}" for k in K_SPARSE[:-1]), "all",
              "all, of raw"]  # fmt: skip
    table = markdown(header, [line for row in rows for line in lines(row)])
    inputs = rows[0]["inputs"]
    low, high = PUBLISHED_RATIO
    return f"""## k-sparse probes

`exemplars probe` asks how much of a text's class a few dimensions of its code keep, in the manner
of SAEBench: a text's code is the mean over its rows; the k dimensions whose class means differ most
on training texts; a logistic regression on them, its regularisation by cross-validation within the
training texts; accuracy on the test texts, the mean of both classes (chance: 0.5). The same goes
for raw activations, principal components, the codes of as many random rows, and permuted training
labels. Mean over the {inputs["concepts"]} concepts of both sets:

{table}

Brackets: 95 % interval over concepts; of random rows and permuted labels the least and the most of
their draws ({inputs["null_seeds"]}). "All, of raw" is the accuracy with all dimensions over that of
raw activations. The paper's, of its own models and tasks: one-hot codes keep {low:.2f} to
{high:.2f} of the accuracy of raw activations.

*{rows[-1]["date"]}, commit {rows[-1]["commit"]}, `bench/probing.py`.*
"""
