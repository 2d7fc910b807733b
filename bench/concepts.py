"""Concept detection on AxBench: regions beside random rows, k-means, and supervised baselines.

    python bench/concepts.py --model smollm2-135m-instruct --model gemma-3-270m

Dictionaries are built from the training texts (all concepts of both sets together, no labels), in
several orders of their documents, with one calibration. Regions are chosen on a concept's training
texts and evaluated on its evaluation texts; the percentile is chosen by the mean validation AUROC,
which sees training texts alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import rows as results
from exemplars.analyses import concepts as study
from exemplars.analyses import detectors
from exemplars.analyses.candidates import (
    NULL,
    Candidates,
    region_methods,
    supervised_methods,
    training_pairs,
)
from exemplars.analyses.labelled import Concept, read_axbench, read_text_rows, without_empty
from exemplars.geometry import to_directions

SITES = {
    "smollm2-135m-instruct": (activations.SMOLLM2, (18, 9, 15, 24), 20_000),
    "gemma-3-270m": (activations.GEMMA, (9, 6, 12), 6_000),
}
"""Of each model: the source, layers, and rows of a stream."""
PERCENTILES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
CALIBRATION_ROWS = 20_480
K = 3
NULL_SEEDS = 3
K_MEANS_AT_MOST = 3_000
EXEMPLARS_FROM = 2.0
"""Exemplars compete from this percentile on, means at all: below it there are many, and costly."""


@dataclass(frozen=True)
class Site:
    """Texts of both sets, their rows, and the streams that dictionaries are built from."""

    rows: detectors.SiteRows
    sets: dict[str, list[Concept]]
    calibration: ex.Calibration
    raw: np.ndarray
    streams: list[np.ndarray]
    """Row numbers into `raw`, in the order of each stream."""
    left_out: int

    @property
    def concepts(self) -> list[Concept]:
        return [concept for several in self.sets.values() for concept in several]


def shards(source: activations.Source, layers: Sequence[int], models: Path, cache: Path):
    texts, folder = ex.texts(activations.documents()), cache / f"{source.folder}-concepts"
    sites = [f"resid_post.{layer}" for layer in layers]
    if (folder / "activations.json").exists():
        kept = ex.ActivationShards.open(folder)
        if kept.complete and kept.describe["texts"] == texts.describe():
            return kept
    print(f"extracting {source.title} to the cache", flush=True)
    return ex.extract(activations.load_model(source, models), sites, texts, folder)


def load(kept: ex.ActivationShards, name: str, n_rows: int, seeds: int) -> Site:
    texts = read_text_rows(kept, name, activations.documents())
    folder = results.SHARED / "data/axbench"
    sets, lost = {}, 0
    for key in ("concept10_2b_l20", "conceptFD_2b_l20"):
        pairs = [without_empty(texts, concept) for concept in read_axbench(folder / key)]
        sets[key] = [concept for concept, _ in pairs]
        lost += sum(n for _, n in pairs)
    every = (t for c in sets.values() for x in c for t in (*x.positive, *x.negative))
    train = texts.of(dict.fromkeys(every))
    shuffled = np.random.default_rng(0).permutation(train)
    pool = shuffled[: 1 + int(np.searchsorted(np.cumsum(texts.lengths()[shuffled]), n_rows))]
    streams = []
    for seed in range(seeds):
        order = np.random.default_rng([seed, 1]).permutation(pool) if seed else pool
        spans = [np.arange(texts.starts[t], texts.starts[t + 1]) for t in order]
        streams.append(np.concatenate(spans))
    calibration = ex.calibrate(
        texts.vectors[streams[0][:CALIBRATION_ROWS]], PERCENTILES, norm_multiple=10.0
    )
    rows = detectors.site_rows(texts, calibration)
    return Site(rows, sets, calibration, texts.vectors, streams, lost)


def dictionaries(site: Site, percentile: float, membership: str = "online") -> list[ex.Dictionary]:
    return [
        ex.partition(site.raw[s], site.calibration, percentile=percentile, membership=membership)
        for s in site.streams
    ]


def measure(
    site: Site, percentiles: Sequence[float], only: str | None = None, supervised: bool = True
) -> tuple[study.ConceptReport, dict[float, list[int]], dict[str, float]]:
    """All methods at all percentiles, regions of each dictionary, and the chosen percentiles."""
    pairs = training_pairs(site.rows.rows, site.concepts)
    found: dict[str, tuple[study.Detection, ...]] = {}
    built = {p: dictionaries(site, p) for p in percentiles}
    sizes = {p: [len(d) for d in several] for p, several in built.items()}
    pool = np.sort(site.streams[0])
    directions, _ = to_directions(site.raw[pool], site.calibration.center)
    usable = np.linalg.norm(site.raw[pool], axis=1) <= site.calibration.norm_limit
    precision = detectors.shrunk_precision(directions[usable])
    most = max(map(max, sizes.values()))
    drawn = [
        np.random.default_rng([seed, 0xD1CE]).permutation(np.flatnonzero(usable))[:most]
        for seed in range(NULL_SEEDS)
    ]
    null = [Candidates.of(site.rows, directions[chosen], pairs) for chosen in drawn]
    for p, several in built.items():
        start = time.perf_counter()
        candidates = {
            "region mean": [Candidates.of(site.rows, d.means, pairs) for d in several],
            NULL: [c.some(np.arange(n)) for c, n in zip(null, sizes[p], strict=False)],
        }
        if p >= EXEMPLARS_FROM and only is None:
            candidates["exemplar"] = [Candidates.of(site.rows, d.exemplars, pairs) for d in several]
        methods = region_methods(candidates, K, precision)
        if only is not None:
            methods = {name: fits for name, fits in methods.items() if only in name or name == NULL}
        validated = [name for name in methods if "contrast" not in name and NULL not in name]
        report = study.evaluate(site.rows, site.concepts, methods, validated=validated)
        found |= {f"{name} @{p:g}": d for name, d in report.detections.items()}
        seconds = time.perf_counter() - start
        print(f"  p = {p:g}: K {sizes[p]}, {seconds:.0f} s", flush=True)
    del null
    chosen = choose(study.ConceptReport(tuple(site.concepts), found))
    methods = supervised_methods(site.rows) if supervised else {}
    wanted = {2.0, chosen["region mean"]} & {*percentiles} if only is None else ()
    more = {f"census mean @{p:g}": p for p in wanted}
    for name, p in more.items():
        censuses = [d.means for d in dictionaries(site, p, "census")]
        methods[name] = [Candidates.of(site.rows, m, pairs).by_auroc for m in censuses]
        k = int(np.median(sizes[p]))
        if k <= K_MEANS_AT_MOST:
            fitted = [detectors.kmeans_centroids(directions[usable], k, seed) for seed in range(3)]
            methods[f"{study.K_MEANS} @{p:g}"] = [
                Candidates.of(site.rows, m, pairs).by_auroc for m in fitted
            ]
    report = study.evaluate(site.rows, site.concepts, methods, validated=())
    found |= report.detections
    return study.ConceptReport(tuple(site.concepts), found), sizes, chosen


def choose(report: study.ConceptReport) -> dict[str, float]:
    """Each method's percentile of the best validation AUROC, over the concepts of both sets."""
    found: dict[str, dict[float, float]] = {}
    for key in report.detections:
        name, _, p = key.partition(" @")
        if np.isfinite(report.validation(key)):
            found.setdefault(name, {})[float(p)] = report.validation(key)
    return {name: max(values, key=lambda p: values[p]) for name, values in found.items()}


def numbers(report: study.ConceptReport, name: str) -> dict[str, object]:
    """What a row says of a method."""
    found: dict[str, object] = {"seeds": len(report.detections[name][0].detectors)}
    for score in study.SCORES:
        mean = report.mean(name, score)
        low, high = report.spread(name, score)
        found[score] = {
            "auroc": round(mean.estimate, 4),
            "interval": [round(mean.low, 4), round(mean.high, 4)],
            "seed_range": [round(low, 4), round(high, 4)],
            "hard_negative": round(report.hard_negative(name, score), 4),
        }
    validation = report.validation(name)
    found["validation"] = round(validation, 4) if np.isfinite(validation) else None
    return found


def differences(
    report: study.ConceptReport, chosen: dict[str, float], percentiles: Sequence[float]
) -> dict[str, object]:
    """Paired differences that the page shows."""
    pairs = []
    ways = ("", *(f", {K} {way}" for way in ("summed", "anchored", "whitened")))
    for p in percentiles:
        pairs += [(f"region mean{way} @{p:g}", f"{NULL}{way} @{p:g}") for way in ways]
    for name, p in chosen.items():
        ours, null = f"{name} @{p:g}", f"{NULL} @{p:g}"
        supervised = ("logistic probe, tokens", "logistic probe, means", "difference of means")
        pairs += [(ours, other) for other in (*supervised, null)]
    found = {}
    for ours, other in dict.fromkeys(pairs):
        if ours not in report.detections or other not in report.detections:
            continue
        d = report.difference(ours, other)
        found[f"{ours} − {other}"] = [round(v, 4) for v in (d.estimate, d.low, d.high)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench")
    parser.add_argument("--model", action="append", choices=list(SITES))
    parser.add_argument("--layer", type=int, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="of a stream; default: 20,000 and 6,000")
    parser.add_argument(
        "--only", help="methods of region means whose name has this, and the supervised"
    )
    parser.add_argument("--percentile", type=float, action="append")
    parser.add_argument("--no-supervised", action="store_true", help="leave out what fits labels")
    options = parser.parse_args()
    for model in options.model or SITES:
        source, layers, n_rows = SITES[model]
        kept = shards(source, layers, options.models, options.cache)
        for layer in layers:
            if options.layer and layer not in options.layer:
                continue
            name = f"resid_post.{layer}"
            print(f"{source.title} {name}", flush=True)
            percentiles = options.percentile or PERCENTILES
            site = load(kept, name, options.rows or n_rows, options.seeds)
            report, sizes, chosen = measure(
                site, percentiles, options.only, not options.no_supervised
            )
            which = f" {options.rows:,} rows" if options.rows else ""
            which += f" {options.only}" if options.only else ""
            first = 0
            for key, concepts in site.sets.items():
                part = slice(first, first + len(concepts))
                first += len(concepts)
                mine = study.ConceptReport(
                    tuple(concepts), {m: d[part] for m, d in report.detections.items()}
                )
                results.write(
                    "concepts",
                    what=f"concepts {source.title} {name} {key}{which}",
                    model=source.title,
                    site=name,
                    set=key,
                    concepts=len(concepts),
                    dtype=kept.describe["dtype"],
                    stream_rows=len(site.streams[0]),
                    texts_without_rows=site.left_out,
                    regions={f"{p:g}": n for p, n in sizes.items()},
                    chosen_percentile=chosen,
                    methods={m: numbers(mine, m) for m in mine.detections},
                    differences=differences(mine, chosen, percentiles),
                )


if __name__ == "__main__":
    main()
