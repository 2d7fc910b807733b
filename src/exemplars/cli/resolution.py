"""The command that looks at one site at several resolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath, Seed
from exemplars.cli.options import (
    AllowMismatch,
    Column,
    Device,
    Dtype,
    Json,
    OtherModel,
    Split,
    dictionaries_in,
    example,
    model_of,
    open_dictionary,
    texts_of,
)
from exemplars.cli.reading import kept_batches
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from exemplars.analyses.resolution import SiteDirections
    from exemplars.dictionary import Dictionary

_Opened = dict[Path, "Dictionary"]


@app.command(
    epilog=example(
        "  exemplars resolution gpt2-l6 --text held-out/\n"
        "  exemplars resolution gpt2-l6-p8 gpt2-l6-p2 --region 12\n"
        "  exemplars resolution gpt2-l6-p8 gpt2-l6-p2 --path 12 40 --text held-out/\n"
        "  exemplars resolution gpt2-l6 --labels news.jsonl --label-column topic"
    )
)
def resolution(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Dictionaries of one site and pass, or the folder of a build with several.",
            metavar="DIR...",
        ),
    ],
    region: Annotated[
        int | None, typer.Option(help="The relatives of this region, at the other resolutions.")
    ] = None,
    path: Annotated[
        tuple[int, int] | None,
        typer.Option(help="The way between two regions, at each.", metavar="A B"),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option(help="Whose regions --region and --path name. Default: of the first DIR."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="What the model reads, a stretch of each document; best held out."
        ),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="Kept activations, in place of --text and a model.")
    ] = None,
    rows: Annotated[int, typer.Option(help="So many rows; 0 for all.", min=0)] = 30_000,
    labels: Annotated[
        Path | None,
        typer.Option(help="A JSONL, Parquet, CSV or TSV file of texts and labels, to tell apart."),
    ] = None,
    label_column: Annotated[
        list[str] | None, typer.Option(help="Column of labels; repeat. Default: label.")
    ] = None,
    percentile: Annotated[
        list[float] | None,
        typer.Option(
            "--percentile",
            "-p",
            help="With --labels: partition its texts themselves at these; repeat.",
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(help="With --labels: permute other labels within the classes of this one."),
    ] = None,
    every_row: Annotated[
        bool,
        typer.Option("--every-row", help="With --labels: all rows, not the last of each text."),
    ] = False,
    neighbours: Annotated[
        int, typer.Option(help="With --path: nearest regions that each is joined to.", min=1)
    ] = 3,
    basis: Annotated[str, typer.Option(help="With --path: exemplar or mean.")] = "exemplar",
    weighted: Annotated[
        bool, typer.Option("--weighted", help="With --path: shortest by angles, not by hops.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Draws of nulls, or halvings. Default: 3, or 5.", min=1)
    ] = None,
    seed: Seed = 0,
    model: OtherModel = None,
    column: Column = "text",
    split: Split = "train",
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """What finer regions of one site show that coarser ones do not, with nulls."""
    from exemplars import figures
    from exemplars.analyses.stream import read_stretches
    from exemplars.analyses.tasks import read_label_columns

    _check(region, path, labels, figure, percentile, text, activations)
    opened = _opened(folders)
    ordered = _ordered(opened, least=1 if path is not None or labels is not None else 2)
    asked = _asked(list(opened.values()), ordered, at)
    answers: list[_Answer] = []
    with interruptible():
        reader = None
        if text is not None or labels is not None:
            reader = model_of(asked, model, device, dtype, allow_mismatch)
        shared = None
        if text is not None:
            assert reader is not None
            source = read_stretches(asked, reader, texts_of(text, column, split), seed)
            shared = _shared(asked, source, rows)
        elif activations is not None:
            shared = _shared(asked, kept_batches(asked, activations, allow_mismatch), rows)
        if region is not None:
            answers.append(_relatives(ordered, asked, region, shared, seed))
        if path is not None:
            how: dict[str, Any] = {"neighbours": neighbours, "basis": basis, "weighted": weighted}
            answers.append(_paths(opened, ordered, asked, path, shared, seed=seed, **how))
        if labels is not None:
            named = read_label_columns(labels, label_column or ["label"], column)
            own: dict[str, Any] = {"dictionaries": ordered}
            if percentile:
                own = {"percentiles": percentile}
            answers.append(
                _distinctions(
                    asked, reader, named, every_row, within=within, seeds=seeds or 5, seed=seed,
                    **own,
                )
            )  # fmt: skip
        if not answers:
            answers.append(_resolutions(ordered, shared, seeds or 3, seed))
    if figure is not None:
        svg, png = figures.save_figure(answers[-1].draw(), figure)
        say(f"written to {svg} and {png}")
    print_result(
        {answer.name: answer.result for answer in answers},
        "\n\n".join(answer.text for answer in answers),
        json,
    )


@dataclass(frozen=True)
class _Answer:
    name: str
    result: Any
    text: str
    draw: Callable[[], Figure]


def _check(
    region: int | None,
    path: tuple[int, int] | None,
    labels: Path | None,
    figure: Path | None,
    percentile: list[float] | None,
    text: list[str] | None,
    activations: Path | None,
) -> None:
    several = [
        name
        for name, given in (("--region", region), ("--path", path), ("--labels", labels))
        if given is not None
    ]
    if figure is not None and len(several) > 1:
        raise ValueError(
            f"--figure was given with {' and '.join(several)}, and shows one; give one of them"
        )
    if percentile and labels is None:
        raise ValueError("--percentile was given without --labels; it partitions their texts")
    if text is not None and activations is not None:
        raise ValueError("--text and --activations were both given; give one of them")
    if several == ["--labels"] and (text is not None or activations is not None):
        raise ValueError("--labels has texts of its own; leave out --text and --activations")


def _opened(folders: Sequence[Path]) -> _Opened:
    """Dictionaries by folder, in the order given; a build's folder gives all it holds."""
    return {folder: open_dictionary(folder) for folder in dictionaries_in(list(folders))}


def _ordered(opened: _Opened, least: int) -> tuple[Dictionary, ...]:
    from exemplars.analyses.resolution import coarse_to_fine

    return coarse_to_fine(list(opened.values()), least)


def _asked(
    given: Sequence[Dictionary], ordered: Sequence[Dictionary], at: float | None
) -> Dictionary:
    """The dictionary whose region numbers are meant."""
    if at is None:
        return given[0]
    found = next((d for d in ordered if d.percentile == at), None)
    if found is None:
        known = ", ".join(f"{d.percentile:g}" for d in ordered)
        raise ValueError(
            f"--at is {at:g}, and the dictionaries are at p = {known}; give one of them"
        )
    return found


def _shared(asked: Dictionary, batches: Iterable[Any], rows: int) -> SiteDirections:
    from exemplars.analyses.resolution import site_directions

    with step_bar() as on_step:
        return site_directions(batches, asked, rows or None, on_step)


def _resolutions(
    ordered: Sequence[Dictionary], shared: SiteDirections | None, seeds: int, seed: int
) -> _Answer:
    from exemplars.analyses.resolution import compare_resolutions
    from exemplars.report.resolution import resolution_figure, resolution_text

    with step_bar() as on_step:
        found = compare_resolutions(ordered, shared, seeds=seeds, seed=seed, on_step=on_step)
    text = resolution_text(found, ordered)
    return _Answer("resolutions", found, text, partial(resolution_figure, found))


def _relatives(
    ordered: Sequence[Dictionary],
    asked: Dictionary,
    region: int,
    shared: SiteDirections | None,
    seed: int,
) -> _Answer:
    from exemplars.analyses.relatives import relatives, relatives_everywhere
    from exemplars.analyses.resolution import assign_directions, contingency
    from exemplars.report.resolution import relatives_figure, relatives_text

    if shared is None:
        found = relatives_everywhere(ordered, asked, region, seed=seed)
    else:
        own = assign_directions(asked, shared.directions)
        others = [d for d in ordered if d.threshold != asked.threshold]
        tables = (
            contingency(own, assign_directions(d, shared.directions), len(asked), len(d))
            for d in others
        )
        found = tuple(
            relatives(asked, region, other, table=table, seed=seed)
            for other, table in zip(others, tables, strict=True)
        )
    result = {"percentile": asked.percentile, "region": region, "others": found}
    text = relatives_text(asked, region, found, ordered)
    return _Answer("relatives", result, text, partial(relatives_figure, asked, region, found))


def _paths(
    opened: _Opened,
    ordered: Sequence[Dictionary],
    asked: Dictionary,
    ends: tuple[int, int],
    shared: SiteDirections | None,
    **options: Any,
) -> _Answer:
    from exemplars import store
    from exemplars.analyses.paths import region_paths
    from exemplars.report.resolution import paths_figure, paths_text

    folder_of = {dictionary.threshold: folder for folder, dictionary in opened.items()}
    lenses = [store.load_lens(folder_of[d.threshold]) for d in ordered]
    directions = None if shared is None else shared.directions
    found = region_paths(ordered, asked, *ends, directions=directions, lenses=lenses, **options)
    return _Answer("paths", found, paths_text(found), partial(paths_figure, found))


def _distinctions(
    asked: Dictionary,
    reader: Any,
    labelled: tuple[list[str], dict[str, list[str]]],
    every_row: bool,
    **options: Any,
) -> _Answer:
    from exemplars.analyses.distinctions import distinctions
    from exemplars.analyses.prompts import read_prompts
    from exemplars.building import tokenization_of
    from exemplars.report.resolution import distinctions_figure, distinctions_text

    texts, labels = labelled
    say(f"reading {len(texts):,} texts")
    site = str(asked.site)
    rows = read_prompts(reader, [site], texts, tokenization_of(asked))[site]
    if not every_row:
        rows = rows.final_only()
    with step_bar() as on_step:
        found = distinctions(
            rows.vectors, rows.prompt, labels, site=site, on_step=on_step, **options
        )
    return _Answer(
        "distinctions", found, distinctions_text(found), partial(distinctions_figure, found)
    )
