"""Concept detectors as a table, as plain values, and as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from exemplars.analyses.candidates import NULL
from exemplars.analyses.concepts import SCORES, ConceptReport
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.dictionaries import card, card_text
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from exemplars.analyses.detection import Interval
    from exemplars.dictionary import Dictionary

HEADLINE = "region mean"
"""The method whose region is shown."""
_LONGEST = 44


def concepts_text(report: ConceptReport, dictionary: Dictionary, lens: Any = None) -> str:
    """The methods, the concepts, and, of a single concept, the card of its region."""
    first = report.concepts[0]
    one = len(report.concepts) == 1
    sizes = (
        f"{visible(first.name)}: trained on {len(first.positive):,} positive and "
        f"{len(first.negative):,} negative texts, tested on {len(first.test_positive):,} and "
        f"{len(first.test_negative):,}"
    )
    over = "test texts" if one else "concepts and test texts"
    parts = [
        sizes if one else f"{len(report.concepts)} concepts",
        table(
            (
                "method", "train", "valid.", "AUROC", "95 %", "over seeds", "dot", "hard neg.",
                "less null", "95 %",
            ),
            [_line(report, method) for method in report.detections],
        ),
        f"AUROC is of test texts, intervals are over {over}; valid.: found on half of the training "
        "texts, tested on the other half; dot: with raw products; less null: less random rows, "
        "found in the same way. Anchored and whitened: fitted to labels, as probes are.",
    ]  # fmt: skip
    if one:
        region = region_of(report, 0)
        parts += [
            f"the region whose mean detects it ({region})",
            card_text(dictionary, region, lens),
        ]
        several = [m for m in report.detections if m.startswith(f"{HEADLINE}, ")]
        parts += [
            f"{method}: regions {', '.join(map(str, regions))}"
            for method in several
            if len(regions := report.detections[method][0].detectors[0].regions) > 1
        ]
    else:
        parts.append(_by_concept(report))
    return "\n\n".join([*parts, *report.notes])


def concepts_summary(
    report: ConceptReport, dictionary: Dictionary, lens: Any = None
) -> dict[str, Any]:
    """The same as plain values, with every concept's card."""
    return {
        "methods": {
            method: {
                "train_auroc": _mean(d.train_auroc for d in found),
                "validation_auroc": report.validation(method),
                "seeds": len(found[0].detectors),
                **{
                    score: {
                        "auroc": report.mean(method, score),
                        "over_seeds": report.spread(method, score),
                        "hard_negative": report.hard_negative(method, score),
                        "less_null": _less_null(report, method, score),
                    }
                    for score in SCORES
                },
            }
            for method, found in report.detections.items()
        },
        "concepts": [
            {
                "name": concept.name,
                "methods": {
                    method: {
                        "regions": [list(d.regions) for d in found[k].detectors],
                        "train_auroc": found[k].train_auroc,
                        "validation_auroc": found[k].validation_auroc,
                        **{score: found[k].auroc[score] for score in SCORES},
                    }
                    for method, found in report.detections.items()
                },
                "card": card(dictionary, region_of(report, k), lens),
            }
            for k, concept in enumerate(report.concepts)
        ],
        "notes": report.notes,
    }


def concepts_figure(report: ConceptReport) -> Figure:
    """Test AUROC of each method with its interval, best last; regions, nulls and baselines apart.

    Raises:
        ImportError: matplotlib is not installed.
    """
    methods = sorted(report.detections, key=lambda m: report.mean(m).estimate)
    with drawing(6.4, 0.6 + 0.24 * len(methods)) as (figure, axes):
        for place, method in enumerate(methods):
            mean = report.mean(method)
            color = _color(method)
            axes.plot([mean.low, mean.high], [place, place], color=color, linewidth=1.5)
            axes.plot(mean.estimate, place, "o", color=color, markersize=4)
        axes.set_yticks(range(len(methods)), [visible(method) for method in methods])
        axes.set_xlabel("AUROC on test texts, 95 % bootstrap interval")
        axes.grid(visible=False, axis="y")
        for name, color in (("regions", COLORS[0]), ("null", QUIET), ("baselines", COLORS[2])):
            axes.plot([], [], "o-", color=color, label=name, markersize=4)
        axes.legend(loc="upper left")
    return figure


def region_of(report: ConceptReport, concept: int) -> int:
    """The region whose mean detects a concept best on training texts."""
    return report.detections[HEADLINE][concept].detectors[0].regions[0]


def _line(report: ConceptReport, method: str) -> tuple[Any, ...]:
    found = report.detections[method]
    mean, less = report.mean(method), _less_null(report, method)
    low, high = report.spread(method)
    several = len(found[0].detectors) > 1
    return (
        method,
        _three(_mean(d.train_auroc for d in found)),
        _three(report.validation(method)),
        _three(mean.estimate),
        _span(mean),
        f"{low:.3f}–{high:.3f}" if several else "",
        _three(report.mean(method, "dot").estimate),
        _three(report.hard_negative(method)),
        "" if less is None else f"{less.estimate:+.3f}",
        "" if less is None else f"{less.low:+.3f} to {less.high:+.3f}",
    )


def _by_concept(report: ConceptReport) -> str:
    methods = [HEADLINE, *(m for m in report.detections if m.endswith("anchored"))]
    methods += [m for m in (NULL, "logistic probe, tokens") if m in report.detections]
    rows = []
    for k, concept in enumerate(report.concepts):
        name = concept.name
        rows.append(
            (
                name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…",
                region_of(report, k),
                *(_three(report.detections[m][k].auroc["cosine"].estimate) for m in methods),
            )
        )
    return table(("concept", "region", *methods), rows)


def _less_null(report: ConceptReport, method: str, score: str = "cosine") -> Interval | None:
    """The difference to random rows found in the same way; None for those themselves."""
    _, _, way = method.partition(", ")
    same = f"{NULL}, {way}"
    other = same if same in report.detections else NULL
    if method.startswith(NULL) or other not in report.detections:
        return None
    return report.difference(method, other, score)


def _color(method: str) -> str:
    if method.startswith(NULL):
        return QUIET
    regions = ("region mean", "exemplar", "census mean")
    return COLORS[0] if method.startswith(regions) else COLORS[2]


def _three(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _span(interval: Interval) -> str:
    return f"{interval.low:.3f}–{interval.high:.3f}"


def _mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)
