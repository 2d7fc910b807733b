"""Round trips between partitions: against a slow oracle, and their exact chance against draws."""

import numpy as np
import pytest

from exemplars.analyses import rounds
from exemplars.analyses.rounds import PromptRegions


def made(n_prompts, n_regions, seed, lost=0):
    """Random regions, each with a member that stands for it; some prompts may be in none."""
    rng = np.random.default_rng(seed)
    exemplar = rng.permutation(n_prompts)[:n_regions]
    region = rng.integers(0, n_regions, n_prompts)
    free = np.setdiff1d(np.arange(n_prompts), exemplar)
    region[free[:lost]] = -1
    region[exemplar] = np.arange(n_regions)
    return PromptRegions("made", region, exemplar)


def slow_returns(one, other):
    found = []
    for r, prompt in enumerate(one.exemplar):
        there = other.region[prompt]
        back = -1 if there < 0 else one.region[other.exemplar[there]]
        found.append(bool(back == r))
    return found


STRATA = {
    "any": lambda n: np.zeros(n, np.int64),
    "two": lambda n: (np.arange(n) < n // 3).astype(np.int64),
    "alone": lambda n: np.minimum(np.arange(n), 2),  # two strata of one prompt
}


@pytest.mark.parametrize("lost", [0, 5])
@pytest.mark.parametrize("sizes", [(30, 6, 9), (30, 1, 1), (12, 12, 12), (40, 3, 25)])
def test_returns_are_those_of_the_steps_one_by_one(sizes, lost):
    n, k, m = sizes
    lost = min(lost, n - max(k, m))
    for seed in range(5):
        one, other = made(n, k, seed, lost), made(n, m, seed + 100, lost)
        assert rounds.returns(one, other).tolist() == slow_returns(one, other)


def test_every_trip_through_itself_or_through_its_own_prompts_returns():
    one = made(50, 8, 0)
    assert rounds.returns(one, one).all()
    every = PromptRegions("each its own", np.arange(50), np.arange(50))
    assert rounds.returns(one, every).all()
    assert rounds.returns(every, one).sum() == len(one)


def test_a_trip_through_one_region_returns_to_one_at_most():
    one = made(50, 8, 1)
    single = PromptRegions("one region", np.zeros(50, np.int64), np.array([7]))
    assert np.flatnonzero(rounds.returns(one, single)).tolist() == [one.region[7]]


def test_a_prompt_without_region_leads_nowhere():
    one, other = made(20, 4, 2), made(20, 4, 3)
    region = other.region.copy()
    region[one.exemplar] = -1
    assert not rounds.returns(one, PromptRegions("lost", region, other.exemplar)).any()


def test_renumbering_moves_prompts_and_keeps_the_partition():
    one = made(20, 4, 4, 3)
    number = np.random.default_rng(0).permutation(20)
    moved = one.renumbered(number)
    assert (moved.region[number] == one.region).all()
    assert (moved.region[moved.exemplar] == np.arange(4)).all()
    other = made(20, 5, 5)
    both = rounds.returns(moved, other.renumbered(number))
    assert (both == rounds.returns(one, other)).all()


@pytest.mark.parametrize("kind", STRATA)
def test_a_random_matching_is_a_bijection_that_keeps_strata(kind):
    strata = STRATA[kind](31)
    matchings = [rounds.random_matching(strata, np.random.default_rng(s)) for s in range(20)]
    for matching in matchings:
        assert sorted(matching) == list(range(31))
        assert (strata[matching] == strata).all()
    assert len({tuple(m) for m in matchings}) == 20


@pytest.mark.parametrize("lost", [0, 4])
@pytest.mark.parametrize("kind", STRATA)
def test_the_exact_chance_is_the_mean_over_all_matchings(kind, lost):
    """Of 6 prompts all 720 bijections are gone through; of 24 many are drawn."""
    from itertools import permutations

    n = 7 if lost else 6
    one, other = made(n, 3, 6, min(lost, 2)), made(n, 2, 7, min(lost, 2))
    strata = STRATA[kind](n)
    found = [
        rounds.returns(one, other.renumbered(np.array(p)))
        for p in permutations(range(n))
        if (strata[list(p)] == strata).all()
    ]
    exact = np.mean(found, axis=0)
    assert rounds.chance_of_return(one, other, strata) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("kind", STRATA)
def test_permuted_counts_are_those_of_renumbered_partitions(kind):
    ones, others = [made(24, 5, 8, 2), made(24, 3, 9)], [made(24, k, k, 1) for k in (4, 7, 2)]
    strata = STRATA[kind](24)
    rng = np.random.default_rng(0)
    chosen = [np.stack([np.ones(len(o), bool), rng.random(len(o)) < 0.5]) for o in ones]
    counted = rounds.permuted_counts(ones, others, chosen, strata, 30, 3)
    assert counted.shape == (30, 2, 2, 3)
    for draw in range(30):
        matching = rounds.random_matching(strata, np.random.default_rng([3, 0xB1, draw]))
        inverse = np.argsort(matching)
        for a, one in enumerate(ones):
            for b, other in enumerate(others):
                back = rounds.returns(one, other.renumbered(inverse))
                for g in range(2):
                    assert counted[draw, g, a, b] == back[chosen[a][g]].sum()


def test_the_mean_of_many_draws_comes_to_the_exact_chance():
    ones, others = [made(60, 9, 10, 3)], [made(60, 12, 11)]
    strata = STRATA["two"](60)
    chosen = [np.ones((1, 9), bool)]
    drawn = rounds.permuted_counts(ones, others, chosen, strata, 4000, 0)[:, 0, 0, 0]
    exact = rounds.chance_of_return(ones[0], others[0], strata).sum()
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / np.sqrt(len(drawn))


def test_p_values_are_uniform_at_most_under_the_null_and_small_under_a_strong_effect():
    rng = np.random.default_rng(0)
    expected = np.full((4, 5), 3.0)
    drawn = rng.poisson(3.0, (199, 4, 5)).astype(float)
    falsely = []
    for _ in range(300):
        observed = rng.poisson(3.0, (4, 5)).astype(float)
        cells, _ = rounds.corrected_p_values(observed, drawn, expected)
        falsely.append(bool((cells < 0.1).any()))
    assert np.mean(falsely) < 0.17  # family-wise: any of twenty cells
    cells, mean = rounds.corrected_p_values(expected + np.eye(4, 5) * 40, drawn, expected)
    assert (cells[np.eye(4, 5) > 0] == 1 / 200).all()
    assert (cells[np.eye(4, 5) == 0] > 0.2).all()
    assert mean == 1 / 200


def test_a_cell_that_no_draw_moves_has_p_one():
    drawn = np.zeros((49, 1, 2))
    drawn[:, 0, 1] = np.arange(49)
    cells, _ = rounds.corrected_p_values(np.array([[5.0, 60.0]]), drawn, drawn.mean(axis=0))
    assert cells.tolist() == [[1.0, 1 / 50]]


def test_sizes_count_each_stratum_and_leave_out_prompts_without_region():
    one = PromptRegions("x", np.array([0, 1, 1, -1, 0]), np.array([0, 1]))
    assert one.sizes(np.array([0, 0, 1, 1, 1])).tolist() == [[1, 1], [1, 1]]
    assert len(one) == 2
    assert one.to_exemplar.tolist() == [0, 1, 1, -1, 0]
