"""Read the rows of a batch: users, typed histories or sessions, one per row of a file.

Every row is either usable or has a problem, which says why it is rejected. No row is lost: rows of the
file that cannot be parsed are among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.data.readers import files
from genrec.data.readers.arrow import column_names, is_list, row_numbers, to_strings
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.text import quantity

if TYPE_CHECKING:
    import pyarrow as pa

WAYS = ("user_id", "history", "items")  # the columns of which a file has exactly one
SEPARATOR = "|"  # between the items of a session in a text file
_SHOWN = 5  # maximum number of unknown items that a note names


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a batch.

    Attributes:
        number: the number of the row in its file, starting at 1; without a file, the number of the user.
        name: the user's id, or the value of the column ``id``, or "".
        history: the history, or None if the row is rejected.
        problem: the reason why the row is rejected, or "".
        notes: remarks on the history.
    """

    number: int
    name: str
    history: History | str | None
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Cells:
    number: int
    name: str
    value: Any
    problem: str = ""


class Rows:
    """The rows of a batch in the order of their file.

    Attributes:
        kind: what the rows hold, one of ``WAYS``.
    """

    def __init__(self, dataset: Dataset, cells: list[_Cells], kind: str, behavior: str) -> None:
        self._dataset, self._cells, self.kind = dataset, cells, kind
        self._behavior, self._users = behavior, frozenset(dataset.interactions.user_ids)

    def __len__(self) -> int:
        return len(self._cells)

    @classmethod
    def read(cls, dataset: Dataset, path: Path | None, behavior: str) -> Rows:
        """Read a file, or take all users of the dataset.

        Args:
            dataset: the dataset.
            path: a CSV, JSON or Parquet file with one of the columns ``user_id`` (users of the dataset),
                ``history`` (typed histories) and ``items`` (the item_ids of a session, oldest first: a list,
                or separated by ``|``), and optionally a column ``id``, which names the rows. None takes the
                users of the dataset in its order.
            behavior: the behavior of the items of a session.

        Raises:
            DataError: the file cannot be read, or has none or several of these columns.
        """
        if path is None:
            users = dataset.interactions.user_ids
            return cls(
                dataset, [_Cells(n, u, u) for n, u in enumerate(users, 1)], WAYS[0], behavior
            )
        if path.is_dir():
            msg = f"{str(path)!r} is a folder. Expected one CSV, JSONL or Parquet file."
            raise DataError(msg)
        rejects = Rejects(path.name)
        table = files.read(path, rejects=rejects, scalar=("user_id", "history"))
        given = [name for name in WAYS if name in table.column_names]
        if len(given) != 1:
            msg = (
                f"{path.name} has {' and '.join(given) or 'none of the columns that name a history'}. "
                f"Expected exactly one of the columns {', '.join(WAYS)}; found "
                f"{', '.join(column_names(table)) or 'none'}. Rename the column or leave the others out."
            )
            raise DataError(msg)
        cells = [_Cells(number, "", None, reason) for _, number, reason, _ in rejects.rows]
        cells += _cells(table, given[0])
        return cls(
            dataset,
            _without_repeats(sorted(cells, key=lambda c: c.number), given[0]),
            given[0],
            behavior,
        )

    def part(self, start: int, stop: int) -> Iterator[Row]:
        """Yield the rows from ``start`` up to ``stop``, counted from 0."""
        for cells in self._cells[start:stop]:
            yield self._row(cells)

    def _row(self, cells: _Cells) -> Row:
        number, name = cells.number, cells.name
        if cells.problem:
            return Row(number, name, None, cells.problem)
        if self.kind == "user_id":
            if cells.value not in self._users:
                return Row(number, name, None, f"user {cells.value!r} is not in the dataset")
            return Row(number, name, self._dataset.interactions.history(cells.value))
        if self.kind == "history":
            return Row(number, name, cells.value)
        return self._session(cells)

    def _session(self, cells: _Cells) -> Row:
        ids = cells.value
        known = [i for i in ids if i in self._dataset.catalog]
        unknown = [i for i in ids if i not in self._dataset.catalog]
        if ids and not known:
            return Row(
                cells.number,
                cells.name,
                None,
                f"no item of the session is in the catalog: {unknown[0]!r}",
            )
        notes: tuple[str, ...] = ()
        if unknown:
            named = ", ".join(repr(i) for i in unknown[:_SHOWN])
            notes = (
                f"{quantity(len(unknown), 'item')} of the session not in the catalog: {named}.",
            )
        events = tuple(Interaction(i, self._behavior) for i in known)
        return Row(cells.number, cells.name, History(events), "", notes)


def _cells(table: pa.Table, way: str) -> list[_Cells]:
    """Return the cells of the rows that could be parsed."""
    column = table[way]
    values: list[Any] = column.to_pylist() if is_list(column.type) else to_strings(column)
    names = to_strings(table["id"]) if "id" in table.column_names else [""] * table.num_rows
    found = []
    for number, value, name in zip(row_numbers(table), values, names, strict=True):
        if way == "items":
            found.append(_Cells(number, name, *_items(value)))
        elif is_list(column.type):
            found.append(_Cells(number, name, "", f"{way} is a list; expected text"))
        elif way == "user_id":
            found.append(_Cells(number, value, value, "" if value else "user_id is empty"))
        else:
            found.append(_Cells(number, name, value))
    return found


def _items(value: Any) -> tuple[list[str], str]:
    """Return the item ids of a session, and the reason if the cell cannot be understood."""
    given = value
    if isinstance(given, str) and given.startswith("["):
        try:
            given = json.loads(given)
        except ValueError:
            return [], f"items is not a list of item_ids: {value[:40]!r}"
    elif isinstance(given, str):
        given = [part.strip() for part in given.split(SEPARATOR)]
    if given is None:
        return [], ""
    if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in given):
        return [], f"items is not a list of item_ids: {str(value)[:40]!r}"
    return [str(v) for v in given if str(v)], ""


def _without_repeats(cells: list[_Cells], kind: str) -> list[_Cells]:
    """Reject every row with a user or an id that an earlier row has."""
    first: dict[str, int] = {}
    what = "user" if kind == "user_id" else "id"
    found = []
    for one in cells:
        if (
            not one.problem
            and one.name
            and (before := first.setdefault(one.name, one.number)) != one.number
        ):
            problem = f"the same {what} as row {before}"
            found.append(_Cells(one.number, one.name, one.value, problem))
        else:
            found.append(one)
    return found
