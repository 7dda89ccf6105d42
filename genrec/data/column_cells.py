"""Examine the cells of columns whose names do not show what the columns hold."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.column_names import fold, known_words
from genrec.data.readers import arrow
from genrec.errors import DataError

_SAMPLE = 1000  # the number of cells that show what kind of cells a column has
_COMPARED = 20_000  # the number of cells in which two columns are compared
_MOST_BEHAVIORS = 100
_MOST_EVENTS = 30
_MOST_CODES = 6
_NUMBER = r"[\p{Nd}★☆⭐½]"
_MISSING = pa.array(
    ["", "\\n", "nan", "nat", "null", "none", "n/a", "na", "-", "(not set)", "<na>", "#n/a"],
    pa.large_string(),
)
_FEW = 12  # values of a column that describes events, such as the part of the day
_CLOCK = r"(?i)^\d{1,2}[:.h]\d{2}([:.]\d{2}([.,]\d+)?)?( ?[ap]\.?m\.?)?$"
_DIGITS = r"^\d{5,6}$"
_NOBODY = pa.array(["", "0", "nan", "null", "none", "n/a", "na", "guest", "-"], pa.large_string())


def is_text(column: pa.ChunkedArray) -> bool:
    """Check whether the type of a column is text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def holds_clocks(column: pa.ChunkedArray) -> bool:
    """Check whether all cells are times of day, such as ``17:05`` or ``5:05 PM``."""
    return pa.types.is_time(column.type) or _all_match(column, _CLOCK)


def holds_digit_clocks(column: pa.ChunkedArray) -> bool:
    """Check whether all cells are times of day written as digits, such as ``170500``."""
    return _all_match(column, _DIGITS)


def holds_digit_dates(column: pa.ChunkedArray) -> bool:
    """Check whether all cells are dates written as digits, such as ``20190301``."""
    return _all_match(column, r"^(19|20)\d{6}$")


def are_date_and_clock(dates: pa.ChunkedArray, clocks: pa.ChunkedArray) -> bool:
    """Check whether the first column holds dates and the second one times of day."""
    if holds_clocks(dates):
        return False
    return holds_clocks(clocks) or (holds_digit_dates(dates) and holds_digit_clocks(clocks))


def differ_everywhere(column: pa.ChunkedArray) -> bool:
    """Check whether a column has several rows, all with different values."""
    try:
        return bool(len(pc.unique(arrow.to_text(column))) == len(column) > 1)
    except DataError:
        return False


def holds_one_value(column: pa.ChunkedArray) -> bool:
    """Check whether all cells have the same value, and it is not empty."""
    try:
        for cells in (column.slice(0, _SAMPLE), column):
            values = pc.unique(arrow.to_text(cells))
            if len(values) != 1 or not values[0].as_py():
                return False
    except DataError:
        return False
    return True


def holds_names(column: pa.ChunkedArray) -> bool:
    """Check whether most cells are names rather than codes."""
    try:
        cells = [c for c in arrow.to_strings(column.slice(0, _SAMPLE)) if c]
    except DataError:
        return False
    words = sum(1 for c in cells if re.search(r"[^\W\d_]{2}", c) and not re.search(r"\d{3}", c))
    return words > 0.5 * len(cells)


def mostly_filled(column: pa.ChunkedArray) -> bool:
    """Check whether at least half of the cells have a value that can be read as text."""
    try:
        filled = pc.not_equal(arrow.to_text(column), "")
    except DataError:
        return False
    return not len(column) or bool(pc.mean(filled.cast(pa.int8())).as_py() >= 0.5)


def holds_behaviors(column: pa.ChunkedArray, *, known_only: bool) -> bool:
    """Check whether a column has so few distinct values that it may hold behaviors.

    Args:
        column: the cells.
        known_only: True to require that at least one value is a common word for a behavior; used
            for columns with a vague name.
    """
    if not is_text(column) and not pa.types.is_integer(column.type):
        return False
    distinct = [v for v in pc.unique(arrow.to_text(column)).to_pylist() if v]
    if (
        not known_only and 1 < len(distinct) <= _MOST_CODES
    ):  # such as 1 for a click and 4 for a purchase
        return True
    if known_only:
        return any(fold(v) in known_words("behavior_words") for v in distinct)
    with_letters = np.mean([any(c.isalpha() for c in v) for v in distinct]) if distinct else 0
    return bool(0 < len(distinct) <= _MOST_BEHAVIORS and with_letters > 0.5)


def holds_event_names(column: pa.ChunkedArray) -> bool:
    """Check whether most cells are common words for behaviors, such as ``pageview``."""
    if not is_text(column):
        return False
    values, code = arrow.encode(column.slice(0, _COMPARED))
    known = np.array([fold(v) in known_words("behavior_words") for v in values], dtype=bool)
    return len(values) <= _MOST_EVENTS and len(code) > 0 and bool(known[code].mean() >= 0.5)


def holds_salutations(column: pa.ChunkedArray) -> bool:
    """Check whether all non-empty cells are forms of address, such as ``Mrs``."""
    if not is_text(column):
        return False
    for part in (column.slice(0, _SAMPLE), column):  # the first cells nearly always suffice
        cells = {fold(v) for v in pc.unique(arrow.to_text(part)).to_pylist()} - {""}
        if not cells or not cells <= known_words("salutations"):
            return False
    return True


def holds_numbers(column: pa.ChunkedArray) -> bool:
    """Check whether at least half of the non-empty cells contain a digit or a star.

    This is typical of numbers and ratings. A column in which all cells are empty also passes.
    """
    if not is_text(column):
        return not pa.types.is_nested(column.type)
    cells = arrow.to_text(column)
    filled = cells.filter(pc.invert(pc.is_in(pc.utf8_lower(cells), _MISSING)))
    if not len(filled):
        return True
    return bool(pc.mean(pc.match_substring_regex(filled, _NUMBER).cast(pa.int8())).as_py() >= 0.5)


def may_hold_baskets(column: pa.ChunkedArray, *, vague: bool) -> bool:
    """Check whether a column has enough different values to identify baskets.

    Args:
        column: the cells.
        vague: True if the column's name could also refer to a unit of measure; a column with only a
            few distinct values is then rejected.
    """
    if pa.types.is_nested(column.type):
        return True
    filled = [v for v in pc.unique(arrow.to_text(column)).to_pylist() if v]
    if len(column) < _FEW:
        return True
    if len(filled) <= 1:
        return False
    few = len(filled) <= _FEW and len(column) > 10 * len(filled)
    return not few or not (vague or not any(c.isdigit() for v in filled for c in v))


def may_hold_ids(column: pa.ChunkedArray) -> bool:
    """Check whether a column has many distinct values that are not all decimal numbers."""
    try:
        distinct = pc.unique(arrow.to_text(column.slice(0, _COMPARED)))
    except DataError:
        return False
    numbers = arrow.to_floats(distinct)
    amounts = np.isfinite(numbers).all() and (numbers % 1).any()
    return len(distinct) > _FEW and not amounts


def count_users(column: pa.ChunkedArray) -> tuple[int, int]:
    """Return the number of cells that identify a user, and the number of distinct users in them."""
    try:
        users = arrow.to_text(column)
    except DataError:
        return 0, 0
    users = users.filter(pc.invert(pc.is_in(pc.utf8_lower(users), _NOBODY)))
    return len(users), len(pc.unique(users))


def misfit(ids: pa.ChunkedArray, titles: pa.ChunkedArray) -> tuple[float, float]:
    """Measure how poorly two columns fit together as the ids and the titles of items.

    Returns:
        The mean number of titles per id and the mean number of ids per title. Both are infinite if
        no row has both an id and a title.
    """
    try:
        cells = [arrow.to_text(c.slice(0, _COMPARED)) for c in (ids, titles)]
    except DataError:
        return np.inf, np.inf
    filled = np.all([np.asarray(pc.not_equal(c, ""), dtype=bool) for c in cells], axis=0)
    if not filled.any():
        return np.inf, np.inf
    codes = [arrow.encode(c.filter(pa.array(filled)))[1] for c in cells]
    pairs = len(np.unique(np.stack(codes), axis=1).T)
    return pairs / (codes[0].max() + 1), pairs / (codes[1].max() + 1)


def count_pairs(ids: pa.ChunkedArray, titles: pa.ChunkedArray) -> int:
    """Count the rows that have both an id and a title."""
    filled = [pc.not_equal(arrow.to_text(c.slice(0, _COMPARED)), "") for c in (ids, titles)]
    return int(pc.sum(pc.and_(*filled)).as_py() or 0)


def _all_match(column: pa.ChunkedArray, pattern: str) -> bool:
    """Check whether all non-empty cells match a pattern, and there is at least one such cell."""
    if not is_text(column) and not pa.types.is_integer(column.type):
        return False
    cells = arrow.to_text(column.slice(0, _SAMPLE))
    filled = cells.filter(pc.not_equal(cells, ""))
    return len(filled) > 0 and bool(pc.all(pc.match_substring_regex(filled, pattern)).as_py())
