"""Leader clustering on the unit sphere: the one loop the method rests on.

In stream order, a row founds a region if and only if no earlier exemplar j has canonical
similarity s >= 1 − θ with it; its direction is the region's exemplar, which never moves and is
never removed. So the set of exemplars is a function of the stream and of θ, and of nothing
else: not of the chunks rows arrive in, not of the device or the threads.

Which region a covered row *joins* is a second question (`membership`): the nearest exemplar
founded up to the row ("online"), or what the published implementation does with batches of B
rows ("batch:B").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import (
    Float32,
    Float64,
    Int64,
    canonical_dot,
    compiled,
    cosine_distance,
    gemm_band,
)
from exemplars.nearest import Audit, ExemplarIndex, offer

_CHUNK_ROWS = 2048
_RESOLVED_AT_ONCE = 256


@dataclass(frozen=True)
class Assignment:
    """Where each direction of one chunk went. Row i describes input row i."""

    region: Int64
    """(n,) index of the region joined or founded."""
    distance: Float64
    """(n,) cosine distance to its exemplar, in [0, 2]; 0 for the founder."""
    founded: NDArray[np.bool_]
    """(n,) True where the row became an exemplar."""


class LeaderClustering:
    """The exemplars so far, and the rule that adds to them.

    Args:
        width: D.
        threshold: θ, the largest cosine distance at which a row still joins, in (0, 2].
        membership: "online", or "batch:B" with B a number of rows.
        screen: How nearest exemplars are searched for (`nearest.SCREENS`); never what is found.
        audit: Checks a share of the searches as they go; None for no checks.
    """

    def __init__(
        self,
        width: int,
        threshold: float,
        membership: str = "online",
        screen: str = "auto",
        audit: Audit | None = None,
    ) -> None:
        if not 0 < threshold <= 2:
            raise ValueError(f"threshold is {threshold}, expected a cosine distance in (0, 2]")
        self.threshold = float(threshold)
        self.membership = membership
        self.batch_rows = batch_rows(membership)
        self._index = ExemplarIndex(width, screen)
        self._audit = audit
        self._exemplars = np.empty((256, width), np.float32)
        self._rows = np.empty(256, np.int64)
        self.n_regions = 0
        self._before_batch = 0  # "batch:B": regions founded before the current batch of B
        self._batch = -1

    @property
    def exemplars(self) -> Float32:
        """(K, D) float32 directions, in the order they were founded."""
        return self._exemplars[: self.n_regions]

    @property
    def exemplar_rows(self) -> Int64:
        """(K,) global number of the row that founded each region; ascending."""
        return self._rows[: self.n_regions]

    def add(self, directions: Float32, rows: Int64) -> Assignment:
        """Let rows join or found, in order.

        Args:
            directions: (n, D) float32, unit length.
            rows: (n,) their global numbers, ascending, larger than any before.

        Returns:
            The `Assignment` of these n rows.

        Raises:
            ValueError: The width differs from the one given at the start.
        """
        if directions.shape[1] != self._exemplars.shape[1]:
            raise ValueError(
                f"directions have width {directions.shape[1]}, "
                f"the exemplars {self._exemplars.shape[1]}; use rows of one site"
            )
        parts = []
        start = 0
        while start < len(rows):
            stop = min(start + _CHUNK_ROWS, len(rows))
            if self.batch_rows:
                stop = self._enter_batch(rows, start, stop)
            parts.append(self._add_chunk(directions[start:stop], rows[start:stop]))
            start = stop
        if not parts:
            return Assignment(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))
        return Assignment(
            np.concatenate([p.region for p in parts]),
            np.concatenate([p.distance for p in parts]),
            np.concatenate([p.founded for p in parts]),
        )

    def _enter_batch(self, rows: Int64, start: int, stop: int) -> int:
        """Note what was founded before the batch of B that `start` lies in; stop at its end."""
        batch = int(rows[start]) // self.batch_rows
        if batch != self._batch:
            self._batch, self._before_batch = batch, self.n_regions
        if self.n_regions == 0:
            return start + 1  # the published code founds region 0 before it looks at the batch
        if self._before_batch == 0:
            self._before_batch = 1
        end_of_batch = int(np.searchsorted(rows, (batch + 1) * self.batch_rows))
        return min(stop, end_of_batch)

    def _add_chunk(self, directions: Float32, rows: Int64) -> Assignment:
        n = len(directions)
        region = np.full(n, -1, np.int64)
        similarity = np.full(n, -np.inf)
        joins = 1.0 - self.threshold
        settled = np.zeros(n, np.bool_)  # covered, and not offered what this batch founded
        if not self.batch_rows:
            self._search(directions, self.exemplars, region, similarity)
        else:
            old = self._before_batch
            self._search(directions, self.exemplars[:old], region, similarity)
            settled = similarity >= joins
            open_rows = np.flatnonzero(~settled)
            region[open_rows], similarity[open_rows] = -1, -np.inf
            self._offer_some(directions, open_rows, old, region, similarity)

        founded = np.zeros(n, np.bool_)
        position = 0
        while True:
            # Rows that no earlier exemplar covers are decided in order; each later row is then
            # offered the new exemplars, covered or not: one chunk of n equals n chunks of one.
            uncovered = position + np.flatnonzero(similarity[position:] < joins)
            uncovered = uncovered[:_RESOLVED_AT_ONCE]
            if len(uncovered) == 0:
                break
            founders = _resolve_in_order(directions, uncovered, joins)
            first_region = self.n_regions
            self._append(directions[founders], rows[founders])
            founded[founders] = True
            first = int(founders[0])
            if settled.any():
                later = first + np.flatnonzero(~settled[first:])
            else:
                later = np.arange(first, n)
            self._offer_some(
                directions,
                later,
                first_region,
                region,
                similarity,
                born=np.searchsorted(later, founders),
            )
            region[founders] = np.arange(first_region, self.n_regions)
            similarity[founders] = 1.0
            position = int(uncovered[-1]) + 1
        return Assignment(region, cosine_distance(similarity), founded)

    def _search(
        self, directions: Float32, exemplars: Float32, region: Int64, similarity: Float64
    ) -> None:
        self._index.offer(directions, exemplars, region, similarity, audit=self._audit)

    def _offer_some(
        self,
        directions: Float32,
        some: Int64,
        first_region: int,
        region: Int64,
        similarity: Float64,
        born: Int64 | None = None,
    ) -> None:
        """`offer` the regions from `first_region` on to the rows `some` of a chunk."""
        if len(some) == 0 or first_region == self.n_regions:
            return
        whole = len(some) == int(some[-1]) - int(some[0]) + 1
        chosen = slice(int(some[0]), int(some[-1]) + 1) if whole else some
        some_region, some_similarity = region[chosen], similarity[chosen]
        offer(
            directions[chosen],
            self.exemplars[first_region:],
            first_region,
            some_region,
            some_similarity,
            born,
        )
        if not whole:
            region[some], similarity[some] = some_region, some_similarity

    def _append(self, directions: Float32, rows: Int64) -> None:
        needed = self.n_regions + len(rows)
        if needed > len(self._exemplars):
            room = max(needed, 2 * len(self._exemplars))
            exemplars = np.empty((room, self._exemplars.shape[1]), np.float32)
            exemplars[: self.n_regions] = self.exemplars
            numbers = np.empty(room, np.int64)
            numbers[: self.n_regions] = self.exemplar_rows
            self._exemplars, self._rows = exemplars, numbers
        self._exemplars[self.n_regions : needed] = directions
        self._rows[self.n_regions : needed] = rows
        self.n_regions = needed

    def state(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps, as arrays."""
        return {
            "exemplars": self.exemplars,
            "exemplar_rows": self.exemplar_rows,
            "batch": np.array([self._batch, self._before_batch], np.int64),
        }

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state`."""
        self._index = ExemplarIndex(self._exemplars.shape[1], self._index.screen)
        self.n_regions = 0
        self._append(
            state["exemplars"].astype(np.float32, copy=False),
            state["exemplar_rows"].astype(np.int64, copy=False),
        )
        self._batch, self._before_batch = (int(v) for v in state["batch"])


def _resolve_in_order(directions: Float32, uncovered: Int64, joins: float) -> Int64:
    """Which of the uncovered rows found a region, when they are taken in order.

    A float32 product decides outside its band round 1 − θ; inside, the canonical similarity.
    """
    rows = directions[uncovered]
    return uncovered[_founders(rows, rows @ rows.T, joins, gemm_band(rows.shape[1]))]


@compiled
def _founders(rows: Float32, product: Float32, joins: float, band: float) -> Int64:
    n = rows.shape[0]
    founders = np.empty(n, np.int64)
    count = 0
    for i in range(n):
        covered = False
        for k in range(count):
            j = founders[k]
            value = np.float64(product[i, j])
            if value >= joins + band:
                covered = True
            elif value > joins - band:
                covered = canonical_dot(rows[i], rows[j]) >= joins
            if covered:
                break
        if not covered:
            founders[count] = i
            count += 1
    return founders[:count].copy()


def batch_rows(membership: str) -> int:
    """B of "batch:B", 0 for "online"; ValueError for anything else."""
    if membership == "online":
        return 0
    kind, _, number = membership.partition(":")
    if kind == "batch" and number.isdecimal() and int(number) > 0:
        return int(number)
    raise ValueError(f'membership is "{membership}", expected "online" or "batch:B" with B rows')
