"""Regions of two dictionaries, paired one to one, and what became of each.

A pair is held against two things: what chance gives where nothing corresponds, and what
dictionaries of random halves of one text reach with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.matching import Matching, match_directions
from exemplars.analyses.noise import PairScores, smaller_shares
from exemplars.analyses.overlap import Overlap, match_overlap, permuted
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Float64, Int64, to_directions

SPACES = ("own frames", "one frame", "shared rows")
"""Directions as each dictionary sees them from its own center; both seen from the center of A;
no directions, but the regions that the same rows fall into."""
STATUSES = ("persisted", "moved", "apart", "unclear", "paired")
"""Of a pair: within seed noise; beyond it but better than chance; no better than chance; no better
than chance, as pairs of its share are by seed noise alone; better than chance, with no seed noise
to tell it from."""

CHANCE = 0.975
"""The quantile of pairs where nothing corresponds that a pair has to exceed."""


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Regions of A and B, one to one in one space, and what became of each."""

    space: str
    """One of `SPACES`."""
    method: str
    """How they were matched: "hungarian" or "greedy"."""
    n_regions: tuple[int, int]
    pairs: Int64
    """(P, 2) region of A, region of B."""
    score: Float64
    """(P,) cosine; of shared rows F1."""
    share: Float64
    """(P,) of all members, that the smaller region has."""
    chance: Float64
    """(P,) what 97.5 % of pairs of like share stay below where nothing corresponds."""
    nulls: Mapping[str, tuple[float, ...]]
    """Mean score in each draw of what stands for B."""
    cutoff: Float64 | None
    """(P,) what a small share of pairs of like share stay below by seed noise; None without it."""
    noise: tuple[float, ...]
    """Mean score of each pair of random halves; () without."""
    exceeded: float
    """Mean over the pairs of the part of like pairs of random halves that score more: 1/2 by seed
    noise, 1 where every pair is worse than every pair of halves. NaN without halves."""
    noise_exceeded: tuple[float, ...]
    """The same of each pair of random halves, held against the others."""

    @property
    def status(self) -> NDArray[np.str_]:
        """(P,) of `STATUSES`."""
        above = self.score > self.chance
        if self.cutoff is None:
            return np.where(above, "paired", "apart")
        within = self.score >= self.cutoff
        return np.select(
            [within & above, within, above], ["persisted", "unclear", "moved"], "apart"
        )

    def status_of_regions(self, side: int) -> NDArray[np.str_]:
        """(K,) of A (side 0) or of B (1); "alone" where a region has no partner."""
        found = np.full(self.n_regions[side], "alone", "<U9")
        found[self.pairs[:, side]] = self.status
        return found

    def count(self, status: str) -> int:
        """Pairs of a status."""
        return int((self.status == status).sum())

    @property
    def dropped(self) -> int:
        """Regions of A without a partner, or with one that is no better than chance."""
        return self.n_regions[0] - len(self.pairs) + self.count("apart")

    @property
    def introduced(self) -> int:
        """The same of B."""
        return self.n_regions[1] - len(self.pairs) + self.count("apart")

    @property
    def drift(self) -> float:
        """1 - the mean score of the pairs."""
        return float(1.0 - self.score.mean()) if len(self.score) else float("nan")

    @property
    def below_cutoff(self) -> float:
        """Share of pairs below the cutoff: by seed noise alone it is the cutoff's quantile."""
        if self.cutoff is None or not len(self.score):
            return float("nan")
        return float((self.score < self.cutoff).mean())

    @property
    def drift_of_noise(self) -> tuple[float, float, float] | None:
        """2.5th percentile, median, 97.5th percentile of the drift of random halves."""
        return _span(1.0 - np.array(self.noise))

    @property
    def exceeded_of_noise(self) -> tuple[float, float, float] | None:
        """The same of how far random halves are exceeded by the others."""
        return _span(np.array(self.noise_exceeded))

    @property
    def beyond_noise(self) -> bool | None:
        """Whether pairs are exceeded by more than those of 97.5 % of random halves are; None
        without these.

        Not the mean score decides: it depends on how many small regions there are.
        """
        noise = self.exceeded_of_noise
        return None if noise is None else self.exceeded > noise[2]


def by_direction(
    space: str,
    a: Dictionary,
    b: Dictionary,
    directions: tuple[Float32, Float32],
    *,
    method: str = "auto",
    seeds: Sequence[int] = (0, 1, 2),
    nulls: Mapping[str, Callable[[np.random.Generator], Float32]] | None = None,
    noise: PairScores | None = None,
    quantile: float = 0.05,
) -> Correspondence:
    """Regions paired by their directions.

    Chance is what the same directions of B give after a random rotation: they keep their distances
    to each other and lose all correspondence.

    Args:
        space: One of `SPACES`, to remember.
        a: One dictionary, for its counts.
        b: The other.
        directions: (K_a, D) and (K_b, D), in the space.
        method: Of `match_directions`.
        seeds: A draw of each null for each.
        nulls: More of them: what makes directions that stand for B.
        noise: Cosines of pairs of random halves.
        quantile: See `Correspondence.cutoff`.
    """
    of_a, of_b = directions
    found = match_directions(of_a, of_b, method)
    stand_ins = {"random rotation": lambda random: rotated(of_b, random), **(nulls or {})}
    scores: dict[str, list[float]] = {name: [] for name in stand_ins}
    apart: list[Matching] = []
    for seed in seeds:
        for number, (name, make) in enumerate(stand_ins.items()):
            drawn = match_directions(of_a, make(np.random.default_rng([seed, number])), method)
            scores[name].append(_mean(drawn.cosines))
            apart += [drawn] if name == "random rotation" else []
    share = smaller_shares(found, a, b)
    chance = PairScores(
        np.concatenate([drawn.cosines for drawn in apart]),
        np.concatenate([smaller_shares(drawn, a, b) for drawn in apart]),
        np.repeat(np.arange(len(apart)), [len(drawn.cosines) for drawn in apart]),
    )
    return Correspondence(
        space=space,
        method=found.method,
        n_regions=(len(of_a), len(of_b)),
        pairs=found.pairs,
        score=found.cosines,
        share=share,
        chance=chance.cutoff(share, CHANCE),
        nulls={name: tuple(values) for name, values in scores.items()},
        cutoff=None if noise is None else noise.cutoff(share, quantile),
        noise=() if noise is None else tuple(noise.means().tolist()),
        exceeded=float("nan") if noise is None else _mean(noise.exceeding(found.cosines, share)),
        noise_exceeded=() if noise is None else tuple(noise.exceeding_of_splits().tolist()),
    )


def by_rows(
    labels: tuple[Int64, Int64],
    overlap: Overlap,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    noise: PairScores | None = None,
    quantile: float = 0.05,
) -> Correspondence:
    """Regions paired by the rows that they share.

    Args:
        labels: (N,) the region of each row in A, and in B; -1 for none.
        overlap: `match_overlap` of them.
        seeds: A permutation of the rows for each.
        noise: F1 of pairs of random halves.
        quantile: See `Correspondence.cutoff`.
    """
    of_a, of_b = labels
    n_a, n_b = len(overlap.sizes_a), len(overlap.sizes_b)
    drawn = [
        match_overlap(of_a, permuted(of_b, np.random.default_rng(seed)), n_a, n_b, overlap.method)
        for seed in seeds
    ]
    chance = PairScores(
        np.concatenate([null.f1 for null in drawn]),
        np.concatenate([null.smaller for null in drawn]),
        np.repeat(np.arange(len(drawn)), [len(null.f1) for null in drawn]),
    )
    share = overlap.smaller
    return Correspondence(
        space=SPACES[2],
        method=overlap.method,
        n_regions=(n_a, n_b),
        pairs=overlap.pairs,
        score=overlap.f1,
        share=share,
        chance=chance.cutoff(share, CHANCE),
        nulls={"permuted rows": tuple(_mean(null.f1) for null in drawn)},
        cutoff=None if noise is None else noise.cutoff(share, quantile),
        noise=() if noise is None else tuple(noise.means().tolist()),
        exceeded=float("nan") if noise is None else _mean(noise.exceeding(overlap.f1, share)),
        noise_exceeded=() if noise is None else tuple(noise.exceeding_of_splits().tolist()),
    )


def rotated(directions: Float32, random: np.random.Generator) -> Float32:
    """All directions after one random rotation (or reflection): angles between them stay."""
    width = directions.shape[1]
    axes, triangle = np.linalg.qr(random.standard_normal((width, width)))
    axes *= np.sign(np.diag(triangle))  # uniform over all rotations
    turned: Float32 = directions @ axes.astype(np.float32)
    return turned


def seen_from(
    directions: Float32, center: Float32, norms: Float64, other_center: Float32
) -> Float32:
    """Directions about one center as directions about another.

    x = center + norm · direction is exact as far as the norm is: a dictionary does not keep those
    of its exemplars.

    Args:
        directions: (K, D) unit directions about `center`; NaN rows stay NaN.
        center: (D,).
        norms: (K,) lengths of x - center, in activation units.
        other_center: (D,).
    """
    if np.array_equal(center, other_center):
        return directions
    raw = center + norms[:, None].astype(np.float32) * directions
    moved = to_directions(np.ascontiguousarray(raw, np.float32), other_center)[0]
    moved[~np.isfinite(raw).all(axis=1)] = np.nan
    return moved


def _span(values: Float64) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return float(low), float(middle), float(high)


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")
