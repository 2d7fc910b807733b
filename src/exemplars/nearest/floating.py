"""Screening with a float32 product of few coordinates: for processors without byte products.

With coordinates a of a row and b of an exemplar on d' of D axes and ρ their lengths outside,
s(x, e) <= a·b + ρ_x ρ_e + slack (docs/method.md). As ρ is one coordinate more, the product of
d' + 1 coordinates is the bound.
"""

from __future__ import annotations

import numpy as np

from exemplars.geometry import Float32, Float64, Int64, gemm_band
from exemplars.nearest.dense import offer_products
from exemplars.nearest.rotation import Rotation
from exemplars.nearest.scanning import enlarged

_TILE = (512, 16384)
"""Wide: the best exemplar of the first tile is what the others must reach."""


class FloatScreen:
    """What is kept of exemplars to bound similarities with.

    Args:
        rotation: Of a prefix.
    """

    def __init__(self, rotation: Rotation) -> None:
        self.rotation = rotation
        self.n = 0
        self._kept = np.empty((0, rotation.width + 1), np.float32)
        # Coordinates err by δ on both sides; the product by γ of vectors at most `longest` long,
        # twice that once ρ is among them.
        self._slack = (
            rotation.slack
            + 2.1 * rotation.rounding * rotation.longest
            + 2.0 * gemm_band(rotation.width + 1) * rotation.longest**2
        )

    def append(self, exemplars: Float32) -> None:
        """Take in the exemplars that come next."""
        needed = self.n + len(exemplars)
        if needed > len(self._kept):
            self._kept = enlarged(self._kept, max(needed, 2 * len(self._kept)))
        for first in range(0, len(exemplars), 8192):
            part = np.asarray(exemplars[first : first + 8192])
            self._kept[self.n + first : self.n + first + len(part)] = self._extended(part)
        self.n = needed

    def _extended(self, directions: Float32) -> Float32:
        """(n, d' + 1): coordinates, and the length outside, rounded up."""
        coordinates = self.rotation.coordinates(directions)
        outside = self.rotation.outside(coordinates) * (1.0 + 2.0**-22)
        return np.concatenate([coordinates, outside[:, None].astype(np.float32)], axis=1)

    def offer(
        self,
        directions: Float32,
        exemplars: Float32,
        region: Int64,
        similarity: Float64,
        threads: int = 1,
    ) -> tuple[int, int]:
        """Let exemplars, the first ones taken in, compete; 0, and how many were compared."""
        return 0, offer_products(
            self._extended(directions), self._kept[: len(exemplars)], self._slack,
            directions, exemplars, 0, region, similarity, tile=_TILE,
        )  # fmt: skip

    def upper_bounds(self, directions: Float32, regions: Int64) -> Float64:
        """(n,) bound of each direction's similarity with one exemplar."""
        left, right = self._extended(directions), self._kept[regions]
        return np.einsum("nd,nd->n", left, right).astype(np.float64) + self._slack
