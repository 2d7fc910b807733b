"""Does the geometry of regions say what they mean?

Three questions, each with its null: do prompts of one category end in regions that lie close
together; are regions that lie close together read alike by the logit lens; and does centering
bring prompts of one category closer together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.trajectories import Chance
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Float64, Int64
from exemplars.lens import lens_probabilities

if TYPE_CHECKING:
    from exemplars.analyses.labelled import OnStep
    from exemplars.models import Model

NEIGHBOURS = (3, 5, 9)
"""Of a prompt, whose labels are compared with its own."""
VIEWS = ("raw", "calibration center", "plain mean")
"""What is subtracted from vectors before cosines are taken: nothing, the dictionary's center, or
the mean of these very vectors."""
_DRAWS_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class CategoryDistances:
    """Whether prompts of one category end in regions that lie close together."""

    site: str
    categories: tuple[str, ...]
    regions: Int64
    """(C,) different regions of each category's prompts."""
    distances: Float64
    """(C, C) mean cosine distance of the exemplars of two prompts' regions, over pairs of a prompt
    of the one and another prompt of the other category; 0 for a pair in one region. Within a
    category on the diagonal."""
    cohesion: float
    """Mean of the diagonal."""
    separation: float
    """Mean off the diagonal."""
    chance: Chance
    """Of separation − cohesion with the categories shuffled over prompts; p two-sided."""
    cohesion_apart: float
    """As published: pairs in one region left out within a category (and kept between them), which
    drops the strongest evidence. NaN where a category has none left."""
    chance_apart: Chance
    """Of separation − cohesion so computed; p two-sided."""

    @property
    def difference(self) -> float:
        """Separation − cohesion: above 0 where categories lie apart."""
        return self.separation - self.cohesion


def category_distances(
    site: str,
    region: Int64,
    exemplars: Float32,
    label: Int64,
    categories: Sequence[str],
    draws: int = 1999,
    seed: int = 0,
) -> CategoryDistances:
    """Cohesion of categories of prompts against their separation, at one site.

    Args:
        site: Its name.
        region: (P,) of each prompt's final position; prompts without one (-1) are left out.
        exemplars: (K, D) unit directions.
        label: (P,) category of each prompt, from 0.
        categories: Their C names.
        draws: Shuffles.
        seed: Of the shuffles.

    Raises:
        ValueError: Fewer than two categories, or one of fewer than two prompts with a region.

    Source: Rumbelow 2026 (arXiv:2605.14347), category firing; here pairs in one region count
        within categories as between them, and the test has two sides.
    """
    kept = region >= 0
    region, label = region[kept], label[kept]
    sizes = np.bincount(label, minlength=len(categories))
    if len(categories) < 2 or sizes.min() < 2:
        raise ValueError(
            f"the categories have {', '.join(map(str, sizes))} prompts with a region at {site}, "
            "expected two categories of two prompts or more; give more prompts"
        )
    used, place = np.unique(region, return_inverse=True)
    directions = exemplars[used].astype(np.float64)
    between = np.clip(1 - directions @ directions.T, 0, 2)[np.ix_(place, place)]
    apart = (place[:, None] != place).astype(np.float64)
    between *= apart  # a region lies at 0 from itself, whatever rounding says
    rng = np.random.default_rng([seed, 0xCA7])
    shuffled = np.stack([label, *(rng.permutation(label) for _ in range(draws))])
    plain, means = _cohesions(between, None, shuffled, len(categories))
    published, _ = _cohesions(between, apart, shuffled, len(categories))
    separation = _off_diagonal(means[0])
    return CategoryDistances(
        site=site,
        categories=tuple(categories),
        regions=np.array([len(np.unique(region[label == c])) for c in range(len(categories))]),
        distances=means[0],
        cohesion=float(np.diagonal(means[0]).mean()),
        separation=separation,
        chance=Chance.of(plain[0], plain[1:]),
        cohesion_apart=float(separation - published[0]),
        chance_apart=_chance_where_finite(published),
    )


def _cohesions(
    distance: Float64, apart: Float64 | None, labels: Int64, n: int
) -> tuple[Float64, Float64]:
    """Separation − cohesion for each labelling, and the mean distances between categories.

    Args:
        distance: (P, P), 0 on the diagonal.
        apart: (P, P) 1 for the pairs that count within a category; None for all but a prompt with
            itself.
        labels: (draws, P).
        n: Categories.

    Returns:
        (draws,) and (draws, C, C).
    """
    counted = 1 - np.eye(len(distance)) if apart is None else apart
    differences, means = [], []
    for start in range(0, len(labels), _DRAWS_AT_ONCE):
        one_hot = (labels[start : start + _DRAWS_AT_ONCE, :, None] == np.arange(n)).astype(float)
        turned = one_hot.transpose(0, 2, 1)
        total = turned @ (distance @ one_hot)
        sizes = one_hot.sum(axis=1)
        pairs = sizes[:, :, None] * sizes[:, None, :]
        inner = np.einsum("dic,ij,djc->dc", one_hot, counted, one_hot, optimize=True)
        pairs[:, np.arange(n), np.arange(n)] = inner
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / pairs
        means.append(mean)
        within = np.diagonal(mean, axis1=1, axis2=2).mean(axis=1)
        off = ~np.eye(n, dtype=bool)
        differences.append(mean[:, off].mean(axis=1) - within)
    return np.concatenate(differences), np.concatenate(means)


def _off_diagonal(matrix: Float64) -> float:
    return float(matrix[~np.eye(len(matrix), dtype=bool)].mean())


def _chance_where_finite(values: Float64) -> Chance:
    """Of what was observed first; NaN where it, or every draw, is not a number."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(drawn):
        return Chance(np.nan, np.nan, np.nan, np.nan)
    return Chance.of(float(values[0]), drawn)


@dataclass(frozen=True)
class LensAlignment:
    """Whether regions that lie close together are read alike by the logit lens."""

    site: str
    regions: int
    """That were compared: those of most members."""
    correlation: float
    """Spearman's, of cosine distances with Jensen-Shannon divergences over pairs of regions; ties
    have their mean rank."""
    chance: Chance
    """With the regions of the one matrix permuted (Mantel 1967); p two-sided."""
    rotated: tuple[float, ...]
    """The same with the exemplars turned at random before the lens reads them: their distances are
    the same and what is read means nothing. What any smooth reading gives."""


def lens_alignment(
    model: Model,
    dictionary: Dictionary,
    *,
    most: int = 100,
    draws: int = 999,
    rotations: int = 3,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> LensAlignment:
    """Correlate the distances of regions with the divergences of what they read as.

    Args:
        model: With a language-model head.
        dictionary: At a site as wide as its residual stream.
        most: Regions, those of most members; time grows with the square.
        draws: Permutations.
        rotations: Random ones.
        seed: Of both.
        on_step: Told of how many readings all pairs were compared.

    Raises:
        ValueError: Fewer than 4 regions.
        MismatchError: Another width than the model's.

    Source: Rumbelow 2026 (arXiv:2605.14347), geometry-semantics alignment.
    """
    if len(dictionary) < 4:
        raise ValueError(f"the dictionary has {len(dictionary)} regions, expected 4 or more")
    chosen = np.sort(np.argsort(-dictionary.counts, kind="stable")[:most])
    exemplars = np.asarray(dictionary.exemplars)[chosen]
    distance = 1 - exemplars.astype(np.float64) @ exemplars.T.astype(np.float64)
    told = on_step or (lambda what, done, total: None)
    told("readings", 0, 1 + rotations)
    divergence = divergences(lens_probabilities(model, exemplars))
    correlation, drawn = mantel(distance, divergence, draws, seed)
    told("readings", 1, 1 + rotations)
    rotated = []
    for k in range(rotations):
        rng = np.random.default_rng([seed, 0x207, k])
        turn, _ = np.linalg.qr(rng.normal(size=(dictionary.width, dictionary.width)))
        read = lens_probabilities(model, (exemplars @ turn).astype(np.float32))
        rotated.append(mantel(distance, divergences(read), 1, seed)[0])
        told("readings", 2 + k, 1 + rotations)
    return LensAlignment(
        dictionary.site or "", len(chosen), correlation, Chance.of(correlation, drawn),
        tuple(rotated),
    )  # fmt: skip


def divergences(probabilities: Float32) -> Float64:
    """Jensen-Shannon divergences of all pairs of distributions, in bits.

    Args:
        probabilities: (K, V), rows sum to 1.

    Returns:
        (K, K) in [0, 1], symmetric, 0 on the diagonal.
    """
    own = _entropies(probabilities)
    found = np.zeros((len(probabilities), len(probabilities)))
    for k in range(len(probabilities) - 1):
        mixed = (probabilities[k] + probabilities[k + 1 :]) / np.float32(2)
        found[k, k + 1 :] = _entropies(mixed) - (own[k] + own[k + 1 :]) / 2
    return np.clip(found + found.T, 0, 1)


def _entropies(probabilities: Float32) -> Float64:
    """(K,) in bits."""
    tiny = np.finfo(np.float32).tiny
    logs = np.log2(np.maximum(probabilities, tiny))
    return -np.einsum("kv,kv->k", probabilities, logs, dtype=np.float64)


def mantel(one: Float64, two: Float64, draws: int, seed: int = 0) -> tuple[float, Float64]:
    """Spearman's correlation of two symmetric matrices' upper triangles, and its permutations.

    Args:
        one: (K, K).
        two: (K, K); its rows and columns are permuted together.
        draws: Permutations.
        seed: Of the permutations.

    Returns:
        The correlation, 0 where a side is constant; and (draws,) permuted ones.

    Source: Mantel 1967.
    """
    from scipy.stats import rankdata

    upper = np.triu_indices(len(one), 1)
    ranks = np.zeros_like(two, dtype=np.float64)
    ranks[upper] = _standardised(rankdata(two[upper]))
    ranks += ranks.T
    own = _standardised(rankdata(one[upper])) / len(upper[0])
    rng = np.random.default_rng([seed, 0x3A7])
    drawn = np.empty(draws)
    for draw in range(draws):
        order = rng.permutation(len(one))
        drawn[draw] = own @ ranks[order[upper[0]], order[upper[1]]]
    return float(own @ ranks[upper]), drawn


def _standardised(values: Float64) -> Float64:
    spread = values.std()
    found: Float64 = (values - values.mean()) / (spread if spread > 0 else 1)
    return found


@dataclass(frozen=True, eq=False)
class Centering:
    """Whether centering brings prompts of one category closer together, at one site."""

    site: str
    prompts: int
    neighbours: tuple[int, ...]
    purity: Float64
    """(views, k) of `VIEWS`: share of a prompt's k nearest others that are of its category."""
    chance: float
    """Its exact expectation if categories were shuffled over prompts."""
    gains: Float64
    """(views − 1, k) purity less that of raw vectors."""
    p_gains: Float64
    """(views − 1, k) two-sided: signs of the prompts' own gains flipped at random. Prompts made
    from one template are alike, so that they are fewer than they seem."""
    gap: Float64
    """(views,) (between − within) / between, of mean cosine distances."""
    same_order: Float64
    """(views − 1,) Spearman's correlation of its distances with those of raw vectors: 1 where
    centering only rescales."""


def centering(
    site: str,
    vectors: Float32,
    center: Float32,
    label: Int64,
    neighbours: Sequence[int] = NEIGHBOURS,
    draws: int = 1999,
    seed: int = 0,
) -> Centering:
    """Nearest neighbours of prompts by the cosines of raw and of centered vectors.

    Args:
        site: Its name.
        vectors: (P, D) raw, at the prompts' final positions.
        center: (D,) of a dictionary of the site.
        label: (P,) category of each prompt.
        neighbours: Numbers of them.
        draws: Flips of signs.
        seed: Of the flips.

    Raises:
        ValueError: Too few prompts for so many neighbours, or one category.

    Source: Rumbelow 2026 (arXiv:2605.14347), centering diagnostic.
    """
    from scipy.stats import spearmanr

    sizes = np.bincount(label)
    if len(label) <= max(neighbours) or (sizes > 0).sum() < 2:
        raise ValueError(
            f"{len(label)} prompts of {(sizes > 0).sum()} categories were given, expected more "
            f"than {max(neighbours)} of two categories or more"
        )
    raw = vectors.astype(np.float64)
    seen = [_distances(raw - point) for point in (0.0, center.astype(np.float64), raw.mean(axis=0))]
    alike = label[:, None] == label
    own = np.stack([_purities(distance, alike, neighbours) for distance in seen])  # (views, P, k)
    gains = own[1:] - own[0]
    rng = np.random.default_rng([seed, 0xCE2])
    signs = rng.choice((-1.0, 1.0), size=(draws, len(label)))
    drawn = np.abs(np.einsum("dp,vpk->dvk", signs, gains)) / len(label)
    observed = np.abs(gains.mean(axis=1))
    upper = np.triu_indices(len(label), 1)
    chance = float((sizes * (sizes - 1)).sum() / (len(label) * (len(label) - 1)))
    return Centering(
        site=site,
        prompts=len(label),
        neighbours=tuple(neighbours),
        purity=own.mean(axis=1),
        chance=chance,
        gains=gains.mean(axis=1),
        p_gains=(1 + (drawn >= observed - 1e-12).sum(axis=0)) / (1 + draws),
        gap=np.array([_gap(distance[upper], alike[upper]) for distance in seen]),
        same_order=np.array([
            float(spearmanr(seen[0][upper], distance[upper]).statistic) for distance in seen[1:]
        ]),
    )  # fmt: skip


def _distances(vectors: Float64) -> Float64:
    """(P, P) cosine distances; a vector of length 0 is at 1 from all."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(norms > 0, norms, 1)
    return 1 - directions @ directions.T


def _purities(distance: Float64, alike: NDArray[np.bool_], neighbours: Sequence[int]) -> Float64:
    """(P, k) share of each prompt's nearest other prompts that are like it."""
    apart = distance.copy()
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(apart, axis=1, kind="stable")[:, : max(neighbours)]
    found = np.take_along_axis(alike, order, axis=1)
    return np.stack([found[:, :k].mean(axis=1) for k in neighbours], axis=1)


def _gap(distance: Float64, alike: NDArray[np.bool_]) -> float:
    within, between = distance[alike].mean(), distance[~alike].mean()
    return float((between - within) / between) if between else float("nan")
