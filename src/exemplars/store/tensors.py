"""Arrays in safetensors files: written so that each is aligned, read as maps of the file."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError
from exemplars.members import HISTOGRAM_BINS, MemberStatistics
from exemplars.store.folders import CHUNK, HashedFile
from exemplars.store.manifest import FileEntry

Arrays = dict[str, NDArray[Any]]
_Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Type, as safetensors names it, and shape of each tensor of a file."""

_MAX_HEADER = 1 << 20
_UNIT_LENGTH_TOLERANCE = 1e-5
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U32": np.dtype("<u4"),
}


def region_arrays(dictionary: Dictionary) -> Arrays:
    """What regions.safetensors holds of a dictionary.

    Raises:
        ValueError: An array of another shape or kind than the format's.
    """
    k, d = dictionary.exemplars.shape
    own = {
        "center": dictionary.center,
        "exemplars": dictionary.exemplars,
        "exemplar_rows": dictionary.exemplar_rows,
    }
    return {**_fit(own, _regions_layout(k, d)), **member_arrays(dictionary.members, k, d)}


def member_arrays(members: MemberStatistics, k: int, d: int) -> Arrays:
    """What a file holds of the members of `k` regions of width `d`.

    Raises:
        ValueError: An array of another shape or kind than the format's.
    """
    layout = _members_layout(k, d)
    return _fit({name: getattr(members, name) for name in layout}, layout)


def write_tensors(path: Path, arrays: Arrays) -> FileEntry:
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
    with HashedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            content = arrays[name].reshape(-1).view(np.uint8).data
            for start in range(0, len(content), CHUNK):
                file.write(content[start : start + CHUNK])
    return FileEntry.of(file)


def map_regions(path: Path, k: int, d: int, verify: bool) -> Arrays:
    """regions.safetensors as read-only views; to `verify` is to look at every exemplar."""
    arrays = _map_tensors(path, _regions_layout(k, d))
    if verify:
        _check_regions(path, arrays)
    return arrays


def map_members(path: Path, k: int, d: int) -> MemberStatistics:
    """census.safetensors as read-only views."""
    return MemberStatistics(**_map_tensors(path, _members_layout(k, d)))


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


def _fit(arrays: Mapping[str, Any], layout: _Layout) -> Arrays:
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


def _map_tensors(path: Path, layout: _Layout) -> Arrays:
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


def _check_regions(path: Path, arrays: Arrays) -> None:
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
