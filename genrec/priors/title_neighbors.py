"""Find the items of a catalog with similar titles, for the prior and the learned ranking.

This module deals with titles and catalog rows, not with events.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.matching.ngrams import AlikeTitles
from genrec.types import IntArray


class TitleNeighbors:
    """The titles of a catalog, which are indexed only when similar titles are first needed.

    Several ``Counts`` can share one object of this class.
    """

    def __init__(self, catalog: Catalog, vectors: Any = None) -> None:
        """Store the titles.

        Args:
            catalog: the items.
            vectors: the ``vectors`` of an earlier ``AlikeTitles`` with the same titles; None if
                there is none.
        """
        self.titles = tuple(item.title for item in catalog)
        self._vectors = vectors

    @cached_property
    def first_words(self) -> IntArray:
        """Return a number for the first word of each title, which often names a brand or series.

        Titles with the same first word, ignoring case, have the same number.
        """
        numbers: dict[str, int] = {}
        words = (next(iter(title.casefold().split()), "") for title in self.titles)
        codes = (numbers.setdefault(word, len(numbers)) for word in words)
        return np.fromiter(codes, dtype=np.int64, count=len(self.titles))

    @cached_property
    def first_word_counts(self) -> IntArray:
        """Return the number of titles with each number in ``first_words``."""
        return np.bincount(self.first_words)

    @cached_property
    def alike(self) -> AlikeTitles:
        """Return an index that finds similar titles. It is built on first use."""
        return AlikeTitles(self.titles, self._vectors)
