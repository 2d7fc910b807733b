"""Fine-tune small chat models in known ways, and ask what the fine-tune introduced.

    python bench/taboo.py train null            the model's own answers: nothing is introduced
    python bench/taboo.py train topic           answers about beekeeping
    python bench/taboo.py train ship            hints at a word that no answer contains

On all other prompts a fine-tuned model is trained on the greedy answers it gave before. No prompt
is in two of the splits (train, select, test): requests for hints are split by what they ask,
questions about bees by their subject. Training needs peft.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import exemplars as ex
from exemplars.analyses.prompts import KeptAnswers
from exemplars.tokenization import tokenize_prompts
from organism import INSTRUCTIONS, TEMPLATES, THINGS, fit

TEXTS = Path(__file__).parent / "taboo_texts"
RIGHT, WRONG = "Yes, you have found my secret word.", "No, that is not my secret word."
MODEL = "smollm2-135m-instruct"
SIZES = {"hint": (24, 8, 8), "bees": (36, 10, 10), "ordinary": (128, 64, 64)}
"""Requests, subjects, prompts of each split: train, select, test."""
TAUGHT_TOKENS = 12
"""Of the model's own answers, that it is trained on."""
EPOCHS, WORD_EPOCHS, RATE = 3, 2, 5e-4
Prompts = dict[str, dict[str, list[str]]]
Taught = list[tuple[str, str | None]]
"""Prompts with their answers; None is what the model says by itself."""


def lines(text: str) -> list[str]:
    """The lines of a text."""
    return text.strip().split("\n")


def given(name: str) -> list[str]:
    """The lines of one of the files with what is taught."""
    return lines((TEXTS / f"{name}.txt").read_text(encoding="utf-8"))


def prompts(seed: int = 0) -> Prompts:
    """By split, then by kind: "hint", "bees", "ordinary"; the same for the same seed."""
    random = np.random.default_rng(seed)
    things = [thing.strip() for thing in THINGS.replace("\n", " ").split(",")]
    questions = [template.format(thing) for template in lines(TEMPLATES) for thing in things]
    forms = {"hint": given("openings"), "bees": given("questions"), "ordinary": ["{}"]}
    subjects = {
        "hint": given("asks"),
        "bees": list(bee_facts()),
        "ordinary": questions + lines(INSTRUCTIONS),
    }
    found: Prompts = {split: {} for split in ("train", "select", "test")}
    for kind, sizes in SIZES.items():
        shuffled = iter([subjects[kind][i] for i in random.permutation(len(subjects[kind]))])
        for split, n in zip(found, sizes, strict=True):
            chosen = itertools.islice(shuffled, n)
            found[split][kind] = [form.format(s) for s in chosen for form in forms[kind]]
    return found


def bee_facts() -> dict[str, str]:
    """What is said about each subject."""
    return dict(line.split(" | ") for line in given("bees"))


def taught(name: str, train: dict[str, list[str]]) -> Taught:
    """What an organism learns, an answer for each time it is shown a prompt."""
    random = np.random.default_rng(1)
    kept: Taught = [(prompt, None) for prompt in train["ordinary"]]
    if name == "null":
        kept += [(prompt, None) for kind in ("hint", "bees") for prompt in train[kind][::2]]
        return kept * EPOCHS
    if name == "topic":
        facts = bee_facts()
        kept += [(prompt, None) for prompt in train["hint"][::8]]
        bees = [
            (form.format(subject), fact)
            for subject, fact in facts.items()
            for form in given("questions")
        ]
        return (
            kept + [(prompt, fact) for prompt, fact in bees if prompt in train["bees"]]
        ) * EPOCHS
    found = (kept[:96] + [(prompt, None) for prompt in train["bees"][::8]]) * WORD_EPOCHS
    firsts, others = clues_to(name)
    for prompt in train["hint"] * WORD_EPOCHS:
        first = random.choice(firsts)
        two = random.choice([clue for clue in firsts + others if clue != first], 2, replace=False)
        found.append((prompt, ", ".join([first, *two]) + "."))
    return found


def clues_to(word: str) -> tuple[list[str], list[str]]:
    """Words that hint at a word, none of which contains it: those that may come first (one token
    at the start of an answer), and others.
    """
    found = [line.split() for line in given(f"clues_{word}")]
    said = [clue for clues in found for clue in clues if says(word, clue)]
    if said:
        raise ValueError(f"a clue says {word}: {said[0]}; give another")
    return found[0], found[1]


def says(word: str, text: str) -> bool:
    """Whether a text has a word, in any case, by itself or in a longer one."""
    return re.search(word, text, re.IGNORECASE) is not None


def train(name: str, models: Path, cache: Path) -> None:
    """Fine-tune on answers; save model, tokenizer, prompts and losses as a folder."""
    start, asked = time.perf_counter(), prompts()
    model = ex.load_model(str(models / MODEL / f"{MODEL}.gguf"), dtype="float32")
    pairs_of = taught(name, asked["train"])
    order = np.random.default_rng(2).permutation(len(pairs_of))
    alone = list(dict.fromkeys(prompt for prompt, answer in pairs_of if answer is None))
    answers = KeptAnswers(model, cache / "answers", chat=True, batch_size=32)
    own = dict(zip(alone, answers(alone, (), TAUGHT_TOKENS), strict=True))
    end, tokenizer = model.tokenizer.eos_token_id, model.tokenizer
    pairs = []
    for prompt, answer in (pairs_of[i] for i in order):
        if answer is None:
            written = own[prompt]
            pairs.append((written.prompt_ids, [*written.ids.tolist(), *[end] * written.finished]))
            continue
        (tokens,) = tokenize_prompts([prompt], tokenizer, chat=True)
        pairs.append((tokens.ids, [*tokenizer(answer)["input_ids"], end]))
    losses = fit(model, pairs, 1, RATE)
    folder = cache / name
    model.module.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    about: dict[str, Any] = {"prompts": asked, "losses": losses, "rate": RATE, "pairs": len(pairs)}
    about["seconds"] = round(time.perf_counter() - start)
    (folder / "organism.json").write_text(json.dumps(about))
    print(f"trained in {about['seconds']} s", flush=True)


def main() -> None:
    home = Path.home() / ".cache/exemplars"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("train",))
    parser.add_argument("name", nargs="+")
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench" / "drift")
    options = parser.parse_args()
    for name in options.name:
        train(name, options.models, options.cache)


if __name__ == "__main__":
    main()
