"""Centre, directions, and the canonical similarity: the only place that normalises or clips.

Every decision of the method rests on one number, the *canonical similarity* of two float32
directions: their float64 dot product, summed in eight lanes (component d goes to lane d mod 8,
in ascending d) that are combined as ((0+4)+(2+6)) + ((1+5)+(3+7)). The product of two float32
numbers is exact in float64, so fused multiply-add or not, vector unit or not, the bits are the
same. Everything faster is a filter with a proven error band (`gemm_band`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from exemplars.errors import ActivationError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

SMALLEST_RELATIVE_NORM = 1e-6
"""A vector closer to the center than this share of the center's norm has no direction."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """`function` compiled by numba, strict IEEE arithmetic, kept on disk where that is possible.

    Division by zero gives an infinity or a NaN, as IEEE has it: no test stands in a loop's way.
    """
    return _compiled(function, False)


def reordered(function: _Function) -> _Function:
    """As `compiled`, but sums may be reordered; for bounds that allow for any order."""
    return _compiled(function, {"reassoc", "contract", "nsz"})


def _compiled(function: _Function, fastmath: Any) -> _Function:
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write the compiled code: compile again in each process
        return numba.njit(**options)(function)


@intrinsic  # type: ignore[untyped-decorator]
def _lane_sums(typing: Any, a: Any, first_a: Any, b: Any, first_b: Any, groups: Any) -> Any:
    """Σ a[first_a + 8 g + lane] · b[first_b + 8 g + lane] over the groups, as 8 float64.

    Elements are counted as they lie; arrays must be contiguous, of any number of dimensions.

    Written in LLVM's own language because numba does not make vectors of these sums, which are
    what an exact search spends its time on.
    """
    if a.layout != "C" or b.layout != "C":
        raise numba.TypingError("canonical_dot needs contiguous rows")

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        single, double = (ir.VectorType(t, 8) for t in (ir.FloatType(), ir.DoubleType()))
        index = ir.IntType(64)

        def load(k: int, group: Any) -> Any:
            """Of array number k of the arguments, which its offset follows."""
            array = context.make_array(signature.args[k])(context, builder, arguments[k])
            data = builder.bitcast(array.data, ir.FloatType().as_pointer())
            at = builder.add(arguments[k + 1], builder.mul(group, index(8)))
            place = builder.gep(data, [at], source_etype=ir.FloatType())
            value = builder.load(builder.bitcast(place, single.as_pointer()), typ=single)
            value.align = 4
            return builder.fpext(value, double)

        zero = ir.Constant(double, [0.0] * 8)
        sums = cgutils.alloca_once_value(builder, zero)
        builder.store(zero, sums)
        with cgutils.for_range(builder, arguments[4], intp=index) as loop:
            products = builder.fmul(load(0, loop.index), load(2, loop.index))
            builder.store(builder.fadd(builder.load(sums, typ=double), products), sums)
        total = builder.load(sums, typ=double)
        lanes = [builder.extract_element(total, ir.IntType(32)(k)) for k in range(8)]
        return context.make_tuple(builder, signature.return_type, lanes)

    at = numba.types.intp
    return numba.types.UniTuple(numba.types.float64, 8)(a, at, b, at, at), emit


@compiled
def canonical_dot(a: Float32, b: Float32) -> float:
    """Canonical similarity of two float32 rows of equal width (see the module's text)."""
    whole = a.shape[0] // 8
    s0, s1, s2, s3, s4, s5, s6, s7 = _lane_sums(a, 0, b, 0, whole)
    rest = a.shape[0] - 8 * whole
    if rest > 0:
        at = 8 * whole
        s0 += np.float64(a[at]) * np.float64(b[at])
        if rest > 1:
            s1 += np.float64(a[at + 1]) * np.float64(b[at + 1])
        if rest > 2:
            s2 += np.float64(a[at + 2]) * np.float64(b[at + 2])
        if rest > 3:
            s3 += np.float64(a[at + 3]) * np.float64(b[at + 3])
        if rest > 4:
            s4 += np.float64(a[at + 4]) * np.float64(b[at + 4])
        if rest > 5:
            s5 += np.float64(a[at + 5]) * np.float64(b[at + 5])
        if rest > 6:
            s6 += np.float64(a[at + 6]) * np.float64(b[at + 6])
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))


@compiled
def canonical_dot_of(a: Float32, i: int, b: Float32, j: int) -> float:
    """`canonical_dot` of row i of `a` and row j of `b`, without making views of them."""
    width = a.shape[1]
    if width % 8 != 0:
        return canonical_dot(a[i], b[j])
    s0, s1, s2, s3, s4, s5, s6, s7 = _lane_sums(a, i * width, b, j * width, width // 8)
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))


@compiled
def _canonical_pairs(a: Float32, b: Float32, i: Int64, j: Int64) -> Float64:
    similarity = np.empty(i.shape[0], np.float64)
    for k in range(i.shape[0]):
        similarity[k] = canonical_dot(a[i[k]], b[j[k]])
    return similarity


@compiled
def _norms(vectors: Float32) -> Float64:
    norms = np.empty(vectors.shape[0], np.float64)
    for n in range(vectors.shape[0]):
        norms[n] = np.sqrt(canonical_dot(vectors[n], vectors[n]))
    return norms


@compiled
def _directions(vectors: Float32, center: Float32, smallest: float) -> tuple[Float32, Float64]:
    rows, width = vectors.shape
    directions = np.empty((rows, width), np.float32)
    norms = np.empty(rows, np.float64)
    for n in range(rows):
        for d in range(width):
            directions[n, d] = vectors[n, d] - center[d]
        norm = np.sqrt(canonical_dot(directions[n], directions[n]))
        norms[n] = norm
        if norm > smallest:  # false for NaN
            for d in range(width):
                directions[n, d] = np.float32(np.float64(directions[n, d]) / norm)
        else:
            for d in range(width):
                directions[n, d] = 0.0
    return directions, norms


@compiled
def accumulate_center(
    vectors: Float32,
    norms: Float64,
    keep: NDArray[np.bool_],
    unit_sum: Float64,
    vector_sum: Float64,
) -> int:
    """Add the kept rows, one after the other, so that the sums do not depend on batches."""
    added = 0
    for n in range(vectors.shape[0]):
        if keep[n]:
            added += 1
            if norms[n] > 0.0:
                for d in range(vectors.shape[1]):
                    unit_sum[d] += np.float64(vectors[n, d]) / norms[n]
                    vector_sum[d] += np.float64(vectors[n, d])
    return added


def canonical_similarity(
    a: Float32, b: Float32, rows_a: Int64 | None = None, rows_b: Int64 | None = None
) -> Float64:
    """Canonical similarity of rows of `a` with rows of `b`, pair by pair.

    Args:
        a: (n, D) float32 directions.
        b: (m, D) float32 directions.
        rows_a: (P,) rows of `a`; None for all, in order.
        rows_b: (P,) rows of `b`; None for all, in order.

    Returns:
        (P,) float64, the cosine where both rows have unit length.
    """
    i = np.arange(len(a)) if rows_a is None else np.asarray(rows_a, np.int64)
    j = np.arange(len(b)) if rows_b is None else np.asarray(rows_b, np.int64)
    return _canonical_pairs(a, b, i, j)


def cosine_distance(similarity: Float64) -> Float64:
    """Cosine distance 1 − s, clipped to [0, 2] (rounding may carry s past 1)."""
    return np.clip(1.0 - similarity, 0.0, 2.0)


def vector_norms(vectors: Float32) -> Float64:
    """Euclidean norms of raw vectors, (N, D) float32 -> (N,) float64, canonically summed."""
    return _norms(vectors)


def smallest_norm(center: Float32) -> float:
    """The norm of x − c up to which a row counts as having no direction."""
    return SMALLEST_RELATIVE_NORM * float(_norms(center[None, :])[0])


def to_directions(vectors: Float32, center: Float32) -> tuple[Float32, Float64]:
    """Center raw vectors and scale them to unit length.

    x − c is taken in float32, its norm in float64 by the canonical sum, and the quotient is
    rounded once to float32.

    Args:
        vectors: (N, D) float32, raw activations.
        center: (D,) float32.

    Returns:
        (N, D) float32 directions, and (N,) float64 norms of x − c. A row whose norm is 0, or at
        most 1e-6 of the center's, has no direction: its row is all zeros (see `has_direction`).
    """
    return _directions(vectors, center, smallest_norm(center))


def has_direction(centered_norms: Float64, center: Float32) -> NDArray[np.bool_]:
    """True where x − c is long enough to have a direction."""
    return centered_norms > smallest_norm(center)


def check_finite(norms: Float64, where: str = "vectors", first_row: int = 0) -> None:
    """Raise `ActivationError` that names the first row whose norm is NaN or infinite.

    Rows are numbered from `first_row`.
    """
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise ActivationError(
            f"{where}: row {first_row + bad[0]} has a NaN or infinite component "
            f"({len(bad)} of {len(norms)} rows do), finite values were expected; "
            "run the model in bfloat16 or float32, or drop these rows"
        )


def gemm_band(width: int) -> float:
    """How far a float32 matrix product can be from the canonical similarity of two directions.

    For any order of summation, fused or not, |fl(x·e) − x·e| <= γ_D ‖x‖‖e‖ with
    γ_D = D u / (1 − D u), u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms,
    §3.1). Directions are within 2⁻²³ of unit length; the canonical sum itself errs by less than
    D 2⁻⁵². Both are covered by the factor 1.01.
    """
    unit = 2.0**-24
    return 1.01 * width * unit / (1.0 - width * unit)
