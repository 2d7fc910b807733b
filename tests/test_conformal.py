"""p-values with the document as the unit: against slow counting, and under the null."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from exemplars.analyses.conformal import (
    LEAST_DOCUMENTS,
    HistogramShift,
    MeanScore,
    UsualScores,
    exchange_test,
    jensen_shannon,
    permuted_choices,
    region_counts,
)


def drawn(n_documents, seed, passages=4, passage=5, alike=1.0):
    """Documents whose passages share a random mean."""
    rng = np.random.default_rng(seed)
    return tuple(
        rng.normal(0, alike) + rng.normal(size=passages * passage) for _ in range(n_documents)
    )


def slow_p(scores, passage, score, rows):
    votes = []
    for document in scores:
        if len(document) >= rows:
            runs = [
                np.mean(document[s : s + rows])
                for s in range(0, len(document), passage)
                if s + rows <= len(document)
            ]
        elif len(document) >= passage:
            runs = [np.mean(document)]
        else:
            continue
        votes.append(np.mean([run >= score for run in runs]))
    return (1 + sum(votes)) / (1 + len(votes)) if len(votes) >= LEAST_DOCUMENTS else np.nan


@given(
    seed=st.integers(0, 999), rows=st.integers(1, 40), n=st.integers(0, 40), score=st.floats(-2, 2)
)
@settings(max_examples=60, deadline=None)
def test_p_values_are_what_counting_gives(seed, rows, n, score):
    rng = np.random.default_rng(seed)
    scores = tuple(rng.normal(size=rng.integers(1, 30)) for _ in range(n))
    found = UsualScores(scores, 7).p_value(score, rows)
    assert found == pytest.approx(slow_p(scores, 7, score, rows), nan_ok=True)


def test_a_document_has_one_vote_however_long_it_is():
    scores = drawn(30, 0)
    longer = (np.tile(scores[0], 50), *scores[1:])
    one, other = UsualScores(scores, 5), UsualScores(longer, 5)
    assert one.p_value(0.3, 5) == pytest.approx(other.p_value(0.3, 5))
    assert one.least_p == other.least_p == 1 / 31


def test_p_values_fall_as_scores_rise_and_are_never_below_the_least():
    usual = UsualScores(drawn(40, 1), 5)
    found = [usual.p_value(score, 10) for score in np.linspace(-3, 3, 20)]
    assert (np.diff(found) <= 0).all()
    assert found[-1] >= usual.least_p
    assert usual.p_value(1e9, 10) == usual.least_p
    assert usual.p_value(-1e9, 10) == 1.0


def test_ties_count_against_novelty():
    usual = UsualScores(tuple(np.full(5, float(k % 2)) for k in range(40)), 5)
    assert usual.p_value(1.0, 5) == usual.token_p_value(1.0) == 21 / 41
    assert usual.p_value(0.0, 5) == usual.token_p_value(0.0) == 1.0
    assert exchange_test("mean", MeanScore(np.zeros(40)), 3).p == 1.0


def test_too_few_documents_say_nothing():
    few = UsualScores(drawn(LEAST_DOCUMENTS - 1, 0), 5)
    assert np.isnan(few.p_value(0.0, 5))
    assert np.isnan(few.token_p_value(0.0))
    assert np.isnan(UsualScores((), 5).p_value(0.0, 5))
    enough = UsualScores(drawn(LEAST_DOCUMENTS, 0), 5)
    assert enough.p_value(1e9, 5) == enough.token_p_value(1e9) == 0.05


def test_documents_shorter_than_a_passage_are_compared_with_short_texts_alone():
    scores = tuple(np.full(3, float(k)) for k in range(30))
    assert UsualScores(scores, 5).p_value(14.5, 2) == pytest.approx(16 / 31)
    assert np.isnan(UsualScores(scores, 5).p_value(14.5, 4))


@pytest.mark.parametrize("alike", [0.0, 2.0])
def test_false_alarms_are_as_many_as_promised(alike):
    """Passages of a new document of the same kind, however alike the passages of one are."""
    found = []
    for seed in range(300):
        scores = drawn(40, seed, alike=alike)
        usual = UsualScores(scores[1:], 5)
        found += [usual.p_value(run, 5) for run in scores[0].reshape(-1, 5).mean(1)]
    for level in (0.05, 0.1, 0.3):
        assert np.mean(np.array(found) <= level) < 1.5 * level


def test_counting_passages_alone_would_raise_false_alarms():
    """Why documents are the unit: twenty passages of two documents are not twenty."""
    alarms = []
    for seed in range(300):
        scores = drawn(3, seed, passages=20, alike=3.0)
        pooled = np.concatenate([s.reshape(-1, 5).mean(1) for s in scores[1:]])
        run = scores[0][:5].mean()
        alarms.append((1 + (pooled >= run).sum()) / (1 + len(pooled)) <= 0.05)
        assert np.isnan(UsualScores(scores[1:], 5).p_value(run, 5))
    assert np.mean(alarms) > 0.2


def test_tokens_have_p_values_likewise():
    usual = UsualScores(drawn(40, 2), 5)
    assert usual.token_p_value(1e9) == usual.least_p
    expected = (1 + sum((s >= 0.5).mean() for s in usual.scores)) / 41
    assert usual.token_p_value(0.5) == pytest.approx(expected)


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_divergence_is_that_of_scipy(n, k, seed):
    rng = np.random.default_rng(seed)
    counts, reference = rng.integers(0, 4, (n, k)).astype(float), rng.random(k)
    reference /= reference.sum()
    found = jensen_shannon(counts, reference)
    for row, value in zip(counts, found, strict=True):
        expected = jensenshannon(row, reference) ** 2 if row.sum() else np.nan
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_divergence_of_equal_and_of_disjoint_histograms():
    reference = np.array([0.5, 0.5, 0.0])
    assert jensen_shannon(np.array([[7.0, 7.0, 0.0]]), reference)[0] == pytest.approx(0)
    assert jensen_shannon(np.array([[0.0, 0.0, 3.0]]), reference)[0] == pytest.approx(np.log(2))


def test_choices_begin_with_the_set_and_have_its_size():
    chosen = permuted_choices(9, 4, 50, 0)
    assert chosen.shape == (51, 9)
    assert (chosen.sum(1) == 4).all()
    assert chosen[0].tolist() == [True] * 4 + [False] * 5
    assert len(np.unique(chosen, axis=0)) > 20


def test_one_document_is_exchanged_with_every_other():
    assert np.array_equal(permuted_choices(7, 1, 50, 0), np.eye(7, dtype=bool))
    means = np.arange(30.0)[::-1]
    assert exchange_test("mean", MeanScore(means), 1).p == 1 / 30
    assert exchange_test("mean", MeanScore(means[::-1]), 1).p == 1.0


def test_statistics_of_choices_are_those_of_the_documents_chosen(monkeypatch):
    rng = np.random.default_rng(0)
    regions = [rng.integers(0, 6, rng.integers(1, 9)) for _ in range(10)]
    counts = region_counts(regions, 6)
    assert counts.toarray().tolist() == [np.bincount(r, minlength=6).tolist() for r in regions]
    chosen = permuted_choices(10, 3, 20, 1)
    reference = np.full(6, 1 / 6)
    whole = HistogramShift(counts, reference)(chosen)
    means = rng.normal(size=10)
    for row, value, mean in zip(chosen, whole, MeanScore(means)(chosen), strict=True):
        joined = np.concatenate([regions[k] for k in np.flatnonzero(row)])
        assert value == pytest.approx(
            jensenshannon(np.bincount(joined, minlength=6), reference) ** 2
        )
        assert mean == pytest.approx(means[row].mean())
    monkeypatch.setattr("exemplars.analyses.conformal._CELLS", 7)
    assert np.array_equal(HistogramShift(counts, reference)(chosen), whole)


def test_a_set_apart_has_the_smallest_p_and_an_ordinary_one_has_not():
    rng = np.random.default_rng(3)
    means = rng.normal(size=50)
    apart = exchange_test("mean", MeanScore(np.concatenate([means[:5] + 9, means[5:]])), 5)
    assert apart.p == 1 / 46
    assert apart.estimate > apart.null_95 > apart.null_mean
    found = [
        exchange_test("mean", MeanScore(rng.normal(size=50)), 5, 99, seed).p for seed in range(200)
    ]
    assert 0.4 < np.mean(found) < 0.6
    assert np.mean(np.array(found) <= 0.05) < 0.1


def test_a_set_beside_too_few_documents_has_no_p():
    n = LEAST_DOCUMENTS + 2
    assert not np.isnan(exchange_test("mean", MeanScore(np.arange(n) * 1.0), 2).p)
    assert np.isnan(exchange_test("mean", MeanScore(np.arange(n) * 1.0), 3).p)
