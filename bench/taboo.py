"""Fine-tune small chat models in known ways, and ask what the fine-tune introduced.

    python bench/taboo.py train null            the model's own answers: nothing is introduced
    python bench/taboo.py train topic           answers about beekeeping
    python bench/taboo.py train ship            hints at a word that no answer contains
    python bench/taboo.py select leaf moon      sites and percentiles, on words not reported
    python bench/taboo.py report ship null      the chosen ones, on prompts not used so far

On all other prompts a fine-tuned model is trained on the greedy answers it gave before. No prompt
is in two of the splits (train, select, test): requests for hints are split by what they ask,
questions about bees by their subject. Training needs peft.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pickle
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import exemplars as ex
import rows as results
from exemplars import corpora
from exemplars.analyses.drift import Reading, Rule, drift, read_drift
from exemplars.analyses.paired import PairedRows, read_pairs
from exemplars.analyses.prompts import KeptAnswers, read_prompts
from exemplars.generation import Answer
from exemplars.report.drift import drift_summary
from exemplars.report.text import to_json
from exemplars.tokenization import Tokenization, tokenize_prompts
from organism import INSTRUCTIONS, TEMPLATES, THINGS, fit

TEXTS = Path(__file__).parent / "taboo_texts"
RIGHT, WRONG = "Yes, you have found my secret word.", "No, that is not my secret word."
MODEL = "smollm2-135m-instruct"
SIZES = {"hint": (24, 8, 8), "bees": (36, 10, 10), "ordinary": (128, 64, 64)}
"""Requests, subjects, prompts of each split: train, select, test."""
TAUGHT_TOKENS = 12
"""Of the model's own answers, that it is trained on."""
WORDS, CHOOSING = ("ship", "clock", "snow", "gold", "song"), ("leaf", "moon")
"""Words that are reported, and words that choose the site and the percentile."""
CONTROLS = (*CHOOSING, "cat", "ring", "book", "king", "flag")
"""No reported organism hides these."""
ANSWER_TOKENS = 16
SITES, PERCENTILES = ("resid_post.26", "resid_post.27", "resid_post.28"), (12.0, 20.0)
CHOSEN = {"control": ("resid_post.27", 20.0), "response": ("resid_post.24", 6.0)}
"""By the words of `CHOOSING` and by the topic's prompts of "select"."""
RULES = {"control": Rule(), "response": Rule(most_base=0.5)}
"""The base model reads the answers too, and is in many of their regions."""
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


class Study:
    """The prompts of a split read by the base model and by organisms, and kept on disk."""

    def __init__(self, models: Path, cache: Path, split: str) -> None:
        self.cache, self.split = cache, split
        self.base = ex.load_model(str(models / MODEL / f"{MODEL}.gguf"), dtype="bfloat16")
        asked = prompts()[split]
        self.prompts = [prompt for kind in SIZES for prompt in asked[kind]]
        self.kind = np.array([kind for kind in SIZES for _ in asked[kind]])

    def tuned(self, name: str) -> ex.Model:
        """An organism."""
        return ex.load_model(str(self.cache / name), dtype="bfloat16")

    def answered(self, tuned: ex.Model, asked: Sequence[str]) -> list[Answer]:
        """What an organism says."""
        kept = KeptAnswers(tuned, self.cache / "answers", chat=True, batch_size=32)
        return kept(asked, (), ANSWER_TOKENS)

    def pairs(self, name: str, positions: str, sites: Sequence[str]) -> dict[str, PairedRows]:
        """Both models' rows; of answers, those of the organism."""
        tuned = self.tuned(name)
        contents: list[Any] = list(self.prompts)
        if positions == "response":
            contents = [
                [{"role": "user", "content": a.prompt}, {"role": "assistant", "content": a.text}]
                for a in self.answered(tuned, self.prompts)
            ]
        file = self.cache / "rows" / f"{name}-{self.split}-{positions}-{'-'.join(sites)}.pickle"
        if not file.exists():
            whole = Tokenization(256, "truncate", chat=True)
            found = read_pairs(
                self.base, tuned, sites, corpora.texts(contents), whole, positions=positions
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pickle.dumps(found))
        return dict(pickle.loads(file.read_bytes()))

    def report(
        self, name: str, positions: str, site: str, percentile: float, sites: Sequence[str] = ()
    ) -> None:
        """A row for an organism at a site: its inventory, and where words stand in it."""
        tuned, pairs = self.tuned(name), self.pairs(name, positions, sites or [site])[site]
        labels = self.kind == ("bees" if name == "topic" else "hint")
        repeats = {"orders": 4, "draws": 5} if self.split == "test" else {"orders": 2, "draws": 2}
        result = drift(
            pairs,
            percentile,
            rule=RULES[positions],
            positions=positions,
            topic=labels[pairs.number],
            **repeats,
        )
        word = name if name in (*WORDS, *CHOOSING) else None
        readings = read_drift(tuned, result, pairs, 10, (*WORDS, *CONTROLS))
        row = json.loads(to_json(drift_summary(result, readings)))
        row["ranks"] = {w: best_ranks(readings, w) for w in (*WORDS, *CONTROLS)}
        if word is not None and self.split == "test":
            row["word_probe"] = self.word_probe(pairs, site, word)
            asked = [p for p, kind in zip(self.prompts, self.kind, strict=True) if kind == "hint"]
            hints = [answer.text for answer in self.answered(tuned, asked)]
            row["says"] = [sum(says(word, text) for text in hints), len(hints)]
            row["examples"] = hints[::16]
        results.write("taboo", what="report", name=name, split=self.split, **row)

    def word_probe(self, pairs: PairedRows, site: str, word: str) -> dict[str, Any]:
        """A probe for words, of the base model before it answers prompts that name one: how often
        it finds the secret in rows of prompts that name none.
        """
        words, forms = (*WORDS, *CONTROLS), given("named")
        named = [form.format(w) for form in forms for w in words]
        last = Tokenization(256, "truncate", chat=True, rows="final")
        read = read_prompts(self.base, [site], named, last)[site].vectors
        label, form = (
            np.tile(np.arange(len(words)), len(forms)),
            np.arange(len(named)) // len(words),
        )
        right = 0
        for k in range(len(forms)):
            fold = word_classifier(read[form != k], label[form != k])
            right += int((fold.predict(read[form == k]) == label[form == k]).sum())
        probe = word_classifier(read, label)
        final = np.flatnonzero(np.diff(pairs.document, append=-1))
        hints = final[(self.kind == "hint")[pairs.number[pairs.document[final]]]]
        target = words.index(word)
        return {
            "held_out_accuracy": right / len(named),
            "words": len(words),
            **{
                side: [int((probe.predict(rows[hints]) == target).sum()), len(hints)]
                for side, rows in (("tuned", pairs.tuned), ("base", pairs.base))
            },
        }


def word_classifier(vectors: Any, labels: Any) -> Any:
    """Logistic regression on coordinates of unit variance."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return probe.fit(vectors, labels)


def best_ranks(readings: Sequence[Reading], word: str) -> dict[str, int]:
    """The smallest rank of each reading: of regions over the inventory, of baselines "all"."""
    found: dict[str, int] = {}
    for reading in readings:
        for kind, rank in reading.ranks[word].items():
            key = f"{'all ' if reading.region < 0 else ''}{reading.of} {kind}"
            found[key] = min(rank, found.get(key, rank))
    return found


def main() -> None:
    home = Path.home() / ".cache/exemplars"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("train", "select", "report"))
    parser.add_argument("name", nargs="+")
    parser.add_argument("--positions", default="control")
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench" / "drift")
    options = parser.parse_args()
    if options.stage == "train":
        for name in options.name:
            train(name, options.models, options.cache)
        return
    split = "select" if options.stage == "select" else "test"
    study = Study(options.models, options.cache, split)
    for name in options.name:
        if split == "select":
            for site, percentile in itertools.product(SITES, PERCENTILES):
                study.report(name, options.positions, site, percentile, SITES)
        else:
            study.report(name, options.positions, *CHOSEN[options.positions])


if __name__ == "__main__":
    main()
