"""Readouts: an activation as a code over regions, and a code back as an activation.

With x_c = x − c, x̂ = x_c/‖x_c‖ and b_i the basis direction of region i (its exemplar or mean):

| readout      | code                                              |
|--------------|---------------------------------------------------|
| `topk`       | max(0, x_c·b_i) for the k largest, else 0         |
| `signed`     | x_c·b_i                                           |
| `cosine`     | x̂·b_i                                             |
| `topk_norm`  | max(0, x̂·b_i) for the k largest, else 0           |
| `binary`     | 1 for the nearest region, else 0                  |

Decoding is codes · B + c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exemplars.geometry import Float32, Float64, Int64, check_finite, to_directions
from exemplars.nearest import nearest

READOUTS = ("topk", "signed", "cosine", "topk_norm", "binary")
_ROWS = 1024


def encode(
    vectors: Float32, center: Float32, basis: Float32, readout: str = "topk", k: int = 1
) -> Any:
    """Codes of raw vectors.

    Args:
        vectors: (N, D) float32.
        center: (D,) float32.
        basis: (K, D) unit rows; a row of NaN (a region without members) codes as 0.
        readout: One of `READOUTS`.
        k: Entries kept by "topk" and "topk_norm"; 1 for "binary".

    Returns:
        (N, K) float32: dense for "signed" and "cosine", `scipy.sparse.csr_array` otherwise.
        With k = 1 the entry is the exactly nearest region's; with more, the choice among nearly
        equal projections is float32's. A row without a direction codes as zeros.

    Raises:
        ValueError: An unknown readout, or k out of range.
        ActivationError: A NaN or infinite component.
    """
    if readout not in READOUTS:
        raise ValueError(f'readout is "{readout}", expected one of {", ".join(READOUTS)}')
    if not 1 <= k <= max(len(basis), 1):
        raise ValueError(f"k is {k}, expected 1 to {len(basis)}, the number of regions")
    if readout == "binary" and k != 1:
        raise ValueError(f"k is {k}, but the binary readout marks exactly 1 region")
    directions, norms = to_directions(vectors, center)
    check_finite(norms)
    usable: Any = np.isfinite(basis).all(axis=1)
    rows = np.where(usable[:, None], basis, np.float32(0))
    if readout in ("signed", "cosine"):
        codes = directions @ rows.T
        if readout == "signed":
            codes *= norms[:, None].astype(np.float32)
        return codes
    scale = norms if readout == "topk" else np.ones(len(directions))
    return _sparse(directions, rows, usable, scale, readout, k)


def decode(codes: Any, center: Float32, basis: Float32) -> Float32:
    """Raw vectors of codes: (N, K) dense or sparse -> (N, D) float32."""
    rows = np.where(np.isfinite(basis), basis, np.float32(0))
    return np.asarray(codes @ rows, np.float32) + center


def _sparse(
    directions: Float32, basis: Float32, usable: Any, scale: Float64, readout: str, k: int
) -> Any:
    from scipy.sparse import csr_array

    chosen, similarity = _largest(directions, basis, usable, k)
    values = (similarity * scale[:, None]).astype(np.float32)
    if readout == "binary":
        values = np.ones_like(values)
    values[~directions.any(axis=1)] = 0.0
    np.maximum(values, 0.0, out=values)
    starts = np.arange(len(directions) + 1) * chosen.shape[1]
    codes = csr_array((values.ravel(), chosen.ravel(), starts), shape=(len(directions), len(basis)))
    codes.eliminate_zeros()
    codes.sort_indices()
    return codes


def _largest(directions: Float32, basis: Float32, usable: Any, k: int) -> tuple[Int64, Float64]:
    """The k basis rows of the largest projection, and the projections: (N, k) each."""
    numbers = np.flatnonzero(usable)
    k = min(k, len(numbers))
    candidates = np.ascontiguousarray(basis[numbers])
    if k == 1:
        region, similarity = nearest(directions, candidates)
        return numbers[region][:, None], similarity[:, None]
    chosen = np.empty((len(directions), k), np.int64)
    largest = np.empty((len(directions), k), np.float64)
    for start in range(0, len(directions), _ROWS):
        products = directions[start : start + _ROWS] @ candidates.T
        best = np.argpartition(-products, k - 1, axis=1)[:, :k]
        chosen[start : start + _ROWS] = numbers[best]
        largest[start : start + _ROWS] = np.take_along_axis(products, best, axis=1)
    return chosen, largest
