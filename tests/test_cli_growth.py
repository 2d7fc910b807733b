"""`exemplars growth`: folders in; a sentence, a table, a figure out; running builds watched."""

import json
import os
import shutil
import signal
import time
from functools import partial

import pytest

import exemplars as ex
from exemplars.analyses.growth import curves_in, growth
from labelled_build import document, labelled_build


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = labelled_build(tmp_path_factory.mktemp("growth"))
    for source, seeds in (("one", range(40)), ("two", range(50, 62))):
        (folder / "sources" / source).mkdir(parents=True)
        for k in seeds:
            text = document(k, source == "two")
            (folder / "sources" / source / f"{k}.txt").write_text(text, encoding="utf-8")
    model = ex.load_model(str(folder / "model"))
    ex.build(
        model, "resid_post.1", ex.texts(folder / "sources"), [5, 20], rows=None, seed=1,
        out=folder / "several", block_rows=128,
    )  # fmt: skip
    return folder


@pytest.fixture
def run(run):
    return partial(run, "growth")


def test_a_folder_gives_a_sentence_a_table_and_a_figure(run, built, tmp_path):
    figure = tmp_path / "growth.svg"
    status, said, err = run(built / "d", "--more", "500", "--figure", figure)
    assert status == 0, err
    assert said.startswith("d: not covered: ")
    assert "500 more rows add about " in said
    assert "singletons/N (too low)" in said
    assert "the documents came in the order of their source" in said
    assert "for this model, site, center, θ" in said
    drawing = figure.read_text()
    assert "regions" in drawing
    assert figure.with_suffix(".png").exists()


def test_json_has_what_the_function_returns(run, built):
    status, said, _ = run(built / "d", "--json", "--target", "0.5")
    assert status == 0
    found = json.loads(said)["growths"][0]
    expected = growth(curves_in(built / "d")[0], target=0.5)
    assert found["chance"]["estimate"] == expected.chance.estimate
    assert found["curve"]["regions"] == expected.curve.regions.tolist()
    assert found["verdict"] == expected.verdict == "covered"


def test_several_folders_are_compared_only_where_they_can_be(run, built):
    status, said, _ = run(built / "several", built / "d")
    assert status == 0
    assert "resid_post.1-p5" in said
    assert "Warning: the curves differ in tokenization, center, θ" in said
    status, said, _ = run(built / "d", built / "d")
    assert said.startswith(f"{built / 'd'}: ")
    assert "Warning" not in said


def test_sources_have_curves_of_their_own(run, built):
    folder = built / "several" / "resid_post.1-p5"
    whole = curves_in(folder)[0]
    status, out, err = run(folder, "--by-source", "--text", built / "sources", "--json")
    assert status == 0, err
    parts = json.loads(out)["growths"]
    assert {p["curve"]["name"][-3:] for p in parts} == {"one", "two"}
    assert sum(p["curve"]["regions"][-1] for p in parts) == whole.regions[-1]
    assert parts[0]["singleton_share"] is None


def test_domains_are_read_with_the_calibration_of_one_dictionary(run, built):
    domains = [built / "sources" / name for name in ("one", "two")]
    words = [word for domain in domains for word in ("--text", domain)]
    status, said, err = run(built / "d", *words, "--model", built / "model")
    assert status == 0, err
    assert "40 documents; all documents were read" in err
    assert "12 documents; all documents were read" in err
    assert "Warning" not in said
    assert "The dictionary's own regions hold " in said
    status, said, err = run(built / "d", *words, "--model", built / "model", "--rows", 30, "--json")
    found = json.loads(said)
    assert [g["curve"]["rows"][-1] for g in found["growths"]] == [30, 30]
    assert {g["curve"]["ending"] for g in found["growths"]} == {"the rows asked for were read"}
    assert set(found["inside"]) == {"one", "two"}


def test_a_build_is_watched_until_it_ends(run, built, tmp_path, monkeypatch):
    model = ex.load_model(str(built / "model"))
    out = tmp_path / "d"
    options = {
        "out": out, "rows": None, "window_tokens": 128, "batch_tokens": 64, "block_rows": 64,
        "calibration_rows": 300,
    }  # fmt: skip

    def stop(progress):
        if progress.stage == "build" and progress.rows > 400:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ex.build(model, "resid_post.1", ex.texts(built / "corpus"), 5, on_progress=stop, **options)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            shutil.rmtree(tmp_path / "d.partial")

    monkeypatch.setattr(time, "sleep", sleep)
    status, said, err = run(out, "--watch", "0.1")
    assert status == 0, err
    assert looks == [0.1] * 3
    assert err.count("resid_post.1 p5: ") == 1  # nothing changed meanwhile
    assert "the build was interrupted" in said


def test_ctrl_c_ends_watching_with_what_there_is(run, built, tmp_path, monkeypatch):
    shutil.copytree(built / "d", tmp_path / "d")
    (tmp_path / "d.partial").mkdir()
    settings = {"asked": ["resid_post.1"], "percentiles": [5.0]}
    (tmp_path / "d.partial" / "build.json").write_text(json.dumps(settings))

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    status, _, err = run(tmp_path / "d", "--watch", "5")
    assert status == 2
    assert "no longer watching" in err
    assert "has no rows yet, as it calibrates; look later" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "does not exist, expected the folder of a dictionary"),
        (["d", "--target", "2"], "the target is 2, expected a chance between 0 and 1"),
        (["d", "d", "--text", "yes.txt"], "give one folder"),
        (["d", "--by-source"], "are not here; give their place"),
        (["d", "--by-source", "--text", "corpus"], "is a file of its own, in no folder"),
        (["d", "--more", "0"], "more"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(run, built, monkeypatch, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    paths = ("nothing", "d", "yes.txt", "corpus")
    status, out, err = run(*(built / word if word in paths else word for word in words))
    assert (status, out) == (2, "")
    assert told in err.splitlines()[-1]
