"""Texts that show a concept and texts that do not, and the activations of their tokens.

Training and test texts are apart from the start: an analysis selects on the one and reports the
other. Activations are read once for all concepts and all detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars import corpora
from exemplars.activations import ActivationShards, read_activations
from exemplars.calibration import as_vectors
from exemplars.errors import SourceError
from exemplars.geometry import Float32, Int64
from exemplars.tokenization import Tokenization

if TYPE_CHECKING:
    from exemplars.models import Model

SPLITS = ("positive", "negative", "test_positive", "test_negative", "test_hard_negative")
OnStep = Callable[[str, int, int], None]
"""Told how far a long call has come: of what, how many are done, and of how many."""
_LEAST = 2
_WINDOW_TOKENS = 4096
"""Read between two reports of progress."""


@dataclass(frozen=True)
class Concept:
    """Texts with and without a concept, in two parts that share none."""

    name: str
    positive: tuple[str, ...]
    """Training texts that show it; `negative` do not."""
    negative: tuple[str, ...]
    test_positive: tuple[str, ...]
    test_negative: tuple[str, ...]
    test_hard_negative: tuple[str, ...] = ()
    """Test texts that look as if they showed it."""
    left_out: int = 0
    """Training texts that were left out, as they are test texts too."""

    def texts(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys(text for split in SPLITS for text in getattr(self, split)))


def read_axbench(folder: str | Path, column: str = "output") -> list[Concept]:
    """The concepts of an AxBench folder: its `train_data.parquet` and `latent_eval_data.parquet`.

    A concept's training negatives are the shared rows of concept_id −1. A training text that is
    also one of the concept's test texts is left out of training, and counted in `left_out`.

    Args:
        folder: Where the two files are.
        column: Which text is scored: AxBench scores "output".

    Raises:
        SourceError: A file or a column is missing.
    """
    needed = (column, "category", "concept_id")
    train, test = (
        _table(Path(folder) / f"{name}.parquet", needed)
        for name in ("train_data", "latent_eval_data")
    )
    names = _names(test)
    shared = _rows(train, column, -1, "negative")
    return [
        _without_test_texts(
            Concept(
                name=names[k],
                positive=_rows(train, column, k, "positive"),
                negative=shared,
                test_positive=_rows(test, column, k, "positive"),
                test_negative=_rows(test, column, k, "negative"),
                test_hard_negative=_rows(test, column, k, "hard negative"),
            )
        )
        for k in sorted(set(test["concept_id"]) & set(train["concept_id"]) - {-1})
    ]


def read_concept(
    positive: str | Path,
    negative: str | Path,
    test_positive: str | Path | None = None,
    test_negative: str | Path | None = None,
    *,
    name: str | None = None,
    column: str = "text",
    test_share: float = 0.5,
    seed: int = 0,
) -> Concept:
    """One concept of two files, or of four.

    Args:
        positive: A file with a text on each line (.txt, .md), JSON Lines, Parquet, or a folder
            with a text in each file.
        negative: Likewise.
        test_positive: Texts to evaluate on; without them `test_share` of the training files'
            texts is set aside, by a permutation of `seed`.
        test_negative: Given if and only if `test_positive` is.
        name: Default: the stem of the positive file.
        column: Of JSON Lines and Parquet.
        test_share: In (0, 1).
        seed: Of the permutation.

    Raises:
        SourceError: A file is missing, or has no such column.
        ValueError: A file has too few texts, or one text is in both classes or both parts.
    """
    if (test_positive is None) != (test_negative is None):
        raise ValueError("test texts of one class alone were given; give both classes, or neither")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}, expected a share in (0, 1)")
    given = [read_lines(path, column) for path in (positive, negative)]
    if test_positive is None or test_negative is None:
        parts = [
            _halves(texts, test_share, seed, path)
            for texts, path in zip(given, (positive, negative), strict=True)
        ]
        train, test = [part[0] for part in parts], [part[1] for part in parts]
    else:
        train, test = given, [read_lines(path, column) for path in (test_positive, test_negative)]
    concept = Concept(
        name or Path(positive).stem,
        tuple(train[0]),
        tuple(train[1]),
        tuple(test[0]),
        tuple(test[1]),
    )
    _check_apart(concept)
    return concept


@dataclass(frozen=True, eq=False)
class TextRows:
    """The activations of distinct texts at one site; the rows of a text lie together."""

    site: str
    texts: tuple[str, ...]
    vectors: Float32
    """(N, D) raw."""
    starts: Int64
    """(T + 1,) text t has rows starts[t] up to starts[t + 1]; a text may have none."""
    token: Int64
    """(N,) token ids."""
    position: Int64
    """(N,) index in the text's tokens."""
    number: Mapping[str, int] = field(repr=False)
    """Of each text."""

    def of(self, texts: Iterable[str]) -> Int64:
        """(n,) numbers of texts.

        Raises:
            ValueError: The activations of a text were not read.
        """
        try:
            return np.array([self.number[text] for text in texts], np.int64)
        except KeyError as error:
            raise ValueError(f"the activations of {quoted(error.args[0])} were not read") from None

    def lengths(self) -> Int64:
        """(T,) rows of each text."""
        return np.diff(self.starts)

    def text_of_rows(self) -> Int64:
        """(N,) number of the text that each row is of."""
        return np.repeat(np.arange(len(self.texts)), self.lengths())

    def select(self, keep: NDArray[np.bool_]) -> TextRows:
        """Without the rows where `keep` (N,) is False."""
        if keep.all():
            return self
        kept = np.concatenate([[0], np.cumsum(keep)])[self.starts]
        return replace(
            self, vectors=self.vectors[keep], starts=kept.astype(np.int64), token=self.token[keep],
            position=self.position[keep],
        )  # fmt: skip


def read_text_rows(
    source: Model | ActivationShards,
    site: str,
    texts: Sequence[str],
    tokenization: Tokenization | None = None,
    on_step: OnStep | None = None,
) -> TextRows:
    """The activations of texts at a site.

    Args:
        source: A model, or activations that were kept of these very texts, in this order.
        site: In any spelling the model knows.
        texts: Distinct ones; all of their activations are held.
        tokenization: Of a model's reading; kept activations have theirs.
        on_step: Told how many texts were read.

    Raises:
        ValueError: No text, a text twice, or kept activations of other texts.
    """
    texts = tuple(texts)
    if not texts:
        raise ValueError("no text was given, expected some; give texts")
    number = {text: k for k, text in enumerate(texts)}
    if len(number) < len(texts):
        raise ValueError(f"{len(texts) - len(number)} texts were given twice; give each text once")
    listed = corpora.texts(list(texts))
    batches: Iterable[Any]
    if isinstance(source, ActivationShards):
        whole = source.complete and source.exhausted
        if source.describe.get("texts") != listed.describe() or not whole:
            raise ValueError(
                f"{source.folder} does not hold all activations of these texts; extract them anew"
            )
        batches = (window[0][0] for window in source.windows((site,)))
    else:
        windows = read_activations(
            source, [site], listed, tokenization, window_tokens=_WINDOW_TOKENS
        )
        batches = (batch for (batch,) in windows)
    told = on_step or (lambda what, done, total: None)
    told("texts", 0, len(texts))
    parts = []
    for batch in batches:
        parts.append((as_vectors(batch.vectors), batch.document, batch.token, batch.position))
        if len(batch.document):
            told("texts", int(batch.document[-1]) + 1, len(texts))
    told("texts", len(texts), len(texts))
    vectors, document, token, position = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    starts = np.searchsorted(document, np.arange(len(texts) + 1)).astype(np.int64)
    return TextRows(site, texts, vectors, starts, token, position, number)


def check_rows(rows: TextRows, concept: Concept) -> None:
    """Refuse a concept some text of which has no row.

    Raises:
        ValueError: With the text.
    """
    lengths = rows.lengths()
    for split in SPLITS:
        texts = getattr(concept, split)
        empty = np.flatnonzero(lengths[rows.of(texts)] == 0)
        if len(empty):
            raise ValueError(
                f"{quoted(texts[empty[0]])} ({split.replace('_', ' ')} text {empty[0] + 1} of "
                f"{concept.name!r}) has no token after the masked first position; leave out texts "
                "so short"
            )


def without_empty(rows: TextRows, concept: Concept) -> tuple[Concept, int]:
    """A concept without the texts that have no row, and how many those are.

    Raises:
        ValueError: A class has too few texts left.
    """
    lengths = rows.lengths()
    kept: dict[str, Any] = {
        split: tuple(t for t in getattr(concept, split) if lengths[rows.number[t]])
        for split in SPLITS
    }
    left = replace(concept, **kept)
    _check_classes(left)
    return left, sum(len(getattr(concept, s)) - len(kept[s]) for s in SPLITS)


def _without_test_texts(concept: Concept) -> Concept:
    held = {text for split in SPLITS[2:] for text in getattr(concept, split)}
    kept = {s: tuple(t for t in getattr(concept, s) if t not in held) for s in SPLITS[:2]}
    left_out = sum(len(getattr(concept, s)) - len(kept[s]) for s in SPLITS[:2])
    return replace(concept, positive=kept["positive"], negative=kept["negative"], left_out=left_out)


def _check_classes(concept: Concept) -> None:
    for split in SPLITS[:4]:
        n = len(getattr(concept, split))
        if n < _LEAST:
            raise ValueError(
                f"{concept.name!r} has {n} {split.replace('_', ' ')} texts, expected at least "
                f"{_LEAST}; give more"
            )


def _check_apart(concept: Concept) -> None:
    _check_classes(concept)
    seen: dict[str, str] = {}
    for split in SPLITS:
        for text in getattr(concept, split):
            if seen.setdefault(text, split) != split:
                raise ValueError(
                    f"{quoted(text)} is both a {seen[text].replace('_', ' ')} and a "
                    f"{split.replace('_', ' ')} text; give each text once"
                )


def read_lines(path: str | Path, column: str = "text") -> list[str]:
    """The texts of a file, each once and none of them blank.

    Args:
        path: A text on each line (.txt, .md), JSON Lines, Parquet, or a folder.
        column: Of JSON Lines and Parquet.

    Raises:
        SourceError: There is no such file or column.
        ValueError: It holds no text, or conversations.
    """
    path = Path(path)
    if path.suffix.lower() in (".txt", ".md") and not path.is_dir():
        if not path.is_file():
            raise SourceError(f"there is no file {path}; check the path")
        # Not splitlines: a form feed or U+2028 ends no line of a file.
        found = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    else:
        contents = [document.content for document in corpora.texts(path, column=column)]
        found = [content for content in contents if isinstance(content, str)]
        if len(found) < len(contents):
            raise ValueError(f"{path} holds conversations, expected texts; give texts")
    texts = list(dict.fromkeys(line.strip() for line in found if line.strip()))
    if not texts:
        raise ValueError(f"{path} holds no text; give a file with a text on each line")
    return texts


def _halves(
    texts: list[str], test_share: float, seed: int, path: str | Path
) -> tuple[list[str], list[str]]:
    if len(texts) < 2 * _LEAST:
        raise ValueError(
            f"{path} holds {len(texts)} texts, expected at least {2 * _LEAST}: {_LEAST} to choose "
            f"a detector by and {_LEAST} to test it on"
        )
    order = np.random.default_rng(seed).permutation(len(texts))
    n = min(max(round(len(texts) * test_share), _LEAST), len(texts) - _LEAST)
    held = set(order[:n].tolist())
    return (
        [text for k, text in enumerate(texts) if k not in held],
        [text for k, text in enumerate(texts) if k in held],
    )


def _table(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise SourceError(f"there is no file {path}; give a folder of AxBench's Parquet files")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a Parquet file ({error}); download it anew") from error
    absent = [column for column in columns if column not in table.column_names]
    if absent:
        raise SourceError(
            f"{path} has no column {absent[0]!r}; it has {', '.join(table.column_names)}"
        )
    return dict(table.to_pydict())


def _rows(
    table: Mapping[str, list[Any]], column: str, concept: int, category: str
) -> tuple[str, ...]:
    found = zip(table[column], table["concept_id"], table["category"], strict=True)
    texts = (text for text, k, kind in found if k == concept and kind == category and text)
    return tuple(dict.fromkeys(texts))


def _names(table: Mapping[str, list[Any]]) -> dict[int, str]:
    """Of each concept, what it is said to be; its number where nothing is said."""
    said = table.get("output_concept", [None] * len(table["concept_id"]))
    names = {k: f"concept {k}" for k in table["concept_id"]}
    for k, name, kind in zip(table["concept_id"], said, table["category"], strict=True):
        if name and kind == "positive":
            names[k] = str(name)
    return names


def quoted(text: str) -> str:
    """The beginning of a text, for a message."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
