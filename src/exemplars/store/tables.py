"""Tables in Parquet files: contexts, where one region is read without the others, and the rest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.contexts import Context, contexts_from, contexts_schema
from exemplars.errors import FormatError
from exemplars.store.folders import HashedFile
from exemplars.store.manifest import FileEntry, first_line

GROWTH_COLUMNS = ("document", "rows", "regions", "singletons")

_GROUP_ROWS = 2048
_GROUPS_AT_ONCE = 32
_MAX_ROWS_PER_BYTE = 8


class ParquetContexts:
    """Contexts in a Parquet file: the contexts of one region are read without the others'.

    Args:
        path: contexts.parquet. It is held open, so that replacing the folder does not change
            what this object answers.
        n_regions: How many regions it may name; None for any number.

    Raises:
        FormatError: It is not a contexts file.
    """

    def __init__(self, path: str | os.PathLike[str], n_regions: int | None = None) -> None:
        self.path = Path(path)
        self._n_regions = n_regions
        self._lock = threading.Lock()
        self._file = _open_parquet(self.path, contexts_schema())
        self._first, self._last = _region_ranges(self.path, self._file, n_regions)
        self._kept: tuple[tuple[int, int], Any] | None = None

    def __repr__(self) -> str:
        return f"ParquetContexts({str(self.path)!r}, {self._file.metadata.num_rows:,} rows)"

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetContexts, (self.path, self._n_regions)

    def region(self, region: int) -> list[Context]:
        """The contexts of one region, by distance."""
        start = int(np.searchsorted(self._last, region, side="left"))
        stop = int(np.searchsorted(self._first, region, side="right"))
        if start >= stop:
            return []
        table = self._groups(start, stop)
        numbers = table["region"].to_numpy()
        low, high = np.searchsorted(numbers, [region, region + 1])
        return contexts_from(table.slice(low, high - low))

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """All of them, in memory; of some columns alone if `columns` names them."""
        return self._read(list(range(self._file.num_row_groups)), columns)

    def tables(self) -> Iterator[Any]:
        """All of them, in tables of some whole regions: less is in memory at once."""
        begun: list[int] = []
        n_groups = self._file.num_row_groups
        for group in range(n_groups):
            begun.append(group)
            ends = group + 1 == n_groups or self._last[group] < self._first[group + 1]
            if ends and (group + 1 == n_groups or len(begun) >= _GROUPS_AT_ONCE):
                yield self._read(begun)
                begun = []

    def _groups(self, start: int, stop: int) -> Any:
        kept = self._kept
        if kept is None or kept[0] != (start, stop):
            kept = ((start, stop), self._read(list(range(start, stop))))
            self._kept = kept
        return kept[1]

    def _read(self, groups: list[int], columns: Sequence[str] | None = None) -> Any:
        import pyarrow as pa

        with self._lock, _parquet_errors(self.path):
            table = self._file.read_row_groups(groups, columns=columns, use_threads=False)
            table.validate(full=True)
            every = contexts_schema()
            schema = every if columns is None else pa.schema([every.field(c) for c in columns])
            arrays = [
                table[f.name].combine_chunks().dictionary_encode()
                if pa.types.is_dictionary(f.type)
                else table[f.name]
                for f in schema
            ]
            return pa.Table.from_arrays(arrays, schema=schema)


def write_contexts(path: Path, table: Any) -> FileEntry:
    """Row groups are runs of whole regions; dictionaries are made anew from the strings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            (f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
            for f in contexts_schema()
        ]
    )
    with (
        HashedFile(path) as file,
        pq.ParquetWriter(
            pa.PythonFile(file, mode="w"),
            schema,
            compression="zstd",
            compression_level=3,
            version="2.6",
            write_statistics=["region"],
            store_schema=False,
        ) as writer,
    ):
        for start, stop in _runs(table["region"].to_numpy()):
            part = table.slice(start, stop - start)
            columns = [part[f.name].cast(f.type).combine_chunks() for f in schema]
            group = pa.Table.from_arrays(columns, schema=schema)
            writer.write_table(group, row_group_size=max(len(group), 1))
    return FileEntry.of(file)


def check_contexts(table: Any, n_regions: int) -> None:
    """Refuse a contexts table that `write_contexts` could not write, or of other regions."""
    schema = contexts_schema()
    missing = [name for name in schema.names if name not in table.schema.names]
    if missing:
        raise ValueError(
            f"the contexts table has no column {', '.join(missing)}; "
            "make it with exemplars.contexts.contexts_table"
        )
    regions = table["region"].to_numpy()
    if len(regions) and ((np.diff(regions) < 0).any() or regions[0] < 0):
        raise ValueError("the contexts table is not sorted by region; sort it first")
    if len(regions) and regions[-1] >= n_regions:
        raise ValueError(
            f"the contexts table names region {regions[-1]}, but there are {n_regions} regions"
        )


def write_table(path: Path, table: Any, store_schema: bool = False) -> FileEntry:
    """A table as it is; `store_schema` keeps the types of Arrow that Parquet has not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        HashedFile(path) as file,
        pq.ParquetWriter(
            pa.PythonFile(file, mode="w"),
            table.schema,
            compression="zstd",
            compression_level=3,
            version="2.6",
            store_schema=store_schema,
        ) as writer,
    ):
        for start in range(0, len(table), 1 << 16):
            writer.write_table(table.slice(start, 1 << 16).combine_chunks())
    return FileEntry.of(file)


def fit_growth(table: Any) -> Any:
    """A growth table in the columns and types of the file."""
    if sorted(table.schema.names) != sorted(GROWTH_COLUMNS):
        raise ValueError(
            f"the growth table has columns {', '.join(table.schema.names)}, "
            f"expected {', '.join(GROWTH_COLUMNS)}"
        )
    return table.select(list(GROWTH_COLUMNS)).cast(growth_schema())


def growth_schema() -> Any:
    """The growth table's."""
    import pyarrow as pa

    return pa.schema([(name, pa.int64()) for name in GROWTH_COLUMNS])


def stability_schema() -> Any:
    """Columns and types of a table of the stability of regions."""
    import pyarrow as pa

    kinds = {
        "region": pa.int32(), "mean_cosine": pa.float32(), "exemplar_cosine": pa.float32(),
        "found": pa.float32(), "others": pa.int32(),
    }  # fmt: skip
    return pa.schema(list(kinds.items()))


def check_stability(table: Any, n_regions: int) -> Any:
    """A table of stability in the columns and types of the file; ValueError if it is another."""
    schema = stability_schema()
    if sorted(table.schema.names) != sorted(schema.names):
        raise ValueError(
            f"the stability table has columns {', '.join(table.schema.names)}, "
            f"expected {', '.join(schema.names)}"
        )
    fitted = table.select(schema.names).cast(schema)
    if fitted["region"].to_pylist() != list(range(n_regions)):
        raise ValueError(
            f"the stability table has not one line for each of {n_regions} regions, in order"
        )
    return fitted


def read_table(path: Path, schema: Any = None) -> Any:
    """The columns of `schema`, which the file must have; all it has, if None."""
    file = _open_parquet(path, schema)
    with _parquet_errors(path):
        table = file.read(columns=None if schema is None else schema.names, use_threads=False)
        table.validate(full=True)
    return table


def _open_parquet(path: Path, schema: Any) -> Any:
    """A ParquetFile whose footer fits `schema` (any, if None) and the size of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise FormatError(f"{path} is missing; get the folder again from where it came from")
    with _parquet_errors(path):
        file = pq.ParquetFile(pa.memory_map(str(path)), memory_map=True)
        found = file.schema_arrow
        n_rows = file.metadata.num_rows
    if n_rows > _MAX_ROWS_PER_BYTE * path.stat().st_size:
        raise FormatError(
            f"{path} claims {n_rows:,} rows in {path.stat().st_size:,} bytes, which no writer "
            "makes; get the folder again from where it came from"
        )
    for wanted in schema or ():
        kind = wanted.type.value_type if pa.types.is_dictionary(wanted.type) else wanted.type
        index = found.get_field_index(wanted.name)
        if index < 0 or found.field(index).type not in (kind, wanted.type):
            have = "nothing" if index < 0 else str(found.field(index).type)
            raise FormatError(
                f'{path} has {have} as column "{wanted.name}", expected {kind}; '
                "get the folder again from where it came from"
            )
    return file


@contextlib.contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise FormatError(
            f"{path} is not readable as Parquet ({first_line(error)}); "
            "get the folder again from where it came from"
        ) from error


def _region_ranges(
    path: Path, file: Any, n_regions: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last region of each row group."""
    column = file.schema_arrow.get_field_index("region")
    ranges = np.zeros((file.num_row_groups, 2), np.int64)
    with _parquet_errors(path):
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics is None or not statistics.has_min_max:
                raise FormatError(
                    f"{path} does not say which regions its row groups hold, so it was not "
                    "written by this library; save the dictionary again"
                )
            ranges[group] = statistics.min, statistics.max
    flat = ranges.ravel()
    if len(flat) and ((np.diff(flat) < 0).any() or flat[0] < 0):
        raise FormatError(f"{path} is not sorted by region; save the dictionary again")
    if n_regions is not None and len(flat) and flat[-1] >= n_regions:
        raise FormatError(
            f"{path} names region {flat[-1]}, but the dictionary has {n_regions} regions; "
            "get the folder again from where it came from"
        )
    return ranges[:, 0], ranges[:, 1]


def _runs(regions: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Consecutive runs of whole regions, of at most `_GROUP_ROWS` rows unless one region has
    more.
    """
    n = len(regions)
    ends = np.append(np.flatnonzero(np.diff(regions)) + 1, n)
    start = 0
    while start < n:
        k = int(np.searchsorted(ends, start + _GROUP_ROWS, side="right")) - 1
        stop = int(ends[k]) if k >= 0 and ends[k] > start else int(ends[k + 1])
        yield start, stop
        start = stop
