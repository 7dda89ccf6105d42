"""Read and format times: numbers in any unit, dates in any common format, or plain positions.

Internally, times are seconds since 1970, or positions if the data only specifies an order.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.date_checks import check_dates, find_unusable
from genrec.data.readers import arrow
from genrec.data.readers.date_order import ORDERS
from genrec.data.readers.dates import parse_iso, read_dates
from genrec.data.readers.numbers import ascii_digits, read_numbers
from genrec.data.time_units import (
    FIRST_SURE,
    SINCE_1970,
    YEAR,
    check_plausible,
    describe_span,
    guess_unit,
    to_seconds,
)
from genrec.errors import DataError, SettingsError
from genrec.text import quantity
from genrec.types import BoolArray, FloatArray, IntArray

_ERAS = r"(令和|平成|昭和|大正|明治)|[RHS]\d{1,2}[./年]"  # of the Japanese calendar
_NO_DIGITS = "time is not a date in digits (YYYYMMDD)"


def read_times(
    table: pa.Table,
    column: str,
    unit: str,
    notes: list[str],
    *,
    date_format: str | None = None,
    source: str = "the events",
    past: bool = False,
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
        past: True if times before 1970 are plausible, such as the release dates of books and films.

    Returns:
        The (E,) times in seconds (or positions), with NaN for cells without a usable time; the unit
        of the numbers; and the reasons why some times cannot be used, each with an (E,) mask of the
        affected cells. These masks do not include cells that do not look like times.

    Raises:
        DataError: the order of day and month or the unit is ambiguous, the times are implausible in
            the unit, or the years belong to another calendar.
        SettingsError: the date format cannot be used.
    """
    where = f"{source}, column {column!r}"
    cells = table[column]
    if pa.types.is_temporal(cells.type):
        seconds = _from_temporal(cells, where)
        return seconds, "s", find_unusable(seconds, past=past)
    cells = ascii_digits(cells)
    form = date_format if date_format not in ORDERS else None
    numbers = np.full(len(cells), np.nan) if form else arrow.to_floats(cells)
    if not np.isnan(numbers).any():
        return _from_numbers(numbers, column, unit, notes, where, past)
    text = arrow.to_text(cells).combine_chunks()
    places = np.flatnonzero(np.isnan(numbers) & ~np.asarray(pc.equal(text, ""), dtype=np.bool_))
    text = text.take(pa.array(places))
    counted = int(np.isfinite(numbers).sum())
    dates = read_dates(text, date_format, where, rivals=counted)
    problems = [(_spread(mask, places, len(cells)), reason) for mask, reason in dates.problems]
    dated = np.full(len(numbers), np.nan)
    dated[places] = dates.seconds
    if np.isfinite(dates.seconds).sum() > counted:
        among = _epochs_near(numbers, dated) if unit == "auto" else np.full(len(numbers), np.nan)
        seconds = np.where(np.isnan(dated), among, dated)
        notes += _note_mixed(among, "numbers among dates are read as times since 1970")
        first = text[int(np.argmax(np.isfinite(dates.seconds)))].as_py()
        doubts = check_dates(seconds, first, where, short=dates.short, past=past)
        notes += [*dates.notes, *doubts]
        strange = np.isfinite(numbers) & np.isnan(among)
        problems += [_mixed(strange), *find_unusable(seconds, past=past)]
        return seconds, "s", problems
    if not counted and not form:
        numbers, remark = read_numbers(cells)
        if remark:
            notes.append(f"column {column!r}: {remark}")
    seconds, unit, more = _from_numbers(numbers, column, unit, notes, where, past)
    near = _is_near(dated, seconds) if unit in SINCE_1970 else np.zeros(len(dated), dtype=np.bool_)
    among = np.where(near, dated, np.nan)
    notes += _note_mixed(among, "dates among numbers are read as well")
    strange = np.isfinite(dated) & ~near
    return np.where(near, dated, seconds), unit, [_mixed(strange), *problems, *more]


def describe_unreadable(cells: pa.ChunkedArray, date_format: str | None = None) -> str:
    """Build the error message for a time column in which no cell could be read."""
    filled = [v for v in pc.unique(arrow.to_text(cells)).to_pylist() if v]
    some = f" from cells such as {' or '.join(map(repr, filled[:3]))}" if filled else ""
    form = f" in the form {date_format!r}" if date_format else ""
    if any(re.match(_ERAS, v) for v in filled):
        advice = (
            "Their years belong to an era of the Japanese calendar, in which 令和5 is 2023. Convert them "
            "to dates such as 2023-12-25."
        )
    elif date_format:
        advice = (
            "Correct --date-format so that it describes these cells, or leave it out to let the format "
            "be detected."
        )
    else:
        advice = (
            "Set the date format with --date-format, such as '%d/%m/%Y %H:%M', or map another column "
            "with --column timestamp=NAME."
        )
    return (
        f"no time{form} could be read{some}. Expected dates, or numbers that are times or positions. "
        f"{advice}"
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
        seconds = float(to_seconds(np.array([number]), unit)[0])
    if not np.isfinite(seconds):
        msg = (
            f"{given!r} is not a time. Expected an ISO date such as 2011-11-01 or "
            f"2011-11-01T12:00:00, or a number in the unit of the data ({unit})."
        )
        raise SettingsError(msg)
    return seconds


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
    numbers: FloatArray, column: str, unit: str, notes: list[str], where: str, past: bool
) -> tuple[FloatArray, str, list[tuple[BoolArray, str]]]:
    """Convert numbers to seconds, guessing their unit if it is ``auto``; see ``read_times``."""
    if unit == "auto" and column == "position":
        unit = "position"
        notes.append(f"time unit of column {column!r} guessed: {unit}")
    guessed = unit == "auto"
    if not np.isfinite(numbers).any():
        return numbers, "s" if guessed else unit, []
    unit = guess_unit(numbers, where, past=past) if guessed else unit
    seconds = to_seconds(numbers, unit)
    if not guessed and unit != "position":
        check_plausible(numbers, seconds, unit, where)
    if guessed:
        notes.append(
            f"time unit of column {column!r} guessed: {unit}{describe_span(numbers, unit)}"
        )
    if unit == "position":
        return seconds, unit, []
    no_date = np.isfinite(numbers) & np.isnan(seconds)
    return seconds, unit, [(no_date, _NO_DIGITS), *find_unusable(seconds, past=past)]


def _epochs_near(numbers: FloatArray, dates: FloatArray) -> FloatArray:
    """Convert numbers since 1970 to seconds if they fall near the dates in the same column.

    MongoDB, for example, exports one time as a date and another as milliseconds.

    Args:
        numbers: the (E,) numbers, with NaN for other cells.
        dates: the (E,) dates in seconds, with NaN for other cells.
    """
    found = np.full(len(numbers), np.nan)
    for unit in SINCE_1970:
        seconds = to_seconds(numbers, unit)
        found = np.where(_is_near(seconds, dates) & (seconds >= FIRST_SURE), seconds, found)
    return found


def _is_near(seconds: FloatArray, others: FloatArray) -> BoolArray:
    """Return an (E,) mask of the times that are at most a year outside the range of other times."""
    known = others[np.isfinite(others)]
    if not len(known):
        return np.zeros(len(seconds), dtype=np.bool_)
    first, last = float(known.min()) - YEAR, float(known.max()) + YEAR
    return (seconds >= first) & (seconds <= last)


def _note_mixed(among: FloatArray, remark: str) -> list[str]:
    """Return a remark with the number of times in the rarer form, or none if there are no such times."""
    count = int(np.isfinite(among).sum())
    return [f"{quantity(count, 'time')}: {remark}"] if count else []


def _spread(mask: BoolArray, places: IntArray, size: int) -> BoolArray:
    """Expand a mask of some cells to an (E,) mask of all cells."""
    full = np.zeros(size, dtype=np.bool_)
    full[places] = mask
    return full


def _mixed(mask: BoolArray) -> tuple[BoolArray, str]:
    """Return the given mask of cells in the less common format with the reason to reject them."""
    return mask, "time is a number among dates, or a date among numbers"
