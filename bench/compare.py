"""Seed noise, and what lies within it and beyond it: SmolLM2 beside itself and its fine-tunes.

    python bench/compare.py --models MODELS --cache CACHE --tuned FOLDER --copy null --copy topic
    python bench/compare.py --kept ACTIVATIONS --text NAME

TUNED holds a folder for each fine-tuned copy (bench/taboo.py makes them). All read the same tokens
(answers of AxBench in a random order), and each is calibrated on its own. The noise is that of
random halves of the documents, 20 times; further splits say how often noise is called a change.
Beside the fine-tunes stand known answers: the dictionary itself, the same rows in other orders, and
other layers. Kept activations of SmolLM2 on another text show whether the noise alone is judged
there as it should be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import drift_rows
import exemplars as ex
import rows as results
from exemplars.analyses import noise
from exemplars.analyses.comparison import Comparison, compare
from exemplars.analyses.shared_rows import SharedRows, SiteRows

CALIBRATION_ROWS = 20_480
PERCENTILES = (2.0, 10.0)
SITES = ("resid_post.9", "resid_post.15")
OTHER_SITES = {
    "resid_post.15": ("resid_post.14", "resid_post.9"),
    "resid_post.9": ("resid_post.15",),
}
SEEDS = 3


@dataclass(frozen=True)
class Side:
    """Rows of one model at one site, with its calibration and its dictionary."""

    name: str
    rows: SiteRows
    calibration: ex.Calibration
    dictionary: ex.Dictionary


def side(name: str, rows: SiteRows, percentile: float, order: np.ndarray | None = None) -> Side:
    calibration = ex.calibrate(rows.vectors[:CALIBRATION_ROWS], [percentile], norm_multiple=10.0)
    order = np.unique(rows.document) if order is None else order
    made = noise.of_documents(rows.vectors, rows.document, order, calibration, percentile)
    return Side(name, rows, calibration, made)


def comparisons(
    base: Side, others: list[tuple[str, SiteRows]], percentile: float
) -> Iterator[tuple[str, ex.Dictionary, SiteRows]]:
    """What A is compared with: by name, a dictionary, and rows of its site."""
    rows, calibration = base.rows, base.calibration
    yield "itself", base.dictionary, rows
    made = noise.orders(rows.vectors, rows.document, calibration, percentile, range(1, SEEDS + 1))
    for seed, dictionary in enumerate(made, start=1):
        yield f"another order, seed {seed}", dictionary, rows
    for name, of_other in others:
        yield name, side(name, of_other, percentile).dictionary, of_other


def row(base: Side, name: str, found: Comparison, seconds: float, inputs: dict[str, Any]) -> None:
    spaces = {
        space: {
            "pairs": len(c.pairs),
            "mean": float(c.score.mean()),
            "median": float(np.median(c.score)),
            "drift": c.drift,
            "drift_of_noise": c.drift_of_noise,
            "below_cutoff": c.below_cutoff,
            "exceeded": c.exceeded,
            "exceeded_of_noise": c.exceeded_of_noise,
            "beyond_noise": c.beyond_noise,
            "nulls": c.nulls,
            **{s: c.count(s) for s in ("persisted", "moved", "unclear", "apart")},
            "dropped": c.dropped,
            "introduced": c.introduced,
            "method": c.method,
        }
        for space, c in found.correspondences.items()
    }
    agreement = found.agreement
    assert agreement is not None
    results.write(
        "compare",
        **inputs,
        compared_with=name,
        n_regions=(found.a.n_regions, found.b.n_regions),
        spaces=spaces,
        norm_span=found.norm_span,
        nmi=agreement.nmi,
        nmi_error=agreement.nmi_error,
        nmi_nulls=agreement.nulls,
        nmi_of_noise=np.quantile(agreement.noise, [0.025, 0.5, 0.975]).tolist(),
        same_partner=agreement.same_partner,
        differences=found.differences,
        seconds=round(seconds, 1),
    )


def of_fresh(found: noise.SeedNoise, fresh: noise.SeedNoise) -> list[float]:
    """How far the pairs of each fresh split are exceeded by those of the baseline."""
    pairs = fresh.directions
    exceeded = found.directions.exceeding(pairs.score, pairs.share)
    return (np.bincount(pairs.split, exceeded) / np.bincount(pairs.split)).tolist()


def noise_row(
    found: noise.SeedNoise, fresh: noise.SeedNoise, inputs: dict[str, Any], seconds: float
) -> None:
    shares = 0.5 ** np.arange(16, 2, -1)
    results.write(
        "compare",
        **inputs,
        kind="seed noise",
        splits=found.splits,
        half_regions=(int(found.n_regions.min()), int(found.n_regions.max())),
        mean_score={
            "directions": found.directions.means().tolist(),
            "overlaps": found.overlaps.means().tolist(),
        },
        nmi=found.nmi.tolist(),
        quantiles={
            str(q): float(np.quantile(found.directions.score, q))
            for q in (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
        },
        exceeded=found.directions.exceeding_of_splits().tolist(),
        fresh_exceeded=of_fresh(found, fresh),
        shares=shares.tolist(),
        cutoff=found.directions.cutoff(shares, 0.05).tolist(),
        f1_cutoff=found.overlaps.cutoff(shares, 0.05).tolist(),
        seconds=round(seconds, 1),
    )


def at_site(args: argparse.Namespace, site: str) -> None:
    if args.kept:
        kept = {"base": ex.ActivationShards.open(args.kept)}
    else:
        kept = {
            copy.name: drift_rows.shards(copy, args.cache, args.rows)
            for copy in drift_rows.copies(args.models, args.tuned)
            if copy.name in ("base", *args.copy)
        }
    base_rows = drift_rows.rows_of(kept["base"], site, args.rows)
    others = [
        (name, drift_rows.rows_of(kept[name], site, args.rows)) for name in kept if name != "base"
    ]
    if not args.kept:
        others += [
            (other, drift_rows.rows_of(kept["base"], other, args.rows))
            for other in OTHER_SITES.get(site, ())
        ]
    for percentile in args.percentile:
        base = side("base", base_rows, percentile)
        for basis in args.basis:
            inputs = {
                "model": "SmolLM2-135M-Instruct", "text": args.text, "site": site,
                "percentile": percentile,
                "threshold": base.dictionary.threshold, "basis": basis, "noise": args.noise,
                "rows": len(base_rows),
                "documents": len(np.unique(base_rows.document)),
            }  # fmt: skip
            started = time.monotonic()
            found, fresh = (
                noise.seed_noise(
                    base_rows.vectors, base_rows.document, base.calibration, percentile,
                    pairs_of=args.noise, basis=basis, splits=splits, seed=seed,
                )
                for seed, splits in ((1000, args.splits), (2000, args.fresh))
            )  # fmt: skip
            noise_row(found, fresh, inputs, time.monotonic() - started)
            for name, dictionary, of_other in comparisons(base, others, percentile):
                started = time.monotonic()
                shared = SharedRows(
                    base_rows.vectors, of_other.vectors, base_rows.document, base_rows.token
                )
                result = compare(base.dictionary, dictionary, rows=shared, noise=found, basis=basis)
                row(base, name, result, time.monotonic() - started, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--kept", type=Path, help="Activations of another text: noise alone.")
    parser.add_argument("--text", default="answers of AxBench", help="What the text is called.")
    parser.add_argument("--tuned", type=Path, help="A folder with a folder for each copy.")
    parser.add_argument("--copy", action="append", default=[], help="Which; repeat for several.")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--rows", type=int, default=drift_rows.ROWS)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--noise", default="halves", help="halves or orders.")
    parser.add_argument("--fresh", type=int, default=10, help="Further splits.")
    parser.add_argument("--site", action="append")
    parser.add_argument("--percentile", type=float, action="append")
    parser.add_argument("--basis", action="append")
    args = parser.parse_args()
    args.percentile = args.percentile or list(PERCENTILES)
    args.basis = args.basis or ["mean"]
    for site in args.site or SITES:
        at_site(args, site)


if __name__ == "__main__":
    main()
