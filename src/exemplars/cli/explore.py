"""The command that opens dictionaries in a browser."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.options import Device, dictionaries_in, example, load_model
from exemplars.cli.terminal import say
from exemplars.errors import ExemplarsError

if TYPE_CHECKING:
    from exemplars.explorer.serving import Address
    from exemplars.models import Model

_NEEDS = "the explorer needs FastAPI and uvicorn; run: pip install 'exemplars[explore]'"


@app.command(
    epilog=example(
        "  exemplars explore demo/resid_post.15-p2\n"
        "  exemplars explore demo/resid_post.15-p2 demo/resid_post.15-p10 --no-model"
    )
)
def explore(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of dictionaries, or a folder that holds several.", metavar="DIR..."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Default: the models that the dictionaries name.")
    ] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Load no model: nothing is traced or steered.")
    ] = False,
    device: Device = "cpu",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; the next free one, if it is taken.", min=0, max=65485)
    ] = 8765,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Write nothing: no notes, no labels, no cache.")
    ] = False,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Where what is prepared is kept. Default: beside each dictionary."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT that a proxy is reached by. Repeat for several."),
    ] = None,
    base_path: Annotated[
        str, typer.Option(help="Path that a proxy puts before: /proxy/8765.")
    ] = "",
) -> None:
    """Read, search, probe and steer dictionaries in the browser.

    Serves a page to this machine alone, with a link that holds a secret. Ctrl-C ends it.
    """
    check_host(host, allow_host or [])
    try:
        from exemplars.explorer import serving, state
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise ImportError(_NEEDS) from None
    views = serving.open_views(dictionaries_in(folders), cache_dir, read_only)
    explorer = state.Explorer(
        views,
        why_not_write=serving.why_not_write(views, read_only),
        load=None if no_model else partial(_loaded, device=device),
        model=model,
    )
    listening = serving.free_socket(host, port)
    actual = listening.getsockname()[1]
    if port and actual != port:
        say(f"port {port} is taken; using {actual}")
    address = serving.Address(host, actual, serving.new_token(), base_path)
    say(start_text(address, len(views), os.environ))
    explorer.prepare()
    opens = not no_open and "SSH_CONNECTION" not in os.environ
    application = serving.guarded(explorer, address, allow_host or [])
    try:
        if opens:
            with serving.browser_opened(address.link):
                serving.serve(application, listening)
        else:
            serving.serve(application, listening)
    finally:
        listening.close()
        explorer.close()


def _loaded(name: str, device: str) -> Model:
    """A model; where it cannot be had, the terminal says so too, and the page goes on without."""
    try:
        return load_model(name, device)
    except (ExemplarsError, ImportError, OSError, ValueError) as error:
        say(f"{name} could not be loaded, so texts are not read ({error}); give another --model")
        raise


def check_host(host: str, allowed: list[str]) -> None:
    """Refuse to listen where others reach it, unless it is said by which name they do."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        if not allowed:
            raise ValueError(
                f"--host {host} lets other machines in; say by which address they come, "
                "with --allow-host HOST:PORT, or leave --host away"
            )
        say(
            f"warning: {host} can be reached from other machines, over a line that is not encrypted"
        )


def start_text(address: Address, n: int, environment: Mapping[str, str]) -> str:
    """What is said at the start: the link, and how to reach it through SSH."""
    what = "1 dictionary" if n == 1 else f"{n} dictionaries"
    lines = [f"{what} at {address.link}"]
    if "SSH_CONNECTION" in environment:
        lines.append(
            f"from your own machine: ssh -L {address.port}:127.0.0.1:{address.port} HOST, "
            "then open the link there"
        )
    lines.append("Ctrl-C ends it")
    return "\n".join(lines)
