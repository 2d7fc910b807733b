"""`exemplars drift`: two models and prompts in; an answer, an inventory and a figure out."""

import json

import pytest
import torch

from conftest import make_tokenizer
from planted import SITE, planted_module, prompts

WITH, WITHOUT = prompts(24, 0, True), prompts(24, 0, False)
FAST = ("--orders", "1", "--draws", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tuned model writes a direction after "#", which the base model does not."""
    found = tmp_path_factory.mktemp("drift")
    base = planted_module()
    with torch.no_grad():
        base.model.layers[0].self_attn.o_proj.weight[:, 0] = 0
    for name, module in (("base", base), ("tuned", planted_module())):
        module.save_pretrained(found / name)
        make_tokenizer("chat").save_pretrained(found / name)
    (found / "with.txt").write_text("\n".join(WITH), encoding="utf-8")
    (found / "without.txt").write_text("\n".join(WITHOUT), encoding="utf-8")
    (found / "all.txt").write_text("\n".join([*WITH, *WITHOUT]), encoding="utf-8")
    return found


def arguments(folder, *more, tuned="tuned"):
    models = (str(folder / "base"), str(folder / tuned))
    return ("drift", *models, "--site", SITE, *FAST, *more)


def topical(folder):
    return ("--prompts", str(folder / "without.txt"), "--topic", str(folder / "with.txt"))


def test_the_answer_comes_first_and_the_topic_is_told(folder, run):
    code, out, err = run(*arguments(folder, *topical(folder), "--evaluate", "a"))
    assert code == 0, err
    assert out.startswith("The fine-tune introduced")
    for part in ("logistic probe", "labels exchanged", "published", "of the topic", "Rank of 'a'"):
        assert part in out
    assert "‹" in out
    assert "not what it does" in " ".join(out.split())


def test_json_and_figure(folder, run, tmp_path):
    figure = tmp_path / "drift.svg"
    code, out, err = run(
        *arguments(folder, *topical(folder), "--evaluate", "a", "--json", "--figure", str(figure))
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["inventory"]
    assert result["topic"]["inventory"]["share"]["estimate"] == 1
    assert all(region["base"] == [0, 0] for region in result["inventory"])
    ranks = [region["shift"]["ranks"]["a"]["lens"] for region in result["inventory"]]
    assert min(ranks) == 0  # the unembedding of " a" is the direction
    assert max(max(sizes) for sizes in result["nulls"].values()) == 0
    assert figure.stat().st_size > 1000
    assert figure.with_suffix(".png").exists()


def test_a_model_and_itself(folder, run):
    code, out, err = run(*arguments(folder, "--prompts", str(folder / "all.txt"), tuned="base"))
    assert "have the same weights, so nothing can differ" in err
    assert code == 0, err
    assert out.startswith("Nothing was found")


def test_answers_and_texts_are_read_too(folder, run):
    code, out, err = run(
        *arguments(folder, *topical(folder), "--positions", "response", "--new-tokens", "2")
    )
    assert code == 0, err
    assert "the answers' tokens" in out
    lines = [json.dumps({"text": text}) for text in [*WITH, *WITHOUT]]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code, out, err = run(*arguments(folder, "--text", str(folder / "texts.jsonl"), "-p", "20"))
    assert code == 0, err
    assert "all tokens" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give either --prompts or --text"),
        (("--text", "x", "--topic", "y"), "are of prompts; give --prompts"),
        (("--text", "x", "--positions", "control"), "are of prompts; give --prompts"),
        (("--prompts", "all.txt", "--positions", "first"), 'positions is "first"'),
        (("--prompts", "all.txt", "--topic", "with.txt"), "is in both"),
        (("--prompts", "nothing.txt"), "there is no file"),
        (("--prompts", "all.txt", "--most-base", "1"), "out of range"),
    ],
)
def test_what_does_not_go_together_is_said(folder, run, more, said, monkeypatch):
    monkeypatch.chdir(folder)
    code, _, err = run(*arguments(folder, *more))
    assert code == 2
    assert said in err
    assert len(err.strip().split("error: ")[1].split("\n")) == 1
