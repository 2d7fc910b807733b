"""Detectors: what scores a text for a concept, and how one is found on training texts.

A detector is one direction or several. A text's score for a direction is the largest product with
any of its rows ("max" pooling) or the mean of the products ("mean"). Those of regions are found by
choosing among given directions with labels; the supervised baselines fit theirs to the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from exemplars.analyses.detection import aurocs, max_over_positions
from exemplars.analyses.labelled import Concept, TextRows
from exemplars.calibration import Calibration
from exemplars.dictionary import usable_directions
from exemplars.geometry import Float32, Float64, Int64

RULES = ("auroc", "contrast")
PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""C of the logistic probes, among which training texts choose (inverse regularisation, on
coordinates of unit variance)."""

SHRINKAGE = 0.3
"""Of the covariance of the stream, in mean eigenvalues. By validation on two sites; 0.03 and 3 were
hardly worse."""


@dataclass(frozen=True, eq=False)
class SiteRows:
    """Rows of texts as raw vectors and as directions; those a build would drop are left out."""

    rows: TextRows
    directions: Float32
    """(N, D) unit rows."""

    def texts(self, numbers: Int64) -> SiteRows:
        """Only these texts, in this order, as texts 0, 1, ..."""
        spans = [np.arange(self.rows.starts[t], self.rows.starts[t + 1]) for t in numbers]
        rows = np.concatenate([np.empty(0, np.int64), *spans])
        names = tuple(self.rows.texts[t] for t in numbers)
        part = replace(
            self.rows,
            texts=names,
            vectors=self.rows.vectors[rows],
            starts=np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64),
            token=self.rows.token[rows],
            position=self.rows.position[rows],
            number={name: k for k, name in enumerate(names)},
        )
        return SiteRows(part, self.directions[rows])

    @cached_property
    def text_sums(self) -> Float64:
        """(T, D) sum of each text's directions."""
        sums = np.zeros((len(self.rows.texts), self.directions.shape[1]))
        filled = np.flatnonzero(self.rows.lengths())
        if len(filled):
            starts = self.rows.starts[:-1][filled]
            sums[filled] = np.add.reduceat(self.directions, starts, axis=0, dtype=np.float64)
        return sums

    def mean_direction(self, numbers: Int64) -> Float64:
        """(D,) mean over all tokens of these texts, not of unit length."""
        return np.asarray(self.text_sums[numbers].sum(0) / self.rows.lengths()[numbers].sum())

    def products(self, numbers: Int64, directions: Float32) -> list[Float32]:
        """For each of these texts, (n, m): its rows by directions (m, D)."""
        starts, turned = self.rows.starts, np.ascontiguousarray(directions.T)
        return [self.directions[starts[t] : starts[t + 1]] @ turned for t in numbers]


def site_rows(rows: TextRows, calibration: Calibration) -> SiteRows:
    """Rows that a build with this calibration keeps, with their directions.

    Raises:
        ActivationError: A NaN or infinite component.
    """
    directions, kept, _ = usable_directions(rows.vectors, 0, calibration)
    keep = np.zeros(len(rows.vectors), np.bool_)
    keep[kept] = True
    return SiteRows(rows.select(keep), directions)


@dataclass(frozen=True, eq=False)
class Detector:
    """Scores texts for one concept: the sum over directions of weight · pooled product."""

    directions: Float32
    """(m, D) unit rows."""
    weights: Float64
    """(m,)."""
    pooling: str = "max"
    """"max" or "mean" over the positions of a text."""
    regions: tuple[int, ...] = ()
    """Of each direction, where it is a region's."""

    def scores(self, rows: SiteRows, score: str = "cosine") -> Float64:
        """(T,) scores of texts: of their directions ("cosine"), or raw vectors ("dot").

        "dot" is what AxBench computes: not centered, not divided by the norm.
        """
        return score_texts([self], rows, score)[:, 0]


def score_texts(detectors: Sequence[Detector], rows: SiteRows, score: str = "cosine") -> Float64:
    """(T, n) scores of texts by several detectors; the rows are passed through once."""
    vectors = rows.directions if score == "cosine" else rows.rows.vectors
    found = np.empty((len(rows.rows.texts), len(detectors)))
    for pooling in dict.fromkeys(d.pooling for d in detectors):
        mine = [k for k, d in enumerate(detectors) if d.pooling == pooling]
        directions = np.concatenate([detectors[k].directions for k in mine])
        products = pooled(vectors, rows.rows.starts, directions, pooling)
        ends = np.cumsum([len(detectors[k].directions) for k in mine])
        for k, end in zip(mine, ends, strict=True):
            weights = detectors[k].weights
            found[:, k] = products[:, end - len(weights) : end] @ weights
    return found


def pooled(vectors: Float32, starts: Int64, directions: Float32, pooling: str) -> Float32:
    """(T, m) products of rows with directions, pooled over the rows of each text."""
    if pooling == "max":
        return max_over_positions(vectors, starts, np.ascontiguousarray(directions))
    products = np.asarray(vectors @ directions.T, np.float64)
    sums = np.add.reduceat(products, starts[:-1], axis=0)
    return (sums / np.diff(starts)[:, None]).astype(np.float32)


def one_direction(direction: Float32, pooling: str = "max", region: int | None = None) -> Detector:
    """A detector of one direction, of any length but 0."""
    unit = np.asarray(direction, np.float64) / np.linalg.norm(np.asarray(direction, np.float64))
    regions = () if region is None else (region,)
    return Detector(unit.astype(np.float32)[None], np.ones(1), pooling, regions)


def difference_of_means(train: SiteRows, positive: Int64, negative: Int64) -> Float32:
    """(D,) mean direction over all tokens of positive texts, less that of negative ones."""
    difference = train.mean_direction(positive) - train.mean_direction(negative)
    return difference.astype(np.float32)


def token_probe(
    train: SiteRows, positive: Int64, negative: Int64, strength: float, most_rows: int | None = None
) -> Float32:
    """(D,) weights of a logistic regression of tokens on the label of their text.

    Args:
        train: Rows of training texts.
        positive: Numbers of the texts with the concept.
        negative: Numbers of those without.
        strength: C, the inverse of regularisation, on coordinates of unit variance.
        most_rows: Of more rows, evenly spaced ones are taken, about so many; None takes all.
    """
    parts = [train.texts(numbers).directions for numbers in (positive, negative)]
    if most_rows is not None:
        total = sum(map(len, parts))
        parts = [part[:: max(1, -(-total // most_rows))] for part in parts]
    return logistic_direction(parts[0], parts[1], strength)


def mean_probe(train: SiteRows, positive: Int64, negative: Int64, strength: float) -> Float32:
    """(D,) weights of a logistic regression of texts' mean directions on their label."""
    lengths = np.maximum(train.rows.lengths(), 1)[:, None]
    parts = [train.text_sums[numbers] / lengths[numbers] for numbers in (positive, negative)]
    return logistic_direction(parts[0], parts[1], strength)


def logistic_direction(positive: Any, negative: Any, strength: float) -> Float32:
    """(D,) weights, for the coordinates as given, of a logistic regression that tells rows (P, D)
    from rows (M, D), classes weighed alike, with C = `strength` on coordinates of unit variance.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    x = np.concatenate([positive, negative]).astype(np.float64)
    scale = x.std(axis=0)
    scale[scale <= 1e-7 * np.abs(x).max(axis=0)] = 1.0  # constant, but for rounding
    labels = np.arange(len(x)) < len(positive)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    with threadpool_limits(1, user_api="blas"):  # several would wait for each other, mostly
        model.fit((x - x.mean(axis=0)) / scale, labels)
    return (model.coef_[0] / scale).astype(np.float32)


def kmeans_centroids(directions: Float32, k: int, seed: int = 0) -> Float32:
    """(k, D) unit centroids of k-means on directions (scikit-learn's, in mini-batches)."""
    from sklearn.cluster import MiniBatchKMeans

    if k >= len(directions):
        return directions
    model = MiniBatchKMeans(
        k, random_state=seed, batch_size=max(2048, 2 * k), n_init=1, max_iter=10,
        reassignment_ratio=0.0, init="random", compute_labels=False,
    )  # fmt: skip
    centroids = model.fit(directions).cluster_centers_
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    return (centroids / np.maximum(lengths, 1e-12)).astype(np.float32)


def shrunk_precision(directions: Float32, shrinkage: float = SHRINKAGE) -> Float64:
    """(D, D) inverse of the covariance of directions (n, D), shrunk towards the identity.

    (C + s t I)⁻¹ with t the mean eigenvalue of C and s the shrinkage: a few axes in which all
    activations vary do not drown the rest.
    """
    covariance = np.cov(directions.T.astype(np.float64))
    values, axes = np.linalg.eigh(np.atleast_2d(covariance))
    floor = max(shrinkage * float(values.mean()), 1e-12)
    return np.asarray((axes / (np.maximum(values, 0.0) + floor)) @ axes.T)


def random_directions(directions: Float32, k: int, seed: int) -> Float32:
    """(k, D) rows drawn without replacement: what a dictionary of chance would hold.

    Raises:
        ValueError: There are fewer rows than k.
    """
    if len(directions) < k:
        raise ValueError(
            f"{len(directions):,} rows of the stream were given for a null of {k:,} directions; "
            "give more rows"
        )
    chosen = np.random.default_rng([seed, 0xD1CE]).permutation(len(directions))[:k]
    return directions[chosen]


def contrast(train: SiteRows, positive: Int64, negative: Int64, directions: Float32) -> Float64:
    """(K,) mean product over all tokens of positive texts, less that over negative ones'."""
    difference = difference_of_means(train, positive, negative)
    return np.asarray(directions @ difference, np.float64)


def halves(n: int, seed: int) -> tuple[Int64, Int64]:
    """A random halving of n things: two ascending arrays that share none."""
    order = np.random.default_rng([seed, 0xA1F]).permutation(n)
    return np.sort(order[: (n + 1) // 2]), np.sort(order[(n + 1) // 2 :])


def best(values: Float64) -> int:
    """The index of the largest, the first of equal ones; NaN is least."""
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values)))


def numbers(rows: TextRows, concept: Concept) -> tuple[Int64, Int64, Int64, Int64, Int64]:
    """Numbers of a concept's texts: positive, negative, and those of the test."""
    return (
        rows.of(concept.positive),
        rows.of(concept.negative),
        rows.of(concept.test_positive),
        rows.of(concept.test_negative),
        rows.of(concept.test_hard_negative),
    )


def chosen_strength(
    train: SiteRows,
    positive: Int64,
    negative: Int64,
    fit: Any,
    strengths: Sequence[float],
    pooling: str,
    seed: int,
) -> float:
    """The C whose probe, fitted on one half of the training texts, has the best AUROC on the other,
    on average over both ways; `fit(train, positive, negative, C)` gives a direction. The first C
    where a class has fewer than 2 texts, and so no second half.
    """
    if min(len(positive), len(negative)) < 2:
        return float(strengths[0])
    a, b = halves(len(positive), seed), halves(len(negative), seed)
    parts = [(positive[a[j]], negative[b[j]]) for j in (0, 1)]
    found = np.zeros(len(strengths))
    for (p, n), (q, m) in (parts, parts[::-1]):
        directions = np.stack([fit(train, p, n, strength) for strength in strengths])
        products = train.products(np.concatenate([q, m]), directions)
        scores = np.stack([x.max(0) if pooling == "max" else x.mean(0) for x in products])
        found += aurocs(scores[: len(q)], scores[len(q) :])
    return float(strengths[best(found)])
