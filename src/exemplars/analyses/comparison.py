"""Two dictionaries beside each other: what persisted, moved, was dropped, was introduced.

Regions are paired one to one, by direction and, where rows of both sides are given, by the rows
that they share. A pair counts as changed only if it agrees less than pairs of random halves of one
text's documents do (`exemplars.analyses.noise`), and as a pair at all only if it agrees more than
chance gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.analyses.changes import Change, changes_of, text_overlap
from exemplars.analyses.correspondence import (
    SPACES,
    Correspondence,
    by_direction,
    by_rows,
    seen_from,
)
from exemplars.analyses.differences import differences
from exemplars.analyses.noise import SeedNoise, of_random_rows, regions_of
from exemplars.analyses.overlap import match_overlap, mutual_information, permuted
from exemplars.analyses.shared_rows import SharedRows
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary
from exemplars.errors import MismatchError
from exemplars.geometry import Float32, Float64, Int64, canonical_similarity, to_directions

_Nulls = Mapping[str, Callable[[np.random.Generator], Float32]]
_GROUPS = 20
_BLOCK = 4096


@dataclass(frozen=True)
class Side:
    """One of the two dictionaries."""

    model: str
    site: str
    percentile: float
    threshold: float
    n_regions: int
    rows: int
    width: int

    @classmethod
    def of(cls, dictionary: Dictionary) -> Side:
        model = dictionary.provenance.get("model")
        name = model.get("name") if isinstance(model, Mapping) else None
        return cls(
            model=str(name or ""),
            site=dictionary.site or "",
            percentile=dictionary.percentile,
            threshold=dictionary.threshold,
            n_regions=len(dictionary),
            rows=dictionary.rows,
            width=dictionary.width,
        )


@dataclass(frozen=True, eq=False)
class RowAgreement:
    """The regions that the same rows fall into on both sides."""

    rows: int
    """With a region on both sides."""
    nmi: float
    """Normalised mutual information, in [0, 1]."""
    nmi_error: float
    """Its standard error, from leaving out each of 20 groups of documents; NaN with too few."""
    mean_f1: float
    nulls: Mapping[str, tuple[float, ...]]
    """NMI in each draw: "permuted rows", and "permuted within tokens" (among rows of one token
    id: what the tokens alone explain)."""
    noise: tuple[float, ...]
    """NMI of each pair of random halves; () without."""
    same_partner: float
    """Share of the pairs by shared rows that are also pairs by direction; NaN without these."""
    went_to: tuple[Int64, Float64]
    """(K_a,) the region of B that holds most of the rows of each region of A, and their share."""
    came_from: tuple[Int64, Float64]
    """(K_b,) the same the other way."""


@dataclass(frozen=True)
class NoiseAbout:
    """Where the seed noise comes from."""

    pairs_of: str
    """"halves" or "orders"; see `exemplars.analyses.noise.KINDS`."""
    splits: int
    rows: int
    documents: int
    site: str | None
    percentile: float
    n_regions: float
    """Mean of its dictionaries."""

    @classmethod
    def of(cls, noise: SeedNoise) -> NoiseAbout:
        return cls(
            pairs_of=noise.pairs_of,
            splits=noise.splits,
            rows=noise.rows,
            documents=noise.documents,
            site=noise.site,
            percentile=noise.percentile,
            n_regions=float(noise.n_regions.mean()),
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed between two dictionaries."""

    a: Side
    b: Side
    basis: str
    """"exemplar" or "mean": whose directions are compared."""
    space: str
    """The one of `correspondences` that decides."""
    quantile: float
    """The share of pairs that seed noise alone puts below the cutoff."""
    differences: tuple[str, ...]
    """In how the two, and the seed noise, were made: each may be what a change is due to."""
    correspondences: Mapping[str, Correspondence]
    """By `SPACES`; those that could be made."""
    norm_span: tuple[float, float] | None
    """Mean cosine in one frame if vectors had the 5th or the 95th percentile of the norms: a
    dictionary does not keep the norms that moving to another center needs."""
    agreement: RowAgreement | None
    noise: NoiseAbout | None
    text_overlap: float
    """Mean share of distinct tokens that the kept contexts of two partners have in common
    (Jaccard); NaN without contexts."""
    text_overlap_null: float
    """The same of partners drawn at random."""
    changes: tuple[Change, ...]
    """The largest of each kind, with texts."""

    @property
    def decisive(self) -> Correspondence:
        return self.correspondences[self.space]


def compare(
    a: Dictionary,
    b: Dictionary,
    *,
    rows: SharedRows | None = None,
    noise: SeedNoise | None = None,
    basis: str = "mean",
    space: str | None = None,
    quantile: float = 0.05,
    seeds: int = 3,
    seed: int = 0,
    method: str = "auto",
    examples: int = 5,
) -> Comparison:
    """What changed from A to B.

    Args:
        a: The one; changes are told from it.
        b: The other.
        rows: The same tokens at both sites. Without them nothing is said by shared rows, and
            norms for moving directions into one frame are the sites' medians.
        noise: Of A: the yardstick. Without it no cutoff is set, and pairs are only told from
            chance.
        basis: "mean" or "exemplar". Means are far more reproducible.
        space: Which of `SPACES` decides; None: own frames where the widths agree, else shared rows.
        quantile: The share of pairs that seed noise alone may put below the cutoff.
        seeds: Draws of each null.
        seed: Of the first.
        method: Of `match_directions`.
        examples: Changes of each kind that are shown with their texts.

    Raises:
        ValueError: Another width and no rows, an unknown space, or an argument out of range.
        MismatchError: The seed noise is of another basis.
    """
    space = _decisive(a, b, rows, space)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile:g}, expected a share between 0 and 1")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected a positive number")
    if noise is not None and noise.basis != basis:
        raise MismatchError(
            f"the seed noise is of the basis {noise.basis} and {basis} is compared; compute it anew"
        )
    job = _Job(a, b, rows, noise, basis, quantile, tuple(range(seed, seed + seeds)), method)
    found = job.by_direction()
    span = _norm_span(a, b, basis, found[SPACES[1]].pairs) if SPACES[1] in found else None
    agreement = None
    if rows is not None:
        found[SPACES[2]], agreement = job.by_rows(rows, found.get(SPACES[0]))
    if space not in found:
        raise ValueError(
            f'space is "{space}", which needs norms that B does not have; give rows, or decide by '
            f'"{SPACES[0]}"'
        )
    decisive = found[space]
    same, by_chance = text_overlap(a, b, decisive.pairs, np.random.default_rng(seed))
    went_to = None if agreement is None else agreement.went_to
    came_from = None if agreement is None else agreement.came_from
    return Comparison(
        a=Side.of(a),
        b=Side.of(b),
        basis=basis,
        space=space,
        quantile=quantile,
        differences=(*differences(a, b), *(() if noise is None else _noise_differences(a, noise))),
        correspondences=found,
        norm_span=span,
        agreement=agreement,
        noise=None if noise is None else NoiseAbout.of(noise),
        text_overlap=same,
        text_overlap_null=by_chance,
        changes=changes_of(a, b, decisive, went_to, came_from, examples),
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """What is compared, and how."""

    a: Dictionary
    b: Dictionary
    rows: SharedRows | None
    noise: SeedNoise | None
    basis: str
    quantile: float
    seeds: tuple[int, ...]
    method: str

    def by_direction(self) -> dict[str, Correspondence]:
        """In own frames, and in one if B's norms are known; {} for different widths."""
        if self.a.width != self.b.width:
            return {}
        of_a, of_b = (np.asarray(d.basis(self.basis)) for d in (self.a, self.b))
        nulls = {} if self.rows is None else {"random rows": self._random_rows}
        found = {SPACES[0]: self._in(SPACES[0], (of_a, of_b), nulls)}
        norms = region_norms(self.b, None if self.rows is None else self.rows.b)
        if np.isfinite(norms).all():
            moved = seen_from(of_b, self.b.center, norms, self.a.center)
            found[SPACES[1]] = self._in(SPACES[1], (of_a, moved), {})
        return found

    def by_rows(
        self, rows: SharedRows, by_direction: Correspondence | None
    ) -> tuple[Correspondence, RowAgreement]:
        """By the regions that the same rows fall into."""
        labels = regions_of(self.a, rows.a), regions_of(self.b, rows.b)
        overlap = match_overlap(*labels, len(self.a), len(self.b), self.method)
        noise = self.noise
        found = by_rows(
            labels,
            overlap,
            seeds=self.seeds,
            noise=None if noise is None else noise.overlaps,
            quantile=self.quantile,
        )
        same = float("nan")
        if by_direction is not None and len(found.pairs):
            partner = np.full(len(self.a), -1)
            partner[by_direction.pairs[:, 0]] = by_direction.pairs[:, 1]
            same = float((partner[found.pairs[:, 0]] == found.pairs[:, 1]).mean())
        agreement = RowAgreement(
            rows=overlap.rows,
            nmi=overlap.nmi,
            nmi_error=self._nmi_error(labels, rows.document),
            mean_f1=overlap.mean_f1,
            nulls=self._nmi_nulls(labels, rows.token),
            noise=() if noise is None else tuple(noise.nmi.tolist()),
            same_partner=same,
            went_to=largest_share(labels[0], labels[1], len(self.a)),
            came_from=largest_share(labels[1], labels[0], len(self.b)),
        )
        return found, agreement

    def _in(self, space: str, directions: tuple[Float32, Float32], nulls: _Nulls) -> Correspondence:
        return by_direction(
            space,
            self.a,
            self.b,
            directions,
            method=self.method,
            seeds=self.seeds,
            nulls=nulls,
            noise=None if self.noise is None else self.noise.directions,
            quantile=self.quantile,
        )

    def _random_rows(self, random: np.random.Generator) -> Float32:
        assert self.rows is not None
        drawn = of_random_rows(self.b, self.rows.b, random)
        return np.asarray(drawn.basis(self.basis))

    def _nmi(self, labels: tuple[Int64, Int64]) -> float:
        return mutual_information(*labels)

    def _nmi_nulls(self, labels: tuple[Int64, Int64], token: Int64) -> dict[str, tuple[float, ...]]:
        of_a, of_b = labels

        def draws(within: Int64 | None) -> tuple[float, ...]:
            moved = (permuted(of_b, np.random.default_rng(s), within) for s in self.seeds)
            return tuple(self._nmi((of_a, labels_b)) for labels_b in moved)

        return {"permuted rows": draws(None), "permuted within tokens": draws(token)}

    def _nmi_error(self, labels: tuple[Int64, Int64], document: Int64) -> float:
        """By the jackknife over groups of documents."""
        numbers, number = np.unique(document, return_inverse=True)
        if len(numbers) < _GROUPS:
            return float("nan")
        group = np.random.default_rng(self.seeds[0]).permutation(len(numbers))[number] % _GROUPS
        of_a, of_b = labels
        left = np.array([self._nmi((of_a[group != g], of_b[group != g])) for g in range(_GROUPS)])
        return float(np.sqrt((_GROUPS - 1) / _GROUPS * ((left - left.mean()) ** 2).sum()))


def region_norms(dictionary: Dictionary, vectors: Any = None) -> Float64:
    """(K,) how far a region's vectors are from the center, in activation units.

    Args:
        dictionary: Whose regions.
        vectors: (N, D) rows of its site: the mean over a region's rows, and the site's median for a
            region without any. None: the site's median for all; NaN where it is not known.
    """
    median = dictionary.calibration.centered_norms[1]
    if vectors is None:
        return np.full(len(dictionary), median)
    regions = regions_of(dictionary, vectors)
    norms = np.concatenate(
        [
            to_directions(as_vectors(vectors[start : start + _BLOCK]), dictionary.center)[1]
            for start in range(0, len(vectors), _BLOCK)
        ]
    )
    some = regions >= 0
    count = np.bincount(regions[some], minlength=len(dictionary))
    total = np.bincount(regions[some], norms[some], len(dictionary))
    return np.where(count > 0, total / np.maximum(count, 1), median)


def largest_share(of_one: Int64, of_other: Int64, n_regions: int) -> tuple[Int64, Float64]:
    """(K,) the cell of the other side that has most rows of each cell, and the share of them.

    Ties go to the lower cell; a cell without rows has -1 and NaN.
    """
    both = (of_one >= 0) & (of_other >= 0)
    pairs, counts = np.unique(
        np.stack([of_one[both], of_other[both]], axis=1), axis=0, return_counts=True
    )
    first = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    cells, place = np.unique(pairs[first, 0], return_index=True)
    to, share = np.full(n_regions, -1), np.full(n_regions, np.nan)
    to[cells] = pairs[first[place], 1]
    share[cells] = counts[first[place]] / np.bincount(pairs[:, 0], counts)[cells]
    return to, share


def _noise_differences(a: Dictionary, noise: SeedNoise) -> Iterator[str]:
    """In how the seed noise was made otherwise than A."""
    if None not in (a.site, noise.site) and a.site != noise.site:
        yield f"the seed noise is of {noise.site} and A of {a.site}; make a baseline of A"
    if noise.threshold != a.threshold:
        yield (
            f"the seed noise is of θ = {noise.threshold:.4f} (p = {noise.percentile:g}) and A has "
            f"θ = {a.threshold:.4f}; make a baseline of A"
        )


def _norm_span(a: Dictionary, b: Dictionary, basis: str, pairs: Int64) -> tuple[float, float]:
    """Mean cosine of the pairs with the 5th and with the 95th percentile of B's norms."""
    own = np.ascontiguousarray(a.basis(basis), np.float32)
    found = []
    for norm in (b.calibration.centered_norms[0], b.calibration.centered_norms[2]):
        directions = np.ascontiguousarray(b.basis(basis), np.float32)
        moved = seen_from(directions, b.center, np.full(len(b), norm), a.center)
        cosines = canonical_similarity(own, np.ascontiguousarray(moved), pairs[:, 0], pairs[:, 1])
        found.append(float(cosines.mean()) if len(cosines) else float("nan"))
    return found[0], found[1]


def _decisive(a: Dictionary, b: Dictionary, rows: SharedRows | None, space: str | None) -> str:
    """The space that decides, checked to be one that can be compared in."""
    if space is not None and space not in SPACES:
        raise ValueError(f'space is "{space}", expected one of {", ".join(SPACES)}')
    if a.width != b.width and (rows is None or space not in (None, SPACES[2])):
        raise ValueError(
            f"the dictionaries have widths {a.width} and {b.width}, so their directions cannot be "
            "compared; give the same texts to both, and compare by shared rows"
        )
    if space == SPACES[2] and rows is None:
        raise ValueError("no rows were given, so nothing can be compared by shared rows; give some")
    return space or (SPACES[0] if a.width == b.width else SPACES[2])
