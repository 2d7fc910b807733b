"""A region's relatives at another resolution: where its rows lie, and how many of theirs here.

Three sources, from least to most: the exemplars alone (exact, at once), the members that the
dictionaries keep of each region, and rows that are assigned at both resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.analyses.resolution import (
    MOST,
    assign_directions,
    effective_pieces,
    exemplars_inside,
    same_stream,
)
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float64, Int64
from exemplars.labels.detection import wilson

SOURCES = ("exemplars", "kept members", "rows")
"""What shares are from; of exemplars alone there are none."""
_DEALS = 20


@dataclass(frozen=True)
class Relative:
    """A region of the other resolution that a region has to do with."""

    region: int
    similarity: float
    """Cosine of the two exemplars."""
    same_exemplar: bool
    """One row of the stream founded both."""
    holds_exemplar: bool
    """The asked region's exemplar lies in it."""
    exemplar_inside: bool
    """Its exemplar lies in the asked region."""
    share: float
    """Of the asked region's rows, those that lie in it too; NaN where no rows are known."""
    low: float
    """Wilson interval (95 %) of `share`, rows taken as independent."""
    high: float
    share_by_chance: float
    """Of all rows, those that lie in it: what `share` would be if regions had nothing to do."""
    share_of_relative: float
    """Of its rows, those that lie in the asked region too."""


@dataclass(frozen=True)
class Relatives:
    """The relatives of one region in one other dictionary."""

    percentile: float
    """Of the other dictionary."""
    threshold: float
    n_regions: int
    finer: bool
    source: str
    """One of `SOURCES`."""
    rows: int
    """Rows of the asked region that were looked up there."""
    pieces: float
    """Effective number of regions that they lie in: exp of the entropy; NaN without rows."""
    pieces_by_chance: float
    """The mean of that for as many rows drawn from all."""
    inside: int
    """Exemplars of the other dictionary that lie in the asked region."""
    relatives: tuple[Relative, ...]
    """By `share`, then by similarity."""
    left_out: int
    """Further ones."""


@dataclass(frozen=True, eq=False)
class KeptMembers:
    """The members that a dictionary keeps: rows of its stream and their regions."""

    row: Int64
    """(M,) ascending, each once."""
    region: Int64
    """(M,)."""
    sample_row: Int64
    """(S,) those of the uniform samples, ascending."""
    sample_region: Int64

    @classmethod
    def of(cls, dictionary: Dictionary) -> KeptMembers | None:
        """None for a dictionary without contexts."""
        if dictionary.contexts is None:
            return None
        table = dictionary.contexts.table(("region", "row", "sample_rank"))
        region, row, rank = (column.to_numpy().astype(np.int64) for column in table.columns)
        order = np.argsort(row, kind="stable")
        region, row, sampled = region[order], row[order], rank[order] >= 0
        return cls(row, region, row[sampled], region[sampled])

    def sample_of(self, region: int) -> Int64:
        """Its sampled rows, at most 30: all of its members if it has no more."""
        return self.sample_row[self.sample_region == region]

    def region_of(self, rows: Int64) -> Int64:
        """(n,) the region of each row; -1 where it is not kept."""
        if not len(self.row):
            return np.full(len(rows), -1, np.int64)
        place = np.minimum(np.searchsorted(self.row, rows), len(self.row) - 1)
        return np.where(self.row[place] == rows, self.region[place], -1)


def relatives(
    dictionary: Dictionary,
    region: int,
    other: Dictionary,
    *,
    table: Any = None,
    kept: tuple[KeptMembers, KeptMembers] | None = None,
    most: int = MOST,
    seed: int = 0,
) -> Relatives:
    """The regions of another resolution that a region has to do with.

    By its exemplars: the region that holds this one's exemplar, and those whose exemplar it holds.
    By rows, if there are any: all regions that share rows with it.

    The dictionaries of one pass sample members by one hash of rows, so a sampled member of a coarse
    region is nearly always a kept member of its finer region: that gives shares without any text
    (looked up are those that are found). The other way it gives none.

    Args:
        dictionary: Whose region.
        region: Its number; negative ones count from the end.
        other: Of the same center.
        table: Counts of shared rows (K, K of the other); see `resolution.contingency`.
        kept: Of both dictionaries, where there is no table.
        most: Relatives to list.
        seed: Of the draws of `pieces_by_chance`.

    Raises:
        ValueError: There is no such region, or `most` is not positive.
    """
    if most < 1:
        raise ValueError(f"most is {most}, expected a positive number of relatives")
    own = dictionary.region(region)
    source, shared, sizes, rows = _evidence(dictionary, own.index, own.count, other, table, kept)
    holder = int(assign_directions(other, own.exemplar[None])[0])
    inside = exemplars_inside(dictionary, own.index, other)
    every = np.union1d(np.flatnonzero(shared), np.append(inside, holder)).astype(np.int64)
    similarity = np.asarray(other.exemplars)[every] @ own.exemplar
    order = np.lexsort((every, -similarity, -shared[every]))
    listed = order[:most].tolist()
    place = int(np.searchsorted(every, holder))
    if place not in listed:
        listed = [*listed[: most - 1], place]
    of_it = sizes[1] / max(sizes[1].sum(), 1)
    same = same_stream(dictionary, other)

    def relative(n: int) -> Relative:
        other_region = int(every[n])
        hits, size = float(shared[other_region]), float(sizes[0][other_region])
        share = wilson(int(hits), rows) if rows else (float("nan"),) * 3
        return Relative(
            region=other_region,
            similarity=float(similarity[n]),
            same_exemplar=same and int(other.exemplar_rows[other_region]) == own.exemplar_row,
            holds_exemplar=other_region == holder,
            exemplar_inside=bool(np.isin(other_region, inside)),
            share=share[0],
            low=share[1],
            high=share[2],
            share_by_chance=float(of_it[other_region]) if rows else float("nan"),
            share_of_relative=min(1.0, hits / size) if rows and size else float("nan"),
        )

    pieces, by_chance = _pieces(shared, of_it, rows, seed)
    return Relatives(
        percentile=other.percentile,
        threshold=other.threshold,
        n_regions=len(other),
        finer=other.threshold < dictionary.threshold,
        source=source,
        rows=rows,
        pieces=pieces,
        pieces_by_chance=by_chance,
        inside=len(inside),
        relatives=tuple(relative(n) for n in listed),
        left_out=len(every) - len(listed),
    )


def relatives_everywhere(
    dictionaries: Sequence[Dictionary], dictionary: Dictionary, region: int, **options: Any
) -> tuple[Relatives, ...]:
    """The relatives of a region in each of the other dictionaries, by what they hold.

    Args:
        dictionaries: From coarse to fine, `dictionary` among them.
        dictionary: Whose region.
        region: Its number.
        **options: `most` and `seed` of `relatives`.
    """
    members = {d.threshold: KeptMembers.of(d) for d in dictionaries}
    mine = members[dictionary.threshold]
    found = []
    for other in dictionaries:
        if other.threshold == dictionary.threshold:
            continue
        theirs = members[other.threshold]
        kept = None if mine is None or theirs is None else (mine, theirs)
        found.append(relatives(dictionary, region, other, kept=kept, **options))
    return tuple(found)


def _evidence(
    dictionary: Dictionary,
    region: int,
    count: int,
    other: Dictionary,
    table: Any,
    kept: tuple[KeptMembers, KeptMembers] | None,
) -> tuple[str, Float64, tuple[Float64, Float64], int]:
    """Source; (K of the other,) rows in both; for each relative the rows that its share of it is
    over, and the rows that chance goes by; rows looked up.
    """
    k = len(other)
    if table is not None:
        shared = np.asarray(table[[region]].sum(axis=0), np.float64).ravel()
        sizes = np.asarray(table.sum(axis=0), np.float64).ravel()
        return SOURCES[2], shared, (sizes, sizes), int(shared.sum())
    counts = other.counts.astype(np.float64)
    nothing = SOURCES[0], np.zeros(k), (counts, counts), 0
    finer = other.threshold < dictionary.threshold
    if kept is None or not finer or not same_stream(dictionary, other):
        return nothing
    found = kept[1].region_of(kept[0].sample_of(region))
    found = found[found >= 0]
    if not len(found):
        return nothing
    # A sampled member stands for so many members of the asked region.
    sampled = counts * len(found) / max(count, 1)
    shared = np.bincount(found, minlength=k).astype(np.float64)
    return SOURCES[1], shared, (sampled, counts), len(found)


def _pieces(shared: Float64, chance: Float64, rows: int, seed: int) -> tuple[float, float]:
    """Effective number of relatives, and its mean for rows drawn from all."""
    if not rows:
        return float("nan"), float("nan")
    from scipy.sparse import csr_array

    drawn = np.random.default_rng([seed, 0x91EC]).multinomial(rows, chance / chance.sum(), _DEALS)
    found = effective_pieces(csr_array(np.concatenate([shared[None].astype(np.int64), drawn])))
    return float(found[0]), float(found[1:].mean())
