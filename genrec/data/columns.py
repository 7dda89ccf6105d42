"""Recognize columns by the names that shops, media sites and research datasets give them.

Names are compared without regard to case, spaces and punctuation (``column_names``). A mapping
given by the user takes precedence over everything else, and a column with genrec's own name takes
precedence over other columns. If several columns could hold the users or the items, their cells are
compared (``column_cells``). This module does not change the cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data import column_cells, column_choice
from genrec.data.column_names import fold, known, known_words, names_of, spellings
from genrec.data.readers import arrow
from genrec.errors import DataError
from genrec.text import one_line, quantity

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
_ORDER = {role: place for place, role in enumerate((*EVENT_ROLES, "position", "text"))}
_MOST_TITLES = 3  # a column with more titles per item holds something else
_COMPARED = 6  # the number of columns that are compared for a role


@dataclass(frozen=True, slots=True)
class Recognized:
    """A table whose columns have genrec's names.

    Attributes:
        table: the table with renamed columns.
        names: for every column that was recognized or mapped, genrec's name and the name in the
            file.
        found: the names of all columns in the file.
        notes: remarks for the user on columns that were chosen from several candidates or used
            twice.
        unit: the name of the basket column; None if the table has none.
        behavior: the behavior that the columns suggest for a table without a behavior column.
        counted: True if the values are quantities, which are negative for returns.
        clock: the name of the time-of-day column that was joined with the date column; None if no
            columns were joined.
    """

    table: pa.Table
    names: dict[str, str]
    found: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    unit: str | None = None
    behavior: str = "interact"
    counted: bool = False
    clock: str | None = None


def recognize_events(
    table: pa.Table,
    given: Mapping[str, str],
    source: str,
    *,
    with_titles: bool = True,
    items: pa.Table | None = None,
) -> Recognized:
    """Find the columns of an events table that hold the user, the item, the time and so on.

    Args:
        table: one row per event, with the column names of the file.
        given: the user's own mapping of genrec's names to those in the file.
        source: the name of the table, for use in messages.
        with_titles: True if the titles must come from this table, because there is no items table.
        items: the items table, with the column names of the file.

    Raises:
        DataError: a column that the user mapped is not in the table.
    """
    finder = _Finder(table, given, source)
    finder.apply_layouts()
    finder.find_user()
    if items is not None:
        finder.share_ids(items)
    finder.find_item_and_title(with_titles=with_titles)
    for role in EVENT_ROLES[3:-1]:
        finder.find(role)
    finder.find_unit()
    names = finder.names
    unit = names.pop("unit", None)
    behavior = finder.suggest_behavior(unit)
    if "user_id" not in finder.present and finder.may_be_user(unit):
        finder.take("user_id", str(unit))
        finder.notes.append(f"no column identifies users, so each {unit!r} is treated as a user")
        unit = None
    if "item_id" in names and "title" not in finder.present and with_titles:
        finder.share_text("item_id", "title")
    if "title" in finder.present and "item_id" not in finder.present:
        finder.copy("title", "item_id")
        finder.notes.append(
            f"no column was recognized as item ids, so items are identified by their titles in "
            f"{names.get('title', 'title')!r}"
        )
    finder.join_clock()
    ordered = {
        role: names[role] for role in sorted(names, key=lambda r: _ORDER.get(r, len(_ORDER)))
    }
    return Recognized(
        finder.rename(),
        ordered | ({"unit": unit} if unit else {}),
        tuple(arrow.column_names(table)),
        finder.notes,
        unit,
        behavior,
        finder.counted,
        finder.clock,
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
        events: the recognized events, whose item ids are compared with the candidate columns; None
            to skip the comparison.

    Raises:
        DataError: a column that the user mapped is not in the table.
    """
    finder = _Finder(table, given, source)
    finder.extra["item_id"] = ["id"]
    if events is not None and "item_id" in events.table.column_names:
        finder.share_ids(events.table.select(["item_id"]))
    finder.find_item_and_title(with_titles=True)
    found = tuple(arrow.column_names(table))
    return Recognized(finder.rename(), finder.names, found, finder.notes)


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
        self.source = source
        self.given = frozenset(given)
        self.table, self.names = column_choice.copy_shared(table, given)
        self.columns = arrow.column_names(self.table)
        self.notes: list[str] = []
        self.clock: str | None = None
        self.extra: dict[str, list[str]] = {}
        self.aside: set[str] = set()  # columns that do not hold what their names say
        self.folded: dict[str, str] = {}
        for name in self.columns:
            self.folded.setdefault(fold(name), name)
        for name in self.columns:
            for spelling in spellings(name):
                self.folded.setdefault(spelling, name)

    @property
    def present(self) -> set[str]:
        """The roles that have a column."""
        own = {role for role in EVENT_ROLES if self._own(role) is not None}
        return own | self.names.keys()

    def take(self, role: str, name: str) -> None:
        """Use a column for a role."""
        self.names[role] = name

    def find(self, role: str) -> None:
        """Find the column for a role, unless the user or the table itself names one."""
        asked = "position" in self.given or role != "timestamp"
        if not asked and self._own(role) == "position" and self.candidates(role):
            self.aside.add("position")  # of a line in its order
        if role in self.names or self._own(role) is not None:
            return
        if role in {"rating", "value"} and {"rating", "value"} & self.names.keys():
            return
        for name in self.candidates(role):
            fits = self._holds_behaviors(name) if role == "behavior" else True
            if role in {"rating", "value"}:
                fits = column_cells.holds_numbers(self.table[name])
            if fits:
                self.take(role, name)
                return
        if role == "behavior":
            for name in self.aside:
                if column_cells.holds_event_names(self.table[name]):
                    self.take(role, name)
                    return

    def find_unit(self) -> None:
        """Find the basket column, skipping columns with too few distinct values."""
        if "unit" in self.names:
            return
        own = [n for n in _OWN["unit"] if n in self.columns]
        for name in [*own, *(n for n in self.candidates("unit") if n not in own)]:
            if column_cells.may_hold_baskets(self.table[name], vague=fold(name) == "unit"):
                self.take("unit", name)
                return
            cells = [c for c in pc.unique(arrow.to_text(self.table[name])).to_pylist() if c]
            shown = ", ".join(repr(one_line(c)) for c in cells[:3]) or "empty cells"
            self.notes.append(f"{name!r} does not identify baskets, since it only holds {shown}")

    def candidates(self, role: str) -> list[str]:
        """Return the columns whose names are known for a role, the best name first."""
        ranks = names_of(role)
        taken = {*self.names.values(), *EVENT_ROLES, *self.aside}
        found = [
            (ranks.get(folded, len(ranks)), name)
            for folded, name in self.folded.items()
            if (folded in ranks or folded in self.extra.get(role, ())) and name not in taken
        ]
        return list(dict.fromkeys(name for _, name in sorted(found)))[:_COMPARED]

    def find_user(self) -> None:
        """Find the user column, choosing the one that identifies a user in the most rows."""
        if "user_id" in self.names:
            return
        own = self._own("user_id")
        names = [*([own] if own else []), *self.candidates("user_id")]
        several = names if len(names) > 1 else []
        counts = [column_cells.count_users(self.table[n]) for n in several]
        for name, (rows, users) in zip(several[1:], counts[1:], strict=True):
            staff = [fold(n) in known_words("registers") for n in (names[0], name)]
            if staff == [True, False] and column_choice.are_registers(counts[0], (rows, users)):
                few = quantity(counts[0][1], "different value")
                self.notes.append(
                    f"users are identified by {name!r}, since {names[0]!r} holds only {few}, as for "
                    "cash registers or staff"
                )
                self.take("user_id", name)
                return
            why = column_choice.compare_users(self.table[names[0]], counts[0], (rows, users))
            if why:
                self.notes.append(f"users are identified by {name!r}, since {names[0]!r} {why}")
                self.take("user_id", name)
                return
        if names and not own:
            self.take("user_id", names[0])
        people = self.candidates("person") if not names else []
        if people:
            self.take("user_id", people[0])
            self.notes.append(f"users are identified by the names in {people[0]!r}")

    def share_ids(self, other: pa.Table) -> None:
        """Choose the item id column that has the most ids in common with another table.

        Args:
            other: the other table; its columns with common names for item ids are compared.
        """
        if "item_id" in self.names or "item_id" in self.columns:
            return
        candidates = self.candidates("item_id")
        ranks = names_of("item_id")
        theirs = [
            set(arrow.to_strings(other[name].slice(0, 100_000)))
            for name in arrow.column_names(other)
            if (fold(name) in ranks or fold(name) in {"id", "itemid"})
            and not pa.types.is_nested(other[name].type)
        ]
        if len(candidates) < 2 or not theirs:
            return

        def shared(name: str) -> int:
            if pa.types.is_nested(self.table[name].type):
                return 0
            own = set(arrow.to_strings(self.table[name].slice(0, 100_000)))
            return max(len(own & ids) for ids in theirs)

        self.take("item_id", max(candidates, key=shared))

    def find_item_and_title(self, *, with_titles: bool) -> None:
        """Find the columns of item ids and titles, choosing those whose cells fit together best.

        The comparison rules out ids of order lines, which do not identify items, and columns such
        as ``name`` that hold the names of customers.
        """
        self._set_aside_titles()
        own_id, own_title = self._own("item_id"), self._own("title")
        ids, titles = (
            [self.names[role]] if role in self.names else [own] if own else self.candidates(role)
            for role, own in (("item_id", own_id), ("title", own_title))
        )
        if (
            own_id
            and "item_id" not in self.names
            and column_cells.differ_everywhere(self.table[own_id])
        ):
            ids += self.candidates("item_id")
        if with_titles and "title" not in self.given:  # such as "product"
            titles += [] if own_title is None else self.candidates("title")
            words = known_words("roles", "item_id", "words")
            named = (n for f, n in self.folded.items() if f in words and n not in titles)
            titles += [
                n for n in named
                if column_cells.holds_names(self.table[n]) and column_cells.mostly_filled(self.table[n])
            ]  # fmt: skip
        fits = {
            (i, t): column_cells.misfit(self.table[i], self.table[t])
            for i in ids
            for t in titles
            if i != t
        }
        id_, title = (names[0] if names else "" for names in (ids, titles))
        fits = column_choice.prefer_own(fits, own_title, self.notes)
        if fits:
            best = min(max(fit) for fit in fits.values())
            id_, title = column_choice.choose_pair(fits, self.table)
            given = {own_title, *self.names.values()}
            if np.isfinite(best) and fits[id_, title][0] > _MOST_TITLES and title not in given:
                title = ""
        if fits and self._is_headline(title, fits[id_, title][0] if title else 0):
            title = ""
        title = title if title != id_ else ""  # share_text uses one column for both
        if own_id not in {None, id_} and "item_id" not in self.names:
            self.notes.append(
                f"items are identified by {id_!r}, since {own_id!r} is different in every row"
            )
        for role, name, own in (("item_id", id_, own_id), ("title", title, own_title)):
            if name and name != own and role not in self.names:
                self.take(role, name)

    def _own(self, role: str) -> str | None:
        """Return the column that has genrec's own name for a role."""
        names = (n for n in _OWN.get(role, (role,)) if n not in self.aside)
        return next((n for n in names if n in self.columns), None)

    def _set_aside_titles(self) -> None:
        """Set aside columns that are named like titles but hold salutations or event names."""
        if "title" in self.given:
            return
        for name in [n for n in (self._own("title"), *self.candidates("title")) if n]:
            what = (
                "forms of address"
                if column_cells.holds_salutations(self.table[name])
                else "names of events"
                if column_cells.holds_event_names(self.table[name])
                else ""
            )
            if what:
                self.aside.add(name)
                self.notes.append(f"{name!r} {column_choice.NO_TITLES}, since it holds {what}")

    def _is_headline(self, title: str, titles_per_item: float) -> bool:
        """Check whether a title column holds the headlines of reviews; if so, set it aside."""
        reviews = any(n in self.folded for n in known_words("review_texts"))
        rated = self._own("rating") or self.candidates("rating")
        if not (title and reviews and rated and titles_per_item > column_choice.DOUBTFUL_TITLES):
            return False
        if "title" in self.given:
            return False
        self.aside.add(title)
        self.notes.append(
            f"{title!r} {column_choice.NO_TITLES}, since its values differ between the reviews of "
            "an item, as headlines do"
        )
        return True

    def apply_layouts(self) -> None:
        """Assign the columns of known export formats that have misleading column names."""
        for layout in known()["layouts"]:
            if all(n in self.folded for n in layout["needs"]):
                for role, folded in layout["columns"].items():
                    if folded in self.folded and role not in self.names:
                        self.take(role, self.folded[folded])

    def share_text(self, role: str, other: str) -> None:
        """Use one role's column for another role as well if it holds names rather than codes."""
        name = self.names[role]
        if column_cells.holds_names(self.table[name]):
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
        clocks = known_words("clocks")
        taken = set(self.names.values()) - {name}
        dates = names_of("timestamp")
        others = [n for f, n in self.folded.items() if n != name and n not in taken]
        for other in others:
            later = fold(other) in clocks or fold(other) == fold(name).replace("date", "time")
            date, clock = (name, other) if later else (other, name)
            known_pair = (later or fold(clock) in clocks) and fold(date) in dates
            if known_pair and column_cells.are_date_and_clock(self.table[date], self.table[clock]):
                cells = [arrow.to_text(self.table[n]) for n in (date, clock)]
                joined = pc.utf8_trim_whitespace(
                    pc.binary_join_element_wise(*cells, pa.scalar(" ", pa.large_string()))
                )
                place = self.table.column_names.index(date)
                self.table = self.table.set_column(place, date, joined).drop_columns(clock)
                self.columns = arrow.column_names(self.table)
                self.take("timestamp", date)
                self.clock = clock
                self.notes.append(f"the time is made from the columns {date!r} and {clock!r}")
                return

    @property
    def counted(self) -> bool:
        """Whether the values are quantities rather than, for example, hours of play."""
        name = self.names.get("value")
        return name is not None and fold(name) not in known_words("kinds_of_values", "use")

    def may_be_user(self, unit: str | None) -> bool:
        """Check whether the basket column can stand in for a missing user column.

        Sessions always can, since each has one visitor. Orders can only if no other column could
        hold users: every other column has a role, holds decimal numbers or has few distinct values.
        """
        if unit is None or fold(unit) in known_words("sessions"):
            return unit is not None
        taken = {unit, *self.names.values(), *EVENT_ROLES}
        others = [
            n for n in self.columns if n not in taken and fold(n) not in known_words("clocks")
        ]
        return not any(column_cells.may_hold_ids(self.table[n]) for n in others)

    def suggest_behavior(self, unit: str | None) -> str:
        """Return the behavior that the column names suggest."""
        folded = {fold(n) for n in self.columns} | {fold(n) for n in self.names.values()}
        looks = {kind: folded & known_words("looks_like", kind) for kind in known()["looks_like"]}
        order = unit is not None and fold(unit) not in known_words("sessions")
        if looks["listen"] and not order:
            return "listen"
        return "buy" if order or self.counted or looks["buy"] or looks["buyers"] else "interact"

    def rename(self) -> pa.Table:
        """Rename the recognized columns to genrec's names, and rename any that clash with them."""
        theirs = {n: role for role, n in self.names.items() if role not in {"unit", "status"}}
        names: dict[str, None] = {}
        given = {*self.table.column_names}
        for name in self.table.column_names:
            new = theirs.get(name, name)
            if name not in theirs and (name in theirs.values() or name in self.aside):
                new = name + "_given" if name in {*EVENT_ROLES, "position"} else name
            while new in names or (new != name and new not in theirs.values() and new in given):
                new += "_given"
            names[new] = None
        return self.table.rename_columns(list(names))

    def _holds_behaviors(self, name: str) -> bool:
        """Check whether a column's cells are behaviors, since a name such as ``type`` is vague."""
        vague = fold(name) in known_words("roles", "behavior", "last")
        return column_cells.holds_behaviors(self.table[name], known_only=vague)
