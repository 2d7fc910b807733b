"""Contexts: members of regions, where they were seen.

A region keeps its exemplar, its ten nearest, its ten farthest, and a uniform sample of thirty
members. While streaming these are row numbers; afterwards each is looked up once in the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Int64
from exemplars.members import MemberRows


@dataclass(frozen=True)
class Context:
    """A member of a region, where it was seen."""

    region: int
    row: int
    """Global number of the row in the stream."""
    distance: float
    """Cosine distance to the exemplar."""
    document: int
    """Number of the document in its source; -1 where rows have no document."""
    position: int
    """Index of the token in the document's tokens; -1 likewise."""
    token: int
    """Token id; -1 likewise."""
    before: str
    text: str
    """The token as it stands in the document."""
    after: str
    name: str
    """What the source calls the document."""
    exemplar: bool
    """It founded the region."""
    nearest_rank: int
    """0 for the nearest member, up to 9; -1 if it is not among the ten."""
    farthest_rank: int
    sample_rank: int
    """0 to 29 in the uniform sample of members; -1 if it is not in it."""


class Contexts(Protocol):
    """The contexts of a dictionary, in memory or on disk."""

    def region(self, region: int) -> list[Context]:
        """The contexts of one region, by distance."""
        ...

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """All of them, a pyarrow table with one column for each field of `Context`, or for those
        named alone.
        """
        ...

    def tables(self) -> Iterator[Any]:
        """All of them as such tables, some whole regions in each."""
        ...


@dataclass(frozen=True)
class TableContexts:
    """Contexts held in memory: a pyarrow table sorted by region and distance."""

    rows: Any

    def region(self, region: int) -> list[Context]:
        """The contexts of one region, by distance."""
        numbers = self.rows["region"].to_numpy()
        start, stop = np.searchsorted(numbers, [region, region + 1])
        return contexts_from(self.rows.slice(start, stop - start))

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """All of them; of some columns alone if `columns` names them."""
        return self.rows if columns is None else self.rows.select(list(columns))

    def tables(self) -> Iterator[Any]:
        """All of them, in one table."""
        yield self.rows


def contexts_from(table: Any) -> list[Context]:
    """The rows of a contexts table as `Context` records."""
    names = [f.name for f in fields(Context)]
    return [Context(**{name: line[name] for name in names}) for line in table.to_pylist()]


def contexts_schema() -> Any:
    """Columns and types of a contexts table."""
    import pyarrow as pa

    kinds = {
        "region": pa.int32(), "row": pa.int64(), "distance": pa.float32(),
        "document": pa.int64(), "position": pa.int32(), "token": pa.int32(),
        "before": pa.string(), "text": pa.string(), "after": pa.string(),
        "name": pa.dictionary(pa.int32(), pa.string()), "exemplar": pa.bool_(),
        "nearest_rank": pa.int8(), "farthest_rank": pa.int8(), "sample_rank": pa.int8(),
    }  # fmt: skip
    return pa.schema(list(kinds.items()))


SEEN = ("document", "position", "token", "before", "text", "after", "name")
"""Columns that come from the text; a row of an array has -1 and empty strings there."""


def contexts_table(kept: MemberRows, exemplar_rows: Int64 | None, sightings: Any = None) -> Any:
    """One line for each kept member, sorted by region, distance, and row.

    Args:
        kept: The members to list.
        exemplar_rows: (K,) the founders' rows; None if they are not rows of this stream.
        sightings: pyarrow table with a column `row`, ascending, that has every kept row, and
            the columns `SEEN`; None for rows that have no text.

    Returns:
        A pyarrow table with the columns of `Context`.
    """
    import pyarrow as pa

    region, row, distance, ranks = _list_members(kept)
    founders = np.full(len(kept.nearest_row), -1) if exemplar_rows is None else exemplar_rows
    columns: dict[str, Any] = {
        "region": region,
        "row": row,
        "distance": distance,
        "exemplar": row == founders[region],
        **ranks,
    }
    schema = contexts_schema()
    if sightings is None:
        nothing = {"document": -1, "position": -1, "token": -1}
        columns |= {name: [nothing.get(name, "")] * len(row) for name in SEEN}
    else:
        place = np.searchsorted(sightings["row"].to_numpy(), row)
        seen = sightings.select(SEEN).take(place).combine_chunks()
        columns |= {name: seen[name] for name in SEEN}
    arrays = [
        columns[f.name].cast(f.type)
        if isinstance(columns[f.name], pa.ChunkedArray)
        else pa.array(columns[f.name], type=f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema).combine_chunks()


def kept_row_numbers(kept: MemberRows) -> Int64:
    """Distinct rows that are kept for any region, ascending."""
    every = np.concatenate(
        [kept.nearest_row.ravel(), kept.farthest_row.ravel(), kept.sample_row.ravel()]
    )
    distinct = np.unique(every)
    return distinct[distinct >= 0]


def _list_members(
    kept: MemberRows,
) -> tuple[Int64, Int64, NDArray[np.float64], dict[str, NDArray[np.int8]]]:
    """Distinct (region, row) with their distance and their rank in each list, -1 for none."""
    lists = {
        "nearest_rank": (kept.nearest_row, kept.nearest_distance),
        "farthest_rank": (kept.farthest_row, kept.farthest_distance),
        "sample_rank": (kept.sample_row, kept.sample_distance),
    }
    parts = []
    for number, (rows, distances) in enumerate(lists.values()):
        region, rank = np.nonzero(rows >= 0)
        which = np.full(len(rank), number)
        parts.append((region, rows[region, rank], distances[region, rank], rank, which))
    region, row, distance, rank, which = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.lexsort((row, distance, region))
    region, row, distance = region[order], row[order], distance[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (region[1:] != region[:-1]) | (row[1:] != row[:-1])
    line = np.cumsum(first) - 1
    ranks = {}
    for k, name in enumerate(lists):
        ranks[name] = np.full(int(first.sum()), -1, np.int8)
        mine = which[order] == k
        ranks[name][line[mine]] = rank[order][mine]
    return region[first], row[first], distance[first], ranks
