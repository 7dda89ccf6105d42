"""Read a file of any supported format, encoding and compression as an Arrow table.

The format is recognized mainly by the content of a file rather than by its name. A malformed row or
an invalid byte affects only that row, not the whole file.
"""

from __future__ import annotations

import contextlib
import csv
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec.data.readers import delimited, encodings, folders, json_files, sources
from genrec.data.readers.encodings import Encoding
from genrec.data.readers.rejects import Rejects
from genrec.data.readers.repeated import name_columns
from genrec.data.readers.sources import Source
from genrec.errors import DataError
from genrec.text import quantity


def read(
    path: str | Path,
    *,
    rejects: Rejects | None = None,
    scalar: Container[str] = (),
    known: Container[str] = (),
    encoding: str | None = None,
    notes: list[str] | None = None,
) -> pa.Table:
    """Read a CSV, JSON or Parquet file, or a folder of them, as a table.

    CSV may have any common delimiter, and JSON may be JSON Lines or an array of objects. The file
    may be compressed (gzip, bzip2, xz, Zstandard, or a zip archive with one file).

    The files in a folder are read in alphabetical order and must have the same columns, or refer to
    each other by keys, as tables of orders, order lines and products do. Files whose names begin with ``_`` or ``.`` are skipped. A folder name such as ``month=5`` becomes a column
    ``month`` with the value 5.

    Args:
        path: the file or the folder.
        rejects: the object that records rows that cannot be parsed; if it is None, the first one
            raises an error.
        scalar: columns that must not contain a JSON list or object; rows that do are rejected.
        known: common column names, which help to detect the encoding.
        encoding: the encoding of a text file, such as ``cp1252``; None to detect it.
        notes: the list to which remarks for the user are added, for example on a guessed encoding.

    Returns:
        A table. For CSV and JSON, all columns are strings, with empty strings for empty cells, and
        the column ROW holds each row's number in the file. For Parquet, column types are preserved.
        For a folder, the numbers in ROW are unique across all files, and ``rejects`` records which
        numbers belong to which file.

    Raises:
        DataError: the file is missing, is empty, has an unknown format, or cannot be read.
        SettingsError: the encoding is unknown.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        msg = (
            f"{str(path)!r} is a link that leads to no file. Expected a CSV, JSONL or Parquet file, or "
            "a folder of them. Correct the link, or pass the path of the file."
        )
        raise DataError(msg)
    if not path.exists():
        msg = (
            f"{str(path)!r} does not exist. Expected a CSV, JSONL or Parquet file, or a folder of "
            "them. Check the path."
        )
        raise DataError(msg)
    rejects = rejects if rejects is not None else Rejects(path.name, strict=True)
    notes = notes if notes is not None else []
    given = encodings.named(encoding) if encoding is not None else None
    if path.is_dir():
        return _read_folder(path, rejects, scalar, given or known, notes)
    with readable(path):
        source = sources.find(path)
        return _read_file(source, given or _encoding(source, known), rejects, scalar, notes)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Convert errors that libraries raise in the ``with`` block into errors that name the file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        yield
    except (
        pa.ArrowException, OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, csv.Error,
    ) as error:  # fmt: skip
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = (
            f"{str(path)!r} cannot be read: {reason}. Expected a CSV, JSONL or Parquet file. "
            "Check that it is complete, or export it again."
        )
        raise DataError(msg) from error


def _read_folder(
    folder: Path,
    rejects: Rejects,
    scalar: Container[str],
    given: Encoding | Container[str],
    notes: list[str],
) -> pa.Table:
    """Read all files in a folder as one table.

    ``given`` is either the encoding or the known column names that help to detect it.
    """
    parts = folders.find_parts(folder)
    found: list[tuple[Source, Encoding, str]] = []
    for part in parts:
        with readable(part.path):
            source = sources.find(part.path)
            encoding = given if isinstance(given, Encoding) else _encoding(source, given)
            found.append((source, encoding, _kind(source, encoding)))
    folders.check_kinds(folder, parts, [kind for _, _, kind in found])
    guesses: Counter[str] = Counter()  # in bytes, since a small part may be too short to guess from
    for source, encoding, _ in found:
        if encoding.example:
            guesses[encoding.name] += source.path.stat().st_size
    tables: list[pa.Table] = []
    remarks: list[list[str]] = []
    for part, (source, encoding, _) in zip(parts, found, strict=True):
        if encoding.example:
            encoding = replace(encoding, name=guesses.most_common(1)[0][0])
        own = Rejects(part.name, rejects.strict)
        remarks.append([])
        with readable(part.path):
            tables.append(_read_file(source, encoding, own, scalar, remarks[-1]))
        rejects.rows += own.rows
    said = [(part, one) for part, one in zip(parts, remarks, strict=True) if one]
    if said:
        part, first = said[0]
        notes += [f"{part.name}: {remark}" for remark in first]
    if len(said) > 1:
        notes.append(
            f"similar remarks apply to {quantity(len(said) - 1, 'other file')} in the folder"
        )
    optional = found[0][2] == "JSON"
    related = folders.relate(parts, tables, rejects, notes, optional=optional)
    if related is not None:
        return related
    if len(parts) > 1:
        notes.append(f"the {len(parts)} files of the folder are read as one table")
    return folders.join(folder, parts, tables, rejects, optional=optional)


def _encoding(source: Source, known: Container[str]) -> Encoding:
    """Detect the encoding of a file, unless it is a Parquet file, which needs none."""
    return Encoding("utf-8") if source.is_parquet else encodings.detect(source.open, known)


def _kind(source: Source, encoding: Encoding) -> str:
    """Return the kind of a file: Parquet, JSON or CSV."""
    if source.is_parquet:
        return "Parquet"
    with encodings.open_text(source.open, encoding.name) as stream:
        start = stream.read(1 << 16)
    if len(_CONTROLS.findall(start[:4096])) * 20 > len(start[:4096]) > 64:
        msg = (
            f"{str(source.path)!r} is not a text file. Expected CSV, JSON Lines or Parquet. Check "
            "the file, or name its encoding with --encoding."
        )
        raise DataError(msg)
    return "JSON" if json_files.is_json(source, start) else "CSV"


def _read_file(
    source: Source,
    encoding: Encoding,
    rejects: Rejects,
    scalar: Container[str],
    notes: list[str],
) -> pa.Table:
    """Read a file of any kind."""
    kind = _kind(source, encoding)
    if kind == "Parquet":
        return _read_parquet(source, notes)
    if kind == "JSON":
        table = json_files.read(source, encoding, rejects, scalar)
    else:
        table = delimited.read(source, encoding, rejects, notes)
    notes += _note_encoding(encoding, table)
    return table


def _read_parquet(source: Source, notes: list[str]) -> pa.Table:
    """Read a Parquet file, preserving its column types."""
    with source.open() as stream:
        content = pa.BufferReader(stream.read()) if source.packed else str(source.path)
    table = pq.ParquetFile(content).read()
    table.validate(full=True)  # other writers may have stored text that is not UTF-8
    return name_columns(table.column_names, table.columns, notes)


_CONTROLS = re.compile("[\0-\x08\x0e-\x1f]")


def _note_encoding(encoding: Encoding, table: pa.Table) -> list[str]:
    """Return remarks on a guessed encoding, and on cells that suggest a different one."""
    notes = []
    if encoding.example:
        notes.append(
            f"the text is read as {encoding.label}, for example {encoding.example!r}; if that is "
            "wrong, name the encoding with --encoding"
        )
    if encoding.ascii:
        return notes
    doubtful, example = 0, ""
    for column in table.columns:
        if pa.types.is_string(column.type):
            mask = pc.match_substring_regex(column, encodings.DOUBTFUL)
            count = int(pc.sum(mask).as_py() or 0)
            doubtful += count
            example = example or (column.filter(mask)[0].as_py() if count else "")
    if doubtful:
        notes.append(
            f"{quantity(doubtful, 'cell')} {'holds' if doubtful == 1 else 'hold'} characters that "
            f"suggest another encoding, such as {example[:100]!r}; pass --encoding NAME"
        )
    return notes
