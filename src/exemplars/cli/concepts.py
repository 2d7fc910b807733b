"""The command that finds the regions which detect concepts."""

from __future__ import annotations

from typing import Annotated

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

_STREAM_ROWS = 10_000


@app.command(
    epilog=example(
        "  exemplars concepts gpt2-l6-p2 --positive with.txt --negative without.txt\n"
        "  exemplars concepts gpt2-l6-p2 --axbench concept10 --figure concepts.svg"
    )
)
def concepts(
    folder: Folder,
    positive: Positive = None,
    negative: Negative = None,
    test_positive: TestPositive = None,
    test_negative: TestNegative = None,
    axbench: AxBench = None,
    column: LabelledColumn = None,
    test_share: TestShare = 0.5,
    text: StreamText = None,
    split: Split = "train",
    k: Annotated[int, typer.Option(help="Regions of a detector of several.", min=1)] = 3,
    seeds: Annotated[int, typer.Option(help="Seeds of the null and of k-means.", min=1)] = 3,
    seed: Seed = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Find the regions that detect concepts, and test them beside a null and probes."""
    from exemplars import figures, store
    from exemplars.analyses.concepts import check_choice, detect_concepts
    from exemplars.analyses.labelled import read_text_rows
    from exemplars.building import tokenization_of
    from exemplars.report.concepts import concepts_figure, concepts_summary, concepts_text

    if axbench is not None and any((positive, negative, test_positive, test_negative)):
        raise ValueError("--axbench was given with other texts; give one or the other")
    asked = concepts_of(
        (positive, negative, test_positive, test_negative), axbench, column, test_share, seed
    )
    dictionary = open_dictionary(folder)
    check_choice(dictionary)
    lens = store.load_lens(folder)
    loaded = model_of(dictionary, model, device, dtype, allow_mismatch)
    texts = list(dict.fromkeys(content for concept in asked for content in concept.texts()))
    with interruptible():
        say(f"reading {len(texts):,} texts")
        site = dictionary.provenance["site"]["name"]
        train = (content for c in asked for content in (*c.positive, *c.negative))
        n = max(_STREAM_ROWS, 2 * len(dictionary))
        with step_bar() as on_step:
            rows = read_text_rows(loaded, site, texts, tokenization_of(dictionary), on_step)
            stream, source = stream_of(
                dictionary, loaded, rows, train, text, split, n, seed, on_step
            )
        say(f"finding detectors among {len(dictionary):,} regions; the null: {source}")
        with step_bar() as on_step:
            report = detect_concepts(
                dictionary, rows, asked, stream, k=k, null_seeds=seeds, seed=seed,
                notes=[f"The null and k-means are of {source}."], on_step=on_step,
            )  # fmt: skip
    if figure is not None:
        svg, png = figures.save_figure(concepts_figure(report), figure)
        say(f"written to {svg} and {png}")
    print_result(
        concepts_summary(report, dictionary, lens) if json else None,
        None if json else concepts_text(report, dictionary, lens),
        json,
    )
