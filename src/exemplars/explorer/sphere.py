"""The projected sphere: exemplars as points on a sphere, and what it takes to draw their cells.

Every region is a point u_k, the unit direction of its exemplar's first three principal
coordinates. A splat of chord radius r_k round u_k, where r_k reaches the farthest corner of the
Voronoi cell of u_k, covers the cell; drawing all splats with depth = chord distance gives the
Voronoi diagram exactly. Corners are normals of the facets of the points' convex hull (Brown 1979).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int64

OCTAHEDRAL = (1 << 23) - 1
"""Octahedral coordinates are integers up to this: 24 bits with the sign."""
LEVELS = (2000, 20000)
"""Prefixes of the order of detail that have radii of their own."""
AXES = 8
"""Principal axes that are kept."""
MAP_ASPECT = 2.05458
"""Width over height of the Equal Earth map."""
_COINCIDENT = 2e-6
_SAMPLE = 300
_NEAREST = 10
_BLOCK = 8192


class NotDrawableError(ValueError):
    """The exemplars do not span a sphere."""


@dataclass(frozen=True, eq=False)
class Sphere:
    """What is drawn. Row k is region k."""

    codes: NDArray[np.int32]
    """(K, 2) octahedral coordinates."""
    radius: Float32
    """(K,) chord radius of each splat, rounded up; 0 where another region is drawn in its place."""
    stand_ins: NDArray[np.uint32]
    """(M, 2) a region that is not drawn, and the one drawn in its place."""
    order: NDArray[np.uint32]
    """(K,) regions from coarse to fine: every prefix is spread over the sphere."""
    level_radius: dict[int, Float32]
    """By the length of a prefix, radii when only the prefix is drawn."""
    axes: Float32
    """(8 or fewer, D) principal axes, orthonormal, of largest variance first."""
    mean: Float32
    """(D,) of the exemplars."""
    variance: float
    """Share of the exemplars' variance along the first three axes."""
    neighbours_kept: float
    """Share of the 10 nearest exemplars, of a sample, that are among the 10 nearest points."""
    neighbours_kept_flat: float
    """The same on the unrolled map."""

    @property
    def points(self) -> Float64:
        """(K, 3) unit, as decoded from the codes."""
        return from_octahedral(self.codes)


def make_sphere(exemplars: Float32, counts: Int64) -> Sphere:
    """The projected sphere of a dictionary.

    Args:
        exemplars: (K, D) unit directions.
        counts: (K,) members; of regions at one place, the larger come first in the order.

    Raises:
        NotDrawableError: Fewer than four regions, or they do not span three dimensions.
    """
    check_drawable(len(exemplars))
    mean, axes, shares = principal_axes(exemplars)
    if len(axes) < 3 or shares[2] < 1e-12:
        raise NotDrawableError(
            "the exemplars span fewer than three dimensions, so there is no sphere to draw; "
            "see the list"
        )
    inner = projected(exemplars, axes[:3])
    return _sphere_of(exemplars, counts, inner, mean, axes, float(shares[:3].sum()))


def sphere_beside(exemplars: Float32, counts: Int64, mean: Float32, axes: Float32) -> Sphere:
    """The sphere of a dictionary on the axes of another's.

    Args:
        exemplars: (K, D) unit directions.
        counts: (K,) members.
        mean: (D,) of the other's exemplars: what its sphere has in the middle.
        axes: (3 or more, D) the other's.

    Returns:
        Places are those that the other's sphere gives these directions; `variance` is the share of
        these exemplars' own variance along the first three axes.

    Raises:
        NotDrawableError: Fewer than four regions, or their places lie on a circle.
    """
    check_drawable(len(exemplars))
    own = np.mean(exemplars, axis=0, dtype=np.float64)
    total = 0.0
    for start in range(0, len(exemplars), _BLOCK):
        rows = exemplars[start : start + _BLOCK] - own
        total += float(np.einsum("ij,ij->", rows, rows))
    inner = projected(exemplars, axes[:3])
    along = float(((inner - inner.mean(axis=0)) ** 2).sum())
    variance = along / total if total > 0 else 0.0
    return _sphere_of(exemplars, counts, inner, mean, axes, variance)


def check_drawable(n_regions: int) -> None:
    """Refuse too few regions."""
    if n_regions < 4:
        raise NotDrawableError(
            f"a sphere needs 4 regions or more, and there are {n_regions}; see the list"
        )


def on_sphere(inner: Float64, mean: Float32, axes: Float32) -> Float64:
    """(n, 3) unit vectors: where directions of these products with the axes lie on the sphere."""
    return unit(inner - (axes[:3] @ mean).astype(np.float64))


def _sphere_of(
    exemplars: Float32, counts: Int64, inner: Float64, mean: Float32, axes: Float32,
    variance: float,
) -> Sphere:  # fmt: skip
    """The sphere of exemplars with (K, 3) products with the axes."""
    codes = to_octahedral(on_sphere(inner, mean, axes))
    points = from_octahedral(codes)
    radius, drawn = splat_radii(points)
    order = detail_order(points, counts, drawn)
    kept, kept_flat = neighbours_kept(exemplars, points, on_map(unrolled(points)))
    return Sphere(
        codes=codes,
        radius=radius,
        stand_ins=stand_ins(points, drawn),
        order=order,
        level_radius={n: splat_radii(points[order[:n]])[0] for n in LEVELS if n < len(points)},
        axes=axes,
        mean=mean,
        variance=variance,
        neighbours_kept=kept,
        neighbours_kept_flat=kept_flat,
    )


def principal_axes(
    exemplars: Float32, n_axes: int = AXES, iterations: int = 4, seed: int = 0
) -> tuple[Float32, Float32, Float64]:
    """Principal axes of rows by randomised subspace iteration over all of them.

    Source: Halko, Martinsson, Tropp 2011 (arXiv:0909.4061), algorithm 4.4.

    Returns:
        mean: (D,) of the rows.
        axes: (n, D) orthonormal, each with its largest component positive.
        shares: (n,) of the variance, descending; 0 where the rows do not vary.
    """
    k, width = exemplars.shape
    mean: Any = np.mean(exemplars, axis=0, dtype=np.float64).astype(np.float32)
    n = min(n_axes, width)
    size = min(n + 5, width)
    drawn = np.random.default_rng(seed).standard_normal((width, size)).astype(np.float32)
    basis: Any = np.linalg.qr(drawn)[0]
    for _ in range(iterations):
        product = np.zeros((width, size))
        for start in range(0, k, _BLOCK):
            rows = exemplars[start : start + _BLOCK] - mean
            product += rows.T @ (rows @ basis)
        basis = np.linalg.qr(product)[0].astype(np.float32)
    inner, total = np.zeros((size, size)), 0.0
    for start in range(0, k, _BLOCK):
        rows = exemplars[start : start + _BLOCK] - mean
        coordinates = (rows @ basis).astype(np.float64)
        inner += coordinates.T @ coordinates
        total += float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    values, vectors = np.linalg.eigh(inner)
    axes = (basis.astype(np.float64) @ vectors[:, ::-1][:, :n]).T
    largest = axes[np.arange(n), np.abs(axes).argmax(axis=1)]
    axes *= np.where(largest < 0, -1.0, 1.0)[:, None]
    shares = np.maximum(values[::-1][:n], 0) / total if total > 0 else np.zeros(n)
    return mean, axes.astype(np.float32), shares


def projected(rows: Float32, axes: Float32) -> Float64:
    """(K, n) inner products of rows with axes, in blocks."""
    found = np.empty((len(rows), len(axes)))
    for start in range(0, len(rows), _BLOCK):
        found[start : start + _BLOCK] = rows[start : start + _BLOCK] @ axes.T
    return found


def unit(vectors: Float64) -> Float64:
    """Rows scaled to unit length; a row of zeros becomes the first axis."""
    norms = np.linalg.norm(vectors, axis=1)
    scaled = vectors / np.where(norms > 0, norms, 1)[:, None]
    scaled[norms == 0] = np.eye(vectors.shape[1])[0]
    return scaled


def to_octahedral(points: Float64) -> NDArray[np.int32]:
    """(K, 2) codes of unit vectors (K, 3).

    Source: Cigolle et al. 2014, A survey of efficient representations for unit vectors.
    """
    flat = points / np.abs(points).sum(axis=1, keepdims=True)
    xy = flat[:, :2].copy()
    below = flat[:, 2] < 0
    folded = (1 - np.abs(xy[:, ::-1])) * np.where(xy >= 0, 1.0, -1.0)
    xy[below] = folded[below]
    return np.rint(xy * OCTAHEDRAL).astype(np.int32)


def from_octahedral(codes: NDArray[np.int32]) -> Float64:
    """(K, 3) unit vectors of codes (K, 2)."""
    xy = codes / OCTAHEDRAL
    z = 1 - np.abs(xy).sum(axis=1)
    fold = np.maximum(-z, 0)[:, None]
    xy = xy - np.where(xy >= 0, fold, -fold)
    return unit(np.c_[xy, z])


def splat_radii(points: Float64) -> tuple[Float32, NDArray[np.bool_]]:
    """Chord radius within which each point's Voronoi cell on the sphere lies, rounded up.

    Args:
        points: (K, 3) unit; points may coincide.

    Returns:
        radius: (K,) float32; 0 where a point has no cell of its own, because another lies there.
        drawn: (K,) whether it has one.

    Raises:
        NotDrawableError: The points lie on one circle.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(points)
    except QhullError as error:
        raise NotDrawableError(
            "the projected exemplars lie on one circle, so there is no sphere to draw; see the list"
        ) from error
    corners, facets = hull.equations[:, :3], hull.simplices
    radius = np.zeros(len(points))
    for k in range(3):
        reach = np.linalg.norm(corners - points[facets[:, k]], axis=1)
        np.maximum.at(radius, facets[:, k], reach)
    drawn = radius > 0
    radius = np.where(drawn, np.minimum(radius * (1 + 1e-5) + 1e-6, 2.0), 0.0)
    return np.nextafter(radius.astype(np.float32), np.float32(3)) * drawn, drawn


def stand_ins(points: Float64, drawn: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """(M, 2) pairs: a region without a cell of its own, and the nearest that has one."""
    from scipy.spatial import cKDTree

    there = np.flatnonzero(drawn)
    without = np.flatnonzero(~drawn)
    if not len(without):
        return np.empty((0, 2), np.uint32)
    nearest = cKDTree(points[there]).query(points[without])[1]
    return np.c_[without, there[nearest]].astype(np.uint32)


def detail_order(points: Float64, counts: Int64, drawn: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Regions from coarse to fine, so that every prefix is spread over the sphere.

    The square of octahedral coordinates is halved again and again; a region comes with the level
    at which it first is the one of most members in its square. Regions that are not drawn come
    last.
    """
    square = np.clip((to_octahedral(points) / OCTAHEDRAL + 1) / 2, 0, 1 - 1e-9)
    by_members = np.lexsort((np.arange(len(counts)), -np.asarray(counts)))
    level = np.full(len(points), 99)
    for depth in range(12, -1, -1):
        cell = np.floor(square[by_members] * 2**depth).astype(np.int64)
        first = np.unique(cell[:, 0] * 2**depth + cell[:, 1], return_index=True)[1]
        level[by_members[first]] = depth
    level[~drawn] = 100
    return np.lexsort((np.arange(len(counts)), -np.asarray(counts), level)).astype(np.uint32)


def neighbours_kept(exemplars: Float32, *pictures: Float64, seed: int = 0) -> tuple[float, ...]:
    """How many of the nearest exemplars are still the nearest in each picture.

    Of at most 300 regions drawn by `seed`: the mean share of the 10 nearest others by cosine
    that are among the 10 nearest of the picture; NaN for fewer than 12 regions.

    Args:
        exemplars: (K, D) unit directions.
        pictures: (K, 2) or (K, 3) places each; near is what a straight line says.
        seed: Of the sample.
    """
    k = len(exemplars)
    if k < _NEAREST + 2:
        return (float("nan"),) * len(pictures)
    chosen = np.random.default_rng(seed).choice(k, min(_SAMPLE, k), replace=False)
    similarity = np.empty((len(chosen), k), np.float32)
    for start in range(0, k, _BLOCK):
        similarity[:, start : start + _BLOCK] = (
            exemplars[chosen] @ exemplars[start : start + _BLOCK].T
        )
    similarity[np.arange(len(chosen)), chosen] = -np.inf
    nearest = np.argpartition(-similarity, _NEAREST, axis=1)[:, :_NEAREST]
    return tuple(_kept_in(places, chosen, nearest) for places in pictures)


def _kept_in(places: Float64, chosen: Int64, nearest: Int64) -> float:
    from scipy.spatial import cKDTree

    near = cKDTree(places).query(places[chosen], _NEAREST + 1)[1]
    shared = [
        len(np.intersect1d(true, found[found != own][:_NEAREST]))
        for own, true, found in zip(chosen, nearest, near, strict=True)
    ]
    return float(np.mean(shared)) / _NEAREST


def on_map(xy: NDArray[np.uint16], aspect: float = MAP_ASPECT) -> Float64:
    """(K, 2) places of a map in units of its width, so that distances are those that one sees."""
    return xy / 65535 * [1, 1 / aspect]


def unrolled(points: Float64) -> NDArray[np.uint16]:
    """(K, 2) the sphere as a map: x to the right and y down, 0 to 65535 over the box.

    Source: Šavrič, Patterson, Jenny 2019, The Equal Earth map projection.
    """
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    root = np.sqrt(3) / 2
    longitude = np.arctan2(points[:, 1], points[:, 0])
    theta = np.arcsin(np.clip(root * points[:, 2], -1, 1))
    square = theta**2
    sixth = square**3
    x = (
        longitude
        * np.cos(theta)
        / (root * (a1 + 3 * a2 * square + sixth * (7 * a3 + 9 * a4 * square)))
    )
    y = theta * (a1 + a2 * square + sixth * (a3 + a4 * square))
    top = np.arcsin(root)
    half_height = top * (a1 + a2 * top**2 + top**6 * (a3 + a4 * top**2))
    half_width = np.pi / (root * a1)
    scaled = np.c_[x / half_width, -y / half_height] * 0.5 + 0.5
    return np.rint(np.clip(scaled, 0, 1) * 65535).astype(np.uint16)


def sphere_arrays(sphere: Sphere) -> dict[str, NDArray[Any]]:
    """A sphere as named arrays, as the page and the cache read them."""
    return {
        "oct": sphere.codes,
        "radius": sphere.radius,
        "rep": sphere.stand_ins,
        "lod_order": sphere.order,
        **{f"lod_radius_{n}": radius for n, radius in sphere.level_radius.items()},
        "basis": sphere.axes[:3],
    }
