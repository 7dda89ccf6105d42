"""Count an item's events in a period of time.

This module deals with catalog rows and times in seconds, not with users.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from genrec.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class EventTimes:
    """The times of E events.

    The events are sorted when their times are first needed.

    Attributes:
        row: (E,) catalog row of each event's item.
        when: (E,) time of each event in seconds.
    """

    row: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    when: FloatArray = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.row)

    @property
    def earliest(self) -> float:
        """The time of the first event; NaN if there are no events."""
        return float(self._moments[0]) if len(self) else np.nan

    @property
    def latest(self) -> float:
        """The time of the last event; NaN if there are no events."""
        return float(self._moments[-1]) if len(self) else np.nan

    def more(self, row: IntArray, when: FloatArray) -> EventTimes:
        """Return the times of these events and of additional events, whose times must be finite."""
        return EventTimes(np.append(self.row, row), np.append(self.when, when))

    def count(self, rows: IntArray, start: float, end: float) -> IntArray:
        """Return the number of events with each of C items from ``start`` to ``end``, inclusive.

        Args:
            rows: (C,) catalog rows of the items.
            start: the start of the period.
            end: the end of the period.

        Returns:
            (C,) numbers of events.

        >>> times = EventTimes(np.array([0, 1, 0, 0]), np.array([5.0, 5.0, 7.0, 9.0]))
        >>> times.count(np.array([0, 1, 2]), 5.0, 8.0)
        array([2, 1, 0])
        """
        first = np.searchsorted(self._moments, start, side="left")
        last = np.searchsorted(self._moments, end, side="right")
        keys, n = self._keys, len(self._moments) + 1
        begin = np.searchsorted(keys, rows * n + first, side="left")
        return np.asarray(np.searchsorted(keys, rows * n + last, side="left") - begin)

    def total(self, start: float, end: float) -> int:
        """Return the number of all events from ``start`` to ``end``, inclusive."""
        first, last = (
            np.searchsorted(self._sorted, start),
            np.searchsorted(self._sorted, end, side="right"),
        )
        return int(last - first)

    def first(self, rows: IntArray) -> FloatArray:
        """Return the time of the first event of each of C items; NaN for items without events."""
        return self._at(rows, rows * (len(self._moments) + 1), 0)

    def last(self, rows: IntArray) -> FloatArray:
        """Return the time of the last event of each of C items; NaN for items without events."""
        return self._at(rows, (rows + 1) * (len(self._moments) + 1), -1)

    def _at(self, rows: IntArray, key: IntArray, offset: int) -> FloatArray:
        found = np.full(len(rows), np.nan)
        if len(self):
            place = np.searchsorted(self._keys, key, side="left") + offset
            place = np.clip(place, 0, len(self) - 1)
            at, moment = np.divmod(self._keys[place], len(self._moments) + 1)
            known = at == rows
            found[known] = self._moments[moment[known]]
        return found

    @cached_property
    def _sorted(self) -> FloatArray:
        return np.sort(self.when)

    @cached_property
    def _moments(self) -> FloatArray:
        """The distinct times, in ascending order."""
        return np.unique(self._sorted)

    @cached_property
    def _keys(self) -> IntArray:
        """The events as whole numbers, which sort by item and then by time."""
        moment = np.searchsorted(self._moments, self.when)
        return np.sort(self.row * (len(self._moments) + 1) + moment)
