"""A steering sweep as a table, a sentence and answers side by side, as plain values, a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from exemplars.analyses.steering import (
    BASELINE,
    CONTROLS,
    DIFFERENCE,
    HALVES,
    REGIONS,
    Choice,
    Measures,
    Setting,
    SteeringReport,
    first_difference,
)
from exemplars.figures import COLORS, INK, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from exemplars.analyses.detection import Interval

MARK = "▸"
"""Stands before the first word in which an answer departs from the baseline's."""
_LONGEST = 300
_COLUMNS = ("KL", "perplexity", "repetition", "short")


def steering_text(report: SteeringReport, show: int = 3) -> str:
    """What was done, the table, what was found, and answers to the first prompts side by side.

    Args:
        report: Of a sweep.
        show: Prompts whose answers are shown.
    """
    scored = report.scorer is not None
    parts = [
        _heading(report),
        table(
            ("method", "strength", *(("score",) if scored else ()), *_COLUMNS),
            [_line(setting, scored) for setting in (report.baseline, *report.settings)],
        ),
        _legend(report),
        *(choice_text(report, choice) for choice in report.choices),
        *([_nothing_chosen(report)] if not report.choices else []),
        *(_side_by_side(report, i) for i in range(min(show, len(report.prompts)))),
    ]
    return "\n\n".join(parts)


def choice_text(report: SteeringReport, choice: Choice) -> str:
    """What was found of a method, in a sentence or two."""
    n, other = len(report.select), len(report.test)
    if choice.strength is None:
        raised = "higher" if report.aim == "raise" else "lower"
        if not choice.fluent:
            return (
                f"{visible(choice.method)}: no strength passed: at none of them the answers to the "
                f"{n} prompts that choose stayed fluent ({_bound(report)})."
            )
        return (
            f"{visible(choice.method)}: no strength passed: at {_several(choice.fluent)} the "
            f"answers stayed fluent, but the score was not {raised} than both the baseline's and "
            "the controls'."
        )
    assert choice.score is not None
    assert choice.baseline_score is not None
    assert choice.control_score is not None
    assert choice.difference is not None
    said = (
        f"{visible(choice.method)}: strength {choice.strength:g}, chosen on {n} prompts. On the "
        f"other {other} the score is {_span(choice.score)}; {_span(choice.baseline_score)} without "
        f"the edit"
    )
    if choice.control != BASELINE:
        low, high = choice.difference.low, choice.difference.high
        said += (
            f", {_span(choice.control_score)} with {visible(choice.control)} at that strength: a "
            f"difference of {choice.difference.estimate:+.2f} ({low:+.2f} to {high:+.2f})"
        )
    said += "."
    towards = 1 if report.aim == "raise" else -1
    end = choice.difference.low if towards > 0 else -choice.difference.high
    if end <= 0:
        said += f" That is not told apart from {_than(choice)}."
    if not choice.still_fluent:
        said += f" On these prompts the answers are less fluent than asked for ({_bound(report)})."
    return said


def steering_summary(report: SteeringReport) -> dict[str, Any]:
    """The same as plain values, with every answer."""
    return {
        **report.about,
        "scorer": report.scorer,
        "aim": report.aim,
        "bound": report.bound,
        "prompts": report.prompts,
        "select": report.select,
        "test": report.test,
        "settings": [
            {
                "method": setting.method,
                "strength": setting.strength,
                **{half: report_measures(report, setting, half) for half in HALVES},
                "answers": [[answer.text for answer in line] for line in setting.answers],
                "scores": setting.scores,
                "perplexities": setting.perplexities,
                "kl": setting.divergences,
            }
            for setting in (report.baseline, *report.settings)
        ],
        "choices": [
            {**vars(choice), "sentence": choice_text(report, choice)} for choice in report.choices
        ],
    }


def report_measures(report: SteeringReport, setting: Setting, half: str) -> Measures:
    """Of a setting of the report, the baseline among them."""
    if setting is report.baseline:
        return report.measures(BASELINE, 0.0, half)
    return report.measures(setting.method, setting.strength, half)


def steering_figure(report: SteeringReport) -> Figure:
    """By strength: the score (or KL without one), and the perplexity of the answers.

    Raises:
        ImportError: matplotlib is not installed.
    """
    scored = report.scorer is not None
    strengths = sorted({0.0, *report.strengths})
    with drawing(6.4, 2.8, columns=2) as (figure, (left, right)):
        for method in report.methods:
            found = [report.measures(method, strength) for strength in strengths]
            color = _color(method, report.methods)
            line = "--" if method == CONTROLS[1] else "-"
            options = {"color": color, "linestyle": line, "marker": "o", "markersize": 3}
            left.plot(strengths, [m.score if scored else m.kl for m in found],
                      label=visible(method), **options)  # fmt: skip
            right.plot(strengths, [m.perplexity for m in found], **options)
        limit = report.bound.perplexity * report.baseline.measures().perplexity
        if math.isfinite(limit):
            right.axhline(limit, color=INK, linewidth=0.8, linestyle=":")
        right.set_yscale("log")
        left.set_ylabel("score" if scored else "KL, nats")
        right.set_ylabel("perplexity of answers, unedited model")
        for axes in (left, right):
            axes.set_xlabel("strength")
        left.legend(loc="best")
    return figure


def _heading(report: SteeringReport) -> str:
    about = report.about
    what = [str(about[key]) for key in ("operation",) if key in about]
    if about.get("regions"):
        numbers = ", ".join(map(str, about["regions"]))
        what.append(f"region{'s' if len(about['regions']) > 1 else ''} {numbers}")
    what += [f"at {about['site']}"] if "site" in about else []
    what += [f"positions {about['positions']}"] if "positions" in about else []
    what.append(f"{len(report.prompts):,} prompts")
    lines = [visible(", ".join(what))]
    cosine = about.get("cosine")
    if cosine is not None:
        lines.append(f"cosine of its direction with the difference of means: {cosine:.2f}")
    return "\n".join(lines)


def _line(setting: Setting, scored: bool) -> tuple[Any, ...]:
    found = setting.measures()
    return (
        setting.method,
        f"{setting.strength:g}",
        *((_two(found.score),) if scored else ()),
        _three(found.kl),
        f"{found.perplexity:.4g}" if not math.isnan(found.perplexity) else "–",
        _two(found.repetition),
        _two(found.short),
    )


def _legend(report: SteeringReport) -> str:
    unit = "1 is the site's median norm" if report.about.get("operation") == "add" else (
        "the share that is done"
    )  # fmt: skip
    said = [f"strength: {unit}"] if "operation" in report.about else []
    if report.scorer is not None:
        kind = "share of answers with the behaviour" if report.binary else "mean of a graded score"
        said.append(f"score: {kind}, to be {'raised' if report.aim == 'raise' else 'lowered'}")
    said += [
        "KL: of the next token along the baseline's answers, nats",
        "perplexity: of the answers under the unedited model",
        "repetition: share of 4-grams of words that repeat",
        "short: share of answers under three words",
    ]
    draws = {len(s.answers) for s in report.settings if s.method in CONTROLS}
    if draws:
        said.append(f"random: means of {max(draws)} draws")
    return "; ".join(said) + "."


def _nothing_chosen(report: SteeringReport) -> str:
    if report.scorer is None:
        return "Nothing was scored, so no strength was chosen; name a score to have one chosen."
    return (
        f"{len(report.prompts)} prompts are too few to choose a strength on one half and report it "
        "on the other; give at least 4."
    )


def _side_by_side(report: SteeringReport, i: int) -> str:
    plain = report.baseline.answers[0][i].text
    rows = [("", BASELINE, _cut(visible(plain)))]
    for setting in _shown(report):
        rows.append(
            (f"{setting.strength:g}", setting.method, marked(plain, setting.answers[0][i].text))
        )
    prompt = _cut(visible(report.prompts[i]))
    lines = table(("strength", "method", "answer"), rows)
    return f"prompt {i + 1}: {prompt}\n{lines}"


def _shown(report: SteeringReport) -> list[Setting]:
    """Every setting of what is tested, and the controls at the strength that was chosen."""
    chosen = {c.strength for c in report.choices if c.strength is not None}
    at = chosen or {max(report.strengths, key=abs)}
    return [s for s in report.settings if s.method not in CONTROLS or s.strength in at]


def marked(plain: str, text: str) -> str:
    """An answer on one line, with a mark before the first word that the baseline has not."""
    where = first_difference(plain, text)
    if where is None:
        return "(the same)"
    start = max(0, where - _LONGEST // 2) if where > _LONGEST * 3 // 4 else 0
    before = ("…" if start else "") + text[start:where]
    return _cut(visible(before) + MARK + visible(text[where:]))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _color(method: str, methods: list[str]) -> str:
    if method in CONTROLS:
        return QUIET
    if method == REGIONS:
        return COLORS[0]
    return COLORS[2] if method == DIFFERENCE else COLORS[1 + methods.index(method) % 5]


def _bound(report: SteeringReport) -> str:
    return (
        f"perplexity at most {report.bound.perplexity:g} times the baseline's, repetition at most "
        f"{report.bound.repetition:g} above it"
    )


def _than(choice: Choice) -> str:
    return "the baseline" if choice.control == BASELINE else visible(choice.control)


def _several(strengths: tuple[float, ...]) -> str:
    return ", ".join(f"{strength:g}" for strength in strengths)


def _span(found: Interval) -> str:
    return f"{found.estimate:.2f} ({found.low:.2f}–{found.high:.2f})"


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _three(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
