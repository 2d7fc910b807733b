"""Nearest exemplars of many rows: what is kept of the exemplars so that each search is short.

An index never changes an answer. It starts with a dense search, and once that has cost several
times what a screen costs to make, it makes the screen that is estimated to be fastest.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from threading import Lock
from typing import Any

import numpy as np

from exemplars.geometry import Float32, Float64, Int64
from exemplars.nearest import dense, planning, vnni
from exemplars.nearest.audit import Audit
from exemplars.nearest.device import DeviceScreen
from exemplars.nearest.floating import FloatScreen
from exemplars.nearest.integer import Fine, IntegerScreen, grid_step
from exemplars.nearest.rotation import prefix_rotation, whole_rotation

SCREENS = ("auto", "dense", "float32", "int8")
"""How an index may screen: "auto", by whichever is estimated to be fastest on this processor;
"dense", with float32 products of all components; "float32", of few coordinates; "int8", with
products of bytes."""

_FEW_ROWS = 16
_PATIENCE = {True: 2.0, False: 25.0}
"""A plan is made when searches have cost so many times what it costs: with products of bytes, which
nearly always gain, and without."""

THREADS: ContextVar[int | None] = ContextVar("THREADS", default=None)
"""Threads that one search may use; None for as many as there are."""


class ExemplarIndex:
    """Finds nearest exemplars among a list that only grows.

    Args:
        width: D.
        screen: One of `SCREENS`, or a torch device ("cuda", "mps"). Answers are the same with each.

    Raises:
        ValueError: A screen that is not there.
    """

    def __init__(self, width: int, screen: str = "auto") -> None:
        if screen == "int8" and not vnni.available():
            raise ValueError(
                'screen is "int8", which needs a processor with AVX-512 VNNI; leave it at "auto"'
            )
        self.width, self.screen = width, screen
        self.plan = planning.Plan("dense")
        self._bytes = screen in ("auto", "int8") and vnni.available()
        self._kept: Any = None if screen in SCREENS else DeviceScreen(screen, width)
        self._axes: tuple[int, Float32] | None = None
        self._rows: list[Float32] = []
        self._planned_at = 0
        self._spent_ns = self._regret_ns = 0.0
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts afresh."""
        return ExemplarIndex, (self.width, self.screen)

    def nearest(
        self,
        directions: Float32,
        exemplars: Float32,
        rows_to_come: int = 0,
        audit: Audit | None = None,
    ) -> tuple[Int64, Float64]:
        """As `exemplars.nearest.nearest`; see `offer` for what the arguments are."""
        region = np.full(len(directions), -1, np.int64)
        similarity = np.full(len(directions), -np.inf)
        self.offer(directions, exemplars, region, similarity, rows_to_come, audit)
        return region, similarity

    def offer(
        self,
        directions: Float32,
        exemplars: Float32,
        region: Int64,
        similarity: Float64,
        rows_to_come: int = 0,
        audit: Audit | None = None,
    ) -> None:
        """Let exemplars compete with what each row has; `region` and `similarity` are updated.

        Args:
            directions: (N, D) float32, unit length.
            exemplars: (K, D) float32: those of the last call, and perhaps more after them.
            region: (N,) int64, written; -1 where a row has nothing.
            similarity: (N,) float64, canonical, -inf where a row has nothing; written.
            rows_to_come: Rows that will be searched for after these, as far as is known.
            audit: Compares random pairs with the answer; None for no checks.
        """
        n, k = len(directions), len(exemplars)
        if not n or not k:
            return
        with self._lock:
            screen = self._screen_for(directions, exemplars, rows_to_come)
        if screen is None:
            counts = 0, dense.offer(directions, exemplars, 0, region, similarity)
        else:
            counts = screen.offer(directions, exemplars, region, similarity, _threads(n))
        with self._lock:
            self._learn(screen, n, k, *counts)
        if audit is not None:
            audit.check(directions, exemplars, region, similarity, screen)

    def _screen_for(self, directions: Float32, exemplars: Float32, rows_to_come: int) -> Any:
        """A screen of just these exemplars, or None."""
        self._consider(directions, exemplars, rows_to_come)
        screen, k = self._kept, len(exemplars)
        if screen is None or len(directions) < _FEW_ROWS or screen.n > k:
            return None
        if screen.n < k:
            screen.append(exemplars[screen.n :])
        return screen

    def _consider(self, directions: Float32, exemplars: Float32, rows_to_come: int) -> None:
        """Make a plan if it will pay."""
        n, k = len(directions), len(exemplars)
        if self.screen not in ("auto", "float32", "int8") or n < _FEW_ROWS:
            return
        self._rows = [*self._rows[-3:], planning.spread(directions, 64).copy()]
        k_axes = 0 if self._axes is None else self._axes[0]
        forced = self.screen != "auto"
        prefix = forced or k >= planning.FEWEST_FOR_PREFIX
        new_axes = prefix and k >= 4 * k_axes
        full = planning.planning_ns(self.width, k, new_axes, prefix)
        cheap = planning.planning_ns(self.width, k, False, False)
        ahead = self._spent_ns + (n + rows_to_come) * self._row_ns(k)
        grown = k >= 2 * self._planned_at
        patience = _PATIENCE[self._bytes]
        if self._regret_ns > full or (
            (grown or (prefix and not k_axes)) and (forced or ahead > patience * full)
        ):
            if new_axes:
                self._axes = k, planning.sample_axes(directions, exemplars)
            self._make(exemplars)
        elif grown and not k_axes and ahead > patience * cheap:
            self._make(exemplars)

    def _make(self, exemplars: Float32) -> None:
        """Plan, and make the screen if it is another."""
        axes = None if self._axes is None else self._axes[1]
        rows = np.concatenate(self._rows)
        chosen = planning.plan(rows, exemplars, axes, self._bytes, dense=self.screen == "auto")
        if (chosen.kind, chosen.axes) != (self.plan.kind, self.plan.axes):
            self._kept = self._screen(chosen, rows)
        self.plan, self._planned_at = chosen, len(exemplars)
        self._spent_ns = self._regret_ns = 0.0

    def _row_ns(self, n_exemplars: int) -> float:
        """What a row costs with the plan there is."""
        if self.plan.kind == "dense":
            return planning.row_ns("dense", 0, self.width, n_exemplars, 0.0, 1.5)
        return self.plan.row_ns * n_exemplars / self._planned_at

    def _learn(self, screen: Any, n: int, n_exemplars: int, finer: int, checks: int) -> None:
        """Note what a search took; rows unlike those planned for call for another plan."""
        if n < _FEW_ROWS or self.screen not in SCREENS:
            return
        kind, axes = ("dense", 0) if screen is None else (self.plan.kind, self.plan.axes)
        took = planning.row_ns(kind, axes, self.width, n_exemplars, finer / n, checks / n)
        self._spent_ns += n * took
        if screen is not None:
            self._regret_ns += n * max(0.0, took - 1.2 * self._row_ns(n_exemplars))

    def _screen(self, chosen: planning.Plan, rows: Float32) -> Any:
        if chosen.kind == "dense":
            return None
        whole = whole_rotation(self.width)
        rotation = whole
        if chosen.kind != "whole":
            assert self._axes is not None
            rotation = prefix_rotation(self._axes[1], chosen.axes)
        if chosen.kind == "float prefix":
            return FloatScreen(rotation)
        fine = None if rotation.whole else Fine(whole, grid_step(whole, rows))
        return IntegerScreen(rotation, grid_step(rotation, rows), fine)


def check_screen(screen: str) -> None:
    """Raise ValueError for a screen that is not there."""
    ExemplarIndex(1, screen)


def _threads(n_rows: int) -> int:
    """Threads for a search of so many rows."""
    most = THREADS.get()
    if most is None:
        given = os.environ.get("OMP_NUM_THREADS", "")
        most = int(given) if given.isdecimal() and int(given) else _cores()
    return max(1, min(most, n_rows // 256))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
