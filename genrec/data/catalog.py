"""The catalog, which holds the id, title and attributes of every item, indexed by row."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from genrec.data.readers import arrow, files, huggingface
from genrec.data.readers.numbers import other_spelling
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, RequestError
from genrec.text import normalized, visible

NEEDED = ("item_id", "title")
LONGEST_ID = 500  # characters of an id of an item or a user; databases cannot index longer ones
NOT_AN_ID = f"has more than {LONGEST_ID} characters or contains a NUL character"
MISSING = {"", "nan", "null", "<na>", "#n/a", "n/a"}  # missing values in exported tables


@dataclass(frozen=True, slots=True)
class Item:
    """An item with its id (a string from the data), its original title, and any other columns."""

    item_id: str
    title: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Any]:
        """The attributes that have a value. None, NaN and text such as "n/a" count as missing.

        >>> Item("1", "Mug", {"brand": "Acme", "price": "NaN", "size": None, "shop": " "}).known
        {'brand': 'Acme'}
        """
        return {n: v for n, v in self.attributes.items() if not _missing(v)}


def _missing(value: object) -> bool:
    """Check whether a value counts as missing."""
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or (isinstance(value, float) and value != value)


class Catalog:
    """A catalog of N items.

    Callers identify an item by its ``item_id``; internally, the library uses its row (0 to N - 1).
    Rows are in file order. Titles may be repeated: rows with the same title are separate items. Ids
    must be unique, and a title must have at least one visible character.
    """

    def __init__(
        self,
        items: Iterable[object],
        *,
        numbers: Iterable[int] | None = None,
        rejects: Rejects | None = None,
    ) -> None:
        """Build a catalog.

        Args:
            items: the ``Item`` objects in row order.
            numbers: the number that identifies each item in messages; if None, the items are
                numbered from 1.
            rejects: the object that records unusable items; if it is None, the first one raises an
                error.

        Raises:
            DataError: an id is empty or repeated, a title is empty, or no item is usable.
        """
        rejects = rejects if rejects is not None else Rejects("items", strict=True)
        self._items: list[Item] = []
        self._row: dict[str, int] = {}
        given = enumerate(items, 1) if numbers is None else zip(numbers, items, strict=True)
        where: dict[str, int] = {}
        for number, item in given:
            problem = self._problem(item, where)
            if problem or not isinstance(item, Item):
                rejects.add(number, problem, [getattr(item, "item_id", item), *_title(item)])
                continue
            where[item.item_id] = number
            self._row[item.item_id] = len(self._items)
            self._items.append(item)
        if not self._items:
            msg = (
                f"The catalog has no items: {rejects.source} has no usable rows"
                f"{rejects.first_reason()}. Expected at least one with an item_id and a title. "
                "Check the items file."
            )
            raise DataError(msg)
        self._columns: dict[str, pa.Array] = {}
        self._by_title: dict[str, list[int]] | None = None
        self._by_normalized: dict[str, list[int]] = {}

    def _problem(self, item: object, where: Mapping[str, int]) -> str:
        """Return the reason why an item is unusable, or an empty string if it is usable.

        Args:
            item: the item to check.
            where: maps the ids of the earlier items to their numbers.
        """
        if not isinstance(item, Item):
            return f"not an Item but a {type(item).__name__}"
        kinds = [type(part).__name__ for part in (item.item_id, item.title)]
        if kinds != ["str", "str"]:
            return f"item_id and title have the types {' and '.join(kinds)}; both must be text"
        if not item.item_id:
            return "empty item_id"
        if len(item.item_id) > LONGEST_ID or "\0" in item.item_id:
            return f"item_id {NOT_AN_ID}"
        if item.item_id in where:
            return f"duplicate item_id {item.item_id!r} (first in data row {where[item.item_id]})"
        if not visible(item.title):
            return "empty title"
        if {"item_id", "title"} & item.attributes.keys():
            return "an attribute is named item_id or title"
        return ""

    @classmethod
    def from_table(cls, table: pa.Table, *, rejects: Rejects | None = None) -> Catalog:
        """Build a catalog from an Arrow table with the columns item_id and title.

        Raises:
            DataError: a column is missing, or an item is unusable (see ``Catalog``).
        """
        rejects = rejects or Rejects("items", strict=True)
        arrow.require_columns(table, list(NEEDED), rejects.source)
        ids = arrow.to_strings(table["item_id"])
        titles = arrow.to_strings(table["title"])
        names = [n for n in table.column_names if n not in {"item_id", "title", arrow.ROW}]
        columns = [arrow.to_values(table, n) for n in names]
        rows = zip(*columns, strict=True) if columns else iter([()] * len(ids))
        return cls(
            (
                Item(i, t, dict(zip(names, values, strict=True)))
                for i, t, values in zip(ids, titles, rows, strict=True)
            ),
            numbers=arrow.row_numbers(table),
            rejects=rejects,
        )

    @classmethod
    def read(cls, path: str | Path, *, rejects: Rejects | None = None) -> Catalog:
        """Read a catalog from a CSV, JSONL (optionally gzipped) or Parquet file.

        Raises:
            DataError: the file cannot be read, or is not a valid catalog (see ``from_table``).
        """
        rejects = rejects or Rejects(Path(path).name, strict=True)
        return cls.from_table(files.read(path, rejects=rejects, scalar=NEEDED), rejects=rejects)

    @classmethod
    def from_hf(
        cls,
        data: Any,
        split: str | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        rejects: Rejects | None = None,
    ) -> Catalog:
        """Build a catalog from a Hugging Face dataset with the columns item_id and title.

        Args:
            data: a ``datasets.Dataset``, or the id of a dataset on the hub.
            split: the part of the dataset to read; see ``genrec.data.readers.huggingface.read``.
            columns: maps genrec's column names to those in the dataset, such as ``{"title":
                "name"}``.
            rejects: the object that records unusable items; if it is None, the first one raises an
                error.

        Raises:
            DataError: the dataset cannot be loaded, or is not a valid catalog (see ``from_table``).
        """
        rejects = rejects or Rejects(huggingface.display_name(data, "items"), strict=True)
        table = arrow.rename(huggingface.read(data, split), columns or {}, rejects.source)
        return cls.from_table(table, rejects=rejects)

    def to_table(self) -> pa.Table:
        """Return an Arrow table with item_id, title and the attributes, one row per item."""
        return pa.table({name: self.column(name) for name in self.columns})

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The column names: item_id, title, then all attributes in order of first appearance."""
        attributes = dict.fromkeys(n for item in self._items for n in item.attributes)
        return (*NEEDED, *attributes)

    def column(self, name: str) -> pa.Array:
        """Return the (N,) values of a column, with null for items that lack it.

        Columns are built once and then cached.

        Raises:
            KeyError: no item has the column; see ``columns``.
        """
        if name not in self.columns:
            raise KeyError(name)
        if name not in self._columns:
            if name in NEEDED:
                values = [getattr(i, name) for i in self._items]
                self._columns[name] = pa.array(values, pa.string())
            else:
                self._columns[name] = _column([i.attributes.get(name) for i in self._items])
        return self._columns[name]

    def edited(self, add: Sequence[Item] = (), change: Sequence[Item] = ()) -> Catalog:
        """Return a new catalog with added and changed items; existing items keep their rows.

        Args:
            add: items with new ids; they get the next free rows.
            change: items with existing ids; each one replaces the item with the same id.

        Raises:
            DataError: an item is unusable (see ``Catalog``).
            RequestError: the id of a changed item is not in the catalog.
        """
        items = list(self._items)
        for item in change:
            row = self.row(item.item_id)
            item = replace(item, item_id=items[row].item_id)
            if problem := self._problem(item, {}):
                msg = (
                    f"Item {item.item_id!r} cannot be changed: {problem}. Expected a title with "
                    "visible characters."
                )
                raise DataError(msg)
            items[row] = item
        where = dict.fromkeys(self._row, 0)
        for item in add:
            if problem := self._problem(item, where):
                known = item.item_id in self._row if isinstance(item, Item) else False
                why = "its id is already in the catalog" if known else problem
                msg = f"{item!r:.100} cannot be added: {why}. Expected an Item with a new id."
                raise DataError(msg)
            where[item.item_id] = 0
        new = copy.copy(self)
        new._items = [*items, *add]
        new._row = dict(zip(where, range(len(where)), strict=True))
        new._columns, new._by_title, new._by_normalized = {}, None, {}
        new.__dict__.pop("columns", None)
        return new

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, row: int) -> Item:
        return self._items[row]

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._row

    @property
    def titles(self) -> list[str]:
        """The original titles, indexed by row."""
        return [i.title for i in self._items]

    def row(self, item_id: str) -> int:
        """Return the row of an item.

        Args:
            item_id: the item's id. If it is not in the catalog, a whole number also matches the
                same number with ``.0`` added or removed: ``17841`` finds ``17841.0``, and vice
                versa.

        Raises:
            RequestError: the id is not in the catalog.
        """
        try:
            return self._row[item_id]
        except (KeyError, TypeError):  # TypeError: the id is not hashable
            other = other_spelling(item_id)
            if other in self._row:
                return self._row[other]
            msg = (
                f"Item {item_id!r} is not in the catalog of {len(self):,} items. "
                "Expected an item_id from the items file."
            )
            raise RequestError(msg) from None

    def rows(self, item_ids: Sequence[str]) -> list[int]:
        """Return the rows of several items. An unknown id raises the same error as in ``row``."""
        return [self.row(i) for i in item_ids]

    def rows_of_title(self, title: str) -> tuple[list[int], str]:
        """Find the items with a given title.

        The title is first compared exactly, and then without regard to case and punctuation
        (``text.normalized``).

        Returns:
            The rows in order (several if items share the title), and the kind of match: ``exact``,
            ``normalized``, or an empty string if no title matches.
        """
        if self._by_title is None:
            by_title: dict[str, list[int]] = {}
            for row, item in enumerate(self._items):
                by_title.setdefault(item.title, []).append(row)
                self._by_normalized.setdefault(normalized(item.title), []).append(row)
            self._by_title = by_title
        if title in self._by_title:
            return list(self._by_title[title]), "exact"
        text = normalized(title)
        rows = self._by_normalized.get(text, []) if text else []
        return list(rows), "normalized" if rows else ""

    def hash(self) -> str:
        """Return the SHA-256 hash (hex) of all ids and titles in row order."""
        digest = hashlib.sha256()
        for item in self._items:
            for part in (item.item_id, item.title):
                data = part.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()


def _title(item: object) -> list[object]:
    """Return an item's title in a list, or an empty list if the object is not an item."""
    return [item.title] if isinstance(item, Item) else []


def _column(values: list[Any]) -> pa.Array:
    """Build an Arrow column, converting mixed types and integers that do not fit in 64 bits to text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        # pandas represents missing text as NaN.
        missing = [v is None or (isinstance(v, float) and v != v) for v in values]
        return pa.array(
            [None if gone else str(v) for v, gone in zip(values, missing, strict=True)], pa.string()
        )
