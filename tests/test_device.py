"""Screening with torch: on the processor, through the code that a device runs."""

import numpy as np
import pytest
import torch

from exemplars.clustering import LeaderClustering
from exemplars.geometry import canonical_similarity
from exemplars.nearest import Audit, ExemplarIndex, device, nearest
from exemplars.nearest.device import DeviceScreen


def directions(n, width, seed=0, spread=0.3):
    """Unit rows about a few common axes."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, width)) * np.arange(1, width + 1) ** -0.5
    rows = centers[rng.integers(0, 20, n)] + spread * rng.standard_normal((n, width)) / width**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def search(screen, rows, exemplars):
    region, similarity = np.full(len(rows), -1), np.full(len(rows), -np.inf)
    screen.offer(rows, exemplars, region, similarity)
    return region, similarity


def assert_equal(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("width", [3, 96, 576])
def test_answers_are_those_of_the_processor(half, width):
    rows, exemplars = directions(700, width), directions(300, width, seed=1)
    screen = DeviceScreen("cpu", width, half)
    for first in (0, 100, 101):
        screen.append(exemplars[first : {0: 100, 100: 101, 101: 300}[first]])
    assert_equal(search(screen, rows, exemplars), nearest(rows, exemplars))


@pytest.mark.parametrize("half", [False, True])
def test_tiles_do_not_show(half, monkeypatch):
    monkeypatch.setattr(device, "_ROWS", 17)
    monkeypatch.setattr(device, "_EXEMPLARS", 13)
    rows, exemplars = directions(60, 48), directions(50, 48, seed=1)
    exemplars[31] = exemplars[5]  # a tie across tiles
    rows[3] = exemplars[5]
    screen = DeviceScreen("cpu", 48, half)
    screen.append(exemplars)
    found = search(screen, rows, exemplars)
    assert_equal(found, nearest(rows, exemplars))
    assert found[0][3] == 5


@pytest.mark.parametrize("half", [False, True])
def test_rows_that_leave_too_much_open_are_searched_on_the_host(half, monkeypatch):
    monkeypatch.setattr(device, "_MOST_OPEN", 4)
    exemplars = np.repeat(directions(2, 32, seed=2), 30, axis=0)
    rows = np.concatenate([exemplars[::15], directions(40, 32)])
    screen = DeviceScreen("cpu", 32, half)
    screen.append(exemplars)
    seen = []
    offer = device.dense.offer
    monkeypatch.setattr(device.dense, "offer", lambda *a: seen.append(len(a[0])) or offer(*a))
    found = search(screen, rows, exemplars)
    assert seen, "no row was searched on the host"
    assert_equal(found, nearest(rows, exemplars))


@pytest.mark.parametrize("half", [False, True])
def test_bounds_lie_above_similarities(half):
    rows = np.concatenate([directions(300, 96), np.eye(96, dtype=np.float32)])
    exemplars = np.concatenate([directions(300, 96, seed=1), -np.eye(96, dtype=np.float32)])
    screen = DeviceScreen("cpu", 96, half)
    screen.append(exemplars)
    regions = np.random.default_rng(0).permutation(len(exemplars))
    slack = screen.upper_bounds(rows, regions) - canonical_similarity(
        rows, exemplars, np.arange(len(rows)), regions
    )
    assert slack.min() > 0
    assert slack.max() < 0.01


def test_small_components_stay_within_the_bound():
    rows = directions(50, 64)
    rows[:, 5:] *= np.float32(2.0**-30)  # below what float16 can hold
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    screen = DeviceScreen("cpu", 64, half=True)
    screen.append(rows)
    assert_equal(search(screen, rows, rows), nearest(rows, rows))


def test_what_a_row_has_already_stands_against_an_equal_one():
    exemplars = directions(8, 32)
    screen = DeviceScreen("cpu", 32)
    screen.append(exemplars)
    region = np.array([2, 6])
    similarity = canonical_similarity(exemplars, exemplars, np.array([4, 4]), np.array([4, 4]))
    screen.offer(exemplars[[4, 4]], exemplars, region, similarity)
    assert region.tolist() == [2, 4]


def test_clustering_on_a_device_is_the_same():
    rows = directions(900, 64, spread=0.8)
    on_host, on_device = LeaderClustering(64, 0.2), LeaderClustering(64, 0.2, screen="cpu")
    a, b = (c.add(rows, np.arange(900)) for c in (on_host, on_device))
    assert 20 < on_host.n_regions < 800
    for field in ("region", "distance", "founded"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_an_audit_sees_the_bounds_of_a_device():
    rows, audit = directions(400, 32), Audit()
    ExemplarIndex(32, "cpu").nearest(rows, rows[:100], audit=audit)
    assert audit.bounded == audit.pairs > 0
    assert 0 < audit.smallest_slack < 0.01


def test_a_device_that_is_not_there_is_refused():
    for name in ("gpu", "meta"):
        with pytest.raises(ValueError, match=f'screen is "{name}", which is none of auto, dense'):
            ExemplarIndex(8, name)


def test_imprecise_products_are_refused():
    screen = DeviceScreen("cpu", 8)
    screen.append(directions(4, 8))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ValueError, match='precision "medium", which breaks the bounds'):
            search(screen, directions(4, 8), directions(4, 8))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_device_that_multiplies_badly_is_refused(monkeypatch):
    product = DeviceScreen._product
    monkeypatch.setattr(DeviceScreen, "_product", lambda *a: product(*a) * 1.01)
    with pytest.raises(ValueError, match=r'products on "cpu" err by 1\.0e-02, expected .* at most'):
        DeviceScreen("cpu", 16)
