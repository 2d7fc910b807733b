"""Partitions by wording: their number of regions, what they put together, and odd prompts."""

import numpy as np
import pytest

from exemplars.analyses import wording
from exemplars.analyses.prompts import stream_order

TOPICS = ("the cat sat on the {} mat", "compute the sum of {} and two", "write {} python code")
WORDS = ("red", "big", "old", "new", "odd", "raw", "dry", "wet", "hot", "shy")
PROMPTS = [topic.format(word) for topic in TOPICS for word in WORDS]
EMBEDDINGS = {
    wording.TOKENS: np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32),
    # Many prompts end in one token.
    wording.LAST: np.random.default_rng(1)
    .normal(size=(9, 6))
    .astype(np.float32)[np.arange(30) % 9],
}


@pytest.fixture(scope="module")
def ways():
    return wording.wordings(PROMPTS, EMBEDDINGS)


def test_every_way_gives_a_partition_whose_prompts_stand_for_their_regions(ways):
    assert set(ways) == {wording.KMEANS, wording.LEADER, wording.TOKENS, wording.LAST}
    for name, way in ways.items():
        for n_regions in (1, 3, 11, 30, 99):
            found = way(n_regions, 1)
            assert found.name == name
            assert found.region.shape == (30,)
            assert (found.region[found.exemplar] == np.arange(len(found))).all()
            assert set(found.region.tolist()) == set(range(len(found)))
            if name == wording.LAST:
                assert len(found) <= 9
                assert (found.region == found.region[np.arange(30) % 9]).all()


def test_prompts_that_differ_in_words_of_their_own_alone_are_one_wording():
    words = ["rose", "sky", "lemon", "leaf", "crow", "swan", "carrot", "plum", "brick", "coal"]
    prompts = [f"What is {k} plus {k + 1}?" for k in range(10)]
    prompts += [f"The colour of a {word} is" for word in words]
    prompts += [f"def f{k}(x): return x + {k}" for k in range(10)]
    way = wording.wordings(prompts, EMBEDDINGS)[wording.KMEANS]
    for n_regions in (5, 20, 30):
        found = way(n_regions, 1)
        assert (found.region[found.exemplar] == np.arange(len(found))).all()
        assert len(set(found.region[10:20].tolist())) == 1


def test_as_many_regions_as_asked_for_or_nearly(ways):
    assert [len(ways[wording.KMEANS](k, 1)) for k in (1, 3, 11, 30, 99)] == [1, 3, 11, 30, 30]
    sizes = [len(ways[wording.TOKENS](k, 1)) for k in (3, 8, 15, 25)]
    assert np.abs(np.array(sizes) - (3, 8, 15, 25)).max() <= 1
    # Templates have few distances between them, so few thresholds differ.
    sizes = [len(ways[wording.LEADER](k, 1)) for k in (3, 12, 25)]
    assert np.abs(np.array(sizes) - (3, 12, 25)).max() <= 3


def test_words_decide(ways):
    topic = np.repeat(np.arange(3), 10)
    for name in (wording.KMEANS, wording.LEADER):
        found = ways[name](3, 1).region
        assert len(set(zip(found.tolist(), topic.tolist(), strict=True))) == 3, name


def test_leaders_depend_on_the_order_and_the_first_prompt_of_it_founds_a_region(ways):
    for seed in (1, 2, 3):
        found = ways[wording.LEADER](8, seed)
        assert found.exemplar[0] == stream_order(30, seed)[0]
    assert len({tuple(ways[wording.LEADER](8, s).exemplar) for s in (1, 2, 3)}) == 3


def test_the_prompt_nearest_a_centroid_stands_for_it():
    rng = np.random.default_rng(3)
    uneven = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(40)]
    found = wording.wordings(uneven)[wording.KMEANS](4, 1)
    points = wording.tfidf_vectors(uneven)
    for k, prompt in enumerate(found.exemplar):
        mine = np.flatnonzero(found.region == k)
        distance = ((points[mine] - points[mine].mean(axis=0)) ** 2).sum(axis=1)
        assert distance[mine == prompt][0] == pytest.approx(distance.min(), abs=1e-5)


def test_without_embeddings_there_is_no_partition_of_them():
    assert wording.TOKENS not in wording.wordings(PROMPTS)


def test_wide_vectors_give_the_leaders_that_they_give_unreduced():
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(20, 50)).astype(np.float32) + 1
    padded = np.concatenate([wide, np.zeros((20, 9), np.float32)], axis=1)
    one, two = (wording.wordings(PROMPTS[:20], {"x": v})["x"](6, 2) for v in (wide, padded))
    assert one.exemplar.tolist() == two.exemplar.tolist()
    assert one.region.tolist() == two.region.tolist()


@pytest.mark.parametrize("different", [0, 1, 2])
def test_prompts_that_nearly_all_end_alike_have_few_regions(different):
    vectors = np.ones((30, 5), np.float32)
    vectors[:different] = np.random.default_rng(0).normal(size=(different, 5))
    found = wording.wordings(PROMPTS, {wording.LAST: vectors})[wording.LAST](9, 2)
    assert len(found) == 1 + different
    assert (found.region[found.exemplar] == np.arange(len(found))).all()
    assert len(set(found.region[different:].tolist())) == 1


def test_prompts_that_share_no_word_are_refused():
    with pytest.raises(ValueError, match="no word is in two of the prompts"):
        wording.wordings(["one", "two", "three"])
