"""Read the files that ``Dataset.prepare`` is given, with remarks on what may be misread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from genrec.data.column_names import RoleNames
from genrec.data.columns import EVENT_ROLES
from genrec.data.readers import arrow
from genrec.data.readers.files import read as read_table
from genrec.data.readers.rejects import Rejects
from genrec.files import real_path


def name_of(source: str | Path | pa.Table, otherwise: str) -> str:
    """Return a file's name, or the given name if the source is a table."""
    return otherwise if isinstance(source, pa.Table) else real_path(source).name


def read_source(
    source: str | Path | pa.Table,
    roles: RoleNames,
    rejects: Rejects,
    *,
    encoding: str | None,
    notes: list[str],
) -> pa.Table:
    """Read a file, and reject rows with lists or objects in columns that need single values."""
    if isinstance(source, pa.Table):
        return source
    remarks: list[str] = []
    known = RoleNames(EVENT_ROLES, {})
    table = read_table(
        source, rejects=rejects, scalar=roles, known=known, encoding=encoding, notes=remarks
    )
    notes += [f"{rejects.source}: {remark}" for remark in remarks]
    return table


def add_parts(
    train: pa.Table,
    parts: Mapping[str, str | Path],
    roles: RoleNames,
    rejects: Rejects,
    reading: Callable[[str | Path, RoleNames, Rejects], pa.Table],
    log: Callable[[str], None],
) -> pa.Table:
    """Append the validation and test files to the train file, and add a split column.

    Raises:
        DataError: a file lacks a column that the user mapped.
    """
    tables = [(rejects, train)]
    bad: list[Rejects] = []
    for path in parts.values():
        log(f"Reading {path} ...")
        bad.append(Rejects(Path(path).name, rejects.strict))
        table = reading(path, roles, bad[-1])
        arrow.require_columns(table, sorted(roles.given), bad[-1].source)
        tables.append((bad[-1], table))
    for further in bad:
        rejects.rows += further.rows
    return arrow.stack(tables, "split", ["train", *parts], rejects)
