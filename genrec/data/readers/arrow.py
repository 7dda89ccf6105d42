"""Check, rename, stack and convert Arrow tables.

This module deals with columns only, not with items or users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.types import BoolArray, IntArray

ROW = "__row__"  # the column with row numbers, starting at 1, in tables read from text files


def require_columns(table: pa.Table, needed: Sequence[str], source: str) -> None:
    """Check that a table has the needed columns, and that they can be read as text.

    Args:
        table: the table, with genrec's column names.
        needed: the names of the columns.
        source: the name of the table, for use in messages.

    Raises:
        DataError: a column is missing, or holds lists, structs or bytes.
    """
    missing = [n for n in needed if n not in table.column_names]
    if missing:
        msg = (
            f"{source} has no column {missing[0]!r}. Expected the columns "
            f"{', '.join(needed)}; found {', '.join(column_names(table)) or 'none'}. "
            "Rename the column or add it."
        )
        raise DataError(msg)
    for name in needed:
        kind = table[name].type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            try:
                to_text(table[name])
            except DataError as error:
                msg = f"{source}, column {name!r}: {error}"
                raise DataError(msg) from error


def row_numbers(table: pa.Table) -> list[int]:
    """Return the number of each row in its file, starting at 1."""
    return [int(n) for n in _numbers(table)]


def number_rows(table: pa.Table) -> pa.Table:
    """Add a column of row numbers if the table has none, so that rows keep their numbers."""
    if ROW in table.column_names:
        return table
    return table.append_column(ROW, pa.array(_numbers(table)))


def _numbers(table: pa.Table) -> IntArray:
    if ROW in table.column_names:
        return np.asarray(table[ROW], dtype=np.int64)
    return np.arange(1, table.num_rows + 1)


def reject(
    table: pa.Table,
    bad: BoolArray,
    reasons: str | Sequence[str],
    rejects: Rejects,
    *,
    asked: bool = False,
) -> pa.Table:
    """Record some rows of a table as rejected, and return the others.

    Args:
        table: the table.
        bad: an (R,) mask of the rows to reject.
        reasons: one reason for all of these rows, or a reason for each of them.
        rejects: the object that records bad rows.
        asked: True if the user asked to leave the rows out.

    Raises:
        DataError: ``rejects`` is strict, and the user did not ask to leave the rows out.
    """
    places = np.flatnonzero(bad)
    if not len(places):
        return table
    numbers = _numbers(table)[places]
    shown, rows = table, places
    if rejects.given is not None:
        shown, rows = rejects.given, np.searchsorted(_numbers(rejects.given), numbers)
    each = [reasons] * len(places) if isinstance(reasons, str) else reasons
    texts = _join_cells(shown.select(column_names(shown)).take(pa.array(rows)))
    rejects.add_rows(numbers.tolist(), each, texts, asked=asked)
    return table.filter(pa.array(~bad))


def _join_cells(table: pa.Table) -> list[str]:
    """Return the cells of each row, joined into one text."""
    text = pa.large_string()
    columns = [
        column.cast(text)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        else pa.chunked_array([pa.array([str(v) for v in column.to_pylist()], text)])
        for column in table.columns
    ]
    joined = pc.binary_join_element_wise(
        *columns, pa.scalar(" | ", text), null_handling="replace", null_replacement="None"
    )
    texts: list[str] = joined.to_pylist()
    return texts


def stack(
    parts: Sequence[tuple[Rejects, pa.Table]], column: str, values: Sequence[str], rejects: Rejects
) -> pa.Table:
    """Stack several files into one table, with a column that distinguishes the files.

    Args:
        parts: for each file, the object that records its bad rows, and its table.
        column: the name of the new column, which replaces an existing column with this name.
        values: the value of the new column for each file.
        rejects: the object that records bad rows; it is told each file's first row number.

    Raises:
        DataError: columns with the same name have incompatible types.
    """
    tables: list[pa.Table] = []
    start = 0
    for (own, table), value in zip(parts, values, strict=True):
        if tables:
            rejects.parts.append((start + 1, own.source))
            rejects.parts += [(start + first, source) for first, source in own.parts]
        rows = np.array(row_numbers(table), dtype=np.int64)
        table = table.select([n for n in column_names(table) if n != column])
        table = table.append_column(column, pa.repeat(value, table.num_rows))
        tables.append(table.append_column(ROW, pa.array(rows + start)))
        start += int(rows.max(initial=0)) + 1_000_000_000  # more than a file has rows
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        sources = ", ".join(own.source for own, _ in parts)
        msg = (
            f"{sources} cannot be joined: {error}. Expected the same column types in all files. "
            "Convert the columns that differ."
        )
        raise DataError(msg) from error


def column_names(table: pa.Table) -> list[str]:
    """List the columns of the file, without the column of row numbers."""
    return [n for n in table.column_names if n != ROW]


def rename(table: pa.Table, columns: Mapping[str, str], source: str) -> pa.Table:
    """Rename a file's columns to genrec's names.

    Args:
        table: the table as read.
        columns: maps genrec's column names to those in the file.
        source: the name of the table, for use in messages.

    Raises:
        DataError: the file lacks one of the columns.
    """
    for ours, theirs in columns.items():
        if theirs not in table.column_names:
            require_columns(table, [theirs], f"(column {ours}={theirs}) {source}")
    taken = {theirs: ours for ours, theirs in columns.items()}
    clash = [n for n in table.column_names if n in columns and n not in taken]
    table = table.drop_columns(clash) if clash else table
    return table.rename_columns([taken.get(n, n) for n in table.column_names])


def explode(table: pa.Table, rejects: Rejects) -> pa.Table:
    """Expand a table with one row per user into one row per event.

    Such a table has lists in its item_id or title column; any other table is returned unchanged.
    All list columns have one entry per event, oldest first; other values apply to every event of
    the row. If there is no time column, the index in the list becomes the ``position``. If there is
    no user_id column, the row number becomes the user's id.

    Args:
        table: the table, with genrec's column names.
        rejects: the object that records bad rows. A row is bad if it has no events, or if its lists
            differ in length.
    """
    lists = [n for n in table.column_names if is_list(table[n].type)]
    first = next((n for n in ("item_id", "title") if n in lists), None)
    if first is None:
        return table
    lengths = {n: np.asarray(pc.list_value_length(table[n]).fill_null(0)) for n in lists}
    problems = [(lengths[first] == 0, f"no events: the list {first} is empty")]
    problems += [(lengths[n] != lengths[first], f"{first} and {n} differ in length") for n in lists]
    bad = np.any([mask for mask, _ in problems], axis=0)
    where = _numbers(table)
    reasons = [next(r for mask, r in problems if mask[n]) for n in np.flatnonzero(bad)]
    kept = reject(table, bad, reasons, rejects)
    size = lengths[first][~bad]
    parent = np.repeat(np.arange(len(size)), size)
    data = {n: pc.list_flatten(kept[n]) if n in lists else kept[n].take(pa.array(parent))
            for n in column_names(kept)}  # fmt: skip
    data[ROW] = pa.array(where[~bad][parent])
    if "user_id" not in data:
        data["user_id"] = data[ROW]
    if not {"timestamp", "position"} & data.keys():
        data["position"] = pa.array(np.arange(len(parent)) - np.searchsorted(parent, parent))
    return pa.table(data)


def is_list(kind: pa.DataType) -> bool:
    """Check whether an Arrow type is any kind of list."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def to_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to stripped strings; null becomes the empty string.

    Raises:
        DataError: the column holds lists, structs or bytes that are not text.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.large_string()).fill_null(""))
    except pa.ArrowException as error:
        msg = (
            f"A column of type {column.type} cannot be read as text: {error}. Expected text or "
            "numbers. Convert the column."
        )
        raise DataError(msg) from error


def encode(column: pa.ChunkedArray) -> tuple[list[str], IntArray]:
    """Return the distinct strings in order of first appearance, and the (R,) codes of the rows."""
    encoded = to_text(column).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)


def to_strings(column: pa.ChunkedArray) -> list[str]:
    """Convert a column to a list of stripped strings, as ``to_text`` does."""
    return [str(v) for v in to_text(column).to_pylist()]


_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_FLOAT = r"(?i)^[-+]?([\p{Nd}_]*\.?[\p{Nd}_]*(e[-+]?[\p{Nd}_]+)?|inf|infinity|nan)$"
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$"


def infer_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a string column to int64 or double if every non-empty cell is clearly a number.

    Codes such as 007 and numbers with more digits than a double can represent remain text.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    values = pc.utf8_trim_whitespace(column)
    values = pc.if_else(pc.equal(values, ""), None, values)
    for pattern, kind in ((_INTEGER, pa.int64()), (_DECIMAL, pa.float64())):
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            return values.cast(kind)
    return column


def to_values(table: pa.Table, name: str) -> list[object]:
    """Convert a column to Python values.

    Dates become ISO strings, and lists and structs become JSON.

    Raises:
        DataError: the type of the column cannot be converted.
    """
    column = infer_type(table[name])
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    try:
        if pa.types.is_temporal(kind):
            column = column.cast(pa.string())
        values: list[object] = column.to_pylist()
    except (pa.ArrowException, ValueError, TypeError) as error:
        msg = (
            f"Column {name!r} has type {kind}, which cannot be read: {error}. Expected text, "
            "numbers or dates. Convert the column or leave it out."
        )
        raise DataError(msg) from error
    return [json.dumps(v, default=str) if isinstance(v, list | dict | tuple) else v for v in values]


def to_floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Convert a column to doubles; cells that are empty or not numeric become NaN."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False).fill_null(np.nan)
        return np.asarray(values, dtype=np.float64)
    if pa.types.is_temporal(kind) or pa.types.is_nested(kind):
        return np.full(len(column), np.nan)
    values = to_text(column)
    values = pc.if_else(pc.equal(values, ""), None, values)
    try:
        return np.asarray(values.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
    except pa.ArrowInvalid:
        likely = pc.fill_null(pc.match_substring_regex(values, _FLOAT), False)
        numbers = np.full(len(values), np.nan)
        numbers[np.asarray(likely)] = [to_float(v) for v in values.filter(likely).to_pylist()]
        return numbers


def to_float(value: str | None) -> float:
    """Convert a string to a number, or return NaN if it is not a number."""
    try:
        return float(value or "nan")
    except ValueError:
        return float("nan")
