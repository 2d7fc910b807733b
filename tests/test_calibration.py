"""Center and thresholds are functions of the rows in their order, and of nothing else."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

import oracle
from exemplars.calibration import Calibration, as_vectors, calibrate, pairwise_percentiles
from exemplars.errors import ActivationError, CalibrationError

PROPERTY = settings(deadline=None, max_examples=30)
KINDS = ("random", "clustered", "duplicated")
PERCENTILES = (1e-6, 0.3, 1, 2, 10, 50, 90, 99.7, 99.999999)


def cloud(kind, seed, n, width=16):
    rng = np.random.default_rng(seed)
    if kind == "random":
        x = rng.standard_normal((n, width))
    else:
        centers = rng.standard_normal((8 if kind == "clustered" else 100, width)) * 3
        x = centers[rng.integers(0, len(centers), n)]
        if kind == "clustered":
            x = x + 0.3 * rng.standard_normal((n, width))
        else:  # half of the rows are one of a hundred, exactly
            x[::2] += rng.standard_normal((len(x[::2]), width))
    return (x + 2.0).astype(np.float32)


def plain_center(x):
    """Direction of the mean unit vector, times the mean projection on it (method.md §2.3)."""
    x = x.astype(np.float64)
    mean_unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).mean(axis=0)
    direction = mean_unit / np.linalg.norm(mean_unit)
    return (x.mean(axis=0) @ direction) * direction


def plain_thresholds(x, center, percentiles, block_rows):
    u = oracle.directions(x, center)[0].astype(np.float64)
    blocks = [u[i : i + block_rows] for i in range(0, len(u), block_rows)]
    ranked = [np.percentile(pdist(b, "cosine"), percentiles) for b in blocks if len(b) >= 2]
    return np.mean(ranked, axis=0)


def same_bytes(a, b):
    return (
        a.center.tobytes() == b.center.tobytes()
        and dict(a.thresholds) == dict(b.thresholds)
        and (a.rows, a.vector_norms, a.centered_norms) == (b.rows, b.vector_norms, b.centered_norms)
        and (a.norm_limit, dict(a.dropped)) == (b.norm_limit, dict(b.dropped))
    )


# --- percentiles of pairwise distance ------------------------------------------------------------


@PROPERTY
@given(
    st.sampled_from((*KINDS, "one huge component")),
    st.integers(0, 2**32),
    st.integers(2, 70),
    st.sampled_from((2, 7, 8, 33, 577)),
)
def test_percentiles_are_numpys_over_all_pairs(kind, seed, n, width):
    x = cloud(kind if kind in KINDS else "random", seed, n, width)
    if kind == "one huge component":
        x[:, -1] *= np.float32(1e5)
    u, _ = oracle.directions(x, np.zeros(width, np.float32))
    s = oracle.canonical_matrix(u, u)[np.triu_indices(len(u), 1)]
    percentiles = [0, *PERCENTILES, 100]
    expected = np.percentile(np.clip(1 - s, 0, 2), percentiles)
    np.testing.assert_allclose(pairwise_percentiles(u, percentiles), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2048, 2049, 2300, 4200])
def test_percentiles_are_scipys_and_numpys_also_over_several_tiles(kind, n):
    u, _ = oracle.directions(cloud(kind, n, n, 24), np.full(24, 2.0, np.float32))
    distances = pdist(u.astype(np.float64), "cosine")
    found = pairwise_percentiles(u, PERCENTILES)
    np.testing.assert_allclose(found, np.percentile(distances, PERCENTILES), rtol=0, atol=1e-7)


def test_an_order_statistic_is_a_canonical_distance_of_a_pair():
    u, _ = oracle.directions(cloud("random", 1, 65, 96), np.zeros(96, np.float32))
    s = np.clip(1 - oracle.canonical_matrix(u, u)[np.triu_indices(65, 1)], 0, 2)
    n_pairs = 65 * 64 // 2
    percentiles = [100 * k / (n_pairs - 1) for k in (0, 1, 1000, n_pairs - 1)]
    ranked = np.sort(s)[[0, 1, 1000, n_pairs - 1]]
    np.testing.assert_allclose(pairwise_percentiles(u, percentiles), ranked, rtol=1e-15, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_that_float32_cannot_rank_are_ranked_canonically(seed):
    """All distances are 0.5 but for rounding, and 0.5 is the border of two bins."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((96, 96)))[0]
    u = ((rotation[:1] + rotation[1:61]) / np.sqrt(2)).astype(np.float32)
    pairs = np.triu_indices(60, 1)
    s = np.clip(1 - oracle.canonical_matrix(u, u)[pairs], 0, 2)
    assert np.abs(s - 0.5).max() < 1e-6
    percentiles = np.arange(0, 101, 5)
    expected = np.percentile(s, percentiles)
    in_float32 = np.percentile(1 - (u @ u.T)[pairs], percentiles)
    assert np.abs(in_float32 - expected).max() > 1e-9
    for p, value in zip(percentiles, expected, strict=True):
        assert abs(pairwise_percentiles(u, [p])[0] - value) < 1e-13
    np.testing.assert_allclose(pairwise_percentiles(u, percentiles), expected, rtol=0, atol=1e-13)


def test_two_rows_have_one_distance_at_every_percentile():
    u = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    distance = 1.0 - float(np.float32(0.6))
    np.testing.assert_array_equal(pairwise_percentiles(u, [0, 3, 50, 100]), [distance] * 4)


# --- calibrate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "block_rows"), [(500, 2048), (500, 100), (523, 100), (301, 2)])
def test_center_and_thresholds_are_the_formula(kind, n, block_rows):
    x = cloud(kind, n, n)
    percentiles = [2, 10, 50, 97.5]
    found = calibrate(x, percentiles, block_rows)
    np.testing.assert_allclose(found.center, plain_center(x), rtol=3e-7, atol=1e-7)
    expected = plain_thresholds(x, found.center, percentiles, block_rows)
    np.testing.assert_allclose(
        [found.thresholds[p] for p in percentiles], expected, rtol=0, atol=1e-7
    )
    assert found.center.dtype == np.float32
    assert (found.rows, found.block_rows, found.norm_limit) == (n, block_rows, None)


@pytest.mark.parametrize("n", [2300, 4200])
def test_a_block_of_several_tiles_is_the_formula(n):
    x = cloud("clustered", n, n)
    found = calibrate(x, [1, 40], block_rows=5000)
    expected = plain_thresholds(x, found.center, [1, 40], 5000)
    np.testing.assert_allclose(list(found.thresholds.values()), expected, rtol=0, atol=1e-7)


def test_a_last_block_of_two_rows_counts_as_one_and_of_one_row_as_none():
    x = cloud("random", 0, 102)
    for n, blocks in ((102, [slice(0, 50), slice(50, 100), slice(100, 102)]),
                      (101, [slice(0, 50), slice(50, 100)])):  # fmt: skip
        found = calibrate(x[:n], 10, block_rows=50)
        u = oracle.directions(x[:n], found.center)[0].astype(np.float64)
        expected = np.mean([np.percentile(pdist(u[b], "cosine"), 10) for b in blocks])
        assert found.threshold(10) == pytest.approx(expected, abs=1e-7)


def test_norms_are_summarised_by_their_5th_50th_and_95th_percentile():
    x = cloud("random", 3, 400)
    found = calibrate(x)
    for summary, vectors in ((found.vector_norms, x), (found.centered_norms, x - found.center)):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        assert summary == pytest.approx(np.percentile(norms, [5, 50, 95]), rel=1e-7)


def test_any_number_of_percentiles_from_one_sample_are_those_one_by_one():
    x = cloud("clustered", 4, 300)
    together = calibrate(x, [20, 1, 5, 5], block_rows=128)
    assert list(together.thresholds) == [1, 5, 20]
    for p in (1, 5, 20):
        assert calibrate(x, p, block_rows=128).threshold(p) == together.threshold(p)
    for one in (5, 5.0, np.int64(5), np.float32(5), [5], np.array([5])):
        assert calibrate(x, one, block_rows=128).thresholds == {5.0: together.threshold(5)}
    assert together.threshold(1) < together.threshold(5) < together.threshold(20)


@PROPERTY
@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.lists(st.integers(0, 90), max_size=6))
def test_the_batches_of_a_sample_do_not_matter(kind, seed, cuts):
    x = cloud(kind, seed, 90)
    x[17] *= 50  # an attention sink
    edges = [0, *sorted(cuts), 90]
    batches = [x[a:b] for a, b in pairwise(edges)]
    whole = calibrate(x, [25, 60], 32, norm_multiple=10)
    assert same_bytes(calibrate(batches, [25, 60], 32, norm_multiple=10), whole)
    assert same_bytes(calibrate((b for b in batches), [25, 60], 32, norm_multiple=10), whole)


def test_torch_and_numpy_whole_in_batches_and_as_a_generator_are_equal_bytes():
    tensor = torch.from_numpy(cloud("random", 5, 9000, 8)).to(torch.bfloat16)
    x = tensor.float().numpy()
    parts = list(tensor.split(1001))
    whole = calibrate(x, [3, 30], 512)
    for given_as in (
        tensor, tensor.reshape(90, 100, 8), parts, iter(parts), (p for p in parts),
        list(x.astype(np.float64).reshape(9, 1000, 8)), np.asfortranarray(x),
    ):  # fmt: skip
        assert same_bytes(calibrate(given_as, [3, 30], 512), whole)


def test_the_order_of_rows_is_what_matters():
    x = cloud("random", 6, 400)
    dealt = x.reshape(100, 4, 16).swapaxes(0, 1).reshape(400, 16)
    assert calibrate(x, 5, 100).threshold(5) != calibrate(dealt, 5, 100).threshold(5)
    assert calibrate(x, 5, 400).threshold(5) == pytest.approx(
        calibrate(dealt, 5, 400).threshold(5), abs=1e-7
    )


def test_norm_outliers_are_dropped_and_counted():
    x = cloud("random", 7, 300)
    sinks = np.array([0, 40, 41, 299])
    planted = x.copy()
    planted[sinks] *= 1000
    found = calibrate(planted, [5, 50], 64, norm_multiple=10)
    without = calibrate(np.delete(planted, sinks, axis=0), [5, 50], 64)
    norms = np.linalg.norm(planted.astype(np.float64), axis=1)
    assert found.norm_limit == pytest.approx(10 * np.median(norms), rel=1e-12)
    assert dict(found.dropped) == {"norm outlier": 4, "no direction": 0}
    assert found.rows == without.rows == 296
    assert found.center.tobytes() == without.center.tobytes()
    assert dict(found.thresholds) == dict(without.thresholds)
    assert found.vector_norms == without.vector_norms
    assert found.centered_norms == without.centered_norms
    assert calibrate(planted, 5, 64).dropped["norm outlier"] == 0


def test_a_row_at_the_norm_limit_stays():
    x = np.zeros((5, 2), np.float32)
    x[:, 0], x[:, 1] = [3, 3, 3, 4, 8], [4, 4, 4, 3, 6]  # norms 5, 5, 5, 5, 10
    assert calibrate(x, 90, norm_multiple=2).rows == 5
    assert calibrate(x, 90, norm_multiple=1.999).rows == 4


def test_rows_at_the_center_have_no_distance_to_others():
    x = np.array([[1, 1], [1, -1], [1, 0.5], [1, -0.5], [1, 0]], np.float32)  # center (1, 0)
    found = calibrate(x, 50)
    np.testing.assert_array_equal(found.center, np.array([1, 0], np.float32))
    assert dict(found.dropped) == {"norm outlier": 0, "no direction": 1}
    assert found.rows == 4
    assert found.threshold(50) == 2.0  # up or down: 4 of 6 pairs are opposite


def test_a_zero_row_counts_among_the_rows_but_turns_nothing():
    x = cloud("random", 9, 200)
    with_zero = np.concatenate([x[:50], np.zeros((1, 16), np.float32), x[50:]])
    found, without = calibrate(with_zero), calibrate(x)
    np.testing.assert_allclose(found.center, without.center * (200 / 201), rtol=1e-6)
    assert found.rows == 201  # it lies away from the center, so it has a direction


def test_a_sample_remembers_where_it_came_from():
    assert calibrate(cloud("random", 0, 9), source={"text": "here"}).source == {"text": "here"}


def test_a_threshold_is_found_by_value_and_an_unknown_one_is_refused():
    found = Calibration(np.zeros(2, np.float32), {2: 0.25, 10.0: 0.5}, 9, 2048)
    assert found.threshold(2.0) == 0.25
    assert found.threshold(10) == 0.5
    with pytest.raises(ValueError, match=r"percentile 3 is not in .* 2, 10; calibrate with it"):
        found.threshold(3)


# --- what cannot be calibrated -------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batched", [False, True])
def test_a_row_that_is_not_finite_is_named_by_its_number_in_the_sample(bad, batched):
    x = cloud("random", 10, 300)
    x[207, 3] = bad
    with pytest.raises(ActivationError) as caught:
        calibrate([x[:100], x[100:200], x[200:]] if batched else x)
    assert "calibration sample: row 207 has a NaN or infinite component (1 of 300" in str(
        caught.value
    )
    assert "bfloat16 or float32" in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 3)), "the calibration sample has 1 rows, at least 2 are needed; give more"),
        (np.ones((0, 3)), "the calibration sample has 0 rows, at least 2 are needed; give more"),
        (np.tile([1.0, 2.0, 3.0], (20, 1)), "give more varied text"),
        ([], "the calibration sample has 0 rows"),
        (np.repeat([[1.0, 2.0], [2.0, 1.0]], [19, 1], axis=0), "nearly all rows are equal"),
        (np.array([[1.0, 2.0], [-1.0, -2.0]] * 5), "the mean of 10 unit vectors has length 0.0"),
        (np.array([[1.0, 2.0], [-1.0, -2.0]] * 5), "cancel and give no center; give a larger or"),
        (np.zeros((5, 3)), "directions cancel"),
    ],
)
def test_a_sample_that_gives_no_center_or_threshold_is_refused_in_words(x, message):
    with pytest.raises(CalibrationError, match=re.escape(message)):
        calibrate(x, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"percentiles": 0}, "percentile is 0, expected a number in (0, 100)"),
        ({"percentiles": 100}, "percentile is 100, expected a number in (0, 100)"),
        ({"percentiles": [5, -1]}, "percentile is -1, expected a number in (0, 100)"),
        ({"percentiles": [float("nan")]}, "percentile is nan, expected a number in (0, 100)"),
        ({"percentiles": []}, "no percentile was given, expected at least one in (0, 100)"),
        ({"block_rows": 1}, "block_rows is 1, but a block needs at least 2 rows"),
        ({"norm_multiple": 0}, "norm_multiple is 0, expected a positive number or None"),
        ({"norm_multiple": float("nan")}, "norm_multiple is nan, expected a positive number"),
    ],
)
def test_a_wrong_argument_is_refused_in_words(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        calibrate(cloud("random", 0, 9), **arguments)


def test_batches_of_different_widths_are_refused():
    batches = [cloud("random", 0, 9, 4), cloud("random", 0, 9, 5)]
    with pytest.raises(ValueError, match="a batch has width 5, the ones before it 4"):
        calibrate(batches)


@pytest.mark.parametrize(
    ("given_as", "message"),
    [
        (np.ones(4), r"shape \(4,\), expected \(N, D\)"),
        (np.ones((4, 0)), r"shape \(4, 0\), expected \(N, D\) with D > 0"),
        (np.ones((4, 2), bool), "dtype bool, expected real numbers"),
        (np.ones((4, 2), complex), "dtype complex128, expected real numbers"),
        (np.array([["a"]]), "expected real numbers"),
    ],
)
def test_what_is_no_array_of_vectors_is_refused(given_as, message):
    with pytest.raises(ValueError, match=message):
        as_vectors(given_as)


def test_vectors_of_any_kind_become_contiguous_float32_rows():
    x = np.arange(24).reshape(2, 3, 4)
    for given_as in (
        x, x.astype(np.float16), torch.from_numpy(x), torch.from_numpy(x).to(torch.bfloat16),
        torch.from_numpy(x).float().requires_grad_(), x.tolist(),
    ):  # fmt: skip
        made = as_vectors(given_as)
        assert made.dtype == np.float32
        assert made.flags.c_contiguous
        np.testing.assert_array_equal(made, x.reshape(6, 4))
