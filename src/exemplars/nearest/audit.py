"""Checking a search while it runs: random pairs that it passed over, compared canonically."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from exemplars.errors import AuditError
from exemplars.geometry import Float32, Float64, Int64, canonical_similarity

SHARE = 1e-5
"""Of all pairs of a row and an exemplar."""


@dataclass
class Audit:
    """What was checked so far. One may serve several searches, on several threads."""

    pairs: int = 0
    """Pairs whose canonical similarity was compared with the answer."""
    bounded: int = 0
    """Of these, pairs whose bound was compared too."""
    smallest_slack: float = float("inf")
    """The least by which a bound lay above its similarity."""
    _random: Any = field(default_factory=lambda: np.random.default_rng(0), repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)

    def summary(self) -> dict[str, float]:
        """What was checked, as numbers."""
        found = {"pairs": self.pairs, "bounded": self.bounded}
        return found | ({"smallest_slack": self.smallest_slack} if self.bounded else {})

    def check(
        self,
        directions: Float32,
        exemplars: Float32,
        region: Int64,
        similarity: Float64,
        screen: Any = None,
    ) -> None:
        """Compare a random share of the pairs, one at least.

        Args:
            directions: (n, D) that were searched for.
            exemplars: (K, D) among which.
            region: (n,) the answers.
            similarity: (n,) canonical, of the answers.
            screen: What bounded the similarities, with `upper_bounds`; None to leave that out.

        Raises:
            AuditError: A pair is nearer than the answer, or above its bound.
        """
        total = len(directions) * len(exemplars)
        if not total:
            return
        with self._lock:
            n = max(1, int(self._random.binomial(total, SHARE)))
            rows = self._random.integers(0, len(directions), n)
            regions = self._random.integers(0, len(exemplars), n)
        s = canonical_similarity(directions, exemplars, rows, regions)
        wrong = (s > similarity[rows]) | ((s == similarity[rows]) & (regions < region[rows]))
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            raise AuditError(
                f"row {rows[k]} of a chunk was given region {region[rows[k]]} at similarity "
                f"{similarity[rows[k]]!r}, but region {regions[k]} has {s[k]!r}: the search is "
                "wrong on this machine; please report it, and search with screen dense"
            )
        slack = np.full(n, np.inf)
        if screen is not None:
            slack = screen.upper_bounds(directions[rows], regions) - s
        with self._lock:
            self.pairs += n
            self.bounded += n if screen is not None else 0
            self.smallest_slack = min(self.smallest_slack, float(slack.min()))
        if slack.min() < 0:
            raise AuditError(
                f"a bound lay {-slack.min():.1e} below the similarity it bounds: the search cannot "
                "be trusted on this machine; please report it, and search with screen dense"
            )
