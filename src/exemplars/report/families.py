"""A comparison of two models by shared prompts as a sentence, tables, plain values and a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.families import ALL, FamilyComparison, TripGrid, grid_mean
from exemplars.figures import QUIET, drawing
from exemplars.geometry import Float64
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANCE = 0.05


def families_text(found: FamilyComparison) -> str:
    """The answer, round trips beside their nulls, the partitions themselves, and the caveats."""
    one, two = (visible(name) for name in found.models)
    ways = ", ".join(
        f"{visible(name)} {'through its chat template' if chat else 'as plain text'}"
        for name, chat in zip(found.models, found.chat, strict=True)
    )
    wording = list(found.grids[0].texts)
    return "\n\n".join(
        [
            families_answer(found),
            f"{_prompts(found)}; final positions; read by {ways}; {len(found.sites[0])} sites of "
            f"{one} ({_sizes(found.n_regions[0])} regions) and {len(found.sites[1])} of {two} "
            f"({_sizes(found.n_regions[1])}) at p = {found.percentile:g}; {len(found.seeds)} "
            "orders of the prompts",
            table(
                ("round trips", "regions", "return", "orders", "by chance", "same class",
                 "same order", "other order", "p", "p, class"),
                [_line(grid) for grid in found.grids],
            ),
            table(
                ("round trips", *wording, "pairs above text", "itself, other order",
                 "itself, other layers"),
                [_text_line(grid, wording) for grid in found.grids],
            ),
            "Shares of regions whose exemplar's way through the other model leads back, means over "
            "all pairs of sites. By chance: prompts matched at random, exact; same class: within "
            "their class. Same order: prompts matched by their place in two unlike orders, so that "
            "only the order is shared. Other order: each model has an order of its own. Wordings "
            "stand in the other model's place, with as many regions as it has (last word: as many "
            "as there are). Itself: through the same model. p: of the mean over the grid, against "
            f"{found.draws:,} random matchings.",
            _best(found.grids[0], found),
            table(
                ("the same prompts together (adjusted Rand)", "mean over pairs"),
                _rand_lines(found),
            ),
            "This does not say that the models represent prompts for the same reasons, nor by "
            "directions that correspond: only which prompts lie together. Layers of a model are "
            "alike, so the pairs of the grid are far fewer than they seem.",
        ]
    )  # fmt: skip


def families_answer(found: FamilyComparison) -> str:
    """A sentence: do these models represent the same prompts together?"""
    grid = found.grids[0]
    question = "Do these models represent the same prompts together?"
    if not math.isfinite(grid.mean):
        return f"{question} That cannot be told: no region is {visible(grid.subset)}."
    text = grid.best_text
    there = (
        f"{_percent(grid.mean)} of round trips return ({_of(grid)}; mean over all pairs of sites), "
        f"{_percent(grid_mean(grid.chance))} would by chance, "
        f"{_percent(grid_mean(grid.same_order))} if nothing but the order of prompts were shared, "
        f"{_percent(grid_mean(grid.texts[text]))} with the wording alone in the other model's "
        f"place ({text}), and {_percent(grid_mean(grid.itself_other_layers))} between layers of "
        "one model."
    )
    return f"{question} {verdict(grid)}: {there}"


def verdict(grid: TripGrid) -> str:
    """In a few words. Beyond the wording: in every order, the grid's mean is above the best one."""
    if grid.p_grid > _CHANCE:
        return "Not more than chance"
    if grid.mean <= grid_mean(grid.same_order):
        return "Not more than a shared order of prompts gives"
    above = grid.by_order > grid.texts_by_order[grid.best_text]
    if above.all():
        return "Yes, more than their wording gives"
    if above.any():
        return "More than chance, but not surely more than their wording gives"
    return "More than chance, but not more than their wording gives"


def families_summary(found: FamilyComparison) -> dict[str, Any]:
    """As plain values, grids whole."""
    return {
        "answer": families_answer(found),
        "models": found.models,
        "sites": found.sites,
        "chat": found.chat,
        "classes": _class_sizes(found),
        "left_out": found.prompts.left_out,
        "percentile": found.percentile,
        "seeds": found.seeds,
        "draws": found.draws,
        "regions": found.n_regions,
        "round_trips": found.grids,
        "adjusted_rand": {
            "estimate": found.rand,
            "other_order": found.rand_other_order,
            "texts": found.rand_texts,
            "classes": found.rand_classes,
        },
    }


def families_figure(found: FamilyComparison) -> Figure:
    """Heat maps over all pairs of sites: round trips both ways, and the best wording for the first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    there = found.grids[0]
    back = found.grid(there.subset, 1)
    text = there.best_text
    panels = (
        (there.estimate, f"{visible(there.start)} → and back"),
        (back.estimate.T, f"{visible(back.start)} → and back"),
        (there.texts[text], f"first, {text} in place of the second"),
    )
    top = max(0.2, *(float(np.nanmax(np.nan_to_num(values))) for values, _ in panels))
    with drawing(9.2, 3.3, columns=3) as (figure, axes):
        for place, (values, title) in zip(axes, panels, strict=True):
            image = place.imshow(
                values, origin="lower", vmin=0, vmax=top, cmap="cividis", aspect="auto"
            )
            place.set_title(title, fontsize=8)
            place.grid(visible=False)
            place.set_xlabel(f"site of {visible(found.models[1])}", color=QUIET)
        axes[0].set_ylabel(f"site of {visible(found.models[0])}", color=QUIET)
        figure.colorbar(image, ax=list(axes), label=f"share that returns, {visible(there.subset)}")
    return figure


def _line(grid: TripGrid) -> tuple[Any, ...]:
    return (
        _name(grid),
        f"{_mean(grid.n_regions):.1f}",
        _share(grid.mean),
        f"{_share(np.nanmin(grid.by_order))}–{_share(np.nanmax(grid.by_order))}"
        if np.isfinite(grid.by_order).any()
        else "–",
        _share(grid_mean(grid.chance)),
        _share(grid_mean(grid.chance_in_class)),
        _share(grid_mean(grid.same_order)),
        _share(grid_mean(grid.other_order)),
        _p(grid.p_grid),
        _p(grid.p_grid_in_class),
    )


def _text_line(grid: TripGrid, wording: list[str]) -> tuple[Any, ...]:
    return (
        _name(grid),
        *(_share(grid_mean(grid.texts[name])) for name in wording),
        _percent(grid.share_above_text),
        _share(grid_mean(grid.itself_other_order)),
        _share(grid_mean(grid.itself_other_layers)),
    )


def _rand_lines(found: FamilyComparison) -> list[tuple[str, str]]:
    lines = [
        ("the two models, one order", grid_mean(found.rand)),
        ("the two models, two orders", grid_mean(found.rand_other_order)),
        *(
            (f"{visible(found.models[0])} and {name}", grid_mean(values))
            for name, values in found.rand_texts.items()
        ),
    ]
    if len(found.prompts.classes) > 1:
        lines += [
            (f"{visible(name)} and the classes", grid_mean(values))
            for name, values in zip(found.models, found.rand_classes, strict=True)
        ]
    return [(name, _share(value)) for name, value in lines]


def _best(grid: TripGrid, found: FamilyComparison) -> str:
    """The pair of sites of most returns, chosen with this look."""
    if not np.isfinite(grid.estimate).any():
        return "No pair of sites has regions to start from."
    a, b = np.unravel_index(
        int(np.nan_to_num(grid.estimate, nan=-1.0).argmax()), grid.p_values.shape
    )
    n = int((grid.p_values < _CHANCE).sum())
    return (
        f"Best pair, chosen by this look: {found.sites[0][a]} and {found.sites[1][b]}, "
        f"{_percent(grid.estimate[a, b])}, p = {_p(grid.p_values[a, b])} in the first order, "
        f"corrected over the grid; so corrected, {n:,} of {grid.p_values.size:,} pairs lie above "
        f"chance (p < {_CHANCE:g})."
    )  # fmt: skip


def _prompts(found: FamilyComparison) -> str:
    sizes = _class_sizes(found)
    said = f"{len(found.prompts):,} prompts"
    if len(sizes) > 1:
        said += f" ({', '.join(f'{n:,} {visible(name)}' for name, n in sizes.items())})"
    if found.prompts.left_out:
        said += f", {found.prompts.left_out:,} left out so that classes have equal size"
    return said


def _class_sizes(found: FamilyComparison) -> dict[str, int]:
    counted = np.bincount(found.prompts.label, minlength=len(found.prompts.classes))
    return dict(zip(found.prompts.classes, counted.tolist(), strict=True))


def _name(grid: TripGrid) -> str:
    return f"from {grid.start} through {grid.through}, {grid.subset}"


def _of(grid: TripGrid) -> str:
    which = "" if grid.subset == ALL else f"{visible(grid.subset)}, "
    return f"{which}from {visible(grid.start)} through {visible(grid.through)}"


def _sizes(n_regions: Float64) -> str:
    low, high = round(float(n_regions.min())), round(float(n_regions.max()))
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _share(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "–"


def _p(value: float) -> str:
    return f"{value:.3f}"
