"""Regions across resolutions: slow oracles, clouds within clouds, and what must be refused."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exemplars as ex
from exemplars.analyses import resolution as module
from exemplars.analyses.resolution import (
    LABELS,
    NULLS,
    assign_directions,
    coarse_to_fine,
    compare_resolutions,
    conditional_entropy_bits,
    contingency,
    effective_pieces,
    exemplars_inside,
    named_hits,
    site_directions,
)
from exemplars.errors import ActivationError, MismatchError
from resolutions import (
    N_COARSE,
    N_FINE,
    WIDTH,
    Batch,
    batches,
    clouds,
    ladder,
    noise,
    planted_ladder,
    rows_of,
)

PERMUTED, RANDOM = NULLS


@pytest.fixture(scope="module")
def planted():
    vectors, _, _ = clouds()
    return planted_ladder(vectors)


@pytest.fixture(scope="module")
def compared(planted):
    vectors, _, fine = clouds(900, seed=1)
    return compare_resolutions(planted, rows_of(vectors, planted[0], token=fine + 100), seeds=2)


def entropy(counts):
    share = np.array([c for c in counts if c]) / sum(counts)
    return float(-(share * np.log2(share)).sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_entropies_and_pieces_of_a_contingency_are_those_of_their_definition(seed, n_a, n_b):
    random = np.random.default_rng(seed)
    a, b = random.integers(0, n_a, 60), random.integers(0, n_b, 60)
    table = contingency(a, b, n_a + 1, n_b)  # a region that no row lies in
    joint = Counter(zip(a.tolist(), b.tolist(), strict=True))
    assert {k: int(table[k]) for k in joint} == joint
    assert table.sum() == 60
    together = entropy(joint.values())
    one, other = (entropy(Counter(x.tolist()).values()) for x in (a, b))
    assert conditional_entropy_bits(table, 1) == pytest.approx(together - one, abs=1e-9)
    assert conditional_entropy_bits(table, 0) == pytest.approx(together - other, abs=1e-9)
    for region, pieces in enumerate(effective_pieces(table)):
        mine = Counter(b[a == region].tolist()).values()
        assert pieces == pytest.approx(2 ** entropy(mine) if mine else 0.0)


def slow_hits(regions, labels, half):
    hits = []
    for region, label, mine in zip(regions, labels, half, strict=True):
        others = [k for r, k, h in zip(regions, labels, half, strict=True) if h != mine]
        inside = [
            k for r, k, h in zip(regions, labels, half, strict=True) if h != mine and r == region
        ]
        count = Counter(inside or others)
        hits.append(label == min(count, key=lambda k: (-count[k], k)))
    return hits


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_a_region_is_named_on_one_half_and_counted_on_the_other(seed, k):
    random = np.random.default_rng(seed)
    regions, labels = random.integers(0, k, 40), random.integers(0, 4, 40)
    half = random.integers(0, 2, 40) > 0
    half[:2] = True, False
    found = named_hits(regions, labels, half, k)
    assert found.tolist() == slow_hits(regions.tolist(), labels.tolist(), half.tolist())


def test_a_region_of_one_row_names_nothing():
    """Each row in a region of its own would name itself; on the other half it is not met."""
    labels = np.arange(40) % 4
    hits = named_hits(np.arange(40), labels, np.arange(40) % 8 < 4, 40)
    assert hits.mean() == pytest.approx(0.25)


def test_directions_are_assigned_as_vectors_are(planted):
    vectors, _, _ = clouds(3000, seed=3, noise=2.0)
    rows = rows_of(vectors, planted[0])
    for dictionary in planted:
        expected, _ = dictionary.assign(vectors)
        assert np.array_equal(assign_directions(dictionary, rows.directions), expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 64]))
def test_exemplars_inside_a_region_are_those_that_are_assigned_to_it(seed, near):
    coarse, fine = ladder(noise(300, seed), [20.0, 2.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_NEAR", near)
        for one, other in ((coarse, fine), (fine, coarse), (fine, fine)):
            holder = assign_directions(one, np.asarray(other.exemplars))
            for region in range(0, len(one), 7):
                found = exemplars_inside(one, region, other)
                assert found.tolist() == np.flatnonzero(holder == region).tolist()


def test_dictionaries_are_put_from_coarse_to_fine(planted):
    coarse, fine = planted
    assert coarse_to_fine([fine, coarse]) == (coarse, fine)


def test_what_has_no_common_space_is_refused(planted):
    coarse, fine = planted
    other = replace(fine, calibration=replace(fine.calibration, center=fine.center + 1))
    with pytest.raises(MismatchError, match="different centers"):
        coarse_to_fine([coarse, other])
    there = replace(fine, provenance={"site": {"name": "resid_post.1"}})
    third = replace(coarse, provenance={"site": {"name": "resid_post.2"}})
    with pytest.raises(MismatchError, match=r"resid_post\.1, resid_post\.2; give"):
        coarse_to_fine([coarse, there, third])
    with pytest.raises(ValueError, match="each resolution once"):
        coarse_to_fine([coarse, fine, fine])
    with pytest.raises(ValueError, match="dictionaries given: 1, expected 2"):
        coarse_to_fine([coarse])
    empty = ex.partition(np.empty((0, WIDTH), np.float32), coarse.calibration, coarse.percentile)
    with pytest.raises(ValueError, match="no regions"):
        coarse_to_fine([empty, fine])
    with pytest.raises(ValueError, match="seeds is 0"):
        compare_resolutions(planted, seeds=0)


def test_clouds_within_clouds_nest(compared):
    (step,) = compared.steps
    assert step.nested.estimate == step.holder.estimate == 1.0
    assert step.lost_bits == pytest.approx(0, abs=1e-12)
    assert min(step.lost_by_chance) > 1.8
    assert step.added_bits == pytest.approx(np.log2(N_FINE), abs=0.05)
    assert step.inside == (N_FINE, N_FINE, N_FINE)
    assert max(step.nested.nulls[PERMUTED]) < 0.45
    assert max(step.holder.nulls[PERMUTED]) < 0.45


def test_the_finer_regions_name_what_the_coarser_do_not(compared):
    coarse, fine = compared.levels
    assert (coarse.n_regions, fine.n_regions) == (N_COARSE, N_COARSE * N_FINE)
    assert (coarse.met, fine.met) == (N_COARSE, N_COARSE * N_FINE)
    assert fine.named["token"].estimate == 1.0
    assert coarse.named["token"].estimate < 0.5
    assert max(fine.named["token"].nulls[PERMUTED]) < 0.25
    assert fine.named["previous token"].estimate < 0.25  # rows are in random order
    assert fine.entropy_bits - coarse.entropy_bits == pytest.approx(compared.steps[0].added_bits)
    for level in compared.levels:
        for share in level.named.values():
            assert share.low <= share.estimate <= share.high
            assert all(len(values) == 2 for values in share.nulls.values())


def test_random_rows_are_a_partition_of_as_many_regions(compared):
    """Some fine cloud gets no random row, so random rows name fewer tokens than the exemplars."""
    fine = compared.levels[1].named["token"]
    assert max(fine.nulls[RANDOM]) < fine.estimate
    assert min(fine.nulls[RANDOM]) > max(fine.nulls[PERMUTED])


def test_what_divides_a_region_is_listed(compared):
    for split in compared.steps[0].splits:
        assert split.pieces == pytest.approx(N_FINE, abs=0.1)
        assert split.pieces_by_chance > 2 * N_FINE
        assert len(split.largest) == N_FINE


def test_the_same_call_gives_the_same_result(planted):
    vectors, _, fine = clouds(300, seed=4)
    rows = rows_of(vectors, planted[0], token=fine)
    one, other = (compare_resolutions(planted, rows, seeds=1, seed=5) for _ in range(2))
    assert one == other


def test_shares_do_not_depend_on_the_names_of_documents_and_tokens(planted):
    vectors, _, fine = clouds(300, seed=4)
    rows = rows_of(vectors, planted[0], token=fine)
    renamed = replace(rows, document=rows.document * 3 + 5, token=rows.token * 2 + 9)
    assert compare_resolutions(planted, rows).steps == compare_resolutions(planted, renamed).steps
    assert compare_resolutions(planted, rows).levels == compare_resolutions(planted, renamed).levels


def test_without_rows_the_exemplars_are_compared(planted):
    found = compare_resolutions(planted)
    (step,) = found.steps
    assert (found.rows, found.documents) == (0, 0)
    assert step.inside == (N_FINE, N_FINE, N_FINE)
    assert step.nested is None
    assert all(level.named == {} for level in found.levels)
    shared = np.isin(planted[0].exemplar_rows, planted[1].exemplar_rows).mean()
    assert step.shared_exemplars == shared > step.shared_by_chance
    elsewhere = replace(planted[1], provenance={"seed": 3})
    assert np.isnan(compare_resolutions([planted[0], elsewhere]).steps[0].shared_exemplars)


def test_the_first_row_founds_a_region_at_every_resolution():
    for dictionary in ladder(noise(), [30.0, 10.0, 2.0]):
        assert dictionary.exemplar_rows[0] == 0


@pytest.mark.parametrize("n_documents", [1, 2, 11, 12])
def test_few_documents_are_cut_into_runs(planted, n_documents):
    vectors, _, fine = clouds(300, seed=4)
    found = compare_resolutions(planted, rows_of(vectors, planted[0], fine, n_documents))
    assert (found.documents, found.runs) == (n_documents, n_documents < 12)
    share = found.levels[0].named["token"]
    assert share.low < share.estimate < share.high
    assert found.steps[0].nested.estimate == 1.0


def test_too_few_rows_for_random_exemplars_leave_that_null_out():
    coarse, fine = ladder(noise(400), [20.0, 1.0])
    found = compare_resolutions([coarse, fine], rows_of(noise(200, 1), fine))
    assert len(fine) > 100
    assert found.levels[1].named["token"].nulls[RANDOM] == ()
    assert len(found.levels[0].named["token"].nulls[RANDOM]) == 3


def test_one_region_tells_nothing(planted):
    coarse = planted[0]
    one = replace(
        coarse,
        exemplars=coarse.exemplars[:1],
        exemplar_rows=coarse.exemplar_rows[:1],
        percentile=99.0,
        calibration=replace(coarse.calibration, thresholds={99.0: 1.9}),
    )
    vectors, _, fine = clouds(300, seed=4)
    found = compare_resolutions([one, planted[1]], rows_of(vectors, coarse, fine))
    assert found.levels[0].entropy_bits == 0
    assert found.steps[0].nested.estimate == 1.0
    assert found.steps[0].nested.nulls[PERMUTED] == (1.0, 1.0, 1.0)


def test_rows_know_their_neighbours_within_a_document_alone(planted):
    vectors = clouds(6)[0]
    document, position = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 2, 4, 5, 6, 7])
    batch = Batch(vectors, document, position, np.arange(10, 16))
    labels = site_directions([batch], planted[0]).labels()
    assert tuple(labels) == LABELS
    assert labels["token"].tolist() == [10, 11, 12, 13, 14, 15]
    assert labels["previous token"].tolist() == [-1, 10, -1, -1, 13, 14]
    assert labels["next token"].tolist() == [11, -1, -1, 14, 15, -1]


def test_rows_are_those_that_a_build_would_keep(planted):
    vectors, _, _ = clouds(100)
    vectors[7] = planted[0].center
    limited = replace(planted[0], calibration=replace(planted[0].calibration, norm_limit=100.0))
    vectors[8] *= 1e3
    rows = site_directions(batches(vectors), limited, rows=50)
    assert (len(rows), rows.dropped) == (48, 2)
    assert len(rows.document) == len(rows.position) == len(rows.token) == 48
    told = []
    site_directions(batches(vectors), planted[0], 60, lambda *step: told.append(step))
    assert told[-1] == ("rows", 60, 60)


def test_rows_that_cannot_be_read_are_refused(planted):
    vectors, _, _ = clouds(100)
    with pytest.raises(ValueError, match="no rows"):
        site_directions([], planted[0])
    with pytest.raises(ValueError, match="1 rows are too few to halve"):
        compare_resolutions(planted, site_directions(batches(vectors), planted[0], rows=1))
    vectors[3, 0] = np.nan
    with pytest.raises(ActivationError):
        site_directions(batches(vectors), planted[0])


def test_random_exemplars_are_of_documents_that_are_not_evaluated(planted, monkeypatch):
    vectors, _, fine = clouds(600, seed=6)
    calls = []
    nearest = module._nearest
    monkeypatch.setattr(
        module, "_nearest", lambda d, e, index: calls.append((d, e)) or nearest(d, e, index)
    )
    compare_resolutions(planted, rows_of(vectors, planted[0], fine), seeds=2)
    own = [np.asarray(d.exemplars) for d in planted]
    evaluated = max((d for d, _ in calls), key=len)
    drawn = [e for d, e in calls if len(d) == len(evaluated) and not any(e is o for o in own)]
    drawn = [e for e in drawn if not any(np.array_equal(e, o) for o in own)]
    assert len(drawn) == 4  # two draws at each of two resolutions
    known = {row.tobytes() for row in evaluated}
    assert 0.6 < len(evaluated) / 600 < 0.75
    assert not any(row.tobytes() in known for e in drawn for row in e)
