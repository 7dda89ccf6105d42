"""Flatten rows that hold objects or lists of objects into plain rows, one for each item.

Shop APIs write an order as one object, with the customer in a nested object and the order lines in
a list. Web analytics exports do the same with the items of an event. This module deals with tables
and column names only, not with users or items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Container, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.column_names import known, names_of, spellings
from genrec.data.readers import arrow
from genrec.errors import DataError
from genrec.text import one_line, quantity

_SAMPLE = 1000  # the rows that show what a column holds
_MOST_KEYS = 40
_ITEM = ("item_id", "title")
_VAGUE = ("name", "title", "description")  # of an order as well as of an item
_TIMES = ("timestamp", "time", "datetime", "ts")
_NEEDED = ("user_id", "item_id", "title", "timestamp", "behavior")
_IMPRESSIONS = r"^\S+-[01]( \S+-[01])*$"

Row = dict[str, Any]


def unnest(
    table: pa.Table, source: str, notes: list[str], wanted: Collection[str] = ()
) -> pa.Table:
    """Turn columns of objects that hold users, items and so on into plain columns.

    A table without such objects is returned unchanged. A row with a list of items becomes one row
    per item; a row with an empty list is kept, without an item.

    Args:
        table: the table, with the column names of the file.
        source: the name of the table, for use in messages.
        notes: the list of remarks.
        wanted: columns that the user named, some of which may be parts of objects, such as
            ``properties.plan``.

    Raises:
        DataError: a column that is named like a user or item column holds objects that cannot be
            used.
    """
    table = _clicks(table, notes)
    nested = _parse_columns(table)
    lines = None
    if nested and not _has_items(table, nested):
        table, nested, lines = _spread(table, nested, notes)
    done: set[str] = set()
    for name, values in list(nested.items()):
        ids = _ids(name, values)
        if ids is not None:
            table = table.set_column(table.column_names.index(name), name, ids)
            del nested[name]
            continue
        wider = _flatten(table, name, values, notes, lines=name == lines)
        for path in (p for p in wanted if p.startswith(f"{name}.") and p not in wider.column_names):
            wider = wider.append_column(path, _column([_part(v, path) for v in values]))
        done = {*done, name} if wider is not table else done
        table = wider
    if not _has_items(table, nested):
        found = next((n for n, values in nested.items() if _holds_items(values)), None)
        if found is not None:
            plain = table.drop_columns([*done - {found}])
            return _explode(plain, found, nested[found], notes)
    texts = [n for n in nested if n not in done and not pa.types.is_nested(table[n].type)]
    for name in (n for n in texts if _is_known(n)):
        done.add(name)
        if _is_known(name, _NEEDED):
            shown = next(v for v in table[name].to_pylist() if v)
            msg = (
                f"{source}, column {name!r} holds objects such as {shown[:100]!r}. Expected text or "
                "numbers. Write the value of each object into a column of its own, or map another "
                "column with --column."
            )
            raise DataError(msg)
    return table.drop_columns([*done])


def _parse_columns(table: pa.Table) -> dict[str, list[Any]]:
    """Return the values of each column that holds objects."""
    parsed = {name: _parse(table[name]) for name in arrow.column_names(table)}
    return {name: values for name, values in parsed.items() if values is not None}


def _has_items(table: pa.Table, nested: Container[str]) -> bool:
    """Check whether a plain column is called like ids or titles of items."""
    plain = (n for n in arrow.column_names(table) if n not in nested)
    return any(_is_known(n, _ITEM) and n.lower() not in _VAGUE for n in plain)


def _spread(
    table: pa.Table, nested: dict[str, list[Any]], notes: list[str]
) -> tuple[pa.Table, dict[str, list[Any]], str | None]:
    """Return one row for each item in the lists inside the objects of a column.

    Analytics tools write the product of a view as ``{"product_id": 1}`` and those of an order as
    ``{"products": [{"product_id": 1}]}`` in the same column. The keys of each item are added to its
    object, with the prefix ``item_`` if the object has the same key.

    Args:
        table: the table.
        nested: the values of its columns of objects.
        notes: the list of remarks.

    Returns:
        The table, the values of its columns of objects, and the name of the column that had lists
        of items, or None if none had.
    """
    for name, values in nested.items():
        objects = [v if isinstance(v, dict) else {} for v in values]
        lists = {k for o in objects for k, v in o.items() if isinstance(v, list)}
        key = next((k for k in sorted(lists) if _holds_lines([o.get(k) for o in objects])), None)
        if key is None:
            continue
        lines: list[list[Row]] = [_objects(o.get(key)) or [{}] for o in objects]
        parent = np.repeat(np.arange(len(lines)), [len(one) for one in lines]).tolist()
        items = [item for one in lines for item in one]
        own = [{k: v for k, v in o.items() if k != key} for o in objects]
        merged = [_merge(own[place], item) for place, item in zip(parent, items, strict=True)]
        others = {n: [v[place] for place in parent] for n, v in nested.items()}
        count = sum(bool(item) for item in items)
        plain = table.take(pa.array(parent))
        notes.append(
            f"every item in {key!r} of {name!r} counts as an event: {quantity(count, 'event')}"
        )
        if "id" in plain.column_names and "order_id" not in plain.column_names:
            plain = plain.rename_columns(
                ["order_id" if n == "id" else n for n in plain.column_names]
            )
        return plain, others | {name: merged}, name
    return table, nested, None


def _merge(order: Row, item: Row) -> Row:
    """Add the keys of an item to its order, with a prefix if the order has the same key.

    A key whose name with the prefix is a key of the item itself is left out.
    """
    names = {k: k if order.get(k) is None else f"item_{k}" for k in item}
    return order | {new: item[k] for k, new in names.items() if new == k or new not in item}


def add_parts(table: pa.Table, raw: pa.Table) -> pa.Table:
    """Add the values inside objects as columns such as ``properties.plan``, to show them to the user.

    Args:
        table: the unnested table. If it does not have the rows of the raw one, the cells are empty.
        raw: the table as it was read.
    """
    known = set(arrow.column_names(table))
    for name, values in _parse_columns(raw).items():
        objects = [v if isinstance(v, dict) else {} for v in values]
        for path in _keys([_scalars(o, mark=".") for o in objects]):
            full = f"{name}.{path}"
            parts = [_part(o, full) for o in objects]
            shown = {full, path, path.replace(".", "_"), full.replace(".", "_")}
            if shown & known or any(isinstance(v, dict | list) for v in parts):
                continue
            same = table.num_rows == raw.num_rows
            table = table.append_column(full, _column(parts if same else [None] * table.num_rows))
    return table


def _part(value: Any, path: str) -> Any:
    """Return the part of an object at a path, whose first name is that of the column."""
    for key in path.split(".")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _parse(column: pa.ChunkedArray) -> list[Any] | None:
    """Return the values of a column of objects or lists of objects, or None for any other column."""
    if pa.types.is_struct(column.type) or (
        arrow.is_list(column.type) and pa.types.is_struct(column.type.value_type)
    ):
        values: list[Any] = column.to_pylist()
        return values
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    for cells in (column.slice(0, _SAMPLE), column):
        filled = cells.filter(pc.fill_null(pc.not_equal(cells, ""), False))
        if not pc.all(pc.match_substring_regex(filled, r"^\s*[{\[]")).as_py() or not len(filled):
            return None
        try:
            parsed = [json.loads(v) if v else None for v in cells.to_pylist()]
        except (ValueError, RecursionError):
            return None
        if not any(_objects(v) for v in parsed):
            return None
    return parsed


def _objects(value: Any) -> list[Row]:
    """Return a value's objects: the value itself, or the objects in a list."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, dict)]


def _is_known(name: str, roles: Sequence[str] | None = None) -> bool:
    """Check whether a column name is known for one of the given roles, or for any role."""
    return any(s in names_of(r) for r in roles or known()["roles"] for s in spellings(name))


def _ids(name: str, values: list[Any]) -> pa.Array | None:
    """Return the ids in a column of objects such as ``{"id": 1}``, or None for other columns."""
    objects = [v for v in values if isinstance(v, dict)]
    if not _is_known(name) or _is_known(f"{name}_id") or not any("id" in o for o in objects):
        return None
    return _column([v.get("id") if isinstance(v, dict) else v for v in values])


def _flatten(
    table: pa.Table, name: str, values: list[Any], notes: list[str], *, lines: bool = False
) -> pa.Table:
    """Add plain columns for a column's objects, or for its lists of key-value pairs.

    Args:
        table: the table.
        name: the name of the column.
        values: its values.
        notes: the list of remarks.
        lines: True if each object is known to describe an item.
    """
    if any(isinstance(v, list) for v in values):
        rows = [_pairs(v) for v in values]
        kept = [k for k in _keys(rows) if _is_known(k)]
        columns = {k: k for k in kept if k not in table.column_names}
    else:
        rows = [_scalars(v or {}) for v in values]
        joined = {k: f"{name}_{k}" for k in _keys(rows)}
        item = any(_is_known(j, _ITEM) for j in joined.values())
        columns = {k: j for k, j in joined.items() if item or _is_known(j)}
        alone = [k for k in joined if k not in columns and _is_specific(k)]
        if lines or any(_is_known(k, ("item_id",)) for k in alone):
            alone = [k for k in joined if k not in columns]
            columns |= {k: f"item_{k}" for k in alone if k in _VAGUE}
        columns |= {k: k for k in alone if k not in {*table.column_names, *columns}}
    for key, new in columns.items():
        if new not in table.column_names:
            table = table.append_column(new, _column([row.get(key) for row in rows]))
    if columns:
        listed = ", ".join(one_line(c) for c in list(columns.values())[:6])
        notes.append(f"columns from the objects in {name!r}: {listed}")
    return table


def _is_specific(key: str) -> bool:
    """Check whether a key such as ``transaction_id`` is unambiguous without its object's name."""
    return any(
        s in names_of(r) and s not in {*role["last"], *role["words"]}
        for r, role in known()["roles"].items()
        for s in spellings(key)
    )


def _is_time(key: str) -> bool:
    """Check whether a key is surely the time of its object, and not for example that of delivery."""
    return key.lower() in _TIMES or (_is_specific(key) and _is_known(key, ("timestamp",)))


def _keys(rows: Sequence[Row]) -> list[str]:
    """List the keys of objects: all that are known, and the first few of the others."""
    keys = dict.fromkeys(k for row in rows for k in row)
    known = {k for k in keys if _is_known(k)}
    others = {k for k in keys if k not in known}
    kept = known | {*[k for k in keys if k in others][:_MOST_KEYS]}
    return [k for k in keys if k in kept]


def _scalars(value: Row, prefix: str = "", depth: int = 2, mark: str = "_") -> Row:
    """Return an object's plain values, including those of inner objects, keyed by their paths."""
    found: Row = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and depth > 1:
            found |= _scalars(inner, f"{prefix}{key}{mark}", depth - 1, mark)
        else:
            found[f"{prefix}{key}"] = inner
    return found


def _pairs(value: Any) -> Row:
    """Convert a list such as ``[{"key": "page", "value": {"int_value": 3}}]`` to a dictionary."""
    found: Row = {}
    for one in value if isinstance(value, list) else []:
        if isinstance(one, dict) and one.keys() == {"key", "value"}:
            inner = one["value"]
            parts = inner.values() if isinstance(inner, dict) else [inner]
            found[str(one["key"])] = next((v for v in parts if v is not None), None)
    return found


def _holds_items(values: list[Any]) -> bool:
    """Check whether the objects in lists have a key for the id or the title of an item."""
    objects = [o for v in values if isinstance(v, list) for o in _objects(v)]
    return any(_is_known(key, _ITEM) for key in _keys(objects))


def _holds_lines(values: list[Any]) -> bool:
    """Check whether the objects in lists have item ids, or titles and quantities."""
    keys = _keys([o for v in values if isinstance(v, list) for o in _objects(v)])
    roles = ("item_id", "title", "value")
    item, title, value = (any(_is_known(k, (role,)) for k in keys) for role in roles)
    return item or (title and value)


def _explode(table: pa.Table, name: str, values: list[Any], notes: list[str]) -> pa.Table:
    """Return one row for each object in the lists of a column.

    A column whose name is also a key of the objects gets the prefix ``order_``, and so does a
    column called ``id``. The prefix is ``outer_`` if another column already has that name.
    """
    lines = [_objects(v) or [{}] for v in values]
    parent = np.repeat(np.arange(len(lines)), [len(one) for one in lines])
    rows = [_scalars(line) for one in lines for line in one]
    keys = _keys(rows)
    others = table.drop_columns(name)
    own = others.column_names
    shared = [n for n in own if n in keys or n == "id"]
    prefixes = {n: "outer_" if f"order_{n}" in own else "order_" for n in shared}
    names = [prefixes.get(n, "") + n for n in own]
    if any(_is_time(k) for k in keys):  # of each event, while others are of the user, for example
        names = [f"outer_{n}" if _is_known(n, ("timestamp",)) else n for n in names]
    if "order_id" not in names:  # MongoDB's name for the id of the order itself
        names = ["order_id" if n == "_id" else n for n in names]
    columns = {n: others[o].take(pa.array(parent)) for n, o in zip(names, own, strict=True)}
    for key in keys:
        new = key if key not in columns else f"{name}_{key}"
        columns[new] = _column([row.get(key) for row in rows])
    notes.append(f"every item in {name!r} counts as an event: {quantity(len(rows), 'event')}")
    return pa.table(columns)


def _clicks(table: pa.Table, notes: list[str]) -> pa.Table:
    """Return one row for each click in a column of news impressions such as ``N1-0 N2-1``."""
    name = next((n for n in arrow.column_names(table) if n.lower() == "impressions"), None)
    if name is None or not pa.types.is_string(table[name].type):
        return table
    cells = table[name].to_pylist()
    if not all(re.match(_IMPRESSIONS, c or "") for c in cells[:_SAMPLE]):
        return table
    shown = [[s.rpartition("-") for s in (c or "").split()] for c in cells]
    clicked = [[item for item, _, click in one if click == "1"] or [""] for one in shown]
    parent = np.repeat(np.arange(len(clicked)), [len(one) for one in clicked])
    ids = pa.array([item for one in clicked for item in one], pa.string())
    left_out = [n for n in (name, "history") if n in table.column_names]
    others = table.drop_columns(left_out).take(pa.array(parent))
    unclicked = sum(click != "1" for one in shown for _, _, click in one)
    notes.append(
        f"the clicks in {name!r} are the events; {quantity(unclicked, 'item')} shown without a click "
        "and earlier clicks without a time are left out"
    )
    return others.append_column("item_id", ids).append_column(
        "behavior", pa.repeat("click", len(ids))
    )


def _column(values: list[Any]) -> pa.Array:
    """Build a text column."""
    return pa.array([_cell(v) for v in values], pa.string())


def _cell(value: Any) -> str:
    """Convert a value to the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value).encode("utf-8", "replace").decode("utf-8")
