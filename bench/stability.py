"""Which regions of SmolLM2 another seed finds again, and what tells so beforehand.

    python bench/stability.py --models MODELS --cache CACHE

Five dictionaries share one calibration: of the same rows with their documents in five orders, and
of five disjoint fifths of the documents. Random rows of the stream stand beside the exemplars.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

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


Made = list[tuple[ex.Dictionary, Any]]
"""Dictionaries with the rows that each is of."""


def of_orders(rows: SiteRows, calibration: ex.Calibration, p: float) -> Made:
    made = noise.orders(rows.vectors, rows.document, calibration, p, range(SEEDS))
    return [(dictionary, rows.vectors) for dictionary in made]


def of_fifths(rows: SiteRows, calibration: ex.Calibration, p: float) -> Made:
    documents = np.random.default_rng(0).permutation(np.unique(rows.document))
    return [
        (
            noise.of_documents(rows.vectors, rows.document, part, calibration, p),
            rows.vectors[np.isin(rows.document, part)],
        )
        for part in np.array_split(documents, SEEDS)
    ]


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
                dictionaries, vectors = zip(*make(rows, calibration, p), strict=True)
                found = stability(dictionaries, vectors=vectors, seeds=2)
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
