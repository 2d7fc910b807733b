"""Two models read the very same tokens, and the right ones of a chat."""

import numpy as np
import pytest

from conftest import make_tokenizer
from exemplars import corpora
from exemplars.activations import read_activations
from exemplars.analyses.paired import control_tokens, read_pairs, row_selector
from exemplars.errors import MismatchError, SourceError
from exemplars.models import load_model
from exemplars.tokenization import Tokenization
from tiny_models import tiny_module

SITES = ["resid_post.0", "resid_post.2"]
CHAT = Tokenization(context_length=256, long_documents="truncate", chat=True)
TALKS = [
    [{"role": "user", "content": u}, {"role": "assistant", "content": a}]
    for u, a in (("the tin", "an other"), ("out there", "in"), ("a", "the heron is there"))
]


@pytest.fixture(scope="module")
def models():
    return [
        load_model(
            tiny_module("llama", seed=s, max_position_embeddings=256), make_tokenizer("chat")
        )
        for s in (0, 1)
    ]


def test_both_sides_are_what_each_model_computes(models):
    texts = corpora.texts(["the other tin", "an heron in there", "out"])
    pairs = read_pairs(*models, SITES, texts)
    assert list(pairs) == SITES
    for model, side in zip(models, ("base", "tuned"), strict=True):
        for batch in next(iter(read_activations(model, SITES, texts))):
            found = pairs[batch.site]
            assert np.array_equal(getattr(found, side), batch.vectors.float().numpy())
            assert np.array_equal(found.document, batch.document)
            assert np.array_equal(found.token, batch.token)
    first = pairs[SITES[0]]
    for row in range(len(first)):
        before, token, after = first.excerpt(row)
        assert before + token + after == first.documents[first.document[row]]
        assert token


@pytest.mark.parametrize("positions", ["control", "response"])
def test_positions_of_a_chat(models, positions):
    tuned = models[1]
    pairs = read_pairs(*models, SITES[0], corpora.texts(TALKS), CHAT, positions=positions)
    found = pairs[SITES[0]]
    control = control_tokens(tuned)
    for k, talk in enumerate(TALKS):
        ids = found.token[found.document == k]
        if positions == "control":
            assert np.array_equal(ids, control)
        else:
            text = tuned.tokenizer.decode(ids)
            assert text.startswith(talk[1]["content"])
            assert talk[0]["content"] not in text
    everything = read_pairs(*models, SITES[0], corpora.texts(TALKS), CHAT)[SITES[0]]
    assert len(everything) > len(found)


def test_before_an_answer_all_answers_have_the_same_activations(models):
    one, two = (
        [[{"role": "user", "content": "the tin"}, {"role": "assistant", "content": a}]]
        for a in ("in", "heron out there")
    )
    several = [
        read_pairs(*models, SITES[1], corpora.texts(t), CHAT, positions="control")[SITES[1]].tuned
        for t in (one, two)
    ]
    assert np.allclose(*several, atol=1e-4)


def test_rows_are_read_in_whole_documents(models):
    texts = corpora.texts(["the other tin"] * 4)
    whole = read_pairs(*models, SITES[0], texts)[SITES[0]]
    each = len(whole) // 4
    for rows, documents in ((1, 1), (each, 1), (each + 1, 1), (2 * each, 2), (10_000, 4)):
        some = read_pairs(*models, SITES[0], texts, rows=rows)[SITES[0]]
        assert len(some.documents) == documents
        assert np.array_equal(some.tuned, whole.tuned[: documents * each])


def test_documents_without_rows_are_left_out(models):
    texts = corpora.texts(["the other tin", "", "an heron"])
    pairs = read_pairs(*models, SITES[0], texts)[SITES[0]]
    assert pairs.documents == ("the other tin", "an heron")
    assert pairs.number.tolist() == [0, 2]
    with pytest.raises(ValueError, match="no document has a row"):
        read_pairs(*models, SITES[0], corpora.texts(["", ""]))


def test_models_that_do_not_fit_are_refused(models):
    texts = corpora.texts(["the other tin"])
    deeper = load_model(tiny_module("llama", num_hidden_layers=4), make_tokenizer("chat"))
    with pytest.raises(MismatchError, match=r"n_layers 3 and .* has 4"):
        read_pairs(models[0], deeper, SITES, texts)
    other = make_tokenizer("chat")
    other.add_tokens(["heron"])
    with pytest.raises(MismatchError, match="'heron' is another token"):
        read_pairs(models[0], load_model(tiny_module("llama"), other), SITES, texts)


def test_positions_that_are_not_there_are_refused(models):
    with pytest.raises(ValueError, match='positions is "first"'):
        row_selector(models[0], "first")
    with pytest.raises(SourceError, match="are of chats"):
        read_pairs(*models, SITES, corpora.texts(["the"]), positions="control")
    plain = load_model(tiny_module("llama"), make_tokenizer("gpt2"))
    with pytest.raises(SourceError, match="has no chat template"):
        control_tokens(plain)
    silent = make_tokenizer("chat")
    silent.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(SourceError, match="puts nothing before an answer"):
        control_tokens(load_model(tiny_module("llama"), silent))
