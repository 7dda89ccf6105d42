"""Share numbers between the processes of one service: the revision of the shop, and how often keys were used.

The numbers are in a file that every process maps into its memory. A process that is killed while it holds the
file's lock loses the lock, so none can block the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SOCKET, NUMBERS = "model", "numbers"  # the files in the folder that the processes share
_OF_KEY = 3  # numbers of a key: its window, and its requests in this window and in the one before


class Shared:
    """Numbers in a file.

    They are the revision and, for each key, its window, its requests in it, and those in the window before.
    """

    def __init__(self, path: Path, keys: Sequence[str] = ()) -> None:
        """Map the file, which is created if it is missing.

        Args:
            path: the file.
            keys: the names of the keys; the same in each process.
        """
        self._place = {name: 1 + _OF_KEY * n for n, name in enumerate(dict.fromkeys(keys))}
        size = 8 * (1 + _OF_KEY * len(self._place))
        self._file = path.open("a+b")
        if path.stat().st_size < size:
            self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)
        self._numbers = memoryview(self._map).cast("d")
        self._alone = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._numbers.release()
        self._map.close()
        self._file.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._alone:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    @property
    def revision(self) -> int:
        """The number of changes of the shop so far."""
        return int(self._numbers[0])

    def count_change(self) -> int:
        """Count a change of the shop, and return the new revision."""
        with self._locked():
            self._numbers[0] += 1
            return self.revision

    def hit(self, key: str, amount: int, seconds: float) -> float:
        """Count a request of a key, unless there were too many.

        The number of requests in the last ``seconds`` is estimated as usual for a sliding window: those
        in the present window, and of those in the window before the share that is still in reach.

        Args:
            key: the name of the key.
            amount: how many requests are allowed.
            seconds: the length of a window.

        Returns:
            0 if the request is allowed; otherwise, the number of seconds until this window ends.
        """
        n = self._place[key]
        with self._locked():
            now = time.time()
            window, passed = now // seconds, now % seconds
            last, here, before = map(float, self._numbers[n : n + _OF_KEY])
            if window != last:
                here, before = 0.0, here if window == last + 1 else 0.0
            allowed = before * (1 - passed / seconds) + here < amount
            found = window, here + allowed, before
            for place, value in enumerate(found, start=n):
                self._numbers[place] = value
        return 0.0 if allowed else seconds - passed
