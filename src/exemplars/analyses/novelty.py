"""Whether texts are unlike what a dictionary was built from: tokens, documents, and whole sets.

Texts are read in passages, each by itself. A token has a score from the dictionary alone
(`exemplars.analyses.densities`); what a score means is found by reading other documents of the
build's own kind, none of which it has seen (`exemplars.analyses.conformal`). Without such documents
there are scores and no p-values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exemplars.analyses.conformal import (
    LEAST_DOCUMENTS,
    HistogramShift,
    MeanScore,
    SetTest,
    UsualScores,
    exchange_test,
    region_counts,
)
from exemplars.analyses.labelled import OnStep
from exemplars.analyses.passages import PassageReader, ScoredDocument, read_some
from exemplars.corpora import Texts
from exemplars.dictionary import Dictionary
from exemplars.errors import SourceError
from exemplars.geometry import Float64
from exemplars.tokenization import LocatedDocument, excerpt, locate

if TYPE_CHECKING:
    from exemplars.models import Model

SCORE = "mean"
"""The default score of a token."""
CALIBRATION_ROWS = 50_000


@dataclass(frozen=True)
class DocumentNovelty:
    """How unusual one document is."""

    document: int
    name: str
    rows: int
    regions: int
    """Distinct ones it passes through."""
    score: float
    """Mean over its tokens."""
    distance: float
    """Mean cosine distance to the nearest exemplar."""
    distance_in_thresholds: float
    within_threshold: float
    """Share of its tokens within θ of an exemplar, in [0, 1]."""
    p: float
    """How often a document of the build's kind scores as high; NaN where that cannot be said."""


@dataclass(frozen=True)
class TokenNovelty:
    """One of the most unusual tokens, in its context."""

    document: int
    name: str
    position: int
    before: str
    text: str
    after: str
    region: int
    distance: float
    distance_in_thresholds: float
    score: float
    p: float
    """How often a token of a document of the build's kind scores as high."""


@dataclass(frozen=True)
class Usual:
    """What p-values compare with: documents of the build's kind that it has not seen."""

    source: str
    """What they are; where there are none, why: the end of a sentence."""
    documents: int
    rows: int
    least_p: float
    """The smallest p-value that so many documents can give."""
    score: float
    """Mean over documents of their mean scores, as are the next two; NaN without documents."""
    distance: float
    within_threshold: float


@dataclass(frozen=True, eq=False)
class NoveltyReport:
    """What is unusual in a set of texts, beside documents of the build's own kind."""

    site: str
    percentile: float
    threshold: float
    score: str
    """Name of the score."""
    passage_rows: int
    level: float
    """At or below which a p-value counts as small."""
    documents: tuple[DocumentNovelty, ...]
    empty: int
    """Documents without a row, not among these."""
    tests: tuple[SetTest, ...]
    """Of the whole set: its mean score, and the shift of its region histogram."""
    p: float
    """Of the set: twice the smaller p-value of the tests; NaN where nothing can be said."""
    tokens: tuple[TokenNovelty, ...]
    """The most unusual first."""
    usual: Usual
    usual_scores: Float64
    """(M,) mean scores of the calibration's passages; empty without."""
    dropped: int
    """Rows left out, as a build leaves them out."""
    cannot: tuple[str, ...]
    """What cannot be concluded, and why: sentences."""

    @property
    def verdict(self) -> str:
        """One of "unlike", "alike" (there is no sign that it is not), and "unknown": no p-value, or
        none that could be small enough.
        """
        if np.isnan(self.p) or 2 * self.usual.least_p > self.level:
            return "unknown"
        return "unlike" if self.p <= self.level else "alike"

    @property
    def flagged(self) -> int:
        """Documents whose p-value is at most the level."""
        return sum(document.p <= self.level for document in self.documents)

    @property
    def rows(self) -> int:
        """Of all documents."""
        return sum(document.rows for document in self.documents)

    def mean(self, field: str) -> float:
        """Over all tokens of the set, of a field of `DocumentNovelty` that is such a mean."""
        values = [(getattr(d, field), d.rows) for d in self.documents]
        return sum(value * rows for value, rows in values) / self.rows


def novelty(
    dictionary: Dictionary,
    model: Model,
    texts: Texts,
    usual: Texts | None = None,
    *,
    source: str = "documents given for calibration",
    score: str = SCORE,
    passage_tokens: int | None = None,
    usual_rows: int = CALIBRATION_ROWS,
    n_tokens: int = 10,
    level: float = 0.05,
    permutations: int = 999,
    seed: int = 0,
    notes: Sequence[str] = (),
    on_step: OnStep | None = None,
) -> NoveltyReport:
    """Compare texts with what a dictionary was built from.

    Args:
        dictionary: Built from text with this model.
        model: The model.
        texts: What is asked about; all of it is read.
        usual: Documents of the build's kind that it has not read, as `passages.unread_texts` finds
            them; None: there are none, and no p-value is given.
        source: What `usual` is, or why there is none: the end of a sentence.
        score: One of `exemplars.analyses.densities.SCORES`.
        passage_tokens: Of a passage that the model reads by itself; default: 128, or the
            dictionary's context length if that is shorter.
        usual_rows: Of `usual` that are read, about.
        n_tokens: Tokens in the report.
        level: Of the verdict.
        permutations: Of the tests of the set.
        seed: Of the order of `usual`, its stretches, and the permutations.
        notes: Further limits of what can be concluded, as sentences.
        on_step: Told how many documents, and how many calibration rows, were read.

    Raises:
        ValueError: A bad argument, or `usual` are the very texts asked about.
        SourceError: The texts have no rows.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share in (0, 1)")
    if usual is not None and usual.describe() == texts.describe():
        raise ValueError("the calibration texts are the texts asked about; give other documents")
    reader = PassageReader(dictionary, model, score, passage_tokens)
    told = on_step or (lambda what, done, total: None)
    asked, empty = _read_asked(reader, texts, told)
    dropped = reader.dropped
    known: list[ScoredDocument] = []
    for document in [] if usual is None else read_some(reader, usual, usual_rows, seed):
        known.append(document)
        told("calibration rows", min(sum(map(len, known)), usual_rows), usual_rows)
    scores = UsualScores(tuple(document.score for document in known), reader.rows)
    theta = dictionary.threshold
    tests = _tests(asked, known, dictionary, reader.rows, permutations, seed)
    return NoveltyReport(
        site=reader.site,
        percentile=dictionary.percentile,
        threshold=theta,
        score=score,
        passage_rows=reader.rows,
        level=level,
        documents=tuple(_document(document, theta, scores) for document in asked),
        empty=empty,
        tests=tests,
        p=min(1.0, 2 * min(test.p for test in tests)) if tests else float("nan"),
        tokens=tuple(_tokens(asked, texts, reader, scores, n_tokens)),
        usual=_usual(known, scores, source, theta),
        usual_scores=np.concatenate([np.empty(0), *scores.windows(reader.rows)]),
        dropped=dropped,
        cannot=(*_limits(known, scores, level, usual is not None, source), *notes),
    )


def _read_asked(
    reader: PassageReader, texts: Texts, told: OnStep
) -> tuple[list[ScoredDocument], int]:
    """The documents that have rows, and how many have none."""
    found, n = [], 0
    total = texts.n_documents
    for n, document in enumerate(reader.read(texts), 1):
        found.append(document)
        told("documents", n, total or n)
    asked = [document for document in found if len(document)]
    if not asked:
        raise SourceError(
            "the texts have no rows: every document is empty or masked; give longer texts"
        )
    return asked, n - len(asked)


def _document(document: ScoredDocument, theta: float, scores: UsualScores) -> DocumentNovelty:
    score = float(document.score.mean())
    distance = float(document.distance.mean(dtype=np.float64))
    return DocumentNovelty(
        document=document.number,
        name=document.name,
        rows=len(document),
        regions=len(np.unique(document.region)),
        score=score,
        distance=distance,
        distance_in_thresholds=distance / theta,
        within_threshold=float((document.distance <= theta).mean()),
        p=scores.p_value(score, len(document)),
    )


def _usual(
    known: Sequence[ScoredDocument], scores: UsualScores, source: str, theta: float
) -> Usual:
    each = [_document(document, theta, scores) for document in known]

    def mean(field: str) -> float:
        return float(np.mean([getattr(d, field) for d in each])) if each else float("nan")

    return Usual(
        source=source,
        documents=len(known),
        rows=sum(map(len, known)),
        least_p=scores.least_p,
        score=mean("score"),
        distance=mean("distance"),
        within_threshold=mean("within_threshold"),
    )


def _tests(
    asked: Sequence[ScoredDocument],
    known: Sequence[ScoredDocument],
    dictionary: Dictionary,
    passage: int,
    permutations: int,
    seed: int,
) -> tuple[SetTest, ...]:
    """Of the set as a whole; none where there are too few documents to compare with."""
    alike = like_lengths(asked, known, passage, seed)
    if len(alike) < LEAST_DOCUMENTS:
        return ()
    several = [*asked, *alike]
    means = np.array([document.score.mean() for document in several])
    counts = region_counts([document.region for document in several], len(dictionary))
    shares = dictionary.counts / dictionary.counts.sum()
    return tuple(
        exchange_test(name, statistic, len(asked), permutations, seed)
        for name, statistic in (
            ("mean score", MeanScore(means)),
            ("region histogram", HistogramShift(counts, shares)),
        )
    )


def like_lengths(
    asked: Sequence[ScoredDocument], known: Sequence[ScoredDocument], passage: int, seed: int
) -> list[ScoredDocument]:
    """The calibration's documents cut to lengths that those asked about have.

    Each gets one of these lengths, all of them about equally often, and gives a run of so many rows
    that begins with a passage; a shorter document is left whole if it has a passage, and out if
    not. So lengths do not tell the two kinds apart, except where the calibration's are too short,
    which widens the null.
    """
    random = np.random.default_rng([seed, 0x1E46])
    lengths = np.resize(random.permutation([len(document) for document in asked]), len(known))
    found = []
    for document, rows in zip(known, lengths.tolist(), strict=True):
        if len(document) >= rows:
            start = passage * int(random.integers(0, (len(document) - rows) // passage + 1))
            found.append(document.cut(start, start + rows))
        elif len(document) >= passage:
            found.append(document)
    return found


def _tokens(
    asked: Sequence[ScoredDocument],
    texts: Texts,
    reader: PassageReader,
    scores: UsualScores,
    n: int,
) -> list[TokenNovelty]:
    """The tokens of the largest scores, ties to the earlier, in their contexts."""
    score = np.concatenate([document.score for document in asked])
    owner = np.repeat(np.arange(len(asked)), [len(document) for document in asked])
    first = np.concatenate([[0], np.cumsum([len(document) for document in asked])])
    chosen = np.argsort(-score, kind="stable")[:n]
    wanted = [asked[k].number for k in np.unique(owner[chosen])]
    places = {
        found.number: found
        for found in locate(texts, reader.model.tokenizer, reader.tokenization, wanted)
    }
    return [
        _token(asked[owner[k]], int(k - first[owner[k]]), places, reader, scores) for k in chosen
    ]


def _token(
    document: ScoredDocument,
    row: int,
    places: dict[int, LocatedDocument],
    reader: PassageReader,
    scores: UsualScores,
) -> TokenNovelty:
    found, place = places[document.number], int(document.place[row])
    before, text, after = excerpt(found.text, int(found.start[place]), int(found.end[place]))
    distance = float(document.distance[row])
    return TokenNovelty(
        document=document.number,
        name=document.name,
        position=int(found.position[place]),
        before=before,
        text=text,
        after=after,
        region=int(document.region[row]),
        distance=distance,
        distance_in_thresholds=distance / reader.dictionary.threshold,
        score=float(document.score[row]),
        p=scores.token_p_value(float(document.score[row])),
    )


def _limits(
    known: Sequence[ScoredDocument], scores: UsualScores, level: float, given: bool, source: str
) -> list[str]:
    if not given:
        return [
            f"No p-value can be given, as there are no documents of the build's kind to compare "
            f"with ({source}); give some with --calibration that the build has not read, or build "
            "with --hold-out."
        ]
    if len(known) < LEAST_DOCUMENTS:
        return [
            f"No p-value can be given: the calibration has {len(known)} documents with rows, and "
            f"fewer than {LEAST_DOCUMENTS} cannot show anything at 5 %; give more with "
            "--calibration. Passages of one document are alike, so more of each do not help."
        ]
    found = []
    if 2 * scores.least_p > level:
        found.append(
            f"{len(known)} calibration documents give the two tests of a set no p-value below "
            f"{2 * scores.least_p:.2g}, so nothing can be shown at {level:g}; give more with "
            "--calibration."
        )
    return found
