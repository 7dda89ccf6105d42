"""Read the columns of a catalog that say when an item was published or is available.

Two columns limit the period in which an item may be recommended: ``available_from`` and
``available_until``. A time is in UTC unless it has a time zone. If ``available_until`` has no time
of day, as in ``2025-12-24``, the item is available until the end of that day.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from genrec.data.catalog import Catalog
from genrec.data.readers import arrow
from genrec.data.readers.date_order import ORDERS
from genrec.data.time_units import format_time
from genrec.data.times import read_times
from genrec.errors import DataError
from genrec.text import quantity
from genrec.types import BoolArray, FloatArray

FROM, UNTIL = "available_from", "available_until"
_DAY = 86_400.0
_YEARS = (1900, 2100)
_NO_LIMIT = {FROM: "no start", UNTIL: "no end"}


def read_item_times(catalog: Catalog, column: str, date_format: str | None = None) -> FloatArray:
    """Read a column of times, given as dates in any common format or as numbers in a guessed unit.

    Args:
        catalog: the catalog of N items.
        column: the name of the column.
        date_format: the order of day, month and year (``day-first``, ``month-first`` or
            ``year-first``) or a format as in Python's ``strptime``, which is used if the cells
            do not determine the order.

    Returns:
        (N,) seconds since 1970; NaN for cells without a readable time.

    Raises:
        DataError: the order of day and month is ambiguous.
        SettingsError: the date format cannot be used.
    """
    readings = [_read(catalog, column, order) for order in ORDERS]
    most = max(np.isfinite(r).sum() for r in readings)
    readings = [r for r in readings if np.isfinite(r).sum() == most]
    differ = np.zeros(len(catalog), dtype=np.bool_)
    for other in readings[1:]:
        differ |= np.nan_to_num(other) != np.nan_to_num(readings[0])
    if not differ.any():
        return readings[0]
    if date_format is not None:
        return _read(catalog, column, date_format)
    cell = catalog.column(column)[int(np.argmax(differ))].as_py()
    msg = (
        f"The column {column!r} of the items contains dates such as {cell!r}, which could be read in "
        "several ways. Expected dates such as 2025-12-24. Set --date-format to day-first or month-first, "
        "or rewrite the dates."
    )
    raise DataError(msg)


def _read(catalog: Catalog, column: str, date_format: str) -> FloatArray:
    table = pa.table({column: catalog.column(column)})
    try:
        seconds, unit, problems = read_times(
            table, column, "auto", [], date_format=date_format, past=True
        )
    except DataError:  # the numbers are not plausible times
        return np.full(len(catalog), np.nan)
    if unit == "position":
        return np.full(len(catalog), np.nan)
    for mask, _ in problems:
        seconds = np.where(mask, np.nan, seconds)
    return seconds


def read_years(catalog: Catalog, column: str) -> FloatArray | None:
    """Read a column of years, such as 1999, and return the time at which each year begins.

    Returns:
        (N,) seconds since 1970, with NaN for empty cells; None if the column does not consist of
        years.
    """
    years = arrow.to_floats(pa.chunked_array([catalog.column(column)]))
    known = np.isfinite(years)
    filled = years[known]
    low, high = _YEARS
    if not len(filled) or not ((filled >= low) & (filled <= high) & (filled % 1 == 0)).all():
        return None
    seconds = np.full(len(years), np.nan)
    days = (filled.astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    seconds[known] = days.astype(np.int64) * _DAY
    return seconds


def is_available(since: FloatArray | None, until: FloatArray | None, moment: float) -> BoolArray:
    """Check which of N items are available at a given time.

    Args:
        since: (N,) start of each item's availability in seconds since 1970, with NaN for no start;
            None if no item has a start.
        until: (N,) end of each item's availability in seconds since 1970, with NaN for no end; None
            if no item has an end. An end at midnight means the end of the day that begins then.
        moment: the time in seconds since 1970.

    Returns:
        An (N,) mask that is True for available items.
    """
    mask = np.ones(1, dtype=np.bool_)
    if since is not None:
        mask = mask & ~(since > moment)
    if until is not None:
        end = np.where(until % _DAY == 0, until + _DAY, until)
        mask = mask & ~(end <= moment)
    return mask


def with_iso_times(
    catalog: Catalog, date_format: str | None, source: str, notes: list[str]
) -> Catalog:
    """Convert the columns ``available_from`` and ``available_until`` to ISO format.

    Cells that cannot be read are left unchanged and are reported in a remark.

    Args:
        catalog: the catalog.
        date_format: see ``read_item_times``.
        source: the name of the table of items, for use in messages.
        notes: the list of remarks.

    Raises:
        DataError: the order of day and month is ambiguous.
    """
    found = [name for name in (FROM, UNTIL) if name in catalog.columns]
    if not found:
        return catalog
    changed = [dict(item.attributes) for item in catalog]
    for name in found:
        seconds = read_item_times(catalog, name, date_format)
        filled = [name in item.known for item in catalog]
        bad = [row for row, there in enumerate(filled) if there and np.isnan(seconds[row])]
        for row in np.flatnonzero(np.isfinite(seconds)).tolist():
            changed[row][name] = format_time(float(seconds[row]))
        if bad:
            cells = f"{len(bad):,} of {quantity(sum(filled), 'cell')}"
            notes.append(
                f"{source}, column {name!r}: {cells} could not be read as times, such as "
                f"{catalog[bad[0]].attributes[name]!r:.60} of the item {catalog[bad[0]].item_id!r:.60}. "
                f"These items have {_NO_LIMIT[name]}"
            )
    return catalog.edited(
        change=[replace(i, attributes=a) for i, a in zip(catalog, changed, strict=True)]
    )
