"""Reading the dictionaries that the published implementation wrote: pickles.

A pickle is a program. This reader runs none of it: every class a published file names is
replaced by an inert stand-in of this module, every other name is refused, and so is every
instruction that such a file does not need. Arrays are built from their bytes here, not by
numpy's own unpickling. No other module knows pickles.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.calibration import Calibration
from exemplars.contexts import Contexts, TableContexts, contexts_schema
from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError
from exemplars.members import HISTOGRAM_BINS, MemberStatistics
from exemplars.store import load, save

MEMBERSHIP = "batch:unknown"
"""The published files do not say how many rows were in a batch, on which membership depends."""

_MAX_PROMPTS = 1000
_MAX_ATTRIBUTES = 1000
_UNIT_LENGTH_TOLERANCE = 1e-5


def import_reference(
    file: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    percentile: float | None = None,
) -> Dictionary:
    """A published dictionary, read without running anything in it.

    What the file does not hold stays unknown: histograms are zero, the calibration has 0 rows,
    and membership is "batch:unknown". Its prompts become contexts with the whole prompt in
    `before`; only the founder's row is known. Labels are in provenance["labels"].

    Args:
        file: A pickle of the class `ep.discovery.dictionary.Dictionary`, or of
            `cas.discovery.dictionary.ConceptLibrary`, as it was called first.
        folder: Also save it there, and open that.
        percentile: Of its threshold, which the file does not hold. If None it is taken from
            "_pP" at the end of the name of the file or of its folder, as in "gemma-2-2b_L12_p10".

    Raises:
        FormatError: The file names something that a published dictionary does not, is
            truncated, or does not hold a dictionary.
        ValueError: The percentile is not known, or not in (0, 100).
    """
    path = Path(file)
    if percentile is None:
        percentile = _percentile_from_name(path)
    if not 0 < percentile < 100:
        raise ValueError(f"percentile is {percentile:g}, expected a number in (0, 100)")
    library, source = _read(path)
    dictionary = _convert(path, library, float(percentile), source)
    if folder is None:
        return dictionary
    save(dictionary, folder)
    return load(folder, verify=False)


def _percentile_from_name(path: Path) -> float:
    for name in (path.stem, path.name, path.resolve().parent.name):
        found = re.search(r"_p(\d+(?:\.\d+)?)$", name)
        if found and 0 < float(found[1]) < 100:
            return float(found[1])
    raise ValueError(f"{path.name} does not say the percentile of its threshold; give percentile=")


# --- stand-ins: what the names in a published file stand for here ----------------------------


class _Inert:
    """The base of the stand-ins: nothing can be set on one."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise FormatError("the file sets the state of something that has none; it was altered")


class _Record(_Inert):
    """An object of the published implementation: the names and values it had."""

    __slots__ = ("values",)

    values: dict[str, Any]

    def __new__(cls) -> _Record:
        record = super().__new__(cls)
        record.values = {}
        return record

    def __setstate__(self, state: Any) -> None:
        # A class with slots has two parts: its __dict__ and its slots.
        for part in state if type(state) is tuple and len(state) == 2 else (state,):
            if part is None:
                continue
            if type(part) is not dict or len(part) > _MAX_ATTRIBUTES:
                raise FormatError(f"the state of an object is {_shown(part)}, not a small dict")
            for name, value in part.items():
                if type(name) is not str or name.startswith("__"):
                    raise FormatError(f"the file sets the attribute {_shown(name)}")
                self.values[name] = value


class _Library(_Record):
    __slots__ = ()


class _Cell(_Record):
    __slots__ = ()


class _Function(_Inert):
    """A function of this module under the name of another."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


class _DType(_Inert):
    __slots__ = ("_order", "_spelling")

    def __init__(self, spelling: Any, *_: Any) -> None:
        if type(spelling) is not str or not re.fullmatch(r"[<>=|]?([fiu][1248]|b1)", spelling):
            raise FormatError(
                f"an array has dtype {_shown(spelling)}; numbers are expected, no objects"
            )
        self._spelling = spelling
        self._order = ""

    def __setstate__(self, state: Any) -> None:
        order = state[1] if type(state) is tuple and len(state) > 4 else None
        if order not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
            raise FormatError("an array has a dtype with parts; numbers are expected")
        self._order = order

    def numpy(self) -> np.dtype[Any]:
        dtype = np.dtype(str(self._spelling))
        return dtype.newbyteorder(">") if self._order == ">" else dtype


class _Array(_Inert):
    """An array whose values are a view of bytes in the file; it allocates nothing."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: NDArray[Any] = np.empty(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise FormatError("an array has a state of an unknown form")
        _, shape, dtype, fortran, content = state
        self.values = _view(content, dtype, shape, "F" if fortran else "C")


def _view(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if type(dtype) is not _DType or type(content) not in (bytes, bytearray):
        raise FormatError("an array does not hold numbers")
    if (
        type(shape) is not tuple
        or len(shape) > 4
        or not all(type(n) is int and 0 <= n < 2**62 for n in shape)
    ):
        raise FormatError(f"an array has {_shown(shape)} as shape, expected whole numbers")
    kind = dtype.numpy()
    if math.prod(shape) * kind.itemsize != len(content):
        raise FormatError(f"an array of shape {shape} and dtype {kind} has {len(content):,} bytes")
    flat: NDArray[Any] = np.frombuffer(content, kind) if content else np.empty(0, kind)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()  # its shape and values come with its state


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.values = _view(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    return _view(content, dtype, (), "C").item()


def _nothing(*_: Any) -> None:
    """Sets are not read; making one would let a short file fill the memory."""


def _dict_without_factory(*_: Any) -> dict[Any, Any]:
    return {}


_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        (f"{package}.discovery.dictionary", name): stand_in
        for package in ("ep", "cas")
        for name, stand_in in (
            ("Dictionary", _Library),
            ("ConceptLibrary", _Library),
            ("Partition", _Cell),
            ("Concept", _Cell),
        )
    },
    **{
        (f"numpy.{core}.{module}", name): _Function(call)
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
    ("numpy", "ndarray"): _Inert(),
    ("numpy", "dtype"): _Function(_DType),
    ("builtins", "set"): _Function(_nothing),
    ("builtins", "frozenset"): _Function(_nothing),
    ("builtins", "list"): _Inert(),
    ("builtins", "dict"): _Inert(),
    ("builtins", "int"): _Inert(),
    ("builtins", "float"): _Inert(),
    ("collections", "OrderedDict"): _Function(_dict_without_factory),
    ("collections", "defaultdict"): _Function(_dict_without_factory),
}
"""What a published file may name, and what it gets. The inert builtins are the factories of
defaultdicts, which are dropped."""

_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE", "PUT", "BINPUT",
    "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT",
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST",
    "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS",
    "FROZENSET", "GLOBAL", "STACK_GLOBAL", "NEWOBJ", "REDUCE", "BUILD",
}  # fmt: skip
"""Instructions a published file may hold. Not among them: INST and OBJ (calls by another way),
NEWOBJ_EX, the extension registry, persistent ids, and buffers outside the file."""

_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError,
    OverflowError, MemoryError, RecursionError, ImportError, struct.error,
)  # fmt: skip


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise FormatError(
                f"it names {module}.{name}, which no published dictionary does; do not trust it"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise FormatError("it refers to an object outside the file; do not trust it")


def _read(path: Path) -> tuple[_Library, dict[str, Any]]:
    """The library in a file, and what provenance says of the file."""
    if not path.is_file():
        raise FormatError(f"{path} is not a file; give the pickle of a published dictionary")
    size = path.stat().st_size
    if not size:
        raise FormatError(f"{path} is empty; get it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _check_instructions(content, size)
            content.seek(0)
            found = _Reader(content).load()
        except FormatError as error:
            raise FormatError(f"{path} is refused: {error}") from error
        except _DAMAGE as error:
            why = str(error).partition("\n")[0][:120]
            raise FormatError(
                f"{path} is truncated or not a pickle ({type(error).__name__}: {why}); get it again"
            ) from error
        digest = hashlib.sha256(content).hexdigest()
    if type(found) is not _Library:
        raise FormatError(f"{path} holds no dictionary of the published implementation")
    return found, {"file": path.name, "sha256": digest, "size": size}


def _check_instructions(content: mmap.mmap, size: int) -> None:
    """Refuse instructions that are not needed, before any is carried out.

    Also numbers of memo slots that the file is too short to fill: a reader makes room for them.
    """
    numbered = 0
    for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]
        name = opcode.name
        if name not in _OPCODES:
            what = f"{name} ({argument})" if name == "INST" else name
            raise FormatError(
                f"it has the instruction {what}, which no published dictionary has; do not trust it"
            )
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            if name != "MEMOIZE" and not 0 <= int(argument or 0) <= numbered:
                raise FormatError(f"it numbers object {numbered} as {argument}; get it again")
            numbered += 1


# --- conversion ------------------------------------------------------------------------------


def _convert(
    path: Path, library: _Library, percentile: float, source: dict[str, Any]
) -> Dictionary:
    values = library.values
    cells = values.get("partitions", values.get("concepts"))
    center = _vector(path, values.get("center"), None, "center")
    threshold = _number(path, values.get("threshold"), "threshold")
    if not 0 < threshold <= 2:
        raise FormatError(f"{path} has threshold {threshold}, expected a number in (0, 2]")
    if type(cells) is not list or not cells or any(type(cell) is not _Cell for cell in cells):
        raise FormatError(f"{path} has no list of regions, so it is not a published dictionary")
    if len({id(cell) for cell in cells}) != len(cells):
        raise FormatError(f"{path} lists a region twice; get it again")

    k, d = len(cells), len(center)
    if k * d * 4 > source["size"]:
        raise FormatError(f"{path} has {k:,} regions of width {d:,}, more than its bytes can hold")
    exemplars = np.empty((k, d), np.float32)
    means = np.full((k, d), np.nan, np.float32)
    counts = np.empty(k, np.int64)
    numbers = np.full((3, k), np.nan)
    founders = np.full(k, -1, np.int64)
    n_rows = 0
    for i, cell in enumerate(cells):
        at = f"region {i}: "
        exemplars[i] = _vector(path, cell.values.get("exemplar_direction"), d, at + "exemplar")
        counts[i] = _count(path, cell.values.get("member_count"), at + "member_count")
        if counts[i]:
            means[i] = _vector(path, cell.values.get("mean_member_direction"), d, at + "mean")
        for row, name in enumerate(
            ("member_coherence", "sum_dist_to_exemplar", "sum_sq_dist_to_exemplar")
        ):
            if cell.values.get(name) is not None:
                numbers[row, i] = _number(path, cell.values[name], at + name)
        members = _rows(path, cell.values.get("constituent_sample_indices"), at + "indices")
        if members:
            n_rows = max(n_rows, max(members) + 1)
            # Merged regions have the indices of several founders.
            founders[i] = -1 if values.get("merge_close") else members[0]
    lengths = np.sqrt(np.einsum("ij,ij->i", exemplars, exemplars, dtype=np.float64))
    if not (np.abs(lengths - 1.0) <= _UNIT_LENGTH_TOLERANCE).all():
        raise FormatError(f"{path} has exemplars that are not of unit length; get it again")

    labels = [cell.values.get("label") or None for cell in cells]
    provenance: dict[str, Any] = {"imported": {**source, "from": "published pickle"}}
    if any(labels):
        provenance["labels"] = [label if type(label) is str else None for label in labels]
        provenance["labels_not_text"] = sum(type(x) is not str for x in labels if x is not None)
    return Dictionary(
        exemplars=exemplars,
        exemplar_rows=founders,
        members=MemberStatistics(
            counts=counts,
            means=means,
            coherence=numbers[0].astype(np.float32),
            distance_sums=numbers[1].copy(),
            distance_square_sums=numbers[2].copy(),
            histogram=np.zeros((k, HISTOGRAM_BINS), np.uint32),
        ),
        calibration=Calibration(
            center=center,
            thresholds={percentile: threshold},
            rows=0,
            block_rows=0,
            source={"imported": path.name},
        ),
        percentile=percentile,
        membership=MEMBERSHIP,
        rows=max(int(counts.sum()), n_rows),
        contexts=_contexts(path, cells, founders),
        provenance=provenance,
    )


def _contexts(path: Path, cells: list[_Cell], founders: NDArray[np.int64]) -> Contexts | None:
    import pyarrow as pa

    lines = [
        line for i, cell in enumerate(cells) for line in _cell_lines(path, i, cell, founders[i])
    ]
    if not lines:
        return None
    schema = contexts_schema()
    columns = [pa.array([line[f.name] for line in lines], type=f.type) for f in schema]
    return TableContexts(pa.Table.from_arrays(columns, schema=schema))


def _cell_lines(path: Path, region: int, cell: _Cell, founder: Any) -> Iterator[dict[str, Any]]:
    """The prompts of one region by distance, each once, as lines of a contexts table."""
    at = f"region {region}: "
    nearest = _prompts(path, cell.values.get("sample_prompts"), at + "sample_prompts")
    farthest = _prompts(path, cell.values.get("boundary_prompts"), at + "boundary_prompts")
    farthest = sorted(farthest, key=lambda prompt: (-prompt[0], prompt[1:]))
    ranks: dict[tuple[float, str, int], list[int]] = {}
    for which, prompts in enumerate((nearest, farthest)):
        for rank, prompt in enumerate(prompts):
            entry = ranks.setdefault(prompt, [-1, -1])
            if entry[which] < 0:
                entry[which] = rank
    at_exemplar = [prompt for prompt in ranks if prompt[0] <= 1e-6]
    for prompt in sorted(ranks):
        founded = at_exemplar == [prompt]
        yield {
            "region": region,
            "row": int(founder) if founded else -1,
            "distance": prompt[0],
            "document": -1,
            "position": prompt[2],
            "token": -1,
            "before": prompt[1],
            "text": "",
            "after": "",
            "name": "",
            "exemplar": founded,
            "nearest_rank": min(ranks[prompt][0], 127),
            "farthest_rank": min(ranks[prompt][1], 127),
            "sample_rank": -1,
        }


def _prompts(path: Path, value: Any, what: str) -> list[tuple[float, str, int]]:
    """(distance, text, position), ascending. The heaps of the file hold some distances negated."""
    if value is None:
        return []
    if type(value) is not list or len(value) > _MAX_PROMPTS:
        raise FormatError(f"{path}, {what}: expected a list of at most {_MAX_PROMPTS} prompts")
    prompts = []
    for entry in value:
        if type(entry) is not tuple or len(entry) != 3 or type(entry[1]) is not str:
            raise FormatError(f"{path}, {what}: expected (distance, prompt, position)")
        distance = abs(_number(path, entry[0], what))
        position = _count(path, entry[2], what)
        if position >= 2**31:
            raise FormatError(f"{path}, {what}: position {position} is too large")
        text = entry[1].encode("utf-8", "replace").decode()
        prompts.append((min(distance, 2.0), text, position))
    return sorted(prompts)


def _vector(path: Path, value: Any, width: int | None, what: str) -> NDArray[np.float32]:
    array = value.values if type(value) is _Array else None
    if array is None or array.ndim != 1 or array.dtype.kind != "f" or not len(array):
        raise FormatError(f"{path} has no vector as {what}, so it is not a published dictionary")
    if width is not None and len(array) != width:
        raise FormatError(
            f"{path} has {what} of width {len(array)}, expected {width}; get it again"
        )
    if not np.isfinite(array).all():
        raise FormatError(f"{path} has {what} that is not finite; get it again")
    return array.astype(np.float32)


def _number(path: Path, value: Any, what: str) -> float:
    if isinstance(value, _Array) and value.values.size == 1:
        value = value.values.item()
    if type(value) not in (int, float) or not abs(value) < 2**62:
        raise FormatError(f"{path} has {_shown(value)} as {what}, expected a finite number")
    return float(value)


def _count(path: Path, value: Any, what: str) -> int:
    number = _number(path, value, what)
    if number < 0 or number != int(number) or number >= 2**53:
        raise FormatError(f"{path} has {number:g} as {what}, expected a whole number from 0")
    return int(number)


def _shown(value: Any) -> str:
    """A short text for a message; what a hostile file nests is not expanded."""
    if type(value) in (bool, float, type(None)) or (type(value) is int and abs(value) < 2**64):
        return repr(value)
    return repr(value[:60]) if type(value) is str else f"a {type(value).__name__}"


def _rows(path: Path, value: Any, what: str) -> list[int]:
    if value is None:
        return []
    rows = value.values.tolist() if isinstance(value, _Array) else value
    if type(rows) is not list or any(type(row) is not int or not 0 <= row < 2**62 for row in rows):
        raise FormatError(f"{path} has {what} that are not row numbers; get it again")
    return rows
