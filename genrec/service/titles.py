"""Find the items of a catalog whose titles match words."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import cached_property

from genrec.data.catalog import Catalog
from genrec.matching.ngrams import CharNgrams
from genrec.text import normalized

_LEAST = 0.3  # the smallest cosine of character n-grams that counts as a match


class TitleSearch:
    """Finds titles by their words, by the beginnings of words, and by similar spelling."""

    def __init__(self, catalog: Catalog) -> None:
        """Store the catalog; the titles are indexed when they are first searched."""
        self.catalog = catalog
        self._indexing = threading.Lock()

    @cached_property
    def _titles(self) -> list[str]:
        return [normalized(title) for title in self.catalog.titles]

    @cached_property
    def _ngrams(self) -> CharNgrams:
        return CharNgrams(self._titles)

    def complete(self, text: str, limit: int, hidden: Collection[str] = ()) -> list[int]:
        """Return the catalog rows of titles that contain words beginning with those of a text.

        Args:
            text: the words, of which the last one may be unfinished.
            limit: the highest number of rows.
            hidden: the ids of items to leave out.

        Returns:
            The rows; titles that begin with the text come first.
        """
        words = normalized(text).split()
        first: list[int] = []
        others: list[int] = []
        for row, title in enumerate(self._titles):
            if not _has(title, words) or self.catalog[row].item_id in hidden:
                continue
            (first if title.startswith(" ".join(words)) else others).append(row)
            if len(first) >= limit:
                break
        return [*first, *others][:limit]

    def match(self, text: str, limit: int) -> dict[str, float]:
        """Find the items whose titles match a text best.

        Args:
            text: the words to look for.
            limit: the highest number of items.

        Returns:
            The match of each item from 0 to 1, by item id, best first. It is 1 if the title contains
            all words or words that begin with them, and otherwise the cosine of the character
            n-grams.
        """
        query = normalized(text)
        words = query.split()
        if not words:
            return {}
        found = {
            self.catalog[row].item_id: 1.0
            for row, title in enumerate(self._titles)
            if _has(title, words)
        }
        if len(found) < limit:
            with self._indexing:
                places, values = self._ngrams.nearest(query, limit)
            for row, value in zip(places.tolist(), values.tolist(), strict=True):
                if value >= _LEAST:
                    found.setdefault(self.catalog[row].item_id, float(min(value, 1.0)))
        best = sorted(found.items(), key=lambda pair: -pair[1])
        return dict(best[:limit])


def _has(title: str, words: list[str]) -> bool:
    """Check whether each word is the beginning of a word of a title, or is part of unspaced text."""
    spaced = f" {title}"
    return all(f" {w}" in spaced or (w[0] >= "\u2e80" and w in title) for w in words)
