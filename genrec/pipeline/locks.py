"""Define a lock that allows either many requests at the same time or a single edit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """A lock under which an edit waits for running requests, and new requests wait for the edit.

    While a thread holds the lock for a request, it may start another request, but not an edit. While
    it holds the lock for an edit, it must not start a request.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._editing = False
        self._waiting = 0
        self._mine = threading.local()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold the lock for a request while the ``with`` block runs."""
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
        """Hold the lock for an edit while the ``with`` block runs. Only one edit runs at a time.

        Raises:
            RuntimeError: this thread already holds the lock for a request.
        """
        if getattr(self._mine, "depth", 0):
            msg = (
                "The catalog cannot be edited during a request on the same thread, because this would "
                "cause a deadlock. Edit it before or after the request."
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
