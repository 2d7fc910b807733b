"""Two dictionaries in one picture, beside NumPy: B's places on A's sphere, and the bands."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from exemplars.explorer import beside
from exemplars.explorer.sphere import from_octahedral
from explorer_server import NEEDED
from synthetic import HOSTILE, dictionary_of, exemplars, synthetic
from test_explorer_api import API, Asked, opened

pytest.importorskip("fastapi", reason=NEEDED)
D = 16


def drifted(rows, seed=1, scale=0.05):
    """Rows a little elsewhere, in another order; the last tenth is new."""
    rng = np.random.default_rng(seed)
    found = rows + scale * rng.standard_normal(rows.shape).astype(np.float32)
    new = len(rows) // 10
    found[-new:] = rng.standard_normal((new, rows.shape[1]))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found[rng.permutation(len(found))]


def centered_at(dictionary, center, norm=9.0):
    """The same directions about another center."""
    calibration = replace(
        dictionary.calibration,
        center=np.full(dictionary.width, center, np.float32),
        centered_norms=(norm - 1, norm, norm + 1),
    )
    return replace(dictionary, calibration=calibration)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    rows = exemplars(400, D)
    tuned = centered_at(dictionary_of(drifted(rows), seed=1), 0.6)
    made = {
        "base": dictionary_of(rows),
        "tuned": tuned,
        "unknown": replace(tuned, calibration=replace(
            tuned.calibration, centered_norms=(float("nan"),) * 3)),
        "same": dictionary_of(drifted(rows, seed=5), seed=2),
        "three": synthetic(3, D),
        "wide": synthetic(20, D + 1),
    }  # fmt: skip
    found = Asked(*(opened(folder, d, name) for name, d in made.items()))
    found.made = made
    yield found
    found.explorer.close()


def ready(asked, path, **parameters):
    """The answer, once it is there."""
    deadline = time.monotonic() + 60
    while True:
        found = asked.http.get(f"{API}/{path}", params=parameters)
        if found.status_code != 202:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.02)


def arrays(asked, a, b):
    assert ready(asked, "drift/sphere", a=a, b=b).status_code == 200
    return asked.arrays("drift/sphere", a=a, b=b)


def places(asked, a, rows):
    """Where the sphere of A has directions, by hand."""
    of_a = asked.explorer.views[a].sphere
    found = (rows.astype(float) - of_a.mean) @ of_a.axes[:3].T.astype(float)
    return found / np.linalg.norm(found, axis=1, keepdims=True), found


def test_the_regions_of_b_are_where_the_sphere_of_a_has_them(asked):
    found, about = arrays(asked, "base", "same")
    rows = asked.made["same"].exemplars
    points, coordinates = places(asked, "base", rows)
    assert np.allclose(from_octahedral(found["oct"]), points, atol=1e-5)
    assert about["seen"] == "one center"
    share = coordinates.var(axis=0).sum() / rows.astype(float).var(axis=0).sum()
    assert about["variance"] == pytest.approx(share, rel=1e-4)
    own, _ = asked.arrays(f"d/same/sphere/{asked.explorer.views['same'].fingerprint}")
    assert not np.allclose(from_octahedral(own["oct"]), points, atol=0.1)  # another picture


def test_splats_of_b_cover_the_sphere_of_a(asked):
    found, _ = arrays(asked, "base", "same")
    points = from_octahedral(found["oct"])
    rng = np.random.default_rng(0)
    sight = rng.standard_normal((2000, 3))
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    apart = np.linalg.norm(sight[:, None] - points[None], axis=2)
    nearest = apart.argmin(axis=1)
    assert (apart.min(axis=1) <= found["radius"][nearest] + 1e-6).all()


def test_directions_of_another_center_are_moved_to_that_of_a(asked):
    found, about = arrays(asked, "base", "tuned")
    tuned, base = asked.made["tuned"], asked.made["base"]
    raw = tuned.center + 9.0 * tuned.exemplars.astype(float) - base.center
    moved = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.allclose(from_octahedral(found["oct"]), places(asked, "base", moved)[0], atol=1e-4)
    assert about["seen"] == "moved to A's center"
    unmoved = places(asked, "base", tuned.exemplars)[0]
    assert not np.allclose(from_octahedral(found["oct"]), unmoved, atol=1e-2)


def test_without_norms_the_directions_stay_and_it_is_said(asked):
    found, about = arrays(asked, "base", "unknown")
    unmoved = places(asked, "base", asked.made["unknown"].exemplars)[0]
    assert np.allclose(from_octahedral(found["oct"]), unmoved, atol=1e-5)
    assert about["seen"] == "each from its own center"


@pytest.mark.parametrize(
    ("a", "b", "status", "said"),
    [("base", "three", 409, "4 regions or more"), ("three", "base", 409, "4 regions or more"),
     ("base", "wide", 400, "widths differ"), ("base", "none", 404, "no dictionary")],
)  # fmt: skip
def test_a_picture_that_cannot_be_had_says_why(asked, a, b, status, said):
    found = ready(asked, "drift/sphere", a=a, b=b)
    assert found.status_code == status
    assert said in found.json()["error"]


def pairs_of(asked, a, b):
    """By region of A, its partner where the pair is better than chance."""
    assert ready(asked, "drift", a=a, b=b).status_code == 200
    found, _ = asked.arrays("drift/columns", a=a, b=b)
    better = (found["match_b"] >= 0) & (found["match_cos"] > found["match_chance"])
    return {int(i): int(found["match_b"][i]) for i in np.flatnonzero(better)}, found


def check_bands(page, expected, top_left, top_right):
    """The bands and flows of a page are those of a Counter of (from, to) → [regions, members]."""

    def band(group, top):
        return top.index(group) if group in top else len(top) + (0 if group is not None else 1)

    summed = Counter()
    for (left, right), (regions, members) in expected.items():
        i, j = band(left, top_left), band(right, top_right)
        summed[i, j, "regions"] += regions
        summed[i, j, "members"] += members
    found = {}
    for flow in page["flows"]:
        found[flow["from"], flow["to"], "regions"] = flow["regions"]
        found[flow["from"], flow["to"], "members"] = flow["members"]
    assert found == dict(summed)
    for side, axis, top in (("left", 0, top_left), ("right", 1, top_right)):
        kinds = ["region"] * len(top) + ["others", "none"]
        assert [one["kind"] for one in page[side]] == kinds
        assert [one["id"] for one in page[side][:-2]] == top
        for i, one in enumerate(page[side]):
            for what in ("regions", "members"):
                total = sum(n for key, n in summed.items() if key[axis] == i and key[2] == what)
                assert one[what] == total


def largest(expected, *sides):
    """The ten groups of most members, ties to the lower number."""
    total = Counter()
    for key, (_, members) in expected.items():
        for side in sides:
            if key[side] is not None:
                total[key[side]] += members
    return sorted(total, key=lambda k: (-total[k], k))[: beside.BANDS]


def test_without_a_coarser_dictionary_regions_go_to_their_nearest(asked):
    page = ready(asked, "drift/flows", a="base", b="tuned").json()
    _, columns = pairs_of(asked, "base", "tuned")
    counts = asked.made["base"].counts
    expected = {(k, int(j)): (1, int(counts[k])) for k, j in enumerate(columns["best_b"])}
    assert page["by"] == "nearest"
    assert page["of"] is None
    check_bands(page, expected, largest(expected, 0), largest(expected, 1))
    assert sum(one["members"] for one in page["left"]) == counts.sum()
    assert all(one["name"] for one in page["left"][: beside.BANDS])


def test_with_a_coarser_dictionary_pairs_go_from_region_to_region(tmp_path):
    rows, center = exemplars(300, D), 0.5
    made = {
        "a": dictionary_of(rows),
        "b": centered_at(dictionary_of(drifted(rows), seed=1), 0.52),
        "coarse": dictionary_of(exemplars(25, D, seed=9), theta=0.8),
    }
    asked = Asked(*(opened(tmp_path, d, name) for name, d in made.items()))
    page = ready(asked, "drift/flows", a="a", b="b").json()
    partner, _ = pairs_of(asked, "a", "b")
    raw = made["b"].center + 9.0 * made["b"].exemplars.astype(float) - center
    moved = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    coarse = made["coarse"].exemplars.astype(float)
    parent = (rows.astype(float) @ coarse.T).argmax(axis=1), (moved @ coarse.T).argmax(axis=1)
    expected = {}

    def add(left, right, members):
        regions, before = expected.get((left, right), (0, 0))
        expected[left, right] = regions + 1, before + int(members)

    for k in range(300):
        to = partner.get(k)
        add(int(parent[0][k]), None if to is None else int(parent[1][to]), made["a"].counts[k])
    for j in set(range(300)) - set(partner.values()):
        add(None, int(parent[1][j]), made["b"].counts[j])
    assert page["by"] == "parents"
    assert page["of"] == "coarse"
    top = largest(expected, 0, 1)
    check_bands(page, expected, top, top)
    assert len(page["left"]) == beside.BANDS + 2
    # The coarser dictionary itself is no measure of a drift to it.
    other = ready(asked, "drift/flows", a="a", b="coarse").json()
    assert other["by"] == "nearest"
    asked.explorer.close()


def test_names_of_bands_are_the_texts_of_the_corpus(tmp_path):
    made = {"a": synthetic(30, D, hostile=True), "b": synthetic(30, D, seed=1, hostile=True)}
    asked = Asked(*(opened(tmp_path, d, name) for name, d in made.items()))
    page = ready(asked, "drift/flows", a="a", b="b").json()
    assert any(one["name"] in HOSTILE for one in page["left"])
    asked.explorer.close()


def test_what_is_made_in_the_background_is_made_once():
    from exemplars.explorer.background import Background
    from exemplars.explorer.views import NotReadyError

    kept, made = Background("things"), []

    def make():
        made.append(1)
        return len(made)

    def asked_for(key):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                return kept.of(key, make)
            except NotReadyError:
                continue
        raise AssertionError("never made")

    assert [asked_for("x"), asked_for("x"), asked_for("y")] == [1, 1, 2]
    assert kept.made() == {"x": 1, "y": 2}
    kept.close()


def test_the_hull_of_b_is_made_once(asked, monkeypatch):
    arrays(asked, "base", "same")
    monkeypatch.setattr(beside, "sphere_beside", None)
    first, _ = arrays(asked, "base", "same")
    assert len(first["radius"]) == len(asked.made["same"])
