"""Re-readable text sources, and slices of them.

Documents are numbered in source order, before any slice or permutation.

Text files are UTF-8; bytes that are not become U+FFFD, and so do lone surrogates, one for one,
so every offset refers to the text of the `Document`. NUL stays.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import mmap
import os
import re
import shutil
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exemplars.errors import SourceError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Document:
    """One text or conversation of a source."""

    number: int  # in source order, before slice and permutation
    content: str | list[dict[str, Any]]  # text, or chat messages
    name: str  # "1790-Washington-1.txt", "file.jsonl:12"


_TEXT_SUFFIXES = (".txt", ".md")
_LINES_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_KNOWN_SUFFIXES = (*_TEXT_SUFFIXES, *_LINES_SUFFIXES, ".parquet")
_NOT_TEXT = (
    *(".json", ".csv", ".tsv", ".pdf", ".gz", ".zip", ".bz2", ".xz", ".zst", ".tar"),
    *(".arrow", ".safetensors", ".gguf", ".pkl", ".pt", ".bin", ".npy", ".npz"),
)
_INDEX_STRIDE = 32  # JSON Lines: one remembered offset for so many documents
_TABLE_ROWS = 256  # Parquet: rows decoded at a time
_OPEN_FILES = 32
_HASHED_WHOLE = 1 << 28  # bytes; of larger files the size and both ends are hashed
_SHUFFLE_BUFFER = 10_000  # documents held to permute a stream of unknown length


class _Source(Protocol):
    """Numbered documents. `known_size` costs nothing; `size` may read the source through."""

    streams: bool  # only forward: `read` takes ascending numbers

    @property
    def known_size(self) -> int | None: ...
    def size(self) -> int | None: ...
    def read(self, numbers: Iterable[int]) -> Iterator[Document]:
        """Yield the documents of these numbers in turn; end at the first past the end."""
        ...

    def describe(self) -> dict[str, Any]: ...


class _List:
    streams = False

    def __init__(self, items: Sequence[Any]) -> None:
        self._documents = [
            Document(i, _content(item, f"texts[{i}]"), f"texts[{i}]")
            for i, item in enumerate(items)
        ]

    @property
    def known_size(self) -> int:
        return len(self._documents)

    def size(self) -> int:
        return len(self._documents)

    def read(self, numbers: Iterable[int]) -> Iterator[Document]:
        for number in numbers:
            if number >= len(self._documents):
                return
            yield self._documents[number]

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for document in self._documents:
            digest.update(json.dumps(document.content, sort_keys=True).encode() + b"\n")
        return {"kind": "list", "n_documents": self.size(), "sha256": digest.hexdigest()}


class _Files:
    """Text files of one document each, JSON Lines and Parquet files of many, one after another."""

    streams = False

    def __init__(self, paths: Sequence[Path], column: str, about: dict[str, Any]) -> None:
        root = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
        self._files = [_open_file(path, _relative(path, root), column) for path in paths]
        self._starts = [0]  # number of the first document of each file, as far as known
        tables = any(not isinstance(file, _TextFile) for file in self._files)
        self._about = {**about, "column": column} if tables else about
        self._digest: str | None = None

    @property
    def known_size(self) -> int | None:
        last = self._files[-1].size
        complete = len(self._starts) == len(self._files)
        return self._starts[-1] + last if complete and last is not None else None

    def size(self) -> int | None:
        if self.known_size is None:
            for _ in self.read([sys.maxsize]):
                pass
        return self.known_size

    def read(self, numbers: Iterable[int]) -> Iterator[Document]:
        readers: dict[int, _Reader] = {}
        try:
            for number in numbers:
                while True:
                    k = bisect_right(self._starts, number) - 1
                    reader = readers.pop(k) if k in readers else self._files[k].open()
                    readers[k] = reader  # the last of them, as it is the latest used
                    if len(readers) > _OPEN_FILES:
                        readers.pop(next(iter(readers))).close()
                    found = reader.get(number - self._starts[k])
                    if found is not None:
                        break
                    if k + 1 == len(self._files):
                        return
                    self._starts.append(self._starts[k] + (self._files[k].size or 0))
                yield Document(number, *found)
        except OSError as error:
            raise SourceError(f"a text file could not be read ({error}); check it") from error
        finally:
            for reader in readers.values():
                reader.close()

    def describe(self) -> dict[str, Any]:
        sizes = [file.path.stat().st_size for file in self._files]
        if self._digest is None:
            digest = hashlib.sha256()
            for file, size in zip(self._files, sizes, strict=True):
                digest.update(json.dumps([file.name, size, _sha256(file.path, size)]).encode())
            self._digest = digest.hexdigest()
        return {
            **self._about,
            "n_files": len(sizes),
            "bytes": sum(sizes),
            "sha256": self._digest,
        }


class _Reader(Protocol):
    def get(self, i: int) -> tuple[str | list[dict[str, Any]], str] | None:
        """Return the content and name of the file's document `i`, None past the end."""
        ...

    def close(self) -> None: ...


class _TextFile:
    """A whole file as one document; its own reader, as nothing stays open."""

    size: int | None = 1

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def open(self) -> _TextFile:
        return self

    def get(self, i: int) -> tuple[str, str] | None:
        if i > 0:
            return None
        return _clean(self.path.read_bytes().decode("utf-8-sig", "replace")), self.name

    def close(self) -> None:
        pass


class _LinesFile:
    """JSON Lines; a document is a line that is not blank."""

    def __init__(self, path: Path, name: str, column: str) -> None:
        self.path, self.name, self.column = path, name, column
        self.size: int | None = None  # documents, once the file was read to its end
        self.index = [(0, 0)]  # (offset, lines before) of every _INDEX_STRIDE-th document
        self.spilled: mmap.mmap | None = None  # a compressed file, when read out of order

    def open(self) -> _LinesReader:
        return _LinesReader(self)


class _LinesReader:
    def __init__(self, file: _LinesFile) -> None:
        self._file = file
        self._compressed = file.path.suffix == ".gz"
        self._handle: Any = (gzip.open if self._compressed else open)(file.path, "rb")
        self._next = self._offset = self._line = 0  # the document, byte and line that come next

    def get(self, i: int) -> tuple[str | list[dict[str, Any]], str] | None:
        file = self._file
        if file.size is not None and i >= file.size:
            return None
        nearest = min(i // _INDEX_STRIDE, len(file.index) - 1)
        if i < self._next or nearest * _INDEX_STRIDE > self._next:
            backward, self._next = i < self._next, nearest * _INDEX_STRIDE
            self._offset, self._line = file.index[nearest]
            if backward and self._compressed and file.spilled is None:
                file.spilled = _spill(lambda sink: shutil.copyfileobj(self._rewound(), sink))
        handle = self._handle if file.spilled is None else file.spilled
        handle.seek(self._offset)
        while self._next <= i:
            line = self._read_line(handle)
            if not line:
                file.size = self._next
                return None
            self._offset += len(line)
            self._line += 1
            if not line.strip():
                continue
            self._next += 1
            if self._next == len(file.index) * _INDEX_STRIDE:
                file.index.append((self._offset, self._line))
        name = f"{file.name}:{self._line}"
        return _content(_cell(_parsed(line, name), file.column, name), name), name

    def _read_line(self, handle: Any) -> bytes:
        try:
            return bytes(handle.readline())
        except EOFError as error:
            raise SourceError(
                f"{self._file.name} ends in the middle of its compressed data; fetch it again"
            ) from error

    def _rewound(self) -> Any:
        self._handle.seek(0)
        return self._handle

    def close(self) -> None:
        self._handle.close()


class _ParquetFile:
    """One column of a Parquet file, a few rows at a time."""

    def __init__(self, path: Path, name: str, column: str) -> None:
        import pyarrow.parquet as parquet
        from pyarrow import ArrowInvalid

        self.path, self.name, self.column = path, name, column
        try:
            with parquet.ParquetFile(path) as file:
                columns = file.schema_arrow.names
                groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        except ArrowInvalid as error:
            raise SourceError(f"{name} is not a Parquet file ({error}); check it") from error
        if column not in columns:
            raise _no_column(column, columns, name)
        self.group_starts = [0, *itertools.accumulate(groups)][:-1]
        self.size: int | None = sum(groups)
        self.spilled: tuple[Any, list[int]] | None = None  # Arrow reader, first row of each batch

    def open(self) -> _ParquetReader:
        return _ParquetReader(self)


class _ParquetReader:
    """Forward by row group; after a step back, from an uncompressed memory-mapped copy."""

    def __init__(self, file: _ParquetFile) -> None:
        import pyarrow.parquet as parquet

        self._file, self._parquet = file, parquet.ParquetFile(file.path)
        self._group, self._first = -1, 0
        self._rows: list[Any] = []
        self._batches: Iterator[Any] = iter(())

    def get(self, i: int) -> tuple[str | list[dict[str, Any]], str] | None:
        file = self._file
        if i >= (file.size or 0):
            return None
        if i < self._first and file.spilled is None:
            file.spilled = self._spill()
        name = f"{file.name}:{i + 1}"
        return _content(self._forward(i) if file.spilled is None else self._anywhere(i), name), name

    def _forward(self, i: int) -> Any:
        group = bisect_right(self._file.group_starts, i) - 1
        if group != self._group:
            self._group, self._first, self._rows = group, self._file.group_starts[group], []
            self._batches = self._read_batches(row_groups=[group])
        while i >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = next(self._batches).column(0).to_pylist()
        return self._rows[i - self._first]

    def _anywhere(self, i: int) -> Any:
        assert self._file.spilled is not None
        reader, starts = self._file.spilled
        batch = bisect_right(starts, i) - 1
        return reader.get_batch(batch).column(0)[i - starts[batch]].as_py()

    def _read_batches(self, **where: Any) -> Iterator[Any]:
        import pyarrow as pa

        columns = [self._file.column]
        for batch in self._parquet.iter_batches(_TABLE_ROWS, columns=columns, **where):
            column = batch.column(0)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            yield pa.record_batch([column], names=columns)

    def _spill(self) -> tuple[Any, list[int]]:
        import pyarrow as pa

        lengths = []

        def write(sink: Any) -> None:
            batches = self._read_batches()
            first = next(batches)
            with pa.ipc.new_file(sink, first.schema) as writer:
                for batch in itertools.chain([first], batches):
                    writer.write_batch(batch)
                    lengths.append(batch.num_rows)

        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(_spill(write))))
        return reader, [0, *itertools.accumulate(lengths)][:-1]

    def close(self) -> None:
        self._parquet.close()


class _HubDataset:
    """A Hugging Face dataset, streamed. Nothing is fetched before the first document is read."""

    streams = True
    known_size = None

    def __init__(
        self, name: str, column: str, split: str, config: str | None, revision: str | None
    ) -> None:
        self._where = {"name": name, "config": config, "split": split, "revision": revision}
        self._column = column

    def size(self) -> None:
        return None

    def read(self, numbers: Iterable[int]) -> Iterator[Document]:
        name = self._where["name"]
        wanted = iter(numbers)
        number = next(wanted, None)
        for i, row in enumerate(self._load()) if number is not None else ():
            if i == number:
                place = f"{name}:{i + 1}"
                yield Document(i, _content(_cell(row, self._column, place), place), place)
                number = next(wanted, None)
                if number is None:
                    return

    def _load(self) -> Iterable[dict[str, Any]]:
        import datasets

        where = dict(self._where)
        name = where.pop("name")
        try:
            rows = datasets.load_dataset(name, where.pop("config"), streaming=True, **where)
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(
                f"there is no file, folder, or package {name!r}, and no Hugging Face dataset of "
                f"that name could be opened ({_one_line(error)}); check the name, split and config"
            ) from error
        return rows

    def describe(self) -> dict[str, Any]:
        return {"kind": "dataset", **self._where, "column": self._column}


def _open_file(path: Path, name: str, column: str) -> _TextFile | _LinesFile | _ParquetFile:
    lower = path.name.lower()
    if lower.endswith(_LINES_SUFFIXES):
        return _LinesFile(path, name, column)
    if lower.endswith(".parquet"):
        return _ParquetFile(path, name, column)
    if lower.endswith(_NOT_TEXT):
        raise SourceError(
            f"{name} does not look like text; give text files, JSON Lines, or Parquet"
        )
    return _TextFile(path, name)


def _spill(write: Callable[[Any], None]) -> mmap.mmap:
    """What `write` writes, in a nameless temporary file mapped into memory."""
    with tempfile.TemporaryFile() as file:
        write(file)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _sha256(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size > _HASHED_WHOLE:
            digest.update(file.read(1 << 20))
            file.seek(size - (1 << 20))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _clean(text: str) -> str:
    """Put U+FFFD for lone surrogates, which tokenizers and UTF-8 refuse."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def _content(value: Any, where: str) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list | tuple) and value and all(_is_message(item) for item in value):
        return [
            {key: _clean(part) if isinstance(part, str) else part for key, part in item.items()}
            for item in value
        ]
    found = "an empty list" if value in ([], ()) else type(value).__name__
    raise SourceError(
        f"{where} holds {found}, but a text or a list of chat messages (role, content) is needed; "
        f"remove or repair it"
    )


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("role"), str) and "content" in item


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig", "replace"))
    except json.JSONDecodeError as error:
        raise SourceError(f"{where} is not JSON ({error}); put one object on each line") from error
    if not isinstance(row, dict):
        raise SourceError(f"{where} is a JSON {type(row).__name__}; put one object on each line")
    return row


def _cell(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise _no_column(column, list(row), where)
    return row[column]


def _no_column(column: str, columns: Sequence[str], where: str) -> SourceError:
    there = ", ".join(map(repr, columns)) or "none"
    return SourceError(f"{where} has no column {column!r}; it has {there}: choose with column=")


@dataclass(frozen=True, eq=False)
class Texts:
    """Documents that can be read again, as often as one likes: a source, and a view of it.

    `slice`, `hold_out` and `shuffled` act in the order in which they are called, and each
    returns a new object. Iterating gives the view's documents.
    """

    _source: _Source
    _steps: tuple[dict[str, Any], ...] = ()

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        """The view's documents from ordinal `start` up to `stop` (None: to the end)."""
        _check_range(start, stop)
        items = itertools.islice(self._items(), start, stop)
        return items if self._source.streams else self._source.read(items)

    def __iter__(self) -> Iterator[Document]:
        return self.documents()

    def fetch(self, numbers: Iterable[int]) -> Iterator[Document]:
        """The documents with these source numbers, ascending, each once, in or out of the view.

        Raises:
            SourceError: If the source has no document of such a number.
        """
        wanted = sorted({int(number) for number in numbers})
        if wanted and wanted[0] < 0:
            raise ValueError(f"document number {wanted[0]} is negative")
        n_found = 0
        for document in self._source.read(wanted):
            n_found += 1
            yield document
        if n_found < len(wanted):
            raise SourceError(
                f"the source has no document number {wanted[n_found]}; "
                f"give the texts that the numbers came from"
            )

    def slice(self, start: int, stop: int | None = None) -> Texts:
        """The view's documents `start` up to `stop`."""
        _check_range(start, stop)
        steps = self._steps
        if steps and "slice" in steps[-1]:  # two slices are one
            first, last = steps[-1]["slice"]
            ends = [last, None if stop is None else first + stop]
            start += first
            stop = min((end for end in ends if end is not None), default=None)
            steps = steps[:-1]
        whole = start == 0 and stop is None
        return self._then(steps, () if whole else ({"slice": [start, stop]},))

    def hold_out(self, fraction: float, seed: int = 0) -> tuple[Texts, Texts]:
        """Two disjoint views, (kept, held out), that together are this one.

        A document is held out if a hash of seed and source number is below `fraction`, in (0, 1),
        so it stays where it is when the source grows, and a stream needs no second look. A second
        `hold_out` of a view draws anew, even with the same seed.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), got {fraction}")
        step = {"hold_out": float(fraction), "seed": int(seed)}
        kept, held = ({**step, "part": part} for part in ("kept", "held_out"))
        return self._then(self._steps, (kept,)), self._then(self._steps, (held,))

    def shuffled(self, seed: int) -> Texts:
        """The view's documents, permuted once by `seed`.

        A permutation by `np.random.default_rng(seed)`; a Hugging Face stream, whose length is
        not known, is permuted through a buffer of 10,000 documents.
        """
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        return self._then(self._steps, ({"shuffle": int(seed)},))

    @property
    def n_documents(self) -> int | None:
        """Documents in the view, None for a stream. May read JSON Lines through once."""
        if self._source.size() is None:
            return None
        return sum(1 for _ in self._items(bounded=True))

    def __len__(self) -> int:
        """`n_documents`; TypeError where it is not known."""
        n_documents = self.n_documents
        if n_documents is None:
            raise TypeError("a streamed dataset has no length that is known in advance")
        return n_documents

    def __bool__(self) -> bool:
        return True

    def describe(self) -> dict[str, Any]:
        """What identifies the data and the view, for the manifest (JSON-able).

        Equal for equal data. Files count by relative name, size and content; of a file above
        256 MiB the size and the first and last MiB.
        """
        return {**self._source.describe(), "view": [dict(step) for step in self._steps]}

    def _then(self, steps: tuple[dict[str, Any], ...], more: tuple[dict[str, Any], ...]) -> Texts:
        return replace(self, _steps=(*steps, *more))

    def _items(self, bounded: bool = False) -> Iterator[Any]:
        """The numbers of the view's documents in its order; of a stream, the documents."""
        source = self._source
        items: Iterator[Any]
        if source.streams:
            items = source.read(itertools.count())
        else:
            bounded = bounded or any("shuffle" in step for step in self._steps)
            size = source.size() if bounded else source.known_size
            items = itertools.count() if size is None else iter(range(size))
        n_held = 0
        for step in self._steps:
            if "slice" in step:
                items = itertools.islice(items, *step["slice"])
            elif "shuffle" in step:
                shuffle: Any = _buffer_shuffled if source.streams else _permuted
                items = shuffle(items, step["shuffle"])
            else:
                items = _part(items, step, salt=n_held)
                n_held += 1
        return items


def _check_range(start: int, stop: int | None) -> None:
    if start < 0 or (stop is not None and stop < 0):
        raise ValueError(f"start and stop must not be negative, got {start} and {stop}")


def _part(items: Iterable[Any], step: dict[str, Any], salt: int) -> Iterator[Any]:
    """Those items that fall on the step's side of its hash."""
    below, key = step["hold_out"] * 2.0**64, _splitmix64(_splitmix64(step["seed"]) + salt)
    for item in items:
        number = item.number if isinstance(item, Document) else item
        if (_splitmix64(key ^ number) < below) == (step["part"] == "held_out"):
            yield item


def _permuted(items: Iterable[int], seed: int) -> Iterator[int]:
    numbers = np.fromiter(items, np.int64)
    order = np.random.default_rng(seed).permutation(len(numbers))
    return (int(number) for number in numbers[order])


def _buffer_shuffled(items: Iterable[Document], seed: int) -> Iterator[Document]:
    """Each document takes a random place in a buffer and sends out the one that was there.

    Done here and not by `datasets`, whose shuffle also reorders shards: the documents keep the
    numbers they have in the unpermuted stream.
    """
    rng = np.random.default_rng(seed)
    buffer: list[Document] = []
    for item in items:
        if len(buffer) < _SHUFFLE_BUFFER:
            buffer.append(item)
        else:
            place = int(rng.integers(_SHUFFLE_BUFFER))
            buffer[place], item = item, buffer[place]
            yield item
    yield from (buffer[place] for place in rng.permutation(len(buffer)))


def _splitmix64(x: int) -> int:
    """The splitmix64 generator's output for state `x` (Steele, Lea and Flood 2014)."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def texts(
    source: Any,
    *,
    column: str = "text",
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
) -> Texts:
    """Re-readable texts from almost anything.

    Args:
        source: A list of texts or of conversations (lists of {"role", "content"}); a path, list
            of `Path`s, or glob of text files (one document each), JSON Lines (.jsonl, .ndjson,
            also .gz) or Parquet; a folder of such files, taken recursively in the order of their
            paths, hidden ones left out; "package:NAME", the text files that an installed
            distribution carries; any other name: a Hugging Face dataset, streamed. What exists on
            disk wins over a dataset of that name. `Texts` come back as they are.
        column: The column of JSON Lines, Parquet, or a dataset that holds text or messages.
        split: Of a Hugging Face dataset, as are `config` and `revision` (pin it: a name alone
            is a moving target).
        config: None is the dataset's default.
        revision: None is its newest.

    Raises:
        SourceError: If nothing is there under that name, or it cannot be read as text.
        ValueError: If `source` is none of these.
    """
    if isinstance(source, Texts):
        return source
    if isinstance(source, str) and not _exists(source):
        if source.startswith("package:"):
            made: _Source = _package(source.removeprefix("package:"), column)
        elif glob.has_magic(source):
            pattern = str(Path(source).expanduser())
            found = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207
            made = _files([path for path in found if path.is_file()], column, source)
        else:
            _check_dataset_name(source)
            return Texts(_HubDataset(source, column, split, config, revision))
    elif isinstance(source, str | os.PathLike):
        made = _path(Path(source).expanduser(), column, source)
    elif isinstance(source, list | tuple):
        paths = [item for item in source if isinstance(item, os.PathLike)]
        if paths and len(paths) < len(source):
            raise ValueError("the list mixes paths and texts; give one or the other")
        if not paths:
            made = _List(source)
        else:
            made = _files([Path(path).expanduser() for path in paths], column, list(source))
    else:
        raise ValueError(
            f"a {type(source).__name__} is no source of texts; give a list of strings, a path, "
            f'"package:NAME", or the name of a Hugging Face dataset'
        )
    if config is not None or revision is not None:
        raise ValueError("config and revision belong to a Hugging Face dataset, and this is none")
    return Texts(made)


def reopened(description: Mapping[str, Any], place: Texts | None = None) -> Texts:
    """The texts that `Texts.describe` gave this description of, if they are still there.

    Args:
        description: As a manifest holds it.
        place: The same texts, where they lie now; None: where the description says.

    Raises:
        SourceError: They are not on this machine (files, a package), or are others by now.
    """
    about = dict(description)
    view, name = about.pop("view", ()), about.get("source")
    found = _at_their_place(about) if place is None else Texts(place._source)
    there = found.describe()
    # Not by the source's name: a path that a manifest holds as "corpus/" is spelled "corpus" here.
    spelling = {"view": (), "source": ()}
    if {**there, **spelling} != {**about, **spelling}:
        raise SourceError(f"the texts {name or about.get('name')} have changed; give the former")
    return Texts(found._source, tuple(dict(step) for step in view))


def _at_their_place(about: Mapping[str, Any]) -> Texts:
    """Texts where a description says that they are."""
    kind, name = about.get("kind"), about.get("source")
    options = {"column": about["column"]} if "column" in about else {}
    if kind == "package":
        return texts(f"package:{about.get('name')}", **options)
    if kind == "files" and isinstance(name, str | list):
        paths = [Path(part) for part in ([name] if isinstance(name, str) else name)]
        absent = [path for path in paths if not path.exists()]
        if absent:
            raise SourceError(f"the texts {absent[0]} are not here; give their place")
        return texts(paths if isinstance(name, list) else paths[0], **options)
    raise SourceError(f"texts of the kind {kind!r} cannot be opened again; give them")


def held_out_slice(description: Mapping[str, Any], place: Texts | None = None) -> Texts | None:
    """What was held out of the texts that `Texts.describe` gave this description of.

    Args:
        description: As a manifest holds it.
        place: As of `reopened`.

    Returns:
        The other part of the last `hold_out`, with the later steps of the view; None where nothing
        was held out.

    Raises:
        SourceError: As `reopened`.
    """
    view = [dict(step) for step in description.get("view", ())]
    kept = [step for step in view if step.get("part") == "kept"]
    if not kept:
        return None
    kept[-1]["part"] = "held_out"
    return reopened({**description, "view": view}, place)


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, NUL, no such home
        return False


def _path(path: Path, column: str, given: Any) -> _Files:
    if not path.is_dir():
        return _files([path], column, given)
    found = [
        file
        for file in path.rglob("*")
        if file.name.lower().endswith(_KNOWN_SUFFIXES)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    return _files(found, column, given)


def _files(paths: Sequence[Path], column: str, given: Any) -> _Files:
    """A source of these files; a folder's or glob's are put in the order of their paths."""
    if not paths:
        raise SourceError(
            f"{given} matches no file; expected {', '.join(_KNOWN_SUFFIXES)}: check the path"
        )
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise SourceError(f"there is no file {absent}; check the path")
    if not isinstance(given, list):
        paths = sorted(paths, key=lambda path: path.as_posix())
    names = [
        os.fspath(item) if not Path(item).is_absolute() else Path(item).name
        for item in (given if isinstance(given, list) else [given])
    ]
    source = names if isinstance(given, list) else names[0]
    return _Files(paths, column, {"kind": "files", "source": source})


def _package(name: str, column: str) -> _Files:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise SourceError(
            f"no distribution {name!r} is installed; install it: pip install {name}"
        ) from error
    found = sorted(
        (file for file in distribution.files or () if _is_package_text(file.parts)),
        key=lambda file: file.as_posix(),
    )
    paths = [path for path in (Path(str(file.locate())) for file in found) if path.is_file()]
    if not paths:
        raise SourceError(
            f"the distribution {name!r} carries no {', '.join(_KNOWN_SUFFIXES)} files; "
            f"give one that carries texts"
        )
    about = {"kind": "package", "name": name, "version": distribution.version}
    return _Files(paths, column, about)


def _is_package_text(parts: tuple[str, ...]) -> bool:
    apart = {"tests", "test", ".."}
    return parts[-1].lower().endswith(tuple(s for s in _KNOWN_SUFFIXES if s != ".md")) and not any(
        part in apart or part.endswith((".dist-info", ".egg-info")) for part in parts
    )


def _check_dataset_name(name: str) -> None:
    plausible = re.fullmatch(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?", name)
    if not plausible or name.lower().endswith((*_KNOWN_SUFFIXES, *_NOT_TEXT)):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise SourceError(
            f"there is no file, folder, or glob match {shown!r}, and it cannot be the name of a "
            f"Hugging Face dataset; check the path (a text itself goes in a list)"
        )
    if importlib.util.find_spec("datasets") is None:
        raise SourceError(
            f"there is no file or folder {name!r}, and reading it as a Hugging Face dataset needs "
            f"another package: pip install 'exemplars[data]'"
        )
