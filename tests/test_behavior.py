"""Regions behind a behaviour: how they are chosen, what is taken out, and what is concluded."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from exemplars.analyses import prompts as kept_answers
from exemplars.analyses.behavior import (
    DIFFERENCE,
    EQUAL_NORM,
    MATCHED,
    METHODS,
    NULLS,
    RANDOM,
    UNEDITED,
    BehaviorReport,
    Condition,
    Criteria,
    Outcome,
    RegionRate,
    Selection,
    Share,
    behavior,
    candidates_of,
    conditions_of,
    edits_of,
    matched_regions,
    n_answers,
    region_rates,
    removed_norm,
)
from exemplars.analyses.fluency import AnswerFluency, NeutralEffect
from exemplars.analyses.prompts import (
    KeptAnswers,
    PromptRows,
    behaves_by_answers,
    partitions,
    read_prompts,
)
from exemplars.analyses.scorers import parse_scorer
from exemplars.generation import Answer
from exemplars.labels.detection import wilson
from exemplars.report.behavior import behavior_figure, behavior_summary, behavior_text
from exemplars.report.text import to_json
from exemplars.tokenization import Tokenization
from planted import CARRIER, SCORE, SITE, basis, planted_model, prompts

WIDTH = 8
TOKENS = 4
REMOVALS = METHODS[:-1]
"""All but the difference inside regions: here likely regions have no prompts but behaving ones."""
ANY = Selection(min_prompts=1, min_rate=0.0)


def clustered(n=60, seed=0):
    """Rows of n prompts in a few clusters, which of them behave, and a dictionary."""
    rng = np.random.default_rng(seed)
    centers = 3 * rng.normal(size=(5, WIDTH))
    kind = rng.integers(0, 5, n)
    sizes = rng.integers(1, 6, n)
    prompt = np.repeat(np.arange(n), sizes)
    of_row = np.where(rng.random(len(prompt)) < 0.7, kind[prompt], rng.integers(0, 5, len(prompt)))
    vectors = centers[of_row] + 0.3 * rng.normal(size=(len(prompt), WIDTH)) + 2
    behaves = np.where(kind == 0, rng.random(n) < 0.9, np.where(kind == 1, rng.random(n) < 0.5, 0))
    names = tuple(f"prompt {k}" for k in range(n))
    rows = PromptRows(SITE, names, vectors.astype(np.float32), prompt)
    (dictionary,) = partitions(rows, 12.0, [1])
    return rows, behaves.astype(bool), dictionary


@pytest.fixture(scope="module")
def made():
    return clustered()


def nearest(dictionary, vectors):
    """By hand, in float64."""
    x = vectors.astype(np.float64) - dictionary.center
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.argmax(x @ dictionary.exemplars.astype(np.float64).T, axis=1)


def projected(x, span, point):
    """What a span's removal takes from x, about a point."""
    q, _ = np.linalg.qr(np.asarray(span, np.float64).T)
    return (x - point) @ q @ q.T


def after(edits, x):
    import torch

    x = torch.from_numpy(x)
    for edit in edits:
        x = x + edit.change(x)
    return x.numpy()


def rate(region, prompts=10, behaving=5, of_behaving=0.5, of_others=0.1, count=10, coherence=0.5):
    return RegionRate(region, prompts, behaving, of_behaving, of_others, count, coherence)


# How regions are chosen.


@pytest.mark.parametrize("place", ["final", "any"])
def test_rates_of_regions_equal_a_slow_count(made, place):
    rows, behaves, dictionary = made
    found = {r.region: r for r in region_rates(dictionary, rows, behaves, place)}
    region = nearest(dictionary, rows.vectors)
    inside = {}
    for row, k in enumerate(region.tolist()):
        last = row + 1 == len(region) or rows.prompt[row + 1] != rows.prompt[row]
        if place == "any" or last:
            inside.setdefault(k, set()).add(int(rows.prompt[row]))
    assert set(found) == set(inside)
    assert list(found) == sorted(found)
    for k, members in inside.items():
        yes = sum(bool(behaves[i]) for i in members)
        r = found[k]
        assert (r.prompts, r.behaving, r.rate) == (len(members), yes, yes / len(members))
        assert r.share_of_behaving == pytest.approx(yes / behaves.sum())
        assert r.share_of_others == pytest.approx((len(members) - yes) / (~behaves).sum())
        assert (r.count, r.coherence) == (dictionary.counts[k], dictionary.coherence[k])
        assert r.score("contrast") == pytest.approx(r.share_of_behaving - r.share_of_others)
        assert r.score("rate") == pytest.approx(yes)


def test_a_row_without_a_direction_is_in_no_region(made):
    rows, behaves, dictionary = made
    vectors = rows.vectors.copy()
    vectors[rows.final] = dictionary.center
    assert region_rates(dictionary, replace(rows, vectors=vectors), behaves) == ()


def test_candidates_are_the_able_ones_by_score_and_then_by_number():
    rates = [
        rate(9, of_behaving=0.6, of_others=0.2), rate(4, of_behaving=0.5, of_others=0.1),
        rate(2, prompts=4, behaving=4, of_behaving=1.0), rate(3, behaving=2, of_behaving=1.0),
        rate(7, prompts=20, behaving=6, of_behaving=0.5, of_others=0.0),
        rate(5, prompts=5, behaving=3, of_behaving=0.4, of_others=0.0),
    ]  # fmt: skip
    contrast = candidates_of(rates, Selection())
    assert [r.region for r in contrast] == [7, 4, 5, 9]
    assert [r.region for r in candidates_of(rates, Selection(rule="rate"))] == [7, 4, 9, 5]
    few = Selection(min_prompts=4, min_rate=0.2)
    assert [r.region for r in candidates_of(rates[::-1], few)] == [2, 3, 7, 4, 5, 9]
    assert candidates_of((), Selection()) == ()


def test_matched_regions_are_quiet_and_nearest_in_size_and_coherence(made):
    # Of regions 0 to 8: what is between the brackets is the distance to region 0.
    sizes = SimpleNamespace(
        counts=np.array([100, 100, 200, 100, 100, 1000, 0, 100, 4]),  # 6: as if of one; 8: small
        coherence=np.float32([0.6, 0.6, 0.6, 0.1, 0.1, 0.6, 0.6, 0.5, 0.6]),
    )  # [0], loud, [.09], [.25], [.25], [1], [4], [.01], [1.95]
    rates = [
        rate(0, behaving=10, count=100, coherence=0.6), rate(1, behaving=1),
        rate(2, prompts=20, behaving=1), rate(3, behaving=0), rate(5, prompts=2, behaving=0),
    ]  # fmt: skip
    assert matched_regions(sizes, rates, rates[0], Selection()) == [7, 2, 3, 4, 5]
    every = Selection(min_prompts=0)
    assert matched_regions(sizes, rates, rates[0], every) == [7, 2, 3, 4, 5, 8, 6]
    # A chosen region that is quiet by itself is not its own null.
    silent = replace(rates[0], behaving=0)
    assert 0 not in matched_regions(sizes, [silent, *rates[1:]], silent, every)
    rows, behaves, dictionary = made
    rates = region_rates(dictionary, rows, behaves)
    top = candidates_of(rates, Selection())[0]
    loud = {r.region for r in rates if r.behaving > 0.05 * r.prompts}
    found = matched_regions(dictionary, rates, top, Selection())
    assert found
    assert set(found) == set(np.flatnonzero(dictionary.counts >= 5)) - loud


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"rule": "best"}, 'rule is "best"; choose contrast, rate'),
        ({"place": "first"}, 'place is "first"; choose final, any'),
        ({"methods": ("exemplar", "all")}, 'method is "all"; choose exemplar, mean'),
        ({"positions": "some"}, 'positions is "some"; choose edited, all, generated'),
        ({"methods": ()}, "one method"),
        ({"most": 0}, "at least one region"),
        ({"draws": 0}, "one draw"),
    ],
)
def test_settings_outside_their_choices_are_refused(wrong, found):
    with pytest.raises(ValueError, match=found):
        Selection(**wrong)
    assert Selection(positions=3).positions == 3


# What is done with them.


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_an_edit_is_what_its_formula_says(made, method, k):
    rows, behaves, dictionary = made
    selection = Selection(methods=(method,))
    rates = region_rates(dictionary, rows, behaves)
    top = [r.region for r in candidates_of(rates, ANY)[:k]]
    if method == "difference inside regions":  # the first candidates hold behaving prompts alone
        mixed = [r.region for r in rates if 0 < r.behaving < r.prompts]
        assert len(mixed) >= k
        top = [*mixed[:k], top[0]]
    edits = edits_of(dictionary, method, top, rows, behaves, rates, selection)
    assert {(e.site, e.positions) for e in edits} == {(SITE, "edited")}
    x = np.random.default_rng(5).normal(size=(20, WIDTH)).astype(np.float32) * 3
    center = dictionary.center.astype(np.float64)
    vectors = rows.vectors.astype(np.float64)
    all_of, final_of = nearest(dictionary, rows.vectors), nearest(dictionary, rows.vectors)
    final_of = final_of[rows.final]
    unit = (vectors - center) / np.linalg.norm(vectors - center, axis=1, keepdims=True)
    last = vectors[rows.final]
    quiet = [r.region for r in rates if r.rate <= 0.05 and r.prompts >= 5]
    assert quiet
    ours = np.array([last[final_of == r].mean(axis=0) for r in top])
    others = np.array([last[final_of == r].mean(axis=0) for r in quiet])
    inside = [
        y - last[(final_of == r) & ~behaves].mean(axis=0)
        for r in top
        for y in last[(final_of == r) & behaves]
        if ((final_of == r) & ~behaves).any()
    ]
    span, point = {
        "exemplar": (dictionary.exemplars[top], center),
        "mean": (dictionary.means[top], center),
        "census mean": ([unit[all_of == r].mean(axis=0) for r in top], center),
        "swap": (ours - center, others.mean(axis=0)),
        "difference of regions": ([ours.mean(axis=0) - others.mean(axis=0)], center),
        "difference inside regions": ([np.mean(inside or [center], axis=0)], center),
    }[method]
    expected = x - projected(x, span, point)
    np.testing.assert_allclose(after(edits, x), expected, atol=2e-5)
    moved = np.linalg.norm(projected(vectors, span, point), axis=1).mean()
    assert removed_norm(edits, rows) == pytest.approx(moved, rel=1e-5)
    assert removed_norm(edits, rows) > 0


def test_swap_puts_vectors_where_the_quiet_ones_are(made):
    """Inside the span, whatever they were; a plain ablation leaves them at the center."""
    rows, behaves, dictionary = made
    rates = region_rates(dictionary, rows, behaves)
    top = [candidates_of(rates, Selection())[0].region]
    (edit,) = edits_of(dictionary, "swap", top, rows, behaves, rates, Selection())
    inside = after([edit], rows.vectors) @ edit.directions.T
    np.testing.assert_allclose(
        inside, np.broadcast_to(edit.point @ edit.directions.T, inside.shape), atol=1e-4
    )


def test_a_method_with_nothing_to_work_with_makes_no_edit(made):
    rows, behaves, dictionary = made
    rates = region_rates(dictionary, rows, behaves)
    for method in ("swap", "difference of regions", "difference inside regions"):
        assert edits_of(dictionary, method, [], rows, behaves, rates, Selection()) == ()
    far = replace(rows, vectors=rows.vectors.copy())
    far.vectors[:] = dictionary.center + dictionary.exemplars[0]
    assert edits_of(dictionary, "census mean", [1], far, behaves, rates, Selection()) == ()


def test_without_a_quiet_region_the_prompts_without_the_behaviour_stand_for_it(made):
    rows, behaves, dictionary = made
    rates = region_rates(dictionary, rows, behaves)
    loud = [replace(r, behaving=r.prompts) for r in rates]
    top = [candidates_of(rates, Selection())[0].region]
    last = rows.vectors[rows.final].astype(np.float64)
    ours = last[nearest(dictionary, last) == top[0]].mean(axis=0)
    quiet = last[~behaves].mean(axis=0)
    x = rows.vectors[:9]
    for method, span, point in (
        ("swap", [ours - dictionary.center], quiet),
        ("difference of regions", [ours - quiet], dictionary.center),
    ):
        edits = edits_of(dictionary, method, top, rows, behaves, loud, Selection())
        np.testing.assert_allclose(after(edits, x), x - projected(x, span, point), atol=2e-5)


def test_where_one_region_holds_all_prompts_inside_it_is_the_difference_of_means(made):
    rows, behaves, dictionary = made
    far = replace(rows, vectors=dictionary.center + dictionary.exemplars[0] + rows.vectors * 1e-3)
    assert set(nearest(dictionary, far.vectors)) == {0}
    rates = region_rates(dictionary, far, behaves)
    (edit,) = edits_of(
        dictionary, "difference inside regions", [0], far, behaves, rates, Selection()
    )
    last = far.vectors[far.final].astype(np.float64)
    means = last[behaves].mean(axis=0) - last[~behaves].mean(axis=0)
    cosine = edit.directions[0] @ means / np.linalg.norm(means)
    assert abs(cosine) == pytest.approx(1, abs=1e-4)
    everyone = np.ones(len(behaves), bool)
    for behaving in (everyone, ~everyone):
        assert not edits_of(
            dictionary, "difference inside regions", [0], far, behaving, rates, Selection()
        )


def every_condition(made, **settings):
    rows, behaves, dictionary = made
    selection = Selection(**{"min_prompts": 1, "min_rate": 0.1, **settings})
    rates = region_rates(dictionary, rows, behaves)
    likely = candidates_of(rates, selection)
    return conditions_of(dictionary, 0, rows, behaves, rates, likely, selection), likely


def by_name(conditions):
    found = {}
    for c in conditions:
        assert found.setdefault((c.method, c.k, c.draw), c) is c
    return found


def test_every_removal_has_its_nulls(made):
    rows, _, dictionary = made
    conditions, likely = every_condition(made, most=2, draws=3, methods=REMOVALS)
    named = by_name(conditions)
    assert len(likely) >= 2
    for k in (1, 2):
        top = tuple(r.region for r in likely[:k])
        for method in REMOVALS:
            assert named[method, k, 0].regions == top
        taken = removed_norm(named["exemplar", k, 0].edits, rows)
        for draw in range(3):
            alike = removed_norm(named[EQUAL_NORM, k, draw].edits, rows)
            assert alike == pytest.approx(taken, rel=1e-4)
            for null in (RANDOM, EQUAL_NORM):
                (edit,) = named[null, k, draw].edits
                assert edit.directions.shape == (k, WIDTH)
                assert np.array_equal(edit.point, dictionary.center)
            (plain,), (scaled,) = named[RANDOM, k, draw].edits, named[EQUAL_NORM, k, draw].edits
            np.testing.assert_array_equal(plain.directions, scaled.directions)
            assert plain.strength == 1.0
        matched = [c for c in conditions if (c.method, c.k) == (MATCHED, k)]
        several = [region for c in matched for region in c.regions]
        assert matched
        assert len(set(several)) == len(several)
        assert not set(several) & {r.region for r in likely[:k]}
        for c in matched:
            (edit,) = c.edits
            x = rows.vectors[:5]
            expected = x - projected(x, dictionary.exemplars[list(c.regions)], dictionary.center)
            np.testing.assert_allclose(after([edit], x), expected, atol=2e-5)


def test_the_difference_of_means_is_of_the_final_rows(made):
    rows, behaves, dictionary = made
    conditions, _ = every_condition(made)
    (edit,) = by_name(conditions)[DIFFERENCE, 1, 0].edits
    last = rows.vectors[rows.final].astype(np.float64)
    d = last[behaves].mean(axis=0) - last[~behaves].mean(axis=0)
    x = rows.vectors[:7]
    expected = x - projected(x, [d], dictionary.center)
    np.testing.assert_allclose(after([edit], x), expected, atol=2e-5)


def test_nulls_come_again_with_their_seed_and_differ_by_draw(made):
    one, again, other = (by_name(every_condition(made, draws=3, seed=s)[0]) for s in (0, 0, 1))
    for null in (RANDOM, EQUAL_NORM):
        for draw in range(3):
            key = (null, 1, draw)
            assert (
                one[key].edits[0].directions.tobytes() == again[key].edits[0].directions.tobytes()
            )
            assert not np.allclose(one[key].edits[0].directions, other[key].edits[0].directions)
        drawn = [one[null, 1, draw].edits[0].directions for draw in range(3)]
        assert not np.allclose(drawn[0], drawn[1])
        assert not np.allclose(drawn[1], drawn[2])


# A model with a behaviour in it.


class Planted:
    """Prompts, what they do, and a dictionary of them."""

    def __init__(self, silent=False, folder=None):
        self.model = planted_model(silent)
        triggered, plain = prompts(22, 0, True), prompts(46, 0, False)
        self.tests = (triggered[14:], plain[38:])
        self.select = [*triggered[:14], *plain[:38]]
        self.rows = read_prompts(self.model, [SITE], self.select, Tokenization(chat=True))[SITE]
        self.scorer = parse_scorer(SCORE)
        self.answers = KeptAnswers(self.model, folder, chat=True, batch_size=32)
        self.behaves = behaves_by_answers(self.answers, self.scorer, self.select, TOKENS)
        self.dictionaries = partitions(self.rows, 12.0, [1, 2])
        self.neutral = [np.arange(5, 40), np.arange(60, 90)]

    def __call__(self, n=1, tests=None, selection=None, answers=None, **options):
        return behavior(
            self.model, self.dictionaries[:n], self.rows, options.pop("behaves", self.behaves),
            tests or self.tests, self.scorer, answers or self.answers, self.neutral, selection,
            max_new_tokens=TOKENS, **options,
        )  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    return Planted()


@pytest.fixture(scope="module")
def report(planted):
    return planted(selection=Selection(methods=METHODS))


def test_the_region_of_a_planted_behaviour_is_found_and_its_removal_is_specific(planted, report):
    assert planted.behaves.tolist() == [True] * 14 + [False] * 38
    (likely,) = report.candidates
    assert (likely[0].rate, likely[0].share_of_behaving, likely[0].share_of_others) == (1, 1, 0)
    exemplar = planted.dictionaries[0].exemplars[likely[0].region]
    assert abs(exemplar @ basis()[CARRIER].numpy()) > 0.9
    assert (report.unedited.behaving, report.unedited.behaving_negative) == (
        Share(8, 8),
        Share(0, 8),
    )
    (removed,) = report.of("exemplar", 1)
    assert removed.behaving == removed.behaving_negative == Share(0, 8)
    assert removed.answers[0].text == " the" * TOKENS
    for null in NULLS:
        (left,) = report.of(null, 1)
        assert (left.behaving, left.behaving_negative) == (Share(8, 8), None)
    assert report.failures("exemplar", 1, 0) == []
    assert report.verdict("exemplar", 1) == (
        "exemplar, k = 1: from 1.00 to 0.00; the effect is specific"
    )
    assert report.n_select == (14, 38)
    assert report.notes == ()


def test_outcomes_are_of_the_model_under_the_edit(planted, report):
    from exemplars.analyses.fluency import answer_fluency, answers_perplexity, neutral_effect
    from exemplars.generation import generate
    from exemplars.intervene import edited

    (found,) = report.of("swap", 1)
    edits = found.condition.edits
    written = generate(planted.model, planted.tests[0], edits, max_new_tokens=TOKENS)
    assert [a.text for a in found.answers] == [a.text for a in written]
    assert found.fluency == answer_fluency([a.text for a in written])
    scored = answers_perplexity(
        planted.model, [a.prompt_ids for a in written], [a.ids for a in written]
    )
    assert found.perplexity == pytest.approx(scored.perplexity, rel=1e-5)
    effect = neutral_effect(planted.model, planted.neutral, lambda: edited(planted.model, edits))
    assert found.neutral == effect
    median = np.median(np.linalg.norm(planted.rows.vectors, axis=1))
    assert found.removed == pytest.approx(removed_norm(edits, planted.rows) / median, rel=1e-5)
    assert report.unedited.removed == 0
    assert report.unedited.neutral is None
    # All positive prompts behave, so the ordinary answers are those to the others.
    plain = generate(planted.model, planted.tests[1], max_new_tokens=TOKENS)
    scored = answers_perplexity(
        planted.model, [a.prompt_ids for a in plain], [a.ids for a in plain]
    )
    assert report.reference_perplexity == pytest.approx(scored.perplexity, rel=1e-5)


def test_several_orders_share_the_nulls_that_are_of_none(planted):
    selection = Selection(draws=2, methods=("exemplar",))
    told = []
    answers = KeptAnswers(planted.model, None, chat=True, batch_size=32, progress=told.append)
    found = planted(2, selection=selection, answers=answers)
    names = [(o.condition.method, o.condition.dictionary, o.condition.draw) for o in found.outcomes]
    assert len(set(names)) == len(names)
    assert [name for name in names if name[1] == -1] == [
        (UNEDITED, -1, 0), (DIFFERENCE, -1, 0), (RANDOM, -1, 0), (RANDOM, -1, 1),
    ]  # fmt: skip
    assert [len(found.of(EQUAL_NORM, 1, d)) for d in (0, 1)] == [2, 2]
    assert len(found.of(EQUAL_NORM, 1)) == 4
    assert found.verdict("exemplar", 1).endswith("the effect is specific in all 2 orders")
    missing = sum(2 - len(found.of(MATCHED, 1, d)) for d in (0, 1))
    tests = (len(planted.tests[0]), len(planted.tests[1]))
    assert sum(told) == n_answers(selection, 2, tests) - missing * tests[0]
    text = behavior_text(found)
    assert "first region" in text
    assert "range" in text


def test_a_model_that_is_broken_is_not_called_specific():
    found = Planted(silent=True)()
    for method in ("exemplar", "mean"):
        (removed,) = found.of(method, 1)
        assert removed.behaving.value == 0
        assert removed.fluency.short == 1
        assert "1.00 of the answers are short" in found.failures(method, 1, 0)
        assert "not specific" in found.verdict(method, 1)
    assert np.isnan(found.reference_perplexity)
    assert "too few ordinary answers" in found.verdict("mean", 1)
    assert "(empty)" in behavior_text(found)
    assert json.loads(to_json(behavior_summary(found)))["reference_perplexity"] is None


def test_without_a_candidate_there_is_a_sentence(planted):
    found = planted(selection=Selection(min_prompts=1000, methods=METHODS))
    assert [o.condition.method for o in found.outcomes] == [UNEDITED, DIFFERENCE]
    assert found.verdicts == {}
    text = behavior_text(found)
    assert "no candidates" in text
    assert "no region is a candidate: none has 1000 prompts or more of which 30% show" in text
    assert json.loads(to_json(behavior_summary(found)))["candidates"] == [[]]
    behavior_figure(found)
    several = behavior_text(planted(2, selection=Selection(min_prompts=1000)))
    assert "order 1: no region is a candidate" in " ".join(several.split())


def test_fewer_candidates_than_asked_for_are_said(planted):
    found = planted(selection=Selection(most=9, methods=("exemplar",)))
    n = len(found.candidates[0])
    assert n < 9
    assert list(found.verdicts) == [("exemplar", k) for k in range(1, n + 1)]
    assert found.notes == (
        f"only {n} of 9 regions can be removed, as there are no more candidates",
    )


def test_a_method_that_cannot_be_tried_is_said():
    """As with "any", which may choose a region that no prompt ends in."""
    found = verdict_report(selection=Selection(methods=("swap",), place="any"))
    sentence = "swap, k = 1: not tried: the method finds no prompts to work with in the regions"
    assert found.verdict("swap", 1) == sentence
    assert sentence in behavior_text(found)


def test_test_prompts_choose_nothing(planted, report):
    other = (prompts(6, 5, True), prompts(6, 5, False))
    found = planted(tests=other, selection=Selection(methods=METHODS))
    assert found.candidates == report.candidates
    assert found.reference_perplexity != report.reference_perplexity
    for a, b in zip(found.outcomes, report.outcomes, strict=True):
        assert a.condition == b.condition
        for one, two in zip(a.condition.edits, b.condition.edits, strict=True):
            assert one.directions.tobytes() == two.directions.tobytes()
            assert (one.point.tobytes(), one.strength) == (two.point.tobytes(), two.strength)


@pytest.mark.parametrize("which", [0, 1])
def test_a_prompt_that_chose_is_not_judged(planted, which):
    tests = [list(part) for part in planted.tests]
    tests[which].append(planted.select[20])
    with pytest.raises(ValueError, match="1 of the test prompts were used to choose"):
        planted(tests=tests)


def test_prompts_of_one_kind_and_dictionaries_of_another_site_are_refused(planted):
    for behaves in (np.zeros(52, bool), np.ones(52, bool)):
        with pytest.raises(ValueError, match=r"of 52 prompts show the behaviour; give .* both"):
            planted(behaves=behaves)
    other = replace(planted.dictionaries[0], provenance={"site": {"name": "resid_post.0"}})
    nowhere = replace(other, provenance={})
    for several in ([other], [planted.dictionaries[0], other], [nowhere], []):
        with pytest.raises(ValueError, match="dictionaries are not all of resid_post"):
            behavior(
                planted.model, several, planted.rows, planted.behaves, planted.tests,
                planted.scorer, planted.answers, [],
            )  # fmt: skip


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    generate = kept_answers.generate
    calls = []

    def third_time_unlucky(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return generate(*arguments, **options)

    monkeypatch.setattr(kept_answers, "generate", third_time_unlucky)
    study_of = Planted(folder=tmp_path)
    fresh = lambda: KeptAnswers(study_of.model, tmp_path, chat=True, batch_size=32)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        study_of(answers=fresh())
    assert len(list(tmp_path.iterdir())) == 4
    assert not list(tmp_path.glob("*.partial"))
    interrupted = len(calls)
    found = study_of(answers=fresh())
    asked = len(calls) - interrupted
    monkeypatch.setattr(kept_answers, "generate", None)
    again = study_of(answers=fresh())
    assert behavior_text(again) == behavior_text(found)
    assert to_json(behavior_summary(again)) == to_json(behavior_summary(found))
    assert asked + 4 == len(list(tmp_path.iterdir()))


# What is concluded.


def outcome(method, hits=0, short=0.0, perplexity=10.0, neutral=1.0, others=0, n=100, **where):
    where = {"k": 1, "dictionary": 0, **where}
    answers = tuple(Answer("p", "a", np.arange(2), np.arange(2), True) for _ in range(n))
    return Outcome(
        Condition(method, **where), Share(hits, n), None if others is None else Share(others, n),
        AnswerFluency(short, 0.0, 0.1, 0.9), perplexity,
        None if neutral is None else NeutralEffect(20.0, 20.0 * neutral, 0.01, 50), 0.5, answers,
    )  # fmt: skip


def verdict_report(ours=None, nulls=None, base=None, reference=10.0, **fields):
    base = {"hits": 80, **(base or {})}
    nulls = {null: [79] for null in NULLS} | (nulls or {})
    outcomes = [
        outcome(UNEDITED, k=0, dictionary=-1, **base),
        *([] if ours is None else [outcome("exemplar", **{"hits": 4, **ours})]),
        *(
            outcome(null, hits, draw=draw, dictionary=-1 if null == RANDOM else 0)
            for null, several in nulls.items()
            for draw, hits in enumerate(several)
        ),
    ]
    return BehaviorReport(
        **{
            "site": SITE, "selection": Selection(methods=("exemplar",)), "criteria": Criteria(),
            "scorer": {}, "n_select": (10, 10), "n_regions": (30,), "candidates": ((rate(4),),),
            "outcomes": tuple(outcomes), "reference_perplexity": reference, **fields,
        }
    )  # fmt: skip


NAN = float("nan")
ANSWERS = "the answers' perplexity is"
NEVER = "the unedited model does not show it on these prompts"


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, []),
        ({"ours": {"hits": 20, "short": 0.05, "others": 5}}, []),
        ({"ours": {"perplexity": 10.5, "neutral": 1.05}}, []),
        ({"ours": {"hits": 21}}, ["0.21 of the answers still show it"]),
        ({"ours": {"short": 0.06}}, ["0.06 of the answers are short"]),
        ({"ours": {"short": 0.06}, "base": {"short": 0.02}}, []),
        ({"ours": {"short": NAN}}, ["nan of the answers are short"]),
        ({"ours": {"others": 6}}, ["0.06 of the other prompts now show it"]),
        ({"ours": {"others": None}}, []),
        ({"ours": {"others": 6}, "base": {"others": 1}}, []),
        ({"ours": {"perplexity": 10.6}}, [f"{ANSWERS} 1.06 times that of ordinary ones"]),
        ({"ours": {"perplexity": 1.0, "neutral": 0.5}}, []),
        ({"ours": {"perplexity": NAN}}, ["the answers have no perplexity"]),
        ({"ours": {"perplexity": np.inf}}, [f"{ANSWERS} inf times that of ordinary ones"]),
        ({"reference": NAN}, ["there are too few ordinary answers to compare perplexities with"]),
        ({"ours": {"neutral": 1.06}}, ["perplexity of neutral text is 1.06 times what it was"]),
        ({"ours": {"neutral": NAN}}, ["perplexity of neutral text is nan times what it was"]),
        ({"ours": {"neutral": None}}, []),
        ({"nulls": {MATCHED: [63]}}, ["matched regions leave 0.63"]),
        ({"nulls": {MATCHED: [64]}}, []),
        ({"nulls": {RANDOM: [63]}}, ["random span leave 0.63"]),
        ({"nulls": {EQUAL_NORM: [80, 47]}}, ["random span, equal norm leave 0.64"]),
        ({"nulls": {EQUAL_NORM: [80, 48]}}, []),
        ({"nulls": {MATCHED: []}}, ["there is no null of matched regions"]),
        ({"base": {"hits": 0}, "ours": {"hits": 0}}, [NEVER]),
    ],
)  # fmt: skip
def test_each_criterion_alone_fails_with_its_reason(change, reasons):
    found = verdict_report(**{"ours": {}, **change})
    assert found.failures("exemplar", 1, 0) == reasons
    sentence = found.verdict("exemplar", 1)
    assert sentence.endswith("not specific: " + reasons[0] if reasons else "effect is specific")


def test_no_answers_are_no_success():
    found = verdict_report(ours={"n": 0, "hits": 0}, base={"n": 0, "hits": 0})
    assert found.failures("exemplar", 1, 0)


def test_criteria_can_be_other_ones():
    loose = Criteria(behaviour=0.5, null=0.5, short=0.5, others=0.5, perplexity=0.5)
    ours = {"hits": 40, "short": 0.5, "others": 50, "perplexity": 15.0, "neutral": 1.5}
    nulls = {null: [40] for null in NULLS}
    assert verdict_report(ours, nulls, criteria=loose).failures("exemplar", 1, 0) == []
    assert len(verdict_report(ours, nulls).failures("exemplar", 1, 0)) == 8


def test_orders_are_judged_apart():
    one = verdict_report({"hits": 4})
    second = [
        replace(o, condition=replace(o.condition, dictionary=1))
        for o in one.outcomes
        if o.condition.dictionary == 0
    ]
    both = {"n_regions": (30, 31), "candidates": ((rate(4),), (rate(5),))}
    good = replace(one, outcomes=(*one.outcomes, *second), **both)
    assert good.verdict("exemplar", 1).endswith("the effect is specific in all 2 orders")
    worse = [
        replace(o, behaving=Share(70, 100)) if o.condition.method == "exemplar" else o
        for o in second
    ]
    bad = replace(one, outcomes=(*one.outcomes, *worse), **both)
    assert bad.failures("exemplar", 1, 0) == []
    assert bad.verdict("exemplar", 1) == (
        "exemplar, k = 1: from 0.80 to 0.04–0.70; specific in 1 of 2 orders (0.70 of the answers "
        "still show it)"
    )
    without = replace(one, **{**both, "candidates": ((rate(4),), ())})
    assert without.failures("exemplar", 1, 1) == ["too few candidates"]
    assert "specific in 1 of 2 orders (too few candidates)" in without.verdict("exemplar", 1)


def test_a_share_has_its_interval():
    assert Share(3, 12).value == 0.25
    assert Share(3, 12).interval == wilson(3, 12)[1:]
    assert np.isnan([Share(0, 0).value, *Share(0, 0).interval]).all()


# What is shown.


def test_the_table_fits_a_terminal_and_names_everything(planted, report):
    text = behavior_text(report)
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    for name in (UNEDITED, DIFFERENCE, *REMOVALS, MATCHED, RANDOM, "random, equal norm"):
        (line,) = [line for line in lines if line.startswith(f"{name}  ")]
        assert line.split("  ")[0] == name
    (line,) = [line for line in lines if line.startswith("exemplar  ")]
    (removed,) = report.of("exemplar", 1)
    low, high = removed.behaving.interval
    assert line.split()[1:4] == ["0.00", f"{low:.2f}–{high:.2f}", "0.00"]
    for column in ("behaviour", "others", "short", "ppl", "neutral", "removed"):
        assert any(line.startswith(f"{column:9}  ") for line in lines)
    assert "candidates, 1 in all" in text
    assert text.startswith(behavior_text(report, 0) + "\n\n" + planted.tests[0][0])
    assert behavior_text(report, 99).count("unedited  ") == 1 + 8


def test_a_mean_over_orders_is_of_them_all():
    found = verdict_report({}, {EQUAL_NORM: [80, 40, 60]})
    lines = behavior_text(found).splitlines()
    (line,) = [line for line in lines if line.startswith("random, equal norm")]
    assert line.split()[3:5] == ["0.60", "0.40–0.80"]
    (line,) = [line for line in lines if line.startswith(UNEDITED)]
    assert "–" not in line


def test_hostile_text_does_not_reach_the_terminal(report):
    hostile = "\x1b[2J\x07red\u202e\u2028\r\n" + "x" * 300
    outcomes = tuple(
        replace(o, answers=tuple(replace(a, prompt=hostile, text=hostile) for a in o.answers))
        for o in report.outcomes
    )
    found = replace(report, outcomes=outcomes)
    text = behavior_text(found)
    assert not set(text) & set("\x1b\x07\u202e\u2028\r")
    assert "␛[2J␇red" in text
    assert max(map(len, text.splitlines())) <= 100
    summary = json.loads(to_json(behavior_summary(found)))
    assert summary["conditions"][0]["answers"][0]["text"] == hostile


def test_the_summary_is_plain_and_whole(report):
    found = json.loads(to_json(behavior_summary(report)))
    assert set(found) == {
        "site", "selection", "criteria", "scorer", "select_prompts", "regions", "candidates",
        "reference_perplexity", "conditions", "verdicts", "notes",
    }  # fmt: skip
    assert found["verdicts"]["exemplar, k = 1"] == {
        "sentence": report.verdict("exemplar", 1), "failures": [[]],
    }  # fmt: skip
    assert found["selection"]["methods"] == list(METHODS)
    assert found["criteria"] == vars(Criteria())
    assert found["scorer"]["kind"] == "regex"
    assert found["candidates"][0][0]["rate"] == 1
    for line, outcome_ in zip(found["conditions"], report.outcomes, strict=True):
        assert line["method"] == outcome_.condition.method
        assert line["behaving"]["hits"] == outcome_.behaving.hits
        assert line["behaving"]["share"] == outcome_.behaving.value
        assert (line["neutral"] is None) == (outcome_.neutral is None)
        assert len(line["answers"]) == 8
    without = behavior_summary(report, answers=False)
    assert "answers" not in without["conditions"][0]


def test_the_figure_has_a_mark_for_each_outcome(report):
    figure = behavior_figure(report)
    (axes,) = figure.axes
    marks = sorted(line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o")
    assert marks == sorted(o.behaving.value for o in report.outcomes)
    assert [label.get_text() for label in axes.get_yticklabels()][::-1] == [
        o.condition.method for o in report.outcomes
    ]
