"""The lens is the model's own final norm and unembedding, in float32, and reads as text."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from exemplars import lens
from exemplars.errors import MismatchError
from exemplars.lens import (
    contrast_lens,
    embedding_lens,
    logit_lens,
    rank_of,
    token_texts,
    top_tokens,
    word_ranks,
    word_tokens,
)
from exemplars.models import load_model
from tiny_models import ARCHITECTURES, WIDTH, tiny_model, tiny_module, tiny_tokenizer

N_TOKENS = len(tiny_tokenizer())


@pytest.fixture
def directions(rng=None):
    return np.random.default_rng(0).standard_normal((7, WIDTH)).astype(np.float32)


def logits_of(model, directions):
    """What the model's own modules make of the directions, without the unembedding's bias."""
    with torch.no_grad():
        normed = model.final_norm(torch.from_numpy(directions))
        return (normed @ model.unembedding.weight.T)[:, :N_TOKENS].numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_promoted_and_suppressed_are_the_ends_of_the_models_logits(architecture, directions):
    model = tiny_model(architecture)
    found = logit_lens(model, directions, k=5, chunk=3)
    logits = logits_of(model, directions)
    order = np.argsort(logits, axis=1)
    for tokens, values, ids in (
        (found.promoted_tokens, found.promoted_logits, order[:, ::-1][:, :5]),
        (found.suppressed_tokens, found.suppressed_logits, order[:, :5]),
    ):
        np.testing.assert_allclose(values, np.take_along_axis(logits, ids, 1), rtol=1e-5, atol=1e-5)
        assert tokens == [token_texts(model.tokenizer, row) for row in ids]
        assert values.dtype == np.float32


def test_the_unembeddings_bias_is_left_out(directions):
    model = tiny_model("phi")
    before = logit_lens(model, directions)
    with torch.no_grad():
        model.unembedding.bias[5] += 1000
    assert logit_lens(model, directions).promoted_tokens == before.promoted_tokens


def test_neither_chunks_nor_blocks_of_the_vocabulary_show(directions, monkeypatch):
    model = tiny_model("gemma2")
    whole = logit_lens(model, directions, k=6)
    monkeypatch.setattr(lens, "_BLOCK_BYTES", 4 * WIDTH * 50)
    parts = logit_lens(model, directions, k=6, chunk=2)
    assert parts.promoted_tokens == whole.promoted_tokens
    assert parts.suppressed_tokens == whole.suppressed_tokens
    np.testing.assert_allclose(parts.promoted_logits, whole.promoted_logits, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_a_bfloat16_model_is_read_in_float32_and_left_as_it_was(architecture, directions):
    module = tiny_module(architecture).bfloat16()
    model = load_model(module, tiny_tokenizer())
    calls = []
    model.final_norm.register_forward_hook(lambda *_: calls.append("norm"))
    fingerprint = model.fingerprint
    found = logit_lens(model, directions)
    same = tiny_module(architecture).bfloat16().float()  # the same weights, in float32 throughout
    expected = logit_lens(load_model(same, tiny_tokenizer()), directions)
    np.testing.assert_array_equal(found.promoted_logits, expected.promoted_logits)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert load_model(module, tiny_tokenizer()).fingerprint == fingerprint
    assert calls == []


def test_padding_of_the_vocabulary_is_no_token(directions):
    model = tiny_model("llama")
    with torch.no_grad():
        model.unembedding.weight[N_TOKENS:] *= 1000
    best = np.sort(logits_of(model, directions), axis=1)[:, -1]
    found = logit_lens(model, directions, k=10_000)
    np.testing.assert_allclose(found.promoted_logits[:, 0], best, rtol=1e-5)
    assert found.promoted_logits.shape == (7, N_TOKENS)


def test_no_directions_have_no_tokens():
    assert logit_lens(tiny_model(), np.empty((0, WIDTH), np.float32)).promoted_tokens == []


def test_directions_of_another_width_are_refused():
    with pytest.raises(MismatchError, match=r"shape \(2, 31\) .* width 32; use the model"):
        logit_lens(tiny_model(), np.ones((2, 31), np.float32))


def test_a_direction_that_is_not_finite_is_refused(directions):
    directions[3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        logit_lens(tiny_model(), directions)


def test_byte_level_tokens_read_as_text():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|Ġ|>"])
    ids = tokenizer(" the é\n the<|Ġ|>")["input_ids"]
    assert token_texts(tokenizer, ids) == [
        "<|end|>", " the", " ", "<0xC3>", "<0xA9>", "\n", " the", "<|Ġ|>",
    ]  # fmt: skip
    assert token_texts(tokenizer, [10_000]) == ["<10000>"]


def test_sentencepiece_tokens_read_as_text():
    vocabulary = {"<unk>": 0, "▁the": 1, "<0xE2>": 2, "Ġ": 3}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert token_texts(tokenizer, range(4)) == ["<unk>", " the", "<0xE2>", "Ġ"]


def cosines_of(model, directions):
    table = model.embedding.weight.detach().numpy()[:N_TOKENS]
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) @ table.T


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_the_embedding_reads_by_cosine(architecture, directions):
    model = tiny_model(architecture)
    tokens, cosines = embedding_lens(model, directions, k=4)
    expected = cosines_of(model, directions)
    order = np.argsort(-expected, axis=1)[:, :4]
    assert tokens == [token_texts(model.tokenizer, row) for row in order]
    np.testing.assert_allclose(cosines, np.take_along_axis(expected, order, 1), atol=1e-5)
    again, _ = embedding_lens(model, directions * np.float32(7), k=4)
    assert again == tokens


def test_a_words_rank_is_its_best_forms_place_in_the_sorted_tokens(directions):
    model = tiny_model("llama")
    ids = [model.tokenizer.convert_tokens_to_ids(t) for t in ("Ġthe", "the")]
    assert word_tokens(model.tokenizer, "the") == sorted(ids)  # "The" and "THE" are several
    ranks = word_ranks(model, directions, "the")
    for kind, scores in (
        ("lens", logits_of(model, directions)),
        ("embedding", cosines_of(model, directions)),
    ):
        place = np.argsort(np.argsort(-scores, axis=1), axis=1)
        assert ranks[kind].tolist() == place[:, ids].min(1).tolist()
    own = model.embedding.weight.detach().numpy()[ids[:1]]
    assert word_ranks(model, own, "the")["embedding"].tolist() == [0]


def test_a_word_of_several_tokens_counts_by_the_first(directions):
    model = tiny_model("llama")
    forms = ("xyz", " xyz", "Xyz", " Xyz", "XYZ", " XYZ")
    whole = [model.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
    first = {ids[0] for ids in whole}
    assert set(word_tokens(model.tokenizer, "xyz")) == first
    with pytest.raises(ValueError, match="the word is empty"):
        word_ranks(model, directions, " ")


@pytest.mark.parametrize("kind", ["lens", "embedding"])
def test_a_contrast_is_the_distance_of_means_in_the_references_deviations(kind, directions):
    model = tiny_model("llama")
    reference = np.random.default_rng(1).standard_normal((150, WIDTH)).astype(np.float32)
    score = {"lens": logits_of, "embedding": cosines_of}[kind]
    mine, usual = score(model, directions), score(model, reference)
    floor = 0.01 * usual.mean(0).std()
    expected = (mine.mean(0) - usual.mean(0)) / (usual.std(0) + floor)
    found = contrast_lens(model, directions, reference, kind)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    order = np.argsort(-found)
    assert top_tokens(model, found, 3) == token_texts(model.tokenizer, order[:3])
    ids = word_tokens(model.tokenizer, "the")
    assert rank_of(model, found, "the") == min(order.tolist().index(i) for i in ids)


def test_nothing_stands_out_of_itself(directions):
    model = tiny_model("llama")
    assert np.allclose(contrast_lens(model, directions, directions), 0, atol=1e-4)
    with pytest.raises(ValueError, match="there are no vectors"):
        contrast_lens(model, directions[:0], directions)
