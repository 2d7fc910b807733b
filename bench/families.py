"""Do SmolLM2, Qwen2.5-Coder and Gemma 3 represent the same prompts together?

    python bench/families.py                 all pairs of models, both sets of prompts
    python bench/families.py --pair 0 1      one pair

Round trips by shared prompt exemplars over every pair of layers, on harmful and harmless
instructions (../shared/data/refusal) and on harmless ones of three kinds (the inputs of AxBench:
text, code, math), in equal numbers. Instruct models read prompts through their chat template;
Gemma is a base model and reads them as they are; "plain" has all of them read as they are.
Final activations, in bfloat16, are kept in the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np

import activations
import rows as results
from exemplars.analyses.families import (
    FamilyComparison,
    FinalVectors,
    LabelledPrompts,
    TripGrid,
    balanced,
    compare_families,
    grid_mean,
    read_final,
)

MODELS = (activations.SMOLLM2, activations.QWEN, activations.GEMMA)
PERCENTILES = (12.0, 4.0, 30.0)
"""The first is the published one, and the headline; the others say whether it matters."""
SEEDS, DRAWS = 5, 999


def refusal() -> LabelledPrompts:
    """Harmful instructions and as many harmless ones."""
    found = {}
    for name in ("harmful_train", "harmful_val", "harmless_val"):
        file = results.SHARED / "data/refusal" / f"{name}.json"
        found[name] = [prompt["instruction"] for prompt in json.loads(file.read_text())]
    harmful = [*found["harmful_train"], *found["harmful_val"]]
    return balanced({"harmful": harmful, "harmless": found["harmless_val"]})


def benign() -> LabelledPrompts:
    """Instructions of AxBench by their genre; those longer than 400 characters are left out."""
    import pyarrow.parquet as pq

    genres: dict[str, list[str]] = {"text": [], "code": [], "math": []}
    for folder in ("concept10_2b_l20", "conceptFD_2b_l20"):
        for part in ("train_data", "latent_eval_data"):
            file = results.SHARED / "data/axbench" / folder / f"{part}.parquet"
            table = pq.read_table(file, columns=["input", "concept_genre"]).to_pydict()
            for text, genre in zip(table["input"], table["concept_genre"], strict=True):
                if text and text.strip() and len(text) <= 400 and genre in genres:
                    genres[genre].append(text.strip())
    everywhere = [set(texts) for texts in genres.values()]
    shared = {t for one, two in combinations(everywhere, 2) for t in one & two}
    return balanced({g: [t for t in texts if t not in shared] for g, texts in genres.items()}, 200)


SETS = {"refusal": refusal, "benign": benign}


def final_vectors(
    source: activations.Source, prompts: LabelledPrompts, chat: bool, models: Path, cache: Path
) -> FinalVectors:
    """Of the cache, or read."""
    about = json.dumps([source.folder, prompts.prompts, chat]).encode()
    file = cache / f"{hashlib.sha256(about).hexdigest()[:20]}.npz"
    if not file.exists():
        start = time.perf_counter()
        model = activations.load_model(source, models)
        found = read_final(model, prompts.prompts, chat=chat)
        cache.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".partial.npz")
        np.savez(aside, embeddings=found.embeddings, vectors=np.stack(found.vectors))
        aside.replace(file)
        print(f"{source.title}: {len(prompts)} prompts, {time.perf_counter() - start:.0f} s")
    kept = np.load(file)
    sites = tuple(f"resid_post.{layer}" for layer in range(len(kept["vectors"])))
    return FinalVectors(source.title, sites, tuple(kept["vectors"]), kept["embeddings"], chat)


def chats(source: activations.Source, plain: bool) -> bool:
    return not plain and source is not activations.GEMMA


def grid_row(grid: TripGrid) -> dict[str, object]:
    """What a row says of one grid: means over it, and the best layer pair."""
    usable = np.nan_to_num(grid.estimate, nan=-1.0)
    a, b = np.unravel_index(int(usable.argmax()), usable.shape)
    return {
        "start": grid.start,
        "through": grid.through,
        "subset": grid.subset,
        "regions": rounded(float(np.nanmean(grid.n_regions))),
        "estimate": rounded(grid.mean),
        "by_order": [rounded(v) for v in grid.by_order],
        "chance": rounded(grid_mean(grid.chance)),
        "chance_in_class": rounded(grid_mean(grid.chance_in_class)),
        "same_order": rounded(grid_mean(grid.same_order)),
        "other_order": rounded(grid_mean(grid.other_order)),
        "texts": {name: rounded(grid_mean(v)) for name, v in grid.texts.items()},
        "texts_by_order": {n: [rounded(x) for x in v] for n, v in grid.texts_by_order.items()},
        "share_above_text": rounded(grid.share_above_text),
        "itself_other_order": rounded(grid_mean(grid.itself_other_order)),
        "itself_other_layers": rounded(grid_mean(grid.itself_other_layers)),
        "p_grid": grid.p_grid,
        "p_grid_in_class": grid.p_grid_in_class,
        "cells_below_05": rounded(float((grid.p_values < 0.05).mean())),
        "best": {"layers": [int(a), int(b)], "estimate": rounded(float(usable[a, b])),
                 "p": float(grid.p_values[a, b])},
    }  # fmt: skip


def rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def matrix(values: np.ndarray) -> list[list[float | None]]:
    return [[rounded(v) for v in line] for line in values]


def write(name: str, reading: str, found: FamilyComparison, whole: bool) -> None:
    first = found.grids[0]
    grids = {}
    if whole:
        grids = {
            "estimate": matrix(first.estimate),
            "best_text": first.best_text,
            "text": matrix(first.texts[first.best_text]),
            "chance": matrix(first.chance),
            "other_order": matrix(first.other_order),
            "rand": matrix(found.rand),
        }
    results.write(
        "families",
        what=f"families {name} {reading} p{found.percentile:g} {' '.join(found.models)}",
        set=name,
        reading=reading,
        models=list(found.models),
        chat=list(found.chat),
        layers=[len(sites) for sites in found.sites],
        classes={c: int((found.prompts.label == k).sum()) for k, c in
                 enumerate(found.prompts.classes)},
        percentile=found.percentile,
        orders=len(found.seeds),
        draws=found.draws,
        regions=[rounded(float(n.mean())) for n in found.n_regions],
        regions_range=[[rounded(float(n.min())), rounded(float(n.max()))]
                       for n in found.n_regions],
        grids=[grid_row(grid) for grid in found.grids],
        rand={
            "estimate": rounded(grid_mean(found.rand)),
            "other_order": rounded(grid_mean(found.rand_other_order)),
            "texts": {n: rounded(grid_mean(v)) for n, v in found.rand_texts.items()},
            "classes": [rounded(grid_mean(v)) for v in found.rand_classes],
        },
        headline_grid=grids,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench/families")
    parser.add_argument("--set", action="append", choices=list(SETS))
    parser.add_argument("--pair", nargs=2, type=int, action="append")
    parser.add_argument("--percentile", type=float, action="append")
    parser.add_argument(
        "--read", nargs=2, metavar=("MODEL", "READING"), help="fill the cache and stop"
    )
    options = parser.parse_args()
    for name in options.set or SETS:
        prompts = SETS[name]()
        sizes = np.bincount(prompts.label).tolist()
        print(name, dict(zip(prompts.classes, sizes, strict=True)), flush=True)
        if options.read:
            source = MODELS[int(options.read[0])]
            chat = chats(source, options.read[1] == "plain")
            final_vectors(source, prompts, chat, options.models, options.cache)
            continue
        for reading in ("as used", "plain"):
            for i, j in options.pair or combinations(range(len(MODELS)), 2):
                pair = [MODELS[i], MODELS[j]]
                read = [
                    final_vectors(source, prompts, chats(source, reading == "plain"),
                                  options.models, options.cache)
                    for source in pair
                ]  # fmt: skip
                for percentile in options.percentile or PERCENTILES:
                    if percentile != PERCENTILES[0] and reading == "plain":
                        continue
                    start = time.perf_counter()
                    found = compare_families(
                        *read, prompts, percentile=percentile, seeds=SEEDS, draws=DRAWS
                    )
                    print(f"{time.perf_counter() - start:.0f} s", flush=True)
                    write(name, reading, found, percentile == PERCENTILES[0])


if __name__ == "__main__":
    main()
