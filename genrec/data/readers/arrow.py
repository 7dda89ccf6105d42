"""Reading files into Arrow tables, and the rows that had to be rejected. Knows no items or users.

One broken row, or one broken byte, spoils that row and not the file. pyarrow reads the CSV: it is
as fast as any and hands over the rows that it cannot split, which others drop or pad in silence.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from genrec.errors import DataError
from genrec.types import IntArray

ROW = "__row__"  # data row numbers from 1, in tables read from text files
BadRow = tuple[int, str, str]  # data row number, reason, text
_MISQUOTED = "a quote inside a quoted cell is not doubled"
_MAGIC = {b"\x1f\x8b": "gzip (.gz)", b"PK\x03\x04": "a spreadsheet or zip", b"PAR1": "Parquet"}
_BROKEN = "\ufdd0"  # a code point that no text may hold; it marks broken bytes


@dataclass
class Rejects:
    """Rows that were not kept: source, row number from 1 (header not counted), reason, cells.

    ``parts`` are the first row numbers of further sources, where several files make one table.
    """

    source: str
    strict: bool = False
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)
    parts: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str, cells: Sequence[object]) -> None:
        """Records one row.

        Raises:
            DataError: rejects are strict.
        """
        source = self.source
        first = max((start for start, _ in self.parts if start <= number), default=None)
        if first is not None:
            source, number = dict(self.parts)[first], number - first + 1
        if self.strict:
            msg = (
                f"{source}, data row {number}: {reason}. Expected every row to be usable; "
                "mend the row (`genrec prepare` without --strict sets such rows aside)."
            )
            raise DataError(msg)
        self.rows.append((source, number, reason, " | ".join(str(c) for c in cells)))

    def counts(self, *, sources: bool = False) -> dict[str, int]:
        """How many rows were rejected for each kind of reason (what follows a quote is dropped).

        Args:
            sources: begin each reason with its file.
        """
        kinds = Counter(
            (f"{source}: " if sources else "") + reason.split(" '")[0].split(' "')[0]
            for source, _, reason, _ in self.rows
        )
        return dict(kinds.most_common())

    def first_reason(self) -> str:
        """`` (first rejected row: ...)`` for use in a message, empty when nothing was rejected."""
        if not self.rows:
            return ""
        source, number, reason, _ = self.rows[0]
        return f" (first rejected: {source}, data row {number}: {reason})"


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


def require(table: pa.Table, needed: Sequence[str], source: str) -> None:
    """Checks that a table has the columns, and that they can be read as text.

    Args:
        table: under our names.
        needed: the columns.
        source: what the table is called in a message.

    Raises:
        DataError: one is missing; the message lists what is there. Or it holds lists, say.
    """
    missing = [n for n in needed if n not in table.column_names]
    if missing:
        msg = (
            f"{source} has no column {missing[0]!r}. Expected the columns "
            f"{', '.join(needed)}; found {', '.join(names(table)) or 'none'}. "
            "Rename the column or add it."
        )
        raise DataError(msg)
    for name in needed:
        kind = table[name].type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            try:
                text(table[name])
            except DataError as error:
                msg = f"{source}, column {name!r}: {error}"
                raise DataError(msg) from error


def row_numbers(table: pa.Table) -> list[int]:
    """The number of each row in its file, from 1."""
    if ROW in table.column_names:
        return [int(n) for n in table[ROW].to_pylist()]
    return list(range(1, table.num_rows + 1))


def stacked(
    parts: Sequence[tuple[str, pa.Table]], column: str, values: Sequence[str], rejects: Rejects
) -> pa.Table:
    """Several files as one table, with a column that says from which each row is.

    Args:
        parts: source and table; the rejects learn where each begins.
        column: its name; one that is there is replaced.
        values: what it holds for each part.
        rejects: of the whole.

    Raises:
        DataError: columns of one name are of kinds that do not go together.
    """
    tables: list[pa.Table] = []
    start = 0
    for (source, table), value in zip(parts, values, strict=True):
        if tables:
            rejects.parts.append((start + 1, source))
        rows = np.array(row_numbers(table), dtype=np.int64)
        table = table.select([n for n in names(table) if n != column])
        table = table.append_column(column, pa.repeat(value, table.num_rows))
        tables.append(table.append_column(ROW, pa.array(rows + start)))
        start += int(rows.max(initial=0)) + 1_000_000_000  # more than a file has rows
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        named = ", ".join(source for source, _ in parts)
        msg = f"{named} do not go together: {error}. Expected the same columns in each; mend them."
        raise DataError(msg) from error


def names(table: pa.Table) -> list[str]:
    """The file's own columns."""
    return [n for n in table.column_names if n != ROW]


def renamed(table: pa.Table, columns: Mapping[str, str], source: str) -> pa.Table:
    """The table with columns under our names.

    Args:
        table: as read.
        columns: our name -> the file's.
        source: what the table is called in a message.

    Raises:
        DataError: the file has no such column.
    """
    for ours, theirs in columns.items():
        if theirs not in table.column_names:
            require(table, [theirs], f"(column {ours}={theirs}) {source}")
    taken = {theirs: ours for ours, theirs in columns.items()}
    clash = [n for n in table.column_names if n in columns and n not in taken]
    table = table.drop_columns(clash) if clash else table
    return table.rename_columns([taken.get(n, n) for n in table.column_names])


def exploded(table: pa.Table, rejects: Rejects) -> pa.Table:
    """One row an event, of a table with one row a user, whose events stand in lists.

    That is a table whose item_id or title column holds lists; another is returned as it is. All
    its list columns have an entry for each event, oldest first; what is no list counts for each
    of them. Where there is no time the place in the list is the ``position``, where there is no
    user_id the row's number is one.

    Args:
        table: under our names.
        rejects: where rows without events, or with lists of unequal lengths, are recorded.
    """
    lists = [n for n in table.column_names if _is_list(table[n].type)]
    first = next((n for n in ("item_id", "title") if n in lists), None)
    if first is None:
        return table
    lengths = {n: np.asarray(pc.list_value_length(table[n]).fill_null(0)) for n in lists}
    problems = [(lengths[first] == 0, f"no events: the list {first} is empty")]
    problems += [(lengths[n] != lengths[first], f"{first} and {n} differ in length") for n in lists]
    bad = np.any([mask for mask, _ in problems], axis=0)
    places = np.flatnonzero(bad)
    where = np.array(row_numbers(table), dtype=np.int64)
    cells = table.select(names(table)).take(pa.array(places)).to_pylist()
    for place, row in zip(places.tolist(), cells, strict=True):
        reason = next(reason for mask, reason in problems if mask[place])
        rejects.add(int(where[place]), reason, list(row.values()))
    kept = table.filter(pa.array(~bad))
    size = lengths[first][~bad]
    parent = np.repeat(np.arange(len(size)), size)
    data = {n: pc.list_flatten(kept[n]) if n in lists else kept[n].take(pa.array(parent))
            for n in names(kept)}  # fmt: skip
    data[ROW] = pa.array(where[~bad][parent])
    if "user_id" not in data:
        data["user_id"] = data[ROW]
    if not {"timestamp", "position"} & data.keys():
        data["position"] = pa.array(np.arange(len(parent)) - np.searchsorted(parent, parent))
    return pa.table(data)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as stripped strings; null becomes the empty string.

    Raises:
        DataError: the column holds lists, structs or bytes that are no text.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.large_string()).fill_null(""))
    except pa.ArrowException as error:
        msg = (
            f"A column of type {column.type} cannot be read as text: {error}. Expected text or "
            "numbers; convert the column."
        )
        raise DataError(msg) from error


def codes(column: pa.ChunkedArray) -> tuple[list[str], IntArray]:
    """Distinct texts in order of first appearance, and each row's code."""
    encoded = text(column).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)


def strings(column: pa.ChunkedArray) -> list[str]:
    """``text`` as a list."""
    return [str(v) for v in text(column).to_pylist()]


_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$"


def typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A string column as int64 or double where every non-empty cell is plainly one, else as it is.

    Codes such as 007, or numbers with more digits than a double keeps, stay text.
    """
    if not pa.types.is_string(column.type):
        return column
    values = pc.utf8_trim_whitespace(column)
    values = pc.if_else(pc.equal(values, ""), None, values)
    for pattern, kind in ((_INTEGER, pa.int64()), (_DECIMAL, pa.float64())):
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            return values.cast(kind)
    return column


def plain(table: pa.Table, name: str) -> list[object]:
    """A column as Python values: numbers, text, dates as ISO text, lists and structs as JSON.

    Raises:
        DataError: the column has a type that has no such form.
    """
    column = typed(table[name])
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
            "numbers or dates; convert the column or leave it out."
        )
        raise DataError(msg) from error
    return [json.dumps(v, default=str) if isinstance(v, list | dict | tuple) else v for v in values]


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column as doubles; what is empty or not a number becomes NaN."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False).fill_null(np.nan)
        return np.asarray(values, dtype=np.float64)
    if pa.types.is_temporal(kind) or pa.types.is_nested(kind):
        return np.full(len(column), np.nan)
    values = text(column)
    values = pc.if_else(pc.equal(values, ""), None, values)
    try:
        return np.asarray(values.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
    except pa.ArrowInvalid:
        return np.array([number(v) for v in values.to_pylist()], dtype=np.float64)


def number(value: str | None) -> float:
    """A text as a number, NaN where it is none."""
    try:
        return float(value or "nan")
    except ValueError:
        return float("nan")
