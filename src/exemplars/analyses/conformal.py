"""How often texts of the usual kind score as high: p-values with the document as the unit.

Tokens of a passage, and passages of a document, are alike; documents are what can be exchanged. So
every document has one vote, and no p-value is below 1 / (documents + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float64, Int64

LEAST_DOCUMENTS = 19
"""Of calibration: with fewer no p-value can be 5 % or less."""
_CELLS = 1 << 24
"""Numbers held at once while sets are drawn."""


@dataclass(frozen=True, eq=False)
class UsualScores:
    """Token scores of documents of the usual kind, on which nothing was fitted: the calibration."""

    scores: tuple[Float64, ...]
    """Of each document (n_j,), in the order of its text."""
    passage: int
    """Rows of a passage: windows begin at its multiples."""

    @property
    def least_p(self) -> float:
        """The smallest p-value that so many documents can give."""
        return 1.0 / (len(self.scores) + 1)

    @cached_property
    def _sums(self) -> tuple[Float64, ...]:
        return tuple(np.concatenate([[0.0], np.cumsum(s)]) for s in self.scores)

    def windows(self, rows: int) -> list[Float64]:
        """Mean scores of runs of `rows` rows of each document that has enough.

        Runs begin at multiples of `passage`. A document that has a passage but not `rows` rows
        gives its whole mean, whose spread is larger: p-values become larger, not smaller. One
        that has less than a passage, and less than `rows`, gives none.
        """
        found = []
        for sums in self._sums:
            n = len(sums) - 1
            if n >= rows:
                starts = np.arange(0, n - rows + 1, self.passage)
                found.append((sums[starts + rows] - sums[starts]) / rows)
            elif n >= self.passage:
                found.append(sums[n:] / n)
        return found

    def p_value(self, score: float, rows: int) -> float:
        """How often a document of the usual kind would score as high with so many rows.

        Each document's share of runs at or above `score` is its vote:
        (1 + Σ votes) / (documents + 1). With one run drawn of each document this is the conformal
        p-value of exchangeable documents, exact; the mean over all draws is taken, of which it is
        known that it is below α with probability 2α at most (Rüschendorf 1982), and usually α.

        Returns:
            NaN where fewer than `LEAST_DOCUMENTS` documents are long enough.
        """
        windows = self.windows(rows)
        if len(windows) < LEAST_DOCUMENTS or rows < 1:
            return float("nan")
        votes = sum(float((runs >= score).mean()) for runs in windows)
        return (1.0 + votes) / (len(windows) + 1)

    def token_p_value(self, score: float) -> float:
        """Likewise of one token among all tokens of each document."""
        if len(self.scores) < LEAST_DOCUMENTS:
            return float("nan")
        votes = sum(float((s >= score).mean()) for s in self.scores)
        return (1.0 + votes) / (len(self.scores) + 1)


@dataclass(frozen=True)
class SetTest:
    """One statistic of a set of documents, beside sets in which documents changed places."""

    statistic: str
    estimate: float
    null_mean: float
    null_95: float
    """The 95th percentile of the null."""
    p: float
    """NaN where there are too few documents."""


def exchange_test(
    statistic: str, values: Any, n_set: int, permutations: int = 999, seed: int = 0
) -> SetTest:
    """Whether the first documents' statistic is large among random choices of as many.

    If the set's documents and the calibration's are of one kind and of like lengths, they can
    change places, and p = (1 + choices at or above) / (1 + choices) is exact. It is never given
    below 1 / (calibration documents + 1).

    Args:
        statistic: Its name.
        values: What gives it: a function (C, G) bool of chosen documents -> (C,).
        n_set: The set's documents come first, and are so many.
        permutations: Random choices.
        seed: Of these.
    """
    chosen = permuted_choices(values.n_documents, n_set, permutations, seed)
    found = values(chosen)
    null = found[1:]
    enough = values.n_documents - n_set >= LEAST_DOCUMENTS
    p = (1.0 + float((null >= found[0]).sum())) / (1.0 + len(null))
    least = 1.0 / (values.n_documents - n_set + 1)
    return SetTest(
        statistic,
        float(found[0]),
        float(null.mean()),
        float(np.quantile(null, 0.95)),
        max(p, least) if enough else float("nan"),
    )


def permuted_choices(n: int, n_set: int, permutations: int, seed: int) -> NDArray[np.bool_]:
    """(1 + permutations, n) bool: the first n_set, then random choices of as many; of a single
    document all the n there are.
    """
    if n_set == 1:
        return np.eye(n, dtype=np.bool_)
    random = np.random.default_rng([seed, 0xD0C5])
    chosen = np.zeros((1 + permutations, n), np.bool_)
    chosen[0, :n_set] = True
    for row in chosen[1:]:
        row[random.permutation(n)[:n_set]] = True
    return chosen


@dataclass(frozen=True, eq=False)
class MeanScore:
    """The mean over a set's documents of their mean scores."""

    means: Float64
    """(G,) of each document."""

    @property
    def n_documents(self) -> int:
        """G."""
        return len(self.means)

    def __call__(self, chosen: NDArray[np.bool_]) -> Float64:
        """(C, G) -> (C,)."""
        return np.asarray(chosen @ self.means / chosen.sum(axis=1))


@dataclass(frozen=True, eq=False)
class HistogramShift:
    """Jensen-Shannon divergence in nats of a set's region histogram from the dictionary's."""

    counts: Any
    """Sparse (G, K): rows of each document in each region."""
    reference: Float64
    """(K,) shares of the dictionary's members."""

    @property
    def n_documents(self) -> int:
        """G."""
        return int(self.counts.shape[0])

    def __call__(self, chosen: NDArray[np.bool_]) -> Float64:
        """(C, G) -> (C,), in [0, ln 2]."""
        step = max(1, _CELLS // max(len(self.reference), 1))
        parts = [
            jensen_shannon(
                np.asarray((self.counts.T @ chosen[at : at + step].T.astype(np.float64)).T),
                self.reference,
            )
            for at in range(0, len(chosen), step)
        ]
        return np.concatenate(parts)


def jensen_shannon(counts: Float64, reference: Float64) -> Float64:
    """Divergence in nats of histograms (C, K) from shares (K,) that sum to 1: (C,) in [0, ln 2].

    A histogram without rows has NaN.
    """
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / total
    middle = (share + reference) / 2
    found = (_relative(share, middle) + _relative(reference, middle)) / 2
    return np.where(total[:, 0] > 0, np.clip(found, 0.0, np.log(2)), np.nan)


def _relative(share: Float64, other: Float64) -> Float64:
    """Σ share ln(share / other) over the last axis, 0 ln 0 = 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = share * (np.log(share) - np.log(other))
    return np.asarray(np.where(share > 0, each, 0.0).sum(axis=-1))


def region_counts(regions: Sequence[Int64], n_regions: int) -> Any:
    """Sparse (G, K) float64: how many rows of each document fall in each region."""
    from scipy.sparse import csr_array

    document = np.repeat(np.arange(len(regions)), [len(r) for r in regions])
    region = np.concatenate([np.empty(0, np.int64), *regions])
    ones = np.ones(len(region))
    return csr_array((ones, (document, region)), shape=(len(regions), n_regions))
