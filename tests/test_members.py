"""Statistics of members are sums and ordered lists; the properties are in test_properties."""

from itertools import pairwise

import numpy as np
import pytest

import oracle
from exemplars.geometry import to_directions
from exemplars.members import Members, fixed_point


def unit(seed, n, width):
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return to_directions(x, np.zeros(width, np.float32))[0]


def add(members, u, region, distance, rows=None, n_regions=None):
    region = np.array(region)
    rows = np.arange(len(u)) if rows is None else np.array(rows)
    return members.add(
        fixed_point(u), region, np.array(distance, float), rows,
        int(region.max()) + 1 if n_regions is None else n_regions,
    )  # fmt: skip


def test_fixed_point_is_the_direction_in_steps_of_two_to_the_minus_30():
    u = np.array([[1, -1, 0.5, 2.0**-30, 2.0**-31, 3 * 2.0**-31, -(2.0**-31), 1e-20]], np.float32)
    assert fixed_point(u).tolist() == [[2**30, -(2**30), 2**29, 1, 0, 2, 0, 0]]
    largest = np.nextafter(np.float32(1), np.float32(2))  # rounding may carry a component past 1
    assert fixed_point(np.array([[largest]]))[0, 0] == 2**30 + 2**7
    u = unit(0, 50, 9)
    assert np.abs(fixed_point(u) / 2.0**30 - u).max() <= 2.0**-31


def test_equal_members_are_fully_coherent_and_opposite_ones_not_at_all():
    one, other = unit(1, 2, 7)
    members = Members(7, 0.5)
    add(members, np.stack([one, one, one, other, -other]), [0, 0, 0, 1, 1], [0, 0, 0, 0, 2])
    found = members.statistics()
    np.testing.assert_allclose(found.coherence, [1, 0], atol=1e-7)
    assert found.coherence[0] <= 1
    np.testing.assert_allclose(found.means[0], one, atol=1e-7)
    assert np.isnan(found.means[1]).all()


def test_a_region_without_members_has_no_mean_and_no_coherence():
    members = Members(3, 0.5)
    add(members, unit(0, 1, 3), [1], [0.25], n_regions=4)
    found = members.statistics()
    assert found.counts.tolist() == [0, 1, 0, 0]
    assert np.isnan(found.means).all(axis=1).tolist() == [True, False, True, True]
    assert np.isnan(found.coherence).tolist() == [True, False, True, True]
    assert found.distance_sums.tolist() == [0, 0.25, 0, 0]
    assert found.distance_square_sums.tolist() == [0, 0.0625, 0, 0]
    kept = members.kept_rows()
    assert kept.nearest_row[1].tolist() == kept.farthest_row[1].tolist() == [0] + [-1] * 9
    assert kept.sample_row[0].tolist() == [-1] * 30


def test_the_histogram_has_32_bins_a_threshold_and_the_last_holds_all_beyond():
    members = Members(3, 0.5)
    distance = [0, 0.0156, 0.015625, 0.4999, 0.5, 0.9843, 0.985, 1.0, 2.0]
    add(members, unit(0, 9, 3), [0] * 9, distance)
    histogram = members.statistics().histogram[0]
    assert {b: int(n) for b, n in enumerate(histogram) if n} == {0: 2, 1: 1, 31: 1, 32: 1, 62: 1,
                                                                 63: 3}  # fmt: skip


def test_the_nearest_and_farthest_are_ordered_by_distance_then_by_row():
    rng = np.random.default_rng(0)
    rows = rng.permutation(40) + 100
    distance = rng.integers(0, 6, 40) / 8  # many are equal
    members = Members(3, 0.5)
    add(members, unit(0, 40, 3), [0] * 40, distance, rows)
    kept = members.kept_rows()
    by_near = sorted(zip(distance.tolist(), rows.tolist(), strict=True))[:10]
    by_far = sorted(zip((-distance).tolist(), rows.tolist(), strict=True))[:10]
    assert kept.nearest_row[0].tolist() == [row for _, row in by_near]
    assert kept.nearest_distance[0].tolist() == [d for d, _ in by_near]
    assert kept.farthest_row[0].tolist() == [row for _, row in by_far]
    assert kept.farthest_distance[0].tolist() == [-d for d, _ in by_far]


def sampled(seed, n=3000):
    members = Members(2, 0.5, seed)
    add(members, unit(0, n, 2), [0] * n, np.arange(n) / n)
    kept = members.kept_rows()
    np.testing.assert_array_equal(kept.sample_distance[0], kept.sample_row[0] / n)
    return set(kept.sample_row[0].tolist())


def test_the_sample_of_members_is_uniform_without_replacement_and_the_seeds_own():
    samples = [sampled(seed) for seed in range(40)]
    assert all(len(s) == 30 for s in samples)
    assert sampled(7) == samples[7]
    assert all(len(a & b) < 6 for a, b in pairwise(samples))
    assert not any({row + shift for row in samples[0]} == samples[1] for shift in range(-64, 65))
    every = np.concatenate([sorted(s) for s in samples])
    thirds = np.bincount(every // 1000, minlength=3)  # 1,200 draws: 400 each, sd 16
    assert (np.abs(thirds - 400) < 80).all()


def test_the_sample_is_the_smallest_hashes_of_seed_and_row():
    rows = np.arange(500) * 7 + 2**40
    members = Members(2, 0.5, seed=-3)
    add(members, unit(0, 500, 2), [0] * 500, np.zeros(500), rows)
    seed = oracle.splitmix64(2**64 - 3)
    expected = sorted(rows.tolist(), key=lambda n: oracle.splitmix64((seed + n) % 2**64))[:30]
    assert members.kept_rows().sample_row[0].tolist() == expected


def test_splitmix64_is_the_published_generator():
    """First outputs for the states 0 and 1234567 (Vigna's splitmix64.c; Rosetta Code's example)."""
    assert oracle.splitmix64(0) == 0xE220A8397B1DCDAF
    assert oracle.splitmix64(1234567) == 6457827717110365317


def test_singletons_are_counted_as_rows_come():
    members = Members(3, 0.5)
    after = add(members, unit(0, 6, 3), [0, 1, 0, 2, 1, 0], [0] * 6)
    assert after.tolist() == [1, 2, 1, 2, 1, 1]
    assert members.singletons == 1
    assert add(members, unit(0, 2, 3), [2, 5], [0, 0]).tolist() == [0, 1]


def test_members_go_on_from_their_state():
    u, region = unit(0, 900, 5), np.random.default_rng(0).integers(0, 700, 900)
    distance = np.random.default_rng(1).random(900)
    whole = Members(5, 0.5, 9)
    add(whole, u, region, distance, n_regions=700)
    first = Members(5, 0.5, 9)
    add(first, u[:500], region[:500], distance[:500], n_regions=700)
    again = Members(5, 0.5, 9)
    again.restore({name: array.copy() for name, array in first.state().items()})
    assert again.singletons == first.singletons
    add(again, u[500:], region[500:], distance[500:], range(500, 900), 700)
    assert whole.singletons == again.singletons
    for name, array in whole.state().items():
        assert again.state()[name].tobytes() == array.tobytes()


def test_statistics_do_not_change_when_more_is_added():
    members = Members(3, 0.5)
    add(members, unit(0, 5, 3), [0, 0, 1, 1, 1], [0.1] * 5)
    found, kept = members.statistics(), members.kept_rows()
    before = [a.copy() for a in (*vars(found).values(), *vars(kept).values())]
    add(members, unit(1, 5, 3), [0, 0, 1, 1, 1], [0.05] * 5, range(5, 10))
    for was, now in zip(before, (*vars(found).values(), *vars(kept).values()), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("other", [Members(4, 0.5, 0), Members(3, 0.25, 0), Members(3, 0.5, 1)])
def test_members_that_do_not_belong_together_do_not_merge(other):
    with pytest.raises(ValueError, match="members of different width, threshold, or seed"):
        Members(3, 0.5, 0).merge(other)
