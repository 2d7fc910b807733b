"""Dot products of bytes, for processors with AVX-512 VNNI.

One instruction multiplies four unsigned by four signed bytes and adds all to a 32-bit integer, in
sixteen lanes: four times the multiplications of float32. No compiled extension is needed: the loops
are written in LLVM's own language and compiled by numba. A tile is 12 rows by 32 columns, whose 24
accumulators stay in registers. Integers are exact, so the result does not depend on any order.
`available` tries it first.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from exemplars.geometry import Int32, compiled
from exemplars.nearest.scanning import everywhere, load, pointer

ROWS = 12
"""Rows of a tile: their bytes lie interleaved by fours."""
COLUMNS = 32
"""Columns of a tile: two vectors of 16 lanes."""
_LANES = 16

_i8, _i16, _i32, _i64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_sums = ir.VectorType(_i32, _LANES)


def _multiply_add(builder: Any) -> Any:
    """VPDPBUSD: (sums, unsigned bytes, signed bytes) -> sums."""
    kind = ir.FunctionType(_sums, [_sums] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")


@intrinsic  # type: ignore[untyped-decorator]
def _tile(
    typing: Any, rows: Any, row: Any, panel: Any, column: Any, fours: Any, columns: Any,
    columns_at: Any, shifts: Any, shifts_at: Any, halvings: Any, out: Any, out_at: Any,
    stride: Any,
) -> Any:  # fmt: skip
    """out[r, c] = (columns[c] − shifts[r] + Σ rows[r, d] · panel[c, d]) >> halvings, saturated.

    For 12 rows and 32 columns. Arrays are flat and contiguous, offsets in elements:
        rows: int32, from `row`: (fours, 12), four signed bytes each.
        panel: int32, from `column`: (fours, 32), four unsigned bytes each.
        fours: Groups of four components, at least 1.
        columns: int32, from `columns_at`: 32 numbers.
        shifts: int32, from `shifts_at`: 12 numbers.
        halvings: int32, 0 to 31.
        out: int16, from `out_at`: rows of 32 that lie `stride` apart.
    """
    at = numba.types.intp
    signature = numba.types.void(
        rows, at, panel, at, at, columns, at, shifts, at, numba.types.int32, out, at, at
    )
    return signature, _emit_tile


def _emit_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    def array(k: int, element: Any) -> Any:
        return pointer(context, builder, signature.args[k], arguments[k], arguments[k + 1], element)

    def word(base: Any, at: Any, value: Any) -> Any:
        return load(builder, base, _i32, at, value)

    rows, panel, columns, shifts = (array(k, _i32) for k in (0, 2, 5, 7))
    fours, halvings, stride = arguments[4], arguments[9], arguments[12]
    out = array(10, _i16)
    multiply_add = _multiply_add(builder)
    starts = [word(columns, _i64(_LANES * half), _sums) for half in (0, 1)]
    start = [
        builder.sub(starts[half], everywhere(builder, word(shifts, _i64(r), _i32), _LANES))
        for r in range(ROWS)
        for half in (0, 1)
    ]
    before = builder.block
    loop = builder.append_basic_block("tile.loop")
    done = builder.append_basic_block("tile.done")
    builder.branch(loop)

    builder.position_at_end(loop)
    four = builder.phi(_i64)
    four.add_incoming(_i64(0), before)
    sums = [builder.phi(_sums) for _ in start]
    for total, value in zip(sums, start, strict=True):
        total.add_incoming(value, before)
    row_at, column_at = (builder.mul(four, _i64(size)) for size in (ROWS, COLUMNS))
    halves = [word(panel, builder.add(column_at, _i64(_LANES * half)), _sums) for half in (0, 1)]
    added = []
    for r in range(ROWS):
        four_bytes = word(rows, builder.add(row_at, _i64(r)), _i32)
        of_row = everywhere(builder, four_bytes, _LANES)
        added += [
            builder.call(multiply_add, [sums[2 * r + half], halves[half], of_row])
            for half in (0, 1)
        ]
    following = builder.add(four, _i64(1))
    four.add_incoming(following, loop)
    for total, value in zip(sums, added, strict=True):
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, fours), loop, done)

    builder.position_at_end(done)
    amount = everywhere(builder, halvings, _LANES)
    low, high = (ir.Constant(_sums, [limit] * _LANES) for limit in (-32768, 32767))
    short = ir.VectorType(_i16, _LANES)
    for k, total in enumerate(added):
        value = builder.ashr(total, amount)
        value = builder.select(builder.icmp_signed(">", value, low), value, low)
        value = builder.select(builder.icmp_signed("<", value, high), value, high)
        at = builder.add(builder.mul(stride, _i64(k // 2)), _i64(_LANES * (k % 2)))
        place = builder.bitcast(builder.gep(out, [at], source_etype=_i16), short.as_pointer())
        builder.store(builder.trunc(value, short), place).align = 1
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def byte_dot(
    typing: Any, signed: Any, signed_at: Any, unsigned: Any, unsigned_at: Any, blocks: Any
) -> Any:
    """Σ signed[d] · unsigned[d] over `blocks` times 64 bytes; int32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bases = [
            pointer(context, builder, signature.args[k], arguments[k], arguments[k + 1], _i8)
            for k in (0, 2)
        ]
        multiply_add = _multiply_add(builder)
        zero = ir.Constant(_sums, [0] * _LANES)
        total = cgutils.alloca_once(builder, _sums)
        builder.store(zero, total)
        with cgutils.for_range(builder, arguments[4], intp=_i64) as loop:
            at = builder.mul(loop.index, _i64(64))
            left, right = (load(builder, base, _i8, at, _sums) for base in bases)
            added = builder.call(multiply_add, [builder.load(total, typ=_sums), right, left])
            builder.store(added, total)
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_i32, [_sums]), "llvm.vector.reduce.add.v16i32"
        )
        return builder.call(reduce, [builder.load(total, typ=_sums)])

    at = numba.types.intp
    return numba.types.int32(signed, at, unsigned, at, at), emit


@compiled
def multiply(
    rows: Int32,
    first_row: int,
    n_rows: int,
    panels: Int32,
    first: int,
    stop: int,
    fours: int,
    columns: Int32,
    shifts: Int32,
    halvings: np.int32,
    out: NDArray[np.int16],
) -> None:
    """out[r, c − first] = (columns[c] − shifts[r] + Σ rows[r, d] · panels[c, d]) >> halvings.

    Args:
        rows: int32 flat, (all rows / 12, fours, 12), four signed bytes each.
        first_row: A multiple of 12.
        n_rows: A multiple of 12.
        panels: int32 flat, (all columns / 32, fours, 32), four unsigned bytes each.
        first: A multiple of 32.
        stop: A multiple of 32.
        fours: Components / 4.
        columns: (all columns,) int32.
        shifts: (all rows,) int32.
        halvings: 0 to 31.
        out: (>= n_rows, m >= stop − first) int16, contiguous, saturated; written.
    """
    flat = out.reshape(-1)
    stride = out.shape[1]
    for column in range(first, stop, COLUMNS):
        for row in range(0, n_rows, ROWS):
            _tile(
                rows, (first_row + row) * fours, panels, column * fours, fours,
                columns, column, shifts, first_row + row, halvings,
                flat, row * stride + column - first, stride,
            )  # fmt: skip


def pack(values: NDArray[Any], together: int) -> Int32:
    """Bytes as `multiply` reads them, `together` = `ROWS` or `COLUMNS`: slow, to compare with.

    Args:
        values: (n, d) bytes, n a multiple of `together`, d of 4.
        together: How many lie interleaved.
    """
    n, d = values.shape
    fours = values.reshape(n // together, together, d // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(fours).view(np.int32).reshape(-1)


@functools.cache
def available() -> bool:
    """Whether this processor has the instruction and gives right answers with it.

    The environment variable EXEMPLARS_VNNI=0 says no.
    """
    if os.environ.get("EXEMPLARS_VNNI") == "0":
        return False
    if not llvmlite.binding.get_host_cpu_features().get("avx512vnni"):
        return False
    try:
        right = _self_test()
    except Exception as error:
        right, why = False, f"could not be compiled ({error})"
    else:
        why = "gave wrong products in its self-test"
    if not right:
        warnings.warn(
            f"the integer kernel {why}, so float32 products are used: results are the same, "
            "slower; please report it with your processor and the versions of numba and llvmlite",
            RuntimeWarning,
            stacklevel=2,
        )
    return right


def _self_test() -> bool:
    """Against numpy's integers, with the largest values: instructions that saturate fail here."""
    random = np.random.default_rng(0)
    n, m, d = 2 * ROWS, 3 * COLUMNS, 72
    rows = random.integers(-127, 128, (n, d)).astype(np.int8)
    columns = random.integers(0, 256, (m, d)).astype(np.uint8)
    rows[0], rows[1], rows[-1] = 127, -127, -128
    columns[0], columns[-1] = 255, 255
    columns_start = random.integers(-(2**20), 2**20, m).astype(np.int32)
    shifts = random.integers(-(2**16), 2**16, n).astype(np.int32)
    out = np.zeros((n, m), np.int16)
    for halvings in (0, 7):
        multiply(
            pack(rows, ROWS), 0, n, pack(columns, COLUMNS), 0, m, d // 4,
            columns_start, shifts, np.int32(halvings), out,
        )  # fmt: skip
        sums = rows.astype(np.int64) @ columns.astype(np.int64).T + columns_start - shifts[:, None]
        if not (out == np.clip(sums >> halvings, -32768, 32767)).all():
            return False
    return True
