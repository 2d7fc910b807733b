"""One look for all figures, and each figure as SVG and PNG.

A figure is made in `exemplars.report` from an analysis' frozen result; this module says how figures
look and how they are written. It needs `pip install 'exemplars[plots]'`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, GRID = "#1b1f24", "#6b7480", "#e3e6ea"
COLORS = ("#0b6e99", "#d1495b", "#edae49", "#66a182", "#7d5ba6", "#8d6b4f")
"""Told apart by people with any colour vision, in this order: ours first, the null is `QUIET`."""

_STYLE: dict[str, Any] = {
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "font.size": 9,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "svg.hashsalt": "exemplars",  # the same figure gives the same bytes
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def drawing(
    width_in: float = 6.4, height_in: float = 3.6, columns: int = 1, rows: int = 1
) -> Iterator[Any]:
    """A figure and its axes (one, or an array of them) in the style of this project.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "figures need matplotlib, which is not installed; pip install 'exemplars[plots]'"
        ) from None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in))
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns)


def save_figure(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write a figure as PATH.svg and PATH.png, whatever suffix PATH has of the two.

    Returns:
        The two paths.
    """
    import matplotlib

    base = Path(path)
    base = base.with_suffix("") if base.suffix in (".svg", ".png") else base
    base.parent.mkdir(parents=True, exist_ok=True)
    svg, png = Path(f"{base}.svg"), Path(f"{base}.png")
    with matplotlib.rc_context(_STYLE):
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png)
    return svg, png
