"""What one reads of a comparison: the largest changes, with texts of both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.correspondence import Correspondence
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float64, Int64

if TYPE_CHECKING:
    from scipy.sparse import csr_array

KINDS = ("moved", "dropped", "introduced")
TEXTS = 3
"""Contexts shown of a region: the nearest members."""

_BEFORE, _AFTER = 40, 20


@dataclass(frozen=True)
class Change:
    """A region that moved, was dropped, or was introduced."""

    kind: str
    """One of `KINDS`."""
    region_a: int | None
    """None where there is no partner."""
    region_b: int | None
    score: float
    """Of the pair: cosine or F1; NaN where there is none."""
    cutoff: float
    """What seed noise gives pairs of this share at the least; NaN where not known."""
    share_a: float
    """Share of A's members that the region has; NaN where there is none."""
    share_b: float
    rows_with: tuple[int, float] | None
    """The region of the other side that has most of its rows, and the share of them; of a region
    that moved, where A's rows are in B. None without shared rows."""
    texts_a: tuple[str, ...]
    """Contexts of the nearest members, the token between ⟦ and ⟧."""
    texts_b: tuple[str, ...]


def changes_of(
    a: Dictionary,
    b: Dictionary,
    found: Correspondence,
    went_to: tuple[Int64, Float64] | None,
    came_from: tuple[Int64, Float64] | None,
    n: int,
) -> tuple[Change, ...]:
    """The n largest changes of each kind.

    Pairs that moved are ordered by how far below the cutoff they are; regions that were dropped or
    introduced by their members.

    Args:
        a: One dictionary.
        b: The other.
        found: Their regions in pairs.
        went_to: For each region of A, the region of B that has most of its rows, and their share.
        came_from: The same for each region of B.
        n: Of each kind.
    """
    shares = [d.counts / max(int(d.counts.sum()), 1) for d in (a, b)]
    partner = np.full(len(a), -1), np.full(len(b), -1)
    place = np.full(len(a), -1), np.full(len(b), -1)
    for side in (0, 1):
        partner[side][found.pairs[:, side]] = found.pairs[:, 1 - side]
        place[side][found.pairs[:, side]] = np.arange(len(found.pairs))

    def change(kind: str, side: int, region: int) -> Change:
        other = int(partner[side][region]) if kind == "moved" else -1
        own: list[int | None] = [None, None]
        own[side], own[1 - side] = region, None if other < 0 else other
        at = int(place[side][region])
        flow = (went_to, came_from)[side]
        return Change(
            kind=kind,
            region_a=own[0],
            region_b=own[1],
            score=float(found.score[at]) if at >= 0 else float("nan"),
            cutoff=float(found.cutoff[at])
            if at >= 0 and found.cutoff is not None
            else float("nan"),
            share_a=float("nan") if own[0] is None else float(shares[0][own[0]]),
            share_b=float("nan") if own[1] is None else float(shares[1][own[1]]),
            rows_with=None if flow is None else _flow(flow, region),
            texts_a=() if own[0] is None else texts_of_region(a, own[0]),
            texts_b=() if own[1] is None else texts_of_region(b, own[1]),
        )

    chosen = []
    if found.cutoff is not None:
        moved = np.flatnonzero(found.status == "moved")
        order = np.argsort((found.score - found.cutoff)[moved], kind="stable")[:n]
        chosen += [change("moved", 0, int(r)) for r in found.pairs[moved[order], 0]]
    for side, kind in ((0, "dropped"), (1, "introduced")):
        lost = np.flatnonzero(np.isin(found.status_of_regions(side), ("apart", "alone")))
        order = np.argsort(-shares[side][lost], kind="stable")[:n]
        chosen += [change(kind, side, int(r)) for r in lost[order]]
    return tuple(chosen)


def texts_of_region(dictionary: Dictionary, region: int, n: int = TEXTS) -> tuple[str, ...]:
    """The nearest members of a region in their text; () where no text was kept."""
    contexts = () if dictionary.contexts is None else dictionary.contexts.region(region)
    return tuple(
        f"{context.before[-_BEFORE:]}⟦{context.text}⟧{context.after[:_AFTER]}"
        for context in contexts[:n]
        if context.before or context.text
    )


def text_overlap(
    a: Dictionary, b: Dictionary, pairs: Int64, random: np.random.Generator
) -> tuple[float, float]:
    """How far the kept contexts of partners are of the same tokens.

    Returns:
        The mean over pairs of the Jaccard index of their distinct tokens, and the same of partners
        drawn at random; NaN where no texts were kept.
    """
    if a.contexts is None or b.contexts is None or not len(pairs):
        return float("nan"), float("nan")
    tables = [d.contexts.table() for d in (a, b) if d.contexts is not None]
    sides = [(t["region"].to_numpy(), t["text"].to_pylist()) for t in tables]
    known = {text: k for k, text in enumerate(sorted({t for _, texts in sides for t in texts}))}
    if not any(known):
        return float("nan"), float("nan")
    sets = [
        _sets(region, np.array([known[text] for text in texts]), len(d), len(known))
        for (region, texts), d in zip(sides, (a, b), strict=True)
    ]
    i, j = pairs.T
    return _jaccard(sets[0][i], sets[1][j]), _jaccard(sets[0][i], sets[1][random.permutation(j)])


def _sets(region: Int64, text: Int64, n_regions: int, n_texts: int) -> csr_array:
    """Sparse 0/1 array (K, distinct tokens)."""
    from scipy.sparse import csr_array

    cells = np.unique(region.astype(np.int64) * n_texts + text)
    ones = np.ones(len(cells))
    return csr_array((ones, (cells // n_texts, cells % n_texts)), shape=(n_regions, n_texts))


def _jaccard(one: Any, other: Any) -> float:
    both = one.multiply(other).sum(axis=1)
    either = one.sum(axis=1) + other.sum(axis=1) - both
    some = either > 0
    return float((both[some] / either[some]).mean()) if some.any() else float("nan")


def _flow(flow: tuple[Int64, Float64], region: int) -> tuple[int, float] | None:
    to, share = flow
    return (int(to[region]), float(share[region])) if to[region] >= 0 else None
