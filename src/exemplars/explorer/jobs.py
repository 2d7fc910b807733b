"""Exports that are made while the server runs: begun, asked after, fetched."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exemplars.explorer.single_file import MAX_MB, TOP, SingleFile, export_html
from exemplars.explorer.views import View

KEPT = 4
"""Files that are kept; the oldest goes."""


@dataclass
class ExportJob:
    """One export, and how far it is."""

    name: str
    """Of the file, for whoever saves it."""
    state: str = "running"
    """"running", "done" or "failed"."""
    done: int = 0
    total: int = 0
    message: str = ""
    result: SingleFile | None = None

    def page(self) -> dict[str, Any]:
        """What is answered of it."""
        found = self.result
        return {
            "state": self.state,
            "progress": self.done / self.total if self.total else None,
            "message": self.message,
            "result": None
            if found is None
            else {
                "bytes": found.bytes,
                "sha256": found.sha256,
                "regions": found.regions,
                "of": found.of,
                "parts": dict(found.parts),
                "documents": found.documents,
                "characters": found.characters,
                "left_out": list(found.left_out),
            },
        }


class Exports:
    """Makes one export at a time, in a temporary folder."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._folder = tempfile.TemporaryDirectory(prefix="exemplars-export-")
        self._jobs: dict[str, ExportJob] = {}
        self._lock = threading.Lock()

    def begin(
        self,
        view: View,
        regions: Sequence[int] | None = None,
        top: int = TOP,
        corpus_text: bool = True,
        max_mb: float = MAX_MB,
    ) -> str:
        """Begin an export; arguments as of `export_html`. Returns its id."""
        id_ = secrets.token_hex(8)
        job = ExportJob(f"{view.slug}.html")
        with self._lock:
            self._jobs[id_] = job
            for oldest in list(self._jobs)[:-KEPT]:
                if self._jobs[oldest].state != "running":
                    del self._jobs[oldest]
                    (Path(self._folder.name) / oldest).unlink(missing_ok=True)

        def on_step(what: str, done: int, total: int) -> None:
            job.done, job.total = done, total

        def work() -> None:
            try:
                job.result = export_html(
                    view.folder, self.file(id_), regions=regions, top=top,
                    corpus_text=corpus_text, max_mb=max_mb, on_step=on_step,
                )  # fmt: skip
                job.state = "done"
            except (ValueError, OSError) as error:
                job.state, job.message = "failed", str(error)

        self._pool.submit(work)
        return id_

    def job(self, id_: str) -> ExportJob:
        """An export.

        Raises:
            LookupError: There is none of this id.
        """
        jobs: Mapping[str, ExportJob] = self._jobs
        if id_ not in jobs:
            raise LookupError("there is no such export any more; begin it again")
        return jobs[id_]

    def file(self, id_: str) -> Path:
        """Where its file is, or will be."""
        return Path(self._folder.name) / id_

    def close(self) -> None:
        """Wait for what is being made, and remove the files."""
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()
