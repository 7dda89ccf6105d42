"""Turn a raw table of interactions into checked, sorted events.

Every row is either kept or rejected with a reason; nothing is dropped silently. This module deals
with columns and rejected rows only, not with prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalog import LONGEST_ID, NOT_AN_ID, Catalog
from genrec.data.events import SPLITS, EventColumns, EventTable
from genrec.data.readers import arrow
from genrec.data.readers.dates import check_date_format
from genrec.data.readers.rejects import Rejects
from genrec.data.time_units import TIME_UNITS
from genrec.data.times import describe_unreadable, read_times
from genrec.errors import DataError, SettingsError
from genrec.text import quantity
from genrec.types import BoolArray, FloatArray, IntArray

UNIT_COLUMNS = ("unit", "invoice", "basket", "basket_id", "order_id", "session", "session_id")
TIME_COLUMNS = ("position", "timestamp")  # the position is used if a table has both
VALUE_COLUMNS = ("value", "rating")
_SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
_STORED = {"user_id", "item_id", "behavior", "timestamp", "value", "split", "unit", "text"}


@dataclass(frozen=True, slots=True)
class EventOptions:
    """Options for reading a table of interactions.

    Attributes:
        columns: maps genrec's column names to those in the file, such as ``{"item_id":
            "product"}``.
        time_unit: the unit of times that are numbers: a key of ``time_units.TIME_UNITS``, or
            ``auto`` to guess it from the values.
        date_format: the format of times that are dates: ``day-first``, ``month-first``,
            ``year-first``, or a format as in Python's ``strptime``. None to detect it.
        behavior: the behavior of every row if the table has no behavior column. None means ``rate``
            for a table with a rating column, and is an error otherwise.
        unit: the basket column; ``none`` if the data has no baskets; None to look for a column with
            a common name.
        status: the column with the status of each order, which says whether it was cancelled or
            returned. Use ``none`` to count all orders regardless of their status, and None to look
            for such columns by name.
        encoding: the encoding of the files; None to detect it.
        drop_duplicates: True to drop rows that repeat an earlier row.
        drop_items: the ids of items to leave out, or a function that chooses them from the catalog.
        redact: True to replace personal data in the texts of events when a dataset is prepared; see
            ``genrec.data.redaction``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: str = "auto"
    date_format: str | None = None
    behavior: str | None = None
    unit: str | None = None
    status: str | None = None
    encoding: str | None = None
    drop_duplicates: bool = False
    drop_items: Collection[str] | Callable[[Catalog], Collection[str]] = ()
    redact: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.time_unit not in {"auto", *TIME_UNITS}:
            known = ", ".join(["auto", *TIME_UNITS])
            msg = f"Unknown value time_unit={self.time_unit!r}. Expected one of: {known}."
            raise SettingsError(msg)
        if self.date_format is not None:
            check_date_format(self.date_format)


@dataclass(frozen=True, slots=True)
class Ingested:
    """Checked events, and remarks on them.

    Attributes:
        events: the events, sorted by user, time and position in the file.
        read_as: remarks on how the table was read, for example that a time unit was guessed.
        time_unit: the unit of the timestamps in the file. Stored timestamps are in seconds, or
            are positions.
        given_split: True if the table had a split column.
    """

    events: EventTable
    read_as: tuple[str, ...]
    time_unit: str
    given_split: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """All remarks for the user. Those on the events are computed on demand, which is slow."""
        return (*self.read_as, *_note_events(self.events))


def ingest(
    table: pa.Table,
    catalog: Catalog,
    options: EventOptions | None = None,
    *,
    rejects: Rejects | None = None,
    unknown: str = "not in the items file",
) -> Ingested:
    """Check and sort a table of interactions.

    Required columns: user_id, item_id, timestamp or position, and behavior or rating. Optional
    columns: value, text (a search query or a comment; item_id may then be empty), a basket column
    and split. Any other column is kept as an attribute. A table with one row per user is expanded
    first (``readers.arrow.explode``).

    Args:
        table: one row per event. Events with equal times stay in file order.
        catalog: the items; a row with any other item is rejected.
        options: column names, units and defaults.
        rejects: the object that records bad rows; if it is None, the first one raises an error.
        unknown: the reason for rejecting a row whose item is not in the catalog.

    Raises:
        DataError: a column is missing, or no row is usable.
        SettingsError: an option is not valid for this table.
    """
    options = options or EventOptions()
    rejects = rejects if rejects is not None else Rejects("interactions", strict=True)
    source = rejects.source
    table = arrow.explode(arrow.rename(table, options.columns, source), rejects)
    notes: list[str] = []
    arrow.require_columns(table, ["user_id", "item_id"], source)
    table = _with_behavior(table, options, notes, source)
    when = next((c for c in TIME_COLUMNS if c in table.column_names), None)
    if when is None:
        msg = (
            f"{source} has no column 'timestamp'. Expected a 'timestamp' column, or a 'position' "
            "column with numbers that give the order of each user's events; found "
            f"{', '.join(arrow.column_names(table)) or 'none'}. Rename a column, map one with "
            "--column timestamp=NAME, or add it."
        )
        raise DataError(msg)
    present = [
        n for n in ("behavior", when, *VALUE_COLUMNS, "text", "split") if n in table.column_names
    ]
    arrow.require_columns(table, present, source)
    time, time_unit, unusable = read_times(
        table, when, options.time_unit, notes, date_format=options.date_format, source=source
    )
    row, problems = _find_problems(table, catalog, time, unusable, unknown)
    keep = _reject(table, problems, rejects)
    if not keep.any():
        why = (
            f"every row was rejected, most often for this reason: {rejects.most_frequent()}"
            if rejects.rows
            else "it has no rows"
        )
        msg = (
            f"No interaction in {source} is usable: {why}. Expected at least one. Fix the rows, or "
            "map the columns with --column."
        )
        if len(time) and not np.isfinite(time).any():
            unreadable = describe_unreadable(table[when], options.date_format)
            msg = f"No interaction in {source} is usable, since {unreadable}"
        raise DataError(msg)
    events = _build(table, options, time, row, keep, when, source)
    return Ingested(events, tuple(notes), time_unit, "split" in table.column_names)


def _with_behavior(
    table: pa.Table, options: EventOptions, notes: list[str], source: str
) -> pa.Table:
    """Return the table with a behavior column, adding it from the options if it is missing."""
    if "behavior" in table.column_names:
        return table
    behavior = options.behavior
    if behavior is None and "rating" in table.column_names:
        behavior = "rate"
    if behavior is None:
        msg = (
            f"{source} has no column 'behavior'. Expected a column that says what the user did, "
            "such as buy or view. Add it, map another one with --column behavior=NAME, or give one "
            "behavior for all rows, such as --behavior buy. Found: "
            f"{', '.join(arrow.column_names(table))}."
        )
        raise DataError(msg)
    notes.append(f"no behavior column: every row counts as {behavior!r}")
    return table.append_column("behavior", pa.repeat(behavior, table.num_rows))


def _find_problems(
    table: pa.Table,
    catalog: Catalog,
    time: FloatArray,
    unusable: list[tuple[BoolArray, str]],
    unknown: str,
) -> tuple[IntArray, list[tuple[BoolArray, str]]]:
    """Look up each row's item, and find the rows with problems.

    Returns:
        The (E,) catalog rows, with -1 for events that have only text; and for each kind of problem,
        an (E,) mask of the affected rows and the reason to reject them.
    """
    user, item = arrow.to_text(table["user_id"]), arrow.to_text(table["item_id"])
    ids = pa.array([i.item_id for i in catalog], pa.large_string())
    row = np.asarray(pc.index_in(item, value_set=ids).fill_null(-1), dtype=np.int64)
    no_item = _empty(item)
    has_text = ~_empty(arrow.to_text(table["text"])) if "text" in table.column_names else False
    return row, [
        (_empty(user), "empty user_id"),
        (_not_an_id(user), f"user_id {NOT_AN_ID}"),
        (no_item & ~np.asarray(has_text), "empty item_id"),
        ((row < 0) & ~no_item, f"{unknown}:"),
        (_empty(arrow.to_text(table["behavior"])), "empty behavior"),
        *unusable,
        (~np.isfinite(time), "time is empty or not a number or date"),
        (np.abs(np.nan_to_num(time, posinf=0.0, neginf=0.0)) > 1e13, "time is out of range"),
        (_no_number(table), "value is not a number"),
    ]


def _reject(table: pa.Table, problems: list[tuple[BoolArray, str]], rejects: Rejects) -> BoolArray:
    """Reject the rows with problems, and return an (E,) mask of the other rows.

    A row with several problems is rejected for the first of them. The row's item id is appended to
    a reason that ends in a colon.
    """
    bad: BoolArray = np.any([mask for mask, _ in problems], axis=0)
    places = np.flatnonzero(bad)
    first = np.argmax([mask[places] for mask, _ in problems], axis=0)
    reasons = [problems[n][1] for n in first.tolist()]
    with_id = [n for n, (_, reason) in enumerate(problems) if reason.endswith(":")]
    at = np.flatnonzero(np.isin(first, with_id))
    ids = arrow.to_text(table["item_id"]).take(pa.array(places[at])).to_pylist()
    for n, item in zip(at.tolist(), ids, strict=True):
        reasons[n] += f" {item!r}"
    arrow.reject(table, bad, reasons, rejects)
    return ~bad


def _no_number(table: pa.Table) -> BoolArray:
    """Return an (E,) mask of rows whose value is present but not a number."""
    name = next((c for c in VALUE_COLUMNS if c in table.column_names), None)
    if name is None:
        return np.zeros(table.num_rows, dtype=bool)
    return ~np.isfinite(arrow.to_floats(table[name])) & ~_empty(arrow.to_text(table[name]))


def _empty(values: pa.ChunkedArray) -> BoolArray:
    return np.asarray(pc.equal(values, ""), dtype=bool)


def _not_an_id(values: pa.ChunkedArray) -> BoolArray:
    long = pc.greater(pc.utf8_length(values), LONGEST_ID)
    return np.asarray(pc.or_(long, pc.match_substring(values, "\0")), dtype=bool)


def _build(
    table: pa.Table,
    options: EventOptions,
    time: FloatArray,
    row: IntArray,
    keep: BoolArray,
    when: str,
    source: str,
) -> EventTable:
    """Sort the kept rows and replace names with codes."""
    kept = table.filter(pa.array(keep))
    users, user = arrow.encode(kept["user_id"])
    behaviors, behavior = arrow.encode(kept["behavior"])
    order = np.lexsort((time[keep], user))  # stable: ties keep file order
    kept = kept.take(pa.array(order))
    user = user[order]
    unit = _unit_column(kept, options.unit, source)
    unit_ids, unit_code = _units(kept, unit, user)
    value = next((c for c in VALUE_COLUMNS if c in kept.column_names), None)
    text = arrow.to_text(kept["text"]).combine_chunks() if "text" in kept.column_names else None
    used = {"user_id", "item_id", "behavior", when, value, unit, "split", "text"}
    others = [n for n in arrow.column_names(kept) if n not in used]
    return EventTable(
        users,
        behaviors,
        EventColumns(
            user=user,
            row=row[keep][order],
            behavior=behavior[order],
            timestamp=time[keep][order],
            value=np.full(len(order), np.nan) if value is None else arrow.to_floats(kept[value]),
            unit=unit_code,
            split=_split_codes(kept, source),
        ),
        unit_name=unit,
        unit_ids=unit_ids,
        text=text,
        attributes=_attributes(kept, others),
    )


def _attributes(kept: pa.Table, names: list[str]) -> pa.Table | None:
    """Return the other columns, renaming those whose names are reserved for dataset folders."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in names:
        free = name
        while free in _STORED or (free != name and free in names):
            free += "_given"
        columns[free] = arrow.infer_type(kept[name])
    return pa.table(columns) if columns else None


def _unit_column(table: pa.Table, unit: str | None, source: str) -> str | None:
    """Return the name of the basket column, or None if there are no baskets."""
    if unit == "none":
        return None
    unit = unit or next((c for c in UNIT_COLUMNS if c in table.column_names), None)
    if unit is not None:
        arrow.require_columns(table, [unit], source)
    return unit


def _units(kept: pa.Table, unit: str | None, user: IntArray) -> tuple[list[str] | None, IntArray]:
    """Assign a code to each unit.

    Units of different users are distinct even if they have the same name. Each row without a unit
    name is a separate unit.

    Returns:
        The unit names indexed by code (None if there is no unit column), and the (E,) codes.
    """
    if unit is None:
        return None, np.arange(len(user))
    names, code = arrow.encode(kept[unit])
    key = user * (len(names) + 1) + code
    if "" in names:
        alone = code == names.index("")
        key[alone] = -1 - np.arange(int(alone.sum()))
    _, first, codes = np.unique(key, return_index=True, return_inverse=True)
    return [names[c] for c in code[first]], codes.astype(np.int64)


def _split_codes(kept: pa.Table, source: str) -> IntArray:
    """Return the (E,) split labels of the events, which are all 0 if there is no split column."""
    if "split" not in kept.column_names:
        return np.zeros(kept.num_rows, dtype=np.int64)
    names, code = arrow.encode(kept["split"])
    known = [_SPLIT_NAMES.get(n, n) for n in names]
    unknown = [n for n in known if n not in SPLITS]
    if unknown:
        place = int(np.argmax(code == known.index(unknown[0])))
        msg = (
            f"The split column holds {unknown[0]!r} ({source}, data row "
            f"{arrow.row_numbers(kept)[place]}). Expected one of {', '.join(SPLITS)}. Fix the "
            "cell, or choose a split with --split."
        )
        raise DataError(msg)
    return np.array([SPLITS.index(n) for n in known], dtype=np.int64)[code]


def _note_events(events: EventTable) -> list[str]:
    """Return remarks on the values, split order and repeated rows of the kept events."""
    c = events.columns
    notes = []
    values = c.value[np.isfinite(c.value)]
    if len(values):
        notes.append(f"values from {_plain(values.min())} to {_plain(values.max())}")
    back = (c.user[1:] == c.user[:-1]) & (c.split[1:] < c.split[:-1])
    if back.any():
        notes.append(
            "events of an earlier split part come after events of a later one for "
            f"{quantity(len(np.unique(c.user[1:][back])), 'user')}"
        )
    tied = (c.user[1:] == c.user[:-1]) & (c.timestamp[1:] == c.timestamp[:-1])
    at = np.flatnonzero(np.append(tied, False) | np.append(False, tied))  # only these can repeat
    columns = [c.user[at], c.timestamp[at], c.row[at], c.behavior[at], np.nan_to_num(c.value[at])]
    columns += [] if events.unit_ids is None else [c.unit[at]]
    order = np.lexsort(columns[::-1])
    repeated = np.ones(max(0, len(at) - 1), dtype=bool)
    for column in columns:
        repeated &= column[order][1:] == column[order][:-1]
    if repeated.any():
        many = int(repeated.sum())
        verb = "repeats" if many == 1 else "repeat"
        notes.append(
            f"{quantity(many, 'event')} {verb} another one and {'is' if many == 1 else 'are'} kept; "
            f"--drop-duplicates leaves {'it' if many == 1 else 'them'} out"
        )
    return notes


def _plain(number: float) -> str:
    """Format a number with commas, and without an exponent if it is whole."""
    return f"{number:,.0f}" if number == round(number) and abs(number) < 1e15 else f"{number:,g}"
