"""Whether a label says what a region's tokens are: can a reader pick them out by it?

A label is written from some of a region's contexts. Others, held out, are mixed with contexts of
other regions, and a judge says of each whether the label is true of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from exemplars.contexts import Context
from exemplars.dictionary import Dictionary
from exemplars.labels.labellers import Labeller
from exemplars.labels.prompts import detection_prompt, quoted, verdicts_in

KINDS = ("members", "random", "neighbours")
"""Of the contexts asked about: held-out members, and contexts of two kinds of other regions."""
SHOWN = 12
"""Contexts that a label is written from, at most: half of them the nearest."""
HELD_OUT = 10
"""Held-out members asked about, at most; and of random and of neighbouring contexts as many."""
FEWEST = 3
"""Held-out members that a score needs."""

_NEIGHBOURS = 5
_TRIES = 50


@dataclass(frozen=True)
class Accuracy:
    """A balanced accuracy: the mean of the share of members and of others told rightly."""

    value: float
    low: float
    """95% interval."""
    high: float


@dataclass(frozen=True)
class Detection:
    """A judge's answers, counted."""

    members: int = 0
    """Held-out members that it answered for."""
    members_yes: int = 0
    random: int = 0
    """Contexts of regions drawn by their number of members."""
    random_yes: int = 0
    neighbours: int = 0
    """Contexts of the nearest regions."""
    neighbours_yes: int = 0
    unanswered: int = 0
    """Contexts of which the answer said neither yes nor no, or both: in none of the above."""

    @property
    def against_random(self) -> Accuracy:
        """Members told from random contexts; 0.5 for a judge that answers without looking."""
        return balanced_accuracy(
            self.members_yes, self.members, self.random - self.random_yes, self.random
        )

    @property
    def against_neighbours(self) -> Accuracy:
        """Members told from contexts of neighbouring regions, which is harder."""
        return balanced_accuracy(
            self.members_yes,
            self.members,
            self.neighbours - self.neighbours_yes,
            self.neighbours,
        )


def balanced_accuracy(hits: int, positives: int, rejections: int, negatives: int) -> Accuracy:
    """The mean of two shares, and its 95% interval; NaN where either is of none.

    Source: the intervals of the shares are Wilson's (1927); that of their mean is by the method of
    variance estimates recovered (Newcombe 1998, Zou and Donner 2008): the mean minus or plus half
    the root of the sum of the squared distances to their lower or upper ends.
    """
    if not positives or not negatives:
        return Accuracy(math.nan, math.nan, math.nan)
    (p, p_low, p_high), (q, q_low, q_high) = wilson(hits, positives), wilson(rejections, negatives)
    value = (p + q) / 2
    return Accuracy(
        value,
        value - math.hypot(p - p_low, q - q_low) / 2,
        value + math.hypot(p_high - p, q_high - q) / 2,
    )


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float, float]:
    """A share and its Wilson score interval, 95% by default."""
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, max(middle - half, 0.0), min(middle + half, 1.0)


def together(detections: Iterable[Detection]) -> Detection:
    """The counts of several detections, added."""
    every = list(detections)
    return Detection(**{f.name: sum(getattr(d, f.name) for d in every) for f in fields(Detection)})


def split(
    contexts: Sequence[Context], rng: np.random.Generator
) -> tuple[list[Context], list[Context]]:
    """Contexts to write a label from, and members held out to score it.

    Half of the uniform sample of members is held out. A label is written from the nearest of the
    rest and from some that lie farther, evenly by rank. Contexts that read alike are one, so that
    no held-out context was shown. A region with fewer than 2 · `FEWEST` sampled members shows all.

    Args:
        contexts: A region's.
        rng: Decides which.
    """
    distinct: dict[str, Context] = {}
    for context in contexts:
        if context.text or context.before or context.after:
            known = distinct.get(quoted(context))
            if known is None or (known.sample_rank < 0 <= context.sample_rank):
                distinct[quoted(context)] = context
    readable = sorted(distinct.values(), key=lambda c: (c.distance, c.row))
    sampled = [c for c in readable if c.sample_rank >= 0]
    n = min(HELD_OUT, len(sampled) // 2)
    held: list[Context] = []
    if n >= FEWEST:
        held = [sampled[k] for k in sorted(rng.permutation(len(sampled))[:n])]
    rest = [c for c in readable if c not in held]
    near, far = rest[: SHOWN // 2], rest[SHOWN // 2 :]
    places = np.linspace(0, len(far) - 1, min(SHOWN - SHOWN // 2, len(far)))
    return near + [far[k] for k in np.unique(np.round(places).astype(int))], held


def non_members(
    dictionary: Dictionary, region: int, n: int, rng: np.random.Generator
) -> tuple[list[Context], list[Context]]:
    """Contexts of other regions: of random ones, and of the nearest ones.

    A random region is drawn with a probability in proportion to its members, so that a context is
    much like a random row; the nearest `_NEIGHBOURS` are for the second list, in turn.

    Args:
        dictionary: It needs contexts.
        region: Whose members these are not.
        n: Contexts in each list; fewer where there are not so many.
        rng: Decides which.
    """
    order, _ = dictionary.neighbours(region, _NEIGHBOURS)
    near = [int(k) for k in order]
    turns = [_drawn(dictionary, k, rng) for k in near]
    neighbours: list[Context] = []
    while len(neighbours) < n and any(turns):
        neighbours += [contexts.pop() for contexts in turns if contexts]
    weights = np.array(dictionary.counts, np.float64)
    weights[[region, *near]] = 0
    random: list[Context] = []
    rows: set[int] = set()
    for _ in range(_TRIES * n if weights.any() else 0):
        if len(random) == n:
            break
        other = int(rng.choice(len(weights), p=weights / weights.sum()))
        found = next((c for c in _drawn(dictionary, other, rng) if c.row not in rows), None)
        if found is not None:
            rows.add(found.row)
            random.append(found)
    return random, neighbours[:n]


def detect(
    judge: Labeller,
    label: str,
    members: Sequence[Context],
    random: Sequence[Context],
    neighbours: Sequence[Context],
    questions: int,
    rng: np.random.Generator,
) -> Detection:
    """Ask a judge of which contexts a label is true.

    Args:
        judge: Who is asked.
        label: By which it is to go.
        members: Of which it should be true.
        random: Of which it should not.
        neighbours: The same.
        questions: Contexts in one request.
        rng: Decides their order, in which the kinds are mixed.

    Raises:
        SourceError: The judge gave no answer.
    """
    items = [
        (kind, context)
        for kind, contexts in zip(KINDS, (members, random, neighbours), strict=True)
        for context in contexts
    ]
    items = [items[k] for k in rng.permutation(len(items))]
    counts = dict.fromkeys((f.name for f in fields(Detection)), 0)
    for start in range(0, len(items), questions):
        part = items[start : start + questions]
        prompt = detection_prompt(label, [context for _, context in part])
        answer = judge.complete([{"role": "user", "content": prompt}], 20 + 8 * len(part))
        for (kind, _), verdict in zip(part, verdicts_in(answer, len(part)), strict=True):
            counts["unanswered" if verdict is None else kind] += 1
            counts[f"{kind}_yes"] += verdict is True
    return Detection(**counts)


def _drawn(dictionary: Dictionary, region: int, rng: np.random.Generator) -> list[Context]:
    """The sampled contexts of a region that can be read, in random order."""
    found = [
        c
        for c in dictionary.region(region).contexts
        if c.sample_rank >= 0 and (c.text or c.before or c.after)
    ]
    return [found[k] for k in rng.permutation(len(found))]
