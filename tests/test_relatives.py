"""Relatives of a region: shares both ways, and what dictionaries know without any text."""

from dataclasses import replace

import numpy as np
import pytest

import exemplars as ex
from exemplars.analyses.relatives import KeptMembers, relatives, relatives_everywhere
from exemplars.analyses.resolution import assign_directions, contingency
from exemplars.clustering import LeaderClustering
from exemplars.geometry import to_directions
from resolutions import N_FINE, clouds, ladder, noise, planted_ladder, rows_of

EVERY = 10_000


@pytest.fixture(scope="module")
def vectors():
    return noise(800)


@pytest.fixture(scope="module")
def pair(vectors):
    return ladder(vectors, [25.0, 4.0])


@pytest.fixture(scope="module")
def table(pair):
    rows = rows_of(noise(2000, 1), pair[0]).directions
    return contingency(*(assign_directions(d, rows) for d in pair), *map(len, pair))


@pytest.fixture(scope="module")
def kept(pair):
    return tuple(KeptMembers.of(d) for d in pair)


def joined(dictionary, vectors):
    """(N,) the region that each row joined while streaming."""
    clustering = LeaderClustering(dictionary.width, dictionary.threshold, "online")
    directions, _ = to_directions(vectors, dictionary.center)
    return clustering.add(directions, np.arange(len(vectors))).region


def test_shares_are_those_of_the_contingency_both_ways(pair, table):
    coarse, fine = pair
    counts = table.toarray()
    for one, other, shares in ((coarse, fine, counts), (fine, coarse, counts.T)):
        for region in range(0, len(one), 9):
            found = relatives(one, region, other, table=_sparse(shares), most=EVERY)
            assert found.source == "rows"
            assert found.rows == shares[region].sum()
            by_region = {r.region: r for r in found.relatives}
            met = set(np.flatnonzero(shares[region]).tolist())
            assert met <= set(by_region)
            for number, r in by_region.items():
                both = shares[region, number]
                if found.rows:
                    assert r.share == pytest.approx(both / found.rows)
                    assert r.low <= r.share <= r.high
                if shares[:, number].sum() and found.rows:
                    expected = both / shares[:, number].sum()
                    assert r.share_of_relative == pytest.approx(expected)
                    chance = shares[:, number].sum() / shares.sum()
                    assert r.share_by_chance == pytest.approx(chance)


def test_the_share_of_one_is_the_share_of_its_own_of_the_other(pair, table):
    coarse, fine = pair
    for region in range(len(coarse)):
        for r in relatives(coarse, region, fine, table=table, most=EVERY).relatives:
            back = relatives(fine, r.region, coarse, table=_sparse(table.toarray().T), most=EVERY)
            own = next((b for b in back.relatives if b.region == region), None)
            if own is not None and not np.isnan(r.share_of_relative) and back.rows:
                assert r.share_of_relative == pytest.approx(own.share)
        if region > 3:
            break


def test_relatives_by_exemplars_are_marked(pair):
    coarse, fine = pair
    held = assign_directions(coarse, np.asarray(fine.exemplars))
    for region in range(len(coarse)):
        found = relatives(coarse, region, fine, most=EVERY)
        assert (found.source, found.rows, found.finer) == ("exemplars", 0, True)
        inside = {r.region for r in found.relatives if r.exemplar_inside}
        assert inside == set(np.flatnonzero(held == region).tolist())
        assert found.inside == len(inside)
        (holder,) = [r.region for r in found.relatives if r.holds_exemplar]
        assert holder == assign_directions(fine, coarse.exemplars[[region]])[0]
        for r in found.relatives:
            assert np.isnan(r.share)
            own = coarse.exemplar_rows[region] == fine.exemplar_rows[r.region]
            assert r.same_exemplar == own
            cosine = coarse.exemplars[region] @ fine.exemplars[r.region]
            assert r.similarity == pytest.approx(cosine, abs=1e-6)
            if own:
                assert r.similarity == pytest.approx(1, abs=1e-6)
                assert r.holds_exemplar


def test_kept_members_give_the_shares_of_small_regions_exactly():
    vectors = noise(250, 2)
    coarse, fine = ladder(vectors, [20.0, 3.0])
    kept = KeptMembers.of(coarse), KeptMembers.of(fine)
    regions = [joined(d, vectors) for d in (coarse, fine)]
    small = np.flatnonzero(np.bincount(regions[0], minlength=len(coarse)) <= 30)
    assert len(small) > 3
    whole = contingency(*regions, len(coarse), len(fine)).toarray()
    for region in small.tolist():
        found = relatives(coarse, region, fine, kept=kept, most=EVERY)
        if found.rows < whole[region].sum():  # a fine region keeps not all that it shares
            continue
        assert found.source == "kept members"
        for r in found.relatives:
            assert r.share == pytest.approx(whole[region, r.region] / whole[region].sum())
            sizes = whole[:, r.region].sum()
            assert r.share_of_relative == pytest.approx(whole[region, r.region] / sizes)


def test_kept_members_know_the_regions_of_their_rows(pair, vectors, kept):
    for dictionary, members in zip(pair, kept, strict=True):
        regions = joined(dictionary, vectors)
        assert np.array_equal(members.region_of(members.row), members.region)
        assert np.array_equal(regions[members.row], members.region)
        assert members.region_of(np.array([-5, 10**9])).tolist() == [-1, -1]
        for region in (0, len(dictionary) - 1):
            sampled = members.sample_of(region)
            assert len(sampled) == min(30, (regions == region).sum())


def test_sampled_members_of_a_coarse_region_are_nearly_all_found_in_the_finer_one(kept):
    """The samples of all dictionaries of a pass are by one hash of the row."""
    assert (kept[1].region_of(kept[0].sample_row) >= 0).mean() > 0.9


def test_kept_members_say_nothing_of_coarser_regions_or_other_streams(pair, kept):
    coarse, fine = pair
    back = relatives(fine, 3, coarse, kept=(kept[1], kept[0]))
    assert (back.source, back.rows, back.finer) == ("exemplars", 0, False)
    elsewhere = replace(fine, provenance={"seed": 9})
    found = relatives(coarse, 0, elsewhere, kept=kept)
    assert found.source == "exemplars"
    assert not any(r.same_exemplar for r in found.relatives)


def test_the_holder_is_listed_however_few_are(pair, table):
    coarse, fine = pair
    for region in range(len(coarse)):
        found = relatives(coarse, region, fine, table=table, most=1)
        whole = relatives(coarse, region, fine, table=table, most=EVERY)
        assert len(found.relatives) == 1
        assert found.relatives[0].holds_exemplar
        assert found.left_out == len(whole.relatives) - 1
        shares = [r.share for r in whole.relatives if not np.isnan(r.share)]
        assert shares == sorted(shares, reverse=True)


def test_pieces_are_counted_beside_rows_drawn_from_all():
    dictionaries = planted_ladder(clouds()[0])
    rows = rows_of(clouds(900, seed=1)[0], dictionaries[0]).directions
    regions = [assign_directions(d, rows) for d in dictionaries]
    table = contingency(*regions, *map(len, dictionaries))
    found = relatives(dictionaries[0], 0, dictionaries[1], table=table)
    assert found.pieces == pytest.approx(N_FINE, abs=0.1)
    assert found.pieces_by_chance > 3 * N_FINE
    assert len(found.relatives) == N_FINE
    assert all(r.share_of_relative == 1 for r in found.relatives)


def test_everywhere_is_every_other_dictionary():
    dictionaries = ladder(noise(400), [30.0, 10.0, 3.0])
    found = relatives_everywhere(dictionaries, dictionaries[1], -1)
    assert [one.percentile for one in found] == [30.0, 3.0]
    assert [one.finer for one in found] == [False, True]
    assert [one.source for one in found] == ["exemplars", "kept members"]
    bare = [replace(d, contexts=None) for d in dictionaries]
    found = relatives_everywhere(bare, bare[1], len(bare[1]) - 1)
    assert [one.source for one in found] == ["exemplars", "exemplars"]


def test_a_region_that_is_not_there_is_refused(pair):
    with pytest.raises(ValueError, match="does not exist"):
        relatives(pair[0], 10**6, pair[1])
    with pytest.raises(ValueError, match="most is 0"):
        relatives(pair[0], 0, pair[1], most=0)


def test_one_region_holds_all():
    vectors, _, _ = clouds()
    fine = planted_ladder(vectors)[1]
    calibration = replace(fine.calibration, thresholds={99.0: 1.99})
    one = ex.partition(vectors, calibration, 99.0)
    assert len(one) == 1
    found = relatives(one, 0, fine, most=EVERY)
    assert found.inside == len(found.relatives) == len(fine)


def _sparse(counts):
    from scipy.sparse import csr_array

    return csr_array(counts)
