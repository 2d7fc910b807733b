"""The regions behind a behaviour, and what taking them out does, as tables and a figure."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from exemplars.analyses.behavior import (
    DIFFERENCE,
    EQUAL_NORM,
    NULLS,
    UNEDITED,
    BehaviorReport,
    Outcome,
    RegionRate,
    Share,
)
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 72
_WIDTH = 100
_NAMES = {EQUAL_NORM: "random, equal norm"}
"""Of conditions whose own names are too long for a line of a table."""
_REGION = ("region", "prompts", "rate", "of behaving", "of others")


def behavior_text(report: BehaviorReport, shown: int = 3) -> str:
    """Candidates, conditions, the verdicts, and a few answers side by side."""
    others = report.unedited.behaving_negative
    parts = [
        f"{report.site}: chosen by {report.n_select[0]} prompts with the behaviour and "
        f"{report.n_select[1]} without, judged on {report.unedited.behaving.n}"
        + (f" and {others.n} others" if others else " others"),
        _candidates(report),
        conditions_table(report),
        _legend(report),
        "\n".join(map(_wrapped, (*report.verdicts.values(), *report.notes))),
        _answers(report, shown) if shown else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _candidates(report: BehaviorReport) -> str:
    """Of one order the first few, of several the first of each."""
    rule = report.selection.rule
    if len(report.n_regions) == 1:
        (likely,), (n,) = report.candidates, report.n_regions
        if not likely:
            return f"{n:,} regions; no candidates"
        header = (*_REGION, rule, "members")
        lines = table(header, [_region(r, rule) for r in likely[:5]])
        return f"{n:,} regions; candidates, {len(likely)} in all:\n\n{lines}"
    rows: list[tuple[Any, ...]] = []
    for number, (n, likely) in enumerate(zip(report.n_regions, report.candidates, strict=True)):
        first = _region(likely[0], rule) if likely else ("",) * (len(_REGION) + 2)
        rows.append((number, n, len(likely), *first))
    first_region = (f"first {_REGION[0]}", *_REGION[1:], rule, "members")
    return table(("order", "regions", "candidates", *first_region), rows)


def _region(rate: RegionRate, rule: str) -> tuple[Any, ...]:
    return (
        rate.region, rate.prompts, f"{rate.rate:.2f}", f"{rate.share_of_behaving:.2f}",
        f"{rate.share_of_others:.2f}", f"{rate.score(rule):.2f}", rate.count,
    )  # fmt: skip


def conditions_table(report: BehaviorReport) -> str:
    """A line for each way to edit at each k: the mean over orders and draws."""
    kinds = _kinds(report)
    several = any(len(outcomes) > 1 for outcomes in kinds.values())
    ranks = report.selection.most > 1
    header = (
        "condition", *(("k",) if ranks else ()), "behaviour", "range" if several else "95 %",
        "others", "short", "repeat", "ppl", "neutral", "KL", "removed",
    )  # fmt: skip
    rows = [
        (
            _NAMES.get(method, method),
            *((k or "",) if ranks else ()),
            *_values(outcomes, several),
        )
        for (method, k), outcomes in kinds.items()
    ]
    # Columns with a dash or a gap are of numbers too.
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(header))]
    padded = [
        (row[0], *(str(v).rjust(n) for v, n in zip(row[1:], widths[1:], strict=True)))
        for row in rows
    ]
    return table(header, padded)


def _kinds(report: BehaviorReport) -> dict[tuple[str, int], list[Outcome]]:
    """Outcomes by method and k, in the order of the first dictionary's."""
    found: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in report.outcomes:
        found.setdefault((outcome.condition.method, outcome.condition.k), []).append(outcome)
    return found


def _values(outcomes: list[Outcome], several: bool) -> tuple[str, ...]:
    shares = [o.behaving.value for o in outcomes]
    negative = [o.behaving_negative.value for o in outcomes if o.behaving_negative is not None]
    neutral = [o.neutral for o in outcomes if o.neutral is not None]
    low, high = (min(shares), max(shares)) if several else outcomes[0].behaving.interval
    return (
        _mean(shares),
        "" if several and len(outcomes) == 1 else f"{low:.2f}–{high:.2f}",
        _mean(negative),
        _mean([o.fluency.short for o in outcomes]),
        _mean([o.fluency.repetition for o in outcomes]),
        _mean([o.perplexity for o in outcomes]),
        _mean([n.changed_perplexity / n.perplexity for n in neutral], 3),
        _mean([n.kl for n in neutral], 3),
        _mean([o.removed for o in outcomes]),
    )


def _mean(values: list[float], digits: int = 2) -> str:
    """Of what was measured; a dash where some of it could not be."""
    if not values:
        return ""
    mean = sum(values) / len(values)
    if math.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" if mean < 10_000 else f"{mean:.1e}"


def _legend(report: BehaviorReport) -> str:
    """What the columns are."""
    several = any(len(outcomes) > 1 for outcomes in _kinds(report).values())
    interval = "range: over orders and draws" if several else "95 %: Wilson's interval"
    ordinary = _mean([report.reference_perplexity])
    lines = (
        ("behaviour", f"share of held-out prompts answered with it; {interval}"),
        ("others", "the same of held-out prompts that should not show it"),
        ("short", "share of answers under 3 words; repeat: of 4-grams of words said before"),
        ("ppl", f"perplexity of answers by the unedited model; {ordinary} of its ordinary ones"),
        ("neutral", "perplexity of plain text over the unedited model's; KL: of its next tokens"),
        ("removed", "mean length of what is taken from a prompt's vectors, in median norms"),
    )
    return "\n".join(f"{name:9}  {meaning}" for name, meaning in lines)


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _answers(report: BehaviorReport, shown: int) -> str:
    """The first held-out prompts, answered under each condition of the first dictionary."""
    chosen = [
        o
        for o in report.outcomes
        if o.condition.dictionary <= 0 and o.condition.k <= 1 and o.condition.draw == 0
    ]
    names = [_NAMES.get(o.condition.method, o.condition.method) for o in chosen]
    width = max(map(len, names))
    parts = []
    for number in range(min(shown, report.unedited.behaving.n)):
        lines = [_cut(report.unedited.answers[number].prompt)]
        for name, outcome in zip(names, chosen, strict=True):
            lines.append(f"  {name:{width}}  {_cut(outcome.answers[number].text) or '(empty)'}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cut(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def behavior_summary(report: BehaviorReport, answers: bool = True) -> dict[str, Any]:
    """The same as plain values."""
    selection = report.selection
    return {
        "site": report.site,
        "selection": vars(selection),
        "criteria": vars(report.criteria),
        "scorer": report.scorer,
        "select_prompts": {"with": report.n_select[0], "without": report.n_select[1]},
        "regions": report.n_regions,
        "candidates": [
            [{**vars(r), "rate": r.rate, "score": r.score(selection.rule)} for r in likely[:10]]
            for likely in report.candidates
        ],
        "reference_perplexity": report.reference_perplexity,
        "conditions": [outcome_summary(o, answers) for o in report.outcomes],
        "verdicts": {
            f"{method}, k = {k}": {
                "sentence": sentence,
                "failures": [report.failures(method, k, d) for d in range(len(report.n_regions))],
            }
            for (method, k), sentence in report.verdicts.items()
        },
        "notes": report.notes,
    }


def outcome_summary(outcome: Outcome, answers: bool = False) -> dict[str, Any]:
    """A condition and what came of it, as plain values."""
    condition = outcome.condition
    found = {
        "method": condition.method,
        "k": condition.k,
        "dictionary": condition.dictionary,
        "draw": condition.draw,
        "regions": condition.regions,
        "behaving": _share(outcome.behaving),
        "behaving_negative": _share(outcome.behaving_negative),
        "fluency": vars(outcome.fluency),
        "perplexity": outcome.perplexity,
        "neutral": None if outcome.neutral is None else vars(outcome.neutral),
        "removed": outcome.removed,
    }
    if answers:
        found["answers"] = [{"prompt": a.prompt, "text": a.text} for a in outcome.answers]
    return found


def _share(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {"hits": share.hits, "n": share.n, "share": share.value, "interval": share.interval}


def behavior_figure(report: BehaviorReport) -> Figure:
    """The behaviour left under each condition with its interval; nulls are grey.

    Raises:
        ImportError: matplotlib is not installed.
    """
    kinds: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        k = outcome.condition.k
        name = outcome.condition.method + (f", k = {k}" if report.selection.most > 1 and k else "")
        kinds.setdefault(name, []).append(outcome)
    names = list(kinds)[::-1]
    with drawing(6.4, 0.9 + 0.3 * len(names)) as (figure, axes):
        for y, name in enumerate(names):
            method = kinds[name][0].condition.method
            color = QUIET if method in NULLS else COLORS[0]
            if method in (UNEDITED, DIFFERENCE):
                color = COLORS[2]
            for shift, outcome in enumerate(kinds[name]):
                at = y + 0.12 * (shift - (len(kinds[name]) - 1) / 2)
                low, high = outcome.behaving.interval
                axes.plot([low, high], [at, at], color=color, linewidth=1.5)
                axes.plot([outcome.behaving.value], [at], "o", color=color, markersize=4)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of held-out prompts answered with the behaviour, 95 % interval")
    return figure
