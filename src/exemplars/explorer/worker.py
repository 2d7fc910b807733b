"""One thread in which models are loaded and run, and the streams of what they say.

A job puts messages into its stream; whoever reads the stream may leave at any time, which cancels
the job. A newer job of the same client and kind takes the place of an older one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from exemplars.errors import ExemplarsError
from exemplars.report import to_json

if TYPE_CHECKING:
    from exemplars.models import Model

WAITING = 32
"""Jobs that may wait; more are refused."""
HEARTBEAT_S = 10.0
_POLL_S = 0.02
_logger = logging.getLogger(__name__)


class BusyError(Exception):
    """Too many jobs wait."""


class Job:
    """Work for the models: cancelled from one side, written to from the other."""

    def __init__(self, kind: str, client: str, work: Callable[[Job], None]) -> None:
        self.id = secrets.token_hex(8)
        self.kind, self.client = kind, client
        self.cancel = threading.Event()
        self.done = threading.Event()
        self._work = work
        self._messages: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()

    def put(self, type_: str, **about: Any) -> None:
        """Say something to whoever reads."""
        self._messages.put({"type": type_, **about})

    def run(self) -> None:
        """Do the work, unless it was cancelled; errors become messages."""
        try:
            if not self.cancel.is_set():
                self._work(self)
            if self.cancel.is_set():
                self.put("cancelled")
        except (ExemplarsError, ValueError, LookupError, OSError, ImportError) as error:
            self.put("error", error=str(error) or type(error).__name__)
        except Exception as error:
            _logger.exception("%s failed", self.kind)
            self.put("error", error=f"the model failed ({type(error).__name__}: {error})"[:500])
        finally:
            self.done.set()
            self._messages.put(None)

    async def lines(self) -> AsyncIterator[bytes]:
        """The messages as lines of JSON, with a heartbeat; leaving cancels the job."""
        quiet_s = 0.0
        try:
            while True:
                try:
                    message = self._messages.get_nowait()
                except queue.Empty:
                    await asyncio.sleep(_POLL_S)
                    quiet_s += _POLL_S
                    if quiet_s < HEARTBEAT_S:
                        continue
                    message = {"type": "ping"}
                quiet_s = 0.0
                if message is None:
                    return
                yield (to_json(message) + "\n").encode()
        finally:
            self.cancel.set()

    def messages(self) -> list[dict[str, Any]]:
        """All messages, once the work is done: what a stream would have said."""
        self.done.wait()
        found = []
        while (message := self._messages.get()) is not None:
            found.append(json.loads(to_json(message)))
        return found


class Worker:
    """The thread. It starts with its first job.

    Args:
        load: Gives a model by its name; slow.
    """

    def __init__(self, load: Callable[[str], Model]) -> None:
        self._load = load
        self._models: dict[str, Model] = {}
        self._failed: dict[str, str] = {}
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle: deque[Callable[[], bool]] = deque()
        self._open: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(
        self, kind: str, client: str, work: Callable[[Job], None], model: str | None = None
    ) -> Job:
        """Queue a job; older ones of this client and kind are cancelled.

        Args:
            kind: Of work.
            client: Whose.
            work: What is done in the thread.
            model: That it needs; if it is not loaded by now, the stream begins with "loading".

        Raises:
            BusyError: Too many wait.
        """
        job = Job(kind, client, work)
        if model is not None and self.status(model)[0] == "loading":
            job.put("loading", model=model)
        with self._lock:
            self._open = {key: j for key, j in self._open.items() if not j.done.is_set()}
            for other in self._open.values():
                if (other.kind, other.client) == (kind, client):
                    other.cancel.set()
            waiting = sum(not j.cancel.is_set() for j in self._open.values())
            if waiting >= WAITING or self._closed:
                raise BusyError(f"{waiting} requests wait for the model; try again in a moment")
            self._open[job.id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="models", daemon=True)
                self._thread.start()
        self._jobs.put(job)
        return job

    def when_idle(self, step: Callable[[], bool]) -> None:
        """Do a short step again and again while no job waits, until it says that it is done.

        Args:
            step: Called in the thread; False when there is no more to do. It raises nothing.
        """
        self._idle.append(step)
        with contextlib.suppress(BusyError):  # then the thread is awake
            self.submit("idle", "", lambda job: None)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; False if there is none of this id, or it is done."""
        with self._lock:
            job = self._open.get(job_id)
        if job is None or job.done.is_set():
            return False
        job.cancel.set()
        return True

    @property
    def running(self) -> int:
        """Jobs that are not done."""
        with self._lock:
            return sum(not job.done.is_set() for job in self._open.values())

    def model(self, name: str) -> Model:
        """A model, loaded at its first use. To be called by jobs alone.

        Raises:
            ValueError: It could not be loaded before.
        """
        if name in self._failed:
            raise ValueError(self._failed[name])
        if name not in self._models:
            try:
                self._models[name] = self._load(name)
            except (ExemplarsError, ValueError, OSError, ImportError) as error:
                self._failed[name] = f"the model {name} could not be loaded: {error}"
                raise ValueError(self._failed[name]) from error
        return self._models[name]

    def load(self, name: str) -> None:
        """Load a model before it is asked for. To be called by jobs alone."""
        self.model(name)

    def loaded(self, name: str | None) -> Model | None:
        """A model, if it is there by now."""
        return None if name is None else self._models.get(name)

    def status(self, name: str) -> tuple[str, str | None]:
        """Whether a model is "ready", "failed" or "loading", and why."""
        if name in self._models:
            return "ready", None
        if name in self._failed:
            return "failed", self._failed[name]
        return "loading", None

    def close(self) -> None:
        """Cancel everything, and wait for the thread."""
        with self._lock:
            self._closed = True
            for job in self._open.values():
                job.cancel.set()
            thread = self._thread
        self._jobs.put(None)
        if thread is not None:
            thread.join(timeout=5)

    def _run(self) -> None:
        for job in iter(self._next, None):
            job.run()

    def _next(self) -> Job | None:
        """The next job; until there is one, what is done in idle time."""
        while self._idle and not self._closed:
            with contextlib.suppress(queue.Empty):
                return self._jobs.get_nowait()
            if not self._idle[0]():
                self._idle.popleft()
        return self._jobs.get()
