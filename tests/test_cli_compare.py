"""`exemplars compare`: two folders in; a sentence, tables, texts and a figure out."""

import json
import signal
from functools import partial

import numpy as np
import pytest

import exemplars as ex
from builds import SETTINGS, documents
from conftest import make_tokenizer
from exemplars.analyses.comparison import compare
from exemplars.report.comparison import comparison_figure, comparison_text
from tiny_models import tiny_module

FEW = ("--splits", "3", "--seeds", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two models, a corpus, a dictionary of each and of another site, and kept activations."""
    place = tmp_path_factory.mktemp("compare")
    (place / "corpus").mkdir()
    for k, content in enumerate(documents(80)):
        (place / "corpus" / f"{k:02}.txt").write_text(content, encoding="utf-8")
    texts = ex.texts(place / "corpus")
    sites = ["resid_post.1", "resid_post.2"]
    for name, seed in (("one", 0), ("two", 1)):
        tiny_module(seed=seed).save_pretrained(place / name)
        make_tokenizer("bos").save_pretrained(place / name)
        model = ex.load_model(str(place / name))
        ex.build(model, sites, texts, [20.0], out=place / f"d-{name}", **SETTINGS)
        stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
        ex.extract(model, sites, texts.shuffled(0), place / f"kept-{name}", **stream)
    ex.extract(model, sites, texts, place / "kept-other", **stream)
    return place


@pytest.fixture
def d(place):
    return {
        "a": place / "d-one" / "resid_post.1-p20",
        "b": place / "d-two" / "resid_post.1-p20",
        "next": place / "d-one" / "resid_post.2-p20",
    }


@pytest.fixture
def run(run):
    return partial(run, "compare")


def test_two_folders_alone_say_what_cannot_be_concluded(run, d):
    status, said, err = run(d["a"], d["b"], "--seeds", "1")
    assert status == 0, err
    assert said.startswith("Of A's ")
    assert "without a baseline of seed noise" in said.splitlines()[0]
    assert "Not concluded: whether a low cosine is a change" in said
    assert "! the models differ" in said
    assert "⟦" in said  # texts of what was dropped


def test_texts_give_shared_rows_and_a_baseline(run, d, place, tmp_path):
    more = ("--text", place / "corpus", "--figure", tmp_path / "f.svg", *FEW)
    status, said, err = run(d["a"], d["b"], *more)
    assert status == 0, err
    first = said.splitlines()[0]
    assert first.startswith("B differs from A by more than seed noise (")
    for word in ("persisted", "moved", "were dropped", "are new"):
        assert word in first
    assert "normalised mutual information" in said
    assert "permuted among rows of one token" in said
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "f.svg").read_text().count("<svg") == 1


def test_a_dictionary_with_itself_is_itself(run, d, place):
    status, said, err = run(d["a"], d["a"], "--text", place / "corpus", *FEW, "--json")
    assert status == 0, err
    result = json.loads(said)
    for found in result["correspondences"].values():
        assert all(i == j for i, j in found["pairs"])
        assert min(found["score"]) > 1 - 1e-6
    assert result["differences"] == []
    assert result["text_overlap"] == 1
    assert result["agreement"]["nmi"] == 1
    _, said, _ = run(d["a"], d["a"], "--text", place / "corpus", *FEW)
    assert said.startswith("B is A, as far as can be told (of like pairs of random halves, 0%")
    _, said, _ = run(d["a"], d["a"])
    assert said.startswith("B is A, as far as can be told: each of A's")


def test_kept_activations_give_what_texts_give(run, d, place):
    kept = ("--activations", place / "kept-one", "--activations-b", place / "kept-two")
    _, of_kept, err = run(d["a"], d["b"], *kept, *FEW, "--json")
    assert not err.endswith("error")
    _, of_text, _ = run(d["a"], d["b"], "--text", place / "corpus", *FEW, "--json")
    assert json.loads(of_kept) == json.loads(of_text)


def test_two_sites_of_one_folder_of_activations(run, d, place):
    kept = ("--activations", place / "kept-one", "--space", "shared-rows")
    status, said, err = run(d["a"], d["next"], *kept, *FEW)
    assert status == 0, err
    assert "(by shared rows)" in said.splitlines()[0]
    assert "! the sites differ: resid_post.1 and resid_post.2" in said


def test_the_baseline_can_be_of_orders(run, d, place):
    kept = ("--activations", place / "kept-one", "--noise", "orders")
    status, said, err = run(d["a"], d["next"], *kept, *FEW)
    assert status == 0, err
    assert "like pairs of random orders" in said.splitlines()[0]
    assert "Within seed noise is not unchanged" not in said


def test_a_baseline_is_saved_and_read_again(run, d, place, tmp_path):
    file = tmp_path / "new" / "noise.json"
    kept = ("--activations", place / "kept-one")
    status, _, err = run(d["a"], d["next"], *kept, *FEW, "--save-baseline", file)
    assert status == 0, err
    assert "baseline written to" in err
    status, said, err = run(d["a"], d["b"], "--baseline", file, "--seeds", "1")
    assert status == 0, err
    assert "Not concluded: whether the same tokens fall" in said
    assert "random halves" in said.splitlines()[0]


def test_the_command_says_what_the_library_finds(run, d):
    found = compare(ex.load(d["a"]), ex.load(d["b"]), seeds=1)
    _, said, _ = run(d["a"], d["b"], "--seeds", "1", "--json")
    assert json.loads(said)["correspondences"]["own frames"]["score"] == pytest.approx(
        found.decisive.score.tolist()
    )
    _, said, _ = run(d["a"], d["b"], "--seeds", "1")
    assert said.rstrip() == comparison_text(found).rstrip()


def test_hostile_texts_cannot_write_to_the_terminal(d):
    from dataclasses import replace

    found = compare(ex.load(d["a"]), ex.load(d["b"]), seeds=1)
    bad = replace(found.changes[0], texts_a=("\x1b[31m\u202e",))
    side = replace(found.a, model="\x1b[2J")
    said = comparison_text(replace(found, changes=(bad,), a=side))
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_the_figure_has_the_pairs_the_nulls_and_the_noise(d):
    found = compare(ex.load(d["a"]), ex.load(d["b"]), seeds=1)
    left, right = comparison_figure(found).axes
    x, y = left.lines[0].get_data()
    assert np.array_equal(x, np.sort(found.decisive.score))
    assert y[-1] == 1
    assert len(right.lines) >= 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--text", "{}/corpus", "--activations", "{}/kept-one"), "give one of them"),
        (("--activations-b", "{}/kept-one"), "without --activations"),
        (("--baseline", "{}/corpus/00.txt"), "not a seed noise baseline"),
        (("--save-baseline", "{}/x"), "no baseline to save"),
        (("--space", "sky"), 'space is "sky"'),
        (("--basis", "x"), 'basis is "x"'),
        (
            ("--text", "{}/nowhere", "--noise", "x"),
            '--noise is "x", expected one of halves, orders',
        ),
        (
            ("--text", "{}/nowhere", "--basis", "x"),
            '--basis is "x", expected one of mean, exemplar',
        ),
        (("--quantile", "2"), "quantile is 2"),
        (("--activations", "{}/corpus"), "holds no activation shards"),
        (("--activations", "{}/kept-one", "--activations-b", "{}/kept-other"), "different texts"),
        (("--activations", "{}/kept-two"), "was built with model"),
    ],
)
def test_an_error_is_a_sentence_and_status_2(run, d, place, words, says):
    status, said, error = run(d["a"], d["b"], *(word.format(place) for word in words))
    assert (status, said) == (2, "")
    assert "Traceback" not in error
    last = error.rstrip("\n").split("\n")[-1]
    assert last.startswith("error: ")
    assert says in last


def test_ctrl_c_ends_cleanly(run, d, place, monkeypatch):
    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("exemplars.analyses.noise.seed_noise", interrupt)
    status, said, error = run(d["a"], d["b"], "--text", place / "corpus", *FEW)
    assert (status, said) == (130, "")
    assert error.rstrip().endswith("interrupted; nothing was written")
