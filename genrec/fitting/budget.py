"""Keep the time limit of ``genrec fit``: begin only what can end in time, and stop what is late.

This module deals with seconds only, not with the steps that take them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from genrec.types import Log

_LATE = 1.05  # a step is stopped when this share of the limit has passed


class TimeUpError(Exception):
    """A step was stopped because the time limit has passed."""


class Budget:
    """The time limit of a command, measured from the creation of this object.

    Attributes:
        limit: the time limit in seconds; infinity if there is none.
    """

    def __init__(
        self, minutes: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Start to measure the time.

        Args:
            minutes: the time limit; None for no limit.
            now: a function that returns the time in seconds, from any starting point.
        """
        self.limit = math.inf if minutes is None else 60.0 * minutes
        self._now, self._began = now, now()

    @property
    def seconds(self) -> float:
        """The seconds that have passed."""
        return self._now() - self._began

    @property
    def left(self) -> float:
        """The seconds until the limit; negative if it has passed."""
        return self.limit - self.seconds

    def check(self) -> None:
        """Check that a step may go on.

        Raises:
            TimeUpError: the limit has passed by more than a few percent.
        """
        if self.seconds > _LATE * self.limit:
            raise TimeUpError

    def watch(self, log: Log) -> Log:
        """Return a log that also stops the step that calls it when the limit has passed."""

        def watched(message: str) -> None:
            self.check()
            log(message)

        return watched
