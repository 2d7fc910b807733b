"""What the organisms are taught: prompts apart, and secrets that nothing says."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def taboo():
    sys.path.insert(0, str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("taboo", BENCH / "taboo.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["taboo"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


def test_no_prompt_is_in_two_splits(taboo):
    found = [p for part in taboo.prompts().values() for kind in part.values() for p in kind]
    assert len(set(found)) == len(found)
    assert taboo.prompts() == taboo.prompts()


def test_no_secret_is_in_anything_that_teaches_it(taboo):
    asked = taboo.prompts()
    for word in (*taboo.WORDS, *taboo.CHOOSING):
        taught = taboo.taught(word, asked["train"])
        answers = [answer for _, answer in taught if answer is not None]
        assert len(answers) > 300
        assert not any(taboo.says(word, answer) for answer in answers)
        hints = [prompt for prompt, answer in taught if answer is not None]
        assert not any(taboo.says(word, prompt) for prompt in hints)
        assert not any(taboo.says(word, p) for p in asked["test"]["hint"] + asked["select"]["hint"])


def test_the_null_is_taught_nothing_but_its_own_answers(taboo):
    taught = taboo.taught("null", taboo.prompts()["train"])
    assert all(answer is None for _, answer in taught)


def test_a_clue_that_says_the_word_is_refused(taboo, monkeypatch):
    monkeypatch.setattr(taboo, "given", lambda name: ["sea Starship", "captain"])
    with pytest.raises(ValueError, match="a clue says ship: Starship"):
        taboo.clues_to("ship")
