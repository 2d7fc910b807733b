"""Two partitions of the same rows: agreement, and cells one to one."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from exemplars.analyses.overlap import match_overlap, permuted


def labels(n=400, k=6, seed=0):
    return np.random.default_rng(seed).integers(0, k, n)


def f1_matrix(a, b, n_a, n_b):
    found = np.zeros((n_a, n_b))
    for i, j in itertools.product(range(n_a), range(n_b)):
        both, either = ((a == i) & (b == j)).sum(), (a == i).sum() + (b == j).sum()
        found[i, j] = 2 * both / either if either else 0
    return found


def test_mutual_information_is_that_of_scikit_learn():
    a, b = labels(seed=1), labels(k=9, seed=2) // 2
    b[a == 0] = 1
    found = match_overlap(a, b, 6, 9)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-12)
    assert found.rows == 400


def test_a_partition_agrees_with_itself_whatever_its_cells_are_called():
    a = labels()
    order = np.array([3, 0, 5, 1, 2, 4])
    found = match_overlap(a, order[a], 6, 7)
    assert found.nmi == pytest.approx(1)
    assert found.pairs.tolist() == [[i, order[i]] for i in range(6)]
    assert found.f1 == pytest.approx(np.ones(6))
    assert found.jaccard == pytest.approx(np.ones(6))
    assert found.mean_f1 == pytest.approx(1)


def test_the_hungarian_matching_has_the_largest_sum_of_f1():
    a, b = labels(80, 4, 3), labels(80, 5, 4)
    found = match_overlap(a, b, 4, 5)
    f1 = f1_matrix(a, b, 4, 5)
    best = max(f1[range(4), list(c)].sum() for c in itertools.permutations(range(5), 4))
    assert found.method == "hungarian"
    assert found.f1.sum() == pytest.approx(best)
    assert found.f1 == pytest.approx(f1[found.pairs[:, 0], found.pairs[:, 1]])


def test_the_greedy_matching_takes_the_largest_f1_first():
    a, b = labels(300, 12, 5), labels(300, 15, 6)
    found = match_overlap(a, b, 12, 15, "greedy")
    f1, expected = f1_matrix(a, b, 12, 15), []
    while f1.max() > 0:
        i, j = np.unravel_index(f1.argmax(), f1.shape)
        expected.append([int(i), int(j)])
        f1[i], f1[:, j] = 0, 0
    assert found.pairs.tolist() == sorted(expected)


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
def test_rows_with_one_cell_only_and_empty_cells_take_no_part(method):
    a, b = np.array([0, 0, 1, -1, 2]), np.array([1, 1, -1, 0, 3])
    found = match_overlap(a, b, 4, 5, method)
    assert found.rows == 3
    assert found.pairs.tolist() == [[0, 1], [2, 3]]
    assert found.sizes_a.tolist() == [2, 0, 1, 0]
    assert found.smaller == pytest.approx([2 / 3, 1 / 3])
    nothing = match_overlap(np.array([-1, 0]), np.array([0, -1]), 1, 1, method)
    assert nothing.pairs.shape == (0, 2)
    assert np.isnan(nothing.nmi)
    assert np.isnan(nothing.mean_f1)


def test_partitions_of_one_cell_agree_and_others_share_nothing_with_them():
    one = np.zeros(50, np.int64)
    assert match_overlap(one, one, 1, 1).nmi == 1
    assert match_overlap(one, labels(50), 1, 6).nmi == pytest.approx(0, abs=1e-12)


def test_pairs_that_share_no_row_are_none():
    a, b = np.array([0, 1, 1]), np.array([0, 0, 0])
    assert match_overlap(a, b, 2, 2).pairs.tolist() == [[1, 0]]


def test_permuting_keeps_the_sizes_and_destroys_the_agreement():
    a = labels(5000)
    moved = permuted(a, np.random.default_rng(0))
    assert np.array_equal(np.bincount(moved), np.bincount(a))
    assert match_overlap(a, moved, 6, 6).nmi < 0.01


def test_permuting_within_groups_keeps_what_the_groups_explain():
    token = labels(5000, 6, 7)
    region = token * 10 + labels(5000, 10, 8)
    moved = permuted(region, np.random.default_rng(0), token)
    assert np.array_equal(moved // 10, token)
    assert not np.array_equal(moved, region)


def test_the_same_rows_are_expected():
    with pytest.raises(ValueError, match="same rows"):
        match_overlap(labels(3), labels(4), 6, 6)
