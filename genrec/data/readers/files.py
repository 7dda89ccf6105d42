"""Read CSV, JSON Lines and Parquet files as Arrow tables, and reject rows that cannot be parsed.

A malformed row or an invalid byte affects only that row, not the whole file. CSV files are read
with pyarrow because it reports the rows that it cannot split; other readers silently drop or pad
such rows.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from genrec.data.readers.arrow import ROW
from genrec.data.readers.rejects import BadRow, Rejects
from genrec.errors import DataError
from genrec.text import quantity
from genrec.types import IntArray

_MISQUOTED = "a quote inside a quoted cell is not doubled"

_MAGIC = {b"\x1f\x8b": "gzip (.gz)", b"PK\x03\x04": "a spreadsheet or zip", b"PAR1": "Parquet"}

_BROKEN = "\ufdd0"  # a code point that never occurs in valid text; it marks invalid bytes


def read(
    path: str | Path, *, rejects: Rejects | None = None, scalar: Collection[str] = ()
) -> pa.Table:
    """Read a CSV, JSON Lines or Parquet file; the first two may be gzipped.

    Args:
        path: the file; its extension determines the format.
        rejects: the record of rows that cannot be parsed; if it is None, the first one raises an
            error.
        scalar: columns that must not contain a JSON list or object; rows that do are rejected.

    Returns:
        A table. For CSV and JSONL, all columns are strings, with empty strings for empty cells, and
        the column ROW holds each row's number in the file. For Parquet, column types are preserved.

    Raises:
        DataError: the file is missing, is empty, has an unknown format, or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        msg = f"{str(path)!r} {problem}. Expected a CSV, JSONL or Parquet file. Check the path."
        raise DataError(msg)
    rejects = rejects if rejects is not None else Rejects(path.name, strict=True)
    name = path.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            return _read_parquet(path)
        if name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            return _read_csv(path, rejects)
        if name.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")):
            return _read_jsonl(path, rejects, scalar)
    except (pa.ArrowException, OSError, ValueError, EOFError, zlib.error, csv.Error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = (
            f"{str(path)!r} cannot be read: {reason}. Expected a CSV, JSONL or Parquet file. "
            "Check that it is complete, or export it again."
        )
        raise DataError(msg) from error
    msg = (
        f"{str(path)!r} has an unknown file extension. Expected .csv, .jsonl (also with .gz) or .parquet. "
        "Rename or convert the file."
    )
    raise DataError(msg)


def _opener(path: Path) -> Any:
    """Return the function that opens a file, which may be gzipped."""
    return gzip.open if path.name.lower().endswith(".gz") else open


def _read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file, preserving its column types."""
    _check_distinct(path, pq.read_schema(path).names)
    table = pq.read_table(path)
    table.validate(full=True)  # other writers may have stored text that is not UTF-8
    return table


def _read_header(path: Path) -> tuple[list[str], str]:
    """Read the column names of a CSV file, and detect its delimiter.

    Raises:
        DataError: the file is not CSV in UTF-8, is empty, or has a bad header.
    """
    with _opener(path)(path, "rb") as stream:
        start = stream.read(4)
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    if kind:
        msg = f"{str(path)!r} is {kind}, not CSV. Give it the right extension, or save it as CSV."
        raise DataError(msg)
    with _opener(path)(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        line = next((line for line in stream if line.strip()), "")
        delimiter = _delimiter(line)
        rest = itertools.chain([line], stream)
        header = next(csv.reader(rest, delimiter=delimiter), [])
    if line.count("\0") * 3 > len(line):
        msg = f"{str(path)!r} is UTF-16, UTF-32 or not text. Expected UTF-8. Save it as UTF-8."
        raise DataError(msg)
    names = [n.strip() for n in header]
    broken = next((n for n in names if "\ufffd" in n), None)
    if broken is not None:
        msg = f"The header of {str(path)!r} is not valid UTF-8 at {broken!r}. Save it as UTF-8."
        raise DataError(msg)
    if not names or not any(names):
        msg = f"{str(path)!r} is empty. Expected a header line with column names, then rows."
        raise DataError(msg)
    _check_distinct(path, names)
    if ROW in names:
        msg = f"{str(path)!r} has a column {ROW!r}, a name reserved for genrec. Rename it."
        raise DataError(msg)
    return header, delimiter


def _check_distinct(path: Path, names: Sequence[str]) -> None:
    """Raise a DataError if a column name occurs twice."""
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        msg = (
            f"{str(path)!r} has the column {twice[0]!r} twice. Expected distinct column names. "
            "Rename or remove one (a trailing separator adds a column without a name)."
        )
        raise DataError(msg)


def _check_quotes(
    path: Path, delimiter: str, table: pa.Table, numbers: IntArray, broken: Sequence[BadRow]
) -> set[int]:
    """Find the data rows with text after a closing quote, because pyarrow accepts such rows.

    Raises:
        DataError: a quote is never closed, or is closed in the wrong place, so that rows are
            merged.
    """

    def rows_with(mark: str) -> list[int]:
        masks = [np.asarray(pc.match_substring(c, mark), dtype=bool) for c in table.columns]
        first = [int(numbers[np.argmax(mask)]) for mask in masks if mask.any()]
        return [*first, *(number for number, _, text in broken if mark in text)]

    breaks = rows_with("\n")
    if not breaks and not rows_with('"'):
        return set()
    with _opener(path)(path, "rb") as stream:
        quotes = sum(block.count(b'"') for block in iter(lambda: stream.read(1 << 24), b""))
    with _opener(path)(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        misquoted = _misquoted(csv.reader(stream, delimiter=delimiter, strict=True))
    if breaks and (quotes % 2 or misquoted):
        msg = (
            f"{str(path)!r} has a quote that is opened and never closed, so rows run together "
            f"(at or after data row {min(breaks)}). Close the quote, or double it if it is part of "
            "the text."
        )
        raise DataError(msg)
    return misquoted


def _misquoted(reader: Iterator[list[str]]) -> set[int]:
    """Return the numbers of the rows that a strict reader rejects.

    The header is row 0, and blank lines are not counted.
    """
    refused: set[int] = set()
    number = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return refused
        except csv.Error as error:
            if "field limit" not in str(error):
                refused.add(number)
            number += 1
        else:
            number += bool(row)


def _delimiter(header: str) -> str:
    """Detect the delimiter from the header of a CSV file.

    A comma takes precedence. Otherwise, the most frequent of semicolon, tab and vertical bar is
    used. If the header contains none of them, the comma is used.
    """
    if "," in header:
        return ","
    return max(";\t|", key=header.count) if any(c in header for c in ";\t|") else ","


def _read_csv(path: Path, rejects: Rejects) -> pa.Table:
    """Read a CSV file as strings, and reject rows that cannot be parsed."""
    raw, delimiter = _read_header(path)
    names = [n.strip() for n in raw]

    def on_invalid(row: pa_csv.InvalidRow) -> str:
        reason = (
            f"{quantity(row.actual_columns, 'cell')}, but the header has {row.expected_columns}"
        )
        broken.append((int(row.number or 0) - 1, reason, row.text or ""))
        return "skip"

    broken: list[BadRow] = []
    if _is_one_line(path):  # pyarrow cannot skip a header without rows
        return pa.table({name: pa.array([], pa.string()) for name in [*names, ROW]})
    table = pa_csv.read_csv(
        _valid_utf8(path),
        read_options=pa_csv.ReadOptions(use_threads=False),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=on_invalid
        ),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(raw, pa.string())),
    )
    table = table.rename_columns(names)
    numbers = _row_numbers(table.num_rows, {number for number, _, _ in broken})
    misquoted = _check_quotes(path, delimiter, table, numbers, broken)
    invalid = np.zeros(table.num_rows, dtype=bool)
    for column in table.columns:
        invalid |= np.asarray(pc.match_substring(column, _BROKEN), dtype=bool)
    bad = invalid | np.isin(numbers, list(misquoted))
    places = np.flatnonzero(bad)
    cells = table.take(pa.array(places)).to_pylist()
    for place, row in zip(places.tolist(), cells, strict=True):
        values = [str(v).replace(_BROKEN, "\ufffd") for v in row.values()]
        reason = "not valid UTF-8" if invalid[place] else _MISQUOTED
        broken.append((int(numbers[place]), reason, " | ".join(values)))
    for number, reason, text in sorted(broken):
        rejects.add(number, reason, [text.replace(_BROKEN, "\ufffd")])
    table = table.append_column(ROW, pa.array(numbers))
    return table.filter(pa.array(~bad)) if bad.any() else table


def _is_one_line(path: Path) -> bool:
    """Check whether a file has only one line, regardless of the kind of line break."""
    with _opener(path)(path, "rt", encoding="latin-1") as stream:
        stream.readline()
        return not stream.read(1)


def _valid_utf8(path: Path) -> str | pa.BufferReader:
    """Return the path of a file if the file is valid UTF-8, or otherwise its content.

    In the content, invalid bytes are replaced with ``_BROKEN``.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _opener(path)(path, "rb") as stream:
            while block := stream.read(1 << 24):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        with _opener(path)(path, "rb") as stream:
            text = stream.read().decode("utf-8", "surrogateescape")
        marked = "".join(_BROKEN if "\udc80" <= c <= "\udcff" else c for c in text)
        return pa.BufferReader(marked.encode("utf-8"))
    return str(path)


def _read_jsonl(path: Path, rejects: Rejects, scalar: Collection[str]) -> pa.Table:
    """Read a file with one JSON object per line.

    Values other than strings and null are kept as JSON.
    """
    rows: list[dict[str, str]] = []
    kept: list[int] = []
    number = 0
    with _opener(path)(path, "rb") as stream:
        for line in stream:
            if not line.strip():
                continue
            number += 1
            try:
                value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                problem = _object_problem(value, scalar)
            except UnicodeDecodeError:
                problem = "not valid UTF-8"
            except (ValueError, RecursionError):
                problem = "not valid JSON"
            if problem:
                rejects.add(number, problem, [line.decode("utf-8", "backslashreplace").strip()])
                continue
            rows.append({str(k).strip(): _cell(v) for k, v in value.items()})
            kept.append(number)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        msg = (
            f"{str(path)!r} has no usable line{rejects.first_reason()}. "
            'Expected one JSON object per line, such as {"user_id": "u1", "item_id": "a"}.'
        )
        raise DataError(msg)
    table = {name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in columns}
    return pa.table({**table, ROW: pa.array(kept, pa.int64())})


def _object_problem(value: object, scalar: Collection[str]) -> str:
    """Return the reason why a JSON value is not a usable row; empty if it is usable."""
    if not isinstance(value, dict):
        return "not a JSON object"
    nested = (n for n, v in value.items() if isinstance(v, list | dict) and n.strip() in scalar)
    return next((f"{n.strip()} is a list or object, not text" for n in nested), "")


def _cell(value: object) -> str:
    """Convert a JSON value to the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become ?
    return json.dumps(value, ensure_ascii=False)


def _row_numbers(rows: int, skipped: set[int]) -> IntArray:
    """Return the row numbers, starting at 1, of the rows that the parser kept."""
    numbers = np.arange(1, rows + len(skipped) + 1)
    return numbers[~np.isin(numbers, list(skipped))][:rows] if skipped else numbers
