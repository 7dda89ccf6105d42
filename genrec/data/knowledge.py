"""Know what items have in common: columns of the catalog, and triples of a knowledge graph.

A triple (head, relation, tail) says something about an item, its head: ``(1, director, Lasseter)``. A
column of the catalog says the same in another form. Both are read as a name (of the column or of the
relation) with a set of values for each item. A cell of a column has several values if it is a list,
or a text with separators such as ``|`` or ``,``. Words are values of their own if they recur in
different cells, as tags do. Numbers with many different values are divided into ranges.

This module deals with items and texts, not with events or models.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.data.catalog import NEEDED, Catalog, Item
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, SettingsError
from genrec.text import one_line

COLUMNS = ("head", "relation", "tail")
_NAMES = {
    "head": ("head", "head_id", "item_id", "item", "subject"),
    "relation": ("relation", "relation_id", "predicate", "property"),
    "tail": ("tail", "tail_id", "entity", "entity_id", "object", "value"),
}
_SEPARATORS = ("|", ";", ",", ">")
_SEPARATED = 0.05  # the least share of cells with a separator that divides a column into values
_RANGES = 20  # the number of ranges for numbers with many different values
_MANY = 50  # more different numbers than this are divided into ranges
_MOST = 200  # maximum number of characters of a value

Values = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Triples:
    """Triples about the items of a catalog.

    Attributes:
        table: the triples, with the text columns head (an item_id), relation and tail.
    """

    table: pa.Table

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """The names of the relations, most frequent first."""
        return tuple(n for n, _ in Counter(self.table["relation"].to_pylist()).most_common())

    @cached_property
    def by_head(self) -> Mapping[str, Mapping[str, Values]]:
        """The tails of each item, by its id and by relation."""
        found: dict[str, dict[str, list[str]]] = {}
        for head, relation, tail in zip(*(self.table[n].to_pylist() for n in COLUMNS), strict=True):
            found.setdefault(head, {}).setdefault(relation, []).append(tail)
        return {h: {r: tuple(t) for r, t in tails.items()} for h, tails in found.items()}

    def hash(self) -> str:
        """Return a SHA-256 hash (hex) of all triples in their order."""
        digest = hashlib.sha256()
        for name in COLUMNS:
            for text in self.table[name].to_pylist():
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()


def read_triples(
    path: str | Path, catalog: Catalog, rejects: Rejects, links: str | Path | None = None
) -> Triples:
    """Read a file of triples about items.

    The columns are head, relation and tail, or have other usual names. The heads are item ids. In the
    knowledge graphs of RecBole (``NAME.kg``), they are ids of entities, and ``NAME.link`` beside the file
    says which item is which entity; a triple whose tail is an item then counts for this item, unless it
    repeats one in the other direction.

    Args:
        path: a CSV, JSONL or Parquet file, or a file of RecBole.
        catalog: the items.
        rejects: the object that records unusable rows: those with an empty cell, with a head that is no
            item, and those that repeat an earlier one.
        links: a file with the columns item_id and entity_id; None to look for ``NAME.link`` beside a file
            ``NAME.kg``.

    Raises:
        DataError: a file cannot be read, a column is missing, or no row is usable.
    """
    path = Path(path)
    table = _plain_names(files.read(path, rejects=rejects))
    columns = [_find_column(table, name, path.name) for name in COLUMNS]
    beside = path.with_suffix(".link")
    if links is None and path.suffix == ".kg" and beside.is_file():
        links = beside
    entities = None if links is None else _read_links(Path(links), catalog)
    cells = [[one_line(text) for text in arrow.to_strings(table[c])] for c in columns]
    numbers, heads, tails = arrow.row_numbers(table), cells[0], cells[2]
    kept: dict[tuple[str, str, str], None] = {}
    pairs: set[tuple[str, str]] = set()
    backward: list[int] = []
    for place, (head, relation, tail) in enumerate(zip(*cells, strict=True)):
        empty = [n for n, text in zip(COLUMNS, (head, relation, tail), strict=True) if not text]
        item = head if entities is None else entities.get(head)
        triple = (item or "", relation, tail)
        if empty:
            reason = f"empty {empty[0]}"
        elif item is None and entities is not None:
            backward.append(place)
            continue
        elif item not in catalog:
            reason = f"the head is not an item: {head!r}"
        elif triple in kept:
            reason = "repeats an earlier triple"
        else:
            kept[triple] = None
            pairs.add((triple[0], tail))
            continue
        rejects.add(numbers[place], reason, (head, relation, tail))
    for place in backward:
        head, relation, tail = (column[place] for column in cells)
        assert entities is not None
        item = entities.get(tail)
        if item is None:
            reason = "neither the head nor the tail is linked to an item"
        elif (item, head) in pairs:
            reason = "repeats an earlier triple in the other direction"
        elif (item, relation, head) in kept:
            reason = "repeats an earlier triple"
        else:
            kept[item, relation, head] = None
            continue
        rejects.add(numbers[place], reason, (head, relation, tail))
    if not kept:
        msg = (
            f"{path.name} has no usable triples{rejects.first_reason()}. Expected rows with the columns "
            "head (an item_id), relation and tail."
        )
        raise DataError(msg)
    del heads, tails
    columns_of_kept = zip(*kept, strict=True)
    return Triples(pa.table({n: list(c) for n, c in zip(COLUMNS, columns_of_kept, strict=True)}))


def _plain_names(table: pa.Table) -> pa.Table:
    """Remove the types that RecBole writes after column names."""
    return table.rename_columns([name.split(":")[0] for name in table.column_names])


def _find_column(table: pa.Table, name: str, source: str) -> str:
    found = arrow.column_names(table)
    lower = {n.strip().casefold(): n for n in reversed(found)}
    for usual in _NAMES[name]:
        if usual in lower:
            return lower[usual]
    msg = (
        f"{source} has no column {name}. Expected a file of triples with the columns head (an item_id), "
        f"relation and tail; found {', '.join(found)}. Rename the columns."
    )
    raise DataError(msg)


def _read_links(path: Path, catalog: Catalog) -> dict[str, str]:
    """Read which entity is which item; links of unknown items are left out."""
    table = _plain_names(files.read(path))
    arrow.require_columns(table, ["item_id", "entity_id"], path.name)
    items, entities = (arrow.to_strings(table[n]) for n in ("item_id", "entity_id"))
    return {e: i for i, e in zip(items, entities, strict=True) if i in catalog}


@dataclass(frozen=True)
class Knowledge:
    """The names of what is known about items, and where it is known from.

    Attributes:
        names: columns of the catalog and relations of the triples. A name that is both has the values
            of both.
        triples: the triples; None if there are none.
    """

    names: tuple[str, ...]
    triples: Triples | None = None

    def of(self, item: Item) -> dict[str, str]:
        """Return what is known about an item as texts by name, as its columns and its tails spell it."""
        return {name: ", ".join(parts) for name, parts in self._parts(item).items()}

    def _parts(self, item: Item) -> dict[str, list[str]]:
        tails = {} if self.triples is None else self.triples.by_head.get(item.item_id, {})
        known, found = item.known, {}
        for name in self.names:
            cell = known.get(name)
            parts = [*_elements(cell)] if isinstance(cell, list | tuple | np.ndarray) else []
            if not parts and cell is not None:
                parts = [_number(cell) if isinstance(cell, float) else one_line(str(cell))]
            if parts := [*dict.fromkeys([*parts, *tails.get(name, ())])]:
                found[name] = parts
        return found

    def shared(self, one: Item, other: Item) -> dict[str, str]:
        """Return the values that two items have in common, by name, as the second item spells them.

        A text with separators such as ``|`` counts as several values. The same item shares everything.

        >>> known = Knowledge(("brand", "genre"))
        >>> mug = Item("1", "Mug", {"brand": "Acme", "genre": "Drama|Comedy"})
        >>> known.shared(mug, Item("2", "Cup", {"brand": "Other", "genre": "comedy|Crime"}))
        {'genre': 'comedy'}
        """
        found, own = {}, self._parts(one)
        for name, parts in self._parts(other).items():
            values = {v.casefold() for part in own.get(name, []) for v in _pieces(part)}
            both = [v for part in parts for v in _pieces(part) if v.casefold() in values]
            if both:
                found[name] = ", ".join(dict.fromkeys(both))
        return found

    def values(self, catalog: Catalog) -> dict[str, list[Values]]:
        """Return the values of each of N items by name, folded so that case makes no difference."""
        tails = {} if self.triples is None else self.triples.by_head
        found = {}
        for name in self.names:
            cells: list[Values] = [()] * len(catalog)
            if name in catalog.columns:
                cells = read_cells([item.known.get(name) for item in catalog])
            for row, item in enumerate(catalog):
                own = tails.get(item.item_id, {}).get(name)
                if own:
                    cells[row] = (*dict.fromkeys([*cells[row], *map(str.casefold, own)]),)
            found[name] = cells
        return found

    def hash(self, catalog: Catalog) -> str:
        """Return a SHA-256 hash (hex) of the names and of everything that is known about the items."""
        digest = hashlib.sha256(repr(self.names).encode())
        for name, cells in self.values(catalog).items():
            digest.update(repr((name, cells)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def check_names(names: Sequence[str], catalog: Catalog, triples: Triples | None) -> list[str]:
    """Return the names without duplicates.

    Raises:
        SettingsError: a name is neither a column of the catalog nor a relation of the triples.
    """
    known = [n for n in catalog.columns if n not in NEEDED]
    known += [] if triples is None else [n for n in triples.relations if n not in known]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            msg = (
                f"{name!r} is neither a column of the items nor a relation of the triples. "
                f"{f'Did you mean {close[0]!r}? ' if close else ''}Expected one or more of: "
                f"{', '.join(known) or 'none, since the items have no further columns'}."
            )
            raise SettingsError(msg)
    return list(dict.fromkeys(names))


def read_cells(cells: Sequence[object]) -> list[Values]:
    """Read the values of the N cells of a column; see the module's docstring.

    >>> read_cells(["Drama|Comedy", "Drama", None])
    [('drama', 'comedy'), ('drama',), ()]
    >>> read_cells([["A", "B"], 3, True])
    [('a', 'b'), ('3',), ('true',)]
    """
    numbers = _numbers(cells)
    if numbers is not None:
        return numbers
    texts = [
        [*_elements(c)] if isinstance(c, list | tuple | np.ndarray) else _text(c) for c in cells
    ]
    split = _splitter([t for t in texts if isinstance(t, str) and t])
    found = []
    for text in texts:
        parts = split(text) if isinstance(text, str) else text
        folded = (one_line(p).casefold()[:_MOST] for p in parts)
        found.append(tuple(dict.fromkeys(p for p in folded if p)))
    return found


def _elements(cell: Any) -> list[str]:
    return [text for part in cell if (text := _text(part))]


def _pieces(text: str) -> list[str]:
    """Divide a text at the first kind of separator that it has."""
    separator = next((s for s in _SEPARATORS if s in text), None)
    parts = [text] if separator is None else text.split(separator)
    return [p for part in parts if (p := part.strip())]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return _number(value) if isinstance(value, float) else one_line(str(value))


def _number(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() else str(value)


def _numbers(cells: Sequence[object]) -> list[Values] | None:
    """Divide numbers with many different values into ranges; None for all other columns."""
    values = np.full(len(cells), np.nan)
    for place, cell in enumerate(cells):
        if cell is None or cell == "":
            continue
        if isinstance(cell, bool) or not isinstance(cell, int | float | str):
            return None
        try:
            values[place] = float(cell)
        except (ValueError, OverflowError):
            return None
    known = values[np.isfinite(values)]
    whole = bool((known == np.floor(known)).all())
    if len(np.unique(known)) <= _MANY or (whole and 4 * len(np.unique(known)) < len(known)):
        return None
    bounds = np.unique(np.quantile(known, np.linspace(0, 1, _RANGES + 1)[1:-1]))
    places = np.searchsorted(bounds, values)
    return [(f"range {p}",) if np.isfinite(v) else () for v, p in zip(values, places, strict=True)]


def _splitter(texts: Sequence[str]) -> Any:
    """Return the function that divides the texts of a column into values."""
    for separator in _SEPARATORS:
        if sum(separator in text for text in texts) > _SEPARATED * len(texts):
            return lambda text: text.split(separator)
    cells, words = set(texts), {word for text in texts for word in text.split()}
    if 2 * len(words) < len(cells):
        return str.split
    return lambda text: [text]
