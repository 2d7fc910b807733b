"""The map's cells and layouts, beside NumPy."""

import sys
import time
import types

import numpy as np
import pytest

from exemplars.explorer import layouts
from exemplars.explorer.flat import cell_arrays, flat_radii
from exemplars.explorer.sphere import MAP_ASPECT
from explorer_server import NEEDED
from synthetic import synthetic
from test_explorer_api import API, Asked, opened

pytest.importorskip("fastapi", reason=NEEDED)
HEIGHT = 1 / MAP_ASPECT


def scattered(k, seed=0, clustered=False):
    """Places on a map of width 1."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(0, 1, (k, 2))
    if clustered:
        found = 0.5 + 0.02 * rng.standard_normal((k, 2))
        found[: k // 10] = rng.uniform(0, 1, (k // 10, 2))
    return np.clip(found, 0, 1) * [1, HEIGHT]


def uncovered(places, radius, n=20_000, seed=1):
    """Points of the map that the nearest place's disc does not reach."""
    from scipy.spatial import cKDTree

    points = np.random.default_rng(seed).uniform(0, 1, (n, 2)) * [1, HEIGHT]
    points[:4] = [[0, 0], [1, 0], [0, HEIGHT], [1, HEIGHT]]
    apart, nearest = cKDTree(places).query(points)
    return (apart > radius[nearest] + 1e-7).sum()


@pytest.mark.parametrize("k", [1, 2, 4, 300, 5000])
@pytest.mark.parametrize("clustered", [False, True])
def test_discs_cover_the_cells_of_the_map(k, clustered):
    places = scattered(k, clustered=clustered)
    radius, drawn = flat_radii(places, HEIGHT)
    assert drawn.all()
    assert uncovered(places, radius) == 0


def test_radii_are_those_of_the_cells_and_no_wider():
    places = scattered(6000, seed=3)
    radius, _ = flat_radii(places, HEIGHT)
    # All discs together are a few maps, whatever lies at the edge: there is no cell without end.
    assert (np.pi * radius.astype(float) ** 2).sum() < 5 * HEIGHT
    assert radius.max() < 0.1
    points = np.random.default_rng(0).uniform(0, 1, (400_000, 2)) * [1, HEIGHT]
    from scipy.spatial import cKDTree

    apart, nearest = cKDTree(places).query(points)
    farthest = np.zeros(len(places))
    np.maximum.at(farthest, nearest, apart)
    inside = (places > 0.1 * HEIGHT).all(axis=1) & (places < 0.9 * HEIGHT).all(axis=1)
    assert np.median(farthest[inside] / radius[inside]) > 0.75


def test_places_on_one_line_and_on_a_grid_have_cells():
    line = np.c_[np.linspace(0, 1, 2500), np.full(2500, HEIGHT / 2)]
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, HEIGHT, 50)), -1)
    for places in (line[:1500], grid.reshape(-1, 2)):
        radius, drawn = flat_radii(places, HEIGHT)
        assert drawn.all()
        assert uncovered(places, radius) == 0


def test_regions_at_one_place_are_drawn_as_the_one_of_most_members():
    places = scattered(400)
    places[10] = places[20] = places[30]
    counts = np.arange(400)
    found = cell_arrays(places, HEIGHT, counts, np.arange(400, dtype=np.uint32))
    assert sorted(map(tuple, found["rep"].tolist())) == [(10, 30), (20, 30)]
    assert found["radius"][30] > 0
    assert found["radius"][[10, 20]].tolist() == [0, 0]
    assert uncovered(places, found["radius"].clip(found["radius"][30])) == 0


def test_a_prefix_of_the_order_has_radii_of_its_own():
    places = scattered(2600, seed=5)
    order = np.random.default_rng(0).permutation(2600).astype(np.uint32)
    found = cell_arrays(places, HEIGHT, np.ones(2600, np.int64), order)
    assert found["lod_radius_2000"].shape == (2000,)
    assert uncovered(places[order[:2000]], found["lod_radius_2000"]) == 0
    assert "lod_radius_20000" not in found


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    found = Asked(
        opened(folder, synthetic(120, 12, coincident=2), "made"),
        opened(folder, synthetic(3, 12), "three"),
    )
    yield found
    found.explorer.close()


def test_the_cells_of_the_map_are_served_once_made(asked, monkeypatch):
    fingerprint = asked("d/made")["fingerprint"]
    found, about = asked.arrays(f"d/made/cells/unrolled/{fingerprint}")
    layout, _ = asked.arrays(f"d/made/layout/unrolled/{fingerprint}")
    assert about["fingerprint"] == fingerprint
    places = layout["xy"] / 65535 * [1, HEIGHT]
    stand_in = dict(found["rep"].tolist())
    assert set(stand_in) == set(np.flatnonzero(found["radius"] == 0).tolist())
    drawn = np.flatnonzero(found["radius"])
    assert uncovered(places[drawn], found["radius"][drawn]) == 0
    monkeypatch.setattr(layouts, "cell_arrays", None)
    asked.arrays(f"d/made/cells/unrolled/{fingerprint}")
    view = asked.explorer.views["made"]
    view._remembered.clear()  # as after a new start: they are on the disk
    again, _ = asked.arrays(f"d/made/cells/unrolled/{fingerprint}")
    assert np.array_equal(again["radius"], found["radius"])


@pytest.mark.parametrize("kind", ["layout", "cells"])
def test_what_cannot_be_mapped_says_why(asked, kind):
    for slug, name, status, said in (
        ("made", "globe", 404, "choose unrolled, umap"),
        ("made", "umap", 409, "pip install umap-learn"),
        ("three", "unrolled", 409, "4 regions or more"),
    ):
        fingerprint = asked(f"d/{slug}")["fingerprint"]
        found = asked(f"d/{slug}/{kind}/{name}/{fingerprint}", status=status)
        assert said in found["error"]
    asked(f"d/made/{kind}/unrolled/0123456789abcdef", status=409)


def test_umap_is_offered_where_it_is_installed(tmp_path, monkeypatch):
    fits = []

    class Umap:
        """Stands for umap-learn: the first two coordinates."""

        def __init__(self, **options):
            fits.append(options)

        def fit_transform(self, rows):
            return rows[:, :2] * [4, 1]

    module = types.ModuleType("umap")
    module.UMAP = Umap
    module.__spec__ = types.SimpleNamespace(name="umap")
    monkeypatch.setitem(sys.modules, "umap", module)
    made = synthetic(60, 12)
    asked = Asked(opened(tmp_path, made))
    about = asked("d/made")
    assert [(one["name"], one["status"]) for one in about["layouts"]] == [
        ("unrolled", "ready"), ("umap", "available"),
    ]  # fmt: skip
    path = f"d/made/layout/umap/{about['fingerprint']}"
    deadline = time.monotonic() + 30
    while asked.http.get(f"{API}/{path}").status_code == 202:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found, said = asked.arrays(path)
    xy = found["xy"].astype(float)
    for axis, scale in ((0, 4), (1, 1)):
        expected = made.exemplars[:, axis].astype(float) * scale
        assert np.corrcoef(xy[:, axis], expected)[0, 1] > 0.9999
    assert xy.min() > 0.01 * 65535
    assert np.ptp(xy[:, 0]) == pytest.approx(0.96 * 65535, abs=2)
    assert np.ptp(xy[:, 1]) < np.ptp(xy[:, 0])  # one scale for both
    assert said["aspect"] == 1
    assert not said["globe"]
    assert 0 < said["nn10"] < 1
    cells, _ = asked.arrays(path.replace("layout", "cells"))
    assert cells["radius"].shape == (60,)
    assert fits == [{"n_neighbors": 15, "metric": "cosine", "random_state": 0, "n_jobs": 1}]
    asked.explorer.close()
    kept = list(tmp_path.glob(".made.explorer/*/layout-umap.safetensors"))
    assert len(kept) == 1
