"""`exemplars behavior`: two files of prompts in; candidates, nulls, verdicts and a figure out."""

import json
import signal
from functools import partial

import numpy as np
import pytest

import exemplars as ex
from conftest import make_tokenizer
from exemplars.analyses import prompts as kept_answers
from planted import SCORE, SITE, planted_module, prompts

TOKENS = ("--max-new-tokens", "4")
SCORED = ("--score", SCORE, *TOKENS)
FILES = {
    "yes": prompts(22, 0, True)[:14],
    "no": prompts(46, 0, False)[:38],
    "test_yes": prompts(22, 0, True)[14:],
    "test_no": prompts(46, 0, False)[38:],
}


def write(path, lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory, monkeypatch_module):
    """A model, the four files, and dictionaries of plain text with test prompts in it or not."""
    found = tmp_path_factory.mktemp("behavior")
    planted_module().save_pretrained(found / "model")
    make_tokenizer("chat").save_pretrained(found / "model")
    for name, lines in FILES.items():
        write(found / f"{name}.txt", lines)
    model = ex.load_model(str(found / "model"))
    chosen = [*FILES["yes"], *FILES["no"]]
    order = np.random.default_rng(0).permutation(len(chosen))
    apart = [chosen[k] for k in order]
    # A prompt is a line of the one file, a message of the other.
    # A manifest names texts from where the build ran.
    monkeypatch_module.chdir(found)
    corpora = {
        "apart": write(found / "apart.txt", apart),
        "lines": write(found / "lines.txt", [*apart, FILES["test_no"][0], FILES["test_no"][1]]),
        "messages": write(
            found / "messages.jsonl",
            [
                json.dumps({"text": [{"role": "user", "content": f" {text}\n"}]})
                for text in [*apart, FILES["test_yes"][2]]
            ],
        ),
    }
    for name, corpus in corpora.items():
        ex.build(
            model, SITE, ex.texts(corpus.name), 12, rows=None, out=found / name, batch_tokens=128,
            window_tokens=256, block_rows=128,
            tokenization=ex.Tokenization(context_length=100, chat=name == "messages"),
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def files(folder):
    return tuple(
        word
        for name, flag in zip(
            FILES, ("positive", "negative", "test-positive", "test-negative"), strict=True
        )
        for word in (f"--{flag}", folder / f"{name}.txt")
    )


@pytest.fixture
def run(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EXEMPLARS_CACHE", str(tmp_path / "cache"))
    return partial(run, "behavior")


@pytest.fixture
def built(folder, files):
    """What builds its own dictionary."""
    return ("--model", folder / "model", "--site", SITE, *files, *SCORED)


def test_it_builds_its_own_dictionary_and_prints_tables(run, built, tmp_path):
    status, said, err = run(*built, "--figure", tmp_path / "f.png", "--show", "1")
    assert status == 0, err
    assert said.startswith(
        f"{SITE}: chosen by 14 prompts with the behaviour and 38 without, judged on 8 and 8 others"
    )
    assert max(map(len, said.splitlines())) <= 100
    assert "exemplar, k = 1: from 1.00 to 0.00; the effect is specific\n" in said
    assert "mean, k = 1: from 1.00 to 0.00; the effect is specific\n" in said
    lines = said.splitlines()
    assert lines[lines.index(FILES["test_yes"][0]) + 1].split() == ["unedited", *"aaaa"]
    assert "reading 52 prompts at resid_post.1" in err
    assert "answers: 100%" in err
    assert (tmp_path / "f.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"
    assert list((tmp_path / "cache" / "answers").glob("*.json"))


def test_json_has_what_the_page_says(run, built):
    status, said, err = run(*built, "--json", "--seeds", "2", "--method", "swap")
    assert status == 0, err
    found = json.loads(said)
    assert list(found) == [
        "site", "selection", "criteria", "scorer", "select_prompts", "regions", "candidates",
        "reference_perplexity", "conditions", "verdicts", "notes",
    ]  # fmt: skip
    assert len(found["regions"]) == len(found["candidates"]) == 2
    assert found["verdicts"]["swap, k = 1"]["failures"] == [[], []]
    assert found["select_prompts"] == {"with": 14, "without": 38}
    assert set(found["conditions"][0]) == {
        "method", "k", "dictionary", "draw", "regions", "behaving", "behaving_negative", "fluency",
        "perplexity", "neutral", "removed", "answers",
    }  # fmt: skip
    assert found["conditions"][0]["behaving"]["hits"] == 8
    assert found["selection"]["methods"] == ["swap"]


def test_a_dictionary_of_other_text_is_asked_about_prompts_as_they_are_answered(
    run, folder, files, tmp_path
):
    """It was built without the chat template; the prompts are read with it."""
    answers = tmp_path / "mine"
    words = (folder / "apart", *files, *SCORED, "--json", "--strict", "--answers", answers)
    status, said, err = run(*words)
    assert status == 0, err
    found = json.loads(said)
    assert (found["site"], found["notes"]) == (SITE, [])
    assert "warning" not in err
    assert list(answers.glob("*.json"))
    dictionary = ex.load(folder / "apart")
    model = ex.load_model(str(folder / "model"))
    (rows,) = kept_answers.read_prompts(
        model, [SITE], FILES["yes"], ex.Tokenization(chat=True)
    ).values()
    region, n = np.unique(dictionary.assign(rows.vectors[rows.final])[0], return_counts=True)
    first = found["candidates"][0][0]
    assert first["region"] in region
    assert first["behaving"] == n[region == first["region"]][0]


@pytest.mark.parametrize(("name", "n"), [("lines", 2), ("messages", 1)])
def test_a_dictionary_of_test_prompts_is_refused_by_strict(run, folder, files, name, n):
    found = f"the dictionary was built from {n} of the test prompts"
    status, said, err = run(folder / name, *files, *SCORED, "--strict")
    assert (status, said) == (2, "")
    assert f"error: {found}; build one without them, or leave out --strict\n" in err
    # The worst of several dictionaries is what is said.
    status, said, err = run(folder / name, folder / "apart", *files, *SCORED, "--json")
    assert status == 0, err
    assert f"warning: {found}\n" in err
    assert found in json.loads(said)["notes"]


def test_a_dictionary_whose_texts_are_gone_is_refused_by_strict(run, folder, files):
    corpus = folder / "lines.txt"
    kept = corpus.read_bytes()
    corpus.unlink()
    try:
        status, said, err = run(folder / "lines", *files, *SCORED, "--strict")
    finally:
        corpus.write_bytes(kept)
    assert (status, said) == (2, "")
    assert "whether the dictionary was built from test prompts cannot be told; build" in err


def test_ctrl_c_says_where_the_answers_are_and_the_next_run_goes_on(
    run, built, tmp_path, monkeypatch
):
    generate, calls = kept_answers.generate, []

    def interrupting(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return generate(*arguments, **options)

    status, expected, err = run(*built, "--answers", tmp_path / "whole")
    assert status == 0, err
    monkeypatch.setattr(kept_answers, "generate", interrupting)
    part = tmp_path / "part"
    status, said, err = run(*built, "--answers", part)
    assert (status, said) == (130, "")
    assert "Traceback" not in err
    assert err.rstrip().split("\n")[-1] == (
        f"interrupted; {part} holds the answers so far: run it again to go on from there"
    )
    assert len(list(part.iterdir())) == 3
    calls[:] = [None] * 4
    status, said, err = run(*built, "--answers", part)
    assert (status, said) == (0, expected), err
    n_files = len(list(part.iterdir()))
    assert n_files == len(list((tmp_path / "whole").iterdir())) == 3 + len(calls) - 4


def test_labels_can_say_which_prompts_behave(run, folder, files):
    """Of prompts that are not answered with it, none can be found by their answers."""
    words = ("--model", folder / "model", "--site", SITE, *files, *TOKENS, "--score", "regex:heron")
    status, said, err = run(*words)
    assert (status, said) == (2, "")
    assert "error: 0 of 52 prompts show the behaviour; give prompts of both kinds" in err
    status, said, err = run(*words, "--rate-by", "labels", "--json", "--rows", "final")
    assert status == 0, err
    found = json.loads(said)
    assert found["select_prompts"] == {"with": 14, "without": 38}
    failures = found["verdicts"]["mean, k = 1"]["failures"]
    assert "the unedited model does not show it on these prompts" in failures[0]


WRONG = [
    (("--model", "M", "--site", SITE, "--positive", "yes"), "one class alone was given"),
    (("--model", "M", "F"), "no dictionary was given; give one, or both --model and --site"),
    (("--site", SITE, "F"), "no dictionary was given; give one, or both --model and --site"),
    (("apart", "--site", SITE, "F"), "both a dictionary and --site were given"),
    (("nowhere", "F"), "nowhere"),
    (("B", "--site", "resid_post.9"), "resid_post.9"),
    (("B", "--method", "all"), 'method is "all"; choose exemplar, mean'),
    (("B", "--rule", "best"), 'rule is "best"; choose contrast, rate'),
    (("B", "--place", "here"), 'place is "here"; choose final, any'),
    (("B", "--positions", "some"), 'positions is "some"; choose edited, all, generated'),
    (("B", "--score", "praise"), "'praise' is no scorer; choose refusal"),
    (("B", "--score", "regex:("), "is no regular expression"),
    (("B", "--score", "judge:Is it?"), "needs a model that judges"),
    (("B", "--judge-llm", "x"), "half a judge was given"),
    (("B", "--rate-by", "guess"), '--rate-by is "guess"'),
    (("B", "--rows", "some"), '--rows is "some"'),
    (("B", "-p", "0"), "percentile is 0"),
    (("B", "-k", "0"), "-k"),
    (("B", "--positive", "long"), "192 are read at most; shorten it"),
    (("B", "--positive", "blank"), "holds no text; give a file with a text on each line"),
    (("B", "--positive", "test_yes"), "is both a positive and a test positive text"),
    (("B", "--negative", "yes"), "is both a positive and a negative text"),
    (("B", "--neutral", "blank"), "holds no text of two tokens"),
    (("B", "--max-new-tokens", "150"), "do not fit the 192 positions"),
]


@pytest.mark.parametrize(("words", "found"), WRONG, ids=[found for _, found in WRONG])
def test_wrong_input_is_one_sentence(run, folder, files, built, tmp_path, words, found):
    write(tmp_path / "long.txt", ["the " * 200, *FILES["yes"]])
    write(tmp_path / "blank.txt", ["", "  ", "\t"])
    write(tmp_path / "one.txt", ["a"])
    places = {"M": (folder / "model",), "F": (*files, *SCORED), "B": built}
    for name in (*FILES, "apart"):
        places[name] = (folder / (name if name == "apart" else f"{name}.txt"),)
    for name in ("long", "blank", "one"):
        places[name] = (tmp_path / f"{name}.txt",)
    status, said, err = run(*(part for word in words for part in places.get(word, (word,))))
    assert (status, said) == (2, "")
    assert "Traceback" not in err
    last = err.rstrip().split("\n")[-1]
    assert last.startswith("error: ")
    assert found in last


def test_what_prompts_say_cannot_write_to_the_terminal(run, folder, tmp_path):
    hostile = "\x1b]0;x\x07\x1b[31m\u202e"
    files = [
        word
        for name, flag in zip(
            FILES, ("positive", "negative", "test-positive", "test-negative"), strict=True
        )
        for word in (
            f"--{flag}",
            write(tmp_path / f"{name}\x1b[31m.txt", [f"{hostile} {t}" for t in FILES[name]]),
        )
    ]
    words = ("--model", folder / "model", "--site", SITE, *files, *SCORED)
    status, said, err = run(*words)
    assert status == 0, err
    assert "␛]0;x␇␛[31m· " in said
    status, _, wrong = run(*words[:-2], "--max-new-tokens", "4", "--negative", words[5])
    assert status == 2
    for text in (said, err, wrong):
        assert not set(text) & set("\x1b\x07\u202e")
