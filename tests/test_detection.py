"""Scores of texts: what is counted, and how sure that is, beside slow definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from exemplars.analyses import detection
from exemplars.analyses.detection import (
    auroc,
    aurocs,
    bootstrap_aurocs,
    hard_negative_score,
    interval,
    max_over_positions,
    weighted_aurocs,
)

LEVELS = np.array([-np.inf, -2.5, -1, -0.0, 0, 1e-30, 1, 1.0000001, 7], np.float32)


def levels(random, *shape):
    """Scores with many ties, and of both infinitely low and nearly equal ones."""
    return LEVELS[random.integers(0, len(LEVELS), shape)]


def by_pairs(positive, negative):
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize(
    ("n_positive", "n_negative", "n_columns"), [(1, 1, 3), (1, 9, 5), (7, 1, 5), (13, 11, 600)]
)
def test_aurocs_are_the_share_of_pairs_that_are_in_order(n_positive, n_negative, n_columns):
    random = np.random.default_rng(n_columns)
    positive, negative = (
        levels(random, n_positive, n_columns),
        levels(random, n_negative, n_columns),
    )
    found = aurocs(positive, negative)
    assert found.shape == (n_columns,)
    assert found.dtype == np.float64
    labels = np.arange(n_positive + n_negative) < n_positive
    for k in range(n_columns):
        column = np.concatenate([positive[:, k], negative[:, k]]).astype(np.float64)
        assert found[k] == pytest.approx(by_pairs(positive[:, k], negative[:, k]), abs=1e-15)
        if k % 97 < 5:
            by_sklearn = roc_auc_score(labels, np.maximum(column, -1e30))
            assert found[k] == pytest.approx(by_sklearn)
        assert auroc(positive[:, k], negative[:, k]) == found[k]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_aurocs_turn_round_with_the_classes_and_keep_under_increasing_maps(p, n, seed):
    random = np.random.default_rng(seed)
    positive, negative = levels(random, p, 4), levels(random, n, 4)
    found = aurocs(positive, negative)
    assert found == pytest.approx(1 - aurocs(negative, positive), abs=1e-15)
    assert found == pytest.approx(1 - aurocs(-positive, -negative), abs=1e-15)
    ranks = np.unique(np.concatenate([positive, negative]))  # -0.0 and 0 are one
    mapped = [np.searchsorted(ranks, part).astype(np.float32) for part in (positive, negative)]
    assert np.array_equal(found, aurocs(*mapped))
    shuffled = aurocs(random.permutation(positive), random.permutation(negative))
    assert np.array_equal(found, shuffled)


def test_aurocs_read_arrays_of_any_layout():
    random = np.random.default_rng(0)
    positive, negative = levels(random, 300, 12), levels(random, 300, 10)
    whole = aurocs(np.ascontiguousarray(positive.T), np.ascontiguousarray(negative.T))
    assert np.array_equal(aurocs(positive.T, negative.T), whole)
    assert np.array_equal(aurocs(positive.T[:, ::2], negative.T[:, ::2]), whole[::2])


@pytest.mark.parametrize(("sizes", "named"), [((0, 3), "positive"), ((3, 0), "negative")])
def test_a_class_without_texts_is_named(sizes, named):
    with pytest.raises(ValueError, match=f"no {named} texts"):
        aurocs(*(np.zeros((size, 2), np.float32) for size in sizes))


def slow_maxima(vectors, starts, directions):
    found = np.full((len(starts) - 1, len(directions)), -np.inf)
    for t in range(len(starts) - 1):
        for row in vectors[starts[t] : starts[t + 1]]:
            for k, direction in enumerate(directions):
                found[t, k] = max(found[t, k], row @ direction)
    return found


@pytest.mark.parametrize(
    "lengths",
    [[3, 5, 1], [0, 0, 4, 0, 0, 6, 0], [0, 0], [1] * 9, [20]],
    ids=["some", "with empty", "all empty", "single", "one text"],
)
@pytest.mark.parametrize(("rows", "columns"), [(4096, 8192), (4, 3), (1, 1), (7, 5)])
def test_maxima_are_those_of_a_plain_loop(monkeypatch, lengths, rows, columns):
    monkeypatch.setattr(detection, "_ROWS", rows)
    monkeypatch.setattr(detection, "_COLUMNS", columns)
    random = np.random.default_rng(sum(lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # Whole numbers: every order of summation gives the same products.
    vectors = random.integers(-9, 10, (starts[-1], 6)).astype(np.float32)
    directions = random.integers(-9, 10, (11, 6)).astype(np.float32)
    found = max_over_positions(vectors, starts, directions)
    assert found.dtype == np.float32
    assert np.array_equal(found, slow_maxima(vectors, starts, directions))
    assert np.isneginf(found[np.array(lengths) == 0]).all()


def test_maxima_of_no_directions_have_no_columns():
    vectors, starts = np.ones((3, 2), np.float32), np.array([0, 1, 3])
    assert max_over_positions(vectors, starts, np.empty((0, 2), np.float32)).shape == (2, 0)


def slow_hard_negative(positive, negative, hard):
    thresholds = sorted({*positive.tolist(), *negative.tolist()}, reverse=True)
    best, largest = None, -np.inf
    for threshold in thresholds:  # from the strictest: only a larger J replaces it
        j = np.mean([p >= threshold for p in positive]) - np.mean(
            [n >= threshold for n in negative]
        )
        if j > largest:
            best, largest = threshold, j
    return (np.mean([p >= best for p in positive]) + np.mean([h < best for h in hard])) / 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.integers(0, 1000))
def test_the_hard_negative_score_is_its_slow_definition(p, n, h, seed):
    random = np.random.default_rng(seed)
    parts = [levels(random, size) for size in (p, n, h)]
    assert hard_negative_score(*parts) == pytest.approx(slow_hard_negative(*parts))


def test_the_hard_negative_score_of_cases_known_in_advance():
    positive, negative = np.array([3.0, 4, 5]), np.array([0.0, 1, 2])
    assert hard_negative_score(positive, negative, np.array([2.5])) == 1.0
    assert hard_negative_score(positive, negative, np.array([3.5])) == 0.5  # taken for positive
    assert hard_negative_score(positive, negative, np.array([2.5, 6.0])) == 0.75
    assert np.isnan(hard_negative_score(positive, negative, np.empty(0)))


def slow_bootstrap(positive, negative, n, seed):
    """AUROC of texts drawn one by one, as often as the counts of the same draws say."""
    random = np.random.default_rng(seed)
    counts = [
        random.multinomial(size, np.full(size, 1 / size), size=n)
        for size in (len(positive), len(negative))
    ]
    found = [
        by_pairs(np.repeat(positive, p), np.repeat(negative, m))
        for p, m in zip(*counts, strict=True)
    ]
    return np.array(found)


def test_bootstrap_samples_are_aurocs_of_the_texts_that_were_drawn():
    random = np.random.default_rng(0)
    scores = [(levels(random, 9), levels(random, 6)) for _ in range(3)]
    found = bootstrap_aurocs(scores, n=25, seed=4)
    assert found.shape == (25, 3)
    for k, (positive, negative) in enumerate(scores):
        assert found[:, k] == pytest.approx(slow_bootstrap(positive, negative, 25, 4), abs=1e-6)


def test_bootstrap_samples_are_paired_and_by_their_seed():
    random = np.random.default_rng(1)
    positive, negative = random.normal(1, 1, 30), random.normal(0, 1, 40)
    other = (random.normal(1, 1, 30), random.normal(0, 1, 40))
    scores = [(positive, negative), other, (positive, negative), (3 * positive, 3 * negative)]
    found = bootstrap_aurocs(scores, seed=2)
    assert (found[:, 0] - found[:, 2] == 0).all()
    assert (found[:, 0] - found[:, 3] == 0).all()  # of the same order
    assert np.array_equal(found, bootstrap_aurocs(scores, seed=2))
    assert not np.array_equal(found, bootstrap_aurocs(scores, seed=3))
    alone = bootstrap_aurocs([other], seed=2)  # what a method draws is what it draws by itself
    assert np.array_equal(found[:, 1:2], alone)
    assert found.mean(0) == pytest.approx([auroc(*pair) for pair in scores], abs=0.01)
    # Scores that share their noise differ by less than independent ones would.
    near = bootstrap_aurocs([(positive, negative), (positive + 0.01, negative)], seed=2)
    assert (near[:, 0] - near[:, 1]).std() < 0.1 * near[:, 0].std()


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say():
    truth = 0.7602  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    random, covered, tries = np.random.default_rng(0), 0, 150
    for seed in range(tries):
        positive, negative = random.normal(1, 1, 60), random.normal(0, 1, 60)
        samples = bootstrap_aurocs([(positive, negative)], n=300, seed=seed)[:, 0]
        found = interval(samples, auroc(positive, negative))
        assert found.low <= found.estimate <= found.high
        covered += found.low <= truth <= found.high
    assert 0.87 < covered / tries < 0.99


def test_weighted_aurocs_are_the_other_two():
    random = np.random.default_rng(3)
    positive, negative = levels(random, 9), levels(random, 6)
    scores, mine = np.concatenate([positive, negative]), np.arange(15) < 9
    (once,) = weighted_aurocs(scores, mine, np.ones((1, 15)))
    assert once == pytest.approx(auroc(positive, negative), abs=1e-12)
    again = np.random.default_rng(4)
    draws = np.hstack([again.multinomial(n, np.full(n, 1 / n), size=25) for n in (9, 6)])
    expected = bootstrap_aurocs([(positive, negative)], n=25, seed=4)[:, 0]
    assert weighted_aurocs(scores, mine, draws) == pytest.approx(expected, abs=1e-6)


def test_intervals_are_quantiles_about_the_estimate_that_is_given():
    samples = np.arange(1001) / 1000
    found = interval(samples, 0.3)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.3, 0.025, 0.975))
    narrow = interval(samples, 0.3, level=0.5)
    assert (narrow.low, narrow.high) == pytest.approx((0.25, 0.75))
