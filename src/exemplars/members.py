"""Statistics of the members of regions, as sums and ordered lists that merge exactly.

Directions and distances are added as 64-bit integers (fixed point, 2⁻³⁰), and the nearest, the
farthest, and the sampled members are kept under total orders. So the result does not depend on
the order of arrival, on how rows were divided among chunks, or on which of two halves was
merged into the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int64, compiled

UNIT = 2.0**30
"""Fixed point: an integer of 2³⁰ is 1. Good for 8·10⁹ members of a region."""
HISTOGRAM_BINS = 64
BINS_PER_THRESHOLD = 32
"""Bin b holds distances in [b, b + 1)·θ/32; the last bin also holds all beyond 2θ."""
EXTREMES = 10
SAMPLE = 30

_FIELDS: dict[str, tuple[tuple[Any, ...], Any, Any]] = {
    # name: (shape of one region's entry, dtype, value of an empty entry)
    "counts": ((), np.int64, 0),
    "direction_sums": (("width",), np.int64, 0),
    "distance_sums": ((), np.int64, 0),
    "distance_square_sums": ((), np.int64, 0),
    "histogram": ((HISTOGRAM_BINS,), np.uint32, 0),
    "nearest_distance": ((EXTREMES,), np.float64, np.inf),
    "nearest_row": ((EXTREMES,), np.int64, -1),
    "farthest_key": ((EXTREMES,), np.float64, np.inf),  # minus the distance
    "farthest_row": ((EXTREMES,), np.int64, -1),
    "sample_hash": ((SAMPLE,), np.uint64, np.iinfo(np.uint64).max),
    "sample_row": ((SAMPLE,), np.int64, -1),
    "sample_distance": ((SAMPLE,), np.float64, np.nan),
}


@dataclass(frozen=True)
class MemberStatistics:
    """What is known of each region's members. Row k describes region k."""

    counts: Int64
    """(K,) members, the founder included."""
    means: Float32
    """(K, D) direction of the sum of member directions; NaN where there is no member."""
    coherence: Float32
    """(K,) length of that sum over the count, in [0, 1]; NaN where there is no member."""
    distance_sums: Float64
    """(K,) Σ cosine distance to the exemplar."""
    distance_square_sums: Float64
    """(K,) Σ of its square."""
    histogram: NDArray[np.uint32]
    """(K, 64) members by distance/θ, in steps of 1/32; the last bin holds all beyond."""


@dataclass(frozen=True)
class MemberRows:
    """Which members are kept as contexts: global rows, -1 where a region has fewer."""

    nearest_row: Int64
    """(K, 10) the nearest members, by (distance, row)."""
    nearest_distance: Float64
    farthest_row: Int64
    """(K, 10) the farthest members, by (-distance, row)."""
    farthest_distance: Float64
    sample_row: Int64
    """(K, 30) a uniform sample without replacement: the smallest hashes of (seed, row)."""
    sample_distance: Float64


class Members:
    """Accumulates statistics of members; grows with the regions.

    Args:
        width: D.
        threshold: θ, the unit of the histogram.
        seed: Of the sample of members.
    """

    def __init__(self, width: int, threshold: float, seed: int = 0) -> None:
        self.width = width
        self.threshold = float(threshold)
        self.seed = int(seed)
        self.n_regions = 0
        self.singletons = 0
        """Regions with exactly one member."""
        self._arrays: dict[str, NDArray[Any]] = {}
        self._allocate(256)

    def add(
        self,
        fixed: NDArray[np.int32],
        region: Int64,
        distance: Float64,
        rows: Int64,
        n_regions: int,
    ) -> Int64:
        """Add members.

        Args:
            fixed: (n, D) int32, `fixed_point` of their directions.
            region: (n,) their regions, each < n_regions.
            distance: (n,) cosine distances to their exemplars.
            rows: (n,) global row numbers.
            n_regions: Regions there are by now.

        Returns:
            (n,) how many regions had exactly one member after each row.
        """
        self.grow(n_regions)
        a = self._arrays
        singletons = np.empty(len(region), np.int64)
        self.singletons = _add(
            fixed,
            region,
            distance,
            rows,
            BINS_PER_THRESHOLD / self.threshold,
            np.uint64(_splitmix64(np.uint64(self.seed % 2**64))),
            self.singletons,
            singletons,
            a["counts"],
            a["direction_sums"],
            a["distance_sums"],
            a["distance_square_sums"],
            a["histogram"],
            a["nearest_distance"],
            a["nearest_row"],
            a["farthest_key"],
            a["farthest_row"],
            a["sample_hash"],
            a["sample_row"],
            a["sample_distance"],
        )
        return singletons

    def grow(self, n_regions: int) -> None:
        """Make room for `n_regions` regions."""
        room = len(self._arrays["counts"])
        if n_regions > room:
            self._allocate(max(n_regions, 2 * room))
        self.n_regions = max(self.n_regions, n_regions)

    def merge(self, other: Members) -> None:
        """Add the members of `other`, of the same regions and over other rows."""
        if (self.width, self.threshold, self.seed) != (other.width, other.threshold, other.seed):
            raise ValueError(
                "members of different width, threshold, or seed do not merge: "
                f"{(self.width, self.threshold, self.seed)} and "
                f"{(other.width, other.threshold, other.seed)}"
            )
        self.grow(other.n_regions)
        mine, theirs = self._arrays, other.state()
        k = other.n_regions
        for name in (
            "counts",
            "direction_sums",
            "distance_sums",
            "distance_square_sums",
            "histogram",
        ):
            mine[name][:k] += theirs[name]
        for keys, kept in (
            (("nearest_distance", "nearest_row"), EXTREMES),
            (("farthest_key", "farthest_row"), EXTREMES),
            (("sample_hash", "sample_row", "sample_distance"), SAMPLE),
        ):
            both = [np.concatenate([mine[key][:k], theirs[key]], axis=1) for key in keys]
            order = np.lexsort((both[1], both[0]), axis=1)[:, :kept]
            for key, values in zip(keys, both, strict=True):
                mine[key][:k] = np.take_along_axis(values, order, axis=1)
        self.singletons = int((self._arrays["counts"][: self.n_regions] == 1).sum())

    def statistics(self) -> MemberStatistics:
        """The statistics as they stand."""
        a = self.state()
        length = _lengths(a["direction_sums"])
        counts = a["counts"].astype(np.float64)
        means = np.empty(a["direction_sums"].shape, np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            for start in range(0, len(means), 4096):  # no second copy of the sums in float64
                part = slice(start, start + 4096)
                means[part] = a["direction_sums"][part] / length[part, None]
            coherence = (length / UNIT / counts).astype(np.float32)
        means[counts == 0] = np.nan
        return MemberStatistics(
            counts=a["counts"].copy(),
            means=means,
            coherence=np.minimum(coherence, np.float32(1.0)),
            distance_sums=a["distance_sums"] / UNIT,
            distance_square_sums=a["distance_square_sums"] / UNIT,
            histogram=a["histogram"].copy(),
        )

    def kept_rows(self) -> MemberRows:
        """The nearest, the farthest, and the sampled members, as they stand."""
        a = self.state()
        return MemberRows(
            nearest_row=a["nearest_row"].copy(),
            nearest_distance=a["nearest_distance"].copy(),
            farthest_row=a["farthest_row"].copy(),
            farthest_distance=-a["farthest_key"],
            sample_row=a["sample_row"].copy(),
            sample_distance=a["sample_distance"].copy(),
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps: the accumulators of the regions there are."""
        return {name: array[: self.n_regions] for name, array in self._arrays.items()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state`."""
        self.n_regions = len(state["counts"])
        self._allocate(max(256, self.n_regions), state)
        self.singletons = int((self._arrays["counts"][: self.n_regions] == 1).sum())

    def _allocate(self, room: int, old: dict[str, NDArray[Any]] | None = None) -> None:
        old = self.state() if old is None and self._arrays else (old or {})
        for name, (shape, dtype, empty) in _FIELDS.items():
            full = (room, *(self.width if axis == "width" else axis for axis in shape))
            # numpy.zeros takes no memory until it is written
            array = np.zeros(full, dtype) if empty == 0 else np.full(full, empty, dtype)
            if name in old:
                array[: len(old[name])] = old[name]
            self._arrays[name] = array


def fixed_point(directions: Float32) -> NDArray[np.int32]:
    """Directions as integers, 2³⁰ for 1: (n, D) float32 -> (n, D) int32, rounded to even."""
    return _fixed_point(directions)


@compiled
def _fixed_point(directions: Float32) -> NDArray[np.int32]:
    fixed = np.empty(directions.shape, np.int32)
    for n in range(directions.shape[0]):
        for d in range(directions.shape[1]):
            fixed[n, d] = np.int32(np.rint(directions[n, d] * np.float32(1073741824.0)))
    return fixed


@compiled
def _lengths(sums: Int64) -> Float64:
    """Euclidean norms of integer rows, one fixed order of summation."""
    lengths = np.empty(sums.shape[0], np.float64)
    for k in range(sums.shape[0]):
        total = 0.0
        for d in range(sums.shape[1]):
            value = np.float64(sums[k, d])
            total += value * value
        lengths[k] = np.sqrt(total)
    return lengths


@compiled
def _splitmix64(x: np.uint64) -> np.uint64:
    z = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _insert(keys: Float64, rows: Int64, key: float, row: int) -> None:
    """Keep `keys` ascending, ties by row; what was last falls out."""
    k = keys.shape[0]
    while k > 0 and (key < keys[k - 1] or (key == keys[k - 1] and row < rows[k - 1])):
        k -= 1
        if k + 1 < keys.shape[0]:
            keys[k + 1] = keys[k]
            rows[k + 1] = rows[k]
        keys[k] = key
        rows[k] = row


@compiled
def _add(
    fixed: NDArray[np.int32],
    region: Int64,
    distance: Float64,
    rows: Int64,
    bins_per_distance: float,
    seed: np.uint64,
    n_single: int,
    singletons: Int64,
    counts: Int64,
    direction_sums: Int64,
    distance_sums: Int64,
    distance_square_sums: Int64,
    histogram: NDArray[np.uint32],
    nearest_distance: Float64,
    nearest_row: Int64,
    farthest_key: Float64,
    farthest_row: Int64,
    sample_hash: NDArray[np.uint64],
    sample_row: Int64,
    sample_distance: Float64,
) -> int:
    for n in range(region.shape[0]):
        k = region[n]
        d = distance[n]
        row = rows[n]
        counts[k] += 1
        if counts[k] == 1:
            n_single += 1
        elif counts[k] == 2:
            n_single -= 1
        singletons[n] = n_single
        for j in range(fixed.shape[1]):
            direction_sums[k, j] += np.int64(fixed[n, j])
        distance_sums[k] += np.int64(np.rint(d * 1073741824.0))
        distance_square_sums[k] += np.int64(np.rint(d * d * 1073741824.0))
        b = min(np.int64(d * bins_per_distance), 63)
        histogram[k, b] += np.uint32(1)
        _insert(nearest_distance[k], nearest_row[k], d, row)
        _insert(farthest_key[k], farthest_row[k], -d, row)
        h = _splitmix64(seed + np.uint64(row))
        if h < sample_hash[k, 29]:
            q = 29
            while q > 0 and h < sample_hash[k, q - 1]:
                sample_hash[k, q] = sample_hash[k, q - 1]
                sample_row[k, q] = sample_row[k, q - 1]
                sample_distance[k, q] = sample_distance[k, q - 1]
                q -= 1
            sample_hash[k, q] = h
            sample_row[k, q] = row
            sample_distance[k, q] = d
    return n_single
