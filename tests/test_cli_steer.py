"""`exemplars steer`: prompts in, a table, the chosen strength, and answers side by side out."""

import json
import signal
from functools import partial

import pytest

import exemplars as ex
from exemplars.analyses.labelled import read_lines
from exemplars.analyses.steering import recipe_of, steer, with_controls
from labelled_build import labelled_build

FEW = ("--max-new-tokens", 3, "--draws", 1, "--strengths", "0,1")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = labelled_build(tmp_path_factory.mktemp("steer"))
    (folder / "prompts.txt").write_text("the heron\n\nout\nan other tin\naround\nout\nheron\n")
    return folder


@pytest.fixture
def run(run, built):
    return partial(run, "steer", built / "d")


@pytest.fixture(scope="module")
def prompts(built):
    return ("--prompts", built / "prompts.txt")


def test_a_region_gives_a_table_a_choice_and_answers(run, prompts, tmp_path):
    status, said, err = run(
        "--region", 3, "--region", 5, *prompts, *FEW, "--score", "regex:[a-m]", "--show", 2,
        "--figure", tmp_path / "f.svg",
    )  # fmt: skip
    assert status == 0, err
    assert said.startswith("add, regions 3, 5, at resid_post.1, positions edited, 5 prompts\n")
    lines = said.splitlines()
    for name in ("baseline ", "regions ", "random directions ", "random regions "):
        assert any(line.startswith(name) for line in lines), name
    assert "prompt 1: the heron" in said
    assert "prompt 2: out" in said
    assert "prompt 3" not in said
    assert any(line.startswith("regions: ") for line in lines)
    assert (tmp_path / "f.svg").read_text().count("<svg") == 1
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"
    assert "answers: 100%" in err


def test_the_command_says_what_the_library_finds(run, built, prompts):
    words = ("--region", 3, *prompts, *FEW, "--score", "rule:uppercase", "--json", "--seed", 4)
    status, said, err = run(*words)
    assert status == 0, err
    result = json.loads(said)
    dictionary, model = ex.load(built / "d"), ex.load_model(str(built / "model"))
    methods = with_controls(dictionary, recipe_of(dictionary, [3]), draws=1, seed=4)
    asked = read_lines(prompts[1])
    assert asked == ["the heron", "out", "an other tin", "around", "heron"]
    found = steer(model, methods, asked, None, (0, 1), max_new_tokens=3, seed=4)
    assert result["prompts"] == asked
    assert result["select"] == found.select.tolist()
    assert result["scorer"] == {"kind": "rule", "name": "uppercase"}
    for setting, mine in zip(result["settings"], (found.baseline, *found.settings), strict=True):
        assert setting["answers"] == [[a.text for a in line] for line in mine.answers]
        assert setting["all"]["kl"] == pytest.approx(mine.measures().kl, rel=1e-6)
    assert result["regions"] == [3]


def test_labelled_texts_give_the_region_and_the_difference_of_means(run, built, prompts):
    classes = ("--positive", built / "yes.txt", "--negative", built / "no.txt")
    status, said, err = run(*classes, *prompts, *FEW, "--json")
    assert status == 0, err
    result = json.loads(said)
    assert "reading 40 labelled texts" in err
    assert f"by contrast: region {result['contrast_region']}" in err
    assert result["regions"] == [result["contrast_region"]]
    assert {s["method"] for s in result["settings"]} >= {"regions", "difference of means"}
    assert -1 <= result["cosine"] <= 1
    status, said, _ = run(*classes, "--region", 2, *prompts, *FEW)
    assert status == 0
    assert "region 2, at" in said
    assert "cosine of its direction with the difference of means: " in said


@pytest.mark.parametrize("operation", ["ablate", "cap", "patch"])
def test_the_other_operations(run, prompts, operation):
    status, said, err = run(
        "--region", 3, *prompts, "--operation", operation, "--max-new-tokens", 2, "--draws", 0,
        "--json", "--score", "regex:x", "--positions", "generated",
    )  # fmt: skip
    assert status == 0, err
    result = json.loads(said)
    assert result["operation"] == operation
    assert result["aim"] == ("raise" if operation == "patch" else "lower")
    assert result["limit"] == (0 if operation == "cap" else None)
    assert result["settings"][0]["strength"] == 0
    assert max(s["strength"] for s in result["settings"]) == 1


def test_hostile_prompts_and_files_do_not_reach_the_terminal(run, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("the \x1b[31mheron\u202e\n" + "out\n", encoding="utf-8")
    status, said, err = run("--region", 3, "--prompts", path, *FEW)
    assert status == 0, err
    assert "\x1b" not in said + err
    assert "\u202e" not in said
    assert "the ␛[31mheron·" in said


def test_wrong_arguments_are_one_sentence(run, built, prompts, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    for words, sentence in (
        (("--region", 3), "missing option '--prompts'"),
        (prompts, "no region was given; give --region, or --positive"),
        ((*prompts, "--positive", built / "yes.txt"), "one class alone was given"),
        ((*prompts, "--region", 10**6), "region 1000000 does not exist"),
        ((*prompts, "--region", 3, "--operation", "swap"), '--operation is "swap"'),
        ((*prompts, "--region", 3, "--strengths", "1,x"), '--strengths is "1,x"'),
        ((*prompts, "--region", 3, "--strengths", "0"), "at least one of them not 0"),
        ((*prompts, "--region", 3, "--strengths", "nan"), "must be finite"),
        ((*prompts, "--region", 3, "--score", "rule:verse"), 'there is no rule "verse"'),
        ((*prompts, "--region", 3, "--score", "verse"), "'verse' is no scorer"),
        ((*prompts, "--region", 3, "--score", "judge:Is it so?"), "needs a model that judges"),
        ((*prompts, "--region", 3, "--aim", "up"), 'the aim is "up"'),
        ((*prompts, "--region", 3, "--basis", "median"), "basis"),
        ((*prompts, "--region", 3, "--positions", "some"), 'positions is "some"'),
        (("--region", 3, "--prompts", empty), "holds no text"),
        (("--region", 3, "--prompts", tmp_path / "none.txt"), "there is no file"),
        ((*prompts, "--region", 3, "--max-new-tokens", 10**6), "do not fit"),
    ):
        status, said, err = run(*words)
        assert (status, said) == (2, ""), words
        assert err.rstrip().splitlines()[-1].startswith("error: ")
        assert sentence in err.rstrip().splitlines()[-1].lower() + err, (words, err)
        assert "Traceback" not in err


def test_ctrl_c_ends_it_with_one_sentence(run, prompts, monkeypatch):
    from tqdm import tqdm

    update = tqdm.update

    def interrupting(bar, n=1):
        if n:
            signal.raise_signal(signal.SIGINT)
        return update(bar, n)

    monkeypatch.setattr(tqdm, "update", interrupting)
    status, said, err = run("--region", 3, *prompts, *FEW)
    assert (status, said) == (130, "")
    assert err.rstrip().split("\n")[-1] == "interrupted; nothing was written"


def test_a_wrong_region_is_found_before_the_model_is_loaded(run, prompts, monkeypatch):
    monkeypatch.setattr(ex, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    status, _, err = run("--region", 10**6, *prompts)
    assert (status, "does not exist" in err) == (2, True)
