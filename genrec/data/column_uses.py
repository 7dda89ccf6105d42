"""List what each column of the files is used for, with a sample value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from genrec.data.column_names import names_of, spellings
from genrec.data.readers import arrow
from genrec.data.redaction import redact as redact_text
from genrec.errors import DataError
from genrec.text import one_line

STATUS = "cancelled or returned orders"
NOT_USED = "not used"
WITH_ITEMS = "attribute of the items"
WITH_EVENTS = "not used, but kept with the events"
_OWN = ("user_id", "item_id", "title", "timestamp", "position", "behavior", "split", "text")
_NUMBERS = ("value", "rating")
_ROLES = ("user_id", "item_id", "title", "timestamp", "behavior", "rating", "value", "unit")
_SAMPLE = 1000  # the rows in which an example is looked for
_WIDTH = 40  # characters of an example


@dataclass(frozen=True, slots=True)
class ColumnUse:
    """The use of one column.

    Attributes:
        column: the name of the column in the file. The names in the items file begin with
            ``items.``, as in ``DatasetInfo.columns``.
        use: the roles of the column, such as ``user_id``, or a phrase that says how the column is
            handled.
        example: a sample value: the first non-empty cell, or an empty string if the first rows
            have none.
    """

    column: str
    use: str
    example: str


def list_uses(
    table: pa.Table,
    names: Mapping[str, str],
    others: Mapping[str, str],
    *,
    items: Collection[str] = (),
    events: Collection[str] = (),
    prefix: str = "",
) -> list[ColumnUse]:
    """List the use of each column of a table.

    Args:
        table: the table, with the column names of the file.
        names: maps genrec's names to those in the file.
        others: maps other columns to their uses, such as the status of an order.
        items: the columns that describe the items.
        events: the columns that are kept with the events.
        prefix: the text to put before each name.
    """
    items, events = frozenset(items), frozenset(events)
    roles: dict[str, list[str]] = {}
    for ours, theirs in names.items():
        roles.setdefault(theirs, []).append(ours)
    number = next((n for n in _NUMBERS if n in table.column_names), None)
    own = {n for n in table.column_names if n in _OWN or n == number} - names.keys()
    found = []
    for name in arrow.column_names(table):
        example = _example(table[name])
        if name in roles or name in others:
            use = ", ".join([*roles.get(name, ()), *([others[name]] if name in others else ())])
        elif name in own and f"{name}_given" not in {*items, *events}:
            use = name
        elif {name, f"{name}_given"} & {*items}:
            use = WITH_ITEMS
        else:
            use = WITH_EVENTS if {name, f"{name}_given"} & {*events} else NOT_USED
            use += _resembles(name, names, own) if example else ""
        found.append(ColumnUse(prefix + name, use, example))
    return found


def _resembles(name: str, names: Mapping[str, str], own: Collection[str]) -> str:
    """Return a hint if a column's name suggests a role that another column already has."""
    given = {*names, *own}
    given |= set(_NUMBERS) if given & set(_NUMBERS) else set()  # one number is kept as the value
    for role in _ROLES:
        if role in given and any(one in names_of(role) for one in spellings(name)):
            return f"; could also be {role}"
    return ""


def _example(column: pa.ChunkedArray) -> str:
    """Return the first non-empty cell, shortened to one line."""
    try:
        cells = arrow.to_strings(column.slice(0, _SAMPLE))
    except DataError:
        cells = [str(v) for v in column.slice(0, 1).to_pylist() if v is not None]
    line = one_line(next((c for c in cells if c), ""))
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


def plain_uses(uses: Sequence[ColumnUse], *, redact: bool) -> list[dict[str, str]]:
    """Return uses as plain values, with personal data replaced in the example of the texts."""
    hidden = [replace(u, example=redact_text(u.example)) if u.use == "text" else u for u in uses]
    return [asdict(use) for use in (hidden if redact else uses)]
