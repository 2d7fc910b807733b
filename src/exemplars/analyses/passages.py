"""Documents read in passages, each by itself, and what a dictionary says of their tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars import corpora
from exemplars.activations import read_activations
from exemplars.analyses.densities import RegionDensity
from exemplars.analyses.stream import stretch
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.corpora import Document, Texts
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.errors import SourceError
from exemplars.geometry import Float32, Float64, Int64
from exemplars.tokenization import Tokenization

if TYPE_CHECKING:
    from exemplars.models import Model

PASSAGE_TOKENS = 128
_AT_ONCE = 16
"""Documents read together."""
_CHARACTERS_PER_TOKEN = 6
"""Of a stretch: more than most texts have, so that it gives the rows wanted of it."""


@dataclass(frozen=True, eq=False)
class ScoredDocument:
    """One document's rows: arrays (n,) in the order of its text."""

    number: int
    name: str
    place: Int64
    """Of each among the document's rows, before those were left out that a build drops."""
    region: Int64
    distance: Float32
    """Cosine distance to the nearest exemplar."""
    score: Float64

    def __len__(self) -> int:
        return len(self.score)

    def cut(self, start: int, stop: int) -> ScoredDocument:
        """Rows `start` up to `stop`."""
        rows = slice(start, stop)
        return replace(
            self, place=self.place[rows], region=self.region[rows],
            distance=self.distance[rows], score=self.score[rows],
        )  # fmt: skip


class PassageReader:
    """Reads documents in passages and scores their tokens.

    Args:
        dictionary: Built from text.
        model: The model it is of.
        score: One of `exemplars.analyses.densities.SCORES`.
        passage_tokens: Of a passage; default: 128, or the dictionary's context length if that is
            shorter.

    Raises:
        ValueError: There is no such score, or the dictionary does not say which site it is of.
    """

    def __init__(
        self, dictionary: Dictionary, model: Model, score: str, passage_tokens: int | None = None
    ) -> None:
        if dictionary.site is None:
            raise ValueError(
                "the dictionary does not say which site it is of; build it with a model"
            )
        self.site: str = dictionary.site
        self.dictionary, self.model, self.score = dictionary, model, score
        self.density = RegionDensity.of(dictionary)
        nothing = np.empty(0, np.float32)
        self.density.scores(
            score, nothing.reshape(0, dictionary.width), np.empty(0, np.int64), nothing
        )
        own = tokenization_of(dictionary)
        n = min(PASSAGE_TOKENS, own.context_length) if passage_tokens is None else passage_tokens
        self.tokenization: Tokenization = replace(own, context_length=n, long_documents="split")
        self.rows: int = n - (not own.keep_first)
        """Of a whole passage."""
        self.dropped = 0
        """Rows left out so far."""

    def read(self, documents: Iterable[Document]) -> Iterator[ScoredDocument]:
        """Each document in turn; those without rows too, empty."""
        several = iter(documents)
        while part := list(itertools.islice(several, _AT_ONCE)):
            yield from self._scored(part)

    def _scored(self, part: Sequence[Document]) -> list[ScoredDocument]:
        listed = corpora.texts([document.content for document in part])
        pieces: list[list[tuple[Any, ...]]] = [[_NO_ROWS] for _ in part]
        n_seen = np.zeros(len(part), np.int64)
        for (batch,) in read_activations(self.model, [self.site], listed, self.tokenization):
            place, region, distance, score = self._columns(as_vectors(batch.vectors))
            document = batch.document[place]
            for number in np.unique(batch.document):
                whole, kept = batch.document == number, document == number
                first = int(np.argmax(whole)) - n_seen[number]
                pieces[number].append(
                    (place[kept] - first, region[kept], distance[kept], score[kept])
                )
                n_seen[number] += whole.sum()
        return [
            ScoredDocument(
                document.number, document.name, *map(np.concatenate, zip(*several, strict=True))
            )
            for document, several in zip(part, pieces, strict=True)
        ]

    def _columns(self, vectors: Float32) -> tuple[Int64, Int64, Float32, Float64]:
        """The rows that a build would keep: their places, regions, distances, and scores."""
        if not len(vectors):
            return _NO_ROWS
        directions, place, _ = usable_directions(vectors, 0, self.dictionary.calibration)
        self.dropped += len(vectors) - len(place)
        region, distance = self.dictionary.assign(vectors[place])
        return place, region, distance, self.density.scores(
            self.score, directions, region, distance
        )  # fmt: skip


_NO_ROWS = (
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0),
)  # fmt: skip


def read_some(
    reader: PassageReader, texts: Texts, rows: int, seed: int = 0
) -> Iterator[ScoredDocument]:
    """About so many rows of documents in a random order.

    The rows are shared among the documents: long ones give a random stretch of whole passages, at
    least one (of a stream, whose length is not known, four). Documents without rows are left out.

    Args:
        reader: What reads them.
        texts: Where from.
        rows: In all; reading ends with the document in which they are reached.
        seed: Of the order and of the stretches.
    """
    n = texts.n_documents
    each = reader.rows * (4 if n is None else max(1, round(rows / max(n, 1) / reader.rows)))
    random = np.random.default_rng([seed, 0x57EB])
    size = _CHARACTERS_PER_TOKEN * (each + reader.rows)
    stretches = (
        replace(document, content=stretch(document.content, size, random))
        for document in texts.shuffled(seed)
    )
    n_rows = 0
    for document in reader.read(stretches):
        if len(document):
            yield document.cut(0, each)
            n_rows += min(len(document), each)
        if n_rows >= rows:
            return


def unread_texts(
    dictionary: Dictionary, place: Texts | None = None
) -> tuple[Texts | None, str, tuple[str, ...]]:
    """Documents of a build's own source that it has not read.

    They are its held-out slice; without one, the documents after the last that it read.

    Args:
        dictionary: Built from text.
        place: Its texts, where they lie now; None: where its manifest says.

    Returns:
        texts: None where there are none, or the source cannot be opened again.
        source: What they are, or why there are none: the end of a sentence.
        notes: What is doubtful about them, as sentences.

    Raises:
        SourceError: `place` is not where the build's texts are.
    """
    about = dictionary.provenance.get("texts")
    if not isinstance(about, dict):
        return None, "the dictionary does not say what texts it was built from", ()
    try:
        held = corpora.held_out_slice(about, place)
        if held is not None:
            return held, "documents of the slice that the build held out", ()
        texts = corpora.reopened(about, place)
    except SourceError as error:
        if place is not None:
            raise
        return None, str(error), ()
    rest = _after_the_last_read(texts, dictionary)
    if rest is None:
        return None, "the build read all of its texts and held none out", ()
    in_order = not any("shuffle" in step for step in about.get("view", ()))
    return rest, "documents of the build's source that it did not come to", (_ORDER,) * in_order


_ORDER = (
    "The build read the first documents of its source, and the calibration is of later ones: if "
    "their order means something, the p-values are off. Build with --hold-out or --seed to be sure."
)


def _after_the_last_read(texts: Texts, dictionary: Dictionary) -> Texts | None:
    """The view's documents after the last that a build read; None if there are none."""
    growth = dictionary.growth
    if growth is None or not len(growth):
        return None
    last = growth["document"][-1].as_py()
    place = next((k for k, document in enumerate(texts) if document.number == last), None)
    rest = None if place is None else texts.slice(place + 1)
    return rest if rest is not None and next(iter(rest), None) is not None else None
