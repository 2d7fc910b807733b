"""What commands on labelled texts have in common: which texts, and which rows a null draws from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.options import texts_of

if TYPE_CHECKING:
    from exemplars.analyses.labelled import Concept, OnStep, TextRows
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

Positive = Annotated[
    Path | None,
    typer.Option(help="Texts with a concept: a text on each line, or JSONL, Parquet, a folder."),
]
Negative = Annotated[Path | None, typer.Option(help="Texts without it.")]
TestPositive = Annotated[Path | None, typer.Option(help="Test texts with it.")]
TestNegative = Annotated[Path | None, typer.Option(help="Test texts without it.")]
AxBench = Annotated[
    Path | None, typer.Option(help="An AxBench folder: each of its concepts in turn.")
]
LabelledColumn = Annotated[
    str | None, typer.Option(help="Column of the texts. Default: text; output of AxBench.")
]
TestShare = Annotated[float, typer.Option(help="Share of each class that is set aside to test on.")]
StreamText = Annotated[
    list[str] | None,
    typer.Option("--text", help="What the dictionary was built from, for the null of random rows."),
]
Seed = Annotated[int, typer.Option(help="Of splits, folds, resamples and nulls.")]
FigurePath = Annotated[
    Path | None, typer.Option("--figure", help="Write a figure, as SVG and PNG.", metavar="PATH")
]


def concepts_of(
    files: tuple[Path | None, Path | None, Path | None, Path | None],
    axbench: Path | None,
    column: str | None,
    test_share: float,
    seed: int,
) -> list[Concept]:
    """The concepts of an AxBench folder, or the one of two files (or four)."""
    from exemplars.analyses import labelled

    positive, negative, *tests = files
    columns: dict[str, Any] = {} if column is None else {"column": column}
    if axbench is not None:
        return labelled.read_axbench(axbench, **columns)
    if positive is None or negative is None:
        raise ValueError("one class alone was given; give both --positive and --negative")
    return [
        labelled.read_concept(
            positive, negative, *tests, test_share=test_share, seed=seed, **columns
        )
    ]


def stream_of(
    dictionary: Dictionary,
    model: Model,
    rows: TextRows,
    train_texts: Iterable[str],
    text: list[str] | None,
    split: str,
    n: int,
    seed: int,
    on_step: OnStep | None = None,
) -> tuple[Any, str]:
    """About n rows that random dictionaries are drawn from, and where they are from: the texts
    given, those that the dictionary names, or the training texts.
    """
    import numpy as np

    from exemplars.analyses.stream import stream_rows
    from exemplars.errors import SourceError

    texts = None if text is None else texts_of(text, split=split)
    try:
        found, source = stream_rows(dictionary, model, n, seed, texts, on_step)
    except SourceError as error:
        if texts is not None:
            raise
        numbers = rows.of(dict.fromkeys(train_texts))
        found = rows.vectors[np.isin(rows.text_of_rows(), numbers)]
        source = f"{len(found):,} rows of the training texts, as {error}"
    return found, source
