"""An opened dictionary, and what is prepared of it for the pages.

What is prepared lies in a folder beside the dictionary, or in a given one, under the dictionary's
fingerprint. Each file is written aside and renamed, and listed with its size and SHA-256; one that
is stale, cut short or altered is made again. Where nothing can be written, a temporary folder
serves. The dictionary's own files are hashed when they are first opened, and again when their
sizes, times or places on the disk are not those that were noted then.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exemplars import store
from exemplars.contexts import TableContexts
from exemplars.dictionary import Dictionary
from exemplars.explorer import columns, sphere
from exemplars.explorer.cards import Cards, write_cards
from exemplars.explorer.columns import Column
from exemplars.explorer.kept import SCHEMA, Kept, stamps_of
from exemplars.explorer.sphere import NotDrawableError, Sphere
from exemplars.geometry import Float32
from exemplars.labels import labels_from, latest
from exemplars.store.folders import view_of

_Made = TypeVar("_Made")

PARTS = ("cards", "sphere", "neighbours")
"""In the order in which they are prepared."""
_REMEMBERED = 8
_LENS_ENTROPY = "lens.safetensors"
_KEYED = (store.REGIONS, store.CONTEXTS, store.LENS)


class NotReadyError(Exception):
    """A part is still being prepared."""

    def __init__(self, part: str, progress: float | None = None) -> None:
        super().__init__(f"the {part} are being prepared; ask again in a moment")
        self.part, self.progress = part, progress


class View:
    """A dictionary with what the pages need of it.

    Args:
        folder: That `exemplars.save` wrote.
        slug: Its name in addresses.
        place: Where prepared files go; None for a temporary folder.
        corpus_text: Keep the text round each token; to leave it out, `place` must be None.
    """

    def __init__(
        self, folder: Path, slug: str, place: Path | None, *, corpus_text: bool = True
    ) -> None:
        manifest = store.manifest_of(folder)
        self.folder, self.slug = folder, slug
        self.fingerprint = fingerprint_of(manifest)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.place = self._writable(place)
        kept = Kept(self.place / self.fingerprint, self.fingerprint)
        stamps = stamps_of(folder, manifest)
        self.dictionary: Dictionary = store.load(folder, verify=kept.verified != stamps)
        kept.note(stamps)
        if not corpus_text:
            self.dictionary = without_corpus_text(self.dictionary)
        self.tool_version: str = manifest.model_dump(include={"library_version"})["library_version"]
        self.lens = store.load_lens(folder)
        self.auto_labels = _auto_labels(folder, self.dictionary)
        self._kept = kept
        self._lock = threading.Lock()
        self._columns = columns.member_columns(self.dictionary)
        self._parts: dict[str, Any] = {}
        self._distances: dict[int, Float32] = {}
        self._remembered: dict[str, Any] = {}
        self._distance_lock = threading.Lock()
        self.working_on = PARTS[0]
        self.later: dict[str, Callable[[], None]] = {}
        """Columns that are made when they are first asked for: a call raises `NotReadyError` until
        the column is there, and ValueError where it cannot be made."""
        self._read_lens_entropy()

    @property
    def is_temporary(self) -> bool:
        """Whether nothing is kept when the server ends."""
        return self._temporary is not None

    @property
    def made(self) -> tuple[str, ...]:
        """Prepared files that were written since this was opened; others were kept as they lay."""
        return tuple(self._kept.made)

    @property
    def listed(self) -> tuple[str, ...]:
        """Prepared files that are known, whoever wrote them."""
        return tuple(self._kept.listed)

    @property
    def columns(self) -> Mapping[str, Column]:
        """What is known of every region by now, by name."""
        return self._columns

    def add_columns(self, found: Mapping[str, Column]) -> None:
        """Know more of every region."""
        self._columns = {**self._columns, **found}

    def column(self, name: str) -> Column | None:
        """A column; None if there is none of this name.

        Raises:
            NotReadyError: It is being made, since it was asked for.
            ValueError: It cannot be made; says why.
        """
        later = self.later.get(name)
        if name not in self._columns and later is not None:
            later()
        return self._columns.get(name)

    def keep_lens_entropy(self, values: Float32) -> None:
        """Know the entropy of every region's lens, and keep it for the next time."""
        from safetensors.numpy import save_file

        self._kept.file(_LENS_ENTROPY, lambda new: save_file({"lens_entropy": values}, new))
        self._read_lens_entropy()

    def _read_lens_entropy(self) -> None:
        path = self._kept.known(_LENS_ENTROPY)
        if path is None:
            return
        from safetensors.numpy import load_file

        values = load_file(path)["lens_entropy"]
        self.add_columns({"lens_entropy": columns.lens_entropy_column(values)})

    def part(self, name: str) -> Any:
        """A prepared part.

        Raises:
            NotReadyError: It is still being prepared.
            ValueError: It cannot be prepared; says why.
        """
        if name not in self._parts:
            raise NotReadyError(name)
        found = self._parts[name]
        if isinstance(found, Exception):
            raise ValueError(str(found)) from found
        return found

    def status(self, name: str) -> tuple[str, str | None]:
        """Whether a part is "ready", "preparing" or "unavailable", and why."""
        if name not in self._parts:
            return "preparing", None
        found = self._parts[name]
        return ("unavailable", str(found)) if isinstance(found, Exception) else ("ready", None)

    @property
    def cards(self) -> Cards:
        """The texts of regions; raises `NotReadyError` until they are prepared."""
        found: Cards = self.part("cards")
        return found

    @property
    def sphere(self) -> Sphere:
        """The projected sphere; raises likewise, and ValueError where there is none."""
        found: Sphere = self.part("sphere")
        return found

    def file(self, name: str, write: Callable[[Path], None]) -> Path:
        """A prepared file, kept under the fingerprint; `write` makes it if it is not there."""
        return self._kept.file(name, write)

    def remembered(self, name: str, make: Callable[[], _Made]) -> _Made:
        """What `make` gives, made once: it must follow from the dictionary and the parts."""
        if name not in self._remembered:
            self._remembered[name] = make()
        found: _Made = self._remembered[name]
        return found

    def distances_from(self, region: int) -> Float32:
        """(K,) cosine distances of all exemplars to one; the last few are remembered."""
        with self._distance_lock:
            known = self._distances.pop(region, None)
            if known is None:
                known = self.dictionary.distance_matrix([region])[0]
            self._distances[region] = known
            for oldest in list(self._distances)[:-_REMEMBERED]:
                del self._distances[oldest]
            return known

    def prepare(self, on_part: Callable[[str], None] = lambda part: None) -> None:
        """Prepare all parts, or read those that were kept; returns when all are there."""
        makers: dict[str, Callable[[], Any]] = {
            "cards": self._make_cards,
            "sphere": self._make_sphere,
            "neighbours": self._make_neighbours,
        }
        with self._lock:
            for name in PARTS:
                if name in self._parts:
                    continue
                self.working_on = name
                on_part(name)
                try:
                    self._parts[name] = makers[name]()
                except NotDrawableError as error:
                    self._parts[name] = error

    def close(self) -> None:
        """Close files, and remove the temporary folder."""
        cards = self._parts.get("cards")
        if isinstance(cards, Cards):
            cards.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _writable(self, place: Path | None) -> Path:
        """The folder for prepared files, made; a temporary one where it cannot be."""
        if place is not None:
            try:
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=place):
                    return place
            except OSError:
                place = None
        self._temporary = tempfile.TemporaryDirectory(prefix="exemplars-view-")
        return Path(self._temporary.name)

    def _make_cards(self) -> Cards:
        path = self._kept.file(
            "cards.sqlite", lambda new: write_cards(new, self.dictionary, self.lens)
        )
        cards = Cards(path, self.dictionary.n_regions)
        self.add_columns(
            {
                "distinct_tokens": Column(
                    cards.distinct_tokens, "tokens", "distinct tokens among the contexts kept"
                )
            }
        )
        return cards

    def _make_sphere(self) -> Sphere:
        path = self._kept.file("sphere.safetensors", self._write_sphere)
        return _read_sphere(path)

    def _write_sphere(self, new: Path) -> None:
        from safetensors.numpy import save_file

        made = sphere.make_sphere(self.dictionary.exemplars, self.dictionary.counts)
        arrays = sphere.sphere_arrays(made) | {"axes": made.axes, "mean": made.mean}
        about = {
            "variance": made.variance,
            "neighbours_kept": made.neighbours_kept,
            "neighbours_kept_flat": made.neighbours_kept_flat,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(arrays, new, {"about": json.dumps(about)})

    def _make_neighbours(self) -> bool:
        path = self._kept.file("neighbours.safetensors", self._write_neighbours)
        from safetensors.numpy import load_file

        found = load_file(path)
        if len(found["nn1"]) == self.dictionary.n_regions:
            self.add_columns(
                {
                    "nn1": Column(found["nn1"], "region", "the nearest other region"),
                    "nn1_cos": Column(found["nn1_cos"], "cosine", "cosine of the two exemplars"),
                }
            )
        return True

    def _write_neighbours(self, new: Path) -> None:
        from safetensors.numpy import save_file

        found = columns.nearest_others(self.dictionary.exemplars)
        nearest, cosine = found or (np.empty(0, np.int64), np.empty(0, np.float32))
        save_file({"nn1": nearest.astype(np.int32), "nn1_cos": cosine}, new)


def fingerprint_of(manifest: store.Manifest) -> str:
    """16 hexadecimal digits that change with anything that is shown of a dictionary."""
    files = {name: manifest.files[name].sha256 for name in _KEYED if name in manifest.files}
    about = json.dumps([SCHEMA, manifest.threshold, files], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def without_corpus_text(dictionary: Dictionary) -> Dictionary:
    """The dictionary with the tokens of its contexts alone, and without names of documents."""
    if dictionary.contexts is None:
        return dictionary
    table = dictionary.contexts.table()
    for name in ("before", "after", "name"):
        column = table.schema.get_field_index(name)
        kind = table.schema.field(column)
        empty = pa.array([""] * len(table)).cast(kind.type)
        table = table.set_column(column, kind, empty)
    return replace(dictionary, contexts=TableContexts(table.combine_chunks()))


def place_of(folder: Path, cache: Path | None, read_only: bool) -> Path | None:
    """Where the prepared files of a dictionary go; None for a temporary folder."""
    if cache is not None:
        return cache / view_of(folder).name.strip(".")
    return None if read_only else view_of(folder)


def slugs_of(folders: list[Path]) -> list[str]:
    """Names for addresses, made of the folders' names, no two alike."""
    found: list[str] = []
    for folder in folders:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.") or "dictionary"
        same = sum(known == name or known.startswith(f"{name}~") for known in found)
        found.append(f"{name}~{same + 1}" if same else name)
    return found


def finite(value: Any) -> float | None:
    """A number that JSON can say, or None."""
    number = float(value)
    return number if math.isfinite(number) else None


def region_key(exemplars: NDArray[np.float32], region: int) -> str:
    """A name of a region that changes with its exemplar: its number and 8 digits of a hash."""
    digest = hashlib.sha256(np.ascontiguousarray(exemplars[region], "<f4").tobytes())
    return f"{region}·{digest.hexdigest()[:8]}"


def _auto_labels(folder: Path, dictionary: Dictionary) -> dict[int, str]:
    """Labels that came with the dictionary, by region."""
    found = latest(labels_from(store.load_labels(folder)))
    labels = {k: label.text for k, label in found.items() if 0 <= k < dictionary.n_regions}
    imported = dictionary.provenance.get("labels")
    if isinstance(imported, list) and len(imported) == dictionary.n_regions:
        given = {k: str(text) for k, text in enumerate(imported) if text}
        labels = {**given, **labels}
    return labels


def _read_sphere(path: Path) -> Sphere:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["about"])
    return Sphere(
        codes=arrays["oct"],
        radius=arrays["radius"],
        stand_ins=arrays["rep"],
        order=arrays["lod_order"],
        level_radius={
            n: arrays[f"lod_radius_{n}"] for n in sphere.LEVELS if f"lod_radius_{n}" in arrays
        },
        axes=arrays["axes"],
        mean=arrays["mean"],
        variance=about["variance"],
        neighbours_kept=about["neighbours_kept"],
        neighbours_kept_flat=about["neighbours_kept_flat"],
    )
