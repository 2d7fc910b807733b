"""Who founds, who joins, worked by hand; what holds for any stream is in test_properties."""

import numpy as np
import pytest

from exemplars.clustering import LeaderClustering
from exemplars.geometry import to_directions

ONE_DEGREE = np.pi / 180


def at_degrees(*degrees):
    angle = np.array(degrees) * ONE_DEGREE
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def within(degrees):
    """The cosine distance that this angle is."""
    return 1.0 - float(np.cos(degrees * ONE_DEGREE))


def add(u, threshold, membership="online", rows=None):
    clustering = LeaderClustering(u.shape[1], threshold, membership)
    return clustering, clustering.add(u, np.arange(len(u)) if rows is None else np.array(rows))


def test_the_first_row_founds_and_a_row_too_far_from_all_founds():
    u = at_degrees(0, 40, 25, 90, 65, 61)
    clustering, joined = add(u, within(30))
    assert joined.founded.tolist() == [True, True, False, True, False, False]
    assert joined.region.tolist() == [0, 1, 1, 2, 1, 1]
    assert clustering.exemplar_rows.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(clustering.exemplars, u[[0, 1, 3]])
    angles = np.arccos(1 - joined.distance) / ONE_DEGREE
    np.testing.assert_allclose(angles, [0, 0, 15, 0, 25, 21], atol=1e-4)
    assert joined.distance[joined.founded].tolist() == [0, 0, 0]


def test_an_earlier_row_keeps_its_region_when_a_nearer_exemplar_comes():
    _, joined = add(at_degrees(0, 25, 40, 25), within(30))
    assert joined.region.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("membership", "regions"),
    [
        ("online", [0, 1, 1, 1, 2, 2]),
        ("batch:6", [0, 1, 0, 1, 2, 2]),  # row 0 counts as old and covers 25°
        ("batch:3", [0, 1, 0, 1, 2, 1]),  # and 40°, of the batch before, covers 62°
        ("batch:2", [0, 1, 1, 1, 2, 1]),
        ("batch:1", [0, 1, 1, 1, 2, 2]),
        ("batch:5", [0, 1, 0, 1, 2, 2]),  # the last row is alone in the second batch
    ],
)
def test_membership_by_batches_prefers_what_was_founded_before_the_batch(membership, regions):
    # founders at 0°, 40°, 80°; the row at 25° lies nearest to 40°, the row at 62° to 80°
    u = at_degrees(0, 40, 25, 55, 80, 62)
    clustering, joined = add(u, within(30), membership)
    assert clustering.exemplar_rows.tolist() == [0, 1, 4]
    assert joined.region.tolist() == regions


def test_in_the_first_batch_only_the_first_row_counts_as_founded_before_it():
    u = at_degrees(0, 40, 25, 45)
    assert add(u, within(30), "batch:4")[1].region.tolist() == [0, 1, 0, 1]
    assert add(u, within(30), "batch:4", [6, 7, 9, 11])[1].region.tolist() == [0, 1, 1, 1]
    assert add(u, within(30), "batch:4", [5, 6, 7, 9])[1].region.tolist() == [0, 1, 0, 1]


def test_equal_similarities_go_to_the_earlier_exemplar():
    u = np.array([[1, 0], [0, 1], [0.70710677, 0.70710677]], np.float32)
    assert add(u, 0.5)[1].region.tolist() == [0, 1, 0]
    assert add(u[[1, 0, 2]], 0.5)[1].region.tolist() == [0, 1, 0]


def test_four_planted_clusters_give_four_regions():
    rng = np.random.default_rng(0)
    label = np.concatenate([np.arange(4), rng.integers(0, 4, 996)])
    x = 5.0 * np.eye(12)[label] + 0.1 * rng.standard_normal((1000, 12))
    u, _ = to_directions(x.astype(np.float32), np.zeros(12, np.float32))
    clustering, joined = add(u, 0.1)
    assert clustering.exemplar_rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(joined.region, label)


def test_with_a_threshold_of_two_everything_is_one_region():
    u = at_degrees(0, 90, 180, 270)
    assert add(u, 2.0)[1].region.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("membership", ["online", "batch:50"])
def test_clustering_goes_on_from_its_state_to_the_same_end(membership):
    rng = np.random.default_rng(2)
    u, _ = to_directions(
        rng.standard_normal((1500, 12)).astype(np.float32), np.zeros(12, np.float32)
    )
    rows = np.arange(1500)
    whole, joined = add(u, 0.25, membership)
    assert whole.n_regions > 600  # the state is larger than what is allocated at first
    first, _ = add(u[:1225], 0.25, membership)
    state = {name: array.copy() for name, array in first.state().items()}
    again = LeaderClustering(12, 0.25, membership)
    again.restore(state)
    rest = again.add(u[1225:], rows[1225:])
    np.testing.assert_array_equal(rest.region, joined.region[1225:])
    np.testing.assert_array_equal(rest.distance, joined.distance[1225:])
    for name, array in whole.state().items():
        assert again.state()[name].tobytes() == array.tobytes()


def test_adding_nothing_changes_nothing():
    clustering, joined = add(np.empty((0, 3), np.float32), 0.5)
    assert clustering.n_regions == len(joined.region) == len(joined.distance) == 0
    assert joined.founded.dtype == np.bool_


@pytest.mark.parametrize("threshold", [0, -0.1, 2.1, float("nan")])
def test_a_threshold_that_is_no_distance_is_refused(threshold):
    with pytest.raises(ValueError, match=r"expected a cosine distance in \(0, 2\]"):
        LeaderClustering(3, threshold)


@pytest.mark.parametrize(
    "membership", ["", "final", "census", "batch", "batch:", "batch:0", "batch:-3", "batch:1.5"]
)
def test_an_unknown_membership_is_refused(membership):
    expected = 'expected "online" or "batch:B" with B rows'
    with pytest.raises(ValueError, match=f'membership is "{membership}", {expected}'):
        LeaderClustering(3, 0.5, membership)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="directions have width 2, the exemplars 3; use rows of"):
        LeaderClustering(3, 0.5).add(at_degrees(0), np.array([0]))
