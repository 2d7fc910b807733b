# ruff: noqa: E501
"""Do regions steer SmolLM2-135M-Instruct? Four concepts, beside difference of means and chance.

    python bench/steering.py study     rows to bench/results/steering.jsonl
    python bench/steering.py page      docs/steering_tables.md from them

A concept is 30 sentences that have it and the same 30 in plain English (for code: functions of
Python's library). They choose the region; instructions that no dictionary has read are answered.
Dictionaries are of AxBench's outputs.
"""

from __future__ import annotations

import argparse
import inspect
import json
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import rows as results
from exemplars.analyses.rules import Rule
from exemplars.analyses.steering import (
    DIFFERENCE,
    REGIONS,
    Choice,
    SteeringReport,
    contrast_of,
    recipe_of,
    steer,
    with_controls,
)
from exemplars.geometry import Float32

TEXTS = Path(__file__).parent / "steering_texts"
PAGE = Path(__file__).parents[1] / "docs/steering_tables.md"
CONCEPTS = ("spanish", "french", "uppercase", "code")
LAYER, PERCENTILE, STREAM_ROWS = 15, 2.0, 20_000
SEEDS = (1, 2, 3)
"""Orders of the stream."""
STRENGTHS = (0.06, 0.12, 0.18, 0.25, 0.5)
PROMPTS, NEW_TOKENS = 32, 24


def texts(concept: str) -> tuple[list[str], list[str]]:
    """With the concept, and without it."""
    plain = _lines("english")
    if concept == "uppercase":
        return [line.upper() for line in plain], plain
    if concept == "code":
        return _functions(len(plain)), plain
    return _lines(concept), plain


def _lines(name: str) -> list[str]:
    return (TEXTS / f"{name}.txt").read_text().splitlines()


def _functions(n: int) -> list[str]:
    """Short functions of Python's library."""
    found = []
    for module in (textwrap, shlex, shutil, inspect, json, argparse):
        for _, function in sorted(inspect.getmembers(module, inspect.isfunction)):
            if function.__module__ == module.__name__:
                found.append(inspect.getsource(function)[:400])
    return list(dict.fromkeys(found))[:n]


def prompts() -> list[str]:
    """Harmless instructions."""
    file = results.SHARED / "data/refusal/harmless_val.json"
    found = dict.fromkeys(p["instruction"] for p in json.loads(file.read_text()))
    return list(found)[-PROMPTS:]


def dictionaries(model: ex.Model, cache: Path) -> Iterator[tuple[int, ex.Dictionary]]:
    """Order, dictionary; kept."""
    documents = ex.texts(activations.documents())
    for seed in SEEDS:
        out = cache / f"order{seed}"
        if not out.exists():
            ex.build(
                model, [f"resid_post.{LAYER}"], documents, percentile=[PERCENTILE],
                rows=STREAM_ROWS, seed=seed, out=out,
            )  # fmt: skip
        yield seed, ex.load(out)


def study(models: Path, cache: Path) -> None:
    model = activations.load_model(activations.SMOLLM2, models)
    asked = prompts()
    for seed, dictionary in dictionaries(model, cache):
        for concept in CONCEPTS:
            contrast = contrast_of(dictionary, model, *texts(concept))
            recipe = recipe_of(dictionary, [contrast.region], basis="mean")
            methods = with_controls(
                dictionary, recipe, difference=contrast.difference, basis="mean", draws=1,
                seed=seed,
            )  # fmt: skip
            report = steer(
                model, methods, asked, Rule(concept), STRENGTHS, max_new_tokens=NEW_TOKENS
            )
            cosine = _cosine(recipe.directions[0], contrast.difference)
            results.write(
                "steering", what=f"steering {concept} order {seed}", concept=concept,
                model=activations.SMOLLM2.title, layer=LAYER, order=seed, percentile=PERCENTILE,
                stream_rows=STREAM_ROWS, regions=dictionary.n_regions, region=contrast.region,
                gap=contrast.gap, cosine=cosine, prompts=len(asked), new_tokens=NEW_TOKENS,
                **row(report),
            )  # fmt: skip


def row(report: SteeringReport) -> dict[str, object]:
    """Every setting over all prompts, the choices on the other half, and an answer of each."""
    settings = {}
    for method in report.methods:
        for strength in (0.0, *report.strengths):
            found = report.measures(method, strength)
            settings[f"{method} {strength:g}"] = {k: round(v, 4) for k, v in vars(found).items()}
    return {
        "settings": settings,
        "choices": {c.method: _choice(report, c) for c in report.choices},
        "halves": [len(report.select), len(report.test)],
    }


def _choice(report: SteeringReport, choice: Choice) -> dict[str, object]:
    if choice.strength is None:
        return {"strength": None, "fluent": list(choice.fluent)}
    intervals = ("score", "baseline_score", "control_score", "difference")
    shown = int(report.test[0])
    return {
        "strength": choice.strength, "fluent": list(choice.fluent), "control": choice.control,
        "still_fluent": choice.still_fluent,
        **{k: [round(v, 4) for v in vars(getattr(choice, k)).values()] for k in intervals},
        "prompt": report.prompts[shown],
        "answer": report.at(choice.method, choice.strength).answers[0][shown].text,
    }  # fmt: skip


def _cosine(a: Float32, b: Float32) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def page() -> None:
    found: dict[str, dict] = {}
    for line in (results.RESULTS / "steering.jsonl").read_text().splitlines():
        row = json.loads(line)
        found[row["what"]] = row
    every = list(found.values())
    last = every[-1]
    source = f"*{last['date']}, commit {last['commit']}, `bench/steering.py`.*"
    PAGE.write_text("\n\n".join((HEAD, _table(every), SAYS, source)) + "\n")


HEAD = f"""# Steering, measured

Do regions steer SmolLM2-135M-Instruct? Four concepts at `resid_post.{LAYER}`, each with 30 sentences that have it and the same 30 in plain
English (for code: functions of Python's library), which choose the region; dictionaries of p = {PERCENTILE:g} from
{STREAM_ROWS:,} rows of AxBench's outputs; {PROMPTS} harmless instructions, half of which choose the strength among
{", ".join(f"{s:g}" for s in STRENGTHS)} median norms, while the other half gives score and difference; KL and perplexity are over all. *score* is the concept's rule
(0 to 1); *difference* is to the better of random directions and random regions at the same strength, paired, with its
95 % interval; *too much*: on that half the answers are past the bound on fluency. [steering.md](steering.md) says what the columns mean. Made by `python bench/steering.py page`."""
SAYS = """**What it shows.** In none of three orders of the stream does the region found by contrast clearly bring in its concept at a strength at
which the answers stay fluent: the differences to the better control are .00 to .07, no interval is without 0, and for code no strength passes in one order. The *difference of
means* of the same texts brings in some Spanish (.15, .15, .17; in two of three orders past the bound on fluency) and, in two of three, some upper case
(.13, .14); nothing of French or code. The region's direction is not that direction (cosines .37 to .48). At larger strengths fluency goes before the
concept comes: the difference of means reaches .30 to .32 of Spanish and .42 to .45 of upper case at .25 median norms, with answers of perplexity 5.5
to 8.0 instead of 2.1; regions reach .47 to .75 of upper case at .5 median norms, at perplexities of 10 to 20. One small model, one site, and a bound
on perplexity that counts a change of language as damage: a start, no verdict."""


def _table(every: Sequence[dict]) -> str:
    lines = []
    for row in every:
        for method in (REGIONS, DIFFERENCE):
            chosen = row["choices"][method]
            start = [row["concept"], row["order"], method, f"{row['cosine']:.2f}"]
            if chosen["strength"] is None:
                fluent = ", ".join(f"{s:g}" for s in chosen["fluent"]) or "none"
                best = max(
                    (row["settings"][f"{method} {s:g}"]["score"] for s in chosen["fluent"]),
                    default=float("nan"),
                )
                lines.append(
                    [*start, f"none (fluent: {fluent}; best score there {best:.2f})"] + [""] * 5
                )
                continue
            setting = row["settings"][f"{method} {chosen['strength']:g}"]
            lines.append([
                *start, f"{chosen['strength']:g}" + ("" if chosen["still_fluent"] else " (too much)"), _span(chosen["score"]),
                f"{chosen['baseline_score'][0]:.2f}", _span(chosen["difference"], "+"),
                f"{setting['kl']:.2f}", f"{setting['perplexity']:.2f}",
            ])  # fmt: skip
    header = (
        "concept", "order", "method", "cosine of the two", "strength", "score", "unedited", "difference",
        "KL, nats", "ppl of answers",
    )  # fmt: skip
    return results.markdown(header, lines)


def _span(found: Sequence[float], sign: str = "") -> str:
    estimate, low, high = found[:3]
    return f"{estimate:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("stage", choices=("study", "page"))
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench/steering")
    options = parser.parse_args()
    if options.stage == "study":
        study(options.models, options.cache)
    else:
        page()


if __name__ == "__main__":
    main()
