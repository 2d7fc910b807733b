"""`exemplars patch`: a dictionary in, the effect of patching regions and its controls out."""

import json
import signal
from functools import partial

import pytest

import exemplars as ex
from exemplars.analyses.patching import CONDITIONS, patch_pairs, read_items
from labelled_build import labelled_build
from test_patching import SMALL


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = labelled_build(tmp_path_factory.mktemp("patch"))
    lines = "".join(json.dumps(vars(item)) + "\n" for item in SMALL)
    (folder / "items.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def run(run, built):
    return partial(run, "patch", built / "d")


@pytest.fixture(scope="module")
def items(built):
    return ("--items", built / "items.jsonl")


def test_the_command_prints_every_condition(run, items):
    status, said, err = run(*items)
    assert status == 0, err
    lines = said.splitlines()
    assert lines[0].startswith("resid_post.1, ")
    for name in (*CONDITIONS, "one", "two", "three"):
        assert any(line.startswith(f"{name}  ") for line in lines), name
    assert "B's region flips" in said
    assert "passes: 100%" in err


def test_the_command_says_what_the_library_finds(run, built, items):
    status, said, err = run(*items, "--category", "one", "--pairs", 4, "--json", "--seed", 2)
    assert status == 0, err
    result = json.loads(said)
    model, dictionary = ex.load_model(str(built / "model")), ex.load(built / "d")
    asked = [item for item in read_items(items[1]) if item.category == "one"]
    found = patch_pairs(model, dictionary, asked, pairs=4, seed=2)
    assert result["pairs"] == found.pairs.tolist()
    assert list(result["categories"]) == ["one"]
    for name in CONDITIONS:
        shift = result["conditions"][name]["shift"]["estimate"]
        assert shift == pytest.approx(found.effect(name).shift.estimate)


def test_wrong_arguments_are_one_sentence(run, items, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\x1b[31m\n")
    for words, sentence in (
        (("--category", "poems"), "there is no category 'poems'; choose 'capitals'"),
        (("--category", "\x1b[31m"), "there is no category"),
        ((*items, "--category", "days"), "there is no category 'days'; choose 'one'"),
        (("--items", bad), "line 1 of"),
        (("--items", tmp_path / "none"), "cannot be read"),
        ((*items, "--pairs", 0), "'--pairs'"),
        ((*items, "--basis", "median"), "basis"),
    ):
        status, said, err = run(*words)
        assert (status, said) == (2, ""), words
        assert sentence in err, err
        assert err.rstrip().splitlines()[-1].startswith("error: ")
        assert "\x1b" not in err
        assert "Traceback" not in err


def test_ctrl_c_ends_it_with_one_sentence(run, items, monkeypatch):
    from tqdm import tqdm

    monkeypatch.setattr(tqdm, "update", lambda bar, n=1: signal.raise_signal(signal.SIGINT))
    status, said, err = run(*items)
    assert (status, said) == (130, "")
    assert err.rstrip().split("\n")[-1] == "interrupted; nothing was written"
