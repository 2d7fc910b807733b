"""The command that says what changed between two dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath
from exemplars.cli.options import (
    AllowMismatch,
    Column,
    Device,
    Dtype,
    Json,
    Split,
    example,
    model_of,
    open_dictionary,
    texts_of,
)
from exemplars.cli.reading import counted, kept_batches, read_batches
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.noise import SeedNoise
    from exemplars.analyses.shared_rows import SharedRows, SiteRows
    from exemplars.dictionary import Dictionary


@app.command(
    epilog=example(
        "  exemplars compare base-l6-p2 tuned-l6-p2 --text corpus/ --save-baseline noise.json\n"
        "  exemplars compare base-l6-p2 later-l6-p2 --baseline noise.json --figure changes.svg"
    )
)
def compare(
    a: Annotated[Path, typer.Argument(help="A dictionary's folder.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The other's.", metavar="B")],
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="Texts for both models to read: shared rows, and the baseline of seed noise.",
        ),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="Kept activations at A's site, in place of --text.")
    ] = None,
    activations_b: Annotated[
        Path | None, typer.Option(help="At B's site. Default: the same folder as A's.")
    ] = None,
    rows: Annotated[int, typer.Option(help="So many rows; 0 for all.", min=0)] = 100_000,
    splits: Annotated[
        int, typer.Option(help="Pairs of dictionaries in the baseline; 0 for none.", min=0)
    ] = 20,
    pairs_of: Annotated[
        str,
        typer.Option(
            "--noise", help="The baseline's pairs: halves of the documents, or orders of all."
        ),
    ] = "halves",
    baseline: Annotated[
        Path | None, typer.Option(help="A baseline that --save-baseline wrote, in place of it.")
    ] = None,
    save_baseline: Annotated[
        Path | None, typer.Option(help="Write the baseline there.", metavar="FILE")
    ] = None,
    basis: Annotated[str, typer.Option(help="mean or exemplar.")] = "mean",
    space: Annotated[
        str | None,
        typer.Option(
            help="What decides: own-frames, one-frame, or shared-rows. Default: the first, "
            "or the last for different widths."
        ),
    ] = None,
    quantile: Annotated[
        float, typer.Option(help="Share of pairs that seed noise puts below the cutoff.")
    ] = 0.05,
    examples: Annotated[
        int, typer.Option(help="Changes of each kind shown with their texts.", min=0)
    ] = 5,
    seeds: Annotated[int, typer.Option(help="Draws of each null.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the documents' order, splits, and nulls.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", help="Of A. Default: the model that A names.")
    ] = None,
    model_b: Annotated[
        str | None, typer.Option("--model-b", help="Of B. Default: the model that B names.")
    ] = None,
    column: Column = "text",
    split: Split = "train",
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Say what changed between two dictionaries: what persisted, moved, was dropped, introduced."""
    from exemplars import figures
    from exemplars.analyses.comparison import compare as compare_dictionaries
    from exemplars.analyses.noise import SeedNoise
    from exemplars.report.comparison import comparison_figure, comparison_text

    if text is not None and activations is not None:
        raise ValueError("both --text and --activations were given; give one of them")
    if activations_b is not None and activations is None:
        raise ValueError("--activations-b was given without --activations; give both")
    space = None if space is None else space.replace("-", " ")
    _check_words(pairs_of, basis, space)
    one, other = open_dictionary(a), open_dictionary(b)
    noise = None if baseline is None else SeedNoise.load(baseline)
    with interruptible():
        shared = None
        if activations is not None:
            folders = activations, activations_b or activations
            shared = _kept(one, other, folders, rows or None, allow_mismatch)
        elif text is not None:
            source = texts_of(text, column, split).shuffled(seed)
            names = model, model_b
            shared = _read(one, other, source, names, rows or None, device, dtype, allow_mismatch)
        if noise is None and shared is not None and splits:
            noise = _noise(one, shared, pairs_of, basis, splits, seed)
        if save_baseline is not None:
            _save(noise, save_baseline)
        result = compare_dictionaries(
            one, other, rows=shared, noise=noise, basis=basis,
            space=space, quantile=quantile, seeds=seeds, seed=seed, examples=examples,
        )  # fmt: skip
    if figure is not None:
        svg, png = figures.save_figure(comparison_figure(result), figure)
        say(f"written to {svg} and {png}")
    print_result(result, comparison_text(result), json)


def _check_words(pairs_of: str, basis: str, space: str | None) -> None:
    """Before anything is read, which takes long."""
    from exemplars.analyses.correspondence import SPACES
    from exemplars.analyses.noise import KINDS

    for option, value, known in (
        ("--noise", pairs_of, KINDS),
        ("--basis", basis, ("mean", "exemplar")),
        ("--space", space or SPACES[0], SPACES),
    ):
        if value not in known:
            expected = ", ".join(word.replace(" ", "-") for word in known)
            raise ValueError(f'{option} is "{value}", expected one of {expected}')


def _kept(
    a: Dictionary,
    b: Dictionary,
    folders: tuple[Path, Path],
    rows: int | None,
    allow_mismatch: bool,
) -> SharedRows:
    """The rows that two folders of kept activations, or two sites of one, share."""
    from exemplars.activations import ActivationShards
    from exemplars.analyses.shared_rows import share_rows, site_rows
    from exemplars.errors import MismatchError

    texts = [ActivationShards.open(folder).describe.get("texts") for folder in folders]
    if texts[0] != texts[1]:
        raise MismatchError(
            f"{folders[0]} and {folders[1]} are of different texts, so their rows are not the "
            "same; keep activations of one text in one order for both"
        )
    sides = [
        site_rows(counted(kept_batches(d, folder, allow_mismatch), rows), rows)
        for d, folder in zip((a, b), folders, strict=True)
    ]
    return share_rows(*sides)


def _read(
    a: Dictionary,
    b: Dictionary,
    texts: Any,
    names: tuple[str | None, str | None],
    rows: int | None,
    device: str,
    dtype: str | None,
    allow_mismatch: bool,
) -> SharedRows:
    """The same texts through both models; one forward pass where model and site are one."""
    from exemplars.analyses.shared_rows import share_rows, site_rows

    sides: list[SiteRows] = []
    for d, name in zip((a, b), names, strict=True):
        if sides and names[0] == names[1] and _same_reading(a, b):
            sides.append(sides[0])
            break
        loaded = model_of(d, name, device, dtype, allow_mismatch)
        sides.append(site_rows(counted(read_batches(d, loaded, texts), rows), rows))
    return share_rows(*sides)


def _same_reading(a: Dictionary, b: Dictionary) -> bool:
    """Whether both see the same vectors of a text."""
    keys = ("model", "site", "tokenization", "dtype", "batch_tokens", "window_tokens")
    return all(a.provenance.get(key) == b.provenance.get(key) for key in keys)


def _noise(
    dictionary: Dictionary, rows: SharedRows, pairs_of: str, basis: str, splits: int, seed: int
) -> SeedNoise:
    from exemplars.analyses.noise import seed_noise

    with step_bar() as on_step:
        return seed_noise(
            rows.a, rows.document, dictionary.calibration, dictionary.percentile, pairs_of=pairs_of,
            basis=basis, splits=splits, seed=seed, site=dictionary.site, on_step=on_step,
        )  # fmt: skip


def _save(noise: SeedNoise | None, path: Path) -> None:
    if noise is None:
        raise ValueError(
            "there is no baseline to save; give --text or --activations, and --splits of 1 or more"
        )
    noise.save(path)
    say(f"baseline written to {path}")
