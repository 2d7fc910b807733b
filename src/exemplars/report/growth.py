"""Growth as sentences, a table and a figure: regions against rows, and what is to come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
_LABEL_GAP = 1.22
"""Between the heights of two labels, at least: a factor, as the axis is of powers."""


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
        axes.set_xscale("log")
        axes.set_yscale("log")
        colors = [COLORS[k % len(COLORS)] for k in range(len(growths))]
        ends = [_draw(axes, g, color) for g, color in zip(growths, colors, strict=True)]
        for place, height in _apart(ends):
            axes.annotate(
                visible(growths[place].curve.name) or "regions", (ends[place][0], height),
                color=colors[place], fontsize=8, xytext=(4, 0), textcoords="offset points",
                va="center",
            )  # fmt: skip
        axes.set_xlabel("rows")
        axes.set_ylabel("regions")
        axes.margins(x=0.15)
    return figure


def _draw(axes: Any, growth: Growth, color: str) -> tuple[float, float]:
    """One curve and what is to come; where its line ends."""
    curve = growth.curve
    seen = curve.regions > 0
    axes.plot(curve.rows[seen], curve.regions[seen], color=color, linewidth=1.8)
    quiet = growth.quiet
    if quiet is not None and quiet.later_regions:
        axes.plot(quiet.rows, quiet.regions, "o", color=QUIET, markersize=4)
        axes.annotate(
            "published rule stops", (quiet.rows, quiet.regions), color=QUIET, fontsize=7,
            xytext=(4, -10), textcoords="offset points",
        )  # fmt: skip
    end, regions = float(curve.rows[-1]), float(curve.regions[-1])
    if not growth.forecasts:
        return end, regions
    more = max(forecast.rows for forecast in growth.forecasts)
    fit, rows = GrowthFit(curve), np.geomspace(end, end + more, _POINTS)
    band = regions + np.array([_bounds(fit, int(n - end)) for n in rows])
    axes.fill_between(rows, band[:, 1], band[:, 2], color=color, alpha=0.18, linewidth=0)
    axes.plot(rows, band[:, 0], color=color, linestyle="--", linewidth=1.2)
    return float(rows[-1]), float(band[-1, 0])


def _apart(ends: Sequence[tuple[float, float]]) -> Iterator[tuple[int, float]]:
    """Which end, and a height for its label that leaves room for the one below."""
    below = 0.0
    for k in sorted(range(len(ends)), key=lambda k: ends[k][1]):
        below = max(ends[k][1], below * _LABEL_GAP)
        yield k, below


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
    rows = "of the rows of a new document found a region"
    target = _share(growth.target)
    how = {
        "covered": f"covered: with 97.5 % confidence fewer than {_share(growth.chance.high)} {rows}"
        f" (estimate {_share(growth.chance.estimate)}, target {target})",
        "not covered": f"not covered: {_percent(growth.chance)} {rows}, more than the target of "
        f"{target}",
        "undecided": f"not yet decided: {_percent(growth.chance)} {rows}, and the target of "
        f"{target} lies within that interval",
    }[growth.verdict]
    more = "; ".join(
        f"{f.rows:,} more rows add about {_count(f.regions)}" for f in growth.forecasts
    )
    said = (
        f"{_name(growth)}{how}. At this threshold (θ = {curve.threshold:.4g}), {more} regions to "
        f"the {curve.regions[-1]:,} there are."
    )
    if inside is None:
        return said
    return (
        f"{said} The dictionary's own regions hold {inside.estimate:.1%} ({inside.low:.1%} to "
        f"{inside.high:.1%}) of its rows."
    )


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
                "–" if math.isnan(g.singleton_share) else _share(g.singleton_share),
                "–" if g.exponent is None else _span(g.exponent, "{:.2f}"),
                _rows_to_target(g),
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
    """What these numbers cannot tell, each with the curves it is said of."""
    of: dict[str, list[str]] = {}
    for growth in growths:
        for caution in _cautions_of(growth):
            of.setdefault(caution, []).append(visible(growth.curve.name))
    first = "All of this holds for new documents of the same kind, for this model, site, center, θ."
    several = len(growths) > 1
    said = [f"{', '.join(names)}: {c}" if several and names[0] else c for c, names in of.items()]
    return [first, *said]


def _cautions_of(growth: Growth) -> Iterator[str]:
    curve, quiet = growth.curve, growth.quiet
    if growth.chance is None:
        return
    if not curve.shuffled:
        yield (
            "the documents came in the order of their source; the estimate is for documents in "
            "random order (build with --seed)."
        )
    if growth.backtest is not None and not growth.backtest.held:
        yield (
            "the forecast from the first rows missed what came: the documents change along the "
            "stream, or differ more than most; do not rely on the forecast."
        )
    if curve.documents < 3 * FEWEST_DOCUMENTS:
        yield f"{curve.documents} documents are few; the interval may be short."
    if "without a region" in curve.ending:
        yield (
            "the build was to stop when no region came, so its end looks quieter than the text is."
        )
    if any(f.rows > _FAR * curve.rows[-1] for f in growth.forecasts):
        yield (
            f"a forecast beyond {_FAR} times the rows that were read rests on the law, not on data."
        )
    if quiet is not None:
        yield (
            f"the published rule (one quiet batch of {quiet.documents} documents) would have "
            f"stopped after {quiet.rows:,} rows with {quiet.regions:,} regions; "
            f"{quiet.later_regions:,} more came in the {quiet.later_rows:,} rows after it."
        )


def _name(growth: Growth) -> str:
    return f"{visible(growth.curve.name)}: " if growth.curve.name else ""


def _percent(interval: Interval) -> str:
    return f"{_share(interval.estimate)} ({_share(interval.low)} to {_share(interval.high)})"


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def _rows_to_target(growth: Growth) -> str:
    if growth.rows_to_target is None:
        return "–"
    return "there" if growth.verdict == "covered" else _count(growth.rows_to_target)


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
