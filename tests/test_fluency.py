"""Fluency: words of any script, measures against slow oracles, log-probabilities exact."""

import math
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exemplars.analyses import fluency
from exemplars.analyses.fluency import (
    answer_fluency,
    answers_perplexity,
    distinct_words,
    is_short,
    neutral_effect,
    perplexity,
    repetition,
    token_log_probabilities,
    words,
)
from tiny_models import ARCHITECTURES, VOCABULARY, tiny_model, token_lists

anything = st.text(st.characters(codec=None), max_size=60)
repeating = st.lists(st.sampled_from(["the", "sea", "Salt", "SEA", "moon"]), max_size=30)


# --- words ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The sea, the SEA!", ["the", "sea", "the", "sea"]),
        ("don’t can't 'quoted' o''clock", ["don't", "can't", "quoted", "o''clock"]),
        ("f_x = __init__(3.14)", ["f_x", "init", "3", "14"]),
        ("well-known — dash…dots\nline", ["well", "known", "dash", "dots", "line"]),
        ("nai\u0308ve cafe\u0301", ["nai\u0308ve", "cafe\u0301"]),  # marks of their own
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("我喜欢海", ["我", "喜", "欢", "海"]),
        ("GPT是モデル", ["gpt", "是", "モ", "デ", "ル"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("안녕 세상", ["안녕", "세상"]),
        ("Straße", ["strasse"]),
        ("", []),
        ("?! … 👍 \n\x00 '' __", []),
        ("\u0301 \u0301x", ["x"]),
    ],
)
def test_words_of_many_scripts(text, expected):
    assert words(text) == expected


@given(anything)
def test_words_are_the_letters_and_digits_of_a_text(text):
    alphanumeric = [c.casefold() for c in text if c.isalnum()]
    assert "".join(alphanumeric) == "".join(c for w in words(text) for c in w if c.isalnum())
    assert all(any(c.isalnum() for c in word) for word in words(text))


def test_short_answers():
    answers = ["", "...", "one", "one two", "one two three", "我喜欢"]
    assert is_short(answers).tolist() == [True, True, True, True, False, False]
    assert is_short(answers, 1).tolist() == [True, True, False, False, False, False]
    assert is_short([]).shape == (0,)
    assert is_short([]).dtype == is_short(answers).dtype == np.bool_


@given(repeating)
def test_repetition_is_the_share_of_grams_that_stood_before(found):
    lower = [w.lower() for w in found]
    grams = [lower[i : i + 4] for i in range(len(lower) - 3)]
    seen = sum(gram in grams[:i] for i, gram in enumerate(grams))
    text = "  ".join(found) + "."
    assert repetition([text])[0] == pytest.approx(seen / len(grams) if grams else 0.0, abs=1e-12)
    kinds = len(set(lower)) / len(lower) if lower else math.nan
    np.testing.assert_allclose(distinct_words([text])[0], kinds)


def test_repetition_of_a_loop_and_of_a_sentence():
    loop, sentence = "I am here. " * 20, "The quick brown fox jumps over the lazy dog."
    values = repetition([loop, sentence, "a a a", "我喜欢海" * 5])
    assert values.tolist() == [1 - 3 / 57, 0.0, 0.0, 1 - 4 / 17]


@given(st.lists(repeating, max_size=8))
def test_the_record_is_the_means_of_the_measures(several):
    answers = [" ".join(found) for found in several]
    record = answer_fluency(answers)
    sizes = np.array([len(found) for found in several], int)

    def mean(values, where):
        return values[where].mean() if where.any() else math.nan

    every = np.ones(len(answers), bool)
    np.testing.assert_allclose(record.short, mean(is_short(answers), every))
    np.testing.assert_allclose(record.empty, mean(sizes == 0, every))
    np.testing.assert_allclose(record.repetition, mean(repetition(answers), sizes >= 4), atol=1e-12)
    np.testing.assert_allclose(record.distinct, mean(distinct_words(answers), sizes > 0))


# --- log-probabilities ---


@contextmanager
def pushed(model, size=0.5, layer=1):
    """A vector is added to the output of a layer."""
    vector = torch.linspace(-1, 1, model.width) * size

    def push(_, args, output):
        return output + vector if torch.is_tensor(output) else (output[0] + vector, *output[1:])

    handle = model.layers[layer].register_forward_hook(push)
    try:
        yield
    finally:
        handle.remove()


def without_keeping(model):
    """The model's forward no longer takes `logits_to_keep`."""
    full = model.module.forward

    def forward(input_ids, attention_mask):
        return full(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)

    model.module.forward = forward
    return model


@contextmanager
def logits_seen(model):
    """The sizes in bytes of all logits that the model computes meanwhile."""
    sizes = []
    handle = model.unembedding.register_forward_hook(
        lambda _, args, output: sizes.append(output.numel() * 4)
    )
    try:
        yield sizes
    finally:
        handle.remove()


def own_loss(model, ids, start):
    """transformers' own mean loss over the tokens from `start` on."""
    labels = torch.tensor([ids])
    given_ids = labels.clone()
    labels[0, :start] = -100
    with torch.no_grad():
        return float(model.module(input_ids=given_ids, labels=labels).loss)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probabilities_are_those_of_the_models_own_loss(architecture):
    model = tiny_model(architecture)
    texts, starts = token_lists((7, 12, 3, 9)), [1, 5, 2, 8]
    found = token_log_probabilities(model, texts, starts)
    assert [len(part) for part in found] == [6, 7, 1, 1]
    for ids, start, part in zip(texts, starts, found, strict=True):
        assert part.dtype == np.float32
        assert (part <= 0).all()
        assert -part.mean(dtype=np.float64) == pytest.approx(own_loss(model, ids, start), rel=1e-5)


@pytest.mark.parametrize("keeps", [True, False])
def test_neither_padding_nor_grouping_nor_the_limit_changes_anything(keeps, monkeypatch):
    model = tiny_model() if keeps else without_keeping(tiny_model())
    texts, starts = token_lists((7, 40, 3, 9, 2, 40, 21), seed=1), [1, 30, 3, 1, 1, 2, 20]
    alone = [
        token_log_probabilities(model, [ids], [start])[0]
        for ids, start in zip(texts, starts, strict=True)
    ]
    settings = [(256 << 20, 2048), (256 << 20, 50), (4 * VOCABULARY * 3, 2048), (1, 1)]
    for logit_bytes, batch_tokens in settings:
        monkeypatch.setattr(fluency, "LOGIT_BYTES", logit_bytes)
        with logits_seen(model) as sizes:
            found = token_log_probabilities(model, texts, starts, batch_tokens=batch_tokens)
        for one, other in zip(alone, found, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-5)
        if keeps:
            assert max(sizes) <= max(logit_bytes, 4 * VOCABULARY)


def test_texts_share_passes_only_as_far_as_they_may():
    model = tiny_model()
    texts = token_lists((10, 10, 10, 5, 5), seed=2)
    with logits_seen(model) as sizes:
        token_log_probabilities(model, texts, [1] * 5)
        token_log_probabilities(model, texts, [1] * 5, batch_tokens=20)
        token_log_probabilities(model, [texts[0], [3]], [10, 1])
    rows = [size // 4 // VOCABULARY for size in sizes]
    assert rows == [5 * 9, 2 * 9, 2 * 9, 4]  # the last of nothing at all


def test_a_group_holds_the_logits_from_its_earliest_start_on(monkeypatch):
    model = tiny_model()
    texts = token_lists((20, 20, 20), seed=3)
    monkeypatch.setattr(fluency, "LOGIT_BYTES", 4 * VOCABULARY * 30)
    with logits_seen(model) as sizes:
        token_log_probabilities(model, texts, [1, 19, 19])
    assert [size // 4 // VOCABULARY for size in sizes] == [19, 2]


def test_hooks_see_which_tokens_are_padding():
    model, masks = tiny_model(), []
    model.base.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    texts = token_lists((4, 7, 5))
    token_log_probabilities(model, texts, [1, 1, 1])
    assert [mask.tolist() for mask in masks] == [
        [[int(t < n) for t in range(7)] for n in (7, 5, 4)]
    ]


def test_a_mode_and_its_gradients_are_as_they_were():
    model = tiny_model("gpt2")
    model.module.train()
    texts = token_lists()
    one, two = (token_log_probabilities(model, texts, [1] * 4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))  # no dropout
    assert model.module.training
    assert torch.is_grad_enabled()


def test_token_ids_of_any_kind():
    model = tiny_model()
    lists = token_lists((5, 6))
    expected = token_log_probabilities(model, lists, [1, 1])
    for kind in (np.array, torch.tensor, tuple, lambda ids: np.array(ids, np.int32)):
        found = token_log_probabilities(model, [kind(ids) for ids in lists], [1, 1])
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert token_log_probabilities(model, [[]], [1])[0].shape == (0,)
    short = [np.array(ids, np.int32) for ids in lists]
    assert neutral_effect(model, short, nullcontext).tokens == 9


@pytest.mark.parametrize(
    ("texts", "starts", "said"),
    [
        ([[1, 2]], [0], "text 1 has 2 tokens and its start is 0"),
        ([[1, 2], [3, 4]], [1, 3], "text 2 has 2 tokens and its start is 3"),
        ([[1, 2]], [1, 1], "1 texts and 2 starts"),
        ([[0.5, 2.0]], [1], "token ids of shape (2,) and type float64"),
        ([[[1, 2]]], [1], "token ids of shape (1, 2)"),
        ([[1] * 65], [1], "a text has 65 tokens and LlamaForCausalLM reads at most 64"),
    ],
)
def test_wrong_texts_and_starts_are_refused(texts, starts, said):
    with pytest.raises(ValueError) as caught:
        token_log_probabilities(tiny_model(), texts, starts)
    assert said in str(caught.value)


def test_perplexity_is_over_all_tokens_together():
    parts = [np.log(np.array([0.5, 0.5, 0.5], np.float32)), np.log(np.array([0.125], np.float32))]
    assert perplexity(parts) == pytest.approx(2 ** ((3 + 3) / 4))
    assert math.isnan(perplexity([]))
    assert math.isnan(perplexity([np.empty(0, np.float32)]))
    assert perplexity([np.array([-1e6])]) == math.inf
    assert perplexity([np.array([-np.inf, -1.0])]) == math.inf
    assert math.isnan(perplexity([np.array([np.nan, -1.0])]))


def test_perplexity_of_answers_given_their_prompts():
    model = tiny_model()
    prompts, answers = token_lists((7, 4, 9)), [[5, 6, 7], [], [8]]
    found = answers_perplexity(model, prompts, answers)
    pairs = zip(prompts, answers, strict=True)
    own = [own_loss(model, p + a, len(p)) if a else math.nan for p, a in pairs]
    np.testing.assert_allclose(found.per_answer, np.exp(own), rtol=1e-5)
    assert found.per_answer.dtype == np.float64
    assert found.perplexity == pytest.approx(math.exp((3 * own[0] + own[2]) / 4), rel=1e-5)
    assert found.tokens == 4
    with pushed(model):
        assert answers_perplexity(model, prompts, answers).perplexity != found.perplexity


def test_an_answer_ends_before_its_end_token():
    model = tiny_model()
    prompts = token_lists((7, 4, 5))
    cut = answers_perplexity(model, prompts, [[5, 6], [], [7]])
    ended = answers_perplexity(model, prompts, [[5, 6, 0, 9], [0, 0], [7, 0]])  # EOS is 0
    np.testing.assert_array_equal(ended.per_answer, cut.per_answer)
    assert ended.tokens == 3
    model.module.generation_config.eos_token_id = [6, 9]
    several = answers_perplexity(model, prompts, [[5, 6], [0], [7]])
    np.testing.assert_array_equal(
        several.per_answer, answers_perplexity(model, prompts, [[5], [], [7]]).per_answer
    )


def test_answers_without_any_token_have_no_perplexity():
    found = answers_perplexity(tiny_model(), token_lists((3, 4)), [[], []])
    assert math.isnan(found.perplexity)
    assert np.isnan(found.per_answer).tolist() == [True, True]
    assert found.tokens == 0
    none = answers_perplexity(tiny_model(), [], [])
    assert math.isnan(none.perplexity)
    assert none.per_answer.shape == (0,)


def test_prompts_without_tokens_are_refused():
    with pytest.raises(ValueError, match="prompt 2 has no tokens"):
        answers_perplexity(tiny_model(), [[1], []], [[2], [3]])
    with pytest.raises(ValueError, match="2 prompts and 1 answers"):
        answers_perplexity(tiny_model(), [[1], [2]], [[2]])


# --- neutral texts ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_change_has_no_effect_at_all(architecture):
    model = tiny_model(architecture)
    found = neutral_effect(model, token_lists(), nullcontext)
    assert found.kl == 0
    assert found.perplexity == found.changed_perplexity
    assert found.tokens == 6 + 11 + 2 + 8


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("logit_bytes", [256 << 20, 4 * VOCABULARY * 4, 1])
def test_the_effect_is_that_of_a_slow_oracle(logit_bytes, keeps, monkeypatch):
    model, texts = tiny_model(), token_lists((7, 12, 1, 2, 30))
    kl, plain, changed = [], [], []
    for ids in texts:
        with torch.no_grad():
            p = model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
            with pushed(model):
                q = model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
        for t in range(len(ids) - 1):
            kl.append(float((np.exp(p[t]) * (p[t] - q[t])).sum()))
            plain.append(p[t, ids[t + 1]])
            changed.append(q[t, ids[t + 1]])
    if not keeps:
        without_keeping(model)
    monkeypatch.setattr(fluency, "LOGIT_BYTES", logit_bytes)
    with logits_seen(model) as sizes:
        found = neutral_effect(model, texts, lambda: pushed(model))
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-4)
    assert found.kl > 0.01
    assert found.perplexity == pytest.approx(np.exp(-np.mean(plain)), rel=1e-5)
    assert found.changed_perplexity == pytest.approx(np.exp(-np.mean(changed)), rel=1e-5)
    assert found.tokens == len(kl) == 6 + 11 + 1 + 29
    if keeps:
        assert max(sizes) <= max(logit_bytes, 4 * VOCABULARY)


def test_the_effect_agrees_with_log_probabilities_and_grows_with_the_change():
    model, texts = tiny_model(), token_lists((12, 30))
    effects = [neutral_effect(model, texts, lambda s=s: pushed(model, s)) for s in (0.01, 0.1, 1)]
    assert 0 < effects[0].kl < effects[1].kl < effects[2].kl
    assert len({effect.perplexity for effect in effects}) == 1
    assert effects[0].perplexity == pytest.approx(
        perplexity(token_log_probabilities(model, texts, [1, 1])), rel=1e-5
    )
    with pushed(model, 1):
        changed = perplexity(token_log_probabilities(model, texts, [1, 1]))
    assert effects[2].changed_perplexity == pytest.approx(changed, rel=1e-5)


def test_the_change_is_entered_and_left_for_each_text():
    model, depth, entered = tiny_model(), [0], []

    @contextmanager
    def change():
        depth[0] += 1
        entered.append(depth[0])
        yield
        depth[0] -= 1

    neutral_effect(model, token_lists((5, 6, 1)), change)
    assert entered == [1, 1]
    assert depth == [0]


def test_texts_with_nothing_to_predict_have_no_effect():
    found = neutral_effect(tiny_model(), [[0], []], nullcontext)
    assert (found.tokens, math.isnan(found.kl), math.isnan(found.perplexity)) == (0, True, True)
    assert math.isnan(found.changed_perplexity)


def test_tokens_of_probability_zero_add_nothing():
    model, texts = tiny_model(), token_lists((9,))
    never = torch.zeros(VOCABULARY)
    never[300:] = -math.inf
    model.unembedding.register_forward_hook(lambda _, args, output: output + never)
    assert neutral_effect(model, texts, nullcontext).kl == 0
    found = neutral_effect(model, texts, lambda: pushed(model))
    assert 0 < found.kl < math.inf


def test_a_model_that_gives_nan_has_nan():
    model = tiny_model()
    found = neutral_effect(model, token_lists((9,)), lambda: pushed(model, math.nan))
    assert math.isnan(found.kl)
    assert math.isnan(found.changed_perplexity)
    assert found.perplexity > 1
