"""The pictures' geometry, beside brute force: splats, slices, codes, order, maps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exemplars.explorer import slices, sphere
from exemplars.explorer.columns import distances_in_thresholds, nearest_others
from exemplars.explorer.offsets import excerpt_of, utf16_length, utf16_offsets
from exemplars.explorer.pages import nearest_to
from exemplars.explorer.slices import cut, hull_cells, spread
from exemplars.explorer.sphere import (
    NotDrawableError,
    from_octahedral,
    make_sphere,
    neighbours_kept,
    principal_axes,
    splat_radii,
    to_octahedral,
    unit,
)
from exemplars.members import HISTOGRAM_BINS, MemberStatistics
from synthetic import exemplars, members_of

PIXELS = 2000


def on_the_front(n, seed=0):
    """(n, 3) points where an orthographic picture of the sphere has pixels."""
    rng = np.random.default_rng(seed)
    radius, angle = np.sqrt(rng.random(n)) * 0.999, 2 * np.pi * rng.random(n)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return np.c_[x, y, np.sqrt(1 - x * x - y * y)]


def splat_ids(pixels, points, radius):
    """What depth-tested splats draw: the nearest point among those whose splat covers a pixel."""
    found = np.full(len(pixels), -1)
    for start in range(0, len(pixels), 200):
        chord = np.linalg.norm(pixels[start : start + 200, None] - points[None], axis=2)
        depth = np.where(chord <= radius, chord, np.inf)
        nearest = depth.argmin(axis=1)
        covered = np.isfinite(depth[np.arange(len(depth)), nearest])
        found[start : start + 200] = np.where(covered, nearest, -1)
    return found


@pytest.mark.parametrize("k", [4, 50, 3000])
def test_splats_draw_the_nearest_projected_exemplar(k):
    rows = exemplars(k, 24, seed=k, coincident=min(k // 4, 5) if k > 4 else 0)
    made = make_sphere(rows, np.arange(k))
    pixels = on_the_front(PIXELS)
    drawn = splat_ids(pixels, made.points, made.radius)
    assert (drawn >= 0).all()  # no hole
    chord = np.linalg.norm(pixels[:, None] - made.points[None], axis=2)
    brute = chord.argmin(axis=1)
    same_place = (made.points[drawn] == made.points[brute]).all(axis=1)
    assert same_place.mean() >= 0.99
    rows_ = np.arange(len(pixels))
    assert np.abs(chord[rows_, drawn] - chord[rows_, brute]).max() < 1e-6


@pytest.mark.parametrize("level", sphere.LEVELS[:1])
def test_a_prefix_of_the_order_draws_itself_without_holes(level):
    made = make_sphere(exemplars(3000, 16), np.arange(3000))
    points = made.points[made.order[:level]]
    pixels = on_the_front(500)
    drawn = splat_ids(pixels, points, made.level_radius[level])
    chord = np.linalg.norm(pixels[:, None] - points[None], axis=2)
    assert (drawn >= 0).all()
    assert np.abs(chord[np.arange(500), drawn] - chord.min(axis=1)).max() < 1e-6


def test_radii_reach_all_corners_of_random_cells():
    points = unit(np.random.default_rng(0).standard_normal((80, 3)))
    radius, drawn = splat_radii(points)
    assert drawn.all()
    pixels = spread(20_000)
    chord = np.linalg.norm(pixels[:, None] - points[None], axis=2)
    owner = chord.argmin(axis=1)
    reach = np.zeros(80)
    np.maximum.at(reach, owner, chord[np.arange(len(pixels)), owner])
    assert (radius >= reach).all()
    assert (radius <= reach + 0.05).all()


def test_points_in_one_hemisphere_and_on_a_grid_have_cells_that_cover_the_sphere():
    rng = np.random.default_rng(1)
    cap = unit(np.c_[rng.standard_normal((40, 2)) * 0.3, np.ones(40)])
    cube = unit(np.array(list(itertools.product([-1.0, 1.0], repeat=3))))
    for points in (cap, cube):
        radius, drawn = splat_radii(points)
        assert drawn.all()
        pixels = spread(5000)
        covered = np.linalg.norm(pixels[:, None] - points[None], axis=2) <= radius
        nearest = np.linalg.norm(pixels[:, None] - points[None], axis=2).argmin(axis=1)
        assert covered[np.arange(5000), nearest].all()


def test_coincident_regions_get_a_stand_in_at_their_place():
    rows = exemplars(300, 12, coincident=20)
    made = make_sphere(rows, np.arange(300))
    hidden = made.stand_ins[:, 0]
    assert len(hidden) >= 20
    assert (made.radius[hidden] == 0).all()
    assert (made.radius[made.stand_ins[:, 1]] > 0).all()
    apart = np.linalg.norm(
        made.points[made.stand_ins[:, 0]] - made.points[made.stand_ins[:, 1]], axis=1
    )
    assert apart.max() < 1e-5


@pytest.mark.parametrize(
    "rows",
    [
        np.eye(1, 8), np.eye(3, 8), np.eye(2, 8)[[0, 1, 0, 1, 0]], np.eye(3, 8)[[0, 1, 2, 0, 1]],
        np.tile(np.eye(1, 8), (6, 1)), np.zeros((0, 8)), np.eye(2)[[0, 1, 0, 1]],
    ],
)  # fmt: skip
def test_what_spans_no_sphere_is_said_in_a_sentence(rows):
    with pytest.raises(NotDrawableError, match="see the list"):
        make_sphere(rows.astype(np.float32), np.ones(len(rows), np.int64))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_octahedral_codes_are_good_to_a_millionth(seed):
    points = unit(np.random.default_rng(seed).standard_normal((50, 3)))
    points[:6] = np.concatenate([np.eye(3), -np.eye(3)])
    codes = to_octahedral(points)
    assert np.abs(codes).max() <= sphere.OCTAHEDRAL
    assert np.linalg.norm(from_octahedral(codes) - points, axis=1).max() < 1e-6
    assert np.array_equal(from_octahedral(to_octahedral(from_octahedral(codes))).round(6),
                          from_octahedral(codes).round(6))  # fmt: skip


def test_the_order_of_detail_is_a_permutation_whose_prefixes_are_spread():
    made = make_sphere(exemplars(2000, 16), np.arange(2000))
    assert sorted(made.order.tolist()) == list(range(2000))
    shown = set(made.stand_ins[:, 0].tolist())
    assert not shown & set(made.order[: 2000 - len(shown)].tolist())
    far = np.linalg.norm(
        spread(500)[:, None] - made.points[made.order[:200]][None], axis=2
    ).min(axis=1).mean()  # fmt: skip
    largest = np.argsort(-np.arange(2000))[:200]
    by_size = np.linalg.norm(spread(500)[:, None] - made.points[largest][None], axis=2)
    assert far < by_size.min(axis=1).mean()


def test_principal_axes_are_those_of_the_covariance():
    rows = exemplars(900, 20, seed=3)
    mean, axes, shares = principal_axes(rows)
    centered = rows.astype(float) - rows.mean(axis=0)
    _, sizes, exact = np.linalg.svd(centered, full_matrices=False)
    assert np.allclose(shares, (sizes**2 / (sizes**2).sum())[: len(shares)], rtol=1e-3)
    assert np.allclose(np.abs((axes[:3] * exact[:3]).sum(axis=1)), 1, atol=1e-2)
    assert np.allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-5)
    assert (axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] > 0).all()
    assert np.array_equal(axes, principal_axes(rows)[1])
    assert np.allclose(mean, rows.mean(axis=0), atol=1e-6)


def test_neighbours_are_kept_in_three_dimensions_and_lost_in_many():
    flat = unit(np.random.default_rng(0).standard_normal((400, 3))).astype(np.float32)
    assert neighbours_kept(flat, flat.astype(float)) == (1,)
    rows = unit(np.random.default_rng(0).standard_normal((400, 64))).astype(np.float32)
    assert neighbours_kept(rows, make_sphere(rows, np.ones(400)).points)[0] < 0.3
    assert np.isnan(neighbours_kept(flat[:5], flat[:5].astype(float))).all()


def test_how_many_neighbours_the_map_keeps_is_counted_on_the_map():
    rows = exemplars(250, 16)
    made = make_sphere(rows, np.ones(250, np.int64))
    xy = sphere.unrolled(made.points) / 65535.0
    xy[:, 1] /= sphere.MAP_ASPECT
    apart = ((xy[:, None] - xy[None]) ** 2).sum(axis=2)
    similar = rows.astype(float) @ rows.T.astype(float)
    np.fill_diagonal(apart, np.inf)
    np.fill_diagonal(similar, -np.inf)
    kept = [
        len(set(np.argsort(-similar[k])[:10]) & set(np.argsort(apart[k])[:10])) for k in range(250)
    ]
    assert made.neighbours_kept_flat == pytest.approx(np.mean(kept) / 10, abs=2e-3)
    assert made.neighbours_kept_flat < made.neighbours_kept  # the map is cut at its edge


def bases(rows):
    rng = np.random.default_rng(0)
    yield slices.through(rows[rng.choice(len(rows), 3, replace=False)])
    yield slices.around(rows, 5, nearest_to(1 - rows @ rows[5], 5, slices.PORTRAIT))
    yield slices.random_basis(rows.shape[1], 3)
    yield principal_axes(rows)[1][:3]


@pytest.mark.parametrize("width", [3, 48])
def test_a_slice_shows_the_nearest_exemplar_of_all_dimensions(width):
    rows = exemplars(1500, width, seed=2, coincident=30)
    for basis in bases(rows):
        found = cut(rows, basis, 0.6)
        y = unit(np.random.default_rng(4).standard_normal((PIXELS, 3)))
        height = y @ found.points.T
        shown = found.regions[height.argmax(axis=1)]
        cosines = (y @ basis).astype(np.float32) @ rows.T
        true = cosines.argmax(axis=1)
        two = np.sort(cosines, axis=1)[:, -2:]
        tie = two[:, 1] - two[:, 0] <= 1e-5
        assert (shown == true)[~tie].all()
        exact = cosines[np.arange(PIXELS), shown] >= two[:, 1] - 1e-5
        assert exact.all()


def test_what_a_slice_covers_is_what_random_directions_find():
    rows = exemplars(400, 24, seed=5)
    basis = slices.random_basis(24, 0)
    for theta in (0.3, 0.6, 0.9):
        found = cut(rows, basis, theta)
        y = unit(np.random.default_rng(6).standard_normal((20_000, 3))).astype(np.float32)
        cosines = (y @ basis) @ rows.T
        covered = (cosines.max(axis=1) >= 1 - theta).mean()
        assert abs(found.covered - covered) < 0.02
        area = np.bincount(cosines.argmax(axis=1), minlength=400)[found.regions] / 20_000
        assert np.abs(found.area - area).max() < 0.02
        assert found.area.sum() == pytest.approx(1)


def test_caps_hold_the_cells_of_a_slice():
    rows = exemplars(800, 32, seed=6)
    for basis in bases(rows):
        found = cut(rows, basis, 0.6)
        y = spread(20_000)
        owner = (y @ found.points.T).argmax(axis=1)
        away = np.linalg.norm(y - found.caps[owner, :3], axis=1)
        assert (away <= found.caps[owner, 3] + 1e-9).all()
        assert np.allclose(np.linalg.norm(found.caps[:, :3], axis=1), 1)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((1, 3)), np.zeros((5, 3)), np.eye(3), np.eye(3)[:2], np.eye(3)[[0, 1, 0, 1, 2]],
        np.c_[np.random.default_rng(0).standard_normal((20, 2)), np.zeros(20)],
        np.c_[np.arange(9.0), np.arange(9.0), np.arange(9.0)],
        np.array(list(itertools.product([0.0, 1.0], repeat=3))),
        np.c_[np.random.default_rng(0).standard_normal((30, 2)),
              1e-12 * np.random.default_rng(1).standard_normal(30)],
    ],
)  # fmt: skip
def test_the_hull_of_flat_and_coincident_points_still_has_every_owner(points):
    corners, caps = hull_cells(points)
    y = spread(3000)
    height = y @ points.T
    assert np.allclose(height.max(axis=1), (y @ points[corners].T).max(axis=1), atol=1e-9)
    assert len(caps) == len(corners)


def test_a_basis_through_directions_in_one_plane_is_refused():
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="one plane"):
        slices.through(np.stack([rows[0], rows[1], rows[0]]))
    with pytest.raises(ValueError, match="3 directions"):
        slices.through(rows[:2])
    with pytest.raises(ValueError, match="two other regions"):
        slices.around(rows[:2], 0, np.array([1]))
    with pytest.raises(ValueError, match="three different"):
        slices.components(rows, [0, 0, 1])


def test_a_basis_keeps_the_first_direction_and_spans_all_three():
    rows = exemplars(50, 10)[:3]
    basis = slices.through(rows)
    assert np.allclose(basis @ basis.T, np.eye(3), atol=1e-6)
    assert np.allclose(basis[0], rows[0], atol=1e-6)
    assert np.allclose(rows @ basis.T @ basis, rows, atol=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 15))
def test_the_nearest_are_those_of_a_stable_sort(seed, n, k):
    distances = np.random.default_rng(seed).integers(0, 4, n).astype(np.float32)  # many ties
    region = seed % n
    order = np.argsort(distances, kind="stable")
    expected = order[order != region][:k]
    assert nearest_to(distances, region, k).tolist() == expected.tolist()


def test_the_map_keeps_places_apart_and_inside():
    points = spread(4000)
    xy = sphere.unrolled(points)
    north = sphere.unrolled(np.array([[0.0, 0.0, 1.0]]))[0]
    assert north[1] == 0
    assert len(np.unique(xy, axis=0)) > 3990
    # An equal-area projection: a tenth of the sphere is a tenth of the map.
    inside = np.histogram2d(xy[:, 1], xy[:, 0], 64, [[0, 65536]] * 2)[0][8:56, 16:48]
    assert inside.std() / inside.mean() < 0.8


def test_distances_in_thresholds_are_those_of_the_members():
    rng = np.random.default_rng(0)
    theta, k = 0.5, 6
    distances = [rng.random(200) * theta * 1.5 for _ in range(k)]
    histogram = np.stack(
        [np.histogram(d / theta * 32, np.arange(HISTOGRAM_BINS + 1))[0] for d in distances]
    ).astype(np.uint32)
    members = MemberStatistics(
        counts=np.full(k, 200), means=np.eye(k, dtype=np.float32), coherence=np.ones(k, np.float32),
        distance_sums=np.array([d.sum() for d in distances]),
        distance_square_sums=np.array([(d**2).sum() for d in distances]), histogram=histogram,
    )  # fmt: skip
    mean, deviation, p95 = distances_in_thresholds(members, theta)
    assert np.allclose(mean, [d.mean() / theta for d in distances], rtol=1e-5)
    assert np.allclose(deviation, [d.std() / theta for d in distances], rtol=1e-4)
    exact = [np.percentile(d, 95) / theta for d in distances]
    assert np.abs(p95 - exact).max() <= 1 / 32 + 1e-6


def test_regions_without_members_have_no_distances():
    members = members_of(exemplars(5, 4))
    empty = MemberStatistics(
        counts=np.zeros(5, np.int64), means=members.means, coherence=members.coherence,
        distance_sums=np.zeros(5), distance_square_sums=np.zeros(5),
        histogram=np.zeros_like(members.histogram),
    )  # fmt: skip
    for found in distances_in_thresholds(empty, 0.5):
        assert np.isnan(found).all()


def test_nearest_others_are_those_of_brute_force():
    rows = exemplars(700, 9)
    nearest, cosine = nearest_others(rows)
    product = rows @ rows.T
    np.fill_diagonal(product, -np.inf)
    assert np.array_equal(nearest, product.argmax(axis=1))
    assert np.allclose(cosine, product.max(axis=1))
    assert nearest_others(rows[:1])[0].tolist() == [-1]


@given(st.text(max_size=30), st.text(max_size=5), st.text(max_size=9))
def test_spans_in_utf16_find_the_token_again(before, token, after):
    shown = excerpt_of(before, token, after)
    units = shown["text"].encode("utf-16-le", "surrogatepass")
    start, end = shown["span"]
    assert units[2 * start : 2 * end] == token.encode("utf-16-le", "surrogatepass")
    assert utf16_length(shown["text"]) == len(units) // 2
    places = utf16_offsets(shown["text"], np.arange(len(shown["text"]) + 1))
    assert places[-1] == len(units) // 2
    assert places[len(before)] == start
