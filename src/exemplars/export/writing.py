"""How an export is written: beside its place, in blocks, and all of it or nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exemplars.errors import FormatError
from exemplars.geometry import Float32
from exemplars.store.folders import HashedFile, Kind, place_of, write_bytes, written_aside

REGIONS = "regions.json"
"""In every export: the dictionary, and the region of each latent."""
CONFIG = "cfg.json"
_ADVICE = "export fewer regions, or export elsewhere"
_BLOCK = 4096
_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Export:
    """What was written."""

    format: str
    folder: Path
    """What the other library opens."""
    latents: int
    dropped: int
    """Regions that were left out; regions.json has the numbers of the others."""
    basis: str
    dtype: str
    bytes: int
    """Of all files."""
    files: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor that is written block by block."""

    shape: tuple[int, ...]
    blocks: Iterable[Float32]
    """Float32 arrays whose elements in order are the tensor's."""

    @classmethod
    def of(cls, array: Float32) -> Tensor:
        """A whole array."""
        return cls(array.shape, [array])

    @classmethod
    def rows(cls, matrix: Float32, rows: Any) -> Tensor:
        """(n, D): the named rows of a matrix."""
        starts = range(0, len(rows), _BLOCK)
        blocks = (matrix[rows[start : start + _BLOCK]] for start in starts)
        return cls((len(rows), matrix.shape[1]), blocks)

    @classmethod
    def columns(cls, matrix: Float32, rows: Any) -> Tensor:
        """(D, n): the named rows of a matrix, transposed."""
        width = matrix.shape[1]
        step = max(1, _BLOCK * width // max(len(rows), 1))
        starts = range(0, width, step)
        blocks = (matrix[rows, start : start + step].T for start in starts)
        return cls((width, len(rows)), blocks)


def write_weights(path: Path, tensors: Mapping[str, Tensor], dtype: str = "float32") -> int:
    """A safetensors file of one dtype, from blocks: memory stays small.

    Returns:
        Its bytes.
    """
    itemsize = 4 if dtype == "float32" else 2
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + itemsize * int(np.prod(tensor.shape))
        header[name] = {
            "dtype": _NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [offset, end],
        }  # fmt: skip
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with HashedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for block in tensor.blocks:
                file.write(_rounded(block, dtype).reshape(-1).view(np.uint8).data)
    if file.size != len(text) + 8 + offset:
        raise ValueError(
            f"{path.name} has {file.size:,} bytes, expected {len(text) + 8 + offset:,}"
        )
    return file.size


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file in plain ASCII."""
    write_bytes(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def replaced(out: Path, inside: str, overwrite: bool, needed: int) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of OUT/inside if the block succeeds.

    A failure leaves what was there; files in the folder that no export writes are kept.

    Args:
        out: What the user named.
        inside: A folder in it, or "" for `out` itself.
        overwrite: Replace an export that is there.
        needed: Bytes that will be written.

    Raises:
        FormatError: The place holds something else, or an export and not `overwrite`.
        OSError: The disk has too little room, or cannot be written.
    """
    root = place_of(out)
    place = root / inside if inside else root
    beside = root.with_name(f"{root.name}-{inside}") if inside else root

    def check(place: Path, overwrite: bool) -> None:
        check_place(place, overwrite)
        _check_room(root, needed)

    kind = Kind("export", _is_export, _is_ours, check, _ADVICE)
    with written_aside(place, overwrite, needed, kind, beside) as new:
        yield new


def check_place(place: Path, overwrite: bool) -> None:
    """Raise `FormatError` unless an export may be written at `place`."""
    if not place.exists():
        return
    if not place.is_dir():
        raise FormatError(f"{place} is a file, expected a folder or nothing; choose another name")
    if not any(place.iterdir()):
        return
    if not _is_export(place):
        raise FormatError(f"{place} holds files that are not an export; choose another folder")
    if not overwrite:
        raise FormatError(f"{place} already holds an export; choose another folder, or --overwrite")


def files_of(folder: Path) -> tuple[tuple[str, ...], int]:
    """The names of a folder's files, and their bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple(path.name for path in files), sum(path.stat().st_size for path in files)


def _rounded(block: Float32, dtype: str) -> Any:
    """A block in the dtype of the file, little-endian, to nearest even."""
    block = np.ascontiguousarray(block, "<f4")
    if dtype == "float32":
        return block
    if dtype == "float16":
        return block.astype("<f2")
    bits = block.view("<u4")
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> 16).astype(
        "<u2"
    )


def _is_export(place: Path) -> bool:
    try:
        found = json.loads((place / REGIONS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"exemplars_version", "format", "regions"} <= set(found)


def _is_ours(name: str) -> bool:
    return name.endswith(".safetensors") or name in (REGIONS, CONFIG)


def _check_room(root: Path, needed: int) -> None:
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if shutil.disk_usage(there).free < needed:
        full = OSError(
            f"the disk of {root} is too full: the export needs about {needed:,} bytes and nothing "
            f"was changed; make room, {_ADVICE}"
        )
        full.errno = errno.ENOSPC
        raise full
