"""Find and join the files of a table, or of several related tables, that are stored in a folder.

This module deals with file names and Arrow tables, not with reading files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from genrec.data.readers import relations
from genrec.data.readers.arrow import ROW, column_names, row_numbers
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.files import real_path

_NULL = "__HIVE_DEFAULT_PARTITION__"
_APART = 1_000_000_000  # more rows than a file has


@dataclass(frozen=True, slots=True)
class Part:
    """One of a folder's files.

    Attributes:
        path: the file.
        name: the path relative to the folder's parent, for use in messages.
        values: the column values that are encoded in folder names such as ``month=2024-05``.
    """

    path: Path
    name: str
    values: dict[str, str]


def find_parts(folder: Path) -> list[Part]:
    """List a folder's files in alphabetical order.

    Empty files, and files and folders whose names begin with ``_`` or ``.``, are skipped.

    Raises:
        DataError: there are no usable files, or the folder is a dataset that genrec wrote.
    """
    if (folder / "dataset.json").is_file():
        msg = (
            f"{str(folder)!r} is a dataset folder that `genrec prepare` wrote. Expected a file or a "
            "folder of files. Use it as it is, with --data or genrec.Dataset.load."
        )
        raise DataError(msg)
    parts = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and path.stat().st_size and not any(n[0] in "_." for n in inside):
            pairs = (name.partition("=") for name in inside[:-1] if "=" in name)
            values = {key: "" if value == _NULL else unquote(value) for key, _, value in pairs}
            parts.append(Part(path, "/".join([real_path(folder).name, *inside]), values))
    if not parts:
        msg = (
            f"The folder {str(folder)!r} has no files with data. Expected a CSV, JSON Lines or "
            "Parquet file, or a folder of them. Check the path."
        )
        raise DataError(msg)
    return parts


def check_kinds(folder: Path, parts: Sequence[Part], kinds: Sequence[str]) -> None:
    """Check that all files have the same format, such as CSV.

    Raises:
        DataError: there are several formats.
    """
    if len(set(kinds)) > 1:
        found = _listed([f"{p.name} ({kind})" for p, kind in zip(parts, kinds, strict=True)])
        msg = (
            f"The folder {str(folder)!r} holds files of different kinds: {found}. Expected the parts "
            "of one table. Pass one of the files, or move the others away."
        )
        raise DataError(msg)


def relate(
    parts: Sequence[Part],
    tables: Sequence[pa.Table],
    rejects: Rejects,
    notes: list[str],
    *,
    optional: bool,
) -> pa.Table | None:
    """Join tables that refer to each other by keys; see ``relations``.

    Args:
        parts: the files of the folder.
        tables: the table of each file.
        rejects: the object that records bad rows; it is told the file whose rows are the events.
        notes: the list of remarks.
        optional: see ``join``.

    Returns:
        The joined table, or None if the files are parts of one table or cannot be joined.
    """
    if len(tables) < 2 or all(_are_alike(tables[0], t, optional=optional) for t in tables):
        return None
    named = {part.path.name.split(".")[0]: n for n, part in enumerate(parts)}
    if len(named) < len(tables) or any(part.values for part in parts):
        return None
    found = relations.join_tables({name: tables[n] for name, n in named.items()}, notes)
    if found is None:
        return None
    root, table = found
    rejects.parts.append((1, parts[named[root]].name))
    return table


def _are_alike(first: pa.Table, other: pa.Table, *, optional: bool) -> bool:
    """Check whether two tables have the same columns, or mostly the same if some are optional."""
    names, theirs = set(column_names(first)), set(column_names(other))
    common = len(names & theirs) * 2
    return names == theirs or (optional and common >= max(len(names), len(theirs)))


def join(
    folder: Path,
    parts: Sequence[Part],
    tables: Sequence[pa.Table],
    rejects: Rejects,
    *,
    optional: bool,
) -> pa.Table:
    """Join the tables of all files into one, giving each row a unique number.

    Args:
        folder: the folder.
        parts: its files.
        tables: the table of each file.
        rejects: the object that records bad rows; it is told each file's first row number.
        optional: True if a file may lack up to half of the columns. JSON files lack columns that
            none of their rows have.

    Raises:
        DataError: the files have different columns, or columns of incompatible types.
    """
    for part, table in zip(parts, tables, strict=True):
        if not _are_alike(tables[0], table, optional=optional):
            msg = (
                f"The files of the folder {str(folder)!r} differ in their columns: {parts[0].name} "
                f"has {', '.join(column_names(tables[0]))}; {part.name} has "
                f"{', '.join(column_names(table))}. Expected the parts of one table, or tables of which "
                "one refers to the keys of the others. Pass one of the files, make their columns equal, or "
                "move files away that are not needed."
            )
            raise DataError(msg)
    start = 0
    numbered = []
    for part, table in zip(parts, tables, strict=True):
        rejects.parts.append((start + 1, part.name))
        rows = np.array(row_numbers(table), dtype=np.int64)
        table = table.select(column_names(table))
        for name, value in part.values.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.repeat(value, table.num_rows))
        numbered.append(table.append_column(ROW, pa.array(rows + start)))
        start += int(rows.max(initial=0)) + _APART
    try:
        return pa.concat_tables(numbered, promote_options="permissive")
    except pa.ArrowException as error:
        msg = (
            f"The files of the folder {str(folder)!r} cannot be joined: {error}. Expected the same "
            "column types in all files. Convert the columns that differ."
        )
        raise DataError(msg) from error


def _listed(names: Sequence[str]) -> str:
    """Join the first few names for a message."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
