"""Store shown lists in the background, so that no answer waits for the disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from genrec.service.store import ShownList, Store

_MOST = 10_000  # lists that may wait; further ones are dropped and counted
_TOGETHER = 500  # lists that are stored in one transaction


class Recorder:
    """A thread that stores lists in the order in which they come.

    If the process is killed, the lists of the last moment are lost. Events are never stored in this
    way.

    Attributes:
        dropped: the number of lists that were not stored.
    """

    def __init__(
        self,
        store: Store,
        failed: Callable[[Exception], None],
        lost: Callable[[int], None] = lambda lists: None,
    ) -> None:
        """Start the thread.

        Args:
            store: the store.
            failed: a function that is called with each error.
            lost: a function that is called with the number of lists that were not stored.
        """
        self._store, self._failed, self._lost = store, failed, lost
        self._queue: queue.Queue[ShownList | None] = queue.Queue(_MOST)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="genrec-lists", daemon=True)
        self._thread.start()

    def add(self, shown: ShownList) -> None:
        """Store a list soon."""
        try:
            self._queue.put_nowait(shown)
        except queue.Full:
            self._drop(1)

    def _drop(self, lists: int) -> None:
        self.dropped += lists
        self._lost(lists)

    def flush(self) -> None:
        """Wait until all lists that were added have been stored."""
        self._queue.join()

    def close(self) -> None:
        """Store all lists that were added, and stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            taken = [self._queue.get()]
            while len(taken) < _TOGETHER and taken[-1] is not None:
                try:
                    taken.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            lists = [one for one in taken if one is not None]
            try:
                if lists:
                    self._store.add_lists(lists)
            except Exception as error:
                self._drop(len(lists))
                self._failed(error)
            for _ in taken:
                self._queue.task_done()
            if taken[-1] is None:
                return
