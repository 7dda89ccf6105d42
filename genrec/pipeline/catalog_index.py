"""Stock: the items that can be recommended now, as edited, and which of them a request may return.

Knows items, rows and positions of the trie; nothing of prompts or models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from genrec.config import QueryOptions
from genrec.data.catalog import Catalog, Item
from genrec.data.events import History
from genrec.decoding.filters import Filter
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, RequestError
from genrec.pipeline.predicates import Predicate
from genrec.prompts.encoder import Encoder
from genrec.types import IntArray

_NEAR, _ALIKE = 3, 80  # titles named for one that is not there, and their likeness in percent
_SHOWN = 5  # items of one title that a message names
_CONDITIONS = 32  # conditions whose rows are kept


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to change.

    Attributes:
        add: items that are new.
        remove: ids of those that go.
        change: items in place of those with the same ids; removed ones come back.
    """

    add: Sequence[Item] = ()
    remove: Sequence[str] = ()
    change: Sequence[Item] = ()


class CatalogIndex:
    """A catalog and its trie.

    Attributes:
        catalog: all items; removed ones too, since histories still show them.
        trie: the titles of those that can be recommended.
        removed: the rows of the others.
        encoder: makes ids of titles.
    """

    def __init__(self, catalog: Catalog, encoder: Encoder) -> None:
        """Builds the trie."""
        self.catalog, self.encoder = catalog, encoder
        self.trie: TitleTrie | LiveTrie = TitleTrie(encoder.titles(catalog))
        self.removed: set[int] = set()
        self._conditions: dict[str, npt.NDArray[np.bool_]] = {}
        self._columns: dict[str, npt.NDArray[np.object_]] = {}

    def additions(self, items: Iterable[Item]) -> Edit:
        """The edit that adds items, of which some may have been removed before.

        Raises:
            DataError: these are no items.
        """
        try:
            given = list(items)
        except TypeError:
            msg = f"items is {type(items).__name__}. Expected a list of Items."
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
        """The edit that gives items other titles, item_id -> title.

        Raises:
            RequestError: this is no mapping, or an id is not in the catalog or was removed.
            DataError: a title is empty.
        """
        kind: object = titles  # checked for callers without a type checker
        if not isinstance(kind, Mapping):
            msg = f"titles is {type(titles).__name__}. Expected a mapping, item_id -> title."
            raise RequestError(msg)
        changed = []
        for item_id, title in titles.items():
            row = self.catalog.row(item_id)
            if row in self.removed:
                msg = f"Item {item_id!r} was removed. Expected one that is there; add it again."
                raise RequestError(msg)
            changed.append(replace(self.catalog[row], title=title))
        return Edit(change=changed)

    def since(self, known: Catalog) -> tuple[Edit, Edit]:
        """The edits that make of a catalog, as it was before all others, what is here now."""
        now = self.catalog
        return (
            Edit(
                add=[now[r] for r in range(len(known), len(now))],
                change=[now[r] for r, i in enumerate(known) if now[r] != i],
            ),
            Edit(remove=[now[r].item_id for r in self.removed]),
        )

    def edit(self, edit: Edit) -> None:
        """Changes catalog and trie.

        Raises:
            RequestError: an id is not in the catalog, or no item would be left.
            DataError: an id is there already, or an item is not as in ``Catalog``.
        """
        gone = set(self.rows(edit.remove, "item_ids").tolist()) - self.removed
        catalog = self.catalog.edited(edit.add, edit.change)
        changed = catalog.rows([i.item_id for i in edit.change])
        rows = [*changed, *range(len(self.catalog), len(catalog))]
        form = self.encoder.form
        titles = {r: self.encoder.title(form.render(catalog[r].title)) for r in rows}
        removed = (self.removed | gone) - set(changed)
        if len(removed) == len(catalog):
            msg = "No item would be left. Expected at least one; add others first."
            raise RequestError(msg)
        live = self.trie if isinstance(self.trie, LiveTrie) else LiveTrie(self.trie)
        old = gone | (set(changed) - self.removed)
        trie = live.edited(titles, old)
        if trie.due() and trie.n_edits > 2 * len(removed):
            trie = LiveTrie(TitleTrie(self.encoder.titles(catalog))).edited({}, removed)
        self.catalog, self.trie, self.removed = catalog, trie, removed
        self._conditions.clear()
        self._columns.clear()

    def row(self, item: str) -> int:
        """The row of an item by its id, or by a title that only it has.

        Raises:
            RequestError: it is neither, or several have the title.
        """
        titled: list[int] = []
        if isinstance(item, str) and item not in self.catalog:
            titled, _ = self.catalog.rows_of_title(item)
            titled = [row for row in titled if row not in self.removed] or titled
        if len(titled) > 1:
            ids = [self.catalog[row].item_id for row in titled]
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            msg = (
                f"{len(ids)} items are called {item!r}: {', '.join(map(repr, ids[:_SHOWN]))}{more}. "
                "Give the item_id of one of them."
            )
            raise RequestError(msg)
        if isinstance(item, str) and not titled and item not in self.catalog:
            raise RequestError(self._unknown(item))
        return titled[0] if len(titled) == 1 else self.catalog.row(item)

    def _unknown(self, item: str) -> str:
        """What to say of an item that is neither an id nor a title."""
        from rapidfuzz import process

        near = process.extract(item, self.catalog.titles, limit=_NEAR, score_cutoff=_ALIKE)
        such = ", ".join(repr(title) for title, _, _ in near)
        return (
            f"Item {item!r} is not in the catalog of {len(self.catalog):,} items. Expected an item_id, or "
            f"a title as the catalog has it{'; near it are ' + such if such else ''}."
        )

    def rows(self, item_ids: Sequence[str], name: str) -> IntArray:
        """The different rows of some items, in order; ``name`` is that of the list, for errors.

        Raises:
            RequestError: this is no list, or an id is not in the catalog.
        """
        check_ids(item_ids, name)
        return np.array(sorted(set(self.catalog.rows(item_ids))), dtype=np.int64)

    def column(self, name: str) -> npt.NDArray[np.object_]:
        """(N,) an attribute by row, None where it is missing; kept for the next request.

        Raises:
            RequestError: there is no such column.
        """
        if name not in self._columns:
            if name not in self.catalog.columns:
                known = ", ".join(self.catalog.columns)
                msg = f"The catalog has no column {name!r}. Expected one of: {known}."
                raise RequestError(msg)
            values = np.empty(len(self.catalog), dtype=object)
            values[:] = self.catalog.column(name).to_pylist()
            self._columns[name] = values
        return self._columns[name]

    def allowed(self, wishes: QueryOptions) -> Filter:
        """What the wishes allow whoever asks."""
        trie, n = self.trie, self.trie.n_positions
        found = Filter.all(n)
        if wishes.allow is not None:
            found &= Filter.allow(trie.positions_of(self.rows(wishes.allow, "allow")), n)
        if wishes.deny:
            found &= Filter.deny(trie.positions_of(self.rows(wishes.deny, "deny")), n)
        if wishes.where is not None:
            mask = self._where(wishes.where)
            found &= Filter.allow(trie.positions_of(np.flatnonzero(mask)), n)
        return found

    def unseen(self, history: History, lead_in_behaviors: Collection[str]) -> Filter:
        """All but the items that were seen (``History.had``)."""
        rows = np.array(self.catalog.rows(history.had(lead_in_behaviors)), dtype=np.int64)
        return Filter.deny(self.trie.positions_of(rows), self.trie.n_positions)

    def size(self, allowed: Filter) -> int:
        """How many items a filter allows; one that denies counts the places of removed ones."""
        return len(allowed) - (self.trie.n_positions - self.trie.n_items) * allowed.denies

    def mask(self, allowed: Filter) -> npt.NDArray[np.bool_]:
        """(N,) which rows a filter allows."""
        place = self.trie.find_positions(np.arange(len(self.catalog)))
        mask = place >= 0
        mask[mask] = allowed.keeps(place[mask])
        return np.asarray(mask, dtype=np.bool_)

    def _where(self, condition: str) -> npt.NDArray[np.bool_]:
        """(N,) which rows meet a condition; kept for the next request."""
        mask = self._conditions.get(condition)
        if mask is None:
            if len(self._conditions) > _CONDITIONS:
                self._conditions.clear()
            mask = Predicate.parse(condition).mask(self.catalog)
            self._conditions[condition] = mask
        return mask


def check_ids(given: object, name: str) -> None:
    """Refuses what is no list of item ids.

    Raises:
        RequestError: it is one text, or something else.
    """
    if isinstance(given, str):
        msg = f"{name}={given!r} is one text. Expected a list of item ids."
        raise RequestError(msg)
    if not isinstance(given, Iterable):
        msg = f"{name}={given!r:.80} is {type(given).__name__}. Expected a list of item ids."
        raise RequestError(msg)
