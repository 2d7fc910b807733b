"""Screening with 8-bit integers: coordinates on a grid, products exact, the rest bounded.

With coordinates a ≈ σ q_x and b ≈ σ q_e on a grid of step σ, and R the length of what the grid
misses, s(x, e) <= σ² q_x·q_e + ρ_x ρ_e + ‖σ q_x‖ R_e + R_x ‖b‖ + slack (docs/method.md). The grid
also carries ρ, rounded up, as one coordinate more, and the part that belongs to the exemplar is
where its sum starts. So one integer sum is the bound, up to a number per row.

What that leaves open goes through a second, finer bound of all components before it is compared
canonically.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int32, Int64, compiled, reordered
from exemplars.nearest.rotation import LONGEST, Rotation
from exemplars.nearest.scanning import (
    BLOCK,
    compare,
    enlarged,
    first_of,
    highest_in_block,
    list_reaching,
)
from exemplars.nearest.vnni import COLUMNS, ROWS, byte_dot, multiply

_GROUP = 2 * ROWS
"""Rows that share a pass over the exemplars: their bounds stay in the second cache."""
_SEGMENT = 32768
"""Exemplars whose bounds are kept at once."""
_NEVER = -(2**30)
_OFFSET = 128
"""Exemplars' bytes are unsigned: the grid moved by this much."""
_TOP = 1.7
SMALLEST_STEP = 1e-4
"""An exemplar's share of a bound, at most 2.1, is then below 2²⁸ units of σ²."""


@dataclass(frozen=True)
class _Grid:
    """Directions on the grid."""

    bytes: NDArray[np.int8]
    """(n, width) q."""
    rest: Float64
    """(n,) R: the length of what the grid misses, rounding of the coordinates included."""
    length: Float64
    """(n,) ‖σ q‖."""
    outside: Float64
    """(n,) ρ."""
    offset: Int64
    """(n,) 128 Σ q: what the exemplars' offset adds to each sum."""


def _on_grid(directions: Float32, rotation: Rotation, step: float) -> _Grid:
    coordinates = rotation.coordinates(directions)
    n, width = coordinates.shape
    bytes_ = np.empty((n, width), np.int8)
    squares, lengths = np.empty(n), np.empty(n)
    offset = np.empty(n, np.int64)
    _round_to_grid(
        coordinates, np.float32(1.0 / step), np.float32(step), bytes_, squares, lengths, offset
    )
    # float32 sums in any order err by γ; and each rest by rounding of σ q, at most 2⁻²⁴ |a|.
    safe = 1.0 + (width + 8) * 2.0**-23
    rest = np.sqrt(squares * safe) + 2.0**-22 * rotation.longest + rotation.rounding
    length = np.sqrt(lengths) * float(np.float32(step)) * (1.0 + 1e-12)
    return _Grid(bytes_, rest, length, rotation.outside(coordinates), offset)


@reordered
def _round_to_grid(
    coordinates: Float32,
    inverse: np.float32,
    step: np.float32,
    bytes_: NDArray[np.int8],
    squares: Float64,
    lengths: Float64,
    offset: Int64,
) -> None:
    """Nearest grid points in [-127, 127]; sums may be reordered: their error is allowed for."""
    n, width = coordinates.shape
    grid = np.empty(width, np.float32)
    for r in range(n):
        missed = np.float32(0.0)
        for d in range(width):
            q = np.rint(coordinates[r, d] * inverse)
            q = min(max(q, np.float32(-127.0)), np.float32(127.0))
            grid[d] = q
            rest = coordinates[r, d] - step * q
            missed += rest * rest
        total = np.int32(0)
        square = np.int32(0)
        for d in range(width):
            q = np.int32(grid[d])
            bytes_[r, d] = np.int8(q)
            total += q
            square += q * q
        squares[r] = missed
        lengths[r] = square
        offset[r] = 128 * np.int64(total)


def grid_step(rotation: Rotation, sample: Float32) -> float:
    """σ for which 127 steps are five times the root mean square of a sample's coordinates."""
    coordinates = rotation.coordinates(np.asarray(sample[:512]))
    return max(5.0 / 127.0 * float(np.sqrt(np.mean(coordinates**2))), 2 * SMALLEST_STEP)


class Fine:
    """A bound from all components, one exemplar's bytes side by side.

    Args:
        rotation: Of all D components.
        step: σ.
    """

    def __init__(self, rotation: Rotation, step: float) -> None:
        self.rotation, self.step = rotation, float(np.float32(step))
        self.bytes = np.zeros((1, rotation.width), np.uint8)
        self.extra = np.zeros(1)
        """(room,) what R_e adds to an exemplar's bound."""
        self._largest_rest = 0.0

    def reserve(self, room: int) -> None:
        """Make room for so many exemplars."""
        self.bytes, self.extra = enlarged(self.bytes, room), enlarged(self.extra, room)

    def put(self, first: int, exemplars: Float32) -> None:
        """Write exemplars first, first + 1, ..."""
        stop = first + len(exemplars)
        grid = _on_grid(exemplars, self.rotation, self.step)
        self.bytes[first:stop] = grid.bytes.view(np.uint8) + np.uint8(_OFFSET)
        self.extra[first:stop] = self.rotation.longest * grid.rest
        self._largest_rest = max(self._largest_rest, float(grid.rest.max(initial=0.0)))

    def rows(self, directions: Float32) -> _FineRows:
        """Directions on the grid, and the slack of their bounds."""
        grid = _on_grid(directions, self.rotation, self.step)
        slack = _slack(grid, self.rotation, self._largest_rest)
        return grid.bytes, grid.offset, slack, self.step**2, self.bytes, self.extra


_FineRows = tuple[NDArray[np.int8], Int64, Float64, float, NDArray[np.uint8], Float64]
"""Of rows: bytes, offset, slack; σ² (0: there is no finer bound); of exemplars: bytes, extra."""
_NOT_FINE: _FineRows = (
    np.zeros((1, 64), np.int8), np.zeros(1, np.int64), np.zeros(1), 0.0,
    np.zeros((1, 64), np.uint8), np.zeros(1),
)  # fmt: skip


def _slack(grid: _Grid, rotation: Rotation, largest_rest: float) -> Float64:
    """What a row adds to its bounds. The exemplars' part holds R_e times `longest`."""
    beyond = np.maximum(grid.length - rotation.longest, 0.0)
    return rotation.slack + grid.rest * rotation.longest + beyond * largest_rest


class IntegerScreen:
    """What is kept of exemplars, 8 bits a coordinate, to bound similarities with.

    Args:
        rotation: Where coordinates come from.
        step: σ of the grid, from `grid_step`; 1e-4 or more, so that sums stay in 32 bits.
        fine: A second bound; None for none.

    Raises:
        ValueError: A smaller step, or a width that is no multiple of 4.
    """

    def __init__(self, rotation: Rotation, step: float, fine: Fine | None = None) -> None:
        if not step >= SMALLEST_STEP:
            raise ValueError(f"step is {step:g}, expected {SMALLEST_STEP:g} or more")
        if rotation.width % 4:
            raise ValueError(f"there are {rotation.width} coordinates, expected a multiple of 4")
        self.rotation, self.step, self.fine = rotation, float(np.float32(step)), fine
        self.n = 0
        self._fours = rotation.width // 4 + (0 if rotation.whole else 1)
        # A bound of _TOP or more says nothing: there the 16-bit sums may end.
        self._halvings = max(0, math.ceil(math.log2(_TOP / (self.step**2 * 32767))))
        self._unit = self.step**2 * 2.0**self._halvings
        self._panels = np.zeros(0, np.int32)
        self._start = np.zeros(0, np.int32)
        self._largest_rest = self._largest_outside = 0.0

    def append(self, exemplars: Float32) -> None:
        """Take in the exemplars that come next."""
        needed = self.n + len(exemplars)
        if needed > len(self._start):
            room = -(-max(needed, 2 * len(self._start)) // BLOCK) * BLOCK
            self._panels = enlarged(self._panels, room * self._fours)
            self._start = enlarged(self._start, room, _NEVER)
            if self.fine is not None:
                self.fine.reserve(room)
        for first in range(0, len(exemplars), 8192):
            self._append(np.asarray(exemplars[first : first + 8192]))

    def _append(self, exemplars: Float32) -> None:
        needed = self.n + len(exemplars)
        grid = _on_grid(exemplars, self.rotation, self.step)
        level, excess = self._level(grid, 255)
        extra = self.rotation.longest * grid.rest + excess * LONGEST
        start = np.ceil(extra / self.step**2 * (1 + 1e-12)) + (2**self._halvings - 1)
        self._start[self.n : needed] = start
        _pack_exemplars(grid.bytes, level, self._fours, self.n, self._panels)
        self._largest_rest = max(self._largest_rest, float(grid.rest.max(initial=0.0)))
        self._largest_outside = max(self._largest_outside, float(grid.outside.max(initial=0.0)))
        if self.fine is not None:
            self.fine.put(self.n, exemplars)
        self.n = needed

    def _level(self, grid: _Grid, most: int) -> tuple[Int64, Float64]:
        """ρ in steps, rounded up, at most `most`; and what of ρ is beyond that."""
        steps = np.ceil(grid.outside / self.step * (1 + 1e-12))
        level = np.minimum(steps, most).astype(np.int64)
        excess = np.asarray((steps - level) * self.step, np.float64)
        return level, excess

    def _rows(self, directions: Float32) -> tuple[Int32, Int32, Float64]:
        """Directions as `multiply` reads them, their shifts, and the slack of their bounds."""
        grid = _on_grid(directions, self.rotation, self.step)
        level, excess = self._level(grid, 4 * 127)
        slack = _slack(grid, self.rotation, self._largest_rest) + excess * self._largest_outside
        n = -(-len(directions) // _GROUP) * _GROUP
        packed = np.zeros(n * self._fours, np.int32)
        shift = np.zeros(n, np.int32)
        shift[: len(directions)] = grid.offset
        _pack_rows(grid.bytes, level, self._fours, packed)
        return packed, shift, slack

    def offer(
        self,
        directions: Float32,
        exemplars: Float32,
        region: Int64,
        similarity: Float64,
        threads: int = 1,
    ) -> tuple[int, int]:
        """Let exemplars, the first ones taken in, compete.

        Returns:
            How many were bounded finely, and how many compared canonically.
        """
        packed, shift, slack = self._rows(directions)
        panels, start = self._panels, self._start
        fine = _NOT_FINE if self.fine is None else self.fine.rows(directions)

        def search(first: int, stop: int) -> tuple[int, int]:
            return _offer(
                packed, shift, slack, self._unit, self._halvings, panels, start,
                self._fours, len(exemplars), first, stop, fine, directions, exemplars,
                region, similarity,
            )  # fmt: skip

        if threads < 2:
            return search(0, len(directions))
        part = -(-len(directions) // threads // _GROUP) * _GROUP
        starts = range(0, len(directions), part)
        with ThreadPoolExecutor(threads) as pool:
            counts = list(pool.map(lambda r: search(r, min(r + part, len(directions))), starts))
        return sum(finer for finer, _ in counts), sum(checks for _, checks in counts)

    def upper_bounds(self, directions: Float32, regions: Int64) -> Float64:
        """(n,) bound of each direction's similarity with one exemplar; slow, for audits."""
        packed, shift, slack = self._rows(directions)
        n, f = len(directions), self._fours
        rows = packed.reshape(-1, f, ROWS).transpose(0, 2, 1).reshape(-1, f)[:n]
        panels = self._panels.reshape(-1, f, COLUMNS)[regions // COLUMNS, :, regions % COLUMNS]
        left = np.ascontiguousarray(rows).view(np.int8).astype(np.int64)
        right = np.ascontiguousarray(panels).view(np.uint8).astype(np.int64)
        sums = (left * right).sum(axis=1) + self._start[regions] - shift[:n]
        bounds = np.clip(sums >> self._halvings, -32768, 32767) * self._unit + slack
        if self.fine is None:
            return bounds
        bytes_, offset, slack, unit, columns, extra = self.fine.rows(directions)
        products = (bytes_.astype(np.int64) * columns[regions]).sum(axis=1)
        return np.minimum(bounds, unit * (products - offset) + slack + extra[regions])


@compiled
def _pack_exemplars(
    grid: NDArray[np.int8], level: Int64, fours: int, first: int, panels: Int32
) -> None:
    n, width = grid.shape
    row = np.empty(4 * fours, np.uint8)
    words = row.view(np.int32)
    for k in range(n):
        for d in range(width):
            row[d] = np.uint8(np.int16(grid[k, d]) + 128)
        for d in range(width, 4 * fours):
            row[d] = np.uint8(level[k])
        column = first + k
        base = (column // COLUMNS) * COLUMNS * fours + column % COLUMNS
        for f in range(fours):
            panels[base + f * COLUMNS] = words[f]


@compiled
def _pack_rows(grid: NDArray[np.int8], level: Int64, fours: int, packed: Int32) -> None:
    n, width = grid.shape
    row = np.empty(4 * fours, np.int8)
    words = row.view(np.int32)
    for r in range(n):
        row[:width] = grid[r]
        for k in range(4 * fours - width):  # four signed bytes that add up to the level
            row[width + k] = np.int8((level[r] + k) // 4)
        base = (r // ROWS) * ROWS * fours + r % ROWS
        for f in range(fours):
            packed[base + f * ROWS] = words[f]


@compiled
def _offer(
    packed: Int32,
    shift: Int32,
    slack: Float64,
    unit: float,
    halvings: int,
    panels: Int32,
    start: Int32,
    fours: int,
    n_exemplars: int,
    first_row: int,
    stop_row: int,
    fine: _FineRows,
    directions: Float32,
    exemplars: Float32,
    region: Int64,
    similarity: Float64,
) -> tuple[int, int]:
    n_columns = (n_exemplars + BLOCK - 1) // BLOCK * BLOCK
    bounds = np.empty((_GROUP, min(_SEGMENT, n_columns)), np.int16)
    tops = np.empty(bounds.shape[1] // BLOCK, np.int16)
    open_ = np.empty(bounds.shape[1], np.int32)
    flat = bounds.reshape(-1)
    finer = checks = 0
    for r0 in range(first_row, stop_row, _GROUP):
        for first in range(0, n_columns, _SEGMENT):
            width = min(_SEGMENT, n_columns - first)
            multiply(
                packed, r0, _GROUP, panels, first, first + width, fours, start, shift,
                np.int32(halvings), bounds,
            )  # fmt: skip
            for r in range(r0, min(r0 + _GROUP, stop_row)):
                base = (r - r0) * bounds.shape[1]
                bounded, compared = _search_row(
                    r, flat[base : base + width], tops, open_, slack[r], unit, first,
                    fine, directions, exemplars[:n_exemplars], region, similarity,
                )  # fmt: skip
                finer += bounded
                checks += compared
    return finer, checks


@compiled
def _search_row(
    r: int,
    bounds: NDArray[np.int16],
    tops: NDArray[np.int16],
    open_: Int32,
    slack: float,
    unit: float,
    first: int,
    fine: _FineRows,
    directions: Float32,
    exemplars: Float32,
    region: Int64,
    similarity: Float64,
) -> tuple[int, int]:
    """Compare what reaches the best so far: the largest bound first, then all others that do.

    Args (as `_offer`, and):
        bounds: (width,) of exemplars first, first + 1, ...; s <= unit · bound + slack.
        tops: Room for the largest of each `BLOCK`.
        open_: Room for all columns.
    """
    fine_rows, fine_offset, fine_slack, fine_unit, fine_columns, fine_extra = fine
    fine_width = fine_rows.shape[1]
    blocks = bounds.shape[0] // BLOCK
    highest = np.int16(-32768)
    for b in range(blocks):
        tops[b] = highest_in_block(bounds, b * BLOCK)
        highest = max(highest, tops[b])
    limit = _limit(similarity[r], slack, unit)
    if highest < limit:
        return 0, 0
    finer = checks = 0
    seed = first_of(bounds, 0, tops, highest)
    if first + seed < exemplars.shape[0]:
        checks += 1
        if compare(directions, r, exemplars, first + seed, first + seed, region, similarity):
            limit = _limit(similarity[r], slack, unit)
    rows, columns = fine_rows.reshape(-1), fine_columns.reshape(-1)
    for at in range(list_reaching(bounds, 0, blocks, tops, limit, open_)):
        c = open_[at]
        k = first + c
        if c == seed or k >= exemplars.shape[0] or bounds[c] < limit:
            continue
        if fine_unit > 0.0:
            finer += 1
            dot = byte_dot(rows, r * fine_width, columns, k * fine_width, fine_width // 64)
            bound = fine_unit * (np.int64(dot) - fine_offset[r])
            if bound + fine_slack[r] + fine_extra[k] < similarity[r]:
                continue
        checks += 1
        if compare(directions, r, exemplars, k, k, region, similarity):
            limit = _limit(similarity[r], slack, unit)
    return finer, checks


@compiled
def _limit(best: float, slack: float, unit: float) -> int:
    """The smallest 16-bit bound that can reach `best`, with one to spare for rounding."""
    limit = (best - slack) / unit
    if limit < -32000.0:  # also for a row that has nothing yet
        return -32768
    return min(int(np.floor(limit)) - 1, 32767)
