"""Activation patching as tables, a sentence, and plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exemplars.analyses.patching import CONDITIONS, EXACT, RANDOM, REGION, PatchingReport
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from exemplars.analyses.detection import Interval

_HEADER = ("flips", "95 %", "shift", "95 %", "KL to B", "95 %")


def patching_text(report: PatchingReport) -> str:
    """The conditions, the categories, what was left out, and a sentence."""
    n = len(report.pairs)
    about = report.about
    head = f"{visible(str(about.get('site')))}, {about.get('n_regions', 0):,} regions: " if (
        "site" in about
    ) else ""  # fmt: skip
    head += f"{n:,} pairs of {len(report.items):,} items" + (
        f", drawn from {report.possible:,}" if n < report.possible else ""
    )
    rows = [(name, *_line(report, name, None)) for name in CONDITIONS if name in report.outcomes]
    parts = [
        head,
        table(("at A's fill word", *_HEADER), rows),
        _by_category(report),
        "flips: B's target becomes the likeliest next token; shift: of the logit of B's target "
        "less that of A's; KL to B: from the patched prompt's next token to that of unpatched B, "
        "nats; known: share of items whose target the model says unpatched. Intervals: Wilson's "
        "for flips, else bootstrap over prompts A.",
        patching_sentence(report),
    ]
    left = [f"{count} items were left out: {reason}." for reason, count in report.dropped.items()]
    if report.same_region:
        left.append(
            f"{report.same_region:,} pairs were left out, as both fill words are in one region."
        )
    return "\n\n".join([*parts, *left])


def patching_sentence(report: PatchingReport) -> str:
    """What was found, against the random region and against B's own vector."""
    ours, null, exact = (report.effect(name) for name in (REGION, RANDOM, EXACT))
    assert ours is not None
    assert null is not None
    assert exact is not None
    more = report.more_flips(REGION, RANDOM)
    said = (
        f"B's region flips {_share(ours.flip)} of the pairs, a random region {_share(null.flip)}, "
        f"B's own vector {_share(exact.flip)}"
    )
    if more.low > 0:
        return f"{said}: more than the random region by {_signed(more)}."
    return (
        f"{said}: not told apart from the random region by flips ({_signed(more)}); the shift is "
        f"{_signed(ours.shift)} against {_signed(null.shift)}."
    )


def patching_summary(report: PatchingReport) -> dict[str, Any]:
    """The same as plain values, with every pair."""
    return {
        **report.about,
        "sentence": patching_sentence(report),
        "conditions": {name: report.effect(name) for name in report.outcomes},
        "categories": {
            category: {
                "known": float(report.known[_mine(report, category)].mean()),
                "items": len(_mine(report, category)),
                "regions": len(set(report.regions[_mine(report, category)].tolist())),
                "conditions": {name: report.effect(name, category) for name in report.outcomes},
            }
            for category in report.categories
        },
        "items": [
            {**vars(item), "region": int(region), "known": bool(known)}
            for item, region, known in zip(report.items, report.regions, report.known, strict=True)
        ],
        "pairs": report.pairs,
        "outcomes": report.outcomes,
        "possible_pairs": report.possible,
        "same_region": report.same_region,
        "dropped": report.dropped,
    }


def _by_category(report: PatchingReport) -> str:
    rows = []
    for category in report.categories:
        mine = _mine(report, category)
        found = report.effect(REGION, category)
        null, exact = report.effect(RANDOM, category), report.effect(EXACT, category)
        shares = [f"{e.flip.estimate:.2f}" if e else "–" for e in (found, null, exact)]
        rows.append(
            (
                category, len(mine), len(set(report.regions[mine].tolist())),
                f"{report.known[mine].mean():.2f}", found.n if found else 0,
                shares[0], _span(found.flip) if found else "", *shares[1:],
                f"{found.shift.estimate:+.2f}" if found else "–",
                f"{found.kl.estimate:.2f}" if found else "–",
            )
        )  # fmt: skip
    header = (
        "category", "items", "regions", "known", "pairs", "flips", "95 %", "random", "B's vector",
        "shift", "KL to B",
    )  # fmt: skip
    return table(header, rows)


def _mine(report: PatchingReport, category: str) -> list[int]:
    return [i for i, item in enumerate(report.items) if item.category == category]


def _line(report: PatchingReport, condition: str, category: str | None) -> tuple[str, ...]:
    found = report.effect(condition, category)
    assert found is not None
    return (
        f"{found.flip.estimate:.2f}",
        _span(found.flip),
        f"{found.shift.estimate:+.2f}",
        f"{found.shift.low:+.2f} to {found.shift.high:+.2f}",
        f"{found.kl.estimate:.2f}",
        _span(found.kl),
    )


def _span(found: Interval) -> str:
    return f"{found.low:.2f}–{found.high:.2f}"


def _share(found: Interval) -> str:
    return f"{found.estimate:.2f} ({_span(found)})"


def _signed(found: Interval) -> str:
    return f"{found.estimate:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
