"""A dictionary in one figure: eight regions in words, beside the projected sphere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.characters import visible
from exemplars.dictionary import Dictionary, Region
from exemplars.explorer.sphere import make_sphere
from exemplars.figures import INK, QUIET, drawing
from exemplars.geometry import Float64, Int64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CARDS = 8
COLOURS = (
    "#0b6e99", "#d1495b", "#edae49", "#66a182", "#7d5ba6", "#8d6b4f", "#2f9bc1", "#e07a3f",
)  # fmt: skip
_FRONT = 0.35
"""Cosine with the line of sight from which on a cell is seen well."""
_PIXELS = 1100
_LABELS = 22
_CANDIDATES = 60
_BEFORE, _AFTER, _TOKENS = 46, 30, 5


def splash_figure(dictionary: Dictionary, lens: Any = None) -> Figure:
    """Eight coherent regions with what they read as and a member in context, beside the sphere.

    The regions are the most coherent ones of twenty members or more that one side of the sphere
    shows; the sphere is turned to it. Cells are those of the projected exemplars: a picture, not
    the partition.

    Args:
        dictionary: Of four regions or more, in three dimensions or more.
        lens: The table that is stored beside it, for what regions read as; or None.

    Raises:
        NotDrawableError: There is no sphere.
        ImportError: matplotlib is not installed.
    """
    sphere = make_sphere(dictionary.exemplars, dictionary.counts)
    chosen, sight = in_front(dictionary, sphere.points)
    turned = sphere.points @ _towards(sight).T
    owners, inside = _owners(turned, sphere.radius > 0)
    with drawing(11.0, 5.6, columns=2) as (figure, (left, right)):
        figure.set_layout_engine("none")
        left.set_position((0.015, 0.02, 0.5, 0.9))
        right.set_position((0.53, 0.03, 0.46, 0.9))
        _draw_cards(left, dictionary, lens, chosen)
        _draw_sphere(right, owners, inside, chosen)
        _draw_labels(right, dictionary, lens, owners, inside, chosen)
        title = f"{dictionary.site or 'dictionary'}, p = {dictionary.percentile:g}: "
        title += f"{len(dictionary):,} regions"
        figure.text(0.015, 0.955, _plain(title), fontsize=12, weight="bold", parse_math=False)
        kept = sphere.neighbours_kept
        said = f"projected: {sphere.variance:.0%} of the variance"
        said += "" if np.isnan(kept) else f", {kept:.0%} of the 10 nearest regions kept"
        figure.text(0.985, 0.02, said, fontsize=7, color=QUIET, ha="right")
    return figure


def in_front(dictionary: Dictionary, points: Float64) -> tuple[list[int], Float64]:
    """Up to eight regions to tell of, and the direction from which most of them are seen."""
    counts, coherence = np.asarray(dictionary.counts), np.asarray(dictionary.coherence)
    least = min(20, int(np.quantile(counts, 0.75)))
    order = np.argsort(-np.where(counts >= least, np.nan_to_num(coherence), -1), kind="stable")
    candidates = order[:_CANDIDATES]
    weight = np.linspace(1, 0.3, len(candidates))
    seen = points[candidates] @ points[candidates].T > _FRONT
    sight = points[candidates[int((seen * weight).sum(axis=1).argmax())]]
    front = [int(k) for k in candidates if points[k] @ sight > _FRONT]
    return _apart(front, points)[:CARDS], sight


def _apart(regions: Sequence[int], points: Float64) -> list[int]:
    """Regions of which none lies close to one before it, and after these the others."""
    kept: list[int] = []
    for k in regions:
        if all(points[k] @ points[other] < 0.97 for other in kept):
            kept.append(k)
    return kept + [k for k in regions if k not in kept]


def _towards(sight: Float64) -> Float64:
    """(3, 3) a rotation that turns a direction towards the reader."""
    z = sight / np.linalg.norm(sight)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def _owners(points: Float64, drawn: NDArray[np.bool_]) -> tuple[Int64, NDArray[np.bool_]]:
    """The region at each pixel of an orthographic picture, and which pixels are on the sphere."""
    from scipy.spatial import cKDTree

    line = (np.arange(_PIXELS) + 0.5) / _PIXELS * 2 - 1
    x, y = np.meshgrid(line * 1.02, -line * 1.02)
    square = x * x + y * y
    inside = square < 1
    there = np.flatnonzero(drawn)
    rays = np.c_[x[inside], y[inside], np.sqrt(1 - square[inside])]
    owners = np.full(inside.shape, -1, np.int64)
    owners[inside] = there[cKDTree(points[there]).query(rays)[1]]
    return owners, inside


def _draw_sphere(
    axes: Any, owners: Int64, inside: NDArray[np.bool_], chosen: Sequence[int]
) -> None:
    from matplotlib.colors import to_rgb

    n = int(owners.max()) + 1
    tint = np.random.default_rng(0).uniform(0.86, 0.97, n)
    colours = np.stack([tint, tint, tint * 0.985], axis=1).clip(0, 1)
    for k, colour in zip(chosen, COLOURS, strict=False):
        colours[k] = to_rgb(colour)
    image = np.ones((*owners.shape, 4))
    image[..., 3] = inside
    image[inside, :3] = colours[owners[inside]]
    line = (np.arange(_PIXELS) + 0.5) / _PIXELS * 2.04 - 1.02
    depth = np.sqrt(np.clip(1 - line[None] ** 2 - line[:, None] ** 2, 0, 1))
    image[..., :3] *= (0.72 + 0.28 * depth**0.6)[..., None]
    edge = np.zeros_like(inside)
    edge[:, 1:] |= owners[:, 1:] != owners[:, :-1]
    edge[1:] |= owners[1:] != owners[:-1]
    # Where cells are small, walls would be all there is to see.
    share = np.minimum(1, np.sqrt(np.bincount(owners[inside], minlength=n) / 120.0))
    strength = np.where(inside, share[np.maximum(owners, 0)], 0) * edge * 0.55
    image[..., :3] *= (1 - strength)[..., None]
    axes.imshow(image, extent=(-1.02, 1.02, -1.02, 1.02), interpolation="lanczos")
    axes.set_axis_off()


def _draw_labels(
    axes: Any, dictionary: Dictionary, lens: Any, owners: Int64, inside: NDArray[np.bool_],
    chosen: Sequence[int],
) -> None:  # fmt: skip
    """The chosen regions' letters, and names of the largest other cells where there is room."""
    n = len(dictionary)
    line = np.linspace(-1.02, 1.02, _PIXELS)
    seen = owners[inside]
    area = np.bincount(seen, minlength=n)
    rows, columns = np.nonzero(inside)
    middle = np.stack(
        [np.bincount(seen, line[columns], n), np.bincount(seen, -line[rows], n)], axis=1
    ) / np.maximum(area, 1)[:, None]  # fmt: skip
    taken: list[Float64] = []
    for letter, colour, k in zip("ABCDEFGH", COLOURS, chosen, strict=False):
        if area[k]:
            x, y = middle[k].tolist()
            _badge(axes, x, y, letter, colour)
            taken.append(middle[k])
    named = 0
    for k in np.argsort(-area, kind="stable"):
        if named == _LABELS or not area[k]:
            break
        far = all(np.abs((middle[k] - other) * [0.5, 1.6]).max() > 0.13 for other in taken)
        name = _name(dictionary, lens, int(k))
        if int(k) in chosen or not far or np.hypot(*middle[k]) > 0.9 or not name:
            continue
        axes.text(
            *middle[k], name, ha="center", va="center", fontsize=7, color=INK, parse_math=False,
            bbox={"boxstyle": "round,pad=0.15", "fc": (1, 1, 1, 0.6), "ec": "none"},
        )  # fmt: skip
        taken.append(middle[k])
        named += 1


def _draw_cards(axes: Any, dictionary: Dictionary, lens: Any, chosen: Sequence[int]) -> None:
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    step = 1 / CARDS

    def line(parts: list[tuple[str, dict[str, Any]]], y: float) -> None:
        boxes: list[Any] = [
            TextArea(_plain(text), textprops={"parse_math": False, **s}) for text, s in parts
        ]
        packed = HPacker(children=boxes, align="baseline", pad=0, sep=0)
        where = {"bbox_to_anchor": (0.065, y), "bbox_transform": axes.transData}
        axes.add_artist(
            AnchoredOffsetbox(
                "upper left", child=packed, pad=0, borderpad=0, frameon=False, **where
            )
        )

    for i, k in enumerate(chosen):
        region = dictionary.region(k)
        top = 1 - i * step
        colour = COLOURS[i]
        _badge(axes, 0.025, top - 0.045, "ABCDEFGH"[i], colour)
        about = f"region {k}   {region.count:,} members, coherence {region.coherence:.2f}"
        line([(about, {"fontsize": 7.5, "color": QUIET})], top - 0.012)
        reads = _reads_as(lens, k)
        if reads:
            line([("  ".join(reads), {"fontsize": 9, "weight": "bold", "color": INK})], top - 0.04)
        shown = _member(region)
        if shown is not None:
            before, token, after = shown
            line(
                [
                    (before, {"fontsize": 8.5, "color": INK}),
                    (token, {"fontsize": 8.5, "color": colour, "weight": "bold"}),
                    (after, {"fontsize": 8.5, "color": INK}),
                ],
                top - (0.075 if reads else 0.045),
            )


def _badge(axes: Any, x: float, y: float, letter: str, colour: str) -> None:
    axes.text(
        x, y, letter, ha="center", va="center", color="white", weight="bold", fontsize=9,
        bbox={"boxstyle": "circle,pad=0.25", "fc": colour, "ec": "white", "lw": 1.2},
    )  # fmt: skip


def _member(region: Region) -> tuple[str, str, str] | None:
    """The nearest member that is not the exemplar, in its context; else the exemplar."""
    ranked = sorted(region.contexts, key=lambda c: (c.exemplar, c.nearest_rank < 0, c.nearest_rank))
    if not ranked:
        return None
    c = ranked[0]
    return visible(c.before)[-_BEFORE:], visible(c.text)[:_BEFORE], visible(c.after)[:_AFTER]


def _reads_as(lens: Any, region: int) -> list[str]:
    if lens is None or "exemplar_promoted" not in lens.schema.names:
        return []
    found = lens["exemplar_promoted"][region].as_py() or []
    return [visible(str(token)).strip() or "␣" for token in found[:_TOKENS]]


def _name(dictionary: Dictionary, lens: Any, region: int) -> str:
    """What a cell is called: the first token that it reads as, else its exemplar's token."""
    reads = _reads_as(lens, region)
    if reads:
        return _plain(reads[0])[:14]
    contexts = dictionary.region(region).contexts
    token = next((c.text for c in contexts if c.exemplar), "")
    return _plain(visible(token).strip())[:14]


def _plain(text: str) -> str:
    """Text that the figure's font has; other characters are dots."""
    known = _characters()
    return "".join(c if ord(c) in known else "·" for c in text)


@cache
def _characters() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    found: set[int] = set()
    for weight in ("normal", "bold"):
        path = font_manager.findfont(font_manager.FontProperties(weight=weight))
        characters = set(ft2font.FT2Font(path).get_charmap())
        found = characters if not found else found & characters
    return frozenset(found)
