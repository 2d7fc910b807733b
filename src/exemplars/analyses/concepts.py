"""Which regions detect a concept, and what that is worth beside nulls and supervised baselines.

A *method* turns training texts into a detector; the detector is then evaluated on test texts it has
not seen. Methods that choose among directions (of regions, of a null, of k-means) and methods that
fit one to the labels go through the same evaluation, on the same rows. A method that depends on a
seed (the order of the stream, the rows that a null draws) is fitted once for each, and its estimate
is their mean. Intervals are of the bootstrap: over test texts for one concept; over concepts, and
texts within each, for several.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from exemplars.analyses import detectors
from exemplars.analyses.candidates import (
    NULL,
    Candidates,
    Fit,
    Pair,
    halved,
    region_methods,
    supervised_methods,
    training_pairs,
)
from exemplars.analyses.detection import (
    Interval,
    auroc,
    bootstrap_aurocs,
    hard_negative_score,
    interval,
)
from exemplars.analyses.detectors import Detector, SiteRows
from exemplars.analyses.labelled import Concept, OnStep, TextRows, without_empty
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.geometry import Float32, Float64, Int64

RESAMPLES = 1000
K_MEANS = "k-means centroid"
SCORES = ("cosine", "dot")


@dataclass(frozen=True, eq=False)
class Detection:
    """One method on one concept: the mean over its seeds, on test texts."""

    detectors: tuple[Detector, ...]
    """One for each seed."""
    train_auroc: float
    """On the texts it was found with: too high."""
    validation_auroc: float
    """Found on one half of the training texts, evaluated on the other; the mean of both ways."""
    auroc: Mapping[str, Interval]
    """By score: "cosine" of centered directions; "dot" of raw vectors, as AxBench computes it."""
    seed_aurocs: Mapping[str, Float64]
    """By score, (S,) for each seed."""
    hard_negative: Mapping[str, float]
    """By score, AxBench's second metric; NaN where no hard negatives were given."""
    samples: Mapping[str, Float64]
    """By score, (RESAMPLES,) bootstrap samples; those of all methods are paired."""


@dataclass(frozen=True, eq=False)
class ConceptReport:
    """Every method on every concept."""

    concepts: tuple[Concept, ...]
    detections: Mapping[str, tuple[Detection, ...]]
    """By method, one for each concept."""
    notes: tuple[str, ...] = ()
    """Where the null's rows come from, what was left out."""

    def mean(self, method: str, score: str = "cosine") -> Interval:
        """Mean test AUROC over concepts."""
        found = self.detections[method]
        return interval(self._samples(method, score), _mean(d.auroc[score].estimate for d in found))

    def difference(self, method: str, other: str, score: str = "cosine") -> Interval:
        """Mean difference of test AUROC, `method` less `other`, paired."""
        pairs = zip(self.detections[method], self.detections[other], strict=True)
        estimate = _mean(a.auroc[score].estimate - b.auroc[score].estimate for a, b in pairs)
        return interval(self._samples(method, score) - self._samples(other, score), estimate)

    def spread(self, method: str, score: str = "cosine") -> tuple[float, float]:
        """The lowest and the highest mean over concepts among the method's seeds."""
        means = np.mean([d.seed_aurocs[score] for d in self.detections[method]], axis=0)
        return float(means.min()), float(means.max())

    def validation(self, method: str) -> float:
        """Mean over concepts of the validation AUROC; what a choice of method is made by."""
        return _mean(d.validation_auroc for d in self.detections[method])

    def hard_negative(self, method: str, score: str = "cosine") -> float:
        """Mean over the concepts that have hard negatives."""
        found = [d.hard_negative[score] for d in self.detections[method]]
        return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")

    def _samples(self, method: str, score: str) -> Float64:
        """(RESAMPLES,) of the mean over concepts, these drawn with replacement too.

        The spread of the test texts is counted twice so, and the interval is a little wide.
        """
        samples = np.array([d.samples[score] for d in self.detections[method]])
        n = len(samples)
        if n == 1:
            return np.asarray(samples[0])
        drawn = np.random.default_rng(0).integers(0, n, (n, samples.shape[1]))
        return np.asarray(np.take_along_axis(samples, drawn, axis=0).mean(axis=0))


def evaluate(
    rows: SiteRows,
    concepts: Sequence[Concept],
    methods: Mapping[str, Sequence[Fit]],
    *,
    validated: Collection[str] | None = None,
    notes: Sequence[str] = (),
    on_step: OnStep | None = None,
) -> ConceptReport:
    """Fit every method on each concept's training texts, and evaluate it on its test texts.

    Args:
        rows: Of all texts of the concepts.
        concepts: Each with at least 2 texts of each class and part, all with rows.
        methods: By name, a fit for each seed.
        validated: Methods that are also fitted on halves of the training texts; None: all.
        notes: For the report.
        on_step: Told of how many concepts detectors were fitted, and then tested.
    """
    fitted = _Fitted(rows.rows, concepts)
    fitted.add(methods, _Steps("fitting detectors", len(concepts), on_step), validated)
    return _tested(rows, concepts, fitted, notes, on_step)


@dataclass(frozen=True, eq=False)
class _Part:
    """Texts on which a detector is evaluated: rows, and how many texts are of each class."""

    rows: SiteRows
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, rows: SiteRows, *classes: Int64) -> _Part:
        return cls(rows.texts(np.concatenate(classes)), tuple(map(len, classes)))

    def scores(
        self, fitted: Mapping[str, Sequence[Detector]], score: str = "cosine"
    ) -> dict[str, list[list[Float64]]]:
        """By method and seed, the scores of the texts of each class."""
        if not fitted:
            return {}
        scores = detectors.score_texts([d for several in fitted.values() for d in several],
                                       self.rows, score)  # fmt: skip
        columns = iter(scores.T)
        ends = np.cumsum(self.sizes)[:-1]
        return {
            name: [np.split(next(columns), ends) for _ in several]
            for name, several in fitted.items()
        }


@dataclass(frozen=True, eq=False)
class _Texts:
    """Numbers of one concept's training texts, of their two halves, and of its test texts."""

    positive: Int64
    negative: Int64
    held: tuple[Int64, ...]
    halves: tuple[Pair, ...]

    @classmethod
    def of(cls, rows: TextRows, concept: Concept) -> _Texts:
        positive, negative, *held = detectors.numbers(rows, concept)
        return cls(positive, negative, tuple(held), halved((positive, negative)))


class _Steps:
    """Counts what is done of a stage, and tells it."""

    def __init__(self, stage: str, total: int, on_step: OnStep | None) -> None:
        self.stage, self.total, self.on_step, self.done = stage, total, on_step, -1
        self.tell()

    def tell(self) -> None:
        self.done += 1
        if self.on_step is not None:
            self.on_step(self.stage, self.done, self.total)


class _Fitted:
    """Every concept's detectors: all that is kept of the candidates they were chosen among."""

    def __init__(self, rows: TextRows, concepts: Sequence[Concept]) -> None:
        self.texts = [_Texts.of(rows, concept) for concept in concepts]
        self.whole: list[dict[str, list[Detector]]] = [{} for _ in concepts]
        """Of each concept, by method, one for each seed."""
        self.halves: list[tuple[dict[str, list[Detector]], ...]] = [({}, {}) for _ in concepts]
        """Those found on either half of its training texts."""

    def add(
        self,
        methods: Mapping[str, Sequence[Fit]],
        steps: _Steps,
        validated: Collection[str] | None = None,
    ) -> None:
        """Fit methods to every concept; those of the same name are of further seeds."""
        for texts, whole, halves in zip(self.texts, self.whole, self.halves, strict=True):
            for name, fits in methods.items():
                whole.setdefault(name, []).extend(f(texts.positive, texts.negative) for f in fits)
                if validated is not None and name not in validated:
                    continue
                for found, half in zip(halves, texts.halves, strict=True):
                    found.setdefault(name, []).extend(fit(*half) for fit in fits)
            steps.tell()


def _tested(
    rows: SiteRows,
    concepts: Sequence[Concept],
    fitted: _Fitted,
    notes: Sequence[str],
    on_step: OnStep | None,
) -> ConceptReport:
    found: dict[str, list[Detection]] = {}
    steps = _Steps("testing detectors", len(concepts), on_step)
    for k, (texts, whole, halves) in enumerate(
        zip(fitted.texts, fitted.whole, fitted.halves, strict=True)
    ):
        validation = _validation(rows, texts, halves)
        for name, detection in _detections(rows, texts, whole, validation, k).items():
            found.setdefault(name, []).append(detection)
        steps.tell()
    results = {name: tuple(detections) for name, detections in found.items()}
    return ConceptReport(tuple(concepts), results, tuple(notes))


def _validation(
    rows: SiteRows, texts: _Texts, halves: Sequence[Mapping[str, Sequence[Detector]]]
) -> dict[str, float]:
    """By method, the mean AUROC over seeds and both ways."""
    found: dict[str, list[float]] = {}
    for k, fitted in enumerate(halves):
        part = _Part.of(rows, *texts.halves[1 - k])
        for name, scores in part.scores(fitted).items():
            found.setdefault(name, []).extend(auroc(*classes) for classes in scores)
    return {name: _mean(values) for name, values in found.items()}


def _detections(
    rows: SiteRows,
    texts: _Texts,
    fitted: Mapping[str, Sequence[Detector]],
    validation: Mapping[str, float],
    seed: int,
) -> dict[str, Detection]:
    train = _Part.of(rows, texts.positive, texts.negative).scores(fitted)
    held = _Part.of(rows, *texts.held)
    test = {score: held.scores(fitted, score) for score in SCORES}
    found = {}
    for name, several in fitted.items():
        aurocs_of, samples, hard = {}, {}, {}
        for score in SCORES:
            parts = test[score][name]
            pairs = [(p, n) for p, n, _ in parts]
            aurocs_of[score] = np.array([auroc(*pair) for pair in pairs])
            samples[score] = bootstrap_aurocs(pairs, RESAMPLES, seed).mean(1)
            hard[score] = _mean(hard_negative_score(*part) for part in parts)
        found[name] = Detection(
            detectors=tuple(several),
            train_auroc=_mean(auroc(*classes) for classes in train[name]),
            validation_auroc=validation.get(name, float("nan")),
            auroc={s: interval(samples[s], _mean(aurocs_of[s])) for s in SCORES},
            seed_aurocs=aurocs_of,
            hard_negative=hard,
            samples=samples,
        )
    return found


def detect_concepts(
    dictionary: Dictionary,
    rows: TextRows,
    concepts: Sequence[Concept],
    stream: Float32,
    *,
    k: int = 3,
    null_seeds: int = 3,
    seed: int = 0,
    notes: Sequence[str] = (),
    on_step: OnStep | None = None,
) -> ConceptReport:
    """The regions that detect concepts, evaluated beside nulls and supervised baselines.

    Args:
        dictionary: Whose regions; its census means take part if it has a census.
        rows: Of all texts of the concepts, from `read_text_rows`.
        concepts: Texts without a row are left out of them, and counted in the notes.
        stream: (n, D) raw vectors of rows of the dictionary's stream, at least as many as it has
            regions: the null draws from them, and k-means is fitted to them.
        k: Regions of the detectors of several regions, at most.
        null_seeds: Draws of the null, and of k-means.
        seed: The first of their seeds.
        notes: For the report.
        on_step: Told how far each stage has come.

    Raises:
        ValueError: The dictionary has fewer than 2 regions, a class has too few texts, or there
            are fewer rows in `stream` than regions.
    """
    check_choice(dictionary)
    if not concepts:
        raise ValueError("no concept was given; give texts with one and without it")
    if null_seeds < 1 or k < 1:
        raise ValueError(f"null_seeds is {null_seeds} and k is {k}, expected positive numbers")
    found = detectors.site_rows(rows, dictionary.calibration)
    kept, lost = zip(*(without_empty(found.rows, concept) for concept in concepts), strict=True)
    pairs = training_pairs(found.rows, kept)
    drawn, _, _ = usable_directions(stream, 0, dictionary.calibration)
    sets = _direction_sets(dictionary, drawn, range(seed, seed + null_seeds))
    if len(drawn) < 2 * len(dictionary):
        notes = (
            *notes,
            f"Only {len(drawn):,} rows of the stream were given for {len(dictionary):,} regions, "
            "so draws of the null overlap; give more with --text",
        )
    left_out = sum(concept.left_out for concept in concepts)
    if left_out:
        notes = (*notes, f"{left_out:,} training texts are test texts too, and were left out")
    if sum(lost):
        notes = (*notes, f"{sum(lost):,} texts have no row, and were left out")
    precision = detectors.shrunk_precision(drawn)
    fitted = _Fitted(found.rows, kept)
    steps = _Steps("choosing directions", len(sets) * len(kept), on_step)
    for name, directions in sets:
        one = {name: [Candidates.of(found, directions(), pairs)]}
        fitted.add(region_methods(one, k, precision), steps)
    steps = _Steps("fitting probes", len(kept), on_step)
    fitted.add(supervised_methods(found, seed), steps)
    return _tested(found, kept, fitted, notes, on_step)


def _direction_sets(
    dictionary: Dictionary, drawn: Float32, seeds: Iterable[int]
) -> list[tuple[str, Callable[[], Float32]]]:
    """By name, what makes the directions that compete; nulls are drawn at once."""
    n = len(dictionary)
    sets: list[tuple[str, Callable[[], Float32]]] = [
        ("region mean", lambda: dictionary.means),
        ("exemplar", lambda: dictionary.exemplars),
    ]
    if (census := dictionary.census) is not None:
        sets.append(("census mean", lambda: census.means))
    null = [detectors.random_directions(drawn, n, s) for s in seeds]
    sets += [(NULL, partial(np.asarray, directions)) for directions in null]
    return sets + [(K_MEANS, partial(detectors.kmeans_centroids, drawn, n, s)) for s in seeds]


def check_choice(dictionary: Dictionary) -> None:
    """Refuse a dictionary that leaves no choice.

    Raises:
        ValueError: It has fewer than 2 regions.
    """
    if len(dictionary) < 2:
        n = len(dictionary)
        raise ValueError(
            f"the dictionary has {n} region{'s' * (n != 1)}, so there is nothing to choose among; "
            "build one at a smaller percentile"
        )


def _mean(values: Iterable[float] | Float64) -> float:
    return float(np.mean(list(values)))
