"""Look for signs that the columns were misunderstood, and warn about them.

A dataset may be complete and still be wrong: for example, its "users" may be three cash registers,
its "items" may be kinds of events, or its ids may have been rounded by a spreadsheet. This module
changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data import column_cells
from genrec.data.catalog import Catalog
from genrec.data.column_names import names_of, spellings
from genrec.data.columns import EVENT_ROLES
from genrec.data.events import SPLITS, EventTable
from genrec.data.readers import arrow
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.text import one_line, quantity

_FEW = 10  # users or items
_MANY = 50  # events for each of them
_MORE = 2  # another column must have this many times the values
_SEVERAL = 0.5  # the share of items with several titles
_AGREE = 0.8  # the share of rows that have the usual title of their item
_FEW_TITLES = 0.2  # titles for each item
_ROUNDED = r"(?i)^\d([.,]\d+)?e\+\d+$"
_SAMPLE = 20_000
_LISTED = 3
_ONE = 1.05  # titles for each item, or items for each title, if each has one
_COPIES = 2
_SEVERAL_USERS = 3
_LONG = 5  # events of a user
_OF_COLUMNS = ("empty ", "no title", "not in the items", "time is", "the time is")


def check_columns(
    table: pa.Table, names: Mapping[str, str], catalog: Catalog, events: EventTable
) -> list[str]:
    """Return warnings on columns that may have been misunderstood.

    Args:
        table: the events, with the column names of the file.
        names: maps genrec's names to those in the file.
        catalog: the items.
        events: the checked events.
    """
    used = {*names.values(), *names, *EVENT_ROLES, "position"}
    others = [n for n in arrow.column_names(table) if n not in used]
    items = len(np.unique(events.columns.row[events.columns.row >= 0]))
    total = len(events.columns.row)
    warnings = []
    for role, count, noun in (
        ("item_id", items, "item"),
        ("user_id", len(events.user_ids), "user"),
    ):
        if count <= _FEW and total >= _MANY * count:
            better = list(_better(table, others, role, count))
            if better:
                column = names.get(role, names.get("title", role) if role == "item_id" else role)
                warnings.append(
                    f"{quantity(total, 'event')} have only {quantity(count, noun)}, which are taken from "
                    f"the column {column!r}. {_suggest(table, better, role)}"
                )
    warnings += _warn_of_own_items(events, names)
    for role, noun in (("item_id", "items"), ("user_id", "users"), ("unit", "baskets")):
        name = names.get(role, role)
        if name in table.column_names:
            warnings += _warn_rounded(table[name], name, noun)
    titles = len({i.title for i in catalog})
    if len(catalog) >= _FEW and titles <= _FEW_TITLES * len(catalog):
        title = names.get("title", names.get("items.title", "title"))
        some = repr(one_line(catalog[0].title))
        warnings.append(
            f"{len(catalog):,} items have only {quantity(titles, 'different title')}, such as {some}, so "
            f"their titles do not tell them apart. Expected the names of items in the column {title!r}; "
            "choose another column with --column title=COLUMN"
        )
    return warnings


def check_titles(table: pa.Table, names: Mapping[str, str]) -> list[str]:
    """Return a warning if most items of a table have several titles that occur about equally often.

    Args:
        table: the events, with genrec's names for the item and title columns.
        names: maps genrec's names to those in the file.
    """
    ids, item = arrow.encode(table["item_id"])
    titles, title = arrow.encode(table["title"])
    if len(ids) < _FEW or names.get("item_id") == names.get("title", ""):
        return []
    repeated = np.bincount(item)[item] > 1
    width = len(titles)
    pairs, count = np.unique(item[repeated] * width + title[repeated], return_counts=True)
    owner = pairs // width
    given = np.bincount(owner)
    most = np.zeros(len(given), dtype=np.int64)
    np.maximum.at(most, owner, count)
    several = int((given > 1).sum())
    if several <= _SEVERAL * (given > 0).sum() or most.sum() >= _AGREE * repeated.sum():
        return []
    place = int(np.argmax(given))
    shown = [titles[p % width] for p in pairs[owner == place][:_LISTED].tolist()]
    listed = ", ".join(repr(one_line(t)) for t in shown)
    column = names.get("title", "title")
    others = [n for n in arrow.column_names(table) if n not in {*names, "item_id", "title"}]
    better = [n for n in others if _names_items(table, n)]
    advice = (
        _suggest(table, better, "title")
        if better
        else "If it holds something else, map another column with --column title=COLUMN, or pass the titles "
        "in a file with --items"
    )
    return [
        f"{several:,} of {len(ids):,} items have several titles in the column {column!r}; for example, "
        f"{one_line(ids[place])!r} has {listed}. {advice}"
    ]


def check_copies(table: pa.Table, names: Mapping[str, str]) -> list[str]:
    """Return a warning if items are copies or sizes of one product, and another column has its id.

    Args:
        table: the events, with genrec's names for the item and title columns.
        names: maps genrec's names to those in the file.
    """
    titles, ids = column_cells.misfit(table["item_id"], table["title"])
    if not np.isfinite(ids) or titles > _ONE or ids < _COPIES:
        return []
    others = [n for n in arrow.column_names(table) if n not in {*names, *EVENT_ROLES}]
    whole = [
        n
        for n in others
        if column_cells.mostly_filled(table[n]) and not column_cells.holds_names(table[n])
    ]
    better = [n for n in whole if max(column_cells.misfit(table[n], table["title"])) <= _ONE]
    if not better:
        return []
    column = names.get("item_id", "item_id")
    return [
        f"there are {ids:.1f} items for each title, so {column!r} may hold copies or sizes of one product. "
        f"{_suggest(table, better, 'item_id')}"
    ]


def check_parts(events: EventTable, split: str) -> list[str]:
    """Return a warning if the validation or the test part has no events.

    Args:
        events: the events, with their split.
        split: the name of the split, as in ``DatasetInfo.split``.
    """
    empty = [name for n, name in enumerate(SPLITS) if n and not (events.columns.split == n).any()]
    if not empty:
        return []
    parts = " and the ".join(f"{name} part" for name in empty)
    has, them = ("have", "them") if len(empty) > 1 else ("has", "it")
    if split == "given":
        why = "the split column has no such rows. --split last-unit makes a new split"
    elif split == "global time":
        why = "no event is late enough. Choose other times with --validation-from and --test-from"
    elif events.unit_name is not None:
        why = (
            f"hardly any user has several baskets. If the column {events.unit_name!r} does not identify "
            "baskets, choose another one with --unit, or --unit none"
        )
    else:
        why = "hardly any user has several events. If the users are wrong, map another column with --column"
    return [f"the {parts} {has} no events, so nothing can be measured on {them}: {why}"]


def check_rejects(events: EventTable, rejects: Rejects) -> list[str]:
    """Return a warning if more rows were rejected for what their columns hold than were kept.

    Args:
        events: the events that were kept.
        rejects: the record of the rejected rows.
    """
    kept = len(events.columns.row)
    lost = sum(reason.startswith(_OF_COLUMNS) for _, _, reason, _ in rejects.rows)
    if lost <= kept or lost < _FEW:
        return []
    return [
        f"only {quantity(kept, 'event')} could be read, and {lost:,} rows were rejected, most often for this "
        f"reason: {rejects.most_frequent()}. If such rows should count, map other columns with --column"
    ]


def _warn_of_own_items(events: EventTable, names: Mapping[str, str]) -> list[str]:
    """Return a warning if each user has a single item, as when a text names the user."""
    known = events.columns.row >= 0
    user, row = events.columns.user[known], events.columns.row[known]
    users, items = len(np.unique(user)), len(np.unique(row))
    pairs = len(np.unique(np.stack([user, row]), axis=1).T)
    if min(users, items) < _SEVERAL_USERS or len(user) < _LONG * users or pairs > _ONE * users:
        return []
    column = names.get("item_id", names.get("title", "item_id"))
    return [
        f"each user has only one item, in {len(user) / users:.0f} events, so the column {column!r} may "
        "describe users rather than items. Choose another column with --column item_id=COLUMN "
        "--column title=COLUMN"
    ]


def _better(table: pa.Table, others: Collection[str], role: str, count: int) -> Iterator[str]:
    """Yield other columns that may identify the users or items and have more distinct values."""
    for name in others:
        if role == "user_id" and not _is_called(name, ("user_id", "person")):
            continue
        cells = table[name].slice(0, _SAMPLE)
        if pa.types.is_nested(cells.type) or not column_cells.may_hold_ids(cells):
            continue
        if role == "item_id" and not (
            _is_called(name, ("item_id", "title")) or column_cells.holds_names(cells)
        ):
            continue
        distinct = len(pc.unique(arrow.to_text(cells)))
        if _MORE * count < distinct <= 0.5 * len(cells):
            yield name


def _is_called(name: str, roles: Sequence[str]) -> bool:
    """Check whether a column name is known for one of the given roles."""
    return any(one in names_of(role) for role in roles for one in spellings(name))


def _names_items(table: pa.Table, name: str) -> bool:
    """Check whether the cells of a column are plausible titles for the items of the table."""
    try:
        fit = column_cells.misfit(table["item_id"], table[name])
        return max(fit) <= 1.2 and column_cells.holds_names(table[name])
    except DataError:
        return False


def _suggest(table: pa.Table, better: Sequence[str], role: str) -> str:
    """Suggest better columns, with sample values, and say which option chooses the first one."""
    shown = []
    for name in better[:_LISTED]:
        cells = [c for c in arrow.to_strings(table[name].slice(0, 1000)) if c]
        shown.append(f"{name!r} (such as {one_line(cells[0])[:40]!r})" if cells else repr(name))
    them = "column" if len(better) == 1 else "columns"
    quoted = shlex.quote(better[0])
    return (
        f"Other possible {them}: {', '.join(shown)}. To use the first, add --column {role}={quoted}"
        if len(better) > 1
        else f"Another possible {them}: {shown[0]}. To use it, add --column {role}={quoted}"
    )


def _warn_rounded(column: pa.ChunkedArray, name: str, noun: str) -> list[str]:
    """Return a warning on ids that a spreadsheet rounded, such as ``9.78314E+12``."""
    if pa.types.is_nested(column.type) or not column_cells.is_text(column):
        return []
    text = arrow.to_text(column)
    rounded = text.filter(pc.match_substring_regex(text, _ROUNDED))
    if not len(rounded):
        return []
    return [
        f"{quantity(len(rounded), 'cell')} of the column {name!r} look like numbers that a spreadsheet "
        f"rounded, such as {str(rounded[0])!r}, so different {noun} may have become one. Export the "
        "file again with this column as text"
    ]
