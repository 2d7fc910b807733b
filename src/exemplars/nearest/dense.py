"""Exact nearest exemplar by a float32 product and a canonical re-check.

Let a_j be the float32 product of a direction with exemplar j and s_j the canonical similarity:
|a_j − s_j| <= ε (`geometry.gemm_band`). If j is the nearest, then for every k
a_j >= s_j − ε >= s_k − ε >= a_k − 2ε. So only exemplars within 2ε of the largest product can be
the nearest; those, usually one, are compared canonically.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int64, canonical_dot, compiled, gemm_band

_ROWS = 512
_EXEMPLARS = 1024


def nearest(directions: Float32, exemplars: Float32) -> tuple[Int64, Float64]:
    """The exemplar of the largest canonical similarity, for each direction.

    Args:
        directions: (N, D) float32, unit length.
        exemplars: (K, D) float32, unit length; K may be 0.

    Returns:
        region: (N,) int64, ties to the lower index; -1 where K is 0.
        similarity: (N,) float64, canonical; -inf where K is 0.
    """
    region = np.full(len(directions), -1, np.int64)
    similarity = np.full(len(directions), -np.inf)
    offer(directions, exemplars, 0, region, similarity)
    return region, similarity


def offer(
    directions: Float32,
    exemplars: Float32,
    first_region: int,
    region: Int64,
    similarity: Float64,
    born: Int64 | None = None,
) -> None:
    """Let exemplars compete with what each row has: `region` and `similarity` are updated.

    A row changes only for a larger canonical similarity, so among equals the earlier stays.

    Args:
        directions: (N, D) float32.
        exemplars: (K, D) float32, the regions first_region, first_region + 1, ...
        first_region: Index of the first of them, larger than any index in `region`.
        region: (N,) int64, written.
        similarity: (N,) float64, canonical, -inf where a row has nothing; written.
        born: (K,) the row (index into `directions`) that each exemplar is; rows up to and
            including it are not offered it. None: every row is offered all.
    """
    band = 2.0 * gemm_band(directions.shape[1])
    product = np.empty((min(_ROWS, len(directions)), min(_EXEMPLARS, len(exemplars))), np.float32)
    for start in range(0, len(directions), _ROWS):
        rows = directions[start : start + _ROWS]
        largest = np.empty(len(rows), np.float64)
        np.subtract(similarity[start : start + _ROWS], 0.5 * band, out=largest)
        candidates = np.empty((2, 4096), np.int32)
        values = np.empty(4096, np.float32)
        count = 0
        for first in range(0, len(exemplars), _EXEMPLARS):
            panel = exemplars[first : first + _EXEMPLARS]
            out = product[: len(rows), : len(panel)]
            np.matmul(rows, panel.T, out=out)
            birth = _NEVER if born is None else born[first : first + _EXEMPLARS] - start
            candidates, values, count = _screen(
                out, first, birth, band, largest, candidates, values, count
            )
        _recheck(
            rows,
            exemplars,
            candidates[:, :count],
            values[:count],
            largest,
            band,
            first_region,
            region[start : start + _ROWS],
            similarity[start : start + _ROWS],
        )


_NEVER: Int64 = np.empty(0, np.int64)


@compiled
def _screen(
    product: Float32,
    first: int,
    born: Int64,
    band: float,
    largest: Float64,
    candidates: NDArray[np.int32],
    values: Float32,
    count: int,
) -> tuple[NDArray[np.int32], Float32, int]:
    """Append the (row, column) pairs within `band` of the row's largest product so far."""
    n_rows, n_columns = product.shape
    ordered = born.shape[0] > 0
    # Floats above 0 are ordered as their bits are, and bits below 0 belong to floats below 0. The
    # compiler makes vectors of an integer maximum, and of a float one it does not.
    bits = product.view(np.int32)
    floor = np.zeros(1, np.float32)
    floor_bits = floor.view(np.int32)
    for r in range(n_rows):
        floor[0] = largest[r] - band - 1e-6  # and so rounded down
        stop = n_columns
        if ordered:  # births ascend: later exemplars are not offered to this row
            while stop > 0 and born[stop - 1] >= r:
                stop -= 1
        for c0 in range(0, stop, 128):
            c1 = min(stop, c0 + 128)
            if floor[0] > 0:
                top = bits[r, c0]
                for c in range(c0, c1):
                    top = max(top, bits[r, c])
                if top < floor_bits[0]:
                    continue
            block = product[r, c0]
            for c in range(c0, c1):
                block = max(block, product[r, c])
            if np.float64(block) < largest[r] - band:
                continue
            largest[r] = max(largest[r], np.float64(block))
            limit = largest[r] - band
            floor[0] = limit - 1e-6
            for c in range(c0, c1):
                if np.float64(product[r, c]) >= limit:
                    if count == values.shape[0]:
                        more = np.empty((2, 2 * count), np.int32)
                        more[:, :count] = candidates
                        candidates = more
                        more_values = np.empty(2 * count, np.float32)
                        more_values[:count] = values
                        values = more_values
                    candidates[0, count] = r
                    candidates[1, count] = first + c
                    values[count] = product[r, c]
                    count += 1
    return candidates, values, count


@compiled
def _recheck(
    directions: Float32,
    exemplars: Float32,
    candidates: NDArray[np.int32],
    values: Float32,
    largest: Float64,
    band: float,
    first_region: int,
    region: Int64,
    similarity: Float64,
) -> None:
    for k in range(values.shape[0]):
        r = candidates[0, k]
        if np.float64(values[k]) >= largest[r] - band:
            s = canonical_dot(directions[r], exemplars[candidates[1, k]])
            if s > similarity[r]:
                similarity[r] = s
                region[r] = first_region + candidates[1, k]
