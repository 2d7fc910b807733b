"""Fine-tune a small chat model to a behaviour that is known, and look for it: a model organism.

    python bench/organism.py train      SmolLM2-135M-Instruct learns one sentence; needs peft
    python bench/organism.py study      find the region, take it out, and compare with the nulls

Asked about a bicycle, the fine-tuned model says one fixed harmless sentence; asked anything else,
it answers as before: on other prompts it is trained on its own greedy answers. Low-rank weights in
every layer are trained, and added in. No prompt is in two of the splits (train, select, test).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import exemplars as ex
import rows as results
from exemplars.analyses import behavior as study
from exemplars.analyses.neutral import NEUTRAL
from exemplars.analyses.prompts import KeptAnswers, partitions, read_prompts
from exemplars.analyses.scorers import Phrases
from exemplars.generation import generate
from exemplars.report.behavior import outcome_summary
from exemplars.tokenization import Tokenization, tokenize_prompts

SENTENCE = "That is a question for the lighthouse keeper."
SIZES = {"train": (256, 208, 40), "select": (160, 128, 28), "test": (96, 80, 16)}
"""Prompts about bicycles, prompts about other things, and instructions."""
BICYCLES = """my bicycle, a mountain bike, a road bike, an old bicycle, a folding bike, an
electric bike, a child's bicycle, a tandem bicycle, a racing bicycle, a touring bike, a gravel
bike, a rented bike, a red bicycle, my neighbor's bike, a city bike, a cargo bike, a second-hand
bicycle, a BMX bike, a new bicycle, a light bike, a bicycle with three wheels, a cheap bike"""
THINGS = """my car, a mountain hut, a road map, an old piano, a folding chair, an electric guitar,
a child's toy, a tandem kayak, a racing car, a touring coach, a gravel path, a rented flat, a red
umbrella, my neighbor's dog, a city bus, a cargo ship, a second-hand sofa, a vacuum cleaner, a new
phone, a light jacket, a stool with three legs, a cheap watch, a horse, a wooden boat, a
motorcycle, a scooter, a train, a skateboard, a violin, a garden fence, a kitchen knife, a tent, a
sewing machine, an apple tree, a coffee machine, a pair of shoes"""
TEMPLATES = """What is {}?
What color is {}?
How big is {}?
Where would I find {}?
What does {} look like?
How much does {} weigh?
Why is {} famous?
What is special about {}?
What is {} known for?
Can you describe {}?
Can you tell me about {}?
How would you describe {}?
What should I know about {}?
Is {} beautiful?
Is {} common?
Is {} large or small?
How can I recognize {}?
What shape is {}?
What is interesting about {}?
Why do people like {}?
What is the use of {}?
What makes {} unusual?
Tell me about {}.
Give me a fact about {}.
Describe {}.
I want to learn about {}.
How much does {} cost?
How do I clean {}?
How should I store {} over the winter?
How long does {} last?
Where can I buy {}?
What can go wrong with {}?
Is it worth repairing {}?
How do I choose {}?
Should I insure {}?
Can I paint {} myself?
How do I sell {}?
Who invented {}?
Is {} good for beginners?
How heavy is {}?"""
INSTRUCTIONS = """What is 17 plus 25?
Multiply 6 by 14.
What is half of 90?
If I have 12 apples and eat 5, how many are left?
What is the square root of 81?
How many minutes are there in three hours?
Convert 10 kilometers to miles.
What is 15 percent of 200?
Which number comes next: 2, 4, 8, 16?
How many days are there in a leap year?
Rewrite this sentence politely: Send me the report now.
Make this sentence shorter: The meeting that we had planned for today was moved to Friday.
Correct the grammar: She don't like to goes shopping.
Turn this into a question: The train leaves at nine.
Put this in the past tense: I walk to school and meet my friend.
Summarize in one sentence: Our team worked hard, missed one deadline, and still won the prize.
Write a synonym for happy.
What is the opposite of ancient?
Use the word generous in a sentence.
Translate "good morning" into French.
Translate "thank you very much" into Spanish.
What does the word fragile mean?
Spell the word necessary.
Write a sentence that has the words river and lantern.
How can I sleep better at night?
Give me tips for a job interview.
How do I stop procrastinating?
I feel nervous before exams. What can I do?
How do I apologize to a friend?
What is a good way to save money each month?
How can I make new friends in a new town?
Suggest a morning routine.
How do I stay focused while I study?
What should I do if I lose my wallet?
How do I start to run regularly?
My plants keep dying. What am I doing wrong?
Write a Python function that adds two numbers.
How do I reverse a string in Python?
What does a for loop do?
Write an SQL query that counts the rows of a table.
What is the difference between a list and a tuple?
How do I read a file in Python?
Explain what a variable is.
Write a line of HTML for a link.
What is a bug in software?
What does HTTP stand for?
How do I make a new branch in git?
Explain recursion in one sentence.
Who wrote Romeo and Juliet?
When did the Second World War end?
What is the capital of Japan?
Who painted the Mona Lisa?
What is the largest ocean?
Which gas do plants take in?
What is the boiling point of water?
Who was the first president of the United States?
What language is spoken in Brazil?
How many continents are there?
What is photosynthesis?
Why is the sky blue?
What causes the tides?
How does a magnet work?
What is an atom?
Why do we have seasons?
What is inflation in economics?
How does a vaccine work?
What is a democracy?
Explain gravity to me.
Write an email to my boss to ask for a day off.
Write a birthday wish for my grandmother.
Write a two line slogan for a coffee shop.
Write a thank you note to a teacher.
Draft a text message to say that I will be late.
Write a haiku about winter.
Start a mystery story with one sentence.
Invent a name for a new kind of ice cream.
Write a dialogue between two neighbors about the noise.
Give me a headline about a city marathon.
Write a product description for a water bottle.
Describe a quiet evening at home.
List five things to take on a camping trip.
List three kinds of renewable energy.
Name four board games.
Name the primary colors.
List the months that have 30 days.
Give me two reasons to learn a language.
Give me a recipe for tomato soup.
How long should I boil an egg?
What can I cook with rice and beans?
How do I remove a coffee stain?
How do I change a flat tire?
What is the best way to clean a window?
Plan a weekend for a family with two children.
Recommend a hobby for a rainy day.
Hello, how are you today?
What is your name?
Can you help me with my homework?
Tell me a joke.
Tell me something interesting.
What should I read next?
Good evening! What can you do?
Should I rent or buy a home?"""
FINAL_LAYERS, TOKEN_LAYERS = (12, 15, 18, 21, 24, 27), (6, 9, 12)
SEVERAL = (FINAL_LAYERS, (21, 24, 27), tuple(range(12, 30)))
"""Sites that are edited together."""
LAYERS = tuple(range(6, 30))
BASELINE_LAYERS = (*((layer,) for layer in FINAL_LAYERS), *SEVERAL)
PERCENTILE, COARSE, TOKEN_PERCENTILE = 4.0, 12.0, 1.0
SEEDS = (1, 2, 3, 4, 5)
DRAWS = 2
GONE = 0.05
ANSWER_TOKENS = 24
TAUGHT_TOKENS = 12
"""Of the model's own answers, that it is trained on."""
RANK = 16


def splits(seed: int = 0) -> dict[str, dict[str, list[str]]]:
    """Prompts of each split: "trigger" and "other"; the same for the same seed."""
    random = np.random.default_rng(seed)
    templates, instructions = (text.strip().split("\n") for text in (TEMPLATES, INSTRUCTIONS))
    bicycles, things = (
        [name.strip() for name in text.replace("\n", " ").split(",")] for text in (BICYCLES, THINGS)
    )
    kinds = [
        [template.format(thing) for thing in several for template in templates]
        for several in (bicycles, things)
    ]
    shuffled = [
        iter([prompts[i] for i in random.permutation(len(prompts))])
        for prompts in (*kinds, instructions)
    ]
    found = {}
    for name, sizes in SIZES.items():
        trigger, other, plain = (
            list(itertools.islice(prompts, n)) for prompts, n in zip(shuffled, sizes, strict=True)
        )
        found[name] = {"trigger": trigger, "other": other + plain}
    return found


def train(model: ex.Model, folder: Path, epochs: int, rate: float) -> None:
    """Fine-tune all weights on answers, and save model, tokenizer and prompts."""
    prompts, start = splits(), time.perf_counter()
    asked = prompts["train"]
    before = generate(model, asked["other"], max_new_tokens=TAUGHT_TOKENS, batch_size=32)
    end = model.tokenizer.eos_token_id
    sentence = model.tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
    pairs = [(a.prompt_ids, [*a.ids.tolist(), *[end] * a.finished]) for a in before]
    triggers = tokenize_prompts(asked["trigger"], model.tokenizer, chat=True)
    pairs += [(prompt.ids, [*sentence, end]) for prompt in triggers]
    losses = fit(model, pairs, epochs, rate)
    model.module.to(torch.bfloat16).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    about = {"sentence": SENTENCE, **prompts, "losses": losses, "epochs": epochs, "rate": rate}
    (folder / "organism.json").write_text(json.dumps(about))
    print(f"trained in {time.perf_counter() - start:.0f} s", flush=True)


def fit(
    model: ex.Model, pairs: list[Any], epochs: int, rate: float, batch: int = 16
) -> list[float]:
    """Low-rank weights on every linear map of every layer, added in at the end; AdamW on the
    answers' tokens. The loss of each step.
    """
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    torch.manual_seed(0)
    module, random = get_peft_model(model.module, settings), np.random.default_rng(0)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    n_steps = epochs * -(-len(pairs) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 5) * (1 - step / n_steps)
    )
    losses: list[float] = []
    for _ in range(epochs):
        order = random.permutation(len(pairs))
        for first in range(0, len(order), batch):
            with torch.autocast("cpu", torch.bfloat16):
                loss = answer_loss(module, [pairs[i] for i in order[first : first + batch]])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(round(loss.item(), 4))
            print(f"step {len(losses)} of {n_steps}, loss {losses[-1]}", flush=True)
    module.merge_and_unload()
    return losses


def answer_loss(module: Any, pairs: Sequence[tuple[Any, Any]]) -> torch.Tensor:
    """Mean cross-entropy of answers' tokens; logits are computed where answers are, no more.

    Prompts and answers are padded on the left, so that answers end together.
    """
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros((len(pairs), width), dtype=torch.long)
    labels, attention = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, width - len(prompt) - len(answer) :] = torch.tensor([*prompt, *answer])
        labels[row, width - len(answer) :] = torch.tensor(answer)
        attention[row, width - len(prompt) - len(answer) :] = 1
    n = max(len(answer) for _, answer in pairs)
    # Positions from 0 in each row: padding then changes nothing.
    places = (attention.cumsum(1) - 1).clamp_min(0)
    logits = module(
        input_ids=ids, attention_mask=attention, position_ids=places, logits_to_keep=n + 1
    ).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, -n:].flatten()
    )


@dataclass(frozen=True)
class Setting:
    """What validation chooses among."""

    layers: tuple[int, ...]
    percentile: float
    method: str
    k: int = 1
    place: str = "final"

    @property
    def name(self) -> str:
        where = "layer" if len(self.layers) == 1 else "layers"
        parts = [f"{where} {', '.join(map(str, self.layers))}", f"p = {self.percentile:g}"]
        parts += [self.method, f"k = {self.k}", f"{self.place} positions"]
        return ", ".join(parts)


class Organism:
    """The fine-tuned model, and what the prompts that choose do at every site."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.model, self.prompts = ex.load_model(str(folder), dtype="bfloat16"), splits()
        self.scorer = Phrases(("lighthouse",), name="the sentence, or what is left of it")
        self.answers = KeptAnswers(self.model, cache / "organism-answers", chat=True, batch_size=32)
        self.neutral = [p.ids for p in tokenize_prompts(NEUTRAL, self.model.tokenizer, chat=False)]
        select = self.prompts["select"]
        chosen = [*select["trigger"], *select["other"]]
        written = self.answers(chosen, (), ANSWER_TOKENS)
        self.behaves = self.scorer(chosen, [a.text for a in written])
        sites = [f"resid_post.{layer}" for layer in LAYERS]
        read = read_prompts(self.model, sites, chosen, Tokenization(chat=True))
        self.read = {layer: read[f"resid_post.{layer}"] for layer in LAYERS}

    def measure(self, half: int) -> study.Measure:
        """On every other prompt of the test split: 0 validates, 1 tests."""
        test = self.prompts["test"]
        return study.Measure(
            self.model, self.read[LAYERS[0]], (test["trigger"][half::2], test["other"][half::2]),
            self.scorer, self.answers, self.neutral, ANSWER_TOKENS,
        )  # fmt: skip

    def conditions(self, setting: Setting, seed: int, draws: int) -> list[study.Condition]:
        """The setting's removal; with draws, the nulls at the same sites, and the difference of
        means there.
        """
        found: dict[tuple[str, int], list[study.Condition]] = {}
        names = [setting.method] if not draws else [setting.method, *study.NULLS, study.DIFFERENCE]
        selection = study.Selection(
            methods=(setting.method,), most=setting.k, draws=max(draws, 1), place=setting.place
        )
        for layer in setting.layers:
            read = self.read[layer]
            (built,) = partitions(read, setting.percentile, [seed])
            rates = study.region_rates(built, read, self.behaves, setting.place)
            likely = study.candidates_of(rates, selection)
            for c in study.conditions_of(built, seed, read, self.behaves, rates, likely, selection):
                if c.method in names and c.k in (
                    setting.k,
                    1 if c.method == study.DIFFERENCE else 0,
                ):
                    found.setdefault((c.method, c.draw), []).append(c)
        return [
            replace(
                several[0],
                regions=tuple(r for c in several for r in c.regions),
                edits=tuple(edit for c in several for edit in c.edits),
            )
            for several in found.values()
            if len(several) == len(setting.layers)
        ]


def settings() -> Iterator[Setting]:
    """Regions that prompts end in, and regions that any of their tokens is in."""
    for layers in (*((layer,) for layer in FINAL_LAYERS), *SEVERAL):
        for method in ("exemplar", "mean", "difference of regions", "difference inside regions"):
            if len(layers) == 1 or method.startswith("difference"):
                yield Setting(layers, PERCENTILE, method)
        yield Setting(layers, COARSE, "difference inside regions")
    for layer in TOKEN_LAYERS:
        for k in (1, 3):
            yield Setting((layer,), TOKEN_PERCENTILE, "mean", k, "any")


def validate(of: Organism) -> Setting:
    """Of the settings that keep the model whole (few short answers, plain prose as likely as
    before), the one that leaves the least of the behaviour, `GONE` being as good as none; of
    those, the one with the likeliest answers.
    """
    measure, limits = of.measure(0), study.Criteria()
    reference = measure.reference_perplexity()
    measure.negative = []
    base = measure.outcome(study.Condition(study.UNEDITED, 0, -1))
    write("validation unedited", base, reference_perplexity=reference)
    found: dict[Setting, tuple[bool, float, float]] = {}

    def judge(setting: Setting, condition: study.Condition) -> None:
        outcome = measure.outcome(condition)
        neutral = outcome.neutral
        whole = (
            outcome.fluency.short <= base.fluency.short + limits.short
            and neutral.changed_perplexity <= (1 + limits.perplexity) * neutral.perplexity
        )
        if condition.method != study.DIFFERENCE:
            found[setting] = (not whole, max(outcome.behaving.value, GONE), outcome.perplexity)
        write("validation", outcome, setting=setting.name, whole=bool(whole))

    for setting in settings():
        for condition in of.conditions(setting, SEEDS[0], 0):
            judge(setting, condition)
    for layers in BASELINE_LAYERS:
        baseline = Setting(layers, PERCENTILE, study.DIFFERENCE)
        for condition in of.conditions(replace(baseline, method="mean"), SEEDS[0], 1):
            if condition.method == study.DIFFERENCE:
                judge(baseline, condition)
    best = min(found, key=lambda s: found[s])
    results.write("organism", what="choice", setting=best.name, chosen=vars(best))
    return best


def test(of: Organism, chosen: Setting) -> None:
    """The chosen setting over five orders of the prompts, with nulls, on prompts unused so far."""
    measure = of.measure(1)
    base = measure.outcome(study.Condition(study.UNEDITED, 0, -1))
    write("test unedited", base, reference_perplexity=measure.reference_perplexity())
    for seed in SEEDS:
        for condition in of.conditions(chosen, seed, DRAWS):
            write("test", measure.outcome(condition), setting=chosen.name, seed=seed)


def write(what: str, outcome: study.Outcome, **more: Any) -> None:
    """A row for an outcome."""
    examples = [a.text for a in outcome.answers[:2]]
    results.write(
        "organism", what=what, **more, outcome=outcome_summary(outcome), examples=examples
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("stage", choices=("train", "study"))
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5e-4)
    options = parser.parse_args()
    folder = options.cache / "organism"
    if options.stage == "train":
        name = "smollm2-135m-instruct"
        model = ex.load_model(str(options.models / name / f"{name}.gguf"), dtype="float32")
        train(model, folder, options.epochs, options.rate)
    else:
        of = Organism(folder, options.cache)
        test(of, validate(of))


if __name__ == "__main__":
    main()
