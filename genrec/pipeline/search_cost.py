"""Report the cost of a search for a long list before it starts, and its progress while it runs."""

from __future__ import annotations

import time

from genrec.text import quantity
from genrec.types import Log

LONG = 1_000  # shorter lists are found so soon that their cost is not announced
MANY = 8_192  # with fewer tokens, the cost is not announced either
_EVERY = 10.0  # seconds between two lines on the progress


class SearchCost:
    """Announces the cost of a search, and reports the progress of the search when called."""

    def __init__(self, log: Log, items: int, tokens: int, rate: float) -> None:
        """Announce the cost.

        Args:
            log: function that receives a line of text.
            items: the number of items to find.
            tokens: the maximum number of tokens that the model must process.
            rate: the number of tokens per second at which the model processed the prompt.
        """
        self._log, self._tokens = log, tokens
        self._first: tuple[float, int] | None = None  # time and tokens at the first call
        self._said = 0.0
        log(
            f"A list of {items:,} items: the model will process up to {tokens:,} tokens of titles, "
            f"which takes up to {duration(tokens / rate)} at the speed at which it read the prompt ..."
        )

    def __call__(self, done: int) -> None:
        """Report the progress, at most every few seconds.

        Args:
            done: the number of tokens processed so far.
        """
        now = time.perf_counter()
        if self._first is None:
            self._first, self._said = (now, done), now
        elif now - self._said >= _EVERY:
            self._said = now
            start, before = self._first
            rate = (done - before) / (now - start)
            left = max(self._tokens - done, 0) / max(rate, 1e-9)
            self._log(
                f"{done:,} of at most {self._tokens:,} tokens of titles processed; up to "
                f"{duration(left)} more ..."
            )


def duration(seconds: float) -> str:
    """Format a duration in a suitable unit.

    >>> duration(0.2), duration(61), duration(5000), duration(40000)
    ('1 second', '61 seconds', '83 minutes', '11 hours')
    """
    if seconds < 120:
        return quantity(max(round(seconds), 1), "second")
    if seconds < 7200:
        return quantity(round(seconds / 60), "minute")
    return quantity(round(seconds / 3600), "hour")
