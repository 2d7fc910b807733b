"""The command that looks at one site at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
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
    example,
    model_of,
    open_dictionary,
    texts_of,
)
from exemplars.cli.reading import kept_batches, read_batches
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.distinctions import Distinctions
    from exemplars.analyses.paths import Paths
    from exemplars.analyses.relatives import Relatives
    from exemplars.analyses.resolution import SharedRows
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
        typer.Option("--text", help="What the model reads at every resolution; best held out."),
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
    from exemplars.analyses.resolution import compare_resolutions, shared_rows
    from exemplars.report import resolution as report

    _check(region, path, labels, figure, percentile, text, activations)
    opened = _opened(folders)
    ordered = _ordered(opened, least=1 if path is not None or labels is not None else 2)
    asked = _asked(list(opened.values()), ordered, at)
    results: dict[str, Any] = {}
    said: list[str] = []
    drawn: Any = None
    with interruptible():
        shared: SharedRows | None = None
        reader = None
        if text is not None or labels is not None:
            reader = model_of(asked, model, device, dtype, allow_mismatch)
        if text is not None or activations is not None:
            if activations is not None:
                batches = kept_batches(asked, activations, allow_mismatch)
            else:
                assert reader is not None
                source = texts_of(text or [], column, split).shuffled(seed)
                batches = read_batches(asked, reader, source)
            with step_bar() as on_step:
                shared = shared_rows(batches, asked, rows or None, on_step)
        if region is not None:
            found = _relatives(ordered, asked, region, shared, seed)
            results["relatives"] = {"percentile": asked.percentile, "region": region,
                                    "others": found}  # fmt: skip
            said.append(report.relatives_text(asked, region, found, ordered))
            drawn = (report.relatives_figure, (asked, region, found))
        if path is not None:
            ways = _paths(opened, ordered, asked, path, neighbours, basis, weighted, shared, seed)
            results["paths"] = ways
            said.append(report.paths_text(ways))
            drawn = (report.paths_figure, (ways,))
        if labels is not None:
            columns = label_column or ["label"]
            told = _distinctions(
                ordered, asked, reader, labels, columns, column, percentile, every_row,
                seeds or 5, seed,
            )  # fmt: skip
            results["distinctions"] = told
            said.append(report.distinctions_text(told))
            drawn = (report.distinctions_figure, (told,))
        if not results:
            with step_bar() as on_step:
                compared = compare_resolutions(
                    ordered, shared, seeds=seeds or 3, seed=seed, on_step=on_step
                )
            results["resolutions"] = compared
            said.append(report.resolution_text(compared, ordered))
            drawn = (report.resolution_figure, (compared,))
    if figure is not None:
        draw, arguments = drawn
        svg, png = figures.save_figure(draw(*arguments), figure)
        say(f"written to {svg} and {png}")
    print_result(results, "\n\n".join(said), json)


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
    from exemplars import store

    found: _Opened = {}
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob(f"*/{store.MANIFEST}"))
        whole = (folder / store.MANIFEST).exists()
        for one in [folder] if whole or not inside else inside:
            found[one] = open_dictionary(one)
    return found


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


def _relatives(
    ordered: Sequence[Dictionary],
    asked: Dictionary,
    region: int,
    shared: SharedRows | None,
    seed: int,
) -> tuple[Relatives, ...]:
    from exemplars.analyses.relatives import relatives, relatives_everywhere
    from exemplars.analyses.resolution import assign_directions, contingency

    if shared is None:
        return relatives_everywhere(ordered, asked, region, seed=seed)
    own = assign_directions(asked, shared.directions)
    found = []
    for other in ordered:
        if other.threshold != asked.threshold:
            theirs = assign_directions(other, shared.directions)
            table = contingency(own, theirs, len(asked), len(other))
            found.append(relatives(asked, region, other, table=table, seed=seed))
    return tuple(found)


def _paths(
    opened: _Opened,
    ordered: Sequence[Dictionary],
    asked: Dictionary,
    ends: tuple[int, int],
    neighbours: int,
    basis: str,
    weighted: bool,
    shared: SharedRows | None,
    seed: int,
) -> Paths:
    from exemplars import store
    from exemplars.analyses.paths import region_paths

    folder_of = {dictionary.threshold: folder for folder, dictionary in opened.items()}
    lenses = [store.load_lens(folder_of[d.threshold]) for d in ordered]
    return region_paths(
        ordered, asked, *ends, neighbours=neighbours, basis=basis, weighted=weighted,
        directions=None if shared is None else shared.directions, lenses=lenses, seed=seed,
    )  # fmt: skip


def _distinctions(
    ordered: Sequence[Dictionary],
    asked: Dictionary,
    reader: Any,
    labels: Path,
    columns: Sequence[str],
    column: str,
    percentile: Sequence[float] | None,
    every_row: bool,
    seeds: int,
    seed: int,
) -> Distinctions:
    from exemplars.analyses.distinctions import distinctions
    from exemplars.analyses.prompts import read_prompts
    from exemplars.analyses.tasks import read_label_columns
    from exemplars.building import tokenization_of

    texts, by_column = read_label_columns(labels, columns, column)
    say(f"reading {len(texts):,} texts")
    site = str(asked.site)
    rows = read_prompts(reader, [site], texts, tokenization_of(asked))[site]
    if not every_row:
        rows = rows.final_only()
    own: dict[str, Any] = {"percentiles": percentile} if percentile else {"dictionaries": ordered}
    with step_bar() as on_step:
        return distinctions(
            rows.vectors, rows.prompt, by_column, seeds=seeds, seed=seed, site=site,
            on_step=on_step, **own,
        )  # fmt: skip
