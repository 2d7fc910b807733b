"""Two partitions of the same rows: how far they agree, and which cells correspond.

Nothing here needs a common space: the rows may be of two layers, two models, two widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.matching import HUNGARIAN_REGIONS
from exemplars.geometry import Float64, Int64


@dataclass(frozen=True, eq=False)
class Overlap:
    """Cells of two partitions of the same rows, one to one by the rows that they share."""

    pairs: Int64
    """(P, 2) cell of a, cell of b, that share a row or more; ascending in a."""
    f1: Float64
    """(P,) 2 |A ∩ B| / (|A| + |B|), in (0, 1]."""
    sizes_a: Int64
    """(K_a,) rows of each cell of a that have a cell of b too."""
    sizes_b: Int64
    rows: int
    """With a cell on both sides."""
    nmi: float
    """Mutual information of the two cells of a row over the mean of their entropies, in [0, 1]."""
    method: str
    """"hungarian" (largest sum of F1) or "greedy" (largest F1 first)."""

    @property
    def jaccard(self) -> Float64:
        """(P,) |A ∩ B| / |A ∪ B|."""
        return self.f1 / (2.0 - self.f1)

    @cached_property
    def mean_f1(self) -> float:
        """Over the side with fewer cells that have rows; a cell without a partner counts as 0."""
        cells = min(np.count_nonzero(self.sizes_a), np.count_nonzero(self.sizes_b))
        return float(self.f1.sum() / cells) if cells else float("nan")

    @property
    def smaller(self) -> Float64:
        """(P,) the share of all rows that the smaller cell of each pair has."""
        rows = np.minimum(self.sizes_a[self.pairs[:, 0]], self.sizes_b[self.pairs[:, 1]])
        share: Float64 = rows / max(self.rows, 1)
        return share


def match_overlap(
    a: Int64, b: Int64, n_cells_a: int, n_cells_b: int, method: str = "auto"
) -> Overlap:
    """Match the cells of two partitions of the same rows one to one by F1.

    Args:
        a: (N,) the cell of each row; -1 for none.
        b: (N,) likewise; rows with a cell on one side only are left out.
        n_cells_a: Cells there are, empty ones included.
        n_cells_b: Likewise.
        method: "hungarian", "greedy" (ties to the lower cell of a, then of b), or "auto": the
            first up to `HUNGARIAN_REGIONS` cells on the larger side.

    Raises:
        ValueError: Different numbers of rows.
    """
    if len(a) != len(b):
        raise ValueError(
            f"the sides have {len(a)} and {len(b)} rows, expected the same rows through both"
        )
    i, j, counts = _contingency(a, b)
    sizes_a = np.bincount(i, counts, n_cells_a).astype(np.int64)
    sizes_b = np.bincount(j, counts, n_cells_b).astype(np.int64)
    f1 = 2.0 * counts / (sizes_a[i] + sizes_b[j])
    if method == "auto":
        small = max(n_cells_a, n_cells_b) <= HUNGARIAN_REGIONS
        method = "hungarian" if small else "greedy"
    match = _hungarian if method == "hungarian" else _greedy
    chosen = match(i, j, f1)
    return Overlap(
        pairs=np.stack([i[chosen], j[chosen]], axis=1),
        f1=f1[chosen],
        sizes_a=sizes_a,
        sizes_b=sizes_b,
        rows=int(counts.sum()),
        nmi=_normalised(counts, sizes_a, sizes_b),
        method=method,
    )


def permuted(
    labels: Int64, random: np.random.Generator, within: NDArray[Any] | None = None
) -> Int64:
    """Labels with their rows permuted; rows only change places with rows of an equal `within`."""
    if within is None:
        return labels[random.permutation(len(labels))]
    place = np.argsort(within, kind="stable")
    drawn = np.lexsort((random.random(len(labels)), within))
    moved = np.empty_like(labels)
    moved[place] = labels[drawn]
    return moved


def mutual_information(a: Int64, b: Int64) -> float:
    """Normalised mutual information of two partitions, in [0, 1]; see `Overlap.nmi`.

    Args:
        a: (N,) the cell of each row; -1 for none.
        b: (N,) likewise.
    """
    i, j, counts = _contingency(a, b)
    return _normalised(counts, np.bincount(i, counts), np.bincount(j, counts))


def _contingency(a: Int64, b: Int64) -> tuple[Int64, Int64, Int64]:
    """The pairs of cells that rows lie in, ascending, and how many rows lie in each."""
    both = (a >= 0) & (b >= 0)
    n_cells_b = int(b.max(initial=-1)) + 1
    cells, counts = np.unique(a[both] * np.int64(n_cells_b) + b[both], return_counts=True)
    return cells // max(n_cells_b, 1), cells % max(n_cells_b, 1), counts


def _normalised(counts: Int64, sizes_a: NDArray[Any], sizes_b: NDArray[Any]) -> float:
    """I over the mean of both entropies; 1 where neither side has more than one cell."""
    rows = counts.sum()
    if not rows:
        return float("nan")
    entropy_a, entropy_b, joint = (_entropy(n / rows) for n in (sizes_a, sizes_b, counts))
    if entropy_a + entropy_b == 0:
        return 1.0
    return float(np.clip(2.0 * (entropy_a + entropy_b - joint) / (entropy_a + entropy_b), 0, 1))


def _entropy(shares: Float64) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def _hungarian(i: Int64, j: Int64, f1: Float64) -> Int64:
    """Which entries are chosen, ascending; only pairs that share rows are."""
    from scipy.optimize import linear_sum_assignment

    rows, row = np.unique(i, return_inverse=True)
    columns, column = np.unique(j, return_inverse=True)
    entry = np.full((len(rows), len(columns)), -1, np.int64)
    entry[row, column] = np.arange(len(f1))
    gain = np.zeros(entry.shape)
    gain[row, column] = f1
    chosen = entry[linear_sum_assignment(gain, maximize=True)]
    return np.sort(chosen[chosen >= 0])


def _greedy(i: Int64, j: Int64, f1: Float64) -> Int64:
    """The largest F1 first: again and again the entries that are both their row's and their
    column's first.
    """
    left = np.lexsort((j, i, -f1))
    found = [np.empty(0, np.int64)]
    while len(left):
        first = np.zeros(len(left), np.int64)
        for side in (i, j):
            first[np.unique(side[left], return_index=True)[1]] += 1
        chosen = left[first == 2]
        found.append(chosen)
        left = left[~(np.isin(i[left], i[chosen]) | np.isin(j[left], j[chosen]))]
    return np.sort(np.concatenate(found))
