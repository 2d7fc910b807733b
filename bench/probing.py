"""k-sparse probes on AxBench's concepts: one-hot codes beside raw activations and nulls.

Dictionaries are of the training texts' rows alone, of a random permutation of the texts; probes are
fitted on training texts and scored on evaluation texts, a task for each concept of both sets. A row
of results is of one model and one site, with a dictionary for each percentile and stream seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np

import exemplars as ex
import rows as results
from activations import CALIBRATION_ROWS, SOURCES, documents
from exemplars.analyses.labelled import read_axbench, read_text_rows
from exemplars.analyses.probing import (
    BASES,
    CODES,
    mean_report,
    probe_tasks,
    without_outliers,
)
from exemplars.analyses.tasks import task_of_concept, without_empty_texts

SITES = {
    "smollm2-135m-instruct": ("resid_post.9", "resid_post.15", "resid_post.18", "resid_post.24"),
    "gemma-3-270m": ("resid_post.6", "resid_post.9", "resid_post.12"),
}
PERCENTILES = (1.0, 2.0, 10.0)
STREAM_ROWS = 30_000
K_SPARSE = (1, 2, 5, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SITES, action="append", default=None)
    parser.add_argument("--site", action="append", default=None)
    parser.add_argument("-p", "--percentile", type=float, action="append", default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--null-seeds", type=int, default=3, help="for each dictionary")
    parser.add_argument("--concepts", type=int, default=None, help="of each set; default: all")
    parser.add_argument("--readout", action="append", default=None)
    parser.add_argument("--basis", action="append", default=None)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/exemplars/bench")
    parser.add_argument("--print", action="store_true", help="write no row of results")
    options = parser.parse_args()
    concepts = [
        concept
        for source in SOURCES
        for concept in read_axbench(results.SHARED / "data/axbench" / source)[: options.concepts]
    ]
    for model in options.model or SITES:
        for site in options.site or SITES[model]:
            values = of_site(options, model, site, concepts)
            if options.print:
                show(values)
            else:
                results.write("probing", **values)


def of_site(options, model, site, concepts) -> dict[str, object]:
    kept = ex.ActivationShards.open(options.cache / f"{model}-concepts")
    rows = read_text_rows(kept, site, documents())
    training = list(dict.fromkeys(t for c in concepts for t in (*c.positive, *c.negative)))
    used = rows.of(dict.fromkeys(t for c in concepts for t in task_of_concept(c).texts()))
    rows = rows.select(np.isin(rows.text_of_rows(), used))
    started, found = time.perf_counter(), []
    for seed in range(options.seeds):
        stream = permuted_rows(rows, training, seed)
        percentiles = tuple(options.percentile or PERCENTILES)
        calibration = ex.calibrate(stream[:CALIBRATION_ROWS], percentiles, norm_multiple=10.0)
        for percentile in percentiles:
            dictionary = ex.partition(stream, calibration, percentile)
            inside, _ = without_outliers(dictionary, rows)
            tasks, lost = zip(
                *(without_empty_texts(inside, task_of_concept(c)) for c in concepts), strict=True
            )
            reports = probe_tasks(
                dictionary, rows, tasks, readouts=options.readout or ("binary", "cosine"),
                bases=options.basis or BASES, seeds=options.null_seeds, stream=stream, seed=seed,
                k_sparse=[k for k in K_SPARSE if k <= len(dictionary)],
            )  # fmt: skip
            mean = mean_report(reports, seed)
            found.append((percentile, seed, len(dictionary), sum(lost), mean, reports))
            print(
                f"{model} {site} p{percentile:g} seed {seed}: {len(dictionary)} regions, "
                f"{time.perf_counter() - started:.0f} s",
                flush=True,
            )
    return {
        "what": f"k-sparse probes of AxBench concepts, {model} {site}",
        "inputs": {
            "model": model,
            "fingerprint": kept.describe["model"]["fingerprint"][:16],
            "site": site,
            "documents": kept.describe["texts"]["sha256"][:16],
            "concepts": len(concepts),
            "null_seeds": options.null_seeds,
            "stream": f"{STREAM_ROWS} rows of the training texts, permuted by the seed",
            "calibration_rows": CALIBRATION_ROWS,
            "intervals": "95 %, bootstrap over concepts; of nulls and seeds mean, least, most",
        },
        "seconds": time.perf_counter() - started,
        "dictionaries": [
            {
                "percentile": percentile,
                "seed": seed,
                "regions": n,
                "texts_left_out": lost,
                "scores": [plain(score) for score in mean.scores],
                "one_hot_by_concept": [
                    rounded(r.score(CODES, None, "binary", "exemplar").accuracy.estimate)
                    for r in reports
                ],
            }
            for percentile, seed, n, lost, mean, reports in found
        ],
        "over_seeds": over_seeds(found),
    }


def permuted_rows(rows, texts, seed) -> np.ndarray:
    """The first rows of a random permutation of texts: those of a text in their order."""
    numbers = rows.of(texts)
    parts, n = [], 0
    for number in np.random.default_rng(seed).permutation(numbers):
        parts.append(rows.vectors[rows.starts[number] : rows.starts[number + 1]])
        n += len(parts[-1])
        if n >= STREAM_ROWS:
            break
    return np.concatenate(parts)[:STREAM_ROWS]


def plain(score) -> dict[str, object]:
    """A line of a report; intervals as [estimate, low, high]."""
    values = {}
    for name, value in dataclasses.asdict(score).items():
        if isinstance(value, dict):
            values[name] = [rounded(v) for v in value.values()]
        elif value is not None and name != "by_seed":
            values[name] = value
    return values


def over_seeds(found) -> list[dict[str, object]]:
    """Of each percentile and method, mean and range over dictionaries of stream seeds."""
    lines: dict[tuple, list] = {}
    for percentile, _, _, _, mean, _ in found:
        for s in mean.scores:
            lines.setdefault((percentile, s.method, s.readout, s.basis, s.k), []).append(s)
    table = []
    for (percentile, method, readout, basis, k), scores in lines.items():
        line = {"percentile": percentile, "method": method, "readout": readout, "basis": basis}
        line["k"] = k
        for name in ("accuracy", "auroc", "of_raw"):
            part = [getattr(s, name).estimate for s in scores if getattr(s, name) is not None]
            if part:
                line[name] = [rounded(f(part)) for f in (np.mean, np.min, np.max)]
        table.append({name: value for name, value in line.items() if value is not None})
    return table


def rounded(value: float) -> float:
    return round(float(value), 4)


def show(values) -> None:
    print(values["inputs"], f"{values['seconds']:.0f} s")
    for line in values["over_seeds"]:
        print(*line.values())


if __name__ == "__main__":
    main()
