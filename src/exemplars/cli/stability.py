"""The command that says which regions another seed finds again."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath
from exemplars.cli.options import (
    AllowMismatch,
    Column,
    Device,
    Dtype,
    Json,
    OtherModel,
    Split,
    example,
    model_of,
    open_dictionary,
    texts_of,
)
from exemplars.cli.reading import counted, kept_batches, read_batches
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exemplars.activations import ActivationBatch
    from exemplars.analyses.shared_rows import SiteRows
    from exemplars.dictionary import Dictionary


@app.command(
    epilog=example(
        "  exemplars stability seed0 seed1 seed2 --save\n"
        "  exemplars stability gpt2-l6-p2 --text corpus/ --seeds 5 --figure stability.svg"
    )
)
def stability(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Dictionaries of one stream in several orders; or one, with --text or "
            "--activations, whose orders are built.",
            metavar="DIR...",
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="Texts for the model to read: other orders, and the null of random rows."
        ),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="Kept activations, in place of --text and a model.")
    ] = None,
    rows: Annotated[int, typer.Option(help="So many rows; 0 for all.", min=0)] = 100_000,
    seeds: Annotated[
        int, typer.Option(help="Orders that are built where one folder is given.", min=2)
    ] = 5,
    draws: Annotated[int, typer.Option(help="Of each null.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Of the first order, and of the nulls.")] = 0,
    save: Annotated[
        bool, typer.Option("--save", help="Store each region's score beside its dictionary.")
    ] = False,
    model: OtherModel = None,
    column: Column = "text",
    split: Split = "train",
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Say which regions other orders of the stream find again, and what tells so beforehand."""
    from exemplars import figures, store
    from exemplars.analyses.noise import orders
    from exemplars.analyses.stability import region_stability, stability_table
    from exemplars.analyses.stability import stability as measure
    from exemplars.report.stability import stability_figure, stability_text

    if text is not None and activations is not None:
        raise ValueError("both --text and --activations were given; give one of them")
    if len(folders) == 1 and text is None and activations is None:
        raise ValueError(
            "one dictionary was given and nothing to build others from; give --text, "
            "--activations, or more folders"
        )
    dictionaries = [open_dictionary(folder) for folder in folders]
    first = dictionaries[0]
    _check_different(folders, dictionaries)
    with interruptible():
        read: SiteRows | None = None
        if activations is not None:
            read = _rows(kept_batches(first, activations, allow_mismatch), rows or None)
        elif text is not None:
            source = texts_of(text, column, split).shuffled(seed)
            loaded = model_of(first, model, device, dtype, allow_mismatch)
            read = _rows(read_batches(first, loaded, source), rows or None)
        with step_bar() as on_step:
            if len(folders) == 1:
                assert read is not None
                dictionaries = []
                made = orders(
                    read.vectors, read.document, first.calibration, first.percentile,
                    range(seed, seed + seeds),
                )  # fmt: skip
                for found in made:
                    dictionaries.append(found)
                    on_step("orders", len(dictionaries), seeds)
            result = measure(
                dictionaries, vectors=None if read is None else read.vectors, seeds=draws,
                seed=seed, on_step=on_step,
            )  # fmt: skip
    if save:
        of_folders = result.regions
        if len(folders) == 1:
            of_folders = (region_stability(first, dictionaries),)
        for folder, scores in zip(folders, of_folders, strict=True):
            store.save_stability(folder, stability_table(scores))
            say(f"stability of each region written to {folder}")
    if figure is not None:
        svg, png = figures.save_figure(stability_figure(result), figure)
        say(f"written to {svg} and {png}")
    print_result(result, stability_text(result), json)


def _check_different(folders: list[Path], dictionaries: list[Dictionary]) -> None:
    """The same dictionary twice would agree with itself, and say nothing of another order."""
    import numpy as np

    for (a, one), (b, other) in combinations(zip(folders, dictionaries, strict=True), 2):
        if np.array_equal(one.exemplars, other.exemplars):
            raise ValueError(
                f"{a} and {b} hold the same exemplars; give dictionaries of other orders"
            )


def _rows(batches: Iterable[ActivationBatch], rows: int | None) -> SiteRows:
    from exemplars.analyses.shared_rows import site_rows

    return site_rows(counted(batches, rows), rows)
