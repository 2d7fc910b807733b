"""Exact slices: the partition of all D dimensions, cut with a subspace of three.

With U (D, 3) orthonormal and p_k = Uᵀe_k, not normalised, the cosine of the exemplar e_k with the
direction Uy is p_k·y. So the region that owns Uy is the arg-max of p_k·y, the support function of
the convex hull of the p_k, and only its corners own anything. Uy lies inside a region's radius
where the maximum is at least 1 − θ. Nothing is approximated but the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.explorer.sphere import projected
from exemplars.geometry import Float32, Float64, Int64

SAMPLES = 20_000
PORTRAIT = 32
"""Nearest exemplars that a portrait is laid through."""
_FLAT = 1e-9


@dataclass(frozen=True, eq=False)
class Slice:
    """The cells of a slice."""

    regions: Int64
    """(n,) that own a cell."""
    points: Float64
    """(n, 3) their p_k."""
    caps: Float64
    """(n, 4) see `hull_cells`."""
    basis: Float32
    """(3, D) orthonormal rows, the transpose of U."""
    covered: float
    """Share of the sphere inside a region's radius."""
    area: Float64
    """(n,) share of the sphere that each owns."""


def cut(exemplars: Float32, basis: Float32, threshold: float) -> Slice:
    """Cut the partition with the span of three orthonormal rows.

    Args:
        exemplars: (K, D) unit directions, K at least 1.
        basis: (3, D).
        threshold: θ, a cosine distance.

    Shares are of 20,000 directions spread evenly over the sphere.
    """
    p = projected(exemplars, basis)
    corners, caps = hull_cells(p)
    directions = spread(SAMPLES)
    owner = np.empty(SAMPLES, np.int64)
    largest = np.empty(SAMPLES)
    for start in range(0, SAMPLES, 2000):
        heights = directions[start : start + 2000] @ p[corners].T
        owner[start : start + 2000] = heights.argmax(axis=1)
        largest[start : start + 2000] = heights.max(axis=1)
    area = np.bincount(owner, minlength=len(corners)) / SAMPLES
    covered = float((largest >= 1 - threshold).mean())
    return Slice(corners, p[corners], caps, basis, covered, area)


def hull_cells(points: Float64) -> tuple[Int64, Float64]:
    """What owns the directions: corners of the convex hull of points, and caps round their cells.

    Whatever the direction, one of the corners is the farthest along it. A corner's cell is the cone
    of the normals of the facets that meet in it.

    Args:
        points: (K, 3); they may be flat, or coincide.

    Returns:
        corners: (n,) ascending.
        caps: (n, 4) a unit direction inside the cell, and the chord radius of a cap round it that
            holds the cell, rounded up; 2, which is everything, where no smaller cap is sure to.
    """
    from scipy.spatial import ConvexHull, QhullError

    middle = points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(points - middle, full_matrices=False)
    rank = int((sizes > _FLAT * max(1.0, float(np.abs(points).max()))).sum())
    if len(points) == 1 or rank == 0:
        return _everywhere(np.zeros(1, np.int64))
    if rank == 3:
        try:
            return _cells_of(ConvexHull(points), points)
        except QhullError:
            rank = 2
    flat = (points - middle) @ axes[:rank].T
    if rank == 2:
        try:
            return _everywhere(np.sort(ConvexHull(flat).vertices).astype(np.int64))
        except QhullError:
            rank = 1
    ends = np.unique([flat[:, 0].argmin(), flat[:, 0].argmax()])
    return _everywhere(ends.astype(np.int64))


def _cells_of(hull: Any, points: Float64) -> tuple[Int64, Float64]:
    normals, facets = hull.equations[:, :3], hull.simplices
    centers = np.zeros_like(points)
    for k in range(3):
        np.add.at(centers, facets[:, k], normals)
    lengths = np.linalg.norm(centers, axis=1)
    centers /= np.where(lengths > 0, lengths, 1)[:, None]
    radius = np.zeros(len(points))
    for k in range(3):
        reach = np.linalg.norm(normals - centers[facets[:, k]], axis=1)
        np.maximum.at(radius, facets[:, k], reach)
    corners = np.unique(facets).astype(np.int64)
    radius = radius[corners] * (1 + 1e-5) + 1e-6
    # A cap holds the cone of what it holds if it is less than half of the sphere.
    sure = (radius < 1.41) & (lengths[corners] > 1e-9)
    caps = np.c_[centers[corners], np.where(sure, radius, 2.0)]
    caps[lengths[corners] <= 1e-9, :3] = [0.0, 0.0, 1.0]
    return corners, caps


def _everywhere(corners: Int64) -> tuple[Int64, Float64]:
    return corners, np.tile([0.0, 0.0, 1.0, 2.0], (len(corners), 1))


def spread(n: int) -> Float64:
    """(n, 3) unit vectors spread evenly over the sphere: a Fibonacci lattice."""
    k = np.arange(n) + 0.5
    z = 1 - 2 * k / n
    angle = np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z**2)
    return np.c_[ring * np.cos(angle), ring * np.sin(angle), z]


def through(directions: Float32) -> Float32:
    """(3, D) orthonormal rows that span three directions, the first of them kept as it is.

    Raises:
        ValueError: They span fewer than three dimensions.
    """
    if directions.shape[0] != 3 or directions.shape[1] < 3:
        raise ValueError(
            f"a slice needs 3 directions of 3 dimensions or more, and was given "
            f"{directions.shape[0]} of {directions.shape[1]}"
        )
    rows = np.asarray(directions, np.float64)
    q, r = np.linalg.qr(rows.T)
    if np.abs(np.diag(r)).min() < 1e-5 * max(np.abs(np.diag(r)).max(), 1e-30):
        raise ValueError(
            "the three directions lie in one plane; choose regions that differ, or another basis"
        )
    return (q * np.sign(np.diag(r))).T.astype(np.float32)


def around(exemplars: Float32, region: int, nearest: Int64) -> Float32:
    """(3, D) the basis of a portrait: an exemplar, and where its nearest exemplars differ most.

    The two directions are the leading ones of the nearest exemplars' differences from it, its own
    direction taken out.

    Args:
        exemplars: (K, D) unit directions.
        region: Whose portrait.
        nearest: (n,) the nearest others; `PORTRAIT` of them are enough.

    Raises:
        ValueError: There are too few regions, or they span too little.
    """
    own = np.asarray(exemplars[region], np.float64)
    away = np.asarray(exemplars[nearest], np.float64) - own
    away -= np.outer(away @ own, own)
    axes = np.linalg.svd(away, full_matrices=False)[2][:2]
    if len(axes) < 2:
        raise ValueError("a portrait needs two other regions, and there are fewer; see the list")
    return through(np.stack([own, *axes]).astype(np.float32))


def random_basis(width: int, seed: int) -> Float32:
    """(3, D) orthonormal rows drawn evenly."""
    rows = np.random.default_rng(seed).standard_normal((3, width)).astype(np.float32)
    return through(rows)


def gram(directions: Float32 | None) -> list[list[float]] | None:
    """Inner products of the named directions of a slice; None if it has none."""
    if directions is None:
        return None
    rows = np.asarray(directions, np.float64)
    found: list[list[float]] = (rows @ rows.T).tolist()
    return found


def components(axes: Float32, numbers: Sequence[int]) -> Float32:
    """(3, D) some of the principal axes.

    Raises:
        ValueError: Not three different ones that there are.
    """
    if len(numbers) != 3 or len(set(numbers)) != 3 or not all(0 <= n < len(axes) for n in numbers):
        raise ValueError(
            f"the components are {list(numbers)}, expected three different ones from 0 to "
            f"{len(axes) - 1}"
        )
    return axes[list(numbers)]
