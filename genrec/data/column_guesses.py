"""Guess which column could have a role that no column was recognized for.

Part of a name may be a known word; otherwise the cells decide. The rows of one order have one time
and one user, but different items, so the times tell columns of users, items and orders apart. This
module only suggests columns; it does not choose them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data import column_cells
from genrec.data.column_names import fold, known, names_of
from genrec.data.columns import EVENT_ROLES, Recognized
from genrec.data.readers import arrow
from genrec.data.readers.dates import read_dates
from genrec.data.time_units import SINCE_1970, is_recent, to_seconds
from genrec.errors import DataError
from genrec.types import IntArray

_TITLES = ("title", "titel", "subject", "description")
_MOST_COLUMNS = 100
_SAMPLE = 1000  # the rows that show what a column holds
_SHORTEST = 4  # letters of a word that is searched for inside a column name
_FEW = 12  # distinct numbers of a column that may hold quantities
_FEWEST_ORDERS = 3  # times with several rows
_UNLIKELY = 0.1  # the weight of a column that varies otherwise than its role would
_ID = re.compile(r"((^|[\W_])[Ii][Dd]|[a-z]I[Dd])(\.\d+)?$")  # such as id.2, user_id
_OBJECT = re.compile(r"\s*[{\[]")
_ORDER = ("timestamp", "title", "item_id", "user_id")  # the order in which roles are guessed
_TAKEN = (*EVENT_ROLES, "position", "text", "split", "status", arrow.ROW)


def guess_columns(missing: Sequence[str], read: Recognized) -> dict[str, str]:
    """Return the most likely column for each missing role, omitting roles without a likely column.

    A column is preferred if a part of its name is a known word, such as ``Customer`` in
    ``Paying Customer Ref``. Otherwise, the cells decide: times must be readable, titles must
    contain letters, and item ids must fit the titles.
    """
    present = {*arrow.column_names(read.table)} - {*read.names.values(), *_TAKEN}
    free = [n for n in read.found if n in present][:_MOST_COLUMNS]  # not copied or renamed ones
    table = read.table.slice(0, _SAMPLE)
    item, title = (table[n] if n in table.column_names else None for n in ("item_id", "title"))
    time = "timestamp" if "timestamp" in table.column_names else None
    dates = {n: are_dates(table[n]) for n in free}
    found: dict[str, str] = {}
    for role in sorted(missing, key=lambda r: _ORDER.index(r) if r in _ORDER else len(_ORDER)):
        left = [n for n in free if n not in found.values()]
        scores = {n: _score(role, n, table[n], dates=dates[n]) for n in left}
        moments = None if time is None else _moments(table[time])
        if moments is not None:
            scores = {n: s * _agreement(role, table[n], moments) for n, s in scores.items() if s}
        partner = {"item_id": title, "title": item}.get(role)
        if partner is not None:
            fits = {n: max(column_cells.misfit(table[n], partner)) for n in scores}
            scores = {n: score / fits[n] for n, score in scores.items()}
        best = max(scores, key=lambda n: scores[n], default=None)
        if best is not None and scores[best] > 0:
            found[role] = best
            title = table[best] if role == "title" else title
            time = best if role == "timestamp" else time
    return found


def _score(role: str, name: str, column: pa.ChunkedArray, *, dates: bool) -> float:
    """Score how well a column fits a role; 0 means that it cannot have this role.

    Args:
        role: the role.
        name: the name of the column.
        column: its cells.
        dates: True if most of them are dates.
    """
    if pa.types.is_nested(column.type):
        return 0.0
    try:
        cells = arrow.to_text(column)
    except DataError:
        return 0.0
    filled = cells.filter(pc.not_equal(cells, ""))
    if not len(filled):
        return 0.0
    named = _named(role, name)
    if role == "timestamp":
        return (1.0 if dates else 0.5 * _are_epochs(filled)) * (1.0 + named)
    if role not in _ORDER:
        return float(named)
    distinct = len(pc.unique(filled))
    others = {"user_id": ("item_id", "title", "unit"), "item_id": ("user_id", "unit"),
              "title": ("user_id",)}[role]  # fmt: skip
    foreign = any(_named(other, name) for other in others) and not named
    if dates or foreign or column_cells.holds_clocks(filled) or _OBJECT.match(str(filled[0])):
        return 0.0
    if distinct == 1 and len(filled) > _FEW:
        return 0.0
    numbers = arrow.to_floats(pa.chunked_array([pc.unique(filled)]))
    amounts = bool(np.isfinite(numbers).all()) and (distinct <= _FEW or bool((numbers % 1).any()))
    letters = column_cells.holds_names(column)
    if (role == "title" and not letters) or (amounts and not named and not _ID.search(name)):
        return 0.0
    varied = float(np.log(distinct)) * (1.0 - distinct / len(filled))
    return len(filled) / len(cells) * (varied + 10.0 * named)


def _named(role: str, name: str) -> bool:
    """Check whether a column name is known for a role, or contains one of the role's words."""
    folded = fold(name)
    listed = _TITLES if role == "title" else known()["roles"][role]["words"]
    words = (fold(w) for w in listed)
    inside = any(w in folded for w in words if len(w) >= _SHORTEST or not w.isascii())
    return folded in names_of(role) or inside


def are_dates(column: pa.ChunkedArray) -> bool:
    """Check whether most filled cells can be read as dates, and are not just numbers."""
    if pa.types.is_temporal(column.type):
        return True
    try:
        cells = arrow.to_text(column)
    except DataError:
        return False
    sample = cells.filter(pc.not_equal(cells, "")).slice(0, 50).combine_chunks()
    if not np.isnan(arrow.to_floats(pa.chunked_array([sample]))).any():
        return False
    try:
        dates = read_dates(sample, None, "")
    except DataError:
        return True  # the order of day and month is open
    return bool(np.isfinite(dates.seconds).mean() > 0.5)


def _are_epochs(filled: pa.ChunkedArray) -> bool:
    """Check whether all cells are numbers that could be seconds since 1970, or fractions of them."""
    numbers = arrow.to_floats(filled)
    if not np.isfinite(numbers).all():
        return False
    return any(is_recent(to_seconds(numbers, unit)) for unit in SINCE_1970)


def _moments(times: pa.ChunkedArray) -> IntArray | None:
    """Return the (R,) codes of the times of rows, or None if hardly any rows share a time."""
    try:
        codes = arrow.encode(times)[1]
    except DataError:
        return None
    several = int((np.bincount(codes) > 1).sum()) if len(codes) else 0
    return codes if several >= _FEWEST_ORDERS else None


def _agreement(role: str, column: pa.ChunkedArray, moments: IntArray) -> float:
    """Weigh whether a column varies as its role should among the rows that have the same time.

    Args:
        role: the role.
        column: the cells.
        moments: the (R,) codes of the times.
    """
    if role not in {"user_id", "item_id", "title"} or pa.types.is_nested(column.type):
        return 1.0
    values = arrow.encode(column)[1]
    several = np.bincount(moments)[moments] > 1
    pairs = np.unique(np.stack([moments, values], axis=1)[several], axis=0)
    spread = len(pairs) / len(np.unique(moments[several]))  # values at a time
    if role != "user_id":
        return 1.0 if spread > 1 else _UNLIKELY
    times = np.unique(np.stack([moments, values], axis=1), axis=0)
    order = len(times) == values.max() + 1 < len(values)  # each value has a single time
    return (_UNLIKELY if order else 1.0) / spread
