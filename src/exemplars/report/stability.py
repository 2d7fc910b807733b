"""Which regions other orders find again: as a sentence, tables, and a figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from exemplars.analyses.stability import BASES, NULLS, Predictor, Stability
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "D = log10 N c²"
"""The predictor of the publication."""

_SHOWN = (None, 4)  # predictors of each basis: the rest is in the JSON


def stability_text(result: Stability) -> str:
    """What is found again, the predictors, and what cannot be concluded."""
    return "\n\n".join(
        [
            stability_sentence(result) + _beside_random_rows(result),
            _what(result),
            _cosines_table(result),
            _predictors_table(result),
            "\n".join(_cannot_conclude(result)),
        ]
    )


def stability_sentence(result: Stability) -> str:
    """The answer to "which regions would another seed find again?"."""
    best = best_predictor(result)
    if best is None:
        return (
            f"The means of matched regions have a median cosine of {result.median('mean'):.3f}, "
            f"their exemplars {result.median('exemplar'):.3f}; there are too few regions to say "
            "what tells them apart."
        )
    low, high = best.fifths[0], best.fifths[-1]
    if best.rho < 0:
        low, high = high, low
    again = (
        "Another order finds the means of regions again with a median cosine of "
        f"{result.median('mean'):.3f}, their exemplars with {result.median('exemplar'):.3f}; "
    )
    if not best.low * best.high > 0:
        return (
            f"{again}nothing tells which ones (the largest ρ, of {best.name}, is {best.rho:+.2f}, "
            f"{best.low:+.2f} to {best.high:+.2f})."
        )
    return (
        f"{again}what tells best which ones is {best.name} (ρ = {best.rho:+.2f}, "
        f"{best.low:+.2f} to {best.high:+.2f}): a mean cosine of {high:.3f} in the fifth where it "
        f"promises most and {low:.3f} where least."
    )


def _beside_random_rows(result: Stability) -> str:
    """What as many random rows in the exemplars' place would have given, where that is known."""
    null = result.nulls.get(NULLS[0], {}).get("mean", ())
    if not len(null):
        return ""
    found = np.mean([pair.mean_cosine["mean"] for pair in result.pairs])
    return (
        " With as many random rows in the exemplars' place the mean cosine is "
        f"{np.mean(null):.3f}, with exemplars {found:.3f}."
    )


def best_predictor(result: Stability, basis: str = "mean") -> Predictor | None:
    """The one of the largest |ρ|; None where none could be computed."""
    known = [p for p in result.predictors if p.basis == basis and np.isfinite(p.rho)]
    return max(known, key=lambda p: abs(p.rho)) if known else None


def _what(result: Stability) -> str:
    rows = sorted(set(result.rows))
    span = f"{rows[0]:,}" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,}"
    where = f"{visible(result.site)}, " if result.site else ""
    return (
        f"{len(result.n_regions)} dictionaries of {where}p = {result.percentile:g}, "
        f"θ = {result.threshold:.4f}: {min(result.n_regions):,} to {max(result.n_regions):,} "
        f"regions from {span} rows; {len(result.pairs)} pairs, matched by {result.method}, each "
        "counted for the regions of both sides"
    )


def _cosines_table(result: Stability) -> str:
    lines = []
    for basis in BASES:
        mean = [pair.mean_cosine[basis] for pair in result.pairs]
        median = [pair.median_cosine[basis] for pair in result.pairs]
        p10 = [pair.p10_cosine[basis] for pair in result.pairs]
        nulls = [result.nulls[name][basis] if name in result.nulls else () for name in NULLS]
        lines.append(
            (
                f"{basis}s",
                f"{np.mean(mean):.3f}",
                f"{np.mean(median):.3f}",
                f"{min(median):.3f} to {max(median):.3f}",
                f"{np.mean(p10):.3f}",
                *(f"{np.mean(values):.3f}" if values else "–" for values in nulls),
            )
        )
    header = ("matched cosine of", "mean", "median", "of pairs", "10th percentile", *NULLS)
    return table(header, lines)


def _predictors_table(result: Stability) -> str:
    lines = [
        (
            p.name,
            p.basis,
            _signed(p.rho),
            "–" if np.isnan(p.low) else f"{p.low:+.2f} to {p.high:+.2f}",
            _signed(p.partial),
            _signed(p.random_rows),
            *(_number(value) for value in p.fifths),
        )
        for basis, shown in zip(BASES, _SHOWN, strict=True)
        for p in sorted(
            (q for q in result.predictors if q.basis == basis),
            key=lambda q: -abs(np.nan_to_num(q.rho)),
        )[:shown]
    ]
    fifths = ("lowest fifth", "2nd", "3rd", "4th", "highest")
    return table(
        ("predictor", "of", "ρ", "95 %", "given log10 N", "of random rows", *fifths), lines
    )


def _cannot_conclude(result: Stability) -> Iterator[str]:
    if not result.one_calibration:
        yield (
            "! The dictionaries have different centers or thresholds, so some of their difference "
            "is that of their calibrations; share one to see the order's alone."
        )
    if "random rows" not in result.nulls:
        yield (
            "Not concluded: whether exemplars are found again better than random rows of the "
            "stream would be; that needs --text or --activations."
        )
    yield (
        "ρ is Spearman's, the mean over dictionaries; its interval is that of one dictionary's "
        "regions. A predictor of regions that are found again says nothing of what they mean."
    )


def stability_figure(result: Stability) -> Figure:
    """Matched cosine against D, and its mean in each fifth of the best predictor and of N.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with drawing(7.2, 3.2, columns=2) as (figure, (left, right)):
        for number, basis in enumerate(BASES):
            values = np.concatenate([r.of(basis) for r in result.regions])
            values = np.sort(values[np.isfinite(values)])
            share = np.arange(1, len(values) + 1) / max(len(values), 1)
            left.step(values, share, where="post", color=COLORS[number], label=f"{basis}s")
        for number, name in enumerate(n for n in NULLS if n in result.nulls):
            left.axvline(
                float(np.mean(result.nulls[name]["mean"])), color=QUIET, label=f"{name}, means",
                linestyle=(":", "--", "-.")[number],
            )  # fmt: skip
        left.set_xlabel("mean cosine with the partners in the other dictionaries")
        left.set_ylabel("share of regions below")
        left.set_ylim(0, 1)
        left.legend(loc="upper left")
        best = best_predictor(result)
        shown = dict.fromkeys(["log10 N", PAPER, *([best.name] if best else [])])
        for number, name in enumerate(shown):
            fifths = result.predictor(name).fifths
            right.plot(range(1, len(fifths) + 1), fifths, "o-", color=COLORS[number], label=name)
        right.set_xlabel("fifth of the regions")
        right.set_ylabel("mean matched cosine of means")
        right.set_xticks(range(1, 6))
        right.legend(loc="upper left")
    return figure


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.2f}"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
