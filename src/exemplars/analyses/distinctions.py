"""At which resolution do regions tell labelled texts apart?

Texts with one or several labels are partitioned at a ladder of percentiles (by dictionaries there
are, or by partitions of the texts themselves), and regions are compared with each label: by the
adjusted Rand index, by mutual information less what permuted labels give, by purity, and by how
often a text's label is the commonest of its region on other texts.

Texts are halved for each seed: partitions of the texts themselves are made of one half, and the
percentile that separates a label best is chosen on it; all that is reported is of the other. The
null permutes the labels over the texts, one permutation for all seeds and percentiles, and goes
through the same choice.

Source: the adjusted Rand index is Hubert and Arabie's (1985); adjusting mutual information by its
expectation is Vinh, Epps and Bailey's (2010), here with the expectation over the permutations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.labelled import OnStep
from exemplars.calibration import calibrate
from exemplars.dictionary import Dictionary, partition
from exemplars.geometry import Float32, Float64, Int64, to_directions

INDEXES = ("ARI", "AMI", "purity", "named")
"""Adjusted Rand index; adjusted mutual information; the share of rows whose label is the commonest
of their region; that share with the label named on the other half."""
MOST_LABELS = 3
"""Whose combinations pairs of texts are grouped by."""
_CELLS = 2**22
_NORM_MULTIPLE = 10.0


@dataclass(frozen=True)
class Score:
    """An index on the texts that chose nothing, and what permuted labels give."""

    estimate: float
    """Mean over the seeds."""
    low: float
    """Least of the seeds."""
    high: float
    null: float
    """Mean over permutations of the mean over the seeds."""
    null_high: float
    """97.5th percentile of the same."""


@dataclass(frozen=True)
class Separation:
    """How far regions are a label at one percentile."""

    percentile: float
    threshold: float
    """Mean over the seeds."""
    regions: float
    """That the reported texts lie in: mean over the seeds."""
    scores: Mapping[str, Score]
    """By `INDEXES`."""


@dataclass(frozen=True)
class Distinction:
    """One label, from coarse to fine."""

    label: str
    classes: Mapping[str, int]
    """Texts of each."""
    separations: tuple[Separation, ...]
    appears_at: float | None
    """The coarsest percentile whose ARI is above chance, at 5 % over the whole ladder; None."""
    above_chance: tuple[float, ...]
    """All such percentiles."""
    chosen: tuple[float, ...]
    """For each seed, the percentile of the largest ARI on the half that chooses."""
    at_chosen: Score
    """ARI at those, on the other half."""


@dataclass(frozen=True)
class PairGroup:
    """Pairs of texts that agree in just these labels."""

    agree: tuple[str, ...]
    pairs: int
    quartiles: tuple[float, float, float]
    """Of their cosine distance."""


@dataclass(frozen=True)
class Comparison:
    """How often a pair of one group is nearer than one of another."""

    nearer: tuple[str, ...]
    farther: tuple[str, ...]
    probability: float
    low: float
    """95 % over resampled texts."""
    high: float
    null_low: float
    """2.5th percentile of permuted labels."""
    null_high: float


@dataclass(frozen=True)
class PairLadder:
    """Distances of pairs of texts, by the labels in which they agree."""

    groups: tuple[PairGroup, ...]
    """By their median distance."""
    comparisons: tuple[Comparison, ...]
    """Each group with each farther one."""


@dataclass(frozen=True)
class Distinctions:
    """Labels of texts and regions at a ladder of percentiles."""

    site: str | None
    texts: int
    rows: int
    own: bool
    """Whether the partitions are of the texts themselves."""
    percentiles: tuple[float, ...]
    """From coarse to fine."""
    seeds: tuple[int, ...]
    permutations: int
    distinctions: tuple[Distinction, ...]
    ladder: PairLadder | None
    """Of one row for each text; None of several."""


def distinctions(
    vectors: Float32,
    text_of_row: Int64,
    labels: Mapping[str, Sequence[str]],
    *,
    dictionaries: Sequence[Dictionary] | None = None,
    percentiles: Sequence[float] | None = None,
    seeds: int = 5,
    permutations: int = 200,
    seed: int = 0,
    site: str | None = None,
    on_step: OnStep | None = None,
) -> Distinctions:
    """Which labels the regions tell apart, and from which percentile on.

    Args:
        vectors: (N, D) raw.
        text_of_row: (N,) number of each row's text; each text has one row at least.
        labels: By name, a label for each text.
        dictionaries: From coarse to fine; or
        percentiles: of partitions of the texts themselves, with all rows of a half in one block of
            the calibration, and the half's texts in an order of the seed.
        seeds: Halves, and orders.
        permutations: Of the labels.
        seed: The first; of the permutations too.
        site: Where the vectors are of.
        on_step: Told how many seeds are done.

    Raises:
        ValueError: Dictionaries and percentiles both or neither, fewer than 8 texts, a label with
            one class, or as many classes as texts.
    """
    n_texts = int(text_of_row.max()) + 1 if len(text_of_row) else 0
    _check(n_texts, labels, dictionaries, percentiles, seeds, permutations)
    told = on_step or (lambda what, done, total: None)
    draws = tuple(range(seed, seed + seeds))
    fixed = None if dictionaries is None else [d.assign(vectors)[0] for d in dictionaries]
    if dictionaries is not None:
        ladder = tuple(d.percentile for d in dictionaries)
        center = dictionaries[0].center
    else:
        ladder = tuple(sorted({float(p) for p in percentiles or ()}, reverse=True))
        center = calibrate(vectors, ladder, norm_multiple=_NORM_MULTIPLE).center
    orders = [np.random.default_rng([0xA51E, seed, n]).permutation(n_texts) for n in
              range(permutations)]  # fmt: skip
    codes = {
        name: np.unique(np.asarray(values, str), return_inverse=True)[1]
        for name, values in labels.items()
    }
    dealt = {name: np.stack([c, *(c[o] for o in orders)]) for name, c in codes.items()}
    sides: list[_Sides] = []
    for number, draw in enumerate(draws):
        told("halves", number, len(draws))
        order = np.random.default_rng([draw, 0x4A1F]).permutation(n_texts)
        if fixed is not None and dictionaries is not None:
            regions, thetas = fixed, [d.threshold for d in dictionaries]
        else:
            regions, thetas = _own_regions(vectors, text_of_row, order[: n_texts // 2], ladder)
        chooses = np.isin(text_of_row, order[: n_texts // 2])
        sides.append(_Sides(regions, thetas, chooses))
    told("halves", len(draws), len(draws))
    one_each = len(text_of_row) == n_texts
    directions, _ = to_directions(np.asarray(vectors, np.float32), center)
    return Distinctions(
        site=site,
        texts=n_texts,
        rows=len(text_of_row),
        own=dictionaries is None,
        percentiles=ladder,
        seeds=draws,
        permutations=permutations,
        distinctions=tuple(
            _distinction(name, labels[name], dealt[name][:, text_of_row], sides, ladder)
            for name in labels
        ),
        ladder=pair_ladder(directions, labels, permutations, seed)
        if one_each and len(labels) <= MOST_LABELS
        else None,
    )


def pair_ladder(
    directions: Float32, labels: Mapping[str, Sequence[str]], permutations: int = 200, seed: int = 0
) -> PairLadder:
    """How far apart texts are that agree in all, in some, and in none of their labels.

    Args:
        directions: (T, D) one of each text.
        labels: By name, a label for each text.
        permutations: Of the texts' labels (all of a text's together), and resamples.
        seed: Of both.
    """
    n = len(directions)
    one, other = np.triu_indices(n, 1)
    distance = (1 - directions @ directions.T)[one, other].astype(np.float64)
    order = np.argsort(distance, kind="stable")
    one, other, distance = one[order], other[order], distance[order]
    names = tuple(labels)
    codes = np.stack([np.unique(np.asarray(labels[k], str), return_inverse=True)[1] for k in names])

    def group(of: Int64) -> Int64:
        """(pairs,) the labels in which each pair agrees, as bits."""
        equal = of[:, one] == of[:, other]
        return np.asarray((equal << np.arange(len(names))[:, None]).sum(axis=0), np.int64)

    found = group(codes)
    there = [g for g in range(2 ** len(names)) if (found == g).any()]
    there.sort(key=lambda g: float(np.median(distance[found == g])))
    random = np.random.default_rng([seed, 0x1ADD])
    weights = random.multinomial(n, [1 / n] * n, permutations)
    drawn = np.stack([_nearer(found, there, w[one] * w[other]) for w in weights])
    dealt = np.stack([_nearer(group(codes[:, random.permutation(n)]), there) for _ in weights])
    mine = _nearer(found, there)
    agree = [tuple(name for k, name in enumerate(names) if g >> k & 1) for g in there]
    comparisons = []
    for i, j in itertools.combinations(range(len(there)), 2):
        low, high = np.nanquantile(drawn[:, i, j], [0.025, 0.975])
        null = np.nanquantile(dealt[:, i, j], [0.025, 0.975])
        comparisons.append(
            Comparison(agree[i], agree[j], float(mine[i, j]), float(low), float(high), *null)
        )
    return PairLadder(
        tuple(
            PairGroup(agree[k], int((found == g).sum()), _quartiles(distance[found == g]))
            for k, g in enumerate(there)
        ),
        tuple(comparisons),
    )


def indexes(regions: Int64, labels: Int64) -> dict[str, Float64]:
    """ARI, mutual information and purity of regions with several labellings of the same rows.

    Args:
        regions: (n,) from 0.
        labels: (Q, n) from 0.

    Returns:
        (Q,) each: "ARI" (0 where both are of one class), "information" in nats, "entropy" (the
        mean of the entropies of regions and labels), "purity".
    """
    n_rows, n_labels = len(regions), int(labels.max(initial=0)) + 1
    _, regions = np.unique(regions, return_inverse=True)
    n_regions = int(regions.max(initial=0)) + 1
    parts = []
    for table in _tables(regions, labels, n_regions, n_labels):
        by_region, by_label = table.sum(axis=2), table.sum(axis=1)
        joint, one, other = (
            _pairs(t) for t in (table.reshape(len(table), -1), by_region, by_label)
        )
        expected = one * other / max(_pairs(np.array([[n_rows]]))[0], 1.0)
        span = (one + other) / 2 - expected
        ari = np.where(span > 0, (joint - expected) / np.where(span > 0, span, 1), 0.0)
        entropies = [_entropy(t, n_rows) for t in (by_region, by_label)]
        together = _entropy(table.reshape(len(table), -1), n_rows)
        parts.append(
            np.stack(
                [
                    ari,
                    np.maximum(sum(entropies) - together, 0),
                    sum(entropies) / 2,
                    table.max(axis=2).sum(axis=1) / n_rows,
                ]
            )
        )
    names = ("ARI", "information", "entropy", "purity")
    return dict(zip(names, np.concatenate(parts, axis=1), strict=True))


@dataclass(frozen=True, eq=False)
class _Sides:
    """One seed: the regions of all rows at each percentile, and which rows choose."""

    regions: Sequence[Int64]
    thresholds: Sequence[float]
    chooses: NDArray[np.bool_]


def _own_regions(
    vectors: Float32, text_of_row: Int64, texts: Int64, ladder: Sequence[float]
) -> tuple[list[Int64], list[float]]:
    """Regions of all rows in partitions of some texts, taken in the order given."""
    stream = np.concatenate([np.flatnonzero(text_of_row == text) for text in texts])
    rows = np.ascontiguousarray(vectors[stream], np.float32)
    calibration = calibrate(
        rows, ladder, block_rows=max(2, len(rows)), norm_multiple=_NORM_MULTIPLE
    )
    made = [partition(rows, calibration, p) for p in ladder]
    return [d.assign(vectors)[0] for d in made], [d.threshold for d in made]


def _distinction(
    name: str,
    labels: Sequence[str],
    dealt: Int64,
    sides: Sequence[_Sides],
    ladder: Sequence[float],
) -> Distinction:
    """dealt: (1 + Q, N), the rows' labels and their permutations."""
    reported = np.stack([[_scores(s, p, dealt, False) for p in range(len(ladder))] for s in sides])
    choosing = np.stack(
        [[_scores(s, p, dealt, True)[0] for p in range(len(ladder))] for s in sides]
    )
    best = choosing.argmax(axis=1)  # (S, 1 + Q): of equal ones the coarsest
    at_best = np.take_along_axis(reported[:, :, 0], best[:, None], axis=1)[:, 0]
    separations = tuple(
        Separation(
            percentile=p,
            threshold=float(np.mean([s.thresholds[k] for s in sides])),
            regions=float(np.mean([len(np.unique(s.regions[k][~s.chooses])) for s in sides])),
            scores={index: _score(reported[:, k, number]) for number, index in enumerate(INDEXES)},
        )
        for k, p in enumerate(ladder)
    )
    above = _above_chance(reported[:, :, 0].mean(axis=0))
    passed = tuple(p for p, yes in zip(ladder, above, strict=True) if yes)
    classes, counts = np.unique(np.asarray(labels, str), return_counts=True)
    return Distinction(
        label=name,
        classes={str(c): int(n) for c, n in zip(classes, counts, strict=True)},
        separations=separations,
        appears_at=passed[0] if passed else None,
        above_chance=passed,
        chosen=tuple(ladder[k] for k in best[:, 0]),
        at_chosen=_score(at_best),
    )


def _scores(side: _Sides, percentile: int, dealt: Int64, choosing: bool) -> Float64:
    """(4, 1 + Q) indexes of one half at one percentile."""
    regions = side.regions[percentile]
    mine = side.chooses if choosing else ~side.chooses
    mine = mine & (regions >= 0)
    rest = ~mine & (regions >= 0)
    if not mine.any():
        return np.zeros((len(INDEXES), len(dealt)))
    found = indexes(regions[mine], dealt[:, mine])
    chance = found["information"][1:].mean()
    span = np.maximum(found["entropy"] - chance, 1e-12)
    adjusted = np.where(found["entropy"] > 0, (found["information"] - chance) / span, 0.0)
    named = _named(regions[rest], dealt[:, rest], regions[mine], dealt[:, mine])
    return np.stack([found["ARI"], adjusted, found["purity"], named])


def _named(regions: Int64, labels: Int64, other: Int64, other_labels: Int64) -> Float64:
    """(Q,) the share of other rows with the label that is commonest among their region's rows."""
    if not len(regions):
        return np.zeros(len(labels))
    n_regions = int(max(regions.max(), other.max())) + 1
    n_labels = int(max(labels.max(), other_labels.max())) + 1
    found, start = [], 0
    for table in _tables(regions, labels, n_regions, n_labels):
        part = slice(start, start + len(table))
        start += len(table)
        names = table.argmax(axis=2)
        common = table.sum(axis=1).argmax(axis=1)
        names = np.where(table.any(axis=2), names, common[:, None])
        found.append((names[:, other] == other_labels[part]).mean(axis=1))
    return np.concatenate(found)


def _tables(regions: Int64, labels: Int64, n_regions: int, n_labels: int) -> Any:
    """Contingencies (q, R, L) of several labellings, some at a time."""
    size = n_regions * n_labels
    step = max(1, _CELLS // max(size, len(regions), 1))
    for start in range(0, len(labels), step):
        part = labels[start : start + step]
        cell = (np.arange(len(part))[:, None] * size + regions * n_labels + part).ravel()
        counts = np.bincount(cell, minlength=len(part) * size)
        yield counts.reshape(len(part), n_regions, n_labels)


def _pairs(counts: Int64) -> Float64:
    """Pairs within the cells of each line."""
    wide = counts.astype(np.float64)
    return np.asarray((wide * (wide - 1)).sum(axis=-1) / 2, np.float64)


def _entropy(counts: Int64, n: int) -> Float64:
    share = counts / max(n, 1)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logs).sum(axis=-1), np.float64)


def _score(values: Float64) -> Score:
    """values: (S, 1 + Q), the first of the labels as they are."""
    mine, null = values[:, 0], values[:, 1:].mean(axis=0)
    return Score(
        float(mine.mean()),
        float(mine.min()),
        float(mine.max()),
        float(null.mean()),
        float(np.quantile(null, 0.975)),
    )


def _above_chance(values: Float64) -> NDArray[np.bool_]:
    """(P,) whether an index is above the 95th percentile of the null's largest over the ladder.

    values: (P, 1 + Q). Each percentile is put in units of its null's spread first.
    """
    null = values[:, 1:]
    spread = null.std(axis=1)
    usable = spread > 1e-12
    if not usable.any():
        return usable
    scale = np.where(usable, spread, 1.0)
    z = (values - null.mean(axis=1)[:, None]) / scale[:, None]
    critical = np.quantile(z[usable, 1:].max(axis=0), 0.95)
    return usable & (z[:, 0] > critical)


def _nearer(groups: Int64, there: Sequence[int], weights: Any = None) -> Float64:
    """(G, G) probability that a pair of group i is nearer than one of group j; groups are in the
    order of distance.
    """
    each = [(groups == g) * (1.0 if weights is None else weights) for g in there]
    below = [np.cumsum(mass) for mass in each]
    found = np.full((len(there), len(there)), np.nan)
    for i, j in itertools.combinations(range(len(there)), 2):
        total = below[i][-1] * below[j][-1]
        if total > 0:
            found[i, j] = (each[j] * below[i]).sum() / total
    return found


def _quartiles(values: Float64) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def _check(
    n_texts: int,
    labels: Mapping[str, Sequence[str]],
    dictionaries: Sequence[Dictionary] | None,
    percentiles: Sequence[float] | None,
    seeds: int,
    permutations: int,
) -> None:
    if bool(dictionaries) == bool(percentiles):
        raise ValueError("give dictionaries, or percentiles of partitions of the texts; not both")
    if seeds < 1 or permutations < 20:
        raise ValueError(
            f"seeds is {seeds} and permutations {permutations}, expected at least 1 and 20"
        )
    if n_texts < 8:
        raise ValueError(f"there are {n_texts} texts, expected at least 8; give more")
    if not labels:
        raise ValueError("no label was given; give at least one for each text")
    for name, values in labels.items():
        if len(values) != n_texts:
            raise ValueError(
                f"{n_texts} texts have {len(values)} labels {name!r}; give one for each"
            )
        n = len(set(values))
        if not 1 < n < n_texts:
            raise ValueError(
                f"the label {name!r} has {n} classes among {n_texts} texts, expected two or more, "
                "and fewer than texts; leave it out"
            )
