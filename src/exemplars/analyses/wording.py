"""Partitions of prompts by their wording alone: what a comparison of models must be more than.

Two models that read the same words agree on some of them without representing anything alike. A
partition of the texts themselves, put in a model's place, shows how far that goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from exemplars.analyses.prompts import stream_order
from exemplars.analyses.rounds import PromptRegions
from exemplars.calibration import SMALLEST_THRESHOLD, calibrate
from exemplars.clustering import LeaderClustering
from exemplars.geometry import Float32, has_direction, to_directions

KMEANS, LEADER, TOKENS, LAST = (
    "TF-IDF, k-means", "TF-IDF, EP", "token embeddings, EP", "last word",
)  # fmt: skip
"""Of `wordings`: centroids of TF-IDF vectors; leader clustering of them, in the models' order, and
of mean token embeddings, which are a model before its first layer; the last word or sign."""

_STEPS = 512
"""Thresholds that leader clustering is tried at: percentiles of pairwise distance, finest where
they are small."""
_MOST_TERMS = 20_000
_COMPONENTS = 100

Wording = Callable[[int, int], PromptRegions]
"""(number of regions wanted, seed of the order) -> a partition with about as many."""


def wordings(prompts: Sequence[str], embeddings: Float32 | None = None) -> dict[str, Wording]:
    """Ways to partition prompts by their wording, by name.

    Args:
        prompts: P texts.
        embeddings: (P, D) mean of each prompt's token embeddings; None leaves `TOKENS` out.
    """
    tfidf = tfidf_vectors(prompts)
    found: dict[str, Wording] = {KMEANS: _KMeans(tfidf), LEADER: _Leader(tfidf, LEADER)}
    if embeddings is not None:
        found[TOKENS] = _Leader(embeddings, TOKENS)
    last = last_words(prompts)
    found[LAST] = lambda n_regions, seed: last
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


def last_words(prompts: Sequence[str]) -> PromptRegions:
    """Prompts by their last word, or the sign after it, in lower case."""
    ends = [_last_word(prompt) for prompt in prompts]
    _, first, region = np.unique(np.array(ends), return_index=True, return_inverse=True)
    return PromptRegions(LAST, region.astype(np.int64), first.astype(np.int64))


def _last_word(prompt: str) -> str:
    stripped = prompt.strip().lower()
    end = len(stripped)
    if end and not stripped[-1].isalnum():
        return stripped[-1]
    start = end
    while start and stripped[start - 1].isalnum():
        start -= 1
    return stripped[start:end]


class _KMeans:
    """k-means on the principal components of TF-IDF; a prompt nearest its centroid stands for it.

    The order plays no part; the seed is of the start.
    """

    def __init__(self, vectors: Float32) -> None:
        left, values, _ = np.linalg.svd(vectors, full_matrices=False)
        self._reduced = np.ascontiguousarray(left[:, :_COMPONENTS] * values[:_COMPONENTS])
        self._made: dict[tuple[int, int], PromptRegions] = {}

    def __call__(self, n_regions: int, seed: int) -> PromptRegions:
        n_regions = min(n_regions, len(np.unique(self._reduced, axis=0)))
        if (n_regions, seed) not in self._made:
            self._made[n_regions, seed] = self._fitted(n_regions, seed)
        return self._made[n_regions, seed]

    def _fitted(self, n_regions: int, seed: int) -> PromptRegions:
        from sklearn.cluster import KMeans

        fitted = KMeans(n_regions, n_init=1, random_state=seed).fit(self._reduced)
        region, distances = fitted.labels_, fitted.transform(self._reduced)
        own = distances[np.arange(len(region)), region]
        order = np.lexsort((own, region))
        first = order[np.searchsorted(region[order], np.arange(n_regions))]
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
        center = calibrate(vectors, 50).center
        self._directions, norms = to_directions(vectors, center)
        self._usable = np.flatnonzero(has_direction(norms, center))
        directions = self._directions[self._usable]
        distances = 1 - (directions @ directions.T)[np.triu_indices(len(directions), 1)]
        percentiles = 100 * np.linspace(0, 1, _STEPS) ** 2
        self._thresholds = np.maximum(np.percentile(distances, percentiles), SMALLEST_THRESHOLD)
        self._made: dict[tuple[int, int], PromptRegions] = {}

    def __call__(self, n_regions: int, seed: int) -> PromptRegions:
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
