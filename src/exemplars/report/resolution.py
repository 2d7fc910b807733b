"""Regions across resolutions, their relatives, paths and distinctions, as text and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses import paths, resolution
from exemplars.analyses.distinctions import INDEXES, Distinction, Distinctions, Score
from exemplars.analyses.paths import Chance, Paths, Reading, RegionPath, reading
from exemplars.analyses.relatives import Relative, Relatives
from exemplars.analyses.resolution import LABELS, Level, Resolutions, Share, Step
from exemplars.figures import COLORS, GRID, INK, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from exemplars.dictionary import Dictionary

PERMUTED, RANDOM = resolution.NULLS
PAIRS, ROWS = paths.NULLS
_BEFORE, _AFTER = 28, 12


def resolution_text(result: Resolutions, dictionaries: Sequence[Dictionary]) -> str:
    """What a finer resolution shows that a coarser one does not, level by level and step by step.

    Args:
        result: The comparison.
        dictionaries: Those compared, from coarse to fine.
    """
    first, last = result.levels[0], result.levels[-1]
    parts = [_headline(result)]
    if result.rows:
        parts.append(
            table(
                ("p", "θ", "regions", "met", "bits", *_named_header()),
                [_level_line(level) for level in result.levels],
            )
        )
    else:
        parts.append(
            table(
                ("p", "θ", "regions"),
                [(f"{x.percentile:g}", f"{x.threshold:.4f}", x.n_regions) for x in result.levels],
            )
        )
    parts.append(_steps_table(result))
    if result.rows:
        parts += [_splits(result.steps[-1], dictionaries[-2], dictionaries[-1])]
        dropped = f"; {result.dropped:,} left out, as a build would" if result.dropped else ""
        few = (
            " (too few: runs of rows stand for them, and intervals are too narrow)"
            if result.runs
            else ""
        )
        parts.append(
            f"{result.rows:,} rows, documents: {result.documents:,}{few}{dropped}. Two thirds are "
            "evaluated: what is named on one half of them is counted on the other. Nulls, mean of "
            f"{len(result.seeds)} draws: permuted rows keep the regions' sizes; random rows are as "
            "many rows of the other third as exemplars."
        )
    parts.append(
        "It cannot conclude that a finer region is a part of a coarser one, nor that what it names "
        "is what it means: where random rows name as much, the number of regions does it, not "
        "their choice. Shares are of these rows; other text gives others."
        if result.rows
        else f"It cannot conclude what the {last.n_regions:,} regions tell that the "
        f"{first.n_regions:,} do not: that takes rows. Give --text or --activations, best such as "
        "the build has not read."
    )
    return "\n\n".join(parts)


def relatives_text(
    dictionary: Dictionary,
    region: int,
    found: Sequence[Relatives],
    dictionaries: Sequence[Dictionary],
) -> str:
    """A region's relatives at each other resolution.

    Args:
        dictionary: Whose region.
        region: Its number.
        found: What `relatives` gave, one for each other dictionary.
        dictionaries: From coarse to fine, `dictionary` among them.
    """
    own = dictionary.region(region)
    by_threshold = {d.threshold: d for d in dictionaries}
    parts = [
        f"Region {own.index} at p = {dictionary.percentile:g} ({own.count:,} members; "
        f"{_excerpt(reading(dictionary, own.index))}) {_shared_out(found)}"
    ]
    for one in found:
        other = by_threshold[one.threshold]
        word = "finer" if one.finer else "coarser"
        counts = (
            f"; {one.rows:,} rows in effectively {one.pieces:.1f} regions "
            f"({one.pieces_by_chance:.1f} by chance)"
            if one.rows
            else "; shares take rows"
        )
        more = f"\n{one.left_out:,} more" if one.left_out else ""
        parts.append(
            f"{word}, p = {one.percentile:g}, {one.n_regions:,} regions; exemplars inside: "
            f"{one.inside}{counts} (by {one.source})\n"
            + table(
                ("region", "share", "95 %", "chance", "of its own", "cosine", "", "exemplar"),
                [_relative_line(r, other) for r in one.relatives],
            )
            + more
        )
    parts.append(
        "share: of this region's rows, those that lie in the other; of its own: of the other's "
        "rows, those that lie in this one. Regions are not nested, so neither need be 100 %. By "
        "kept members, shares are of at most 30 sampled members, and coarser regions have none. "
        "It cannot conclude that what shares many rows means the same."
    )
    return "\n\n".join(parts)


def paths_text(result: Paths) -> str:
    """The way between two regions at each resolution, beside random ones."""
    a, b = result.regions
    header = (
        "p", "regions", "from", "to", "distance", "hops", "pairs", "random rows", "stretch",
        "pairs", "random rows", "shared", "pairs", "random rows", "kept", "by chance",
    )  # fmt: skip
    parts = [_paths_headline(result), table(header, [_path_line(path) for path in result.paths])]
    for path in result.paths:
        lines = [f"p = {path.percentile:g}: {_joined(path)}"]
        lines += [f"  {r.region:>6}  {_excerpt(r):<44}  {_words(r)}" for r in path.readings]
        if path.shared_readings:
            lines.append(f"  between both, nearest of {path.shared:,}:")
            lines += [
                f"  {r.region:>6}  {_excerpt(r):<44}  {_words(r)}" for r in path.shared_readings
            ]
        parts.append("\n".join(lines).rstrip())
    way = "sum of angles" if result.weighted else "number of hops"
    parts.append(
        f"Each region is joined to its {result.neighbours} nearest by {result.basis}; paths have "
        f"the least {way}. Stretch: angles along the path over the angle between its ends. Pairs: "
        "means of random pairs about as far apart; random rows: of paths between the same two "
        f"exemplars through random rows ({result.draws} draws), where rows were given. Shared: "
        "regions nearer to both than these are to each other; kept: of those at p = "
        f"{result.percentile:g}, the share that is still so; *: the region that the exemplar asked "
        "for lies in. It cannot conclude that a model goes this way, or that a path between "
        f"{a} and {b} means more than one between any two regions, unless it is beyond both "
        "nulls."
    )
    return "\n\n".join(parts)


def distinctions_text(result: Distinctions) -> str:
    """At which percentile each label appears, and at which it is told apart best."""
    parts = ["\n".join(_appears(found) for found in result.distinctions)]
    for found in result.distinctions:
        classes = ", ".join(f"{visible(name)} {n:,}" for name, n in found.classes.items())
        parts.append(
            f"{visible(found.label)}: {classes}\n"
            + table(
                ("p", "θ", "regions", "ARI", "of seeds", "chance", "AMI", "chance", "purity",
                 "chance", "named", "chance", ""),
                [
                    (
                        f"{s.percentile:g}", f"{s.threshold:.4f}", f"{s.regions:.0f}",
                        *_ari(s.scores["ARI"]),
                        *(
                            part
                            for index in INDEXES[1:]
                            for part in _with_chance(s.scores[index])
                        ),
                        "above chance" if s.percentile in found.above_chance else "",
                    )
                    for s in found.separations
                ],
            )
        )  # fmt: skip
    if result.ladder is not None:
        parts += _ladder(result)
    of = "partitions of the texts themselves" if result.own else "the dictionaries' regions"
    parts.append(
        f"{result.texts:,} texts, {result.rows:,} rows, {of}; {len(result.seeds)} halvings: all "
        "numbers are of the half that chose nothing, chance is the 97.5th percentile of "
        f"{result.permutations} permutations of the labels{_within(result)}. "
        "Named: the share of rows whose label is the commonest of their region on the other half. "
        "It cannot conclude that the model uses a distinction, nor that one is absent from the "
        "activations because no region shows it: a probe may still find it."
    )
    return "\n\n".join(parts)


def resolution_figure(result: Resolutions) -> Figure:
    """What regions name at each percentile, and how far steps nest; without rows, the exemplars.

    Raises:
        ImportError: matplotlib is not installed.
    """
    at = [f"{level.percentile:g}" for level in result.levels]
    steps = [f"{step.coarse:g}→{step.fine:g}" for step in result.steps]
    with drawing(7.2, 3.2, columns=2) as (figure, axes):
        if result.rows:
            for name, color in zip(LABELS, COLORS, strict=False):
                shares = [level.named[name] for level in result.levels]
                _line(axes[0], at, shares, name, color)
                _null_line(axes[0], at, [s.nulls[RANDOM] for s in shares], color)
            axes[0].set_ylabel("rows whose label is their region's")
            nested = [step.nested for step in result.steps if step.nested is not None]
            _line(axes[1], steps, nested, "nested", COLORS[0])
            _null_line(axes[1], steps, [s.nulls[RANDOM] for s in nested], COLORS[0])
            _null_line(axes[1], steps, [s.nulls[PERMUTED] for s in nested], QUIET)
            axes[1].set_ylabel("rows in their finer region's\nmain coarser region")
        else:
            axes[0].bar(at, [level.n_regions for level in result.levels], color=COLORS[0])
            axes[0].set_ylabel("regions")
            axes[0].set_yscale("log")
            axes[1].set_ylabel("coarser exemplars that founded a finer region")
        shared = [step.shared_exemplars for step in result.steps]
        axes[1].plot(steps, shared, marker="s", color=COLORS[1], label="shared exemplars")
        axes[0].set_xlabel("percentile p (small: many regions)")
        axes[1].set_xlabel("step")
        axes[1].set_ylim(0, 1)
        if result.rows:
            for axis in axes:
                axis.plot([], [], ":", color=COLORS[0], linewidth=1, label="random rows")
            axes[1].plot([], [], ":", color=QUIET, linewidth=1, label="permuted rows")
            axes[0].legend(fontsize=7)
        axes[1].legend(fontsize=7)
    return figure


def relatives_figure(dictionary: Dictionary, region: int, found: Sequence[Relatives]) -> Figure:
    """One bar for each resolution, cut by the shares of the region's rows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    lines: list[Relatives | None] = [*found]
    lines.insert(sum(not one.finer for one in found), None)  # its own, in its place
    names = []
    with drawing(7.2, 0.9 + 0.55 * len(lines)) as (figure, axes):
        for line, one in enumerate(lines):
            if one is None:
                names.append(f"p = {dictionary.percentile:g}")
                _bar(axes, line, 0.0, 1.0, f"region {region}", QUIET)
                continue
            names.append(f"p = {one.percentile:g}{'' if one.rows else ' (shares unknown)'}")
            left = 0.0
            for number, relative in enumerate(one.relatives):
                share = relative.share if one.rows else 1 / len(one.relatives)
                color = COLORS[number % len(COLORS)] if one.rows else GRID
                _bar(axes, line, left, share, str(relative.region), color)
                left += share
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the region's rows (regions are not nested)")
        axes.grid(False)
    return figure


def paths_figure(result: Paths) -> Figure:
    """Hops and stretch at each resolution, beside pairs as far apart.

    Raises:
        ImportError: matplotlib is not installed.
    """
    at = [f"{path.percentile:g}" for path in result.paths]
    with drawing(7.2, 3.0, columns=2) as (figure, axes):
        for axis, name in zip(axes, ("hops", "stretch"), strict=True):
            own = [getattr(p, name) if p.hops >= 0 else np.nan for p in result.paths]
            axis.plot(at, own, marker="o", color=COLORS[0], label="the path")
            for null, style in ((PAIRS, ":"), (ROWS, "--")):
                found = [getattr(p.nulls[null], name, ()) if null in p.nulls else ()
                         for p in result.paths]  # fmt: skip
                means = [np.mean(v) if len(v) else np.nan for v in found]
                axis.plot(at, means, style, color=QUIET, label=null)
                if null == PAIRS:
                    low, high = (
                        [np.quantile(v, q) if len(v) else np.nan for v in found]
                        for q in (0.025, 0.975)
                    )
                    axis.fill_between(at, low, high, color=QUIET, alpha=0.15, linewidth=0)
            axis.set_ylabel(name)
            axis.set_xlabel("percentile p (small: many regions)")
        axes[0].legend(fontsize=7)
    return figure


def distinctions_figure(result: Distinctions) -> Figure:
    """ARI of each label against the percentile, with the band of permuted labels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    at = [f"{p:g}" for p in result.percentiles]
    with drawing(6.4, 3.4) as (figure, axes):
        for number, found in enumerate(result.distinctions):
            scores = [s.scores["ARI"] for s in found.separations]
            color = COLORS[number % len(COLORS)]
            axes.plot(at, [s.estimate for s in scores], marker="o", markersize=3, color=color,
                      label=visible(found.label))  # fmt: skip
            axes.fill_between(
                at, [s.low for s in scores], [s.high for s in scores], color=color, alpha=0.15,
                linewidth=0,
            )  # fmt: skip
            axes.plot(at, [s.null_high for s in scores], ":", color=QUIET, linewidth=0.8)
        axes.set_xlabel("percentile p (small: many regions)")
        axes.set_ylabel("adjusted Rand index, other half")
        axes.legend(fontsize=7)
    return figure


def _headline(result: Resolutions) -> str:
    first, last = result.levels[0], result.levels[-1]
    span = f"From p = {first.percentile:g} to p = {last.percentile:g}"
    regions = f"the {first.n_regions:,} regions become {last.n_regions:,}"
    known = [s for s in result.steps if not np.isnan(s.shared_exemplars)]
    shared = ""
    if known:
        low, high = (f([s.shared_exemplars for s in known]) for f in (min, max))
        chance = max(s.shared_by_chance for s in known)
        span_shared = f"{low:.0%} to {high:.0%}" if len(known) > 1 else f"{low:.0%}"
        shared = (
            f"{span_shared} of a coarser dictionary's exemplars founded a region of the "
            f"next finer one (of random rows, {chance:.1%} at most)"
        )
    if not result.rows:
        return f"{span} {regions}{'; ' + shared if shared else ''}."
    shown = "; ".join(_named(name, first.named[name], last.named[name]) for name in LABELS)
    worst = min((s.nested for s in result.steps if s.nested), key=lambda s: s.estimate)
    nests = (
        f"They do not nest: in a step, down to {_percent(worst)} of rows lie in the coarser region "
        f"that their finer one mostly lies in (random rows {_mean(worst.nulls[RANDOM])}, permuted "
        f"{_mean(worst.nulls[PERMUTED])})"
    )
    return (
        f"{span} {regions}, and a row's region tells {last.entropy_bits - first.entropy_bits:.1f} "
        f"bits more. It then names {shown}. {nests}{'; ' + shared if shared else ''}."
    )


def _named(name: str, first: Share, last: Share) -> str:
    return (
        f"the {name} of {_percent(last)} of rows in place of {_percent(first)} (random rows as "
        f"exemplars {_mean(last.nulls[RANDOM])}, permuted {_mean(last.nulls[PERMUTED])})"
    )


def _named_header() -> tuple[str, ...]:
    return tuple(part for name in LABELS for part in (name, "random rows", "permuted"))


def _level_line(level: Level) -> tuple[Any, ...]:
    return (
        f"{level.percentile:g}", f"{level.threshold:.4f}", level.n_regions, level.met,
        f"{level.entropy_bits:.2f}",
        *(
            part
            for name in LABELS
            for part in (
                _interval(level.named[name]),
                _mean(level.named[name].nulls[RANDOM]),
                _mean(level.named[name].nulls[PERMUTED]),
            )
        ),
    )  # fmt: skip


def _steps_table(result: Resolutions) -> str:
    header = ["step", "exemplars shared", "by chance", "finer exemplars inside"]
    if result.rows:
        header += ["nested", "random rows", "permuted", "by exemplar", "random rows", "bits added",
                   "bits lost", "lost by chance"]  # fmt: skip
    lines = []
    for step in result.steps:
        low, middle, high = step.inside
        line = [
            f"{step.coarse:g} → {step.fine:g}",
            "–" if np.isnan(step.shared_exemplars) else f"{step.shared_exemplars:.1%}",
            "–" if np.isnan(step.shared_by_chance) else f"{step.shared_by_chance:.1%}",
            f"{low:.0f} / {middle:g} / {high:.0f}",
        ]
        if step.nested is not None and step.holder is not None:
            line += [
                _interval(step.nested), _mean(step.nested.nulls[RANDOM]),
                _mean(step.nested.nulls[PERMUTED]), _interval(step.holder),
                _mean(step.holder.nulls[RANDOM]), f"{step.added_bits:.2f}",
                f"{step.lost_bits:.2f}", f"{np.mean(step.lost_by_chance):.2f}",
            ]  # fmt: skip
        lines.append(line)
    note = "finer exemplars inside a coarser region: least / median / most"
    if result.rows:
        note += (
            "; nested: rows in the commonest coarser region of their finer one; by exemplar: rows "
            "in the coarser region that their finer region's exemplar lies in"
        )
    return f"{table(header, lines)}\n{note}"


def _splits(step: Step, coarse: Dictionary, fine: Dictionary) -> str:
    lines = [
        (
            split.region, split.rows, f"{split.pieces:.1f}", f"{split.pieces_by_chance:.1f}",
            _excerpt(reading(coarse, split.region)),
            " ".join(f"‹{visible(reading(fine, k).text)}›" for k in split.largest[:6]),
        )
        for split in step.splits
    ]  # fmt: skip
    title = f"divided most from p = {step.coarse:g} to p = {step.fine:g}"
    header = ("region", "rows", "pieces", "by chance", "exemplar", "exemplars of the largest")
    return f"{title}\n{table(header, lines)}"


def _shared_out(found: Sequence[Relatives]) -> str:
    """What the finest resolution with rows does to the region."""
    known = [one for one in found if one.rows and one.finer]
    coarser = next((one for one in reversed(found) if not one.finer), None)
    said = []
    if known:
        one = known[-1]
        top = one.relatives[0]
        said.append(
            f"is shared out at p = {one.percentile:g} over effectively {one.pieces:.1f} regions "
            f"({one.pieces_by_chance:.1f} by chance), the largest with {top.share:.0%} of its rows "
            f"({top.low:.0%} to {top.high:.0%})"
        )
    if coarser is not None:
        holder = next(r for r in coarser.relatives if r.holds_exemplar)
        share = "" if np.isnan(holder.share) else f", as do {holder.share:.0%} of its rows"
        said.append(
            f"has its exemplar in region {holder.region} at p = {coarser.percentile:g}{share}"
        )
    if not said:
        one = found[-1]
        said.append(f"holds {one.inside} exemplars of p = {one.percentile:g}")
    return f"{', and '.join(said)}."


def _relative_line(relative: Relative, other: Dictionary) -> tuple[Any, ...]:
    marks = [
        name
        for name, yes in (
            ("same exemplar", relative.same_exemplar),
            ("holds", relative.holds_exemplar and not relative.same_exemplar),
            ("held", relative.exemplar_inside and not relative.same_exemplar),
        )
        if yes
    ]
    known = not np.isnan(relative.share)
    return (
        relative.region,
        f"{relative.share:.0%}" if known else "–",
        f"{relative.low:.0%}–{relative.high:.0%}" if known else "",
        f"{relative.share_by_chance:.1%}" if known else "–",
        "–" if np.isnan(relative.share_of_relative) else f"{relative.share_of_relative:.0%}",
        f"{relative.similarity:.2f}",
        ", ".join(marks),
        _excerpt(reading(other, relative.region)),
    )


def _paths_headline(result: Paths) -> str:
    a, b = result.regions
    joined = [p for p in result.paths if p.hops > 0 and p.nulls[PAIRS].hops]
    if not joined:
        return (
            f"Regions {a} and {b} (p = {result.percentile:g}) are one region, or have no path, at "
            "every resolution given."
        )
    first, last = joined[0], joined[-1]
    said = [
        f"{path.hops} hop{'s' * (path.hops != 1)} at p = {path.percentile:g} (pairs as far apart "
        f"{np.mean(path.nulls[PAIRS].hops):.1f}; {_rank(path.hops, path.nulls[PAIRS].hops)})"
        for path in (first, last)[: min(len(joined), 2)]
    ]
    return (
        f"Between regions {a} and {b} (p = {result.percentile:g}) the path has "
        f"{' and '.join(said)}."
    )


def _rank(value: float, null: Sequence[float]) -> str:
    fewer = np.mean(np.asarray(null) < value)
    equal = np.mean(np.asarray(null) == value)
    return f"{fewer:.0%} of them have fewer, {equal:.0%} as many"


def _path_line(path: RegionPath) -> tuple[Any, ...]:
    def means(name: str) -> tuple[str, str]:
        nulls = (path.nulls.get(null) for null in (PAIRS, ROWS))
        first, second = (_mean_of(null, name) for null in nulls)
        return first, second

    marks = ["" if same else "*" for same in path.same_exemplar]
    return (
        f"{path.percentile:g}", path.n_regions,
        *(f"{end}{mark}" for end, mark in zip(path.ends, marks, strict=True)),
        f"{path.direct:.3f}", str(path.hops) if path.hops >= 0 else "none", *means("hops"),
        f"{path.stretch:.2f}" if path.hops >= 0 else "–", *means("stretch"), path.shared,
        *means("shared"),
        "–" if np.isnan(path.shared_kept) else f"{path.shared_kept:.0%}",
        f"{path.shared_kept_by_chance:.0%}",
    )  # fmt: skip


def _mean_of(null: Chance | None, name: str) -> str:
    values = () if null is None else getattr(null, name)
    return f"{np.mean(values):.2f}" if len(values) else "–"


def _joined(path: RegionPath) -> str:
    if path.hops < 0:
        return "no path"
    if path.hops == 0:
        return "one region"
    words = (visible(r.text) or str(r.region) for r in path.readings)
    return " → ".join(f"‹{word}›" for word in words)


def _excerpt(found: Reading) -> str:
    if not found.text:
        return f"region {found.region}"
    return (
        f"{visible(found.before)[-_BEFORE:]}»{visible(found.text)}«{visible(found.after)[:_AFTER]}"
    )


def _words(found: Reading) -> str:
    return " ".join(f"‹{visible(token)}›" for token in found.promoted)


def _appears(found: Distinction) -> str:
    name = visible(found.label)
    name += "" if found.within is None else f", within the classes of {visible(found.within)},"
    if found.appears_at is None:
        return f"{name} appears at no percentile (ARI within chance)."
    score = found.at_chosen
    chosen = sorted(set(found.chosen), reverse=True)
    where = f"{chosen[0]:g}" if len(chosen) == 1 else f"{chosen[0]:g} to {chosen[-1]:g}"
    return (
        f"{name} appears at p = {found.appears_at:g} and is told apart best at p = {where}, "
        f"chosen on half of the texts: ARI {score.estimate:.2f} on the other ({score.low:.2f} to "
        f"{score.high:.2f}; permuted labels up to {score.null_high:.2f})."
    )


def _within(result: Distinctions) -> str:
    if result.within is None:
        return ""
    name = visible(result.within)
    return f", those of other labels within the classes of {name}: what they add to it"


def _ari(score: Score) -> tuple[str, str, str]:
    return f"{score.estimate:.2f}", f"{score.low:.2f}–{score.high:.2f}", f"{score.null_high:.2f}"


def _with_chance(score: Score) -> tuple[str, str]:
    return f"{score.estimate:.2f}", f"{score.null_high:.2f}"


def _ladder(result: Distinctions) -> list[str]:
    ladder = result.ladder
    assert ladder is not None
    return [
        "pairs of texts, by the labels in which they agree\n"
        + table(
            ("agree in", "pairs", "distance, quartiles"),
            [
                (_agree(g.agree), g.pairs, " / ".join(f"{q:.3f}" for q in g.quartiles))
                for g in ladder.groups
            ],
        ),
        "how often a pair of the one is nearer than one of the other\n"
        + table(
            ("agree in", "agree in", "nearer", "95 %", "permuted"),
            [
                (
                    _agree(c.nearer), _agree(c.farther), f"{c.probability:.2f}",
                    f"{c.low:.2f}–{c.high:.2f}", f"{c.null_low:.2f}–{c.null_high:.2f}",
                )
                for c in ladder.comparisons
            ],
        ),
    ]  # fmt: skip


def _agree(names: Iterable[str]) -> str:
    return ", ".join(visible(name) for name in names) or "none"


def _percent(share: Share) -> str:
    return f"{share.estimate:.0%}"


def _interval(share: Share) -> str:
    if np.isnan(share.low):
        return f"{share.estimate:.1%}"
    return f"{share.estimate:.1%} ({share.low:.1%}–{share.high:.1%})"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1%}" if len(values) else "–"


def _line(axis: Any, at: Sequence[str], shares: Sequence[Share], name: str, color: str) -> None:
    axis.plot(at, [s.estimate for s in shares], marker="o", color=color, label=name)
    axis.fill_between(
        at, [s.low for s in shares], [s.high for s in shares], color=color, alpha=0.15, linewidth=0
    )


def _bar(axis: Any, line: int, left: float, share: float, name: str, color: str) -> None:
    axis.barh(line, share, left=left, color=color, edgecolor="white", linewidth=0.8)
    if share > 0.05:
        ink = "white" if color in (QUIET, COLORS[0], COLORS[1], COLORS[4], COLORS[5]) else INK
        at = left + share / 2
        axis.text(at, line, name, ha="center", va="center", fontsize=6.5, color=ink)


def _null_line(axis: Any, at: Sequence[str], nulls: Sequence[Sequence[float]], color: str) -> None:
    axis.plot(at, [np.mean(v) if len(v) else np.nan for v in nulls], ":", color=color, linewidth=1)
