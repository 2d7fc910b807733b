"""Which regions another seed finds again, and what tells so beforehand.

Dictionaries of one stream in several orders are matched pairwise, by the means of their regions and
by their exemplars. The stability of a region is the mean cosine with its partners in the other
dictionaries. Every pair counts in both directions: a region of either side has a score.

Source: the matching of means and exemplars across seeds, and D = log10(N c²) as a predictor, are of
Rumbelow 2026 (arXiv:2605.14347), A.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.correspondence import rotated
from exemplars.analyses.labelled import OnStep
from exemplars.analyses.matching import match_directions
from exemplars.analyses.noise import of_random_rows
from exemplars.dictionary import Dictionary
from exemplars.errors import MismatchError
from exemplars.geometry import Float32, Float64, canonical_similarity

PREDICTORS = (
    "log10 N", "N", "coherence c", "cos(exemplar, mean)", "mean distance", "std of distance",
    "log10 N c", "D = log10 N c²", "log10 N/(1.01 − c)", "log10 N c²/(1 − c²)",
    "nearest other mean", "nearest other exemplar", "log10 founding row",
)  # fmt: skip
"""What may tell whether a region is found again: its members N, the length c of their mean
direction, their distances to the exemplar, cosine distances to the nearest other region, and when
it was founded. N c²/(1 − c²) is the ratio of a mean's squared length to its squared error where
members are drawn independently."""
BASES = ("mean", "exemplar")
NULLS = ("random rows", "random rotation", "random directions")
"""What stands for the dictionaries: as many random rows of the stream, with the rows nearest to
each; one of each pair, randomly rotated; unit vectors of random direction."""
FIFTHS = 5

_SQUARED_LENGTH = "log10 N c²/(1 − c²)"


@dataclass(frozen=True, eq=False)
class RegionStability:
    """How well each region of one dictionary is found again by the others."""

    mean: Float64
    """(K,) mean cosine with the partners of its mean; NaN where none has one."""
    exemplar: Float64
    """(K,) the same of its exemplar."""
    found: Float64
    """(K,) share of the other dictionaries in which its mean has a partner at all."""
    others: int
    """Dictionaries it was looked for in."""

    def of(self, basis: str) -> Float64:
        """(K,) `mean` or `exemplar`."""
        scores: Float64 = getattr(self, basis)
        return scores


@dataclass(frozen=True)
class Pair:
    """Two of the dictionaries."""

    first: int
    second: int
    mean_cosine: Mapping[str, float]
    """By `BASES`: over the matched regions."""
    median_cosine: Mapping[str, float]
    p10_cosine: Mapping[str, float]
    unpaired: int
    """Regions of the larger dictionary without a partner."""


@dataclass(frozen=True)
class Predictor:
    """How far a quantity tells the stability of regions: Spearman's ρ, mean over dictionaries."""

    name: str
    """One of `PREDICTORS`."""
    basis: str
    """Whose cosines are predicted."""
    rho: float
    low: float
    """95 % interval for the regions of one dictionary; pooling them would count regions twice."""
    high: float
    by_dictionary: tuple[float, ...]
    partial: float
    """ρ given log10 N; NaN for N itself."""
    partial_low: float
    partial_high: float
    fifths: tuple[float, ...]
    """Mean matched cosine of the regions in each fifth of it, ascending."""
    random_rows: float
    """ρ where random rows stand for the exemplars; NaN without rows."""


@dataclass(frozen=True, eq=False)
class Stability:
    """Dictionaries of several orders or samples of one stream, beside each other."""

    site: str | None
    percentile: float
    threshold: float
    one_calibration: bool
    """Whether all have one center and one θ."""
    n_regions: tuple[int, ...]
    rows: tuple[int, ...]
    method: str
    pairs: tuple[Pair, ...]
    """Unordered; each counts for the regions of both."""
    nulls: Mapping[str, Mapping[str, tuple[float, ...]]]
    """By `NULLS` and `BASES`: mean matched cosine of each draw."""
    predictors: tuple[Predictor, ...]
    regions: tuple[RegionStability, ...]
    """Of each dictionary."""

    def predictor(self, name: str, basis: str = "mean") -> Predictor:
        """One of `predictors`.

        Raises:
            ValueError: There is none of that name.
        """
        for found in self.predictors:
            if (found.name, found.basis) == (name, basis):
                return found
        raise ValueError(f"no predictor of {basis} is called {name}; see PREDICTORS")

    def median(self, basis: str) -> float:
        """Of the matched cosines of all pairs, each dictionary's regions counted once per pair."""
        return float(np.median([pair.median_cosine[basis] for pair in self.pairs]))


def stability(
    dictionaries: Sequence[Dictionary],
    *,
    vectors: Any = None,
    seeds: int = 2,
    seed: int = 0,
    method: str = "auto",
    on_step: OnStep | None = None,
) -> Stability:
    """Match dictionaries of one stream with each other.

    Args:
        dictionaries: Two or more, of one site: other orders or other samples of the documents.
        vectors: For the null of random rows: (N, D) raw activations that all dictionaries are of,
            or a sequence of such arrays, one for each dictionary; None: without it.
        seeds: Draws of the other nulls.
        seed: Of the first.
        method: Of `match_directions`.
        on_step: Told how many pairs are matched.

    Raises:
        ValueError: Fewer than two dictionaries, other widths, or another number of arrays.
        MismatchError: They are of several sites, or percentiles.
    """
    _check(dictionaries, seeds)
    told = on_step or (lambda what, done, total: None)
    regions, pairs, used = _matched(dictionaries, method, told)
    draws = range(seed, seed + seeds)
    nulls = _direction_nulls(dictionaries[:2], draws, method)
    null_rho: dict[tuple[str, str], float] = {}
    if vectors is not None:
        drawn = _random_rows(dictionaries, vectors, seed)
        of_drawn, pairs_drawn, _ = _matched(drawn, method, told)
        nulls["random rows"] = {
            basis: tuple(pair.mean_cosine[basis] for pair in pairs_drawn) for basis in BASES
        }
        null_rho = {(p.name, p.basis): p.rho for p in predictors_of(drawn, of_drawn)}
    first = dictionaries[0]
    return Stability(
        site=first.site,
        percentile=first.percentile,
        threshold=first.threshold,
        one_calibration=all(_same_calibration(first, other) for other in dictionaries),
        n_regions=tuple(map(len, dictionaries)),
        rows=tuple(d.rows for d in dictionaries),
        method=used,
        pairs=pairs,
        nulls=nulls,
        predictors=predictors_of(dictionaries, regions, null_rho),
        regions=regions,
    )


def region_stability(
    dictionary: Dictionary, others: Sequence[Dictionary], method: str = "auto"
) -> RegionStability:
    """How well each region of one dictionary is found again by others.

    Raises:
        ValueError: There are no others.
    """
    if not others:
        raise ValueError("there is no other dictionary; build one in another order")
    scores = {
        basis: np.stack(
            [
                match_directions(dictionary.basis(basis), other.basis(basis), method).cosine_of_a
                for other in others
            ]
        )
        for basis in BASES
    }
    return _region_stability(scores["mean"], scores["exemplar"])


def stability_table(found: RegionStability) -> Any:
    """A pyarrow table with a line for each region, as `exemplars.store.save_stability` takes it."""
    import pyarrow as pa

    n = len(found.mean)
    return pa.table(
        {
            "region": pa.array(np.arange(n), pa.int32()),
            "mean_cosine": pa.array(found.mean.astype(np.float32), from_pandas=True),
            "exemplar_cosine": pa.array(found.exemplar.astype(np.float32), from_pandas=True),
            "found": pa.array(found.found.astype(np.float32)),
            "others": pa.array(np.full(n, found.others), pa.int32()),
        }
    )


def predictors_of(
    dictionaries: Sequence[Dictionary],
    regions: Sequence[RegionStability],
    random_rows: Mapping[tuple[str, str], float] | None = None,
) -> tuple[Predictor, ...]:
    """Spearman's ρ of each of `PREDICTORS` with the stability of regions, for both of `BASES`."""
    values = [predictor_values(d) for d in dictionaries]
    found = []
    for basis in BASES:
        scores = [r.of(basis) for r in regions]
        for name in PREDICTORS:
            columns = [v[name] for v in values]
            given = [v["log10 N"] for v in values]
            rho = [_spearman(x, y) for x, y in zip(columns, scores, strict=True)]
            partial = [_partial(x, y, z) for x, y, z in zip(columns, scores, given, strict=True)]
            n = float(np.mean([np.isfinite(y).sum() for y in scores]))
            null = (random_rows or {}).get((name, basis), float("nan"))
            found.append(
                Predictor(
                    name,
                    basis,
                    *_interval(_mean(rho), n),
                    tuple(rho),
                    *_interval(_mean(partial), n - 1),
                    _by_fifth(columns, scores),
                    null,
                )
            )
    return tuple(found)


def predictor_values(dictionary: Dictionary) -> dict[str, Float64]:
    """(K,) each of `PREDICTORS`, for every region; NaN or infinite where it is not defined."""
    members = dictionary.members
    n = members.counts.astype(np.float64)
    c = np.asarray(dictionary.coherence, np.float64)
    means = np.ascontiguousarray(dictionary.means, np.float32)
    exemplars = np.ascontiguousarray(dictionary.exemplars, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = members.distance_sums / n
        variance = np.maximum(members.distance_square_sums / n - distance**2, 0)
        return {
            "log10 N": np.log10(n),
            "N": n,
            "coherence c": c,
            "cos(exemplar, mean)": canonical_similarity(exemplars, means),
            "mean distance": distance,
            "std of distance": np.sqrt(variance),
            "log10 N c": np.log10(n * c),
            "D = log10 N c²": np.log10(n * c**2),
            "log10 N/(1.01 − c)": np.log10(n / (1.01 - np.minimum(c, 1))),
            _SQUARED_LENGTH: np.log10(n * c**2 / np.maximum(1 - c**2, 1e-9)),
            "nearest other mean": _nearest_other(means),
            "nearest other exemplar": _nearest_other(exemplars),
            "log10 founding row": np.log10(dictionary.exemplar_rows + 1.0),
        }


def _matched(
    dictionaries: Sequence[Dictionary], method: str, told: OnStep
) -> tuple[tuple[RegionStability, ...], tuple[Pair, ...], str]:
    """Every pair matched once, its cosines given to the regions of both."""
    n = len(dictionaries)
    cosines = {basis: [[np.empty(0)] * n for _ in range(n)] for basis in BASES}
    pairs, used = [], method
    every = list(combinations(range(n), 2))
    told("pairs", 0, len(every))
    for done, (i, j) in enumerate(every, start=1):
        found = {
            basis: match_directions(
                dictionaries[i].basis(basis), dictionaries[j].basis(basis), method
            )
            for basis in BASES
        }
        for basis, matching in found.items():
            cosines[basis][i][j] = matching.cosine_of_a
            cosines[basis][j][i] = matching.cosine_of_b
        used = found["mean"].method
        by_basis: dict[str, dict[str, float]] = {
            statistic: {basis: compute(m.cosines) for basis, m in found.items()}
            for statistic, compute in _STATISTICS.items()
        }
        unpaired = max(len(found["mean"].unpaired_a), len(found["mean"].unpaired_b))
        pairs.append(Pair(i, j, by_basis["mean"], by_basis["median"], by_basis["p10"], unpaired))
        told("pairs", done, len(every))
    regions = tuple(
        _region_stability(
            *(np.stack([cosines[b][i][j] for j in range(n) if j != i]) for b in BASES)
        )
        for i in range(n)
    )
    return regions, tuple(pairs), used


def _region_stability(mean: Float64, exemplar: Float64) -> RegionStability:
    """From (others, K) matched cosines, NaN where a region has no partner."""
    return RegionStability(
        _nanmean(mean), _nanmean(exemplar), np.isfinite(mean).mean(axis=0), len(mean)
    )


def _random_rows(dictionaries: Sequence[Dictionary], vectors: Any, seed: int) -> list[Dictionary]:
    """Random rows in the place of the exemplars of each dictionary, from its own rows."""
    each = vectors if isinstance(vectors, (list, tuple)) else [vectors] * len(dictionaries)
    if len(each) != len(dictionaries):
        raise ValueError(
            f"rows of {len(each)} dictionaries were given for {len(dictionaries)}; give one array "
            "for all, or one for each"
        )
    return [
        of_random_rows(dictionary, rows, np.random.default_rng([seed, number, 7]))
        for number, (dictionary, rows) in enumerate(zip(dictionaries, each, strict=True))
    ]


def _direction_nulls(
    dictionaries: Sequence[Dictionary], draws: Sequence[int], method: str
) -> dict[str, Mapping[str, tuple[float, ...]]]:
    """Mean matched cosines of the first pair where one side has no correspondence left."""

    def mean_cosine(
        make: Callable[[Float32, np.random.Generator], Float32], basis: str, s: int
    ) -> float:
        one, other = (np.asarray(d.basis(basis)) for d in dictionaries)
        drawn = make(other, np.random.default_rng([s, BASES.index(basis)]))
        return _mean(match_directions(one, drawn, method).cosines)

    makers = {NULLS[1]: rotated, NULLS[2]: _isotropic}
    return {
        name: {basis: tuple(mean_cosine(make, basis, s) for s in draws) for basis in BASES}
        for name, make in makers.items()
    }


def _isotropic(directions: Float32, random: np.random.Generator) -> Float32:
    drawn = random.standard_normal(directions.shape).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def _check(dictionaries: Sequence[Dictionary], seeds: int) -> None:
    if len(dictionaries) < 2:
        raise ValueError(
            f"there are {len(dictionaries)} dictionaries, stability needs 2 or more of one stream "
            "in different orders"
        )
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected a positive number")
    widths = {d.width for d in dictionaries}
    if len(widths) > 1:
        raise ValueError(
            f"the dictionaries have widths {', '.join(map(str, sorted(widths)))}, expected one; "
            "give dictionaries of one site"
        )
    sites = {d.site for d in dictionaries}
    if len(sites) > 1:
        raise MismatchError(
            f"the dictionaries are of the sites {', '.join(sorted(map(str, sites)))}, expected "
            "one; `exemplars compare` compares sites"
        )
    percentiles = {d.percentile for d in dictionaries}
    if len(percentiles) > 1:
        raise MismatchError(
            f"the dictionaries are of p = {', '.join(f'{p:g}' for p in sorted(percentiles))}, "
            "expected one; `exemplars resolution` compares resolutions"
        )


def _same_calibration(a: Dictionary, b: Dictionary) -> bool:
    return a.threshold == b.threshold and np.array_equal(a.center, b.center)


def _nearest_other(directions: Float32) -> Float64:
    """(K,) cosine distance to the nearest other direction; NaN rows are nobody's neighbours."""
    usable = np.flatnonzero(np.isfinite(directions).all(axis=1))
    found = np.full(len(directions), np.nan)
    if len(usable) < 2:
        return found
    chosen = directions[usable]
    for start in range(0, len(usable), 1024):
        product = chosen[start : start + 1024] @ chosen.T
        rows = np.arange(len(product))
        product[rows, start + rows] = -np.inf
        found[usable[start : start + 1024]] = 1.0 - product.max(axis=1)
    return found


def _spearman(x: Float64, y: Float64) -> float:
    some = np.isfinite(x) & np.isfinite(y)
    return _pearson(_ranks(x[some]), _ranks(y[some]))


def _partial(x: Float64, y: Float64, given: Float64) -> float:
    """Spearman's partial correlation: of ranks, given ranks."""
    some = np.isfinite(x) & np.isfinite(y) & np.isfinite(given)
    ranks = [_ranks(values[some]) for values in (x, y, given)]
    xy, xz, yz = (_pearson(ranks[i], ranks[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / float(np.sqrt(rest)) if rest > 1e-9 else float("nan")


def _ranks(values: Float64) -> Float64:
    from scipy.stats import rankdata

    ranks: Float64 = rankdata(values)
    return ranks


def _pearson(x: Float64, y: Float64) -> float:
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _interval(rho: float, n: float) -> tuple[float, float, float]:
    """ρ with its 95 % interval, by Fisher's z with the standard error of Bonett and Wright (2000).

    √((1 + ρ²/2)/(n − 3)) allows for ranks.
    """
    if not np.isfinite(rho) or n <= 3:
        return rho, float("nan"), float("nan")
    z, error = np.arctanh(np.clip(rho, -0.999999, 0.999999)), np.sqrt((1 + rho**2 / 2) / (n - 3))
    return rho, float(np.tanh(z - 1.959964 * error)), float(np.tanh(z + 1.959964 * error))


def _by_fifth(columns: Sequence[Float64], scores: Sequence[Float64]) -> tuple[float, ...]:
    """Mean score in each fifth of a dictionary's regions by a quantity, over dictionaries."""
    parts = []
    for x, y in zip(columns, scores, strict=True):
        some = np.isfinite(x) & np.isfinite(y)
        order = np.argsort(x[some], kind="stable")
        parts.append([_mean(part) for part in np.array_split(y[some][order], FIFTHS)])
    return tuple(_nanmean(np.array(parts)).tolist())


def _nanmean(values: NDArray[np.float64]) -> Float64:
    """Over the first axis; NaN where all are."""
    some = np.isfinite(values)
    n = some.sum(axis=0)
    total = np.where(some, values, 0).sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _mean(values: Sequence[float] | Float64) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


_STATISTICS: Mapping[str, Callable[[Float64], float]] = {
    "mean": _mean,
    "median": lambda values: float(np.median(values)) if len(values) else float("nan"),
    "p10": lambda values: float(np.quantile(values, 0.1)) if len(values) else float("nan"),
}
