"""Empty the cells that hold a word for a missing value, such as ``NULL`` or ``N/A``.

Programs use many different words for a missing value, which would otherwise be read as users, items
or titles. Some of these words may also be real titles, so they count as missing titles only if
more than one item has them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers import arrow
from genrec.text import quantity

_ROLES = ("user_id", "item_id", "title", "behavior", "timestamp", "value", "rating")
_ANYWHERE = ("NULL", "null", "nan", "NaN", "NaT", "<NA>", "#N/A", "\\N", "(not set)")
# The following words are compared in lower case.
_PROGRAMS = ("null", "nan", "nat", "<na>", "#n/a", "\\n", "(not set)", "(null)", "undefined", "n/a")
_DASHES = ("-", "--", "\u2013", "\u2014")
_DOUBTFUL = ("none", "na", "nil", "?", "unknown")  # these may be titles as well
_NO_IDS = ("00000000-0000-0000-0000-000000000000",)
_NOBODY = ("guest", "anonymous", "unknown", "anonym", "guest user", "unknown user")
_NUMBERS = ("0", "-1")  # these are missing ids if other ids have letters
_LETTERS = 0.9  # the share of ids with letters for this


def blank_missing(table: pa.Table, notes: list[str], others: Collection[str] = ()) -> pa.Table:
    """Empty the cells that contain a word for a missing value, such as ``NULL``.

    Args:
        table: the events or items.
        notes: the list of remarks.
        others: additional columns to check, such as the basket column.
    """
    emptied = 0
    words = ""
    nobody: list[str] = []
    rows = 0
    for name in (*_ROLES, *others):
        if name not in table.column_names or not _is_text(table[name]):
            continue
        text = arrow.to_text(table[name])
        missing = _find_missing(text, name, table, others)
        count = int(pc.sum(missing).as_py() or 0)
        if count:
            emptied += count
            words = words or str(text.filter(missing)[0])
        if name == "user_id":
            guests = pc.and_(_are(text, _NOBODY), pc.invert(missing))
            nobody = pc.unique(text.filter(guests)).to_pylist()
            rows = int(pc.sum(guests).as_py() or 0)
            missing = pc.or_(missing, guests)
        if count or (name == "user_id" and rows):
            column = pc.if_else(missing, "", text).cast(table[name].type)
            table = table.set_column(table.column_names.index(name), name, column)
    if emptied:
        cells = quantity(emptied, "cell")
        notes.append(f"words for missing values, such as {words!r}, are read as empty ({cells})")
    if rows:
        notes.append(
            f"users such as {nobody[0]!r} may be many people, so their {quantity(rows, 'row')} "
            f"{'is' if rows == 1 else 'are'} read as having no user"
        )
    return table


def _find_missing(
    text: pa.ChunkedArray, name: str, table: pa.Table, others: Collection[str]
) -> pa.ChunkedArray:
    """Return a mask of the cells of a column that hold a word for a missing value."""
    missing = pc.is_in(text, pa.array(_ANYWHERE, text.type))
    if name in {"user_id", "item_id", *others}:
        words = (*_PROGRAMS, *_DASHES, *_NO_IDS, *(w for w in _DOUBTFUL if w != "unknown"))
        missing = pc.or_(missing, _are(text, words))
        filled = text.filter(pc.and_(pc.invert(missing), pc.not_equal(text, "")))
        letters = (
            pc.mean(pc.match_substring_regex(filled, r"\pL").cast(pa.float64())).as_py() or 0.0
        )
        return pc.or_(missing, _are(text, _NUMBERS)) if letters >= _LETTERS else missing
    if name == "title":
        missing = pc.or_(missing, _are(text, (*_PROGRAMS, *_DASHES)))
        return pc.or_(missing, _shared(text, table))
    if name in {"timestamp", "value", "rating"}:
        return pc.or_(missing, _are(text, (*_PROGRAMS, *_DASHES, *_DOUBTFUL)))
    return missing


def _are(text: pa.ChunkedArray, words: Sequence[str]) -> pa.ChunkedArray:
    """Return a mask of the cells that equal one of the given lower-case words, ignoring case."""
    return pc.is_in(pc.utf8_lower(text), pa.array(list(words), text.type))


def _shared(titles: pa.ChunkedArray, table: pa.Table) -> pa.ChunkedArray:
    """Return a mask of titles such as ``unknown``; it is empty if only one item has such a title."""
    doubtful = _are(titles, _DOUBTFUL)
    rows = np.flatnonzero(np.asarray(doubtful, dtype=bool))
    if not len(rows) or "item_id" not in table.column_names or arrow.is_list(table["item_id"].type):
        return pc.and_(doubtful, pa.scalar(False))
    ids = arrow.to_text(table["item_id"]).filter(doubtful)
    return pc.and_(doubtful, pa.scalar(len(pc.unique(ids)) > 1))


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))
