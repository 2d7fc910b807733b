"""The command that probes texts' codes for their classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import (
    AxBench,
    FigurePath,
    LabelledColumn,
    Negative,
    Positive,
    Seed,
    StreamText,
    TestNegative,
    TestPositive,
    TestShare,
    concepts_of,
    stream_of,
)
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
)
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.labelled import TextRows
    from exemplars.analyses.tasks import ProbeTask
    from exemplars.dictionary import Dictionary

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
    positive: Positive = None,
    negative: Negative = None,
    test_positive: TestPositive = None,
    test_negative: TestNegative = None,
    axbench: AxBench = None,
    column: LabelledColumn = None,
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    test_share: TestShare = 0.5,
    text: StreamText = None,
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
    seed: Seed = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
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
    texts = list(dict.fromkeys(content for task in tasks for content in task.texts()))
    site = dictionary.provenance["site"]["name"]
    n = max(_STREAM_ROWS, 2 * len(dictionary))
    with interruptible():
        say(f"reading {len(texts):,} texts")
        with step_bar() as on_step:
            rows = read_text_rows(loaded, site, texts, tokenization_of(dictionary), on_step)
        tasks = _with_rows(dictionary, rows, tasks)
        train = (content for task in tasks for content in task.train_texts)
        with step_bar() as on_step:
            stream, source = stream_of(
                dictionary, loaded, rows, train, text, split, n, seed, on_step
            )
        if len(stream) < len(dictionary):
            stream, source = None, f"none, as {source} are fewer than the regions; give --text"
        say(f"probing; the null of random rows: {source}")
        reports = probe_tasks(
            dictionary, rows, tasks, readouts=readout or READOUTS, bases=basis or BASES,
            k_sparse=ks, seeds=seeds, stream=stream, seed=seed,
        )  # fmt: skip
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
    from exemplars.analyses import tasks

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
            tasks.read_task(
                labels, test, label_column=label_column, test_share=test_share, seed=seed, **columns
            )
        ]
    concepts = concepts_of(files, axbench, column, test_share, seed)
    left_out = sum(concept.left_out for concept in concepts)
    if left_out:
        say(f"{left_out:,} training texts are test texts too, and are left out")
    return [tasks.task_of_concept(concept) for concept in concepts]


def _with_rows(dictionary: Dictionary, rows: TextRows, tasks: list[ProbeTask]) -> list[ProbeTask]:
    """Without the texts that have no row but norm outliers, which are counted."""
    from exemplars.analyses.probing import without_outliers
    from exemplars.analyses.tasks import without_empty_texts

    kept, _ = without_outliers(dictionary, rows)
    found = [without_empty_texts(kept, task) for task in tasks]
    lost = sum(n for _, n in found)
    if lost:
        say(f"{lost:,} texts have no row, and are left out")
    return [task for task, _ in found]
