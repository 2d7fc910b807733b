"""One-to-one matching of directions."""

import itertools

import numpy as np
import pytest

from exemplars.analyses import matching
from exemplars.analyses.matching import match_directions


def directions(k, width=8, seed=0):
    x = np.random.default_rng(seed).normal(size=(k, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def largest_first(a, b):
    """The greedy matching, slowly."""
    cosines = a.astype(float) @ b.astype(float).T
    found = []
    for _ in range(min(cosines.shape)):
        i, j = np.unravel_index(cosines.argmax(), cosines.shape)
        found.append((int(i), int(j)))
        cosines[i], cosines[:, j] = -np.inf, -np.inf
    return sorted(found)


def pairs_of(found):
    return [tuple(pair) for pair in found.pairs.tolist()]


@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (5, 3), (6, 6)])
def test_the_hungarian_matching_has_the_largest_sum_there_is(sizes):
    a, b = directions(sizes[0], 3, 1), directions(sizes[1], 3, 2)
    found = match_directions(a, b)
    cosines = a.astype(float) @ b.astype(float).T
    if sizes[0] > sizes[1]:
        cosines = cosines.T
    rows = np.arange(len(cosines))
    largest = max(
        cosines[rows, list(columns)].sum()
        for columns in itertools.permutations(range(cosines.shape[1]), len(rows))
    )
    assert found.method == "hungarian"
    assert found.cosines.sum() == pytest.approx(largest, abs=1e-6)
    assert len(found.pairs) == min(sizes)
    assert len(found.unpaired_a) == max(sizes[0] - sizes[1], 0)
    assert len(found.unpaired_b) == max(sizes[1] - sizes[0], 0)


@pytest.mark.parametrize("candidates", [1, 2, 16])
@pytest.mark.parametrize("sizes", [(40, 60), (60, 40), (1, 30)])
def test_the_greedy_matching_takes_the_largest_cosine_of_what_is_left(
    sizes, candidates, monkeypatch
):
    monkeypatch.setattr(matching, "_CANDIDATES", candidates)
    monkeypatch.setattr(matching, "_CELLS", 100)
    a, b = directions(sizes[0], 4, 3), directions(sizes[1], 4, 4)
    assert pairs_of(match_directions(a, b, "greedy")) == largest_first(a, b)


def test_greedy_ties_go_to_the_lower_index():
    rng = np.random.default_rng(3)
    few = np.repeat(np.eye(7, dtype=np.float32), 10, axis=0)  # cosines are 0 or 1
    a, b = few[rng.permutation(70)], few[rng.permutation(70)]
    expected = [pair for pair in largest_first(a, b) if (a[pair[0]] == b[pair[1]]).all()]
    assert list(pairs_of(match_directions(a, b, "greedy"))) == expected
    assert len(expected) == 70


def test_equal_cosines_in_a_circle_end():
    a = np.eye(2, dtype=np.float32)
    b = np.array([[1, 1], [1, 1]], np.float32) / np.float32(np.sqrt(2))
    assert pairs_of(match_directions(a, b, "greedy")) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
def test_a_set_is_matched_with_itself_and_with_its_own_permutation(method):
    a = directions(30, 6, 6)
    order = np.random.default_rng(0).permutation(30)
    itself, permuted = match_directions(a, a, method), match_directions(a, a[order], method)
    assert pairs_of(itself) == [(i, i) for i in range(30)]
    assert np.array_equal(order[permuted.partner_of_a], np.arange(30))
    assert np.array_equal(permuted.partner_of_b, order)
    assert itself.cosines == pytest.approx(np.ones(30), abs=1e-6)


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
def test_the_sides_can_be_swapped(method):
    a, b = directions(20, 5, 7), directions(25, 5, 8)
    ab, ba = match_directions(a, b, method), match_directions(b, a, method)
    assert sorted((j, i) for i, j in pairs_of(ba)) == sorted(pairs_of(ab))
    assert np.array_equal(ab.partner_of_a, ba.partner_of_b)
    assert np.array_equal(ab.cosine_of_b, ba.cosine_of_a, equal_nan=True)


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
def test_rows_without_a_direction_are_never_paired(method):
    a, b = directions(6, 4, 9), directions(5, 4, 10)
    a[2], b[0], b[4] = np.nan, 0, np.inf
    found = match_directions(a, b, method)
    assert 2 in found.unpaired_a
    assert {0, 4} <= set(found.unpaired_b.tolist())
    assert len(found.pairs) == 3
    assert np.isfinite(found.cosines).all()
    assert found.partner_of_a[2] == -1
    assert np.isnan(found.cosine_of_a[2])


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_nothing_matches_nothing(method, sizes):
    found = match_directions(directions(sizes[0] + 1)[1:], directions(sizes[1] + 1)[1:], method)
    assert found.pairs.shape == (0, 2)
    assert len(found.cosines) == 0
    assert len(found.unpaired_a) == sizes[0]
    assert len(found.unpaired_b) == sizes[1]


def test_many_directions_are_matched_without_all_cosines(monkeypatch):
    monkeypatch.setattr(matching, "HUNGARIAN_REGIONS", 10)
    assert match_directions(directions(11), directions(3)).method == "greedy"
    assert match_directions(directions(10), directions(3)).method == "hungarian"


def test_widths_and_methods_are_checked():
    with pytest.raises(ValueError, match="one width"):
        match_directions(directions(2, 4), directions(2, 5))
    with pytest.raises(ValueError, match='method is "best"'):
        match_directions(directions(2), directions(2), "best")
