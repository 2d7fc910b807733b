"""Maps of the regions: the sphere unrolled, and UMAP where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.explorer.background import Background
from exemplars.explorer.flat import cell_arrays
from exemplars.explorer.sphere import MAP_ASPECT, check_drawable, neighbours_kept, on_map, unrolled
from exemplars.explorer.views import View, finite
from exemplars.geometry import Float32

LAYOUTS = ("unrolled", "umap")
UMAP_NEIGHBOURS = 15
_BORDER = 0.02


@dataclass(frozen=True, eq=False)
class Layout:
    """Where regions are on a map."""

    xy: NDArray[np.uint16]
    """(K, 2) x to the right and y down, 0 to 65535 over the box."""
    aspect: float
    """Width of the box over its height."""
    nn10: float
    """Share of the 10 nearest exemplars, of a sample, that are among the 10 nearest here."""
    globe: bool
    """Whether it is the sphere unrolled, which does not fill the box."""


class Layouts:
    """Maps of the open dictionaries. What takes long is kept on the disk: UMAP's places, which are
    made in the background, and cells (some seconds of work for 200,000 regions).
    """

    def __init__(self) -> None:
        self._made: Background[str, Layout] = Background("places on the map")
        self._lock = threading.Lock()

    def of(self, view: View, name: str) -> Layout:
        """A layout by its name.

        Raises:
            LookupError: There is none of this name.
            NotReadyError: It is still being made.
            ValueError: There is nothing to draw, or UMAP is not installed; says so.
        """
        if name not in LAYOUTS:
            raise LookupError(f"there is no layout {name[:40]!r}; choose {', '.join(LAYOUTS)}")
        if name == "umap":
            reason = why_no_umap()
            if reason is not None:
                raise ValueError(reason)
            check_drawable(len(view.dictionary))
            return self._made.of(view.slug, lambda: _kept_umap(view))
        return view.remembered("unrolled", lambda: unrolled_layout(view))

    def cells(self, view: View, name: str) -> Mapping[str, NDArray[Any]]:
        """What it takes to draw the cells of a layout; raises as `of` does."""
        layout = self.of(view, name)
        with self._lock:
            return view.remembered(f"cells {name}", lambda: kept_cells(view, name, layout))

    def close(self) -> None:
        """Wait for what is being made."""
        self._made.close()


def why_no_umap() -> str | None:
    """Why there is no UMAP; None if it can be had."""
    if importlib.util.find_spec("umap") is None:
        return "UMAP is not installed: pip install umap-learn, and start the explorer again"
    return None


def umap_places(exemplars: Float32, seed: int = 0) -> NDArray[np.uint16]:
    """(K, 2) places by UMAP with the cosine distance, in a square box.

    Source: McInnes, Healy, Melville 2018 (arXiv:1802.03426), as umap-learn has it.
    """
    umap: Any = importlib.import_module("umap")
    neighbours = min(UMAP_NEIGHBOURS, len(exemplars) - 1)
    model = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    found = np.asarray(model.fit_transform(np.asarray(exemplars)), np.float64)
    low, high = found.min(axis=0), found.max(axis=0)
    size = float((high - low).max()) or 1.0
    box = (found - (low + high) / 2) / size * (1 - 2 * _BORDER) + 0.5
    return np.rint(box * 65535).astype(np.uint16)


def unrolled_layout(view: View) -> Layout:
    """The sphere unrolled."""
    sphere = view.sphere
    return Layout(unrolled(sphere.points), MAP_ASPECT, sphere.neighbours_kept_flat, globe=True)


def kept_cells(view: View, name: str, layout: Layout) -> dict[str, NDArray[Any]]:
    """What it takes to draw the cells of a layout; made once, and kept on the disk."""
    from safetensors.numpy import load_file, save_file

    def write(new: Path) -> None:
        places = on_map(layout.xy, layout.aspect)
        made = cell_arrays(places, 1 / layout.aspect, view.dictionary.counts, view.sphere.order)
        save_file({key: np.ascontiguousarray(array) for key, array in made.items()}, new)

    return load_file(view.file(f"cells-{name}.safetensors", write))


def _kept_umap(view: View) -> Layout:
    from safetensors.numpy import load_file, save_file

    def write(new: Path) -> None:
        xy = umap_places(view.dictionary.exemplars)
        (kept,) = neighbours_kept(view.dictionary.exemplars, on_map(xy, 1.0))
        save_file({"xy": xy, "nn10": np.array([kept])}, new)

    found = load_file(view.file("layout-umap.safetensors", write))
    return Layout(found["xy"], 1.0, float(found["nn10"][0]), globe=False)


def layout_about(layout: Layout) -> dict[str, Any]:
    """What is said of a map beside its arrays."""
    return {"aspect": layout.aspect, "nn10": finite(layout.nn10), "globe": layout.globe}
