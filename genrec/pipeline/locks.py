"""A lock that admits many concurrent requests or a single edit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Makes an edit wait for running requests, and new requests wait for the edit.

    A request may start another request on its own thread. On the same thread, however, an edit must
    not start a request, and a request must not start an edit.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._editing = False
        self._waiting = 0
        self._mine = threading.local()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold the lock for a request."""
        depth: int = getattr(self._mine, "depth", 0)
        if not depth:
            with self._changed:
                self._changed.wait_for(lambda: not (self._editing or self._waiting))
                self._running += 1
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if not depth:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

    @contextmanager
    def edit(self) -> Iterator[None]:
        """Hold the lock for an edit. Only one edit runs at a time.

        Raises:
            RuntimeError: this thread holds the lock for a request.
        """
        if getattr(self._mine, "depth", 0):
            msg = (
                "The catalog cannot be edited during a request on the same thread: this would "
                "deadlock. Edit it before or after the request."
            )
            raise RuntimeError(msg)
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not (self._editing or self._running))
            finally:
                self._waiting -= 1
            self._editing = True
        try:
            yield
        finally:
            with self._changed:
                self._editing = False
                self._changed.notify_all()
