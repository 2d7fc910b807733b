"""Refusal in Qwen2.5-Coder-0.5B-Instruct: is it in regions, and what does taking them out do?

    python bench/refusal.py validate     layers, percentiles and methods, on validation prompts
    python bench/refusal.py more         what the first round left: inside regions, spans, layers
    python bench/refusal.py test         what each round chose, the published, and nulls, over
                                         five orders

Of ../shared/data/refusal. harmful_train[:160] builds and selects, harmful_val chooses layer,
percentile and method, harmful_train[160:] tests; harmless_val likewise, in thirds. Answers are
kept, so that a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import rows as results
from exemplars.analyses import behavior as study
from exemplars.analyses.neutral import NEUTRAL
from exemplars.analyses.prompts import (
    KeptAnswers,
    PromptRows,
    behaves_by_answers,
    partitions,
    read_prompts,
)
from exemplars.analyses.scorers import refusal
from exemplars.intervene import Edit
from exemplars.report.behavior import outcome_summary
from exemplars.tokenization import Tokenization, tokenize_prompts

LAYERS = (12, 14, 16, 18)
PERCENTILES = (4.0, 12.0)
N_SELECT, N_VALIDATE, N_TEST = 160, 39, 48
VALIDATE_TOKENS, TEST_TOKENS = 24, 32
VALIDATION_SEEDS, TEST_SEEDS = (1, 2), (11, 12, 13, 14, 15)
SECOND_LOOK = 4
"""Settings that are judged in a second order; the choice is by the mean of both."""
DRAWS = 1
"""Of each null, for each order."""
PUBLISHED = {"rows": "all but the first position", "p": 12.0, "rule": "rate"}
CRITERIA = study.Criteria()


@dataclass(frozen=True)
class Prompts:
    """Of one part: harmful and harmless."""

    harmful: list[str]
    harmless: list[str]


@dataclass(frozen=True)
class Setting:
    """What validation chooses among."""

    layer: int
    percentile: float
    method: str
    k: int = 1
    rule: str = "contrast"
    rows: str = "all"
    place: str = "final"
    layers: int = 1
    """Consecutive layers of the scan that are edited, this one first."""

    @property
    def name(self) -> str:
        parts = [f"layer {self.layer}", f"p = {self.percentile:g}", self.method, f"k = {self.k}"]
        parts += [self.rule] * (self.rule != "contrast") + ["final rows"] * (self.rows == "final")
        parts += ["any position"] * (self.place == "any")
        return ", ".join(parts + [f"{self.layers} layers"] * (self.layers > 1))


def parts() -> dict[str, Prompts]:
    """Select, validate, test: no prompt in two of them."""
    found = {}
    for name in ("harmful_train", "harmful_val", "harmless_val"):
        file = results.SHARED / "data/refusal" / f"{name}.json"
        found[name] = list(dict.fromkeys(p["instruction"] for p in json.loads(file.read_text())))
    train, harmless = found["harmful_train"], found["harmless_val"]
    third = len(harmless) // 3
    return {
        "select": Prompts(train[:N_SELECT], harmless[:N_SELECT]),
        "validate": Prompts(found["harmful_val"][:N_VALIDATE], harmless[third:][:N_VALIDATE]),
        "test": Prompts(train[N_SELECT:][:N_TEST], harmless[2 * third :][: N_TEST // 2]),
    }


class Study:
    """The model, what the prompts that choose do at every layer, and dictionaries of it."""

    def __init__(self, models: Path, cache: Path) -> None:
        self.model = activations.load_model(activations.QWEN, models)
        self.parts, self.scorer = parts(), refusal()
        self.answers = KeptAnswers(self.model, cache / "refusal-answers", chat=True, batch_size=16)
        self.chosen = [*self.parts["select"].harmful, *self.parts["select"].harmless]
        self.behaves = behaves_by_answers(self.answers, self.scorer, self.chosen, TEST_TOKENS)
        asked = tokenize_prompts(NEUTRAL, self.model.tokenizer, chat=False)
        self.neutral = [prompt.ids for prompt in asked]
        self._read: dict[str, dict[str, PromptRows]] = {}
        self._built: dict[tuple[object, ...], ex.Dictionary] = {}

    def rows(self, layer: int, rows: str = "all") -> PromptRows:
        """Of the prompts that choose; "published": the template's prefix is among them."""
        kind = "published" if rows == "published" else "all"
        if kind not in self._read:
            tokenization = Tokenization(chat=True, keep_prefix=kind == "published")
            sites = [f"resid_post.{number}" for number in LAYERS]
            self._read[kind] = read_prompts(self.model, sites, self.chosen, tokenization)
        found = self._read[kind][f"resid_post.{layer}"]
        return found.final_only() if rows == "final" else found

    def dictionary(self, layer: int, percentile: float, rows: str, seed: int) -> ex.Dictionary:
        """Of the rows, in the order of a seed."""
        key = (layer, percentile, rows, seed)
        if key not in self._built:
            read = self.rows(layer, rows)
            if rows == "published":  # it masks no sinks
                calibration = ex.calibrate(read.vectors, percentile)
                order = np.random.default_rng([seed, 1]).permutation(len(read.prompts))
                built = ex.partition(read.some(order).vectors, calibration)
                built = replace(built, provenance={"site": {"name": read.site}, "seed": seed})
            else:
                (built,) = partitions(read, percentile, [seed])
            self._built[key] = built
        return self._built[key]

    def edits(self, setting: Setting, seed: int) -> tuple[tuple[Edit, ...], list[tuple[int, ...]]]:
        """What the setting does in the order of that seed, and the regions of each layer."""
        first = LAYERS.index(setting.layer)
        edits: list[Edit] = []
        regions = []
        for layer in LAYERS[first : first + setting.layers]:
            dictionary = self.dictionary(layer, setting.percentile, setting.rows, seed)
            read, selection = self.rows(layer), self.selection(setting)
            rates = study.region_rates(dictionary, read, self.behaves, setting.place)
            top = tuple(r.region for r in study.candidates_of(rates, selection)[: setting.k])
            regions.append(top)
            if len(top) == setting.k:
                edits += study.edits_of(
                    dictionary, setting.method, top, read, self.behaves, rates, selection
                )
        return tuple(edits), regions

    def selection(self, setting: Setting) -> study.Selection:
        positions = "all" if setting.rows == "published" else "edited"
        return study.Selection(
            rule=setting.rule, place=setting.place, most=setting.k, methods=(setting.method,),
            draws=DRAWS, positions=positions,
        )  # fmt: skip

    def measure(self, part: str, max_new_tokens: int) -> study.Measure:
        prompts = self.parts[part]
        rows = self.rows(LAYERS[0])
        return study.Measure(
            self.model, rows, (prompts.harmful, prompts.harmless), self.scorer, self.answers,
            self.neutral, max_new_tokens,
        )  # fmt: skip


def settings() -> Iterator[Setting]:
    """The scan; what is near its best is added later."""
    for layer in LAYERS:
        for percentile in PERCENTILES:
            for method in ("exemplar", "mean", "difference of regions"):
                yield Setting(layer, percentile, method)


def near(best: Setting) -> list[Setting]:
    """What the findings suggest beside the best of the scan."""
    found = [replace(best, k=k) for k in (2, 3)] + [replace(best, method="swap")]
    found += [replace(best, rule="rate"), replace(best, percentile=2.0)]
    found += [replace(best, rows="final", percentile=p) for p in (4.0, 12.0, 30.0)]
    last = LAYERS[-1]
    found += [replace(best, layers=n) for n in (2, 3) if best.layer <= last - 2 * (n - 1)]
    return found


def untried() -> Iterator[Setting]:
    """The second round: inside regions, several layers, spans of finer partitions."""
    inside, between = "difference inside regions", "difference of regions"
    for layer in LAYERS:
        yield Setting(layer, 4.0, inside)
    yield Setting(LAYERS[-1], 12.0, inside)
    for method in (between, inside):
        for n in (2, 3, 4):
            yield Setting(LAYERS[-n], 4.0, method, layers=n)
    for percentile in (1.0, 2.0):
        for method in ("exemplar", between, inside):
            for k in (1, 2, 3):
                yield Setting(LAYERS[-1], percentile, method, k=k, rows="final")
    for k in (1, 2, 3):
        yield Setting(LAYERS[-1], 2.0, "exemplar", k=k, place="any")


def fluent(several: Sequence[dict], base: dict, reference: float) -> bool:
    """Whether the side effects of rows are, in their mean, within the criteria."""
    worst = 1 + CRITERIA.perplexity
    short = np.mean([row["fluency"]["short"] for row in several])
    neutral = [r["neutral"]["changed_perplexity"] / r["neutral"]["perplexity"] for r in several]
    return bool(
        short <= base["fluency"]["short"] + CRITERIA.short
        and np.mean([row["perplexity"] for row in several]) <= worst * reference
        and np.mean(neutral) <= worst
    )


class Validation:
    """Settings judged on validation prompts: those of earlier rounds, and more."""

    def __init__(self, of: Study) -> None:
        self.of, self.measure = of, of.measure("validate", VALIDATE_TOKENS)
        self.measure.negative = []
        self.base = _plain(self.measure.outcome(study.Condition(study.UNEDITED, 0, -1)))
        self.reference = self.measure.reference_perplexity()
        self.found: dict[Setting, list[dict]] = {}

    def judge(self, setting: Setting, seed: int) -> None:
        """One setting in one order, unless that is known."""
        if any(row["seed"] == seed for row in self.found.get(setting, ())):
            return
        edits, regions = self.of.edits(setting, seed)
        if not edits:
            print(f"{setting.name}: nothing to edit", flush=True)
            return
        row = _plain(
            self.measure.outcome(study.Condition(setting.method, setting.k, 0, edits=edits))
        )
        self.found.setdefault(setting, []).append({"seed": seed, **row})
        results.write(
            "refusal", what="validation", setting=setting.name, chosen=vars(setting), seed=seed,
            regions_chosen=regions, fluent=fluent([row], self.base, self.reference), **row,
        )  # fmt: skip

    def whole(self, setting: Setting) -> bool:
        """Whether the model is, in the mean over orders."""
        return fluent(self.found[setting], self.base, self.reference)

    def best(self) -> list[Setting]:
        """Those that keep the model whole first, then those that leave least."""
        return sorted(self.found, key=lambda s: (not self.whole(s), left(self.found[s])))

    def choose(self) -> None:
        """A second order for the best, and the best of these."""
        several = self.best()[:SECOND_LOOK]
        for setting in several:
            self.judge(setting, VALIDATION_SEEDS[1])
        chosen = next(setting for setting in self.best() if setting in several)
        results.write(
            "refusal", what="validation choice", setting=chosen.name, chosen=vars(chosen),
            refusal=left(self.found[chosen]), fluent=self.whole(chosen),
        )  # fmt: skip


def validate(of: Study, layers: Sequence[int] | None) -> None:
    """The scan, and what is near its best; the rows say which is fluent, and what is left."""
    judged = Validation(of)
    results.write(
        "refusal", what="validation unedited", n=judged.base["behaving"]["n"],
        tokens=VALIDATE_TOKENS, select_refused=int(of.behaves.sum()), select=len(of.behaves),
        reference_perplexity=judged.reference, **judged.base,
    )  # fmt: skip
    for setting in settings():
        if layers is None or setting.layer in layers:
            judged.judge(setting, VALIDATION_SEEDS[0])
    for setting in near(judged.best()[0]):
        judged.judge(setting, VALIDATION_SEEDS[0])
    judged.choose()


def more(of: Study) -> None:
    """The second round, beside the rows of the first."""
    judged = Validation(of)
    by_name = {s.name: s for best in settings() for s in (best, *near(best), *untried())}
    for row in every("validation"):
        judged.found.setdefault(by_name[row["setting"]], []).append(row)
    for setting in untried():
        judged.judge(setting, VALIDATION_SEEDS[0])
    judged.choose()


def left(several: Sequence[dict]) -> float:
    """Mean refusal."""
    return float(np.mean([row["behaving"]["share"] for row in several]))


def test(of: Study) -> None:
    """What each round chose and the published procedure over five orders, with every null.

    What has rows already is not run again.
    """
    choices = list(dict.fromkeys(Setting(**r["chosen"]) for r in every("validation choice")))
    published = Setting(choices[0].layer, PUBLISHED["p"], "exemplar", rule="rate", rows="published")
    names = ("chosen", *(f"chosen in round {n}" for n in range(2, len(choices) + 1)))
    measure = of.measure("test", TEST_TOKENS)
    base = _plain(measure.outcome(study.Condition(study.UNEDITED, 0, -1)))
    reference = measure.reference_perplexity()
    if not every("test unedited"):
        results.write(
            "refusal", what="test unedited", tokens=TEST_TOKENS, reference_perplexity=reference,
            **base,
        )  # fmt: skip
    for name, setting in (*zip(names, choices, strict=True), ("published procedure", published)):
        known = {(row["seed"], row["method"]) for row in every(f"test {name}")}
        for seed in TEST_SEEDS:
            for condition in test_conditions(of, setting, seed):
                if (seed, condition.method) in known:
                    continue
                row = _plain(measure.outcome(condition))
                results.write(
                    "refusal", what=f"test {name}", setting=setting.name, seed=seed,
                    fluent=fluent([row], base, reference), **row,
                )  # fmt: skip


def test_conditions(of: Study, setting: Setting, seed: int) -> list[study.Condition]:
    """The removal, and its nulls at the first of its layers."""
    edits, regions = of.edits(setting, seed)
    dictionary = of.dictionary(setting.layer, setting.percentile, setting.rows, seed)
    read, selection = of.rows(setting.layer), of.selection(setting)
    rates = study.region_rates(dictionary, read, of.behaves, setting.place)
    likely = study.candidates_of(rates, selection)
    every = study.conditions_of(dictionary, seed, read, of.behaves, rates, likely, selection)
    ours = study.Condition(setting.method, setting.k, seed, 0, regions[0], edits)
    nulls = [c for c in every if c.k == setting.k and c.method in study.NULLS]
    if setting.rows == "published":
        nulls = [c for c in nulls if c.method == study.MATCHED]
    baseline = [c for c in every if c.method == study.DIFFERENCE] if setting.rows == "all" else []
    return ([ours] if edits else []) + nulls + baseline


def _plain(outcome: study.Outcome) -> dict[str, object]:
    """What a row says of an outcome."""
    found = outcome_summary(outcome)
    examples = [a.text[:160] for a in outcome.answers[:2]]
    return {**found, "examples": examples}


def every(what: str) -> list[dict]:
    """All rows of that name."""
    file = results.RESULTS / "refusal.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in rows if row["what"] == what]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("stage", choices=("validate", "more", "test"))
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench")
    parser.add_argument("--layer", type=int, action="append")
    options = parser.parse_args()
    of = Study(options.models, options.cache)
    if options.stage == "validate":
        validate(of, options.layer)
    elif options.stage == "more":
        more(of)
    else:
        test(of)


if __name__ == "__main__":
    main()
