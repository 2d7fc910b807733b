"""What holds for any stream: a dictionary is a function of rows in their order, to the bit."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import oracle
from exemplars.calibration import Calibration
from exemplars.clustering import LeaderClustering
from exemplars.dictionary import partition, take_census
from exemplars.geometry import to_directions
from exemplars.members import Members, fixed_point

PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
MEMBERSHIPS = ("online", "batch:1", "batch:7", "batch:16", "batch:1000")
KINDS = (
    "random", "clustered", "duplicated", "lattice", "between two", "one huge component", "opposite",
)  # fmt: skip
WIDTHS = (1, 2, 3, 7, 8, 9, 64, 577, 4101)
seeds = st.integers(0, 2**32)


def raw_rows(kind, seed, n, width):
    """(n, width) float32 vectors of one kind of difficulty."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width))
    if kind in ("clustered", "duplicated"):
        centers = rng.standard_normal((max(1, n // 6), width))
        noise = 0.2 if kind == "clustered" else 0.0
        x = centers[rng.integers(0, len(centers), n)] + noise * x
    if kind == "lattice":  # small integers: many similarities are equal
        x = rng.integers(-2, 3, (n, width)).astype(float)
        x[~x.any(axis=1)] = 1.0
    if kind == "between two":  # rows as near to one of two others as to the other, but for rounding
        x[1:] = (x[0] / np.linalg.norm(x[0]) + x[1:2] / np.linalg.norm(x[1:2])) / 2
        x[1:] += 10.0 ** rng.uniform(-9, -1, (n - 1, 1)) * rng.standard_normal((n - 1, width))
        x[1 % n] = rng.permutation(x[0])
    if kind == "one huge component":
        x[:, rng.integers(width)] *= 1e5
    if kind == "opposite":
        x[1::2] = -x[: n // 2 * 2 : 2]
    return x.astype(np.float32)


def unit_rows(kind, seed, n, width):
    return to_directions(raw_rows(kind, seed, n, width), np.zeros(width, np.float32))[0]


@st.composite
def streams(draw, widths=WIDTHS):
    """Directions, and a threshold that is, or almost is, the distance of two of them."""
    width = draw(st.sampled_from(widths))
    n = draw(st.integers(1, 90 if width < 500 else 30 if width < 4000 else 12))
    u = unit_rows(draw(st.sampled_from(KINDS)), draw(seeds), n, width)
    i, j = draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))
    s = oracle.canonical_matrix(u[i : i + 1], u[j : j + 1])[0, 0]
    s += draw(st.sampled_from((-1, 0, 1))) * np.spacing(s)
    threshold = 1.0 - s
    towards = draw(st.sampled_from((None, 0.0, 2.0)))
    if towards is not None:
        threshold = np.nextafter(threshold, towards)
    if not 1e-5 < threshold <= 2:
        threshold = draw(st.sampled_from((1e-5, 0.02, 0.3, 0.7, 1.0, 1.4, 2.0)))
    note(f"{n} rows of width {width}, threshold {threshold!r}")
    return u, float(threshold)


def cluster(u, threshold, membership="online", cuts=(), rows=None, seed=3):
    """Everything a stream comes to, when it arrives in the parts that `cuts` makes."""
    rows = np.arange(len(u)) if rows is None else rows
    clustering = LeaderClustering(u.shape[1], threshold, membership)
    members = Members(u.shape[1], threshold, seed)
    edges = [0, *sorted(cuts), len(u)]
    parts, singletons = [], []
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        joined = clustering.add(u[part], rows[part])
        parts.append(joined)
        singletons.append(
            members.add(
                fixed_point(u[part]), joined.region, joined.distance, rows[part],
                clustering.n_regions,
            )
        )  # fmt: skip
    return {
        "exemplars": clustering.exemplars,
        "exemplar_rows": clustering.exemplar_rows,
        "region": np.concatenate([p.region for p in parts]),
        "distance": np.concatenate([p.distance for p in parts]),
        "founded": np.concatenate([p.founded for p in parts]),
        "singletons": np.concatenate(singletons),
        **members.state(),
    }


def assert_same_bytes(found, expected):
    assert found.keys() == expected.keys()
    different = [
        name
        for name, array in expected.items()
        if (array.dtype, array.shape) != (found[name].dtype, found[name].shape)
        or array.tobytes() != found[name].tobytes()
    ]
    assert different == []


# --- the exemplars, and who joins them -----------------------------------------------------------


@PROPERTY
@given(streams(), st.sampled_from(MEMBERSHIPS))
def test_clustering_is_what_the_definition_says_row_by_row(stream, membership):
    u, threshold = stream
    found = cluster(u, threshold, membership)
    batch = int(membership.partition(":")[2] or 0)
    founders, region, distance = oracle.leader(u, threshold, batch=batch)
    np.testing.assert_array_equal(found["exemplar_rows"], founders)
    assert found["exemplars"].tobytes() == u[founders].tobytes()
    np.testing.assert_array_equal(found["region"], region)
    np.testing.assert_array_equal(found["distance"], distance)
    np.testing.assert_array_equal(np.flatnonzero(found["founded"]), founders)


@PROPERTY
@given(streams(), st.sampled_from(MEMBERSHIPS), st.lists(st.integers(0, 90), max_size=8))
def test_a_stream_in_any_parts_is_the_same_stream(stream, membership, cuts):
    u, threshold = stream
    whole = cluster(u, threshold, membership)
    cuts = [min(cut, len(u)) for cut in cuts]
    assert_same_bytes(cluster(u, threshold, membership, cuts), whole)
    assert_same_bytes(cluster(u, threshold, membership, range(1, len(u))), whole)


@PROPERTY
@given(streams())
def test_exemplars_are_farther_than_the_threshold_from_each_other_and_members_within_it(stream):
    u, threshold = stream
    found = cluster(u, threshold)
    s = oracle.canonical_matrix(found["exemplars"], found["exemplars"])
    assert (s[np.triu_indices(len(s), 1)] < 1.0 - threshold).all()
    own = found["exemplars"][found["region"]]
    s = np.array(
        [oracle.canonical_matrix(x[None], e[None])[0, 0] for x, e in zip(u, own, strict=True)]
    )
    assert ((s >= 1.0 - threshold) | found["founded"]).all()
    assert found["counts"].sum() == len(u)
    assert (found["counts"] >= 1).all()
    assert (np.diff(found["exemplar_rows"]) > 0).all()


@PROPERTY
@given(streams(), st.sampled_from(MEMBERSHIPS))
def test_membership_changes_the_statistics_and_never_the_exemplars(stream, membership):
    u, threshold = stream
    online, other = cluster(u, threshold), cluster(u, threshold, membership)
    for name in ("exemplars", "exemplar_rows", "founded"):
        assert online[name].tobytes() == other[name].tobytes()
    assert other["counts"].sum() == len(u)


@PROPERTY
@given(streams(), st.data())
def test_a_duplicate_joins(stream, data):
    u, threshold = stream
    again = data.draw(st.lists(st.integers(0, len(u) - 1), min_size=1, max_size=10))
    found = cluster(np.concatenate([u, u[again]]), threshold)
    assert not found["founded"][len(u) :].any()
    assert found["exemplars"].tobytes() == cluster(u, threshold)["exemplars"].tobytes()


@PROPERTY
@given(st.sampled_from(("random", "clustered", "between two")), seeds, st.sampled_from(WIDTHS[2:]))
def test_a_direction_exactly_at_the_threshold_joins_and_one_bit_beyond_founds(kind, seed, width):
    first = unit_rows("random", seed, 1, width)[0]
    other = first + np.float32(0.5) * unit_rows(kind, seed + 1, 1, width)[0]
    u = np.stack([first, to_directions(other[None], np.zeros(width, np.float32))[0][0]])
    s = oracle.canonical(u[0], u[1])
    assert 0.5 <= s < 1.0  # there 1 − s and 1 − (1 − s) are exact
    assert cluster(u, 1.0 - s)["founded"].tolist() == [True, False]
    assert cluster(u, 1.0 - s)["distance"].tolist() == [0.0, 1.0 - s]
    assert cluster(u, 1.0 - np.nextafter(s, 0))["founded"].tolist() == [True, False]
    assert cluster(u, 1.0 - np.nextafter(s, 1))["founded"].tolist() == [True, True]


@PROPERTY
@given(streams(), st.integers(1, 20), st.data())
def test_batches_are_counted_in_rows_of_the_stream_dropped_ones_included(stream, batch, data):
    u, threshold = stream
    skipped = data.draw(st.lists(st.integers(0, 9), min_size=len(u), max_size=len(u)))
    rows = np.cumsum(np.array(skipped) + 1) - 1
    found = cluster(u, threshold, f"batch:{batch}", rows=rows)
    founders, region, _ = oracle.leader(u, threshold, rows, batch)
    np.testing.assert_array_equal(found["exemplar_rows"], rows[founders])
    np.testing.assert_array_equal(found["region"], region)
    cuts = range(0, len(u), 3)
    assert_same_bytes(cluster(u, threshold, f"batch:{batch}", cuts, rows), found)


@pytest.fixture(scope="module")
def long_stream():
    """9,000 rows, more founders than are decided at once, and repeats of the nearly equal."""
    rng = np.random.default_rng(11)
    centers = rng.standard_normal((400, 16))
    x = centers[rng.integers(0, 400, 9000)] + 0.45 * rng.standard_normal((9000, 16))
    x[5000:5100] = x[:100]
    return to_directions(x.astype(np.float32), np.zeros(16, np.float32))[0]


@pytest.mark.parametrize("membership", ["online", "batch:1000", "batch:4500"])
def test_a_long_stream_is_what_the_definition_says_and_the_same_in_any_parts(
    long_stream, membership
):
    whole = cluster(long_stream, 0.2, membership)
    assert len(whole["exemplars"]) > 1024
    assert whole["founded"][:4096].sum() > 512
    batch = int(membership.partition(":")[2] or 0)
    founders, region, distance = oracle.leader(long_stream[:4500], 0.2, batch=batch)
    first = whole["exemplar_rows"] < 4500
    np.testing.assert_array_equal(whole["exemplar_rows"][first], founders)
    np.testing.assert_array_equal(whole["region"][:4500], region)
    np.testing.assert_array_equal(whole["distance"][:4500], distance)
    random_cuts = np.cumsum(np.random.default_rng(1).integers(1, 900, 40))
    for cuts in (
        range(1, 9000), range(7, 9000, 7), range(4096, 9000, 4096), random_cuts[random_cuts < 9000],
    ):  # fmt: skip
        assert_same_bytes(cluster(long_stream, 0.2, membership, cuts), whole)


def test_the_number_of_threads_does_not_matter(long_stream):
    wide = unit_rows("clustered", 1, 1500, 577)
    for u, threshold in ((long_stream, 0.2), (wide, 0.15)):
        results = []
        for threads in (1, 2):
            with threadpool_limits(threads):
                results.append(cluster(u, threshold))
        assert_same_bytes(*results)


# --- members -------------------------------------------------------------------------------------


@PROPERTY
@given(streams((3, 8, 65)), st.data())
def test_members_merge_in_any_order_and_grouping_to_what_they_are_together(stream, data):
    u, threshold = stream
    found = cluster(u, threshold)
    n, k = len(u), len(found["exemplars"])
    rows = np.arange(n)

    def some(chosen):
        members = Members(u.shape[1], threshold, seed=3)
        known = int(found["region"][chosen].max(initial=-1)) + 1
        members.add(
            fixed_point(u[chosen]), found["region"][chosen], found["distance"][chosen],
            rows[chosen], data.draw(st.integers(known, k)),
        )  # fmt: skip
        return members

    owner = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    parts = [
        some(data.draw(st.permutations(np.flatnonzero(owner == p).tolist()))) for p in range(5)
    ]
    while len(parts) > 1:  # any two, in either direction
        into = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        into.merge(parts.pop(data.draw(st.integers(0, len(parts) - 1))))
        parts.append(into)
    merged = parts[0]
    merged.grow(k)
    together = {name: found[name] for name in merged.state()}
    assert_same_bytes(merged.state(), together)
    assert merged.singletons == found["singletons"][-1] == (found["counts"] == 1).sum()


@PROPERTY
@given(streams((3, 8, 65)), st.sampled_from(MEMBERSHIPS), seeds)
def test_statistics_are_what_their_names_say(stream, membership, seed):
    u, threshold = stream
    found = cluster(u, threshold, membership, seed=seed)
    rows, k = np.arange(len(u)), len(found["exemplars"])
    expected = oracle.statistics(u, found["region"], found["distance"], rows, k, threshold, seed)
    members = Members(u.shape[1], threshold, seed)
    members.add(fixed_point(u), found["region"], found["distance"], rows, k)
    got, kept = members.statistics(), members.kept_rows()
    for i, want in enumerate(expected):
        n = want["count"]
        assert got.counts[i] == n
        rounding = n * 2.0**-31
        assert abs(got.distance_sums[i] - want["distance_sum"]) <= rounding + 1e-12
        assert abs(got.distance_square_sums[i] - want["distance_square_sum"]) <= rounding + 1e-12
        length = np.linalg.norm(want["sum"])
        assert abs(got.coherence[i] - length / n) < 2e-7
        if length > 1e-3:
            np.testing.assert_allclose(got.means[i], want["sum"] / length, atol=2e-6 / length * n)
        np.testing.assert_array_equal(got.histogram[i], want["histogram"])
        near = list(
            zip(kept.nearest_distance[i].tolist(), kept.nearest_row[i].tolist(), strict=True)
        )
        assert near == want["nearest"] + [(np.inf, -1)] * (10 - len(want["nearest"]))
        far = list(
            zip((-kept.farthest_distance[i]).tolist(), kept.farthest_row[i].tolist(), strict=True)
        )
        assert far == want["farthest"] + [(np.inf, -1)] * (10 - len(want["farthest"]))
        sample = kept.sample_row[i].tolist()
        assert sample == want["sample"] + [-1] * (30 - len(want["sample"]))
        np.testing.assert_array_equal(
            kept.sample_distance[i, : len(want["sample"])], found["distance"][want["sample"]]
        )


# --- raw vectors, from end to end ----------------------------------------------------------------


@st.composite
def raw_streams(draw):
    """Raw rows, some of which are the center, next to it, or zero, and a calibration by hand."""
    width = draw(st.sampled_from((1, 3, 8, 9, 64)))
    n = draw(st.integers(1, 60))
    x = raw_rows(draw(st.sampled_from(KINDS)), draw(seeds), n, width)
    center = np.random.default_rng(draw(seeds)).standard_normal(width).astype(np.float32)
    center *= np.float32(draw(st.sampled_from((0.0, 1.0, 1e4))))
    x += center
    x[draw(st.lists(st.integers(0, n - 1), max_size=5))] = center
    x[draw(st.lists(st.integers(0, n - 1), max_size=5))] = 0
    near = draw(st.lists(st.integers(0, n - 1), max_size=3))
    x[near] = np.nextafter(center, np.float32(np.inf))
    threshold = draw(st.sampled_from((0.01, 0.2, 0.5, 0.9, 1.3)))
    return x, Calibration(center, {10.0: threshold}, n, 2048)


def assert_same_dictionary(a, b):
    assert_same_bytes(
        {"exemplars": a.exemplars, "rows": a.exemplar_rows, **vars(a.members)},
        {"exemplars": b.exemplars, "rows": b.exemplar_rows, **vars(b.members)},
    )
    assert a.contexts.table().equals(b.contexts.table())
    assert (a.rows, dict(a.dropped)) == (b.rows, dict(b.dropped))


@PROPERTY
@given(raw_streams(), st.sampled_from((*MEMBERSHIPS, "census")))
def test_a_partition_is_what_the_definition_says(stream, membership):
    x, calibration = stream
    threshold = calibration.threshold(10)
    made = partition(x, calibration, membership=membership)
    u, rows = oracle.directions(x, calibration.center)
    batch = int(membership.partition(":")[2] or 0)
    founders, region, distance = oracle.leader(u, threshold, rows, batch)
    np.testing.assert_array_equal(made.exemplar_rows, rows[founders])
    assert made.exemplars.tobytes() == u[founders].tobytes()
    assert made.rows == len(x)
    assert dict(made.dropped) == {"norm outlier": 0, "no direction": len(x) - len(u)}
    if membership == "census" and len(u):
        region, distance = oracle.census(u, u[founders])
    np.testing.assert_array_equal(made.counts, np.bincount(region, minlength=len(founders)))
    sums = np.bincount(region, weights=distance, minlength=len(founders))
    np.testing.assert_allclose(made.members.distance_sums, sums, rtol=0, atol=1e-7)


@PROPERTY
@given(raw_streams(), st.sampled_from((*MEMBERSHIPS, "census")), st.lists(st.integers(0, 60)))
def test_a_partition_does_not_depend_on_the_batches_its_rows_come_in(stream, membership, cuts):
    x, calibration = stream
    whole = partition(x, calibration, membership=membership)
    edges = [0, *sorted(min(cut, len(x)) for cut in cuts), len(x)]
    batches = [x[a:b] for a, b in pairwise(edges)]
    assert_same_dictionary(partition(batches, calibration, membership=membership), whole)
    assert_same_dictionary(partition(iter(batches), calibration, membership=membership), whole)


@PROPERTY
@given(raw_streams(), seeds)
def test_assign_gives_the_nearest_of_all_and_nothing_to_a_row_without_direction(stream, seed):
    x, calibration = stream
    made = partition(x, calibration)
    if len(made) == 0:
        return
    more = raw_rows("random", seed, 20, x.shape[1]) + calibration.center
    held_out = np.concatenate([x, more.astype(np.float32)])
    region, distance = made.assign(held_out)
    u, kept = oracle.directions(held_out, calibration.center)
    expected_region, expected_distance = oracle.census(u, made.exemplars)
    np.testing.assert_array_equal(region[kept], expected_region)
    np.testing.assert_array_equal(distance[kept], expected_distance.astype(np.float32))
    lost = np.setdiff1d(np.arange(len(held_out)), kept)
    assert (region[lost] == -1).all()
    assert np.isnan(distance[lost]).all()


@PROPERTY
@given(raw_streams())
def test_a_census_of_the_build_rows_counts_each_once_and_again_the_same(stream):
    x, calibration = stream
    made = partition(x, calibration)
    if len(made) == 0:
        return
    first, again = take_census(made, [x]), take_census(made, [x[:7], x[7:]])
    assert_same_bytes(again.state(), first.state())
    counted = first.statistics()
    assert counted.counts.sum() == len(x) - made.dropped["no direction"] == made.counts.sum()
    region, _ = made.assign(x)
    np.testing.assert_array_equal(
        counted.counts, np.bincount(region[region >= 0], minlength=len(made))
    )
    of_census = take_census(made.with_census(counted), [x])
    assert_same_bytes(of_census.state(), first.state())
    taken = partition(x, calibration, membership="census")
    assert_same_bytes(vars(taken.members), vars(counted))
    assert_same_bytes(vars(taken.census), vars(counted))
