"""The command that compares a dictionary with a sparse autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.options import (
    AllowMismatch,
    Column,
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
from exemplars.cli.reading import counted, kept_batches, read_batches
from exemplars.cli.terminal import interruptible, print_result, say

if TYPE_CHECKING:
    from exemplars.analyses.autoencoders import SparseAutoencoder
    from exemplars.dictionary import Dictionary


@app.command(
    epilog=example(
        "  exemplars sae gpt2-l6-p2 gpt2-l6-sae --text corpus/ --figure sae.svg\n"
        "  exemplars sae gpt2-l6-p2 gpt2-l6-sae --activations kept/"
    )
)
def sae(
    folder: Folder,
    autoencoder: Annotated[
        Path,
        typer.Argument(help="An SAE's folder, of SAELens or of sparsify.", metavar="SAE_DIR"),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="Files, a folder, package:NAME, or a dataset, for the model to read."
        ),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="Kept activations, in place of --text and a model.")
    ] = None,
    rows: Annotated[int, typer.Option(help="So many rows; 0 for all.", min=0)] = 100_000,
    basis: Annotated[str, typer.Option(help="exemplar or mean.")] = "exemplar",
    readout: Annotated[
        str, typer.Option(help="signed, cosine, topk, topk_norm, or binary.")
    ] = "signed",
    top: Annotated[int, typer.Option(help="Rows that describe a unit.", min=2)] = 100,
    min_active: Annotated[
        int, typer.Option(help="Active rows that a unit needs to take part.", min=1)
    ] = 20,
    seeds: Annotated[int, typer.Option(help="Draws of each null.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the documents' order and of the nulls.")] = 0,
    model: OtherModel = None,
    column: Column = "text",
    split: Split = "train",
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: Annotated[
        Path | None, typer.Option(help="Write a figure, as SVG and PNG.", metavar="PATH")
    ] = None,
    json: Json = False,
) -> None:
    """Compare regions with the features of a sparse autoencoder (SAE), with nulls."""
    from exemplars import figures
    from exemplars.analyses.autoencoders import load_sae
    from exemplars.analyses.sae import compare_sae
    from exemplars.analyses.shared_rows import site_rows
    from exemplars.report.sae import sae_figure, sae_text

    if (text is None) == (activations is None):
        found = "neither --text nor --activations was" if text is None else "both were"
        raise ValueError(f"{found} given; give --text, or --activations of an earlier run")
    dictionary = open_dictionary(folder)
    loaded = load_sae(autoencoder)
    loaded.check_width(dictionary.width)
    _warn_of_other_site(dictionary, loaded)
    with interruptible():
        if activations is not None:
            batches = kept_batches(dictionary, activations, allow_mismatch)
        else:
            source = texts_of(text or [], column, split).shuffled(seed)
            reader = model_of(dictionary, model, device, dtype, allow_mismatch)
            batches = read_batches(dictionary, reader, source)
        vectors = site_rows(counted(batches, rows or None), rows or None).vectors
        say(f"comparing on {len(vectors):,} rows")
        result = compare_sae(
            dictionary, loaded, vectors, basis=basis, readout=readout, top=top,
            min_active=min_active, seeds=seeds, seed=seed,
        )  # fmt: skip
    if figure is not None:
        svg, png = figures.save_figure(sae_figure(result), figure)
        say(f"written to {svg} and {png}")
    print_result(result, sae_text(result), json)


def _warn_of_other_site(dictionary: Dictionary, sae: SparseAutoencoder) -> None:
    """Widths are equal at all layers of a model; an SAE may say which it is of."""
    from exemplars.report import provenance

    site = provenance(dictionary, "site")
    known = site.get("spellings") or {}
    if sae.site.startswith("blocks.") and known and sae.site not in known.values():
        say(f"warning: the SAE was trained at {sae.site}, the dictionary is of {site.get('name')}")
