"""How regions of one resolution are shared out over those of the next, for all regions at once.

The dictionaries of one pass sample members by one hash of rows, so a sampled member of a coarse
region is nearly always a kept member of its finer region. That gives the shares of a coarse region
directly; those of a fine one by weighing each sampled member with the members it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exemplars.analyses.relatives import KeptMembers
from exemplars.analyses.resolution import contingency, effective_pieces, same_stream
from exemplars.dictionary import Dictionary
from exemplars.explorer.columns import Column
from exemplars.explorer.relations import Members, related
from exemplars.explorer.views import View
from exemplars.geometry import Float64, Int64

LEAST = 5
"""Sampled members that a share is estimated from, at least."""


def add_shares(views: Mapping[str, View], members: Members, slug: str) -> None:
    """Know where a dictionary's regions lie at the next coarser and the next finer resolution.

    Of columns, `parent` and `parent_share` are of the coarser one, `pieces` of the finer one. Where
    the dictionaries keep no members in common, they are not known.
    """
    near, own = related(views, slug), views[slug]
    if near["coarser"]:
        other = views[near["coarser"][0]]
        found = _between(other, own, members)
        if found is not None:
            own.add_columns(_parents(own, other, found))
    if near["finer"]:
        other = views[near["finer"][0]]
        found = _between(own, other, members)
        if found is not None:
            pieces = np.where(_sampled(found) >= LEAST, effective_pieces(found), np.nan)
            what = f"regions of {other.slug} that its members are shared out over: exp of the"
            text = f"{what} entropy, among up to 30 sampled members"
            own.add_columns({"pieces": Column(pieces.astype(np.float32), "regions", text)})


def shared_members(
    coarse: Dictionary, fine: Dictionary, kept: tuple[KeptMembers, KeptMembers]
) -> Any:
    """How many sampled members of each coarse region lie in each finer one.

    Args:
        coarse: Of the same stream as `fine`.
        fine: The finer one.
        kept: The members that the two keep.

    Returns:
        A sparse array (K of the coarse, K of the fine) of counts.
    """
    regions = kept[1].region_of(kept[0].sample_row)
    there = regions >= 0
    return contingency(kept[0].sample_region[there], regions[there], len(coarse), len(fine))


def largest_parents(table: Any, counts: Int64) -> tuple[Int64, Float64]:
    """The coarse region that holds most members of each finer one, and the share it holds.

    Both are estimated: each sampled member stands for as many as its coarse region has for each.

    Args:
        table: Of `shared_members`.
        counts: (K of the coarse,) members.

    Returns:
        parents: (K of the fine,) -1 where fewer than 5 sampled members are known.
        shares: (K of the fine,) NaN likewise.
    """
    some = table.tocoo()
    sampled = np.asarray(table.sum(axis=1), np.float64).ravel()
    weight = np.asarray(counts, np.float64) / np.maximum(sampled, 1)
    members = some.data * weight[some.row]
    n = table.shape[1]
    # The largest of each finer region comes last of its own; ties go to the lower coarse region.
    order = np.lexsort((-some.row, members, some.col))
    column = some.col[order]
    last = np.flatnonzero(np.append(column[1:] != column[:-1], True)) if len(column) else column
    parents, shares = np.full(n, -1, np.int64), np.full(n, np.nan)
    whole = np.bincount(some.col, members, minlength=n)
    parents[column[last]] = some.row[order][last]
    shares[column[last]] = members[order][last] / whole[column[last]]
    few = np.asarray(table.sum(axis=0)).ravel() < LEAST
    parents[few], shares[few] = -1, np.nan
    return parents, shares


def _between(coarse: View, fine: View, members: Members) -> Any:
    """The shared members of two; None where they are of different streams or keep none."""
    one, two = coarse.dictionary, fine.dictionary
    if one.provenance.get("texts") is None or not same_stream(one, two):
        return None
    mine, theirs = members.of(coarse), members.of(fine)
    return None if mine is None or theirs is None else shared_members(one, two, (mine, theirs))


def _parents(own: View, coarser: View, table: Any) -> dict[str, Column]:
    parents, shares = largest_parents(table, np.asarray(coarser.dictionary.counts))
    known = own.columns.get("parent")
    if known is not None:
        parents = np.where(parents < 0, known.values, parents)
    where = (
        f"region of {coarser.slug} that holds most of its members, by those that both keep; where "
        f"fewer than {LEAST} are known, the one that holds its exemplar"
    )
    share = f"share of its members in that region of {coarser.slug}, estimated from {LEAST} or more"
    return {
        "parent": Column(parents.astype(np.int32), "region", where),
        "parent_share": Column(shares.astype(np.float32), "share", share),
    }


def _sampled(table: Any) -> Int64:
    return np.asarray(table.sum(axis=1), np.int64).ravel()
