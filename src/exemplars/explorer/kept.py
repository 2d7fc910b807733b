"""What is prepared of a dictionary, kept on the disk: files that an index lists."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exemplars import store
from exemplars.store.folders import sha256_of

SCHEMA = 4
"""Of the files here; another number makes them all anew."""
_INDEX = "view.json"
_FINGERPRINT = re.compile("[0-9a-f]{16}")


class Kept:
    """Prepared files of one fingerprint, each listed with its size and hash."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        index = self._read_index()
        self.listed: dict[str, Any] = index.get("files", {})
        self.verified: dict[str, Any] = index.get("verified", {})
        """Stamps of the dictionary's files when they were last hashed."""
        self.made: list[str] = []

    def note(self, stamps: dict[str, Any]) -> None:
        """Note the stamps of files that are what their manifest says."""
        if stamps != self.verified:
            self.verified = stamps
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_index()

    def known(self, name: str) -> Path | None:
        """The file, if it is what the index says."""
        path = self._folder / name
        known = self.listed.get(name)
        return path if known is not None and path.is_file() and known == _entry(path) else None

    def file(self, name: str, write: Callable[[Path], None]) -> Path:
        """The file, if it is what the index says; else a new one."""
        known = self.known(name)
        if known is not None:
            return known
        path = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove_others(self._folder)
        new = self._folder / f".{name}.{os.getpid()}.new"
        new.unlink(missing_ok=True)
        try:
            write(new)
            entry = _entry(new)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        self.listed = {**self.listed, name: entry}
        self._write_index()
        self.made.append(name)
        return path

    def _read_index(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        mine = {"schema": SCHEMA, "fingerprint": self._fingerprint}
        if not isinstance(found, dict) or {key: found.get(key) for key in mine} != mine:
            return {}
        whole = all(isinstance(found.get(name), dict) for name in ("files", "verified"))
        return found if whole else {}

    def _write_index(self) -> None:
        about = {
            "schema": SCHEMA, "fingerprint": self._fingerprint, "files": self.listed,
            "verified": self.verified,
        }  # fmt: skip
        new = self._folder / f".{_INDEX}.{os.getpid()}.new"
        new.write_text(json.dumps(about, indent=1), encoding="utf-8")
        new.replace(self._folder / _INDEX)


def stamps_of(folder: Path, manifest: store.Manifest) -> dict[str, list[int]]:
    """Size, times of change and place on the disk of each file that a manifest lists."""
    found = {}
    for name in manifest.files:
        with contextlib.suppress(FileNotFoundError):  # whoever loads it says so
            s = (folder / name).stat()
            found[name] = [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]
    return found


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _remove_others(folder: Path) -> None:
    """Remove what was prepared under other fingerprints."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and _FINGERPRINT.fullmatch(other.name):
            shutil.rmtree(other)
