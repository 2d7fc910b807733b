"""Two dictionaries in one picture: B's regions on A's sphere, and where the regions of A go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.comparison import region_norms
from exemplars.analyses.correspondence import seen_from
from exemplars.dictionary import Dictionary
from exemplars.explorer import pages
from exemplars.explorer.background import Background
from exemplars.explorer.queries import Listed, brief
from exemplars.explorer.relations import PARENT_WORK, Drift, nearest_rows, related
from exemplars.explorer.sphere import NotDrawableError, Sphere, sphere_beside
from exemplars.explorer.views import View, finite
from exemplars.geometry import Float32, Int64

BANDS = 10
"""Regions that have a band of their own on each side; the others share one."""
NONE = -2
"""The group of what has no counterpart."""
SEEN = ("one center", "moved to A's center", "each from its own center")
"""How B's directions come to be beside A's: the centers are the same; or they are not, and B's
directions were moved by the site's median norm; or that norm is not known."""


@dataclass(frozen=True, eq=False)
class Beside:
    """B seen from A."""

    sphere: Sphere | NotDrawableError
    """B's regions on the axes of A's sphere; or why there is none."""
    seen: str
    """One of `SEEN`."""
    coarse: str | None
    """The coarser dictionary by whose regions both are grouped, if one is open."""
    groups: tuple[Int64, Int64] | None
    """(K_A,) and (K_B,) the region of `coarse` nearest to each exemplar; None without it."""


class Besides:
    """Dictionaries seen from others, made in the background and kept."""

    def __init__(self) -> None:
        self._made: Background[tuple[str, str], Beside] = Background("pictures of both")

    def of(self, views: Mapping[str, View], a: View, b: View) -> Beside:
        """B as A sees it.

        Raises:
            NotReadyError: It, or the sphere of A, is still being made.
            ValueError: A has no sphere.
        """
        sphere = a.sphere
        coarse = next((s for s in related(views, a.slug)["coarser"] if s != b.slug), None)
        return self._made.of(
            (a.slug, b.slug),
            lambda: beside(a.dictionary, sphere, b.dictionary, coarse, views),
        )

    def close(self) -> None:
        """Wait for what is being made."""
        self._made.close()


def beside(
    a: Dictionary, sphere: Sphere, b: Dictionary, coarse: str | None, views: Mapping[str, View]
) -> Beside:
    """B's regions in A's picture, and both grouped by a coarser dictionary."""
    directions, seen = directions_beside(a, b)
    found: Sphere | NotDrawableError
    try:
        found = sphere_beside(directions, b.counts, sphere.mean, sphere.axes)
    except NotDrawableError as error:
        found = error
    groups = None
    if coarse is not None:
        others = views[coarse].dictionary.exemplars
        work = float(len(a) + len(b)) * len(others) * a.width
        if len(others) and work <= PARENT_WORK:
            groups = nearest_rows(a.exemplars, others)[0], nearest_rows(directions, others)[0]
    return Beside(found, seen, coarse if groups is not None else None, groups)


def directions_beside(a: Dictionary, b: Dictionary) -> tuple[Float32, str]:
    """(K_B, D) the exemplars of B as directions from A's center, and how: one of `SEEN`."""
    if np.array_equal(a.center, b.center):
        return b.exemplars, SEEN[0]
    norms = region_norms(b)
    if not np.isfinite(norms).all():
        return b.exemplars, SEEN[2]
    return seen_from(np.asarray(b.exemplars), b.center, norms, a.center), SEEN[1]


def sphere_about(a: View, b: View, found: Beside) -> dict[str, Any]:
    """What is said of B's sphere.

    Raises:
        ValueError: There is none; says why.
    """
    if isinstance(found.sphere, NotDrawableError):
        raise ValueError(str(found.sphere)) from found.sphere
    return {
        "a": a.fingerprint,
        "b": b.fingerprint,
        "seen": found.seen,
        "variance": found.sphere.variance,
        "nn10": finite(found.sphere.neighbours_kept),
    }


def flows_page(
    a: Listed, b: Listed, drift: Drift, found: Beside, listed: Mapping[str, Listed]
) -> dict[str, Any]:
    """Where the regions of A go in B, in bands.

    With a coarser dictionary, pairs of regions go from one of its regions to another (or stay), and
    regions without a pair come from nowhere or go nowhere. Without one, each region of A goes to
    the region of B nearest to it, and the largest on either side have bands.
    """
    if found.groups is not None and found.coarse is not None:
        edges = _edges_by_parent(a, b, drift, found.groups)
        left = right = _top(edges, 0, 1)  # the same bands, so that what stays is level
        names = (listed[found.coarse], listed[found.coarse])
    else:
        edges = _edges_by_nearest(a, drift)
        left, right = _top(edges, 0), _top(edges, 1)
        names = (a, b)
    return {
        "by": "nearest" if found.groups is None else "parents",
        "of": found.coarse,
        **_banded(edges, left, right, names),
    }


def _edges_by_parent(
    a: Listed, b: Listed, drift: Drift, groups: tuple[Int64, Int64]
) -> NDArray[np.int64]:
    """(n, 4) from, to, regions, members: one row a pair, or a region without one."""
    found = drift.correspondence
    better = found.pairs[found.score > found.chance]
    counts = [np.asarray(one.view.dictionary.counts) for one in (a, b)]
    alone = [np.setdiff1d(np.arange(found.n_regions[s]), better[:, s]) for s in (0, 1)]
    rows = [
        np.c_[groups[0][better[:, 0]], groups[1][better[:, 1]], counts[0][better[:, 0]]],
        np.c_[groups[0][alone[0]], np.full(len(alone[0]), NONE), counts[0][alone[0]]],
        np.c_[np.full(len(alone[1]), NONE), groups[1][alone[1]], counts[1][alone[1]]],
    ]
    joined = np.concatenate(rows).astype(np.int64)
    return np.insert(joined, 2, 1, axis=1)


def _edges_by_nearest(a: Listed, drift: Drift) -> NDArray[np.int64]:
    """(n, 4) from, to, regions, members: one row a region of A."""
    there = np.flatnonzero(drift.best_of_a >= 0)
    counts = np.asarray(a.view.dictionary.counts)[there]
    return np.c_[there, drift.best_of_a[there], np.ones_like(there), counts].astype(np.int64)


def _top(edges: NDArray[np.int64], *sides: int) -> Int64:
    """Regions of most members on these sides of the edges, at most `BANDS`."""
    groups = np.concatenate([edges[:, side] for side in sides])
    members = np.concatenate([edges[:, 3]] * len(sides))
    keep = groups >= 0
    total = np.bincount(groups[keep], members[keep].astype(np.float64))
    order = np.argsort(-total, kind="stable")[:BANDS]
    return order[total[order] > 0]


def _banded(
    edges: NDArray[np.int64], left: Int64, right: Int64, names: tuple[Listed, Listed]
) -> dict[str, Any]:
    """Bands of both sides, and the flows between them, summed."""
    place = [_places(edges[:, 0], left), _places(edges[:, 1], right)]
    n = [len(left) + 2, len(right) + 2]
    sums = np.zeros((n[0], n[1], 2), np.int64)
    np.add.at(sums, (place[0], place[1]), edges[:, 2:])
    flows = [
        {"from": i, "to": j, "regions": int(sums[i, j, 0]), "members": int(sums[i, j, 1])}
        for i, j in np.argwhere(sums[:, :, 0] > 0).tolist()
    ]
    sides = []
    for regions, listed, axis in ((left, names[0], 1), (right, names[1], 0)):
        about = brief(listed, regions)
        totals = sums.sum(axis=axis)
        kinds = [*("region" for _ in regions), "others", "none"]
        sides.append(
            [
                {
                    "id": int(regions[i]) if kind == "region" else None,
                    "name": pages.name_of(about[int(regions[i])]) if kind == "region" else None,
                    "kind": kind,
                    "regions": int(totals[i, 0]),
                    "members": int(totals[i, 1]),
                }
                for i, kind in enumerate(kinds)
            ]
        )
    return {"left": sides[0], "right": sides[1], "flows": flows}


def _places(groups: Int64, regions: Int64) -> Int64:
    """(n,) the band of each group: that of its region, of the others, or of none."""
    known = np.full(max(int(groups.max(initial=0)), int(regions.max(initial=0))) + 1, len(regions))
    known[regions] = np.arange(len(regions))
    return np.where(groups >= 0, known[np.maximum(groups, 0)], len(regions) + 1)
