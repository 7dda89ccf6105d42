"""Read and format times: numbers in any unit, dates in any common format, or plain positions.

Internally, times are seconds since 1970, or positions if the data only specifies an order.
"""

from __future__ import annotations

import datetime as dt
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers import arrow
from genrec.data.readers.date_order import ORDERS, days
from genrec.data.readers.dates import parse_iso, read_dates
from genrec.data.readers.numbers import read_numbers
from genrec.errors import DataError, SettingsError
from genrec.types import BoolArray, FloatArray, IntArray

TIME_UNITS = {
    "day": 86_400.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
    "excel": 86_400.0,
    "yyyymmdd": float("nan"),
    "position": 1.0,
}
"""The length of each time unit in seconds.

``excel`` counts days since 30 December 1899. ``yyyymmdd`` has no length, since it means dates
written as digits, possibly followed by hours, minutes and seconds.
"""

_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_UNUSUAL = {"us", "ns", "excel", "yyyymmdd"}  # units whose guess is shown with the dates it gives
_DAY = 86_400.0
_EXCEL_DAYS = 25_569  # Excel's number for 1970-01-01
_FIRST_EXCEL = 32_874  # 1990-01-01
_YEAR = 366 * _DAY
_FIRST_SURE = 1e8  # 1973: smaller numbers of seconds may be something else
_LAST_PLAUSIBLE = 4_102_444_800.0  # the year 2100
_BOUNDS = (-2_208_988_800.0, 7_258_118_400.0)  # the years 1900 and 2200
_NO_TIME = 1e19  # larger numbers are not times in any unit
_MOST = 0.95  # the share of cells in a form that makes it the form of the column


def read_times(
    table: pa.Table,
    column: str,
    unit: str,
    notes: list[str],
    *,
    date_format: str | None = None,
    source: str = "the events",
) -> tuple[FloatArray, str, list[tuple[BoolArray, str]]]:
    """Read a column of times.

    Args:
        table: the events.
        column: the name of its time column.
        unit: the unit of times that are numbers: one of ``TIME_UNITS``, or ``auto`` to guess it.
        notes: a list of remarks; one is added for every guess.
        date_format: the format of times that are dates: ``day-first``, ``month-first``,
            ``year-first``, a format as in Python's ``strptime``, or None to detect it.
        source: the name of the table, for use in messages.

    Returns:
        The (E,) times in seconds (or positions), with NaN for cells without a usable time; the unit
        of the numbers; and the reasons why some times cannot be used, each with an (E,) mask of the
        affected cells. Cells that do not look like times are in none of these masks.

    Raises:
        DataError: the order of day and month is ambiguous, or the times are implausible in the
            unit.
        SettingsError: the date format cannot be used.
    """
    where = f"{source}, column {column!r}"
    cells = table[column]
    if pa.types.is_temporal(cells.type):
        return _from_temporal(cells, where), "s", []
    form = date_format if date_format not in ORDERS else None
    numbers = np.full(len(cells), np.nan) if form else arrow.to_floats(cells)
    if not np.isnan(numbers).any():
        return _from_numbers(numbers, column, unit, notes, where)
    text = arrow.to_text(cells).combine_chunks()
    places = np.flatnonzero(np.isnan(numbers) & ~np.asarray(pc.equal(text, ""), dtype=np.bool_))
    text = text.take(pa.array(places))
    counted = int(np.isfinite(numbers).sum())
    dates = read_dates(text, date_format, where, rivals=counted)
    problems = [(_spread(mask, places, len(cells)), reason) for mask, reason in dates.problems]
    if np.isfinite(dates.seconds).sum() > counted:
        seconds = np.full(len(numbers), np.nan)
        seconds[places] = dates.seconds
        notes += dates.notes
        return seconds, "s", [*problems, _mixed(np.isfinite(numbers)), _far(seconds)]
    mixed = _mixed(_spread(np.isfinite(dates.seconds), places, len(cells)))
    if not counted and not form:
        numbers, remark = read_numbers(cells)
        if remark:
            notes.append(f"column {column!r}: {remark}")
    seconds, unit, more = _from_numbers(numbers, column, unit, notes, where)
    return seconds, unit, [mixed, *problems, *more]


def describe_unreadable(cells: pa.ChunkedArray, date_format: str | None = None) -> str:
    """Build the error message for a time column in which no cell could be read."""
    filled = [v for v in pc.unique(arrow.to_text(cells)).to_pylist() if v]
    some = f" from cells such as {' or '.join(map(repr, filled[:3]))}" if filled else ""
    form = f" in the form {date_format!r}" if date_format else ""
    return (
        f"no time{form} could be read{some}. Expected dates, or numbers that are times or positions. "
        "Set the date format with --date-format, such as '%d/%m/%Y %H:%M', or map another "
        "column with --column timestamp=NAME."
    )


def parse_time(given: str | float, unit: str) -> float:
    """Convert a user-supplied time to seconds or a position.

    Args:
        given: an ISO date such as ``2011-11-01``, or a number such as ``1320105600``.
        unit: the unit of a number, one of ``TIME_UNITS``.

    Raises:
        SettingsError: the value is neither a date nor a number.
    """
    number = arrow.to_float(str(given))
    if np.isnan(number):
        seconds = parse_iso(str(given))
    else:
        seconds = float(_to_seconds(np.array([number]), unit)[0])
    if not np.isfinite(seconds):
        msg = (
            f"{given!r} is not a time. Expected an ISO date such as 2011-11-01 or "
            f"2011-11-01T12:00:00, or a number in the unit of the data ({unit})."
        )
        raise SettingsError(msg)
    return seconds


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


def _from_temporal(cells: pa.ChunkedArray, where: str) -> FloatArray:
    """Convert a column of dates or timestamps to seconds since 1970."""
    try:
        moments = cells.cast(pa.timestamp("us"), safe=False)
    except pa.ArrowException as error:
        msg = (
            f"{where}: the type {cells.type} holds no date. Expected dates, timestamps, numbers or "
            "text. Convert the column, or map another one with --column."
        )
        raise DataError(msg) from error
    micros = moments.cast(pa.int64()).cast(pa.float64(), safe=False).fill_null(np.nan)
    return np.asarray(micros, dtype=np.float64) / 1e6


def _from_numbers(
    numbers: FloatArray, column: str, unit: str, notes: list[str], where: str
) -> tuple[FloatArray, str, list[tuple[BoolArray, str]]]:
    """Convert numbers to seconds, guessing their unit if it is ``auto``; see ``read_times``."""
    if unit == "auto" and column == "position":
        unit = "position"
        notes.append(f"time unit of column {column!r} guessed: {unit}")
    guessed = unit == "auto"
    if not np.isfinite(numbers).any():
        return numbers, "s" if guessed else unit, []
    unit = _guess_unit(numbers, where) if guessed else unit
    seconds = _to_seconds(numbers, unit)
    if not guessed and unit != "position":
        _check_plausible(numbers, seconds, unit, where)
    if guessed:
        notes.append(f"time unit of column {column!r} guessed: {unit}{_span(seconds, unit)}")
    if unit == "position":
        return seconds, unit, []
    no_date = np.isfinite(numbers) & np.isnan(seconds)
    return seconds, unit, [(no_date, "time is not a date in digits (YYYYMMDD)"), _far(seconds)]


def _guess_unit(numbers: FloatArray, where: str) -> str:
    """Guess the unit of times from their magnitude; small numbers are treated as positions.

    Raises:
        DataError: the numbers are too large for positions and implausible in every unit.
    """
    finite = numbers[np.abs(numbers) < _NO_TIME]
    if not len(finite):
        return "position"
    middle = float(np.median(finite))
    if middle >= 1e7 and np.isfinite(_from_digits(finite)).mean() >= _MOST:
        return "yyyymmdd"
    if middle >= 1e8:
        unit = _epoch_unit(middle)
        if unit is None:
            raise DataError(_implausible(middle, "They are not plausible in any unit", where))
        return unit
    if np.mean((finite >= _FIRST_EXCEL) & (finite < _last_excel())) >= _MOST:
        return "excel"
    whole = bool(np.all(finite == np.floor(finite)))
    return "day" if 7_000 <= float(finite.min()) <= middle <= 40_000 and whole else "position"


def _epoch_unit(number: float) -> str | None:
    """Return the unit (seconds or shorter) that puts a number between 1973 and 2100, or None."""
    fitting = (u for u in _NAMES if _FIRST_SURE <= number * TIME_UNITS[u] < _LAST_PLAUSIBLE)
    return next(fitting, None)


def _last_excel() -> float:
    """Return the number that Excel uses for the day one year from now."""
    return (time.time() + _YEAR) / _DAY + _EXCEL_DAYS


def _likely_unit(number: float) -> str | None:
    """Return the most likely unit of a single number, or None if no unit is plausible."""
    if np.isfinite(_from_digits(np.array([number])))[0]:
        return "yyyymmdd"
    if _FIRST_EXCEL <= number < _last_excel():
        return "excel"
    return "day" if 7_000 <= number < _FIRST_EXCEL else _epoch_unit(number)


def _check_plausible(numbers: FloatArray, seconds: FloatArray, unit: str, where: str) -> None:
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
    likely = _likely_unit(number) if 0 <= middle < _FIRST_SURE else None
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
        moment = format_time(float(_to_seconds(np.array([number]), unit)[0]))
        advice = f"As {_NAMES.get(unit, unit)}, this number means {moment}: set --time-unit {unit}."
    return (
        f"{where}: the times are numbers such as {number:.15g}. {problem}. Expected years from 1970 "
        f"to 2100. {advice}"
    )


def _to_seconds(numbers: FloatArray, unit: str) -> FloatArray:
    """Convert numbers in a given unit to seconds; invalid ``yyyymmdd`` dates become NaN."""
    if unit == "excel":
        return np.round((numbers - _EXCEL_DAYS) * _DAY)  # sheets show five digits of a day
    if unit == "yyyymmdd":
        return _from_digits(numbers)
    length = TIME_UNITS[unit]
    # Division by the whole number is exact where multiplication by 1e-9 is not.
    return numbers * length if length >= 1 else numbers / round(1 / length)


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


def _span(seconds: FloatArray, unit: str) -> str:
    """Describe the range of the times if their unit is unusual or some are in the future."""
    finite = seconds[np.isfinite(seconds)]
    future = unit == "day" and finite.max() > time.time() + _YEAR
    if not len(finite) or not (future or unit in _UNUSUAL):
        return ""
    dates = [format_time(float(s))[:10] for s in (finite.min(), finite.max())]
    check = ". Some dates are in the future, so set --time-unit if this is wrong" if future else ""
    return f", from {dates[0]} to {dates[1]}{check}"


def _spread(mask: BoolArray, places: IntArray, size: int) -> BoolArray:
    """Expand a mask of some cells to an (E,) mask of all cells."""
    full = np.zeros(size, dtype=np.bool_)
    full[places] = mask
    return full


def _far(seconds: FloatArray) -> tuple[BoolArray, str]:
    """Return a mask of the times before 1900 or from 2200 on, and the reason to reject them."""
    far = np.isfinite(seconds) & ((seconds < _BOUNDS[0]) | (seconds >= _BOUNDS[1]))
    return far, "time is out of range"


def _mixed(mask: BoolArray) -> tuple[BoolArray, str]:
    """Return the given mask of cells in an unusual format, and the reason to reject them."""
    return mask, "time is a number among dates, or a date among numbers"
