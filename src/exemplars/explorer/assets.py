"""The files of the page, as they lie in the package: served, or put into one file."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
_KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".json": "application/json",
}


@dataclass(frozen=True)
class Assets:
    """A folder of files for the browser."""

    folder: Path = STATIC

    @property
    def shell(self) -> str:
        """The page that everything happens in.

        Raises:
            FileNotFoundError: The files of the page were not installed.
        """
        path = self.folder / "index.html"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: the package was installed without the pages of the explorer; "
                "install it again from a wheel"
            )
        return path.read_text(encoding="utf-8")

    @property
    def import_map(self) -> str:
        """The inline script that says where modules are, as it stands in the page."""
        found = _IMPORT_MAP.search(self.shell)
        return found[1] if found else ""

    @property
    def modules(self) -> dict[str, str]:
        """Names of modules and their addresses, "./static/..."."""
        text = self.import_map
        found: dict[str, str] = json.loads(text)["imports"] if text else {}
        return found

    def names(self) -> list[str]:
        """Paths of all files, as they stand in addresses."""
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names())

    def read(self, name: str) -> tuple[bytes, str] | None:
        """A file and its media type; None if there is no file of this name."""
        if name not in self._known:
            return None
        path = self.folder / name
        kind = _KINDS.get(path.suffix) or mimetypes.guess_type(name)[0]
        kind = kind or "application/octet-stream"
        text = kind.startswith("text/") or kind == "application/json"
        return path.read_bytes(), f"{kind}; charset=utf-8" if text else kind


INSTALLED = Assets()
"""The files in the package."""


def hash_of(text: str) -> str:
    """An inline script or style as a Content-Security-Policy names it: "sha256-..."."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
