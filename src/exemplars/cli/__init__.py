"""The command `exemplars`: each verb parses, calls the library, prints.

Results go to stdout (text for people, `--json` for programs), all else to stderr. An error is one
sentence and exit status 2, Ctrl-C is 130, and a model that `doctor` finds wanting is 1.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import Any, NoReturn

import typer

from exemplars.cli import behavior as behavior  # the verbs add themselves
from exemplars.cli import compare as compare
from exemplars.cli import concepts as concepts
from exemplars.cli import dictionaries as dictionaries
from exemplars.cli import drift as drift
from exemplars.cli import explore as explore
from exemplars.cli import export as export
from exemplars.cli import families as families
from exemplars.cli import growth as growth
from exemplars.cli import label as label
from exemplars.cli import novelty as novelty
from exemplars.cli import patch as patch
from exemplars.cli import prepare as prepare
from exemplars.cli import probe as probe
from exemplars.cli import resolution as resolution
from exemplars.cli import sae as sae
from exemplars.cli import stability as stability
from exemplars.cli import steer as steer
from exemplars.cli import trajectories as trajectories
from exemplars.cli.application import app as app
from exemplars.cli.terminal import say

_VERBS = (
    *("demo", "build", "census", "show", "assign"),
    *("concepts", "probe", "sae", "label"),
    *("behavior", "steer", "patch"),
    *("compare", "drift", "families", "stability"),
    *("growth", "novelty", "resolution", "trajectories"),
    *("explore", "prepare", "export", "import-reference", "doctor"),
)  # as `exemplars --help` lists them
app.registered_commands.sort(
    key=lambda verb: _VERBS.index(verb.name or getattr(verb.callback, "__name__", ""))
)

# Of the click that typer uses: one that is installed, or, in later versions, one inside typer.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command; errors are one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without θ shows "?"
    try:
        status = _run(sys.argv[1:] or ["--help"])
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _fail(str(interrupt) or "interrupted", 130)
    except BrokenPipeError:  # as in `exemplars show DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if not _is_expected(error):
            raise
        _fail(f"error: {_sentence(error)}", 2)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit status.

    Not `app()`: it makes something else of Ctrl-C and of a closed pipe, in each version of typer
    another thing.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("exemplars", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except _UsageError as error:
        raise ValueError(_usage_sentence(error)) from None
    return 0


def _usage_sentence(error: Any) -> str:
    """What is wrong with the arguments, and where to look it up."""
    found = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "exemplars"
    if re.match("No such option: -[^-]", found):
        found += ' (put "--" before an argument that begins with "-")'
    return f"{found[:1].lower()}{found[1:]}; see {command} --help"


def _is_expected(error: Exception) -> bool:
    """Errors whose message is meant for the person at the terminal."""
    from exemplars.errors import ExemplarsError

    if isinstance(error, ImportError):
        return error.name is None  # ours, which say what to install; Python's have a name
    return isinstance(error, (ExemplarsError, ValueError, OSError, MemoryError)) or (
        type(error).__name__ == "OutOfMemoryError"  # torch's, which need not be imported for it
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({error}); give fewer sites or percentiles, smaller --batch-tokens "
            "and --window-tokens, or a larger percentile"
        )
    return str(error) or type(error).__name__


def _fail(message: str, status: int) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    say(" ".join(message.split()))
    sys.exit(status)
