"""Two sets of directions, matched one to one.

Up to `HUNGARIAN_REGIONS` on each side the matching is the one of the largest sum of cosines. Above
that it is the greedy one (of what is left, the pair of the largest cosine), found through pairs
that are each other's nearest, without ever holding all cosines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int64, canonical_similarity

HUNGARIAN_REGIONS = 5_000
"""Directions on the larger side up to which "auto" is "hungarian"."""
METHODS = ("auto", "hungarian", "greedy")

_CANDIDATES = 16
"""Nearest directions of the other side that a pass of the greedy matching keeps."""
_CELLS = 1 << 24
"""Cosines held at once by the greedy matching: 64 MB."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Pairs of directions, at most one for each direction of either side."""

    pairs: Int64
    """(P, 2) index in a, index in b; ascending in a."""
    cosines: Float64
    """(P,) of each pair, in [-1, 1]."""
    unpaired_a: Int64
    """Ascending indices of a without a partner; those without a direction are among them."""
    unpaired_b: Int64
    method: str
    """"hungarian" (largest sum of cosines) or "greedy" (largest cosine first)."""

    @property
    def partner_of_a(self) -> Int64:
        """(K_a,) index in b; -1 where there is none."""
        return _partners(self.pairs[:, 0], self.pairs[:, 1], self.unpaired_a)

    @property
    def partner_of_b(self) -> Int64:
        """(K_b,) index in a; -1 where there is none."""
        return _partners(self.pairs[:, 1], self.pairs[:, 0], self.unpaired_b)

    @property
    def cosine_of_a(self) -> Float64:
        """(K_a,) cosine with the partner; NaN where there is none."""
        return _by_index(self.pairs[:, 0], self.cosines, self.unpaired_a)

    @property
    def cosine_of_b(self) -> Float64:
        """(K_b,) cosine with the partner; NaN where there is none."""
        return _by_index(self.pairs[:, 1], self.cosines, self.unpaired_b)


def match_directions(a: Float32, b: Float32, method: str = "auto") -> Matching:
    """Match two sets of unit directions one to one.

    All that have a direction on the smaller side are paired, however low the cosine: it is for the
    caller to say from which cosine on a pair means something.

    Args:
        a: (K_a, D) float32 unit directions; a row that is NaN or zero is never paired.
        b: (K_b, D) likewise.
        method: "hungarian", which holds all K_a · K_b cosines; "greedy", which does not, with ties
            (of up to 16 equal ones) to the lower index of a, then of b; or "auto": the first up to
            `HUNGARIAN_REGIONS` directions on the larger side.

    Returns:
        The pairs and the method that found them. The same arrays give the same answer.

    Raises:
        ValueError: Different widths, or an unknown method.
    """
    a, b = (np.ascontiguousarray(side, np.float32) for side in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"directions have shapes {a.shape} and {b.shape}, expected (K, D) with one width; "
            "directions of different spaces can be compared by shared rows only"
        )
    if method not in METHODS:
        raise ValueError(f'method is "{method}", expected one of {", ".join(METHODS)}')
    if method == "auto":
        method = "hungarian" if max(len(a), len(b)) <= HUNGARIAN_REGIONS else "greedy"
    usable_a, usable_b = np.flatnonzero(_has_length(a)), np.flatnonzero(_has_length(b))
    match = _hungarian if method == "hungarian" else _greedy
    i, j = match(a[usable_a], b[usable_b])
    order = np.argsort(i)
    pairs = np.stack([usable_a[i[order]], usable_b[j[order]]], axis=1)
    return Matching(
        pairs=pairs,
        cosines=np.clip(canonical_similarity(a, b, pairs[:, 0], pairs[:, 1]), -1.0, 1.0),
        unpaired_a=np.setdiff1d(np.arange(len(a)), pairs[:, 0]),
        unpaired_b=np.setdiff1d(np.arange(len(b)), pairs[:, 1]),
        method=method,
    )


def _has_length(directions: Float32) -> NDArray[np.bool_]:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("kd,kd->k", directions, directions)
    return np.isfinite(squares) & (squares > 0)


def _hungarian(a: Float32, b: Float32) -> tuple[Int64, Int64]:
    from scipy.optimize import linear_sum_assignment

    # In float64 the order of summation does not decide between pairs.
    rows, columns = linear_sum_assignment(a.astype(float) @ b.astype(float).T, maximize=True)
    return rows.astype(np.int64), columns.astype(np.int64)


def _greedy(a: Float32, b: Float32) -> tuple[Int64, Int64]:
    """The largest cosine first, as pairs that are each other's best among what is left.

    Each pass looks up the best few candidates of every direction that is left. While the first
    free candidate of a direction is in its list, it is its best among all that are free.
    """
    left_a, left_b = np.arange(len(a)), np.arange(len(b))
    found: list[tuple[Int64, Int64]] = []
    while len(left_a) and len(left_b):
        part_a, part_b = a[left_a], b[left_b]
        i, j = _mutual_pairs(_candidates(part_a, part_b), _candidates(part_b, part_a))
        found.append((left_a[i], left_b[j]))
        left_a, left_b = np.delete(left_a, i), np.delete(left_b, j)
    empty = np.empty(0, np.int64)
    return (
        np.concatenate([empty, *(i for i, _ in found)]),
        np.concatenate([empty, *(j for _, j in found)]),
    )


def _candidates(a: Float32, b: Float32) -> tuple[Int64, Float64]:
    """(K_a, m) the nearest of b for each of a, best first, ties to the lower index; cosines."""
    m = min(_CANDIDATES, len(b))
    step = max(1, _CELLS // len(b))
    columns = np.empty((len(a), m), np.int64)
    for start in range(0, len(a), step):
        cosines = a[start : start + step] @ b.T
        columns[start : start + step] = np.argpartition(-cosines, m - 1, axis=1)[:, :m]
    columns.sort(axis=1)
    rows = np.repeat(np.arange(len(a)), m)
    cosines = canonical_similarity(a, b, rows, columns.ravel()).reshape(len(a), m)
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1), np.take_along_axis(cosines, order, 1)


def _mutual_pairs(of_a: tuple[Int64, Float64], of_b: tuple[Int64, Float64]) -> tuple[Int64, Int64]:
    """Pairs that are each other's best, until the lists of candidates say no more."""
    (names_b, cosines), (names_a, _) = of_a, of_b
    free_a, free_b = np.ones(len(names_b), np.bool_), np.ones(len(names_a), np.bool_)
    found: list[tuple[Int64, Int64]] = []
    while True:
        best_of_a, best_of_b = _first_free(names_b, free_b), _first_free(names_a, free_a)
        i = np.flatnonzero(free_a & (best_of_a >= 0))
        i = i[best_of_b[best_of_a[i]] == i]
        if not len(i):
            break
        j = best_of_a[i]
        free_a[i], free_b[j] = False, False
        found.append((i, j))
    if not found:  # equal cosines in a circle, or more of them than a list holds
        first = int(cosines[:, 0].argmax())
        found.append((np.array([first]), names_b[first, :1]))
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _first_free(names: Int64, free: NDArray[np.bool_]) -> Int64:
    """(K,) the first candidate that is free; -1 where none in the list is."""
    is_free = free[names]
    first = np.take_along_axis(names, is_free.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(is_free.any(axis=1), first, -1)


def _partners(own: Int64, other: Int64, unpaired: Int64) -> Int64:
    partner = np.full(len(own) + len(unpaired), -1, np.int64)
    partner[own] = other
    return partner


def _by_index(own: Int64, values: Float64, unpaired: Int64) -> Float64:
    of_each = np.full(len(own) + len(unpaired), np.nan)
    of_each[own] = values
    return of_each
