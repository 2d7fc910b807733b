"""What a fine-tune introduced, as text and as a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.drift import NULLS, Drift, Precision, Reading
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 100
_TOKENS = 10
_NAMES = {
    "difference": "difference of means",
    "probe": "logistic probe",
    "contrast": "all rows, contrast",
}
"""Of the readings of no region."""
_CAVEATS = (
    "A region is introduced as far as these texts tell: others may reach it in the base model, and "
    "what changes inside a region that both models reach is not seen here.",
    "Tokens are what a direction reads as, not what it does; steer along it to see that.",
)


def drift_text(result: Drift, readings: Sequence[Reading]) -> str:
    """The answer, the inventory with its readings, baselines, nulls, and what is not known."""
    parts = [
        _wrapped(drift_sentence(result, readings)),
        _inventory(result, readings),
        _read_as(readings),
        _counts(result),
        _separable(result),
        _topic(result),
        _ranks(readings),
        "\n".join(map(_wrapped, _CAVEATS)),
    ]
    return "\n\n".join(part for part in parts if part)


def drift_sentence(result: Drift, readings: Sequence[Reading]) -> str:
    """What the fine-tune introduced, in a sentence."""
    n, null = len(result.inventory), max((max(v) for v in result.nulls.values() if v), default=None)
    where = f"at {result.site} ({_positions(result.positions)}, p = {result.percentile:g})"
    beside = "no null was drawn" if null is None else f"the nulls find {null} at most"
    if not n:
        return (
            f"Nothing was found {where}: no region is the tuned model's alone on documents that "
            f"did not propose it; {beside}."
        )
    if null is not None and n <= null:
        return (
            f"Nothing that stands out was found {where}: {_regions(n)} of the tuned model's alone, "
            f"and {beside}."
        )
    tokens = ", ".join(map(_token, _of(readings, "contrast", result.inventory[0].region).lens[:6]))
    return (
        f"The fine-tune introduced {_regions(n)} {where} that documents of the tuned model are in "
        f"and next to none of the base model's, confirmed on documents that did not propose them; "
        f"{beside}. In the one with the most documents these tokens stand out: {tokens}."
    )


def _of(readings: Sequence[Reading], of: str, region: int) -> Reading:
    return next(r for r in readings if (r.of, r.region) == (of, region))


def _regions(n: int) -> str:
    return "1 region" if n == 1 else f"{n:,} regions"


def _positions(name: str) -> str:
    return {
        "all": "all tokens",
        "control": "the template's tokens before the answer",
        "response": "the answers' tokens",
    }[name]


def _token(token: str) -> str:
    return f"‹{visible(token)}›"


def _inventory(result: Drift, readings: Sequence[Reading]) -> str:
    """A line for each region, and below it what it reads as and where it was seen."""
    if not result.inventory:
        return ""
    rows = [
        (
            one.region, f"{one.tuned[0]} | {one.tuned[1]}", f"{one.base[0]} | {one.base[1]}",
            one.rows[1], f"{one.p_value:.1g}",
            " ".join(map(_token, _of(readings, "contrast", one.region).lens[:4])),
        )
        for one in result.inventory
    ]  # fmt: skip
    header = ("region", "documents, tuned", "base", "rows", "p (Holm)", "reads as")
    lines = [table(header, rows), "Documents: of the proposing | of the confirming half."]
    for one in result.inventory:
        lines.append(f"\nregion {one.region}")
        lines += [
            f"  {r.of + ', ' + kind:18} {' '.join(map(_token, tokens[:_TOKENS]))}"
            for r in readings
            if r.region == one.region
            for kind, tokens in (("lens", r.lens), ("embedding", r.embedding))
        ]
        lines += [f"  {_context(context)}" for context in one.contexts]
    return "\n".join(lines)


def _context(context: tuple[str, str, str]) -> str:
    before, token, after = (visible(part) for part in context)
    return f"{before[-50:]}«{token}»{after[:20]}"


def _read_as(readings: Sequence[Reading]) -> str:
    lines = ["The baselines read as"]
    lines += [
        f"  {_NAMES[r.of] + ', ' + kind:30} {' '.join(map(_token, tokens[:_TOKENS]))}"
        for r in readings
        if r.region < 0
        for kind, tokens in (("lens", r.lens), ("embedding", r.embedding))
    ]
    return "\n".join(lines)


def _counts(result: Drift) -> str:
    """Sizes of the inventory beside the nulls', by this rule and by the published one."""
    rows = [
        ("confirmed on other documents", len(result.inventory), *map(_span, result.nulls.values())),
        (
            "published: no base document, same documents", result.published,
            *map(_span, result.published_nulls.values()),
        ),
    ]  # fmt: skip
    orders = f"; {_span(result.orders)} in other orders and halves" if result.orders else ""
    return (
        table(("regions by the rule", "found", *result.nulls), rows)
        + f"\n{result.n_regions:,} regions, {result.documents[0]:,} documents that propose and "
        f"{result.documents[1]:,} that confirm, {result.rows:,} rows; {result.proposed:,} proposed"
        + orders
    )


def _span(values: Sequence[int]) -> str:
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _separable(result: Drift) -> str:
    return _wrapped(
        f"A logistic probe tells the tuned model's rows from the base model's with AUROC "
        f"{result.probe_auroc:.3f} on the confirming half; a row moves by {result.moved:.2f} of "
        "the median distance of the base model's rows from their mean."
    )


def _topic(result: Drift) -> str:
    if result.topic is None:
        return ""
    rows = [
        (name, found.flagged, *_share(found))
        for name, found in (
            ("the inventory", result.topic.inventory),
            ("largest along the difference of means", result.topic.difference),
            ("largest along the logistic probe", result.topic.probe),
        )
    ]
    return (
        table(("rows of the confirming half", "rows", "of the topic", "95 %"), rows)
        + f"\n{result.topic.all_rows:.2f} of all rows are of the topic's documents."
    )


def _share(found: Precision) -> tuple[str, str]:
    if math.isnan(found.share.estimate):
        return "–", "–"
    return f"{found.share.estimate:.2f}", f"{found.share.low:.2f}–{found.share.high:.2f}"


def _ranks(readings: Sequence[Reading]) -> str:
    """Where words stand in each reading, the best first."""
    parts = []
    for word in readings[0].ranks:
        found = sorted(
            (rank, _NAMES[r.of] if r.region < 0 else r.of, r.region, kind)
            for r in readings
            for kind, rank in r.ranks[word].items()
        )
        rows = [(name, r if r >= 0 else "", kind, rank) for rank, name, r, kind in found]
        parts.append(
            f"Rank of {visible(word)!r} among all tokens (0 is first)\n"
            + table(("of", "region", "by", "rank"), rows)
        )
    return "\n\n".join(parts)


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, _WIDTH, break_on_hyphens=False)


def drift_summary(result: Drift, readings: Sequence[Reading]) -> dict[str, Any]:
    """The same as plain values; directions are left out."""
    read = {
        (r.of, r.region): {"lens": r.lens, "embedding": r.embedding, "ranks": r.ranks}
        for r in readings
    }
    regions = [
        {
            "number": one.region, "tuned": one.tuned, "base": one.base, "rows": one.rows,
            "p_value": one.p_value, "contexts": one.contexts,
            **{of: read[of, one.region] for of in ("region", "shift", "contrast")},
        }
        for one in result.inventory
    ]  # fmt: skip
    left_out = ("support", "inventory", "proposing", "difference", "probe", "rule", "topic")
    return {
        "answer": drift_sentence(result, readings),
        **{key: value for key, value in vars(result).items() if key not in left_out},
        "rule": vars(result.rule),
        "inventory": regions,
        "baselines": {of: read[of, -1] for of in _NAMES},
        "topic": result.topic,
        "cannot_tell": _CAVEATS,
    }


def drift_figure(result: Drift) -> Figure:
    """Support of every region in both models, and the inventory's size beside the nulls'.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with drawing(6.8, 3.2, columns=2) as (figure, (left, right)):
        tuned, base = result.support.tuned[1], result.support.base[1]
        mine = np.isin(np.arange(len(tuned)), [one.region for one in result.inventory])
        top = max(int(tuned.max(initial=1)), int(base.max(initial=1)))
        left.plot([0, top], [0, top], color=QUIET, linewidth=0.8)
        for chosen, color, label in ((~mine, QUIET, "other"), (mine, COLORS[1], "introduced")):
            left.plot(
                base[chosen], tuned[chosen], "o", markersize=4, color=color, label=label, alpha=0.7,
                linestyle="none",
            )  # fmt: skip
        left.set_xlabel("documents of the base model")
        left.set_ylabel("documents of the tuned model")
        left.set_title("regions, confirming half", fontsize=9)
        left.legend()
        names = ["found", *NULLS]
        values = [(len(result.inventory), *result.orders), *(result.nulls[name] for name in NULLS)]
        for y, several in enumerate(values):
            color = COLORS[1] if y == 0 else QUIET
            right.plot(several, [y] * len(several), "o", color=color, markersize=5, alpha=0.6)
        right.set_yticks(range(len(names)), names)
        right.set_ylim(-0.6, len(names) - 0.4)
        right.set_xlim(left=-0.5)
        right.set_xlabel("introduced regions, each order or draw")
    return figure
