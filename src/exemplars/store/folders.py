"""The folder of a dictionary: its files by name, written aside and renamed, hashed as they are
written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exemplars.errors import FormatError

MANIFEST = "manifest.json"
REGIONS = "regions.safetensors"
CONTEXTS = "contexts.parquet"
GROWTH = "growth.parquet"
CENSUS = "census.safetensors"
CENSUS_CONTEXTS = "census_contexts.parquet"
LENS = "lens.parquet"
LABELS = "labels.parquet"
STABILITY = "stability.parquet"
RUN = "run.jsonl"
PARTS = (REGIONS, CONTEXTS, GROWTH, CENSUS, CENSUS_CONTEXTS, LENS, LABELS, STABILITY)
"""Files a manifest may list."""
VIEW_SUFFIX = ".explorer"
"""`.NAME.explorer` beside a dictionary holds what the explorer prepared, and a reader's notes."""
OURS = frozenset({MANIFEST, RUN, *PARTS})
"""Files that belong to a dictionary; all others in its folder are someone's own."""
CHUNK = 1 << 22
"""Bytes that are hashed, read or written at once."""

_logger = logging.getLogger(__name__)


def place_of(folder: str | os.PathLike[str]) -> Path:
    """The whole path of a folder that a dictionary may take the place of."""
    place = Path(folder).resolve()
    if not place.name:
        raise FormatError(f"{place} cannot be replaced by a dictionary; give another folder")
    return place


@contextlib.contextmanager
def written_aside(
    folder: Path,
    overwrite: bool,
    needed: int,
    kind: Kind | None = None,
    beside: Path | None = None,
) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` if the block succeeds.

    A failure leaves what was there; files in it that are not of its kind move to the new one.

    Args:
        folder: The place.
        overwrite: Replace one of its kind that is there.
        needed: Bytes that will be written, for the message of a full disk.
        kind: What is written; None: a dictionary.
        beside: The path whose hidden siblings hold the new and the old; None: `folder`.

    Raises:
        FormatError: The place holds something else, or one of its kind and not `overwrite`.
        OSError: The disk is full, or cannot be written.
    """
    kind = DICTIONARY if kind is None else kind
    beside = folder if beside is None else beside
    aside, new = _aside(beside), beside.with_name(f".{beside.name}.new")
    if aside.is_dir():  # a kill between the renames below, or just after them
        if folder.exists() and kind.is_one(folder):
            _discard(aside, folder, kind)
        else:
            if folder.exists():
                kind.check(folder, overwrite)
                folder.rmdir()  # it is empty
            aside.rename(folder)
    kind.check(folder, overwrite)
    beside.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        yield new
        _sync_folder(new)
        folder.parent.mkdir(exist_ok=True)
        _swap(folder, aside, new, kind)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = OSError(
            f"the disk of {folder} is full: the {kind.name} needs about {needed:,} bytes and "
            f"nothing was changed; make room, {kind.advice}"
        )
        full.errno = error.errno
        raise full from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def restore(folder: Path) -> None:
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


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where there are no links."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


class HashedFile:
    """A new file that counts and hashes what is written, and is on disk when closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes written."""

    def __enter__(self) -> HashedFile:
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
    def sha256(self) -> str:
        """Of what is written so far."""
        return self._digest.hexdigest()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The `with` block closes; pyarrow may not."""


def write_bytes(path: Path, content: bytes) -> None:
    """A new file, on disk when this returns."""
    with HashedFile(path) as file:
        file.write(content)


def sync_file(path: Path) -> None:
    """See that a file is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            digest.update(buffer[:n])
    return digest.hexdigest()


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _swap(folder: Path, aside: Path, new: Path, kind: Kind) -> None:
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
    _discard(aside, folder, kind)


def _discard(aside: Path, folder: Path, kind: Kind) -> None:
    """Remove what was replaced; what is not a file of its kind moves to the new one."""
    for entry in list(aside.iterdir()):
        if not kind.is_ours(entry.name) and not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
    shutil.rmtree(aside)


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise `FormatError` unless a dictionary may be written at `folder`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FormatError(f"{folder} is a file, expected a folder or nothing; choose another name")
    if not any(folder.iterdir()):
        return
    is_dictionary = looks_like_a_dictionary(folder)
    if not overwrite:
        what = "a dictionary" if is_dictionary else "files that are not a dictionary"
        advice = "allow overwriting or choose" if is_dictionary else "choose"
        raise FormatError(f"{folder} already holds {what}; {advice} another folder")
    if not is_dictionary:
        raise FormatError(
            f"{folder} holds files that are not a dictionary, so it is not overwritten; "
            "choose another folder"
        )


def view_of(folder: Path) -> Path:
    """Where the explorer keeps what belongs to a dictionary."""
    whole = folder.resolve()
    return whole.parent / f".{whole.name}{VIEW_SUFFIX}"


def is_view(path: Path) -> bool:
    """Whether a folder is such a place."""
    return path.name.startswith(".") and path.name.endswith(VIEW_SUFFIX)


def looks_like_a_dictionary(folder: Path) -> bool:
    """Whether a folder has a dictionary's manifest."""
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"format_version", "n_regions", "files"} <= set(data)


@dataclass(frozen=True)
class Kind:
    """What a folder holds, and so what may take its place."""

    name: str
    is_one: Callable[[Path], bool]
    """Whether a folder holds one."""
    is_ours: Callable[[str], bool]
    """Whether a file of this name belongs to one; all others are someone's own."""
    check: Callable[[Path, bool], None]
    """Refuses a place, unless one may be written there (and overwritten)."""
    advice: str
    """For a full disk, after "make room, "."""


DICTIONARY = Kind(
    "dictionary", looks_like_a_dictionary, OURS.__contains__, check_free, "or save elsewhere"
)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
