"""Screening with a float32 product of all components.

Let a_j be the float32 product of a direction with exemplar j and s_j the canonical similarity:
|a_j − s_j| <= ε (`geometry.gemm_band`). So a_j + ε is an upper bound, and only exemplars for which
it reaches the best similarity so far are compared canonically: usually one.
"""

from __future__ import annotations

import numpy as np

from exemplars.geometry import Float32, Float64, Int64, gemm_band
from exemplars.nearest.scanning import BLOCK, scan_products

_TILE = (1024, 4096)
"""Rows and exemplars of one product."""


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
) -> int:
    """Let exemplars compete with what each row has: `region` and `similarity` are updated.

    A row changes only for a larger canonical similarity, or an equal one of an earlier region.

    Args:
        directions: (N, D) float32.
        exemplars: (K, D) float32, the regions first_region, first_region + 1, ...
        first_region: Index of the first of them.
        region: (N,) int64, written; -1 where a row has nothing.
        similarity: (N,) float64, canonical, -inf where a row has nothing; written.
        born: (K,) the row (index into `directions`) that each exemplar is, ascending; rows up to
            and including it are not offered it. None: every row is offered all.

    Returns:
        Canonical similarities computed.
    """
    return offer_products(
        directions, exemplars, gemm_band(directions.shape[1]),
        directions, exemplars, first_region, region, similarity, born,
    )  # fmt: skip


def offer_products(
    left: Float32,
    right: Float32,
    slack: float,
    directions: Float32,
    exemplars: Float32,
    first_region: int,
    region: Int64,
    similarity: Float64,
    born: Int64 | None = None,
    tile: tuple[int, int] | None = None,
) -> int:
    """As `offer`, where the float32 product of `left` and `right` plus `slack` is a bound.

    Args:
        left: (N, d) float32, of the directions.
        right: (K, d) float32, of the exemplars.
        slack: s(i, j) <= left[i] · right[j] + slack.
        directions: See `offer`, as what follows.
        exemplars: See there.
        first_region: See there.
        region: See there.
        similarity: See there.
        born: See there.
        tile: Rows and exemplars of one product.
    """
    n_rows, n_columns = tile or _TILE
    # An odd number of blocks: rows a power of 2 apart would push each other out of the caches.
    room = (-(-min(n_columns, len(right)) // BLOCK) | 1) * BLOCK
    product = np.empty((min(n_rows, len(left)), room), np.float32)
    checks = 0
    for start in range(0, len(left), n_rows):
        part = slice(start, start + n_rows)
        rows = left[part]
        offered = len(right)
        stops = np.full(len(rows), offered)
        if born is not None:
            stops = np.searchsorted(born, np.arange(start, start + len(rows)))
            offered = int(stops[-1])
        for first in range(0, offered, n_columns):
            panel = right[first : first + n_columns]
            np.matmul(rows, panel.T, out=product[: len(rows), : len(panel)])
            checks += scan_products(
                product, len(panel), np.clip(stops - first, 0, len(panel)), slack,
                directions[part], exemplars, first, first_region, region[part], similarity[part],
            )  # fmt: skip
    return checks
