"""Rows of a dictionary's stream: they are there, they are random, and by their seed."""

import json
from dataclasses import replace

import numpy as np
import pytest

import exemplars as ex
from builds import TOKENIZATION, documents
from exemplars.activations import read_activations
from exemplars.analyses import stream
from exemplars.analyses.stream import stream_rows
from exemplars.dictionary import usable_directions
from exemplars.errors import SourceError
from tiny_models import tiny_model

SITE = "resid_post.1"
SIZE = 8 * TOKENIZATION.context_length


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Short documents, so that a stretch of one is all of it."""
    path = tmp_path_factory.mktemp("stream") / "corpus"
    path.mkdir()
    for k, text in enumerate(documents(60)):
        assert len(text) <= SIZE
        (path / f"{k:02}.txt").write_text(text)
    return path


@pytest.fixture(scope="module")
def dictionary(model, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        return ex.build(
            model, SITE, ex.texts("corpus"), 20.0, rows=600, tokenization=TOKENIZATION,
            calibration_rows=400, block_rows=128, norm_multiple=1.2,
        )  # fmt: skip


@pytest.fixture(scope="module")
def usable(model, folder, dictionary):
    """All rows of the texts that a build keeps."""
    parts = []
    for (batch,) in read_activations(model, SITE, ex.texts(folder), TOKENIZATION):
        vectors = np.asarray(batch.vectors)
        _, rows, _ = usable_directions(vectors, 0, dictionary.calibration)
        assert len(rows) < len(vectors)  # some are dropped
        parts.append(vectors[rows])
    return np.concatenate(parts)


def numbers_of(rows, among):
    """Of each row, the nearest of the others, which must be it but for the last bits."""
    distance = np.linalg.norm(rows[:, None] - among[None], axis=2)
    assert distance.min(axis=1).max() < 1e-4
    return distance.argmin(axis=1)


def test_rows_are_distinct_rows_of_the_documents(model, folder, dictionary, usable, monkeypatch):
    monkeypatch.chdir(folder.parent)
    found, source = stream_rows(dictionary, model, 50)
    assert found.shape == (50, dictionary.width)
    assert found.dtype == np.float32
    assert len(np.unique(found, axis=0)) == 50
    numbers_of(found, usable)
    n_documents = int(source.split(" random rows of ")[1].split()[0])
    assert source.startswith("50 random rows of ")
    assert 0 < n_documents < 60
    assert n_documents % 16 == 0  # no more than are needed
    given, again = stream_rows(dictionary, model, 50, texts=ex.texts(folder))
    assert np.array_equal(given, found)
    assert again == source


def test_rows_are_by_their_seed(model, folder, dictionary):
    texts = ex.texts(folder)
    drawn = [stream_rows(dictionary, model, 40, seed, texts)[0] for seed in (0, 0, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert len({rows.tobytes() for rows in drawn}) == 3


def test_every_row_is_drawn_where_the_texts_have_no_more(model, folder, dictionary, usable):
    found, source = stream_rows(dictionary, model, 10**6, texts=ex.texts(folder))
    assert source.startswith(f"{len(usable):,} random rows of 60 documents")
    assert len(found) == len(usable)
    assert np.sort(found, axis=0) == pytest.approx(np.sort(usable, axis=0), abs=1e-4)


def test_how_many_rows_were_read_is_told(model, folder, dictionary):
    steps = []
    texts = ex.texts(folder)
    stream_rows(dictionary, model, 200, 0, texts, lambda *step: steps.append(step))
    assert {(what, total) for what, _, total in steps} == {("rows of the stream", 200)}
    done = [n for _, n, _ in steps]
    assert len(done) > 1
    assert done == sorted(done)
    assert done[-1] == 200


def test_a_view_limits_the_rows(model, folder, dictionary, usable):
    some = ex.texts(folder).slice(0, 5)
    found, source = stream_rows(dictionary, model, 10**6, texts=some)
    assert "of 5 documents" in source
    assert len(found) < len(usable) / 4


def test_of_a_long_text_a_random_stretch_is_read():
    random = np.random.default_rng(0)
    text = "".join(chr(0x4E00 + k) for k in range(1000))
    starts = set()
    for _ in range(200):
        part = stream.stretch(text, 100, random)
        assert len(part) == 100
        assert part in text
        starts.add(text.index(part))
    assert len(starts) > 150
    assert min(starts) < 50
    assert max(starts) > 850
    ends = {stream.stretch("abc", 2, random) for _ in range(50)}
    assert ends == {"ab", "bc"}  # the last one too
    for whole in ("", text[:100], [{"role": "user", "content": text}]):
        assert stream.stretch(whole, 100, random) is whole


def test_a_long_document_does_not_take_every_place(model, dictionary):
    long = ["the sea " * 5000 for _ in range(4)]
    found, source = stream_rows(dictionary, model, 10**6, texts=ex.texts(long))
    assert source.endswith("of 4 documents of the dictionary's stream")
    assert 0 < len(found) <= 4 * SIZE


def test_what_is_not_there_is_said(model, folder, dictionary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="the texts corpus are not here"):
        stream_rows(dictionary, model, 10)
    about = json.loads(json.dumps(dict(dictionary.provenance)))
    silent = replace(dictionary, provenance={**about, "texts": None})
    with pytest.raises(SourceError, match="does not say what texts it was built from"):
        stream_rows(silent, model, 10)
    assert len(stream_rows(silent, model, 10, texts=ex.texts(folder))[0]) == 10
    nowhere = replace(dictionary, provenance={})
    with pytest.raises(ValueError, match="does not say which site it is of"):
        stream_rows(nowhere, model, 10, texts=ex.texts(folder))
    with pytest.raises(SourceError, match="have no rows; give the texts"):
        stream_rows(dictionary, model, 10, texts=ex.texts(["", ""]))
