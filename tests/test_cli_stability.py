"""`exemplars stability`, `build --seeds`, and what `show` says of it."""

import json
import shutil
import signal

import pytest

import exemplars as ex
from builds import SETTINGS, documents
from conftest import make_tokenizer
from exemplars import store
from tiny_models import tiny_module

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a corpus, three dictionaries of one calibration, and kept activations."""
    place = tmp_path_factory.mktemp("stability")
    (place / "corpus").mkdir()
    for k, content in enumerate(documents(80)):
        (place / "corpus" / f"{k:02}.txt").write_text(content, encoding="utf-8")
    tiny_module().save_pretrained(place / "model")
    make_tokenizer("bos").save_pretrained(place / "model")
    model, texts = ex.load_model(str(place / "model")), ex.texts(place / "corpus")
    stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
    ex.extract(model, [SITE], texts, place / "kept", **stream)
    calibration = None
    for seed in range(3):
        found = ex.build(
            model, SITE, texts, 20.0, out=place / f"seed{seed}", seed=seed,
            calibration=calibration, **SETTINGS,
        )  # fmt: skip
        calibration = found.calibration
    return place


def copy(place, tmp_path, *names):
    return [shutil.copytree(place / name, tmp_path / name) for name in names]


def test_several_folders_are_compared_and_their_scores_stored(run, place, tmp_path):
    folders = copy(place, tmp_path, "seed0", "seed1", "seed2")
    figure = tmp_path / "f.svg"
    status, said, err = run("stability", *folders, "--save", "--figure", figure)
    assert status == 0, err
    assert said.startswith("Another order finds the means of regions again with a median cosine of")
    assert "3 dictionaries of resid_post.1" in said
    assert "Not concluded: whether exemplars are found again better than random rows" in said
    assert figure.exists()
    for folder in folders:
        table = store.load_stability(folder)
        assert len(table) == len(ex.load(folder))
        assert set(table["others"].to_pylist()) == {2}
    status, said, _ = run("show", folders[0])
    assert status == 0
    assert "found again" in said
    status, said, _ = run("show", folders[0], "0")
    assert " of 2 other orders of the stream: cosine of the means " in said
    _, said, _ = run("show", folders[0], "0", "--json")
    assert json.loads(said)["stability"]["others"] == 2


def test_a_dictionary_without_scores_shows_none(run, place):
    _, said, _ = run("show", place / "seed0", "0", "--json")
    assert json.loads(said)["stability"] is None
    _, said, _ = run("show", place / "seed0")
    assert "found again" not in said


def test_one_folder_and_texts_or_activations(run, place, tmp_path):
    (folder,) = copy(place, tmp_path, "seed0")
    few = ("--seeds", "3", "--draws", "1")
    status, of_text, err = run(
        "stability", folder, "--text", place / "corpus", *few, "--json", "--save"
    )
    assert status == 0, err
    assert set(json.loads(of_text)["nulls"]) == {
        "random rows", "random rotation", "random directions",
    }  # fmt: skip
    assert set(store.load_stability(folder)["others"].to_pylist()) == {3}
    status, said, err = run("stability", folder, "--activations", place / "kept", *few)
    assert status == 0, err
    assert "Not concluded: whether exemplars" not in said
    assert "3 dictionaries of" in said


def test_build_with_seeds_stores_the_score_of_each_region(run, place, tmp_path):
    given = (
        "build", place / "model", "--text", place / "corpus", "--site", SITE, "-p", "20", "-p",
        "30", "--out", tmp_path / "out", "--context-length", "24", "--block-rows", "128",
        "--window-tokens", "256", "--no-lens",
    )  # fmt: skip
    status, said, err = run(*given, "--seeds", "3")
    assert (status, said) == (2, "")
    assert "give --activations DIR to keep them" in err
    status, said, err = run(*given, "--seeds", "3", "--activations", tmp_path / "kept")
    assert status == 0, err
    for name in (f"{SITE}-p20", f"{SITE}-p30"):
        folder = tmp_path / "out" / name
        table = store.load_stability(folder)
        assert len(table) == len(ex.load(folder))
        assert set(table["others"].to_pylist()) == {2}
        assert 0.7 < max(table["mean_cosine"].to_pylist()) < 1
        assert store.manifest_of(folder).format_version == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("{}/seed0",), "nothing to build others from"),
        (("{}/seed0", "{}/seed1", "--text", "x", "--activations", "y"), "give one of them"),
        (("{}/corpus", "{}/seed1"), "has no manifest.json"),
        (("{}/seed0", "{}/seed1", "{}/seed0"), "hold the same exemplars"),
        (("{}/seed0", "--activations", "{}/corpus"), "holds no activation shards"),
    ],
)
def test_an_error_is_a_sentence_and_status_2(run, place, words, says):
    status, said, error = run("stability", *(word.format(place) for word in words))
    assert (status, said) == (2, "")
    assert "Traceback" not in error
    last = error.rstrip("\n").split("\n")[-1]
    assert last.startswith("error: ")
    assert says in last


def test_ctrl_c_while_other_orders_are_built_leaves_the_dictionary(
    run, place, tmp_path, monkeypatch
):
    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("exemplars.analyses.noise.orders", interrupt)
    status, said, error = run(
        "build", place / "model", "--text", place / "corpus", "--site", SITE, "--out",
        tmp_path / "out", "--no-lens", "--seeds", "2", "--activations", tmp_path / "kept",
        "--context-length", "24",
    )  # fmt: skip
    assert (status, said) == (130, "")
    assert "is complete, but how well other orders find its regions is not stored" in error
    assert len(ex.load(tmp_path / "out"))


def test_ctrl_c_ends_cleanly(run, place, monkeypatch):
    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("exemplars.analyses.stability.stability", interrupt)
    status, said, error = run("stability", place / "seed0", place / "seed1")
    assert (status, said) == (130, "")
    assert error.rstrip().endswith("interrupted; nothing was written")
