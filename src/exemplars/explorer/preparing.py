"""What the explorer needs of a dictionary, prepared before it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exemplars.dictionary import Dictionary
from exemplars.explorer.entropies import entropy_steps
from exemplars.explorer.layouts import kept_cells, unrolled_layout
from exemplars.explorer.views import PARTS, View, place_of

if TYPE_CHECKING:
    from exemplars.models import Model

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What lies ready for a dictionary."""

    dictionary: Path
    place: Path
    """The folder of the prepared files."""
    made: tuple[str, ...]
    """Files that were written now."""
    kept: tuple[str, ...]
    """Files that were there, with the size and the SHA-256 that they were written with."""
    left_out: Mapping[str, str]
    """Parts that the dictionary does not have, and why."""
    bytes: int
    """Of all files."""


def prepare_view(
    folder: str | os.PathLike[str],
    cache: str | os.PathLike[str] | None = None,
    on_step: OnStep = lambda what, done, total: None,
    model_of: Callable[[Dictionary], Model] | None = None,
) -> Prepared:
    """Prepare what `exemplars explore` needs of a dictionary, or find that it is ready.

    Each file is written aside and renamed, so what is interrupted leaves whole files alone, and the
    next call makes the rest. A file that is stale, cut short or altered is made again.

    Args:
        folder: Of the dictionary.
        cache: Where prepared files go; None for beside the dictionary.
        on_step: Told which part is being prepared, and how many of how many are.
        model_of: Gives the dictionary's model, to read the lens of every region; None to leave that
            out. It is called only if the lenses are not there.

    Raises:
        PermissionError: Nothing can be written there.
        MismatchError: Another model than the dictionary's.
    """
    path = Path(folder)
    view = View(path, path.name, place_of(path, None if cache is None else Path(cache), False))
    try:
        if view.is_temporary:
            raise PermissionError(
                f"nothing can be written where the prepared files of {path} go; give another "
                "place with --cache-dir, to prepare and to explore"
            )
        parts = (*PARTS, "cells")
        view.prepare(lambda part: on_step(part, parts.index(part), len(parts)))
        on_step("cells", len(PARTS), len(parts))
        if view.status("sphere")[0] == "ready":
            kept_cells(view, "unrolled", unrolled_layout(view))
        on_step("cells", len(parts), len(parts))
        if model_of is not None and "lens_entropy" not in view.columns:
            for done in entropy_steps(view, model_of(view.dictionary)):
                on_step("lenses", done, view.dictionary.n_regions)
        place = view.place / view.fingerprint
        files = sorted(file.name for file in place.iterdir() if not file.name.startswith("."))
        sizes = [(place / name).stat().st_size for name in files]
        return Prepared(
            dictionary=path,
            place=place,
            made=tuple(sorted(view.made)),
            kept=tuple(name for name in view.listed if name not in view.made),
            left_out={
                part: str(view.status(part)[1])
                for part in PARTS
                if view.status(part)[0] == "unavailable"
            },
            bytes=sum(sizes),
        )
    finally:
        view.close()
