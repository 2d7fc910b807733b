"""A baseline that adds a batch of directions as the published code does, from its description.

A float32 product of the batch with all exemplars; the rows that an exemplar covers are grouped by
region, and a Python loop over the regions hit adds their sums and, row by row, their heaps and
reservoirs. The other rows are taken one by one against those that this batch founded so far. Facts
from arXiv 2605.14347 and its code's description; no line of it. Arrays grow by doubling and the
batch's founders lie in one array, so that nothing is copied more often than it must be; only the
largest similarity of a row becomes a distance.
"""

from __future__ import annotations

import heapq
import random

import numpy as np

EXTREMES, SAMPLE = 10, 30


class PublishedBatches:
    """Regions of one stream of directions.

    Args:
        width: D.
        threshold: θ.
        batch_rows: Rows of a batch.
    """

    def __init__(self, width: int, threshold: float, batch_rows: int = 2048) -> None:
        self.threshold, self.batch_rows = threshold, batch_rows
        self._exemplars = np.empty((256, width), np.float32)
        self._leaders = np.empty((batch_rows, width), np.float32)
        self.regions: list[_Region] = []
        self.exemplar_rows: list[int] = []
        self.n_rows = 0

    def add(self, u: np.ndarray) -> None:
        """One batch, (n, D) float32."""
        region = np.full(len(u), -1)
        distance = np.zeros(len(u), np.float32)
        first = 0
        if not self.regions:  # the very first row founds before the batch is looked at
            self._found(u[0], self.n_rows)
            self.regions[0].add(u[:1], distance[:1], [self.n_rows])
            first = 1
        self._match(u, first, region, distance)
        before = len(self.regions)
        self._join_or_found(u, first, region, distance)
        self._remember(u, first, region, distance)
        self._append(self._leaders[: len(self.regions) - before], before)
        self.n_rows += len(u)

    def _match(self, u: np.ndarray, first: int, region: np.ndarray, distance: np.ndarray) -> None:
        """Rows that an exemplar from before the batch covers."""
        similarity = u[first:] @ self._exemplars[: len(self.regions)].T
        best = similarity.argmax(axis=1)
        least = np.clip(1 - similarity[np.arange(len(best)), best], 0, 2)
        covered = np.flatnonzero(least <= self.threshold)
        region[first + covered], distance[first + covered] = best[covered], least[covered]

    def _join_or_found(
        self, u: np.ndarray, first: int, region: np.ndarray, distance: np.ndarray
    ) -> None:
        """The other rows, one by one, against what this batch founded so far."""
        before = len(self.regions)
        for i in (first + np.flatnonzero(region[first:] < 0)).tolist():
            founded = len(self.regions) - before
            if founded:
                s = self._leaders[:founded] @ u[i]
                j = int(s.argmax())
                if float(s[j]) >= 1 - self.threshold:
                    region[i], distance[i] = before + j, 1 - s[j]
                    continue
            self._leaders[founded] = u[i]
            region[i] = len(self.regions)
            self.regions.append(_Region(u.shape[1]))
            self.exemplar_rows.append(self.n_rows + i)

    def _remember(
        self, u: np.ndarray, first: int, region: np.ndarray, distance: np.ndarray
    ) -> None:
        """Statistics, region by region of those that the batch hit."""
        rows = first + np.argsort(region[first:], kind="stable")
        hit, edges = np.unique(region[rows], return_index=True)
        for k, members in zip(hit.tolist(), np.split(rows, edges[1:]), strict=True):
            self.regions[k].add(u[members], distance[members], (self.n_rows + members).tolist())

    def _found(self, direction: np.ndarray, row: int) -> None:
        self.regions.append(_Region(len(direction)))
        self.exemplar_rows.append(row)
        self._append(direction[None], 0)

    def _append(self, directions: np.ndarray, before: int) -> None:
        needed = before + len(directions)
        if needed > len(self._exemplars):
            larger = np.empty((max(needed, 2 * before), directions.shape[1]), np.float32)
            larger[:before] = self._exemplars[:before]
            self._exemplars = larger
        self._exemplars[before:needed] = directions


class _Region:
    def __init__(self, width: int) -> None:
        self.count = 0
        self.sum = np.zeros(width)
        self.distance_sum = self.distance_square_sum = 0.0
        self.nearest: list[tuple[float, int]] = []
        self.farthest: list[tuple[float, int]] = []
        self.reservoir: list[np.ndarray] = []

    def add(self, directions: np.ndarray, distances: np.ndarray, rows: list[int]) -> None:
        self.count += len(rows)
        self.sum += directions.sum(axis=0)
        self.distance_sum += float(distances.sum())
        self.distance_square_sum += float((distances**2).sum())
        for direction, distance, row in zip(directions, distances.tolist(), rows, strict=True):
            _keep(self.nearest, (-distance, row))
            _keep(self.farthest, (distance, row))
            if len(self.reservoir) < SAMPLE:
                self.reservoir.append(direction.copy())
            elif random.random() < SAMPLE / self.count:
                self.reservoir[random.randrange(SAMPLE)] = direction.copy()


def _keep(heap: list[tuple[float, int]], entry: tuple[float, int]) -> None:
    """The largest few."""
    if len(heap) < EXTREMES:
        heapq.heappush(heap, entry)
    elif entry > heap[0]:
        heapq.heapreplace(heap, entry)
