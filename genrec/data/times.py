"""Read and format times given as epoch numbers in any unit, ISO dates or plain positions.

Internally, times are seconds since 1970, or positions if the data only specifies an order.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from genrec.data.readers import arrow
from genrec.errors import SettingsError
from genrec.types import BoolArray, FloatArray, IntArray

TIME_UNITS = {"day": 86_400.0, "s": 1.0, "ms": 1e-3, "position": 1.0}
"""The length of each time unit in seconds."""


def read_times(
    table: pa.Table, column: str, unit: str, notes: list[str]
) -> tuple[FloatArray, str, BoolArray]:
    """Read a column of times.

    Args:
        table: the events.
        column: the name of its time column.
        unit: the unit of numbers: one of ``TIME_UNITS``, or ``auto`` to guess it.
        notes: a list of remarks; one is added for every guess.

    Returns:
        The (E,) times in seconds, or positions, which are NaN for cells that hold no time; the unit
        of the numbers; and an (E,) mask of the cells in the wrong form, such as a number in a
        column of dates.
    """
    time = arrow.to_floats(table[column])
    bad = np.flatnonzero(np.isnan(time))
    mixed = np.zeros(len(time), dtype=np.bool_)
    if len(bad):
        dates = _parse_dates(table[column], bad)
        mixed[bad] = np.isfinite(dates)
        if np.isfinite(dates).sum() > np.isfinite(time).sum():
            full = np.full(len(time), np.nan)
            full[bad] = dates
            notes.append("times read as ISO dates, in UTC unless a zone is given")
            return full, "s", np.isfinite(time)
    if unit == "auto":
        unit = "position" if column == "position" else _guess_unit(time)
        notes.append(f"time unit of column {column!r} guessed: {unit}")
    return time * TIME_UNITS[unit], unit, mixed


def parse_time(given: str | float, unit: str) -> float:
    """Convert a time given by a user to seconds or a position.

    Args:
        given: an ISO date such as ``2011-11-01``, or a number such as ``1320105600``.
        unit: the unit of a number, one of ``TIME_UNITS``.

    Raises:
        SettingsError: the value is neither a date nor a number.
    """
    number = arrow.to_float(str(given))
    seconds = _parse_date(str(given)) if np.isnan(number) else number * TIME_UNITS[unit]
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


def _guess_unit(time: FloatArray) -> str:
    """Guess the unit of times from their magnitude; small numbers are treated as positions."""
    finite = time[np.isfinite(time)]
    if not len(finite):
        return "s"
    middle = float(np.median(finite))
    if middle >= 1e11:
        return "ms"
    if middle >= 1e8:
        return "s"
    whole = bool(np.all(finite == np.floor(finite)))
    return "day" if 7_000 <= float(finite.min()) <= middle <= 40_000 and whole else "position"


def _parse_dates(column: pa.ChunkedArray, places: IntArray) -> FloatArray:
    """Convert the ISO dates in the given rows to seconds since 1970, with NaN for other cells."""
    values = column.take(pa.array(places))
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.timestamp("us"), safe=False)
    else:
        try:
            values = arrow.to_text(values).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            return np.array([_parse_date(v) for v in arrow.to_text(values).to_pylist()])
    micros = np.asarray(values.cast(pa.int64()).cast(pa.float64()).fill_null(np.nan))
    return np.asarray(micros / 1e6, dtype=np.float64)


def _parse_date(text: str) -> float:
    """Convert an ISO date to seconds since 1970, or return NaN if the text is not a date."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()
