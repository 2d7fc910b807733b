"""Rows of prompts, partitions of them in several orders, and answers that are kept."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import make_tokenizer
from exemplars.analyses import prompts as module
from exemplars.analyses.prompts import KeptAnswers, PromptRows, partitions, read_prompts
from exemplars.generation import generate
from exemplars.intervene import Edit
from exemplars.models import Model, load_model
from exemplars.tokenization import Tokenization
from planted import SITE, planted_module, prompts
from tiny_models import WIDTH, tiny_module

CHAT = Tokenization(chat=True)
TEXTS = (*prompts(3, 0, True), *prompts(3, 0, False))
EDIT = Edit.ablate(np.eye(WIDTH, dtype=np.float32)[3], site=SITE)


def made_rows(sizes, seed=0):
    rng = np.random.default_rng(seed)
    names = tuple(f"prompt {k}" for k in range(len(sizes)))
    vectors = rng.normal(size=(sum(sizes), 6)).astype(np.float32) + 1
    return PromptRows(SITE, names, vectors, np.repeat(np.arange(len(sizes)), sizes))


@pytest.fixture(scope="module")
def model():
    return load_model(planted_module(), make_tokenizer("chat"))


@pytest.fixture(scope="module")
def read(model):
    return read_prompts(model, [SITE, "resid_pre.0"], TEXTS, CHAT)


@pytest.fixture
def no_generation(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it generated")

    monkeypatch.setattr(module, "generate", refuse)


def kept(model, folder, **options):
    return KeptAnswers(model, folder, **{"chat": True, "batch_size": 4, **options})


def plain(answers):
    return [(a.prompt, a.text, a.prompt_ids.tolist(), a.ids.tolist(), a.finished) for a in answers]


def test_final_some_and_final_only_are_of_the_right_prompts():
    sizes = (3, 1, 4, 2)
    rows = made_rows(sizes)
    ends = np.cumsum(sizes) - 1
    assert rows.final.tolist() == ends.tolist()
    chosen = rows.some([2, 0, 2])
    assert chosen.prompts == ("prompt 2", "prompt 0", "prompt 2")
    assert chosen.prompt.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    expected = np.concatenate([rows.vectors[4:8], rows.vectors[:3], rows.vectors[4:8]])
    assert np.array_equal(chosen.vectors, expected)
    assert chosen.final.tolist() == [3, 6, 10]
    last = rows.final_only()
    assert np.array_equal(last.vectors, rows.vectors[ends])
    assert (last.prompt.tolist(), last.prompts) == ([0, 1, 2, 3], rows.prompts)
    assert last.site == chosen.site == SITE


def test_rows_of_prompts_are_those_that_the_model_answers(model, read):
    """Each prompt by itself, under the template, without what every prompt begins with."""
    import torch

    assert set(read) == {SITE, "resid_pre.0"}
    for i, answer in enumerate(generate(model, TEXTS, max_new_tokens=1)):
        with torch.no_grad():
            hidden = model.module(
                torch.tensor(answer.prompt_ids)[None], output_hidden_states=True
            ).hidden_states
        for site, layer in ((SITE, 2), ("resid_pre.0", 0)):
            rows = read[site]
            mine = rows.vectors[rows.prompt == i]
            assert 0 < len(mine) < len(answer.prompt_ids)
            np.testing.assert_allclose(mine, hidden[layer][0, -len(mine) :], atol=2e-4)


def test_a_site_has_one_name_however_it_is_spelled(model, read):
    found = read_prompts(model, ["blocks.1.hook_resid_post"], TEXTS[:1], CHAT)
    assert np.array_equal(found[SITE].vectors, read[SITE].vectors[read[SITE].prompt == 0])


def test_a_context_length_does_not_cut_prompts(model, read):
    short = Tokenization(chat=True, context_length=20)
    found = read_prompts(model, [SITE], TEXTS, short)[SITE]
    assert np.array_equal(found.vectors, read[SITE].vectors)


@pytest.mark.parametrize(
    ("texts", "tokenization", "found"),
    [
        (("a", "the " * 200), CHAT, "prompt 2 has .* tokens and 192 are read at most"),
        (("the other", "a"), Tokenization(), "prompt 2 has no rows at resid_post.1"),
        (("a",), Tokenization(), "prompt 1 has no rows"),
        ((), CHAT, "no prompt was given"),
    ],
)
def test_prompts_that_cannot_be_read_are_named(texts, tokenization, found):
    tokenizer = make_tokenizer("gpt2")
    tokenizer.chat_template = make_tokenizer("chat").chat_template
    with pytest.raises(ValueError, match=found):
        read_prompts(load_model(planted_module(), tokenizer), [SITE], texts, tokenization)


def test_partitions_share_a_calibration_and_differ_in_order():
    rows = made_rows([int(n) for n in np.random.default_rng(1).integers(1, 5, 60)])
    given, one, two, again = partitions(rows, 20.0, [0, 1, 2, 1])
    for found in (one, two):
        assert np.array_equal(found.center, given.center)
        assert found.threshold == given.threshold
        assert not np.array_equal(found.exemplars[: len(given)], given.exemplars[: len(found)])
    assert np.array_equal(one.exemplars, again.exemplars)
    assert not np.array_equal(one.exemplars[:8], two.exemplars[:8])
    # Seed 0 is the order given: its first row founds the first region.
    direction = rows.vectors[0] - given.center
    np.testing.assert_allclose(given.exemplars[0], direction / np.linalg.norm(direction), atol=1e-6)
    assert [d.provenance["seed"] for d in (given, one, two)] == [0, 1, 2]
    assert {d.site for d in (given, one, two)} == {SITE}


def test_an_order_is_of_prompts_whose_rows_stay_together():
    rows = made_rows((3, 2, 4, 1, 5, 2, 3))
    (found,) = partitions(rows, 0.001, [3])  # nearly every row founds a region
    directions = rows.vectors - found.center
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    order = np.argmax(found.exemplars @ directions.T, axis=1)
    prompt = rows.prompt[order]
    assert len(set(prompt)) == 1 + np.count_nonzero(np.diff(prompt))
    for number in set(prompt):
        assert (np.diff(order[prompt == number]) > 0).all()
    assert not np.array_equal(prompt, np.sort(prompt))


def test_answers_are_those_of_generate_and_are_found_again(model, tmp_path, monkeypatch):
    told = []
    first = kept(model, tmp_path / "new", progress=told.append)
    asked = first(TEXTS, [EDIT], 5)
    expected = generate(model, TEXTS, [EDIT], max_new_tokens=5, batch_size=4)
    assert plain(asked) == plain(expected)
    assert sum(told) == len(TEXTS)
    monkeypatch.setattr(module, "generate", None)
    assert plain(first(TEXTS, [EDIT], 5)) == plain(expected)
    told.clear()
    found = kept(model, tmp_path / "new", progress=told.append)(TEXTS, [EDIT], 5)
    assert plain(found) == plain(expected)
    assert told == [len(TEXTS)]
    assert [file.suffix for file in (tmp_path / "new").iterdir()] == [".json"]


def test_text_that_is_found_again_keeps_its_spaces(model, tmp_path, no_generation, monkeypatch):
    """A tokenizer may want spaces before punctuation removed; generate does not let it."""
    tokenizer = make_tokenizer("chat")
    tokenizer.clean_up_tokenization_spaces = True
    other = Model(model.module, tokenizer, "other")
    ids = tokenizer("the . a , b n't", add_special_tokens=False)["input_ids"]
    answers = kept(other, tmp_path)
    (tmp_path / f"{answers._key(['a'], (), 9)}.json").write_text(
        json.dumps({"ids": [ids], "finished": [True]})
    )
    assert answers(["a"], (), 9)[0].text == "the . a , b n't"


@pytest.mark.parametrize(
    "spoiled",
    [
        "",
        '{"ids": [[1',
        "[]",
        "null",
        "[" * 100_000,
        '{"finished": []}',
        '{"ids": [], "finished": []}',
        '{"ids": 3, "finished": [true]}',
        '{"ids": [3], "finished": [true]}',
        '{"ids": [["a"]], "finished": [true]}',
        '{"ids": [[1.5]], "finished": [true]}',
        '{"ids": [[-1]], "finished": [true]}',
        '{"ids": [[99999999999999999999]], "finished": [true]}',
        '{"ids": [[512]], "finished": [true]}',
        '{"ids": [[5]], "finished": [true, false]}',
        '{"ids": [[5]], "finished": null}',
        b"\xff\xfe\x00",
    ],
)
def test_a_file_that_is_cut_short_or_foreign_is_written_again(model, tmp_path, spoiled):
    expected = plain(kept(model, tmp_path)(TEXTS[:1], (), 2))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_bytes(spoiled if isinstance(spoiled, bytes) else spoiled.encode())
    assert plain(kept(model, tmp_path)(TEXTS[:1], (), 2)) == expected
    assert file.read_bytes() == good


def test_whatever_changes_an_answer_is_another_key(model):
    answers = kept(model, None)

    def key(prompts=TEXTS, edits=(EDIT,), tokens=5, of=answers):
        return of._key(list(prompts), list(edits), tokens)

    bare = Model(model.module, make_tokenizer("bos"), "other")
    half = load_model(planted_module().half(), make_tokenizer("chat"))
    others = [
        key(TEXTS[:-1]), key(TEXTS[::-1]), key(tokens=6), key(edits=()), key(edits=(EDIT, EDIT)),
        *(
            key(edits=[replace(EDIT, **change)])
            for change in (
                {"site": "resid_post.0"}, {"operation": "swap"}, {"strength": 0.5}, {"unit": 2.0},
                {"limit": 1.0}, {"positions": "all"}, {"positions": 3},
                {"directions": -EDIT.directions}, {"point": EDIT.point + 1},
            )
        ),
        key(of=kept(model, None, chat=False)), key(of=kept(model, None, batch_size=5)),
        key(of=kept(bare, None)), key(of=kept(half, None)),
        key(of=kept(load_model(tiny_module(seed=1), make_tokenizer("chat")), None)),
    ]  # fmt: skip
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key(edits=[replace(EDIT, directions=EDIT.directions.copy())])
    assert key(edits=[replace(EDIT, positions=3)]) == key(
        edits=[replace(EDIT, positions=np.int64(3))]
    )
    again = load_model(planted_module(), make_tokenizer("chat"))
    assert key() == key(of=kept(again, None))


def test_an_edit_under_a_mask_cannot_be_kept(model):
    for positions in (np.ones((1, 3), bool), lambda position: position > 2):
        with pytest.raises(ValueError, match="mask or a function of positions cannot be kept"):
            kept(model, None)(TEXTS, [replace(EDIT, positions=positions)])


def test_without_a_folder_nothing_is_written(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answers = kept(model, None)
    first = answers(TEXTS[:2], (), 2)
    assert answers(TEXTS[:2], (), 2) is first
    assert list(tmp_path.iterdir()) == []
