"""Regions that only the tuned model reaches: found where planted, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from exemplars.analyses import drift as module
from exemplars.analyses.drift import NULLS, Rule, drift
from exemplars.analyses.paired import PairedRows
from exemplars.errors import ActivationError

WIDTH, ROWS = 16, 4


def unit(k):
    return np.eye(WIDTH, dtype=np.float32)[k]


def made(n=60, changed=20, seed=0, new=12, rows=ROWS):
    """Documents with rows round four directions; in the first `changed` ones the last row of the
    tuned model points along a new direction instead."""
    rng = np.random.default_rng(seed)
    base = (
        5 * np.eye(WIDTH)[rng.integers(0, 4, (n, rows))]
        + 3
        + 0.3 * rng.normal(size=(n, rows, WIDTH))
    )
    tuned = base + 0.05 * rng.normal(size=base.shape)
    tuned[:changed, -1] = 3 + 8 * unit(new) + 0.3 * rng.normal(size=(changed, WIDTH))
    order = rng.permutation(n)
    rows_of = [side[order].reshape(-1, WIDTH).astype(np.float32) for side in (base, tuned)]
    texts = tuple("abcd" for _ in range(n))
    start = np.tile(np.arange(rows), n) % 4
    pairs = PairedRows(
        "resid_post.0", texts, np.arange(n), *rows_of, np.repeat(np.arange(n), rows),
        np.zeros(n * rows, np.int64), start, start + 1,
    )  # fmt: skip
    return pairs, order < changed


@pytest.fixture(scope="module")
def planted():
    pairs, topic = made()
    return pairs, topic, drift(pairs, 20.0, topic=topic)


def test_a_planted_region_is_found_and_the_nulls_find_none(planted):
    pairs, topic, result = planted
    (one,) = result.inventory
    assert sum(one.tuned) == topic.sum()
    assert one.base == (0, 0)
    assert sum(one.rows) == topic.sum()
    center = pairs.tuned.mean(0)
    towards = one.direction / np.linalg.norm(one.direction)
    assert np.argmax(towards) == 12
    assert np.argmax(one.shift) == 12
    assert np.argmax(result.difference) == 12
    assert center.shape == one.direction.shape
    assert {name: set(values) for name, values in result.nulls.items()} == {
        name: {0} for name in NULLS
    }
    assert all(size == 1 for size in result.orders)
    assert one.p_value <= 0.05
    assert all(token == "d" for _, token, _ in one.contexts)


def test_rows_of_the_inventory_are_those_of_the_changed_documents(planted):
    _, _, result = planted
    shares = result.topic
    assert shares.inventory.share.estimate == 1
    assert shares.inventory.flagged == result.inventory[0].rows[1]
    assert shares.difference.share.estimate == 1
    assert shares.all_rows < 0.6


def test_labels_that_have_nothing_to_do_with_it_give_the_share_of_all_rows(planted):
    pairs, topic, _ = planted
    other = np.random.default_rng(5).random(len(topic)) < 0.5
    shares = drift(pairs, 20.0, topic=other, orders=0, draws=0).topic
    low, high = shares.inventory.share.low, shares.inventory.share.high
    assert low <= other.mean() <= high


def test_a_model_beside_itself_has_introduced_nothing():
    pairs, _ = made(changed=0)
    same = drift(replace(pairs, tuned=pairs.base), 20.0, draws=2)
    assert (len(same.inventory), same.published, same.proposed, same.moved) == (0, 0, 0, 0.0)
    assert same.probe_auroc == 0.5
    assert np.array_equal(same.support.tuned, same.support.base)
    assert not same.difference.any()


def test_a_document_counts_once_however_many_rows_it_has():
    pairs, topic = made(n=60, changed=2, rows=12)
    tuned = pairs.tuned.copy()
    mine = topic[pairs.document]
    tuned[mine] = 3 + 8 * unit(12) + 0.3 * np.random.default_rng(3).normal(size=(mine.sum(), WIDTH))
    result = drift(replace(pairs, tuned=tuned), 20.0, draws=0, orders=0)
    assert not result.inventory
    assert result.published >= 1


@pytest.mark.parametrize("scale", [0.25, 8.0])
def test_the_unit_of_the_vectors_does_not_matter(planted, scale):
    pairs, _, result = planted
    scaled = drift(
        replace(pairs, base=pairs.base * np.float32(scale), tuned=pairs.tuned * np.float32(scale)),
        20.0, draws=0, orders=0,
    )  # fmt: skip
    assert np.array_equal(scaled.support.tuned, result.support.tuned)
    assert [one.region for one in scaled.inventory] == [one.region for one in result.inventory]
    assert scaled.moved == pytest.approx(result.moved)


def test_a_region_that_the_base_model_reaches_now_and_then_is_judged_by_the_rule():
    pairs, topic = made(n=120, changed=60)
    base = pairs.base.copy()
    some = np.flatnonzero(topic)[::10]
    rows = [np.flatnonzero(pairs.document == d)[-1] for d in some]
    base[rows] = pairs.tuned[rows]
    mixed = replace(pairs, base=base)
    options = {"draws": 0, "orders": 0}
    assert len(drift(mixed, 20.0, rule=Rule(most_base=0.4), **options).inventory) == 1
    assert not drift(mixed, 20.0, rule=Rule(most_base=0.0), **options).inventory


def test_supports_are_those_of_a_slow_count(planted):
    pairs, _, result = planted
    assert result.support.tuned.sum() <= len(pairs)
    for only, one, other in (
        ("only_tuned", "tuned", "base"),
        ("only_base", "base", "tuned"),
    ):
        alone = getattr(result.support, only)
        assert (alone <= getattr(result.support, one)).all()
        difference = getattr(result.support, one) - getattr(result.support, other)
        assert (alone >= difference).all()
    both = result.support.tuned - result.support.only_tuned
    assert np.array_equal(both, result.support.base - result.support.only_base)


def test_sign_test_and_holm_equal_slow_ones():
    rng = np.random.default_rng(0)
    only, other = rng.integers(0, 12, (2, 1, 30))
    support = module.Support(only, other, only, other)
    expected = [
        binomtest(int(a), int(a + b), 0.5, "greater").pvalue if a + b else 1.0
        for a, b in zip(only[0], other[0], strict=True)
    ]
    found = module._sign_test(support, 0)
    assert np.allclose(found, expected)
    order = np.argsort(found, kind="stable")
    raised, worst = np.empty(30), 0.0
    for rank, k in enumerate(order):
        worst = max(worst, min(1.0, found[k] * (30 - rank)))
        raised[k] = worst
    assert np.allclose(module._holm(found), raised)
    assert len(module._holm(np.empty(0))) == 0


def test_seeds_repeat_and_differ(planted):
    pairs, _, result = planted
    again = drift(pairs, 20.0, draws=0, orders=0)
    assert np.array_equal(again.support.tuned, result.support.tuned)
    other = drift(pairs, 20.0, draws=0, orders=0, seed=3)
    assert not np.array_equal(other.inventory[0].tuned, result.inventory[0].tuned)


def test_exchanging_labels_keeps_documents_whole():
    pairs, _ = made()
    sides = module._exchanged(pairs, np.random.default_rng(0))
    swapped = (sides.tuned == pairs.base).all(1)
    kept = (sides.tuned == pairs.tuned).all(1)
    assert (swapped ^ kept).all()
    assert 0 < swapped.mean() < 1
    assert all(len(set(swapped[pairs.document == d])) == 1 for d in range(60))


def test_the_base_model_against_itself_shares_no_document():
    pairs, _ = made(n=31, changed=5)
    pairs = replace(pairs, base=pairs.document[:, None] + np.zeros((1, WIDTH), np.float32))
    sides = module._against_itself(pairs, np.random.default_rng(0))
    assert sides.n == 15
    assert not set(sides.tuned[:, 0]) & set(sides.base[:, 0])
    assert len(sides.tuned) == len(sides.tuned_unit) == 15 * ROWS
    assert (np.diff(sides.tuned_unit) >= 0).all()


def test_some_keeps_the_rows_of_documents():
    pairs, topic = made()
    some = pairs.some(topic)
    assert len(some.documents) == topic.sum()
    assert np.array_equal(some.tuned, pairs.tuned[topic[pairs.document]])
    assert np.array_equal(some.number, np.flatnonzero(topic))
    assert np.array_equal(np.unique(some.document), np.arange(topic.sum()))


def test_what_cannot_be_done_is_said():
    pairs, topic = made()
    few, _ = made(n=7, changed=2)
    with pytest.raises(ValueError, match="there are 7 documents, expected 8"):
        drift(few)
    with pytest.raises(ValueError, match="out of range"):
        drift(pairs, rule=Rule(most_base=1.0))
    with pytest.raises(ValueError, match="expected 0 or more"):
        drift(pairs, draws=-1)
    with pytest.raises(ValueError, match="3 labels for 60 documents"):
        drift(pairs, topic=topic[:3])
    broken = pairs.tuned.copy()
    broken[5, 5] = np.nan
    with pytest.raises(ActivationError):
        drift(replace(pairs, tuned=broken))
