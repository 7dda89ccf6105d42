"""Keep the catalog together with its trie, its edits, its filters and the data derived from it.

This module works with items and catalog rows, not with prompts or models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from genrec.cache import Cache, digest_code
from genrec.config import QueryOptions
from genrec.data.catalog import Catalog, Item
from genrec.data.groups import Groups, load_groups
from genrec.data.stock import Stock, StockFile
from genrec.decoding.filters import Filter
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, ModelError, RequestError
from genrec.pipeline.predicates import Predicate
from genrec.prompts.encoder import Encoder, TextEncoder
from genrec.types import IntArray, Log

_NEAR, _ALIKE = 3, 80  # at most 3 titles are suggested, with a similarity of at least 80 percent
_SHOWN = 5  # a message names at most this many items with the same title
_CONDITIONS = 32  # the results of at most this many conditions are cached
_LARGE = 5_000  # building a trie of more titles than this takes a moment, so it is logged

T = TypeVar("T")


class Order(Protocol):
    """An order of the items, such as that of a trie. Filters refer to items by position."""

    @property
    def n_positions(self) -> int:
        """The number of positions."""

    @property
    def n_items(self) -> int:
        """The number of items that can be recommended."""

    def positions_of(self, rows: IntArray) -> IntArray:
        """Return the positions of the given catalog rows, in ascending order.

        Removed items are left out.
        """

    def find_positions(self, rows: IntArray) -> IntArray:
        """Return the position of each of the given catalog rows, or -1 for a removed item."""


class RowOrder:
    """The order of the catalog's rows, for requests that are answered without a trie."""

    def __init__(self, n_rows: int, removed: Collection[int]) -> None:
        """Store the number of rows and the set of removed rows."""
        self.n_positions = n_rows
        self.n_items = n_rows - len(removed)
        self._there = np.ones(n_rows, dtype=np.bool_)
        self._there[list(removed)] = False

    def positions_of(self, rows: IntArray) -> IntArray:
        """Return the given catalog rows in ascending order, without the rows of removed items.

        In this order, the position of an item is its catalog row.
        """
        rows = np.unique(np.asarray(rows, dtype=np.int64))
        return rows[self._there[rows]]

    def find_positions(self, rows: IntArray) -> IntArray:
        """Return the given catalog rows, with -1 in place of the rows of removed items."""
        return np.where(self._there[rows], rows, -1)


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit to the catalog.

    Attributes:
        add: the new items.
        remove: the ids of items to remove.
        change: items that replace the items with the same ids. A removed item that is listed here is
            restored.
    """

    add: Sequence[Item] = ()
    remove: Sequence[str] = ()
    change: Sequence[Item] = ()


class CatalogIndex:
    """A catalog with its edits, its trie, and cached data that is valid until the next edit.

    Attributes:
        catalog: all items, including removed ones, since histories still show them.
        removed: the rows of removed items.
    """

    def __init__(
        self,
        catalog: Catalog,
        encoder: Callable[[], Encoder | TextEncoder],
        log: Log = lambda message: None,
        cache: Cache | None = None,
    ) -> None:
        """Store the catalog. The trie is built when it is first needed.

        Args:
            catalog: the catalog.
            encoder: a function that returns the encoder of titles.
            log: a function that is called with a line of text before a large trie is built.
            cache: the cache in which the trie is kept; None to keep it in memory only.
        """
        self.catalog = catalog
        self.removed: set[int] = set()
        self._encoder, self._log = encoder, log
        self._cache = cache or Cache(None)
        self._trie: TitleTrie | LiveTrie | None = None
        self._building = threading.RLock()
        self._made: dict[Hashable, Any] = {}
        self._stocks: dict[str, StockFile] = {}

    @property
    def trie(self) -> TitleTrie | LiveTrie:
        """The trie (prefix tree) of all titles that can be recommended; of bytes without token ids."""
        with self._building:
            if self._trie is None:
                trie = self._find_trie()
                self._trie = LiveTrie(trie).edited({}, self.removed) if self.removed else trie
            return self._trie

    def _find_trie(self) -> TitleTrie:
        """Read the trie of all titles from the cache, or build it and store it there."""
        encoder, digest = self.encoder, None
        if self._cache.folder is not None:
            digest = encoder.digest
        about = {
            "code": digest_code("data", "prompts", "decoding", "text.py"),
            "catalog": self.catalog.hash(),
            "encoder": digest,
        }
        found = self._cache.read("trie", about) if digest else None
        if found is not None:
            return TitleTrie.from_arrays(*found)
        if len(self.catalog) > _LARGE:
            self._log(f"Building the trie of {len(self.catalog):,} titles ...")
        trie = TitleTrie(encoder.titles(self.catalog))
        if digest:
            self._cache.write("trie", about, *trie.to_arrays())
        return trie

    @property
    def encoder(self) -> Encoder | TextEncoder:
        """The encoder that turns titles into token ids, or into bytes for a model without them."""
        return self._encoder()

    def order(self, *, by_rows: bool) -> Order:
        """Return the order of items that filters refer to.

        Args:
            by_rows: True for the order of catalog rows, False for the positions of the trie.
        """
        if not by_rows:
            return self.trie
        return self.made("rows", lambda: RowOrder(len(self.catalog), self.removed))

    def made(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return a value that is derived from the catalog, and cache it until the next edit.

        Args:
            name: the key under which the value is cached.
            make: a function that computes the value if it is not in the cache.
        """
        with self._building:
            if name not in self._made:
                self._made[name] = make()
            return cast("T", self._made[name])

    @property
    def groups(self) -> Groups:
        """The groups of variants of one product."""
        return self.made("groups", lambda: load_groups(self.catalog, self._cache))

    def additions(self, items: Iterable[Item]) -> Edit:
        """Create the edit that adds items. Items that were removed before are restored.

        Raises:
            DataError: the argument is not a list of items.
        """
        try:
            given = list(items)
        except TypeError:
            msg = f"items is of type {type(items).__name__}. Expected a list of Items."
            raise DataError(msg) from None
        back = {
            i.item_id
            for i in given
            if isinstance(i, Item)
            and i.item_id in self.catalog
            and self.catalog.row(i.item_id) in self.removed
        }
        new = [i for i in given if getattr(i, "item_id", None) not in back]
        return Edit(add=new, change=[i for i in given if getattr(i, "item_id", None) in back])

    def retitled(self, titles: Mapping[str, str]) -> Edit:
        """Create the edit that changes titles.

        Args:
            titles: a mapping from item_id to the new title.

        Raises:
            RequestError: the argument is not a mapping, or an id is not in the catalog or was removed.
            DataError: a title is empty.
        """
        kind: object = titles  # checked for callers without a type checker
        if not isinstance(kind, Mapping):
            msg = f"titles is of type {type(titles).__name__}. Expected a mapping from item_id to title."
            raise RequestError(msg)
        changed = []
        for item_id, title in titles.items():
            row = self.catalog.row(item_id)
            if row in self.removed:
                msg = f"Item {item_id!r} was removed. Expected an item that can be recommended; add it again first."
                raise RequestError(msg)
            changed.append(replace(self.catalog[row], title=title))
        return Edit(change=changed)

    def since(self, known: Catalog) -> tuple[Edit, Edit]:
        """Return the edits that turn an earlier version of the catalog into the current one."""
        now = self.catalog
        return (
            Edit(
                add=[now[r] for r in range(len(known), len(now))],
                change=[now[r] for r, i in enumerate(known) if now[r] != i],
            ),
            Edit(remove=[now[r].item_id for r in self.removed]),
        )

    def edit(self, edit: Edit) -> None:
        """Apply an edit to the catalog and the trie, and clear the cached values.

        Raises:
            RequestError: an id is not in the catalog, or no item would be left.
            DataError: an id already exists, or an item is invalid (see ``Catalog``).
        """
        gone = set(self.rows(edit.remove, "item_ids").tolist()) - self.removed
        catalog = self.catalog.edited(edit.add, edit.change)
        changed = catalog.rows([i.item_id for i in edit.change])
        removed = (self.removed | gone) - set(changed)
        if len(removed) == len(catalog):
            msg = "No item would be left in the catalog. Expected at least one; add others first."
            raise RequestError(msg)
        trie = self._edited_trie(catalog, changed, gone, removed)
        self.catalog, self._trie, self.removed, self._made = catalog, trie, removed, {}
        self._cache = Cache(None)  # it is meant for the catalog of the dataset

    def edit_all(self, items: Sequence[Item], remove: Sequence[str]) -> None:
        """Add or replace items and remove others; see ``Recommender.put_items``."""
        new = [i for i in items if getattr(i, "item_id", None) not in self.catalog]
        known = [i for i in items if getattr(i, "item_id", None) in self.catalog]
        before = self.catalog, self._trie, self.removed, self._made
        try:
            self.edit(Edit(add=new, change=known))
            if len(remove):
                self.edit(Edit(remove=remove))
        except Exception:
            self.catalog, self._trie, self.removed, self._made = before
            raise

    def _edited_trie(
        self, catalog: Catalog, changed: Sequence[int], gone: set[int], removed: set[int]
    ) -> LiveTrie | None:
        """Apply an edit to the trie.

        Args:
            catalog: the catalog after the edit.
            changed: the rows of changed items.
            gone: the rows of items that this edit removes.
            removed: the rows of all removed items after the edit.

        Returns:
            The edited trie, or None if the model does not use token ids.
        """
        try:
            trie, encoder = self.trie, self.encoder
        except ModelError:
            return None
        form = encoder.form
        rows = [*changed, *range(len(self.catalog), len(catalog))]
        titles = {r: encoder.title(form.render(catalog[r].title)) for r in rows}
        live = trie if isinstance(trie, LiveTrie) else LiveTrie(trie)
        edited = live.edited(titles, gone | (set(changed) - self.removed))
        if edited.due() and edited.n_edits > 2 * len(removed):
            edited = LiveTrie(TitleTrie(encoder.titles(catalog))).edited({}, removed)
        return edited

    def row(self, item: str) -> int:
        """Find the catalog row of an item.

        Args:
            item: the id of the item, or a title that only one item has.

        Raises:
            RequestError: there is no such id or title, or several items have the title.
        """
        titled: list[int] = []
        if isinstance(item, str) and item not in self.catalog:
            titled, _ = self.catalog.rows_of_title(item)
            titled = [row for row in titled if row not in self.removed] or titled
        if len(titled) > 1:
            ids = [self.catalog[row].item_id for row in titled]
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            msg = (
                f"{len(ids)} items have the title {item!r}: {', '.join(map(repr, ids[:_SHOWN]))}{more}. "
                "Give the item_id of one of them."
            )
            raise RequestError(msg)
        if isinstance(item, str) and not titled and item not in self.catalog:
            raise RequestError(self._unknown(item))
        return titled[0] if len(titled) == 1 else self.catalog.row(item)

    def _unknown(self, item: str) -> str:
        """Return a message that says that a text is neither an id nor a title, with suggestions."""
        from rapidfuzz import process

        near = process.extract(item, self.catalog.titles, limit=_NEAR, score_cutoff=_ALIKE)
        such = ", ".join(repr(title) for title, _, _ in near)
        return (
            f"Item {item!r} is not in the catalog of {len(self.catalog):,} items. Expected an item_id, or "
            f"a title as in the catalog{'; similar titles are ' + such if such else ''}."
        )

    def rows(self, item_ids: Sequence[str], name: str) -> IntArray:
        """Return the catalog rows of items in ascending order, without duplicates.

        Args:
            item_ids: the ids of the items.
            name: the name of the list, for error messages.

        Raises:
            RequestError: the argument is not a list, or an id is not in the catalog.
        """
        check_ids(item_ids, name)
        return np.array(sorted(set(self.catalog.rows(item_ids))), dtype=np.int64)

    def divide(
        self, item_ids: Sequence[str], name: str, *, strict: bool = False
    ) -> tuple[list[str], tuple[str, ...]]:
        """Divide item ids into those that can be recommended and those that are unknown.

        Args:
            item_ids: the item ids, which may contain duplicates.
            name: the name of the list, for error messages.
            strict: True to raise an error if an id is unknown.

        Returns:
            The distinct known ids, and the distinct unknown ids, which are not in the catalog or were
            removed.

        Raises:
            RequestError: the argument is not a list, or all its ids are unknown. With ``strict``,
                this is also raised if any id is unknown.
        """
        check_ids(item_ids, name)
        known: dict[str, None] = {}
        unknown: dict[str, None] = {}
        for item in item_ids:
            there = not isinstance(item, str) or item in self.catalog
            if there and self.catalog.row(item) not in self.removed:
                known[item] = None
            else:
                unknown[item] = None
        if unknown and (strict or not known):
            said = describe_unknown([*unknown], len(known), removed=bool(self.removed))
            msg = f"{said}. Expected ids from the catalog of {len(self.catalog):,} items."
            raise RequestError(msg)
        return list(known), tuple(unknown)

    def column(self, name: str) -> npt.NDArray[np.object_]:
        """Return the value of a column for each item, or None if it is missing; cache the result.

        Raises:
            RequestError: the catalog has no such column.
        """

        def read() -> npt.NDArray[np.object_]:
            if name not in self.catalog.columns:
                known = ", ".join(self.catalog.columns)
                msg = f"The catalog has no column {name!r}. Expected one of: {known}."
                raise RequestError(msg)
            values = np.empty(len(self.catalog), dtype=object)
            values[:] = self.catalog.column(name).to_pylist()
            return values

        return self.made(("column", name), read)

    def allowed(self, options: QueryOptions, order: Order) -> Filter:
        """Create a filter from the options ``allow``, ``deny`` and ``where``.

        Args:
            options: the options of a request.
            order: the order of items that the filter refers to.
        """
        n = order.n_positions
        allowed = Filter.all(n)
        if options.allow is not None:
            allowed &= Filter.allow(order.positions_of(self.rows(options.allow, "allow")), n)
        if options.deny:
            allowed &= Filter.deny(order.positions_of(self.rows(options.deny, "deny")), n)
        if options.where is not None:
            mask = self.where(options.where)
            allowed &= Filter.allow(order.positions_of(np.flatnonzero(mask)), n)
        return allowed

    def stock(self, path: str) -> Stock:
        """Return the items that are in stock according to a file; see ``StockFile``.

        Raises:
            DataError: the file cannot be used, and no earlier content of it is known.
        """
        with self._building:
            file = self._stocks.setdefault(path, StockFile(path))
        return file.read(self.catalog)

    def mask(self, allowed: Filter, order: Order) -> npt.NDArray[np.bool_]:
        """Convert a filter to a mask over the N catalog rows that is True for allowed items."""
        place = order.find_positions(np.arange(len(self.catalog)))
        mask = place >= 0
        mask[mask] = allowed.keeps(place[mask])
        return np.asarray(mask, dtype=np.bool_)

    def where(self, condition: str) -> npt.NDArray[np.bool_]:
        """Compute a mask over the catalog rows that meet a condition, and cache it.

        Raises:
            RequestError: the condition cannot be parsed or does not fit the catalog.
        """
        kept = self.made("conditions", dict[str, npt.NDArray[np.bool_]])
        mask = kept.get(condition)  # a single look-up, because another thread may clear the cache
        if mask is None:
            mask = Predicate.parse(condition).mask(self.catalog)
            if len(kept) > _CONDITIONS:
                kept.clear()
            kept[condition] = mask
        return mask


def describe_unknown(unknown: Sequence[str], known: int, *, removed: bool = False) -> str:
    """Report which of the given item ids are unknown, in a sentence without a final period.

    Args:
        unknown: the distinct unknown ids, at least one.
        known: the number of distinct ids that are known.
        removed: whether items were removed from the catalog.
    """
    named = ", ".join(map(repr, unknown[:_SHOWN]))
    more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
    if len(unknown) == 1:
        return f"Item {named} is not in the catalog{' or was removed from it' * removed}"
    where = f"the catalog{' or were removed from it' * removed}"
    given = len(unknown) + known
    return f"{len(unknown):,} of {given:,} item ids are not in {where}: {named}{more}"


def note_skipped(unknown: Sequence[str], known: int, *, removed: bool = False) -> str:
    """Return a note that names the unknown items that were skipped; see ``describe_unknown``."""
    said = describe_unknown(unknown, known, removed=removed)
    return f"{said}. {'It was' if len(unknown) == 1 else 'They were'} skipped."


def check_ids(given: object, name: str) -> None:
    """Check that the argument is a list of item ids.

    Raises:
        RequestError: the argument is a single string, or not iterable.
    """
    if isinstance(given, str):
        msg = f"{name}={given!r} is a single string. Expected a list of item ids."
        raise RequestError(msg)
    if not isinstance(given, Iterable):
        msg = (
            f"{name}={given!r:.80} is of type {type(given).__name__}. Expected a list of item ids."
        )
        raise RequestError(msg)
