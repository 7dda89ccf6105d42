"""From text to items: what a person typed as a history, read against the catalog.

Titles match exactly or normalised (case, punctuation, white space, width). Knows no models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrec.catalog import Catalog
from genrec.interactions import History, Interaction
from genrec.text import normalized

_PIECE = re.compile(r"[;；\n]")
_VERB = re.compile(r"^\s*([^:：]{1,40})[:：]\s*(.*)$", re.DOTALL)
_JOIN = 4  # a title may itself hold up to three separators


@dataclass(frozen=True, slots=True)
class Understood:
    """What became of one piece of a typed history.

    Attributes:
        text: the piece as typed.
        behavior: what was done.
        item_id: the item, None where no title matched.
        title: the item's title as given.
        match: ``id``, ``exact``, ``normalized`` or ``none``.
        others: further items with the same title.
    """

    text: str
    behavior: str
    item_id: str | None
    title: str | None
    match: str
    others: tuple[str, ...] = ()


class HistoryReader:
    """Reads typed histories: ids, titles, or text such as ``"bought: A; viewed: B"``."""

    def __init__(self, catalog: Catalog, verbs: Mapping[str, Sequence[str]], default: str) -> None:
        """Prepares the reader.

        Args:
            catalog: the items.
            verbs: behavior -> how it is said; the name and all forms are understood. Another verb before a
                title that matches becomes a behavior of its own name.
            default: the behavior where none is given.
        """
        self._catalog = catalog
        self._default = default
        self._behavior = {normalized(said): b for b, forms in verbs.items() for said in forms}
        self._behavior |= {normalized(b): b for b in verbs}

    def read(self, history: str | Sequence[str]) -> tuple[History, list[Understood]]:
        """The history of the pieces that match an item, and what became of every piece.

        Args:
            history: text with ``;`` or line breaks between events, or a list of ids or titles,
                each with or without ``verb:`` before it.
        """
        pieces = _PIECE.split(history) if isinstance(history, str) else list(history)
        pieces = [p.strip() for p in pieces]
        understood: list[Understood] = []
        at = 0
        while at < len(pieces):
            if not pieces[at]:
                at += 1
                continue
            taken, found = self._longest(pieces[at:], isinstance(history, str))
            understood.append(found)
            at += taken
        events = tuple(
            Interaction(u.item_id, u.behavior, timestamp=float(n))
            for n, u in enumerate(understood)
            if u.item_id is not None
        )
        return History(events), understood

    def _longest(self, pieces: Sequence[str], joinable: bool) -> tuple[int, Understood]:
        """The first pieces that together name an item; titles may hold separators themselves."""
        alone = self._match(pieces[0])
        if alone.item_id is not None or not joinable:
            return 1, alone
        for n in range(min(_JOIN, len(pieces)), 1, -1):
            joined = self._match("; ".join(pieces[:n]))
            if joined.item_id is not None:
                return n, joined
        return 1, alone

    def _match(self, piece: str) -> Understood:
        whole = self._lookup(piece, piece, self._default)
        if whole.item_id is not None:
            return whole
        split = _VERB.match(piece)
        if split is None:
            return whole
        verb = normalized(split[1])
        found = self._lookup(piece, split[2].strip(), self._behavior.get(verb, verb))
        return found if found.item_id is not None or verb in self._behavior else whole

    def _lookup(self, piece: str, title: str, behavior: str) -> Understood:
        if title in self._catalog:
            item = self._catalog[self._catalog.row(title)]
            return Understood(piece, behavior, item.item_id, item.title, "id")
        rows, how = self._catalog.rows_of_title(title)
        if not rows:
            return Understood(piece, behavior, None, None, "none")
        item = self._catalog[rows[0]]
        others = tuple(self._catalog[r].item_id for r in rows[1:])
        return Understood(piece, behavior, item.item_id, item.title, how, others)
