"""The command that says whether a domain is covered."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
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
from exemplars.cli.terminal import interruptible, print_result, progress_bar, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exemplars.analyses.detection import Interval
    from exemplars.analyses.domains import Domain
    from exemplars.analyses.growth import Curve, Growth
    from exemplars.corpora import Texts
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model


@dataclass(frozen=True)
class GrowthReport:
    """What the command prints as JSON."""

    growths: tuple[Growth, ...]
    differs: tuple[str, ...]
    """What the curves do not share, so that they cannot be compared."""
    inside: dict[str, Interval]
    """By text: share of its rows that the dictionary's regions hold."""


@app.command(
    epilog=example(
        "  exemplars growth smollm2-l15-p2 --more 1000000 --figure growth.svg\n"
        "  exemplars growth smollm2-l15-p2 --watch 30\n"
        "  exemplars growth smollm2-l15-p2 --text code/ --text prose/ --rows 100000"
    )
)
def growth(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Dictionaries' folders, or folders of several; builds that run or were "
            "interrupted too.",
            metavar="DIR...",
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="A domain to read with the dictionary's center and θ: files, a folder, "
            "package:NAME, or a dataset. Repeat for several domains. With --by-source: where the "
            "build's own texts are.",
        ),
    ] = None,
    by_source: Annotated[
        bool,
        typer.Option("--by-source", help="One curve for each folder or file of the build's texts."),
    ] = False,
    rows: Annotated[int, typer.Option(help="Rows of each --text; 0 for all.", min=0)] = 100_000,
    more: Annotated[
        list[int] | None,
        typer.Option(help="Forecast for so many more rows. Repeat for several.", min=1),
    ] = None,
    target: Annotated[
        float, typer.Option(help="Chance of a new region at which a domain is covered.")
    ] = 0.01,
    watch: Annotated[
        float | None,
        typer.Option(help="Look again every so many seconds until the builds end.", min=0.1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order of a --text's documents.", min=0)] = 0,
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
    """Say whether a domain is covered: the chance of a new region, and how many are to come."""
    from exemplars import figures
    from exemplars.analyses import growth as study
    from exemplars.report.growth import growth_figure, growth_text

    inside: dict[str, Interval] = {}
    with interruptible():
        if text and not by_source:
            if len(folders) > 1 or watch is not None:
                raise ValueError("--text reads texts for one dictionary, once; give one folder")
            dictionary = open_dictionary(folders[0])
            reader = model_of(dictionary, model, device, dtype, allow_mismatch)
            sources = {name: texts_of([name], column, split) for name in text}
            domains = _read(dictionary, reader, sources, rows or None, seed, allow_mismatch)
            curves = [domain.curve for domain in domains]
            inside = {domain.curve.name: domain.inside for domain in domains}
        else:
            if watch is not None:
                _watch(folders, target, watch)
            curves = _curves(folders, by_source, texts_of(text, column, split) if text else None)
        growths = tuple(
            study.growth(curve, more_rows=more or (1_000_000,), target=target) for curve in curves
        )
    differs = study.incomparable(curves)
    if figure is not None:
        svg, png = figures.save_figure(growth_figure(growths), figure)
        say(f"written to {svg} and {png}")
    report = GrowthReport(growths, differs, inside)
    print_result(report, growth_text(growths, differs, inside), json)


def _curves(folders: list[Path], by_source: bool, texts: Texts | None) -> list[Curve]:
    """Of all folders; an error where a build has none yet."""
    from exemplars.analyses.growth import curves_in

    found = []
    for folder in folders:
        curves = curves_in(folder, by_source, texts)
        if not curves:
            raise ValueError(f"the build of {folder} has no rows yet, as it calibrates; look later")
        several = len(folders) > 1 and curves[0].name != folder.name
        found += [replace(c, name=f"{folder.name} {c.name}") if several else c for c in curves]
    return found


def _watch(folders: list[Path], target: float, every_s: float) -> None:
    """A line for each change, until all builds have ended or Ctrl-C."""
    from exemplars.analyses.growth import curves_in, growth
    from exemplars.building import is_unfinished
    from exemplars.report.growth import watch_line

    seen: dict[tuple[Path, str], int] = {}
    try:
        while any(map(is_unfinished, folders)):
            for folder in folders:
                for curve in curves_in(folder):
                    if seen.get((folder, curve.name)) != curve.rows[-1]:
                        seen[folder, curve.name] = int(curve.rows[-1])
                        say(watch_line(growth(curve, target=target)))
            time.sleep(every_s)
    except KeyboardInterrupt:
        say("no longer watching")


def _read(
    dictionary: Dictionary,
    model: Model,
    sources: Mapping[str, Texts],
    rows: int | None,
    seed: int,
    allow_mismatch: bool,
) -> list[Domain]:
    """The domains, one after another; says where one ends."""
    from exemplars.analyses.domains import read_domain

    domains = []
    for name, texts in sources.items():
        with progress_bar() as on_progress:
            domains.append(
                read_domain(
                    dictionary, model, texts, name, rows=rows, seed=seed,
                    allow_mismatch=allow_mismatch, on_progress=on_progress,
                )
            )  # fmt: skip
        curve = domains[-1].curve
        say(f"{name}: {curve.rows[-1]:,} rows of {curve.documents:,} documents; {curve.ending}")
    return domains
