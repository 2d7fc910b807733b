"""Is a domain covered? Regions against rows, the chance of a new one, and a forecast.

The sampling unit is the document: rows of one document are dependent, documents in random order are
not. A build keeps, for each document, the regions there were when it ended. Their increments are
counts with an expectation that falls as the dictionary grows: a power law with an offset,

    Λ(n) = A ((n + n₀)^β − n₀^β) / β        new regions in the first n rows,

which is Heaps' law where n₀ = 0, levels off where β < 0, and bends between. Counts are fitted by
weighted quasi-likelihood on a grid of (β, n₀), and every answer is an average over that grid, so
that what the rows leave open is in the interval.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exemplars import building, corpora, store
from exemplars.analyses.detection import Interval
from exemplars.building import UnfinishedRun
from exemplars.calibration import Calibration
from exemplars.corpora import Texts
from exemplars.dictionary import Dictionary
from exemplars.errors import SourceError
from exemplars.geometry import Float64, Int64

FEWEST_DOCUMENTS = 10
"""Fewer say nothing of how much documents differ."""
QUIET_DOCUMENTS = 32
"""Documents of the published method's batch, whose first one without a new region ends a build."""
BACKTEST_SHARE = 0.3
_SMALL = 1e-9
"""In the place of β = 0, where the power law is a logarithm."""
_EXPONENTS = np.concatenate([np.arange(-20, 0) / 20, [_SMALL], np.arange(1, 21) / 20])
_OFFSETS = 2.0 ** np.arange(-12.0, 2.1, 0.5)
"""n₀ over the rows there are."""
_BINS = 100
_DRAWS = 4000
_COLUMNS = ("document", "rows", "regions", "singletons")


@dataclass(frozen=True)
class Curve:
    """Regions against rows of one stream. Arrays are (M,), one entry where each document ends."""

    name: str
    document: Int64
    """Its number in the source."""
    rows: Int64
    """Rows of the stream up to here, ascending."""
    regions: Int64
    """Regions there were by then."""
    singletons: Int64
    """Of them, with one member."""
    threshold: float
    percentile: float
    frame: Mapping[str, str]
    """What curves must share to be compared: model, site, tokenization, center, threshold."""
    ending: str
    """Why it ends here, in words."""
    shuffled: bool
    """Whether the documents came in random order."""

    @property
    def documents(self) -> int:
        """M."""
        return len(self.rows)

    def first(self, documents: int) -> Curve:
        """The curve of its first documents."""
        part = slice(0, documents)
        return replace(
            self,
            document=self.document[part],
            rows=self.rows[part],
            regions=self.regions[part],
            singletons=self.singletons[part],
        )


@dataclass(frozen=True)
class Forecast:
    """What more rows of the same kind of text, in new documents, add."""

    rows: int
    """More rows."""
    regions: Interval
    """More regions."""
    as_now: float
    """The null: what they would add if the chance of now stayed."""
    heaps: float
    """Plain Heaps' law through all of the curve (n₀ = 0)."""


@dataclass(frozen=True)
class Backtest:
    """The same forecast, made from the first part of these rows, beside what came."""

    from_rows: int
    rows: int
    found: int
    """Regions at `rows`."""
    foretold: Interval
    as_now: float
    """The nulls' numbers of regions at `rows`."""
    heaps: float
    error: float
    """(foretold − found) / found."""
    held: bool
    """Whether the 95 % interval holds what came."""


@dataclass(frozen=True)
class QuietBatch:
    """Where the published rule would have stopped: the first batch without a new region."""

    documents: int
    rows: int
    regions: int
    later_rows: int
    later_regions: int


@dataclass(frozen=True)
class Growth:
    """What a curve says of its domain. What documents are too few for is None."""

    curve: Curve
    chance: Interval | None
    """Of a row of the next document to found a region: estimate and 95 % interval."""
    singleton_share: float
    """Singletons over rows, the Good-Turing estimate if rows were independent: biased low here."""
    exponent: Interval | None
    """β: 1 is steady growth, 0 a logarithm; below 0 the regions come to an end."""
    dispersion: float
    """Variance of documents' new regions over their expectation, at least 1."""
    forecasts: tuple[Forecast, ...]
    backtest: Backtest | None
    quiet: QuietBatch | None
    target: float
    rows_to_target: Interval | None
    """Rows in all until the chance is the target; infinity where it stays above."""
    verdict: str
    """Whether all of the chance's interval lies below the target ("covered"), above it ("not
    covered"), or neither ("undecided")."""


def curve_of(dictionary: Dictionary, name: str = "") -> Curve:
    """The growth of a dictionary that was built from text.

    Raises:
        ValueError: It has no growth table, as one made from arrays.
    """
    table, about = dictionary.growth, dictionary.provenance
    if table is None or not len(table):
        raise ValueError(
            "the dictionary has no growth table, as it was not built from documents; build it from "
            "text"
        )
    budget = (about.get("stream") or {}).get("budget") or {}
    return Curve(
        name=name,
        **{key: table[key].to_numpy() for key in _COLUMNS},
        threshold=dictionary.threshold,
        percentile=dictionary.percentile,
        frame=frame_of(about, dictionary.calibration, dictionary.threshold),
        ending=_ending(bool(about.get("complete", True)), dictionary.rows, budget),
        shuffled=about.get("seed") is not None,
    )


def curve_of_unfinished(run: UnfinishedRun, name: str = "") -> Curve:
    """The growth of a build that runs or was interrupted, up to its last checkpoint."""
    threshold, about = run.calibration.threshold(run.percentile), run.settings
    sites = {site["name"]: site for site in about.get("sites", ())}
    return Curve(
        name=name,
        **{key: run.growth[key] for key in _COLUMNS},
        threshold=threshold,
        percentile=run.percentile,
        frame=frame_of({**about, "site": sites.get(run.site)}, run.calibration, threshold),
        ending="the build has come so far",
        shuffled=about.get("seed") is not None,
    )


def curves_in(
    folder: str | os.PathLike[str], by_source: bool = False, texts: Texts | None = None
) -> list[Curve]:
    """The curves of a folder: of a build that runs or was interrupted, or of dictionaries.

    Args:
        folder: A dictionary, several of one build, or where an unfinished build writes.
        by_source: A curve for each folder or file of the texts.
        texts: The texts of the build. Default: looked for where the manifest says they are.

    Returns:
        None as long as the build calibrates.

    Raises:
        FormatError: There is neither.
        SourceError: The texts are not there, or are others by now.
    """
    place = Path(folder)
    found: list[tuple[Curve, Any]] = []
    if building.is_unfinished(place):
        runs = building.unfinished(place)
        names = [building.run_name(run.site, run.percentile) for run in runs]
        found = [
            (curve_of_unfinished(run, name), run.settings.get("texts"))
            for run, name in zip(runs, names, strict=True)
            if len(run.growth["rows"])
        ]
    else:
        several = sorted(path.parent for path in place.glob(f"*/{store.MANIFEST}"))
        one = (place / store.MANIFEST).exists() or not several
        for path in [place] if one else several:
            dictionary = store.load(path)
            found.append((curve_of(dictionary, path.name), dictionary.provenance.get("texts")))
    if not by_source:
        return [curve for curve, _ in found]
    return [part for curve, about in found for part in sources_of(curve, about, texts).values()]


def sources_of(
    curve: Curve, about: Mapping[str, Any] | None, texts: Texts | None = None
) -> dict[str, Curve]:
    """`by_source_of` with the sources that the documents' names tell.

    Args:
        curve: Of all documents.
        about: The description of the texts in the manifest.
        texts: Those texts; None looks for them.

    Raises:
        SourceError: The texts are not there, or are others by now.
        ValueError: Each document is a source of its own.
    """
    if not isinstance(about, Mapping):
        raise SourceError(f"{curve.name} does not say what texts it was built from")
    if texts is None:
        texts = corpora.reopened(about)
    elif texts.describe().get("sha256") != about.get("sha256"):
        raise SourceError(f"the texts are not those that {curve.name} was built from; give them")
    names = {document.number: document.name for document in texts.fetch(curve.document)}
    sources = [source_of(names[int(number)]) for number in curve.document]
    if len(set(sources)) == curve.documents > 1:
        raise ValueError(
            f"each of the {curve.documents} documents is a file of its own, in no folder (as "
            f"{sources[0]}); put each source in a folder"
        )
    return by_source_of(curve, sources)


def source_of(name: str) -> str:
    """The first folder of a document's name; its file, where it is a line of one."""
    folder, slash, _ = name.partition("/")
    return folder if slash else name.rpartition(":")[0] or name


def frame_of(
    about: Mapping[str, Any], calibration: Calibration, threshold: float
) -> dict[str, str]:
    """What two curves must share to be compared, in words."""
    model, site = about.get("model") or {}, about.get("site") or {}
    center = hashlib.sha256(calibration.center.tobytes()).hexdigest()[:12]
    return {
        "model": str(model.get("fingerprint") or model.get("name")),
        "site": str(site.get("name")),
        "tokenization": str(about.get("tokenization")),
        "center": center,
        "θ": f"{threshold:.6g}",
    }


def incomparable(curves: Sequence[Curve]) -> tuple[str, ...]:
    """Which parts of their frames differ: regions of such curves are of different sizes."""
    return tuple(
        part
        for part in (curves[0].frame if curves else ())
        if len({curve.frame.get(part) for curve in curves}) > 1
    )


def by_source_of(curve: Curve, sources: Sequence[str]) -> dict[str, Curve]:
    """One curve for each source of the documents: its rows, and the regions that it founded.

    The regions are shared: what another source founded before is not founded again. Singletons
    belong to no source, and are -1.

    Args:
        curve: Of all documents.
        sources: (M,) the source of each document.
    """
    if len(sources) != curve.documents:
        raise ValueError(f"{len(sources)} sources were given for {curve.documents} documents")
    rows, regions = np.diff(curve.rows, prepend=0), np.diff(curve.regions, prepend=0)
    names = np.asarray(sources)
    found = {}
    for name in dict.fromkeys(sources):
        mine = names == name
        cumulated = np.cumsum(rows[mine])
        found[name] = replace(
            curve,
            name=f"{curve.name} {name}".strip(),
            document=curve.document[mine],
            rows=cumulated,
            regions=np.cumsum(regions[mine]),
            singletons=np.full(len(cumulated), -1),
        )
    return found


def growth(
    curve: Curve, *, more_rows: Sequence[int] = (1_000_000,), target: float = 0.01
) -> Growth:
    """What a curve says: the chance of a new region, how many will come, and whether it is enough.

    The answers hold for new documents of the same kind, if the documents of the curve came in
    random order. The backtest looks whether they behave so.

    Args:
        curve: Of a dictionary, finished or not.
        more_rows: Forecast for each of these numbers of further rows.
        target: The chance at which a domain counts as covered, in (0, 1).

    Raises:
        ValueError: A target outside (0, 1), or a number of rows that is not positive.
    """
    if not 0 < target < 1:
        raise ValueError(f"the target is {target:g}, expected a chance between 0 and 1")
    if any(rows < 1 for rows in more_rows):
        raise ValueError(f"a forecast was asked for {min(more_rows)} rows; give a positive number")
    n, regions = int(curve.rows[-1]), int(curve.regions[-1])
    singles = int(curve.singletons[-1])
    share = singles / n if singles >= 0 else math.nan
    quiet = quiet_batch(curve)
    if curve.documents < FEWEST_DOCUMENTS or not regions:
        nothing = None, share, None, math.nan, (), None
        return Growth(curve, *nothing, quiet, target, None, "undecided")
    fit = GrowthFit(curve)
    heaps = plain_heaps(curve)
    chance = fit.chance()
    forecasts = (
        Forecast(rows, fit.added(rows), chance.estimate * rows, heaps(n + rows) - heaps(n))
        for rows in more_rows
    )
    return Growth(
        curve=curve,
        chance=chance,
        singleton_share=share,
        exponent=fit.exponent(),
        dispersion=fit.dispersion,
        forecasts=tuple(forecasts),
        backtest=backtest(curve),
        quiet=quiet,
        target=target,
        rows_to_target=fit.rows_to(target),
        verdict=verdict(chance, target),
    )


def verdict(chance: Interval, target: float) -> str:
    """See `Growth.verdict`."""
    if chance.high <= target:
        return "covered"
    return "not covered" if chance.low > target else "undecided"


class GrowthFit:
    """The distribution over (A, β, n₀) that a curve leaves.

    The quasi-likelihood is that of Poisson counts over the dispersion of documents about the best
    curve. A document weighs as its place in the stream: what lies near the end says more about
    the end. A is maximised for each (β, n₀) and has a gamma distribution about that.

    Args:
        curve: At least one region.
        seed: Of the draws that intervals are taken from.
    """

    def __init__(self, curve: Curve, seed: int = 0) -> None:
        self.n = float(curve.rows[-1])
        exponent, offset = np.meshgrid(_EXPONENTS, self.n * _OFFSETS, indexing="ij")
        self._exponent, self._offset = exponent.ravel(), offset.ravel()
        ends, found = binned(curve)
        expected = np.diff(self._shape(np.concatenate([[0.0], ends])), axis=1)
        weight = ends / self.n
        self._amplitude = (weight * found).sum() / (expected * weight).sum(axis=1)
        expected *= self._amplitude[:, None]
        likelihood = (weight * (found * np.log(expected) - expected)).sum(axis=1)
        best = int(likelihood.argmax())
        self.dispersion = self._dispersion(curve, best)
        share = np.exp((likelihood - likelihood[best]) / self.dispersion)
        counts = (weight * found).sum() ** 2 / (weight**2 * found).sum()
        shape = max(counts / self.dispersion, 0.5)
        random = np.random.default_rng([seed, 0])
        self._seed = seed
        self._cell = random.choice(len(share), _DRAWS, p=share / share.sum())
        self._scale = self._amplitude[self._cell] * random.gamma(shape, 1 / shape, _DRAWS)

    def chance(self, rows: int | None = None) -> Interval:
        """That a row of the next document founds a region.

        Args:
            rows: The interval is for the share among so many rows of new documents, each read
                next; None for their expectation.
        """
        rate = np.minimum(self._scale * self._slope(self.n), 1.0)
        if rows is None:
            return _interval(rate)
        return _interval(self._counted(rate * rows) / rows, float(np.median(rate)))

    def added(self, rows: int) -> Interval:
        """Regions that so many more rows found."""
        grown = self._shape(np.array([self.n, self.n + rows]))[self._cell]
        expected = np.minimum(self._scale * (grown[:, 1] - grown[:, 0]), rows)
        return _interval(self._counted(expected), float(np.median(expected)))

    def exponent(self) -> Interval:
        """β."""
        return _interval(self._exponent[self._cell])

    def rows_to(self, target: float) -> Interval:
        """Rows in all until the chance has fallen to the target; infinity where it never does."""
        b, z = self._exponent[self._cell], self._offset[self._cell]
        with np.errstate(divide="ignore", over="ignore"):
            rows = (target / self._scale) ** (1 / np.minimum(b - 1, -_SMALL)) - z
        there = self._scale * self._slope(self.n) <= target
        return _interval(np.where(there, self.n, np.maximum(rows, self.n)))

    def _shape(self, rows: Float64) -> Float64:
        """((n + n₀)^β − n₀^β) / β of each cell at each n: (cells, len(rows))."""
        b, z = self._exponent[:, None], self._offset[:, None]
        return np.asarray(((rows + z) ** b - z**b) / b)

    def _slope(self, rows: float) -> Float64:
        b, z = self._exponent[self._cell], self._offset[self._cell]
        return np.asarray((rows + z) ** (b - 1))

    def _counted(self, expected: Float64) -> Float64:
        """Counts with this expectation and the documents' dispersion."""
        random = np.random.default_rng([self._seed, 1])
        return np.asarray(random.poisson(expected / self.dispersion) * self.dispersion, np.float64)

    def _dispersion(self, curve: Curve, best: int) -> float:
        b, z = self._exponent[best], self._offset[best]
        grown = ((np.concatenate([[0], curve.rows]) + z) ** b - z**b) / b
        expected = self._amplitude[best] * np.diff(grown)
        found = np.diff(curve.regions, prepend=0)
        return max(float(((found - expected) ** 2).sum() / expected.sum()), 1.0)


def backtest(curve: Curve, share: float = BACKTEST_SHARE) -> Backtest | None:
    """The forecast that the first part of the rows would have given, beside what came.

    None where that part has fewer than `FEWEST_DOCUMENTS` documents or no region.
    """
    rows = int(curve.rows[-1])
    early = curve.first(int(np.searchsorted(curve.rows, share * rows)))
    if early.documents < FEWEST_DOCUMENTS or not early.regions[-1]:
        return None
    n, regions = int(early.rows[-1]), int(early.regions[-1])
    fit, heaps = GrowthFit(early), plain_heaps(early)
    added, found = fit.added(rows - n), int(curve.regions[-1])
    foretold = Interval(*(regions + v for v in (added.estimate, added.low, added.high)))
    return Backtest(
        from_rows=n,
        rows=rows,
        found=found,
        foretold=foretold,
        as_now=regions + fit.chance().estimate * (rows - n),
        heaps=regions + heaps(rows) - heaps(n),
        error=foretold.estimate / found - 1,
        held=foretold.low <= found <= foretold.high,
    )


def plain_heaps(curve: Curve) -> Callable[[float], float]:
    """Heaps' law A n^β through the same counts, unweighted: regions at any number of rows."""
    ends, found = binned(curve)
    exponents = _EXPONENTS[_EXPONENTS > 2 * _SMALL]
    grown = np.concatenate([[0.0], ends]) ** exponents[:, None]
    expected = np.diff(grown, axis=1)
    expected *= found.sum() / expected.sum(axis=1, keepdims=True)
    best = int((found * np.log(expected)).sum(axis=1).argmax())
    amplitude = found.sum() / ends[-1] ** exponents[best]
    return lambda rows: float(amplitude * rows ** exponents[best])


def quiet_batch(curve: Curve, documents: int = QUIET_DOCUMENTS) -> QuietBatch | None:
    """Where the published rule stops: at the first of consecutive batches that founds nothing.

    Source: Rumbelow 2026 (arXiv:2605.14347), saturation: batches of 32 texts, a window of one.
    """
    ends = np.arange(documents, curve.documents + 1, documents) - 1
    if not len(ends):
        return None
    founded = np.diff(curve.regions[ends], prepend=0)
    quiet = np.flatnonzero(founded == 0)
    if not len(quiet):
        return None
    rows, regions = int(curve.rows[ends[quiet[0]]]), int(curve.regions[ends[quiet[0]]])
    return QuietBatch(
        documents, rows, regions, int(curve.rows[-1]) - rows, int(curve.regions[-1]) - regions
    )


def binned(curve: Curve, bins: int = _BINS) -> tuple[Float64, Float64]:
    """Ends in rows, and new regions, of at most so many runs of whole documents."""
    wanted = curve.rows[-1] * np.arange(1, bins + 1) / bins
    last = np.unique(np.minimum(np.searchsorted(curve.rows, wanted), curve.documents - 1))
    return (
        curve.rows[last].astype(np.float64),
        np.diff(curve.regions[last], prepend=0).astype(np.float64),
    )


def _interval(draws: Float64, estimate: float | None = None) -> Interval:
    """Median and 95 % interval. Infinite draws sort last, and are not averaged with others."""
    low, median, high = np.quantile(draws, [0.025, 0.5, 0.975], method="nearest")
    return Interval(float(median if estimate is None else estimate), float(low), float(high))


def _ending(complete: bool, rows: int, budget: Mapping[str, Any]) -> str:
    """Why a build's curve ends where it does, as far as its manifest tells."""
    if not complete:
        return "the build was interrupted"
    if budget.get("rows") is not None and rows >= budget["rows"]:
        return "the budget of rows was reached"
    if budget.get("patience") is not None:
        return f"{budget['patience']:,} rows without a region, or no more documents"
    if budget.get("tokens") is not None:
        return "the budget of tokens was reached, or no more documents"
    return "all documents were read"
