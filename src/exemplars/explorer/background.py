"""Things that take a while, made one after another beside the server, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from exemplars.explorer.views import NotReadyError

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")


class Background(Generic[_Key, _Made]):
    """What was asked for, by a key.

    Args:
        part: What the page says is being prepared, in the plural.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=part)
        self._found: dict[_Key, Future[_Made]] = {}
        self._lock = threading.Lock()

    def of(self, key: _Key, make: Callable[[], _Made]) -> _Made:
        """What `make` gives, made once for each key.

        Raises:
            NotReadyError: It is still being made.
            Exception: What `make` raised.
        """
        with self._lock:
            if key not in self._found:
                self._found[key] = self._pool.submit(make)
            found = self._found[key]
        if not found.done():
            raise NotReadyError(self._part)
        return found.result()

    def made(self) -> dict[_Key, _Made]:
        """All that is there by now."""
        return {
            key: future.result()
            for key, future in list(self._found.items())
            if future.done() and not future.cancelled() and future.exception() is None
        }

    @property
    def busy(self) -> bool:
        """Whether something is being made."""
        return not all(future.done() for future in list(self._found.values()))

    def close(self) -> None:
        """Wait for what is being made; drop what is not begun."""
        self._pool.shutdown(cancel_futures=True)
