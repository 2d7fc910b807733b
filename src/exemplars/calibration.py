"""Center and thresholds from a sample of activations.

The center is the direction of the mean unit vector, scaled to the sample's mean projection on
it. The threshold of percentile p is the mean, over consecutive blocks of rows, of the block's
p-th percentile of pairwise cosine distance. Both are functions of the rows in their order, and
of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.errors import CalibrationError
from exemplars.geometry import (
    Float32,
    Float64,
    Int64,
    accumulate_center,
    canonical_similarity,
    check_finite,
    compiled,
    cosine_distance,
    gemm_band,
    has_direction,
    to_directions,
    vector_norms,
)

SMALLEST_THRESHOLD = 1e-6
"""Below it rounding, not distance, would decide whether a duplicate joins."""

_TILE = 512
_KEPT = 64
_BINS_PER_UNIT = 1 << 15


@dataclass(frozen=True)
class Calibration:
    """What a sample fixes before clustering starts."""

    center: Float32
    """(D,) a point in raw activation space."""
    thresholds: Mapping[float, float]
    """percentile -> cosine distance up to which a direction joins a region."""
    rows: int
    """Rows the center and the thresholds were computed from."""
    block_rows: int
    """Rows in a block whose pairwise distances are ranked."""
    vector_norms: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    """5th percentile, median, 95th percentile of ‖x‖: the median is the unit of strengths."""
    centered_norms: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    """The same of ‖x − c‖."""
    norm_limit: float | None = None
    """Rows with a larger ‖x‖ are attention sinks: they are dropped, here and in a build."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows of the sample left out: "norm outlier", "no direction"."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the sample came from."""

    def threshold(self, percentile: float) -> float:
        """θ of one percentile.

        Raises:
            ValueError: The calibration did not compute this percentile.
        """
        for known, value in self.thresholds.items():
            if float(known) == float(percentile):
                return float(value)
        raise ValueError(
            f"percentile {percentile:g} is not in this calibration, which has "
            f"{', '.join(f'{p:g}' for p in self.thresholds)}; calibrate with it"
        )


def calibrate(
    vectors: Any,
    percentiles: float | Sequence[float] = (10.0,),
    block_rows: int = 2048,
    *,
    norm_multiple: float | None = None,
    source: Mapping[str, Any] | None = None,
) -> Calibration:
    """Center and thresholds of a sample.

    Args:
        vectors: Raw activations: (N, D) numpy or torch, or an iterable of (n, D). What can be
            iterated more than once is read three times and never held whole; an iterator is.
        percentiles: In (0, 100); any number of them costs one pass.
        block_rows: Rows in a block, at least 2. A last block of 2 rows or more counts as one.
        norm_multiple: Drop rows whose norm is above this multiple of the sample's median norm
            (attention sinks); None keeps all.
        source: Anything to remember about the sample; stored as it is.

    Returns:
        A `Calibration`; answers are numpy.

    Raises:
        ValueError: A percentile outside (0, 100), `block_rows` < 2, or rows of different widths.
        ActivationError: A NaN or infinite component.
        CalibrationError: Fewer than 2 usable rows, directions that cancel, or nearly all pairs
            of rows equal.

    Source: Rumbelow 2026 (arXiv:2605.14347), §2: spherical-mean direction times mean projection;
        mean over blocks of the within-block percentile.
    """
    wanted = check_arguments(percentiles, block_rows, norm_multiple)
    sample = _Sample(vectors)

    norms = [vector_norms(batch) for batch in sample]
    all_norms = np.concatenate(norms) if norms else np.empty(0)
    check_finite(all_norms, "calibration sample")
    if len(all_norms) < 2:
        raise CalibrationError(
            f"the calibration sample has {len(all_norms)} rows, at least 2 are needed; "
            "give more text"
        )
    limit = None if norm_multiple is None else norm_multiple * float(np.median(all_norms))

    center = _center(sample, norms, limit)

    totals = {p: [] for p in wanted}  # type: dict[float, list[float]]
    centered: list[Float64] = []
    for directions in _blocks(sample, norms, limit, center, block_rows, centered):
        for p, value in zip(wanted, pairwise_percentiles(directions, wanted), strict=True):
            totals[p].append(float(value))
    kept_norms = np.concatenate(centered)
    usable = int(has_direction(kept_norms, center).sum())
    if not totals[wanted[0]]:
        raise CalibrationError(
            f"{usable} of {len(all_norms)} calibration rows differ from the center, at least 2 "
            "are needed; give more varied text"
        )
    thresholds = {p: math.fsum(values) / len(values) for p, values in totals.items()}
    if min(thresholds.values()) <= SMALLEST_THRESHOLD:
        p = min(thresholds, key=lambda q: thresholds[q])
        raise CalibrationError(
            f"the {p:g}th percentile of pairwise distance is {thresholds[p]:.1e}: nearly all "
            "rows are equal; give more varied text or a larger percentile"
        )
    outliers = 0 if limit is None else int((all_norms > limit).sum())
    return Calibration(
        center=center,
        thresholds=thresholds,
        rows=usable,
        block_rows=block_rows,
        vector_norms=_summary(all_norms if limit is None else all_norms[all_norms <= limit]),
        centered_norms=_summary(kept_norms),
        norm_limit=limit,
        dropped={"norm outlier": outliers, "no direction": len(all_norms) - outliers - usable},
        source=dict(source or {}),
    )


def check_arguments(
    percentiles: float | Sequence[float], block_rows: int, norm_multiple: float | None
) -> list[float]:
    """The percentiles, ascending and distinct; ValueError for what `calibrate` would refuse."""
    given = [percentiles] if isinstance(percentiles, (int, float, np.number)) else [*percentiles]
    wanted = sorted({float(p) for p in given})
    if not wanted:
        raise ValueError("no percentile was given, expected at least one in (0, 100)")
    for p in wanted:
        if not 0 < p < 100:
            raise ValueError(f"percentile is {p:g}, expected a number in (0, 100)")
    if block_rows < 2:
        raise ValueError(f"block_rows is {block_rows}, but a block needs at least 2 rows")
    if norm_multiple is not None and not norm_multiple > 0:
        raise ValueError(f"norm_multiple is {norm_multiple}, expected a positive number or None")
    return wanted


def pairwise_percentiles(directions: Float32, percentiles: Sequence[float]) -> Float64:
    """Percentiles of the cosine distances of all pairs of rows, linearly interpolated.

    The order statistics are canonical similarities. A float32 product, in tiles, only locates
    them: order statistics move by at most the band of the product when every value does, so the
    pairs whose float32 value lies near enough are recomputed canonically and ranked among
    themselves, and the others are counted.

    Args:
        directions: (n, D) float32, n >= 2. Memory beyond it: 64 tiles of 512 x 512 floats.
        percentiles: In [0, 100].

    Returns:
        (len(percentiles),) float64 cosine distances, equal to
        `numpy.percentile(pdist(directions, "cosine"), percentiles)` but for rounding.
    """
    n, width = directions.shape
    n_pairs = n * (n - 1) // 2
    virtual = [(n_pairs - 1) * p / 100.0 for p in percentiles]
    ranks = sorted({min(math.floor(h) + k, n_pairs - 1) for h in virtual for k in (0, 1)})

    tiles = [(i, j) for i in range(0, n, _TILE) for j in range(i, n, _TILE)]
    kept: dict[tuple[int, int], Float32] = {}

    def product(i: int, j: int) -> Float32:
        if (i, j) in kept:
            return kept[i, j]
        values = directions[i : i + _TILE] @ directions[j : j + _TILE].T
        if len(kept) < _KEPT:
            kept[i, j] = values
        return values

    # Bins of float32 distance, with room for rounding past 0 and 2.
    histogram = np.zeros(2 * _BINS_PER_UNIT + 2 * _MARGIN, np.int64)
    for i, j in tiles:
        _count_bins(product(i, j), i == j, histogram)
    cumulative = np.cumsum(histogram)
    located = np.searchsorted(cumulative, ranks, side="right")

    # A pair k bins away from a rank's bin is beyond twice the band, so on a known side of it.
    reach = math.ceil(2.0 * gemm_band(width) * _BINS_PER_UNIT) + 2
    starts, stops = _merge_intervals(located - reach, located + reach + 1)
    below = np.where(starts > 0, cumulative[np.maximum(starts, 1) - 1], 0)
    interval_of = np.full(len(histogram), -1, np.int16)
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        interval_of[max(start, 0) : stop] = k
    pairs = np.empty((3, int(histogram[interval_of >= 0].sum())), np.int64)
    count = 0
    for i, j in tiles:
        count = _collect(product(i, j), i == j, (i, j), interval_of, pairs, count)
    rows_a, rows_b, interval = pairs
    distance = cosine_distance(canonical_similarity(directions, directions, rows_a, rows_b))
    by_interval = [np.sort(distance[interval == k]) for k in range(len(starts))]

    def order_statistic(rank: int) -> float:
        k = int(np.searchsorted(starts, located[ranks.index(rank)], side="right")) - 1
        return float(by_interval[k][rank - below[k]])

    answers = np.empty(len(virtual))
    for k, h in enumerate(virtual):
        low = math.floor(h)
        d0, d1 = order_statistic(low), order_statistic(min(low + 1, n_pairs - 1))
        answers[k] = d0 + (d1 - d0) * (h - low)
    return answers


_MARGIN = 64


@compiled
def _bin(similarity: float) -> int:
    return int((1.0 - np.float64(similarity)) * _BINS_PER_UNIT + _MARGIN)


@compiled
def _count_bins(values: Float32, diagonal: bool, histogram: Int64) -> None:
    for i in range(values.shape[0]):
        for j in range(i + 1 if diagonal else 0, values.shape[1]):
            histogram[_bin(values[i, j])] += 1


@compiled
def _collect(
    values: Float32,
    diagonal: bool,
    first: tuple[int, int],
    interval_of: NDArray[np.int16],
    pairs: Int64,
    count: int,
) -> int:
    """Write the pairs whose bin lies in an interval; how many there are by now.

    Args:
        values: Similarities of rows and columns from `first` on.
        diagonal: Look at pairs above the diagonal only.
        first: See there.
        interval_of: Of each bin, -1 where it lies in none.
        pairs: (3, all pairs) row, column, interval; written from `count` on.
        count: Pairs there are.
    """
    for i in range(values.shape[0]):
        for j in range(i + 1 if diagonal else 0, values.shape[1]):
            interval = interval_of[_bin(values[i, j])]
            if interval >= 0:
                pairs[0, count] = first[0] + i
                pairs[1, count] = first[1] + j
                pairs[2, count] = interval
                count += 1
    return count


def _merge_intervals(starts: Int64, stops: Int64) -> tuple[Int64, Int64]:
    """Half-open intervals, sorted by start, with the overlapping ones united."""
    merged: list[list[int]] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    both = np.array(merged, np.int64)
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def _center(sample: _Sample, norms: list[Float64], limit: float | None) -> Float32:
    unit_sum = vector_sum = np.empty(0)
    rows = 0
    for batch, batch_norms in zip(sample, norms, strict=True):
        if rows == 0:
            unit_sum, vector_sum = np.zeros(batch.shape[1]), np.zeros(batch.shape[1])
        rows += accumulate_center(
            batch, batch_norms, _within(batch_norms, limit), unit_sum, vector_sum
        )
    # Correctly rounded sums of D terms: the same on every machine.
    length = math.sqrt(math.fsum(v * v for v in unit_sum.tolist()))
    if length <= 1e-6 * rows:
        raise CalibrationError(
            f"the mean of {rows} unit vectors has length {length / max(rows, 1):.1e}: the "
            "directions cancel and give no center; give a larger or less symmetric sample"
        )
    direction = unit_sum / length
    projection = (
        math.fsum(v * w for v, w in zip(vector_sum.tolist(), direction.tolist(), strict=True))
        / rows
    )
    return (projection * direction).astype(np.float32)


def _blocks(
    sample: _Sample,
    norms: list[Float64],
    limit: float | None,
    center: Float32,
    block_rows: int,
    centered: list[Float64],
) -> Iterator[Float32]:
    """Directions in consecutive blocks of rows; the norms of x − c go to `centered`."""
    waiting: list[Float32] = []
    n_waiting = 0
    for batch, batch_norms in zip(sample, norms, strict=True):
        directions, length = to_directions(batch[_within(batch_norms, limit)], center)
        centered.append(length)
        directions = directions[has_direction(length, center)]
        waiting.append(directions)
        n_waiting += len(directions)
        if n_waiting >= block_rows:
            joined = np.concatenate(waiting)
            whole = len(joined) - len(joined) % block_rows
            for start in range(0, whole, block_rows):
                yield joined[start : start + block_rows]
            waiting, n_waiting = [joined[whole:]], len(joined) - whole
    if n_waiting >= 2:
        yield np.concatenate(waiting)


def _within(norms: Float64, limit: float | None) -> Any:
    return np.ones(len(norms), np.bool_) if limit is None else norms <= limit


def _summary(norms: Float64) -> tuple[float, float, float]:
    low, median, high = np.percentile(norms, [5, 50, 95])
    return float(low), float(median), float(high)


class _Sample:
    """The sample as float32 batches, as often as one iterates."""

    def __init__(self, vectors: Any) -> None:
        if hasattr(vectors, "shape"):
            self._batches: Iterable[Any] = _split_rows(as_vectors(vectors))
        elif isinstance(vectors, Iterator):
            self._batches = [as_vectors(batch) for batch in vectors]
        else:
            self._batches = vectors
        self._width: int | None = None

    def __iter__(self) -> Iterator[Float32]:
        for given in self._batches:
            batch = as_vectors(given)
            if self._width is None:
                self._width = batch.shape[1]
            if batch.shape[1] != self._width:
                raise ValueError(
                    f"a batch has width {batch.shape[1]}, the ones before it {self._width}; "
                    "all must be equal"
                )
            yield batch


def _split_rows(vectors: Float32, rows: int = 8192) -> list[Float32]:
    return [vectors[start : start + rows] for start in range(0, len(vectors), rows)]


def as_vectors(vectors: Any) -> Float32:
    """Anything of shape (..., D), numpy or torch, as contiguous (N, D) float32.

    Raises:
        ValueError: Fewer than 2 dimensions, no columns, or not a real-number type.
    """
    if hasattr(vectors, "detach"):  # a torch tensor, without importing torch
        vectors = vectors.detach().float().cpu().numpy()
    array = np.asarray(vectors)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"vectors have dtype {array.dtype}, expected real numbers")
    if array.ndim < 2 or array.shape[-1] == 0:
        raise ValueError(f"vectors have shape {array.shape}, expected (N, D) with D > 0")
    return np.ascontiguousarray(array.reshape(-1, array.shape[-1]), np.float32)
