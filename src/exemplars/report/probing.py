"""Probes as a table and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exemplars.analyses.probing import (
    CODES,
    MAJORITY,
    NULLS,
    PUBLISHED_RATIO,
    RANDOM_ROWS,
    RAW,
    ProbeReport,
    ProbeScore,
)
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from exemplars.analyses.detection import Interval


def probe_text(report: ProbeReport) -> str:
    """A line for each method and number of dimensions, then what the one-hot codes keep."""
    header = ("method", "k", "accuracy", "95 %", "AUROC", "95 %", "of raw")
    lines = [_line(score) for score in report.scores if score.method not in NULLS]
    nulls = [_line(score) for score in report.scores if score.method in NULLS]
    over = "test texts" if report.tasks == 1 else "tasks"
    per_class = ", ".join(
        f"{visible(name)} {train:,} + {test:,}"
        for name, train, test in zip(
            report.classes, report.train_texts, report.test_texts, strict=True
        )
    )
    parts = [
        f"{visible(report.task)}: {report.n_regions:,} regions; training + test texts: {per_class}",
        table(header, lines),
        f"Intervals are over {over}; accuracy is the mean over classes.",
        "nulls",
        table(("method", "k", "accuracy", "over seeds", "AUROC", "over seeds", ""), nulls),
    ]
    if report.dropped_rows:
        parts[0] += f"; {report.dropped_rows:,} norm outliers left out"
    if not any(score.method == RANDOM_ROWS for score in report.scores):
        parts.append("There is no null of random rows: no rows of the stream were given.")
    headline = _headline(report)
    return "\n\n".join([*parts, headline] if headline else parts)


def probe_figure(report: ProbeReport) -> Figure:
    """Accuracy against the number of dimensions, of one-hot codes and what stands beside them.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No number of dimensions was asked for.
    """
    ks = sorted({score.k for score in report.scores if score.k is not None})
    if not ks:
        raise ValueError("only probes of all dimensions were made; give some k for a figure")
    place: dict[int | None, int] = {k: n for n, k in enumerate([*ks, None])}
    with drawing(5.6, 3.4) as (figure, axes):
        names = dict.fromkeys(
            (s.method, s.readout, s.basis) for s in report.scores if s.method != MAJORITY
        )
        colors = iter(COLORS * len(names))
        shown = [name for name in names if _is_shown(name, report)]
        # Ours first, so that it has the first colour.
        for number, name in enumerate(sorted(shown, key=lambda n: n[0] != CODES)):
            mine = [s for s in report.scores if (s.method, s.readout, s.basis) == name]
            null = name[0] in NULLS
            at = [place[s.k] + 0.05 * (number - len(shown) / 2) for s in mine]
            errors = (
                [max(s.accuracy.estimate - s.accuracy.low, 0.0) for s in mine],
                [max(s.accuracy.high - s.accuracy.estimate, 0.0) for s in mine],
            )
            axes.errorbar(
                at, [s.accuracy.estimate for s in mine], errors, label=visible(_name(mine[0])),
                color=QUIET if null else next(colors), linestyle=":" if null else "-",
                marker="s" if name[0] == RANDOM_ROWS else "o", markersize=4, linewidth=1.2,
                capsize=2,
            )  # fmt: skip
        axes.axhline(1 / len(report.classes), color=QUIET, linewidth=0.8)
        axes.set_xticks(range(len(place)), [*map(str, ks), "all"])
        axes.set_xlabel("dimensions of the probe")
        axes.set_ylabel("accuracy on test texts")
        axes.set_title(visible(report.task), fontsize=9)
        axes.legend(fontsize=7)
    return figure


def _is_shown(name: tuple[str, str | None, str | None], report: ProbeReport) -> bool:
    """The first readout and basis stand for all; a figure of every one is not readable."""
    _, readout, basis = name
    ours = next(s for s in report.scores if s.method == CODES)
    return readout in (None, ours.readout) and basis in (None, ours.basis)


def _line(score: ProbeScore) -> tuple[str, ...]:
    return (
        _name(score),
        "all" if score.k is None and score.method != MAJORITY else str(score.k or "–"),
        f"{score.accuracy.estimate:.3f}",
        _span(score.accuracy),
        f"{score.auroc.estimate:.3f}",
        _span(score.auroc),
        "" if score.of_raw is None else f"{score.of_raw.estimate:.3f}",
    )


def _name(score: ProbeScore) -> str:
    what = " ".join(part for part in (score.readout, score.basis) if part)
    if not what:
        return score.method
    return f"{what} codes" if score.method == CODES else f"{score.method}, {what}"


def _span(interval: Interval) -> str:
    return f"{interval.low:.3f} – {interval.high:.3f}"


def _headline(report: ProbeReport) -> str:
    """One-hot codes over raw activations, beside what the paper reports."""
    found = [s for s in report.scores if s.method == CODES and s.readout == "binary" and s.of_raw]
    if not found:
        return ""
    basis = found[0].basis
    parts = [
        f"{s.of_raw.estimate:.1%} ({s.of_raw.low:.1%} – {s.of_raw.high:.1%}) with "
        f"{'all dimensions' if s.k is None else f'k = {s.k}'}"
        for s in found
        if s.basis == basis and s.of_raw is not None
    ]
    raw = report.score(RAW).accuracy.estimate
    low, high = PUBLISHED_RATIO
    return (
        f"One-hot codes ({basis}) keep of the accuracy of raw activations, {raw:.3f}: "
        f"{'; '.join(parts)}. The paper reports {low:.0%} to {high:.0%}, for other models and "
        "tasks (arXiv 2605.14347, app. D)."
    )
