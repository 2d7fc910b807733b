"""A trace is what `assign` gives on the same activations, token by token."""

from dataclasses import replace

import numpy as np
import pytest

import exemplars as ex
from conftest import make_tokenizer
from exemplars.activations import read_activations
from exemplars.geometry import vector_norms
from exemplars.tracing import trace
from tiny_models import tiny_model, tiny_module

SITE = "resid_post.1"
WORDS = ("the ", "other ", "tin ", "around ", "\n\n", "an ", "heron ", "ä€ ", "out ")
TOKENIZATION = ex.Tokenization(context_length=16)


def document(seed, n_words=30):
    return "".join(np.random.default_rng(seed).choice(WORDS, n_words))


@pytest.fixture(scope="module")
def model():
    return ex.load_model(tiny_module(), make_tokenizer("bos"))


@pytest.fixture(scope="module")
def dictionary(model):
    texts = ex.texts([document(seed) for seed in range(8)])
    return ex.build(
        model, SITE, texts, 20, rows=None, tokenization=TOKENIZATION, batch_tokens=64,
        window_tokens=128, block_rows=64,
    )  # fmt: skip


def assigned(dictionary, model, texts, tokenization=TOKENIZATION, **sizes):
    """(document, position, region, distance, vectors) of all rows, through `assign`."""
    batches = [b for (b,) in read_activations(model, [SITE], texts, tokenization, **sizes)]
    vectors = np.concatenate([batch.vectors.numpy() for batch in batches])
    region, distance = dictionary.assign(vectors)
    return (
        np.concatenate([batch.document for batch in batches]),
        np.concatenate([batch.position for batch in batches]),
        region,
        distance,
        vectors,
    )


def test_regions_and_distances_are_those_of_assign(model, dictionary):
    texts = ex.texts([document(seed) for seed in (20, 21, 22)])
    numbers, positions, regions, distances, _ = assigned(dictionary, model, texts)
    traces = trace(dictionary, model, texts)
    assert [t.document for t in traces] == [0, 1, 2]
    for found in traces:
        mine = numbers == found.document
        np.testing.assert_array_equal(found.position, positions[mine])
        np.testing.assert_array_equal(found.region, regions[mine])
        np.testing.assert_array_equal(found.distance, distances[mine])
        assert len(set(found.region.tolist())) > 3
        np.testing.assert_array_equal(
            found.distance_in_thresholds, found.distance / np.float32(dictionary.threshold)
        )


def test_a_document_longer_than_a_window_is_one_trace(model, dictionary):
    long = document(30, 6000)  # more tokens than the 16,384 of a window
    texts = ex.texts(["the other", long, "an heron"])
    numbers, positions, regions, _, _ = assigned(dictionary, model, texts)
    traces = trace(dictionary, model, texts)
    assert [t.document for t in traces] == [0, 1, 2]
    assert len(traces[1].region) > 16384
    np.testing.assert_array_equal(traces[1].region, regions[numbers == 1])
    np.testing.assert_array_equal(traces[1].position, positions[numbers == 1])
    assert (np.diff(traces[1].position) > 0).all()
    assert traces[1].text == long


def test_tokens_are_the_text_of_the_document(model, dictionary):
    text = document(40)
    (found,) = trace(dictionary, model, ex.texts([text]))
    tokens = found.tokens()
    assert len(tokens) == len(found.region) == len(found.token) == len(found.norm_outlier)
    assert all(
        text[s:e] == token for s, e, token in zip(found.start, found.end, tokens, strict=True)
    )
    ascii_tokens = [t for t in tokens if t.isascii()]
    assert " the" in ascii_tokens or "the" in ascii_tokens


def test_traces_come_in_the_order_of_the_texts(model, dictionary):
    texts = ex.texts([document(seed, 4 + seed) for seed in range(6)]).shuffled(3)
    numbers = list(dict.fromkeys(assigned(dictionary, model, texts)[0].tolist()))
    assert numbers != sorted(numbers)
    assert [t.document for t in trace(dictionary, model, texts)] == numbers


def test_documents_without_rows_have_no_trace(model, dictionary):
    texts = ex.texts(["", "the other", ""])
    assert [t.document for t in trace(dictionary, model, texts)] == [1]
    assert trace(dictionary, model, ex.texts([""])) == []


def test_norm_outliers_are_marked_and_still_assigned(model, dictionary):
    texts = ex.texts([document(50)])
    *_, vectors = assigned(dictionary, model, texts)
    norms = vector_norms(vectors)
    limit = float(np.median(norms))
    strict = replace(dictionary, calibration=replace(dictionary.calibration, norm_limit=limit))
    (found,) = trace(strict, model, texts)
    np.testing.assert_array_equal(found.norm_outlier, norms > limit)
    assert 0 < found.norm_outlier.sum() < len(norms)
    assert (found.region >= 0).all()
    without = replace(dictionary, calibration=replace(dictionary.calibration, norm_limit=None))
    assert not trace(without, model, texts)[0].norm_outlier.any()


def test_the_tokenization_is_the_dictionarys_unless_given(model, dictionary):
    texts = ex.texts([document(60)])
    (own,) = trace(dictionary, model, texts)
    kept = replace(TOKENIZATION, keep_first=True)
    (more,) = trace(dictionary, model, texts, tokenization=kept)
    assert len(more.region) > len(own.region)
    _, positions, regions, _, _ = assigned(dictionary, model, texts, kept)
    np.testing.assert_array_equal(more.region, regions)
    np.testing.assert_array_equal(more.position, positions)


def test_another_model_is_refused_unless_allowed(dictionary):
    other = tiny_model(seed=5)
    with pytest.raises(ex.MismatchError, match="built with model"):
        trace(dictionary, other, ex.texts(["the other heron"]))
    (found,) = trace(dictionary, other, ex.texts(["the other heron"]), allow_mismatch=True)
    assert len(found.region)


@pytest.mark.parametrize("site", [None, {}, "resid_post.1"])
def test_a_dictionary_that_names_no_site_is_refused(model, dictionary, site):
    about = {**dictionary.provenance, "site": site}
    with pytest.raises(ValueError, match="which site"):
        trace(replace(dictionary, provenance=about), model, ex.texts(["the other heron"]))
