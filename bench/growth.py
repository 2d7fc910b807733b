"""How well growth is estimated and foretold, on documents that the estimate has not seen.

    python bench/growth.py extract --model smollm2-135m-instruct
    python bench/growth.py study --model smollm2-135m-instruct --site resid_post.15

A corpus' documents are read once by the model; afterwards they are replayed in 20 random orders.
The first half of the documents is the stream. The chance of a new region is estimated from it, and
then each of the other documents is read next, by itself, by what the stream left: how many of its
rows found regions is what the interval must hold. Then all documents are read to their end, and
the forecasts from the first 30 % of all rows are compared with what there is.

The law, its weights and its grid were chosen on `TUNED`, at one site, with 32,000 rows each.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import growth_corpora
import rows as results
from exemplars.analyses import growth as study
from exemplars.analyses.domains import singletons
from exemplars.calibration import as_vectors
from exemplars.clustering import LeaderClustering
from exemplars.dictionary import usable_directions
from exemplars.nearest import ExemplarIndex

SOURCES = {
    source.folder: source for source in (activations.SMOLLM2, activations.GEMMA, activations.QWEN)
}
SITES = {
    "smollm2-135m-instruct": ("resid_post.9", "resid_post.15", "resid_post.24"),
    "gemma-3-270m": ("resid_post.9",),
    "qwen2.5-coder-0.5b-instruct": ("resid_post.12",),
}
ROWS = 60_000
PERCENTILES = (1.0, 2.0, 8.0)
CALIBRATION_ROWS = 20_480
SPLITS = 20
TUNED = {("resid_post.9", corpus) for corpus in ("addresses", "code", "reference")}
FIRST_SHARE = 0.3


@dataclass(frozen=True)
class Rows:
    """One corpus at one site: directions (N, D) in document order, and where documents start."""

    directions: np.ndarray
    starts: np.ndarray
    calibration: ex.Calibration

    def of(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The directions of documents in this order, and how many each has."""
        spans = [np.arange(self.starts[d], self.starts[d + 1]) for d in documents]
        return self.directions[np.concatenate(spans)], np.array([len(s) for s in spans])


def folder_of(cache: Path, model: str, corpus: str) -> Path:
    return cache / f"{model}-{corpus.replace(', ', '-').replace(' ', '-')}"


def extract(model: str, corpora: list[str], models: Path, cache: Path) -> None:
    loaded = activations.load_model(SOURCES[model], models)
    for corpus in corpora:
        texts = ex.texts([text for _, text in growth_corpora.CORPORA[corpus]()])
        folder = folder_of(cache, model, corpus)
        kept = ex.extract(loaded, list(SITES[model]), texts, folder, rows=ROWS)
        print(f"{corpus}: {kept.rows:,} rows", flush=True)


def load(cache: Path, model: str, corpus: str, site: str) -> Rows:
    kept = ex.ActivationShards.open(folder_of(cache, model, corpus))
    vectors, documents = [], []
    for batches, numbers, counts, _ in kept.windows((site,)):
        vectors.append(as_vectors(batches[0].vectors))
        documents.append(np.repeat(numbers, counts))
    x, document = np.concatenate(vectors), np.concatenate(documents)
    calibration = ex.calibrate(x[:CALIBRATION_ROWS], PERCENTILES, norm_multiple=10.0)
    directions, rows, _ = usable_directions(x, 0, calibration)
    starts = np.flatnonzero(np.diff(document[rows], prepend=-1))
    return Rows(directions, np.append(starts, len(rows)), calibration)


def curve(
    region: np.ndarray, founded: np.ndarray, lengths: np.ndarray, theta: float
) -> study.Curve:
    """The curve of a stream whose rows went to these regions."""
    ends = np.cumsum(lengths)
    numbers = np.arange(len(region))
    return study.Curve(
        "", np.arange(len(ends)), ends, np.cumsum(founded)[ends - 1],
        singletons(region, numbers, ends), theta, 0.0, {}, "", True,
    )  # fmt: skip


def read_next(rows: Rows, clustering: LeaderClustering, held: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each held-back document, read next by itself: rows, regions founded, rows outside."""
    directions, lengths = rows.of(held)
    region, similarity = np.full(len(directions), -1), np.full(len(directions), -np.inf)
    ExemplarIndex(directions.shape[1], "auto").offer(
        directions, clustering.exemplars, region, similarity
    )
    outside = similarity < 1 - clustering.threshold
    which = np.repeat(np.arange(len(held)), lengths)
    founded = np.zeros(len(held))
    for document in np.unique(which[outside]):
        mine = directions[(which == document) & outside]
        alone = LeaderClustering(directions.shape[1], clustering.threshold)
        alone.add(mine, np.arange(len(mine)))
        founded[document] = alone.n_regions
    return lengths, founded, np.bincount(which[outside], minlength=len(held))


def split(rows: Rows, theta: float, seed: int) -> dict[str, float]:
    """One random order: the estimate from its first half, forecasts, and what came."""
    order = np.random.default_rng([seed, 0x60]).permutation(len(rows.starts) - 1)
    read, held = order[: len(order) // 2], order[len(order) // 2 :]
    clustering = LeaderClustering(rows.directions.shape[1], theta)
    directions, lengths = rows.of(read)
    first = clustering.add(directions, np.arange(len(directions)))
    seen = curve(first.region, first.founded, lengths, theta)
    held_rows, founded, outside = read_next(rows, clustering, held)
    which = np.repeat(np.arange(len(read)), lengths)
    pairs = np.unique(first.region * len(read) + which) // len(read)
    own = int((np.bincount(pairs) == 1).sum())
    rest, more = rows.of(held)
    second = clustering.add(rest, len(directions) + np.arange(len(rest)))
    whole = curve(
        np.concatenate([first.region, second.region]),
        np.concatenate([first.founded, second.founded]),
        np.concatenate([lengths, more]),
        theta,
    )
    return {
        **estimates(seen, int(held_rows.sum()), float(founded.sum())),
        "own": own / int(lengths.sum()),
        "outside": float(outside.sum() / held_rows.sum()),
        **forecasts(whole),
    }


def estimates(seen: study.Curve, held: int, founded: float) -> dict[str, float]:
    """The chance from the curve, beside the share of held-back rows that founded a region."""
    fit = study.GrowthFit(seen)
    chance, among = fit.chance(), fit.chance(rows=held)
    rate = founded / held
    last = int(np.searchsorted(seen.rows, 0.9 * seen.rows[-1]))
    tail = seen.regions[-1] - seen.regions[last - 1]
    quiet = study.quiet_batch(seen)
    return {
        "documents": seen.documents,
        "rows": int(seen.rows[-1]),
        "regions": int(seen.regions[-1]),
        "rate": rate,
        "chance": chance.estimate,
        "low": among.low,
        "high": among.high,
        "expected_low": chance.low,
        "expected_high": chance.high,
        "singletons": seen.singletons[-1] / seen.rows[-1],
        "last_tenth": tail / (seen.rows[-1] - seen.rows[last - 1]),
        "quiet": -1 if quiet is None else quiet.regions / seen.regions[-1],
        "dispersion": fit.dispersion,
    }


def forecasts(whole: study.Curve) -> dict[str, float]:
    """From the first 30 % of the rows to all of them: relative errors, and the interval."""
    test = study.backtest(whole, FIRST_SHARE)
    if test is None:
        return {}
    found = test.found
    return {
        "found": found,
        "forecast": test.foretold.estimate / found - 1,
        "forecast_low": test.foretold.low / found - 1,
        "forecast_high": test.foretold.high / found - 1,
        "heaps": test.heaps / found - 1,
        "as_now": test.as_now / found - 1,
    }


def measure(model: str, site: str, corpus: str, cache: Path, percentiles: list[float]) -> None:
    rows = load(cache, model, corpus, site)
    for percentile in percentiles:
        theta = rows.calibration.threshold(percentile)
        found = [split(rows, theta, seed) for seed in range(SPLITS)]
        splits = {
            name: [round(float(each.get(name, np.nan)), 6) for each in found]
            for name in sorted({name for each in found for name in each})
        }
        results.write(
            "growth",
            what=f"{model} {site} {corpus} p{percentile:g}",
            model=SOURCES[model].title, site=site, corpus=corpus, percentile=percentile,
            theta=theta, documents=len(rows.starts) - 1, rows=len(rows.directions),
            tuned=(site, corpus) in TUNED and model == activations.SMOLLM2.folder,
            splits=splits,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("extract", "study"))
    parser.add_argument("--model", choices=SITES, default="smollm2-135m-instruct")
    parser.add_argument("--site", action="append")
    parser.add_argument("--corpus", action="append", choices=growth_corpora.CORPORA)
    parser.add_argument("--percentile", action="append", type=float, choices=PERCENTILES)
    parser.add_argument("--models", type=Path, default=Path("~/.cache/exemplars/models"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/exemplars/growth"))
    given = parser.parse_args()
    cache, models = given.cache.expanduser(), given.models.expanduser()
    corpora = given.corpus or list(growth_corpora.CORPORA)
    if given.stage == "extract":
        extract(given.model, corpora, models, cache)
        return
    for site in given.site or SITES[given.model]:
        for corpus in corpora:
            measure(given.model, site, corpus, cache, given.percentile or list(PERCENTILES))


if __name__ == "__main__":
    main()
