"""manifest.json: what a dictionary says of itself and of its files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exemplars.calibration import Calibration
from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError
from exemplars.store.folders import (
    MANIFEST,
    PARTS,
    REGIONS,
    STABILITY,
    HashedFile,
    sha256_of,
    write_bytes,
)

FORMAT_VERSION = 2
"""The newest that is read. Written is the oldest version that has all files there are, so that a
folder which needs nothing new can be read by older readers."""
SINCE = {STABILITY: 2}
"""The version that brought a file; 1 for all others."""

_MAX_MANIFEST = 1 << 26

_Count = Annotated[int, Field(ge=0)]
_Percentile = Annotated[float, Field(gt=0, lt=100)]
_Norms = Annotated[list[float | None], Field(min_length=3, max_length=3)]
_Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class FileEntry(_Record):
    """What a file must be."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: _Count
    """Bytes."""

    @classmethod
    def of(cls, file: HashedFile) -> FileEntry:
        return cls(sha256=file.sha256, size=file.size)


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
    """manifest.json; `Manifest.model_json_schema()` is its JSON Schema."""

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
        FormatError: It is missing, not JSON, of a newer version, or not what its version says.
    """
    folder = Path(folder)
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
            f"{path} is not JSON ({first_line(error)}), so it was truncated or altered; "
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
            f"{path} is not a manifest of format version {version} ({_why(error)}); "
            "get the folder again from where it came from"
        ) from error
    _check_names(path, manifest)
    return manifest


def manifest_for(dictionary: Dictionary) -> Manifest:
    """A manifest that lists no files yet.

    Raises:
        ValueError: The dictionary is not what the format can say.
    """
    calibration = dictionary.calibration
    entries = {
        "format_version": 1,  # raised by the files that are written
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
        return Manifest(**entries, files={})
    except ValidationError as error:
        raise ValueError(f"the dictionary does not fit its format: {_why(error)}") from error


def write_manifest(folder: Path, manifest: Manifest, files: Mapping[str, FileEntry]) -> None:
    """Write a manifest that lists `files` instead of its own."""
    ordered = {name: files[name] for name in PARTS if name in files}
    version = max((SINCE.get(name, 1) for name in ordered), default=1)
    manifest = manifest.model_copy(update={"files": ordered, "format_version": version})
    text = json.dumps(manifest.model_dump(), indent=2, allow_nan=False)
    write_bytes(folder / MANIFEST, text.encode() + b"\n")


def check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    """Refuse files that are missing or of another size; of another SHA-256 too, to `verify`."""
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
        if verify and sha256_of(path) != entry.sha256:
            raise FormatError(
                f"{path} does not have the SHA-256 that {MANIFEST} says: it was altered; "
                "get the folder again from where it came from"
            )


def calibration_of(folder: Path, manifest: Manifest, center: NDArray[Any]) -> Calibration:
    """The calibration that a manifest and a center make."""
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


def run_lines(run: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None) -> list[str]:
    """The lines of run.jsonl."""
    if run is None:
        return []
    records = [run] if isinstance(run, Mapping) else list(run)
    return [json.dumps(_plain(record, "run"), allow_nan=False) for record in records]


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


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


def _no_constant(token: str) -> Any:
    raise ValueError(f"{token} is not JSON")


def _check_names(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        if name not in PARTS:
            raise FormatError(
                f"{path} lists the file {name!r}, which is none of a dictionary's "
                f"({', '.join(PARTS)}); get the folder again from where it came from"
            )
        if SINCE.get(name, 1) > manifest.format_version:
            raise FormatError(
                f"{path} lists the file {name!r}, which format version {manifest.format_version} "
                "does not have; get the folder again from where it came from"
            )
    if REGIONS not in manifest.files:
        raise FormatError(f"{path} lists no {REGIONS}; get the folder again")


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
