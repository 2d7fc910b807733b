"""The command that patches tokens with the regions of others, across pairs of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.options import (
    AllowMismatch,
    Device,
    Dtype,
    Folder,
    Json,
    OtherModel,
    example,
    model_of,
    open_dictionary,
)
from exemplars.cli.terminal import interruptible, print_result, step_bar


@app.command(
    epilog=example(
        "  exemplars patch gpt2-l6-p2\n"
        "  exemplars patch gpt2-l6-p2 --category capitals --category days --pairs 100"
    )
)
def patch(
    folder: Folder,
    items: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines with category, prompt, fill and target. Default: capitals, languages, "
            "colours, months and days."
        ),
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="One of the items' categories. Repeat for several.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of prompts, at most.", min=1)] = 400,
    basis: Annotated[str, typer.Option(help="Direction of a region: mean or exemplar.")] = "mean",
    batch_size: Annotated[int, typer.Option(help="Pairs in a pass.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of the pairs and the random regions.", min=0)] = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Patch a prompt's word with the region of another's, and see which answer comes.

    Beside the other's region: its own, a random one, and the other's exact vector, which is the
    most that patching this one token can do.
    """
    from exemplars.analyses.patching import ITEMS, items_of, patch_pairs, read_items
    from exemplars.report.patching import patching_summary, patching_text

    asked = items_of(category or [], ITEMS if items is None else read_items(items))
    dictionary = open_dictionary(folder)
    loaded = model_of(dictionary, model, device, dtype, allow_mismatch)
    with interruptible(), step_bar() as on_step:
        report = patch_pairs(
            loaded, dictionary, asked, pairs=pairs, basis=basis, batch_size=batch_size, seed=seed,
            on_step=on_step,
        )  # fmt: skip
    print_result(
        patching_summary(report) if json else None,
        None if json else patching_text(report),
        json,
    )
