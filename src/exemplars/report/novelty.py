"""Whether texts are unlike a dictionary's: a sentence, tables, and a figure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.conformal import SetTest
from exemplars.analyses.densities import SCORES
from exemplars.analyses.novelty import DocumentNovelty, NoveltyReport
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 20
"""Documents in the table: the most unusual."""
_BEFORE, _AFTER = 40, 20


def novelty_text(report: NoveltyReport) -> str:
    """The answer first; then the set, its documents, its tokens, and what cannot be said."""
    parts = [answer(report), _calibration(report), _set_table(report), _documents(report)]
    if report.tokens:
        parts.append(_tokens(report))
    if report.cannot:
        parts.append(
            "What cannot be concluded\n" + "\n".join(f"  {line}" for line in report.cannot)
        )
    return "\n\n".join(parts)


def novelty_summary(report: NoveltyReport) -> dict[str, Any]:
    """The report for programs, with the answer and the verdict."""
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
    return {
        "answer": answer(report), "verdict": report.verdict, "flagged": report.flagged,
        "within_threshold": report.mean("within_threshold"), **fields,
    }  # fmt: skip


def answer(report: NoveltyReport) -> str:
    """Whether these texts are unlike what the dictionary has seen, in a sentence or two."""
    n = len(report.documents)
    what = f"{'These' if n > 1 else 'This'} {f'{n:,} texts' if n > 1 else 'text'}"
    be = "are" if n > 1 else "is"
    if report.verdict == "unknown":
        return (
            f"Whether {what[0].lower() + what[1:]} {be} unlike what the dictionary has seen cannot "
            f"be said: {report.cannot[0][0].lower() + report.cannot[0][1:]}"
        )
    usual = report.usual
    if report.verdict == "unlike":
        said = f"{what} {be} unlike what the dictionary has seen (p = {report.p:.2g})"
    else:
        said = (
            f"Nothing shows that {what[0].lower() + what[1:]} {be} unlike what the dictionary has "
            f"seen (p = {report.p:.2g})"
        )
    said += (
        f": {report.mean('within_threshold'):.1%} of the tokens lie within θ of an exemplar, "
        f"of texts of its own kind {usual.within_threshold:.1%}."
    )
    if n > 1:
        by_chance = report.level * n
        said += (
            f" By themselves {report.flagged:,} of {n:,} have p ≤ {report.level:g}; "
            f"{by_chance:,.1f} would by chance."
        )
    return said


def _calibration(report: NoveltyReport) -> str:
    usual = report.usual
    if not usual.documents:
        return f"Score: {SCORES[report.score]}; not calibrated."
    return (
        f"Score: {SCORES[report.score]}. Calibrated on {usual.documents:,} {usual.source} "
        f"({usual.rows:,} rows), the document as the unit; the smallest p-value they can give is "
        f"{usual.least_p:.2g}."
    )


def _set_table(report: NoveltyReport) -> str:
    usual = report.usual
    rows = [
        ("tokens", f"{report.rows:,}", f"{usual.rows:,}" if usual.documents else "–"),
        ("mean score", _number(report.mean("score")), _number(usual.score)),
        ("cosine distance", _number(report.mean("distance")), _number(usual.distance)),
        (
            "distance in θ",
            _number(report.mean("distance_in_thresholds")),
            _number(usual.distance / report.threshold),
        ),
        ("within θ", _share(report.mean("within_threshold")), _share(usual.within_threshold)),
    ]
    found = table(("", "these texts", "of its own kind"), rows)
    return f"{found}\n\n{_tests_table(report.tests)}" if report.tests else found


def _tests_table(tests: Sequence[SetTest]) -> str:
    return table(
        ("test of the set", "found", "null", "null, 95 %", "p"),
        [
            (t.statistic, _number(t.estimate), _number(t.null_mean), _number(t.null_95), _p(t.p))
            for t in tests
        ],
    )


def _documents(report: NoveltyReport) -> str:
    def order(document: DocumentNovelty) -> tuple[float, float]:
        return (2.0 if math.isnan(document.p) else document.p, -document.score)

    shown = sorted(report.documents, key=order)[:_SHOWN]
    more = len(report.documents) - len(shown)
    notes = [f"{more:,} more"] * bool(more) + [f"{report.empty:,} without a row"] * bool(
        report.empty
    )
    found = table(
        ("text", "rows", "regions", "score", "distance", "in θ", "within θ", "p"),
        [
            (
                d.name,
                d.rows,
                d.regions,
                _number(d.score),
                f"{d.distance:.3f}",
                f"{d.distance_in_thresholds:.3f}",
                _share(d.within_threshold),
                _p(d.p),
            )
            for d in shown
        ],
    )
    return found + (f"\n({'; '.join(notes)})" if notes else "")


def _tokens(report: NoveltyReport) -> str:
    lines = [
        (
            _number(t.score),
            f"{t.distance_in_thresholds:.2f}",
            _p(t.p),
            t.region,
            t.name,
            f"{visible(t.before)[-_BEFORE:]}«{visible(t.text)}»{visible(t.after)[:_AFTER]}",
        )
        for t in report.tokens
    ]
    return "Most unusual tokens\n" + table(
        ("score", "in θ", "p", "nearest region", "text", "in context"), lines
    )


def novelty_figure(report: NoveltyReport) -> Figure:
    """Scores of the texts beside those of passages of the usual kind; and their p-values.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with drawing(7.2, 3.0, columns=2) as (figure, (left, right)):
        scores = np.array([document.score for document in report.documents])
        both = np.concatenate([scores, report.usual_scores])
        bins = np.linspace(both.min(), both.max() + 1e-9, 31)
        if len(report.usual_scores):
            left.hist(
                report.usual_scores, bins, color=QUIET, alpha=0.5, density=True,
                label="passages of its own kind",
            )  # fmt: skip
        left.hist(scores, bins, color=COLORS[0], alpha=0.7, density=True, label="these texts")
        left.set_xlabel(f"mean score of a text ({report.score})")
        left.set_ylabel("density")
        left.legend(fontsize=8)
        p = np.sort([document.p for document in report.documents])
        p = p[~np.isnan(p)]
        right.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="by chance")
        if len(p):
            share = np.arange(1, len(p) + 1) / len(p)
            right.step([0, *p, 1], [0, *share, 1], where="post", color=COLORS[0])
        right.set_xlabel("p-value of a text")
        right.set_ylabel("share of texts at or below")
        right.set_xlim(0, 1)
        right.set_ylim(0, 1)
        right.legend(fontsize=8)
    return figure


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
