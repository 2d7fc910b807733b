"""Labels of a small model on this machine, scored by detection, beside the labels of other regions.

    python bench/labels.py DICTIONARY --llm MODEL.gguf --top 20
    python bench/labels.py DICTIONARY --top 50

The labeller writes a label for each of the largest regions and then judges itself: of each held-out
member, random context and neighbouring context, asked one by one, whether the label is true of it;
and the same with the label of another of the regions, which is the null. A row of results has the
labels, the counts, and the mean difference to the null with a bootstrap interval over regions.
Without a model a rule writes and judges: what a model has to beat.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import exemplars as ex
import rows as results
from exemplars.analyses.detection import interval
from exemplars.labels import Detection, Label, LocalModel, label_regions, largest_regions, together
from exemplars.labels.labellers import Messages

OTHERS = ("against_random", "against_neighbours")
RESAMPLES = 2000
QUOTED = r'"((?:[^"\\]|\\.)*)"'


class CommonestToken:
    """A labeller by rule: the commonest marked token, and true of the same token, but for case."""

    name, host = "the commonest token, by rule", "local"

    def complete(self, messages: Messages, max_tokens: int) -> str:
        del max_tokens
        text = messages[0]["content"]
        listed = re.search(r"in the same order: (.*)\.\n", text)
        if listed is not None:
            tokens = [token.strip().casefold() for token in re.findall(QUOTED, listed[1])]
            return f"is {Counter(tokens).most_common(1)[0][0] or 'space'}"
        label, *_, token = re.findall(QUOTED, text)
        label = label.replace("\\\\", "\\")  # a label is quoted once more than a token
        return "yes" if label == f"is {token.strip().casefold() or 'space'}" else "no"


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
    parser.add_argument("--llm", help="the labeller, which also judges; default: by rule")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--top", type=int, default=20, help="regions, the largest")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dictionary = ex.load(options.dictionary)
    labeller = LocalModel(options.llm, dtype=options.dtype) if options.llm else CommonestToken()
    started = time.process_time()
    labels = label_regions(
        dictionary, labeller, largest_regions(dictionary, options.top), questions=1, parallel=1,
        seed=options.seed, on_label=lambda one: print(one.region, one.text, one.score, flush=True),
    )  # fmt: skip
    seconds = time.process_time() - started
    provenance = dictionary.provenance
    results.write(
        "labels",
        what=f"labels by {labeller.name}, scored by detection",
        inputs={
            "model": provenance["model"]["name"],
            "fingerprint": provenance["model"]["fingerprint"][:16],
            "site": dictionary.site,
            "texts": f"{provenance['texts']['name']} {provenance['texts']['version']}",
            "percentile": dictionary.percentile,
            "regions_in_all": len(dictionary),
            "regions": f"the {options.top} of most members",
            "labeller": labeller.name,
            "dtype": options.dtype if options.llm else None,
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
