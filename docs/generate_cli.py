"""The text of docs/cli.md, from the help texts of the command itself.

python docs/generate_cli.py            prints it
python docs/generate_cli.py --write    writes it
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from exemplars.cli import app

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 88
_HEAD = """# The command line

Results go to standard output (text for people, `--json` for programs), progress and messages to
standard error. An error is one sentence and exit status 2; Ctrl-C is exit status 130; `doctor` ends
with 1 if a check failed. `--` stands before an argument that begins with a minus sign.

This page is made by `python docs/generate_cli.py --write` from the help texts.
"""


def page() -> str:
    """All of the page."""
    group: Any = typer.main.get_command(app)
    parts = [_HEAD, f"```\n{_help(group, 'exemplars')}\n```\n"]
    for name, command in group.commands.items():
        parts.append(f"## {name}\n\n```\n{_help(command, f'exemplars {name}')}\n```\n")
    return "\n".join(parts)


def _help(command: Any, path: str) -> str:
    """A command's help at a fixed width, whatever the terminal's."""
    context = type(command).context_class(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH
    )
    return command.get_help(context).rstrip()


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
