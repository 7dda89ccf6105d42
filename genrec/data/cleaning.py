"""Clean the cells of events and items before they are checked.

Shop exports have typical flaws: ids that were written as floats, HTML entities in titles, and
orders that name the customer only on their first line. Every function adds a remark that says what
it changed and how often. This module deals with columns, not with catalogs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.behaviors import spoken_verbs
from genrec.data.column_names import fold
from genrec.data.columns import Recognized
from genrec.data.missing import blank_missing
from genrec.data.readers import arrow
from genrec.data.readers.numbers import decimal_sign, may_be_numbers, read_numbers, restore_ids
from genrec.data.readers.rejects import Rejects
from genrec.text import quantity
from genrec.types import IntArray

_ESCAPES = {"t": " ", "n": " ", "r": " ", "b": " ", "f": " ", "v": " "}
_ENTITY = r"&(#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);"
_NUMBERS = ("value", "rating")  # columns of numbers, even if a few cells are none
_NO_AMOUNTS = ("user_id", "item_id", "title", "behavior", "timestamp", "position", "split", "text")
_SAMPLE = 1000
_REPEAT_KEY = (
    "user_id", "item_id", "text", "behavior", "timestamp", "position", "value", "rating",
)  # fmt: skip


def clean_events(read: Recognized, notes: list[str], items: pa.Table | None = None) -> pa.Table:
    """Return a table of events with readable ids, titles, values and behaviors.

    Args:
        read: the table of events, with its recognized columns.
        notes: the list to which a remark is added for each kind of change.
        items: the table of items, whose numbers help to tell decimal commas from decimal points.
    """
    table = unescape_copy(read.table, notes)
    table = blank_missing(table, notes, [read.unit] if read.unit else [])
    table = fill_orders(table, read.unit, notes)
    table = clean_ids(table, ["user_id", "item_id", *([read.unit] if read.unit else [])], notes)
    table = clean_titles(table, notes)
    if "item_id" in read.names and "text" not in table.column_names:
        table = _name_items_without_ids(table, notes)
    table = read_amounts(table, notes, [read.unit] if read.unit else [], items)
    table = _blank_unrated(table, notes)
    return _translate_behaviors(table, notes)


def unescape_copy(table: pa.Table, notes: list[str]) -> pa.Table:
    r"""Replace escapes such as ``\t`` in ids and titles if the table was exported from PostgreSQL.

    Such a table is recognized by a cell with ``\N``, PostgreSQL's code for a missing value.
    """
    names = [n for n in ("user_id", "item_id", "title") if n in table.column_names]
    names = [n for n in names if _is_text(table[n])]
    texts = (table[n] for n in arrow.column_names(table) if _is_text(table[n]))
    if not names or not any(pc.any(pc.equal(column, "\\N")).as_py() for column in texts):
        return table
    for name in names:
        column = table[name]
        coded = pc.match_substring_regex(column, r"\\[tnrbfv\\]").fill_null(False)
        given = pc.unique(column.filter(coded)).to_pylist()
        if not given:
            continue
        read = {v: re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), v) for v in given}
        values = [read.get(v, v) for v in column.to_pylist()]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.chunked_array([pa.array(values, column.type)]))
        notes.append(
            f"{name}: backslashes are read as PostgreSQL writes them, in "
            f"{quantity(len(given), 'different cell')} such as {given[0]!r}"
        )
    return table


def clean_ids(table: pa.Table, names: list[str], notes: list[str]) -> pa.Table:
    """Restore ids that were written as floats, such as ``17841.0``."""
    for name in names:
        if name not in table.column_names or arrow.is_list(table[name].type):
            continue
        column, changed = restore_ids(table[name])
        if changed:
            plain = arrow.to_text(column)
            differs = pc.not_equal(plain, "")
            if not pa.types.is_floating(table[name].type):
                differs = pc.and_(differs, pc.not_equal(arrow.to_text(table[name]), plain))
            first = pc.index(differs, True).as_py()
            given, read = str(table[name][first]), str(plain[first])
            table = table.set_column(table.column_names.index(name), name, column)
            notes.append(f"{name}: ids such as {given!r} are read as {read!r}")
    return table


def clean_titles(table: pa.Table, notes: list[str]) -> pa.Table:
    """Decode HTML entities such as ``&amp;`` in titles; doubly encoded ones are decoded only once."""
    if "title" not in table.column_names or not _is_text(table["title"]):
        return table
    column = table["title"]
    coded = np.asarray(pc.match_substring_regex(column, _ENTITY).fill_null(False), dtype=bool)
    if not coded.any():
        return table
    distinct = list(pc.unique(column.filter(pa.array(coded))).to_pylist())
    decoded = {v: html.unescape(v) for v in distinct}
    changed = sum(v != d for v, d in decoded.items())
    if not changed:
        return table
    values = [decoded.get(v, v) for v in column.to_pylist()]
    notes.append(f"HTML entities were decoded in {quantity(changed, 'title')}")
    place = table.column_names.index("title")
    return table.set_column(place, "title", pa.chunked_array([pa.array(values, column.type)]))


def fill_orders(table: pa.Table, unit: str | None, notes: list[str]) -> pa.Table:
    """Fill in users and times that are given only on the first line of an order.

    Some shop systems write the customer and the time only on the first line of an order. A row
    without a time gets the time of the closest row above it that belongs to the same order and has
    a time; if the row has no user either, it also gets that row's user. A row that lacks only the
    user is left unchanged, since it records a sale to an unknown customer.
    """
    if unit is None or not {"user_id", "timestamp"} <= set(table.column_names):
        return table
    if any(arrow.is_list(table[n].type) for n in (unit, "user_id", "timestamp")):
        return table
    source = _from_above(table, unit, "timestamp")
    index = np.arange(table.num_rows)
    filled = source != index
    if not filled.any():
        return table
    no_user = np.asarray(pc.equal(arrow.to_text(table["user_id"]), ""), dtype=bool)
    for name, where in (("timestamp", filled), ("user_id", filled & no_user)):
        column = table[name].take(pa.array(np.where(where, source, index)))
        table = table.set_column(table.column_names.index(name), name, column)
    notes.append(
        f"filled in times and users from the first line of the same order ({unit!r}) in "
        f"{quantity(int(filled.sum()), 'row')}"
    )
    return table


def fill_titles(table: pa.Table, notes: list[str]) -> pa.Table:
    """Fill in titles that are given only for a product's first variant.

    Shopify writes one line for each variant and each image of a product, all with the same handle.
    """
    group = next((n for n in table.column_names if fold(n) == "handle"), None)
    if group is None or "title" not in table.column_names:
        return table
    source = _from_above(table, group, "title")
    count = int((source != np.arange(table.num_rows)).sum())
    if not count:
        return table
    notes.append(
        f"{quantity(count, 'row')} without a title got the title of the row above with the same "
        f"{group!r}"
    )
    place = table.column_names.index("title")
    return table.set_column(place, "title", table["title"].take(pa.array(source)))


def _from_above(table: pa.Table, group: str, name: str) -> IntArray:
    """Return the index of the row from which each row takes its value in a column.

    A row with a value keeps it. A row without one takes the value of the closest row above it that
    belongs to the same group and has a value; if there is no such row, it stays empty.
    """
    index = np.arange(table.num_rows)
    empty = np.asarray(pc.equal(arrow.to_text(table[name]), ""), dtype=bool)
    grouped = np.asarray(pc.not_equal(arrow.to_text(table[group]), ""), dtype=bool)
    if not (empty & grouped).any():
        return index
    code = arrow.encode(table[group])[1]
    order = np.lexsort((index, code))
    last = np.maximum.accumulate(np.where(empty[order], -1, index))  # places in order
    above = order[np.maximum(last, 0)]
    usable = (last >= 0) & (code[order] == code[above])
    source = index.copy()
    source[order[usable]] = above[usable]
    return np.where(empty & grouped, source, index)


def drop_repeats(table: pa.Table, unit: str | None, rejects: Rejects, notes: list[str]) -> pa.Table:
    """Drop rows that repeat an earlier row's user, item, behavior, time, value and basket.

    The dropped rows are recorded as rejected.
    """
    key = [n for n in (*_REPEAT_KEY, *([unit] if unit else [])) if n in table.column_names]
    codes = np.stack([arrow.encode(table[n])[1] for n in key], axis=1)
    _, first = np.unique(codes, axis=0, return_index=True)
    keep = np.zeros(table.num_rows, dtype=bool)
    keep[first] = True
    dropped = table.num_rows - len(first)
    notes.append(f"{quantity(dropped, 'row')} dropped for repeating an earlier row")
    return arrow.reject(table, ~keep, "the row repeats an earlier one", rejects, asked=True)


def _name_items_without_ids(table: pa.Table, notes: list[str]) -> pa.Table:
    """Fill in the item ids of rows that have a title but no item id.

    The id is taken from the other rows with the same title if all of them have the same id.
    Otherwise, the title itself becomes the id.
    """
    if "title" not in table.column_names or arrow.is_list(table["item_id"].type):
        return table
    ids, titles = arrow.to_text(table["item_id"]), arrow.to_text(table["title"])
    lacking = pc.and_(pc.equal(ids, ""), pc.not_equal(titles, ""))
    count = int(pc.sum(lacking).as_py() or 0)
    if not count:
        return table
    pairs = pa.table({"title": titles, "id": ids}).filter(pc.not_equal(ids, ""))
    known = pairs.group_by(["title", "id"]).aggregate([]).group_by("title")
    agreed = known.aggregate([("id", "count"), ("id", "min")])
    agreed = agreed.filter(pc.equal(agreed["id_count"], 1))
    place = pc.index_in(titles, value_set=agreed["title"].combine_chunks())
    found = pc.coalesce(agreed["id_min"].take(place.combine_chunks()), titles)
    joined = int(pc.sum(pc.and_(lacking, pc.is_valid(place))).as_py() or 0)
    if joined:
        notes.append(
            f"{quantity(joined, 'row')} without an item id took it from other rows with the same title"
        )
    if count > joined:
        notes.append(
            f"used titles as item ids in {quantity(count - joined, 'row')} without an item id"
        )
    column = pc.if_else(lacking, found, ids)
    return table.set_column(table.column_names.index("item_id"), "item_id", column)


def read_amounts(
    table: pa.Table,
    notes: list[str],
    others: Collection[str] = (),
    beside: pa.Table | None = None,
) -> pa.Table:
    """Convert numbers with currency signs, thousands separators or decimal commas to plain numbers.

    A column other than the value or the rating is changed only if all its cells are numbers and
    some of them have a fraction or a symbol such as a currency sign, so that codes such as
    ``030 123`` stay text.

    Args:
        table: the events or items.
        notes: the list of remarks.
        others: further columns to leave unchanged, such as the basket column.
        beside: another table from the same source, whose numbers help to tell decimal commas from
            decimal points.
    """
    texts = [n for n in arrow.column_names(table) if n not in {*_NO_AMOUNTS, *others}]
    texts = [n for n in texts if _is_text(table[n])]
    usual = decimal_sign([table[n] for n in texts] + (beside.columns if beside else []))
    for name in texts:
        if name not in _NUMBERS and not may_be_numbers(table[name]):
            continue
        text = arrow.to_text(table[name])
        plain = np.array_equal(np.isnan(arrow.to_floats(text)), np.asarray(pc.equal(text, "")))
        if name in _NUMBERS or plain:
            amounts = name in _NUMBERS or usual == ","
        else:
            amounts = _all_amounts(text.slice(0, _SAMPLE), usual) and _all_amounts(text, usual)
        if not amounts:
            continue
        numbers, dialect = read_numbers(text, usual)
        if dialect is None:
            continue
        known = pa.array(np.isfinite(numbers))
        spelled = pa.chunked_array([pa.array([f"{n:.15g}" for n in numbers], text.type)])
        column = pc.if_else(known, spelled, text).cast(table[name].type)
        table = table.set_column(table.column_names.index(name), name, column)
        notes.append(f"{name}: {dialect}")
    return table


def _blank_unrated(table: pa.Table, notes: list[str]) -> pa.Table:
    """Clear ratings of 0, which Goodreads writes for books that the user has not rated."""
    marked = any(fold(n) in {"isread", "isreviewed"} for n in table.column_names)
    if not marked or "rating" not in table.column_names:
        return table
    stars = arrow.to_floats(table["rating"])
    count = int((stars == 0).sum())
    if not count:
        return table
    notes.append(f"ratings of 0 are read as missing, as in exports from Goodreads ({count:,})")
    column = pa.array(np.where(stars == 0, np.nan, stars), from_pandas=True)
    return table.set_column(table.column_names.index("rating"), "rating", column)


def _all_amounts(text: pa.ChunkedArray, usual: str) -> bool:
    """Check whether all non-empty cells are numbers, some with a fraction or a currency sign."""
    numbers, dialect = read_numbers(text, usual)
    empty = np.asarray(pc.equal(text, ""), dtype=bool)
    if dialect is None or not np.isfinite(numbers[~empty]).all():
        return False
    signs = pc.any(pc.match_substring_regex(text, r"[^\d\s.,'\x{2019}]")).as_py()
    return bool(signs or (numbers[~empty] % 1).any())


def _translate_behaviors(table: pa.Table, notes: list[str]) -> pa.Table:
    """Replace words for behaviors in other languages, such as 购买, with genrec's names."""
    if "behavior" not in table.column_names or not _is_text(table["behavior"]):
        return table
    known: Mapping[str, tuple[str, ...]] = spoken_verbs()
    words = {form: name for name, forms in known.items() for form in forms if not form.isascii()}
    column = arrow.to_text(table["behavior"])
    found = {v: words[v] for v in pc.unique(column).to_pylist() if v in words}
    if not found:
        return table
    values = [found.get(v, v) for v in column.to_pylist()]
    said = ", ".join(f"{theirs} is read as {ours!r}" for theirs, ours in found.items())
    notes.append(f"behaviors: {said}")
    place = table.column_names.index("behavior")
    return table.set_column(place, "behavior", pa.chunked_array([pa.array(values, pa.string())]))


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))
