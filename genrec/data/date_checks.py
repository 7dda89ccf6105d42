"""Check that dates are plausible, and find those that stand for a missing date.

Some systems write 1970-01-01 or 1900-01-01 for an unknown date, and some use a calendar other than
the Gregorian one. This module deals only with seconds since 1970, not with the format of dates.
"""

from __future__ import annotations

import time

import numpy as np

from genrec.data.time_units import format_time
from genrec.errors import DataError
from genrec.types import BoolArray, FloatArray

_DAY = 86_400.0
_YEAR = 365.2425 * _DAY
_FIRST, _LAST = 0.0, 4_102_444_800.0  # the years 1970 and 2100
_PAST = (-2_208_988_800.0, 7_258_118_400.0)  # the years 1900 and 2200, for dates of items
_REAL = 1e8  # 1973: if most times are later, 1970-01-01 stands for a missing time
_CALENDARS = (  # the first and the last year that is likely, the name, and a year as an example
    (2443, 2643, "Buddhist", "2567 is 2024"),
    (1320, 1450, "Persian or the Islamic", "1402 of the Persian calendar begins in 2023"),
)


def find_unusable(seconds: FloatArray, *, past: bool = False) -> list[tuple[BoolArray, str]]:
    """Find the times that are out of range or stand for a missing time.

    Args:
        seconds: the (E,) times in seconds since 1970.
        past: True if times before 1970 are plausible, such as the release dates of books and films.

    Returns:
        The reasons to reject times, each with an (E,) mask of the affected times.
    """
    first, last = _PAST if past else (_FIRST, _LAST)
    known = np.isfinite(seconds)
    far = known & ((seconds < first) | (seconds >= last))
    if past or not known.any() or np.median(seconds[known]) < _REAL:
        return [(far, "time is out of range")]
    nothing = known & (seconds == 0)
    return [
        (nothing, "time is 1970-01-01, which stands for a missing time"),
        (far, "time is out of range"),
    ]


def check_dates(
    seconds: FloatArray, example: str, where: str, *, short: bool, past: bool = False
) -> list[str]:
    """Check that dates use the Gregorian calendar, and return a remark on dates in the future.

    Args:
        seconds: the (E,) dates in seconds since 1970.
        example: the text of the first date, for use in messages.
        where: the names of the file and its column, for use in messages.
        short: True if the years were written with two digits.
        past: True if dates before 1970 are plausible, such as the release dates of books and films;
            nothing is checked then.

    Raises:
        DataError: the dates seem to use another calendar, such as the Buddhist one.
    """
    known = seconds[np.isfinite(seconds)]
    if past or not len(known):
        return []
    middle = 1970 + float(np.median(known)) / _YEAR
    for first, last, name, meaning in _CALENDARS:
        if first <= middle <= last:
            msg = (
                f"{where}: dates such as {example!r} have years of the {name} calendar. Expected years "
                f"of the Gregorian calendar, from 1970 to 2099. Convert the dates first ({meaning})."
            )
            raise DataError(msg)
    usual = known[known < _LAST]
    if not len(usual) or usual.max() < time.time() + _YEAR:
        return []
    share = float(np.mean(usual > time.time()))
    said = (
        f"some dates are in the future ({share:.0%}, up to {format_time(float(usual.max()))[:10]}); "
        "check that they are read correctly"
    )
    if short and share > 0.5:
        said += ". Years with two digits may be of the Buddhist calendar, in which 66 is 2023"
    return [said]
