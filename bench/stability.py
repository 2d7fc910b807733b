"""Which regions of SmolLM2 another seed finds again, and what tells so beforehand.

    python bench/stability.py --models MODELS --cache CACHE

Five dictionaries share one calibration: of the same rows with their documents in five orders, and
of five disjoint fifths of the documents. Random rows of the stream stand beside the exemplars.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

import drift_rows
import exemplars as ex
import rows as results
from exemplars.analyses import noise
from exemplars.analyses.shared_rows import SiteRows
from exemplars.analyses.stability import stability

CALIBRATION_ROWS = 20_480
PERCENTILES = (2.0, 4.0, 8.0)
SITES = ("resid_post.9", "resid_post.15")
SEEDS = 5


def of_orders(rows: SiteRows, calibration: ex.Calibration, p: float) -> Iterator[ex.Dictionary]:
    yield from noise.orders(rows.vectors, rows.document, calibration, p, range(SEEDS))


def of_fifths(rows: SiteRows, calibration: ex.Calibration, p: float) -> Iterator[ex.Dictionary]:
    documents = np.random.default_rng(0).permutation(np.unique(rows.document))
    for part in np.array_split(documents, SEEDS):
        yield noise.of_documents(rows.vectors, rows.document, part, calibration, p)


STREAMS = {"orders": of_orders, "disjoint documents": of_fifths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=drift_rows.ROWS)
    parser.add_argument("--site", action="append")
    parser.add_argument("--percentile", type=float, action="append")
    args = parser.parse_args()
    kept = drift_rows.shards(drift_rows.copies(args.models, None)[0], args.cache, args.rows)
    for site in args.site or SITES:
        rows = drift_rows.rows_of(kept, site, args.rows)
        percentiles = args.percentile or PERCENTILES
        calibration = ex.calibrate(rows.vectors[:CALIBRATION_ROWS], percentiles, norm_multiple=10.0)
        for p in percentiles:
            for name, make in STREAMS.items():
                started = time.monotonic()
                dictionaries = list(make(rows, calibration, p))
                found = stability(dictionaries, vectors=rows.vectors, seeds=2)
                results.write(
                    "stability",
                    model="SmolLM2-135M-Instruct",
                    site=site,
                    percentile=p,
                    threshold=found.threshold,
                    seeds=name,
                    n_seeds=SEEDS,
                    rows=found.rows,
                    n_regions=found.n_regions,
                    pairs=[asdict(pair) for pair in found.pairs],
                    nulls=found.nulls,
                    predictors=[asdict(predictor) for predictor in found.predictors],
                    method=found.method,
                    seconds=round(time.monotonic() - started, 1),
                )


if __name__ == "__main__":
    main()
