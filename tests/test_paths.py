"""Paths between regions: slow oracles, rings, and what the nulls are made of."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exemplars as ex
from exemplars.analyses.paths import NULLS, RegionGraph, nearest_graph, reading, region_paths
from exemplars.analyses.resolution import assign_directions
from resolutions import ladder, noise, rows_of

PAIRS, ROWS = NULLS


@pytest.fixture(scope="module")
def three():
    return ladder(noise(600), [30.0, 12.0, 4.0])


@pytest.fixture(scope="module")
def found(three):
    rows = rows_of(noise(500, 1), three[0]).directions
    return region_paths(three, three[1], 0, 9, directions=rows, pairs=15, draws=2)


def units(n, seed=0, width=6):
    rows = noise(n, seed, width)
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def slow_neighbours(points, k):
    """Sets of joined points, by sorting all distances."""
    joined = [set() for _ in points]
    for i, point in enumerate(points):
        order = np.argsort(np.linalg.norm(points - point, axis=1), kind="stable")
        for j in [j for j in order.tolist() if j != i][:k]:
            joined[i].add(j)
            joined[j].add(i)
    return joined


def slow_hops(joined, start, end):
    seen, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for there in joined[here]:
            if there not in seen:
                seen[there] = seen[here] + 1
                queue.append(there)
    return seen.get(end, -1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 5))
def test_the_graph_is_that_of_the_nearest_either_way(seed, n, k):
    points = units(n, seed)
    graph = nearest_graph(points, k)
    assert abs(graph - graph.T).max() == 0 if graph.nnz else n == 1
    expected = slow_neighbours(points.astype(np.float64), min(k, n - 1))
    dense = graph.toarray()
    for i in range(n):
        assert set(np.flatnonzero(dense[i]).tolist()) == expected[i]
        for j in expected[i]:
            angle = np.arccos(np.clip(points[i].astype(float) @ points[j], -1, 1))
            assert dense[i, j] == pytest.approx(angle, abs=1e-3)


def test_points_without_a_direction_are_joined_to_nothing():
    points = units(12)
    points[[3, 7]] = np.nan
    dense = nearest_graph(points, 3).toarray()
    assert not dense[[3, 7]].any()
    assert (np.delete(dense, [3, 7], axis=0) > 0).sum(axis=1).min() >= 3
    few = units(3)
    few[1:] = np.nan
    assert nearest_graph(few, 2).nnz == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_a_path_has_the_fewest_hops(seed, k):
    (dictionary,) = ladder(noise(200, seed), [8.0])
    joined = slow_neighbours(np.asarray(dictionary.exemplars, np.float64), k)
    random = np.random.default_rng(seed)
    a, b = random.permutation(len(dictionary))[:2].tolist()
    (path,) = region_paths([dictionary], dictionary, a, b, neighbours=k, pairs=1).paths
    assert path.hops == slow_hops(joined, a, b)
    if path.hops >= 0:
        assert (path.regions[0], path.regions[-1]) == (a, b)
        for one, other in zip(path.regions, path.regions[1:], strict=False):
            assert other in joined[one]
        (back,) = region_paths([dictionary], dictionary, b, a, neighbours=k, pairs=1).paths
        assert back.hops == path.hops
        assert back.stretch == pytest.approx(path.stretch)
        weighted = region_paths(
            [dictionary], dictionary, a, b, neighbours=k, pairs=1, weighted=True
        )
        assert weighted.paths[0].hops >= path.hops
        assert 1 <= weighted.paths[0].stretch <= path.stretch + 1e-12


def test_on_a_ring_the_way_is_round_it():
    """Points of a circle: the angles of a path add up to the angle of its ends."""
    angle = np.linspace(0, np.pi, 40)
    vectors = np.zeros((40, 4), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angle), np.sin(angle)
    calibration = ex.calibrate(vectors, [10.0])
    ring = replace(calibration, center=np.zeros(4, np.float32), thresholds={10.0: 1e-4})
    dictionary = ex.partition(vectors, ring, 10.0)
    assert len(dictionary) == 40
    (path,) = region_paths([dictionary], dictionary, 0, 30, neighbours=2, pairs=3).paths
    assert path.stretch == pytest.approx(1, abs=1e-5)
    assert path.regions == tuple(sorted(path.regions))
    (least,) = region_paths([dictionary], dictionary, 0, 30, neighbours=2, weighted=True).paths
    assert least.stretch == pytest.approx(1, abs=1e-5)


def test_regions_that_the_graph_does_not_join_have_no_path():
    vectors = noise(200, width=8)
    vectors[:100, 0] += 30
    vectors[100:, 0] -= 30
    (dictionary,) = ladder(vectors, [2.0])
    side = np.asarray(dictionary.exemplars)[:, 0] > 0
    a, b = int(np.flatnonzero(side)[0]), int(np.flatnonzero(~side)[0])
    (path,) = region_paths([dictionary], dictionary, a, b, neighbours=1, pairs=9).paths
    assert (path.regions, path.hops) == ((), -1)
    assert np.isnan(path.stretch)
    null = path.nulls[PAIRS]
    assert null.unjoined + len(null.hops) == 9 == len(null.shared)


def test_at_each_resolution_the_ends_hold_the_exemplars_asked_for(three, found):
    assert found.percentile == 12.0
    assert [path.percentile for path in found.paths] == [30.0, 12.0, 4.0]
    exemplars = np.asarray(three[1].exemplars)[[0, 9]]
    for path, dictionary in zip(found.paths, three, strict=True):
        assert path.ends == tuple(assign_directions(dictionary, exemplars).tolist())
        same = dictionary.exemplar_rows[list(path.ends)] == three[1].exemplar_rows[[0, 9]]
        assert path.same_exemplar == tuple(same.tolist())
        assert path.n_regions == len(dictionary)
    own = found.paths[1]
    assert (own.ends, own.same_exemplar) == ((0, 9), (True, True))
    assert own.direct == pytest.approx(three[1].distance_matrix([0])[0, 9], abs=1e-6)


def test_shared_neighbours_are_those_of_the_dictionary(three, found):
    for path, dictionary in zip(found.paths, three, strict=True):
        if path.hops == 0:
            continue
        expected, _ = dictionary.shared_neighbours(*path.ends)
        assert path.shared == len(expected)
        assert path.shared_nearest == tuple(expected[:8].tolist())
    own = found.paths[1]
    assert own.shared_kept == 1.0
    assert own.shared_kept_by_chance < 1.0


def test_two_regions_may_be_one_at_a_coarser_resolution():
    coarse, fine = ladder(noise(300), [45.0, 4.0])
    holder = assign_directions(coarse, np.asarray(fine.exemplars))
    inside = np.flatnonzero(holder == np.bincount(holder).argmax())[:2].tolist()
    path = region_paths([coarse, fine], fine, *inside, pairs=2).paths[0]
    assert (path.hops, path.stretch, path.direct, path.shared) == (0, 1.0, 0.0, 0)
    assert path.nulls[PAIRS].hops == ()


def test_the_nulls_are_pairs_as_far_apart_and_random_rows(three, found):
    for path in found.paths:
        if path.hops == 0:
            continue
        pairs, rows = path.nulls[PAIRS], path.nulls[ROWS]
        assert len(pairs.hops) + pairs.unjoined == len(pairs.shared) == 15
        assert len(rows.hops) + rows.unjoined == len(rows.shared) == 2
        assert min(pairs.stretch + rows.stretch) >= 1
    (alone,) = region_paths(three[2:], three[2], 0, 5, pairs=3).paths
    assert set(alone.nulls) == {PAIRS}
    few = rows_of(noise(20, 1), three[2]).directions
    (alone,) = region_paths(three[2:], three[2], 0, 5, pairs=3, directions=few).paths
    assert set(alone.nulls) == {PAIRS}


def test_a_random_pair_is_like_the_pairs_as_far_apart():
    """A null that differs from what it stands for would find something where nothing is."""
    (dictionary,) = ladder(noise(500), [5.0])
    less = []
    for seed in range(12):
        a, b = np.random.default_rng(seed).permutation(len(dictionary))[:2].tolist()
        (path,) = region_paths([dictionary], dictionary, a, b, pairs=60, seed=seed).paths
        if path.hops > 0:
            less.append(path.hops - np.mean(path.nulls[PAIRS].hops))
    assert abs(np.mean(less)) < 3 * np.std(less) / np.sqrt(len(less)) + 0.2


def test_paths_by_means_leave_out_regions_without_members():
    vectors = noise(300)
    calibration = ex.calibrate(vectors, [6.0])
    dictionary = ex.partition(vectors, calibration, membership="census")
    assert (dictionary.counts > 0).all()
    lone = replace(dictionary.members, counts=dictionary.counts.copy())
    means = np.asarray(dictionary.means).copy()
    means[4] = np.nan
    dictionary = replace(dictionary, members=replace(lone, means=means))
    (path,) = region_paths([dictionary], dictionary, 0, 8, basis="mean", pairs=5).paths
    assert 4 not in path.regions
    (path,) = region_paths([dictionary], dictionary, 0, 4, basis="mean", pairs=5).paths
    assert path.hops == -1


def test_the_same_call_gives_the_same_paths(three):
    one, other = (region_paths(three, three[0], 0, 3, pairs=5, seed=2) for _ in range(2))
    assert one == other


def test_graphs_that_are_kept_give_the_same_paths(three):
    graphs = [RegionGraph.of(np.asarray(d.exemplars), 2) for d in three]
    one, other = (
        region_paths(three, three[1], 1, 6, neighbours=2, pairs=4, graphs=given)
        for given in (graphs, None)
    )
    assert one == other


def test_a_reading_without_texts_is_the_region(three):
    found = reading(three[0], 2)
    assert (found.region, found.text, found.promoted) == (2, "", ())
    assert reading(replace(three[0], contexts=None), 2).region == 2


def test_what_is_no_pair_is_refused(three):
    with pytest.raises(ValueError, match="to itself"):
        region_paths(three, three[0], 2, 2)
    with pytest.raises(ValueError, match="to itself"):
        region_paths(three, three[0], -1, len(three[0]) - 1)
    with pytest.raises(ValueError, match="does not exist"):
        region_paths(three, three[0], 0, 10**6)
    for name in ("neighbours", "pairs", "draws"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            region_paths(three, three[0], 0, 1, **{name: 0})
