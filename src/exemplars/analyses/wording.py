"""Partitions of prompts by their wording alone: what a comparison of models must be more than.

Two models that read the same words agree on some of them without representing anything alike. A
partition of the texts themselves, put in a model's place, shows how far that goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from exemplars.analyses.prompts import stream_order
from exemplars.analyses.rounds import PromptRegions
from exemplars.calibration import SMALLEST_THRESHOLD
from exemplars.clustering import LeaderClustering
from exemplars.geometry import Float32, has_direction, to_directions

KMEANS, LEADER, TOKENS, LAST = (
    "TF-IDF, k-means", "TF-IDF, EP", "token embeddings, EP", "last token, EP",
)  # fmt: skip
"""Of `wordings`: centroids of TF-IDF vectors; leader clustering, in the models' order, of the same,
of the mean of a prompt's token embeddings, and of the embedding of its last token. Embeddings are
what a model has before its first layer: of the last one, at the final position of plain text."""

_STEPS = 512
"""Thresholds that leader clustering is tried at: percentiles of pairwise distance, finest where
they are small."""
_MOST_TERMS = 20_000
_COMPONENTS = 100
_DECIMALS = 5

Wording = Callable[[int, int], PromptRegions]
"""(number of regions wanted, seed of the order) -> a partition with about as many."""


def wordings(
    prompts: Sequence[str], embeddings: Mapping[str, Float32] | None = None
) -> dict[str, Wording]:
    """Ways to partition prompts by their wording, by name.

    Args:
        prompts: P texts.
        embeddings: (P, D) each, by `TOKENS` and `LAST`.
    """
    tfidf = tfidf_vectors(prompts)
    found: dict[str, Wording] = {KMEANS: _KMeans(tfidf), LEADER: _Leader(tfidf, LEADER)}
    found |= {name: _Leader(vectors, name) for name, vectors in (embeddings or {}).items()}
    return found


def tfidf_vectors(prompts: Sequence[str]) -> Float32:
    """(P, V) unit vectors of words and pairs of words that two prompts have, log-scaled counts.

    Source: the text baseline of Rumbelow 2026 (arXiv:2605.14347), app. E.

    Raises:
        ValueError: No word is in two prompts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, max_features=_MOST_TERMS, sublinear_tf=True
    )
    try:
        found = vectorizer.fit_transform(list(prompts))
    except ValueError:
        raise ValueError(
            "no word is in two of the prompts, so there is no wording to compare with; give more "
            "prompts"
        ) from None
    return np.asarray(found.toarray(), np.float32)


class _KMeans:
    """k-means on the principal components of TF-IDF; a prompt nearest its centroid stands for it.

    The order plays no part; the seed is of the start.
    """

    def __init__(self, vectors: Float32) -> None:
        left, values, _ = np.linalg.svd(vectors, full_matrices=False)
        self._reduced = np.ascontiguousarray(left[:, :_COMPONENTS] * values[:_COMPONENTS])
        self._made: dict[tuple[int, int], PromptRegions] = {}

    def __call__(self, n_regions: int, seed: int) -> PromptRegions:
        distinct = np.unique(self._reduced.round(_DECIMALS), axis=0)  # not by rounding errors
        n_regions = min(n_regions, len(distinct))
        if (n_regions, seed) not in self._made:
            self._made[n_regions, seed] = self._fitted(n_regions, seed)
        return self._made[n_regions, seed]

    def _fitted(self, n_regions: int, seed: int) -> PromptRegions:
        from sklearn.cluster import KMeans

        fitted = KMeans(n_regions, n_init=1, random_state=seed).fit(self._reduced)
        own = fitted.transform(self._reduced)[np.arange(len(self._reduced)), fitted.labels_]
        met, region = np.unique(fitted.labels_, return_inverse=True)  # a cluster can be empty
        order = np.lexsort((own, region))
        first = order[np.searchsorted(region[order], np.arange(len(met)))]
        return PromptRegions(KMEANS, region.astype(np.int64), first.astype(np.int64))


class _Leader:
    """Leader clustering in a seed's order, at the threshold that gives nearest to K regions.

    A larger threshold gives fewer regions, or nearly always: it is found by bisection.
    """

    def __init__(self, vectors: Float32, name: str) -> None:
        self._name = name
        if vectors.shape[1] > len(vectors):  # the same products in fewer axes
            left, values, _ = np.linalg.svd(vectors, full_matrices=False)
            vectors = np.ascontiguousarray(left * values, np.float32)
        center = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._directions, norms = to_directions(vectors, center)
        self._usable = np.flatnonzero(has_direction(norms, center))
        directions = self._directions[self._usable]
        distances = 1 - (directions @ directions.T)[np.triu_indices(len(directions), 1)]
        percentiles = 100 * np.linspace(0, 1, _STEPS) ** 2
        found = np.percentile(distances, percentiles) if len(distances) else np.empty(0)
        self._thresholds = np.maximum(found, SMALLEST_THRESHOLD)
        self._made: dict[tuple[int, int], PromptRegions] = {}

    def __call__(self, n_regions: int, seed: int) -> PromptRegions:
        if not len(self._thresholds):  # all prompts are one
            first = stream_order(len(self._directions), seed)[:1]
            return PromptRegions(self._name, np.zeros(len(self._directions), np.int64), first)
        low, high, tried = 0, _STEPS - 1, []
        while low <= high:
            step = (low + high) // 2
            tried.append(self._kept(step, seed))
            if len(tried[-1]) > n_regions:
                low = step + 1
            else:
                high = step - 1
        return min(tried, key=lambda found: abs(len(found) - n_regions))

    def _kept(self, step: int, seed: int) -> PromptRegions:
        if (step, seed) not in self._made:
            self._made[step, seed] = self._at(float(self._thresholds[step]), seed)
        return self._made[step, seed]

    def _at(self, threshold: float, seed: int) -> PromptRegions:
        order = stream_order(len(self._directions), seed)
        order = order[np.isin(order, self._usable)]
        clustering = LeaderClustering(self._directions.shape[1], threshold)
        clustering.add(self._directions[order], np.arange(len(order)))
        similarity = self._directions @ clustering.exemplars.T
        region = np.full(len(self._directions), -1, np.int64)
        region[self._usable] = similarity[self._usable].argmax(axis=1)
        exemplar = order[clustering.exemplar_rows]
        region[exemplar] = np.arange(len(exemplar))
        return PromptRegions(self._name, region, exemplar)


def sized(wording: Wording, alike: Sequence[PromptRegions], seed: int) -> tuple[PromptRegions, ...]:
    """A partition by wording for each of some others, with about as many regions as it has."""
    return tuple(wording(len(other), seed) for other in alike)
