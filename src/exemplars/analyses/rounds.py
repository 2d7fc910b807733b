"""Round trips between two partitions of the same prompts, and what chance makes of them.

An exemplar is a prompt, so partitions of different spaces can be compared by which prompts stand
for their regions. From a region r of one partition: the prompt that founded r lies in some region
of the other; the prompt that founded that one lies in some region of the first. The round trip
*returns* if that is r.

Source: Rumbelow 2026 (arXiv:2605.14347), app. E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float64, Int64

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PromptRegions:
    """A partition of P prompts into K regions, each of which a prompt stands for."""

    name: str
    """The site, or the kind of wording."""
    region: Int64
    """(P,) of each prompt; -1 for one without a direction."""
    exemplar: Int64
    """(K,) number of the prompt that stands for each region, a member of it."""

    def __len__(self) -> int:
        return len(self.exemplar)

    @property
    def to_exemplar(self) -> Int64:
        """(P,) the prompt that stands for each prompt's region; -1 where it has none."""
        found: Int64 = np.append(self.exemplar, -1)[self.region]
        return found

    def renumbered(self, number: Int64) -> PromptRegions:
        """The same partition of prompts that are called otherwise: prompt i becomes number[i]."""
        region = np.empty_like(self.region)
        region[number] = self.region
        return PromptRegions(self.name, region, number[self.exemplar])

    def sizes(self, strata: Int64) -> Int64:
        """(K, S) prompts of each stratum in each region."""
        n_strata = int(strata.max()) + 1
        held = self.region >= 0
        cells = self.region[held] * n_strata + strata[held]
        counted = np.bincount(cells, minlength=len(self) * n_strata)
        return counted.reshape(len(self), n_strata).astype(np.int64)


def returns(one: PromptRegions, other: PromptRegions) -> Bools:
    """(K,) whether the round trip from each region of `one` through `other` comes back."""
    over = other.to_exemplar[one.exemplar]
    back = np.append(one.region, -2)[over]  # -1 leads nowhere
    found: Bools = back == np.arange(len(one))
    return found


def chance_of_return(one: PromptRegions, other: PromptRegions, strata: Int64) -> Float64:
    """The exact chance of each return if prompts were matched at random between the partitions.

    The matching is a random bijection that keeps every prompt in its stratum. Let x stand for
    region r, y be x's match, and z stand for y's region in `other`. If z = y the trip returns; if
    not, z's match is any prompt of z's stratum but x.

    Args:
        one: K regions of P prompts.
        other: Of the same prompts.
        strata: (P,) from 0; all 0 for any bijection, or the classes of the prompts.

    Returns:
        (K,) in [0, 1].
    """
    total = np.bincount(strata)
    n_strata, prompts = len(total), np.arange(len(strata))
    over = other.to_exemplar
    fixed = np.bincount(strata[over == prompts], minlength=n_strata) / total
    moved = (over >= 0) & (over != prompts)
    to = np.zeros((n_strata, n_strata))
    np.add.at(to, (strata[moved], strata[over[moved]]), 1.0)
    own = strata[one.exemplar]
    here = np.arange(n_strata) == own[:, None]
    others = np.maximum(total - here, 1)  # of a stratum of one prompt none is moved within it
    landing = (one.sizes(strata) - here) / others
    return fixed[own] + (to[own] / total[own, None] * landing).sum(axis=1)


def random_matching(strata: Int64, rng: np.random.Generator) -> Int64:
    """(P,) a random bijection that keeps every prompt in its stratum."""
    matching = np.empty(len(strata), np.int64)
    matching[np.argsort(strata, kind="stable")] = np.lexsort((rng.random(len(strata)), strata))
    return matching


def permuted_counts(
    ones: Sequence[PromptRegions],
    others: Sequence[PromptRegions],
    chosen: Sequence[Bools],
    strata: Int64,
    draws: int,
    seed: int,
) -> Int64:
    """Returns under random matchings, the same matching for all pairs of a draw.

    Args:
        ones: A partitions.
        others: B partitions of the same prompts.
        chosen: Of each of `ones`, (G, K) which regions are counted, in G groups.
        strata: (P,) kept by the matching.
        draws: Matchings.
        seed: Of the first.

    Returns:
        (draws, G, A, B) regions that return.
    """
    over = np.stack([other.to_exemplar for other in others])
    counted = np.empty((draws, len(chosen[0]), len(ones), len(others)), np.int64)
    weights = [np.ascontiguousarray(groups.T, np.float32) for groups in chosen]
    for draw in range(draws):
        matching = random_matching(strata, np.random.default_rng([seed, 0xB1, draw]))
        inverse = np.append(np.empty_like(matching), -1)
        inverse[matching] = np.arange(len(matching))
        landed = inverse[over[:, matching]]  # (B, P) prompts of `ones`; -1 leads nowhere
        for k, one in enumerate(ones):
            back = np.append(one.region, -2)[landed[:, one.exemplar]]
            home = (back == np.arange(len(one))).astype(np.float32)
            counted[draw, :, k] = np.rint(home @ weights[k]).astype(np.int64).T
    return counted


def corrected_p_values(
    observed: Float64, drawn: Float64, expected: Float64
) -> tuple[Float64, float]:
    """One-sided p-values of a grid of shares, and of their mean.

    Every cell is measured in standard deviations of its draws above its exact expectation. A
    cell's p-value is the share of draws in which *any* cell lies as far above: the family-wise
    error over the grid is controlled, however its cells depend on each other (Westfall and Young
    1993). What was observed counts as one draw more.

    Args:
        observed: (A, B) shares.
        drawn: (draws, A, B) shares under the null.
        expected: (A, B) under the null.

    Returns:
        (A, B) p-values, 1 where no draw varies and none exceeds; and that of the grid's mean.
    """
    spread = drawn.std(axis=0)
    usable = spread > 0
    scale = np.where(usable, spread, np.inf)
    above = (observed - expected) / scale
    largest = ((drawn - expected) / scale).max(axis=(1, 2))
    exceed = (largest[:, None, None] >= above - 1e-12).sum(axis=0)
    cells = np.where(usable, (1 + exceed) / (1 + len(drawn)), 1.0)
    means = drawn.mean(axis=(1, 2))
    return cells, float((1 + (means >= observed.mean() - 1e-12).sum()) / (1 + len(drawn)))
