"""One site at several resolutions: what finer regions hold that coarser ones do not.

The dictionaries of one pass share their rows and their center, and differ in θ. Nothing makes the
regions of one lie within the regions of another, so a region has no parent: it has relatives, with
shares of rows both ways. How far the partitions nest is measured, beside two nulls: the same
regions dealt out to rows at random, and random rows as exemplars in the place of the finer
dictionary's.

Whatever is named (the commonest coarser region, or token, of a finer region) is named on one half
of the documents, and counted on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.detection import Interval, interval
from exemplars.analyses.labelled import OnStep
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.errors import MismatchError
from exemplars.geometry import Float32, Float64, Int64, gemm_band
from exemplars.nearest import ExemplarIndex

NULLS = ("permuted rows", "random rows")
"""The regions dealt out to the rows at random; random rows as exemplars, as many."""
LABELS = ("token", "previous token", "next token")
"""What rows are known by without anybody's labels."""
MOST = 10
"""Regions that are listed."""

_ROWS = 2048
_NEAR = 64
"""Nearest regions that a region's exemplars are compared with first."""
_DRAWS = 1000
_POOL = 3
"""One document in so many gives the random rows that stand for exemplars, and is not evaluated."""
_FEWEST, _RUNS = 12, 30
"""With fewer documents than this, so many runs of rows stand for them."""


@dataclass(frozen=True)
class Share:
    """A share of rows, its interval over documents, and what it is by chance."""

    estimate: float
    low: float
    """2.5th percentile over resampled documents; NaN where there are fewer than two."""
    high: float
    nulls: Mapping[str, tuple[float, ...]]
    """By `NULLS`: a value for each seed; none where there are too few rows to draw."""


@dataclass(frozen=True)
class Level:
    """One resolution by itself."""

    percentile: float
    threshold: float
    n_regions: int
    met: int
    """Regions that some row lies in; 0 without rows."""
    entropy_bits: float
    """Of a row's region."""
    named: Mapping[str, Share]
    """By `LABELS`: the share of rows whose label is the commonest of their region."""


@dataclass(frozen=True)
class Split:
    """A coarse region that finer ones divide."""

    region: int
    rows: int
    pieces: float
    """Effective number of finer regions: exp of the entropy of its rows over them."""
    pieces_by_chance: float
    """The mean of that for as many rows drawn from all."""
    largest: tuple[int, ...]
    """Finer regions, by the rows they share with it."""


@dataclass(frozen=True)
class Step:
    """From one resolution to the next finer one."""

    coarse: float
    fine: float
    """Percentiles."""
    shared_exemplars: float
    """Share of the coarse exemplars whose row founded a finer region too; NaN where the two are of
    other streams."""
    shared_by_chance: float
    """That share for a random row."""
    inside: tuple[float, ...]
    """Minimum, median, and maximum over coarse regions of the finer exemplars that lie in them."""
    holder: Share | None
    """Of rows: whether they lie in the coarse region that their finer region's exemplar lies in."""
    nested: Share | None
    """Of rows: whether they lie in the commonest coarse region of their finer region."""
    added_bits: float
    """H(fine | coarse): what the finer region tells that the coarse one does not."""
    lost_bits: float
    """H(coarse | fine): what the coarse region tells that the finer one does not; 0 if nested."""
    lost_by_chance: tuple[float, ...]
    """That for permuted rows, for each seed."""
    splits: tuple[Split, ...]


@dataclass(frozen=True)
class Resolutions:
    """What changes from the coarsest dictionary to the finest."""

    site: str | None
    rows: int
    """That were assigned at every resolution; 0 where the dictionaries alone were looked at."""
    documents: int
    runs: bool
    """Whether runs of rows stand for documents, which are too few."""
    dropped: int
    """Rows left out, as the build would have."""
    seeds: tuple[int, ...]
    levels: tuple[Level, ...]
    """From coarse to fine."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class SiteDirections:
    """Directions of one site's rows, which are looked at in every resolution."""

    directions: Float32
    """(N, D)."""
    document: Int64
    """(N,)."""
    position: Int64
    token: Int64
    dropped: int

    def __len__(self) -> int:
        return len(self.directions)

    def labels(self) -> dict[str, Int64]:
        """By `LABELS` (N,): token ids; -1 where the neighbour is no row."""
        follows = (np.diff(self.document) == 0) & (np.diff(self.position) == 1)
        previous, following = np.full(len(self), -1), np.full(len(self), -1)
        previous[1:][follows] = self.token[:-1][follows]
        following[:-1][follows] = self.token[1:][follows]
        return dict(zip(LABELS, (self.token, previous, following), strict=True))


def site_directions(
    batches: Iterable[Any],
    dictionary: Dictionary,
    rows: int | None = None,
    on_step: OnStep | None = None,
) -> SiteDirections:
    """The rows of activations that a build would keep, as directions.

    Args:
        batches: `ActivationBatch`es of the dictionary's site.
        dictionary: Any of those of one pass: they share the center and the limit of norms.
        rows: So many at most; None for all.
        on_step: Told how many rows were read.

    Raises:
        ValueError: No row is left.
        ActivationError: A vector is not finite.
    """
    told = on_step or (lambda what, done, total: None)
    parts: list[tuple[Any, ...]] = []
    n_rows = n_kept = 0
    for batch in batches:
        stop = len(batch.document) if rows is None else max(0, rows - n_rows)
        vectors = as_vectors(batch.vectors[:stop])
        directions, kept, _ = usable_directions(vectors, 0, dictionary.calibration)
        parts.append((directions, batch.document[kept], batch.position[kept], batch.token[kept]))
        n_rows += len(vectors)
        n_kept += len(kept)
        told("rows", n_rows, rows or n_rows)
        if rows is not None and n_rows >= rows:
            break
    if not n_kept:
        raise ValueError("the text has no rows; give more of it")
    directions, document, position, token = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return SiteDirections(directions, document, position, token, n_rows - n_kept)


def coarse_to_fine(dictionaries: Sequence[Dictionary], least: int = 2) -> tuple[Dictionary, ...]:
    """The dictionaries of one site and one pass, by falling threshold.

    Raises:
        ValueError: Fewer than `least`, one without regions, or two of one threshold.
        MismatchError: Other sites, widths, or centers.
    """
    if len(dictionaries) < least:
        raise ValueError(
            f"dictionaries given: {len(dictionaries)}, expected {least} or more; build them in one "
            "pass with several percentiles"
        )
    ordered = sorted(dictionaries, key=lambda d: -d.threshold)
    first = ordered[0]
    for one, other in zip(ordered, ordered[1:], strict=False):
        if other.site != first.site:
            sites = ", ".join(sorted({str(d.site) for d in dictionaries}))
            raise MismatchError(f"the dictionaries are of {sites}; give those of one site")
        if not np.array_equal(other.center, first.center):
            raise MismatchError(
                f"the dictionaries at p = {first.percentile:g} and p = {other.percentile:g} have "
                "different centers, so their regions have no common space; build them in one pass"
            )
        if one.threshold == other.threshold:
            raise ValueError(
                f"two dictionaries have p = {other.percentile:g} and θ = {other.threshold:.4f}; "
                "give each resolution once"
            )
    empty = next((d for d in ordered if not len(d)), None)
    if empty is not None:
        raise ValueError(f"the dictionary at p = {empty.percentile:g} has no regions; leave it out")
    return tuple(ordered)


def compare_resolutions(
    dictionaries: Sequence[Dictionary],
    rows: SiteDirections | None = None,
    *,
    seeds: int = 3,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Resolutions:
    """How the regions of one site change from the coarsest resolution to the finest.

    A third of the documents gives the random rows that stand for exemplars in the null; the others
    are evaluated, in two halves: what is named on the one is counted on the other, both ways. Of
    fewer than twelve documents, thirty runs of rows stand for documents; intervals are then too
    narrow, as runs of one document are alike.

    Args:
        dictionaries: Two or more of one site and pass.
        rows: The same rows for all, best of text that the build has not read; without them what
            the dictionaries hold is compared: their exemplars.
        seeds: Draws of each null.
        seed: Of the halves, and of the first draw.
        on_step: Told how many dictionaries were assigned.

    Raises:
        ValueError: No seed, too few rows, or see `coarse_to_fine`.
        MismatchError: See `coarse_to_fine`.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected 1 or more")
    ordered = coarse_to_fine(dictionaries)
    draws = tuple(range(seed, seed + seeds))
    views = _views(ordered, rows, draws, on_step)
    documents = 0 if rows is None else len(np.unique(rows.document))
    return Resolutions(
        site=ordered[0].site,
        rows=0 if rows is None else len(rows),
        documents=documents,
        runs=0 < documents < _FEWEST,
        dropped=0 if rows is None else rows.dropped,
        seeds=draws,
        levels=tuple(_level(d, views) for d in ordered),
        steps=tuple(_step(a, b, views) for a, b in zip(ordered, ordered[1:], strict=False)),
    )


def assign_directions(dictionary: Dictionary, directions: Float32) -> Int64:
    """(N,) the nearest region of each direction, as `Dictionary.assign` gives it of its vector."""
    return _nearest(directions, np.asarray(dictionary.exemplars), dictionary.index())


def contingency(a: Int64, b: Int64, n_a: int, n_b: int) -> Any:
    """How many rows lie in region i of one partition and region j of another.

    Args:
        a: (N,) regions.
        b: (N,) regions of the same rows.
        n_a: Regions of the first partition.
        n_b: Of the second.

    Returns:
        A sparse array (n_a, n_b) of int64 counts.
    """
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(a), np.int64), (a, b)), shape=(n_a, n_b))


def conditional_entropy_bits(table: Any, axis: int) -> float:
    """H(column | row) of a contingency for axis 1, H(row | column) for axis 0, in bits."""
    counts = table.tocoo()
    given = np.asarray(table.sum(axis=axis)).ravel()
    share = counts.data / given[counts.row if axis == 1 else counts.col]
    return float(-(counts.data * np.log2(share)).sum() / max(counts.data.sum(), 1))


def effective_pieces(table: Any) -> Float64:
    """(n_a,) exp of the entropy of each row of a contingency; 0 where it is empty."""
    counts = table.tocoo()
    total = np.asarray(table.sum(axis=1)).ravel()
    share = counts.data / total[counts.row]
    entropy = np.bincount(counts.row, -share * np.log(share), minlength=table.shape[0])
    return np.where(total > 0, np.exp(entropy), 0.0)


def named_hits(
    regions: Int64, labels: Int64, half: NDArray[np.bool_], n_regions: int
) -> NDArray[np.bool_]:
    """Whether each row has the label that its region is named by on the other half of the rows.

    A region is named by its commonest label, ties to the lower; one that the other half does not
    meet by the commonest label there.

    Args:
        regions: (N,).
        labels: (N,) from 0.
        half: (N,) True for the rows of the one half.
        n_regions: K.
    """
    hits = np.zeros(len(regions), np.bool_)
    for mine in (half, ~half):
        if mine.all() or not mine.any():
            continue
        names = _names(regions[~mine], labels[~mine], n_regions)
        hits[mine] = names[regions[mine]] == labels[mine]
    return hits


def exemplars_inside(dictionary: Dictionary, region: int, other: Dictionary) -> Int64:
    """The regions of another dictionary whose exemplar lies in a region of this one.

    Only exemplars that no near region claims are searched for among all regions, so that one region
    of 20,000 is answered at once.

    Args:
        dictionary: Whose region.
        region: Its number.
        other: Of the same center.
    """
    exemplars, others = np.asarray(dictionary.exemplars), np.asarray(other.exemplars)
    to_own = exemplars @ exemplars[region]
    near = np.argsort(-to_own, kind="stable")[:_NEAR]
    similarity = others @ exemplars[near].T
    own = others @ exemplars[region]
    open_to_it = np.flatnonzero(own >= similarity.max(axis=1) - 2 * gemm_band(dictionary.width))
    found = _nearest(others[open_to_it], exemplars, dictionary.index())
    return open_to_it[found == region].astype(np.int64)


def same_stream(a: Dictionary, b: Dictionary) -> bool:
    """Whether rows of equal number are the same row."""
    parts = ("texts", "tokenization", "seed")
    return all(a.provenance.get(part) == b.provenance.get(part) for part in parts)


@dataclass(frozen=True, eq=False)
class _Views:
    """The evaluated rows, and their regions by dictionary and for each draw of each null."""

    half: NDArray[np.bool_]
    group: Int64
    """(n,) number of the row's document."""
    labels: Mapping[str, Int64]
    regions: Mapping[float, Int64]
    """By threshold, as the next."""
    random: Mapping[float, tuple[Int64, ...]]
    """(n,) regions of random rows as exemplars; none where there are too few rows."""
    holder: Mapping[tuple[float, float], tuple[Int64, tuple[Int64, ...]]]
    """(coarse, fine): the coarse region of each finer exemplar, and of each null's exemplars."""
    draws: tuple[int, ...]

    def permuted(self, draw: int) -> Int64:
        """An order of the evaluated rows."""
        return np.random.default_rng([draw, 0xDEA1]).permutation(len(self.group))


def _views(
    ordered: Sequence[Dictionary],
    rows: SiteDirections | None,
    draws: tuple[int, ...],
    on_step: OnStep | None,
) -> _Views | None:
    if rows is None:
        return None
    told = on_step or (lambda what, done, total: None)
    group = _groups(rows)
    place = np.random.default_rng([draws[0], 0x4A1F]).permutation(int(group.max()) + 1)[group]
    pool = np.flatnonzero(place % _POOL == 0)
    used = np.flatnonzero(place % _POOL)
    first = place[used] % _POOL == 1
    if first.all() or not first.any():
        raise ValueError(f"{len(rows)} rows are too few to halve; give more text")
    directions = rows.directions[used]
    regions, random, holder = {}, {}, {}
    for number, dictionary in enumerate(ordered):
        told("dictionaries", number, len(ordered))
        k, key = len(dictionary), dictionary.threshold
        regions[key] = assign_directions(dictionary, directions)
        chosen = [
            rows.directions[np.random.default_rng([draw, k]).permutation(pool)[:k]]
            for draw in draws
            if k <= len(pool)
        ]
        random[key] = tuple(
            _nearest(directions, exemplars, ExemplarIndex(dictionary.width)) for exemplars in chosen
        )
        if number:
            coarse = ordered[number - 1]
            holder[coarse.threshold, key] = (
                assign_directions(coarse, np.asarray(dictionary.exemplars)),
                tuple(assign_directions(coarse, exemplars) for exemplars in chosen),
            )
    told("dictionaries", len(ordered), len(ordered))
    labels = {name: values[used] for name, values in rows.labels().items()}
    return _Views(first, group[used], labels, regions, random, holder, draws)


def _groups(rows: SiteDirections) -> Int64:
    """(N,) numbers of the documents; of few, runs of rows stand for them."""
    _, group = np.unique(rows.document, return_inverse=True)
    if group.max() + 1 < _FEWEST:
        group = np.arange(len(rows)) * _RUNS // len(rows)
        _, group = np.unique(group, return_inverse=True)
    return group.astype(np.int64)


def _nearest(directions: Float32, exemplars: Float32, index: ExemplarIndex) -> Int64:
    found = np.empty(len(directions), np.int64)
    for start in range(0, len(directions), _ROWS):
        part = slice(start, start + _ROWS)
        found[part], _ = index.nearest(directions[part], exemplars)
    return found


def _names(regions: Int64, labels: Int64, n_regions: int) -> Int64:
    """(K,) the commonest label of each region; the commonest of all where it has no row."""
    size = int(labels.max()) + 1
    pair, count = np.unique(regions * size + labels, return_counts=True)
    order = np.lexsort((pair, -count, pair // size))
    region = pair[order] // size
    first = np.flatnonzero(np.diff(region, prepend=-1))
    names = np.full(n_regions, int(np.bincount(labels).argmax()), np.int64)
    names[region[first]] = pair[order][first] % size
    return names


def _share(hits: NDArray[np.bool_], group: Int64, nulls: dict[str, tuple[float, ...]]) -> Share:
    """With an interval over resampled documents."""
    estimate = float(hits.mean())
    _, number = np.unique(group, return_inverse=True)
    size = np.bincount(number)
    if len(size) < 2:
        return Share(estimate, float("nan"), float("nan"), nulls)
    hit = np.bincount(number, hits)
    drawn = np.random.default_rng(0).multinomial(len(size), [1 / len(size)] * len(size), _DRAWS)
    found: Interval = interval((drawn @ hit) / (drawn @ size), estimate)
    return Share(estimate, found.low, found.high, nulls)


def _level(dictionary: Dictionary, views: _Views | None) -> Level:
    key, k = dictionary.threshold, len(dictionary)
    named: dict[str, Share] = {}
    entropy, met = float("nan"), 0
    if views is not None:
        regions = views.regions[key]
        size = np.bincount(regions, minlength=k)
        share = size[size > 0] / len(regions)
        entropy, met = float(-(share * np.log2(share)).sum()), len(share)
        named = {name: _named(views, key, k, views.labels[name]) for name in LABELS}
    return Level(dictionary.percentile, key, k, met, entropy, named)


def _named(views: _Views, key: float, k: int, labels: Int64) -> Share:
    """The share of rows that have the label their region is named by, with its nulls."""
    known = labels >= 0
    values, half = labels[known], views.half[known]
    if not known.any():
        return Share(float("nan"), float("nan"), float("nan"), dict.fromkeys(NULLS, ()))
    _, values = np.unique(values, return_inverse=True)

    def hits(regions: Int64) -> NDArray[np.bool_]:
        return named_hits(regions[known], values, half, k)

    regions = views.regions[key]
    nulls = {
        NULLS[0]: tuple(float(hits(regions[views.permuted(d)]).mean()) for d in views.draws),
        NULLS[1]: tuple(float(hits(drawn).mean()) for drawn in views.random[key]),
    }
    return _share(hits(regions), views.group[known], nulls)


def _step(coarse: Dictionary, fine: Dictionary, views: _Views | None) -> Step:
    shared = by_chance = float("nan")
    if same_stream(coarse, fine):
        shared = float(np.isin(coarse.exemplar_rows, fine.exemplar_rows).mean())
        by_chance = len(fine) / max(fine.rows, 1)
    keys = coarse.threshold, fine.threshold
    if views is None:
        held = assign_directions(coarse, np.asarray(fine.exemplars))
    else:
        held = views.holder[keys][0]
    inside = np.bincount(held, minlength=len(coarse))
    found: dict[str, Any] = {
        "holder": None, "nested": None, "added_bits": float("nan"), "lost_bits": float("nan"),
        "lost_by_chance": (), "splits": (),
    }  # fmt: skip
    if views is not None:
        found = _row_measures(coarse, fine, views)
    return Step(
        coarse=coarse.percentile,
        fine=fine.percentile,
        shared_exemplars=shared,
        shared_by_chance=by_chance,
        inside=(float(inside.min()), float(np.median(inside)), float(inside.max())),
        **found,
    )


def _row_measures(coarse: Dictionary, fine: Dictionary, views: _Views) -> dict[str, Any]:
    keys = coarse.threshold, fine.threshold
    own, finer = views.regions[keys[0]], views.regions[keys[1]]
    sizes = len(coarse), len(fine)
    table = contingency(own, finer, *sizes)
    permuted = [finer[views.permuted(draw)] for draw in views.draws]
    tables = [contingency(own, dealt, *sizes) for dealt in permuted]
    held, held_by_random = views.holder[keys]
    holder = {
        NULLS[0]: tuple(float((held[dealt] == own).mean()) for dealt in permuted),
        NULLS[1]: tuple(
            float((mine[drawn] == own).mean())
            for mine, drawn in zip(held_by_random, views.random[keys[1]], strict=True)
        ),
    }
    return {
        "holder": _share(held[finer] == own, views.group, holder),
        "nested": _named(views, keys[1], sizes[1], own),
        "added_bits": conditional_entropy_bits(table, 1),
        "lost_bits": conditional_entropy_bits(table, 0),
        "lost_by_chance": tuple(conditional_entropy_bits(t, 0) for t in tables),
        "splits": _splits(table, tables),
    }


def _splits(table: Any, tables: Sequence[Any]) -> tuple[Split, ...]:
    """The coarse regions with the largest effective number of finer ones."""
    pieces = effective_pieces(table)
    chance = np.mean([effective_pieces(other) for other in tables], axis=0)
    size = np.asarray(table.sum(axis=1)).ravel()
    found = []
    for region in np.argsort(-pieces, kind="stable")[:MOST]:
        line = table[[region]].tocoo()
        largest = line.col[np.argsort(-line.data, kind="stable")][:MOST]
        found.append(
            Split(
                int(region), int(size[region]), float(pieces[region]), float(chance[region]),
                tuple(largest.tolist()),
            )
        )  # fmt: skip
    return tuple(found)
