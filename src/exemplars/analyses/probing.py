"""How much of a text's class a few code dimensions keep: k-sparse probing.

A text's code is the mean over its rows. A probe chooses k dimensions by the absolute difference of
the class means on training texts, fits a logistic regression on those, and is scored on test texts.
Raw activations, principal components, and dictionaries of random rows go the same way, on the same
texts, so that a number has something to stand beside.

Source: SAEBench's sparse probing (Karvonen et al. 2025); Rumbelow 2026 (arXiv:2605.14347), app. D.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from exemplars import readout as _readout
from exemplars.analyses.detection import Interval, interval, weighted_aurocs
from exemplars.analyses.labelled import Concept, TextRows, quoted
from exemplars.analyses.tasks import ProbeTask, check_task, task_of_concept
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.geometry import (
    Float32,
    Float64,
    Int64,
    check_finite,
    to_directions,
    vector_norms,
)
from exemplars.nearest import ExemplarIndex

PUBLISHED_RATIO = (0.97, 0.98)
"""One-hot codes over raw activations, accuracy, as the paper reports for its models and tasks."""

READOUTS, BASES, K_SPARSE = (
    ("binary", "cosine", "signed", "topk"),
    ("exemplar", "mean"),
    (1, 2, 5, 20),
)
"""What is probed unless other is asked for."""

CODES, RAW, COMPONENTS, FIRST_COMPONENTS = (
    "codes", "raw activations", "principal components", "first principal components",
)  # fmt: skip
RANDOM_ROWS, PERMUTED, MAJORITY = "random rows", "permuted labels", "majority class"
NULLS = (RANDOM_ROWS, PERMUTED, MAJORITY)

_PENALTIES = (0.1, 3.0, 100.0, 3e3, 1e5)
_FOLDS = 3
_RESAMPLES = 1000
_LEAST = 2
_ROWS = 2048
_FEW_DIMENSIONS = 512


@dataclass(frozen=True)
class ProbeScore:
    """How one method with one number of dimensions did on the test texts.

    Intervals are 95 % bootstrap intervals over test texts, drawn within each class; in the mean of
    several tasks they are over tasks. Of a null with seeds they are the mean, the smallest, and the
    largest over seeds.
    """

    method: str
    readout: str | None
    basis: str | None
    k: int | None
    """Dimensions chosen; None for all of them."""
    accuracy: Interval
    """Mean over classes of the share of its test texts that are told right, in [0, 1]."""
    auroc: Interval
    """In [0, 1]; of more than two classes, the mean over classes against the rest."""
    of_raw: Interval | None
    """Accuracy over that of raw activations with all dimensions, paired; None for a null."""
    by_seed: tuple[float, ...] = ()
    """The accuracy with each seed of a null."""


@dataclass(frozen=True)
class ProbeReport:
    """Probes on one task, or their mean over several."""

    task: str
    tasks: int
    classes: tuple[str, ...]
    train_texts: tuple[int, ...]
    """Of each class."""
    test_texts: tuple[int, ...]
    n_regions: int
    dropped_rows: int
    """Rows left out as norm outliers, as the dictionary's build did."""
    seeds: int
    scores: tuple[ProbeScore, ...]

    def score(
        self, method: str, k: int | None = None, readout: str | None = None,
        basis: str | None = None,
    ) -> ProbeScore:  # fmt: skip
        """One line of the report.

        Raises:
            ValueError: It is not there.
        """
        for found in self.scores:
            if (found.method, found.k, found.readout, found.basis) == (method, k, readout, basis):
                return found
        wanted = ", ".join(str(part) for part in (readout, basis, method) if part)
        raise ValueError(f"no probe of {wanted} with k = {k} was made; ask for it in probe()")


def without_outliers(dictionary: Dictionary, rows: TextRows) -> tuple[TextRows, int]:
    """Rows without the norm outliers that a build would drop, and how many those are.

    Rows without a direction stay, other than in `detectors.site_rows`: they code as zeros, and
    count in the mean over a text's rows.
    """
    limit = dictionary.calibration.norm_limit
    if limit is None:
        return rows, 0
    # A NaN stays, to be named as what it is.
    kept = rows.select(~(vector_norms(rows.vectors) > limit))
    return kept, len(rows.vectors) - len(kept.vectors)


def mean_codes(
    dictionary: Dictionary, rows: TextRows, readout: str = "binary", basis: str = "exemplar"
) -> Any:
    """The mean code of each text over its rows, as SAEBench pools them.

    Args:
        dictionary: Whose regions.
        rows: The texts; one without rows codes as zeros.
        readout: Of `exemplars.readout.READOUTS`, with k = 1 where it has one.
        basis: "exemplar" or "mean".

    Returns:
        (T, K): dense for "signed" and "cosine", `scipy.sparse.csc_array` otherwise.

    Raises:
        ValueError: An unknown readout or basis, or another width than the dictionary's.
        ActivationError: A NaN or infinite component.
    """
    _check_settings(dictionary, rows, [readout], [basis])
    pooled = _pool(rows, dictionary.center)
    (_, _, features) = next(_codes(dictionary, pooled, [readout], [basis]))
    if isinstance(features, _Matrix):
        return features.values
    return (features.means @ features.basis.T).astype(np.float32)


def probe(
    dictionary: Dictionary,
    rows: TextRows,
    task: ProbeTask | Concept,
    *,
    readouts: Sequence[str] = READOUTS,
    bases: Sequence[str] = BASES,
    k_sparse: Sequence[int] = K_SPARSE,
    seeds: int = 3,
    stream: Any = None,
    seed: int = 0,
) -> ProbeReport:
    """k-sparse probes of one task, beside the raw activations and the nulls.

    Args:
        dictionary: Whose codes.
        rows: The activations of the task's texts, of the dictionary's site.
        task: What is to be told.
        readouts: Of `exemplars.readout.READOUTS`, with k = 1 where they have one. The first is also
            probed with permuted labels.
        bases: "exemplar", "mean", or both.
        k_sparse: Numbers of dimensions; all of them are always probed too. Raw activations and
            principal components leave out a k that is larger than their number.
        seeds: Of dictionaries of random rows, and of permutations of the labels.
        stream: (n, D) raw rows of the dictionary's stream, K of which make a dictionary of random
            rows; None for no such null.
        seed: Of the folds, the resamples, and the nulls.

    Returns:
        A `ProbeReport`. Regularisation is chosen by cross-validation within the training texts,
        for every method from the same grid, with the choice of dimensions inside each fold. Classes
        weigh the same, however many texts they have.

    Raises:
        ValueError: A k larger than the number of regions, a dictionary of one region, a text
            without rows, an unknown readout or basis, or fewer rows in `stream` than regions.
        ActivationError: A NaN or infinite component.
    """
    return probe_tasks(
        dictionary, rows, [task], readouts=readouts, bases=bases, k_sparse=k_sparse, seeds=seeds,
        stream=stream, seed=seed,
    )[0]  # fmt: skip


def probe_tasks(
    dictionary: Dictionary,
    rows: TextRows,
    tasks: Sequence[ProbeTask | Concept],
    *,
    readouts: Sequence[str] = READOUTS,
    bases: Sequence[str] = BASES,
    k_sparse: Sequence[int] = K_SPARSE,
    seeds: int = 3,
    stream: Any = None,
    seed: int = 0,
) -> list[ProbeReport]:
    """`probe` of several tasks on the same rows, which are assigned once for all of them."""
    _check_settings(dictionary, rows, readouts, bases)
    _check_probes(dictionary, k_sparse, seeds)
    given = [task_of_concept(t) if isinstance(t, Concept) else t for t in tasks]
    needed = rows.of(dict.fromkeys(text for task in given for text in task.texts()))
    rows = rows.select(np.isin(rows.text_of_rows(), needed))
    kept, lost = without_outliers(dictionary, rows)
    splits = [_split(task, kept, seed) for task in given]
    pooled = _pool(kept, dictionary.center)
    ks = (*dict.fromkeys(k_sparse), None)
    raw, scores = zip(*(_baselines(pooled, split, ks) for split in splits), strict=True)
    first = (readouts[0], bases[0])
    for readout, basis, features in _codes(dictionary, pooled, readouts, bases):
        for split, whole, found in zip(splits, raw, scores, strict=True):
            found += [
                _evaluate(features, split, k).score(CODES, k, whole, readout, basis) for k in ks
            ]
            if (readout, basis) == first:
                found += _permuted(features, split, first, ks, range(seed, seed + seeds))
    if stream is not None:
        random = _random_rows(dictionary, as_vectors(stream), seed, seeds)
        nulls = [dict[Any, list[_Outcome]]() for _ in splits]
        for basis_rows in random:
            coder = _Coder(pooled, basis_rows, ExemplarIndex(dictionary.width))
            for readout in readouts:
                features = coder.features(readout)
                for split, null in zip(splits, nulls, strict=True):
                    for k in ks:
                        null.setdefault((readout, k), []).append(_evaluate(features, split, k))
        for found, null in zip(scores, nulls, strict=True):
            found += [_over_seeds(RANDOM_ROWS, k, o, readout) for (readout, k), o in null.items()]
    return [
        ProbeReport(
            task=task.name,
            tasks=1,
            classes=task.classes,
            train_texts=tuple(np.bincount(split.train_class).tolist()),
            test_texts=tuple(np.bincount(split.test_class).tolist()),
            n_regions=len(dictionary),
            dropped_rows=lost,
            seeds=seeds,
            scores=(*found, _majority(len(task.classes))),
        )
        for task, split, found in zip(given, splits, scores, strict=True)
    ]


def mean_report(reports: Sequence[ProbeReport], seed: int = 0) -> ProbeReport:
    """The mean over tasks, with bootstrap intervals over tasks; one report is its own mean.

    Raises:
        ValueError: No report, or reports of different methods.
    """
    if not reports or len({tuple(_key(s) for s in r.scores) for r in reports}) > 1:
        raise ValueError("the reports are of different methods; give some of one call of probe")
    if len(reports) == 1:
        return reports[0]
    draws = np.random.default_rng(seed).multinomial(
        len(reports), np.full(len(reports), 1 / len(reports)), size=_RESAMPLES
    )
    weights = np.vstack([np.ones(len(reports)), draws]) / len(reports)
    raw = weights @ np.array([r.score(RAW).accuracy.estimate for r in reports])
    scores = []
    for column in zip(*(report.scores for report in reports), strict=True):
        one = column[0]
        accuracy, auroc = (
            weights @ np.array([getattr(score, name).estimate for score in column])
            for name in ("accuracy", "auroc")
        )
        if one.by_seed:
            seeds = np.mean([score.by_seed for score in column], axis=0)
            found = replace(one, accuracy=_range(seeds), by_seed=tuple(seeds.tolist()),
                            auroc=_of_samples(auroc))  # fmt: skip
        else:
            found = replace(one, accuracy=_of_samples(accuracy), auroc=_of_samples(auroc))
            if one.of_raw is not None:
                found = replace(found, of_raw=_of_samples(_ratio(accuracy, raw)))
        scores.append(found)
    return replace(
        reports[0],
        task=f"mean of {len(reports)} tasks",
        tasks=len(reports),
        train_texts=tuple(np.sum([r.train_texts for r in reports], axis=0).tolist()),
        test_texts=tuple(np.sum([r.test_texts for r in reports], axis=0).tolist()),
        scores=tuple(scores),
    )


@dataclass(frozen=True, eq=False)
class _Pooled:
    """What the codes of texts are made of: rows, and their means over each text, (T, D)."""

    rows: TextRows
    center: Float32
    raw: Float32
    directions: Float32
    centered: Float32


def _pool(rows: TextRows, center: Float32) -> _Pooled:
    raw, directions, centered = (
        np.zeros((len(rows.texts), len(center)), np.float32) for _ in range(3)
    )
    for text, (start, end) in enumerate(zip(rows.starts[:-1], rows.starts[1:], strict=True)):
        if start == end:
            continue
        part = rows.vectors[start:end]
        unit, norms = to_directions(part, center)
        check_finite(norms, first_row=int(start))
        raw[text] = part.mean(axis=0, dtype=np.float64)
        directions[text] = unit.mean(axis=0, dtype=np.float64)
        centered[text] = (unit * norms[:, None]).mean(axis=0)
    return _Pooled(rows, center, raw, directions, centered)


class _Coder:
    """Mean codes of texts over one basis; rows are assigned once for all readouts."""

    def __init__(self, pooled: _Pooled, basis: Float32, index: ExemplarIndex) -> None:
        self.pooled, self.basis, self.index = pooled, basis, index
        self.usable: Any = np.isfinite(basis).all(axis=1)

    def features(self, readout: str) -> _Matrix | _Product:
        """(T, K) codes, without ever being dense where rows have few."""
        if readout in ("signed", "cosine"):
            rows = np.where(self.usable[:, None], self.basis, np.float32(0))
            means = self.pooled.centered if readout == "signed" else self.pooled.directions
            return _Product(means, rows)
        from scipy.sparse import coo_array

        region, similarity, norms = self.nearest
        values = {
            "binary": np.ones(len(region)),
            "topk": np.maximum(similarity, 0.0) * norms,
            "topk_norm": np.maximum(similarity, 0.0),
        }[readout]
        text = self.pooled.rows.text_of_rows()
        share = values / self.pooled.rows.lengths()[text]
        keep = region >= 0
        where = (text[keep], region[keep])
        shape = (len(self.pooled.rows.texts), len(self.basis))
        return _Matrix(coo_array((share[keep], where), shape=shape).tocsc())

    @cached_property
    def nearest(self) -> tuple[Int64, Float64, Float64]:
        """(N,) of each row: region (−1 without a direction), similarity, norm of x − c."""
        vectors = self.pooled.rows.vectors
        numbers = np.flatnonzero(self.usable)
        basis = np.ascontiguousarray(self.basis[numbers])
        region = np.full(len(vectors), -1, np.int64)
        similarity, norms = np.zeros(len(vectors)), np.zeros(len(vectors))
        for start in range(0, len(vectors), _ROWS):
            unit, length = to_directions(vectors[start : start + _ROWS], self.pooled.center)
            keep = np.flatnonzero(unit.any(axis=1))
            to_come = len(vectors) - start - len(unit)
            found, product = self.index.nearest(unit[keep], basis, to_come)
            region[start + keep] = numbers[found]
            similarity[start + keep] = product
            norms[start : start + len(unit)] = length
        return region, similarity, norms


def _codes(
    dictionary: Dictionary, pooled: _Pooled, readouts: Sequence[str], bases: Sequence[str]
) -> Iterator[tuple[str, str, _Matrix | _Product]]:
    for basis in dict.fromkeys(bases):
        exemplars = basis == "exemplar"
        index = dictionary.index() if exemplars else ExemplarIndex(dictionary.width)
        coder = _Coder(pooled, dictionary.basis(basis), index)
        for readout in dict.fromkeys(readouts):
            yield readout, basis, coder.features(readout)


def _random_rows(
    dictionary: Dictionary, stream: Float32, seed: int, seeds: int
) -> Iterator[Float32]:
    """K directions of random rows, once for each seed."""
    directions, _, _ = usable_directions(stream, 0, dictionary.calibration)
    n_regions = len(dictionary)
    if len(directions) < n_regions:
        raise ValueError(
            f"the stream has {len(directions)} rows with a direction, expected at least "
            f"{n_regions}, the number of regions; give more rows, or none for no such null"
        )
    for k in range(seeds):
        random = np.random.default_rng([seed, k])
        yield directions[np.sort(random.choice(len(directions), n_regions, replace=False))]


@dataclass(frozen=True, eq=False)
class _Matrix:
    """(T, F) values, dense or by sparse columns."""

    values: Any

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def difference(self, some: Int64, others: Int64) -> Float64:
        """(F,) mean over some rows less the mean over others."""
        weights = np.zeros(self.values.shape[0])
        weights[some] = 1 / len(some)
        weights[others] -= 1 / len(others)
        return np.asarray(self.values.T @ weights, np.float64)

    def columns(self, rows: Int64, chosen: Int64) -> Float64:
        """(n, k) dense."""
        part = self.values[:, chosen]
        part = part[rows] if isinstance(part, np.ndarray) else part.toarray()[rows]
        return np.asarray(part, np.float64)

    def whole(self, rows: Int64) -> Any:
        """(n, F); whatever keeps the products of rows will do."""
        return self.values[rows] if self.dense else self.values.tocsr()[rows]

    @property
    def dense(self) -> bool:
        return isinstance(self.values, np.ndarray)


@dataclass(frozen=True, eq=False)
class _Product:
    """(T, K) values means · basisᵀ that are never made."""

    means: Float32
    """(T, D)."""
    basis: Float32
    """(K, D)."""

    @property
    def width(self) -> int:
        return len(self.basis)

    def difference(self, some: Int64, others: Int64) -> Float64:
        means = self.means.astype(np.float64)
        return self.basis @ (means[some].mean(axis=0) - means[others].mean(axis=0))

    def columns(self, rows: Int64, chosen: Int64) -> Float64:
        return self.means[rows].astype(np.float64) @ self.basis[chosen].T.astype(np.float64)

    def whole(self, rows: Int64) -> Float64:
        return self.means[rows] @ self._root

    @cached_property
    def _root(self) -> Float64:
        """(D, D) square root of basisᵀ · basis: rows times it have the products that codes have."""
        values, axes = np.linalg.eigh((self.basis.T @ self.basis).astype(np.float64))
        return axes * np.sqrt(np.maximum(values, 0.0))


@dataclass(frozen=True, eq=False)
class _Split:
    """The texts of a task by their numbers, in an order that the task's does not change."""

    train: Int64
    train_class: Int64
    test: Int64
    test_class: Int64
    n_classes: int
    seed: int
    draws: Float64
    """(1 + resamples, test texts) how often each was drawn, within its class; first, each once."""


def _split(task: ProbeTask, rows: TextRows, seed: int) -> _Split:
    check_task(task)
    parts = []
    lengths = rows.lengths()
    for texts, labels in (
        (task.train_texts, task.train_labels),
        (task.test_texts, task.test_labels),
    ):
        order = sorted(range(len(texts)), key=texts.__getitem__)
        numbers = rows.of(texts[k] for k in order)
        empty = np.flatnonzero(lengths[numbers] == 0)
        if len(empty):
            raise ValueError(
                f"{quoted(texts[order[empty[0]]])} of {task.name!r} has no row after the masked "
                "first position and the norm outliers; leave out texts so short"
            )
        parts += [numbers, np.array([labels[k] for k in order], np.int64)]
    random = np.random.default_rng(seed)
    train, train_class, test, test_class = parts
    draws = np.ones((1 + _RESAMPLES, len(test)))
    for k in range(len(task.classes)):
        mine = np.flatnonzero(test_class == k)
        draws[1:, mine] = random.multinomial(
            len(mine), np.full(len(mine), 1 / len(mine)), size=_RESAMPLES
        )
    return _Split(train, train_class, test, test_class, len(task.classes), seed, draws)


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Accuracy and AUROC on the test texts (first) and on resamples of them, (1 + resamples,)."""

    accuracy: Float64
    auroc: Float64

    def score(
        self, method: str, k: int | None, raw: _Outcome | None = None,
        readout: str | None = None, basis: str | None = None,
    ) -> ProbeScore:  # fmt: skip
        ratio = _ratio(self.accuracy, (self if raw is None else raw).accuracy)
        return ProbeScore(
            method, readout, basis, k, _of_samples(self.accuracy), _of_samples(self.auroc),
            _of_samples(ratio),
        )  # fmt: skip


def _baselines(
    pooled: _Pooled, split: _Split, ks: Sequence[int | None]
) -> tuple[_Outcome, list[ProbeScore]]:
    """Raw activations with all dimensions, and the lines of what needs no dictionary."""
    raw = _Matrix(pooled.raw)
    whole = _evaluate(raw, split, None)
    scores = [
        (whole if k is None else _evaluate(raw, split, k)).score(RAW, k, whole)
        for k in ks
        if k is None or k <= raw.width
    ]
    mean = pooled.raw[split.train].mean(axis=0, dtype=np.float64)
    _, sizes, axes = np.linalg.svd(pooled.raw[split.train] - mean, full_matrices=False)
    axes = axes[sizes > sizes[0] * 1e-6]
    components = (pooled.raw - mean) @ axes.T
    for k in ks:
        if k is not None and k <= len(axes):
            first = _evaluate(_Matrix(components[:, :k]), split, k)
            scores.append(first.score(FIRST_COMPONENTS, k, whole))
            scores.append(_evaluate(_Matrix(components), split, k).score(COMPONENTS, k, whole))
    return whole, scores


def _permuted(
    features: _Matrix | _Product,
    split: _Split,
    name: tuple[str, str],
    ks: Sequence[int | None],
    seeds: Iterable[int],
) -> list[ProbeScore]:
    """Training labels permuted, test labels as they are."""
    shuffled = [
        replace(split, train_class=np.random.default_rng([s, 1]).permutation(split.train_class))
        for s in seeds
    ]
    return [
        _over_seeds(PERMUTED, k, [_evaluate(features, other, k) for other in shuffled], *name)
        for k in ks
    ]


def _majority(n_classes: int) -> ProbeScore:
    chance = Interval(1 / n_classes, 1 / n_classes, 1 / n_classes)
    return ProbeScore(MAJORITY, None, None, None, chance, Interval(0.5, 0.5, 0.5), None)


def _over_seeds(
    method: str,
    k: int | None,
    outcomes: Sequence[_Outcome],
    readout: str | None = None,
    basis: str | None = None,
) -> ProbeScore:
    accuracy = np.array([outcome.accuracy[0] for outcome in outcomes])
    auroc = np.array([outcome.auroc[0] for outcome in outcomes])
    return ProbeScore(
        method, readout, basis, k, _range(accuracy), _range(auroc), None, tuple(accuracy.tolist())
    )


def _evaluate(features: _Matrix | _Product, split: _Split, k: int | None) -> _Outcome:
    """Fit on the training texts and score on the test texts; of k dimensions, or of all."""
    from sklearn import config_context
    from threadpoolctl import threadpool_limits

    train, test = split.train, split.test
    if k is None:
        features, train, test = _compact(features, train, test)
    fits = range(1, 2) if split.n_classes == 2 else range(split.n_classes)
    # Problems so small only wait for a second thread.
    with (
        threadpool_limits(1, user_api="blas"),
        config_context(assume_finite=True, skip_parameter_validation=True),
    ):
        decisions = np.stack(
            [_one_against_rest(features, train, test, split, label, k) for label in fits], axis=1
        )
    told = decisions[:, 0] > 0 if split.n_classes == 2 else decisions.argmax(axis=1)
    right = told == split.test_class
    recalls, aurocs = [], []
    for label in range(split.n_classes):
        mine = split.test_class == label
        recalls.append(split.draws[:, mine] @ right[mine] / mine.sum())
        if label in fits:
            column = decisions[:, label - fits[0]]
            aurocs.append(weighted_aurocs(column, mine, split.draws))
    return _Outcome(np.mean(recalls, axis=0), np.mean(aurocs, axis=0))


def _one_against_rest(
    features: _Matrix | _Product,
    train: Int64,
    test: Int64,
    split: _Split,
    label: int,
    k: int | None,
) -> Float64:
    """(test texts,) decisions: positive for the class."""
    positive = split.train_class == label
    fold = _folds(positive, split.seed)
    losses = np.zeros(len(_PENALTIES))
    for number in range(fold.max() + 1):
        held = fold == number
        decisions = _decisions(features, train[~held], positive[~held], train[held], k, _PENALTIES)
        sign = np.where(positive[held], -1.0, 1.0)
        weight = np.where(positive, 1 / positive.sum(), 1 / (~positive).sum())[held]
        losses += np.logaddexp(0, sign * decisions) @ weight
    penalty = _PENALTIES[int(losses.argmin())]
    return _decisions(features, train, positive, test, k, (penalty,))[0]


def _decisions(
    features: _Matrix | _Product,
    train: Int64,
    positive: Any,
    test: Int64,
    k: int | None,
    penalties: Sequence[float],
) -> Float64:
    """(penalties, test texts). The chosen dimensions are scaled by one number, so that their
    squared deviation is 1 a text, and the penalties mean the same for every method.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    chosen = np.arange(features.width)
    if k is not None:
        difference = np.abs(features.difference(train[positive], train[~positive]))
        chosen = np.argsort(-difference, kind="stable")[:k]
    x, z = features.columns(train, chosen), features.columns(test, chosen)
    mean = x.mean(axis=0)
    scale = np.sqrt(((x - mean) ** 2).sum(axis=1).mean()) or 1.0
    x, z = (x - mean) / scale, (z - mean) / scale
    solver = "newton-cholesky" if x.shape[1] <= _FEW_DIMENSIONS else "lbfgs"
    found = []
    with warnings.catch_warnings():  # a fit that stops early is one more regularised
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in penalties:
            model = LogisticRegression(
                C=penalty, class_weight="balanced", solver=solver, max_iter=1000
            )
            found.append(model.fit(x, positive).decision_function(z))
    return np.array(found)


def _folds(positive: Any, seed: int) -> Int64:
    """(n,) which fold a training text is held out in; each class is spread evenly."""
    n_folds = max(2, min(_FOLDS, positive.sum(), (~positive).sum()))
    fold = np.empty(len(positive), np.int64)
    random = np.random.default_rng([seed, 2])
    for mine in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        fold[random.permutation(mine)] = np.arange(len(mine)) % n_folds
    return fold


def _compact(
    features: _Matrix | _Product, train: Int64, test: Int64
) -> tuple[_Matrix, Int64, Int64]:
    """Coordinates in the span of the training texts, of which there are no more than these.

    A logistic regression with a squared penalty has its weights in that span, so the probe is the
    same.
    """
    x, z = features.whole(train), features.whole(test)
    if x.shape[1] > len(train):
        products, others = (np.asarray(_dense(part @ x.T), np.float64) for part in (x, z))
        values, axes = np.linalg.eigh(products)
        keep = values > values.max() * 1e-10
        axes = axes[:, keep] / np.sqrt(values[keep])
        x, z = products @ axes, others @ axes
    both = np.concatenate([_dense(x), _dense(z)]).astype(np.float64)
    return _Matrix(both), np.arange(len(train)), len(train) + np.arange(len(test))


def _dense(values: Any) -> Any:
    return values if isinstance(values, np.ndarray) else values.toarray()


def _of_samples(samples: Float64) -> Interval:
    """The first is the estimate, the others its resamples."""
    return interval(samples[1:], float(samples[0]))


def _ratio(samples: Float64, raw: Float64) -> Float64:
    """NaN where raw activations tell no text right."""
    return np.divide(samples, raw, out=np.full(len(raw), np.nan), where=raw > 0)


def _range(values: Any) -> Interval:
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def _key(score: ProbeScore) -> tuple[Any, ...]:
    return score.method, score.readout, score.basis, score.k


def _check_settings(
    dictionary: Dictionary,
    rows: TextRows,
    readouts: Sequence[str],
    bases: Sequence[str],
) -> None:
    if rows.vectors.shape[1] != dictionary.width:
        raise ValueError(
            f"the texts' rows have width {rows.vectors.shape[1]}, this dictionary "
            f"{dictionary.width}; read them at the dictionary's site"
        )
    unknown = [name for name in readouts if name not in _readout.READOUTS]
    if unknown or not readouts:
        found = f'readout is "{unknown[0]}"' if unknown else "no readout was given"
        raise ValueError(f"{found}, expected some of {', '.join(_readout.READOUTS)}")
    for basis in bases:
        dictionary.basis(basis)
    if not bases:
        raise ValueError('no basis was given; give "exemplar", "mean", or both')


def _check_probes(dictionary: Dictionary, k_sparse: Sequence[int], seeds: int) -> None:
    n_regions = len(dictionary)
    if n_regions < 2:
        raise ValueError(
            f"the dictionary has {n_regions} region, so all texts have the same code; build it "
            "with a smaller percentile"
        )
    wrong = [k for k in k_sparse if not 1 <= k <= n_regions]
    if wrong:
        raise ValueError(f"k is {wrong[0]}, expected 1 to {n_regions}, the number of regions")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, expected 1 or more")
