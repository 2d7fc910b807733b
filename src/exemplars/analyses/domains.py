"""A text through a dictionary's calibration: how its own regions grow, and what the dictionary has.

Center and θ are the dictionary's, the exemplars are the text's own; so the curves of several texts
are of one frame, and can be compared. Each text is read once, to its end or to a number of rows.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars import store
from exemplars.analyses.detection import Interval
from exemplars.analyses.growth import Curve, frame_of
from exemplars.building import run_name, tokenization_of
from exemplars.calibration import as_vectors
from exemplars.clustering import LeaderClustering
from exemplars.corpora import Texts
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.errors import SourceError
from exemplars.geometry import Int64
from exemplars.streaming import Budget, DocumentIndex, OnProgress, Progress, Stream

if TYPE_CHECKING:
    from exemplars.models import Model


@dataclass(frozen=True)
class Domain:
    """One text, read with a dictionary's center and θ."""

    curve: Curve
    """Of regions of its own, from none."""
    inside: Interval
    """Share of its rows within θ of the dictionary's exemplars; the interval is over documents."""


def read_domain(
    dictionary: Dictionary,
    model: Model,
    texts: Texts,
    name: str = "",
    *,
    rows: int | None = None,
    seed: int = 0,
    allow_mismatch: bool = False,
    on_progress: OnProgress | None = None,
) -> Domain:
    """Read a text once, in random order of its documents.

    Args:
        dictionary: Built from text. Its center, θ, masks and tokenization hold here.
        model: The model it is of.
        texts: The domain. No document is read twice: where they end, the curve ends and says so.
        name: What to call it.
        rows: So many rows at most; None for all.
        seed: Of the documents' order.
        allow_mismatch: Go on although it is another model.
        on_progress: Called at every window.

    Raises:
        MismatchError: Another model than the dictionary's.
        SourceError: The text has no rows.
        ValueError: The dictionary does not say which site it is of.
    """
    about = dictionary.provenance
    if dictionary.site is None:
        raise ValueError("the dictionary does not say which site it is of; build it from text")
    store.check_model(dictionary, model, allow_mismatch=allow_mismatch)
    tokenization = tokenization_of(dictionary)
    stream = Stream.of(
        model, dictionary.site, texts, tokenization, seed,
        about.get("batch_tokens", 2048), about.get("window_tokens", 16384),
    )  # fmt: skip
    reading = _Reading(dictionary)
    budget, started, ended = Budget(rows, None, None), time.monotonic(), True
    for window in stream.windows():
        keep, last = budget.cut(window)
        batch = window.batches[0]
        reading.add(as_vectors(batch.vectors[:keep]), batch.first_row)
        reading.index.extend(window, batch.first_row + keep)
        if on_progress is not None:
            regions = {run_name(dictionary.site, dictionary.percentile): reading.n_regions}
            elapsed = time.monotonic() - started
            on_progress(Progress(name, batch.first_row + keep, rows, regions, elapsed))
        if last:
            ended = False
            break
    return reading.domain(name, ended)


class _Reading:
    """What is known of a text so far."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._own = LeaderClustering(dictionary.width, dictionary.threshold)
        self._nearest = dictionary.index("auto")
        self._rows: list[Int64] = [np.empty(0, np.int64)]
        self._region: list[Int64] = [np.empty(0, np.int64)]
        self._inside: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
        self.index = DocumentIndex()

    @property
    def n_regions(self) -> int:
        return self._own.n_regions

    def add(self, vectors: NDArray[np.float32], first_row: int) -> None:
        """The next rows, raw."""
        if not len(vectors):
            return
        dictionary = self._dictionary
        directions, rows, _ = usable_directions(vectors, first_row, dictionary.calibration)
        _, similarity = self._nearest.nearest(directions, dictionary.exemplars)
        self._rows.append(rows)
        self._inside.append(similarity >= 1 - dictionary.threshold)
        self._region.append(self._own.add(directions, rows).region)

    def domain(self, name: str, ended: bool) -> Domain:
        documents = self.index.arrays()
        ends = documents["rows"]
        if not len(ends):
            raise SourceError(f"{name or 'the text'} gave no rows; give longer documents")
        rows = np.concatenate(self._rows)
        dictionary = self._dictionary
        curve = Curve(
            name=name,
            document=documents["document"],
            rows=ends,
            regions=np.searchsorted(self._own.exemplar_rows, ends),
            singletons=singletons(np.concatenate(self._region), rows, ends),
            threshold=dictionary.threshold,
            percentile=dictionary.percentile,
            frame=frame_of(dictionary.provenance, dictionary.calibration, dictionary.threshold),
            ending="all documents were read" if ended else "the rows asked for were read",
            shuffled=True,
        )
        document = np.searchsorted(ends, rows, side="right")
        inside = np.bincount(document, np.concatenate(self._inside), len(ends))
        return Domain(curve, share(inside, np.bincount(document, minlength=len(ends))))


def singletons(region: Int64, rows: Int64, ends: Int64) -> Int64:
    """Regions with exactly one member among the rows before each end.

    Args:
        region: (N,) of each row.
        rows: (N,) their numbers, ascending.
        ends: (M,) row numbers.
    """
    order = np.argsort(region, kind="stable")
    sorted_region = region[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = sorted_region[1:] != sorted_region[:-1]
    second = np.zeros(len(order), np.bool_)
    second[1:] = first[:-1] & ~first[1:]
    founded, joined = np.sort(rows[order[first]]), np.sort(rows[order[second]])
    return np.searchsorted(founded, ends) - np.searchsorted(joined, ends)


def share(hits: NDArray[Any], of: NDArray[Any]) -> Interval:
    """Σ hits over Σ of, (M,) each, with the 95 % interval of a ratio over documents.

    NaN where one document says nothing of how they differ.

    Source: the linearised variance of a ratio estimator (Cochran 1977, §6.3).
    """
    m, total = len(of), float(of.sum())
    estimate = float(hits.sum()) / total
    if m < 2:
        return Interval(estimate, math.nan, math.nan)
    error = 1.96 * math.sqrt(m / (m - 1) * float(((hits - estimate * of) ** 2).sum())) / total
    return Interval(estimate, max(estimate - error, 0.0), min(estimate + error, 1.0))
