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
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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

_SHARD, _DOCUMENTS = r"shard-\d{6,}\.safetensors", r"documents-\d{6,}\.parquet"
_WRITTEN = re.compile(rf"(activations\.json|{_SHARD}|{_DOCUMENTS})(\.partial)?")
_INDEX_SHAPE = {
    "sites": [{"name": str, "width": int, "dtype": str}],
    "shard_bytes": int,
    "describe": dict,
    "shards": [{"file": _SHARD, "first_row": int, "rows": int, "sha256": str}],
    "documents": [{"file": _DOCUMENTS, "documents": int, "sha256": str}],
    "complete": bool,
    "exhausted": bool,
}
_MARK_SHAPE = {"masks": dict, "rows": int, "shards": int, "documents": int}


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


def continued_activations(
    model: Model, site: str, ids: NDArray[np.int64], past: Any
) -> torch.Tensor:
    """The activations of tokens that follow those in a cache, which then holds them too.

    The cache is filled up to the site alone, as the pass goes no further. The vectors are those of
    one pass over all tokens but for rounding, where the model is causal and its layers keep all
    that they need in the cache.

    Args:
        model: From `load_model`.
        site: One site, in any spelling.
        ids: (n,) of one text, after the tokens that the cache holds.
        past: A cache of transformers, as its models take it in `past_key_values`.

    Returns:
        (n, D) on the CPU, in the model's dtype.

    Raises:
        ActivationError: If the site gives no vector per token.
        ValueError: If the model has no such site, takes no cache, or reads no text of this length.
    """
    if "past_key_values" not in model.accepts:
        raise ValueError(f"{type(model.module).__name__} takes no past_key_values")
    before, n = int(past.get_seq_length()), len(ids)
    every = np.ones((1, n), np.bool_)
    position = np.arange(before, before + n)[None]
    batch = TokenBatch(ids[None], every, every, np.zeros((1, n), np.int64), position, position)
    with _Reader(model, [model.site(site)]) as reader:
        (vectors,) = reader.run(batch, past).values()
    return vectors.cpu()


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

    def run(self, batch: TokenBatch, past: Any = None) -> dict[str, torch.Tensor]:
        """By site, the vectors (n, D) of the batch's kept tokens, on the model's device."""
        import torch

        ids = torch.from_numpy(batch.ids).to(self.model.device)
        inputs = self._inputs(batch)
        if past is not None:
            inputs |= {"past_key_values": past, "use_cache": True}
            if "attention_mask" in inputs:
                n_attended = (1, int(past.get_seq_length()) + batch.ids.shape[1])
                inputs["attention_mask"] = torch.ones(n_attended, dtype=torch.long).to(ids.device)
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
        dtype: str | torch.dtype | Sequence[str | torch.dtype],
        describe: Mapping[str, Any],
        *,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Begin a folder.

        Args:
            folder: Where; it may exist, without an `activations.json`.
            sites: Names of the sites.
            widths: Of each site's vectors.
            dtype: Of all sites' vectors, or of each.
            describe: JSON-able: of which model and texts.
            shard_bytes: Size of a shard, about.
        """
        import torch

        if (Path(folder) / INDEX).exists():
            raise ValueError(f"{folder} holds activations already; choose another folder")
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._pieces: list[ShardWindow]
        self._documents: list[tuple[int, str | None, str]]
        dtypes = [dtype] * len(sites) if isinstance(dtype, str | torch.dtype) else dtype
        forms = zip(map(int, widths), map(_dtype_name, dtypes), strict=True)
        self._begin(Path(folder), dict(zip(sites, forms, strict=True)), shard_bytes)
        self._next_row: int | None = None
        self._last_document: int | None = None
        self._index: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "sites": [
                {"name": site, "width": width, "dtype": name}
                for site, (width, name) in self._forms.items()
            ],
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
        forms = {site["name"]: (site["width"], site["dtype"]) for site in shards.index["sites"]}
        writer._begin(Path(folder), forms, shards.index["shard_bytes"])
        writer._index = shards.index
        for kind in ("shards", "documents"):
            del writer._index[kind][mark[kind] :]
        writer._index |= {"complete": False, "exhausted": False}
        writer._next_row = mark["rows"]
        writer._last_document = mark["last_document"]
        writer._write_index()
        return writer

    def _begin(self, folder: Path, forms: dict[str, tuple[int, str]], shard_bytes: int) -> None:
        import torch

        self.folder = folder
        self._forms = forms
        self._shard_bytes = shard_bytes
        vector_bytes = [width * getattr(torch, name).itemsize for width, name in forms.values()]
        row_bytes = sum(vector_bytes) + 8 * (len(_ROW_FIELDS) + 1)
        self._most_rows = max(1, shard_bytes // row_bytes)
        self._pieces = []
        self._documents = []

    @property
    def rows(self) -> int:
        """Rows appended so far: the number that the next one has."""
        return self._next_row or 0

    @property
    def last_document(self) -> int | None:
        """The last document of the window appended last: the one that may go on in the next."""
        return self._last_document

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

        A window without rows leaves nothing: its vectors have no width to be checked.

        Raises:
            ValueError: If the sites, widths or dtypes are not the writer's, or the rows do not
                follow those before.
        """
        n = len(tokens_before)
        if n or int(document_rows.sum()):
            self._check(batches, document_rows)
        if len(documents):
            self._last_document = int(documents[-1])
        first = 0
        while first < n:
            last = min(n, first + self._most_rows - sum(len(piece[3]) for piece in self._pieces))
            if last > first:
                rows = slice(first, last)
                parts = tuple(_rows_of(batch, rows) for batch in batches)
                held = _documents_of(documents, document_rows, rows, last == n)
                self._pieces.append((parts, *held, tokens_before[rows]))
            if last == n:
                return
            self._flush()
            first = last

    def write_documents(self, documents: Iterable[tuple[int, str | None, str]]) -> None:
        """Keep documents' (number, name, text), in the stream's order, before `append` of their
        window.

        A document that goes on from the window before (`last_document`) is kept once.
        """
        self._documents += [d for d in documents if d[0] != self._last_document]
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
        found = {
            batch.site: (int(batch.vectors.shape[1]), _dtype_name(batch.vectors.dtype))
            for batch in batches
        }
        if list(found.items()) != list(self._forms.items()):
            raise ValueError(
                f"the batches have {_forms_text(found)}, and the shards hold "
                f"{_forms_text(self._forms)}; write them apart"
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
                for column, site in enumerate(self._forms)
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
        misfit = _index_misfit(index)
        if misfit:
            raise FormatError(f"{path} is not an index of shards ({misfit}); write it anew")
        return cls(Path(folder), index)

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites."""
        return tuple(site["name"] for site in self.index["sites"])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the vectors: the model's.

        Raises:
            ValueError: If the sites have several.
        """
        found = {self.dtype_of(site) for site in self.sites}
        if len(found) > 1:
            several = ", ".join(sorted(map(_dtype_name, found)))
            raise ValueError(
                f"the sites in {self.folder} have several dtypes ({several}); use dtype_of(site)"
            )
        return found.pop()

    def dtype_of(self, site: str) -> torch.dtype:
        """The dtype of a site's vectors.

        Raises:
            ValueError: If the shards hold no such site.
        """
        import torch

        name = next(s["dtype"] for s in self.index["sites"] if s["name"] == self._known(site))
        found: torch.dtype = getattr(torch, name)
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
            if shard["rows"] and shard["first_row"] + shard["rows"] > start_row:
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

        Each comes as soon as its rows have ended; those without rows come last.

        Raises:
            FormatError: If a file is missing, truncated or altered.
            ValueError: If a document is not among those kept.
        """
        wanted = {int(number) for number in numbers}
        texts = self.texts(wanted)
        found: dict[int, tuple[str | None, str]] = {}
        for number, rows in self._rows_by_document(wanted):
            while number not in found:
                other, name, text = next(texts, (None, None, ""))
                if other is None:
                    raise FormatError(
                        f"{self.folder} has the rows of document {number} in two places, expected "
                        "them together; write the shards anew"
                    )
                found[other] = name, text
            yield _located(number, *found.pop(number), rows)
        for number, (name, text) in found.items():
            yield _located(number, name, text, {})
        for number, name, text in texts:
            yield _located(number, name, text, {})

    def _rows_by_document(
        self, wanted: set[int]
    ) -> Iterator[tuple[int, dict[str, NDArray[np.int64]]]]:
        """The row fields of each document wanted that has rows, once its last row was read.

        A document's rows are consecutive in the stream, so one document at a time is held.
        """
        sought = np.fromiter(wanted, np.int64, len(wanted))
        left = len(wanted)
        number, parts = -1, list[dict[str, NDArray[np.int64]]]()
        for shard in self.index["shards"]:
            if not (left or parts):
                return
            for document, fields in self._runs(shard, sought):
                if parts and document != number:
                    yield number, _joined_fields(parts)
                    parts = []
                if fields is not None:
                    left -= not parts
                    number = document
                    parts.append(fields)
        if parts:
            yield number, _joined_fields(parts)

    def _runs(
        self, shard: dict[str, Any], sought: NDArray[np.int64]
    ) -> Iterator[tuple[int, dict[str, NDArray[np.int64]] | None]]:
        """Each run of rows of one document in a shard: its number, and its fields if sought."""
        with self._open(shard) as file:
            document = file.get_tensor("row/document").numpy()
            edges = np.flatnonzero(np.diff(document)) + 1
            starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(document)]])
            numbers = document[starts] if len(document) else _NO_ROWS
            chosen = np.flatnonzero(np.isin(numbers, sought))
            fields = {}
            if len(chosen):
                fields = {key: file.get_tensor(f"row/{key}").numpy() for key in _ROW_FIELDS}
        if len(numbers) and not (len(chosen) and chosen[0] == 0):
            yield int(numbers[0]), None
        for run in chosen.tolist():
            rows = slice(starts[run], ends[run])
            yield int(numbers[run]), {key: values[rows].copy() for key, values in fields.items()}
            if run + 1 < len(numbers):  # whatever comes next, this document has ended
                yield int(numbers[run + 1]), None

    @contextmanager
    def _open(self, shard: dict[str, Any]) -> Iterator[Any]:
        """A shard's tensors by name."""
        from safetensors import SafetensorError, safe_open

        path = self._checked(shard)
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise FormatError(
                f"{path} is not a shard of activations ({error}); write the shards anew"
            ) from error

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
        with self._open(shard) as file:
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


def is_written_here(name: str) -> bool:
    """Whether a file of this name is one of those that `ShardWriter` writes."""
    return _WRITTEN.fullmatch(name) is not None


def _index_misfit(index: dict[str, Any]) -> str:
    """The first place where an index is not what `ShardWriter` writes; "" if there is none."""
    import torch

    misfit = _misfit(index, _INDEX_SHAPE, "")
    if not misfit and index.get("mark") is not None:
        misfit = _misfit(index["mark"], _MARK_SHAPE, "mark")
        names = [] if misfit else list(index["mark"]["masks"])
        misfit = misfit or _misfit(index["mark"]["masks"], dict.fromkeys(names, int), "masks")
    if misfit:
        return misfit
    for site in index["sites"]:
        if not isinstance(getattr(torch, site["dtype"], None), torch.dtype):
            return f"the dtype {site['dtype']!r} of {site['name']}"
    if not index["sites"]:
        return "no sites"
    at = None
    for shard in index["shards"]:
        if shard["rows"] < 0 or at not in (None, shard["first_row"]):
            return f"{shard['file']} does not follow the shard before it"
        at = shard["first_row"] + shard["rows"]
    return ""


def _misfit(value: Any, shape: Any, where: str) -> str:
    """Where a JSON value is not of a shape: a type, a pattern, or a dict or list of shapes."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where or 'it'} is {type(value).__name__}, not dict"
        parts: Iterable[tuple[Any, Any, str]] = (
            (value.get(key), part, f"{where}.{key}".lstrip(".")) for key, part in shape.items()
        )
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {type(value).__name__}, not list"
        parts = ((item, shape[0], f"{where}[{i}]") for i, item in enumerate(value))
    elif isinstance(shape, str):
        fits = isinstance(value, str) and re.fullmatch(shape, value) is not None
        return "" if fits else f"{where} is {value!r}"
    else:
        fits = type(value) is shape
        return "" if fits else f"{where} is {type(value).__name__}, not {shape.__name__}"
    return next(filter(None, (_misfit(*part) for part in parts)), "")


def _dtype_name(dtype: str | torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _forms_text(forms: Mapping[str, tuple[int, str]]) -> str:
    return ", ".join(f"{site} ({width}, {name})" for site, (width, name) in forms.items())


def _located(
    number: int, name: str | None, text: str, rows: Mapping[str, NDArray[np.int64]]
) -> LocatedDocument:
    token, position, start, end = (
        rows.get(key, _NO_ROWS) for key in ("token", "position", "start", "end")
    )
    return LocatedDocument(number, name or "", text, token, position, start, end)


def _joined_fields(parts: list[dict[str, NDArray[np.int64]]]) -> dict[str, NDArray[np.int64]]:
    return {key: np.concatenate([part[key] for part in parts]) for key in _ROW_FIELDS}


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
