"""Scores of tokens from a dictionary alone: against slow ones, and what must not change them."""

from dataclasses import replace

import numpy as np
import pytest

import exemplars as ex
from exemplars.analyses.densities import PSEUDO_MEMBERS, SCORES, RegionDensity
from exemplars.geometry import to_directions
from exemplars.members import MemberStatistics

RNG = np.random.default_rng(0)
CLOUDS = RNG.normal(size=(12, 16)) * 3
VECTORS = (CLOUDS[RNG.integers(0, 12, 900)] + RNG.normal(size=(900, 16))).astype(np.float32)
OTHERS = (RNG.normal(size=(200, 16)) * 4).astype(np.float32)


@pytest.fixture(scope="module")
def dictionary():
    return ex.partition(VECTORS, ex.calibrate(VECTORS, [8]), membership="census")


def scored(dictionary, name, vectors=OTHERS):
    region, distance = dictionary.assign(vectors)
    directions, _ = to_directions(vectors, dictionary.center)
    return RegionDensity.of(dictionary).scores(name, directions, region, distance)


def members_of(dictionary):
    """Distances in θ of the rows of each region."""
    region, distance = dictionary.assign(VECTORS)
    in_thresholds = distance.astype(np.float64) / dictionary.threshold
    return [in_thresholds[region == k] for k in range(len(dictionary))]


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_finite_and_one_a_row(dictionary, name):
    found = scored(dictionary, name)
    assert found.shape == (200,)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert scored(dictionary, name, OTHERS[:0]).shape == (0,)


@pytest.mark.parametrize("name", sorted(set(SCORES) - {"rarity"}))
def test_rows_of_another_kind_score_higher(dictionary, name):
    rng = np.random.default_rng(1)
    again = (CLOUDS[rng.integers(0, 12, 200)] + rng.normal(size=(200, 16))).astype(np.float32)
    assert scored(dictionary, name).mean() > scored(dictionary, name, again).mean()


def test_distance_is_in_thresholds(dictionary):
    _, distance = dictionary.assign(OTHERS)
    assert scored(dictionary, "distance") == pytest.approx(distance / dictionary.threshold)


def test_rarity_is_a_logarithm_of_the_share(dictionary):
    region, _ = dictionary.assign(OTHERS)
    share = (dictionary.counts + 0.5) / (dictionary.counts.sum() + 0.5 * len(dictionary))
    assert share.sum() == pytest.approx(1)
    assert scored(dictionary, "rarity") == pytest.approx(-np.log(share[region]))


def test_standard_distance_mixes_members_with_pseudo_members(dictionary):
    members = members_of(dictionary)
    every = np.concatenate(members)
    region, distance = dictionary.assign(OTHERS)
    found = scored(dictionary, "standard")
    for k in range(len(dictionary)):
        n = len(members[k]) + PSEUDO_MEMBERS
        mean = (members[k].sum() + PSEUDO_MEMBERS * every.mean()) / n
        square = ((members[k] ** 2).sum() + PSEUDO_MEMBERS * (every**2).mean()) / n
        mine = region == k
        expected = (distance[mine] / dictionary.threshold - mean) / np.sqrt(square - mean**2)
        assert found[mine] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_tail_is_the_share_of_members_as_far_out(dictionary):
    members = members_of(dictionary)
    every = np.concatenate(members)
    density = RegionDensity.of(dictionary)
    for k in range(len(dictionary)):
        for edge in (0, 5, 17, 31):
            here = (members[k] >= edge / 32).sum()
            of_all = ((every >= edge / 32).sum() + 1) / (len(every) + 1)
            share = (here + PSEUDO_MEMBERS * of_all) / (len(members[k]) + PSEUDO_MEMBERS)
            assert density.tail[k, edge] == pytest.approx(-np.log(share))


def test_tail_grows_with_distance_also_beyond_the_threshold(dictionary):
    density = RegionDensity.of(dictionary)
    distance = np.linspace(0, 1.9, 400, dtype=np.float32)
    nothing = np.zeros((400, 16), np.float32)
    for k in range(len(dictionary)):
        found = density.scores("tail", nothing, np.full(400, k), distance)
        assert (np.diff(found) >= -1e-12).all()
        assert found[0] == pytest.approx(0)
        beyond = found[distance > dictionary.threshold]
        assert len(beyond) > 50
        assert (np.diff(beyond) > 0).all()


def test_joint_is_rarity_and_tail(dictionary):
    both = scored(dictionary, "rarity") + scored(dictionary, "tail")
    assert scored(dictionary, "joint") == pytest.approx(both)


def test_whitened_is_the_mahalanobis_length_of_the_regions_covariance(dictionary):
    directions, _ = to_directions(OTHERS, dictionary.center)
    weight = dictionary.counts / dictionary.counts.sum()
    means = dictionary.means.astype(float) * dictionary.coherence[:, None]
    covariance = np.cov(means.T, aweights=weight, ddof=0)
    covariance += np.eye(16) * (1 - weight @ dictionary.coherence.astype(float) ** 2) / 16
    apart = directions - weight @ means
    square = np.einsum("nd,de,ne->n", apart, np.linalg.inv(covariance), apart)
    assert scored(dictionary, "whitened") == pytest.approx(np.sqrt(square), rel=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_regions_does_not_matter(dictionary, name):
    order = np.random.default_rng(2).permutation(len(dictionary))
    m = dictionary.members
    moved = MemberStatistics(
        m.counts[order], m.means[order], m.coherence[order], m.distance_sums[order],
        m.distance_square_sums[order], m.histogram[order],
    )  # fmt: skip
    other = replace(dictionary, exemplars=dictionary.exemplars[order], members=moved)
    assert scored(other, name) == pytest.approx(scored(dictionary, name), rel=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_one_region_is_enough(name):
    one = ex.partition(VECTORS[:1], ex.calibrate(VECTORS, [8]))
    assert len(one) == 1
    assert np.isfinite(scored(one, name)).all()


def test_regions_a_census_left_empty_have_scores(dictionary):
    members = dictionary.members
    counts, means = members.counts.copy(), members.means.copy()
    coherence = members.coherence.copy()
    counts[0], means[0], coherence[0] = 0, np.nan, np.nan
    sums, squares = members.distance_sums.copy(), members.distance_square_sums.copy()
    histogram = members.histogram.copy()
    sums[0], squares[0], histogram[0] = 0, 0, 0
    empty = MemberStatistics(counts, means, coherence, sums, squares, histogram)
    for name in SCORES:
        found = scored(replace(dictionary, members=empty), name, dictionary.exemplars[:1] * 9)
        assert np.isfinite(found).all()


def test_an_unknown_score_and_a_dictionary_without_members_are_refused(dictionary):
    with pytest.raises(ValueError, match="no score 'novel'; there are distance, standard"):
        scored(dictionary, "novel")
    none = replace(dictionary.members, counts=np.zeros_like(dictionary.counts))
    with pytest.raises(ValueError, match="no members"):
        RegionDensity.of(replace(dictionary, members=none))
