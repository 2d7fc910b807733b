"""Two dictionaries beside each other, and the seed noise that they are held against."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import exemplars as ex
from exemplars.analyses import noise as seeds
from exemplars.analyses.changes import text_overlap
from exemplars.analyses.comparison import compare, largest_share, region_norms
from exemplars.analyses.correspondence import SPACES, Correspondence, rotated, seen_from
from exemplars.analyses.differences import differences
from exemplars.analyses.noise import PairScores, SeedNoise, seed_noise
from exemplars.analyses.overlap import mutual_information
from exemplars.analyses.shared_rows import SharedRows, SiteRows, share_rows
from exemplars.contexts import TableContexts
from exemplars.errors import FormatError, MismatchError, SourceError

WIDTH, CLOUDS = 24, 40


def rows(seed=0, n=2400, shift=None, clouds=CLOUDS):
    """Clouds round fixed points; (N, D) raw, with 10 rows a document."""
    fixed = np.random.default_rng(99).normal(size=(CLOUDS, WIDTH)) * 4
    random = np.random.default_rng(seed)
    which = random.integers(0, clouds, n)
    points = fixed if shift is None else fixed + shift
    vectors = points[which] + random.normal(size=(n, WIDTH)) * 0.7
    return vectors.astype(np.float32), np.arange(n) // 10


def shared(a, b=None, documents=None):
    documents = np.arange(len(a)) // 10 if documents is None else documents
    return SharedRows(a, a if b is None else b, documents, np.arange(len(a)) % 7)


@pytest.fixture(scope="module")
def built():
    vectors, documents = rows()
    calibration = ex.calibrate(vectors, percentiles=[4])
    dictionary = ex.partition(vectors, calibration, 4)
    noise = seed_noise(vectors, documents, calibration, 4, splits=8)
    return vectors, documents, calibration, dictionary, noise


def test_a_dictionary_with_itself_is_the_identity(built):
    vectors, _, _, d, noise = built
    found = compare(d, d, rows=shared(vectors), noise=noise)
    assert set(found.correspondences) == set(SPACES)
    for one in found.correspondences.values():
        assert one.pairs.tolist() == [[k, k] for k in range(len(d))]
        assert one.score == pytest.approx(np.ones(len(d)), abs=1e-6)
        assert set(one.status) == {"persisted"}
        assert one.dropped == one.introduced == 0
        assert one.drift == pytest.approx(0, abs=1e-6)
    assert found.agreement.nmi == pytest.approx(1)
    assert found.agreement.same_partner == 1
    assert found.decisive.beyond_noise is False
    assert found.differences == ()
    assert found.changes == ()


def test_another_draw_of_the_same_clouds_is_within_the_noise_and_other_clouds_are_not(built):
    _, _, calibration, d, noise = built
    again = ex.partition(rows(1)[0], calibration, 4)
    assert compare(d, again, noise=noise).decisive.beyond_noise is False
    moved = rows(1, shift=np.random.default_rng(5).normal(size=(CLOUDS, WIDTH)) * 3)[0]
    other = ex.partition(moved, ex.calibrate(moved, percentiles=[4]), 4)
    assert compare(d, other, noise=noise).decisive.beyond_noise is True


def test_a_cloud_that_only_b_has_is_introduced_and_the_other_way_dropped(built):
    _, _, calibration, all_clouds, noise = built
    fewer = ex.partition(rows(2, clouds=CLOUDS - 4)[0], calibration, 4)
    grown, shrunk = compare(fewer, all_clouds, noise=noise), compare(all_clouds, fewer, noise=noise)
    assert grown.decisive.introduced >= 3
    assert shrunk.decisive.dropped == grown.decisive.introduced
    assert shrunk.decisive.introduced == grown.decisive.dropped
    assert {c.kind for c in grown.changes} >= {"introduced"}
    biggest = next(c for c in grown.changes if c.kind == "introduced")
    assert biggest.region_a is None
    assert biggest.share_b > 0.02


def test_statuses_cover_every_region(built):
    _, _, calibration, d, noise = built
    other = ex.partition(rows(3, clouds=30)[0], calibration, 4)
    found = compare(d, other, noise=noise).decisive
    of_a = found.status_of_regions(0)
    assert len(of_a) == len(d)
    kept = sum(found.count(s) for s in ("persisted", "moved", "unclear"))
    assert kept + found.dropped == len(d)
    assert kept + found.introduced == len(other)


def test_without_seed_noise_nothing_is_said_to_persist_or_move(built):
    _, _, calibration, d, _ = built
    found = compare(d, ex.partition(rows(4)[0], calibration, 4))
    assert found.decisive.cutoff is None
    assert found.decisive.drift_of_noise is None
    assert found.decisive.beyond_noise is None
    assert set(found.decisive.status) <= {"paired", "apart"}
    assert np.isnan(found.decisive.below_cutoff)


def test_by_shared_rows_no_common_space_is_needed(built):
    vectors, _, _, d, noise = built
    turned = rotated(vectors, np.random.default_rng(1))
    wider = np.concatenate([turned, turned[:, :4] * 0], axis=1)
    other = ex.partition(wider, ex.calibrate(wider, percentiles=[4]), 4)
    found = compare(d, other, rows=shared(vectors, wider), noise=noise)
    assert found.space == "shared rows"
    assert set(found.correspondences) == {"shared rows"}
    assert found.agreement.nmi > 0.9
    assert found.decisive.score.mean() > 0.8
    assert max(found.agreement.nulls["permuted rows"]) < 0.3
    with pytest.raises(ValueError, match="shared rows"):
        compare(d, other)


def test_a_rotation_keeps_the_partition_and_loses_the_directions(built):
    vectors, _, _, d, noise = built
    turned = rotated(vectors, np.random.default_rng(2))
    other = ex.partition(turned, ex.calibrate(turned, percentiles=[4]), 4)
    found = compare(d, other, rows=shared(vectors, turned), noise=noise)
    assert found.agreement.nmi > 0.9
    assert found.correspondences["own frames"].score.mean() < 0.7
    assert found.decisive.beyond_noise is True


def test_moving_the_center_changes_own_frames_and_not_the_one_frame(built):
    vectors, _, calibration, d, _ = built
    shifted = replace(calibration, center=calibration.center + np.float32(0.9))
    other = ex.partition(vectors, shifted, 4)
    back = seen_from(
        np.asarray(other.exemplars),
        other.center,
        np.linalg.norm(vectors[other.exemplar_rows] - other.center, axis=1),
        d.center,
    )
    true = vectors[other.exemplar_rows] - d.center
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    assert back == pytest.approx(true, abs=1e-5)  # exact where the norms are
    found = compare(d, other, rows=shared(vectors))
    one, own = found.correspondences["one frame"], found.correspondences["own frames"]
    assert one.score.mean() > own.score.mean()
    assert any("centers differ" in sentence for sentence in found.differences)
    assert found.norm_span is not None


def test_equal_centers_leave_directions_as_they_are_and_nan_rows_nan():
    directions = np.array([[1, 0], [np.nan, np.nan]], np.float32)
    center, other = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert seen_from(directions, center, np.ones(2), center) is directions
    moved = seen_from(directions, center, np.ones(2), other)
    assert moved[0] == pytest.approx([0, -1])
    assert np.isnan(moved[1]).all()


def test_norms_of_regions_are_the_means_of_their_rows(built):
    vectors, _, _, d, _ = built
    norms = region_norms(d, vectors)
    regions = d.assign(vectors)[0]
    lengths = np.linalg.norm(vectors - d.center, axis=1)
    assert norms[3] == pytest.approx(lengths[regions == 3].mean(), rel=1e-5)
    assert set(region_norms(d)) == {d.calibration.centered_norms[1]}


def test_nulls_stand_beside_each_number(built):
    vectors, _, calibration, d, noise = built
    other = ex.partition(rows(5)[0], calibration, 4)
    found = compare(d, other, rows=shared(vectors, rows(0)[0]), noise=noise, seeds=2)
    own = found.correspondences["own frames"]
    assert set(own.nulls) == {"random rotation", "random rows"}
    assert all(len(values) == 2 for values in own.nulls.values())
    assert max(own.nulls["random rotation"]) < own.score.mean()
    assert set(found.agreement.nulls) == {"permuted rows", "permuted within tokens"}
    assert len(own.noise) == 8
    assert 0 < found.agreement.nmi_error < 0.2


def test_a_dictionary_of_random_rows_has_as_many_regions_and_all_rows(built):
    vectors, _, _, d, _ = built
    drawn = seeds.of_random_rows(d, vectors, np.random.default_rng(0))
    assert len(drawn) == len(d)
    assert drawn.counts.sum() == len(vectors)
    assert np.isfinite(drawn.means).all()


def test_halves_share_no_document_and_orders_share_all(built):
    vectors, documents, calibration, _, _ = built
    for a, b in seeds.halves(vectors, documents, calibration, 4, 2):
        assert a.rows + b.rows == len(vectors)
        assert a.rows == 1200
    one, again, other = seeds.orders(vectors, documents, calibration, 4, [1, 1, 2])
    assert np.array_equal(one.exemplars, again.exemplars)
    assert not np.array_equal(one.exemplars[:2], other.exemplars[:2])
    assert one.counts.sum() == other.counts.sum() == len(vectors)


def test_the_noise_of_orders_is_of_all_rows_and_smaller(built):
    vectors, documents, calibration, d, noise = built
    found = seed_noise(vectors, documents, calibration, 4, pairs_of="orders", splits=4)
    for a, b in seeds.order_pairs(vectors, documents, calibration, 4, 1):
        assert a.rows == b.rows == len(vectors)
        assert a.exemplar_rows.tolist() != b.exemplar_rows.tolist() or not np.array_equal(
            a.exemplars, b.exemplars
        )
    assert found.pairs_of == "orders"
    assert found.directions.means().mean() > noise.directions.means().mean()
    assert compare(d, d, noise=found, seeds=1).noise.pairs_of == "orders"
    with pytest.raises(ValueError, match='pairs_of is "thirds"'):
        seed_noise(vectors, documents, calibration, 4, pairs_of="thirds")


def test_documents_keep_their_rows_together_and_in_order(built):
    vectors, documents, calibration, _, _ = built
    order = np.array([5, 3])
    found = seeds.of_documents(vectors, documents, order, calibration, 4)
    expected = ex.partition(np.concatenate([vectors[50:60], vectors[30:40]]), calibration, 4)
    assert np.array_equal(found.exemplars, expected.exemplars)


def test_seed_noise_is_read_back_as_it_was_written(built, tmp_path):
    noise = built[-1]
    noise.save(tmp_path / "noise.json")
    back = SeedNoise.load(tmp_path / "noise.json")
    assert back.directions.score == pytest.approx(noise.directions.score, abs=1e-6)
    assert np.array_equal(back.overlaps.share, noise.overlaps.share)
    assert np.array_equal(back.n_regions, noise.n_regions)
    assert (back.splits, back.basis, back.threshold) == (8, "mean", noise.threshold)
    for text in ("[1]", '{"kind": "other"}', "no", json.dumps({"kind": "exemplars seed noise"})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FormatError, match="not a seed noise baseline"):
            SeedNoise.load(tmp_path / "bad.json")


def test_cutoffs_are_quantiles_of_pairs_of_like_share():
    random = np.random.default_rng(0)
    share = np.repeat([0.01, 0.02, 0.1, 0.6], 200)
    score = random.random(800) * 0.1 + np.repeat([0.2, 0.4, 0.6, 0.8], 200)
    pairs = PairScores(score, share, np.repeat([0, 1], 400))
    cut = pairs.cutoff(np.array([0, 0.01, 0.03, 0.12, 1.0]), 0.05)
    expected = [np.quantile(score[share == n], 0.05) for n in (0.01, 0.01, 0.02, 0.1, 0.6)]
    assert cut == pytest.approx(expected)
    few = PairScores(score[::40], share[::40], np.zeros(20, int))
    assert few.cutoff(np.array([0.01, 0.6]), 0.5) == pytest.approx([np.median(score[::40])] * 2)
    nothing = PairScores(score[:0], share[:0], share[:0].astype(int))
    assert np.isnan(nothing.cutoff(np.array([0.1]), 0.5)).all()


def test_scores_are_held_against_pairs_of_like_share():
    share = np.repeat([0.01, 0.6], 100)
    pairs = PairScores(
        np.tile(np.arange(100.0), 2) + (share > 0.1) * 1000, share, share.astype(int)
    )
    found = pairs.exceeding(np.array([-1, 49.5, 99, 1000, 2000]), np.array([0, 0.01, 0, 0.6, 0.7]))
    assert found == pytest.approx([1, 0.5, 0.005, 0.995, 0])
    nothing = PairScores(share[:0], share[:0], share[:0].astype(int))
    assert np.isnan(nothing.exceeding(np.array([1.0]), np.array([0.1]))).all()


def test_the_noise_of_a_split_is_judged_by_the_other_splits():
    split = np.repeat([0, 1, 2], 200)
    score = np.where(split == 2, 0.1, 0.9)  # one split is unlike the others
    exceeded = PairScores(score, np.full(600, 0.01), split).exceeding_of_splits()
    assert exceeded == pytest.approx([0.25, 0.25, 1])


def test_differences_are_told_and_equal_dictionaries_have_none(built):
    _, _, calibration, d, _ = built
    assert differences(d, d) == ()
    about = {
        "model": {"fingerprint": "1", "name": "one"},
        "site": {"name": "resid_post.1"},
        "tokenization": {"context_length": 8},
        "texts": {"sha256": "a"},
        "dtype": "float32",
    }
    other = {
        "model": {"fingerprint": "2", "name": "two"},
        "site": {"name": "resid_post.2"},
        "tokenization": {"context_length": 9},
        "texts": {"sha256": "b"},
        "dtype": "float16",
    }
    a = replace(d, provenance=about)
    changed = replace(calibration, thresholds={4: 0.5}, center=calibration.center + 1)
    b = replace(d, provenance=other, calibration=changed, membership="batch:9", rows=9 * d.rows)
    said = " ".join(differences(a, b))
    for word in (
        *("models differ: one and two", "sites differ", "centers differ", "thresholds differ"),
        *("masks differ, in context_length", "corpora differ", "dtypes", "memberships", "rows"),
    ):
        assert word in said
    assert len(differences(a, b)) == 9


def test_a_baseline_of_something_else_is_told(built):
    _, _, _, d, noise = built
    assert compare(d, d, noise=noise, seeds=1).differences == ()
    d = replace(d, provenance={"site": {"name": "resid_post.1"}})
    other = replace(noise, site="resid_post.2", threshold=0.5)
    said = compare(d, d, noise=other, seeds=1).differences
    assert len(said) == 2
    assert said[0].startswith("the seed noise is of resid_post.2 and A of resid_post.1")


def test_rows_are_paired_by_document_and_position():
    def side(document, position, token):
        arrays = [np.array(x, np.int64) for x in (document, position, token)]
        return SiteRows(np.arange(len(document), dtype=np.float32)[:, None], *arrays)

    a = side([4, 4, 1, 1], [1, 2, 1, 3], [7, 8, 9, 6])
    b = side([1, 4, 4], [1, 2, 9], [9, 8, 5])
    found = share_rows(a, b)
    assert found.document.tolist() == [4, 1]
    assert found.a.ravel().tolist() == [1, 2]
    assert found.b.ravel().tolist() == [1, 0]
    assert found.token.tolist() == [8, 9]
    assert len(share_rows(a, a)) == 4
    with pytest.raises(MismatchError, match="one tokenizer"):
        share_rows(a, side([1], [1], [5]))
    with pytest.raises(SourceError, match="no token in common"):
        share_rows(a, side([9], [1], [5]))


def test_most_rows_of_a_region_lie_in():
    to, share = largest_share(np.array([0, 0, 0, 2, 2, -1]), np.array([5, 5, 1, 4, 3, 0]), 4)
    assert to.tolist() == [5, -1, 3, -1]
    assert share == pytest.approx([2 / 3, np.nan, 0.5, np.nan], nan_ok=True)


def test_partners_read_alike_only_if_texts_were_kept(built):
    d = built[3]
    pairs = np.stack([np.arange(len(d))] * 2, axis=1)
    assert np.isnan(text_overlap(d, d, pairs, np.random.default_rng(0))).all()


def test_the_status_of_a_pair_by_chance_and_noise():
    found = Correspondence(
        space="own frames",
        method="hungarian",
        n_regions=(5, 4),
        pairs=np.stack([np.arange(4)] * 2, axis=1),
        score=np.array([0.9, 0.5, 0.1, 0.15]),
        share=np.array([0.3, 0.3, 0.3, 0.1]),
        chance=np.full(4, 0.2),
        nulls={},
        cutoff=np.array([0.8, 0.8, 0.8, 0.1]),
        noise=(0.9, 0.8),
        exceeded=0.6,
        noise_exceeded=(0.4, 0.5),
    )
    assert found.status.tolist() == ["persisted", "moved", "apart", "unclear"]
    assert found.status_of_regions(0).tolist()[-1] == "alone"
    assert (found.dropped, found.introduced) == (2, 1)
    assert found.below_cutoff == 0.5
    assert found.beyond_noise is True
    assert found.drift == pytest.approx(1 - 1.65 / 4)
    assert found.drift_of_noise[1] == pytest.approx(0.15)
    alone = replace(found, cutoff=None)
    assert alone.status.tolist() == ["paired", "paired", "apart", "apart"]


def test_the_error_of_mutual_information_is_the_jackknife_over_documents(built):
    vectors, documents, calibration, d, _ = built
    other = ex.partition(vectors[::-1].copy(), calibration, 4)
    agreement = compare(d, other, rows=shared(vectors), seeds=1).agreement
    labels = d.assign(vectors)[0], other.assign(vectors)[0]
    group = np.random.default_rng(0).permutation(240)[documents] % 20
    left = [mutual_information(*(side[group != g] for side in labels)) for g in range(20)]
    assert agreement.nmi_error == pytest.approx(np.sqrt(19) * np.std(left))


def test_rows_that_a_build_would_drop_have_no_region(built):
    vectors, _, calibration, _, _ = built
    limited = replace(calibration, norm_limit=float(np.median(np.linalg.norm(vectors, axis=1))))
    regions = seeds.regions_of(ex.partition(vectors, limited, 4), vectors)
    assert np.array_equal(regions < 0, np.linalg.norm(vectors, axis=1) > limited.norm_limit)


def test_what_was_dropped_is_listed_from_the_largest_on(built):
    _, _, calibration, d, noise = built
    fewer = ex.partition(rows(2, clouds=10)[0], calibration, 4)
    found = compare(d, fewer, noise=noise, examples=4)
    dropped = [c for c in found.changes if c.kind == "dropped"]
    lost = np.isin(found.decisive.status_of_regions(0), ("apart", "alone"))
    largest = np.sort(d.counts[lost])[::-1][:4]
    assert [c.share_a * d.counts.sum() for c in dropped] == pytest.approx(largest)


def test_partners_that_read_alike_are_told_from_random_ones(built):
    def seen(words):
        table = pa.table({"region": list(range(len(words))), "text": words})
        return replace(d, contexts=TableContexts(table))

    d = built[3]
    words = [f"word {k}" for k in range(len(d))]
    pairs = np.stack([np.arange(len(d))] * 2, axis=1)
    same, by_chance = text_overlap(seen(words), seen(words), pairs, np.random.default_rng(0))
    assert same == 1
    assert by_chance < 0.2


def test_arguments_are_checked(built):
    vectors, documents, calibration, d, noise = built
    for wrong, message in (
        ({"space": "sky"}, 'space is "sky"'),
        ({"space": "shared rows"}, "no rows were given"),
        ({"quantile": 1.0}, "quantile is 1"),
        ({"seeds": 0}, "seeds is 0"),
        ({"basis": "center"}, 'basis is "center"'),
    ):
        with pytest.raises(ValueError, match=message):
            compare(d, d, **wrong)
    with pytest.raises(MismatchError, match="basis mean and exemplar"):
        compare(d, d, noise=noise, basis="exemplar")
    with pytest.raises(ValueError, match="2 or more"):
        seed_noise(vectors, documents * 0, calibration, 4)
    with pytest.raises(ValueError, match="splits is 0"):
        seed_noise(vectors, documents, calibration, 4, splits=0)


def test_one_region_a_side_can_be_compared():
    vectors = rows(n=60)[0]
    calibration = replace(ex.calibrate(vectors, percentiles=[50]), thresholds={50: 2.0})
    d = ex.partition(vectors, calibration, 50)
    assert len(d) == 1
    found = compare(d, d, rows=shared(vectors))
    assert found.decisive.pairs.tolist() == [[0, 0]]
    assert found.agreement.nmi == 1
