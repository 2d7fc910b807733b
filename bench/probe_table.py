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
READING = """\
At p = 1 and 2 a probe of the one-hot codes of a dictionary tells less of a text's class than one of
the codes of as many random rows, at every k and with all dimensions; at p = 10 about as much. It
tells less than one of principal components, and the paper's ratio is not reached. Random rows have
more of their cells where rows are dense. This is one site and one order of the stream.
"""


def newest() -> list[dict]:
    """A row for each site, with the dictionaries that were measured last."""
    rows: dict[str, dict] = {}
    for line in FILE.read_text().splitlines() if FILE.exists() else ():
        new = json.loads(line)
        row = rows.setdefault(new["what"], {**new, "dictionaries": {}, "commits": {}})
        row["dictionaries"] |= {(d["percentile"], d["seed"]): d for d in new["dictionaries"]}
        row["commits"] |= {new["commit"]: new["date"]}
    for row in rows.values():
        row["dictionaries"] = [found for _, found in sorted(row["dictionaries"].items())]
    return list(rows.values())


def value(found: list[float] | None) -> str:
    """Of a mean with its interval over concepts, or the range over a null's draws."""
    if found is None:
        return "–"
    mean, low, high = found
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def lines(row: dict, name: str) -> list[list[str]]:
    """Of each dictionary, a line for each method: accuracy or AUROC by number of dimensions."""
    inputs, found = row["inputs"], []
    for one in row["dictionaries"]:
        where = [inputs["model"], inputs["site"].split(".")[1], f"{one['percentile']:g}"]
        for method, (title, readout) in METHODS.items():
            scores = {
                score.get("k"): score
                for score in one["scores"]
                if (score["method"], score.get("readout")) == (method, readout)
                and score.get("basis", "exemplar") == "exemplar"
            }
            values = (value(scores.get(k, {}).get(name)) for k in K_SPARSE)
            found.append([*where, f"{one['regions']:,}", title, *values])
            if name == "accuracy":
                found[-1].append(value(scores.get(None, {}).get("of_raw")))
    return found


def section() -> str:
    rows = newest()
    if not rows:
        return ""
    header = ["model", "layer", "p", "K", "code", *(f"k = {k}" for k in K_SPARSE[:-1]), "all"]
    accuracy, auroc = (
        markdown(names, [line for row in rows for line in lines(row, name)])
        for names, name in (([*header, "all, of raw"], "accuracy"), (header, "auroc"))
    )
    inputs = rows[0]["inputs"]
    commits = {commit: date for row in rows for commit, date in row["commits"].items()}
    low, high = PUBLISHED_RATIO
    return f"""## k-sparse probes

`exemplars probe` asks how much of a text's class a few dimensions of its code keep, in the manner
of SAEBench: a text's code is the mean over its rows; the k dimensions whose class means differ most
on training texts; a logistic regression on them, its regularisation by cross-validation within the
training texts; accuracy on the test texts, the mean of both classes (chance: 0.5). The same goes
for raw activations, principal components, the codes of as many random rows, and permuted training
labels. Mean over the {inputs["concepts"]} concepts of both sets, dictionaries and random rows from
{inputs["stream"]}:

{accuracy}

The AUROC of the same probes, which does not depend on where a probe puts its threshold:

{auroc}

Brackets: 95 % interval over concepts; for the accuracy of random rows and permuted labels the least
and the most of their {inputs["null_seeds"]} draws. "All, of raw" is the accuracy with all
dimensions over that of raw activations. The paper's, of its own models and tasks: one-hot codes
keep {low:.2f} to {high:.2f} of the accuracy of raw activations.

{READING}
*{max(commits.values())}, commit {", ".join(commits)}, `bench/probing.py`.*
"""
