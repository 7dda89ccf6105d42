"""Reading files into Arrow tables, and the rows that had to be rejected. Knows no items or users.

Every CSV cell is read as bytes and decoded here, so that one broken byte spoils one row and not
the file.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from genrec.errors import DataError

ROW = "__row__"  # data row numbers from 1, in tables read from CSV


@dataclass
class Rejects:
    """Rows that were not kept: source, row number from 1 (header not counted), reason, cells."""

    source: str
    strict: bool = False
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, number: int, reason: str, cells: Sequence[object]) -> None:
        """Records one row.

        Raises:
            DataError: rejects are strict.
        """
        if self.strict:
            msg = (
                f"{self.source}, data row {number}: {reason}. Expected every row to be usable; "
                "mend the row, or run without --strict to set such rows aside in rejected.csv."
            )
            raise DataError(msg)
        self.rows.append((self.source, number, reason, " | ".join(str(c) for c in cells)))

    def counts(self) -> dict[str, int]:
        """How many rows were rejected for each kind of reason (what follows a quote is dropped)."""
        kinds = Counter(reason.split(" '")[0].split(' "')[0] for _, _, reason, _ in self.rows)
        return dict(kinds.most_common())

    def first_reason(self) -> str:
        """`` (first rejected row: ...)`` for use in a message, empty when nothing was rejected."""
        if not self.rows:
            return ""
        source, number, reason, _ = self.rows[0]
        return f" (first rejected: {source}, data row {number}: {reason})"


def read(path: str | Path, *, rejects: Rejects | None = None) -> pa.Table:
    """Reads a CSV file (also gzipped) or a Parquet file.

    Args:
        path: the file; the kind is told by the name's ending.
        rejects: where rows that cannot be parsed are recorded; without it the first one raises.

    Returns:
        A table. CSV columns are all strings, an empty cell an empty one, and the column ROW has
        each row's number in the file; Parquet keeps its types.

    Raises:
        DataError: the file is missing, empty, of another kind, or not readable.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"No file {str(path)!r}. Expected a CSV, CSV.GZ or Parquet file. Check the path."
        raise DataError(msg)
    rejects = rejects if rejects is not None else Rejects(path.name, strict=True)
    name = path.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            return pq.read_table(path)
        if name.endswith((".csv", ".csv.gz")):
            return _read_csv(path, rejects)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        msg = f"{str(path)!r} cannot be read: {reason}. Expected a CSV or Parquet file; mend it."
        raise DataError(msg) from error
    msg = (
        f"{str(path)!r} has an ending that is not known. Expected .csv, .csv.gz or .parquet; "
        "rename or convert the file."
    )
    raise DataError(msg)


def _header(path: Path) -> list[str]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        header = next(csv.reader(stream), [])
    names = [n.strip() for n in header]
    broken = next((n for n in names if "\ufffd" in n), None)
    if broken is not None:
        msg = f"The header of {str(path)!r} is not valid UTF-8 at {broken!r}. Save it as UTF-8."
        raise DataError(msg)
    if not names or not any(names):
        msg = f"{str(path)!r} is empty. Expected a header line with column names, then rows."
        raise DataError(msg)
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        msg = f"{str(path)!r} has the column {twice[0]!r} twice. Expected distinct column names."
        raise DataError(msg)
    return names


def _read_csv(path: Path, rejects: Rejects) -> pa.Table:
    names = _header(path)

    def on_invalid(row: pa_csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} cells where the header has {row.expected_columns}"
        broken.append((int(row.number or 0) - 1, reason, row.text or ""))
        return "skip"

    broken: list[tuple[int, str, str]] = []
    table = pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_invalid),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary())),
    )
    skipped = {number for number, _, _ in broken}
    for number, reason, text in broken:
        rejects.add(number, reason, [text])
    numbers = _row_numbers(table.num_rows, skipped)
    return _decode(table, numbers, rejects)


def _row_numbers(rows: int, skipped: set[int]) -> npt.NDArray[np.int64]:
    """Data row numbers in the file, from 1, of the rows that the parser kept."""
    numbers = np.arange(1, rows + len(skipped) + 1)
    return numbers[~np.isin(numbers, list(skipped))][:rows] if skipped else numbers


def _decode(table: pa.Table, numbers: npt.NDArray[np.int64], rejects: Rejects) -> pa.Table:
    columns = {}
    bad: set[int] = set()
    for name in table.column_names:
        column = table[name].combine_chunks()
        try:
            columns[name] = column.cast(pa.string())
        except pa.ArrowInvalid:
            values: list[str | None] = []
            for index, value in enumerate(column.to_pylist()):
                try:
                    values.append(None if value is None else value.decode("utf-8"))
                except UnicodeDecodeError:
                    values.append(None)
                    bad.add(index)
            columns[name] = pa.array(values, pa.string())
    columns[ROW] = pa.array(numbers)
    result = pa.table(columns)
    if not bad:
        return result
    for index in sorted(bad):
        cells = [v[index].as_py() for v in table.columns]
        rejects.add(
            int(numbers[index]),
            "not valid UTF-8",
            [(c or b"").decode("utf-8", "backslashreplace") for c in cells],
        )
    keep = np.ones(table.num_rows, dtype=bool)
    keep[list(bad)] = False
    return result.filter(pa.array(keep))


def require(table: pa.Table, names: Sequence[str], what: str) -> None:
    """Checks that a table has the columns.

    Raises:
        DataError: one is missing; the message lists what is there.
    """
    missing = [n for n in names if n not in table.column_names]
    if missing:
        msg = (
            f"The {what} table has no column {missing[0]!r}. Expected the columns "
            f"{', '.join(names)}; found {', '.join(table.column_names) or 'none'}. "
            "Rename the column or add it."
        )
        raise DataError(msg)


def row_numbers(table: pa.Table) -> list[int]:
    """The number of each row in its file, from 1."""
    if ROW in table.column_names:
        return [int(n) for n in table[ROW].to_pylist()]
    return list(range(1, table.num_rows + 1))


def names(table: pa.Table) -> list[str]:
    """The file's own columns."""
    return [n for n in table.column_names if n != ROW]


def renamed(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The table with columns under our names.

    Args:
        table: as read.
        columns: our name -> the file's.

    Raises:
        DataError: the file has no such column.
    """
    for ours, theirs in columns.items():
        require(table, [theirs], f"(column {ours}={theirs})")
    taken = {theirs: ours for ours, theirs in columns.items()}
    clash = [n for n in table.column_names if n in columns and n not in taken]
    table = table.drop_columns(clash) if clash else table
    return table.rename_columns([taken.get(n, n) for n in table.column_names])


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as stripped strings; null becomes the empty string."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.utf8_trim_whitespace(column.cast(pa.large_string()).fill_null(""))


def codes(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct texts in order of first appearance, and each row's code."""
    encoded = text(column).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)


def strings(column: pa.ChunkedArray) -> list[str]:
    """``text`` as a list."""
    return [str(v) for v in text(column).to_pylist()]


def typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A string column as int64 or double where every non-empty cell is one, else as it is."""
    if not pa.types.is_string(column.type):
        return column
    values = pc.utf8_trim_whitespace(column)
    values = pc.if_else(pc.equal(values, ""), None, values)
    for kind in (pa.int64(), pa.float64()):
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column as doubles; what is empty or not a number becomes NaN."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return np.asarray(column.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            column = column.cast(pa.string())
    result = np.full(len(column), np.nan)
    try:
        values = pc.utf8_trim_whitespace(column)
        values = pc.if_else(pc.equal(values, ""), None, values)
        return np.asarray(values.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
    except pa.ArrowInvalid:
        for index, text in enumerate(column.to_pylist()):
            try:
                result[index] = float(text)
            except (TypeError, ValueError):
                continue
    return result
