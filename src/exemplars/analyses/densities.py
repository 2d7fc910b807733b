"""How unusual one activation is, by what a dictionary knows of its regions, and nothing else.

A dictionary keeps of each region its share of the stream, its members' distances to the exemplar,
and the direction of their sum. Each score below turns some of that into a number for one token:
larger is less like the stream. None needs another text; what a score means for a text of this kind
is found by calibration (see `exemplars.analyses.conformal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Float64, Int64
from exemplars.members import BINS_PER_THRESHOLD

PSEUDO_MEMBERS = 20.0
"""Members like those of all regions together that a region's own distances are mixed with."""

SCORES: Mapping[str, str] = {
    "distance": "cosine distance to the nearest exemplar, in θ",
    "standard": "distance to the nearest exemplar, less the mean of its region's members and over "
    "their standard deviation",
    "tail": "−ln of the share of the nearest region's members that lie as far from its exemplar",
    "rarity": "−ln of the nearest region's share of the stream",
    "joint": "−ln of the share of the stream that is in the nearest region and as far out in it",
    "mean": "cosine distance to the mean of the nearest region's members",
    "whitened": "length of the direction where the regions vary alike in all axes",
}


@dataclass(frozen=True, eq=False)
class RegionDensity:
    """What the scores need of a dictionary. Row k is region k."""

    threshold: float
    rarity: Float64
    """(K,) −ln((n + ½) / (N + K/2)) of the n members among all N."""
    center_of_distance: Float64
    """(K,) mean distance of members in θ, mixed with that of all regions."""
    deviation: Float64
    """(K,) standard deviation, likewise; positive."""
    tail: Float64
    """(K, B + 1) −ln of the share of members at or beyond each edge of the histogram's bins up to
    θ, likewise."""
    slope: float
    """What `tail` grows by for each θ beyond the last edge: the rate between θ/2 and θ of all
    regions together."""
    means: Float32
    """(K, D) unit vectors; the exemplar where a region has no mean."""
    whitening: Float64
    """(D, D) W with |W u|² the Mahalanobis square of a direction u from the mean of all."""
    mean_direction: Float64
    """(D,) of all members, not of unit length."""

    @classmethod
    def of(cls, dictionary: Dictionary) -> RegionDensity:
        """From the members as they joined.

        Raises:
            ValueError: The dictionary has no members.
        """
        members = dictionary.members
        counts = members.counts.astype(np.float64)
        total = float(counts.sum())
        if not total:
            raise ValueError("the dictionary has no members, so no text is near; build one")
        theta = dictionary.threshold
        mean = members.distance_sums / theta
        square = members.distance_square_sums / theta**2
        of_all = mean.sum() / total
        variance_of_all = max(square.sum() / total - of_all**2, 1e-6)
        n = counts + PSEUDO_MEMBERS
        center = (mean + PSEUDO_MEMBERS * of_all) / n
        # Second moments about the mixed mean, so that a far pseudo-member counts as spread.
        second = square + PSEUDO_MEMBERS * (variance_of_all + of_all**2)
        variance = np.maximum(second / n - center**2, 1e-6)
        tail, slope = _tails(members.histogram[:, : BINS_PER_THRESHOLD + 1], counts)
        means = np.where(np.isnan(dictionary.means), dictionary.exemplars, dictionary.means)
        whitening, mean_direction = _whitening(
            means, counts, np.nan_to_num(members.coherence.astype(np.float64))
        )
        return cls(
            threshold=theta,
            rarity=-np.log((counts + 0.5) / (total + 0.5 * len(counts))),
            center_of_distance=center,
            deviation=np.sqrt(variance),
            tail=tail,
            slope=slope,
            means=means.astype(np.float32),
            whitening=whitening,
            mean_direction=mean_direction,
        )

    def scores(self, name: str, directions: Float32, region: Int64, distance: Float32) -> Float64:
        """One score of each token.

        Args:
            name: One of `SCORES`.
            directions: (N, D) unit directions, as the dictionary sees them.
            region: (N,) nearest region of each.
            distance: (N,) cosine distance to its exemplar.

        Raises:
            ValueError: There is no such score.
        """
        in_thresholds = np.asarray(distance, np.float64) / self.threshold
        if name == "distance":
            return in_thresholds
        if name == "standard":
            return (in_thresholds - self.center_of_distance[region]) / self.deviation[region]
        if name == "rarity":
            return self.rarity[region]
        if name == "tail":
            return self._tail(region, in_thresholds)
        if name == "joint":
            return self.rarity[region] + self._tail(region, in_thresholds)
        if name == "mean":
            return 1.0 - np.einsum("nd,nd->n", directions, self.means[region]).astype(np.float64)
        if name == "whitened":
            apart = np.asarray(directions, np.float64) - self.mean_direction
            return np.linalg.norm(apart @ self.whitening, axis=1)
        raise ValueError(f"there is no score {name!r}; there are {', '.join(SCORES)}")

    def _tail(self, region: Int64, in_thresholds: Float64) -> Float64:
        """Linear between the edges; beyond the last it goes on at the rate of all regions."""
        edge = np.clip(in_thresholds, 0, 1) * BINS_PER_THRESHOLD
        low = np.minimum(edge.astype(np.int64), BINS_PER_THRESHOLD - 1)
        inside = edge - low
        found = self.tail[region, low] * (1 - inside) + self.tail[region, low + 1] * inside
        return np.asarray(found + self.slope * np.maximum(in_thresholds - 1, 0))


def _tails(histogram: NDArray[np.uint32], counts: Float64) -> tuple[Float64, float]:
    """−ln of the share of members at or beyond each edge, mixed; and its rate beyond θ."""
    beyond = counts[:, None] - np.cumsum(histogram, axis=1) + histogram
    of_all = (beyond.sum(axis=0) + 1.0) / (counts.sum() + 1.0)
    share = (beyond + PSEUDO_MEMBERS * of_all) / (counts[:, None] + PSEUDO_MEMBERS)
    middle = BINS_PER_THRESHOLD // 2
    # The last edge with members is a bin's width before θ: beyond θ online members have none.
    last = BINS_PER_THRESHOLD - 1
    rate = (np.log(of_all[middle]) - np.log(of_all[last])) / ((last - middle) / BINS_PER_THRESHOLD)
    tail = -np.log(share)
    tail[:, last + 1 :] = tail[:, last, None] + rate / BINS_PER_THRESHOLD
    return tail[:, : BINS_PER_THRESHOLD + 1], float(max(rate, 0.0))


def _whitening(means: Float32, counts: Float64, coherence: Float64) -> tuple[Float64, Float64]:
    """A root of the precision of directions, from regions alone, and the mean direction.

    Directions have Σ n c² m mᵀ / N between regions, and what is left of their unit length, the
    share 1 − Σ n c² / N, is taken to lie in all axes alike.
    """
    weight = counts / counts.sum()
    sums = means.astype(np.float64) * coherence[:, None]  # (K, D) mean direction, true length
    center = weight @ sums
    apart = sums - center
    between = (apart * weight[:, None]).T @ apart
    within = max(1.0 - float(weight @ coherence**2), 1e-6) / means.shape[1]
    values, axes = np.linalg.eigh(between)
    root = axes / np.sqrt(np.maximum(values, 0.0) + within)
    return np.asarray(root @ axes.T), np.asarray(center)
