"""Text through a dictionary: the region and the distance of every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exemplars import store
from exemplars.activations import read_activations
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.corpora import Texts
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Int64, vector_norms
from exemplars.notebook import token_strip
from exemplars.tokenization import Tokenization, locate

if TYPE_CHECKING:
    from exemplars.models import Model


@dataclass(frozen=True)
class Trace:
    """One document, token by token: arrays (n,) over the rows that the masks keep."""

    document: int
    name: str
    text: str
    """What `start` and `end` refer to: the document, or the rendered conversation."""
    token: Int64
    position: Int64
    start: Int64
    end: Int64
    region: Int64
    """Nearest region; -1 where the row has no direction."""
    distance: Float32
    """Cosine distance to its exemplar; NaN where the region is -1."""
    threshold: float
    norm_outlier: NDArray[np.bool_]
    """Rows that a build would have dropped as attention sinks: read their region with care."""

    @property
    def distance_in_thresholds(self) -> Float32:
        """(n,) distance/θ: above 1 the token lies outside every region's radius."""
        return self.distance / np.float32(self.threshold)

    def tokens(self) -> list[str]:
        """The text of each row."""
        return [self.text[s:e] for s, e in zip(self.start, self.end, strict=True)]

    def _repr_html_(self) -> str:
        """The text as a notebook shows it."""
        name = self.name or f"document {self.document}"
        return token_strip(name, self.tokens(), self.region, self.distance_in_thresholds)


def trace(
    dictionary: Dictionary,
    model: Model,
    texts: Texts,
    *,
    tokenization: Tokenization | None = None,
    allow_mismatch: bool = False,
) -> list[Trace]:
    """The regions that texts pass through.

    Args:
        dictionary: Built from text (its provenance names the site and the tokenization).
        model: The model it is of.
        texts: Small: all of it is held.
        tokenization: Default: the dictionary's.
        allow_mismatch: Go on although the model is not the dictionary's.

    Returns:
        One `Trace` for each document that has rows, in order.

    Raises:
        MismatchError: Another model than the dictionary's.
        ValueError: The dictionary does not say which site it is of.
    """
    store.check_model(dictionary, model, allow_mismatch=allow_mismatch)
    site = dictionary.site
    if site is None:
        raise ValueError("the dictionary does not say which site it is of; assign vectors instead")
    tokenization = tokenization or tokenization_of(dictionary)
    parts: dict[int, list[tuple[Int64, Float32, NDArray[np.bool_]]]] = {}
    limit = dictionary.calibration.norm_limit
    for (batch,) in read_activations(model, [site], texts, tokenization):
        if not len(batch.document):
            continue
        vectors = as_vectors(batch.vectors)
        region, distance = dictionary.assign(vectors)
        outlier = vector_norms(vectors) > (np.inf if limit is None else limit)
        for number in dict.fromkeys(batch.document.tolist()):
            mine = batch.document == number
            parts.setdefault(number, []).append((region[mine], distance[mine], outlier[mine]))
    traces = []
    for found in locate(texts, model.tokenizer, tokenization, list(parts)):
        region, distance, outlier = (
            np.concatenate(columns) for columns in zip(*parts[found.number], strict=True)
        )
        traces.append(
            Trace(
                document=found.number,
                name=found.name,
                text=found.text,
                token=found.token,
                position=found.position,
                start=found.start,
                end=found.end,
                region=region,
                distance=distance,
                threshold=dictionary.threshold,
                norm_outlier=outlier,
            )
        )
    order = {number: k for k, number in enumerate(parts)}
    return sorted(traces, key=lambda t: order[t.document])
