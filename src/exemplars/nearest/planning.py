"""Which screen is fastest: bounds of a sample are counted, and weighed with what things cost.

A plan changes the speed of a search and nothing else. It is made from counts, not from clocks, so
the same rows give the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exemplars.geometry import Float32
from exemplars.nearest.rotation import principal_axes

PREFIXES = (64, 96, 128, 160, 192, 256, 384)
"""Numbers of axes that are tried."""
FEWEST_FOR_PREFIX = 1024
"""Below so many exemplars a projection costs more than it saves."""
_SAMPLE_ROWS = 128
_SAMPLE_EXEMPLARS = 2048
_AXES_ROWS = 3072

# Nanoseconds on one core of a processor with AVX-512: only their ratios matter.
_FLOAT_PRODUCT = 0.021
_BYTE_PRODUCT = 0.005
_FLOAT_SCAN = 0.1
_BYTE_SCAN = 0.03
_GRID = 3.0
"""A component through the Hadamard transform and onto the grid."""
_WORTH_IT = 0.9
"""A screen must cost less than this share of a dense search."""


@dataclass(frozen=True)
class Plan:
    """A screen, and what a row costs with it."""

    kind: str
    """"dense", "whole" (bytes of all components), "prefix" (bytes of few), "float prefix"."""
    axes: int = 0
    """d' of a prefix."""
    row_ns: float = float("nan")
    """Estimate."""


def row_ns(
    kind: str, axes: int, width: int, n_exemplars: int, finer: float, checks: float
) -> float:
    """What a row costs.

    Args:
        kind: Of a `Plan`.
        axes: Of a `Plan`.
        width: D.
        n_exemplars: K.
        finer: Exemplars a row that go through the finer bound.
        checks: Exemplars a row that are compared canonically.
    """
    # A canonical similarity waits for the exemplar to come from memory.
    found = finer * (10.0 + 0.06 * width) + checks * (60.0 + 0.5 * width)
    if kind == "dense":
        return found + n_exemplars * (_FLOAT_PRODUCT * width + _FLOAT_SCAN)
    if kind == "whole":
        return found + width * _GRID + n_exemplars * (_BYTE_PRODUCT * width + _BYTE_SCAN)
    found += width * axes * _FLOAT_PRODUCT + axes * _GRID
    if kind == "prefix":
        found += width * _GRID
        return found + n_exemplars * (_BYTE_PRODUCT * (axes + 4) + _BYTE_SCAN)
    return found + n_exemplars * (_FLOAT_PRODUCT * (axes + 1) + _FLOAT_SCAN)


def planning_ns(width: int, n_exemplars: int, new_axes: bool, prefix: bool) -> float:
    """What `plan` and building the screen cost, about; the least where no prefix is tried."""
    cost = 3e6 + n_exemplars * width * (_GRID + _SAMPLE_ROWS * _FLOAT_PRODUCT)
    if prefix:
        widest = min(PREFIXES[-1], width)
        cost += _FLOAT_PRODUCT * width * widest * min(n_exemplars, _SAMPLE_EXEMPLARS)
        cost += 20.0 * len(PREFIXES) * _SAMPLE_ROWS * min(n_exemplars, _SAMPLE_EXEMPLARS)
        cost += _FLOAT_PRODUCT * width * n_exemplars * 128
        if new_axes:
            cost += _FLOAT_PRODUCT * width**2 * (_AXES_ROWS + 12 * widest)
    return cost


def sample_axes(directions: Float32, exemplars: Float32) -> Float32:
    """(D, m) axes of most energy, of rows and of exemplars together, largest first."""
    half = _AXES_ROWS // 2
    parts = [spread(exemplars, half), spread(directions, half)]
    n_axes = max(d for d in (*PREFIXES, 0) if d <= directions.shape[1])
    return principal_axes(np.concatenate(parts), n_axes)


def plan(
    directions: Float32, exemplars: Float32, axes: Float32 | None, bytes_: bool, dense: bool = True
) -> Plan:
    """The screen that is estimated to be fastest.

    Args:
        directions: (n, D) rows like those to come.
        exemplars: (K, D).
        axes: From `sample_axes`; None to leave prefixes out.
        bytes_: Whether products of bytes are there.
        dense: Whether a dense search will do; if not, it is the answer only where nothing else is.
    """
    n_exemplars, width = exemplars.shape
    rows = spread(directions, int(np.clip(2**21 // n_exemplars, 16, _SAMPLE_ROWS)))
    best = np.full(len(rows), -np.inf, np.float32)
    for first in range(0, n_exemplars, 8192):
        products = rows @ exemplars[first : first + 8192].T
        np.maximum(best, products.max(axis=1), out=best)
    some = spread(exemplars, _SAMPLE_EXEMPLARS)
    share = n_exemplars / len(some)

    def cost(kind: str, axes: int, bounds: Float32, finer: bool = False) -> Plan:
        """Of the screen that has these bounds, which leave open what reaches the nearest."""
        left_open = float((bounds >= best[:, None]).sum(axis=1).mean()) * share
        counts = (left_open, whole_open) if finer else (0.0, left_open)
        return Plan(kind, axes, row_ns(kind, axes, width, n_exemplars, *counts))

    dense_ns = row_ns("dense", 0, width, n_exemplars, 0.0, 1.5)
    plans = [Plan("dense", 0, _WORTH_IT * dense_ns if dense else np.inf)]
    bounds = rows @ some.T + 2 * _grid_rest(1.0)
    whole_open = float((bounds >= best[:, None]).sum(axis=1).mean()) * share
    if bytes_:
        plans.append(cost("whole", 0, bounds))
    if axes is not None:
        a, b = rows @ axes, some @ axes
        for d in (d for d in PREFIXES if d <= min(axes.shape[1], width // 2)):
            lengths = [np.linalg.norm(v[:, :d], axis=1) for v in (a, b)]
            outside = [np.sqrt(np.maximum(1 - length**2, 0)) for length in lengths]
            bounds = a[:, :d] @ b[:, :d].T + np.outer(*outside)
            if bytes_:
                bounds += 2 * _grid_rest(float(lengths[0].mean()))
            plans.append(cost("prefix" if bytes_ else "float prefix", d, bounds, bytes_))
    return min(plans, key=lambda p: p.row_ns)


def _grid_rest(length: float) -> float:
    """About how much a grid misses of coordinates that are so long together."""
    return 5 / 127 * length / np.sqrt(12.0)


def spread(rows: Float32, n: int) -> Float32:
    """At most n of the rows, evenly spread."""
    return np.asarray(rows[:: max(1, len(rows) // n)][:n])
