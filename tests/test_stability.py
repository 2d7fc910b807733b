"""Which regions other orders find again, and what tells so beforehand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import exemplars as ex
from exemplars.analyses import noise, stability
from exemplars.analyses.matching import match_directions
from exemplars.errors import MismatchError
from exemplars.members import MemberStatistics
from exemplars.report.stability import best_predictor, stability_figure, stability_text

WIDTH, CLOUDS = 24, 40


@pytest.fixture(scope="module")
def stream():
    """(N, D) rows of clouds of many sizes and widths, documents, a calibration."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(CLOUDS, WIDTH)) * 3
    share = np.arange(1, CLOUDS + 1.0)
    which = random.choice(CLOUDS, 3000, p=share / share.sum())
    vectors = centers[which] + random.normal(size=(3000, WIDTH)) * (0.4 + (which % 5) / 4)[:, None]
    vectors = vectors.astype(np.float32)
    return vectors, np.arange(3000) // 10, ex.calibrate(vectors, percentiles=[3])


@pytest.fixture(scope="module")
def dictionaries(stream):
    return list(noise.orders(*stream, 3, range(4)))


@pytest.fixture(scope="module")
def found(dictionaries, stream):
    return stability.stability(dictionaries, vectors=stream[0])


def test_one_dictionary_twice_is_found_again_exactly(dictionaries):
    d = dictionaries[0]
    same = stability.stability([d, d], seeds=1)
    for basis in stability.BASES:
        assert same.median(basis) == pytest.approx(1, abs=1e-6)
        for region in same.regions:
            assert region.of(basis) == pytest.approx(np.ones(len(d)), abs=1e-6)
    assert same.pairs[0].unpaired == 0


def test_the_score_of_a_region_is_its_mean_cosine_with_its_partners(dictionaries, found):
    d = dictionaries[1]
    cosines = [
        match_directions(d.means, other.means).cosine_of_a
        for k, other in enumerate(dictionaries)
        if k != 1
    ]
    mean = np.ma.masked_invalid(cosines).mean(axis=0).filled(np.nan)
    assert found.regions[1].mean == pytest.approx(mean, nan_ok=True)
    assert found.regions[1].found == pytest.approx(np.isfinite(cosines).mean(axis=0))
    assert found.regions[1].others == 3


def test_both_sides_of_each_pair_have_scores_and_each_pair_is_matched_once(found):
    assert [(p.first, p.second) for p in found.pairs] == [
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
    ]  # fmt: skip
    assert [len(r.mean) for r in found.regions] == list(found.n_regions)
    assert all(np.isfinite(r.mean).any() for r in found.regions)


def test_the_order_of_the_dictionaries_does_not_matter(dictionaries, found):
    turned = stability.stability(dictionaries[::-1], seeds=1)
    assert turned.regions[0].mean == pytest.approx(found.regions[3].mean, nan_ok=True)
    one, other = found.predictor("coherence c"), turned.predictor("coherence c")
    assert one.rho == pytest.approx(other.rho)


def test_a_region_without_a_partner_is_counted_and_not_scored(dictionaries):
    d = dictionaries[0]
    keep = np.arange(len(d)) < len(d) - 3
    members = MemberStatistics(**{k: v[keep] for k, v in vars(d.members).items()})
    fewer = replace(
        d, exemplars=d.exemplars[keep], exemplar_rows=d.exemplar_rows[keep], members=members
    )
    result = stability.stability([d, fewer], seeds=1)
    assert result.pairs[0].unpaired == 3
    assert np.isnan(result.regions[0].mean[-3:]).all()
    assert result.regions[0].found.tolist() == [1.0] * (len(d) - 3) + [0.0] * 3


def test_the_rank_correlations_are_those_of_scipy(dictionaries, found):
    values = [stability.predictor_values(d) for d in dictionaries]
    for name in ("D = log10 N c²", "mean distance", "log10 founding row"):
        rho = [
            stats.spearmanr(v[name], r.mean, nan_policy="omit").statistic
            for v, r in zip(values, found.regions, strict=True)
        ]
        assert found.predictor(name).by_dictionary == pytest.approx(rho)
        assert found.predictor(name).rho == pytest.approx(np.mean(rho))


def test_the_partial_correlation_is_that_of_the_residuals_of_ranks(dictionaries, found):
    d, scores = dictionaries[0], found.regions[0].mean
    values = stability.predictor_values(d)
    some = np.isfinite(scores)
    x, y, z = (stats.rankdata(v[some]) for v in (values["coherence c"], scores, values["log10 N"]))
    rest = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    partial = [
        stability._partial(stability.predictor_values(e)["coherence c"], r.mean,
                           stability.predictor_values(e)["log10 N"])
        for e, r in zip(dictionaries, found.regions, strict=True)
    ]  # fmt: skip
    assert partial[0] == pytest.approx(np.corrcoef(*rest)[0, 1])
    assert found.predictor("coherence c").partial == pytest.approx(np.mean(partial))
    assert np.isnan(found.predictor("log10 N").partial)


def test_predictors_are_what_they_are_called(dictionaries):
    d = dictionaries[0]
    values = stability.predictor_values(d)
    assert set(values) == set(stability.PREDICTORS)
    k = int(d.counts.argmax())
    n, c = float(d.counts[k]), float(d.coherence[k])
    assert values["D = log10 N c²"][k] == pytest.approx(np.log10(n * c * c))
    assert values["cos(exemplar, mean)"][k] == pytest.approx(float(d.exemplars[k] @ d.means[k]))
    others = np.delete(d.exemplars, k, axis=0)
    nearest = 1 - float((others @ d.exemplars[k]).max())
    assert values["nearest other exemplar"][k] == pytest.approx(nearest, abs=1e-5)
    squares = d.members.distance_square_sums[k] / n - (d.members.distance_sums[k] / n) ** 2
    assert values["std of distance"][k] == pytest.approx(np.sqrt(squares))


def test_large_coherent_regions_are_found_again(found):
    d = found.predictor("D = log10 N c²")
    assert d.low > 0
    assert d.fifths[-1] > d.fifths[0]
    assert d.low < d.rho < d.high
    assert best_predictor(found) is not None


def test_nulls_stand_beside_the_cosines(found):
    assert set(found.nulls) == set(stability.NULLS)
    mean = np.mean([pair.mean_cosine["mean"] for pair in found.pairs])
    for name in ("random rotation", "random directions"):
        assert max(found.nulls[name]["mean"]) < mean
    assert np.isfinite(found.predictor("log10 N").random_rows)


def test_random_rows_are_drawn_from_the_rows_of_each_dictionary(dictionaries, stream):
    vectors = stream[0]
    halves = [vectors[:1500], vectors[1500:]]
    made = [ex.partition(half, stream[2], 3) for half in halves]
    result = stability.stability(made, vectors=halves, seeds=1)
    drawn = [
        noise.of_random_rows(d, half, np.random.default_rng([0, number, 7]))
        for number, (d, half) in enumerate(zip(made, halves, strict=True))
    ]
    expected = match_directions(drawn[0].means, drawn[1].means).cosines.mean()
    assert result.nulls["random rows"]["mean"] == pytest.approx((expected,))
    with pytest.raises(ValueError, match="rows of 1 dictionaries"):
        stability.stability(made, vectors=halves[:1])


def test_without_rows_the_null_of_random_rows_is_left_out(dictionaries):
    result = stability.stability(dictionaries[:2], seeds=1)
    assert "random rows" not in result.nulls
    assert np.isnan(result.predictor("log10 N").random_rows)
    assert "Not concluded: whether exemplars are found again better than random rows" in (
        stability_text(result)
    )


def test_other_calibrations_are_told(dictionaries, stream):
    assert stability.stability(dictionaries[:2], seeds=1).one_calibration
    other = ex.partition(stream[0], ex.calibrate(stream[0][:500], percentiles=[3]), 3)
    result = stability.stability([dictionaries[0], other], seeds=1)
    assert not result.one_calibration
    assert "different centers or thresholds" in stability_text(result)


def test_other_resolutions_are_refused(dictionaries, stream):
    coarse = ex.partition(stream[0], ex.calibrate(stream[0], percentiles=[20]), 20)
    with pytest.raises(MismatchError, match="of p = 3, 20, expected one"):
        stability.stability([dictionaries[0], coarse], seeds=1)


def test_a_predictor_whose_interval_has_zero_in_it_is_not_called_one(found):
    unsure = replace(
        found, predictors=tuple(replace(p, rho=0.1, low=-0.2, high=0.4) for p in found.predictors)
    )
    assert "nothing tells which ones (the largest ρ, of" in stability_text(unsure).splitlines()[0]
    assert "what tells best which ones is" in stability_text(found).splitlines()[0]


def test_the_table_has_a_line_for_each_region(dictionaries, found):
    scores = stability.region_stability(dictionaries[0], dictionaries[1:])
    assert scores.mean == pytest.approx(found.regions[0].mean, nan_ok=True)
    table = stability.stability_table(replace(scores, mean=scores.mean * np.nan))
    assert table["region"].to_pylist() == list(range(len(dictionaries[0])))
    assert set(table["mean_cosine"].to_pylist()) == {None}
    assert set(table["others"].to_pylist()) == {3}


def test_text_and_figure_show_every_predictor_and_null(found):
    text = stability_text(found)
    assert text.startswith("Another order finds the means of regions again with a median cosine of")
    for name in (*stability.PREDICTORS, *stability.NULLS):
        assert name in text
    left, right = stability_figure(found).axes
    assert len(left.lines) == len(stability.BASES) + len(stability.NULLS)
    assert len(right.lines) >= 2


def test_too_few_regions_are_said_to_be_too_few(stream):
    calibration = replace(stream[2], thresholds={3: 2.0})
    d = ex.partition(stream[0][:50], calibration, 3)
    result = stability.stability([d, d], seeds=1)
    assert result.n_regions == (1, 1)
    assert "too few regions" in stability_text(result)
    assert stability_figure(result).axes


def test_arguments_are_checked(dictionaries):
    d = dictionaries[0]
    with pytest.raises(ValueError, match="2 or more"):
        stability.stability([d])
    with pytest.raises(ValueError, match="no other dictionary"):
        stability.region_stability(d, [])
    with pytest.raises(ValueError, match="seeds is 0"):
        stability.stability([d, d], seeds=0)
    with pytest.raises(MismatchError, match=r"resid_post\.2"):
        stability.stability([d, replace(d, provenance={"site": {"name": "resid_post.2"}})])
    narrow = replace(d, exemplars=d.exemplars[:, :3])
    with pytest.raises(ValueError, match="widths 3, 24"):
        stability.stability([d, narrow])
    with pytest.raises(ValueError, match="no predictor"):
        stability.stability([d, d], seeds=1).predictor("size")


def test_the_answer_has_its_null_beside_it(found):
    first = stability_text(found).splitlines()[0]
    null = np.mean(found.nulls["random rows"]["mean"])
    mean = np.mean([pair.mean_cosine["mean"] for pair in found.pairs])
    assert f"the mean cosine is {null:.3f}, with exemplars {mean:.3f}." in first
    alone = replace(found, nulls={k: v for k, v in found.nulls.items() if k != "random rows"})
    assert "random rows in the exemplars' place" not in stability_text(alone).splitlines()[0]
