"""The nearest exemplar is the nearest, whatever float32 thinks of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from exemplars.geometry import gemm_band, to_directions
from exemplars.nearest import nearest, offer

PROPERTY = settings(deadline=None, max_examples=60)


def unit(seed, n, width):
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return to_directions(x, np.zeros(width, np.float32))[0]


def brute_force(u, exemplars):
    s = oracle.canonical_matrix(u, exemplars)
    return s.argmax(axis=1), s.max(axis=1)


def assert_nearest(u, exemplars):
    region, similarity = nearest(u, exemplars)
    expected_region, expected_similarity = brute_force(u, exemplars)
    np.testing.assert_array_equal(region, expected_region)
    np.testing.assert_array_equal(similarity, expected_similarity)


@PROPERTY
@given(
    st.integers(0, 2**32),
    st.sampled_from((1, 3, 7, 8, 9, 33, 577)),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_the_nearest_has_the_largest_canonical_similarity(seed, width, n, k):
    assert_nearest(unit(seed, n, width), unit(seed + 1, k, width))


@PROPERTY
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from((8, 9, 64, 577)))
def test_float32_noise_does_not_choose_between_exemplars_that_are_nearly_equal(seed, k, width):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(width)
    scale = 10.0 ** rng.uniform(-9, -5)
    close = (base + scale * rng.standard_normal((k, width))).astype(np.float32)
    rows = (base + 0.5 * rng.standard_normal((8, width))).astype(np.float32)
    origin = np.zeros(width, np.float32)
    assert_nearest(to_directions(rows, origin)[0], to_directions(close, origin)[0])


def test_float32_alone_would_have_chosen_wrongly():
    """The data above must be hard, or it shows nothing."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal(577)
    origin = np.zeros(577, np.float32)
    exemplars, _ = to_directions(
        (base + 1e-7 * rng.standard_normal((60, 577))).astype(np.float32), origin
    )
    rows, _ = to_directions(
        (base + 0.5 * rng.standard_normal((200, 577))).astype(np.float32), origin
    )
    chosen = (rows @ exemplars.T).argmax(axis=1)
    assert (chosen != brute_force(rows, exemplars)[0]).any()
    assert_nearest(rows, exemplars)


def test_ties_go_to_the_lower_index_also_across_panels():
    rows = unit(3, 20, 16)
    exemplars = unit(4, 2600, 16)
    exemplars[[7, 900, 1023, 1024, 1500, 2599]] = rows[5]
    exemplars[[1030, 2048]] = rows[6]
    region, similarity = nearest(rows, exemplars)
    assert region[5] == 7
    assert region[6] == 1030
    np.testing.assert_array_equal(similarity, brute_force(rows, exemplars)[1])


def test_many_rows_and_many_exemplars_cross_every_border():
    assert_nearest(unit(0, 1030, 24), unit(1, 1100, 24))


def test_rows_that_are_all_candidates_of_all_exemplars_are_still_right():
    exemplars = np.repeat(unit(5, 1, 40), 300, axis=0)
    exemplars[150:] = unit(6, 1, 40)
    rows = np.concatenate([exemplars[:60], exemplars[150:210]])
    region, _ = nearest(rows, exemplars)
    assert region.tolist() == [0] * 60 + [150] * 60


def test_no_exemplar_is_no_region():
    region, similarity = nearest(unit(0, 3, 5), np.empty((0, 5), np.float32))
    assert region.tolist() == [-1, -1, -1]
    assert similarity.tolist() == [-np.inf] * 3
    region, similarity = nearest(np.empty((0, 5), np.float32), unit(0, 3, 5))
    assert len(region) == len(similarity) == 0


@PROPERTY
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 30), st.sampled_from((3, 16, 65)))
def test_offering_exemplars_in_parts_is_offering_them_at_once(seed, k, cut, width):
    cut = min(cut, k)
    rows, exemplars = unit(seed, 25, width), unit(seed + 1, k, width)
    exemplars[k // 2 :] = exemplars[: k - k // 2]  # ties: the earlier part keeps them
    region, similarity = np.full(25, -1), np.full(25, -np.inf)
    offer(rows, exemplars[:cut], 0, region, similarity)
    offer(rows, exemplars[cut:], cut, region, similarity)
    expected_region, expected_similarity = brute_force(rows, exemplars)
    np.testing.assert_array_equal(region, expected_region)
    np.testing.assert_array_equal(similarity, expected_similarity)


@PROPERTY
@given(st.integers(0, 2**32), st.sampled_from((5, 60, 700)), st.data())
def test_a_row_is_offered_only_what_was_born_before_it(seed, n, data):
    u = unit(seed, n, 9)
    born = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=20))))
    region, similarity = np.full(n, -1), np.full(n, -np.inf)
    offer(u, u[born], 10, region, similarity, born)
    s = oracle.canonical_matrix(u, u[born])
    s[np.arange(n)[:, None] <= born[None, :]] = -np.inf
    has = np.isfinite(s.max(axis=1))
    np.testing.assert_array_equal(region, np.where(has, 10 + s.argmax(axis=1), -1))
    np.testing.assert_array_equal(similarity, s.max(axis=1))


@pytest.mark.parametrize("gap", [0.0, 0.4, 0.9, 1.1, 3.0])
def test_what_a_row_already_has_yields_only_to_more(gap):
    rows, exemplars = unit(0, 30, 64), unit(1, 50, 64)
    best_region, best = brute_force(rows, exemplars)
    region, similarity = np.full(30, 999), best + gap * gemm_band(64)
    had = similarity.copy()
    offer(rows, exemplars, 1000, region, similarity)
    assert (region == 999).all()
    np.testing.assert_array_equal(similarity, had)
    region, similarity = np.full(30, 999), np.nextafter(best - gap * gemm_band(64), -1)
    offer(rows, exemplars, 1000, region, similarity)
    np.testing.assert_array_equal(region, 1000 + best_region)
    np.testing.assert_array_equal(similarity, best)


@pytest.mark.parametrize("had", [0, 6, 7, 8, 1000])
def test_an_equal_similarity_goes_to_the_earlier_region_whichever_was_offered_first(had):
    rows, exemplars = unit(0, 30, 24), unit(1, 50, 24)
    best_region, best = brute_force(rows, exemplars)
    offset = 7 - best_region  # each row's nearest is region 7 in its own turn
    for row in range(30):
        region, similarity = np.array([had]), best[row : row + 1].copy()
        offer(rows[row : row + 1], exemplars, int(offset[row]), region, similarity)
        assert region[0] == min(had, 7)
        assert similarity[0] == best[row]


def test_rows_and_exemplars_born_among_them_cross_every_border():
    u = unit(0, 2200, 8)
    born = np.arange(3, 2200, 2)  # more than a panel of exemplars, in two panels of rows
    region, similarity = np.full(2200, -1), np.full(2200, -np.inf)
    region[5], similarity[5] = 4, 2.0
    offer(u, u[born], 10, region, similarity, born)
    assert region[:4].tolist() == [-1] * 4
    assert (region[5], similarity[5]) == (4, 2.0)
    for row in (4, 6, 1023, 1024, 2047, 2048, 2049, 2050, 2051, 2052, 2053, 2198, 2199):
        s = oracle.canonical_matrix(u[row : row + 1], u[born[born < row]])[0]
        assert (region[row], similarity[row]) == (10 + s.argmax(), s.max())


def test_most_exemplars_are_never_compared():
    """What is computed canonically is counted: a search that compared all would be right too."""
    rows, exemplars = unit(0, 200, 64), unit(1, 1500, 64)
    region, similarity = np.full(200, -1), np.full(200, -np.inf)
    checks = offer(rows, exemplars, 0, region, similarity)
    assert 200 <= checks < 3 * 200
