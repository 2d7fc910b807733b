"""What a reader writes down: labels, notes and pins, kept beside the prepared files.

They are kept by region key, so that those of a dictionary that was built anew do not land on
other regions.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exemplars.explorer.views import View, region_key

FILE = "notes.json"
LONGEST = 2000
"""Characters of a label or a note."""
MOST = 100_000
"""Entries of a kind."""
_KINDS = ("labels", "notes", "pins")


class StaleError(ValueError):
    """Someone else wrote in the meantime."""


class Notes:
    """The notes of the dictionaries that are open.

    Args:
        views: Them.
        why_not: Why nothing may be written; None if it may.
    """

    def __init__(self, views: Sequence[View], why_not: str | None = None) -> None:
        self._views = {view.slug: view for view in views}
        self.why_not = why_not
        self._lock = threading.Lock()
        self.revision = 0
        """Grows with everything that is written."""
        self._found = {slug: _read(view.place / FILE) for slug, view in self._views.items()}

    def labels(self, slug: str) -> dict[int, str]:
        """Labels by region."""
        return self._by_region(slug, "labels")

    def note(self, slug: str, region: int) -> str | None:
        """The note on a region."""
        return self._by_region(slug, "notes").get(region)

    def is_pinned(self, slug: str, region: int) -> bool:
        """Whether a region is pinned."""
        return region in self._by_region(slug, "pins")

    def everything(self) -> dict[str, Any]:
        """All of all dictionaries, and the version that a writer has to name."""
        pins: list[dict[str, Any]] = []
        found: dict[str, Any] = {"pins": pins, "notes": {}, "labels": {}}
        for slug, view in self._views.items():
            for kind in ("notes", "labels"):
                for region, text in self._by_region(slug, kind).items():
                    found[kind][f"{slug}/{region}"] = text
            for region in self._by_region(slug, "pins"):
                key = region_key(view.dictionary.exemplars, region)
                pins.append({"dict": slug, "id": region, "key": key})
        return {**found, "version": self.version}

    @property
    def version(self) -> str:
        """Changes with everything that is written."""
        whole = json.dumps(self._found, sort_keys=True).encode()
        return hashlib.sha256(whole).hexdigest()[:16]

    def set_label(self, slug: str, region: int, text: str) -> None:
        """Label a region, or take its label away with an empty text.

        Raises:
            PermissionError: Nothing may be written.
            ValueError: The text is too long.
        """
        with self._lock:
            self._check(text)
            view = self._views[slug]
            labels = dict(self._found[slug]["labels"])
            key = region_key(view.dictionary.exemplars, region)
            labels.pop(key, None)
            if text.strip():
                labels[key] = text.strip()
            self._write(slug, {**self._found[slug], "labels": labels})

    def replace(
        self, pins: Sequence[Mapping[str, Any]], notes: Mapping[str, str], version: str | None
    ) -> None:
        """Put pins and notes in the place of all that there were.

        Args:
            pins: With "dict" and "id".
            notes: By "slug/region".
            version: That the writer has seen; None for whatever there is.

        Raises:
            PermissionError: Nothing may be written.
            StaleError: The version is another one by now.
            ValueError: There is no such dictionary or region, or a text is too long.
        """
        with self._lock:
            self._check(*notes.values())
            if version is not None and version != self.version:
                raise StaleError("the notes were changed in another window; load them again")
            new = {slug: {**found, "notes": {}, "pins": {}} for slug, found in self._found.items()}
            for pin in pins:
                slug, key = self._key(str(pin.get("dict")), pin.get("id"))
                new[slug]["pins"][key] = ""
            for address, text in notes.items():
                slug, _, region = address.rpartition("/")
                slug, key = self._key(slug, region)
                if text.strip():
                    new[slug]["notes"][key] = text
            for slug, found in new.items():
                if found != self._found[slug]:
                    self._write(slug, found)

    def _key(self, slug: str, region: Any) -> tuple[str, str]:
        view = self._views.get(slug)
        if view is None:
            raise ValueError(f"there is no dictionary {slug!r} open; name one that is")
        try:
            number = int(region)
        except (TypeError, ValueError):
            number = -1
        if not 0 <= number < view.dictionary.n_regions:
            raise ValueError(f"{slug} has no region {str(region)[:40]!r}")
        return slug, region_key(view.dictionary.exemplars, number)

    def _check(self, *texts: str) -> None:
        if self.why_not is not None:
            raise PermissionError(self.why_not)
        longest = max((len(text) for text in texts), default=0)
        if longest > LONGEST:
            raise ValueError(f"a text has {longest:,} characters, at most {LONGEST:,} are kept")
        if len(texts) > MOST:
            raise ValueError(f"there are {len(texts):,} notes, at most {MOST:,} are kept")

    def _by_region(self, slug: str, kind: str) -> dict[int, str]:
        exemplars = self._views[slug].dictionary.exemplars
        found = {}
        for key, text in self._found[slug][kind].items():
            number = key.partition("·")[0]
            region = int(number) if number.isascii() and number.isdigit() else len(exemplars)
            if region < len(exemplars) and region_key(exemplars, region) == key:
                found[region] = text
        return found

    def _write(self, slug: str, found: dict[str, dict[str, str]]) -> None:
        place = self._views[slug].place
        new = place / f".{FILE}.{os.getpid()}.new"
        new.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        new.replace(place / FILE)
        self._found[slug] = found
        self.revision += 1


def _read(path: Path) -> dict[str, dict[str, str]]:
    """What a file holds; nothing where it is missing or not ours."""
    nothing: dict[str, dict[str, str]] = {kind: {} for kind in _KINDS}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return nothing
    if not isinstance(found, dict):
        return nothing
    return {
        kind: {
            str(key): text
            for key, text in (found[kind] if isinstance(found.get(kind), dict) else {}).items()
            if isinstance(text, str)
        }
        for kind in _KINDS
    }
