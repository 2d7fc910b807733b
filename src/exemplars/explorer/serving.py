"""A server on the loopback interface, and the browser that is sent to it."""

from __future__ import annotations

import contextlib
import html
import os
import secrets
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exemplars.explorer.application import create_app
from exemplars.explorer.assets import INSTALLED, Assets, hash_of
from exemplars.explorer.guard import LoopbackGuard, content_policy
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View, place_of, slugs_of

PORTS = 50
"""Ports that are tried, from the one asked for."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where the server is."""

    host: str
    port: int
    token: str
    base_path: str = ""

    @property
    def link(self) -> str:
        """What a browser opens. What follows # stays in the browser."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "localhost") else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}{self.base_path or ''}/#t={self.token}"


def open_views(
    folders: Sequence[Path], cache: Path | None = None, read_only: bool = False
) -> dict[str, View]:
    """Open dictionaries, by their names in addresses."""
    slugs = slugs_of(list(folders))
    return {
        slug: View(folder, slug, place_of(folder, cache, read_only))
        for slug, folder in zip(slugs, folders, strict=True)
    }


def why_not_write(views: Mapping[str, View], read_only: bool) -> str | None:
    """Why notes are not kept; None if they are."""
    if read_only:
        return "the explorer was started with --read-only, so notes are not kept"
    if any(view.is_temporary for view in views.values()):
        return "nothing can be written beside the dictionary; start with --cache-dir to keep notes"
    return None


def free_socket(host: str, port: int) -> socket.socket:
    """A listening socket on the first free port from `port` on; 0 for any.

    Raises:
        OSError: None of them is free, or the host is not this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, port + PORTS if port else 1):
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, number))
            found.listen(64)
        except OSError as error:
            found.close()
            if number + 1 == port + PORTS or not port:
                raise OSError(
                    f"no port from {port} to {number} is free on {host} ({error.strerror}); "
                    "give another with --port"
                ) from error
            continue
        return found
    raise AssertionError("no port was tried")


def new_token() -> str:
    """192 random bits."""
    return secrets.token_urlsafe(24)


def guarded(
    explorer: Explorer, address: Address, hosts: Sequence[str] = (), assets: Assets = INSTALLED
) -> LoopbackGuard:
    """The application behind its guard."""
    return LoopbackGuard(
        create_app(explorer, assets),
        token=address.token,
        port=address.port,
        policy=content_policy([hash_of(assets.import_map)] if assets.import_map else []),
        hosts=hosts,
        base_path=address.base_path,
    )


def serve(application: LoopbackGuard, listening: socket.socket) -> None:
    """Serve until Ctrl-C, which ends it at once."""
    import uvicorn

    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        lifespan="on",
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listening])


@contextlib.contextmanager
def browser_opened(link: str, open_: Callable[[str], object] = webbrowser.open) -> Iterator[None]:
    """Send the browser to a link that other users of the machine do not get to see.

    The command line of a process can be read by everyone, so the browser gets the name of a file
    that only its owner can read, which sends it on. The file goes when the block ends.
    """
    with tempfile.TemporaryDirectory(prefix="exemplars-") as folder:  # readable by its owner alone
        path = Path(folder) / "open.html"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            target = html.escape(link, quote=True)
            file.write(
                '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
                f'<meta http-equiv="refresh" content="0;url={target}"><title>exemplars</title>'
                f'<a href="{target}">Open the explorer</a>'
            )
        thread = threading.Thread(target=open_, args=(path.as_uri(),), daemon=True)
        thread.start()
        yield
