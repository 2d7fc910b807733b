"""Geometry against categories, lens and centering: oracles, planted cases, and degenerate ones."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

import exemplars as ex
from exemplars.analyses import alignment
from exemplars.analyses.alignment import category_distances, centering, divergences, mantel
from exemplars.lens import lens_probabilities, logit_lens
from tiny_models import WIDTH, tiny_model


def unit(rng, n, width=8):
    rows = rng.normal(size=(n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def slow_distances(region, exemplars, label, n, drop_same=False):
    """Mean distances over ordered pairs, one by one."""
    found = np.full((n, n), np.nan)
    for a in range(n):
        for b in range(n):
            values = []
            for i in np.flatnonzero(label == a):
                for j in np.flatnonzero(label == b):
                    same = region[i] == region[j]
                    if i == j or (drop_same and a == b and same):
                        continue
                    cosine = float(exemplars[region[i]].astype(float) @ exemplars[region[j]])
                    values.append(0.0 if same else 1 - cosine)
            found[a, b] = np.mean(values) if values else np.nan
    return found


def test_distances_are_those_of_pairs_one_by_one():
    rng = np.random.default_rng(0)
    exemplars, region = unit(rng, 7), rng.integers(0, 7, 40)
    label = rng.integers(0, 3, 40)
    found = category_distances("s", region, exemplars, label, "abc", 19)
    slow = slow_distances(region, exemplars, label, 3)
    assert found.distances == pytest.approx(slow, abs=1e-6)
    off = ~np.eye(3, dtype=bool)
    assert found.cohesion == pytest.approx(np.diagonal(slow).mean(), abs=1e-6)
    assert found.separation == pytest.approx(slow[off].mean(), abs=1e-6)
    apart = slow_distances(region, exemplars, label, 3, drop_same=True)
    assert found.cohesion_apart == pytest.approx(np.diagonal(apart).mean(), abs=1e-6)
    assert found.regions.tolist() == [len(set(region[label == c].tolist())) for c in range(3)]


def test_prompts_in_one_region_are_evidence_which_the_published_measure_drops():
    """Each category has one region of its own, but for one prompt."""
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1, 2], 12)
    region = label.copy()
    region[::12] = 3 + label[::12]
    found = category_distances("s", region, unit(rng, 6, 64), label, "abc", 199)
    assert found.chance.p_value == 1 / 200
    assert found.difference > 0.5
    assert abs(found.separation - found.cohesion_apart) < 0.3


def test_shuffled_categories_are_within_chance_at_the_nominal_rate():
    rng = np.random.default_rng(2)
    exemplars, p_values = unit(rng, 9), []
    for seed in range(60):
        region, label = rng.integers(0, 9, 24), rng.permutation(np.repeat([0, 1], 12))
        found = category_distances("s", region, exemplars, label, "ab", 99, seed)
        p_values.append(found.chance.p_value)
    assert 0 <= np.mean(np.array(p_values) <= 0.1) < 0.25
    assert 0.3 < np.mean(p_values) < 0.7


def test_the_test_has_two_sides():
    """Categories that lie farther apart inside than between them."""
    exemplars = np.array([[1, 0], [-1, 0]], np.float32)
    region = np.array([0, 1] * 10)
    label = np.repeat(np.arange(10), 2)
    found = category_distances("s", region, exemplars, label, "abcdefghij", 999)
    assert found.difference < 0
    assert found.chance.p_value < 0.05


def test_where_each_category_has_one_region_the_published_measure_is_not_defined():
    label = np.repeat([0, 1], 5)
    found = category_distances("s", label, unit(np.random.default_rng(0), 2), label, "ab", 19)
    assert np.isnan(found.cohesion_apart)
    assert np.isnan(found.chance_apart.p_value)
    assert (found.cohesion, found.chance.p_value) == (0, 1 / 20)


def test_prompts_without_region_are_left_out_and_too_few_are_refused():
    rng = np.random.default_rng(3)
    exemplars, label = unit(rng, 4), np.repeat([0, 1], 6)
    region = rng.integers(0, 4, 12)
    region[0] = -1
    found = category_distances("s", region, exemplars, label, "ab", 19)
    again = category_distances("s", region[1:], exemplars, label[1:], "ab", 19)
    assert found.distances == pytest.approx(again.distances)
    region[:5] = -1
    with pytest.raises(ValueError, match="the categories have 1, 6 prompts with a region at s"):
        category_distances("s", region, exemplars, label, "ab", 19)
    with pytest.raises(ValueError, match="expected two categories"):
        category_distances("s", region, exemplars, np.zeros(12, int), "a", 19)


def test_divergences_are_those_of_scipy():
    from scipy.spatial.distance import jensenshannon

    rng = np.random.default_rng(4)
    rows = rng.random((6, 40)).astype(np.float32) ** 8
    rows[0, 1:] = 0
    rows /= rows.sum(axis=1, keepdims=True)
    rows[5] = rows[4]
    found = divergences(rows)
    slow = [
        [jensenshannon(a, b, base=2) ** 2 for b in rows.astype(float)] for a in rows.astype(float)
    ]
    assert found == pytest.approx(np.nan_to_num(slow), abs=1e-5)
    assert (np.diagonal(found) == 0).all()


def symmetric(rng, n, ties=False):
    made = rng.integers(0, 4, (n, n)) if ties else rng.random((n, n))
    return np.triu(made, 1) + np.triu(made, 1).T + 0.0


@pytest.mark.parametrize("ties", [False, True])
def test_mantel_is_spearman_with_mean_ranks_and_permutes_rows_with_columns(ties):
    rng = np.random.default_rng(5)
    one, two = symmetric(rng, 8, ties), symmetric(rng, 8, ties)
    upper = np.triu_indices(8, 1)
    correlation, drawn = mantel(one, two, 40, 7)
    assert correlation == pytest.approx(spearmanr(one[upper], two[upper]).statistic)
    rng = np.random.default_rng([7, 0x3A7])
    for value in drawn:
        order = rng.permutation(8)
        moved = two[np.ix_(order, order)]
        assert value == pytest.approx(spearmanr(one[upper], moved[upper]).statistic)


def test_mantel_of_few_regions_is_the_share_of_all_permutations():
    rng = np.random.default_rng(6)
    one, two = symmetric(rng, 4), symmetric(rng, 4)
    upper = np.triu_indices(4, 1)
    correlation, drawn = mantel(one, two, 3000)
    every = [
        spearmanr(one[upper], two[np.ix_(p, p)][upper]).statistic for p in permutations(range(4))
    ]
    exact = np.mean(np.array(every) >= correlation - 1e-9)
    assert np.mean(drawn >= correlation - 1e-9) == pytest.approx(exact, abs=0.04)


def test_a_constant_matrix_has_no_correlation():
    flat = np.ones((5, 5)) - np.eye(5)
    correlation, drawn = mantel(flat, symmetric(np.random.default_rng(0), 5), 9)
    assert correlation == 0
    assert (drawn == 0).all()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_the_lens_distribution_is_that_of_the_logits_and_of_any_length(model):
    rows = unit(np.random.default_rng(7), 5, WIDTH)
    found = lens_probabilities(model, rows, chunk=2)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    lens = logit_lens(model, rows, k=4)
    order = np.argsort(-found, axis=1)[:, :4]
    ratios = np.take_along_axis(found, order, axis=1)
    logits = np.log(ratios) - np.log(ratios[:, :1])
    assert logits == pytest.approx(lens.promoted_logits - lens.promoted_logits[:, :1], abs=1e-3)
    assert lens_probabilities(model, rows * 100) == pytest.approx(found, abs=1e-4)
    with pytest.raises(ex.MismatchError, match="reads width"):
        lens_probabilities(model, rows[:, :5])


def test_lens_alignment_compares_the_regions_of_most_members(model):
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(300, WIDTH)).astype(np.float32) + 1
    dictionary = ex.partition(vectors, ex.calibrate(vectors, 3), 3)
    found = alignment.lens_alignment(model, dictionary, most=12, draws=99, rotations=2)
    chosen = np.sort(np.argsort(-dictionary.counts, kind="stable")[:12])
    exemplars = dictionary.exemplars[chosen]
    read = divergences(lens_probabilities(model, exemplars))
    upper = np.triu_indices(12, 1)
    distance = dictionary.distance_matrix(chosen)[:, chosen]
    expected = spearmanr(distance[upper], read[upper]).statistic
    assert found.correlation == pytest.approx(expected, abs=0.01)
    assert found.regions == 12
    assert len(found.rotated) == 2
    # The lens is a smooth reading: near directions read alike, turned or not.
    assert found.correlation > found.chance.high
    assert min(found.rotated) > found.chance.high
    few = ex.partition(vectors[:3], ex.calibrate(vectors, 3), 3)
    with pytest.raises(ValueError, match="regions, expected 4 or more"):
        alignment.lens_alignment(model, few)


def slow_purity(points, label, k):
    found = []
    for i, point in enumerate(points):
        others = [
            (1 - point @ other / np.linalg.norm(point) / np.linalg.norm(other), j)
            for j, other in enumerate(points)
            if j != i
        ]
        found.append(np.mean([label[j] == label[i] for _, j in sorted(others)[:k]]))
    return np.mean(found)


def test_purities_are_those_of_neighbours_one_by_one():
    rng = np.random.default_rng(9)
    vectors = rng.normal(size=(20, 6)).astype(np.float32) + 2
    label, center = rng.integers(0, 3, 20), np.full(6, 1.5, np.float32)
    found = centering("s", vectors, center, label, draws=99)
    points = vectors.astype(float)
    for v, point in enumerate((0, center, points.mean(axis=0))):
        for i, k in enumerate(found.neighbours):
            assert found.purity[v, i] == pytest.approx(slow_purity(points - point, label, k))
    assert found.gains == pytest.approx(found.purity[1:] - found.purity[0])
    same = label[:, None] == label
    off = ~np.eye(20, dtype=bool)
    assert found.chance == pytest.approx(same[off].mean())


def test_a_large_common_part_hides_categories_that_centering_shows():
    rng = np.random.default_rng(10)
    label = np.repeat(np.arange(4), 12)
    places = rng.normal(size=(4, 32))
    common = 300 * rng.normal(size=32)
    # What hides them: lengths along the common part vary, and cosines see little else.
    vectors = (
        places[label] + 0.4 * rng.normal(size=(48, 32)) + common * rng.uniform(0.2, 2, (48, 1))
    )
    found = centering("s", vectors.astype(np.float32), np.zeros(32, np.float32), label)
    assert found.gains[0] == pytest.approx(0)
    assert found.p_gains[0].tolist() == [1, 1, 1]
    assert found.same_order[0] == pytest.approx(1)
    plain = places[label] + 0.4 * rng.normal(size=(48, 32)) + common
    found = centering("s", plain.astype(np.float32), common.astype(np.float32), label)
    assert found.purity[1].min() > 0.9
    assert found.purity[2].min() > 0.9
    assert found.gap[1] > found.gap[0]


def test_centering_does_not_depend_on_the_scale_and_refuses_what_it_cannot_answer():
    rng = np.random.default_rng(11)
    vectors, label = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(0, 2, 30)
    center = rng.normal(size=5).astype(np.float32)
    one = centering("s", vectors, center, label, draws=99)
    two = centering("s", 8 * vectors, 8 * center, label, draws=99)
    assert one.purity == pytest.approx(two.purity)
    with pytest.raises(
        ValueError, match="9 prompts of 2 categories were given, expected more than 9"
    ):
        centering("s", vectors[:9], center, np.array([0, 1] * 4 + [0]))
    with pytest.raises(ValueError, match="of 1 categories"):
        centering("s", vectors, center, np.zeros(30, np.int64))


def test_a_vector_at_the_center_is_no_fault():
    vectors = np.random.default_rng(12).normal(size=(12, 4)).astype(np.float32)
    found = centering("s", vectors, vectors[3], np.repeat([0, 1], 6), (3,), 19)
    assert np.isfinite(found.purity).all()
