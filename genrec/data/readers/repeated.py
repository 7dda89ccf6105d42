"""Tell columns with the same name apart, as a join of database tables or a report may have them.

This module deals with names and cells only, not with files.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from genrec.text import one_line

NUMBERED = "and are read as"
"""Part of the remark on columns that got numbers."""
_SAMPLE = 1000  # the rows that show that columns differ, before all rows are compared


def name_columns(
    names: Sequence[str], columns: Sequence[pa.ChunkedArray], notes: list[str]
) -> pa.Table:
    """Build a table in which every column has a name of its own.

    If all filled cells of a column are also in another column of the same name, the column is left
    out. Columns that differ get numbers, such as ``id.1`` and ``id.2``, so that none of them is
    mistaken for the only one. An empty column without a name is left out.

    Args:
        names: the name of each column; an empty text stands for none.
        columns: the cells of each column.
        notes: the list to which remarks for the user are added.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    final: dict[int, str] = {}
    for name, group in places.items():
        if not name:
            group = [place for place in group if not _is_empty(columns[place])]
        kept = _distinct(group, columns)
        which = f"are called {one_line(name)!r}" if name else "have no name"
        if len(kept) == 1:
            final[kept[0]] = name
            others = [place for place in group if place not in kept]
            if not all(_is_empty(columns[place]) for place in others):
                equal = all(_is_within(columns[kept[0]], columns[place]) for place in others)
                why = "their cells are equal" if equal else "it has the filled cells of the others"
                notes.append(f"{len(group)} columns {which}, and one is kept, since {why}")
        elif kept:
            new = _numbered(name, group, kept, {*names, *final.values()})
            final |= new
            *first, last = [repr(one_line(n)) for n in new.values()]
            notes.append(f"{len(kept)} columns {which}, {NUMBERED} {', '.join(first)} and {last}")
    return pa.table({final[place]: columns[place] for place in sorted(final)})


def _distinct(group: Sequence[int], columns: Sequence[pa.ChunkedArray]) -> list[int]:
    """Leave out the columns whose filled cells are all in another column of the group."""
    if len(group) < 2:
        return [*group]
    starts = {place: _start(columns[place]) for place in group}

    def covers(other: int, place: int) -> bool:
        """Check whether one column has the filled cells of another."""
        first = zip(starts[place], starts[other], strict=False)
        if any(mine and mine != theirs for mine, theirs in first):
            return False
        return _is_within(columns[place], columns[other])

    kept: list[int] = []
    for place in group:
        if not any(covers(other, place) for other in kept):
            kept = [other for other in kept if not covers(place, other)]
            kept.append(place)
    return kept


def _start(column: pa.ChunkedArray) -> list[str | None]:
    """Return the first cells of a column of text, or an empty list for other columns."""
    cells: list[str | None] = column.slice(0, _SAMPLE).to_pylist() if _is_text(column) else []
    return cells


def _is_within(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Check whether every filled cell of a column has the same value in another column."""
    if pa.types.is_null(one.type):
        return True
    if one.type != other.type:
        return False
    if pa.types.is_float16(one.type):  # which cannot be compared
        one, other = (column.cast(pa.float32()) for column in (one, other))
    try:
        same = pc.fill_null(pc.equal(one, other), False)
    except pa.ArrowNotImplementedError:  # of lists, for example
        return bool(one.equals(other))
    return bool(pc.all(pc.or_(same, _empty_cells(one)), min_count=0).as_py())


def _is_empty(column: pa.ChunkedArray) -> bool:
    """Check whether a column has no filled cell."""
    return bool(pc.all(_empty_cells(column), min_count=0).as_py())


def _empty_cells(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a mask of the cells that are null, NaN or an empty text."""
    missing = pc.is_null(column, nan_is_null=True)
    if not _is_text(column):
        return missing
    return pc.or_(missing, pc.fill_null(pc.equal(column, ""), False))


def _is_text(column: pa.ChunkedArray) -> bool:
    """Check whether a column has a type of text."""
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _numbered(
    name: str, group: Sequence[int], kept: Sequence[int], taken: set[str]
) -> dict[int, str]:
    """Number columns by their place among those of the same name, or in the table without a name."""
    found: dict[int, str] = {}
    for place in kept:
        new = f"{name}.{group.index(place) + 1}" if name else f"column_{place + 1}"
        while new in taken:
            new += "_"
        taken.add(new)
        found[place] = new
    return found
