"""Screens bound from above and never change an answer: from the kernels to the audits."""

import contextvars
import copy
import functools
import hashlib
import os
import pickle
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import llvmlite.binding
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import oracle
from exemplars.calibration import Calibration
from exemplars.clustering import LeaderClustering
from exemplars.dictionary import partition
from exemplars.errors import AuditError
from exemplars.geometry import canonical_dot, canonical_similarity, to_directions
from exemplars.members import Members, fixed_point
from exemplars.nearest import SCREENS, THREADS, Audit, ExemplarIndex, planning, scanning, vnni
from exemplars.nearest import index as index_module
from exemplars.nearest import integer as integer_module
from exemplars.nearest.floating import FloatScreen
from exemplars.nearest.integer import SMALLEST_STEP, Fine, IntegerScreen, grid_step
from exemplars.nearest.rotation import Rotation, prefix_rotation, principal_axes, whole_rotation

PROPERTY = settings(deadline=None, max_examples=60)
MANY_ROWS = 10**9
seeds = st.integers(0, 2**32)


def bytes_are_there():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vnni.available()


BYTES = bytes_are_there()
needs_bytes = pytest.mark.skipif(
    not BYTES, reason="products of bytes need AVX-512 VNNI, which is not here or is switched off"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread_a_product():
    """Small products are slower with more."""
    with threadpool_limits(1):
        yield


def directions(vectors):
    vectors = np.asarray(vectors, np.float32)
    return to_directions(vectors, np.zeros(vectors.shape[1], np.float32))[0]


@functools.cache
def _isotropic(seed, n, width):
    return directions(np.random.default_rng(seed).standard_normal((n, width)))


def isotropic(seed, n, width):
    return _isotropic(seed, n, width).copy()


def clustered(*given, **named):
    """Clusters whose energy lies in few directions, which are no coordinate axes."""
    return _clustered(*given, **named).copy()


@functools.cache
def _clustered(seed, n, width, spread=0.25, n_centers=40):
    shape = np.random.default_rng(99)
    scale = np.exp(-np.arange(width) / (width / 12))
    turn, _ = np.linalg.qr(shape.standard_normal((width, width)))
    centers = shape.standard_normal((n_centers, width)) * scale
    rng = np.random.default_rng(seed)
    noise = spread * rng.standard_normal((n, width)) * (scale + 0.01)
    return directions((centers[rng.integers(0, n_centers, n)] + noise) @ turn)


def one_hot(width, sign=1.0):
    return sign * np.eye(width, dtype=np.float32)


def brute_force(u, exemplars):
    s = np.concatenate(
        [oracle.canonical_matrix(u[i : i + 64], exemplars) for i in range(0, len(u), 64)]
    )
    return s.argmax(axis=1), s.max(axis=1)


def have_patience(monkeypatch, patience):
    monkeypatch.setattr(index_module, "_PATIENCE", {True: patience, False: patience})


def blank(n):
    return np.full(n, -1, np.int64), np.full(n, -np.inf)


# --- kernels -------------------------------------------------------------------------------------

EXTREMES = {np.int8: (-128, -127, -1, 0, 1, 127), np.uint8: (0, 1, 128, 255)}


def some_bytes(rng, shape, dtype, kind):
    if kind == "extreme":
        return rng.choice(EXTREMES[dtype], shape).astype(dtype)
    if kind == "largest":
        return np.full(shape, EXTREMES[dtype][-1], dtype)
    if kind == "smallest":
        return np.full(shape, EXTREMES[dtype][0], dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


KINDS_OF_BYTES = st.sampled_from(("any", "extreme", "largest", "smallest"))


@needs_bytes
@PROPERTY
@given(
    seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), KINDS_OF_BYTES,
    KINDS_OF_BYTES, st.sampled_from((0, 1, 2, 7, 8, 13, 16, 24, 31)),
    st.sampled_from((1, 2**10, 2**20, 2**29)), st.data(),
)  # fmt: skip
def test_products_of_bytes_are_those_of_integers(
    seed, tiles, panels, fours, of_rows, of_columns, halvings, most, data
):
    rng = np.random.default_rng(seed)
    n, m = tiles * vnni.ROWS, panels * vnni.COLUMNS
    rows = some_bytes(rng, (n, 4 * fours), np.int8, of_rows)
    columns = some_bytes(rng, (m, 4 * fours), np.uint8, of_columns)
    start = rng.integers(-most, most + 1, m).astype(np.int32)
    shifts = rng.integers(-most, most + 1, n).astype(np.int32)
    first_row = vnni.ROWS * data.draw(st.integers(0, tiles - 1))
    first = vnni.COLUMNS * data.draw(st.integers(0, panels - 1))
    stop = data.draw(st.sampled_from(range(first + vnni.COLUMNS, m + 1, vnni.COLUMNS)))
    n_rows = n - first_row
    out = np.full((n_rows + 1, stop - first + 32), 77, np.int16)
    vnni.multiply(
        vnni.pack(rows, vnni.ROWS), first_row, n_rows, vnni.pack(columns, vnni.COLUMNS), first,
        stop, fours, start, shifts, np.int32(halvings), out,
    )  # fmt: skip
    sums = rows.astype(np.int64) @ columns.astype(np.int64).T + start - shifts[:, None]
    expected = np.full(out.shape, 77)
    expected[:-1, :-32] = np.clip(sums >> halvings, -32768, 32767)[first_row:, first:stop]
    np.testing.assert_array_equal(out, expected)


@needs_bytes
def test_sums_that_do_not_fit_end_at_the_largest_and_the_smallest():
    rows = np.repeat(np.array([[127], [-128], [1]], np.int8), 4, axis=0) * np.ones((1, 8), np.int8)
    columns = np.full((32, 8), 255, np.uint8)
    out = np.empty((12, 32), np.int16)
    zero = np.zeros(32, np.int32)
    vnni.multiply(
        vnni.pack(rows, 12), 0, 12, vnni.pack(columns, 32), 0, 32, 2, zero, zero, np.int32(0), out
    )
    assert (out == np.repeat([32767, -32768, 8 * 255], 4)[:, None]).all()


@numba.njit
def dot_of_bytes(signed, signed_at, unsigned, unsigned_at, blocks):
    return vnni.byte_dot(signed, signed_at, unsigned, unsigned_at, blocks)


@needs_bytes
@PROPERTY
@given(
    seeds, st.integers(0, 9), st.integers(0, 70), st.integers(0, 70), KINDS_OF_BYTES, KINDS_OF_BYTES
)
def test_a_dot_of_bytes_is_that_of_integers(seed, blocks, at, other_at, of_signed, of_unsigned):
    rng = np.random.default_rng(seed)
    signed = some_bytes(rng, 64 * blocks + 80, np.int8, of_signed)
    unsigned = some_bytes(rng, 64 * blocks + 80, np.uint8, of_unsigned)
    a, b = signed[at : at + 64 * blocks], unsigned[other_at : other_at + 64 * blocks]
    expected = int(a.astype(np.int64) @ b.astype(np.int64))
    assert dot_of_bytes(signed, at, unsigned, other_at, blocks) == expected


@numba.njit
def highest(values, at):
    return scanning.highest_in_block(values, at)


@numba.njit
def those_reaching(values, at, limit):
    return scanning.reaching(values, at, limit)


INTEGERS = st.sampled_from((np.int16, np.int32))


def some_integers(rng, n, dtype, narrow):
    limits = np.iinfo(dtype)
    if narrow:  # many are equal
        return rng.choice((limits.min, -1, 0, 1, limits.max), n).astype(dtype)
    return rng.integers(limits.min, limits.max, n, endpoint=True).astype(dtype)


@PROPERTY
@given(seeds, INTEGERS, st.booleans(), st.integers(0, 50))
def test_the_highest_of_a_block_is_its_maximum(seed, dtype, narrow, at):
    values = some_integers(np.random.default_rng(seed), 200, dtype, narrow)
    assert highest(values, at) == values[at : at + scanning.BLOCK].max()
    place = at + seed % scanning.BLOCK
    values[:] = np.iinfo(dtype).min
    values[place] += 1
    assert highest(values, at) == values[place]


@PROPERTY
@given(seeds, INTEGERS, st.booleans(), st.integers(0, 50))
def test_a_mask_has_the_bits_of_what_reaches_a_limit(seed, dtype, narrow, at):
    rng = np.random.default_rng(seed)
    values = some_integers(rng, 90, dtype, narrow)
    part = values[at : at + scanning.MASK]
    for limit in (rng.choice(part), part.min(), part.max(), *dtype(EXTREMES[np.int8])):
        expected = sum(1 << k for k, value in enumerate(part) if value >= limit)
        assert those_reaching(values, at, dtype(limit)) == expected


@numba.njit
def lowest(mask):
    return scanning.lowest_bit(mask)


@numba.njit
def bits(value):
    return scanning.float_bits(value)


@pytest.mark.parametrize("bit", [0, 1, 15, 30, 31])
def test_the_lowest_bit_is_where_it_is(bit):
    assert lowest(np.uint32(1 << bit)) == bit
    assert lowest(np.uint32((1 << bit) | (1 << 31))) == bit


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-30, np.inf])
def test_the_bits_of_a_float_are_its_bits(value):
    assert bits(np.float32(value)) == np.float32(value).view(np.int32)


@PROPERTY
@given(seeds, INTEGERS, st.booleans(), st.integers(1, 3), st.integers(0, 9))
def test_all_columns_that_reach_a_limit_are_listed_in_order(seed, dtype, narrow, blocks, base):
    rng = np.random.default_rng(seed)
    values = some_integers(rng, base + blocks * scanning.BLOCK, dtype, narrow)
    row = values[base:].reshape(blocks, scanning.BLOCK)
    found = np.full(row.size, -7, np.int32)
    for limit in (row.min(), row.max(), rng.choice(row.reshape(-1))):
        n = scanning.list_reaching(values, base, blocks, row.max(axis=1), limit, found)
        assert found[:n].tolist() == np.flatnonzero(row.reshape(-1) >= limit).tolist()


@PROPERTY
@given(seeds, INTEGERS, st.integers(1, 4), st.integers(0, 9))
def test_the_first_of_the_highest_is_found_in_whichever_block_it_is(seed, dtype, blocks, base):
    values = some_integers(np.random.default_rng(seed), base + 128 * blocks, dtype, seed % 3 > 0)
    row = values[base:]
    tops = row.reshape(blocks, 128).max(axis=1)
    assert scanning.first_of(values, base, tops, row.max()) == row.argmax()


@PROPERTY
@given(st.floats(-3, 3, width=32), st.floats(-3, 3) | st.floats(-1e-29, 1e-29))
def test_a_float32_that_reaches_a_limit_has_bits_that_do(value, limit):
    if value >= limit:
        assert np.float32(value).view(np.int32) >= scanning._bits_of(limit)


def test_bits_of_a_positive_limit_leave_out_what_is_clearly_below():
    limits = np.array([1e-20, 0.1, 0.5, 0.9999999, 1.3])
    below = (limits * (1 - 2.0**-22)).astype(np.float32).view(np.int32)
    assert all(b < scanning._bits_of(limit) for b, limit in zip(below, limits, strict=True))


@PROPERTY
@given(
    st.floats(-2, 2), st.floats(-0.5, 3), st.floats(1e-9, 1e-2) | st.floats(1e-2, 1e6),
    st.integers(-32768, 32767),
)  # fmt: skip
def test_a_16_bit_bound_that_reaches_the_best_reaches_its_limit(best, slack, unit, bound):
    if unit * bound + slack >= best or bound == 32767:
        assert bound >= integer_module._limit(best, slack, unit)


def test_a_16_bit_limit_is_at_most_two_below_what_is_needed():
    assert integer_module._limit(-np.inf, 0.1, 1e-4) == -32768
    assert integer_module._limit(0.5, 0.1, 1e-4) in (3998, 3999)
    assert integer_module._limit(-0.5, 0.1, 1e-4) in (-6002, -6001)


@PROPERTY
@given(seeds, st.integers(1, 300), st.sampled_from((0.0, 1e-4, 0.3)), st.sampled_from((-1, 0, 1)))
def test_scanning_products_finds_the_nearest_of_the_columns_that_count(seed, k, slack, sign):
    rng = np.random.default_rng(seed)
    u, exemplars = isotropic(seed, 9, 20), isotropic(seed + 1, k + 3, 20)
    if sign:  # all similarities have it
        u[:, 0], exemplars[:, 0] = 5, 5 * sign
        u, exemplars = directions(u), directions(exemplars)
    s = oracle.canonical_matrix(u, exemplars[3:])
    products = np.full((10, -(-k // 128) * 128), np.inf, np.float32)
    products[:9, :k] = s + slack * rng.uniform(-1, 1, s.shape)
    stops = rng.integers(0, k + 1, 9)
    region, similarity = blank(9)
    checks = scanning.scan_products(
        products, k, stops, slack + 1e-6, u, exemplars, 3, 1000, region, similarity
    )
    s[np.arange(k) >= stops[:, None]] = -np.inf
    np.testing.assert_array_equal(similarity, s.max(axis=1))
    np.testing.assert_array_equal(region, np.where(stops > 0, 1003 + s.argmax(axis=1), -1))
    if slack == 0 and sign >= 0:
        assert checks <= 9 + (s.max(axis=1) <= 0).sum() * k


# --- whether the processor has products of bytes -------------------------------------------------


def asked_again():
    return vnni.available.__wrapped__()


@pytest.fixture
def processor_with_bytes(monkeypatch):
    monkeypatch.delenv("EXEMPLARS_VNNI", raising=False)
    monkeypatch.setattr(
        vnni.llvmlite.binding, "get_host_cpu_features", lambda: {"avx512vnni": True}
    )


def test_a_processor_with_the_instruction_uses_it():
    if not llvmlite.binding.get_host_cpu_features().get("avx512vnni"):
        pytest.skip("this processor has no AVX-512 VNNI")
    if os.environ.get("EXEMPLARS_VNNI") == "0":
        pytest.skip("EXEMPLARS_VNNI is 0")
    assert asked_again() is True


def test_the_environment_can_say_no(monkeypatch, processor_with_bytes):
    monkeypatch.setattr(vnni, "_self_test", lambda: True)
    assert asked_again() is True
    monkeypatch.setenv("EXEMPLARS_VNNI", "0")
    assert asked_again() is False


def test_a_processor_without_the_instruction_is_not_asked_to_use_it(
    monkeypatch, processor_with_bytes
):
    monkeypatch.setattr(vnni, "_self_test", lambda: True)
    monkeypatch.setattr(vnni.llvmlite.binding, "get_host_cpu_features", lambda: {"avx2": True})
    assert asked_again() is False


def test_a_kernel_that_fails_its_test_is_left_out_with_a_warning(monkeypatch, processor_with_bytes):
    monkeypatch.setattr(vnni, "_self_test", lambda: False)
    sentence = (
        "the integer kernel gave wrong products in its self-test, so float32 products are used: "
        "results are the same, slower; please report it"
    )
    with pytest.warns(RuntimeWarning, match=sentence):
        assert asked_again() is False


def test_a_kernel_that_does_not_compile_is_left_out_with_a_warning(
    monkeypatch, processor_with_bytes
):
    def failing():
        raise RuntimeError("cannot select")

    monkeypatch.setattr(vnni, "_self_test", failing)
    sentence = r"the integer kernel could not be compiled \(cannot select\), so float32 products"
    with pytest.warns(RuntimeWarning, match=sentence):
        assert asked_again() is False


def unpacked(packed, together, fours, dtype):
    words = packed.reshape(-1, fours, together).transpose(0, 2, 1).reshape(-1, fours)
    return np.ascontiguousarray(words).view(dtype).astype(np.int64)


@pytest.mark.parametrize(
    "fault", ["none", "pairs saturate", "no saturation", "rounded", "no shift"]
)
def test_the_self_test_sees_a_kernel_that_is_wrong(monkeypatch, fault):
    def multiply(
        rows, first_row, n_rows, panels, first, stop, fours, columns, shifts, halvings, out
    ):
        a = unpacked(rows, vnni.ROWS, fours, np.int8)
        b = unpacked(panels, vnni.COLUMNS, fours, np.uint8)
        products = a[:, None, :] * b[None, :, :]
        if fault == "pairs saturate":  # as in processors that add pairs in 16 bits
            pairs = products.reshape(len(a), len(b), -1, 2).sum(axis=3)
            products = np.clip(pairs, -32768, 32767)
        sums = products.sum(axis=2) + columns - (0 if fault == "no shift" else shifts[:, None])
        sums = (sums + (2**halvings // 2 if fault == "rounded" else 0)) >> halvings
        out[:] = sums if fault == "no saturation" else np.clip(sums, -32768, 32767)

    monkeypatch.setattr(vnni, "multiply", multiply)
    assert vnni._self_test() is (fault == "none")


# --- the canonical similarity --------------------------------------------------------------------


def uneven(seed, n, width):
    """Rows whose sums round differently in any other order of summation."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, width)) * 10.0 ** rng.uniform(-4, 4, (n, width))).astype("f4")


@pytest.mark.parametrize("width", [*range(1, 71), 576, 640, 2304])
def test_the_canonical_dot_is_its_definition_at_every_width(width):
    rows = uneven(width, 6, width)
    for a, b in pairwise(rows):
        assert canonical_dot(a, b) == oracle.canonical(a, b)


def test_the_canonical_dot_of_rows_on_disk_and_of_rows_that_are_read_only_is_the_same(tmp_path):
    rows = uneven(0, 40, 77)
    expected = [oracle.canonical(rows[k], rows[0]) for k in range(40)]
    frozen = rows.copy()
    frozen.setflags(write=False)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=(40, 77))
    for these in (rows, frozen, mapped):
        assert [canonical_dot(row, these[0]) for row in these] == expected
        assert canonical_similarity(these, rows[:1], None, np.zeros(40, int)).tolist() == expected


def test_the_canonical_dot_refuses_rows_that_are_not_contiguous():
    rows = uneven(0, 2, 32)
    for a, b in ((rows[0, ::2], rows[1, :16]), (rows[0, :16], rows[1, ::2])):
        with pytest.raises(numba.TypingError, match="canonical_dot needs contiguous rows"):
            canonical_dot(a, b)


# --- rotations -----------------------------------------------------------------------------------


def random_axes(seed, width, n_axes):
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, n_axes)))
    return axes.astype(np.float32)


def rotations():
    for width in (1, 9, 63, 64, 65, 130, 576):
        yield f"whole of {width}", width, lambda width=width: whole_rotation(width)
    for width, n in ((9, 4), (63, 32), (64, 64), (130, 64), (130, 96), (576, 64)):
        of = f"{n} of {width}"
        yield (
            f"random {of}", width,
            lambda width=width, n=n: prefix_rotation(random_axes(n, width, n), n),
        )  # fmt: skip
        yield (
            f"principal {of}", width,
            lambda width=width, n=n: prefix_rotation(
                principal_axes(clustered(0, 400, width), n), n
            ),
        )  # fmt: skip
        yield (
            f"skewed {of}", width,
            lambda width=width, n=n: prefix_rotation(
                (random_axes(n, width, n) + 1e-3 * isotropic(7, width, n)).astype(np.float32), n
            ),
        )  # fmt: skip


ROTATIONS = pytest.mark.parametrize(
    ("width", "make"), [pytest.param(width, make, id=name) for name, width, make in rotations()]
)


def full_basis(rotation, width):
    """(D, d) float64: the matrix that a rotation multiplies with."""
    if not rotation.whole:
        return rotation.basis.astype(np.float64)
    blocks = rotation.width // 64
    return np.kron(np.eye(blocks), rotation.basis.astype(np.float64))[:width]


def in_and_out(rotation, width):
    """Directions of all kinds, among them some inside the span of the columns."""
    basis = full_basis(rotation, width)
    inside = np.random.default_rng(5).standard_normal((40, basis.shape[1])) @ basis.T
    kinds = (isotropic(3, 40, width), clustered(4, 40, width), one_hot(width), directions(inside))
    return np.concatenate(kinds), len(kinds[-1])


@ROTATIONS
def test_computed_coordinates_are_within_the_rounding_of_exact_ones(width, make):
    rotation = make()
    u, _ = in_and_out(rotation, width)
    exact = u.astype(np.float64) @ full_basis(rotation, width)
    found = rotation.coordinates(u)
    assert found.dtype == np.float32
    assert found.shape == (len(u), rotation.width)
    error = np.linalg.norm(found - exact, axis=1)
    assert error.max() <= rotation.rounding < 1e-3
    assert np.linalg.norm(exact, axis=1).max() <= rotation.longest


@ROTATIONS
def test_what_lies_outside_is_never_longer_than_is_said(width, make):
    rotation = make()
    u, n_inside = in_and_out(rotation, width)
    exact = u.astype(np.float64)
    basis = full_basis(rotation, width)
    span, _ = np.linalg.qr(basis) if basis.shape[0] >= basis.shape[1] else (np.eye(width), None)
    beyond = np.linalg.norm(exact - exact @ span @ span.T, axis=1)
    said = rotation.outside(rotation.coordinates(u))
    if rotation.whole:
        assert (said == 0).all()
        assert beyond.max() < 1e-12
    else:
        assert (said >= beyond).all()
        assert said[-n_inside:].max() < 0.1 + 2 * rotation.overlap**0.5
        assert said.max() <= 1 + 1e-6


@ROTATIONS
def test_the_overlap_is_at_least_the_distance_from_orthonormal_columns(width, make):
    rotation = make()
    basis = full_basis(rotation, width)
    if rotation.whole:
        assert rotation.overlap == 0
        basis = np.kron(np.eye(1), rotation.basis.astype(np.float64))
        np.testing.assert_array_equal(basis.T @ basis, np.eye(64))
        return
    exact = np.linalg.norm(basis.T @ basis - np.eye(basis.shape[1]), 2)
    assert exact <= rotation.overlap <= 0.1


def test_a_whole_rotation_keeps_similarities_and_spreads_one_dimension_over_sixty_four():
    rotation = whole_rotation(130)
    u = np.concatenate([isotropic(0, 30, 130), one_hot(130)])
    coordinates = rotation.coordinates(u).astype(np.float64)
    exact = u.astype(np.float64)
    np.testing.assert_allclose(coordinates @ coordinates.T, exact @ exact.T, rtol=0, atol=1e-6)
    assert np.abs(coordinates[30:]).max() == 0.125


def test_principal_axes_hold_the_most_energy_first():
    x = clustered(0, 500, 96)
    axes = principal_axes(x, 32)
    energies = ((x @ axes) ** 2).sum(axis=0)
    best = np.linalg.svd(x, compute_uv=False) ** 2
    assert (np.diff(energies) <= 1e-3 * energies[0]).all()
    assert energies.sum() > 0.999 * best[:32].sum()
    np.testing.assert_allclose(axes.T @ axes, np.eye(32), atol=1e-5)


# --- bounds --------------------------------------------------------------------------------------


def hard_pairs(kind, width):
    """Rows and exemplars of one kind of difficulty."""
    if kind == "clustered":
        return clustered(0, 25, width), clustered(1, 70, width)
    if kind == "isotropic":
        return isotropic(0, 25, width), isotropic(1, 70, width)
    if kind == "near duplicates":
        exemplars = clustered(2, 40, width)
        noise = 10.0 ** np.random.default_rng(0).uniform(-8, -3, (40, 1)) * isotropic(3, 40, width)
        return np.concatenate([exemplars[:10], directions(exemplars + noise)]), exemplars
    if kind == "one hot":
        some = one_hot(width)[:: max(1, width // 20)]
        return some, np.concatenate([some, -some, clustered(3, 20, width)])
    if kind == "one huge dimension":
        x = isotropic(4, 90, width)
        x[:, 3] += 30
        x[::7, 3] *= -1
        return directions(x[:25]), directions(x[25:])
    assert kind == "antipodes"
    exemplars = np.concatenate([clustered(5, 35, width), isotropic(6, 35, width)])
    return -exemplars[::3], exemplars


KINDS_OF_PAIRS = (
    "clustered", "isotropic", "near duplicates", "one hot", "one huge dimension", "antipodes",
)  # fmt: skip


def all_pairs(screen, u, exemplars):
    """(n, K) bounds, and canonical similarities."""
    i, j = (axis.ravel() for axis in np.indices((len(u), len(exemplars))))
    bounds = screen.upper_bounds(u[i], j).reshape(len(u), -1)
    return bounds, oracle.canonical_matrix(u, exemplars)


def axes_of(exemplars, n_axes):
    return principal_axes(np.concatenate([exemplars, isotropic(9, 50, exemplars.shape[1])]), n_axes)


FACTORS = (1 / 64, 1 / 20, 1 / 8, 1 / 3, 1.0, 2.0, 5.0, 20.0, 1000.0)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", KINDS_OF_PAIRS)
def test_bounds_of_all_bytes_are_bounds(kind, factor):
    u, exemplars = hard_pairs(kind, 130)
    rotation = whole_rotation(130)
    screen = IntegerScreen(rotation, step_of(factor, rotation, u))
    screen.append(exemplars)
    bounds, s = all_pairs(screen, u, exemplars)
    assert (bounds >= s).all()
    if factor == 1:
        assert (bounds - s).mean() < 0.2


@pytest.mark.parametrize("step", [0.004, 0.02, 0.1, 0.2, 0.2499, 0.26, 0.6])
@pytest.mark.parametrize("kind", KINDS_OF_PAIRS)
def test_bounds_of_a_coarse_grid_are_bounds(kind, step):
    """Grid points may be longer than any direction."""
    u, exemplars = hard_pairs(kind, 64)
    screen = IntegerScreen(whole_rotation(64), step)
    screen.append(np.concatenate([exemplars, one_hot(64), one_hot(64, -1)]))
    more = np.concatenate([u, one_hot(64)])
    bounds, s = all_pairs(screen, more, np.concatenate([exemplars, one_hot(64), one_hot(64, -1)]))
    assert (bounds >= s).all()


@pytest.mark.parametrize(
    ("factor", "fine_factor"),
    [*((factor, None) for factor in FACTORS), (1 / 64, 1.0), (1.0, 0.05), (1.0, 1.0), (1.0, 30.0)],
)
@pytest.mark.parametrize("kind", KINDS_OF_PAIRS)
def test_bounds_of_few_bytes_are_bounds(kind, factor, fine_factor):
    u, exemplars = hard_pairs(kind, 130)
    whole, rotation = whole_rotation(130), prefix_rotation(axes_of(exemplars, 64), 64)
    fine = None
    if fine_factor is not None:
        fine = Fine(whole, fine_factor * grid_step(whole, u))
    screen = IntegerScreen(rotation, step_of(factor, rotation, u), fine)
    screen.append(exemplars)
    bounds, s = all_pairs(screen, u, exemplars)
    assert (bounds >= s).all()
    if factor == fine_factor:
        assert (bounds - s).mean() < 0.2


def test_the_grids_above_clip_and_lengths_outside_pass_both_largest_levels():
    """The data must be hard, or it shows nothing."""
    _, exemplars = hard_pairs("isotropic", 130)
    rotation = prefix_rotation(axes_of(exemplars, 64), 64)
    coordinates = rotation.coordinates(exemplars)
    outside = rotation.outside(coordinates)
    step = grid_step(rotation, exemplars)
    assert np.abs(coordinates).max() / (step / 64) > 127 > np.abs(coordinates).max() / step
    assert outside.min() / (step / 20) > 508
    steps = outside / (step / 8)
    assert ((steps > 255) & (steps < 508)).any()
    assert outside.max() / step < 255


@pytest.mark.parametrize("level_step", [0.0015, 0.0019, 0.00198, 0.0025, 0.0035, 0.0039])
def test_bounds_hold_where_a_level_ends_just_below_the_length_outside(level_step):
    axes = np.eye(130, 64, dtype=np.float32)
    x = isotropic(0, 60, 130)
    x[:, :64] *= np.geomspace(1e-4, 1, 60)[:, None]
    u = directions(x)
    screen = IntegerScreen(prefix_rotation(axes, 64), level_step)
    screen.append(u)
    bounds, s = all_pairs(screen, u, u)
    assert (bounds >= s).all()


def on_the_grid(rng):
    """256 integers whose squares add up to 2**20: a direction in steps of 2**-10."""
    squares = np.arange(128) ** 2
    of_two = squares[:, None] + squares[None, :]
    while True:
        q = rng.integers(44, 84, 256)
        rest = 2**20 - int((q[4:] ** 2).sum())
        for a, b in zip(*np.nonzero(of_two <= max(rest, 0)), strict=True):
            c, d = np.nonzero(of_two == rest - of_two[a, b])
            if len(c):
                q[:4] = a, b, c[0], d[0]
                return q * rng.choice((-1, 1), 256)
            if rest > 60000 or rest < 0:
                break


def test_a_bound_is_rounded_up_where_nothing_else_leaves_room():
    rng = np.random.default_rng(0)
    steps = np.array([on_the_grid(rng) for _ in range(12)])
    u = (steps / 1024).astype(np.float32)
    assert (oracle.canonical_matrix(u, u).diagonal() == 1).all()
    exact = Rotation(np.eye(256, dtype=np.float32), 256, overlap=0.0, rounding=0.0, whole=False)
    screen = IntegerScreen(exact, 2.0**-10)
    screen.append(u)
    bounds, s = all_pairs(screen, u, u)
    assert (bounds >= s).all()
    assert (bounds - s).max() < 1e-4


@pytest.mark.parametrize("n_axes", [4, 64, 128])
@pytest.mark.parametrize("kind", KINDS_OF_PAIRS)
def test_bounds_of_few_floats_are_bounds(kind, n_axes):
    u, exemplars = hard_pairs(kind, 130)
    screen = FloatScreen(prefix_rotation(axes_of(exemplars, n_axes), n_axes))
    screen.append(exemplars)
    bounds, s = all_pairs(screen, u, exemplars)
    assert (bounds >= s).all()
    if n_axes == 128:
        assert (bounds - s).mean() < 0.2


@pytest.mark.parametrize("length", [0.998, 1.0, 1.002])
def test_bounds_hold_for_columns_that_are_not_quite_orthonormal(length):
    axes = length * random_axes(0, 130, 64) + 1e-4 * isotropic(1, 130, 64)
    rotation = prefix_rotation(axes.astype(np.float32), 64)
    inside = directions(np.random.default_rng(0).standard_normal((30, 64)) @ axes.T)
    inside = np.concatenate([inside, -inside])
    for screen in (IntegerScreen(rotation, grid_step(rotation, inside)), FloatScreen(rotation)):
        screen.append(inside)
        bounds, s = all_pairs(screen, inside, inside)
        assert (bounds >= s).all()
        assert (bounds - s).mean() < 0.5


@pytest.mark.parametrize("step", [0.0, -0.01, 1e-6, float("nan")])
def test_a_step_too_small_for_32_bits_is_refused(step):
    with pytest.raises(ValueError, match=r"expected 0\.0001 or more"):
        IntegerScreen(whole_rotation(64), step)


@needs_bytes
def test_bounds_hold_at_the_smallest_step():
    u = isotropic(0, 20, 64)
    screen = IntegerScreen(whole_rotation(64), SMALLEST_STEP)
    screen.append(u)
    bounds, s = all_pairs(screen, u, u)
    assert (bounds >= s).all()


def test_coordinates_that_do_not_fill_words_are_refused():
    axes = np.linalg.qr(isotropic(0, 30, 30))[0].astype(np.float32)
    with pytest.raises(ValueError, match="there are 10 coordinates, expected a multiple of 4"):
        IntegerScreen(prefix_rotation(axes, 10), 0.01)


@pytest.mark.parametrize("make", ["whole", "prefix", "few floats"])
def test_exemplars_taken_in_by_and_by_have_the_bounds_of_those_taken_in_at_once(make):
    u, exemplars = clustered(0, 8, 130), clustered(1, 700, 130)
    screens = [explicit_screen(make, exemplars[:100], u) for _ in range(2)]
    for first, stop in pairwise((0, 1, 8, 127, 128, 129, 428, 700)):
        screens[0].append(exemplars[first:stop])
        assert screens[0].n == stop
    screens[1].append(exemplars)
    for bounds, s in (all_pairs(screen, u, exemplars) for screen in screens):
        assert (bounds >= s).all()
    found, expected = (all_pairs(screen, u, exemplars)[0] for screen in screens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # products differ by rounding


def step_of(factor, rotation, u):
    """A step that is so many times the one for these rows, as far as that goes."""
    return max(factor * grid_step(rotation, u), SMALLEST_STEP)


@needs_bytes
def test_the_bounds_that_audits_see_are_those_that_the_search_uses():
    u, exemplars = clustered(0, 50, 130), clustered(1, 300, 130)
    for make in ("whole", "prefix alone"):
        screen = explicit_screen(make, exemplars, u)
        screen.append(exemplars)
        packed, shift, slack = screen._rows(u)
        out = np.empty((72, 384), np.int16)
        vnni.multiply(
            packed, 0, 72, screen._panels, 0, 384, screen._fours, screen._start, shift,
            np.int32(screen._halvings), out,
        )  # fmt: skip
        bounds, _ = all_pairs(screen, u, exemplars)
        found = out[:50, :300] * screen._unit + slack[:, None]
        # A row's slack rounds as its place in a product of matrices does, on some processors.
        np.testing.assert_allclose(found, bounds, rtol=0, atol=1e-7)


# --- answers -------------------------------------------------------------------------------------


def explicit_screen(name, exemplars, u):
    width = exemplars.shape[1]
    whole = whole_rotation(width)
    if name == "whole":
        return IntegerScreen(whole, grid_step(whole, u))
    n_axes = 64 if width >= 128 else 32
    rotation = prefix_rotation(axes_of(exemplars, n_axes), n_axes)
    if name == "few floats":
        return FloatScreen(rotation)
    fine = Fine(whole, grid_step(whole, u)) if name == "prefix" else None
    return IntegerScreen(rotation, grid_step(rotation, u), fine)


def search(name, u, exemplars, region=None, similarity=None, threads=1):
    """Through an index that plans at once, or through a screen of one kind."""
    if region is None:
        region, similarity = blank(len(u))
    if name in SCREENS:
        index = ExemplarIndex(u.shape[1], name)
        index.offer(u, exemplars, region, similarity, MANY_ROWS)
    else:
        screen = explicit_screen(name, exemplars, u)
        screen.append(exemplars)
        screen.offer(u, exemplars, region, similarity, threads)
    return region, similarity


def assert_right(name, u, exemplars, **options):
    region, similarity = search(name, u, exemplars, **options)
    expected_region, expected_similarity = brute_force(u, exemplars)
    np.testing.assert_array_equal(region, expected_region)
    np.testing.assert_array_equal(similarity, expected_similarity)


NEED_BYTES = ("int8", "whole", "prefix", "prefix alone")
NAMES = (*SCREENS, "whole", "prefix", "prefix alone", "few floats")


def marked(names):
    return [pytest.param(name, marks=needs_bytes if name in NEED_BYTES else ()) for name in names]


EVERY_WAY = pytest.mark.parametrize("name", marked(NAMES))
EVERY_SCREEN = pytest.mark.parametrize("screen", marked(SCREENS))


def adversarial(kind, width=130, n=49, k=257):
    """Rows and exemplars that a bound or a tie could lead astray."""
    rng = np.random.default_rng(0)
    if kind == "duplicates":
        some = clustered(0, 40, width)
        exemplars = some[rng.integers(0, 40, k)]
        return np.concatenate([some[: n // 2], clustered(1, n - n // 2, width)]), exemplars
    if kind == "near ties":
        base = rng.standard_normal(width)
        scale = 10.0 ** rng.uniform(-16, -9, (k, 1))
        far = base + 0.5 * rng.standard_normal((n, width))
        exemplars = directions(base + scale * rng.standard_normal((k, width)))
        moved = rng.integers(0, width, k)  # neighbours in float32
        exemplars[np.arange(k), moved] = np.nextafter(exemplars[np.arange(k), moved], 1)
        return directions(far), exemplars
    if kind == "one huge dimension":
        x = rng.standard_normal((n + k, width))
        x[:, 5] = 3e3
        u = directions(x)
        return u[:n], u[n:]
    if kind == "all equal":
        return clustered(0, n, width), np.repeat(clustered(1, 1, width), k, axis=0)
    if kind == "all negative":
        x = 0.1 * rng.standard_normal((n + k, width)) + rng.standard_normal(width)
        u = directions(x)
        return -u[:n], u[n:]
    if kind == "lattice":
        x = rng.integers(-1, 2, (n + k, width)) * (rng.random((n + k, width)) < 0.05)
        x[~x.any(axis=1), 0] = 1
        u = directions(x)
        return u[:n], u[n:]
    assert kind == "one hot"
    exemplars = np.concatenate([one_hot(width), -one_hot(width)])[rng.integers(0, 2 * width, k)]
    return directions(rng.choice((-1.0, 1.0), (n, width))), exemplars


KINDS_OF_ADVERSARIES = (
    "duplicates", "near ties", "one huge dimension", "all equal", "all negative", "lattice",
    "one hot",
)  # fmt: skip


@EVERY_WAY
@pytest.mark.parametrize("kind", KINDS_OF_ADVERSARIES)
def test_the_nearest_is_found_where_bounds_and_ties_are_hard(name, kind):
    u, exemplars = adversarial(kind)
    assert_right(name, u, exemplars)


def test_the_hard_cases_are_hard():
    ties = {}
    for kind in KINDS_OF_ADVERSARIES:
        s = oracle.canonical_matrix(*adversarial(kind))
        ties[kind] = ((s == s.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean()
        top = np.sort(s, axis=1)[:, -2:]
        if kind == "near ties":
            assert np.median(top[:, 1] - top[:, 0]) < 1e-8
        assert (s.max() < 0) == (kind == "all negative")
    assert min(ties[kind] for kind in ("duplicates", "all equal", "lattice", "one hot")) > 0.3


@EVERY_WAY
@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 127, 128, 129, 255, 257, 1025])
def test_the_nearest_is_found_on_both_sides_of_every_border_of_blocks(name, k):
    u, exemplars = clustered(k, 50, 130), clustered(k + 1, k, 130)
    u[-10:] = exemplars[np.linspace(k - 1, 0, 10).astype(int)]  # the last column among them
    assert_right(name, u, exemplars)


@EVERY_WAY
@pytest.mark.parametrize("width", [64, 70, 130, 576])
@pytest.mark.parametrize("n", [1, 23, 24, 25, 49])
def test_the_nearest_is_found_for_any_number_of_rows_and_any_width(name, width, n):
    assert_right(name, clustered(0, n, width), clustered(1, 200, width))


@EVERY_SCREEN
@pytest.mark.parametrize("width", [1, 2, 9, 63])
def test_the_nearest_is_found_where_there_are_fewer_components_than_axes(screen, width):
    assert_right(screen, isotropic(0, 40, width), isotropic(1, 60, width))


@EVERY_WAY
def test_the_nearest_is_found_by_several_threads(name):
    u, exemplars = clustered(0, 130, 130), clustered(1, 400, 130)
    for threads in (2, 3, 7):
        assert_right(name, u, exemplars, threads=threads)


@needs_bytes
@pytest.mark.parametrize("make", ["whole", "prefix"])
def test_exemplars_of_several_segments_are_all_searched(monkeypatch, make):
    names = {**vars(integer_module), "_SEGMENT": 256}
    small = types.FunctionType(integer_module._offer.py_func.__code__, names)
    monkeypatch.setattr(integer_module, "_offer", numba.njit(small, error_model="numpy"))
    for k in (255, 256, 257, 511, 513, 1025):
        u, exemplars = clustered(0, 30, 130), clustered(1, k, 130)
        exemplars[-1] = exemplars[0]  # a tie of the first with the last segment
        u[-3:] = exemplars[[0, k // 2, k - 1]]
        assert_right(make, u, exemplars)


@EVERY_WAY
def test_what_a_row_had_before_yields_to_more_or_to_as_much_of_an_earlier_region(name):
    u, exemplars = clustered(0, 40, 130), clustered(1, 300, 130)
    exemplars[150:] = exemplars[:150]
    best_region, best = brute_force(u, exemplars)
    for had, similarity_had, stays in (
        (best_region - 1, best, True),
        (best_region + 1, best, False),
        (np.full(40, 999), np.nextafter(best, 2), True),
        (np.full(40, 999), np.nextafter(best, -2), False),
        (np.full(40, 999), np.full(40, 2.0), True),
        (np.full(40, 0), np.full(40, -2.0), False),
    ):
        region, similarity = search(name, u, exemplars, had.copy(), similarity_had.copy())
        np.testing.assert_array_equal(region, had if stays else best_region)
        np.testing.assert_array_equal(similarity, similarity_had if stays else best)


@pytest.mark.parametrize("make", [*marked(["whole", "prefix"]), "few floats"])
def test_a_screen_that_has_taken_in_more_offers_only_the_exemplars_it_is_given(make):
    """Another thread may have appended since the screen was chosen."""
    u, exemplars = clustered(0, 40, 130), clustered(1, 300, 130)
    screen = explicit_screen(make, exemplars, u)
    screen.append(exemplars)
    region, similarity = blank(40)
    screen.offer(u, exemplars[:100], region, similarity)
    expected_region, expected_similarity = brute_force(u, exemplars[:100])
    np.testing.assert_array_equal(region, expected_region)
    np.testing.assert_array_equal(similarity, expected_similarity)


@EVERY_SCREEN
def test_a_row_at_the_threshold_joins_and_one_bit_beyond_founds_with_every_screen(screen):
    u = isotropic(0, 130, 130)
    mixed = directions(u[3] + 0.9 * isotropic(1, 1, 130))[0]
    u[100] = mixed
    s = oracle.canonical(u[3], mixed)
    assert 0.5 <= s < 1
    for threshold, founds in (
        (1 - s, False), (1 - np.nextafter(s, 0), False), (1 - np.nextafter(s, 1), True),
    ):  # fmt: skip
        clustering = LeaderClustering(130, threshold, screen=screen)
        parts = [
            clustering.add(u[i : i + 40], np.arange(i, min(i + 40, 130))) for i in (0, 40, 80, 120)
        ]
        founders, region, distance = oracle.leader(u, threshold)
        assert (100 in founders) == founds
        np.testing.assert_array_equal(clustering.exemplar_rows, founders)
        np.testing.assert_array_equal(np.concatenate([p.region for p in parts]), region)
        np.testing.assert_array_equal(np.concatenate([p.distance for p in parts]), distance)


# --- one dictionary, whatever the chunks, the screen and the threads ------------------------------


@pytest.fixture(scope="module")
def stream():
    """3,000 rows, and a threshold at which some 600 of them found."""
    return clustered(0, 3000, 144, spread=0.5), 0.19


def digest(u, threshold, membership, screen, chunk):
    """SHA-256 of all that a stream comes to, and the kind of plan it ended with."""
    clustering = LeaderClustering(u.shape[1], threshold, membership, screen)
    members = Members(u.shape[1], threshold)
    parts = []
    rows, fixed = np.arange(len(u)), fixed_point(u)
    for start in range(0, len(u), chunk):
        part = slice(start, start + chunk)
        joined = clustering.add(u[part], rows[part])
        members.add(fixed[part], joined.region, joined.distance, rows[part], clustering.n_regions)
        parts.append(joined)
    found = {
        "region": np.concatenate([p.region for p in parts]),
        "distance": np.concatenate([p.distance for p in parts]),
        "founded": np.concatenate([p.founded for p in parts]),
        "exemplars": clustering.exemplars,
        "exemplar_rows": clustering.exemplar_rows,
        **members.state(),
    }
    total = hashlib.sha256()
    for name, array in found.items():
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest(), found, clustering._index.plan.kind


@pytest.fixture(scope="module", params=["online", "batch:256"])
def expected(request, stream):
    """The membership, and the digest of a stream whose regions are the definition's."""
    u, threshold = stream
    made, found, _ = digest(u, threshold, request.param, "dense", 4096)
    batch = 256 if request.param == "batch:256" else 0
    founders, region, distance = oracle.leader(u, threshold, batch=batch)
    assert 500 < len(founders) < 700
    np.testing.assert_array_equal(found["exemplar_rows"], founders)
    np.testing.assert_array_equal(found["region"], region)
    np.testing.assert_array_equal(found["distance"], distance)
    return request.param, made


@EVERY_SCREEN
@pytest.mark.parametrize("chunk", [1, 37, 512, 4096])
def test_a_dictionary_is_the_same_whatever_the_chunks_the_screen_and_the_threads(
    monkeypatch, stream, expected, screen, chunk
):
    have_patience(monkeypatch, 0.05)  # so that "auto" plans
    membership, made = expected
    for threads in (1, 2, 4) if chunk > 256 else (4,):

        def run(threads=threads):
            THREADS.set(threads)
            return digest(*stream, membership, screen, chunk)

        found, _, kind = contextvars.copy_context().run(run)
        assert found == made
        if chunk in (37, 512) and (screen != "auto" or BYTES):
            assert (kind == "dense") == (screen == "dense")


# --- the index -----------------------------------------------------------------------------------


@EVERY_SCREEN
def test_an_index_is_right_while_its_exemplars_grow(screen):
    u, exemplars = clustered(0, 40, 130), clustered(1, 1400, 130)
    exemplars[900:950] = exemplars[:50]
    index = ExemplarIndex(130, screen)
    for k in (1, 2, 9, 309, 310, 317, 700, 1025, 1026, 1400):
        region, similarity = index.nearest(u, exemplars[:k], MANY_ROWS)
        expected_region, expected_similarity = brute_force(u, exemplars[:k])
        np.testing.assert_array_equal(region, expected_region)
        np.testing.assert_array_equal(similarity, expected_similarity)
        few_region, few_similarity = index.nearest(u[:15], exemplars[:k])
        np.testing.assert_array_equal(few_region, expected_region[:15])
        np.testing.assert_array_equal(few_similarity, expected_similarity[:15])


@EVERY_SCREEN
def test_an_index_asked_for_fewer_exemplars_than_before_is_right(screen):
    u, exemplars = clustered(0, 40, 130), clustered(1, 700, 130)
    index = ExemplarIndex(130, screen)
    for k in (500, 300, 1, 500, 700, 699):
        region, similarity = index.nearest(u, exemplars[:k], MANY_ROWS)
        expected_region, expected_similarity = brute_force(u, exemplars[:k])
        np.testing.assert_array_equal(region, expected_region)
        np.testing.assert_array_equal(similarity, expected_similarity)


@EVERY_SCREEN
def test_an_index_reads_exemplars_and_rows_from_disk(screen, tmp_path):
    u, exemplars = clustered(0, 40, 130), clustered(1, 300, 130)
    mapped = []
    for name, rows in (("rows", u), ("exemplars", exemplars)):
        rows.tofile(tmp_path / name)
        mapped.append(np.memmap(tmp_path / name, np.float32, "r", shape=rows.shape))
    index = ExemplarIndex(130, screen)
    region, similarity = index.nearest(*mapped, MANY_ROWS)
    expected_region, expected_similarity = brute_force(u, exemplars)
    np.testing.assert_array_equal(region, expected_region)
    np.testing.assert_array_equal(similarity, expected_similarity)


@EVERY_SCREEN
def test_no_rows_or_no_exemplars_are_no_regions(screen):
    index = ExemplarIndex(130, screen)
    none = np.empty((0, 130), np.float32)
    region, similarity = index.nearest(isotropic(0, 20, 130), none, audit=Audit())
    assert region.tolist() == [-1] * 20
    assert similarity.tolist() == [-np.inf] * 20
    assert len(index.nearest(none, isotropic(0, 20, 130))[0]) == 0


def without_bytes(width):
    index = ExemplarIndex(width, "auto")
    index._bytes = False
    return index


def test_a_screen_of_floats_is_planned_where_few_axes_hold_the_energy_and_only_there():
    for rows, exemplars, kind in (
        (isotropic(0, 40, 192), isotropic(1, 2000, 192), "dense"),
        (clustered(0, 40, 192), clustered(1, 2000, 192), "float prefix"),
    ):
        index = without_bytes(192)
        region, similarity = index.nearest(rows, exemplars, MANY_ROWS)
        assert (index.plan.kind, index._planned_at) == (kind, 2000)
        expected_region, expected_similarity = brute_force(rows, exemplars)
        np.testing.assert_array_equal(region, expected_region)
        np.testing.assert_array_equal(similarity, expected_similarity)


@needs_bytes
def test_products_of_bytes_are_planned_where_they_are_there():
    index = ExemplarIndex(192)
    rows, exemplars = isotropic(0, 40, 192), isotropic(1, 2000, 192)
    index.nearest(rows, exemplars)
    assert index.plan.kind == "dense"  # one short search does not pay for a plan
    region, _ = index.nearest(rows, exemplars, MANY_ROWS)
    assert index.plan.kind == "whole"
    np.testing.assert_array_equal(region, brute_force(rows, exemplars)[0])


def test_a_plan_is_made_when_searches_have_cost_several_times_what_it_costs(monkeypatch):
    rows, exemplars = clustered(0, 200, 192), clustered(1, 2000, 192)

    def searches(patience):
        have_patience(monkeypatch, patience)
        index, n = without_bytes(192), 0
        while not index._planned_at:
            index.nearest(rows, exemplars)
            n += 1
        return n

    once, thrice = searches(1.5), searches(4.5)
    assert 1 < once < 100
    assert 2 * once < thrice < 4 * once


def test_rows_unlike_those_planned_for_call_for_another_plan():
    exemplars = np.concatenate([clustered(1, 1000, 192), isotropic(2, 1000, 192)])
    alike, unlike = clustered(3, 200, 192), isotropic(4, 200, 192)
    expected_region, expected_similarity = brute_force(unlike[:40], exemplars)
    index = without_bytes(192)
    index.nearest(alike, exemplars, MANY_ROWS)
    assert index.plan.kind == "float prefix"
    for _ in range(3):
        index.nearest(alike, exemplars)
    assert index.plan.kind == "float prefix"
    kinds = []
    for _ in range(8):
        region, similarity = index.nearest(unlike, exemplars)
        kinds.append(index.plan.kind)
        np.testing.assert_array_equal(region[:40], expected_region)
        np.testing.assert_array_equal(similarity[:40], expected_similarity)
    assert kinds[-1] == "dense"


def test_a_plan_is_a_function_of_the_rows():
    rows, exemplars = clustered(0, 100, 192), clustered(1, 1500, 192)
    plans = []
    for _ in range(2):
        axes = planning.sample_axes(rows, exemplars)
        plans += [planning.plan(rows, exemplars, axes, bytes_) for bytes_ in (False, True)]
    assert plans[:2] == plans[2:]
    assert {plan.kind for plan in plans} <= {"dense", "whole", "prefix", "float prefix"}
    assert planning.plan(rows, exemplars, None, False).kind == "dense"
    assert planning.plan(rows, exemplars, None, True, dense=False).kind == "whole"


@pytest.mark.parametrize(("n", "most"), [(0, 5), (3, 5), (5, 5), (9, 5), (1000, 64)])
def test_a_sample_is_spread_over_all_rows(n, most):
    found = planning.spread(np.arange(n), most)
    assert len(found) == min(n, most)
    assert (np.diff(found) > 0).all()
    if n > 2 * most:
        assert found[-1] > 0.9 * n - n / most


@EVERY_SCREEN
def test_threads_that_share_an_index_get_right_answers(screen):
    exemplars = clustered(1, 600, 130)
    rows = [clustered(seed, 300, 130) for seed in range(4)]
    expected = [brute_force(u, exemplars) for u in rows]
    index, together = ExemplarIndex(130, screen), Barrier(4)

    def work(k):
        together.wait(timeout=60)
        for step in range(4):
            u = rows[(k + step) % 4]
            region, similarity = index.nearest(u, exemplars, MANY_ROWS)
            np.testing.assert_array_equal(region, expected[(k + step) % 4][0])
            np.testing.assert_array_equal(similarity, expected[(k + step) % 4][1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@EVERY_SCREEN
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))]
)
def test_a_copy_of_an_index_starts_afresh_and_is_right(screen, again):
    u, exemplars = clustered(0, 40, 130), clustered(1, 300, 130)
    index = ExemplarIndex(130, screen)
    index.nearest(u, exemplars, MANY_ROWS)
    made = again(index)
    assert (made.width, made.screen, made.plan.kind) == (130, screen, "dense")
    region, _ = made.nearest(u, exemplars[:200], MANY_ROWS)
    np.testing.assert_array_equal(region, brute_force(u, exemplars[:200])[0])


def test_a_dictionary_that_has_searched_can_be_copied_and_pickled():
    x = 3 * clustered(0, 600, 70)
    made = partition(x[:300], Calibration(np.zeros(70, np.float32), {10.0: 0.2}, 600, 2048), 10)
    expected = made.assign(x)
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        for found, wanted in zip(again.assign(x), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_an_unknown_screen_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r'screen is "fast".*auto, dense, float32, int8'):
        ExemplarIndex(8, "fast")


def test_bytes_are_refused_where_the_processor_has_none_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(vnni, "available", lambda: False)
    with pytest.raises(ValueError, match='screen is "int8", which needs a processor with AVX-512'):
        ExemplarIndex(8, "int8")
    index = ExemplarIndex(192)
    rows, exemplars = clustered(0, 60, 192), clustered(1, 2000, 192)
    index.nearest(rows, exemplars, MANY_ROWS)
    assert index.plan.kind == "float prefix"


def test_threads_are_as_many_as_are_given_and_no_more_than_rows_can_use(monkeypatch):
    def threads(n_rows, given=None):
        def run():
            THREADS.set(given)
            return index_module._threads(n_rows)

        return contextvars.copy_context().run(run)

    monkeypatch.setattr(index_module, "_cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [threads(n) for n in (1, 255, 256, 512, 10**6)] == [1, 1, 1, 2, 3]
    assert [threads(10**6, given) for given in (1, 2, 4)] == [1, 2, 4]
    for without in ("", "0", "two", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", without)
        assert threads(10**6) == 6
    assert index_module._threads(0) == 1


# --- audits --------------------------------------------------------------------------------------


@EVERY_SCREEN
def test_an_honest_search_passes_its_audit(screen):
    u, exemplars = clustered(0, 600, 130), clustered(1, 900, 130)
    index, audit = ExemplarIndex(130, screen), Audit()
    for _ in range(5):
        index.nearest(u, exemplars, MANY_ROWS, audit)
    assert audit.pairs >= 5
    screened = index.plan.kind != "dense"
    assert audit.bounded == (audit.pairs if screened else 0)
    assert audit.smallest_slack > 0
    assert (audit.smallest_slack < 3) == screened
    assert screened == (screen in ("float32", "int8") or (screen == "auto" and BYTES))


@EVERY_SCREEN
def test_a_clustering_audits_its_searches(screen):
    u, audit = clustered(0, 600, 130, spread=0.5), Audit()
    clustering = LeaderClustering(130, 0.2, screen=screen, audit=audit)
    for start in range(0, 600, 60):
        clustering.add(u[start : start + 60], np.arange(start, start + 60))
    assert audit.pairs == 9  # one of each search, and the first has nothing to search
    if screen != "auto":
        assert audit.bounded == (0 if screen == "dense" else 9)


def test_an_audit_looks_at_one_pair_in_a_hundred_thousand_and_at_one_at_least():
    u, exemplars = isotropic(0, 2000, 8), isotropic(1, 2000, 8)
    region, similarity = ExemplarIndex(8, "dense").nearest(u, exemplars)
    audit = Audit()
    for _ in range(25):
        audit.check(u, exemplars, region, similarity)
    assert 900 < audit.pairs < 1100  # of 1e8
    few = Audit()
    few.check(u[:1], exemplars[:1], np.zeros(1, int), canonical_similarity(u[:1], exemplars[:1]))
    assert (few.pairs, few.bounded, few.smallest_slack) == (1, 0, np.inf)
    few.check(u[:0], exemplars, *blank(0))
    few.check(u, exemplars[:0], *blank(2000))
    assert few.pairs == 1


def test_an_audit_finds_an_answer_that_is_not_the_nearest():
    u, exemplars = clustered(0, 40, 130), clustered(1, 60, 130)
    region, similarity = brute_force(u, exemplars)
    Audit().check(u, exemplars, region, similarity)
    message = r"row \d+ of a chunk was given region \d+ at similarity .*-1.*, but region \d+ has "
    with pytest.raises(AuditError, match=message + r".*: the search is wrong on this machine"):
        Audit().check(u, exemplars, region, np.full(40, -1.0))


def test_an_audit_finds_an_answer_that_is_a_later_one_of_equals():
    u, exemplars = clustered(0, 40, 130), np.repeat(clustered(1, 1, 130), 60, axis=0)
    region, similarity = brute_force(u, exemplars)
    Audit().check(u, exemplars, region, similarity)
    with pytest.raises(AuditError, match=r"was given region 59 .*, but region"):
        Audit().check(u, exemplars, np.full(40, 59), similarity)


class Low:
    """A screen whose bounds are off by so much."""

    def __init__(self, exemplars, by):
        self.exemplars, self.by = exemplars, by

    def upper_bounds(self, directions, regions):
        return canonical_similarity(directions, self.exemplars, None, regions) - self.by


def test_an_audit_finds_a_bound_that_is_too_low():
    u, exemplars = clustered(0, 40, 130), clustered(1, 60, 130)
    region, similarity = brute_force(u, exemplars)
    audit = Audit()
    with pytest.raises(AuditError, match=r"a bound lay 1.0e-06 below the similarity it bounds: "):
        audit.check(u, exemplars, region, similarity, Low(exemplars, 1e-6))
    assert audit.smallest_slack == pytest.approx(-1e-6)
    audit = Audit()
    audit.check(u, exemplars, region, similarity, Low(exemplars, -1e-6))
    audit.check(u, exemplars, region, similarity, Low(exemplars, -1.0))
    assert audit.smallest_slack == pytest.approx(1e-6)
    Audit().check(u, exemplars, region, similarity, Low(exemplars, 0.0))


@pytest.mark.parametrize("screen", marked(["float32", "int8"]))
def test_a_search_with_bounds_that_are_too_low_fails_its_audit(monkeypatch, screen):
    u, exemplars = clustered(0, 100, 130), clustered(1, 900, 130)
    index = ExemplarIndex(130, screen)
    index.nearest(u, exemplars, MANY_ROWS, Audit())
    low = type(index._kept).upper_bounds
    monkeypatch.setattr(type(index._kept), "upper_bounds", lambda *given: low(*given) - 3.0)
    with pytest.raises(AuditError, match="the search cannot be trusted on this machine"):
        index.nearest(u, exemplars, audit=Audit())


def test_an_index_keeps_no_rows_of_a_chunk_but_its_sample():
    u = clustered(0, 2000, 64)
    index = ExemplarIndex(64)
    index.nearest(u, u[:100])
    assert all(rows.base is None and len(rows) <= 64 for rows in index._rows)
