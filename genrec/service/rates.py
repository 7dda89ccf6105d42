"""Limit how often each key may be used, in this process or in several."""

from __future__ import annotations

import time

from genrec.errors import SettingsError
from genrec.extras import how_to_install
from genrec.service.shared import Shared


class RateLimit:
    """A limit such as 600 requests per minute for each key, counted in a sliding window."""

    def __init__(self, rate: str, shared: Shared | None = None) -> None:
        """Read the limit.

        Args:
            rate: the limit, such as ``600/minute``.
            shared: the numbers in which several processes count together; None to count in this process.

        Raises:
            SettingsError: the limit is not valid.
        """
        try:
            import limits
        except ImportError as error:
            raise SettingsError(f"--rate needs limits. {how_to_install('serve')}") from error
        try:
            self._rate = limits.parse(rate)
        except ValueError as error:
            msg = f"rate={rate!r} is not valid. Expected a number of requests, such as 600/minute."
            raise SettingsError(msg) from error
        self._shared = shared
        self._here = limits.strategies.SlidingWindowCounterRateLimiter(
            limits.storage.MemoryStorage()
        )

    def __str__(self) -> str:
        """Return the limit in words."""
        return str(self._rate)

    def hit(self, key: str) -> float:
        """Count a request of a key.

        Returns:
            0 if it is allowed; otherwise, the number of seconds after which another one may be.
        """
        if self._shared is not None:
            return self._shared.hit(key, self._rate.amount, self._rate.get_expiry())
        if self._here.hit(self._rate, key):
            return 0.0
        return max(self._here.get_window_stats(self._rate, key).reset_time - time.time(), 0.001)
