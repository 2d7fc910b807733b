"""Two models by shared prompts: what is planted is found, and what is not is not."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import make_tokenizer
from exemplars.analyses import families, rounds, wording
from exemplars.analyses.families import FinalVectors, balanced, compare_families, read_final
from exemplars.analyses.prompts import stream_order
from exemplars.models import load_model
from exemplars.report.families import families_answer, families_figure, families_text, verdict
from tiny_models import N_LAYERS, WIDTH, tiny_module

WORDS = ("red", "big", "old", "new", "odd", "raw", "dry", "wet", "hot", "shy", "sad", "low")
TEXTS = {
    "harmful": [f"how to {a} the {b} thing" for a in WORDS for b in WORDS[:4]],
    "harmless": [f"say that {a} is a {b} word" for a in WORDS for b in WORDS[:4]],
}
PROMPTS = balanced(TEXTS)
N = len(PROMPTS)
SETTINGS = {"percentile": 10.0, "seeds": 2, "draws": 39}


def vectors_of(name, meaning, seed, noise=0.1, sites=2):
    """Sites in axes of their own, in which prompts of one meaning lie together."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(sites):
        places = 4 * np.linalg.qr(rng.normal(size=(16, 16)))[0]
        made.append((places[meaning] + noise * rng.normal(size=(N, 16)) + 1).astype(np.float32))
    embeddings = rng.normal(size=(N, 8)).astype(np.float32)
    return FinalVectors(name, tuple(f"s.{k}" for k in range(sites)), tuple(made), embeddings, False)


# Meanings that the wording does not tell, within classes.
MEANING = np.random.default_rng(5).integers(0, 6, N) + 6 * PROMPTS.label
OTHER = np.random.default_rng(6).integers(0, 6, N) + 6 * PROMPTS.label


@pytest.fixture(scope="module")
def shared():
    one, two = vectors_of("one", MEANING, 0), vectors_of("two", MEANING, 1, sites=3)
    return compare_families(one, two, PROMPTS, **SETTINGS)


@pytest.fixture(scope="module")
def unlike():
    one, two = vectors_of("one", MEANING, 0), vectors_of("two", OTHER, 1, sites=3)
    return compare_families(one, two, PROMPTS, **SETTINGS)


def test_models_that_share_meanings_return_and_the_answer_says_so(shared):
    grid = shared.grids[0]
    assert grid.subset == "wholly harmful"
    assert grid.mean > 0.95
    assert grid.p_grid == 1 / 40 == grid.p_grid_in_class
    assert families.grid_mean(grid.other_order) > 0.95
    assert max(families.grid_mean(v) for v in grid.texts.values()) < 0.5
    assert families.grid_mean(grid.chance) < families.grid_mean(grid.chance_in_class) < 0.4
    assert verdict(grid) == "Yes, more than their wording gives"
    assert families_answer(shared).startswith(
        "Do these models represent the same prompts together? Yes, more than their wording gives: "
    )
    assert families.grid_mean(shared.rand) > 0.9
    assert max(families.grid_mean(v) for v in shared.rand_texts.values()) < 0.5


def test_models_that_share_only_classes_return_no_more_than_classes_and_order_give(unlike):
    grid = unlike.grids[0]
    assert grid.p_grid_in_class > 0.05 or grid.mean < 2 * families.grid_mean(grid.same_order)
    assert families.grid_mean(grid.other_order) == pytest.approx(
        families.grid_mean(grid.chance_in_class), abs=0.15
    )


def test_without_anything_shared_a_shared_order_alone_beats_random_matching():
    """What the published null leaves out: prompts that come early found regions in both models."""
    rng = np.random.default_rng(3)
    every = balanced({"all": [text for several in TEXTS.values() for text in several]})

    def noise(name):
        vectors = tuple(rng.normal(size=(N, 4)).astype(np.float32) + 1 for _ in range(4))
        return FinalVectors(name, tuple("abcd"), vectors, vectors[0], False)

    found = compare_families(noise("one"), noise("two"), every, percentile=4, seeds=4, draws=39)
    grid = found.grids[0]
    chance, order = families.grid_mean(grid.chance), families.grid_mean(grid.same_order)
    assert order > 1.3 * chance
    assert grid.mean == pytest.approx(order, rel=0.15)
    assert families.grid_mean(grid.other_order) == pytest.approx(chance, rel=0.15)


def test_a_model_with_itself_is_the_identity():
    one = vectors_of("one", MEANING, 0)
    found = compare_families(one, replace(one, model="again"), PROMPTS, **SETTINGS)
    for grid in found.grids:
        assert (np.diagonal(grid.estimate) == 1).all()
    assert np.diagonal(found.rand) == pytest.approx(1)
    first, second = found.grid(families.ALL, 0), found.grid(families.ALL, 1)
    assert first.itself_other_order == pytest.approx(np.diagonal(first.other_order))
    assert np.isnan(np.diagonal(first.itself_other_layers)).all()
    off = ~np.eye(2, dtype=bool)
    assert first.itself_other_layers[off] == pytest.approx(first.estimate[off])
    assert first.estimate == pytest.approx(second.estimate)


def test_every_number_of_a_grid_is_the_mean_of_its_regions(shared):
    """Against regions, orders and layers taken one by one."""
    one, two = vectors_of("one", MEANING, 0), vectors_of("two", MEANING, 1, sites=3)
    seeds = (1, 2)
    ones, twos = (families.regions_of(f, PROMPTS.prompts, 10.0, seeds) for f in (one, two))
    grid = shared.grid("wholly harmless", 0)
    for a in range(2):
        for b in range(3):
            shares, chances, orders, places = [], [], [], []
            for s in range(2):
                x, y = ones[s][a], twos[s][b]
                wholly = [
                    (PROMPTS.label[x.region == r] == 1).all() for r in range(len(x))
                ]  # fmt: skip
                shares.append(rounds.returns(x, y)[wholly].mean())
                anyone = np.zeros(N, np.int64)
                chances.append(rounds.chance_of_return(x, y, anyone)[wholly].mean())
                z = twos[1 - s][b]
                orders.append(rounds.returns(x, z)[wholly].mean())
                number = np.empty(N, np.int64)
                number[stream_order(N, seeds[1 - s])] = stream_order(N, seeds[s])
                places.append(rounds.returns(x, z.renumbered(number))[wholly].mean())
            assert grid.estimate[a, b] == pytest.approx(np.mean(shares))
            assert grid.chance[a, b] == pytest.approx(np.mean(chances))
            assert grid.other_order[a, b] == pytest.approx(np.mean(orders))
            assert grid.same_order[a, b] == pytest.approx(np.mean(places))


def test_exemplars_are_the_prompts_that_founded_regions_and_lie_in_them():
    one = vectors_of("one", MEANING, 0)
    for layers in families.regions_of(one, PROMPTS.prompts, 5.0, (1, 2, 3)):
        for found in layers:
            assert (found.region[found.exemplar] == np.arange(len(found))).all()
            assert (found.region >= 0).all()


def test_where_no_region_is_of_one_class_the_numbers_are_empty_and_it_is_said():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(N, 6)).astype(np.float32)
    one = FinalVectors("one", ("s",), (mixed,), mixed, False)
    found = compare_families(one, one, PROMPTS, percentile=90, seeds=2, draws=19)
    assert np.isnan(found.grids[0].estimate).all()
    assert "That cannot be told: no region is wholly harmful" in families_answer(found)
    assert "No pair of sites has regions" in families_text(found)
    families_figure(found)


def test_without_classes_there_is_one_subset_and_no_word_of_classes():
    every = balanced({"all": TEXTS["harmful"] + TEXTS["harmless"]})
    one = vectors_of("one", MEANING, 0)
    found = compare_families(one, vectors_of("two", MEANING, 1), every, **SETTINGS)
    assert [grid.subset for grid in found.grids] == [families.ALL] * 2
    assert found.grids[0].p_grid == found.grids[0].p_grid_in_class
    assert "and the classes" not in families_text(found)


def test_texts_show_all_numbers_and_no_escape():
    one = replace(vectors_of("o\x1b[31m", MEANING, 0), sites=("a", "b"))
    found = compare_families(one, vectors_of("two", MEANING, 1), PROMPTS, **SETTINGS)
    text = families_text(found)
    assert "\x1b" not in text
    assert "nan" not in text
    for name in (wording.KMEANS, wording.LEADER, wording.TOKENS, wording.LAST):
        assert name in text


def test_classes_come_out_equal_and_each_prompt_once():
    found = balanced(
        {"a": [f"a {k}" for k in range(30)] + ["a 1"], "b": [f"b {k}" for k in range(9)]}
    )
    assert np.bincount(found.label).tolist() == [9, 9]
    assert found.left_out == 21
    assert len(set(found.prompts)) == 18
    assert found.subsets == ("wholly a", "wholly b", "all regions")
    again = balanced(
        {"a": [f"a {k}" for k in range(30)], "b": [f"b {k}" for k in range(9)]}, seed=1
    )
    assert again.prompts != found.prompts
    assert balanced(TEXTS, most=8).left_out == N - 16


def test_wrong_prompts_are_refused():
    with pytest.raises(ValueError, match="a class has 3 prompts, expected at least 8"):
        balanced({"a": ["1", "2", "3", "3"], "b": list("abcdefghij")})
    with pytest.raises(ValueError, match="'x' is in both a and b"):
        balanced({"a": ["x"], "b": ["x"]})
    one = vectors_of("one", MEANING, 0)
    with pytest.raises(ValueError, match="seeds is 1, expected 2 or more"):
        compare_families(one, one, PROMPTS, seeds=1)
    with pytest.raises(ValueError, match="one read other prompts than these 16"):
        compare_families(one, one, balanced(TEXTS, most=8))
    found = compare_families(one, one, PROMPTS, **SETTINGS)
    with pytest.raises(ValueError, match="no round trips are of 'nothing'"):
        found.grid("nothing")


@pytest.fixture(scope="module")
def chat_model():
    return load_model(tiny_module(vocab_size=300), make_tokenizer("chat"))


def test_final_positions_do_not_depend_on_what_is_read_beside(chat_model):
    """Prompts of unlike length are right-padded in one batch; alone they are not."""
    prompts = ["the", "the other, and another", "in the end there are so many of them"]
    for chat in (True, False):
        together = read_final(chat_model, prompts, chat=chat)
        assert together.sites == tuple(f"resid_post.{k}" for k in range(N_LAYERS))
        for k, prompt in enumerate(prompts):
            alone = read_final(chat_model, [prompt], chat=chat)
            for one, several in zip(alone.vectors, together.vectors, strict=True):
                assert one[0] == pytest.approx(several[k], abs=1e-4)


def test_the_final_position_is_the_last_token_of_what_the_model_is_given(chat_model):
    import torch

    messages = [{"role": "user", "content": "the other"}]
    ids = chat_model.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    ids = chat_model.tokenizer(ids, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = chat_model.module(ids, output_hidden_states=True).hidden_states
    found = read_final(chat_model, ["the other"], ["resid_post.0"])
    assert found.chat
    assert found.vectors[0][0] == pytest.approx(states[1][0, -1].numpy(), abs=1e-4)


def test_embeddings_are_means_over_the_prompts_own_tokens(chat_model):
    found = read_final(chat_model, ["the", "in the"], ["resid_post.0"])
    table = chat_model.module.get_input_embeddings().weight.detach().numpy()
    for k, prompt in enumerate(["the", "in the"]):
        ids = chat_model.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert found.embeddings[k] == pytest.approx(table[ids].mean(axis=0), abs=1e-6)
    assert found.embeddings.shape == (2, WIDTH)


def test_a_model_without_template_reads_plain_text_unless_one_is_asked_for():
    model = load_model(tiny_module(vocab_size=300), make_tokenizer("bos"))
    assert not read_final(model, ["the other"]).chat
    with pytest.raises(Exception, match="no chat template"):
        read_final(model, ["the other"], chat=True)
