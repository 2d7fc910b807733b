"""Cells of a map: the part of the plane that is nearest to each region's place on it.

As on the sphere, a disc round each place that reaches the farthest corner of its cell covers the
cell, and drawing all discs with depth = distance gives the cells exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.explorer.sphere import LEVELS
from exemplars.geometry import Float32, Float64, Int64

MARGIN = 0.02
"""How far cells go beyond the map, in units of its width."""
_ALL = 2000


def flat_radii(places: Float64, height: float) -> tuple[Float32, NDArray[np.bool_]]:
    """Radius within which each place's cell lies, rounded up; the cells end at the map's edge.

    A cell ends at a side of the map where the place's own mirror image beyond that side is as
    near. So the places whose cells would cross a side are mirrored, and all cells are bounded.

    Args:
        places: (K, 2) in units of the map's width, within [0, 1] × [0, height]; no two alike.
        height: Of the map.

    Returns:
        radius: (K,) float32; 0 where a place has no cell of its own.
        drawn: (K,) whether it has one.
    """
    low, high = np.array([-MARGIN, -MARGIN]), np.array([1 + MARGIN, height + MARGIN])
    crossing = np.arange(len(places))
    if len(places) > _ALL:
        corners, centers = _triangles(places)
        outside = ((centers < low) | (centers > high)).any(axis=1)
        crossing = np.union1d(corners[outside], _rim(places))
    mirrored = [places]
    for axis in (0, 1):
        for side in (low, high):
            images = places[crossing].copy()
            images[:, axis] = 2 * side[axis] - images[:, axis]
            mirrored.append(images)
    every = np.concatenate(mirrored)
    corners, centers = _triangles(every)
    radius = np.zeros(len(every))
    for k in range(3):
        reach = np.linalg.norm(centers - every[corners[:, k]], axis=1)
        np.maximum.at(radius, corners[:, k], reach)
    radius = radius[: len(places)]
    drawn = radius > 0
    most = float(np.hypot(*(high - low)))
    radius = np.where(drawn, np.minimum(radius * (1 + 1e-5) + 1e-6, most), 0.0)
    return np.nextafter(radius.astype(np.float32), np.float32(3)) * drawn, drawn


def cell_arrays(
    places: Float64, height: float, counts: Int64, order: NDArray[np.uint32]
) -> dict[str, NDArray[Any]]:
    """What it takes to draw the cells of a map, as named arrays.

    Args:
        places: (K, 2) in units of the map's width; some may be alike.
        height: Of the map.
        counts: (K,) members; of regions at one place that of most members is drawn.
        order: (K,) regions from coarse to fine.

    Returns:
        "radius" (K,), 0 where another is drawn in its place; "rep" (M, 2) such a region and the
        other; "lod_order", and "lod_radius_N" when only the first N of it are drawn.
    """
    radius, stands_for = _apart(places, height, counts)
    without = np.flatnonzero(stands_for != np.arange(len(places)))
    found: dict[str, NDArray[Any]] = {
        "radius": radius,
        "rep": np.c_[without, stands_for[without]].astype(np.uint32),
        "lod_order": order,
    }
    for n in LEVELS:
        if n < len(places):
            first = order[:n]
            found[f"lod_radius_{n}"] = _apart(places[first], height, counts[first])[0]
    return found


def _apart(places: Float64, height: float, counts: Int64) -> tuple[Float32, Int64]:
    """(K,) radii of places that may be alike, and (K,) which region is drawn for each."""
    by_members = np.argsort(-np.asarray(counts), kind="stable")
    _, first, same = np.unique(places[by_members], axis=0, return_index=True, return_inverse=True)
    kept = by_members[first]
    radius = np.zeros(len(places), np.float32)
    radius[kept], drawn = flat_radii(places[kept], height)
    stands_for = np.empty(len(places), np.int64)
    stands_for[by_members] = kept[same.ravel()]
    if not drawn.all():  # alike but for rounding: the nearest that has a cell stands for it
        from scipy.spatial import cKDTree

        nearest = kept[drawn][cKDTree(places[kept[drawn]]).query(places[kept])[1]]
        moved = np.arange(len(places))
        moved[kept] = nearest
        stands_for = moved[stands_for]
    return radius, stands_for


def _triangles(places: Float64) -> tuple[NDArray[np.int32], Float64]:
    """(n, 3) corners of the Delaunay triangles, and (n, 2) the centers of their circles."""
    from scipy.spatial import Delaunay

    corners = Delaunay(places).simplices
    a, b, c = (places[corners[:, k]] for k in range(3))
    b, c = b - a, c - a
    twice = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    squares = (b**2).sum(axis=1), (c**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (c[:, 1] * squares[0] - b[:, 1] * squares[1]) / twice
        y = (b[:, 0] * squares[1] - c[:, 0] * squares[0]) / twice
    centers = a + np.stack([x, y], axis=1)
    flat = ~np.isfinite(centers).all(axis=1)
    centers[flat] = 1e3  # a triangle without area: its circle is a line
    return corners, centers


def _rim(places: Float64) -> Int64:
    """Places on the convex hull, whose cells have no end."""
    from scipy.spatial import ConvexHull

    return ConvexHull(places).vertices.astype(np.int64)
