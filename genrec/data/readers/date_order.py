"""Determine whether the dates in a column begin with the day, the month or the year.

A single date can often be parsed in several orders, so all dates of the same form are considered
together.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import DataError
from genrec.text import quantity
from genrec.types import BoolArray, FloatArray, IntArray

ORDERS = {"day-first": "dmy", "month-first": "mdy", "year-first": "ymd"}
"""The orders of day, month and year, keyed by the words that users give for them."""

NAMES = {"dmy": "the day first", "mdy": "the month first", "ymd": "the year first"}
"""A phrase for each order, for use in messages."""

_DAY = 86_400.0
_TOLERATED = 20  # an order is chosen if this many dates need it for each date that contradicts it
_ENOUGH = 6  # dates in order of time, or on the first twelve days of a month, are no coincidence


@dataclass(frozen=True, slots=True)
class Reading:
    """Dates parsed in one order of day, month and year, as seconds since 1970.

    The reason says why this order was chosen.
    """

    order: str
    seconds: FloatArray
    reason: str


@dataclass(frozen=True)
class Family:
    """The distinct dates in a column that share a form with three numbers, such as ``1/2/2020``.

    Attributes:
        texts: the (D,) distinct strings.
        rows: the number of rows with each string, as a (D,) array.
        sequence: for each row in file order, the index of its string.
        numbers: the (3, D) array with the three numbers of each date, from left to right.
        clock: the (D,) times of day in seconds after midnight UTC.
        separator: the text between the numbers.
        short: True if the years have two digits.
    """

    texts: pa.Array
    rows: IntArray
    sequence: IntArray
    numbers: IntArray
    clock: FloatArray
    separator: str
    short: bool

    @cached_property
    def readings(self) -> dict[str, FloatArray]:
        """For each order, the (D,) dates in seconds since 1970; NaN for impossible dates."""
        short = np.full(len(self.rows), self.short)
        found = {}
        for order in ("dmy", "mdy", "ymd") if self.short else ("dmy", "mdy"):
            year, month, day = (self.numbers[order.index(letter)] for letter in "ymd")
            found[order] = days(full_year(year, short), month, day) * _DAY + self.clock
        return found

    @cached_property
    def _possible(self) -> list[str]:
        """The orders of day, month and year that fit at least one row and nearly as many as the best one."""
        orders = [o for o, seconds in self.readings.items() if np.isfinite(seconds).any()]
        return [o for o in orders if not any(self._beats(p, o) for p in orders)]

    def decide(self, where: str) -> Reading | None:
        """Parse the dates in the only plausible order, or return None if several are plausible.

        Args:
            where: the names of the file and its column, for use in messages.

        Raises:
            DataError: some dates fit only one order, and too many others fit only another one.
        """
        possible = self._possible
        if not possible:
            return self.read("dmy", "")  # none of the dates exists
        if any(self._only(o, p) and self._only(p, o) for o in possible for p in possible):
            raise DataError(self._contradiction(where))
        if len(possible) == 1:
            return self.read(possible[0], self._evidence(possible[0]))
        if self.separator == ",":
            return self.read("mdy", "as is usual for dates of this form")
        for rule in (self._without_future, self._by_file_order, self._without_monthly):
            left, reason = rule(possible)
            possible = left or possible
            if len(possible) == 1:
                return self.read(possible[0], reason)
        return None

    def read(self, order: str, reason: str) -> Reading:
        """Parse the dates in a given order; all are NaN if this form cannot have that order."""
        impossible = np.full(len(self.rows), np.nan)
        return Reading(order, self.readings.get(order, impossible), reason)

    def choices(self, where: str) -> str:
        """Build the error message for dates whose order is ambiguous."""
        possible = {o: self.readings[o] for o in self._possible}
        place = int(np.argmax(np.sum([np.isfinite(s) for s in possible.values()], axis=0)))
        meanings = [
            f"--date-format {self._format(order)!r} if it is {_day_name(seconds[place])}"
            for order, seconds in possible.items()
        ]
        return (
            f"{where}: the order of day and month is ambiguous. The date "
            f"{self.texts[place].as_py()!r} could be read in {len(meanings)} ways, and no other date "
            f"in the column shows which one is right. Choose one: {', or '.join(meanings)}."
        )

    def _beats(self, one: str, other: str) -> bool:
        """Check whether one order fits clearly more rows than another."""
        for_one, for_other = self._only(one, other), self._only(other, one)
        return for_one > 0 and for_one >= _TOLERATED * for_other

    def _only(self, one: str, other: str) -> int:
        """Count the rows that fit one order but not the other."""
        return int(self.rows[self._fits_only(one, other)].sum())

    def _fits_only(self, one: str, other: str) -> BoolArray:
        return np.isfinite(self.readings[one]) & np.isnan(self.readings[other])

    def _evidence(self, order: str) -> str:
        """Describe the evidence for an order: how many rows fit no other order, with an example."""
        others = [o for o in self.readings if o != order]
        mask = np.all([self._fits_only(order, o) for o in others], axis=0)
        if not mask.any():
            return "since no other order gives a date in every row"
        some = self.texts[int(np.argmax(mask))].as_py()
        rows = quantity(int(self.rows[mask].sum()), "row")
        return f"since {rows} such as {some!r} cannot be read otherwise"

    def _without_future(self, orders: list[str]) -> tuple[list[str], str]:
        """Drop the orders that put some dates in the future, and return the reason."""
        limit = time.time() + 2 * _DAY
        left = [o for o in orders if not np.nanmax(self.readings[o]) > limit]
        return left, "since otherwise some dates would be in the future"

    def _by_file_order(self, orders: list[str]) -> tuple[list[str], str]:
        """Keep the orders under which the rows are sorted by time, and return the reason.

        An order is not kept if sorting the dates as text would arrange the rows in the same way,
        since the rows may then have been sorted as text.
        """
        rank = np.asarray(pc.rank(self.texts), dtype=np.float64)
        left = []
        for order in orders:
            seconds = self.readings[order][self.sequence]
            good = np.isfinite(seconds)
            directions = _directions(seconds[good]) - _directions(rank[self.sequence[good]])
            several = len(np.unique(seconds[good] // _DAY)) >= _ENOUGH
            left += [order] if directions and several else []
        return left, "since otherwise the rows would not be sorted by time"

    def _without_monthly(self, orders: list[str]) -> tuple[list[str], str]:
        """Drop the orders under which all events are on the same few days of every month.

        This happens if day and month are swapped, because all days are then 12 or lower. Orders are
        dropped only if, under another order, the dates are too close together to span a whole
        month.
        """
        if len(np.unique(self.clock)) < 2 * _ENOUGH:  # they may be the dates of monthly reports
            return orders, ""
        inside = {}
        for order in orders:
            seconds = self.readings[order]
            date = np.unique(seconds[np.isfinite(seconds)] // _DAY).astype(np.int64).astype("M8[D]")
            month = date.astype("M8[M]")
            inner = (month > month.min()) & (month < month.max())
            day = (date - month)[inner].astype(np.int64) + 1
            few = len(day) == 0 or day.max() <= 12 or len(np.unique(day)) == 1
            inside[order] = len(day) if few else -1
        left = [o for o in orders if inside[o] < _ENOUGH]
        reason = "since otherwise the events would be on the same few days of every month"
        return (left if 0 in inside.values() else orders), reason

    def _contradiction(self, where: str) -> str:
        """Build the error message for dates that contradict each other."""
        orders = self._possible
        masks = {
            o: np.any([self._fits_only(o, p) for p in orders if p != o], axis=0) for o in orders
        }
        masks = {o: m for o, m in masks.items() if m.any()}
        some = [
            f"{quantity(int(self.rows[mask].sum()), 'row')} such as "
            f"{self.texts[int(np.argmax(mask))].as_py()!r} with {NAMES[order]}"
            for order, mask in masks.items()
        ]
        formats = " or ".join(repr(self._format(o)) for o in masks)
        return (
            f"{where}: the dates contradict each other: {', '.join(some)}. Expected the same order "
            f"of day and month in all rows. Correct the file, or set --date-format {formats} to "
            "reject the rows that have another order."
        )

    def _format(self, order: str) -> str:
        """Return the strptime format of the dates in the given order."""
        names = {"d": "%d", "m": "%m", "y": "%y" if self.short else "%Y"}
        if self.separator == ",":
            return f"{names[order[0]]} {names[order[1]]}, {names[order[2]]}"
        return self.separator.join(names[letter] for letter in order)


def _directions(values: FloatArray) -> set[str]:
    """Return the directions in which the values are sorted: ``up``, ``down``, both or neither."""
    steps = np.diff(values)
    sorted_ways = {"up": bool((steps >= 0).all()), "down": bool((steps <= 0).all())}
    return {name for name, is_sorted in sorted_ways.items() if is_sorted}


def _day_name(seconds: float) -> str:
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=float(seconds))
    return f"{moment.day} {moment:%B %Y}"


def days(year: IntArray, month: IntArray, day: IntArray) -> FloatArray:
    """Convert (D,) calendar dates to days since 1970, with NaN for dates that do not exist.

    >>> days(np.array([1970, 2019]), np.array([1, 2]), np.array([2, 29])).tolist()
    [1.0, nan]
    """
    good = (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1) & (year <= 9999)
    number = np.where(good, (year - 1970) * 12 + month - 1, 0)
    first = number.astype("M8[M]").astype("M8[D]").astype(np.int64)
    following = (number + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    good &= day <= following - first
    return np.where(good, first + day - 1, np.nan)


def full_year(year: IntArray, short: BoolArray) -> IntArray:
    """Convert two-digit years to years from 1969 to 2068, and leave all other years unchanged.

    >>> full_year(np.array([10, 99, 2019]), np.array([True, True, False])).tolist()
    [2010, 1999, 2019]
    """
    return year + np.where(short, np.where(year >= 69, 1900, 2000), 0)
