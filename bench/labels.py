"""Labels of a small model on this machine, scored by detection, beside the labels of other regions.

    python bench/labels.py DICTIONARY --llm MODEL.gguf --top 20

The model writes a label for each of the largest regions and then judges itself: of each held-out
member, random context and neighbouring context, asked one by one, whether the label is true of it;
and the same with the label of another of the regions, which is the null. A row of results has the
labels, the counts, and the mean difference to the null with a bootstrap interval over regions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import exemplars as ex
import rows as results
from exemplars.analyses.detection import interval
from exemplars.labels import Detection, Label, LocalModel, label_regions, largest_regions, together

OTHERS = ("against_random", "against_neighbours")
RESAMPLES = 2000


def scored(labels: Sequence[Label]) -> list[tuple[Detection, Detection]]:
    """Of each region with a score, how its own label did and how the null's."""
    return [
        (label.score.own, label.score.null)
        for label in labels
        if label.score is not None and label.score.null is not None
    ]


def accuracies(pairs: Sequence[tuple[Detection, Detection]]) -> dict[str, object]:
    """Balanced accuracies with 95 % intervals: of all questions together, and the mean over regions
    of a label's less its null's.
    """
    found: dict[str, object] = {}
    for name, several in zip(("own", "null"), zip(*pairs, strict=True), strict=True):
        every = together(several)
        found[name] = vars(every) | {
            other: [round(v, 4) for v in vars(getattr(every, other)).values()] for other in OTHERS
        }
    drawn = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    for other in OTHERS:
        values = np.array([getattr(a, other).value - getattr(b, other).value for a, b in pairs])
        less = interval(values[drawn].mean(axis=1), float(values.mean()))
        found[f"less_null_{other}"] = [round(v, 4) for v in vars(less).values()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dictionary", type=Path)
    parser.add_argument("--llm", required=True, help="the labeller, which also judges")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--top", type=int, default=20, help="regions, the largest")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dictionary, labeller = ex.load(options.dictionary), LocalModel(options.llm, dtype=options.dtype)
    started = time.process_time()
    labels = label_regions(
        dictionary, labeller, largest_regions(dictionary, options.top), questions=1, parallel=1,
        seed=options.seed, on_label=lambda one: print(one.region, one.text, one.score, flush=True),
    )  # fmt: skip
    seconds = time.process_time() - started
    provenance = dictionary.provenance
    results.write(
        "labels",
        what="labels of a local model, scored by detection",
        inputs={
            "model": provenance["model"]["name"],
            "fingerprint": provenance["model"]["fingerprint"][:16],
            "site": dictionary.site,
            "texts": f"{provenance['texts']['name']} {provenance['texts']['version']}",
            "percentile": dictionary.percentile,
            "regions_in_all": len(dictionary),
            "regions": f"the {options.top} of most members",
            "labeller": labeller.name,
            "dtype": options.dtype,
            "questions": "one context each",
            "seed": options.seed,
        },
        cpu_seconds=round(seconds),
        without_label=sum(not label.text for label in labels),
        without_score=sum(label.score is None for label in labels),
        **accuracies(scored(labels)),
        labels=[
            {"region": one.region, "members": one.members, "label": one.text}
            | {
                of: None if found is None else vars(found)
                for of in ("own", "null")
                for found in [one.score and getattr(one.score, of)]
            }
            for one in labels
        ],
    )


if __name__ == "__main__":
    main()
