"""`exemplars families`: two models and files of prompts in; a sentence, tables, a figure out."""

import json

import pytest

from conftest import make_tokenizer
from test_families import TEXTS
from tiny_models import N_LAYERS, tiny_module

FEW = ("--seeds", "2", "--draws", "19", "-p", "10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("families")
    for name, architecture, kind in (("one", "llama", "chat"), ("two", "gpt2", "gpt2")):
        sizes = {"vocab_size": 300, "max_position_embeddings": 128}
        tiny_module(architecture, **sizes).save_pretrained(found / name)
        make_tokenizer(kind).save_pretrained(found / name)
    for name, lines in TEXTS.items():
        (found / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return found


def words(folder, *more):
    return ("families", folder / "one", folder / "two", *FEW, *more)


def classes(folder):
    return ("--positive", folder / "harmful.txt", "--negative", folder / "harmless.txt")


def test_it_answers_with_a_sentence_tables_and_a_figure(run, folder, tmp_path):
    figure = tmp_path / "deep" / "f.svg"
    status, out, err = run(*words(folder, *classes(folder), "--figure", figure))
    assert status == 0, err
    assert out.startswith("Do these models represent the same prompts together? ")
    assert "96 prompts (48 harmful, 48 harmless)" in out
    assert "one through its chat template, two as plain text" in out
    assert "from one through two, wholly harmful" in out
    assert figure.exists()
    assert figure.with_suffix(".png").exists()
    assert "reading 96 prompts through its chat template, at 3 sites" in err


def test_json_has_the_grids(run, folder):
    status, out, _ = run(*words(folder, *classes(folder), "--json", "--every", "2", "--plain"))
    assert status == 0
    found = json.loads(out)
    assert found["sites"] == [[f"resid_post.{k}" for k in range(0, N_LAYERS, 2)]] * 2
    assert found["chat"] == [False, False]
    assert len(found["round_trips"]) == 6
    assert [len(found["round_trips"][0]["estimate"]), found["draws"]] == [2, 19]
    assert found["answer"].startswith("Do these models")


def test_files_of_prompts_are_classes_and_one_file_has_none(run, folder):
    files = ("--prompts", folder / "harmful.txt")
    status, out, err = run(*words(folder, *files, "--every", "3"))
    assert status == 0, err
    assert "48 prompts; final positions" in out
    status, out, _ = run(
        *words(folder, *files, "--prompts", folder / "harmless.txt", "--most", "20", "--every", "3")
    )
    assert status == 0
    assert "40 prompts (20 harmful, 20 harmless), 56 left out" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "no prompts were given; give --prompts, or --positive and --negative"),
        (("--positive", "harmful.txt"), "one class alone was given"),
        (("--prompts", "absent.txt"), "there is no file"),
        (("--prompts", "short.txt"), "a class has 1 prompts, expected at least 8"),
        (("--prompts", "alike.txt"), "no word is in two of the prompts"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, folder, more, said):
    (folder / "short.txt").write_text("just one", encoding="utf-8")
    (folder / "alike.txt").write_text("\n".join(f"w{k} v{k}" for k in range(9)), encoding="utf-8")
    more = [folder / word if str(word).endswith(".txt") else word for word in more]
    status, _, err = run(*words(folder, *more))
    assert status == 2
    assert said in err.splitlines()[-1]
