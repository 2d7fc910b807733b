"""The command that follows tokens through the regions of several sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath, LabelledColumn, Seed
from exemplars.cli.options import (
    AllowMismatch,
    Device,
    Dtype,
    Json,
    OtherModel,
    example,
    model_of,
    open_dictionary,
)
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.trajectories import TokenPaths
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model
    from exemplars.report.trajectories import TrajectoryReport


@app.command(
    epilog=example(
        "  exemplars trajectories out/resid_post.9-p2 out/resid_post.15-p2 \\\n"
        "    --prompts numbers.txt --prompts colours.txt --figure paths.svg"
    )
)
def trajectories(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Dictionaries of several sites of one model.", metavar="DIR DIR..."),
    ],
    prompts: Annotated[
        list[Path] | None,
        typer.Option(
            "--prompts",
            help="A prompt on each line, or JSONL, Parquet, a folder. Repeat: a set in each.",
        ),
    ] = None,
    column: LabelledColumn = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--plain",
            help="Put prompts through the chat template, or not. Default: as the dictionaries' "
            "texts were.",
        ),
    ] = None,
    lens: Annotated[
        bool, typer.Option("--lens", help="Also: are close regions read alike? Takes longer.")
    ] = False,
    top: Annotated[int, typer.Option(help="Paths of each set to show.", min=1)] = 5,
    draws: Annotated[int, typer.Option(help="Of each null.", min=19)] = 999,
    seed: Seed = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Follow prompts through the regions of several sites: flows, paths, and whether sets part."""
    from exemplars import figures
    from exemplars.analyses.labelled import read_lines
    from exemplars.analyses.trajectories import read_paths
    from exemplars.report.trajectories import (
        trajectories_figure,
        trajectories_summary,
        trajectories_text,
    )

    if not prompts:
        raise ValueError("no prompts were given; give --prompts, one file for each set")
    if len({file.resolve() for file in prompts}) < len(prompts):
        raise ValueError("a file of prompts was given twice; give each set once")
    named = {file.stem: file for file in prompts}
    if len(named) < len(prompts):
        named = {str(file): file for file in prompts}
    texts = {name: read_lines(file, column or "text") for name, file in named.items()}
    dictionaries = [open_dictionary(folder) for folder in folders]
    loaded = model_of(dictionaries[0], model, device, dtype, allow_mismatch)
    with interruptible():
        say(f"reading {sum(map(len, texts.values())):,} prompts")
        with step_bar() as on_step:
            paths = read_paths(
                loaded, dictionaries, texts, chat=chat, allow_mismatch=allow_mismatch,
                on_step=on_step,
            )  # fmt: skip
        report = _report(loaded if lens else None, dictionaries, paths, draws, seed)
    if figure is not None:
        svg, png = figures.save_figure(trajectories_figure(report), figure)
        say(f"written to {svg} and {png}")
    print_result(
        trajectories_summary(report), None if json else trajectories_text(report, top), json
    )


def _report(
    model: Model | None,
    dictionaries: list[Dictionary],
    paths: TokenPaths,
    draws: int,
    seed: int,
) -> TrajectoryReport:
    """Everything of the paths; of the lens only with a model."""
    from exemplars.analyses import alignment, trajectories
    from exemplars.report.trajectories import TrajectoryReport, exemplar_texts

    by_site = {dictionary.site: dictionary for dictionary in dictionaries}
    ordered = [by_site[site] for site in paths.sites]
    categories: list[Any] = []
    centering: list[Any] = []
    if len(paths.sets) > 1:
        for s, (site, dictionary) in enumerate(zip(paths.sites, ordered, strict=True)):
            categories.append(
                alignment.category_distances(
                    site, paths.final_regions[:, s], dictionary.exemplars, paths.label, paths.sets,
                    2 * draws, seed,
                )
            )  # fmt: skip
            neighbours = [k for k in alignment.NEIGHBOURS if k < len(paths.prompts)]
            centering.append(
                alignment.centering(
                    site, paths.final_vectors[s], dictionary.center, paths.label,
                    neighbours or [1], draws, seed,
                )
            )  # fmt: skip
    read: list[Any] = []
    if model is not None:
        for dictionary in ordered:
            say(f"reading the regions of {dictionary.site}")
            with step_bar() as on_step:
                read.append(
                    alignment.lens_alignment(
                        model, dictionary, draws=draws, seed=seed, on_step=on_step
                    )
                )
    return TrajectoryReport(
        paths,
        tuple(trajectories.flows(paths, max(19, draws // 5), seed)),
        tuple(trajectories.set_paths(paths, draws, seed)),
        tuple(trajectories.set_overlaps(paths, draws, seed)),
        tuple(categories),
        tuple(centering),
        tuple(read),
        exemplar_texts(ordered, paths),
    )
