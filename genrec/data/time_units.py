"""Guess the unit of numeric times, convert them to seconds, and describe the resulting dates.

Programs count seconds, days or fractions of seconds from different dates. This module deals with
arrays of numbers only, not with columns.
"""

from __future__ import annotations

import datetime as dt
import time

import numpy as np

from genrec.data.readers.date_order import days
from genrec.errors import DataError
from genrec.types import FloatArray

TIME_UNITS = {
    "day": 86_400.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
    "excel": 86_400.0,
    "yyyymmdd": float("nan"),
    "apple": 1.0,
    "sas": 1.0,
    "sas-day": 86_400.0,
    "dotnet": 1e-7,
    "filetime": 1e-7,
    "webkit": 1e-6,
    "position": 1.0,
}
"""The length of each time unit in seconds.

``excel`` counts days since 30 December 1899. ``apple`` counts seconds since 2001. ``sas`` and
``sas-day`` count seconds and days since 1960, as SAS and Stata do. ``dotnet`` counts ticks of 100
nanoseconds since the year 1. ``filetime`` (Windows) and ``webkit`` (Chrome) count ticks of 100
nanoseconds and microseconds since 1601. ``yyyymmdd`` has no length, since it means dates written as
digits, possibly followed by hours, minutes and seconds.
"""

_ORIGINS = {  # the start of each count, in seconds since 1970
    "apple": 978_307_200.0,
    "sas": -315_619_200.0,
    "sas-day": -315_619_200.0,
    "dotnet": -62_135_596_800.0,
    "filetime": -11_644_473_600.0,
    "webkit": -11_644_473_600.0,
}

SINCE_1970 = ("s", "ms", "us", "ns")
_TICKS = ("dotnet", "filetime", "webkit")  # units whose numbers are too large for most others
_NAMES = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "day": "days since 1970",
    "excel": "days of a spreadsheet",
    "apple": "seconds since 2001 (Apple)",
    "sas": "seconds since 1960 (SAS, Stata)",
    "sas-day": "days since 1960 (SAS, Stata)",
    "dotnet": "ticks of .NET",
    "filetime": "Windows file times",
    "webkit": "microseconds since 1601 (Chrome)",
    "yyyymmdd": "dates in digits",
}
_OLD = 788_918_400.0  # 1995: events of earlier dates are rare, so other units are tried
_EARLY = 946_684_800.0  # 2000: a guess that leads to earlier dates is remarked on
_LARGE = 10_000  # positions from this number on may be times in an unknown unit
_FEW_DAYS = 3
_SHORT = 1000  # events within a few days that are worth a remark
_DAY = 86_400.0
_EXCEL_DAYS = 25_569  # Excel's number for 1970-01-01
_FIRST_EXCEL = 32_874  # 1990-01-01
YEAR = 366 * _DAY
FIRST_SURE = 1e8  # 1973: smaller numbers of seconds may be something else
_LAST_PLAUSIBLE = 4_102_444_800.0  # the year 2100
_NO_TIME = 1e19  # larger numbers are not times in any unit
_MOST = 0.95  # the share of cells in a form that makes it the form of the column


def format_time(seconds: float) -> str:
    """Format seconds since 1970 as an ISO time in UTC, or as a number if it is out of range.

    >>> format_time(978300760.0), format_time(1e13)
    ('2000-12-31T22:12:40Z', '10000000000000')
    """
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.15g}"
    return moment.isoformat().replace("+00:00", "Z")


def guess_unit(numbers: FloatArray, where: str, *, past: bool = False) -> str:
    """Guess the unit of times from their magnitude; small numbers are treated as positions.

    Args:
        numbers: the (E,) numbers.
        where: the names of the file and its column, for use in messages.
        past: True if times before 1995 are plausible, such as the release dates of books and films.

    Raises:
        DataError: the numbers are too large for positions and implausible in every unit, or their
            unit is ambiguous.
    """
    finite = numbers[np.abs(numbers) < _NO_TIME]
    if not len(finite):
        return "position"
    middle = float(np.median(finite))
    if middle >= 1e7 and np.isfinite(_from_digits(finite)).mean() >= _MOST:
        return "yyyymmdd"
    if middle >= 1e8:
        unit = _epoch_unit(middle) if past else _choose_epoch(finite, where)
        if unit is None:
            raise DataError(_implausible(middle, "They are not plausible in any unit", where))
        return unit
    if np.mean((finite >= _FIRST_EXCEL) & (finite < _last_excel())) >= _MOST:
        return "excel"
    whole = bool(np.all(finite == np.floor(finite)))
    return "day" if 7_000 <= float(finite.min()) <= middle <= 40_000 and whole else "position"


def _choose_epoch(numbers: FloatArray, where: str) -> str | None:
    """Return the unit of large numbers, or None if all units lead to implausible years.

    Raises:
        DataError: the numbers may be seconds since 1970, but also seconds since 1960 or 2001.
    """
    middle = float(np.median(numbers))
    unit = _epoch_unit(middle)
    since_1970 = float(to_seconds(np.array([middle]), unit)[0]) if unit else np.inf
    if since_1970 < _OLD or unit is None:
        found = [u for u in _TICKS if is_recent(to_seconds(numbers, u))]
        unit = found[0] if len(found) == 1 else unit
    if unit != "s":
        return unit
    seconds = to_seconds(numbers, "s")
    other = "apple" if seconds.max() < _OLD else "sas"
    if is_recent(to_seconds(numbers, other)) and (other == "apple" or since_1970 > time.time()):
        raise DataError(_ambiguous(numbers, ("s", other), where))
    return unit


def is_recent(seconds: FloatArray) -> bool:
    """Check whether the median time is between 1995 and now and no time is far in the future."""
    middle = float(np.median(seconds))
    return bool(_OLD <= middle <= time.time() and seconds.max() < time.time() + YEAR)


def _ambiguous(numbers: FloatArray, units: tuple[str, str], where: str) -> str:
    """Build the error message for numbers whose unit is ambiguous."""
    choices = [
        f"--time-unit {unit} if they are {_NAMES[unit]}, which gives dates "
        f"{_range(to_seconds(numbers, unit))}"
        for unit in units
    ]
    return (
        f"{where}: the times are numbers such as {float(np.median(numbers)):.15g}, whose unit is not "
        f"clear. Choose {', or '.join(choices)}."
    )


def _epoch_unit(number: float) -> str | None:
    """Return the unit (seconds or shorter) that puts a number between 1973 and 2100, or None."""
    fitting = (u for u in SINCE_1970 if FIRST_SURE <= number * TIME_UNITS[u] < _LAST_PLAUSIBLE)
    return next(fitting, None)


def _last_excel() -> float:
    """Return the number that Excel uses for the day one year from now."""
    return (time.time() + YEAR) / _DAY + _EXCEL_DAYS


def _likely_unit(number: float) -> str | None:
    """Return the most likely unit of a single number, or None if no unit is plausible."""
    if np.isfinite(_from_digits(np.array([number])))[0]:
        return "yyyymmdd"
    if _FIRST_EXCEL <= number < _last_excel():
        return "excel"
    return "day" if 7_000 <= number < _FIRST_EXCEL else _epoch_unit(number)


def check_plausible(numbers: FloatArray, seconds: FloatArray, unit: str, where: str) -> None:
    """Check that times in the unit given by the user are in plausible years.

    Raises:
        DataError: most times are before 1970 or after 2100, or they are in the 1970s and another
            unit is plausible.
    """
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return
    number = float(np.median(finite))
    dates = seconds[np.isfinite(seconds)]
    if not len(dates):
        raise DataError(_implausible(number, "They are not dates in digits (YYYYMMDD)", where))
    middle = float(np.median(dates))
    likely = _likely_unit(number) if 0 <= middle < FIRST_SURE else None
    if not 0 <= middle < _LAST_PLAUSIBLE or likely not in {None, unit}:
        year = 1970 + middle / (365.2425 * _DAY)
        problem = f"With the time unit {unit!r}, that is the year {year:.0f}"
        raise DataError(_implausible(number, problem, where))


def _implausible(number: float, problem: str, where: str) -> str:
    """Build the error message for implausible times, which suggests a unit that would fit."""
    unit = _likely_unit(number)
    if unit is None:
        advice = (
            "No time unit fits. Set --time-unit position if the numbers only give an order, or map "
            "another column with --column timestamp=NAME."
        )
    else:
        moment = format_time(float(to_seconds(np.array([number]), unit)[0]))
        advice = f"As {_NAMES[unit].partition(' since')[0] if unit in SINCE_1970 else unit}, this number means {moment}: set --time-unit {unit}."
    return (
        f"{where}: the times are numbers such as {number:.15g}. {problem}. Expected years from 1970 "
        f"to 2100. {advice}"
    )


def to_seconds(numbers: FloatArray, unit: str) -> FloatArray:
    """Convert numbers in a given unit to seconds; invalid ``yyyymmdd`` dates become NaN."""
    if unit == "excel":
        return np.round((numbers - _EXCEL_DAYS) * _DAY)  # sheets show five digits of a day
    if unit == "yyyymmdd":
        return _from_digits(numbers)
    length, origin = TIME_UNITS[unit], _ORIGINS.get(unit, 0.0)
    # Division by the whole number is exact where multiplication by 1e-9 is not.
    scaled = numbers * length if length >= 1 else numbers / round(1 / length)
    return scaled + origin if origin else scaled


def _from_digits(numbers: FloatArray) -> FloatArray:
    """Convert dates such as 20190301, 201903011247 or 20190301124700 to seconds since 1970."""
    full = np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0)
    full = np.where((full >= 1e7) & (full < 1e8), full * 1e6, full)
    full = np.where((full >= 1e11) & (full < 1e12), full * 1e2, full)
    whole = (full >= 1e13) & (full < 1e14) & (full == np.floor(full))
    value = np.where(whole, full, 0.0).astype(np.int64)
    parts = []
    for _ in range(5):
        value, part = np.divmod(value, 100)
        parts.append(part)
    second, minute, hour, day, month = parts
    good = whole & (value >= 1900) & (value < 2200) & (hour < 24) & (minute < 60) & (second < 60)
    seconds = days(value, month, day) * _DAY + hour * 3600.0 + minute * 60.0 + second
    return np.where(good, seconds, np.nan)


def describe_span(numbers: FloatArray, unit: str) -> str:
    """Describe the range of times that results from a guessed unit, and mention any doubts.

    Args:
        numbers: the (E,) numbers.
        unit: the guessed unit.
    """
    finite = numbers[np.isfinite(numbers)]
    if unit == "position":
        if finite.min() < _LARGE:
            return ""
        low, high = finite.min(), finite.max()
        return (
            f", from {low:.15g} to {high:.15g}. They give only the order of the events. If they are "
            "times, convert them to dates"
        )
    seconds = to_seconds(finite, unit)
    seconds = seconds[np.isfinite(seconds)]
    usual = seconds[(seconds > 0) & (seconds < _LAST_PLAUSIBLE)]
    if not len(usual):
        return ""
    doubts = []
    if usual.max() > time.time() + YEAR:
        doubts.append("Some dates are in the future")
    elif usual.max() < _EARLY:
        doubts.append("All dates are before 2000")
    elif len(usual) >= _SHORT and usual.max() - usual.min() < _FEW_DAYS * _DAY:
        doubts.append(f"All {len(usual):,} events are within {_FEW_DAYS} days")
    said = f", {_range(usual)}"
    if not doubts:
        return said
    long = np.median(finite) >= FIRST_SURE
    others = [
        u
        for u in _NAMES
        if u not in {unit, "yyyymmdd"}
        and (long or TIME_UNITS[u] == _DAY)
        and is_recent(to_seconds(finite, u))
    ]
    tried = [f"{u} ({_range(to_seconds(finite, u))})" for u in others]
    units = f" Other units that were tried: {', '.join(tried)}" if tried else ""
    return f"{said}. {doubts[0]}, so set --time-unit if this is wrong.{units}".rstrip(".")


def _range(seconds: FloatArray) -> str:
    """Format the earliest and the latest date, as in ``from 2019-03-01 to 2019-04-01``."""
    first, last = (format_time(float(s))[:10] for s in (seconds.min(), seconds.max()))
    return f"from {first} to {last}"
