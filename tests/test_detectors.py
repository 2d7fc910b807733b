"""Detectors beside slow definitions, on rows where the answer is planted."""

import numpy as np
import pytest

import exemplars as ex
from exemplars.analyses import detectors
from exemplars.analyses.detection import auroc
from exemplars.analyses.detectors import (
    PROBE_STRENGTHS,
    Detector,
    chosen_strength,
    contrast,
    difference_of_means,
    halves,
    kmeans_centroids,
    mean_probe,
    one_direction,
    pooled,
    random_directions,
    shrunk_precision,
    site_rows,
    token_probe,
)
from exemplars.analyses.labelled import Concept, TextRows
from exemplars.calibration import Calibration
from exemplars.dictionary import usable_directions

WIDTH = 10


def text_rows(vectors, lengths):
    texts = tuple(f"text {k}" for k in range(len(lengths)))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token, position = np.arange(len(vectors)) * 7, np.arange(len(vectors)) + 1
    number = {text: k for k, text in enumerate(texts)}
    return TextRows(
        "resid_post.1", texts, vectors.astype(np.float32), starts, token, position, number
    )


def calibration(center=None, norm_limit=None):
    center = np.zeros(WIDTH, np.float32) if center is None else center.astype(np.float32)
    return Calibration(center, {10.0: 0.3}, 100, 50, norm_limit=norm_limit)


@pytest.fixture(scope="module")
def rows():
    """40 texts of noise, 2 of them empty; the rows of the first 20 lean to the first axis."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 8, 40)
    lengths[[5, 39]] = 0
    vectors = random.normal(size=(lengths.sum(), WIDTH)) * random.uniform(1, 5, (lengths.sum(), 1))
    vectors[: lengths[:20].sum(), 0] += 2
    center = np.linspace(-0.3, 0.3, WIDTH)
    return site_rows(text_rows(vectors, lengths), calibration(center))


def of_text(rows, t):
    return slice(rows.rows.starts[t], rows.rows.starts[t + 1])


POSITIVE, NEGATIVE = np.array([3, 0, 7, 19, 11]), np.array([20, 38, 25])


# Rows


def test_rows_that_a_build_drops_are_dropped():
    random = np.random.default_rng(1)
    vectors = random.normal(size=(60, WIDTH)).astype(np.float32)
    center = vectors[:9].mean(0)
    vectors[[4, 30, 31]] = center  # without direction
    vectors[[0, 20, 59]] *= 50
    lengths = [7, 0, 23, 2, 28]  # the fourth is dropped whole
    given = calibration(center, norm_limit=20.0)
    found = site_rows(text_rows(vectors, lengths), given)
    directions, kept, dropped = usable_directions(vectors, 0, given)
    assert {key: value.tolist() for key, value in dropped.items()} == {
        "norm outlier": [0, 20, 59],
        "no direction": [4, 30, 31],
    }
    assert np.array_equal(found.directions, directions)
    assert np.array_equal(found.rows.vectors, vectors[kept])
    assert np.array_equal(found.rows.token, kept * 7)
    assert found.rows.lengths().tolist() == [5, 0, 22, 0, 27]
    without = site_rows(text_rows(vectors, lengths), calibration(center))
    assert without.rows.lengths().tolist() == [6, 0, 23, 0, 28]


def test_some_texts_keep_their_rows_in_the_order_asked(rows):
    asked = np.array([7, 5, 0, 33])
    part = rows.texts(asked)
    assert part.rows.texts == tuple(f"text {t}" for t in asked)
    assert np.array_equal(part.rows.lengths(), rows.rows.lengths()[asked])
    for k, t in enumerate(asked):
        assert part.rows.number[f"text {t}"] == k
        assert np.array_equal(part.directions[of_text(part, k)], rows.directions[of_text(rows, t)])
        for key in ("vectors", "token", "position"):
            mine, theirs = getattr(part.rows, key), getattr(rows.rows, key)
            assert np.array_equal(mine[of_text(part, k)], theirs[of_text(rows, t)])
    assert len(rows.texts(np.empty(0, np.int64)).directions) == 0


def test_numbers_of_a_concept_are_those_of_its_texts(rows):
    concept = Concept("c", ("text 3", "text 0"), ("text 9",), ("text 1",), ("text 2",), ("text 8",))
    found = detectors.numbers(rows.rows, concept)
    assert [part.tolist() for part in found] == [[3, 0], [9], [1], [2], [8]]


# Means


def slow_mean(rows, numbers):
    return np.mean([row for t in numbers for row in rows.directions[of_text(rows, t)]], axis=0)


def test_means_are_over_all_tokens_not_over_texts(rows):
    for numbers in (POSITIVE, NEGATIVE, np.array([5, 8])):
        assert rows.mean_direction(numbers) == pytest.approx(slow_mean(rows, numbers), abs=1e-6)
    expected = slow_mean(rows, POSITIVE) - slow_mean(rows, NEGATIVE)
    assert difference_of_means(rows, POSITIVE, NEGATIVE) == pytest.approx(expected, abs=1e-6)
    assert not rows.text_sums[[5, 39]].any()


def test_contrast_is_the_difference_of_mean_products(rows):
    directions = np.random.default_rng(2).normal(size=(6, WIDTH)).astype(np.float32)
    expected = [
        np.mean([x @ d for t in POSITIVE for x in rows.directions[of_text(rows, t)]])
        - np.mean([x @ d for t in NEGATIVE for x in rows.directions[of_text(rows, t)]])
        for d in directions
    ]
    assert contrast(rows, POSITIVE, NEGATIVE, directions) == pytest.approx(expected, abs=1e-5)


# Scores


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_scores_are_pooled_products_by_their_weights(rows, pooling, score):
    random = np.random.default_rng(3)
    directions = random.normal(size=(3, WIDTH)).astype(np.float32)
    detector = Detector(directions, np.array([1.0, -2.0, 0.5]), pooling)
    part = rows.texts(np.setdiff1d(np.arange(40), [5, 39]))
    vectors = part.directions if score == "cosine" else part.rows.vectors
    pool = {"max": np.max, "mean": np.mean}[pooling]
    expected = [
        sum(
            weight * pool([x @ direction for x in vectors[of_text(part, t)]])
            for weight, direction in zip(detector.weights, directions, strict=True)
        )
        for t in range(38)
    ]
    assert detector.scores(part, score) == pytest.approx(expected, abs=1e-4)
    found = pooled(vectors, part.rows.starts, directions, pooling)
    assert found.shape == (38, 3)
    assert found @ detector.weights == pytest.approx(expected, abs=1e-4)


def test_products_are_those_of_each_text(rows):
    directions = np.random.default_rng(4).normal(size=(4, WIDTH)).astype(np.float32)
    found = rows.products(POSITIVE, directions)
    for t, product in zip(POSITIVE, found, strict=True):
        assert product == pytest.approx(rows.directions[of_text(rows, t)] @ directions.T, abs=1e-6)


def test_one_direction_is_scaled_to_unit_length():
    given = np.array([3.0, 0, -4.0], np.float32)
    for scale in (1, 1e-15, 1e15):
        found = one_direction(given * np.float32(scale), "mean", region=7)
        assert found.directions == pytest.approx(np.array([[0.6, 0, -0.8]]), abs=1e-6)
        assert (found.weights.tolist(), found.pooling, found.regions) == ([1.0], "mean", (7,))
    assert one_direction(given).regions == ()
    assert one_direction(given, region=0).regions == (0,)


# Probes


def planted(n_texts=60, strength=6.0, seed=0, whole=False):
    """Texts in turn without and with a row, or all but one, that lean to a hidden direction."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 7, n_texts)
    vectors = random.normal(size=(lengths.sum(), WIDTH))
    hidden = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0][0]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for t in range(1, n_texts, 2):
        one = [starts[t] + random.integers(lengths[t])]
        leaning = slice(starts[t] + 1, starts[t + 1]) if whole else one
        vectors[leaning] = strength * hidden + 0.1 * vectors[leaning]
    positive, negative = np.arange(1, n_texts, 2), np.arange(0, n_texts, 2)
    found = site_rows(text_rows(vectors, lengths), calibration())
    return found, np.array_split(positive, 2), np.array_split(negative, 2), hidden


def evaluated(rows, direction, positive, negative, pooling):
    scores = one_direction(direction, pooling).scores(rows)
    return auroc(scores[positive], scores[negative])


PROBES = [(token_probe, "max"), (mean_probe, "mean")]


@pytest.mark.parametrize(("probe", "pooling"), PROBES, ids=["tokens", "means"])
def test_probes_find_what_is_planted_and_nothing_else(probe, pooling):
    rows, positive, negative, hidden = planted(whole=pooling == "mean")
    found = probe(rows, positive[0], negative[0], 0.01)
    assert found.shape == (WIDTH,)
    assert found.dtype == np.float32
    assert found @ hidden / np.linalg.norm(found) > 0.6
    assert evaluated(rows, found, positive[0], negative[0], pooling) == 1
    assert evaluated(rows, found, positive[1], negative[1], pooling) > 0.97
    means = []
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(60)
        p, n, q, m = np.array_split(order, 4)
        noise = probe(rows, p, n, 0.01)
        means.append(evaluated(rows, noise, q, m, pooling))
    assert np.mean(means) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(("probe", "pooling"), PROBES, ids=["tokens", "means"])
def test_probes_see_the_texts_they_are_given_alone(probe, pooling):
    rows, positive, negative, _ = planted()
    numbers = np.concatenate([positive[0], negative[0]])
    found = probe(rows, positive[0], negative[0], 0.1)
    alone = rows.texts(numbers)
    again = probe(alone, np.arange(len(positive[0])), len(positive[0]) + np.arange(15), 0.1)
    assert np.array_equal(found, again)


def test_probes_do_not_mind_the_scale_of_a_coordinate_or_one_that_is_constant():
    random = np.random.default_rng(5)
    x = random.normal(size=(40, WIDTH))
    x[:20, 2] += 3
    x[:, 4] = 1.5
    scale = np.logspace(-3, 3, WIDTH)
    plain = detectors.logistic_direction(x[:20], x[20:], 0.1)
    scaled = detectors.logistic_direction(x[:20] * scale, x[20:] * scale, 0.1)
    assert scaled * scale == pytest.approx(plain, rel=1e-2, abs=1e-4)
    assert plain[4] == 0
    # Balanced: a class twice over moves the boundary alone.
    twice = detectors.logistic_direction(np.concatenate([x[:20], x[:20]]), x[20:], 0.1)
    assert twice @ plain / np.linalg.norm(twice) / np.linalg.norm(plain) > 0.95


def test_the_token_probe_takes_evenly_spaced_rows_of_too_many(monkeypatch):
    rows, positive, negative, _ = planted()
    seen = []
    monkeypatch.setattr(detectors, "logistic_direction", lambda p, n, c: seen.append((p, n)))
    for most_rows in (None, 10**6, 50):
        token_probe(rows, positive[0], negative[0], 1.0, most_rows)
    whole = [rows.texts(part[0]).directions for part in (positive, negative)]
    for all_of, most, few in zip(whole, seen[1], seen[2], strict=True):
        assert np.array_equal(most, all_of)
        step = -(-sum(map(len, whole)) // 50)
        assert step > 1
        assert np.array_equal(few, all_of[::step])
    assert all(np.array_equal(a, b) for a, b in zip(whole, seen[0], strict=True))


def test_the_strength_that_does_best_on_the_other_half_is_chosen():
    rows, (positive, _), (negative, _), hidden = planted()
    good, bad = hidden.astype(np.float32), -hidden.astype(np.float32)
    asked = []

    def fit(train, p, n, strength):
        assert train is rows
        asked.append((frozenset(p.tolist()), frozenset(n.tolist())))
        return good if strength == 7 else bad

    for strengths in ([7, 1, 2], [1, 7, 2], [1, 2, 7]):
        assert chosen_strength(rows, positive, negative, fit, strengths, "max", 0) == 7
    # Ties go to the first.
    assert chosen_strength(rows, positive, negative, fit, [3, 1, 2], "mean", 0) == 3
    (first, second) = dict.fromkeys(asked)
    for part, whole in ((0, positive), (1, negative)):
        assert not first[part] & second[part]
        assert first[part] | second[part] == set(whole.tolist())


def test_the_strength_is_one_of_those_given_and_depends_on_training_texts_alone():
    rows, (positive, _), (negative, _), _ = planted(strength=1.0)
    alone = rows.texts(np.concatenate([positive, negative]))
    at = (np.arange(len(positive)), len(positive) + np.arange(len(negative)))
    for seed in range(3):
        args = (token_probe, PROBE_STRENGTHS, "max", seed)
        found = chosen_strength(rows, positive, negative, *args)
        assert found in PROBE_STRENGTHS
        assert chosen_strength(alone, *at, *args) == found


def test_one_text_of_a_class_leaves_nothing_to_choose_a_strength_by():
    rows, (positive, _), (negative, _), _ = planted()
    args = (token_probe, PROBE_STRENGTHS, "max", 0)
    assert chosen_strength(rows, positive[:1], negative, *args) == PROBE_STRENGTHS[0]
    assert chosen_strength(rows, positive, negative[:1], *args) == PROBE_STRENGTHS[0]


# Directions to choose among


def test_centroids_are_unit_directions_near_the_clusters():
    random = np.random.default_rng(6)
    centers = np.eye(4, WIDTH)
    x = centers[random.integers(0, 4, 400)] + 0.02 * random.normal(size=(400, WIDTH))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    found = kmeans_centroids(x, 12, seed=1)
    assert found.shape == (12, WIDTH)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    assert (found @ centers.T).max(axis=1).min() > 0.98
    assert (found @ centers.T).max(axis=0).min() > 0.98  # each cluster has one
    assert np.array_equal(found, kmeans_centroids(x, 12, seed=1))
    assert not np.array_equal(found, kmeans_centroids(x, 12, seed=2))
    assert np.array_equal(kmeans_centroids(x[:5], 12), x[:5])  # no more than there are


def test_random_directions_are_distinct_rows_by_their_seed():
    x = np.random.default_rng(7).normal(size=(50, WIDTH)).astype(np.float32)
    drawn = [random_directions(x, 20, seed) for seed in range(30)]
    for found in drawn:
        numbers = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in found]
        assert len(set(numbers)) == 20
    assert np.array_equal(drawn[3], random_directions(x, 20, 3))
    assert len({found.tobytes() for found in drawn}) == 30
    share = np.mean([(found[:, None] == x[None]).all(2).any(0) for found in drawn], axis=0)
    assert 0.05 < share.min() < 0.4 < share.max() < 0.85  # every row is drawn now and then
    assert np.array_equal(np.sort(random_directions(x, 50, 0), axis=0), np.sort(x, axis=0))
    with pytest.raises(ValueError, match="50 rows of the stream were given for a null of 51"):
        random_directions(x, 51, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 20])
def test_halves_are_disjoint_ascending_and_even(n):
    a, b = halves(n, 4)
    assert len(a) - len(b) in (0, 1)
    assert sorted([*a, *b]) == list(range(n))
    assert [*a] == sorted(a)
    assert [*b] == sorted(b)
    again = halves(n, 4)
    assert np.array_equal(a, again[0])
    assert n < 7 or len({halves(n, seed)[0].tobytes() for seed in range(9)}) > 5


def test_the_best_is_the_first_of_the_largest_and_never_nan():
    assert detectors.best(np.array([np.nan, 1, 3, 3, np.nan])) == 2
    assert detectors.best(np.array([np.nan, -np.inf, -5])) == 2


def test_directions_of_a_dictionary_are_those_of_its_own_rows():
    random = np.random.default_rng(8)
    vectors = random.normal(size=(200, WIDTH)).astype(np.float32) + 1
    found = ex.calibrate(vectors, [20.0], norm_multiple=1.3)
    dictionary = ex.partition(vectors, found)
    kept = site_rows(text_rows(vectors, [50] * 4), found)
    assert sum(dictionary.dropped.values()) == 200 - len(kept.directions) > 0
    assert dictionary.counts.sum() == len(kept.directions)


# Whitening


def test_the_precision_is_the_inverse_of_the_shrunk_covariance():
    x = np.random.default_rng(0).normal(size=(200, 6)) @ np.random.default_rng(1).normal(
        size=(6, 6)
    )
    found = shrunk_precision(x.astype(np.float32), 0.3)
    covariance = np.cov(x.T)
    shrunk = covariance + 0.3 * np.trace(covariance) / 6 * np.eye(6)
    assert found == pytest.approx(np.linalg.inv(shrunk), rel=1e-3)


def test_a_precision_without_spread_is_finite():
    assert np.isfinite(shrunk_precision(np.ones((5, 4), np.float32))).all()
