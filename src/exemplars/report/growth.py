"""Growth as sentences, a table and a figure: regions against rows, and what is to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.detection import Interval
from exemplars.analyses.growth import FEWEST_DOCUMENTS, Growth, GrowthFit
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FAR = 10
"""A forecast beyond so many times the rows that were read rests on the law alone."""
_POINTS = 120


def growth_text(
    growths: Sequence[Growth],
    differs: Sequence[str] = (),
    inside: Mapping[str, Interval] | None = None,
) -> str:
    """Whether each domain is covered, the numbers behind it, and what they cannot tell.

    Args:
        growths: One for each curve.
        differs: From `incomparable`: what the curves do not share.
        inside: By the curve's name: share of its rows that a dictionary's regions hold.
    """
    inside = inside or {}
    parts = ["\n".join(_answer(g, inside.get(g.curve.name)) for g in growths)]
    if differs:
        parts.append(
            f"Warning: the curves differ in {', '.join(differs)}, so their numbers of regions "
            "cannot be compared; read each by itself."
        )
    parts.append(_numbers(growths))
    tested = [g for g in growths if g.backtest is not None]
    if tested:
        parts.append(_backtests(tested))
    parts.append("\n".join(f"- {line}" for line in _cautions(growths)))
    return "\n\n".join(parts)


def watch_line(growth: Growth) -> str:
    """One line on a build that runs."""
    curve = growth.curve
    said = f"{_name(growth)}{curve.rows[-1]:,} rows, {curve.regions[-1]:,} regions"
    if growth.chance is None:
        return f"{said}; {curve.documents} documents are too few for a chance"
    return f"{said}; a new one at a chance of {_percent(growth.chance)}: {growth.verdict}"


def growth_figure(growths: Sequence[Growth]) -> Figure:
    """Regions against rows, both as powers of ten, with the band of what is to come.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with drawing(6.4, 4.0) as (figure, axes):
        for k, growth in enumerate(growths):
            _draw(axes, growth, COLORS[k % len(COLORS)])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("rows")
        axes.set_ylabel("regions")
        axes.margins(x=0.18)
    return figure


def _draw(axes: Any, growth: Growth, color: str) -> None:
    curve = growth.curve
    seen = curve.regions > 0
    axes.plot(curve.rows[seen], curve.regions[seen], color=color, linewidth=1.8)
    end, regions = float(curve.rows[-1]), float(curve.regions[-1])
    if growth.forecasts:
        more = max(forecast.rows for forecast in growth.forecasts)
        fit, rows = GrowthFit(curve), np.geomspace(end, end + more, _POINTS)
        bands = np.array([_bounds(fit, int(n - end)) for n in rows])
        axes.fill_between(
            rows, regions + bands[:, 1], regions + bands[:, 2], color=color, alpha=0.18, linewidth=0
        )
        axes.plot(rows, regions + bands[:, 0], color=color, linestyle="--", linewidth=1.2)
        end, regions = float(rows[-1]), float(regions + bands[-1, 0])
    quiet = growth.quiet
    if quiet is not None:
        axes.plot(quiet.rows, quiet.regions, "o", color=QUIET, markersize=4)
        axes.annotate(
            "published rule stops", (quiet.rows, quiet.regions), color=QUIET, fontsize=7,
            xytext=(4, -10), textcoords="offset points",
        )  # fmt: skip
    label = visible(curve.name) or "regions"
    axes.annotate(
        label, (end, regions), color=color, fontsize=8, xytext=(4, 0),
        textcoords="offset points", va="center",
    )  # fmt: skip


def _bounds(fit: GrowthFit, more: int) -> tuple[float, float, float]:
    if more < 1:
        return 0.0, 0.0, 0.0
    added = fit.added(more)
    return added.estimate, added.low, added.high


def _answer(growth: Growth, inside: Interval | None) -> str:
    """The sentence that the command is named for."""
    curve = growth.curve
    if growth.chance is None:
        return (
            f"{_name(growth)}cannot be told: {curve.documents} document"
            f"{'s' * (curve.documents != 1)} with {curve.regions[-1]:,} regions; the chance of a "
            f"new one needs {FEWEST_DOCUMENTS} documents at least."
        )
    how = {
        "covered": f"covered: with 97.5 % confidence fewer than {growth.chance.high:.3%} of the "
        f"rows of a new document found a region (estimate {growth.chance.estimate:.3%}; the "
        f"target is {growth.target:g})",
        "not covered": f"not covered: {_percent(growth.chance)} of the rows of a new document "
        f"found a region, more than the target of {growth.target:.3g}",
        "undecided": f"not yet decided: {_percent(growth.chance)} of the rows of a new document "
        f"found a region, and the target of {growth.target:.3g} lies within that interval",
    }[growth.verdict]
    said = [f"{_name(growth)}{how}."]
    for forecast in growth.forecasts:
        said.append(
            f"At this threshold (θ = {curve.threshold:.4g}), {forecast.rows:,} more rows add about "
            f"{_count(forecast.regions)} regions to the {curve.regions[-1]:,} there are."
        )
    if inside is not None:
        said.append(
            f"The dictionary's own regions hold {inside.estimate:.1%} ({inside.low:.1%} to "
            f"{inside.high:.1%}) of its rows."
        )
    return " ".join(said)


def _numbers(growths: Sequence[Growth]) -> str:
    header = (
        "curve", "documents", "rows", "regions", "chance of a new one", "singletons/N (too low)",
        "β", "rows to the target", "ends because",
    )  # fmt: skip
    return table(
        header,
        [
            (
                g.curve.name,
                g.curve.documents,
                int(g.curve.rows[-1]),
                int(g.curve.regions[-1]),
                "–" if g.chance is None else _percent(g.chance),
                "–" if math.isnan(g.singleton_share) else f"{g.singleton_share:.3%}",
                "–" if g.exponent is None else _span(g.exponent, "{:.2f}"),
                "–" if g.rows_to_target is None else _count(g.rows_to_target),
                g.curve.ending,
            )
            for g in growths
        ],
    )


def _backtests(growths: Sequence[Growth]) -> str:
    lines = []
    for growth in growths:
        test = growth.backtest
        assert test is not None
        lines.append(
            (
                growth.curve.name,
                test.from_rows,
                _count(test.foretold),
                test.found,
                f"{test.error:+.1%}",
                "yes" if test.held else "no",
                f"{test.heaps:,.0f}",
                f"{test.as_now:,.0f}",
            )
        )
    header = (
        "curve", "from rows", "regions foretold", "found", "error", "within",
        "plain Heaps", "chance unchanged",
    )  # fmt: skip
    return "The same forecast made from the first rows of these:\n\n" + table(header, lines)


def _cautions(growths: Sequence[Growth]) -> list[str]:
    """What these numbers cannot tell."""
    found = [
        "All of this holds for new documents of the same kind, for this model, site, center and θ.",
    ]
    for growth in growths:
        curve, name = growth.curve, _name(growth)
        if growth.chance is None:
            continue
        if not curve.shuffled:
            found.append(
                f"{name}the documents came in the order of their source; the estimate is for "
                "documents in random order (build with --seed)."
            )
        if growth.backtest is not None and not growth.backtest.held:
            found.append(
                f"{name}the forecast from the first rows missed what came: the documents change "
                "along the stream, or differ more than most; do not rely on the forecast."
            )
        if curve.documents < 3 * FEWEST_DOCUMENTS:
            found.append(f"{name}{curve.documents} documents are few; the interval may be short.")
        if "without a region" in curve.ending:
            found.append(
                f"{name}the build was to stop when no region came, so its end looks quieter "
                "than the text is."
            )
        if any(f.rows > _FAR * curve.rows[-1] for f in growth.forecasts):
            found.append(
                f"{name}a forecast beyond {_FAR} times the rows that were read rests on the "
                "law, not on data."
            )
        if growth.quiet is not None:
            quiet = growth.quiet
            found.append(
                f"{name}the published rule (one quiet batch of {quiet.documents} documents) would "
                f"have stopped after {quiet.rows:,} rows with {quiet.regions:,} regions; "
                f"{quiet.later_regions:,} more came in the {quiet.later_rows:,} rows after it."
            )
    return found


def _name(growth: Growth) -> str:
    return f"{visible(growth.curve.name)}: " if growth.curve.name else ""


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.3%} ({interval.low:.3%} to {interval.high:.3%})"


def _span(interval: Interval, form: str) -> str:
    return " to ".join(form.format(v) for v in (interval.low, interval.high))


def _count(interval: Interval) -> str:
    low, estimate, high = map(_number, (interval.low, interval.estimate, interval.high))
    return f"{estimate} ({low} to {high})"


def _number(value: float) -> str:
    if math.isinf(value) or value >= 1e12:
        return "never"
    if value < 1000:
        return f"{value:,.0f}"
    step = 10 ** (math.floor(math.log10(value)) - 2)  # three digits are known at best
    return f"{round(value / step) * step:,.0f}"
