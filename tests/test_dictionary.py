"""A partition of arrays: made, asked, and measured. What holds for any is in test_properties."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

import oracle
from exemplars.calibration import Calibration, calibrate
from exemplars.dictionary import partition, take_census, usable_directions
from exemplars.errors import ActivationError
from exemplars.members import Members

WIDTH = 12


def rows(seed, n, width=WIDTH):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).standard_normal((30, width))
    return (3 + centers[rng.integers(0, 30, n)] + 0.3 * rng.standard_normal((n, width))).astype(
        "f4"
    )


@pytest.fixture(scope="module")
def calibration():
    return calibrate(rows(1, 3000), [2, 10])


@pytest.fixture(scope="module")
def made(calibration):
    return partition(rows(2, 4000), calibration, 2)


def with_empty_regions(made, empty):
    """As if a census over other texts had left these regions without members."""
    means, counts = made.means.copy(), made.counts.copy()
    means[empty], counts[empty] = np.nan, 0
    sums = np.where(counts == 0, 0.0, made.members.distance_sums)
    return replace(
        made, members=replace(made.members, means=means, counts=counts, distance_sums=sums)
    )


# --- partition -----------------------------------------------------------------------------------


def test_a_partition_says_what_it_is(made, calibration):
    k = len(made)
    assert k > 100
    assert made.n_regions == k == len(made.exemplars) == len(made.exemplar_rows)
    assert (made.width, made.rows, made.percentile, made.membership) == (WIDTH, 4000, 2, "online")
    assert made.threshold == calibration.threshold(2)
    assert made.center is calibration.center
    assert made.counts.sum() == 4000
    assert made.means.shape == (k, WIDTH)
    assert ((made.coherence > 0) & (made.coherence <= 1)).all()
    assert repr(made) == f"Dictionary({k} regions from 4,000 rows, width 12, p = 2, θ = " + (
        f"{made.threshold:.4f})"
    )
    assert made.basis("mean") is made.means
    assert made.basis() is made.exemplars
    with pytest.raises(FrozenInstanceError):
        made.rows = 5


def test_vectors_may_be_numpy_or_torch_whole_or_in_batches_of_any_shape(calibration):
    tensor = torch.from_numpy(rows(3, 600)).to(torch.bfloat16)
    x = tensor.float().numpy()
    whole = partition(x, calibration, 2)
    for given_as in (
        tensor, tensor.reshape(6, 100, WIDTH), x.astype(np.float64), x.reshape(20, 30, WIDTH),
        list(tensor.split(77)), iter(tensor.split(77)), (b for b in tensor.split(77)),
    ):  # fmt: skip
        other = partition(given_as, calibration, 2)
        assert other.exemplars.tobytes() == whole.exemplars.tobytes()
        assert other.means.tobytes() == whole.means.tobytes()
        assert other.contexts.table().equals(whole.contexts.table())


def test_a_census_may_read_an_iterator_and_a_sequence(calibration):
    x = rows(4, 300)
    whole = partition(x, calibration, 2, membership="census")
    assert whole.membership == "census"
    region, _ = whole.assign(x)
    np.testing.assert_array_equal(whole.counts, np.bincount(region))
    for given_as in (iter([x[:50], x[50:]]), [x[:50], x[50:]], torch.from_numpy(x)):
        other = partition(given_as, calibration, 2, membership="census")
        np.testing.assert_array_equal(other.counts, whole.counts)
        assert other.census is other.members


def test_rows_are_numbered_before_any_is_dropped(calibration):
    x = rows(5, 200)
    limited = replace(calibration, norm_limit=30.0)
    sinks, lost = [0, 17], [1, 40, 199]
    x[0] *= 100
    c = calibration.center * np.float32(12 / np.linalg.norm(calibration.center))
    limited = replace(limited, center=c)
    x[17], x[18] = 2.6 * c, -2.4 * c  # long, but near c; and far from c, but not long
    x[lost] = c
    both = partition(x, limited, 2)
    assert dict(both.dropped) == {"norm outlier": 2, "no direction": 3}
    assert both.rows == 200
    assert both.counts.sum() == 195
    kept = np.setdiff1d(np.arange(200), sinks + lost)
    without = partition(x[kept], limited, 2)
    np.testing.assert_array_equal(both.exemplar_rows, kept[without.exemplar_rows])
    assert both.exemplars.tobytes() == without.exemplars.tobytes()
    directions, numbers, dropped = usable_directions(x, 1000, limited)
    np.testing.assert_array_equal(numbers, 1000 + kept)
    assert directions.tobytes() == oracle.directions(x[kept], limited.center)[0].tobytes()
    assert dropped["norm outlier"].tolist() == [1000, 1017]
    assert dropped["no direction"].tolist() == [1001, 1040, 1199]


def test_the_seed_changes_the_sampled_members_and_nothing_else(calibration):
    x = rows(6, 2000)
    a, b = (partition(x, calibration, 10, seed=seed) for seed in (0, 1))
    for name, array in vars(a.members).items():
        assert array.tobytes() == vars(b.members)[name].tobytes()
    ranks = [d.contexts.table().column("nearest_rank").to_pylist() for d in (a, b)]
    assert ranks[0] != ranks[1]  # other sampled rows lie among the same nearest ones
    sampled = [{c.row for c in d.region(0).contexts if c.sample_rank >= 0} for d in (a, b)]
    assert sampled[0] != sampled[1]


def test_the_percentile_may_be_left_out_if_there_is_one(calibration):
    x = rows(7, 50)
    only = replace(calibration, thresholds={2: calibration.threshold(2)})
    assert partition(x, only).percentile == 2.0
    with pytest.raises(ValueError, match="the calibration has percentiles 2, 10; say which"):
        partition(x, calibration)
    with pytest.raises(ValueError, match="percentile 5 is not in this calibration"):
        partition(x, calibration, 5)


def test_an_unknown_membership_or_another_width_is_refused(calibration):
    with pytest.raises(ValueError, match='membership is "final", expected "online" or "batch:B"'):
        partition(rows(0, 5), calibration, 2, membership="final")
    with pytest.raises(ValueError, match="vectors have width 3, the calibration 12; use rows of"):
        partition(np.ones((5, 3)), calibration, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named_by_its_number_in_the_stream(made, calibration, bad):
    x = rows(8, 20_000)
    x[9000, 3] = bad
    for read in (
        made.assign,
        made.distances,
        made.encode,
        lambda x: partition(x, calibration, 2),
        lambda x: partition([x[:100], x[100:]], calibration, 2),
        lambda x: take_census(made, [x[:8990], x[8990:]]),
    ):
        with pytest.raises(ActivationError, match="row 9000 has a NaN or infinite component"):
            read(x)


def test_no_rows_make_an_empty_dictionary_that_answers(calibration):
    empty = partition(np.empty((0, WIDTH)), calibration, 2)
    assert len(empty) == empty.rows == empty.contexts.table().num_rows == 0
    region, distance = empty.assign(rows(9, 2))
    assert region.tolist() == [-1, -1]
    assert np.isnan(distance).all()
    assert empty.distances(rows(9, 2)).shape == (2, 0)
    assert empty.encode(rows(9, 2), "signed").shape == (2, 0)
    assert np.isnan(empty.metrics()["coverage"])
    with pytest.raises(ValueError, match="region 0 does not exist"):
        empty.region(0)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows():
    """Peak memory over 50,000 and over 200,000 rows with the same 300 exemplars."""
    program = """
import sys
from pathlib import Path
import numpy as np
from exemplars.calibration import Calibration
from exemplars.dictionary import partition

centers = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
calibration = Calibration(np.zeros(64, np.float32), {1.0: 0.1}, 1, 2048)

def stream(n):
    rng = np.random.default_rng(1)
    for start in range(0, n, 1000):
        noise = 0.05 * rng.standard_normal((1000, 64), dtype=np.float32)
        yield centers[rng.integers(0, 300, 1000)] + noise

made = partition(stream(int(sys.argv[1])), calibration)
status = Path("/proc/self/status").read_text()
print(made.rows, len(made), status.split("VmHWM:")[1].split()[0])
"""
    found = []
    for n in (50_000, 200_000):
        done = subprocess.run(
            [sys.executable, "-c", program, str(n)], capture_output=True, text=True, timeout=300
        )
        if "/proc/self/status" in done.stderr:
            pytest.skip("this system does not tell a process its peak memory")
        assert done.returncode == 0, done.stderr
        found.append([int(word) for word in done.stdout.split()])
    assert [line[:2] for line in found] == [[50_000, 300], [200_000, 300]]
    few, many = found[0][2], found[1][2]  # kB; the further rows alone would be 38,400
    assert many < 1.2 * few
    assert many - few < 8_000


# --- asking --------------------------------------------------------------------------------------


def test_assign_takes_torch_and_numpy_with_any_leading_dimensions(made):
    tensor = torch.from_numpy(rows(10, 60)).to(torch.bfloat16)
    region, distance = made.assign(tensor)
    assert (region.dtype, distance.dtype) == (np.int64, np.float32)
    for given_as in (
        tensor.float().numpy(), tensor.reshape(3, 4, 5, WIDTH), tensor.float().double(),
        tensor.float().numpy().reshape(2, 30, WIDTH), tensor.float().requires_grad_(),
    ):  # fmt: skip
        again, again_distance = made.assign(given_as)
        np.testing.assert_array_equal(again, region)
        np.testing.assert_array_equal(again_distance, distance)
    one = made.assign(tensor[:1])
    assert (one[0].shape, one[0][0]) == ((1,), region[0])
    assert made.assign(tensor[:0])[0].shape == (0,)


def test_assign_gives_a_row_at_the_center_no_region(made):
    x = np.concatenate([rows(11, 2), made.center[None], rows(12, 1)])
    region, distance = made.assign(x)
    assert (region == -1).tolist() == [False, False, True, False]
    assert np.isnan(distance).tolist() == [False, False, True, False]
    assert np.isnan(made.distances(x)).any(axis=1).tolist() == [False, False, True, False]
    zero = np.zeros((1, WIDTH), np.float32)  # the zero vector is not the center
    assert made.assign(zero)[0][0] >= 0


def test_an_exemplar_lies_in_its_own_region_at_no_distance(made):
    region, distance = made.assign(made.center + 10 * made.exemplars)
    np.testing.assert_array_equal(region, np.arange(len(made)))
    assert distance.max() < 1e-6


def test_distances_are_to_every_exemplar(made):
    x = rows(13, 50)
    u, _ = oracle.directions(x, made.center)
    expected = 1 - oracle.canonical_matrix(u, made.exemplars)
    np.testing.assert_allclose(made.distances(x), expected, atol=1e-6)
    _, distance = made.assign(x)
    np.testing.assert_allclose(made.distances(x).min(axis=1), distance, atol=1e-6)
    assert made.distances(x).dtype == np.float32


@pytest.mark.parametrize("ask", ["assign", "distances", "encode"])
def test_vectors_of_another_width_are_refused(made, ask):
    with pytest.raises(ValueError, match="vectors have width 5, this dictionary 12; read them at"):
        getattr(made, ask)(np.ones((2, 5)))


def test_a_region_is_a_row_of_everything(made):
    k = 7
    region = made.region(k)
    np.testing.assert_array_equal(region.exemplar, made.exemplars[k])
    np.testing.assert_array_equal(region.mean, made.means[k])
    np.testing.assert_array_equal(region.center, made.center)
    assert (region.index, region.count) == (k, made.counts[k])
    assert region.exemplar_row == made.exemplar_rows[k]
    assert region.coherence == made.coherence[k]
    assert region.mean_distance == made.members.distance_sums[k] / made.counts[k]
    assert region.threshold == made.threshold
    assert list(region.contexts) == made.contexts.region(k)
    assert region.direction() is region.exemplar
    assert region.direction("mean") is region.mean
    assert made.region(-1).index == len(made) - 1
    assert made.region(np.int64(k)).index == k
    with pytest.raises(ValueError, match='basis is "all", expected "exemplar" or "mean"'):
        region.direction("all")
    for missing in (len(made), -len(made) - 1):
        with pytest.raises(ValueError, match=f"region {missing} does not exist; this dictionary"):
            made.region(missing)


def test_a_region_without_contexts_or_members_is_still_a_region(made):
    bare = replace(with_empty_regions(made, [3]), contexts=None)
    assert bare.region(3).contexts == ()
    assert np.isnan(bare.region(3).mean_distance)
    assert bare.region(3).count == 0


def test_the_distance_matrix_is_one_minus_the_cosine(made):
    for basis in ("exemplar", "mean"):
        e = made.basis(basis).astype(np.float64)
        matrix = made.distance_matrix(basis=basis)
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, 1 - e @ e.T, atol=1e-6)
        assert matrix.min() >= 0
        np.testing.assert_allclose(
            made.distance_matrix([5, 2], basis), 1 - e[[5, 2]] @ e.T, atol=1e-6
        )
    off = made.distance_matrix()[~np.eye(len(made), dtype=bool)]
    assert (off > made.threshold - 1e-6).all()


@pytest.mark.parametrize("basis", ["exemplar", "mean"])
def test_neighbours_are_the_nearest_other_regions_in_order(made, basis):
    e = made.basis(basis).astype(np.float64)
    for k in (0, 5, -1):
        distance = 1 - e @ e[k]
        distance[k] = np.inf
        near, found = made.neighbours(k, 6, basis)
        np.testing.assert_array_equal(near, np.argsort(distance)[:6])
        np.testing.assert_allclose(found, np.sort(distance)[:6], atol=1e-6)
    near, found = made.neighbours(3, 10_000, basis)
    assert sorted(near) == [k for k in range(len(made)) if k != 3]
    assert (np.diff(found) >= 0).all()


def test_a_region_without_members_is_nobodys_neighbour_by_its_mean(made):
    empty = [0, 4, 9]
    other = with_empty_regions(made, empty)
    near, found = other.neighbours(2, 10_000, "mean")
    assert sorted(near) == [k for k in range(len(made)) if k not in {2, *empty}]
    assert np.isfinite(found).all()
    assert len(other.neighbours(4, 5, "mean")[0]) == 0
    assert len(other.neighbours(4, 5)[0]) == 5


@pytest.mark.parametrize("basis", ["exemplar", "mean"])
def test_shared_neighbours_are_nearer_to_both_than_these_are_to_each_other(made, basis):
    e = made.basis(basis).astype(np.float64)
    d = 1 - e @ e.T
    pairs = [(0, int(d[0].argmax())), (3, 8), (1, 1), (-1, 2)]
    found_any = False
    for a, b in pairs:
        i, j = a % len(made), b % len(made)
        expected = [k for k in range(len(made)) if k not in (i, j)
                    and d[i, k] < d[i, j] and d[j, k] < d[i, j]]  # fmt: skip
        expected.sort(key=lambda k, i=i, j=j: d[i, k] + d[j, k])
        found, mean = made.shared_neighbours(a, b, basis)
        assert found.tolist() == expected
        np.testing.assert_allclose(mean, (d[i, expected] + d[j, expected]) / 2, atol=1e-6)
        found_any |= len(expected) > 3
    assert found_any


def plain_metrics(exemplars, counts, distance_sums, threshold):
    """method.md §3, formula by formula."""
    e = exemplars.astype(np.float64)
    s = e @ e.T
    np.fill_diagonal(s, -np.inf)
    many = [k for k in range(len(e)) if counts[k] >= 2]
    sizes = sorted(int(counts[k]) for k in many)
    n, total = len(sizes), sum(sizes)
    inner = np.array([distance_sums[k] / counts[k] for k in many])
    outer = np.array([1 - s[k].max() for k in many])
    entropy = -sum(x / total * np.log(x / total) for x in sizes)
    return {
        "n_regions": len(e),
        "singletons": sum(c == 1 for c in counts),
        "empty": sum(c == 0 for c in counts),
        "coverage": total / counts.sum(),
        "mean_size": np.mean(sizes),
        "median_size": np.median(sizes),
        "max_size": max(sizes),
        "std_size": np.std(sizes),
        "gini": 2 * sum(i * x for i, x in enumerate(sizes, 1)) / (n * total) - (n + 1) / n,
        "effective_regions": np.exp(entropy),
        "utilisation": np.exp(entropy) / n,
        "mean_distance": inner.mean(),
        "median_distance": np.median(inner),
        "mean_nearest_exemplar": outer.mean(),
        "median_nearest_exemplar": np.median(outer),
        "separation_ratio": outer.mean() / threshold,
        "silhouette": np.mean((outer - inner) / np.maximum(outer, inner)),
        "max_exemplar_similarity": s.max(),
        "mean_exemplar_similarity": s[np.isfinite(s)].mean(),
    }


@pytest.mark.parametrize("n", [40, 4000])
def test_metrics_are_their_formulas(calibration, n):
    made = partition(rows(14, n), calibration, 2)
    metrics = made.metrics()
    expected = plain_metrics(
        made.exemplars, made.counts, made.members.distance_sums, made.threshold
    )
    assert metrics["singletons"] > 0 or n > 40
    assert metrics.keys() == expected.keys()
    assert metrics == pytest.approx(expected, abs=2e-6)
    assert all(type(value) is float for value in metrics.values())


def test_metrics_of_many_regions_cross_the_blocks_they_are_computed_in():
    x = np.random.default_rng(0).standard_normal((2600, 6)).astype(np.float32)
    made = partition(x, Calibration(np.zeros(6, np.float32), {1.0: 0.03}, 1, 2048))
    assert len(made) > 1100
    expected = plain_metrics(made.exemplars, made.counts, made.members.distance_sums, 0.03)
    assert made.metrics() == pytest.approx(expected, abs=2e-6)


def test_metrics_of_a_census_leave_its_empty_regions_out(made):
    census = take_census(made, [rows(15, 25)]).statistics()
    counted = made.with_census(census)
    assert (census.counts == 0).any()
    assert counted.metrics("census") == pytest.approx(
        plain_metrics(made.exemplars, census.counts, census.distance_sums, made.threshold), abs=2e-6
    )
    assert counted.metrics("build") == made.metrics()
    assert counted.metrics("census")["empty"] == (census.counts == 0).sum()
    with pytest.raises(ValueError, match="this dictionary has no census; run `exemplars census`"):
        made.metrics("census")


def test_metrics_of_singletons_alone_are_what_can_be_said_of_them(calibration):
    made = partition(rows(0, 1), calibration, 2)
    assert made.metrics() == {"n_regions": 1, "singletons": 1, "empty": 0, "coverage": 0}
    assert [len(part) for part in made.neighbours(0)] == [0, 0]


def test_a_census_over_other_texts_leaves_regions_empty_and_counts_every_row(made):
    x = rows(16, 30)
    census = take_census(made, [x[:10], x[10:]])
    assert isinstance(census, Members)
    found = census.statistics()
    assert found.counts.sum() == 30
    empty = found.counts == 0
    assert empty.any()
    np.testing.assert_array_equal(np.isnan(found.means).all(axis=1), empty)
    np.testing.assert_array_equal(np.isnan(found.coherence), empty)
    copy = made.with_census(found)
    assert copy.census is found
    assert made.census is None
    seen = partition(x, made.calibration, 2).contexts
    assert made.with_census(found, seen).census_contexts is seen
    assert made.with_census(found, seen).contexts is copy.contexts is made.contexts
