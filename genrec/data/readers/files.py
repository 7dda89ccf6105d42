"""Read CSV, JSON Lines and Parquet files as Arrow tables of text."""

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
from genrec.types import IntArray

_MISQUOTED = "a quote inside a quoted cell is not doubled"

_MAGIC = {b"\x1f\x8b": "gzip (.gz)", b"PK\x03\x04": "a spreadsheet or zip", b"PAR1": "Parquet"}

_BROKEN = "\ufdd0"  # a code point that no text may hold; it marks broken bytes


def read(
    path: str | Path, *, rejects: Rejects | None = None, scalar: Collection[str] = ()
) -> pa.Table:
    """Reads a CSV or JSON Lines file (also gzipped) or a Parquet file.

    Args:
        path: the file; the kind is told by the name's ending.
        rejects: where rows that cannot be parsed are recorded; without it the first one raises.
        scalar: columns in which a JSON list or object makes the row a bad one.

    Returns:
        A table. CSV and JSONL columns are all strings, an empty cell an empty one, and the column ROW has
        each row's number in the file; Parquet keeps its types.

    Raises:
        DataError: the file is missing, empty, of another kind, or not readable.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        msg = f"No file {str(path)!r}: it {what}. Expected a CSV, JSONL or Parquet file. Check the path."
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
        msg = f"{str(path)!r} cannot be read: {reason}. Expected a CSV, JSONL or Parquet file; mend it."
        raise DataError(msg) from error
    msg = (
        f"{str(path)!r} has an ending that is not known. Expected .csv, .jsonl (also with .gz) or .parquet; "
        "rename or convert the file."
    )
    raise DataError(msg)


def _opener(path: Path) -> Any:
    return gzip.open if path.name.lower().endswith(".gz") else open


def _read_parquet(path: Path) -> pa.Table:
    _distinct(path, pq.read_schema(path).names)
    table = pq.read_table(path)
    table.validate(full=True)  # a foreign writer's text may be no UTF-8
    return table


def _header(path: Path) -> tuple[list[str], str]:
    with _opener(path)(path, "rb") as stream:
        begin = stream.read(4)
    kind = next((said for magic, said in _MAGIC.items() if begin.startswith(magic)), None)
    if kind:
        msg = f"{str(path)!r} is {kind}, not CSV. Rename the file to what it is, or save it as CSV."
        raise DataError(msg)
    with _opener(path)(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        line = next((line for line in stream if line.strip()), "")
        delimiter = _delimiter(line)
        rest = itertools.chain([line], stream)
        header = next(csv.reader(rest, delimiter=delimiter), [])
    if line.count("\0") * 3 > len(line):
        msg = f"{str(path)!r} is UTF-16 or UTF-32, or no text. Expected UTF-8; save it as UTF-8."
        raise DataError(msg)
    names = [n.strip() for n in header]
    broken = next((n for n in names if "\ufffd" in n), None)
    if broken is not None:
        msg = f"The header of {str(path)!r} is not valid UTF-8 at {broken!r}. Save it as UTF-8."
        raise DataError(msg)
    if not names or not any(names):
        msg = f"{str(path)!r} is empty. Expected a header line with column names, then rows."
        raise DataError(msg)
    _distinct(path, names)
    if ROW in names:
        msg = f"{str(path)!r} has a column {ROW!r}, a name that genrec uses itself. Rename it."
        raise DataError(msg)
    return header, delimiter


def _distinct(path: Path, names: Sequence[str]) -> None:
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        msg = (
            f"{str(path)!r} has the column {twice[0]!r} twice. Expected distinct column names; "
            "rename one, or remove it (a column without a name comes of a trailing separator)."
        )
        raise DataError(msg)


def _check_quotes(
    path: Path, delimiter: str, table: pa.Table, numbers: IntArray, broken: Sequence[BadRow]
) -> set[int]:
    """The data rows in which a quoted cell goes on after its closing quote, which pyarrow lets pass.

    Raises:
        DataError: a quote that is never closed, or not where it should be, swallows rows.
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
            f"{str(path)!r} has a quote that is opened and never closed, so that rows run "
            f"together (look at data row {min(breaks)} and after). Close the quote, or "
            "double a quote that belongs to the text."
        )
        raise DataError(msg)
    return misquoted


def _misquoted(reader: Iterator[list[str]]) -> set[int]:
    """The rows, the header being 0 and blank lines not counted, that a strict reader refuses."""
    found: set[int] = set()
    number = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return found
        except csv.Error as error:
            if "field limit" not in str(error):
                found.add(number)
            number += 1
        else:
            number += bool(row)


def _delimiter(header: str) -> str:
    """The comma, or what stands in a header without commas: semicolon, tab or bar."""
    if "," in header:
        return ","
    return max(";\t|", key=header.count) if any(c in header for c in ";\t|") else ","


def _read_csv(path: Path, rejects: Rejects) -> pa.Table:
    raw, delimiter = _header(path)
    names = [n.strip() for n in raw]

    def on_invalid(row: pa_csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} cells where the header has {row.expected_columns}"
        broken.append((int(row.number or 0) - 1, reason, row.text or ""))
        return "skip"

    broken: list[BadRow] = []
    if _is_one_line(path):  # pyarrow cannot skip a header that nothing follows
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
    with _opener(path)(
        path, "rt", encoding="latin-1"
    ) as stream:  # a line may end with any line break
        stream.readline()
        return not stream.read(1)


def _valid_utf8(path: Path) -> str | pa.BufferReader:
    """The path of a valid file; the contents of another, broken bytes replaced by a mark."""
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
    """One JSON object a line; what is neither text nor null is kept as its JSON."""
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
            f"{str(path)!r} holds no usable line{rejects.first_reason()}. "
            'Expected one JSON object a line, such as {"user_id": "u1", "item_id": "a"}.'
        )
        raise DataError(msg)
    table = {name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in columns}
    return pa.table({**table, ROW: pa.array(kept, pa.int64())})


def _object_problem(value: object, scalar: Collection[str]) -> str:
    if not isinstance(value, dict):
        return "not a JSON object"
    nested = (n for n, v in value.items() if isinstance(v, list | dict) and n.strip() in scalar)
    return next((f"{n.strip()} is a list or object, not text" for n in nested), "")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes ?
    return json.dumps(value, ensure_ascii=False)


def _row_numbers(rows: int, skipped: set[int]) -> IntArray:
    """Data row numbers in the file, from 1, of the rows that the parser kept."""
    numbers = np.arange(1, rows + len(skipped) + 1)
    return numbers[~np.isin(numbers, list(skipped))][:rows] if skipped else numbers
