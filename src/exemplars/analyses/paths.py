"""Paths between two regions at every resolution: what lies between them, and does it mean anything.

Regions are joined to their nearest few, either way, and a path is a shortest one in that graph. A
graph of neighbours joins almost any two points, so a path by itself shows nothing: beside each are
the paths of random pairs of regions that are as far apart, and the path between the same two
exemplars through random rows of the stream in the place of the other exemplars.

Source: paths at several resolutions are of Rumbelow 2026 (arXiv:2605.14347); the nulls are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.analyses.resolution import assign_directions, same_stream
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Float64, Int64

NULLS = ("pairs as far apart", "random rows")
NEIGHBOURS = 3
SHOWN = 8
"""Shared neighbours that are listed."""
_BLOCK = 1024


@dataclass(frozen=True)
class Reading:
    """A region in words: its exemplar in context, and what it reads as."""

    region: int
    before: str
    text: str
    """The exemplar's token; empty where the dictionary has no texts."""
    after: str
    promoted: tuple[str, ...]
    """By the lens that is stored with the dictionary; empty where none is."""


@dataclass(frozen=True)
class Chance:
    """What a path is beside those of a null."""

    hops: tuple[int, ...]
    """Of the null's paths; those that the graph does not join are left out."""
    stretch: tuple[float, ...]
    shared: tuple[int, ...]
    """Shared neighbours of the null's pairs."""
    unjoined: int


@dataclass(frozen=True)
class RegionPath:
    """The path between two regions at one resolution."""

    percentile: float
    threshold: float
    n_regions: int
    ends: tuple[int, int]
    """What stands for the two regions here."""
    same_exemplar: tuple[bool, bool]
    """Whether the row that founded the region asked for founded these; else it lies in them."""
    direct: float
    """Cosine distance of the ends."""
    regions: tuple[int, ...]
    """Ends included; empty where the graph does not join them, one where they are one region."""
    hops: int
    """-1 where there is no path."""
    stretch: float
    """Sum of the angles along the path over the angle between its ends, at least 1."""
    shared: int
    """Regions nearer to both ends than these are to each other."""
    shared_nearest: tuple[int, ...]
    nulls: Mapping[str, Chance]
    """By `NULLS`; the second only where rows were given."""
    readings: tuple[Reading, ...]
    """Of the regions of the path."""
    shared_readings: tuple[Reading, ...]
    shared_kept: float
    """Of the shared neighbours at the resolution asked, the share that lie in shared neighbours or
    ends here; NaN where there are none."""
    shared_kept_by_chance: float
    """That for all regions of the resolution asked."""


@dataclass(frozen=True)
class Paths:
    """The way between two regions at each resolution, from coarse to fine."""

    percentile: float
    """Of the dictionary whose regions were asked for."""
    regions: tuple[int, int]
    neighbours: int
    basis: str
    weighted: bool
    draws: int
    paths: tuple[RegionPath, ...]


def region_paths(
    dictionaries: Sequence[Dictionary],
    dictionary: Dictionary,
    a: int,
    b: int,
    *,
    neighbours: int = NEIGHBOURS,
    basis: str = "exemplar",
    weighted: bool = False,
    directions: Float32 | None = None,
    lenses: Sequence[Any] | None = None,
    pairs: int = 100,
    draws: int = 5,
    seed: int = 0,
) -> Paths:
    """The shortest paths between two regions in the graph of nearest regions, at each resolution.

    Args:
        dictionaries: Of one center, from coarse to fine, `dictionary` among them.
        dictionary: Whose regions a and b are. At another resolution the region that their exemplars
            lie in stands for them.
        a: A region.
        b: Another.
        neighbours: Nearest regions that each region is joined to.
        basis: "exemplar" or "mean"; a region without members takes no part by its mean.
        weighted: Shortest by the sum of angles, in place of hops (of equal hops, by angles).
        directions: (N, D) rows of the stream, for the null of random rows.
        lenses: What `store.load_lens` gives of each dictionary.
        pairs: Random pairs of the first null.
        draws: Of the second.
        seed: Of both.

    Raises:
        ValueError: The two are one region, there is no such region, or an argument is out of range.
    """
    for name, value in (("neighbours", neighbours), ("pairs", pairs), ("draws", draws)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
    asked = dictionary.region(a).index, dictionary.region(b).index
    if asked[0] == asked[1]:
        raise ValueError(f"a path from region {a} to itself was asked for; give two regions")
    between, _ = dictionary.shared_neighbours(asked[0], asked[1], basis=basis)
    given = lenses if lenses is not None else [None] * len(dictionaries)
    found = []
    for number, (other, lens) in enumerate(zip(dictionaries, given, strict=True)):
        exemplars = np.asarray(dictionary.exemplars[list(asked)])
        ends = tuple(assign_directions(other, exemplars).tolist())
        view = _Graph.of(np.asarray(other.basis(basis)), neighbours, weighted)
        random = np.random.default_rng([seed, number])
        nulls = {NULLS[0]: _far_pairs(view, ends, pairs, random)}
        if directions is not None and len(directions) >= len(other):
            nulls[NULLS[1]] = _through_rows(view, ends, directions, draws, random)
        found.append(_path(dictionary, asked, between, other, ends, view, nulls, lens))
    return Paths(dictionary.percentile, asked, neighbours, basis, weighted, draws, tuple(found))


def reading(dictionary: Dictionary, region: int, lens: Any = None, promoted: int = 3) -> Reading:
    """A region in words.

    Args:
        dictionary: Whose region.
        region: Its number.
        lens: What `store.load_lens` gives.
        promoted: Tokens of it.
    """
    contexts = dictionary.contexts.region(region) if dictionary.contexts is not None else []
    seen = next((c for c in contexts if c.exemplar and c.document >= 0), None)
    words = () if lens is None else tuple(lens["exemplar_promoted"][region].as_py()[:promoted])
    if seen is None:
        return Reading(region, "", "", "", words)
    return Reading(region, seen.before, seen.text, seen.after, words)


def nearest_graph(points: Float32, neighbours: int) -> Any:
    """The angles between each point and its nearest ones, made symmetric.

    Args:
        points: (K, D) unit directions; one that is NaN is joined to nothing.
        neighbours: That each point is joined to; it may be joined to more that chose it.

    Returns:
        A sparse symmetric array (K, K) of angles in radians, positive where two are joined.
    """
    from scipy.sparse import csr_array

    n, k = len(points), min(neighbours, len(points) - 1)
    known = np.asarray(~np.isnan(points).any(axis=1), np.bool_)
    rows = np.where(known[:, None], points, 0)
    near = np.empty((n, k), np.int64)
    for start in range(0, n if k else 0, _BLOCK):
        product = rows[start : start + _BLOCK] @ rows.T
        product[:, ~known] = -np.inf
        product[np.arange(len(product)), start + np.arange(len(product))] = -np.inf
        near[start : start + _BLOCK] = np.argpartition(-product, k - 1, axis=1)[:, :k]
    one, other = np.repeat(np.arange(n), k), near.ravel()
    joined = known[one] & known[other] & (one != other)
    one, other = one[joined], other[joined]
    angles = _angles(points[one], points[other])
    graph = csr_array((angles, (one, other)), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


@dataclass(frozen=True, eq=False)
class _Graph:
    """Points, their graph, and the lengths that a shortest path minimises."""

    points: Float32
    angles: Any
    lengths: Any
    neighbours: int
    weighted: bool

    @classmethod
    def of(cls, points: Float32, neighbours: int, weighted: bool) -> _Graph:
        angles = nearest_graph(points, neighbours)
        lengths = angles.copy()
        if not weighted:  # hops; a path has fewer than K, so angles decide between equal ones
            lengths.data = 1.0 + angles.data / (np.pi * max(len(points), 1))
        return cls(points, angles, lengths, neighbours, weighted)

    def from_one(self, start: int) -> tuple[Float64, Int64]:
        """(K,) lengths of the shortest paths from a point, and the point before each."""
        from scipy.sparse.csgraph import dijkstra

        length, before = dijkstra(self.lengths, indices=start, return_predecessors=True)
        return length, before

    def walk(self, before: Int64, start: int, end: int) -> list[int]:
        """The points of a path; none where the graph does not join the two."""
        path = [end]
        while path[-1] != start:
            previous = int(before[path[-1]])
            if previous < 0:
                return []
            path.append(previous)
        return path[::-1]

    def stretch(self, path: Sequence[int]) -> float:
        """Angles along a path over the angle between its ends; NaN of no path."""
        if len(path) < 2:
            return 1.0 if path else float("nan")
        steps = _angles(self.points[list(path[:-1])], self.points[list(path[1:])])
        direct = _angles(self.points[[path[0]]], self.points[[path[-1]]])
        return float(max(1.0, steps.sum() / direct[0]))

    def distances(self, point: int) -> Float32:
        """(K,) cosine distances."""
        return np.asarray(1 - self.points @ self.points[point], np.float32)


def _angles(a: Float32, b: Float32) -> Float64:
    """(n,) angle of each pair in radians; from the chord, which is exact where it is small."""
    chord = np.linalg.norm(a.astype(np.float64) - b, axis=1)
    return np.maximum(2 * np.arcsin(np.minimum(chord / 2, 1.0)), 1e-12)


def _shared(to_a: Float32, to_b: Float32, a: int, b: int) -> Int64:
    """Points nearer to both than these are to each other, by mean distance."""
    between = (to_a < to_a[b]) & (to_b < to_a[b])
    between[[a, b]] = False
    found = np.flatnonzero(between)
    return found[np.argsort((to_a + to_b)[found], kind="stable")]


def _far_pairs(view: _Graph, ends: tuple[int, ...], n: int, random: np.random.Generator) -> Chance:
    """Paths from random points to the ones about as far from them as the ends are apart."""
    hops, stretch, shared, unjoined = [], [], [], 0
    direct = view.distances(ends[0])[ends[1]]
    usable = np.flatnonzero(~np.isnan(view.points).any(axis=1))
    if ends[0] != ends[1] and len(usable) > 1 and np.isfinite(direct):
        for start in random.choice(usable, n).tolist():
            to_start = view.distances(start)
            gap = np.abs(to_start - direct)
            gap[start] = np.nan
            end = int(np.nanargmin(gap))
            path = view.walk(view.from_one(start)[1], start, end)
            shared.append(len(_shared(to_start, view.distances(end), start, end)))
            unjoined += not path
            if path:
                hops.append(len(path) - 1)
                stretch.append(view.stretch(path))
    return Chance(tuple(hops), tuple(stretch), tuple(shared), unjoined)


def _through_rows(
    view: _Graph, ends: tuple[int, ...], rows: Float32, draws: int, random: np.random.Generator
) -> Chance:
    """The path between the same ends with random rows in the place of all other points."""
    hops, stretch, shared, unjoined = [], [], [], 0
    for _ in range(draws if ends[0] != ends[1] else 0):
        points = rows[random.permutation(len(rows))[: len(view.points)]].copy()
        points[:2] = view.points[list(ends)]
        other = _Graph.of(points, view.neighbours, view.weighted)
        path = other.walk(other.from_one(0)[1], 0, 1)
        shared.append(len(_shared(other.distances(0), other.distances(1), 0, 1)))
        unjoined += not path
        if path:
            hops.append(len(path) - 1)
            stretch.append(other.stretch(path))
    return Chance(tuple(hops), tuple(stretch), tuple(shared), unjoined)


def _path(
    dictionary: Dictionary,
    asked: tuple[int, ...],
    between: Int64,
    other: Dictionary,
    ends: tuple[int, ...],
    view: _Graph,
    nulls: Mapping[str, Chance],
    lens: Any,
) -> RegionPath:
    a, b = ends
    path = view.walk(view.from_one(a)[1], a, b)
    shared = _shared(view.distances(a), view.distances(b), a, b) if a != b else np.empty(0, int)
    held = assign_directions(other, np.asarray(dictionary.exemplars))
    inside = np.isin(held, np.append(shared, [a, b]))
    same = same_stream(dictionary, other)
    own = dictionary.exemplar_rows[list(asked)] == other.exemplar_rows[list(ends)]
    nearest = shared[:SHOWN].tolist()
    return RegionPath(
        percentile=other.percentile,
        threshold=other.threshold,
        n_regions=len(other),
        ends=(a, b),
        same_exemplar=(bool(same and own[0]), bool(same and own[1])),
        direct=float(view.distances(a)[b]) if a != b else 0.0,
        regions=tuple(path),
        hops=len(path) - 1,
        stretch=view.stretch(path),
        shared=len(shared),
        shared_nearest=tuple(nearest),
        nulls=nulls,
        readings=tuple(reading(other, region, lens) for region in path),
        shared_readings=tuple(reading(other, region, lens) for region in nearest),
        shared_kept=float(inside[between].mean()) if len(between) else float("nan"),
        shared_kept_by_chance=float(inside.mean()),
    )
