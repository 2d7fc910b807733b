"""Paths through the regions of several sites as a sentence, tables, plain values and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.alignment import VIEWS, CategoryDistances, Centering, LensAlignment
from exemplars.analyses.trajectories import Chance, Flow, SetOverlap, SetPaths, TokenPaths
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.labels.detection import wilson
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEVEL = 0.05
_BLOCKS = 8
"""Regions of a site that a figure shows by themselves."""


@dataclass(frozen=True, eq=False)
class TrajectoryReport:
    """All that was asked of the paths of some prompts."""

    paths: TokenPaths
    flows: tuple[Flow, ...]
    sets: tuple[SetPaths, ...]
    overlaps: tuple[SetOverlap, ...]
    """Empty of one set; so are the next two."""
    categories: tuple[CategoryDistances, ...]
    centering: tuple[Centering, ...]
    lens: tuple[LensAlignment, ...]
    """Empty unless asked for."""


def trajectories_text(report: TrajectoryReport, top: int = 5) -> str:
    """The answer, then a table for each question."""
    parts = [
        trajectories_answer(report),
        _read(report.paths),
        _flow_table(report.flows),
        *(_path_table(found, report.paths, top) for found in report.sets),
    ]
    if report.overlaps:
        parts.append(_overlap_table(report.overlaps))
    if report.categories:
        parts.append(_category_table(report.categories))
    if report.centering:
        parts.append(_centering_table(report.centering))
    if report.lens:
        parts.append(_lens_table(report.lens))
    parts.append(
        "A path does not say that one region causes the next: tokens of one kind lie together at "
        "every site. Tokens of a text, and prompts made from one template, are alike, so that they "
        "are fewer than they seem."
    )
    return "\n\n".join(parts)


def trajectories_answer(report: TrajectoryReport) -> str:
    """A sentence: through which regions do the prompts pass, and do sets part?"""
    first = report.sets[0]
    said = "Which regions do these prompts pass through? "
    if first.prompts:
        said += (
            f"Most often {_path(first.paths[0])} ({'/'.join(report.paths.sites)}; "
            f"{_percent(first.shares[0])} of {first.prompts:,} prompts of {visible(first.name)}, "
            f"{_percent(first.independent[0])} if sites were independent). "
        )
    else:
        said += f"No prompt of {visible(first.name)} has a region at every site. "
    flow = min(report.flows, key=lambda found: found.mutual_information_bits)
    said += (
        f"A token's region at one site tells at least {flow.mutual_information_bits:.1f} of "
        f"{flow.target_entropy_bits:.1f} bits of its region at the next "
        f"({flow.chance_given_token.mean:.1f} by its token alone). "
    )
    if report.categories:
        apart = [c.site for c in report.categories if _is_apart(c, len(report.categories))]
        n = len(report.categories)
        said += (
            f"Prompts of one set end in regions closer together than prompts of two sets at "
            f"{len(apart)} of {n} sites."
        )
    return said.strip()


def trajectories_summary(report: TrajectoryReport) -> dict[str, Any]:
    """As plain values; the paths of single tokens are left out."""
    paths = report.paths
    return {
        "answer": trajectories_answer(report),
        "sites": paths.sites,
        "n_regions": paths.n_regions,
        "prompts": dict(zip(paths.sets, np.bincount(paths.label).tolist(), strict=True)),
        "tokens": len(paths.prompt),
        "outside": _outside(paths),
        "flows": report.flows,
        "paths": report.sets,
        "overlaps": report.overlaps,
        "categories": report.categories,
        "centering": report.centering,
        "lens": report.lens,
    }


def trajectories_figure(report: TrajectoryReport) -> Figure:
    """Final positions of all prompts from site to site: blocks are regions, bands are prompts.

    Each site shows its most frequent regions and all others in one block; colours are sets.

    Raises:
        ImportError: matplotlib is not installed.
    """
    paths = report.paths
    final, label = paths.final_regions, paths.label
    kept = (final >= 0).all(axis=1)
    final, label = final[kept], label[kept]
    blocks = [_blocks(final[:, s]) for s in range(final.shape[1])]
    with drawing(7.2, 4.2) as (figure, axes):
        heights = [_draw_blocks(axes, s, *found) for s, found in enumerate(blocks)]
        for s in range(len(blocks) - 1):
            _draw_bands(axes, s, blocks[s : s + 2], heights[s : s + 2], label)
        axes.set_xlim(-0.25, len(blocks) - 0.75)
        axes.set_xticks(range(len(blocks)), [visible(site) for site in paths.sites])
        axes.set_yticks([])
        axes.grid(visible=False)
        for edge in ("left", "bottom"):
            axes.spines[edge].set_visible(False)
        for number, name in enumerate(paths.sets):
            axes.plot([], [], color=_color(number), linewidth=5, label=visible(name))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=min(len(paths.sets), 5))
    return figure


def _blocks(region: Any) -> tuple[Any, list[str]]:
    """The block of each prompt at a site, and the blocks' names; the rest is the last."""
    found, counts = np.unique(region, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    shown = order if len(order) <= _BLOCKS + 1 else order[:_BLOCKS]
    place = np.full(len(region), len(shown))
    for k, number in enumerate(shown):
        place[region == number] = k
    names = [str(number) for number in shown]
    rest = len(order) - len(shown)
    return place, names + ([f"{rest} others"] if rest else [])


def _draw_blocks(axes: Any, s: int, place: Any, names: Sequence[str]) -> list[float]:
    """Where each block begins, from below; blocks are drawn with gaps between them."""
    gap, at, starts = 0.03 * max(len(place), 1), 0.0, []
    for k, name in enumerate(names):
        size = int((place == k).sum())
        axes.add_patch(_rectangle((s - 0.03, at), 0.06, size))
        axes.text(s, at + size / 2, name, ha="center", va="center", fontsize=6.5, zorder=4)
        starts.append(at)
        at += size + gap
    return starts


def _rectangle(corner: tuple[float, float], width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, facecolor="white", edgecolor=QUIET, zorder=3)


def _draw_bands(axes: Any, s: int, blocks: Any, starts: Any, label: Any) -> None:
    """Bands between two sites, ordered so that those of a block lie side by side."""
    (one, _), (two, _) = blocks
    filled = [list(map(float, part)) for part in starts]
    bend = np.linspace(0, 1, 40)
    smooth = bend * bend * (3 - 2 * bend)
    triples = np.stack([one, two, label], axis=1)
    kinds, counts = np.unique(triples, axis=0, return_counts=True)
    left = {}
    for kind, n in zip(kinds, counts, strict=True):
        left[tuple(kind)] = filled[0][kind[0]]
        filled[0][kind[0]] += n
    for k in np.lexsort((kinds[:, 2], kinds[:, 0], kinds[:, 1])):
        kind, n = kinds[k], counts[k]
        low, high = left[tuple(kind)], filled[1][kind[1]]
        filled[1][kind[1]] += n
        line = low + (high - low) * smooth
        axes.fill_between(
            s + 0.03 + bend * 0.94, line, line + n, color=_color(int(kind[2])), alpha=0.55,
            linewidth=0,
        )  # fmt: skip


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _read(paths: TokenPaths) -> str:
    sizes = np.bincount(paths.label)
    sets = ", ".join(f"{n:,} {visible(name)}" for name, n in zip(paths.sets, sizes, strict=True))
    outside = ", ".join(_percent(share) for share in _outside(paths))
    return (
        f"{len(paths.prompts):,} prompts ({sets}), {len(paths.prompt):,} tokens; sites "
        f"{', '.join(paths.sites)} with {', '.join(f'{k:,}' for k in paths.n_regions)} regions; "
        f"{outside} of the tokens lie farther than θ from every exemplar. Flows are of all tokens, "
        "all else is of final positions."
    )


def _outside(paths: TokenPaths) -> list[float]:
    """Of each site, the share of tokens beyond the threshold."""
    return [float((paths.distance[:, s] > 1).mean()) for s in range(len(paths.sites))]


def _flow_table(flows: Sequence[Flow]) -> str:
    lines = [
        (
            f"{flow.sites[0]} → {flow.sites[1]}", f"{flow.rows:,}", f"{len(flow.count):,}",
            f"{flow.target_entropy_bits:.2f}", f"{flow.conditional_entropy_bits:.2f}",
            f"{flow.mutual_information_bits:.2f}", _span(flow.chance, 2),
            _span(flow.chance_given_token, 2), _p(flow.chance_given_token.p_value),
        )
        for flow in flows
    ]  # fmt: skip
    header = (
        "flows", "tokens", "different", "entropy, bits", "given source", "information", "by chance",
        "by token alone", "p, token",
    )  # fmt: skip
    return table(header, lines)


def _path_table(found: SetPaths, paths: TokenPaths, top: int) -> str:
    lines = []
    for k in range(min(top, len(found.counts))):
        _, low, high = wilson(int(found.counts[k]), found.prompts)
        lines.append(
            (
                _path(found.paths[k]), int(found.counts[k]), _percent(found.shares[k]),
                f"{100 * low:.0f}–{100 * high:.0f} %", _percent(found.independent[k]),
            )
        )  # fmt: skip
    against = ""
    if math.isfinite(found.chance.mean):
        against = (
            f"; as many prompts of all sets have {found.chance.mean:.1f} "
            f"({found.chance.low:.0f}–{found.chance.high:.0f}), p = {_p(found.chance.p_value)}"
        )
    head = (
        f"{visible(found.name)}: {len(found.counts):,} different paths of {found.prompts:,} "
        f"prompts{against}"
    )
    names = (f"path ({'/'.join(paths.sites)})", "prompts", "share", "95 %", "if independent")
    return head + "\n" + table(names, lines)


def _overlap_table(overlaps: Sequence[SetOverlap]) -> str:
    lines = []
    for found in overlaps:
        both = ((found.jaccard, found.jaccard_chance), (found.shared, found.shared_chance))
        numbers = [(f"{value:.2f}", _span(c, 2), _p(c.p_value)) for value, c in both]
        names = (found.site, " and ".join(found.sets), " and ".join(map(str, found.regions)))
        lines.append((*names, *numbers[0], *numbers[1]))
    header = (
        "site", "sets", "regions", "Jaccard", "shuffled", "p", "shared", "shuffled ", "p ",
    )  # fmt: skip
    return table(header, lines) + (
        "\nJaccard of the regions that two sets end in; shared: of their shares of prompts. "
        "Shuffled: with the prompts' sets shuffled, 95 % of draws."
    )


def _category_table(categories: Sequence[CategoryDistances]) -> str:
    lines = [
        (
            found.site, " ".join(map(str, found.regions)), f"{found.cohesion:.3f}",
            f"{found.separation:.3f}", f"{found.difference:+.3f}", _span(found.chance, 3),
            _p(found.chance.p_value), _number(found.cohesion_apart), _p(found.chance_apart.p_value),
        )
        for found in categories
    ]  # fmt: skip
    header = (
        "site", "regions of each set", "within", "between", "difference", "shuffled", "p",
        "within, as published", "p ",
    )  # fmt: skip
    return table(header, lines) + (
        "\nMean cosine distance of the exemplars of two prompts' regions, 0 for a pair in one "
        "region; as published: such pairs left out within a set."
    )


def _centering_table(centering: Sequence[Centering]) -> str:
    lines = []
    for found in centering:
        for v, view in enumerate(VIEWS):
            purity = [f"{value:.3f}" for value in found.purity[v]]
            gains = [""] * len(found.neighbours)
            if v:
                gains = [
                    f"{g:+.3f} (p {_p(p)})"
                    for g, p in zip(found.gains[v - 1], found.p_gains[v - 1], strict=True)
                ]
            order = "" if not v else f"{found.same_order[v - 1]:.3f}"
            lines.append((found.site, view, *purity, *gains, f"{found.gap[v]:.3f}", order))
    first = centering[0]
    ks = [str(k) for k in first.neighbours]
    header = ("site", "vectors less", *(f"purity, {k}" for k in ks), *(f"gain, {k}" for k in ks),
              "gap", "order as raw")  # fmt: skip
    return table(header, lines) + (
        "\nShare of a prompt's nearest prompts that are of its set; "
        f"{first.chance:.3f} by chance. Gap: (between − within)/between of cosine distances."
    )


def _lens_table(lens: Sequence[LensAlignment]) -> str:
    lines = [
        (
            found.site, found.regions, f"{found.correlation:.3f}", _span(found.chance, 3),
            _p(found.chance.p_value),
            f"{min(found.rotated):.3f} to {max(found.rotated):.3f}" if found.rotated else "–",
        )
        for found in lens
    ]  # fmt: skip
    header = ("site", "regions", "Spearman", "permuted", "p", "exemplars turned at random")
    return table(header, lines) + (
        "\nDistances of regions against Jensen-Shannon divergences of what the logit lens reads "
        "them as. Turned at random, exemplars keep their distances and lose what they mean."
    )


def _is_apart(found: CategoryDistances, n: int) -> bool:
    """At a level that holds over n sites together."""
    return found.difference > found.chance.mean and found.chance.p_value * n <= _LEVEL


def _path(regions: Any) -> str:
    return " → ".join(str(int(region)) for region in regions)


def _span(chance: Chance, digits: int) -> str:
    if not math.isfinite(chance.mean):
        return "–"
    return f"{chance.low:.{digits}f}–{chance.high:.{digits}f}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _p(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
