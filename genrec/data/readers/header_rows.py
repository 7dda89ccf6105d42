"""Find rows that are headers rather than data.

Exports that were printed in pages or joined from several files repeat the header, and some systems
write a second header with technical names or units. Such rows would turn columns of numbers to text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.column_names import RoleNames
from genrec.types import BoolArray

REPEATED = "the row repeats the header"
SECOND = "the row is a second header"
_NUMBER = re.compile(r"[-+(]?\d[\d.,:/\- ]*\)?")
_DATE = re.compile(r"\d{4}|\d\D+\d")  # a year, or a day and a year
_NAMES = RoleNames(("user_id", "item_id", "title"), {})  # any text may be among them
_FEWEST = 2  # columns that a second header must contradict
_FEWEST_ROWS = 3
_SAMPLE = 200
_MOST = 0.95  # the share of cells with digits in a column of numbers


def find_headers(
    columns: Sequence[pa.ChunkedArray], names: Sequence[str]
) -> list[tuple[BoolArray, str]]:
    """Find the rows that repeat the header, and a second header with its repetitions.

    Args:
        columns: the text cells of each column.
        names: the names of the columns.

    Returns:
        (R,) masks of such rows, each with the reason to reject them.
    """
    if len(columns) < _FEWEST or not len(columns[0]):
        return []
    repeated = _equal_to(columns, names)
    found = [(repeated, REPEATED)]
    first = [str(column[0]).strip() for column in columns]
    same = _equal_to(columns, first)
    others = pa.array(np.flatnonzero(~repeated & ~same)[:_SAMPLE])
    if not repeated[0] and _is_second(names, first, [column.take(others) for column in columns]):
        found.append((same, SECOND))
    return found


def _equal_to(columns: Sequence[pa.ChunkedArray], cells: Sequence[str]) -> BoolArray:
    """Return an (R,) mask of the rows that consist of the given cells."""
    same = np.ones(len(columns[0]), dtype=np.bool_)
    for column, cell in zip(columns, cells, strict=True):
        if not same.any():
            break
        same &= np.asarray(pc.equal(pc.utf8_trim_whitespace(column), cell), dtype=np.bool_)
    return same


def _is_second(
    names: Sequence[str], first: Sequence[str], below: Sequence[pa.ChunkedArray]
) -> bool:
    """Check whether the first row has no number or date, although several columns have some below."""
    if len(below[0]) < _FEWEST_ROWS or any(
        _NUMBER.fullmatch(cell) or _DATE.search(cell) for cell in first
    ):
        return False
    contradicted = 0
    for name, cell, column in zip(names, first, below, strict=True):
        filled = column.filter(pc.not_equal(column, ""))
        if name in _NAMES or not cell:
            continue
        if not re.search(r"\d", cell) and len(filled) >= _FEWEST_ROWS:
            digits = pc.match_substring_regex(filled, r"\d").cast(pa.int8())
            contradicted += bool(pc.mean(digits).as_py() >= _MOST)
    return contradicted >= _FEWEST
