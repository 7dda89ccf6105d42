"""Open files as decompressed bytes, and recognize their format by their content.

This module deals with compression and file formats only, not with encodings or columns.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from genrec.errors import DataError

_SAVE_AS_CSV = 'Open it in the program that wrote it and save the sheet as "CSV UTF-8".'
_TO_PARQUET = "Convert it to Parquet or CSV."
_FOREIGN = {  # what genrec does not read, by the first bytes
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", _SAVE_AS_CSV),
    b"SQLite format 3\0": (
        "a SQLite database",
        'Read it with a query: genrec prepare --sql "select ..." --url sqlite:///FILE.',
    ),
    b"ARROW1": ("an Arrow (Feather) file", _TO_PARQUET),
    b"ORC": ("an ORC file", _TO_PARQUET),
    b"Obj\x01": ("an Avro file", _TO_PARQUET),
    b"%PDF": ("a PDF document", "Export the table as CSV."),
    b"\x89PNG": ("an image", "Pass a table."),
    b"7z\xbc\xaf": ("a 7-Zip archive", "Unpack it first."),
    b"Rar!": ("a RAR archive", "Unpack it first."),
}
_TEXTS = {  # texts that are no tables, by their beginning in lower case
    b"<!doctype html": ("a web page", "It may be a page for signing in. Download the file again."),
    b"<html": ("a web page", "It may be a page for signing in. Download the file again."),
    b"<?xml": ("an XML document", "Export the table as CSV."),
    b"--\n-- postgresql database dump": (
        "a dump of a PostgreSQL database",
        "Export the table with: psql -c '\\copy TABLE to events.csv csv header'.",
    ),
    b"-- mysql dump": ("a dump of a MySQL database", "Export the table as CSV."),
    b"-- mariadb dump": ("a dump of a MariaDB database", "Export the table as CSV."),
    b"/*m!999999": ("a dump of a MariaDB database", "Export the table as CSV."),
}
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read.

    Attributes:
        path: the file.
        name: the file's name in lower case, without an ending such as .gz; for a zip archive, the
            name of the file inside it.
        start: the first bytes after decompression.
        packed: True if the file is compressed.
        open: a function that opens the file and decompresses it.
    """

    path: Path
    name: str
    start: bytes
    packed: bool
    open: Callable[[], BinaryIO]

    @property
    def is_parquet(self) -> bool:
        """Whether the content or the name indicates a Parquet file."""
        return self.start.startswith(b"PAR1") or self.name.endswith((".parquet", ".pq"))


def find(path: Path) -> Source:
    """Detect how a file is compressed, and return it as a source.

    Raises:
        DataError: the file has a format that cannot be read, or is a zip archive of several files.
    """
    name = path.name.lower()
    if name.endswith(_SPREADSHEETS):
        raise DataError(_spreadsheet(path))
    with path.open("rb") as stream:
        start = stream.read(8)
    plain: Callable[[], Any] = partial(path.open, "rb")
    opener = plain
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        inner = _member(path)
        name = inner.lower().rpartition("/")[2]
        opener = partial(_open_member, path, inner)
    for magic, unpack in _UNPACK.items():
        if start.startswith(magic):
            opener = partial(unpack, path)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    with opener() as stream:
        start = stream.read(512)
    for magic, (kind, advice) in _FOREIGN.items():
        if start.startswith(magic):
            msg = f"{str(path)!r} is {kind}. Expected CSV, JSON Lines or Parquet. {advice}"
            raise DataError(msg)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().replace(b"\r\n", b"\n").lower()
    for beginning, (kind, advice) in _TEXTS.items():
        if text.startswith(beginning):
            msg = f"{str(path)!r} is {kind}. Expected CSV, JSON Lines or Parquet. {advice}"
            raise DataError(msg)
    if opener is not plain and start.startswith(_ARCHIVES):
        msg = (
            f"{str(path)!r} is a compressed file that holds another compressed file. Expected a file "
            "that is compressed once. Unpack it and pass the file inside."
        )
        raise DataError(msg)
    return Source(path, name, start, opener is not plain, opener)


def _spreadsheet(path: Path) -> str:
    """Build the error message for a spreadsheet."""
    return f"{str(path)!r} is a spreadsheet. Expected CSV, JSON Lines or Parquet. {_SAVE_AS_CSV}"


def _member(path: Path) -> str:
    """Return the name of the only file in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/")]
    except (zipfile.BadZipFile, ValueError) as error:
        msg = f"{str(path)!r} cannot be read: {error}. Expected a zip archive with one table."
        raise DataError(msg) from error
    if "[Content_Types].xml" in names or "mimetype" in names:
        msg = f"{str(path)!r} is a spreadsheet. Expected CSV, JSON Lines or Parquet. {_SAVE_AS_CSV}"
        raise DataError(msg)
    names = [n for n in names if not n.startswith("__MACOSX/") and "/." not in f"/{n}"]
    if len(names) != 1:
        found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        msg = (
            f"{str(path)!r} holds {len(names)} files ({found or 'none'}). Expected a zip archive "
            "with one file. Unpack it and pass the file."
        )
        raise DataError(msg)
    return names[0]


def _open_member(path: Path, name: str) -> BinaryIO:
    """Open a file in a zip archive; closing it also closes the archive."""
    archive = zipfile.ZipFile(path)
    try:
        stream = archive.open(name)
    except RuntimeError as error:  # the archive is encrypted
        msg = f"{str(path)!r} cannot be read: {error}. Unpack it and pass the file."
        raise DataError(msg) from error
    finally:
        archive.close()  # the open member keeps its own handle
    return io.BufferedReader(stream)  # type: ignore[type-var]


def _open_zstd(path: Path) -> BinaryIO:
    """Open a file that was compressed with Zstandard."""
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))


_UNPACK: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}
