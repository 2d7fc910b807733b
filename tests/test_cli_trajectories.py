"""`exemplars trajectories`: dictionaries of several sites and files of prompts in; answers out."""

import json

import pytest

import exemplars as ex
from builds import SETTINGS, documents
from conftest import make_tokenizer
from tiny_models import tiny_module

SETS = {
    "salt": [f"the {w} of salt" for w in ("sea", "moon", "a", "other", "then", "there", "ß")],
    "moon": [f"other {w} moons" for w in ("sea", "salt", "a", "the", "then", "there", "ß")],
}
FEW = ("--draws", "19")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("trajectories")
    tiny_module(vocab_size=300).save_pretrained(found / "model")
    make_tokenizer("chat").save_pretrained(found / "model")
    model = ex.load_model(str(found / "model"))
    texts, sites = ex.texts(documents()), ["resid_post.0", "resid_post.2"]
    ex.build(model, sites, texts, percentile=20, rows=600, out=found / "d", **SETTINGS)
    for name, lines in SETS.items():
        (found / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return found


def words(folder, *more):
    sites = [folder / "d" / f"resid_post.{k}-p20" for k in (2, 0)]
    return ("trajectories", *sites, *FEW, *more)


def sets(folder):
    return tuple(word for name in SETS for word in ("--prompts", folder / f"{name}.txt"))


def test_it_answers_with_a_sentence_tables_and_a_figure(run, folder, tmp_path):
    figure = tmp_path / "deep" / "paths.png"
    status, out, err = run(*words(folder, *sets(folder), "--lens", "--figure", figure))
    assert status == 0, err
    assert out.startswith("Which regions do these prompts pass through? Most often ")
    assert "14 prompts (7 salt, 7 moon)" in out
    assert "resid_post.0 → resid_post.2" in out
    for said in ("Jaccard", "within, as published", "calibration center", "Spearman"):
        assert said in out
    assert "nan" not in out
    assert figure.exists()
    assert figure.with_suffix(".svg").exists()


def test_json_has_flows_paths_and_nulls(run, folder):
    status, out, _ = run(*words(folder, *sets(folder), "--json", "--chat"))
    assert status == 0
    found = json.loads(out)
    assert found["sites"] == ["resid_post.0", "resid_post.2"]
    assert found["prompts"] == {"salt": 7, "moon": 7}
    assert {"mean", "low", "high", "p_value"} == set(found["flows"][0]["chance"])
    assert len(found["categories"]) == len(found["centering"]) == 2
    assert found["lens"] == []


def test_one_set_has_paths_and_flows_and_nothing_to_part_from(run, folder):
    status, out, err = run(*words(folder, "--prompts", folder / "salt.txt", "--top", "1"))
    assert status == 0, err
    assert "different paths of 7 prompts" in out
    assert "Jaccard" not in out
    assert "Prompts of one set end" not in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "no prompts were given; give --prompts, one file for each set"),
        (("--prompts", "absent.txt"), "there is no file"),
        (("--prompts", "salt.txt", "--prompts", "again.txt"), "was given twice"),
        (("--prompts", "salt.txt", "--prompts", "salt.txt"), "a file of prompts was given twice"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, folder, more, said):
    (folder / "again.txt").write_text(SETS["salt"][0], encoding="utf-8")
    more = [folder / word if str(word).endswith(".txt") else word for word in more]
    status, _, err = run(*words(folder, *more))
    assert status == 2
    assert said in err.splitlines()[-1]


def test_what_files_say_cannot_write_to_the_terminal(run, folder):
    hostile = folder / "sa\x1b[31mlt.txt"
    hostile.write_text("\n".join(SETS["salt"]), encoding="utf-8")
    status, out, err = run(*words(folder, "--prompts", hostile, *sets(folder)[2:]))
    assert status == 0, err
    assert "\x1b" not in out + err
