"""Novelty: which scores tell texts apart from a build's own kind, at token, passage and set level.

    python bench/novelty_reading.py --corpora FOLDER --cache FOLDER    # once
    python bench/novelty.py --cache FOLDER

Dictionaries are built from 20th and 21st century State of the Union addresses, and from English
manual pages. Development (which score, which percentile): the manual pages' dictionaries at the
first site, with the sets of `DEVELOPMENT`. Everything else is reported.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import exemplars as ex
import rows as results
from exemplars.analyses.conformal import (
    HistogramShift,
    MeanScore,
    UsualScores,
    exchange_test,
    region_counts,
)
from exemplars.analyses.densities import SCORES, RegionDensity
from exemplars.analyses.detection import auroc, weighted_aurocs
from exemplars.analyses.detectors import shrunk_precision
from exemplars.analyses.novelty import SCORE
from exemplars.geometry import cosine_distance, to_directions
from exemplars.nearest import ExemplarIndex

SITES = ("resid_post.15", "resid_post.24")
PERCENTILES = (2.0, 8.0, 1.0)
BUILDS = {"sotu": "addresses since 1901", "manpages": "English manual pages"}
DEVELOPMENT = ("Perl", "manpages es", "sotu held", "manpages held, shuffled words")
"""Sets that choices were made on, with the manual pages' dictionaries at the first site."""
SETS = {
    "sotu": (
        *("sotu 19th century", "sotu 18th century", "Python", "Perl", "manpages held"),
        *("manpages de", "manpages fr", "manpages es", "manpages pl", "manpages ru"),
        *("manpages ja", "chat", "sotu held, shuffled words", "random tokens"),
    ),
    "manpages": (
        *("sotu held", "sotu 18th century", "Python", "Perl"),
        *("manpages de", "manpages fr", "manpages es", "manpages pl", "manpages ru"),
        *("manpages ja", "chat", "manpages held, shuffled words", "random tokens"),
    ),
}
PASSAGE, PERPLEXITY = "Mahalanobis, passage mean", "perplexity"
CORESET, CORESET_MEAN = "core-set distance", "core-set mean"
MAHALANOBIS = "Mahalanobis"
SET_SIZE = 50
N_SETS = 200
RESAMPLES = 200
SET_RESAMPLES = 30
FOLDS = 10


@dataclass(frozen=True)
class Scored:
    """One set by one build, site and percentile."""

    document: np.ndarray
    """(P,) of each passage."""
    region: np.ndarray
    """(P, 127) nearest regions."""
    coreset: np.ndarray
    """(P, 127) nearest of the core-set's rows."""
    tokens: dict[str, np.ndarray]
    """(P, 127) scores of tokens, by method."""
    passage: dict[str, np.ndarray]
    """(P,) scores of passages, by method: means over tokens but for `PASSAGE`."""


class Study:
    """One build at one site: dictionaries, baselines, and the scores of all sets."""

    def __init__(self, cache: Path, build: str, site: str, percentiles: Sequence[float]) -> None:
        self.cache, self.build, self.site = cache, build, site
        vectors, _ = self._read(f"{build} build")
        self.rows = vectors.reshape(-1, vectors.shape[-1])
        self.calibration = ex.calibrate(self.rows, PERCENTILES, norm_multiple=10.0)
        self.dictionaries = {
            p: ex.partition(self.rows, self.calibration, percentile=p) for p in percentiles
        }
        limit = self.calibration.norm_limit
        usable = np.linalg.norm(self.rows, axis=1) <= (np.inf if limit is None else limit)
        self.directions, _ = to_directions(self.rows[usable], self.calibration.center)
        self.center = self.directions.mean(axis=0, dtype=np.float64)
        self.precision = shrunk_precision(self.directions)
        every, _ = to_directions(self.rows, self.calibration.center)
        means = every.reshape(*vectors.shape[:2], -1).mean(axis=1)
        self.mean_center = means.mean(axis=0, dtype=np.float64)
        self.mean_precision = shrunk_precision(means, 0.1)

    def _read(self, name: str) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        content = torch.load(self.cache / f"{name}.pt")
        return content[self.site].float().numpy(), content

    def coreset(self, percentile: float, seed: int = 0) -> np.ndarray:
        """As many random rows of the build as the dictionary has regions."""
        k = len(self.dictionaries[percentile])
        chosen = np.random.default_rng([seed, 0xC0]).permutation(len(self.directions))[:k]
        return self.directions[np.sort(chosen)]

    def coreset_means(self, percentile: float) -> np.ndarray:
        """Unit means of the build's rows nearest to each row of the core-set: what `mean` has."""
        rows = self.coreset(percentile)
        nearest, _ = ExemplarIndex(rows.shape[1]).nearest(self.directions, rows)
        sums = np.zeros(rows.shape)
        np.add.at(sums, nearest, self.directions)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.where(length > 0, sums / np.maximum(length, 1e-12), rows)

    def place(self, name: str, percentile: float, suffix: str) -> Path:
        """A file of the cache."""
        folder = self.cache / "scored"
        folder.mkdir(exist_ok=True)
        return folder / f"{self.build} {self.site} p{percentile:g} {name}.{suffix}"

    def scored(self, name: str, percentile: float) -> Scored:
        path = self.place(name, percentile, "npz")
        if path.exists():
            kept = np.load(path)
            return _unpacked(kept)
        vectors, content = self._read(name)
        shape = vectors.shape[:2]
        flat = vectors.reshape(-1, vectors.shape[-1])
        dictionary = self.dictionaries[percentile]
        region, distance = dictionary.assign(flat)
        directions, _ = to_directions(flat, dictionary.center)
        density = RegionDensity.of(dictionary)
        tokens = {s: density.scores(s, directions, region, distance) for s in SCORES}
        tokens["beyond θ"] = (distance > dictionary.threshold).astype(float)
        apart = directions - self.center
        tokens[MAHALANOBIS] = np.sqrt(np.einsum("nd,nd->n", apart @ self.precision, apart))
        nearest, similarity = ExemplarIndex(dictionary.width).nearest(
            directions, self.coreset(percentile)
        )
        tokens[CORESET] = cosine_distance(similarity)
        means = self.coreset_means(percentile)[nearest]
        tokens[CORESET_MEAN] = 1 - np.einsum("nd,nd->n", directions, means)
        tokens[PERPLEXITY] = -content["log_probability"].numpy().astype(float).reshape(-1)
        tokens = {k: v.reshape(shape).astype(np.float32) for k, v in tokens.items()}
        of_means = directions.reshape(*shape, -1).mean(axis=1) - self.mean_center
        passage = {k: v.mean(axis=1, dtype=np.float64) for k, v in tokens.items()}
        passage[PASSAGE] = np.sqrt(np.einsum("nd,nd->n", of_means @ self.mean_precision, of_means))
        found = Scored(
            content["document"].numpy(), region.reshape(shape).astype(np.int32),
            nearest.reshape(shape).astype(np.int32), tokens, passage,
        )  # fmt: skip
        np.savez(path, **_packed(found))
        return found


def _packed(found: Scored) -> dict[str, np.ndarray]:
    return {
        "document": found.document, "region": found.region, "coreset": found.coreset,
        **{f"token/{k}": v for k, v in found.tokens.items()},
        **{f"passage/{k}": v for k, v in found.passage.items()},
    }  # fmt: skip


def _unpacked(kept: Any) -> Scored:
    def part(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): kept[k] for k in kept.files if k.startswith(prefix)}

    return Scored(
        kept["document"], kept["region"], kept["coreset"], part("token/"), part("passage/")
    )


def document_draws(document: np.ndarray, n: int, seed: int) -> np.ndarray:
    """(n, P) how often each passage is in a resample of documents."""
    names, which = np.unique(document, return_inverse=True)
    size = len(names)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(size, np.full(size, 1 / size), size=n)
    return drawn[:, which].astype(float)


def rounded(estimate: float, samples: np.ndarray) -> list[float]:
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return [round(float(v), 4) for v in (estimate, low, high)]


def separation(other: np.ndarray, own: np.ndarray, draws: tuple[np.ndarray, np.ndarray]) -> dict:
    """AUROC and TPR at 1 % FPR of scores of another kind against the own, with intervals."""
    scores = np.concatenate([other, own]).astype(float)
    positive = np.arange(len(scores)) < len(other)
    weights = np.concatenate(draws, axis=1)
    samples = weighted_aurocs(scores, positive, weights)

    order = np.argsort(-own)

    def rate(mine: np.ndarray, theirs: np.ndarray) -> float:
        above = np.cumsum(theirs[order])
        cut = own[order][np.argmax(above > 0.01 * above[-1])]
        return float(mine[other > cut].sum() / mine.sum())

    point = rate(np.ones(len(other)), np.ones(len(own)))
    rates = np.array([rate(a, b) for a, b in zip(*draws, strict=True)])
    return {"auroc": rounded(auroc(other, own), samples), "tpr": rounded(point, rates)}


def draw_sets(document: np.ndarray, n: int, seed: int, few: int | None = None) -> np.ndarray:
    """(n, SET_SIZE) passages without replacement; of a few documents if so told."""
    random = np.random.default_rng(seed)
    found = []
    names = np.unique(document)
    for _ in range(n):
        pool = np.arange(len(document))
        if few is not None:
            pool = pool[np.isin(document, random.permutation(names)[:few])]
        found.append(random.choice(pool, SET_SIZE, replace=len(pool) < SET_SIZE))
    return np.array(found)


def shifts(regions: np.ndarray, sets: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence from the reference of each set's histogram."""
    counts = region_counts(list(regions.astype(np.int64)), len(reference))
    member = np.zeros((len(sets), len(regions)), np.float64)
    np.add.at(member, (np.arange(len(sets))[:, None], sets), 1.0)
    return HistogramShift(counts, reference)(member)


SetScore = Callable[[Scored, np.ndarray], np.ndarray]


def set_scores(study: Study, percentile: float) -> dict[str, SetScore]:
    """What is computed of a set of passages, by method."""
    dictionary = study.dictionaries[percentile]
    k = len(dictionary)
    shares = dictionary.counts / dictionary.counts.sum()
    nearest, _ = ExemplarIndex(dictionary.width).nearest(
        study.directions, study.coreset(percentile)
    )
    other = np.bincount(nearest, minlength=k) / len(nearest)
    means = {
        name: (lambda found, sets, name=name: found.passage[name][sets].mean(axis=1))
        for name in (*SCORES, "beyond θ", MAHALANOBIS, PASSAGE, CORESET, CORESET_MEAN, PERPLEXITY)
    }
    return means | {
        "region histogram": lambda found, sets: shifts(found.region, sets, shares),
        "core-set histogram": lambda found, sets: shifts(found.coreset, sets, other),
    }


def set_level(study: Study, percentile: float, name: str, own: Scored) -> dict[str, Any]:
    """AUROC of sets of 50 passages, against random sets of the build's kind and those of few
    documents; the interval resamples documents, then draws the sets.
    """
    other = study.scored(name, percentile)
    found = {}
    for method, score in set_scores(study, percentile).items():
        mine = score(other, draw_sets(other.document, N_SETS, 1))
        theirs = score(own, draw_sets(own.document, N_SETS, 2))
        clustered = score(own, draw_sets(own.document, N_SETS, 3, few=4))
        samples = [
            auroc(*(resampled(score, part, seed, k) for k, part in enumerate((other, own))))
            for seed in range(SET_RESAMPLES)
        ]
        found[method] = {
            "auroc": rounded(auroc(mine, theirs), np.array(samples)),
            "few_documents": round(auroc(mine, clustered), 4),
        }
    return found


def resampled(score: SetScore, whole: Scored, seed: int, side: int) -> np.ndarray:
    """Scores of sets drawn from a resample of the documents."""
    weight = document_draws(whole.document, 1, 100 + 2 * seed + side)[0]
    kept = np.repeat(np.arange(len(weight)), weight.astype(int))
    return score(whole, np.random.default_rng([seed, side]).choice(kept, (60, SET_SIZE)))


def conformal(found: Scored, method: str) -> dict[str, Any]:
    """False alarms on the held-out passages, each beside other documents alone."""
    tokens = found.tokens[method].astype(float)
    names = np.unique(found.document)
    fold = {n: k % FOLDS for k, n in enumerate(np.random.default_rng(0).permutation(names))}
    of_passage = np.array([fold[n] for n in found.document])
    p = np.empty(len(tokens))
    pooled = np.empty(len(tokens))
    for k in range(FOLDS):
        usual = usual_scores(tokens, found.document, of_passage != k)
        every = tokens[of_passage != k].mean(axis=1)
        for i in np.flatnonzero(of_passage == k):
            score = float(tokens[i].mean())
            p[i] = usual.p_value(score, tokens.shape[1])
            pooled[i] = (1 + (every >= score).sum()) / (1 + len(every))
    draws = document_draws(found.document, 1000, 0)
    return {
        "passages": len(tokens),
        "documents": len(names),
        **{
            f"{kind} {level:g}": rounded(
                float((values <= level).mean()), draws @ (values <= level) / draws.sum(axis=1)
            )
            for kind, values in (("documents", p), ("passages", pooled))
            for level in (0.05, 0.1)
        },
    }


def usual_scores(tokens: np.ndarray, document: np.ndarray, keep: np.ndarray) -> UsualScores:
    several = tuple(tokens[keep & (document == n)].reshape(-1) for n in np.unique(document[keep]))
    return UsualScores(several, tokens.shape[1])


def power(own: Scored, other: Scored, method: str) -> dict[str, Any]:
    """Share of another set's passages with small p-values, and how often sets of few documents of
    the build's own kind are called unlike.
    """
    usual = usual_scores(
        own.tokens[method].astype(float), own.document, np.ones(len(own.document), bool)
    )
    p = np.array([usual.p_value(float(t.mean()), t.size) for t in other.tokens[method]])
    draws = document_draws(other.document, 1000, 0)
    return {
        f"{level:g}": rounded(float((p <= level).mean()), draws @ (p <= level) / draws.sum(axis=1))
        for level in (0.05, 0.1)
    }


def false_sets(study: Study, percentile: float, own: Scored, method: str, n: int = 200) -> dict:
    """How often the two tests of a set, and their union, have p at most 5 % and 10 % on sets of
    eight held-out documents beside the others.
    """
    shares = study.dictionaries[percentile].counts / len(study.rows)
    names = np.unique(own.document)
    means = np.array([own.tokens[method][own.document == m].mean() for m in names])
    counts = region_counts(
        [own.region[own.document == m].reshape(-1).astype(np.int64) for m in names],
        len(study.dictionaries[percentile]),
    )
    found = []
    for seed in range(n):
        order = np.random.default_rng([seed, 8]).permutation(len(names))
        found.append(
            [
                exchange_test("mean", MeanScore(means[order]), 8, 99, seed).p,
                exchange_test("shift", HistogramShift(counts[order], shares), 8, 99, seed).p,
            ]
        )
    each = np.array(found)
    both = np.minimum(1, 2 * each.min(axis=1))
    return {
        f"{name} {level:g}": round(float((values <= level).mean()), 4)
        for name, values in (("mean", each[:, 0]), ("histogram", each[:, 1]), ("set", both))
        for level in (0.05, 0.1)
    }


def token_level(other: Scored, own: Scored, n: int = 300) -> dict[str, list[float]]:
    """AUROC of single tokens, of at most so many passages of the own; documents are resampled."""
    some = np.linspace(0, len(own.document) - 1, min(n, len(own.document))).astype(int)
    sides = ((other.document, slice(None)), (own.document[some], some))
    width = own.region.shape[1]
    draws = [np.repeat(document_draws(d, 20, k), width, axis=1) for k, (d, _) in enumerate(sides)]
    weights = np.concatenate([np.ones((1, sum(d.shape[1] for d in draws))), np.hstack(draws)])
    positive = np.arange(weights.shape[1]) < other.region.size
    found = {}
    for method in other.tokens:
        parts = (
            part.tokens[method][rows].ravel()
            for part, (_, rows) in zip((other, own), sides, strict=True)
        )
        values = weighted_aurocs(np.concatenate(list(parts)).astype(float), positive, weights)
        found[method] = rounded(float(values[0]), values[1:])
    return found


def against(study: Study, percentile: float, name: str, own: Scored) -> dict[str, Any]:
    """One set beside the build's own kind, at all levels; kept in the cache."""
    path = study.place(name, percentile, "json")
    if path.exists():
        return json.loads(path.read_text())
    other = study.scored(name, percentile)
    draws = tuple(
        document_draws(part.document, RESAMPLES, k) for k, part in enumerate((other, own))
    )
    found = {
        "passage": {
            method: separation(other.passage[method], own.passage[method], draws)
            for method in other.passage
        },
        "token": token_level(other, own),
        "power": {m: power(own, other, m) for m in (*SCORES, PERPLEXITY)},
        "set": set_level(study, percentile, name, own),
    }
    path.write_text(json.dumps(found))
    print(study.build, study.site, percentile, name, flush=True)
    return found


def paired(other: Scored, own: Scored) -> dict[str, list[float]]:
    """AUROC of passages by the default score less that by each baseline, on the same resamples."""
    draws = [document_draws(part.document, RESAMPLES, k) for k, part in enumerate((other, own))]
    weights = np.concatenate([np.ones((1, sum(d.shape[1] for d in draws))), np.hstack(draws)])
    positive = np.arange(weights.shape[1]) < len(other.document)
    samples = {
        method: weighted_aurocs(
            np.concatenate([other.passage[method], own.passage[method]]).astype(float),
            positive,
            weights,
        )
        for method in (SCORE, MAHALANOBIS, PASSAGE, CORESET, CORESET_MEAN, PERPLEXITY)
    }
    ours = samples.pop(SCORE)
    return {
        method: rounded(float(ours[0] - values[0]), (ours - values)[1:])
        for method, values in samples.items()
    }


def measure(study: Study, percentile: float, names: Sequence[str]) -> dict[str, Any]:
    own = study.scored(f"{study.build} held", percentile)
    each = {name: against(study, percentile, name, own) for name in names}
    return {
        **{
            level: {name: found[level] for name, found in each.items()}
            for level in ("passage", "token", "set", "power")
        },
        "paired": {name: paired(study.scored(name, percentile), own) for name in names},
        "conformal": {m: conformal(own, m) for m in (*SCORES, CORESET, PERPLEXITY)},
        "false_sets": {m: false_sets(study, percentile, own, m) for m in ("mean", "distance")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--cache", type=Path, default=home / "bench/novelty")
    parser.add_argument("--build", action="append", choices=list(BUILDS))
    parser.add_argument("--site", action="append", choices=SITES)
    parser.add_argument("--percentile", action="append", type=float, choices=PERCENTILES)
    options = parser.parse_args()
    for build in options.build or BUILDS:
        there = [n for n in SETS[build] if (options.cache / f"{n}.pt").exists()]
        tuned = (
            [p.stem for p in sorted(options.cache.glob("tuned *.pt"))] if build == "sotu" else []
        )
        for site in options.site or SITES:
            percentiles = options.percentile or PERCENTILES
            study = Study(options.cache, build, site, percentiles)
            for percentile in percentiles:
                dictionary = study.dictionaries[percentile]
                found = measure(study, percentile, [*there, *tuned])
                results.write(
                    "novelty",
                    what=f"novelty {build} {site} p{percentile:g}",
                    build=build, kind=BUILDS[build], site=site, percentile=percentile,
                    model="SmolLM2-135M-Instruct", dtype="bfloat16", rows=len(study.rows),
                    regions=len(dictionary), threshold=round(dictionary.threshold, 4),
                    development=list(DEVELOPMENT), set_size=SET_SIZE, **found,
                )  # fmt: skip


if __name__ == "__main__":
    main()
