"""What a command writes: results to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from exemplars.streaming import OnProgress, Progress


def say(message: str) -> None:
    """On stderr; names from files in it cannot write to the terminal."""
    from exemplars.report import visible

    typer.echo("\n".join(map(visible, message.split("\n"))), err=True)


def print_result(result: Any, text: str | None, json: bool) -> None:
    """On stdout: the text for people, or the result as JSON."""
    from exemplars import report

    typer.echo(report.to_json(result) if json else text)


@contextlib.contextmanager
def interruptible(
    out: Path | None = None, advice: str = "", activations: Path | None = None
) -> Iterator[None]:
    """Ctrl-C says what is left of a build, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        from exemplars.activations import INDEX
        from exemplars.building import partial_of

        if out is not None and partial_of(out).exists():
            raise KeyboardInterrupt(
                f"interrupted; {partial_of(out)} holds what was done: {advice} to go on from there"
            ) from None
        if activations is not None and (activations / INDEX).exists():
            raise KeyboardInterrupt(
                f"interrupted; {activations} holds activations: run it again to go on from there"
            ) from None
        raise KeyboardInterrupt("interrupted; nothing was written") from None


@contextlib.contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """One line on stderr that is rewritten: rows, rate, time left, regions."""
    from tqdm import tqdm

    bar: Any = None
    stage = ""
    every_s = 0.1 if sys.stderr.isatty() else 10.0  # a log needs fewer lines

    def on_progress(progress: Progress) -> None:
        nonlocal bar, stage
        total = progress.total_rows
        rows = progress.rows if total is None else min(progress.rows, total)
        if bar is None or progress.stage != stage:
            if bar is not None:
                bar.close()
            stage = progress.stage
            bar = tqdm(
                total=total, initial=rows, unit=" rows", unit_scale=True, desc=stage,
                mininterval=every_s,
            )  # fmt: skip
        if progress.regions:
            counts = sorted(progress.regions.values())
            span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
            bar.set_postfix_str(f"{span} regions", refresh=False)
        bar.update(rows - bar.n)

    try:
        yield on_progress
    finally:
        if bar is not None:
            bar.close()
