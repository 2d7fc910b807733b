"""Numbers of every region, as arrays: what lists are sorted and filtered by, and pictures coloured.

An array has one entry a region; NaN where a region has none (no members, say).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Int64
from exemplars.members import BINS_PER_THRESHOLD, MemberStatistics

SINGLETON, EMPTY, LABELLED, WITHOUT_CONTEXT = 1, 2, 4, 8
"""Bits of the column `flags`."""
_PAIR_WORK = 3e11
"""Multiplications that a search among all pairs of exemplars may take."""
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Column:
    """One number of every region."""

    values: NDArray[Any]
    unit: str
    description: str

    @cached_property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest value; None if there is none."""
        some = self.values
        if some.dtype.kind == "f":
            some = some[np.isfinite(some)]
        return (float(some.min()), float(some.max())) if len(some) else None

    @cached_property
    def known(self) -> NDArray[Any]:
        """The values; where whole numbers below zero stand for none, NaN stands for them."""
        values = self.values
        if values.dtype.kind == "i" and (values < 0).any():
            return np.where(values < 0, np.nan, values.astype(np.float64))
        return values

    @cached_property
    def rising(self) -> NDArray[np.int32]:
        """(K,) regions, the smallest value first; ties by region, those without one last."""
        return np.argsort(self.known, kind="stable").astype(np.int32)

    @cached_property
    def falling(self) -> NDArray[np.int32]:
        """(K,) regions, the largest value first; likewise."""
        return np.argsort(-self.known.astype(np.float64), kind="stable").astype(np.int32)


def member_columns(dictionary: Dictionary) -> dict[str, Column]:
    """What the members' statistics say, and where each region was founded."""
    members = dictionary.members
    counts = np.asarray(members.counts)
    mean, _, p95 = distances_in_thresholds(members, dictionary.threshold)
    rows = np.asarray(dictionary.exemplar_rows)
    total = max(int(counts.sum()), 1)
    return {
        "member_count": Column(
            counts.astype(np.uint32), "members", "members, the founder included"
        ),
        "share": Column((counts / total).astype(np.float32), "share", "share of all members"),
        "coherence": Column(
            np.asarray(members.coherence, np.float32),
            "0 to 1",
            "length of the mean of the members' directions",
        ),
        "mean_dist_theta": Column(mean, "θ", "mean distance of members to the exemplar"),
        "p95_dist_theta": Column(p95, "θ", "distance that 95 % of the members stay within"),
        "first_seen": Column(
            np.where(rows >= 0, rows, np.nan).astype(np.float64),
            "row",
            "row of the stream that founded the region",
        ),
    }


def lens_entropy_column(values: Float32) -> Column:
    """The column of (K,) entropies in nats."""
    return Column(
        values, "nats", "entropy of the tokens that the exemplar reads as, through the logit lens"
    )


def distances_in_thresholds(
    members: MemberStatistics, threshold: float
) -> tuple[Float32, Float32, Float32]:
    """Mean, standard deviation and 95th percentile of members' distances, in θ, each (K,).

    The percentile comes from the histogram, linear inside its bins of θ/32, so it is good to
    that; from 2θ on it is 2.
    """
    counts = np.asarray(members.counts, np.float64)
    some = np.where(counts > 0, counts, np.nan)
    mean = np.asarray(members.distance_sums) / some
    square = np.asarray(members.distance_square_sums) / some
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    histogram = np.asarray(members.histogram, np.float64)
    reached = np.cumsum(histogram, axis=1)
    wanted = 0.95 * reached[:, -1]
    bin_ = (reached < wanted[:, None]).sum(axis=1).clip(max=histogram.shape[1] - 1)
    rows = np.arange(len(histogram))
    inside = histogram[rows, bin_]
    before = reached[rows, bin_] - inside
    p95 = (bin_ + (wanted - before) / np.where(inside > 0, inside, 1)) / BINS_PER_THRESHOLD
    p95 = np.where(reached[:, -1] > 0, p95, np.nan)
    return (
        (mean / threshold).astype(np.float32),
        (deviation / threshold).astype(np.float32),
        p95.astype(np.float32),
    )


def nearest_others(exemplars: Float32) -> tuple[Int64, Float32] | None:
    """The nearest other region of each, and the cosine; None where that would take minutes.

    In float32; ties go to the lower index. With one region alone: -1 and NaN.
    """
    k, width = exemplars.shape
    if float(k) * k * width > _PAIR_WORK:
        return None
    if k < 2:
        return np.full(k, -1), np.full(k, np.nan, np.float32)
    nearest = np.empty(k, np.int64)
    cosine = np.empty(k, np.float32)
    for start in range(0, k, _BLOCK):
        product = exemplars[start : start + _BLOCK] @ exemplars.T
        rows = np.arange(len(product))
        product[rows, start + rows] = -np.inf
        nearest[start : start + _BLOCK] = product.argmax(axis=1)
        cosine[start : start + _BLOCK] = product[rows, nearest[start : start + _BLOCK]]
    return nearest, cosine


def region_flags(
    counts: Int64, labelled: NDArray[np.bool_], without_context: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """(K,) bits: one member, no member, labelled, no context known."""
    counts = np.asarray(counts)
    bits = SINGLETON * (counts == 1) + EMPTY * (counts == 0)
    return (bits + LABELLED * labelled + WITHOUT_CONTEXT * without_context).astype(np.uint8)
