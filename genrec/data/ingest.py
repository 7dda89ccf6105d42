"""From a raw table to checked, sorted interactions. Knows columns and reasons, nothing of prompts.

Every row is either kept or rejected with a reason; nothing is dropped in silence.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalog import Catalog
from genrec.data.events import SPLITS, EventColumns, EventTable
from genrec.data.readers import arrow
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, SettingsError
from genrec.types import BoolArray, FloatArray, IntArray

UNIT_COLUMNS = ("unit", "invoice", "basket", "basket_id", "order_id", "session", "session_id")
TIME_COLUMNS = ("position", "timestamp")  # a plain position decides where there are both
VALUE_COLUMNS = ("value", "rating")
TIME_UNITS = {"day": 86_400.0, "s": 1.0, "ms": 1e-3, "position": 1.0}
_SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
_STORED = {"user_id", "item_id", "behavior", "timestamp", "value", "split", "unit", "text"}


@dataclass(frozen=True, slots=True)
class EventOptions:
    """How a table of interactions is read.

    Attributes:
        columns: our name -> the file's column, such as ``{"item_id": "product"}``.
        time_unit: ``day``, ``s``, ``ms``, ``position``, or ``auto`` to guess from the values.
        behavior: the behavior of rows in a table without that column; None takes ``rate`` where
            there is a rating column and is an error elsewhere.
        unit: the basket column, ``none`` for no baskets, None to look for a usual name.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: str = "auto"
    behavior: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.time_unit not in {"auto", *TIME_UNITS}:
            known = ", ".join(["auto", *TIME_UNITS])
            msg = f"time_unit={self.time_unit!r} is not known. Expected one of: {known}."
            raise SettingsError(msg)


@dataclass(frozen=True, slots=True)
class Ingested:
    """Events and what was noticed while reading them.

    Attributes:
        events: sorted by user, time and place in the file.
        notes: remarks for people, such as the time unit that was guessed.
        time_unit: of the timestamps as given; stored ones are seconds, or positions.
        given_split: whether the table had a split column.
    """

    events: EventTable
    notes: tuple[str, ...]
    time_unit: str
    given_split: bool


def ingest(
    table: pa.Table,
    catalog: Catalog,
    options: EventOptions | None = None,
    *,
    rejects: Rejects | None = None,
) -> Ingested:
    """Checks and sorts a table of interactions.

    Needed: user_id, item_id, timestamp or position, and behavior or rating. Optional: value, text
    (a search, a comment; then item_id may be empty), a basket column, split, and any others, which
    are kept as attributes. A table with one row a user is read by ``tables.exploded``.

    Args:
        table: one row an event, in file order, which breaks ties in time.
        catalog: the items; a row with another item is rejected.
        options: names, units and defaults.
        rejects: where bad rows are recorded; without it the first one raises.

    Raises:
        DataError: a column is missing or nothing is left.
        SettingsError: an option cannot be used with this table.
    """
    options = options or EventOptions()
    rejects = rejects if rejects is not None else Rejects("interactions", strict=True)
    source = rejects.source
    table = arrow.exploded(arrow.renamed(table, options.columns, source), rejects)
    notes: list[str] = []
    arrow.require(table, ["user_id", "item_id"], source)
    table = _with_behavior(table, options, notes, source)
    when = next((c for c in TIME_COLUMNS if c in table.column_names), None)
    if when is None:
        msg = (
            f"{source} has no column 'timestamp'. Expected the column timestamp, or position, a number "
            f"that orders a user's events; found {', '.join(arrow.names(table)) or 'none'}. Rename "
            "the column, say --column timestamp=NAME, or add it."
        )
        raise DataError(msg)
    present = [
        n for n in ("behavior", when, *VALUE_COLUMNS, "text", "split") if n in table.column_names
    ]
    arrow.require(table, present, source)
    time, time_unit, strange = _times(table, when, options.time_unit, notes)
    row, keep = _check(table, catalog, time, strange, rejects)
    if not keep.any():
        msg = (
            f"No interaction of {source} is usable: every row was rejected"
            f"{rejects.first_reason() or ', for there is none'}. Mend the rows, or name the right "
            "columns."
        )
        raise DataError(msg)
    interactions = _build(table, catalog, options, time, row, keep, when, source)
    notes += _remarks(interactions)
    return Ingested(interactions, tuple(notes), time_unit, "split" in table.column_names)


def _with_behavior(
    table: pa.Table, options: EventOptions, notes: list[str], source: str
) -> pa.Table:
    if "behavior" in table.column_names:
        return table
    behavior = options.behavior
    if behavior is None and "rating" in table.column_names:
        behavior = "rate"
    if behavior is None:
        msg = (
            f"{source} has no column 'behavior'. Expected what the user did, such as "
            "buy or view; add the column, name another with --column behavior=NAME, or give one "
            f"for all rows, say --behavior buy. Found: {', '.join(arrow.names(table))}."
        )
        raise DataError(msg)
    notes.append(f"no behavior column: every row is taken as {behavior!r}")
    return table.append_column("behavior", pa.repeat(behavior, table.num_rows))


def _times(
    table: pa.Table, name: str, unit: str, notes: list[str]
) -> tuple[FloatArray, str, BoolArray]:
    """Times in seconds (or plain positions), NaN where there is none, and the unit as given.

    And which are numbers among dates or dates among numbers, and left out.
    """
    time = arrow.numbers(table[name])
    bad = np.flatnonzero(np.isnan(time))
    strange = np.zeros(len(time), dtype=np.bool_)
    if len(bad):
        dates = _dates(table[name], bad)
        strange[bad] = np.isfinite(dates)
        if np.isfinite(dates).sum() > np.isfinite(time).sum():
            full = np.full(len(time), np.nan)
            full[bad] = dates
            notes.append("time read as ISO dates, UTC where no zone is given")
            return full, "s", np.isfinite(time)
    if unit == "auto":
        unit = "position" if name == "position" else _guess_unit(time)
        notes.append(f"time unit of column {name!r} guessed: {unit}")
    return time * TIME_UNITS[unit], unit, strange


def moment(given: str | float, time_unit: str) -> float:
    """A time that a person gave, in seconds (or as a position): an ISO date, or a number.

    Args:
        given: such as ``2011-11-01`` or ``1320105600``.
        time_unit: of a number, as in ``Ingested.time_unit``.

    Raises:
        SettingsError: it is neither.
    """
    number = arrow.number(str(given))
    seconds = _date(str(given)) if np.isnan(number) else number * TIME_UNITS[time_unit]
    if not np.isfinite(seconds):
        msg = (
            f"{given!r} is no time. Expected an ISO date such as 2011-11-01 or "
            f"2011-11-01T12:00:00, or a number in the unit of the data ({time_unit})."
        )
        raise SettingsError(msg)
    return seconds


def _guess_unit(time: FloatArray) -> str:
    """The unit of epoch times by their size; small numbers are positions."""
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


def _dates(column: pa.ChunkedArray, where: IntArray) -> FloatArray:
    """Seconds since 1970 of the ISO texts at some places; NaN where a text is none."""
    values = column.take(pa.array(where))
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.timestamp("us"), safe=False)
    else:
        try:
            values = arrow.text(values).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            return np.array([_date(v) for v in arrow.text(values).to_pylist()])
    micros = np.asarray(values.cast(pa.int64()).cast(pa.float64()).fill_null(np.nan))
    return np.asarray(micros / 1e6, dtype=np.float64)


def _date(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()


def _check(
    table: pa.Table, catalog: Catalog, time: FloatArray, strange: BoolArray, rejects: Rejects
) -> tuple[IntArray, BoolArray]:
    """Catalog rows (-1 for an event of text only) and which table rows are kept."""
    user, item = arrow.text(table["user_id"]), arrow.text(table["item_id"])
    ids = pa.array([i.item_id for i in catalog], pa.large_string())
    row = np.asarray(pc.index_in(item, value_set=ids).fill_null(-1), dtype=np.int64)
    no_item = _empty(item)
    has_text = ~_empty(arrow.text(table["text"])) if "text" in table.column_names else False
    problems = [
        (_empty(user), "empty user_id"),
        (no_item & ~np.asarray(has_text), "not in the items file: item_id ''"),
        ((row < 0) & ~no_item, "not in the items file: item_id"),
        (_empty(arrow.text(table["behavior"])), "empty behavior"),
        (strange, "time is a number among ISO dates, or a date among numbers"),
        (~np.isfinite(time), "time is empty or not a number or ISO date"),
        (np.abs(np.nan_to_num(time, posinf=0.0, neginf=0.0)) > 1e13, "time is out of range"),
        (_no_number(table), "value is not a number"),
    ]
    keep = np.ones(len(time), dtype=bool)
    for mask, _ in problems:
        keep &= ~mask
    bad = np.flatnonzero(~keep)
    if len(bad):
        reasons = [next(r for m, r in problems if m[b]) for b in bad]
        numbers = arrow.row_numbers(table)
        names = arrow.names(table)
        cells = table.select(names).take(pa.array(bad)).to_pylist()
        for place, reason, values in zip(bad.tolist(), reasons, cells, strict=True):
            full = f"{reason} {item[place].as_py()!r}" if reason.endswith("item_id") else reason
            rejects.add(numbers[place], full, list(values.values()))
    return row, keep


def _no_number(table: pa.Table) -> BoolArray:
    """Rows whose value cell holds something that is no number."""
    name = next((c for c in VALUE_COLUMNS if c in table.column_names), None)
    if name is None:
        return np.zeros(table.num_rows, dtype=bool)
    return ~np.isfinite(arrow.numbers(table[name])) & ~_empty(arrow.text(table[name]))


def _empty(values: pa.ChunkedArray) -> BoolArray:
    return np.asarray(pc.equal(values, ""), dtype=bool)


def _build(
    table: pa.Table,
    catalog: Catalog,
    options: EventOptions,
    time: FloatArray,
    row: IntArray,
    keep: BoolArray,
    when: str,
    source: str,
) -> EventTable:
    kept = table.filter(pa.array(keep))
    users, user = arrow.codes(kept["user_id"])
    behaviors, behavior = arrow.codes(kept["behavior"])
    order = np.lexsort((time[keep], user))  # stable: ties keep file order
    kept = kept.take(pa.array(order))
    user = user[order]
    unit = _unit_column(kept, options.unit, source)
    unit_ids, unit_code = _units(kept, unit, user)
    value = next((c for c in VALUE_COLUMNS if c in kept.column_names), None)
    text = arrow.text(kept["text"]).combine_chunks() if "text" in kept.column_names else None
    used = {"user_id", "item_id", "behavior", when, value, unit, "split", "text"}
    rest = [n for n in arrow.names(kept) if n not in used]
    return EventTable(
        users,
        behaviors,
        EventColumns(
            user=user,
            row=row[keep][order],
            behavior=behavior[order],
            timestamp=time[keep][order],
            value=np.full(len(order), np.nan) if value is None else arrow.numbers(kept[value]),
            unit=unit_code,
            split=_split_codes(kept, source),
        ),
        unit_name=unit,
        unit_ids=unit_ids,
        text=text,
        attributes=pa.table({free: arrow.typed(kept[n]) for n, free in _free(rest).items()})
        if rest
        else None,
    )


def _free(names: list[str]) -> dict[str, str]:
    """Names of attributes, out of the way of the columns that a dataset folder has."""
    found: dict[str, str] = {}
    for name in names:
        free = name
        while free in _STORED or (free != name and free in names):
            free += "_given"
        found[name] = free
    return found


def _unit_column(table: pa.Table, unit: str | None, source: str) -> str | None:
    if unit == "none":
        return None
    unit = unit or next((c for c in UNIT_COLUMNS if c in table.column_names), None)
    if unit is not None:
        arrow.require(table, [unit], source)
    return unit


def _units(kept: pa.Table, unit: str | None, user: IntArray) -> tuple[list[str] | None, IntArray]:
    """Unit names and codes; a name counts within its user, and an empty cell is its own unit."""
    if unit is None:
        return None, np.arange(len(user))
    names, code = arrow.codes(kept[unit])
    key = user * (len(names) + 1) + code
    if "" in names:
        alone = code == names.index("")
        key[alone] = -1 - np.arange(int(alone.sum()))
    _, first, codes = np.unique(key, return_index=True, return_inverse=True)
    return [names[c] for c in code[first]], codes.astype(np.int64)


def _split_codes(kept: pa.Table, source: str) -> IntArray:
    if "split" not in kept.column_names:
        return np.zeros(kept.num_rows, dtype=np.int64)
    names, code = arrow.codes(kept["split"])
    known = [_SPLIT_NAMES.get(n, n) for n in names]
    unknown = [n for n in known if n not in SPLITS]
    if unknown:
        place = int(np.argmax(code == known.index(unknown[0])))
        msg = (
            f"The split column holds {unknown[0]!r} ({source}, data row "
            f"{arrow.row_numbers(kept)[place]}). Expected one of {', '.join(SPLITS)}; mend the "
            "cell, or choose a split with --split."
        )
        raise DataError(msg)
    return np.array([SPLITS.index(n) for n in known], dtype=np.int64)[code]


def _remarks(events: EventTable) -> list[str]:
    """What a person should know of the kept rows."""
    c = events.columns
    notes = []
    values = c.value[np.isfinite(c.value)]
    if len(values):
        notes.append(f"values from {values.min():g} to {values.max():g}")
    back = (c.user[1:] == c.user[:-1]) & (c.split[1:] < c.split[:-1])
    if back.any():
        notes.append(
            f"{len(np.unique(c.user[1:][back])):,} users have events of an earlier part of the "
            "split after events of a later one"
        )
    tied = (c.user[1:] == c.user[:-1]) & (c.timestamp[1:] == c.timestamp[:-1])
    at = np.flatnonzero(np.append(tied, False) | np.append(False, tied))  # only these can repeat
    columns = [c.user[at], c.timestamp[at], c.row[at], c.behavior[at], np.nan_to_num(c.value[at])]
    order = np.lexsort(columns[::-1])
    same = np.ones(max(0, len(at) - 1), dtype=bool)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    if same.any():
        notes.append(f"{int(same.sum()):,} rows repeat another row; they were kept")
    return notes
