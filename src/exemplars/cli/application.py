"""The command itself, to which each verb adds itself."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Exemplar Partitioning dictionaries of neural-network activations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        import exemplars

        typer.echo(f"exemplars {exemplars.__version__}")
        raise typer.Exit


@app.callback()
def exemplars(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Hold the options that stand before a command."""
