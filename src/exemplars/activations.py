"""Run a model to the deepest site asked for and no further; keep what it gave, bit for bit.

One pass serves all sites. The hooks are ours alone and always go; the pass ends by an exception
as soon as every site has spoken, so no later layer and no unembedding is computed. *Shards* are
activations on disk, in the model's own dtype, with the texts they came from: a folder that needs
no model to be read.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.errors import ActivationError, FormatError
from exemplars.models import Model, Site, evaluating
from exemplars.tokenization import (
    LocatedDocument,
    TokenBatch,
    Tokenization,
    TokenWindow,
    token_windows,
)

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
SHARD_BYTES = 64 << 20
INDEX = "activations.json"

ShardWindow = tuple[
    "tuple[ActivationBatch, ...]", NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]
"""One batch per site; the numbers of the documents in it, in order (M,), how many of its rows each
has (M,), and the attended tokens of the stream before each row (N,)."""

_ROW_FIELDS = ("document", "position", "token", "start", "end")
_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class ActivationBatch:
    """Vectors of one site and where each is from. Row i of every field is one token."""

    site: str
    vectors: torch.Tensor  # (N, D) on the CPU, in the model's dtype
    document: NDArray[np.int64]  # (N,) document number
    position: NDArray[np.int64]  # (N,) index in the document's tokens
    token: NDArray[np.int64]  # (N,) token id
    start: NDArray[np.int64]  # (N,) where the token starts in the document's text, in characters
    end: NDArray[np.int64]  # (N,) where it ends
    first_row: int  # the stream's number of row 0


def read_activations(
    model: Model,
    sites: str | Sequence[str],
    texts: Any,
    tokenization: Tokenization | None = None,
    *,
    batch_tokens: int = 2048,
    window_tokens: int = 16384,
    cursor: dict[str, Any] | None = None,
) -> Iterator[tuple[ActivationBatch, ...]]:
    """The activations of texts, window by window, in document order: one batch per site.

    Args:
        model: From `load_model`.
        sites: One site or several, in any spelling.
        texts: From `texts`.
        tokenization: How documents become tokens and rows; the defaults of `Tokenization`.
        batch_tokens: Tokens in one forward pass at most, padding included. It changes speed and
            the last bits of the activations.
        window_tokens: Tokens read before documents are sorted by length, about. So many rows are
            in memory at once.
        cursor: Of the `TokenWindow` to go on after.

    Raises:
        ActivationError: If a vector is not finite, or a site gives no vector per token.
        ValueError: If the model has no such site, or a piece is longer than it can read.
    """
    windows = token_windows(
        texts,
        model.tokenizer,
        tokenization or Tokenization(),
        batch_tokens=batch_tokens,
        window_tokens=window_tokens,
        cursor=cursor,
    )
    for window in windows:
        yield window_activations(model, sites, window)


def window_activations(
    model: Model, sites: str | Sequence[str], window: TokenWindow
) -> tuple[ActivationBatch, ...]:
    """The activations of a window's rows, one batch per site, from one pass over each token batch.

    A module that runs several times in one pass is read at its first call. The model's hooks,
    mode and outputs are afterwards what they were.

    Raises:
        ActivationError: If a vector is not finite, or a site gives no vector per token.
        ValueError: If the model has no such site, or a piece is longer than it can read.
    """
    import torch

    places = [model.site(site) for site in ([sites] if isinstance(sites, str) else sites)]
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        raise ValueError(f"the sites {', '.join(names)} name one place twice; name it once")
    vectors: dict[str, torch.Tensor] = {}
    n_rows = len(window.document)
    if any(batch.packed for batch in window.batches):
        _check_packing(model)
    with _Reader(model, places) as reader:
        for batch, destination in zip(window.batches, window.destination, strict=True):
            rows = torch.from_numpy(np.asarray(destination, np.int64))
            for name, part in reader.run(batch).items():
                if name not in vectors:
                    vectors[name] = torch.empty((n_rows, part.shape[1]), dtype=part.dtype)
                vectors[name][rows] = part.cpu()
    for name in names:
        if name not in vectors:  # the window has no tokens at all
            vectors[name] = torch.empty((0, model.width), dtype=model.dtype)
        _check_finite(name, vectors[name], window)
    row_fields = {key: getattr(window, key) for key in _ROW_FIELDS}
    return tuple(
        ActivationBatch(name, vectors[name], **row_fields, first_row=window.first_row)
        for name in names
    )


class _AllCaptured(BaseException):
    """Ends a forward pass once every site has spoken. No `except Exception` may stop it."""


class _Reader:
    """Hooks on the sites of a model, in eval mode, between `__enter__` and `__exit__`."""

    def __init__(self, model: Model, sites: list[Site]) -> None:
        inside = {id(module) for module in model.base.modules()}
        modules = [model.module.get_submodule(site.module_path) for site in sites]
        # A site beyond the base (the unembedding, say) needs the whole model to run.
        whole = any(id(module) not in inside for module in modules)
        self.callee = model.module if whole else model.base
        self.accepts = inspect.signature(self.callee.forward).parameters
        self.model, self.sites, self.modules = model, sites, modules
        self.found: dict[str, torch.Tensor] = {}
        self.shape, self.rows = (0, 0), np.empty(0, np.int64)

    def __enter__(self) -> _Reader:
        with ExitStack() as undo:
            undo.enter_context(evaluating(self.model.module))
            for site, module in zip(self.sites, self.modules, strict=True):
                undo.callback(self._hook(site, module).remove)
            self.undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()

    def run(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """By site, the vectors (n, D) of the batch's kept tokens, on the model's device."""
        import torch

        ids = torch.from_numpy(batch.ids).to(self.model.device)
        inputs = self._inputs(batch)
        self.found, self.shape = {}, batch.ids.shape
        self.rows = np.flatnonzero(batch.rows)
        try:
            # Not inference_mode: what a model caches during a pass (rotary cosines, in many whose
            # code comes with them) would stay an inference tensor, and a later backward fail on it.
            with torch.no_grad():
                self.callee(ids, **inputs)
        except _AllCaptured:
            return self.found
        silent = next(site.name for site in self.sites if site.name not in self.found)
        raise ActivationError(
            f"the model ran to its end and {silent} was not reached; name a site that a forward "
            "pass goes through"
        )

    def _inputs(self, batch: TokenBatch) -> dict[str, Any]:
        import torch

        attended = batch.position_ids[batch.attention]
        longest = int(attended.max(initial=-1)) + 1
        limit = self.model.max_positions
        if limit is not None and longest > limit:
            raise ValueError(
                f"a piece of text has {longest} tokens and {self.model.name} reads at most "
                f"{limit}; lower context_length"
            )
        device = self.model.device
        inputs: dict[str, Any] = {"use_cache": False} if "use_cache" in self.accepts else {}
        if batch.packed:
            # Positions that start anew, and no mask: how transformers tells packed documents.
            inputs["position_ids"] = torch.from_numpy(batch.position_ids).to(device)
        elif "attention_mask" in self.accepts:
            inputs["attention_mask"] = torch.from_numpy(batch.attention).long().to(device)
        return inputs

    def _hook(self, site: Site, module: Any) -> Any:
        if site.io == "in":
            return module.register_forward_pre_hook(
                lambda _, args, kwargs: self._keep(site, args or kwargs.get("hidden_states")),
                with_kwargs=True,
            )
        return module.register_forward_hook(lambda _, args, output: self._keep(site, output))

    def _keep(self, site: Site, value: Any) -> None:
        import torch

        if site.name in self.found:
            return
        if isinstance(value, Mapping):
            value = tuple(value.values())
        if isinstance(value, (tuple, list)):
            value = next((part for part in value if isinstance(part, torch.Tensor)), None)
        B, T = self.shape
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        if shape[:-1] not in ((B, T), (B * T,)):
            raise ActivationError(
                f"{site.name} gave {shape} for {B} x {T} tokens, not a vector for each; "
                "name another site"
            )
        rows = torch.from_numpy(self.rows).to(value.device)
        self.found[site.name] = value.reshape(B * T, -1).index_select(0, rows)
        if len(self.found) == len(self.sites):
            raise _AllCaptured


def _check_packing(model: Model) -> None:
    what = f"{type(model.module).__name__}"
    if "position_ids" not in model.accepts:
        raise ValueError(
            f'{what} takes no position_ids, which packed documents need; use packing="none"'
        )
    if not model.separates_packed:
        raise ValueError(f'{what} lets packed documents attend to each other; use packing="none"')


def _check_finite(site: str, vectors: torch.Tensor, window: TokenWindow) -> None:
    import torch

    # NaN and Inf survive a sum. A sum that overflows by itself is looked at again, value by value.
    suspects = torch.nonzero(~torch.isfinite(vectors.sum(1, dtype=torch.float32)))[:, 0]
    bad = suspects[~torch.isfinite(vectors[suspects]).all(1)]
    if len(bad):
        row = int(bad[0])
        dtype = str(vectors.dtype).removeprefix("torch.")
        advice = (
            "float16 ends at 65504, so load the model with --dtype bfloat16 or float32"
            if vectors.dtype == torch.float16
            else "check the model's weights"
        )
        raise ActivationError(
            f"{site} gave a value that is not finite at document {int(window.document[row])}, "
            f"position {int(window.position[row])}, in {dtype}; {advice}"
        )


class ShardWriter:
    """Writes activations and their documents into a folder, shard by shard.

    Each file is written aside, synced, renamed, and only then listed in `activations.json`: a
    writer that is killed, or finds the disk full, leaves every earlier shard readable. Leaving
    the `with` block without an exception, or `close`, marks the folder complete.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        sites: Sequence[str],
        widths: Sequence[int],
        dtype: str | torch.dtype,
        describe: Mapping[str, Any],
        *,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        if (Path(folder) / INDEX).exists():
            raise ValueError(f"{folder} holds activations already; choose another folder")
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._pieces: list[ShardWindow]
        self._documents: list[tuple[int, str | None, str]]
        self._begin(
            Path(folder),
            dict(zip(sites, map(int, widths), strict=True)),
            str(dtype).removeprefix("torch."),
            shard_bytes,
        )
        self._next_row: int | None = None
        self._last_document: int | None = None
        self._index: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "sites": [{"name": site, "width": width} for site, width in self._widths.items()],
            "dtype": self._dtype,
            "shard_bytes": shard_bytes,
            "describe": dict(describe),
            "shards": [],
            "documents": [],
            "mark": None,
            "complete": False,
            "exhausted": False,
        }
        self._write_index()

    @classmethod
    def resume(cls, folder: str | os.PathLike[str]) -> ShardWriter:
        """Go on after the last `mark`; what was written after it is written again.

        Raises:
            FormatError: If the folder has no index, or nothing was marked.
        """
        shards = ActivationShards.open(folder)
        mark = shards.index["mark"]
        if mark is None:
            raise FormatError(
                f"{folder} holds activations that were not finished and cannot be continued; "
                "delete it and begin again"
            )
        writer = cls.__new__(cls)
        widths = {site["name"]: int(site["width"]) for site in shards.index["sites"]}
        writer._begin(Path(folder), widths, shards.index["dtype"], shards.index["shard_bytes"])
        writer._index = shards.index
        for kind in ("shards", "documents"):
            del writer._index[kind][mark[kind] :]
        writer._index |= {"complete": False, "exhausted": False}
        writer._next_row = mark["rows"]
        writer._last_document = mark["last_document"]
        writer._write_index()
        return writer

    def _begin(self, folder: Path, widths: dict[str, int], dtype: str, shard_bytes: int) -> None:
        import torch

        self.folder = folder
        self._widths = widths
        self._dtype = dtype
        self._shard_bytes = shard_bytes
        itemsize: int = getattr(torch, dtype).itemsize
        row_bytes = itemsize * sum(widths.values()) + 8 * (len(_ROW_FIELDS) + 1)
        self._most_rows = max(1, shard_bytes // row_bytes)
        self._pieces = []
        self._documents = []

    @property
    def rows(self) -> int:
        """Rows appended so far: the number that the next one has."""
        return self._next_row or 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()

    def append(
        self,
        batches: tuple[ActivationBatch, ...],
        documents: NDArray[np.int64],
        document_rows: NDArray[np.int64],
        tokens_before: NDArray[np.int64],
    ) -> None:
        """Add the activations of one window, one batch per site, after the rows before it.

        Raises:
            ValueError: If the sites, widths or dtype are not the writer's, or the rows do not
                follow those before.
        """
        self._check(batches, document_rows)
        first, n = 0, len(tokens_before)
        while first < n or not n:
            last = min(n, first + self._most_rows - sum(len(piece[3]) for piece in self._pieces))
            if last > first or not n:
                rows = slice(first, last)
                parts = tuple(_rows_of(batch, rows) for batch in batches)
                held = _documents_of(documents, document_rows, rows, last == n)
                self._pieces.append((parts, *held, tokens_before[rows]))
            if last == n:
                return
            self._flush()
            first = last

    def write_documents(self, documents: Iterable[tuple[int, str | None, str]]) -> None:
        """Keep documents' (number, name, text). Call it before `append` of their rows.

        A document that goes on from the one before, as at a window's edge, is kept once.
        """
        for document in documents:
            if document[0] != self._last_document:
                self._documents.append(document)
                self._last_document = document[0]
        if sum(len(text) for _, _, text in self._documents) > self._shard_bytes:
            self._flush_documents()
            self._write_index()

    def mark(self, cursor: Any, masks: Mapping[str, int]) -> None:
        """Write what is buffered, and note where `resume` goes on.

        Args:
            cursor: Of the window that was appended last.
            masks: Tokens each mask removed up to here.
        """
        self._flush()
        self._index["mark"] = {
            "cursor": cursor,
            "masks": dict(masks),
            "rows": self._next_row or 0,
            "last_document": self._last_document,
            "shards": len(self._index["shards"]),
            "documents": len(self._index["documents"]),
        }
        self._write_index()

    def close(self, exhausted: bool = True) -> None:
        """Write what is buffered, and mark the folder complete.

        Args:
            exhausted: The text has no more rows.
        """
        self._flush()
        self._index |= {"complete": True, "exhausted": exhausted}
        self._write_index()

    def _check(self, batches: tuple[ActivationBatch, ...], document_rows: Any) -> None:
        found = {batch.site: int(batch.vectors.shape[1]) for batch in batches}
        dtypes = {str(batch.vectors.dtype).removeprefix("torch.") for batch in batches}
        if found != self._widths or dtypes != {self._dtype}:
            raise ValueError(
                f"the batches have sites and widths {found} in {', '.join(sorted(dtypes))}, and "
                f"the shards hold {self._widths} in {self._dtype}; write them apart"
            )
        n, first_row = len(batches[0].document), batches[0].first_row
        if int(document_rows.sum()) != n:
            raise ValueError(
                f"the documents have {int(document_rows.sum())} rows in all and the batches {n}; "
                "pass the window's own document_rows"
            )
        if self._next_row is not None and first_row != self._next_row:
            raise ValueError(
                f"the batches start at row {first_row} and the shards end before row "
                f"{self._next_row}; append windows in order"
            )
        self._next_row = first_row + n

    def _flush(self) -> None:
        import torch
        from safetensors.torch import save

        self._flush_documents()
        if self._pieces:
            batches, documents, document_rows, tokens_before = zip(*self._pieces, strict=True)
            tensors = {
                f"site/{site}": torch.cat([piece[column].vectors for piece in batches])
                for column, site in enumerate(self._widths)
            }
            for key in _ROW_FIELDS:
                tensors[f"row/{key}"] = _joined([getattr(piece[0], key) for piece in batches])
            tensors["row/tokens_before"] = _joined(tokens_before)
            numbers, counts = _joined(documents), _joined(document_rows)
            # A document that two pieces share is one document.
            fresh = torch.diff(numbers, prepend=numbers[:1] - 1) != 0
            tensors["document/number"] = numbers[fresh]
            tensors["document/rows"] = torch.zeros_like(numbers[fresh]).index_add_(
                0, fresh.cumsum(0) - 1, counts
            )
            shards = self._index["shards"]
            name = f"shard-{len(shards):06d}.safetensors"
            digest = _publish(self.folder / name, save(tensors))
            rows = len(tensors["row/document"])
            first_row = batches[0][0].first_row
            shards.append({"file": name, "first_row": first_row, "rows": rows, "sha256": digest})
        self._pieces = []
        self._write_index()

    def _flush_documents(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._documents:
            return
        numbers, names, texts = zip(*self._documents, strict=True)
        table = pa.table(
            {
                "number": pa.array(numbers, pa.int64()),
                "name": pa.array(names, pa.string()),
                "text": pa.array(texts, pa.large_string()),
            }
        )
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd")
        files = self._index["documents"]
        name = f"documents-{len(files):06d}.parquet"
        digest = _publish(self.folder / name, stream.getvalue())
        files.append({"file": name, "documents": len(numbers), "sha256": digest})
        self._documents = []

    def _write_index(self) -> None:
        _publish(self.folder / INDEX, json.dumps(self._index, indent=1).encode())


@dataclass(frozen=True, eq=False)
class ActivationShards:
    """Activations on disk, as `ShardWriter` left them."""

    folder: Path
    index: dict[str, Any]
    _verified: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ActivationShards:
        """The shards in a folder, complete or not.

        Raises:
            FormatError: If the folder has no index, or one that this version cannot read.
        """
        path = Path(folder) / INDEX
        try:
            index = json.loads(path.read_bytes())
            version = index["format_version"]
        except FileNotFoundError:
            raise FormatError(
                f"{folder} has no {INDEX}, so it holds no activation shards; give a folder that "
                "ShardWriter wrote"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{path} is not an index of shards ({error}); write it anew"
            ) from error
        if version != FORMAT_VERSION:
            raise FormatError(
                f"{path} has format version {version} and this library reads {FORMAT_VERSION}; "
                "use the library that wrote it"
            )
        return cls(Path(folder), index)

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites."""
        return tuple(site["name"] for site in self.index["sites"])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the vectors: the model's."""
        import torch

        found: torch.dtype = getattr(torch, self.index["dtype"])
        return found

    @property
    def rows(self) -> int:
        """How many rows the shards hold."""
        return sum(shard["rows"] for shard in self.index["shards"])

    @property
    def complete(self) -> bool:
        """Whether the writer came to its end."""
        return bool(self.index["complete"])

    @property
    def exhausted(self) -> bool:
        """Whether the text had no more rows than these."""
        return bool(self.index["exhausted"])

    @property
    def cursor(self) -> Any:
        """Of the window that ended at the last mark: `token_windows` goes on after it."""
        return (self.index["mark"] or {}).get("cursor")

    @property
    def masks(self) -> dict[str, int]:
        """Tokens each mask removed, up to the last mark."""
        return dict((self.index["mark"] or {}).get("masks", {}))

    @property
    def describe(self) -> dict[str, Any]:
        """What the writer was told of model and texts."""
        return dict(self.index["describe"])

    def width(self, site: str) -> int:
        """Width of a site's vectors.

        Raises:
            ValueError: If the shards hold no such site.
        """
        return int(next(s["width"] for s in self.index["sites"] if s["name"] == self._known(site)))

    def windows(
        self, sites: Sequence[str] | None = None, start_row: int = 0
    ) -> Iterator[ShardWindow]:
        """The activations as they were written, about a shard at a time.

        Args:
            sites: Some of `sites`; all by default.
            start_row: The first row wanted, by its number in the stream.

        Raises:
            FormatError: If a shard is missing, truncated or altered.
            ValueError: If the shards hold no such site.
        """
        wanted = [self._known(site) for site in (self.sites if sites is None else sites)]
        for shard in self.index["shards"]:
            if shard["first_row"] + shard["rows"] > start_row or not shard["rows"]:
                yield self._read(shard, wanted, max(0, start_row - shard["first_row"]))

    def texts(self, numbers: Iterable[int] | None = None) -> Iterator[tuple[int, str | None, str]]:
        """(number, name, text) of the documents asked for (all by default), in the stream's order.

        Raises:
            FormatError: If a file is missing, truncated or altered.
            ValueError: If a document is not among those kept.
        """
        import pyarrow.parquet as pq

        missing = None if numbers is None else {int(number) for number in numbers}
        for entry in self.index["documents"]:
            if missing is not None and not missing:
                return
            with pq.ParquetFile(self._checked(entry)) as file:
                for batch in file.iter_batches():
                    for row in batch.to_pylist():
                        if missing is None or row["number"] in missing:
                            yield row["number"], row["name"], row["text"]
                            if missing is not None:
                                missing.remove(row["number"])
        if missing:
            raise ValueError(
                f"{self.folder} keeps no text of document {min(missing)}; ask for one it keeps"
            )

    def locate(self, numbers: Iterable[int]) -> Iterator[LocatedDocument]:
        """Documents asked for, with where their rows stand in the text, in the stream's order.

        Raises:
            FormatError: If a file is missing, truncated or altered.
            ValueError: If a document is not among those kept.
        """
        missing = {int(number) for number in numbers}
        parts: dict[int, list[dict[str, NDArray[np.int64]]]] = {}
        for shard in self.index["shards"]:
            fields = self._row_fields(shard)
            for number in missing.intersection(fields["document"].tolist()):
                mine = fields["document"] == number
                parts.setdefault(number, []).append({k: v[mine] for k, v in fields.items()})
        for number, name, text in self.texts(missing):
            rows = {
                key: np.concatenate([part[key] for part in parts.get(number, [])] or [_NO_ROWS])
                for key in _ROW_FIELDS
            }
            yield LocatedDocument(
                number,
                name or "",
                text,
                rows["token"],
                rows["position"],
                rows["start"],
                rows["end"],
            )

    def _row_fields(self, shard: dict[str, Any]) -> dict[str, NDArray[np.int64]]:
        from safetensors import safe_open

        with safe_open(self._checked(shard), framework="pt") as file:
            return {key: file.get_tensor(f"row/{key}").numpy() for key in _ROW_FIELDS}

    def _known(self, site: str) -> str:
        if site not in self.sites:
            raise ValueError(
                f"{self.folder} holds no site {site!r}; it has {', '.join(self.sites)}"
            )
        return site

    def _checked(self, entry: dict[str, Any]) -> Path:
        """The path of a file whose bytes are those that were written; read once to be sure."""
        path = self.folder / str(entry["file"])
        if entry["file"] in self._verified:
            return path
        digest = hashlib.sha256()
        try:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            raise FormatError(f"{path} is missing; put it back or write the shards anew") from None
        if digest.hexdigest() != entry["sha256"]:
            raise FormatError(
                f"{path} is truncated or altered: its SHA-256 is not the one in {INDEX}; "
                "put the file back or write the shards anew"
            )
        self._verified.add(entry["file"])
        return path

    def _read(self, shard: dict[str, Any], sites: list[str], skip: int) -> ShardWindow:
        from safetensors import safe_open

        with safe_open(self._checked(shard), framework="pt") as file:
            keys = [f"row/{key}" for key in _ROW_FIELDS]
            fields = {key.removeprefix("row/"): file.get_tensor(key)[skip:].numpy() for key in keys}
            batches = tuple(
                ActivationBatch(
                    site,
                    file.get_tensor(f"site/{site}")[skip:],
                    **fields,
                    first_row=shard["first_row"] + skip,
                )
                for site in sites
            )
            tokens_before = file.get_tensor("row/tokens_before")[skip:].numpy()
            documents, document_rows = _documents_of(
                file.get_tensor("document/number").numpy(),
                file.get_tensor("document/rows").numpy(),
                slice(skip, shard["rows"]),
                True,
            )
        return batches, documents, document_rows, tokens_before


def _documents_of(
    documents: NDArray[np.int64], document_rows: NDArray[np.int64], rows: slice, at_end: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which documents have rows in a slice, and how many; a document of no rows goes with the row
    after it, or with the last.
    """
    ends = np.cumsum(document_rows)
    starts = ends - document_rows
    held = np.clip(ends, rows.start, rows.stop) - np.clip(starts, rows.start, rows.stop)
    empty = (document_rows == 0) & (starts >= rows.start) & ((starts < rows.stop) | at_end)
    keep = (held > 0) | empty
    return documents[keep], held[keep]


def _rows_of(batch: ActivationBatch, rows: slice) -> ActivationBatch:
    fields = {key: getattr(batch, key)[rows] for key in _ROW_FIELDS}
    return ActivationBatch(
        batch.site, batch.vectors[rows], **fields, first_row=batch.first_row + rows.start
    )


def _joined(arrays: Sequence[NDArray[np.int64]]) -> Any:
    import torch

    return torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))


def _publish(path: Path, content: bytes) -> str:
    """Write a file aside, sync it, rename it into place; its SHA-256."""
    aside = path.with_name(f"{path.name}.partial")
    try:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()
