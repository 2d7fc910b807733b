"""What a command writes: results to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from exemplars.analyses.labelled import OnStep
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
    with _bars(" rows", unit_scale=True) as show:

        def on_progress(progress: Progress) -> None:
            said = ""
            if progress.regions:
                counts = sorted(progress.regions.values())
                span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
                said = f"{span} regions"
            show(progress.stage, progress.rows, progress.total_rows, said)

        yield on_progress


@contextlib.contextmanager
def step_bar() -> Iterator[OnStep]:
    """Likewise of an analysis: what, how many of how many, and the time left."""
    with _bars("") as show:
        yield show


@contextlib.contextmanager
def _bars(unit: str, **options: Any) -> Iterator[Callable[..., None]]:
    """A function (stage, done, total, said) that shows a bar for each stage in turn."""
    from tqdm import tqdm

    bar: Any = None
    every_s = 0.1 if sys.stderr.isatty() else 10.0  # a log needs fewer lines
    now = ""

    def show(stage: str, done: int, total: int | None, said: str = "") -> None:
        nonlocal bar, now
        done = done if total is None else min(done, total)
        if bar is None or stage != now:
            if bar is not None:
                bar.close()
            now = stage
            bar = tqdm(
                total=total, initial=done, unit=unit, desc=stage, mininterval=every_s, **options
            )
        if said:
            bar.set_postfix_str(said, refresh=False)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
