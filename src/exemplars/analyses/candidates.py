"""Ways to make a detector of a concept from training texts: choose among directions, or fit one.

A way is a function of the numbers of the positive and of the negative training texts. Those that
choose (among the directions of regions, of random rows, of k-means) share the directions' AUROCs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from exemplars.analyses import detectors
from exemplars.analyses.detection import aurocs, max_over_positions
from exemplars.analyses.detectors import Detector, SiteRows, best, one_direction
from exemplars.analyses.labelled import Concept, TextRows
from exemplars.geometry import Float32, Float64, Int64

NULL = "random rows"
_DIRECTIONS = 4096
"""Whose scores of all training texts are held at once."""

Pair = tuple[Int64, Int64]
"""Numbers of the positive and of the negative texts of a concept, or of a half of them."""
Fit = Callable[[Int64, Int64], Detector]
"""Numbers of positive and negative training texts -> a detector."""


def halved(pair: Pair) -> tuple[Pair, Pair]:
    """Two halves of the texts of each class, the same ones every time."""
    (a, b), (c, d) = (detectors.halves(len(part), 0) for part in pair)
    positive, negative = pair
    return (positive[a], negative[c]), (positive[b], negative[d])


def training_pairs(rows: TextRows, concepts: Sequence[Concept]) -> list[Pair]:
    """Of each concept the positive and negative training texts, and their halves."""
    pairs = [detectors.numbers(rows, concept)[:2] for concept in concepts]
    return [part for pair in pairs for part in (pair, *halved(pair))]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Directions that compete for concepts, and how each tells their training texts apart."""

    rows: SiteRows
    directions: Float32
    """(K, D) unit rows; NaN where a region has no members."""
    aurocs: Mapping[bytes, Float64]
    """By pair of classes, (K,) on its texts; −inf where a region has no members."""

    @classmethod
    def of(cls, rows: SiteRows, directions: Float32, pairs: Sequence[Pair]) -> Candidates:
        """Score the texts of these pairs of classes, a block of directions at a time."""
        texts = np.unique(np.concatenate([part for pair in pairs for part in pair]))
        places = [tuple(np.searchsorted(texts, part) for part in pair) for pair in pairs]
        part = rows.texts(texts)
        usable = np.asarray(np.isfinite(directions).all(axis=1))
        found = np.empty((len(pairs), len(directions)))
        for first in range(0, len(directions), _DIRECTIONS):
            block = slice(first, first + _DIRECTIONS)
            given = np.where(usable[block, None], directions[block], np.float32(0))
            scores = max_over_positions(part.directions, part.rows.starts, given)
            for values, (positive, negative) in zip(found, places, strict=True):
                values[block] = aurocs(scores[positive], scores[negative])
        found[:, ~usable] = -np.inf
        return cls(rows, directions, dict(zip(map(_key, pairs), found, strict=True)))

    def some(self, chosen: Int64) -> Candidates:
        """Only these, in this order."""
        some = {key: values[chosen] for key, values in self.aurocs.items()}
        return Candidates(self.rows, self.directions[chosen], some)

    def by_auroc(self, positive: Int64, negative: Int64) -> Detector:
        """The direction of the best AUROC on training texts; of equal ones the first."""
        return self._detector(self._order(positive, negative)[0])

    def by_contrast(self, positive: Int64, negative: Int64) -> Detector:
        """The direction whose mean product over tokens differs most between the classes."""
        return self._detector(
            best(detectors.contrast(self.rows, positive, negative, self.directions))
        )

    def several(self, positive: Int64, negative: Int64, k: int) -> Detector:
        """The k directions of the best AUROC: the sum of their scores, each in units of its
        standard deviation over the training texts.
        """
        chosen = self._order(positive, negative)[:k]
        return self._summed(positive, negative, self.directions[chosen], chosen)

    def anchored(
        self, positive: Int64, negative: Int64, k: int, precision: Float64 | None = None
    ) -> Detector:
        """Differences of means at the tokens that k regions point at.

        Each of the k directions of the best AUROC names one token of every training text, the one
        nearest to it. In its place comes the difference of the means, over positive and over
        negative texts, of those tokens' directions. So the region says where in a text to look,
        and the labels what to look for. Scores are added as in `several`.
        """
        chosen = self._order(positive, negative)[:k]
        texts = np.concatenate([positive, negative])
        products = self.rows.products(texts, self.directions[chosen])
        named = self.rows.rows.starts[texts][:, None] + [p.argmax(axis=0) for p in products]
        sums = self.rows.directions[named].astype(np.float64)  # (texts, k, D)
        difference = sums[: len(positive)].mean(0) - sums[len(positive) :].mean(0)
        if precision is not None:
            difference = difference @ precision
        lengths = np.linalg.norm(difference, axis=1, keepdims=True)
        directions = (difference / np.maximum(lengths, 1e-12)).astype(np.float32)
        return self._summed(positive, negative, directions, chosen)

    def _summed(
        self, positive: Int64, negative: Int64, directions: Float32, regions: Int64
    ) -> Detector:
        """Scores of directions, each in units of its standard deviation over the training texts."""
        products = self.rows.products(np.concatenate([positive, negative]), directions)
        spread = np.std([p.max(0) for p in products], axis=0)
        weights = 1 / np.maximum(spread.astype(np.float64), 1e-6)
        return Detector(directions, weights, "max", tuple(map(int, regions)))

    def _order(self, positive: Int64, negative: Int64) -> Int64:
        """Usable candidates by AUROC on training texts, best first, of equal ones the first."""
        found = self.aurocs.get(_key((positive, negative)))
        if found is None:
            raise ValueError(
                "the candidates were not scored on these training texts; give their two classes "
                "to Candidates.of"
            )
        return np.argsort(-found, kind="stable")[: int(np.isfinite(found).sum())]

    def _detector(self, k: int) -> Detector:
        return one_direction(self.directions[k], region=int(k))


def region_methods(
    candidates: Mapping[str, Sequence[Candidates]], k: int, precision: Float64
) -> dict[str, list[Fit]]:
    """Every way to choose among directions, by name, for each seed.

    Args:
        candidates: By what the directions are.
        k: Directions of "summed", "anchored" and "whitened".
        precision: (D, D) of "whitened", from `detectors.shrunk_precision`.
    """
    methods: dict[str, list[Fit]] = {}
    k = min(k, min(len(c.directions) for several in candidates.values() for c in several))
    for name, several in candidates.items():
        methods[name] = [c.by_auroc for c in several]
        if name in ("region mean", "exemplar"):
            methods[f"{name}, contrast"] = [c.by_contrast for c in several]
        if name in ("region mean", NULL):
            methods[f"{name}, {k} summed"] = [partial(c.several, k=k) for c in several]
            methods[f"{name}, {k} anchored"] = [partial(c.anchored, k=k) for c in several]
            methods[f"{name}, {k} whitened"] = [
                partial(c.anchored, k=k, precision=precision) for c in several
            ]
    return methods


def supervised_methods(
    rows: SiteRows,
    seed: int = 0,
    strengths: Sequence[float] = detectors.PROBE_STRENGTHS,
    most_rows: int | None = 4096,
) -> dict[str, list[Fit]]:
    """Baselines that fit a direction to the labels.

    Args:
        rows: Of all texts.
        seed: Of the halves by which a probe's regularisation is chosen.
        strengths: C of the probes, to choose from.
        most_rows: Tokens on which the token probe's regularisation is chosen; it is fitted on all.
    """

    def difference(positive: Int64, negative: Int64) -> Detector:
        return one_direction(detectors.difference_of_means(rows, positive, negative))

    def on_tokens(positive: Int64, negative: Int64) -> Detector:
        fit = partial(detectors.token_probe, most_rows=most_rows)
        c = detectors.chosen_strength(rows, positive, negative, fit, strengths, "max", seed)
        return one_direction(detectors.token_probe(rows, positive, negative, c))

    def on_means(positive: Int64, negative: Int64) -> Detector:
        fit = detectors.mean_probe
        c = detectors.chosen_strength(rows, positive, negative, fit, strengths, "mean", seed)
        return one_direction(fit(rows, positive, negative, c), pooling="mean")

    return {
        "difference of means": [difference],
        "logistic probe, tokens": [on_tokens],
        "logistic probe, means": [on_means],
    }


def _key(pair: Pair) -> bytes:
    return b"|".join(np.asarray(part, np.int64).tobytes() for part in pair)
