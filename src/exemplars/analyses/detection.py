"""How well scores of texts tell two classes apart, and how sure that is.

A text's score is the largest over its positions of a product of the position's vector with a
direction. AUROC is the probability that a text of one class scores above a text of the other, ties
counted half (Mann and Whitney 1947).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int64, compiled

_ROWS = 1024
_COLUMNS = 4096
_BLOCK = 256
"""Columns whose scores stay in the cache while all pairs are compared."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap percentile interval."""

    estimate: float
    low: float
    high: float


def max_over_positions(vectors: Float32, starts: Int64, directions: Float32) -> Float32:
    """For each text and direction, the largest product with any of the text's rows.

    Args:
        vectors: (N, D) rows, those of a text together.
        starts: (T + 1,) text t has rows starts[t] up to starts[t + 1].
        directions: (K, D).

    Returns:
        (T, K) float32; −inf for a text without rows.
    """
    starts = np.asarray(starts)
    found = np.full((len(starts) - 1, len(directions)), -np.inf, np.float32)
    for first in range(0, len(directions), _COLUMNS):
        part = np.ascontiguousarray(directions[first : first + _COLUMNS].T)
        # One array for all products: the system clears each new one, which takes as long again.
        products = np.empty((min(_ROWS, len(vectors)), part.shape[1]), np.float32)
        for row in range(0, len(vectors), _ROWS):
            block = vectors[row : row + _ROWS]
            product = np.matmul(block, part, out=products[: len(block)])
            _keep_largest(product, row, starts, found[:, first : first + _COLUMNS])
    return found


def aurocs(positive: Float32, negative: Float32) -> Float64:
    """AUROC of each column of scores, in [0, 1].

    Args:
        positive: (P, K) scores of the texts that show the concept.
        negative: (M, K) of those that do not.

    Returns:
        (K,) float64, exact but for one rounding.

    Raises:
        ValueError: A class is empty.
    """
    if not len(positive) or not len(negative):
        empty = "negative" if len(positive) else "positive"
        raise ValueError(f"there are no {empty} texts, expected some of both classes; give some")
    pairs = len(positive) * len(negative)
    twice = _twice_wins(np.ascontiguousarray(positive), np.ascontiguousarray(negative))
    return twice / (2 * pairs)


def auroc(positive: NDArray[Any], negative: NDArray[Any]) -> float:
    """AUROC of one score: (P,) and (M,) -> [0, 1]."""
    columns = (np.asarray(part, np.float32)[:, None] for part in (positive, negative))
    return float(aurocs(*columns)[0])


def hard_negative_score(
    positive: NDArray[Any], negative: NDArray[Any], hard: NDArray[Any]
) -> float:
    """AxBench's second metric: at the threshold of the largest Youden's J over positives and
    negatives, the mean of the share of positives above it and of hard negatives below.

    Args:
        positive: (P,) scores.
        negative: (M,) scores.
        hard: (H,) scores; NaN comes back where there are none.
    """
    if not len(hard):
        return float("nan")
    thresholds = np.unique(np.concatenate([positive, negative]))
    true = (positive[:, None] >= thresholds).mean(0)
    false = (negative[:, None] >= thresholds).mean(0)
    best = thresholds[::-1][np.argmax((true - false)[::-1])]  # of equal ones the strictest
    return float(((positive >= best).mean() + (hard < best).mean()) / 2)


def bootstrap_aurocs(
    scores: Sequence[tuple[NDArray[Any], NDArray[Any]]], n: int = 1000, seed: int = 0
) -> Float64:
    """AUROC of several scores on the same resampled texts.

    Texts are drawn with replacement within each class. All scores see the same draws, so that
    differences of columns are paired.

    Args:
        scores: For each detector the (P,) positive and (M,) negative scores.
        n: Resamples.
        seed: Of the draws.

    Returns:
        (n, len(scores)).
    """
    n_positive, n_negative = len(scores[0][0]), len(scores[0][1])
    random = np.random.default_rng(seed)
    weights = [
        random.multinomial(size, np.full(size, 1 / size), size=n).astype(np.float32) / size
        for size in (n_positive, n_negative)
    ]
    found = np.empty((n, len(scores)))
    for k, (positive, negative) in enumerate(scores):
        one, other = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
        won = ((one > other).astype(np.float32) + (one >= other)) / 2
        found[:, k] = np.einsum("np,np->n", weights[0] @ won, weights[1])
    return found


def weighted_aurocs(scores: Float64, positive: NDArray[np.bool_], draws: Float64) -> Float64:
    """AUROC of one score on resampled texts, ties counted half; on those of `bootstrap_aurocs` the
    same but for rounding, without the pairs.

    Args:
        scores: (T,).
        positive: (T,) True where the text is of the class.
        draws: (B, T) how often each text was drawn.

    Returns:
        (B,).
    """
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    mine, others = (
        np.add.reduceat(draws[:, order] * side[order], starts, axis=1)
        for side in (positive, ~positive)
    )
    below = np.cumsum(others, axis=1) - others / 2
    return (mine * below).sum(axis=1) / (mine.sum(axis=1) * others.sum(axis=1))


def interval(samples: Float64, estimate: float, level: float = 0.95) -> Interval:
    """The percentile interval of bootstrap samples (n,) about an estimate."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high))


@compiled
def _keep_largest(product: Float32, row: int, starts: Int64, found: Float32) -> None:
    """found[t] = max(found[t], the rows of product that are of text t); the first is `row`."""
    text = np.searchsorted(starts, row, side="right") - 1
    for i in range(len(product)):
        while row + i >= starts[text + 1]:
            text += 1
        best, new = found[text], product[i]
        for k in range(len(new)):
            best[k] = max(best[k], new[k])


@compiled
def _twice_wins(positive: Float32, negative: Float32) -> Int64:
    """(K,) twice the number of pairs in which the positive is higher; a tie counts one."""
    columns = positive.shape[1]
    wins = np.zeros(columns, np.int64)
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        part = np.zeros(last - first, np.int32)
        for p in range(len(positive)):
            one = positive[p, first:last]
            part[:] = 0
            for n in range(len(negative)):
                other = negative[n, first:last]
                for k in range(len(part)):
                    part[k] += np.int32(one[k] > other[k]) + np.int32(one[k] >= other[k])
            for k in range(len(part)):
                wins[first + k] += part[k]
    return wins
