"""Check the columns that the user named, and describe columns that are missing.

A message names every missing column at once. It ends with command-line options that the user can
paste, with the most likely columns already filled in. This module only suggests columns; it does
not choose them.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data import column_cells
from genrec.data.column_guesses import are_dates, guess_columns
from genrec.data.column_names import fold, names_of
from genrec.data.columns import Recognized
from genrec.data.readers import arrow
from genrec.errors import DataError, SettingsError
from genrec.text import one_line

_MEANINGS = {
    "user_id": "the user",
    "item_id": "the item",
    "title": "the title of the item",
    "timestamp": "the time",
    "behavior": "what the user did",
}
_ROLES = (
    "user_id", "item_id", "title", "timestamp", "position", "behavior", "rating", "value", "text",
    "split", "status",
)  # fmt: skip
_LISTED = 100  # the most columns that a message lists
_ZONES = frozenset(
    fold(n)
    for n in (
        "time zone", "tz", "time zone name", "time zone id", "utc offset", "tz offset",
        "time zone offset", "zeitzone", "fuseau horaire", "zona horaria", "fuso orario", "tijdzone",
        "时区", "時區", "タイムゾーン",
    )
)  # fmt: skip
_SAMPLE = 1000  # the rows that show what a column holds
_COMPARED = 20_000  # the rows that show whether a column holds baskets
_REPEATED = 0.9  # distinct values for each row, at most
_SPLIT = 1.1  # baskets for each user and time, at most


def check_mapping(given: Mapping[str, str], source: str, *, option: str = "--column") -> None:
    """Check a column mapping for misspelled names, and for a column used as both user and item.

    Names that genrec does not know are accepted, since any column may be renamed, but not if they
    resemble a known name.

    Args:
        given: maps genrec's names to those in the file.
        source: the name of the table, for use in messages.
        option: the command-line option that maps a column.

    Raises:
        SettingsError: a name looks like a misspelling of one that genrec knows, or the same column
            is mapped to both the users and the items.
    """
    for ours, theirs in given.items():
        near = difflib.get_close_matches(ours.lower(), _ROLES, n=1, cutoff=0.75)
        if near and ours not in _ROLES and near[0] not in given:
            msg = (
                f"{option} {ours}={theirs} maps a column to {ours!r}, which genrec does not know. "
                f"Did you mean {option} {near[0]}={shlex.quote(theirs)}?"
            )
            raise SettingsError(msg)
    users, items = given.get("user_id", "user_id"), given.get("item_id", "item_id")
    if users == items:
        msg = (
            f"The column {users!r} of {source} would hold both the users and the items. Expected two "
            f"different columns. Name the other one as well, such as {option} item_id=NAME, or correct "
            f"{option} {'user_id' if 'user_id' in given else 'item_id'}={shlex.quote(users)}."
        )
        raise SettingsError(msg)


def choose_unit(given: str | None, read: Recognized, source: str) -> str | None:
    """Return the name of the basket column in the recognized table, or None if there is none.

    Args:
        given: the column that the user named, ``none`` to have no baskets, or None to use the
            recognized column.
        read: the table with its recognized columns.
        source: the name of the table, for use in messages.

    Raises:
        DataError: the table does not have the given column.
    """
    if given is None or given == "none":
        return read.unit if given is None else None
    ours = {theirs: ours for ours, theirs in read.names.items() if ours not in {"unit", "status"}}
    name = ours.get(given, given)
    if name in read.table.column_names:
        return name
    near = difflib.get_close_matches(given, read.found, n=1)
    hint = f" Did you mean --unit {shlex.quote(near[0])}?" if near else ""
    msg = (
        f"{source} has no column {given!r} to take baskets from (given as --unit).{hint} Expected one "
        f"of its columns: {list_names(read.found)}. To have no baskets, use --unit none."
    )
    raise DataError(msg)


def describe_missing(
    missing: Sequence[str], read: Recognized, source: str, *, option: str = "--column"
) -> str:
    """Build the error message for required columns that were not recognized.

    Args:
        missing: genrec's names of the missing columns.
        read: the table, with the columns that were recognized.
        source: the name of the table.
        option: the command-line option that maps a column.
    """
    wanted = _join([f"{n} ({_MEANINGS.get(n, n)})" for n in missing])
    guesses = guess_columns(missing, read) if len(read.found) > 1 else {}
    paste = " ".join(f"{option} {n}={shlex.quote(guesses.get(n, 'COLUMN'))}" for n in missing)
    free = {*read.table.column_names} - {*guesses.values()}
    basket = _find_baskets(
        read.table,
        [n for n in read.found if n in free],
        guesses.get("user_id", "user_id"),
        guesses.get("timestamp", "timestamp"),
    )
    if basket is not None and read.unit is None:
        paste += f" --unit {shlex.quote(basket)}"
    if not guesses:
        advice = f"Choose a column with {paste}, or rename a column."
        if len(read.found) == 1:
            advice += " A single column may mean that the file is no table."
    elif len(guesses) < len(missing):
        advice = (
            f"Add {paste} to the command. These columns are guesses, so correct them if they are "
            "wrong, and replace COLUMN by the name of a column."
        )
    else:
        advice = f"Add {paste} to the command. These columns are guesses, so correct them if they are wrong."
    return (
        f"{source} has no column that could be recognized as {wanted}. Found the columns: "
        f"{list_names(read.found)}. {advice}"
    )


def point_to_folder(names: Sequence[str]) -> str:
    """Return a sentence on how to join a table of orders if a table of order lines refers to one."""
    order = next((n for n in names if fold(n) in names_of("unit") and fold(n) != "unit"), None)
    if order is None:
        return ""
    return (
        f" If users and times are in another file with the column {one_line(order)!r}, put both files in "
        "a folder and pass the folder."
    )


def point_to_constant(read: Recognized) -> str:
    """Return a sentence on how to read the history of one person, if a column could stand for them."""
    columns = (n for n in read.found if n in read.table.column_names)
    same = next((n for n in columns if column_cells.holds_one_value(read.table[n])), None)
    if same is None:
        return ""
    return (
        f" If all rows are of one person, use a column that is the same in all rows: --column "
        f"user_id={shlex.quote(same)}."
    )


def note_baskets(table: pa.Table, names: Sequence[str]) -> list[str]:
    """Return a remark if a column seems to identify baskets, although its name is not known.

    Args:
        table: the events, with genrec's names of the users and the times.
        names: the columns that have no role.
    """
    name = _find_baskets(table, names, "user_id", "timestamp")
    if name is None:
        return []
    return [
        f"{name!r} may identify baskets, since rows with the same value have the same user and time; "
        f"--unit {shlex.quote(name)} uses it"
    ]


def _find_baskets(table: pa.Table, names: Sequence[str], user: str, time: str) -> str | None:
    """Find a column whose values each have one user and time, while hardly any user has two at once."""
    table = table.slice(0, _COMPARED)
    needed = {user, time}
    if needed - {*table.column_names} or any(pa.types.is_nested(table[n].type) for n in needed):
        return None
    table = table.filter(pc.not_equal(arrow.to_text(table[user]), ""))  # without totals
    if not table.num_rows:
        return None
    users, times = (arrow.encode(table[n])[1] for n in (user, time))
    owner = np.unique(users * len(times) + times, return_inverse=True)[1]
    for name in (n for n in names[:_LISTED] if column_cells.may_hold_ids(table[n])):
        values, code = arrow.encode(table[name])
        pairs = len(np.unique(code * len(owner) + owner))
        repeated = len(values) <= _REPEATED * len(code)
        whole = "" not in values and pairs == len(values) <= _SPLIT * (owner.max() + 1)
        if repeated and whole and not are_dates(table[name]):
            return name
    return None


def note_time_zone(table: pa.Table, events: pa.Table) -> list[str]:
    """Return a remark if the times have no zone but another column holds time zones.

    Args:
        table: the table, with the column names of the file.
        events: the same rows with genrec's column names.
    """
    name = next((n for n in arrow.column_names(table) if fold(n) in _ZONES), None)
    if name is None or "timestamp" not in events.column_names:
        return []
    times = events["timestamp"]
    if not column_cells.is_text(times) or not np.isnan(arrow.to_floats(times.slice(0, 1))).all():
        return []
    zones = [z for z in arrow.to_strings(table[name].slice(0, _SAMPLE)) if z]
    if not zones:
        return []
    return [
        f"the column {name!r} (such as {one_line(zones[0])!r}) is not used: times are taken as UTC unless "
        "they are written with a time zone. To use the column, convert the times first"
    ]


def list_names(names: Sequence[str]) -> str:
    """Join column names for a message, shortening a very long list."""
    listed = ", ".join(one_line(n) for n in names[:_LISTED]) or "none"
    return listed + (f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else "")


def _join(parts: Sequence[str]) -> str:
    """Join parts with commas and ``or``."""
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
