"""What dictionaries of one and the same thing differ by: the yardstick of every comparison.

Leader clustering depends on the order of its rows and on the documents that happen to be read. Two
dictionaries of random halves of one text differ by both; two of the same documents in another
order differ by order alone. Whatever is said to have changed between two dictionaries has to be
held against that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from exemplars.analyses.labelled import OnStep
from exemplars.analyses.matching import Matching, match_directions
from exemplars.analyses.overlap import Overlap, match_overlap
from exemplars.calibration import Calibration, as_vectors
from exemplars.dictionary import Dictionary, partition, take_census
from exemplars.errors import FormatError
from exemplars.geometry import Float64, Int64, to_directions, vector_norms

FEWEST_PAIRS = 100
"""Pairs of the baseline that a cutoff for regions of like share is taken from, at least."""

KINDS = ("halves", "orders")
"""Pairs of dictionaries: of two random halves of the documents, for A and B of different documents;
or of all of them in two random orders, for A and B of the same rows."""

_BLOCK = 4096
_KIND = "exemplars seed noise"


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of matched regions of many pairs of dictionaries."""

    score: Float64
    """(P,) cosine of the pair, or F1 of its rows."""
    share: Float64
    """(P,) of all members, that the smaller of its two regions has, in [0, 1]."""
    split: Int64
    """(P,) which pair of dictionaries it is of."""

    def means(self) -> Float64:
        """(S,) mean score of each pair of dictionaries."""
        return np.bincount(self.split, self.score) / np.bincount(self.split)

    def cutoff(self, share: Float64, quantile: float) -> Float64:
        """The score that a part `quantile` of pairs of like share lies below.

        Shares are alike if they lie between the same powers of 1/2; neighbouring classes are joined
        until each has `FEWEST_PAIRS` pairs. Not the number of members decides: most of the noise is
        which of several rows founded the region, and that does not shrink with more rows.

        Args:
            share: (n,) of the smaller region of a pair.
            quantile: In (0, 1).

        Returns:
            (n,) a cutoff for each; NaN if there are no pairs to take it from.
        """
        if not len(self.score):
            return np.full(len(share), np.nan)
        edges = self._classes()
        own, asked = (np.searchsorted(edges, x, "right") for x in (self.share, share))
        levels = [np.quantile(self.score[own == k], quantile) for k in range(1, len(edges) + 1)]
        return np.array(levels)[asked - 1]

    def exceeding(self, score: Float64, share: Float64) -> Float64:
        """Of each score, the part of pairs of like share that score more; ties count half.

        Args:
            score: (n,).
            share: (n,) of the smaller region of a pair.

        Returns:
            (n,) in [0, 1], on the average 1/2 where scores are of the same kind; NaN if there are
            no pairs to hold them against.
        """
        found = np.full(len(score), np.nan)
        if not len(self.score):
            return found
        edges = self._classes()
        own, asked = (np.searchsorted(edges, x, "right") for x in (self.share, share))
        for k in range(1, len(edges) + 1):
            alike, mine = np.sort(self.score[own == k]), asked == k
            below = np.searchsorted(alike, score[mine], "left")
            not_above = np.searchsorted(alike, score[mine], "right")
            found[mine] = 1.0 - (below + not_above) / (2 * len(alike))
        return found

    def exceeding_of_splits(self) -> Float64:
        """(S,) mean of `exceeding` over each pair of dictionaries, held against the others."""
        means = []
        for split in range(int(self.split.max(initial=-1)) + 1):
            own = self.split == split
            others = PairScores(self.score[~own], self.share[~own], self.split[~own])
            means.append(others.exceeding(self.score[own], self.share[own]).mean())
        return np.array(means)

    def _classes(self) -> Float64:
        """Ascending lower edges of the classes of shares; the first is 0."""
        powers = 0.5 ** np.arange(62, 0, -1)
        smaller = np.searchsorted(np.sort(self.share), powers)
        edges, held = [0.0], 0
        for power, n in zip(powers.tolist(), smaller.tolist(), strict=True):
            if n - held >= FEWEST_PAIRS and len(self.share) - n >= FEWEST_PAIRS:
                edges.append(power)
                held = n
        return np.array(edges)


@dataclass(frozen=True, eq=False)
class SeedNoise:
    """How well dictionaries of one text match each other, though nothing but chance differs."""

    pairs_of: str
    """One of `KINDS`."""
    site: str | None
    percentile: float
    threshold: float
    basis: str
    """"exemplar" or "mean": whose directions were matched."""
    rows: int
    """Of the whole text; a half has about half as many."""
    documents: int
    splits: int
    seed: int
    n_regions: Int64
    """(S, 2) of the two halves of each split."""
    directions: PairScores
    """Cosines of pairs of regions."""
    overlaps: PairScores
    """F1 of the rows of pairs of regions, when both dictionaries read all rows."""
    nmi: Float64
    """(S,) normalised mutual information of the regions of all rows."""

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        about = {"kind": _KIND} | {f.name: _to_json(getattr(self, f.name)) for f in fields(self)}
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> SeedNoise:
        """What `save` wrote.

        Raises:
            FormatError: It is something else.
        """
        try:
            about = json.loads(Path(path).read_bytes())
            if about.pop("kind") != _KIND:
                raise ValueError("it says that it is something else")
            about |= {name: _pair_scores(about[name]) for name in ("directions", "overlaps")}
            about["n_regions"] = np.array(about["n_regions"], np.int64).reshape(-1, 2)
            about["nmi"] = np.array(about["nmi"], np.float64)
            return cls(**about)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{path} is not a seed noise baseline ({error}); make one with "
                "`exemplars compare ... --save-baseline`"
            ) from error


def seed_noise(
    vectors: Any,
    documents: Int64,
    calibration: Calibration,
    percentile: float,
    *,
    pairs_of: str = "halves",
    basis: str = "mean",
    splits: int = 20,
    seed: int = 0,
    site: str | None = None,
    on_step: OnStep | None = None,
) -> SeedNoise:
    """Dictionaries of random halves, or of random orders, of the documents, matched in pairs.

    Args:
        vectors: (N, D) raw activations, numpy or torch.
        documents: (N,) the document of each row.
        calibration: One for all; a half is not calibrated anew.
        percentile: Of the calibration.
        pairs_of: One of `KINDS`.
        basis: "exemplar" or "mean": which directions are matched.
        splits: Into halves; or pairs of orders.
        seed: Of the splits and of the orders of the documents.
        site: What the rows are of, to remember.
        on_step: Told how many splits are done.

    Raises:
        ValueError: Fewer than two documents, or no split.
        ActivationError: A NaN or infinite component.
    """
    if splits < 1:
        raise ValueError(f"splits is {splits}, expected a positive number")
    if pairs_of not in KINDS:
        raise ValueError(f'pairs_of is "{pairs_of}", expected one of {", ".join(KINDS)}')
    make = halves if pairs_of == "halves" else order_pairs
    told = on_step or (lambda what, done, total: None)
    told(f"random {pairs_of}", 0, splits)
    n_regions, nmi = [], []
    directions: list[tuple[Float64, Float64]] = []
    overlaps: list[tuple[Float64, Float64]] = []
    for a, b in make(vectors, documents, calibration, percentile, splits, seed):
        found = match_directions(a.basis(basis), b.basis(basis))
        overlap = row_overlap(a, b, vectors)
        n_regions.append((len(a), len(b)))
        directions.append((found.cosines, smaller_shares(found, a, b)))
        overlaps.append((overlap.f1, overlap.smaller))
        nmi.append(overlap.nmi)
        told(f"random {pairs_of}", len(nmi), splits)
    return SeedNoise(
        pairs_of=pairs_of,
        site=site,
        percentile=float(percentile),
        threshold=calibration.threshold(percentile),
        basis=basis,
        rows=len(vectors),
        documents=len(np.unique(documents)),
        splits=splits,
        seed=seed,
        n_regions=np.array(n_regions, np.int64),
        nmi=np.array(nmi),
        directions=_joined(directions),
        overlaps=_joined(overlaps),
    )


def halves(
    vectors: Any,
    documents: Int64,
    calibration: Calibration,
    percentile: float,
    splits: int,
    seed: int = 0,
) -> Iterator[tuple[Dictionary, Dictionary]]:
    """Dictionaries of two random halves of the documents, each in a random order of them.

    Raises:
        ValueError: Fewer than two documents.
    """
    numbers = np.unique(documents)
    if len(numbers) < 2:
        raise ValueError(
            f"the rows are of {len(numbers)} documents, halves need 2 or more; give more documents"
        )
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(numbers)
        middle = len(order) // 2
        first, second = (
            of_documents(vectors, documents, part, calibration, percentile)
            for part in (order[:middle], order[middle:])
        )
        yield first, second


def order_pairs(
    vectors: Any,
    documents: Int64,
    calibration: Calibration,
    percentile: float,
    splits: int,
    seed: int = 0,
) -> Iterator[tuple[Dictionary, Dictionary]]:
    """Pairs of dictionaries of the same rows, their documents in two random orders."""
    numbers = np.unique(documents)
    for split in range(splits):
        random = np.random.default_rng([seed, split])
        first, second = (
            of_documents(vectors, documents, random.permutation(numbers), calibration, percentile)
            for _ in range(2)
        )
        yield first, second


def orders(
    vectors: Any,
    documents: Int64,
    calibration: Calibration,
    percentile: float,
    seeds: Sequence[int],
    membership: str = "online",
) -> Iterator[Dictionary]:
    """A dictionary of the same rows for each seed, with the documents in another order."""
    numbers = np.unique(documents)
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(numbers)
        yield of_documents(vectors, documents, order, calibration, percentile, membership)


def of_documents(
    vectors: Any,
    documents: Int64,
    order: Int64,
    calibration: Calibration,
    percentile: float,
    membership: str = "online",
) -> Dictionary:
    """The dictionary of some documents, in their order; rows of a document keep theirs.

    Args:
        vectors: (N, D) raw activations.
        documents: (N,) the document of each row.
        order: Numbers of documents, each once.
        calibration: Not made anew.
        percentile: Of the calibration.
        membership: See `partition`.
    """
    numbers, number = np.unique(documents, return_inverse=True)
    rank = np.full(len(numbers), len(order), np.int64)
    rank[np.searchsorted(numbers, order)] = np.arange(len(order))
    ranks = rank[number]
    rows = np.argsort(ranks, kind="stable")[: np.count_nonzero(ranks < len(order))]
    blocks = (
        as_vectors(vectors[rows[start : start + _BLOCK]]) for start in range(0, len(rows), _BLOCK)
    )
    return partition(blocks, calibration, percentile, membership=membership)


def of_random_rows(dictionary: Dictionary, vectors: Any, random: np.random.Generator) -> Dictionary:
    """As many random rows in the place of the exemplars, with the rows that lie nearest to each.

    Args:
        dictionary: Whose number of regions, center and threshold.
        vectors: (N, D) raw activations at its site; if there are fewer than regions, all are taken.
        random: Draws them.
    """
    usable = np.flatnonzero(regions_of(dictionary, vectors) >= 0)
    n = min(len(dictionary), len(usable))
    chosen = np.sort(random.choice(usable, n, replace=False))
    drawn = replace(
        dictionary,
        exemplars=to_directions(as_vectors(vectors[chosen]), dictionary.center)[0],
        exemplar_rows=chosen,
        census=None,
        contexts=None,
        census_contexts=None,
    )
    blocks = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
    return replace(drawn, members=take_census(drawn, blocks).statistics())


def row_overlap(a: Dictionary, b: Dictionary, of_a: Any, of_b: Any = None) -> Overlap:
    """The regions of the same rows in two dictionaries.

    Args:
        a: One dictionary; `b` the other.
        b: See `a`.
        of_a: (N, D_a) raw activations at the site of `a`.
        of_b: (N, D_b) the same rows at the site of `b`; None: as `of_a`.
    """
    of_b = of_a if of_b is None else of_b
    return match_overlap(regions_of(a, of_a), regions_of(b, of_b), len(a), len(b))


def regions_of(dictionary: Dictionary, vectors: Any) -> Int64:
    """(N,) the nearest region of each raw row; -1 for the rows that a build would drop."""
    limit = dictionary.calibration.norm_limit
    regions = np.full(len(vectors), -1, np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = as_vectors(vectors[start : start + _BLOCK])
        regions[start : start + _BLOCK] = dictionary.assign(block)[0]
        if limit is not None:
            regions[start : start + _BLOCK][vector_norms(block) > limit] = -1
    return regions


def smaller_shares(found: Matching, a: Dictionary, b: Dictionary) -> Float64:
    """(P,) the share of all members that the smaller region of each pair has."""
    of_a, of_b = (d.counts / max(int(d.counts.sum()), 1) for d in (a, b))
    smaller: Float64 = np.minimum(of_a[found.pairs[:, 0]], of_b[found.pairs[:, 1]])
    return smaller


def _joined(parts: Sequence[tuple[Float64, Float64]]) -> PairScores:
    return PairScores(
        score=np.concatenate([score for score, _ in parts]),
        share=np.concatenate([share for _, share in parts]),
        split=np.repeat(np.arange(len(parts)), [len(score) for score, _ in parts]),
    )


def _to_json(value: Any) -> Any:
    if isinstance(value, PairScores):
        score, share = np.round(value.score, 6).tolist(), value.share.tolist()
        return {"score": score, "share": share, "split": value.split.tolist()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _pair_scores(about: Any) -> PairScores:
    score, share, split = about["score"], about["share"], about["split"]
    if not len(score) == len(share) == len(split):
        raise ValueError("its columns have different lengths")
    return PairScores(np.array(score, float), np.array(share, float), np.array(split, np.int64))
