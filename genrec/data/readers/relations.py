"""Join the tables of a folder that refer to each other by keys, as a database stores them.

A shop's database has a table of order lines whose rows refer to orders, products and customers.
This module deals with Arrow tables only, not with files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.column_names import RoleNames, fold, known_words, names_of
from genrec.data.readers.arrow import column_names, to_text
from genrec.errors import DataError
from genrec.text import one_line

_FOUND = 0.5  # the share of references that must be found in the other table
_VAGUE = ("id", "name", "title", "description", "status", "type", "date")


@dataclass(frozen=True, slots=True)
class _Link:
    """A column whose cells refer to the key of another table."""

    column: str
    other: str
    key: str


def join_tables(tables: Mapping[str, pa.Table], notes: list[str]) -> tuple[str, pa.Table] | None:
    """Join tables into one, with one row for each row of the table that refers to the others.

    Args:
        tables: the tables by their names, such as ``orders``.
        notes: the list to which a remark is added.

    Returns:
        The name of the table whose rows were kept, and the joined table. None if no table refers to
        another one, or if several refer to equally many, so that it is unclear what a row should be.
    """
    links = {name: _find_links(name, tables) for name in tables}
    paths = {name: _follow(name, links) for name in tables}
    most = max(map(len, paths.values()))
    roots = [name for name, path in paths.items() if len(path) == most]
    roots = [n for n in roots if any(_repeats(tables[n][link.column]) for link in links[n])]
    if len(roots) != 1:
        return None
    root = roots[0]
    table = tables[root]
    reached = [root, *(link.other for _, link in paths[root])]
    final = {(root, n): n for n in column_names(table)}
    for parent, link in paths[root]:
        other, theirs = link.other, tables[link.other]
        shared = {n for name in reached if name != other for n in column_names(tables[name])}
        shared -= {one.column for one in links[other]}
        column = final[parent, link.column]
        new = _name_columns(link, theirs, shared, set(table.column_names))
        table = _add_columns(table, column, theirs, link.key, new)
        final |= {(other, n): name for n, name in new.items()} | {(other, link.key): column}
    joined = ", ".join(f"{one_line(link.other)} (by {link.column!r})" for _, link in paths[root])
    left = [one_line(name) for name in tables if name not in reached]
    remark = f"; not used: {', '.join(left)}" if left else ""
    notes.append(f"every row of {one_line(root)} is an event, joined with {joined}{remark}")
    return root, table


def _find_links(name: str, tables: Mapping[str, pa.Table]) -> list[_Link]:
    """Return the references from a table to the keys of other tables, at most one to each table."""
    links = []
    for other, theirs in tables.items():
        for column in column_names(tables[name]) if other != name else ():
            key = _key_of(column, other, theirs)
            if key is not None and _refers(tables[name][column], theirs[key]):
                links.append(_Link(column, other, key))
                break
    return links


def _key_of(column: str, other: str, theirs: pa.Table) -> str | None:
    """Return the key of another table that a column with the given name would refer to.

    A table with a user, an item and a time has events of its own, so its users are no key.
    """
    if column in theirs.column_names and _is_key_name(column):
        events = column in RoleNames(("user_id",), {}) and _has(theirs, "item_id", "timestamp")
        return None if events else column
    names = {n.casefold(): n for n in column_names(theirs)}
    for spelling in {other.casefold(), _singular(other).casefold()}:
        if column.casefold() in {f"{spelling}_id", f"{spelling}id"}:
            return names.get("id")
    return None


def _has(table: pa.Table, *roles: str) -> bool:
    """Check whether a table has a column for each of the given roles."""
    return all(any(n in RoleNames((role,), {}) for n in column_names(table)) for role in roles)


def _is_key_name(name: str) -> bool:
    """Check whether a name is usual for a key, such as ``seller_id`` or ``SKU``, but not ``id``."""
    folded = fold(name)
    known = any(folded in names_of(role) for role in ("user_id", "item_id", "unit"))
    return known or any(folded.endswith(e) and folded != e for e in known_words("endings"))


def _refers(cells: pa.ChunkedArray, keys: pa.ChunkedArray) -> bool:
    """Check whether keys are distinct and most of the given cells are among them."""
    try:
        filled, known = (c.filter(pc.not_equal(c, "")) for c in (to_text(cells), to_text(keys)))
    except DataError:  # lists, objects, or bytes that are not text
        return False
    if len(pc.unique(known)) < len(keys) or not len(filled):
        return False
    found = pc.is_in(filled, value_set=known.combine_chunks())
    return bool(pc.mean(found.cast(pa.int8())).as_py() >= _FOUND)


def _repeats(cells: pa.ChunkedArray) -> bool:
    """Check whether a column has a value more than once."""
    return len(pc.unique(cells)) < len(cells)


def _follow(root: str, links: Mapping[str, Sequence[_Link]]) -> list[tuple[str, _Link]]:
    """Return the links that lead from a table to each table that it refers to, the nearest first.

    Each link comes with the name of the table that has its column.
    """
    path: list[tuple[str, _Link]] = []
    reached, waiting = {root}, [root]
    while waiting:
        name = waiting.pop(0)
        for link in links[name]:
            if link.other not in reached:
                reached.add(link.other)
                waiting.append(link.other)
                path.append((name, link))
    return path


def _name_columns(
    link: _Link, theirs: pa.Table, shared: set[str], taken: set[str]
) -> dict[str, str]:
    """Name a table's columns in the joined table, as in ``product_name`` for the name of a product."""
    names: dict[str, str] = {}
    for column in column_names(theirs):
        if column == link.key:
            continue
        new = column
        if column in shared or column in taken or column.casefold() in _VAGUE:
            new = f"{_singular(link.other)}_{column}"
        while new in taken:
            new += "_"
        names[column] = new
        taken = taken | {new}
    return names


def _add_columns(
    table: pa.Table, column: str, theirs: pa.Table, key: str, names: Mapping[str, str]
) -> pa.Table:
    """Add another table's columns to the rows that refer to its keys; the others stay empty."""
    place = pc.index_in(to_text(table[column]), value_set=to_text(theirs[key]).combine_chunks())
    for theirs_name, new in names.items():
        cells = theirs[theirs_name]
        if pa.types.is_string(cells.type):  # repeated texts may be too long for its offsets
            cells = cells.cast(pa.large_string()).take(place).fill_null("")
        else:
            cells = cells.take(place)
        table = table.append_column(new, cells)
    return table


def _singular(name: str) -> str:
    """Return the singular of a table's name.

    >>> _singular("orders"), _singular("categories"), _singular("Product")
    ('order', 'category', 'Product')
    """
    if name.casefold().endswith("ies"):
        return name[:-3] + "y"
    return name[:-1] if name.casefold().endswith("s") else name
