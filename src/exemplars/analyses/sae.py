"""A dictionary beside a sparse autoencoder (SAE) of the same site: do regions and features agree?

A unit, a region or a feature, is described by a set of rows: those that it responds to most (its
top rows), or all of them (the members of a region, the rows on which a feature is active). Two
units agree as far as the F1 of their sets goes, 2 |A ∩ B| / (|A| + |B|).

A best partner among thousands agrees by chance too, so every number comes with what it is for
other directions than the dictionary's and for rows whose correspondence is destroyed.

Source: the comparison by top activations is that of Rumbelow 2026 (arXiv:2605.14347).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars import readout as _readout
from exemplars.analyses.autoencoders import CELLS, SparseAutoencoder, rows_at_once
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.geometry import (
    Float32,
    Float64,
    Int32,
    Int64,
    compiled,
    cosine_distance,
    to_directions,
)
from exemplars.nearest import ExemplarIndex

NULLS = ("random directions", "stream rows", "permuted rows")
"""Unit vectors of random direction; rows of the stream as exemplars; the dictionary, with the rows
of the SAE's side permuted within each half."""
DIRECTIONS = ("feature → region", "region → feature")
METHODS = (
    "top rows, published", "top rows, best F1", "top rows, held out", "top rows, one to one",
    "members, active", "members, active, held out", "members, top feature",
    "members, top feature, held out", "5 nearest members",
)  # fmt: skip
NEAREST = 5
"""Members of a region whose strongest features are compared."""

_MATCHED_CELLS = 2**26  # one-to-one matching needs all pairs at once: half a GB
_ACTIVE_ENTRIES = 2**29  # 2 GB of active features


@dataclass(frozen=True)
class Measure:
    """One number of a comparison, and what it is by chance."""

    method: str
    """One of `METHODS`: how a unit is described, and how its partner is chosen."""
    direction: str
    """One of `DIRECTIONS`; "" where both sides are one."""
    statistic: str
    estimate: float
    nulls: Mapping[str, tuple[float, ...]]
    """By `NULLS`: a value for each seed."""


@dataclass(frozen=True)
class SAEComparison:
    """Regions and features of one site on the same rows."""

    sae: str
    basis: str
    readout: str
    rows: int
    """That took part; the dictionary's build would have kept them all."""
    dropped: int
    """Rows left out on both sides: norm outliers, or no direction."""
    top: int
    min_active: int
    seeds: tuple[int, ...]
    n_regions: int
    n_features: int
    eligible_regions: int
    """With `min_active` strictly positive activations or more."""
    eligible_features: int
    member_regions: int
    """With `min_active` members or more."""
    active_features: int
    """Active on `min_active` rows or more."""
    features_per_row: float
    """Mean number of active features."""
    measures: tuple[Measure, ...]
    feature_f1: Float64
    """(M,) best F1 of top rows among the regions; NaN where the feature is not eligible."""
    feature_partner: Int64
    """(M,) the region it is reached with; -1 where there is none."""
    region_f1: Float64
    """(K,) the same for regions."""
    region_partner: Int64
    """(K,)."""
    null_f1: Mapping[str, tuple[Float64, Float64]]
    """By `NULLS`, for the first seed: `feature_f1`, and `region_f1` of what stands for regions."""

    def measure(self, method: str, direction: str, statistic: str) -> Measure:
        """One of `measures`.

        Raises:
            ValueError: There is none of that name.
        """
        wanted = (method, direction, statistic)
        for found in self.measures:
            if (found.method, found.direction, found.statistic) == wanted:
                return found
        raise ValueError(f"no measure is called {wanted}; see the fields of `measures`")


def compare_sae(
    dictionary: Dictionary,
    sae: SparseAutoencoder,
    vectors: Any,
    *,
    basis: str = "exemplar",
    readout: str = "signed",
    top: int = 100,
    min_active: int = 20,
    seeds: int = 3,
    seed: int = 0,
) -> SAEComparison:
    """Compare regions with the features of an SAE of the same site.

    The methods:

    - "top rows": a unit is the `top` rows of its largest strictly positive activations, ties to
      the earlier row; units with fewer than `min_active` positive ones take no part. "published":
      the partner is that of the largest overlap, and units without any overlap are left out.
      "best F1": the partner is that of the largest F1, and nothing is left out. "held out": the
      partner is chosen on one half of the rows (the first or the second) and its F1 taken on the
      other, with top/2 rows each; the mean of both ways. "one to one": the matching of the
      largest total F1, as a mean over the smaller side.
    - "members": a region is the rows nearest to its exemplar, a feature the rows it is active on
      ("active") or the strongest on ("top feature"); both with `min_active` rows or more.
    - "5 nearest members": how many different strongest features the 5 members of a region
      nearest to its exemplar have; a row without any active feature counts as different.

    Memory beside `vectors`: the sets of rows, 8 bytes for each active feature of each row, and
    some hundred MB.

    Args:
        dictionary: Of the site.
        sae: Of the same site.
        vectors: (N, D) raw activations, numpy or torch, in stream order, so that the rows of a
            document are in one half.
        basis: "exemplar" or "mean": whose activations are ranked. Null directions get means too.
        readout: One of `exemplars.readout.READOUTS`: how a region's activation is computed.
        top: Rows that describe a unit.
        min_active: Rows that a unit needs to take part.
        seeds: Draws of each null.
        seed: Of the first draw.

    Returns:
        Every measure with its nulls, and the best F1 and partner of each unit.

    Raises:
        ValueError: An argument out of range, or fewer rows than regions.
        MismatchError: The widths differ.
        ActivationError: A NaN or infinite component.
    """
    _check_arguments(dictionary, vectors, readout, top, min_active, seeds)
    sae.check_width(dictionary.width)
    rows = _Rows.of(dictionary, vectors)
    if len(rows) < max(dictionary.n_regions, 2):
        raise ValueError(
            f"there are {len(rows)} rows and {dictionary.n_regions} regions; give more rows, at "
            "least one for each region"
        )
    features = _features(sae, rows, top)
    exemplars = np.asarray(dictionary.exemplars)

    def regions_of(directions: Float32, own: bool) -> _Regions:
        labels, distances, means = _nearest(directions, rows, basis == "mean" and not own)
        chosen = dictionary.basis(basis) if own else directions if means is None else means
        codes = _projections(rows, np.asarray(chosen), readout)
        return _Regions(_top_rows(codes, len(chosen), len(rows), top), labels, distances)

    regions = regions_of(exemplars, own=True)
    found, feature_best, region_best = _measure(features, regions, min_active)
    draws = range(seed, seed + seeds)
    nulls: dict[str, list[dict[tuple[str, str, str], float]]] = {name: [] for name in NULLS}
    null_f1: dict[str, tuple[Float64, Float64]] = {}
    for draw in draws:
        for name in NULLS:
            random = np.random.default_rng([draw, NULLS.index(name)])
            if name == "permuted rows":
                sides = features.permuted(random), regions
            else:
                directions = _null_directions(name, random, rows, exemplars.shape)
                sides = features, regions_of(directions, own=False)
            values, best_of_feature, best_of_region = _measure(*sides, min_active)
            nulls[name].append(values)
            null_f1.setdefault(name, (best_of_feature.f1, best_of_region.f1))
    measures = tuple(
        Measure(*key, value, {name: tuple(v[key] for v in nulls[name]) for name in NULLS})
        for key, value in found.items()
    )
    return SAEComparison(
        sae=sae.name,
        basis=basis,
        readout=readout,
        rows=len(rows),
        dropped=len(vectors) - len(rows),
        top=top,
        min_active=min_active,
        seeds=tuple(draws),
        n_regions=len(exemplars),
        n_features=sae.n_features,
        eligible_regions=int((regions.soft.positive >= min_active).sum()),
        eligible_features=int((features.soft.positive >= min_active).sum()),
        member_regions=int((_sizes(regions.members) >= min_active).sum()),
        active_features=int((_sizes(features.active) >= min_active).sum()),
        features_per_row=features.active.nnz / len(rows),
        measures=measures,
        feature_f1=feature_best.f1,
        feature_partner=feature_best.partner,
        region_f1=region_best.f1,
        region_partner=region_best.partner,
        null_f1=null_f1,
    )


def _check_arguments(
    dictionary: Dictionary, vectors: Any, readout: str, top: int, min_active: int, seeds: int
) -> None:
    for name, value, least in (("top", top, 2), ("min_active", min_active, 1), ("seeds", seeds, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected {least} or more")
    if min_active > top:
        raise ValueError(f"min_active is {min_active}, expected at most top, which is {top}")
    if readout not in _readout.READOUTS:
        known = ", ".join(_readout.READOUTS)
        raise ValueError(f'readout is "{readout}", expected one of {known}')
    if getattr(vectors, "ndim", 0) != 2:
        raise ValueError("vectors is not an array of shape (N, D); give all rows as one array")
    if not len(dictionary):
        raise ValueError("the dictionary has no regions; build it from more rows")


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows that take part, read a block at a time."""

    vectors: Any
    numbers: Int64
    center: Float32

    @classmethod
    def of(cls, dictionary: Dictionary, vectors: Any) -> _Rows:
        kept = []
        for start in range(0, len(vectors), 4096):
            block = as_vectors(vectors[start : start + 4096])
            kept.append(usable_directions(block, start, dictionary.calibration)[1])
        numbers = np.concatenate(kept) if kept else np.empty(0, np.int64)
        return cls(vectors, numbers, dictionary.center)

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Int64) -> Float32:
        """Raw vectors of some of them, (n, D)."""
        return as_vectors(self.vectors[self.numbers[rows]])

    def blocks(self, n_units: int) -> Iterator[tuple[int, Float32]]:
        """(first row, raw vectors), as many rows as codes over so many units allow for."""
        step = rows_at_once(n_units)
        for start in range(0, len(self), step):
            yield start, self.take(np.arange(start, min(start + step, len(self))))


@dataclass(frozen=True, eq=False)
class _TopRows:
    """Units by the rows of their largest activations: sparse 0/1 arrays (U, N)."""

    whole: Any
    halves: tuple[Any, Any]
    """Of half as many rows, from the first and from the second half of all rows."""
    positive: Int64
    """(U,) rows of a strictly positive activation."""


@dataclass(frozen=True, eq=False)
class _Regions:
    soft: _TopRows
    labels: Int64
    """(N,) the region of each row."""
    distances: Float32

    @property
    def members(self) -> Any:
        """Sparse 0/1 array (K, N)."""
        return _sets(self.labels, np.arange(len(self.labels)), self.soft.whole.shape)


@dataclass(frozen=True, eq=False)
class _Features:
    soft: _TopRows
    active: Any
    """Sparse 0/1 array (M, N)."""
    strongest: Int64
    """(N,) the feature of the largest activation; -1 where none is active."""

    @property
    def where_strongest(self) -> Any:
        """Sparse 0/1 array (M, N)."""
        rows = np.flatnonzero(self.strongest >= 0)
        return _sets(self.strongest[rows], rows, self.active.shape)

    def permuted(self, random: np.random.Generator) -> _Features:
        """The same features on permuted rows; a row stays in its half."""
        n = len(self.strongest)
        first = random.permutation(n // 2)
        place = np.concatenate([first, n // 2 + random.permutation(n - n // 2)])
        strongest = np.empty_like(self.strongest)
        strongest[place] = self.strongest
        soft = self.soft
        halves = (_moved(soft.halves[0], place), _moved(soft.halves[1], place))
        return _Features(
            _TopRows(_moved(soft.whole, place), halves, soft.positive),
            _moved(self.active, place),
            strongest,
        )


def _sets(units: Int64, rows: Int64, shape: tuple[int, int]) -> Any:
    """The sparse 0/1 array (U, N) of (unit, row) pairs."""
    from scipy.sparse import csr_array

    ones = np.ones(len(units), np.int32)
    return csr_array((ones, (units, rows)), shape=shape)


def _moved(sets: Any, place: Int64) -> Any:
    """Row n of the stream becomes row place[n]."""
    from scipy.sparse import csr_array

    return csr_array((sets.data, place[sets.indices], sets.indptr), shape=sets.shape)


def _sizes(sets: Any) -> Int64:
    return np.diff(sets.indptr).astype(np.int64)


def _top_rows(
    codes: Iterator[tuple[int, Float32]], n_units: int, n_rows: int, top: int
) -> _TopRows:
    """The rows of the largest activations of each unit, from blocks of codes in row order."""
    middle = n_rows // 2
    value = np.zeros((2, n_units, top), np.float32)
    row = np.full((2, n_units, top), -1, np.int64)
    least = np.zeros((2, n_units), np.float32)
    filled = np.zeros((2, n_units), np.int64)
    positive = np.zeros(n_units, np.int64)
    for start, block in codes:
        cut = int(np.clip(middle - start, 0, len(block)))
        for half, part, first in ((0, block[:cut], start), (1, block[cut:], start + cut)):
            _keep_largest(
                np.ascontiguousarray(part), first, value[half], row[half], least[half],
                filled[half], positive,
            )  # fmt: skip
    both = np.concatenate([value[0], value[1]], axis=1)
    order = np.argsort(-both, axis=1, kind="stable")[:, :top]
    rows = np.take_along_axis(np.concatenate([row[0], row[1]], axis=1), order, axis=1)

    def sets(chosen: Int64) -> Any:
        unit, place = np.nonzero(chosen >= 0)
        return _sets(unit, chosen[unit, place], (n_units, n_rows))

    fewer = (top + 1) // 2
    return _TopRows(sets(rows), (sets(row[0][:, :fewer]), sets(row[1][:, :fewer])), positive)


@compiled
def _keep_largest(
    codes: Float32,
    first_row: int,
    value: Float32,
    row: Int64,
    least: Float32,
    filled: Int64,
    positive: Int64,
) -> None:
    """Let rows compete for the places of each unit: largest first, ties to the earlier row."""
    top = value.shape[1]
    for n in range(codes.shape[0]):
        for u in range(codes.shape[1]):
            code = codes[n, u]
            if code > 0.0:
                positive[u] += 1
            if not code > least[u]:  # 0 while there is a place
                continue
            at = min(filled[u], top - 1)
            while at > 0 and value[u, at - 1] < code:
                value[u, at] = value[u, at - 1]
                row[u, at] = row[u, at - 1]
                at -= 1
            value[u, at] = code
            row[u, at] = first_row + n
            filled[u] = min(filled[u] + 1, top)
            if filled[u] == top:
                least[u] = value[u, top - 1]


def _features(sae: SparseAutoencoder, rows: _Rows, top: int) -> _Features:
    """One pass of the SAE over the rows."""
    from scipy.sparse import csr_array

    indices: list[Int32] = []
    starts = np.zeros(len(rows) + 1, np.int64)
    strongest = np.full(len(rows), -1, np.int64)

    def codes() -> Iterator[tuple[int, Float32]]:
        n_active = 0
        for start, vectors in rows.blocks(sae.n_features):
            block = sae.encode(vectors)
            row, feature = np.nonzero(block > 0)
            n_active += len(row)
            if n_active > _ACTIVE_ENTRIES:
                raise ValueError(
                    f"the SAE has {n_active / (start + len(block)):,.0f} active features a row, "
                    f"too many for {len(rows):,} rows; give fewer rows"
                )
            indices.append(feature.astype(np.int32))
            stop = start + len(block)
            starts[start + 1 : stop + 1] = np.bincount(row, minlength=len(block))
            some = block.max(axis=1) > 0
            strongest[start:stop][some] = block[some].argmax(axis=1)
            yield start, block

    soft = _top_rows(codes(), sae.n_features, len(rows), top)
    entries = np.concatenate(indices) if indices else np.empty(0, np.int32)
    shape = (len(rows), sae.n_features)
    by_row = csr_array((np.ones(len(entries), np.int32), entries, starts.cumsum()), shape=shape)
    return _Features(soft, by_row.T.tocsr(), strongest)


def _nearest(
    directions: Float32, rows: _Rows, with_means: bool
) -> tuple[Int64, Float32, Float32 | None]:
    """The nearest direction of each row, its cosine distance, and the directions' means if asked
    for: unit vectors of the sum of the rows nearest to each, NaN where there are none.
    """
    labels = np.empty(len(rows), np.int64)
    distances = np.empty(len(rows), np.float32)
    sums = np.zeros(directions.shape) if with_means else None
    index = ExemplarIndex(directions.shape[1])
    for start, vectors in rows.blocks(2048):
        x, _ = to_directions(vectors, rows.center)
        label, similarity = index.nearest(x, directions, len(rows) - start - len(x))
        labels[start : start + len(x)] = label
        distances[start : start + len(x)] = cosine_distance(similarity)
        if sums is not None:
            np.add.at(sums, label, x)
    if sums is None:
        return labels, distances, None
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    means = np.divide(sums, length, where=length > 0, out=np.full_like(sums, np.nan))
    return labels, distances, means.astype(np.float32)


def _projections(rows: _Rows, basis: Float32, readout: str) -> Iterator[tuple[int, Float32]]:
    for start, vectors in rows.blocks(len(basis)):
        codes = _readout.encode(vectors, rows.center, basis, readout)
        yield start, codes if isinstance(codes, np.ndarray) else codes.toarray()


def _null_directions(
    name: str, random: np.random.Generator, rows: _Rows, shape: tuple[int, ...]
) -> Float32:
    """As many unit vectors as there are regions: of random direction, or rows of the stream."""
    if name == "random directions":
        drawn = random.standard_normal(shape, np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    chosen = np.sort(random.choice(len(rows), shape[0], replace=False))
    return to_directions(rows.take(chosen), rows.center)[0]


@dataclass(frozen=True, eq=False)
class _Best:
    """The best partner of each unit of one side: arrays over all units."""

    f1: Float64
    """By F1; NaN for units that take no part."""
    partner: Int64
    """-1 where no partner overlaps."""
    f1_by_overlap: Float64
    """Of the partner of the largest overlap; NaN likewise."""


def _measure(
    features: _Features, regions: _Regions, min_active: int
) -> tuple[dict[tuple[str, str, str], float], _Best, _Best]:
    """All measures of one pair of sides, and the best partners by top rows of either."""
    found: dict[tuple[str, str, str], float] = {}
    sides = features.soft, regions.soft
    take_part = (sides[0].positive >= min_active, sides[1].positive >= min_active)
    best = _best(sides[0].whole, sides[1].whole, take_part)
    halves = tuple(zip(*(side.halves for side in sides), strict=True))
    held_out = _held_out(halves, take_part)
    for direction, of_side, score in zip(DIRECTIONS, best, held_out, strict=True):
        found |= _published("top rows, published", direction, of_side.f1_by_overlap)
        found |= _summary("top rows, best F1", direction, of_side.f1)
        found |= _summary("top rows, held out", direction, score)
    matched = _one_to_one(sides[0].whole, sides[1].whole, take_part)
    found |= _summary("top rows, one to one", "", matched)
    members = regions.members
    for method, sets in (
        ("members, active", features.active),
        ("members, top feature", features.where_strongest),
    ):
        found |= _hard(method, sets, members, min_active)
    found |= _coherence(regions, features.strongest)
    return found, *best


def _hard(
    method: str, sets: Any, members: Any, min_active: int
) -> dict[tuple[str, str, str], float]:
    take_part = (_sizes(sets) >= min_active, _sizes(members) >= min_active)
    middle = sets.shape[1] // 2
    halves = (
        (sets[:, :middle], members[:, :middle]),
        (sets[:, middle:], members[:, middle:]),
    )
    found: dict[tuple[str, str, str], float] = {}
    best, held_out = _best(sets, members, take_part), _held_out(halves, take_part)
    for direction, of_side, score in zip(DIRECTIONS, best, held_out, strict=True):
        found |= _summary(method, direction, of_side.f1)
        found |= _summary(f"{method}, held out", direction, score)
    return found


def _summary(method: str, direction: str, f1: Float64) -> dict[tuple[str, str, str], float]:
    taking_part = f1[~np.isnan(f1)]
    some = len(taking_part) > 0
    return {
        (method, direction, name): float(function(taking_part)) if some else float("nan")
        for name, function in _STATISTICS.items()
    }


_STATISTICS: Mapping[str, Callable[[Any], Any]] = {
    "mean F1": np.mean,
    "median F1": np.median,
    "F1 > 0.5": lambda f1: np.mean(f1 > 0.5),
    "F1 > 0.3": lambda f1: np.mean(f1 > 0.3),
}


def _published(method: str, direction: str, f1: Float64) -> dict[tuple[str, str, str], float]:
    """As `_summary`, without the units that overlap with nothing, and the share of these."""
    dropped = float(np.mean(f1[~np.isnan(f1)] == 0)) if (~np.isnan(f1)).any() else float("nan")
    found = _summary(method, direction, f1[f1 > 0])
    return {**found, (method, direction, "left out, no overlap"): dropped}


def _best(a: Any, b: Any, take_part: tuple[Any, Any]) -> tuple[_Best, _Best]:
    """The best partner of each unit of either side among those of the other that take part.

    Overlaps are computed for a block of units of `a` at a time; ties go to the lower number.
    """
    numbers = tuple(np.flatnonzero(chosen) for chosen in take_part)
    a, b = a[numbers[0]], b[numbers[1]]
    size_a, size_b = _sizes(a), _sizes(b)
    across = b.T.tocsr()
    f1 = tuple(np.zeros(len(n)) for n in numbers)
    overlap = tuple(np.zeros(len(n), np.int64) for n in numbers)
    partner = tuple(np.full(len(n), -1, np.int64) for n in numbers)
    by_overlap = tuple(np.zeros(len(n)) for n in numbers)
    step = max(1, CELLS // max(len(size_b), 1))
    for start in range(0, len(size_a) if len(size_b) else 0, step):
        part = slice(start, start + step)
        shared = (a[part] @ across).toarray()
        score = 2.0 * shared / np.maximum(size_a[part, None] + size_b, 1)
        unit = np.arange(len(shared))
        for side, place, values in (
            (0, slice(start, start + len(shared)), (score, shared)),
            (1, slice(None), (score.T, shared.T)),
        ):
            other = 1 - side
            shift = start if side else 0
            each = unit if not side else np.arange(len(size_b))
            chosen = values[0].argmax(axis=1)
            better = values[0][each, chosen] > f1[side][place]
            f1[side][place] = np.where(better, values[0][each, chosen], f1[side][place])
            named = numbers[other][chosen + shift]
            partner[side][place] = np.where(better, named, partner[side][place])
            most = values[1].argmax(axis=1)
            more = values[1][each, most] > overlap[side][place]
            overlap[side][place] = np.where(more, values[1][each, most], overlap[side][place])
            by_overlap[side][place] = np.where(more, values[0][each, most], by_overlap[side][place])
    first, second = (
        _Best(
            _spread(f1[side], numbers[side], len(take_part[side]), np.nan),
            _spread(partner[side], numbers[side], len(take_part[side]), -1),
            _spread(by_overlap[side], numbers[side], len(take_part[side]), np.nan),
        )
        for side in (0, 1)
    )
    return first, second


def _spread(values: Any, numbers: Int64, n: int, missing: Any) -> Any:
    """Values of some units as an array over all n."""
    spread = np.full(n, missing, values.dtype)
    spread[numbers] = values
    return spread


def _held_out(halves: Any, take_part: tuple[Any, Any]) -> tuple[Float64, Float64]:
    """F1 on one half of the rows with the partner of the best F1 on the other, mean of both ways.

    Args:
        halves: (first, second), each (sets of a, sets of b).
        take_part: Of a and of b.
    """
    total = [np.zeros(len(chosen)) for chosen in take_part]
    for chosen_on, taken_on in (halves, halves[::-1]):
        for side, best in enumerate(_best(chosen_on[0], chosen_on[1], take_part)):
            own, others = taken_on[side], taken_on[1 - side]
            partner = np.maximum(best.partner, 0)
            shared = np.asarray(own.multiply(others[partner]).sum(axis=1)).ravel()
            f1 = 2.0 * shared / np.maximum(_sizes(own) + _sizes(others)[partner], 1)
            total[side] += np.where(best.partner >= 0, f1, 0.0) / 2
    for side in (0, 1):
        total[side][~take_part[side]] = np.nan
    return total[0], total[1]


def _one_to_one(a: Any, b: Any, take_part: tuple[Any, Any]) -> Float64:
    """F1 of the pairs of the matching of the largest total F1; empty where it would take too much
    memory.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = a[np.flatnonzero(take_part[0])], b[np.flatnonzero(take_part[1])]
    if not 0 < a.shape[0] * b.shape[0] <= _MATCHED_CELLS:
        return np.empty(0)
    f1 = (a @ b.T).toarray() * 2.0
    f1 /= np.maximum(_sizes(a)[:, None] + _sizes(b), 1)
    pairs = linear_sum_assignment(f1, maximize=True)
    return f1[pairs]


def _coherence(regions: _Regions, strongest: Int64) -> dict[tuple[str, str, str], float]:
    order = np.lexsort((np.arange(len(strongest)), regions.distances, regions.labels))
    label = regions.labels[order]
    first = np.flatnonzero(np.diff(label, prepend=-1))
    size = np.diff(first, append=len(label))
    first = first[size >= NEAREST]
    # A row without an active feature is like no other.
    feature = np.where(strongest >= 0, strongest, -1 - np.arange(len(strongest)))
    nearest = np.sort(feature[order[first[:, None] + np.arange(NEAREST)]], axis=1)
    different = 1 + (np.diff(nearest, axis=1) != 0).sum(axis=1)
    some = len(different) > 0
    method = "5 nearest members"
    return {
        (method, "", "all of one feature"): float((different == 1).mean()) if some else np.nan,
        (method, "", "features"): float(different.mean()) if some else np.nan,
    }
