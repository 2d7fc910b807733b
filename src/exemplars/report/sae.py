"""A comparison with a sparse autoencoder as a table and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.sae import DIRECTIONS, METHODS, NULLS, Measure, SAEComparison
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.geometry import Float64
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALWAYS = ("mean F1", "F1 > 0.5", "all of one feature", "features")
_LINES = {"random directions": ":", "stream rows": "--", "permuted rows": "-."}


def sae_text(result: SAEComparison) -> str:
    """What was compared, and a line for each measure with its nulls.

    The other statistics are in the result: all of them for each method, as the published one has.
    """
    lines = [
        (
            m.method,
            m.direction,
            m.statistic,
            f"{m.estimate:.3f}",
            *(_null(m, name) for name in NULLS),
        )
        for m in result.measures
        if m.statistic in _ALWAYS or m.method == METHODS[0]
    ]
    draws = len(result.seeds)
    left_out = f"; {result.dropped:,} norm outliers left out" if result.dropped else ""
    return "\n\n".join(
        [
            f"{result.n_regions:,} regions ({result.basis}, {result.readout}) and "
            f"{result.n_features:,} features of {visible(result.sae) or 'an SAE'}, on "
            f"{result.rows:,} rows{left_out}",
            f"{result.eligible_regions:,} regions and {result.eligible_features:,} features have "
            f"{result.min_active} strictly positive activations or more; "
            f"{result.member_regions:,} regions have as many members and "
            f"{result.active_features:,} features are active on as many rows; "
            f"{result.features_per_row:.1f} features are active on a row",
            table(("units by", "direction", "statistic", "found", *NULLS), lines),
            "Random directions and stream rows stand for the regions; permuted rows keep both "
            f"sides and destroy their correspondence. {draws} draw{'s' * (draws != 1)} of each: "
            "mean ± standard deviation.",
        ]
    )


def sae_figure(result: SAEComparison) -> Figure:
    """The share of units whose best F1 of top rows is at least so large, both ways, with nulls.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with drawing(6.4, 3.2, columns=2) as (figure, panels):
        for side, axes in enumerate(panels):
            own = (result.feature_f1, result.region_f1)[side]
            _curve(axes, own, label="regions", color=COLORS[0], linewidth=1.8)
            for name in NULLS:
                null = result.null_f1[name][side]
                _curve(axes, null, label=name, color=QUIET, linestyle=_LINES[name], linewidth=1.2)
            axes.set_title(DIRECTIONS[side], fontsize=9)
            axes.set_xlabel(f"F1 of the top {result.top} rows with the best partner")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
        panels[0].set_ylabel("share of units with at least this F1")
        panels[1].legend(loc="upper right")
    return figure


def _curve(axes: Any, f1: Float64, **style: Any) -> None:
    """The share of units at or above each F1; of no units, nothing but a line in the legend."""
    values = np.sort(f1[~np.isnan(f1)])
    share = 1.0 - np.arange(len(values)) / max(len(values), 1)
    axes.step([0.0, *values, *values[-1:]], [1.0, *share, *[0.0] * (len(values) > 0)], **style)


def _null(measure: Measure, name: str) -> str:
    values = measure.nulls[name]
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"
