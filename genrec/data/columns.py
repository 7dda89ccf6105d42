"""Recognize columns by the names that shops, media sites and research datasets give them.

The known names are in ``column_names.json``. Names are compared without regard to case, spaces and
punctuation. A column that already has genrec's own name always keeps its meaning, and a mapping
given by the user takes precedence over everything else. This module looks at names and at a few
cells; it does not change the cells.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers import arrow
from genrec.errors import DataError
from genrec.text import one_line

EVENT_ROLES = (
    "user_id", "item_id", "title", "timestamp", "behavior", "rating", "value", "unit",
)  # fmt: skip
ITEM_ROLES = ("item_id", "title")
_OWN = {  # names that genrec itself uses for a role
    "timestamp": ("timestamp", "position"),
    "rating": ("rating", "value"),
    "value": ("value", "rating"),
    "unit": ("unit", "invoice", "basket", "basket_id", "order_id", "session", "session_id"),
}
_MEANINGS = {
    "user_id": "the user",
    "item_id": "the item",
    "title": "the title of the item",
    "timestamp": "the time",
    "behavior": "what the user did",
}
_SAMPLE = 1000  # the number of cells to look at where a name alone does not decide
_MOST_BEHAVIORS = 100
_CLOCK = r"^\d{1,2}:\d{2}"


@dataclass(frozen=True, slots=True)
class Recognized:
    """A table whose columns have genrec's names.

    Attributes:
        table: the table with renamed columns.
        names: for every column that was recognized or mapped, genrec's name and the name in the
            file.
        found: the names of the columns in the file.
        notes: remarks for the user on columns that were chosen among several or used twice.
        unit: the name of the basket column; None if the table has none.
        behavior: the behavior that the columns suggest for a table without a behavior column.
        counted: True if the values are quantities, which are negative for returns.
    """

    table: pa.Table
    names: dict[str, str]
    found: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    unit: str | None = None
    behavior: str = "interact"
    counted: bool = False


def fold(name: str) -> str:
    """Reduce a column name to its letters and digits in lower case.

    The type after a colon, as in RecBole's files, is left out.

    >>> fold("Customer ID"), fold("user_id:token"), fold("Lineitem sku"), fold("用户ID")
    ('customerid', 'userid', 'lineitemsku', '用户id')
    """
    text = unicodedata.normalize("NFKC", re.sub(r"(?i):(token|float)(_seq)?$", "", name)).casefold()
    plain = unicodedata.normalize("NFD", text)
    return "".join(c for c in plain if unicodedata.category(c)[0] in "LN")


@cache
def _known() -> dict[str, Any]:
    """Read ``column_names.json``, folding the column names in it."""
    path = Path(__file__).with_name("column_names.json")
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


@cache
def _names_of(role: str) -> dict[str, int]:
    """Return the folded names of a role's columns with their ranks; lower ranks are preferred."""
    given = _known()["roles"][role]
    words, endings = given["words"], _known()["endings"]
    names = [*given["first"], *(w + e for w in words for e in endings)]
    names += [e + w for w in words for e in ("id", "no", "numero", "nummer", "code")]
    names += [w + e for kind in given.get("pairs", ()) for w in _pair_words(kind) for e in kind[1]]
    names += [*words, *given["last"]]
    ranks: dict[str, int] = {}
    for name in names:
        ranks.setdefault(fold(name), len(ranks))
    return ranks


def _pair_words(kind: list[Any]) -> list[str]:
    """Return the first halves of composed names, given as a list or as the name of a role."""
    first = kind[0]
    words: list[str] = first if isinstance(first, list) else _known()["roles"][first]["words"]
    return words


def _folded(key: str) -> set[str]:
    """Return one of the lists in ``column_names.json`` as a set of folded names."""
    return {fold(name) for name in _known()[key]}


class RoleNames(Container[str]):
    """The set of all column names that would be recognized as one of the given roles."""

    def __init__(self, roles: Sequence[str], columns: Mapping[str, str]) -> None:
        """Store the roles and the columns that the user mapped to them."""
        self.roles = [r for r in roles if r not in columns]
        self.given = {columns[r] for r in roles if r in columns}

    def __contains__(self, name: object) -> bool:
        text = str(name)
        folded = fold(text)
        return (
            text in self.given
            or text in self.roles
            or any(folded in _names_of(r) for r in self.roles if r in _known()["roles"])
        )


def recognize_events(
    table: pa.Table, given: Mapping[str, str], source: str, *, with_titles: bool = True
) -> Recognized:
    """Find the columns of an events table that hold the user, the item, the time and so on.

    Args:
        table: one row per event, with the column names of the file.
        given: the user's own mapping of genrec's names to those in the file.
        source: the name of the table, for use in messages.
        with_titles: True if the titles must come from this table, because there is no items table.

    Raises:
        DataError: a column is missing. The message lists all missing columns and an option for
            each.
    """
    finder = _Finder(table, given, source)
    finder.apply_layouts()
    for role in EVENT_ROLES:
        finder.find(role)
    names = finder.names
    unit = names.pop("unit", None) or next((n for n in _OWN["unit"] if n in finder.columns), None)
    if "user_id" not in finder.present and unit is not None and fold(unit) in _folded("sessions"):
        finder.take("user_id", unit)
        unit = None
        finder.notes.append(
            f"no column names the users, so every session in {names['user_id']!r} counts as a user"
        )
    if "item_id" in names and "title" not in finder.present and with_titles:
        finder.share_text("item_id", "title")
    if "title" in finder.present and "item_id" not in finder.present:
        finder.copy("title", "item_id")
        finder.notes.append(
            f"no column has item ids, so items are identified by their titles in "
            f"{names.get('title', 'title')!r}"
        )
    finder.join_clock()
    return Recognized(
        finder.rename(),
        names | ({"unit": unit} if unit else {}),
        tuple(arrow.column_names(table)),
        finder.notes,
        unit,
        finder.suggest_behavior(unit),
        fold(names.get("value", "")) in _known()["kinds_of_values"]["quantity"],
    )


def recognize_items(
    table: pa.Table, given: Mapping[str, str], source: str, events: Recognized | None = None
) -> Recognized:
    """Find the columns of an items table that hold the ids and the titles.

    If several columns could hold the ids, the one that shares the most ids with the events is used.

    Args:
        table: one row per item, with the column names of the file.
        given: the user's own mapping of genrec's names to those in the file.
        source: the name of the table, for use in messages.
        events: the events; their item ids are looked up in the columns.

    Raises:
        DataError: a column is missing.
    """
    finder = _Finder(table, given, source)
    finder.extra["item_id"] = ["id"]
    if events is not None and "item_id" in events.table.column_names:
        finder.choose_ids(events)
    for role in ITEM_ROLES:
        finder.find(role)
    found = tuple(arrow.column_names(table))
    return Recognized(finder.rename(), finder.names, found, finder.notes)


def describe_missing(
    missing: Sequence[str], found: Sequence[str], source: str, *, option: str = "--column"
) -> str:
    """Return the message for columns that were not recognized.

    Args:
        missing: genrec's names of the missing columns.
        found: the names of the columns in the file.
        source: the name of the table.
        option: the option of the command line that maps a column.
    """
    wanted = " or ".join(f"{n} ({_MEANINGS.get(n, n)})" for n in missing)
    listed = ", ".join(one_line(n) for n in found) or "none"
    paste = " ".join(f"{option} {n}=COLUMN" for n in missing)
    return (
        f"{source} has no column that could be recognized as {wanted}. Found the columns: {listed}. "
        f"Say which column it is with {paste}, or rename the column."
    )


class _Finder:
    """Assigns the columns of one table to roles, each column at most once."""

    def __init__(self, table: pa.Table, given: Mapping[str, str], source: str) -> None:
        missing = [f"{ours}={theirs}" for ours, theirs in given.items()
                   if theirs not in table.column_names]  # fmt: skip
        if missing:
            listed = ", ".join(one_line(n) for n in arrow.column_names(table))
            msg = (
                f"{source} has no column {given[missing[0].split('=')[0]]!r} (given as "
                f"{', '.join(missing)}). Expected one of its columns: {listed}."
            )
            raise DataError(msg)
        self.table = table
        self.source = source
        self.columns = arrow.column_names(table)
        self.names = dict(given)
        self.notes: list[str] = []
        self.extra: dict[str, list[str]] = {}
        self.folded: dict[str, str] = {}
        for name in self.columns:
            self.folded.setdefault(fold(name), name)

    @property
    def present(self) -> set[str]:
        """The roles that have a column."""
        own = {r for r in EVENT_ROLES if any(n in self.columns for n in _OWN.get(r, (r,)))}
        return own | self.names.keys()

    def take(self, role: str, name: str) -> None:
        """Use a column for a role."""
        self.names[role] = name

    def find(self, role: str) -> None:
        """Find the column for a role, unless the user or the table itself names one."""
        if role in self.names or any(n in self.columns for n in _OWN.get(role, (role,))):
            return
        if role in {"rating", "value"} and {"rating", "value"} & self.names.keys():
            return
        ranks = _names_of(role)
        last = len(ranks)
        taken = set(self.names.values())
        found = [
            (ranks.get(folded, last), name)
            for folded, name in self.folded.items()
            if (folded in ranks or folded in self.extra.get(role, ()))
            and name not in taken
            and name not in EVENT_ROLES
        ]
        for _, name in sorted(found):
            if role != "behavior" or self._holds_behaviors(name):
                self.take(role, name)
                return

    def apply_layouts(self) -> None:
        """Assign the columns of known exports in which some names are misleading."""
        for layout in _known()["layouts"]:
            if all(n in self.folded for n in layout["needs"]):
                for role, folded in layout["columns"].items():
                    if folded in self.folded and role not in self.names:
                        self.take(role, self.folded[folded])

    def choose_ids(self, events: Recognized) -> None:
        """Choose the column of the items table that shares the most ids with the events."""
        if "item_id" in self.names or "item_id" in self.columns:
            return
        ranks = _names_of("item_id")
        candidates = [n for f, n in self.folded.items() if f in ranks or f == "id"]
        if len(candidates) < 2:
            return
        wanted = set(arrow.to_strings(events.table["item_id"].slice(0, 100_000)))

        def shared(name: str) -> int:
            if pa.types.is_nested(self.table[name].type):
                return 0
            return len(wanted & set(arrow.to_strings(self.table[name])))

        best = max(candidates, key=lambda n: (shared(n), -ranks.get(fold(n), len(ranks))))
        self.take("item_id", best)

    def share_text(self, role: str, other: str) -> None:
        """Use a column for a second role if its cells are names rather than codes."""
        name = self.names[role]
        cells = [c for c in arrow.to_strings(self.table[name].slice(0, _SAMPLE)) if c]
        words = sum(1 for c in cells if re.search(r"[^\W\d_]{2}", c) and not re.search(r"\d{3}", c))
        if cells and words > 0.5 * len(cells):
            self.copy(role, other)
            self.notes.append(f"{name!r} holds both the ids and the titles of the items")

    def copy(self, role: str, other: str) -> None:
        """Copy the column of one role and use the copy for another role."""
        column = self.table[self.names.get(role, role)]
        self.table = self.table.append_column(other, column)
        self.columns = arrow.column_names(self.table)

    def join_clock(self) -> None:
        """Join a column of dates and a column of times of day, as in ``2019-03-01`` and ``17:05``."""
        name = self.names.get("timestamp")
        if name is None or "timestamp" in self.columns:
            return
        clocks = _folded("clocks")
        taken = set(self.names.values()) - {name}
        dates = _names_of("timestamp")
        others = [n for f, n in self.folded.items() if n != name and n not in taken]
        for other in others:
            pair = (name, other) if self._is_clock(other) else (other, name)
            date, clock = pair
            if fold(clock) in clocks and fold(date) in dates and self._is_clock(clock) and not (
                self._is_clock(date)
            ):  # fmt: skip
                cells = [arrow.to_text(self.table[n]) for n in (date, clock)]
                joined = pc.utf8_trim_whitespace(
                    pc.binary_join_element_wise(*cells, pa.scalar(" ", pa.large_string()))
                )
                place = self.table.column_names.index(date)
                self.table = self.table.set_column(place, date, joined).drop_columns(clock)
                self.columns = arrow.column_names(self.table)
                self.take("timestamp", date)
                self.notes.append(f"the time is joined from the columns {date!r} and {clock!r}")
                return

    def suggest_behavior(self, unit: str | None) -> str:
        """Return the behavior that the names of the columns suggest."""
        folded = {fold(n) for n in self.columns} | {fold(n) for n in self.names.values()}
        looks = {k: {fold(n) for n in v} for k, v in _known()["looks_like"].items()}
        order = unit is not None and fold(unit) not in _folded("sessions")
        counted = folded & {fold(n) for n in _known()["kinds_of_values"]["quantity"]}
        if folded & looks["listen"] and not order:
            return "listen"
        return (
            "buy" if order or counted or folded & (looks["buy"] | looks["buyers"]) else "interact"
        )

    def rename(self) -> pa.Table:
        """Return the table with genrec's names; other columns with these names get a new one."""
        theirs = {name: role for role, name in self.names.items() if role != "unit"}
        names: list[str] = []
        for name in self.table.column_names:
            new = theirs.get(name, name)
            if name not in theirs and name in theirs.values():
                new = name + "_given"
            while new in names or (new != name and new not in theirs.values() and
                                   new in self.table.column_names):  # fmt: skip
                new += "_given"
            names.append(new)
        return self.table.rename_columns(names)

    def _is_clock(self, name: str) -> bool:
        kind = self.table[name].type
        if pa.types.is_time(kind):
            return True
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return False
        cells = arrow.to_text(self.table[name].slice(0, _SAMPLE))
        filled = cells.filter(pc.not_equal(cells, ""))
        return len(filled) > 0 and bool(pc.all(pc.match_substring_regex(filled, _CLOCK)).as_py())

    def _holds_behaviors(self, name: str) -> bool:
        """Check whether a column has few distinct texts, as behaviors do."""
        column = self.table[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
                or pa.types.is_dictionary(column.type)):  # fmt: skip
            return False
        distinct = [v for v in pc.unique(arrow.to_text(column)).to_pylist() if v]
        if fold(name) in _known()["roles"]["behavior"]["last"]:  # such as "type": of what?
            return any(fold(v) in _folded("behavior_words") for v in distinct)
        with_letters = np.mean([any(c.isalpha() for c in v) for v in distinct]) if distinct else 0
        return bool(0 < len(distinct) <= _MOST_BEHAVIORS and with_letters > 0.5)
