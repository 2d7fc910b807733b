"""A dictionary on disk: a folder of plain files that any language can read.

`save` writes the folder aside and renames it into place, `load` checks it and maps its arrays
into memory, `push` and `pull` carry it to and from the Hugging Face Hub. docs/format.md
describes every file.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import logging
import math
import mmap
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exemplars.calibration import Calibration
from exemplars.contexts import Context, contexts_from, contexts_schema
from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError, MismatchError, SourceError
from exemplars.members import HISTOGRAM_BINS, MemberStatistics

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
REGIONS = "regions.safetensors"
CONTEXTS = "contexts.parquet"
GROWTH = "growth.parquet"
CENSUS = "census.safetensors"
CENSUS_CONTEXTS = "census_contexts.parquet"
LENS = "lens.parquet"
RUN = "run.jsonl"
PARTS = (REGIONS, CONTEXTS, GROWTH, CENSUS, CENSUS_CONTEXTS, LENS)
"""Files a manifest may list."""
GROWTH_COLUMNS = ("document", "rows", "regions", "singletons")

_OURS = frozenset({MANIFEST, RUN, *PARTS})
_GROUP_ROWS = 2048
_CHUNK = 1 << 22
_MAX_HEADER = 1 << 20
_MAX_MANIFEST = 1 << 26
_MAX_ROWS_PER_BYTE = 8
_UNIT_LENGTH_TOLERANCE = 1e-5
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U32": np.dtype("<u4"),
}

_logger = logging.getLogger(__name__)

_Layout = dict[str, tuple[str, tuple[int, ...]]]
_Arrays = dict[str, NDArray[Any]]


# --- the manifest ---------------------------------------------------------------------------


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


_Count = Annotated[int, Field(ge=0)]
_Percentile = Annotated[float, Field(gt=0, lt=100)]
_Norms = Annotated[list[float | None], Field(min_length=3, max_length=3)]
_Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class FileEntry(_Record):
    """What a file must be."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: _Count
    """Bytes."""


class CalibrationEntry(_Record):
    """A `Calibration` but for its center, which is a tensor of regions.safetensors."""

    thresholds: Annotated[list[_Pair], Field(min_length=1)]
    """[percentile, θ] pairs."""
    rows: _Count
    block_rows: _Count
    vector_norms: _Norms
    """5th percentile, median, 95th percentile; null where not known."""
    centered_norms: _Norms
    norm_limit: float | None
    dropped: dict[str, _Count]
    source: dict[str, Any]


class Manifest(_Record):
    """manifest.json of format version 1; `Manifest.model_json_schema()` is its JSON Schema."""

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)]
    library_version: str
    percentile: _Percentile
    threshold: Annotated[float, Field(gt=0, le=2)]
    membership: Annotated[str, Field(min_length=1)]
    rows: _Count
    dropped: dict[str, _Count]
    n_regions: _Count
    width: Annotated[int, Field(ge=1)]
    calibration: CalibrationEntry
    provenance: dict[str, Any]
    files: dict[str, FileEntry]


def manifest_of(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a saved dictionary, checked by itself; no other file is opened.

    Raises:
        FormatError: It is missing, not JSON, of a newer version, or not what version 1 says.
    """
    return _read_manifest(Path(folder))


# --- save and load --------------------------------------------------------------------------


def save(
    dictionary: Dictionary,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    run: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
) -> Path:
    """Write a dictionary to a folder: all of it, or nothing.

    The folder is written beside its place, flushed to disk, and renamed. A kill leaves the old
    dictionary or the new one. With `overwrite`, files in the folder that are not a
    dictionary's are kept.

    Args:
        dictionary: What to write. Its provenance must be plain JSON values; a float that is not
            finite is written as null.
        folder: Where. It may exist if it is empty.
        overwrite: Replace the dictionary that is there.
        run: Times and machine facts, one record or several: the lines of run.jsonl.

    Returns:
        The folder.

    Raises:
        FormatError: The folder exists and holds something, or, with `overwrite`, holds something
            that is not a dictionary.
        ValueError: Arrays, contexts, or provenance that do not fit the format.
        OSError: The disk is full, or cannot be written.
    """
    k, d = dictionary.exemplars.shape
    regions = _fit(_region_arrays(dictionary), _regions_layout(k, d))
    census = _fit(_member_arrays(dictionary.census), _members_layout(k, d))
    contexts = None if dictionary.contexts is None else dictionary.contexts.table()
    of_census = None if dictionary.census_contexts is None else dictionary.census_contexts.table()
    growth = None if dictionary.growth is None else _fit_growth(dictionary.growth)
    lines = _run_lines(run)
    entries = _manifest_entries(dictionary)
    for table in (contexts, of_census):
        if table is not None:
            _check_regions_column(table, k)
    needed = sum(a.nbytes for a in (*regions.values(), *census.values())) + sum(
        t.nbytes for t in (contexts, of_census, growth) if t is not None
    )
    place = _place(folder)
    with _written_aside(place, overwrite, needed) as new:
        files = {REGIONS: _write_tensors(new / REGIONS, regions)}
        if contexts is not None:
            files[CONTEXTS] = _write_contexts(new / CONTEXTS, contexts)
        if growth is not None:
            files[GROWTH] = _write_table(new / GROWTH, growth)
        if dictionary.census is not None:
            files[CENSUS] = _write_tensors(new / CENSUS, census)
        if of_census is not None:
            files[CENSUS_CONTEXTS] = _write_contexts(new / CENSUS_CONTEXTS, of_census)
        if lines:
            _write_bytes(new / RUN, "".join(line + "\n" for line in lines).encode())
        _write_manifest(new, Manifest(**entries, files=files))
    return place


def load(folder: str | os.PathLike[str], *, verify: bool = True) -> Dictionary:
    """Open a saved dictionary. Its arrays are read-only maps of the file, its contexts are read
    when they are asked for.

    Args:
        folder: That `save` wrote.
        verify: Also compare the SHA-256 of each file and look at every exemplar, which reads
            all files once. Sizes, types and shapes are checked in any case.

    Raises:
        FormatError: A file is missing, truncated, altered, of a newer version, or not what the
            format says.
    """
    place = Path(folder)
    _restore(place)
    manifest = _read_manifest(place)
    _check_files(place, manifest, verify)
    k, d = manifest.n_regions, manifest.width
    arrays = _map_tensors(place / REGIONS, _regions_layout(k, d))
    if verify:
        _check_exemplars(place / REGIONS, arrays)
    census = None
    if CENSUS in manifest.files:
        census = MemberStatistics(**_map_tensors(place / CENSUS, _members_layout(k, d)))

    def contexts_in(name: str) -> ParquetContexts | None:
        return ParquetContexts(place / name, k) if name in manifest.files else None

    center, exemplars, exemplar_rows = (
        arrays.pop(name) for name in ("center", "exemplars", "exemplar_rows")
    )
    return Dictionary(
        exemplars=exemplars,
        exemplar_rows=exemplar_rows,
        members=MemberStatistics(**arrays),
        calibration=_calibration(place, manifest, center),
        percentile=manifest.percentile,
        membership=manifest.membership,
        rows=manifest.rows,
        dropped=dict(manifest.dropped),
        census=census,
        census_contexts=contexts_in(CENSUS_CONTEXTS),
        contexts=contexts_in(CONTEXTS),
        growth=_read_growth(place / GROWTH) if GROWTH in manifest.files else None,
        provenance=dict(manifest.provenance),
    )


def save_census(
    folder: str | os.PathLike[str], statistics: MemberStatistics, contexts_table: Any = None
) -> None:
    """Add a census to a saved dictionary, or replace the one it has.

    Args:
        folder: That `save` wrote.
        statistics: Of the dictionary's own regions, in their order.
        contexts_table: A pyarrow table as `exemplars.contexts.contexts_table` makes; None for
            a census without contexts.

    Raises:
        FormatError: The folder is not a dictionary.
        ValueError: Another number of regions or another width.
        OSError: The disk is full, or cannot be written.
    """
    manifest = _read_manifest(Path(folder))
    arrays = _fit(_member_arrays(statistics), _members_layout(manifest.n_regions, manifest.width))
    if contexts_table is not None:
        _check_regions_column(contexts_table, manifest.n_regions)

    def write(new: Path) -> dict[str, FileEntry]:
        files = {CENSUS: _write_tensors(new / CENSUS, arrays)}
        if contexts_table is not None:
            files[CENSUS_CONTEXTS] = _write_contexts(new / CENSUS_CONTEXTS, contexts_table)
        return files

    needed = sum(a.nbytes for a in arrays.values()) + getattr(contexts_table, "nbytes", 0)
    _amend(folder, (CENSUS, CENSUS_CONTEXTS), write, needed)


def save_lens(folder: str | os.PathLike[str], table: Any) -> None:
    """Add a table of what the regions read as to a saved dictionary, or replace the one it has.

    Args:
        folder: That `save` wrote.
        table: pyarrow, any columns; stored as it is.

    Raises:
        FormatError: The folder is not a dictionary.
        OSError: The disk is full, or cannot be written.
    """
    _amend(folder, (LENS,), lambda new: {LENS: _write_table(new / LENS, table, True)}, table.nbytes)


def load_lens(folder: str | os.PathLike[str]) -> Any:
    """The table that `save_lens` wrote; None if there is none.

    Raises:
        FormatError: The folder is not a dictionary, or the file is not what it should be.
    """
    manifest = _read_manifest(Path(folder))
    if LENS not in manifest.files:
        return None
    path = Path(folder) / LENS
    _check_files(Path(folder), manifest, verify=True)
    file = _open_parquet(path, None)
    with _parquet_errors(path):
        table = file.read()
        table.validate(full=True)
    return table


def check_model(dictionary: Dictionary, model: Any, *, allow_mismatch: bool = False) -> str | None:
    """Whether a model is the one a dictionary was built from.

    Args:
        dictionary: Its provenance["model"] names the weights' "fingerprint" and the
            "tokenizer_fingerprint".
        model: With attributes of the same names.
        allow_mismatch: Return the sentence instead of raising it.

    Returns:
        None where both are equal; otherwise what a caller should show as a warning: that they
        differ, or that the dictionary does not say what it was built from.

    Raises:
        MismatchError: They differ.
    """
    known = dictionary.provenance.get("model") or {}
    known = known if isinstance(known, Mapping) else {}
    silent = []
    for key, what, advice in (
        ("fingerprint", "model", "load the model it was built from"),
        ("tokenizer_fingerprint", "tokenizer", "use the tokenizer it was built with"),
    ):
        wanted = known.get(key)
        found = None if wanted is None else getattr(model, key, None)
        if wanted is None or found is None:
            silent.append(what)
        elif wanted != found:
            name = known.get("name")
            built = f"{what} {wanted}" + (f" ({name})" if name else "")
            sentence = (
                f"this dictionary was built with {built}, but the {what} given is {found}; "
                f"{advice}, or allow the mismatch"
            )
            if not allow_mismatch:
                raise MismatchError(sentence)
            return sentence
    if silent:
        return (
            f"no fingerprint of the {' and the '.join(silent)} could be compared, so whether "
            "this dictionary belongs to the model given is not known"
        )
    return None


# --- the Hugging Face Hub -------------------------------------------------------------------


def push(
    folder_or_dictionary: str | os.PathLike[str] | Dictionary,
    repo_id: str,
    *,
    path_in_repo: str = "",
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Put a dictionary on the Hugging Face Hub, in a model repository made if there is none.

    Only the files of the dictionary are sent; run.jsonl, which may say things about a machine,
    is not. Files of an older dictionary at the same place are removed in the same commit. A
    repository without a README.md gets a short model card.

    Args:
        folder_or_dictionary: What `save` wrote, verified first; or a dictionary.
        repo_id: "owner/name".
        path_in_repo: A folder in the repository, so that it may hold one for each site.
        token: Of a Hub account; the one logged in, if None.
        private: For a repository that is made now.
        revision: A branch, made if there is none; the main one if None.

    Returns:
        The address of the commit.

    Raises:
        FormatError: The folder is not a sound dictionary.
        SourceError: The Hub refused or could not be reached.
    """
    prefix = _repo_folder(path_in_repo)
    if isinstance(folder_or_dictionary, Dictionary):
        with tempfile.TemporaryDirectory() as temporary:
            folder = save(folder_or_dictionary, Path(temporary) / "dictionary")
            return _push(folder, folder_or_dictionary, repo_id, prefix, token, private, revision)
    folder = Path(folder_or_dictionary)
    return _push(folder, load(folder), repo_id, prefix, token, private, revision)


def pull(
    repo_id: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    path_in_repo: str = "",
    token: str | None = None,
) -> Dictionary:
    """Get a dictionary from the Hugging Face Hub, verify it, and open it.

    Args:
        repo_id: "owner/name".
        folder: Where to put it; it must not exist. None for the Hub's cache.
        revision: A branch, tag, or commit; the main branch if None.
        path_in_repo: The folder in the repository.
        token: Of a Hub account; the one logged in, if None.

    Raises:
        FormatError: What came is not a sound dictionary, or `folder` holds something.
        SourceError: There is none, the Hub refused, or it could not be reached.
    """
    prefix = _repo_folder(path_in_repo)
    if folder is None:
        return load(_download(repo_id, prefix, revision, token, None) / prefix)
    place = _place(folder)
    with _written_aside(place, False, 0) as new:
        found = _download(repo_id, prefix, revision, token, new / ".download") / prefix
        for name in _OURS:
            if (found / name).is_file():
                shutil.move(found / name, new / name)
                _sync_file(new / name)
        shutil.rmtree(new / ".download")
        load(new)
    return load(place, verify=False)


def _repo_folder(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if ".." in parts or "." in parts or "\\" in path:
        raise ValueError(
            f'path_in_repo is "{path}", expected a folder of the repository such as "layer-12"'
        )
    return "/".join(parts)


def _push(
    folder: Path,
    dictionary: Dictionary,
    repo_id: str,
    prefix: str,
    token: str | None,
    private: bool,
    revision: str | None,
) -> str:
    import huggingface_hub

    names = [MANIFEST, *_read_manifest(folder).files, "README.md"]
    api = huggingface_hub.HfApi(token=token)
    with _hub_errors(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=prefix,
            revision=revision,
            allow_patterns=names,
            delete_patterns=sorted(_OURS),
            commit_message=f"Add the dictionary {prefix or repo_id}",
        )
        if not api.file_exists(repo_id, "README.md", revision=revision):
            api.upload_file(
                repo_id=repo_id,
                path_or_fileobj=_model_card(dictionary, repo_id, prefix).encode(),
                path_in_repo="README.md",
                revision=revision,
                commit_message="Add a model card",
            )
    return str(commit.commit_url)


def _download(
    repo_id: str, prefix: str, revision: str | None, token: str | None, folder: Path | None
) -> Path:
    import huggingface_hub

    start = f"{prefix}/" if prefix else ""
    with _hub_errors(repo_id):
        root = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            local_dir=folder,
            allow_patterns=[glob.escape(start + name) for name in (MANIFEST, *PARTS)],
        )
    if not (Path(root) / start / MANIFEST).is_file():
        where = f"{repo_id}/{prefix}" if prefix else repo_id
        raise SourceError(
            f"{where} on the Hub has no {MANIFEST}, so it is not a dictionary; "
            "check the name and path_in_repo"
        )
    return Path(root)


@contextlib.contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """What the Hub's client raises, as one sentence."""
    from huggingface_hub import utils as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise SourceError(f"{repo_id} on the Hub is gated; ask its owner for access") from error
    except hub.RepositoryNotFoundError as error:
        raise SourceError(
            f"{repo_id} does not exist on the Hub, or this account may not see it; "
            "check the name, or log in with `hf auth login`"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise SourceError(
            f"{repo_id} on the Hub has no such revision; give a branch, tag, or commit it has"
        ) from error
    except hub.HFValidationError as error:
        raise SourceError(f'"{repo_id}" is not a name on the Hub; give "owner/name"') from error
    except hub.LocalEntryNotFoundError as error:  # an HfHubHTTPError in older versions
        raise _unreached(repo_id, error) from error
    except hub.HfHubHTTPError as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        advice = {
            401: "log in with `hf auth login`",
            403: "use a token that may write there",
        }.get(code or 0, "try again later")
        raise SourceError(
            f"the Hub answered {code} about {repo_id} ({_first_line(error)}); {advice}"
        ) from error
    except Exception as error:
        library = type(error).__module__.split(".")[0]
        if library not in _HUB_LIBRARIES and not isinstance(error, (ConnectionError, TimeoutError)):
            raise
        raise _unreached(repo_id, error) from error


def _unreached(repo_id: str, error: Exception) -> SourceError:
    return SourceError(
        f"{repo_id} could not be reached on the Hub ({_first_line(error)}); check the connection"
    )


_HUB_LIBRARIES = frozenset({"huggingface_hub", "httpx", "httpx2", "httpcore", "requests"})


def _model_card(dictionary: Dictionary, repo_id: str, prefix: str) -> str:
    model = dictionary.provenance.get("model")
    name = str(model.get("name") or "") if isinstance(model, Mapping) else str(model or "")
    site = dictionary.provenance.get("site")
    where = str(site.get("name") or "") if isinstance(site, Mapping) else str(site or "")
    of = " of " + ", ".join(part for part in (where, name) if part) if where or name else ""
    path = f', path_in_repo="{prefix}"' if prefix else ""
    base = f"base_model: {json.dumps(name)}\n" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
    return f"""---
library_name: exemplars
tags:
- exemplars
- exemplar-partitioning
- interpretability
{base}---

# {repo_id.split("/")[-1]}

Exemplar Partitioning{of}: {dictionary.n_regions:,} regions from {dictionary.rows:,} rows,
width {dictionary.width}, percentile {dictionary.percentile:g}, θ = {dictionary.threshold:.4f}.

```python
from exemplars.store import pull

dictionary = pull("{repo_id}"{path})
regions, distances = dictionary.assign(vectors)  # (N, {dictionary.width}) raw activations
```
"""


# --- contexts on disk -----------------------------------------------------------------------


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

    def table(self) -> Any:
        """All of them, in memory."""
        return self._read(list(range(self._file.num_row_groups)))

    def _groups(self, start: int, stop: int) -> Any:
        kept = self._kept
        if kept is None or kept[0] != (start, stop):
            kept = ((start, stop), self._read(list(range(start, stop))))
            self._kept = kept
        return kept[1]

    def _read(self, groups: list[int]) -> Any:
        import pyarrow as pa

        with self._lock, _parquet_errors(self.path):
            table = self._file.read_row_groups(groups, use_threads=False)
            table.validate(full=True)
            schema = contexts_schema()
            columns = [
                table[f.name].combine_chunks().dictionary_encode()
                if pa.types.is_dictionary(f.type)
                else table[f.name]
                for f in schema
            ]
            return pa.Table.from_arrays(columns, schema=schema)


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


# --- tables ---------------------------------------------------------------------------------


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
    except FormatError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise FormatError(
            f"{path} is not readable as Parquet ({_first_line(error)}); "
            "get the folder again from where it came from"
        ) from error


def _write_contexts(path: Path, table: Any) -> FileEntry:
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
        _HashedFile(path) as file,
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
    return file.entry()


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


def _check_regions_column(table: Any, n_regions: int) -> None:
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


def _write_table(path: Path, table: Any, store_schema: bool = False) -> FileEntry:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        _HashedFile(path) as file,
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
    return file.entry()


def _fit_growth(table: Any) -> Any:
    if sorted(table.schema.names) != sorted(GROWTH_COLUMNS):
        raise ValueError(
            f"the growth table has columns {', '.join(table.schema.names)}, "
            f"expected {', '.join(GROWTH_COLUMNS)}"
        )
    return table.select(list(GROWTH_COLUMNS)).cast(_growth_schema())


def _growth_schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.int64()) for name in GROWTH_COLUMNS])


def _read_growth(path: Path) -> Any:
    file = _open_parquet(path, _growth_schema())
    with _parquet_errors(path):
        table = file.read(columns=list(GROWTH_COLUMNS), use_threads=False)
        table.validate(full=True)
    return table


# --- tensors --------------------------------------------------------------------------------


def _members_layout(k: int, d: int) -> _Layout:
    return {
        "counts": ("I64", (k,)),
        "means": ("F32", (k, d)),
        "coherence": ("F32", (k,)),
        "distance_sums": ("F64", (k,)),
        "distance_square_sums": ("F64", (k,)),
        "histogram": ("U32", (k, HISTOGRAM_BINS)),
    }


def _regions_layout(k: int, d: int) -> _Layout:
    return {
        "center": ("F32", (d,)),
        "exemplars": ("F32", (k, d)),
        "exemplar_rows": ("I64", (k,)),
        **_members_layout(k, d),
    }


def _member_arrays(members: MemberStatistics | None) -> dict[str, Any]:
    if members is None:
        return {}
    return {name: getattr(members, name) for name in _members_layout(0, 0)}


def _region_arrays(dictionary: Dictionary) -> dict[str, Any]:
    return {
        "center": dictionary.center,
        "exemplars": dictionary.exemplars,
        "exemplar_rows": dictionary.exemplar_rows,
        **_member_arrays(dictionary.members),
    }


def _fit(arrays: Mapping[str, Any], layout: _Layout) -> _Arrays:
    """The arrays in the types of the file, little-endian and contiguous."""
    fitted = {}
    for name, given in arrays.items():
        dtype, shape = layout[name]
        array = np.asarray(given)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
        fitted[name] = np.ascontiguousarray(array, _DTYPES[dtype])
        if array.dtype.kind != fitted[name].dtype.kind and array.dtype.kind not in "iu":
            raise ValueError(f"{name} has dtype {array.dtype}, expected {fitted[name].dtype}")
    return fitted


def _write_tensors(path: Path, arrays: _Arrays) -> FileEntry:
    """safetensors, widest types first and then by name, so that every tensor is aligned."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, offset = {}, 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with _HashedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            content = arrays[name].reshape(-1).view(np.uint8).data
            for start in range(0, len(content), _CHUNK):
                file.write(content[start : start + _CHUNK])
    return file.entry()


def _map_tensors(path: Path, layout: _Layout) -> _Arrays:
    """The tensors of `layout` as read-only views of the file, which may hold nothing else."""
    if not path.is_file():
        raise FormatError(f"{path} is missing; get the folder again from where it came from")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offsets, begin = _read_header(path, file, size, layout)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {}
    for name, (dtype, shape) in layout.items():
        array = np.frombuffer(
            mapped, _DTYPES[dtype], count=math.prod(shape), offset=begin + offsets[name]
        )
        arrays[name] = array.reshape(shape)
    return arrays


def _read_header(path: Path, file: Any, size: int, layout: _Layout) -> tuple[dict[str, int], int]:
    """Where each tensor begins, counted from the end of the header, and where that is."""

    def refuse(found: str) -> FormatError:
        return FormatError(
            f"{path} is not the safetensors file expected: {found}; "
            "get the folder again from where it came from"
        )

    length = int.from_bytes(file.read(8), "little") if size >= 8 else size
    if size < 8 or length > size - 8:
        raise refuse(f"it has {size:,} bytes and a header of {length:,}")
    if length > _MAX_HEADER:
        raise refuse(f"its header has {length:,} bytes, at most {_MAX_HEADER:,} are allowed")
    try:
        header = json.loads(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise refuse("its header is not JSON") from error
    if not isinstance(header, dict):
        raise refuse("its header is not an object")
    header.pop("__metadata__", None)
    if set(header) != set(layout):
        differ = ", ".join(sorted(set(header) ^ set(layout))[:3])
        raise refuse(f"tensors are missing or unknown ({differ})")
    spans = []
    for name, (dtype, shape) in layout.items():
        entry = header[name]
        found = entry.get("dtype") if isinstance(entry, dict) else None
        if found != dtype or entry.get("shape") != list(shape):
            raise refuse(f"{name} is not {dtype} of shape {shape}")
        span = entry.get("data_offsets")
        n_bytes = math.prod(shape) * _DTYPES[dtype].itemsize
        if (
            not isinstance(span, list)
            or [type(x) for x in span] != [int, int]
            or span[0] < 0
            or span[1] - span[0] != n_bytes
        ):
            raise refuse(f"{name} has data offsets {str(span)[:40]}, expected {n_bytes:,} bytes")
        spans.append((span[0], span[1], name))
    spans.sort()
    ends = [0, *(stop for _, stop, _ in spans)]
    if any(start != end for (start, _, _), end in zip(spans, ends, strict=False)):
        raise refuse("its tensors overlap or leave gaps")
    if ends[-1] != size - 8 - length:
        raise refuse(f"its tensors end at byte {ends[-1] + 8 + length:,} of {size:,}")
    return {name: start for start, _, name in spans}, 8 + length


def _check_exemplars(path: Path, arrays: _Arrays) -> None:
    exemplars = arrays["exemplars"]
    if not np.isfinite(arrays["center"]).all():
        raise FormatError(f"{path} has a center that is not finite; build the dictionary again")
    if (arrays["counts"] < 0).any():
        raise FormatError(f"{path} has a negative count; build the dictionary again")
    for start in range(0, len(exemplars), 4096):
        block = exemplars[start : start + 4096]
        length = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        wrong = np.flatnonzero(~(np.abs(length - 1.0) <= _UNIT_LENGTH_TOLERANCE))
        if len(wrong):
            k = int(wrong[0])
            raise FormatError(
                f"{path} has exemplar {start + k} of length {length[k]:.6g}, expected 1; "
                "build the dictionary again"
            )


# --- the manifest, written and read ---------------------------------------------------------


def _manifest_entries(dictionary: Dictionary) -> dict[str, Any]:
    calibration = dictionary.calibration
    entries = {
        "format_version": FORMAT_VERSION,
        "library_version": metadata.version("exemplars"),
        "percentile": float(dictionary.percentile),
        "threshold": float(dictionary.threshold),
        "membership": dictionary.membership,
        "rows": int(dictionary.rows),
        "dropped": {str(name): int(count) for name, count in dictionary.dropped.items()},
        "n_regions": dictionary.n_regions,
        "width": dictionary.width,
        "calibration": {
            "thresholds": [[float(p), float(t)] for p, t in calibration.thresholds.items()],
            "rows": int(calibration.rows),
            "block_rows": int(calibration.block_rows),
            "vector_norms": _plain(calibration.vector_norms, "vector_norms"),
            "centered_norms": _plain(calibration.centered_norms, "centered_norms"),
            "norm_limit": _plain(calibration.norm_limit, "norm_limit"),
            "dropped": {str(name): int(count) for name, count in calibration.dropped.items()},
            "source": _plain(calibration.source, "calibration.source"),
        },
        "provenance": _plain(dictionary.provenance, "provenance"),
    }
    try:
        Manifest(**entries, files={})
    except ValidationError as error:
        raise ValueError(f"the dictionary does not fit its format: {_why(error)}") from error
    return entries


def _plain(value: Any, where: str) -> Any:
    """`value` in JSON's types: tuples as lists, numpy numbers as numbers, NaN as null."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{k}]") for k, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), where)
    raise ValueError(
        f"{where} is a {type(value).__name__}, expected what JSON can say: "
        "numbers, strings, lists, and dicts"
    )


def _run_lines(run: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None) -> list[str]:
    if run is None:
        return []
    records = [run] if isinstance(run, Mapping) else list(run)
    return [json.dumps(_plain(record, "run"), allow_nan=False) for record in records]


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.model_dump(), indent=2, allow_nan=False)
    _write_bytes(folder / MANIFEST, text.encode() + b"\n")


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not folder.is_dir():
        found = "is not a folder" if folder.exists() else "does not exist"
        raise FormatError(f"{folder} {found}, expected the folder of a dictionary; check the path")
    if not path.is_file():
        raise FormatError(
            f"{folder} has no {MANIFEST}, so it is not a dictionary; give the folder that was saved"
        )
    if path.stat().st_size > _MAX_MANIFEST:
        raise FormatError(f"{path} has {path.stat().st_size:,} bytes, which no manifest has")
    try:
        data = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not JSON ({_first_line(error)}), so it was truncated or altered; "
            "get the folder again from where it came from"
        ) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise FormatError(
            f"{folder} has format version {version}, made by a newer version of exemplars "
            f"(this one reads up to {FORMAT_VERSION}); upgrade exemplars"
        )
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise FormatError(
            f"{path} is not a manifest of format version {FORMAT_VERSION} ({_why(error)}); "
            "get the folder again from where it came from"
        ) from error
    _check_names(path, manifest)
    return manifest


def _no_constant(token: str) -> Any:
    raise ValueError(f"{token} is not JSON")


def _check_names(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        if name not in PARTS:
            raise FormatError(
                f"{path} lists the file {name!r}, which is none of a dictionary's "
                f"({', '.join(PARTS)}); get the folder again from where it came from"
            )
    if REGIONS not in manifest.files:
        raise FormatError(f"{path} lists no {REGIONS}; get the folder again")


def _check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise FormatError(f"{path} is missing; get the folder again from where it came from")
        size = path.stat().st_size
        if size != entry.size:
            what = "truncated" if size < entry.size else "altered"
            raise FormatError(
                f"{path} has {size:,} bytes, expected {entry.size:,}: it was {what}; "
                "get the folder again from where it came from"
            )
        if verify and _sha256(path) != entry.sha256:
            raise FormatError(
                f"{path} does not have the SHA-256 that {MANIFEST} says: it was altered; "
                "get the folder again from where it came from"
            )


def _calibration(folder: Path, manifest: Manifest, center: NDArray[Any]) -> Calibration:
    entry = manifest.calibration
    thresholds = {pair[0]: pair[1] for pair in entry.thresholds}
    if thresholds.get(manifest.percentile) != manifest.threshold:
        raise FormatError(
            f"{folder / MANIFEST} has threshold {manifest.threshold} and percentile "
            f"{manifest.percentile:g}, which its calibration does not; get the folder again"
        )

    def norms(values: list[float | None]) -> tuple[float, float, float]:
        low, median, high = (math.nan if value is None else value for value in values)
        return low, median, high

    return Calibration(
        center=center,
        thresholds=thresholds,
        rows=entry.rows,
        block_rows=entry.block_rows,
        vector_norms=norms(entry.vector_norms),
        centered_norms=norms(entry.centered_norms),
        norm_limit=entry.norm_limit,
        dropped=dict(entry.dropped),
        source=dict(entry.source),
    )


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# --- folders, written aside and renamed -----------------------------------------------------


def _place(folder: str | os.PathLike[str]) -> Path:
    place = Path(folder).resolve()
    if not place.name:
        raise FormatError(f"{place} cannot be replaced by a dictionary; give another folder")
    return place


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


@contextlib.contextmanager
def _written_aside(folder: Path, overwrite: bool, needed: int) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside, new = _aside(folder), folder.with_name(f".{folder.name}.new")
    if aside.is_dir():  # a kill between the renames below, or just after them
        if folder.exists():
            _discard(aside, folder)
        else:
            aside.rename(folder)
    _check_free(folder, overwrite)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        yield new
        _sync_folder(new)
        _swap(folder, aside, new)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = OSError(
            f"the disk of {folder} is full: the dictionary needs about {needed:,} bytes and "
            f"nothing was changed; make room, or save elsewhere"
        )
        full.errno = error.errno
        raise full from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(folder: Path, aside: Path, new: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        _sync_folder(folder.parent)
        return
    folder.rename(aside)
    try:
        new.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    _sync_folder(folder.parent)
    _discard(aside, folder)


def _discard(aside: Path, folder: Path) -> None:
    """Remove a replaced dictionary; what is not a dictionary's file moves to the new one."""
    for entry in list(aside.iterdir()):
        if entry.name not in _OURS and not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
    shutil.rmtree(aside)


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FormatError(f"{folder} is a file, expected a folder or nothing; choose another name")
    if not any(folder.iterdir()):
        return
    is_dictionary = _looks_like_a_dictionary(folder)
    if not overwrite:
        what = "a dictionary" if is_dictionary else "files that are not a dictionary"
        advice = "allow overwriting or choose" if is_dictionary else "choose"
        raise FormatError(f"{folder} already holds {what}; {advice} another folder")
    if not is_dictionary:
        raise FormatError(
            f"{folder} holds files that are not a dictionary, so it is not overwritten; "
            "choose another folder"
        )


def _looks_like_a_dictionary(folder: Path) -> bool:
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"format_version", "n_regions", "files"} <= set(data)


def _restore(folder: Path) -> None:
    """Put back a dictionary that a killed save had moved aside and not replaced."""
    place = folder.resolve()
    if place.exists() or not place.name or not _aside(place).is_dir():
        return
    time.sleep(0.1)  # a save that is alive is between its two renames for less than that
    if place.exists():
        return
    try:
        _aside(place).rename(place)
    except OSError as error:
        raise FormatError(
            f"{folder} is missing, but {_aside(place)}, set aside by an interrupted save, is "
            f"there and could not be moved back ({error.strerror}); rename it"
        ) from error
    _logger.warning("%s was set aside by an interrupted save and has been put back", folder)


def _amend(
    folder: str | os.PathLike[str],
    names: tuple[str, ...],
    write: Callable[[Path], dict[str, FileEntry]],
    needed: int,
) -> None:
    """Replace the files `names` of a saved dictionary: its folder is swapped as a whole, the
    other files are linked.
    """
    place = _place(folder)
    _restore(place)
    manifest = _read_manifest(place)
    kept = {name: entry for name, entry in manifest.files.items() if name not in names}
    with _written_aside(place, True, needed) as new:
        for name in (*kept, RUN):
            if (place / name).exists():
                _link(place / name, new / name)
        files = {**kept, **write(new)}
        ordered = {name: files[name] for name in PARTS if name in files}
        _write_manifest(new, manifest.model_copy(update={"files": ordered}))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


class _HashedFile:
    """A new file that counts and hashes what is written, and is on disk when closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._sha256 = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> _HashedFile:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            with contextlib.suppress(OSError):  # it is removed with its folder
                self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._sha256.update(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The `with` block closes; pyarrow may not."""

    def entry(self) -> FileEntry:
        return FileEntry(sha256=self._sha256.hexdigest(), size=self._size)


def _write_bytes(path: Path, content: bytes) -> None:
    with _HashedFile(path) as file:
        file.write(content)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            digest.update(buffer[:n])
    return digest.hexdigest()
