"""The stream of activations: live from a model, or read back from shards, window by window.

Both kinds give the same rows under the same numbers, can start at the end of any window, and can
say afterwards where a row stands in the text.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.activations import (
    INDEX,
    ActivationBatch,
    ActivationShards,
    ShardWriter,
    is_written_here,
    window_activations,
)
from exemplars.contexts import SEEN
from exemplars.corpora import Texts
from exemplars.errors import FormatError, MismatchError, SourceError
from exemplars.geometry import Int64
from exemplars.tokenization import (
    LocatedDocument,
    Tokenization,
    document_texts,
    excerpt,
    locate,
    token_windows,
)

if TYPE_CHECKING:
    from exemplars.models import Model

CONTEXT_BEFORE, CONTEXT_TEXT, CONTEXT_AFTER = 84, 84, 42
"""Bytes of UTF-8 kept before and after a context's token, at most."""
MARK_S = 30.0
"""Seconds between the places where writing shards can be continued."""


@dataclass(frozen=True)
class Progress:
    """How far a long call has come; handed to `on_progress`."""

    stage: str
    """"activations", "calibration", "build", or "census"."""
    rows: int
    total_rows: int | None
    regions: Mapping[str, int]
    """Regions so far, by site and percentile."""
    elapsed_s: float
    """Since the stage began."""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Window:
    """Activations of consecutive rows at all sites, with the documents they are of."""

    batches: tuple[ActivationBatch, ...]
    documents: Int64
    document_rows: Int64
    tokens_before: Int64
    cursor: Any
    masks: Mapping[str, int]


@dataclass(frozen=True)
class Budget:
    """When to stop, in rows, in attended tokens, or in rows without a new region."""

    rows: int | None
    tokens: int | None
    patience: int | None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected a positive number or None")

    def cut(self, window: Window) -> tuple[int, bool]:
        """How many of the window's rows are within the budget, and whether it ends there."""
        n = len(window.tokens_before)
        keep = n
        if self.rows is not None:
            keep = min(keep, self.rows - window.batches[0].first_row)
        if self.tokens is not None:
            keep = min(keep, int(np.searchsorted(window.tokens_before, self.tokens)))
        return max(keep, 0), keep < n or (
            self.rows is not None and window.batches[0].first_row + n >= self.rows
        )


class Stream:
    """What gives windows, and says afterwards where rows stand in the text."""

    sites: tuple[str, ...]

    @staticmethod
    def of(
        model: Model | None,
        sites: str | Sequence[str],
        texts: Texts | ActivationShards,
        tokenization: Tokenization,
        seed: int | None,
        batch_tokens: int,
        window_tokens: int,
    ) -> Stream:
        names = [sites] if isinstance(sites, str) else list(sites)
        if not names:
            raise ValueError("no site was given, expected at least one such as resid_post.12")
        if isinstance(texts, ActivationShards):
            return ShardStream(texts, names)
        if model is None:
            raise ValueError("no model was given; only activation shards can do without one")
        if not isinstance(texts, Texts):
            raise ValueError(
                f"texts is a {type(texts).__name__}, expected what `exemplars.texts` returns"
            )
        ordered = texts if seed is None else texts.shuffled(seed)
        return LiveStream(model, names, ordered, tokenization, batch_tokens, window_tokens)

    def describe(self) -> dict[str, Any]:
        """JSON-able: everything that fixes the stream."""
        raise NotImplementedError

    def provenance(self, site: str) -> dict[str, Any]:
        """The part of a dictionary's provenance that the stream knows."""
        about = self.describe()
        site_about = next(s for s in about["sites"] if s["name"] == site)
        return {
            "model": about["model"],
            "site": site_about,
            "tokenization": about["tokenization"],
            "texts": about["texts"],
            "dtype": about["dtype"],
            "batch_tokens": about["batch_tokens"],
            "window_tokens": about["window_tokens"],
        }

    def windows(self, first_row: int = 0, cursor: Any = None) -> Iterator[Window]:
        """Windows from `first_row` on; `cursor` is that of the window before."""
        raise NotImplementedError

    def locate(self, numbers: Iterable[int]) -> Iterator[LocatedDocument]:
        """Documents by number, with where their rows stand in the text."""
        raise NotImplementedError

    def sightings(self, rows: Int64, index: DocumentIndex) -> Any:
        """Where rows stand in the text: a table for `contexts_table`."""
        import pyarrow as pa

        document, first_row = index.of(rows)
        order = np.argsort(document, kind="stable")
        wanted, edges = np.unique(document[order], return_index=True)
        of_document = dict(zip(wanted.tolist(), np.split(order, edges[1:]), strict=True))
        columns: dict[str, list[Any]] = {name: [] for name in ("row", *SEEN)}
        for found in self.locate(wanted.tolist()):
            for k in of_document[found.number]:
                i = int(rows[k] - first_row[k])
                before, text, after = excerpt(
                    found.text,
                    int(found.start[i]),
                    int(found.end[i]),
                    CONTEXT_BEFORE,
                    CONTEXT_AFTER,
                )
                before = before.encode()[-CONTEXT_BEFORE:].decode(errors="ignore")
                text = text.encode()[:CONTEXT_TEXT].decode(errors="ignore")
                after = after.encode()[:CONTEXT_AFTER].decode(errors="ignore")
                values = (
                    int(rows[k]), found.number, int(found.position[i]), int(found.token[i]),
                    before, text, after, found.name,
                )  # fmt: skip
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
        table = pa.table(columns)
        return table.take(np.argsort(table["row"].to_numpy(), kind="stable"))


class LiveStream(Stream):
    """Activations of a model, computed as they are asked for."""

    def __init__(
        self,
        model: Model,
        sites: list[str],
        texts: Texts,
        tokenization: Tokenization,
        batch_tokens: int,
        window_tokens: int,
    ) -> None:
        self._model, self._texts, self._tokenization = model, texts, tokenization
        self._places = [model.site(site) for site in sites]
        self.sites = tuple(place.name for place in self._places)
        if len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites {', '.join(self.sites)} name one place twice; name it once")
        self._batch_tokens, self._window_tokens = batch_tokens, window_tokens
        self._about: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        if self._about is None:
            tokenization = asdict(self._tokenization)
            if callable(self._tokenization.rows):
                function = self._tokenization.rows
                tokenization["rows"] = f"function {getattr(function, '__qualname__', function)}"
            self._about = json.loads(
                json.dumps(
                    {
                        "model": self._model.describe(),
                        "sites": [
                            {"name": p.name, "spellings": dict(p.spellings)} for p in self._places
                        ],
                        "texts": self._texts.describe(),
                        "tokenization": tokenization,
                        "dtype": str(self._model.dtype).removeprefix("torch."),
                        "batch_tokens": self._batch_tokens,
                        "window_tokens": self._window_tokens,
                    }
                )
            )
        return self._about

    def windows(self, first_row: int = 0, cursor: Any = None) -> Iterator[Window]:
        for window in token_windows(
            self._texts, self._model.tokenizer, self._tokenization,
            batch_tokens=self._batch_tokens, window_tokens=self._window_tokens, cursor=cursor,
        ):  # fmt: skip
            yield Window(
                window_activations(self._model, list(self.sites), window),
                window.documents,
                window.document_rows,
                window.tokens_before,
                window.cursor,
                window.mask_counts,
            )

    def locate(self, numbers: Iterable[int]) -> Iterator[LocatedDocument]:
        return locate(self._texts, self._model.tokenizer, self._tokenization, numbers)

    def write_shards(
        self,
        folder: Path,
        rows: int | None,
        stage: str,
        interrupts: Interrupts,
        on_progress: OnProgress | None,
        keep_texts: bool,
        tokens: int | None = None,
    ) -> ActivationShards:
        """The stream's first rows in whole windows; continues what is there.

        At least `rows` rows, or all rows of at least `tokens` attended tokens, whichever is fewer.
        """

        def enough(written: int, cursor: Any) -> bool:
            within = tokens is not None and cursor is not None and cursor["tokens"] >= tokens
            return within or (rows is not None and written >= rows)

        started = marked = time.monotonic()
        writer, cursor, written, masks = None, None, 0, dict[str, int]()
        if (folder / INDEX).exists():
            shards = ActivationShards.open(folder)
            differs = difference(shards.describe, self.describe())
            if differs:
                raise MismatchError(
                    f"the activations in {folder} have {differs}; give another folder"
                )
            cursor = shards.cursor
            _check_cursor(cursor, folder)
            if shards.complete and (shards.exhausted or enough(shards.rows, cursor)):
                return shards
            if cursor is None:
                _clear(folder)  # interrupted before anything was finished
            else:
                writer, masks = ShardWriter.resume(folder), shards.masks
                written = writer.rows
        else:
            _check_empty(folder)
        windows = self.windows(written, cursor)
        exhausted, n_documents = True, 0
        while True:
            try:
                with interrupts.allowed():
                    window = next(windows, None)
            except KeyboardInterrupt:
                if writer is not None:
                    writer.mark(cursor, masks)
                raise
            if window is None:
                break
            n_documents += len(window.documents)
            if len(window.tokens_before):
                if writer is None:
                    writer = self._writer(folder, window)
                if keep_texts:
                    writer.write_documents(self._texts_of(window, writer.last_document))
                writer.append(
                    window.batches, window.documents, window.document_rows, window.tokens_before
                )
                written += len(window.tokens_before)
            cursor, masks = window.cursor, added(masks, window.masks)
            if on_progress is not None:
                on_progress(Progress(stage, written, rows, {}, time.monotonic() - started))
            if interrupts.requested or time.monotonic() - marked > MARK_S:
                if writer is not None:
                    writer.mark(cursor, masks)
                marked = time.monotonic()
                if interrupts.requested:
                    raise KeyboardInterrupt
            if enough(written, cursor):
                exhausted = False
                break
        if writer is None:
            raise SourceError(_without_rows(n_documents, None if exhausted else tokens))
        writer.mark(cursor, masks)
        writer.close(exhausted)
        return ActivationShards.open(folder)

    def _writer(self, folder: Path, window: Window) -> ShardWriter:
        """A new one, for vectors as they are in a window that has rows."""
        vectors = [batch.vectors for batch in window.batches]
        widths, dtypes = [v.shape[1] for v in vectors], [v.dtype for v in vectors]
        return ShardWriter(folder, self.sites, widths, dtypes, self.describe())

    def _texts_of(self, window: Window, written: int | None) -> list[tuple[int, str, str]]:
        """The texts of a window's documents in the stream's order, without the one written."""
        numbers = [number for number in window.documents.tolist() if number != written]
        found = {
            document[0]: document
            for document in document_texts(
                self._texts, self._model.tokenizer, self._tokenization, numbers
            )
        }
        return [found[number] for number in numbers]


def _check_empty(folder: Path) -> None:
    """Raise ValueError where shards would lie among other files."""
    others = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    # What a writer that was killed at its very first file leaves.
    if others and others != [f"{INDEX}.partial"]:
        raise ValueError(
            f"{folder} holds {others[0]} and no {INDEX}, so it was not written here; give a new "
            "or an empty folder"
        )


def _clear(folder: Path) -> None:
    """Delete what `ShardWriter` wrote, and nothing else; the index last, which says whose it is."""
    ours = [path for path in folder.iterdir() if is_written_here(path.name)]
    for path in sorted(ours, key=lambda path: path.name == INDEX):
        path.unlink()


def _check_cursor(cursor: Any, folder: Path) -> None:
    keys = ("ordinal", "piece", "rows", "tokens")
    if cursor is not None and not (
        isinstance(cursor, dict) and all(type(cursor.get(key)) is int for key in keys)
    ):
        raise FormatError(
            f"{folder / INDEX} has {cursor!r} for the place to go on from, expected "
            f"{', '.join(keys)}; delete the folder and begin again"
        )


def _without_rows(n_documents: int, tokens: int | None) -> str:
    if not n_documents:
        return "the text has no documents; give some"
    within = "" if tokens is None else f" within {tokens} tokens"
    return (
        f"the text gave no rows{within}: every document is empty or masked; give longer documents, "
        "or keep more rows"
    )


class ShardStream(Stream):
    """Activations on disk."""

    def __init__(self, shards: ActivationShards, sites: list[str]) -> None:
        self.shards = shards
        about = shards.describe
        _check_about(about, shards.folder)
        names = []
        for site in sites:
            spelled = [
                s["name"] for s in about["sites"] if site in (s["name"], *s["spellings"].values())
            ]
            if not spelled:
                raise ValueError(
                    f"{shards.folder} holds no site {site}; it has {', '.join(shards.sites)}"
                )
            names.append(spelled[0])
        self.sites = tuple(names)

    def describe(self) -> dict[str, Any]:
        return self.shards.describe

    def windows(self, first_row: int = 0, cursor: Any = None) -> Iterator[Window]:
        # One window per shard that has rows: the last is that of the last such shard.
        starts = [shard["first_row"] for shard in self.shards.index["shards"] if shard["rows"]]
        for batches, documents, document_rows, tokens_before in self.shards.windows(
            self.sites, first_row
        ):
            last = batches[0].first_row >= starts[-1]
            cursor, masks = (self.shards.cursor, self.shards.masks) if last else (None, {})
            yield Window(batches, documents, document_rows, tokens_before, cursor, masks)

    def locate(self, numbers: Iterable[int]) -> Iterator[LocatedDocument]:
        return self.shards.locate(numbers)


def _check_about(about: Mapping[str, Any], folder: Path) -> None:
    """Raise FormatError where shards do not say what their activations are of."""
    dicts, numbers = ("model", "texts", "tokenization"), ("batch_tokens", "window_tokens")
    sites = about.get("sites")
    known = (
        all(isinstance(about.get(key), dict) for key in dicts)
        and all(type(about.get(key)) is int for key in numbers)
        and isinstance(about.get("dtype"), str)
        and isinstance(sites, list)
        and all(
            isinstance(site, dict)
            and isinstance(site.get("name"), str)
            and isinstance(site.get("spellings"), dict)
            for site in sites
        )
    )
    if not known:
        raise FormatError(
            f"{folder / INDEX} does not say which model, sites and texts its activations are of; "
            "write the shards anew with extract"
        )


def extract(
    model: Model,
    sites: str | Sequence[str],
    texts: Texts,
    folder: str | os.PathLike[str],
    *,
    rows: int | None = None,
    tokenization: Tokenization | None = None,
    seed: int | None = None,
    batch_tokens: int = 2048,
    window_tokens: int = 16384,
    tokens: int | None = None,
    keep_texts: bool = True,
    on_progress: OnProgress | None = None,
) -> ActivationShards:
    """Keep activations on disk, in their own dtype, with the texts they are from.

    A folder that an interrupted call left is continued. The last window is kept whole, so there
    may be a few more rows than asked for.

    Args:
        model: From `load_model`.
        sites: One site or several; one forward pass serves all.
        texts: From `texts(...)`.
        folder: Where.
        rows: At least so many, if the text has them; None for all.
        tokenization: Context length, packing, chat template, masks.
        seed: Permute the documents by it.
        batch_tokens: Tokens of a forward pass at most.
        window_tokens: Tokens that are sorted by length together.
        tokens: Stop after so many attended tokens, if that is before `rows`.
        keep_texts: Store the documents too, so that reading the shards needs nothing else.
        on_progress: Called at every window.

    Returns:
        The shards, to be given to `build` in the place of texts.

    Raises:
        ValueError: If the folder holds other files, or `texts` are no texts.
        MismatchError: If the folder holds other activations.
        SourceError: If the text has no rows.
    """
    Budget(rows, tokens, None)  # raises if one is not positive
    tokenization = tokenization or Tokenization()
    stream = Stream.of(model, sites, texts, tokenization, seed, batch_tokens, window_tokens)
    if not isinstance(stream, LiveStream):
        raise ValueError(
            "texts are activation shards, expected what `exemplars.texts` returns; give them to "
            "build as they are"
        )
    with Interrupts() as interrupts:
        return stream.write_shards(
            Path(folder), rows, "activations", interrupts, on_progress, keep_texts, tokens
        )


class DocumentIndex:
    """Which rows each document has, in stream order, and what was known when it ended.

    Documents without rows are not listed.

    Args:
        columns: Names of what is kept beside the document's number and its last row.
    """

    def __init__(self, *columns: str) -> None:
        self._chunks: dict[str, list[Int64]] = {name: [] for name in ("document", "rows", *columns)}

    def extend(self, window: Window, limit: int, **columns: Int64) -> None:
        """Add a window's documents, up to the row `limit`; one that goes on replaces itself.

        Args:
            window: The next one.
            limit: Rows of the stream from here on are not seen.
            columns: For each document of the window, (M,).
        """
        ends = window.batches[0].first_row + np.cumsum(window.document_rows)
        starts = ends - window.document_rows
        seen = (starts < limit) & (window.document_rows > 0)
        values = {"document": window.documents, "rows": np.minimum(ends, limit), **columns}
        if not seen.any():
            return
        before = self._chunks["document"]
        goes_on = bool(before) and before[-1][-1] == window.documents[seen][0]
        for name, chunks in self._chunks.items():
            if goes_on:
                chunks[-1] = chunks[-1][:-1]
                if not len(chunks[-1]):
                    chunks.pop()
            chunks.append(np.asarray(values[name], np.int64)[seen])

    def arrays(self) -> dict[str, Int64]:
        """document: its number; rows: of the stream up to its end; and the further columns."""
        return {
            name: np.concatenate([np.empty(0, np.int64), *chunks])
            for name, chunks in self._chunks.items()
        }

    def restore(self, arrays: Mapping[str, Int64]) -> None:
        """Go on from `arrays`."""
        self._chunks = {
            name: [np.asarray(arrays[name], np.int64)] if len(arrays[name]) else []
            for name in self._chunks
        }

    def of(self, rows: Int64) -> tuple[Int64, Int64]:
        """The document of each row, and the number of that document's first row."""
        arrays = self.arrays()
        place = np.searchsorted(arrays["rows"], rows, side="right")
        starts = np.concatenate([[0], arrays["rows"][:-1]])
        return arrays["document"][place], starts[place]


class Interrupts:
    """Turns Ctrl-C into a request that is met where nothing is half done.

    Inside `allowed` a Ctrl-C raises KeyboardInterrupt at once; elsewhere the first one only sets
    `requested`, and a second one raises. In threads other than the main one nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._allowed = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._allowed or self.requested:
            raise KeyboardInterrupt
        self.requested = True

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Where an interruption loses nothing."""
        if self.requested:
            raise KeyboardInterrupt
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False


def difference(found: Mapping[str, Any], expected: Mapping[str, Any], path: str = "") -> str:
    """The first setting in which two descriptions differ, in words; "" if they are equal."""
    for key in sorted({*found, *expected}):
        a, b = found.get(key), expected.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = difference(a, b, f"{path}{key}.")
            if inner:
                return inner
        elif a != b:
            return f"{path}{key} {a!r} where {b!r} is asked for"
    return ""


def added(masks: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, summed."""
    return {name: masks.get(name, 0) + more.get(name, 0) for name in {**masks, **more}}
