"""Directions and similarities have one value each, to the bit."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from exemplars.errors import ActivationError
from exemplars.geometry import (
    accumulate_center,
    canonical_dot,
    canonical_similarity,
    check_finite,
    cosine_distance,
    gemm_band,
    has_direction,
    smallest_norm,
    to_directions,
    vector_norms,
)

PROPERTY = settings(deadline=None, max_examples=60)
WIDTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 64, 577, 4101)
widths = st.sampled_from((*range(1, 20), 64, 577))
seeds = st.integers(0, 2**32)


def gaussian(seed, n, width, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal((n, width))).astype(np.float32)


def uneven(seed, n, width):
    """Rows whose sums round differently in any other order of summation."""
    scale = 10.0 ** np.random.default_rng(seed).uniform(-4, 4, (n, width))
    return (gaussian(seed, n, width) * scale).astype(np.float32)


@PROPERTY
@given(seeds, widths)
def test_the_canonical_dot_is_the_eight_lane_sum_to_the_bit(seed, width):
    rows = uneven(seed, 2, width)
    assert canonical_dot(rows[0], rows[1]) == oracle.canonical(rows[0], rows[1])


@PROPERTY
@given(seeds, widths)
def test_the_canonical_dot_is_symmetric_and_ignores_zeros_that_pad_the_rows(seed, width):
    rows = uneven(seed, 2, width)
    padded = np.pad(rows, [(0, 0), (0, 11)])
    value = canonical_dot(rows[0], rows[1])
    assert canonical_dot(rows[1], rows[0]) == value == canonical_dot(padded[0], padded[1])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_oracle_agrees_with_itself_pair_by_pair_and_in_matrices(width):
    a, b = gaussian(width, 3, width), gaussian(width + 1, 4, width)
    one_by_one = [[oracle.canonical(x, y) for y in b] for x in a]
    np.testing.assert_array_equal(oracle.canonical_matrix(a, b), one_by_one)


def test_a_similarity_of_chosen_pairs_is_that_of_the_same_rows():
    a, b = gaussian(0, 5, 33), gaussian(1, 5, 33)
    matrix = oracle.canonical_matrix(a, b)
    np.testing.assert_array_equal(canonical_similarity(a, b), np.diag(matrix))
    i, j = np.array([4, 0, 2]), np.array([1, 1, 3])
    np.testing.assert_array_equal(canonical_similarity(a, b, i, j), matrix[i, j])


@PROPERTY
@given(
    st.integers(0, 2**32),
    st.sampled_from(WIDTHS[:-1]),
    st.sampled_from((1e-30, 1e-6, 1.0, 7e4, 1e30)),
    st.booleans(),
)
def test_directions_are_centered_in_float32_and_divided_once(seed, width, scale, huge):
    x = gaussian(seed, 6, width, scale)
    if huge:
        x[::2, 0] = np.float32(1e6 * scale)
    center = gaussian(seed + 1, 1, width, scale)[0]
    u, norms = to_directions(x, center)
    expected, kept = oracle.directions(x, center)
    assert u[has_direction(norms, center)].tobytes() == expected.tobytes()
    assert kept.tolist() == np.flatnonzero(has_direction(norms, center)).tolist()
    np.testing.assert_array_equal(norms, oracle.norms(x - center))
    np.testing.assert_array_equal(vector_norms(x), oracle.norms(x))
    assert np.abs(np.linalg.norm(u[kept].astype(np.float64), axis=1) - 1).max() < 2.0**-23


@PROPERTY
@given(st.integers(0, 2**32), st.integers(-40, 40))
def test_a_direction_forgets_a_power_of_two(seed, exponent):
    x = gaussian(seed, 4, 65)
    origin = np.zeros(65, np.float32)
    scaled, _ = to_directions(x * np.float32(2.0**exponent), origin)
    assert scaled.tobytes() == to_directions(x, origin)[0].tobytes()


def test_a_row_no_farther_from_the_center_than_a_millionth_of_it_has_no_direction():
    center = np.array([4096.0, 0, 0], np.float32)
    away = np.array([0, 0.001, 0.0040, 0.0042, 1], np.float32)  # the limit is 0.004096
    x = np.tile(center, (5, 1))
    x[:, 1] += away
    u, norms = to_directions(x, center)
    assert has_direction(norms, center).tolist() == [False, False, False, True, True]
    assert smallest_norm(center) == 1e-6 * 4096
    assert (u[:3] == 0).all()
    np.testing.assert_array_equal(u[3:], [[0, 1, 0], [0, 1, 0]])


def test_about_the_origin_only_the_zero_row_has_no_direction():
    x = np.array([[0, 0], [1e-38, 0], [-1e-40, 0]], np.float32)
    origin = np.zeros(2, np.float32)
    u, norms = to_directions(x, origin)
    assert has_direction(norms, origin).tolist() == [False, True, True]
    np.testing.assert_array_equal(u, [[0, 0], [1, 0], [-1, 0]])


@PROPERTY
@given(st.integers(0, 2**32), st.sampled_from(WIDTHS), st.sampled_from(("random", "same", "spike")))
def test_a_float32_product_stays_within_its_band(seed, width, kind):
    x = gaussian(seed, 40, width)
    if kind == "same":
        x = np.abs(x)
    if kind == "spike":
        x[:, 0] *= 1e4
    u, _ = to_directions(x, np.zeros(width, np.float32))
    error = np.abs((u @ u.T).astype(np.float64) - oracle.canonical_matrix(u, u)).max()
    assert error <= gemm_band(width)


def test_the_band_is_that_of_a_sum_of_so_many_rounded_terms():
    for width in (1, 576, 8192):
        assert 1.0 < gemm_band(width) / (width * 2.0**-24) < 1.02


def test_a_distance_is_clipped_to_what_a_cosine_distance_can_be():
    s = np.array([1.0000001, 1.0, 0.25, -1.0, -1.0000001])
    np.testing.assert_array_equal(cosine_distance(s), [0, 0, 0.75, 2, 2])


@PROPERTY
@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), max_size=5))
def test_the_sums_of_the_center_do_not_depend_on_batches(seed, cuts):
    x = gaussian(seed, 40, 9, 100.0)
    keep = np.random.default_rng(seed).random(40) < 0.8

    def sums(edges):
        units, vectors, added = np.zeros(9), np.zeros(9), 0
        for start, stop in pairwise(edges):
            part = x[start:stop]
            added += accumulate_center(part, vector_norms(part), keep[start:stop], units, vectors)
        return units.tobytes(), vectors.tobytes(), added

    assert sums([0, *sorted(cuts), 40]) == sums([0, 40])
    assert sums([0, 40])[2] == keep.sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(bad):
    x = gaussian(0, 5, 3)
    x[3, 1] = bad
    x[4, 2] = bad
    with pytest.raises(ActivationError) as caught:
        check_finite(vector_norms(x), "site 7")
    assert str(caught.value) == (
        "site 7: row 3 has a NaN or infinite component (2 of 5 rows do), finite values were "
        "expected; run the model in bfloat16 or float32, or drop these rows"
    )
    with pytest.raises(ActivationError, match="vectors: row 1003 has"):
        check_finite(vector_norms(x), first_row=1000)
    check_finite(vector_norms(x[:3]))
