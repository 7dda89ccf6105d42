"""From text to items: what a person or a model wrote, read against the catalog.

Titles match exactly, normalised (case, punctuation, white space, width), or nearly (typing errors,
words in another order). Knows no models.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from genrec.catalog import Catalog
from genrec.interactions import History, Interaction
from genrec.text import normalized

_PIECE = re.compile(r"[;；\n]")
_VERB = re.compile(r"^\s*([^:：]{1,40})[:：]\s*(.*)$", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_JOIN = 4  # a title may itself hold up to three separators
THRESHOLD = 0.86  # measured: benchmarks/matching.py
MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Match:
    """What a text matched.

    Attributes:
        rows: the item's catalog row, then those of others with the same title; empty for no item.
        how: ``exact``, ``normalized``, ``fuzzy`` or ``none``.
        similarity: 1.0 but for fuzzy matches; for ``none`` that of the nearest title.
    """

    rows: tuple[int, ...]
    how: str
    similarity: float


class TextMatcher:
    """Matches texts to titles; says ``none`` rather than guess.

    Args of ``match`` that differ by typing errors or word order are found by the better of two
    similarities of normalised texts: 1 - edits / length ("ratio", insertions and deletions), as
    written and with the words sorted (rapidfuzz). A fuzzy match must reach the threshold, be ahead
    of the next title by the margin, and agree in its numbers: "set of 3" is never "set of 4".
    """

    def __init__(
        self, catalog: Catalog, *, threshold: float = THRESHOLD, margin: float = MARGIN
    ) -> None:
        """Prepares a matcher.

        Args:
            catalog: the items.
            threshold: the least similarity of a fuzzy match, in 0 to 1; above 1 for none.
            margin: how far it must be ahead of the next title.
        """
        self._catalog = catalog
        self._threshold = threshold
        self._margin = margin

    @cached_property
    def _titles(self) -> tuple[list[str], list[str], list[list[int]]]:
        """Distinct normalised titles, the same with sorted words, and the rows of each."""
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(self._catalog.titles):
            rows.setdefault(normalized(title), []).append(row)
        rows.pop("", None)
        plain = list(rows)
        return plain, [_sorted(t) for t in plain], list(rows.values())

    def match(self, text: str, *, fuzzy: bool = True) -> Match:
        """The item that a text names.

        Args:
            text: a title as somebody wrote it.
            fuzzy: whether near misses count.
        """
        rows, how = self._catalog.rows_of_title(text)
        if rows:
            return Match(tuple(rows), how, 1.0)
        return self._nearest(normalized(text)) if fuzzy else Match((), "none", 0.0)

    def _nearest(self, text: str) -> Match:
        from rapidfuzz import fuzz, process

        plain, sorted_words, rows = self._titles
        if not text or not plain:
            return Match((), "none", 0.0)
        scores: Counter[int] = Counter()
        floor = 100.0 * min(self._threshold - self._margin, 1.0) - 1.0
        for query, choices in ((text, plain), (_sorted(text), sorted_words)):
            found = process.extract(
                query, choices, scorer=fuzz.ratio, processor=None, limit=5, score_cutoff=floor
            )
            for _, score, index in found:
                scores[index] = max(scores[index], score)  # type: ignore[assignment]
        best = scores.most_common(2)
        if not best:
            return Match((), "none", 0.0)
        similarity = best[0][1] / 100.0
        ahead = similarity - (best[1][1] / 100.0 if len(best) > 1 else 0.0)
        same_numbers = _numbers(plain[best[0][0]]) == _numbers(text)
        if similarity < self._threshold or ahead < self._margin or not same_numbers:
            return Match((), "none", similarity)
        return Match(tuple(rows[best[0][0]]), "fuzzy", similarity)


def _sorted(text: str) -> str:
    return " ".join(sorted(text.split()))


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text))


@dataclass(frozen=True, slots=True)
class Understood:
    """What became of one piece of a typed history.

    Attributes:
        text: the piece as typed.
        behavior: what was done.
        item_id: the item, None where no title matched.
        title: the item's title as given.
        match: ``id``, ``exact``, ``normalized``, ``fuzzy`` or ``none``.
        others: further items with the same title.
        similarity: of the title to what was typed, 0 to 1.
    """

    text: str
    behavior: str
    item_id: str | None
    title: str | None
    match: str
    others: tuple[str, ...] = ()
    similarity: float = 1.0


class HistoryReader:
    """Reads typed histories: ids, titles, or text such as ``"bought: A; viewed: B"``."""

    def __init__(
        self,
        catalog: Catalog,
        verbs: Mapping[str, Sequence[str]],
        default: str,
        matcher: TextMatcher | None = None,
    ) -> None:
        """Prepares the reader.

        Args:
            catalog: the items.
            verbs: behavior -> how it is said; the name and all forms are understood. Another verb before a
                title that matches becomes a behavior of its own name.
            default: the behavior where none is given.
            matcher: finds titles; one with the default thresholds where None.
        """
        self._catalog = catalog
        self._matcher = matcher or TextMatcher(catalog)
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
        alone = self._match(pieces[0], fuzzy=False)
        if alone.item_id is not None:
            return 1, alone
        for n in range(min(_JOIN, len(pieces)) if joinable else 1, 1, -1):
            joined = self._match("; ".join(pieces[:n]), fuzzy=False)
            if joined.item_id is not None:
                return n, joined
        return 1, self._match(pieces[0], fuzzy=True)

    def _match(self, piece: str, *, fuzzy: bool) -> Understood:
        whole = self._lookup(piece, piece, self._default, fuzzy=False)
        if whole.item_id is not None:
            return whole
        split = _VERB.match(piece)
        if split is not None:
            verb = normalized(split[1])
            behavior = self._behavior.get(verb, verb)
            found = self._lookup(piece, split[2].strip(), behavior, fuzzy=fuzzy)
            if found.item_id is not None or verb in self._behavior:
                return found
        return self._lookup(piece, piece, self._default, fuzzy=fuzzy)

    def _lookup(self, piece: str, title: str, behavior: str, *, fuzzy: bool) -> Understood:
        if title in self._catalog:
            item = self._catalog[self._catalog.row(title)]
            return Understood(piece, behavior, item.item_id, item.title, "id")
        match = self._matcher.match(title, fuzzy=fuzzy)
        if not match.rows:
            return Understood(piece, behavior, None, None, "none", (), round(match.similarity, 4))
        item = self._catalog[match.rows[0]]
        others = tuple(self._catalog[r].item_id for r in match.rows[1:])
        similarity = round(match.similarity, 4)
        return Understood(piece, behavior, item.item_id, item.title, match.how, others, similarity)
