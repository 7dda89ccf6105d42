"""Read a file as an Arrow table, whatever its format, encoding and compression.

The content of a file, more than its name, tells what it is. A malformed row or an invalid byte
affects only that row, not the whole file.
"""

from __future__ import annotations

import csv
import lzma
import re
import zlib
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec.data.readers import delimited, encodings, json_files, sources
from genrec.data.readers.encodings import Encoding
from genrec.data.readers.rejects import Rejects
from genrec.data.readers.sources import Source
from genrec.errors import DataError
from genrec.text import quantity


def read(
    path: str | Path,
    *,
    rejects: Rejects | None = None,
    scalar: Collection[str] = (),
    encoding: str | None = None,
    notes: list[str] | None = None,
) -> pa.Table:
    """Read a CSV, JSON or Parquet file as a table.

    CSV may have any usual delimiter, and JSON may be JSON Lines or an array of objects. The file may
    be compressed (gzip, bzip2, xz, Zstandard, or a zip archive with one file).

    Args:
        path: the file.
        rejects: the record of rows that cannot be parsed; if it is None, the first one raises an
            error.
        scalar: columns that must not contain a JSON list or object; rows that do are rejected.
        encoding: the encoding of a text file, such as ``cp1252``; None detects it.
        notes: receives remarks for the user, such as an encoding that was guessed.

    Returns:
        A table. For CSV and JSON, all columns are strings, with empty strings for empty cells, and
        the column ROW holds each row's number in the file. For Parquet, column types are preserved.

    Raises:
        DataError: the file is missing, is empty, has an unknown format, or cannot be read.
        SettingsError: the encoding is unknown.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        msg = f"{str(path)!r} {problem}. Expected a CSV, JSONL or Parquet file. Check the path."
        raise DataError(msg)
    rejects = rejects if rejects is not None else Rejects(path.name, strict=True)
    notes = notes if notes is not None else []
    given = encodings.named(encoding) if encoding is not None else None
    try:
        source = sources.find(path)
        if source.is_parquet:
            return _read_parquet(source)
        found = given or encodings.detect(source.open)
        table = _read_text(source, found, rejects, scalar, notes)
    except (
        pa.ArrowException, OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, csv.Error,
    ) as error:  # fmt: skip
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = (
            f"{str(path)!r} cannot be read: {reason}. Expected a CSV, JSONL or Parquet file. "
            "Check that it is complete, or export it again."
        )
        raise DataError(msg) from error
    notes += _note_encoding(source, found, table)
    return table


def _read_parquet(source: Source) -> pa.Table:
    """Read a Parquet file, preserving its column types."""
    with source.open() as stream:
        content = pa.BufferReader(stream.read()) if source.packed else str(source.path)
    delimited.check_distinct(source.path, pq.ParquetFile(content).schema_arrow.names)
    table = pq.ParquetFile(content).read()
    table.validate(full=True)  # other writers may have stored text that is not UTF-8
    return table


def _read_text(
    source: Source,
    encoding: Encoding,
    rejects: Rejects,
    scalar: Collection[str],
    notes: list[str],
) -> pa.Table:
    """Read a CSV or JSON file."""
    with encodings.open_text(source.open, encoding.name) as stream:
        start = stream.read(1 << 16)
    if len(_CONTROLS.findall(start[:4096])) * 10 > len(start[:4096]) > 64:
        msg = (
            f"{str(source.path)!r} is not a text file. Expected CSV, JSON Lines or Parquet. Check "
            "the file, or name its encoding with --encoding."
        )
        raise DataError(msg)
    if json_files.is_json(source, start):
        return json_files.read(source, encoding, rejects, scalar)
    return delimited.read(source, encoding, rejects, notes)


_CONTROLS = re.compile("[\0-\x08\x0e-\x1f\ufdd0]")


def _note_encoding(source: Source, encoding: Encoding, table: pa.Table) -> list[str]:
    """Return remarks on an encoding that was guessed, and on cells that speak against it."""
    notes = []
    name = source.path.name
    if encoding.example:
        notes.append(
            f"{name} is read as {encoding.label}, for example {encoding.example!r}; if that is "
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
            f"{quantity(doubtful, 'cell')} of {name} hold characters that suggest another encoding, "
            f"such as {example!r:.100}; pass --encoding NAME"
        )
    return notes
