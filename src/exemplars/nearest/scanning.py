"""Looking through bounds quickly: blocks of them are dismissed by one comparison.

Written in LLVM's own language because numba does not make vectors of these loops; the vectors are
legal on every processor, which splits them as it needs to.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from exemplars.geometry import Float32, Float64, Int32, Int64, canonical_dot_of, compiled

BLOCK = 128
"""Columns whose largest bound is looked at first."""
MASK = 32
"""Columns that one mask covers."""


def enlarged(array: NDArray[Any], room: int, fill: int = 0) -> NDArray[Any]:
    """A copy with room for so many rows; the new ones are `fill`."""
    larger = np.full((room, *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger


def pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, element: Any) -> Any:
    """To element `at` of an array, in LLVM."""
    data = context.make_array(kind)(context, builder, array).data
    typed = builder.bitcast(data, element.as_pointer())
    return builder.gep(typed, [at], source_etype=element)


def load(builder: Any, base: Any, element: Any, at: Any, value: Any) -> Any:
    """The `value` (an LLVM type) that lies `at` elements after `base`."""
    place = builder.gep(base, [at], source_etype=element)
    loaded = builder.load(builder.bitcast(place, value.as_pointer()), typ=value)
    loaded.align = 1
    return loaded


def everywhere(builder: Any, value: Any, lanes: int) -> Any:
    """A vector that has `value` in each lane."""
    kind = ir.VectorType(value.type, lanes)
    none = ir.Constant(kind, ir.Undefined)
    lane_0 = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    first = builder.insert_element(none, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, none, lane_0)


@intrinsic  # type: ignore[untyped-decorator]
def highest_in_block(typing: Any, values: Any, at: Any) -> Any:
    """The largest of `BLOCK` integers from element `at` of a flat array on."""
    element = ir.IntType(values.dtype.bitwidth)
    lanes = 512 // values.dtype.bitwidth

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = pointer(context, builder, signature.args[0], arguments[0], arguments[1], element)
        kind = ir.VectorType(element, lanes)
        top = load(builder, base, element, ir.IntType(64)(0), kind)
        for first in range(lanes, BLOCK, lanes):
            other = load(builder, base, element, ir.IntType(64)(first), kind)
            top = builder.select(builder.icmp_signed(">", top, other), top, other)
        name = f"llvm.vector.reduce.smax.v{lanes}i{values.dtype.bitwidth}"
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(element, [kind]), name
        )
        return builder.call(reduce, [top])

    return values.dtype(values, numba.types.intp), emit


@intrinsic  # type: ignore[untyped-decorator]
def reaching(typing: Any, values: Any, at: Any, limit: Any) -> Any:
    """Bit k is set where integer k of the `MASK` from element `at` on is >= limit."""
    element = ir.IntType(values.dtype.bitwidth)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = pointer(context, builder, signature.args[0], arguments[0], arguments[1], element)
        loaded = load(builder, base, element, ir.IntType(64)(0), ir.VectorType(element, MASK))
        limits = everywhere(builder, arguments[2], MASK)
        return builder.bitcast(builder.icmp_signed(">=", loaded, limits), ir.IntType(MASK))

    return numba.types.uint32(values, numba.types.intp, values.dtype), emit


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing: Any, mask: Any) -> Any:
    """The position of the lowest bit set in a 32-bit mask that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        position = builder.cttz(arguments[0], ir.IntType(1)(1))
        return builder.zext(position, ir.IntType(64))

    return numba.types.intp(numba.types.uint32), emit


@intrinsic  # type: ignore[untyped-decorator]
def float_bits(typing: Any, value: Any) -> Any:
    """The bits of a float32, as an int32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return numba.types.int32(numba.types.float32), emit


@compiled
def list_reaching(
    values: NDArray[Any], base: int, n_blocks: int, tops: NDArray[Any], limit: int, found: Int32
) -> int:
    """List the columns of a row whose bound is >= limit; how many there are.

    Args:
        values: Flat; the row starts at `base`.
        base: See there.
        n_blocks: Blocks of the row.
        tops: The largest of each block.
        limit: In the range of the values.
        found: Room for all columns; written.
    """
    count = 0
    for b in range(n_blocks):
        if tops[b] < limit:
            continue
        for first in range(b * BLOCK, (b + 1) * BLOCK, MASK):
            mask = reaching(values, base + first, values.dtype.type(limit))
            while mask:
                found[count] = first + lowest_bit(mask)
                count += 1
                mask &= mask - np.uint32(1)
    return count


@compiled
def first_of(flat: NDArray[Any], base: int, tops: NDArray[Any], highest: int) -> int:
    """The first column that has the largest bound of its row."""
    b = 0
    while tops[b] != highest:
        b += 1
    c = b * BLOCK
    while flat[base + c] != highest:
        c += 1
    return c


@compiled
def compare(
    directions: Float32,
    r: int,
    exemplars: Float32,
    k: int,
    number: int,
    region: Int64,
    similarity: Float64,
) -> bool:
    """Let row r have exemplar k, region `number`, if that is nearer, or as near and earlier."""
    s = canonical_dot_of(directions, r, exemplars, k)
    if s > similarity[r] or (s == similarity[r] and number < region[r]):
        similarity[r] = s
        region[r] = number
        return True
    return False


@compiled
def scan_products(
    products: Float32,
    n_columns: int,
    stops: Int64,
    slack: float,
    directions: Float32,
    exemplars: Float32,
    first: int,
    first_region: int,
    region: Int64,
    similarity: Float64,
) -> int:
    """Compare canonically what can be nearer than the best so far.

    Args:
        products: (>= n, m) float32, contiguous, m a multiple of `BLOCK`; written: what does not
            count becomes the smallest number.
        n_columns: Columns that count; s(i, j) <= products[i, j] + slack for them.
        stops: (n,) row i looks at its first stops[i] columns only.
        slack: See there.
        directions: (n, D).
        exemplars: (K, D); columns are exemplars first, first + 1, ...
        first: See there.
        first_region: Region of exemplar 0.
        region: (n,) written.
        similarity: (n,) written.

    Returns:
        Canonical similarities computed.
    """
    # Floats above 0 are ordered as their bits are, and bits below 0 belong to floats below 0.
    bits = products.view(np.int32).reshape(-1)
    stride = products.shape[1]
    n_blocks = (n_columns + BLOCK - 1) // BLOCK
    tops = np.empty(n_blocks, np.int32)
    open_ = np.empty(n_blocks * BLOCK, np.int32)
    checks = 0
    for r in range(stops.shape[0]):
        m = stops[r]
        if m == 0:
            continue
        base = r * stride
        blocks = (m + BLOCK - 1) // BLOCK
        for c in range(m, blocks * BLOCK):
            bits[base + c] = np.int32(-2147483648)
        highest = np.int32(-2147483648)
        for b in range(blocks):
            tops[b] = highest_in_block(bits, base + b * BLOCK)
            highest = max(highest, tops[b])
        limit = _bits_of(similarity[r] - slack)
        if highest < limit:
            continue
        seed = -1
        if highest > 0:
            seed = first_of(bits, base, tops, highest)
            checks += 1
            compare(
                directions, r, exemplars, first + seed, first_region + first + seed,
                region, similarity,
            )  # fmt: skip
            limit = _bits_of(similarity[r] - slack)
        n_open = list_reaching(bits, base, blocks, tops, limit, open_)
        for k in range(n_open):
            c = open_[k]
            if c == seed or c >= m or np.float64(products[r, c]) < similarity[r] - slack:
                continue
            checks += 1
            compare(
                directions, r, exemplars, first + c, first_region + first + c,
                region, similarity,
            )  # fmt: skip
    return checks


@compiled
def _bits_of(limit: float) -> int:
    """At most the bits of any float32 >= limit; the smallest integer where limit is not positive.

    Bits order positive floats only, so for other limits every block is looked into.
    """
    if not limit > 1e-30:
        return -2147483648
    return float_bits(np.float32(limit)) - 1
