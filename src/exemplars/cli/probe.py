"""The command that probes texts' codes for their classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.options import (
    AllowMismatch,
    Device,
    Dtype,
    Folder,
    Json,
    OtherModel,
    Split,
    example,
    model_of,
    open_dictionary,
    texts_of,
)
from exemplars.cli.terminal import print_result, say

if TYPE_CHECKING:
    from exemplars.analyses.labelled import TextRows
    from exemplars.analyses.probing import ProbeTask
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

_STREAM_ROWS = 10_000


@app.command(
    epilog=example(
        "  exemplars probe gpt2-l6-p2 --labels news.jsonl --label-column topic\n"
        "  exemplars probe gpt2-l6-p2 --positive with.txt --negative without.txt --k 1 --k 5"
    )
)
def probe(
    folder: Folder,
    labels: Annotated[
        Path | None,
        typer.Option(help="A JSONL, Parquet, CSV or TSV file with a text and a label in each row."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Such a file of test texts; else --test-share of --labels.")
    ] = None,
    positive: Annotated[Path | None, typer.Option(help="Texts with a concept.")] = None,
    negative: Annotated[Path | None, typer.Option(help="Texts without it.")] = None,
    test_positive: Annotated[Path | None, typer.Option(help="Test texts with it.")] = None,
    test_negative: Annotated[Path | None, typer.Option(help="Test texts without it.")] = None,
    axbench: Annotated[
        Path | None, typer.Option(help="An AxBench folder: one task for each concept.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the texts. Default: text; output of AxBench.")
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    test_share: Annotated[
        float, typer.Option(help="Share of each class that is set aside to test on.")
    ] = 0.5,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="What the dictionary was built from, for the null of random rows."
        ),
    ] = None,
    split: Split = "train",
    k: Annotated[
        list[int] | None,
        typer.Option("--k", help="Dimensions of a probe; repeat. Default: 1, 2, 5, 20."),
    ] = None,
    readout: Annotated[
        list[str] | None,
        typer.Option(
            "--readout",
            help="Codes; repeat. Default: binary, cosine, signed, topk.",
            show_default=False,
        ),
    ] = None,
    basis: Annotated[
        list[str] | None,
        typer.Option("--basis", help="exemplar or mean; repeat. Default: both."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of the nulls.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of splits, folds, resamples and nulls.")] = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: Annotated[
        Path | None, typer.Option(help="Write a figure, as SVG and PNG.", metavar="PATH")
    ] = None,
    json: Json = False,
) -> None:
    """Probe the codes of labelled texts: k-sparse, beside raw activations and nulls."""
    from exemplars import figures
    from exemplars.analyses.labelled import read_text_rows
    from exemplars.analyses.probing import BASES, K_SPARSE, READOUTS, mean_report, probe_tasks
    from exemplars.building import tokenization_of
    from exemplars.report.probing import probe_figure, probe_text

    tasks = _tasks(
        labels, test, (positive, negative, test_positive, test_negative), axbench,
        column, label_column, test_share, seed,
    )  # fmt: skip
    dictionary = open_dictionary(folder)
    ks = tuple(k) if k else tuple(n for n in K_SPARSE if n <= len(dictionary))
    loaded = model_of(dictionary, model, device, dtype, allow_mismatch)
    say(f"reading {sum(map(_size, tasks)):,} texts")
    rows = read_text_rows(
        loaded,
        dictionary.provenance["site"]["name"],
        list(dict.fromkeys(content for task in tasks for content in task.texts())),
        tokenization_of(dictionary),
    )
    tasks = _with_rows(dictionary, rows, tasks)
    stream, source = _stream(dictionary, loaded, rows, tasks, text, split, seed)
    say(f"probing; the null of random rows: {source}")
    reports = probe_tasks(
        dictionary,
        rows,
        tasks,
        readouts=readout or READOUTS,
        bases=basis or BASES,
        k_sparse=ks,
        seeds=seeds,
        stream=stream,
        seed=seed,
    )
    mean = mean_report(reports, seed)
    if figure is not None:
        svg, png = figures.save_figure(probe_figure(mean), figure)
        say(f"written to {svg} and {png}")
    print_result(
        {"mean": mean, "tasks": reports, "stream": source},
        f"{probe_text(mean)}\n\nrandom rows: {source}",
        json,
    )


def _tasks(
    labels: Path | None,
    test: Path | None,
    files: tuple[Path | None, Path | None, Path | None, Path | None],
    axbench: Path | None,
    column: str | None,
    label_column: str,
    test_share: float,
    seed: int,
) -> list[ProbeTask]:
    """What is to be told, from one of the three kinds of source."""
    from exemplars.analyses import labelled, probing

    positive, negative, *tests = files
    given = [labels is not None, any(files), axbench is not None]
    if sum(given) != 1:
        raise ValueError(
            f"{sum(given) or 'no'} sources of labelled texts were given; give one: --labels, "
            "--positive with --negative, or --axbench"
        )
    if test is not None and labels is None:
        raise ValueError("--test goes with --labels; give --test-positive and --test-negative")
    columns: dict[str, Any] = {} if column is None else {"column": column}
    if labels is not None:
        return [
            probing.read_task(
                labels, test, label_column=label_column, test_share=test_share, seed=seed, **columns
            )
        ]
    if axbench is not None:
        concepts = labelled.read_axbench(axbench, **columns)
    elif positive is None or negative is None:
        raise ValueError("one class alone was given; give both --positive and --negative")
    else:
        concepts = [
            labelled.read_concept(
                positive, negative, *tests, test_share=test_share, seed=seed, **columns
            )
        ]
    return [probing.task_of_concept(concept) for concept in concepts]


def _with_rows(dictionary: Dictionary, rows: TextRows, tasks: list[ProbeTask]) -> list[ProbeTask]:
    """Without the texts that have no row but norm outliers, which are counted."""
    from exemplars.analyses.probing import without_empty_texts, without_outliers

    kept, _ = without_outliers(dictionary, rows)
    found = [without_empty_texts(kept, task) for task in tasks]
    lost = sum(n for _, n in found)
    if lost:
        say(f"{lost:,} texts have no row, and are left out")
    return [task for task, _ in found]


def _stream(
    dictionary: Dictionary,
    model: Model,
    rows: TextRows,
    tasks: list[ProbeTask],
    text: list[str] | None,
    split: str,
    seed: int,
) -> tuple[Any, str]:
    """Rows that random dictionaries are drawn from, and where they are from."""
    import numpy as np

    from exemplars.analyses.stream import stream_rows
    from exemplars.errors import SourceError

    n = max(_STREAM_ROWS, 2 * len(dictionary))
    texts = None if text is None else texts_of(text, split=split)
    try:
        found, source = stream_rows(dictionary, model, n, seed, texts)
    except SourceError as error:
        if texts is not None:
            raise
        number = rows.of(dict.fromkeys(t for task in tasks for t in task.train_texts))
        found = rows.vectors[np.isin(rows.text_of_rows(), number)]
        source = f"{len(found):,} rows of the training texts, as {error}"
    if len(found) < len(dictionary):
        return None, f"none, as {len(found):,} rows are fewer than the regions; give --text"
    return found, source


def _size(task: ProbeTask) -> int:
    return len(task.train_texts) + len(task.test_texts)
