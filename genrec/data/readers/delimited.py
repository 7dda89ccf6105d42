"""Read CSV and similar delimited files as Arrow tables of strings.

Rows are split with pyarrow because it reports the ones it cannot split; other readers silently drop
or pad such rows. The delimiter and the position of the header are inferred from the first rows, on
the assumption that most rows have as many cells as the header.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from genrec.data.readers import headerless
from genrec.data.readers.arrow import ROW
from genrec.data.readers.encodings import BROKEN, Encoding, open_text, open_utf8
from genrec.data.readers.header_rows import find_headers
from genrec.data.readers.rejects import BadRow, Rejects
from genrec.data.readers.repeated import name_columns
from genrec.data.readers.sources import Source
from genrec.errors import DataError
from genrec.text import quantity
from genrec.types import IntArray

_UNIT = "\x1f"  # the unit separator of ASCII, which does not occur in text
_MISQUOTED = "a quote inside a quoted cell is not doubled"
_DELIMITERS = "\t;,|\x1f"  # the first one wins a tie; commas are also in prices and names
_DOUBLE = "::"  # the delimiter of MovieLens
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*$", re.IGNORECASE)  # the first line of some Excel files
_NUMBER = re.compile(r"\s*-?\d[\d.,:/\- T]*Z?\s*$")
_LONG = re.compile(  # a long number, or a time in the usual forms
    r"\s*(\d{5,}(\.\d+)?|\d{4}-\d\d-\d\d[\dT :.+\-]*Z?|(\d+/\d+/\d{4}|\d+\.\d+\.\d{4})\b.*"
    r"|\d\d?[- ][A-Za-z]{3}[- ]\d{4}\b.*)\s*$"
)
_QUOTED = re.compile(r'"(""|[^"])*"')
_MOST = 0.6  # the share of sampled rows that must be alike, since some may be damaged
_SAMPLE_LINES = 200
_SAMPLE_TEXT = 1 << 18  # characters


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a file.

    Attributes:
        delimiter: the character between cells.
        header: the names of the columns, one for each cell of a row.
        named: True if the header is a line of the file; False if the names were made up.
        skip: the number of lines before the header.
        title: the text of the lines before the header that are not blank.
        has_rows: True if there is text after the header.
        share: the fraction of sampled rows that have as many cells as the header.
        form: the kind of a well-known file without a header, such as ``MovieLens's ratings``; empty
            for other files.
        quoted: True if quotes may surround a cell; False if they are part of it.
    """

    delimiter: str
    header: list[str]
    named: bool
    skip: int
    title: str
    has_rows: bool
    share: float
    form: str = ""
    quoted: bool = True

    @property
    def fit(self) -> tuple[bool, bool, float]:
        """A key for comparing layouts; a greater key means a better fit."""
        split = len(self.header) > 1
        whole = not self.title and self.share >= _MOST
        return split, whole, len(self.header) * (self.share + 0.01)


def read(source: Source, encoding: Encoding, rejects: Rejects, notes: list[str]) -> pa.Table:
    """Read a file as strings, and reject the rows that cannot be parsed.

    Args:
        source: the file.
        encoding: the encoding of the file.
        rejects: the object that records bad rows.
        notes: the list to which remarks for the user are added.

    Raises:
        DataError: the header or the quotes of the file cannot be used.
    """
    layout = _layout(source, encoding)
    if layout.delimiter == _DOUBLE:
        source, encoding = _with_unit_separators(source, encoding)
        layout = replace(layout, delimiter=_UNIT)
    elif len(layout.header) == 1 and _DOUBLE in layout.header[0]:
        source, encoding = _with_unit_separators(source, encoding)
        layout = _layout(source, encoding)
    if layout.quoted and _quotes_are_text(source, encoding, layout):
        layout = replace(layout, quoted=False)
        notes.append("quotes are read as ordinary text, since they do not enclose whole cells")
    names = [n.strip() for n in layout.header]
    _check_header(source, encoding, names)
    if layout.title:
        notes.append(f"the text before the header is skipped: {layout.title[:100]!r}")
    if layout.form:
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        notes.append(
            f"the file has no header; its cells have the form of {layout.form}, so its columns are "
            f"called {listed}"
        )
    elif not layout.named:
        notes.append(f"the file has no header, so its columns are called {names[0]} to {names[-1]}")
    if not layout.has_rows:  # pyarrow cannot skip a header without rows
        empty = [pa.chunked_array([], pa.string()) for _ in names]
        table = name_columns(names, empty, notes)
        return table.append_column(ROW, pa.array([], pa.int64()))
    table, broken = _parse(source, encoding, layout)
    numbers = _row_numbers(table.num_rows, {number for number, _, _ in broken})
    misquoted = set[int]()
    if layout.quoted:
        misquoted = _check_quotes(source, encoding, layout, table, numbers, broken)
    invalid = np.zeros(table.num_rows, dtype=bool)
    for column in [] if encoding.intact else table.columns:
        invalid |= np.asarray(pc.match_substring(column, BROKEN), dtype=bool)
    problems = [
        (invalid, f"not valid {encoding.label}"),
        (np.isin(numbers, list(misquoted)), _MISQUOTED),
        *(find_headers(table.columns, names) if layout.named else []),
    ]
    bad = np.any([mask for mask, _ in problems], axis=0)
    places = np.flatnonzero(bad)
    cells = table.take(pa.array(places)).to_pylist()
    for place, row in zip(places.tolist(), cells, strict=True):
        reason = next(reason for mask, reason in problems if mask[place])
        broken.append((int(numbers[place]), reason, " | ".join(row.values())))
    for number, reason, text in sorted(broken):
        rejects.add(number, reason, [text.replace(BROKEN, "\ufffd")])
    table = name_columns(names, table.columns, notes).append_column(ROW, pa.array(numbers))
    return table.filter(pa.array(~bad)) if bad.any() else table


def read_plain(text: str, separator: str, names: Sequence[str], rejects: Rejects) -> pa.Table:
    """Split a text that has neither a header nor quotes into rows and cells.

    Lines with an unusual number of cells are rejected.

    Args:
        text: the content of a file, which must not contain a unit separator (U+001F).
        separator: the text between cells, of any length.
        names: the names of the first columns; any further columns are left out.
        rejects: the object that records bad rows.
    """
    broken: list[BadRow] = []
    widths = Counter(line.count(separator) + 1 for line in text[:_SAMPLE_TEXT].splitlines() if line)
    usual = widths.most_common(1)[0][0] if widths else 0
    columns = [*names, *(f"{n}" for n in range(len(names), usual))]

    def on_invalid(row: pa_csv.InvalidRow) -> str:
        reason = f"{quantity(row.actual_columns, 'cell')}, not {row.expected_columns}"
        shown = (row.text or "").replace(_UNIT, separator)
        broken.append((int(row.number or 0), reason, shown))
        return "skip"

    if not text.strip():
        table = pa.table({name: pa.array([], pa.string()) for name in names})
        return table.append_column(ROW, pa.array([], pa.int64()))
    table = pa_csv.read_csv(
        pa.BufferReader(text.replace(separator, _UNIT).encode("utf-8", "replace")),
        read_options=pa_csv.ReadOptions(use_threads=False, column_names=columns),
        parse_options=pa_csv.ParseOptions(
            delimiter=_UNIT, quote_char=False, invalid_row_handler=on_invalid
        ),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
    )
    numbers = _row_numbers(table.num_rows, {number for number, _, _ in broken})
    for number, reason, shown in broken:
        rejects.add(number, reason, [shown])
    return table.select(names).append_column(ROW, pa.array(numbers))


def _layout(source: Source, encoding: Encoding) -> _Layout:
    """Infer the delimiter and the header from the first lines.

    A delimiter that splits the header is preferred to one that does not, and a header at the start
    of the file is preferred to one below a title. Among the remaining delimiters, the best one
    splits most rows into as many cells as the header and yields many cells.
    """
    lines: list[str] = []
    size = 0
    with open_text(source.open, encoding.name) as stream:
        for line in stream:
            lines.append(line)
            size += len(line)
            if len(lines) == _SAMPLE_LINES or size > _SAMPLE_TEXT:
                break
        more = bool(stream.read(1))
    skip = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    given = _SEPARATOR_LINE.match(lines[skip]) if skip < len(lines) else None
    if given:
        skip += 1
    known = headerless.recognize(lines[skip : -1 if more else None])
    if known:
        form, delimiter = known
        header = [name for name, _ in form.columns]
        return _Layout(
            delimiter, header, False, skip, "", True, 1.0, form=form.name, quoted=form.quoted
        )
    layouts = [_try(d, lines, skip, more) for d in (given[1] if given else _DELIMITERS)]
    return max(layouts, key=lambda one: one.fit)


def _quotes_are_text(source: Source, encoding: Encoding, layout: _Layout) -> bool:
    """Check whether the quotes in a tab-separated file are ordinary characters.

    This is the case if every line with a quote has as many tab-separated cells as the header, and
    at least one cell contains quotes that do not enclose it.
    """
    if layout.delimiter not in {"\t", _UNIT}:
        return False
    found = False
    with open_text(source.open, encoding.name) as stream:
        for line in itertools.islice(stream, layout.skip, None):
            if '"' in line:
                cells = line.rstrip("\r\n").split(layout.delimiter)
                if len(cells) != len(layout.header):
                    return False
                found = found or any('"' in c and not _QUOTED.fullmatch(c) for c in cells)
    return found


def _with_unit_separators(source: Source, encoding: Encoding) -> tuple[Source, Encoding]:
    """Replace double colons with unit separators, because pyarrow cannot split at double colons."""
    with open_text(source.open, encoding.name) as stream:
        data = stream.read().replace(_DOUBLE, _UNIT).encode("utf-8", "replace")
    return replace(source, open=lambda: io.BytesIO(data)), Encoding("utf-8")


def _try(delimiter: str, lines: Sequence[str], skip: int, more: bool) -> _Layout:
    """Split the first lines of a file at a delimiter.

    Args:
        delimiter: the delimiter.
        lines: the first lines of the file.
        skip: the number of lines to skip at the start.
        more: True if the file has more lines than these.
    """
    reader = csv.reader(lines[skip:], delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []  # the line where each row begins, and its cells
    at = skip
    for row in reader:
        if any(cell.strip() for cell in row):
            rows.append((at, row))
        at = skip + reader.line_num
    if not rows:
        return _Layout(delimiter, [], True, skip, "", False, 0.0)
    first = _header_place([row for _, row in rows])
    start, header = rows[first]
    below = [row for _, row in rows[first + 1 :]]
    whole = below[:-1] if more and len(below) > 1 else below  # the last row may be cut
    width = Counter(map(len, whole)).most_common(1)[0][0] if whole else len(header)
    beyond = [cell for row in [*whole, header] for cell in row[min(width, len(header)) :]]
    if not any(cell.strip() for cell in beyond):  # a delimiter at the end of the header or the rows
        header = [*header, *[""] * width][:width]
    share = sum(len(row) == len(header) for row in whole) / len(whole) if whole else 1.0
    title = " ".join(" ".join(filter(None, row)) for _, row in rows[:first])
    named = not _is_data(header, whole)
    if not named:
        header = [f"column_{n}" for n in range(1, len(header) + 1)]
    return _Layout(delimiter, header, named, start, title, bool(below) or more or not named, share)


def _is_data(header: Sequence[str], rows: Sequence[list[str]]) -> bool:
    """Check whether the first row is data rather than a header.

    It is data if it has a time or a long number in a column where the other rows have one too, or
    if it contains the same number twice.
    """
    twice = {cell for cell, count in Counter(header).items() if cell and count > 1}
    if twice and all(_NUMBER.match(cell) for cell in twice):
        return True
    for place, cell in enumerate(header):
        if _LONG.match(cell):
            others = [row[place] for row in rows if place < len(row)]
            if others and sum(bool(_LONG.match(o)) for o in others) >= _MOST * len(others):
                return True
    return False


def _header_place(rows: Sequence[list[str]]) -> int:
    """Find the row with the column names.

    This is usually the first row. If that row has only a single cell, as the title of a report
    does, it is the first row with several cells, provided that these could be names and that most
    rows below have the same number of cells.
    """
    for place, row in enumerate(rows[:20]):
        filled = [cell for cell in row if cell.strip()]
        if len(filled) < 2:
            continue
        below = rows[place + 1 :]
        alike = sum(len(other) == len(row) for other in below)
        names = len({*filled}) == len(row) and not any(_NUMBER.match(cell) for cell in filled)
        return place if names and below and alike >= _MOST * len(below) else 0
    return 0


def _check_header(source: Source, encoding: Encoding, names: Sequence[str]) -> None:
    """Check that the column names are usable, but not that they are distinct.

    Raises:
        DataError: the file is empty, or a name cannot be used.
    """
    path = str(source.path)
    broken = next((n for n in names if BROKEN in n), None)
    if broken is not None:
        shown = broken.replace(BROKEN, "\ufffd")
        msg = (
            f"The header of {path!r} is not valid {encoding.label} at {shown!r}. Save the file as "
            "UTF-8, or name its encoding with --encoding."
        )
        raise DataError(msg)
    if not any(names):
        msg = f"{path!r} is empty. Expected a header line with column names, then rows."
        raise DataError(msg)
    if ROW in names:
        msg = f"{path!r} has a column named {ROW!r}, which is reserved for genrec. Rename it."
        raise DataError(msg)


def _parse(source: Source, encoding: Encoding, layout: _Layout) -> tuple[pa.Table, list[BadRow]]:
    """Split the rows of a file into columns.

    Returns:
        A table of the rows with the right number of cells, whose columns are named by position; and
        the other rows.
    """
    broken: list[BadRow] = []

    def on_invalid(row: pa_csv.InvalidRow) -> str:
        reason = (
            f"{quantity(row.actual_columns, 'cell')}, but the header has {row.expected_columns}"
        )
        broken.append((int(row.number or 0) - layout.skip - layout.named, reason, row.text or ""))
        return "skip"

    columns = [str(n) for n in range(len(layout.header))]
    with source.open() if encoding.intact else open_utf8(source.open, encoding.name) as stream:
        table = pa_csv.read_csv(
            stream,
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                column_names=columns,
                skip_rows=layout.skip,
                skip_rows_after_names=int(layout.named),
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.quoted,
                invalid_row_handler=on_invalid,
            ),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    return table, broken


def _check_quotes(
    source: Source,
    encoding: Encoding,
    layout: _Layout,
    table: pa.Table,
    numbers: IntArray,
    broken: Sequence[BadRow],
) -> set[int]:
    """Find data rows with text after a closing quote, which pyarrow accepts.

    Raises:
        DataError: a quote is never closed, or is closed in the wrong place, so that rows are
            merged.
    """

    def rows_with(mark: str) -> list[int]:
        places = [pc.index(pc.match_substring(c, mark), True).as_py() for c in table.columns]
        first = [int(numbers[place]) for place in places if place >= 0]
        return [*first, *(number for number, _, text in broken if mark in text)]

    breaks = rows_with("\n")
    if not breaks and not rows_with('"'):
        return set()
    with open_text(source.open, encoding.name) as stream:
        quotes = sum(block.count('"') for block in iter(lambda: stream.read(1 << 22), ""))
    with open_text(source.open, encoding.name) as stream:
        lines = itertools.islice(stream, layout.skip, None)
        reader = csv.reader(lines, delimiter=layout.delimiter, strict=True)
        misquoted = _misquoted(reader, 1 - layout.named)
    if breaks and (quotes % 2 or misquoted):
        msg = (
            f"{str(source.path)!r} has a quote that is opened and never closed, so rows run together "
            f"(at or after data row {min(breaks)}). Close the quote, or double it if it is part of "
            "the text."
        )
        raise DataError(msg)
    return misquoted


def _misquoted(reader: Iterator[list[str]], first: int) -> set[int]:
    """Return the numbers of the rows that a strict reader rejects.

    Args:
        reader: the reader; blank lines are not counted.
        first: the number of the first row; 0 if it is the header.
    """
    refused: set[int] = set()
    number = first
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


def _row_numbers(rows: int, skipped: set[int]) -> IntArray:
    """Return the row numbers, starting at 1, of the rows that the parser kept."""
    numbers = np.arange(1, rows + len(skipped) + 1)
    return numbers[~np.isin(numbers, list(skipped))][:rows] if skipped else numbers
