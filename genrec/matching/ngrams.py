"""Which titles of a catalog read alike, by character n-grams: needs no model, reads every script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genrec.types import Float32Array, FloatArray, IntArray

NEAR = 50  # titles that are kept beside each
MOST = 50_000  # titles of a catalog; a larger one has no neighbours, since each takes too long
_POWER = 3  # of the cosine, so that the nearest count most
_CHUNK = 256  # titles compared at a time, at most
_CELLS = 2_000_000  # cosines held at a time
_KEPT = 20_000  # titles whose neighbours are remembered


class AlikeTitles:
    """The nearest titles of each, by the cosine of character 3- and 4-grams weighted by rarity.

    Made for those asked about and remembered: a catalog of N titles takes 40 microseconds a title
    to read, and then each title that is asked about N * 100 nanoseconds.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        """Reads N titles.

        Args:
            titles: by catalog row.
        """
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, dtype=np.float32
        )
        try:
            self._vectors = vectorizer.fit_transform(titles if len(titles) <= MOST else [])
        except ValueError:  # there is not one n-gram
            self._vectors = sparse.csr_array((len(titles), 1), dtype=np.float32)
        self._across = self._vectors.T.tocsr()
        self._found: dict[int, tuple[IntArray, FloatArray]] = {}

    def links(self, rows: IntArray) -> Any:
        """(R, N) sparse: the third powers of the cosines of ``NEAR`` others with each row's title."""
        from scipy import sparse

        if not self._vectors.nnz:
            return sparse.csr_array((len(rows), self._vectors.shape[0]))
        kept = self._found
        found = {row: kept[row] for row in rows.tolist() if row in kept}
        new = [row for row in rows.tolist() if row not in found]
        size = max(1, min(_CHUNK, _CELLS // self._vectors.shape[0]))
        for first in range(0, len(new), size):
            found |= self._nearest(new[first : first + size])
        self._found = found if len(kept) + len(new) > _KEPT else {**kept, **found} if new else kept
        parts = [found[row] for row in rows.tolist()]
        bounds = np.cumsum([0, *(len(near) for near, _ in parts)])
        near = np.concatenate([p for p, _ in parts]) if parts else np.empty(0, dtype=np.int64)
        values = np.concatenate([v for _, v in parts]) if parts else np.empty(0)
        return sparse.csr_array((values, near, bounds), shape=(len(rows), self._vectors.shape[0]))

    def _nearest(self, rows: Sequence[int]) -> dict[int, tuple[IntArray, FloatArray]]:
        cosines = (self._vectors[rows] @ self._across).toarray()
        cosines[np.arange(len(rows)), rows] = 0.0
        size = min(NEAR, cosines.shape[1])
        near = np.sort(np.argpartition(-cosines, size - 1, axis=1)[:, :size], axis=1)
        values = np.take_along_axis(cosines, near, axis=1).astype(np.float64) ** _POWER
        return {
            row: (near[number][some].astype(np.int64), values[number][some])
            for number, row in enumerate(rows)
            for some in [values[number] > 0]
        }


class CharNgrams:
    """Titles compared by their character n-grams (1 to 3), weighted by rarity (TF-IDF, cosine).

    Reads every script and knows no meaning: 电脑 and 书籍 have nothing in common.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        """Counts the n-grams of N titles."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(
            analyzer="char",
            ngram_range=(1, 3),
            lowercase=False,
            sublinear_tf=True,
            dtype=np.float32,
        )
        self._matrix = self._vectorizer.fit_transform(titles).T.tocsr()

    @property
    def vectors(self) -> Any:
        """(N, n-grams) sparse, rows of unit length."""
        return self._matrix.T.tocsr()

    def nearest(self, text: str, n: int) -> tuple[IntArray, Float32Array]:
        """(n,) places and cosines of the nearest titles, the nearest first; n at most N."""
        row = (self._vectorizer.transform([text]) @ self._matrix).toarray()[0]
        n = min(n, len(row))
        places = np.argpartition(-row, n - 1)[:n]
        order = np.lexsort((places, -row[places]))
        return places[order].astype(np.int64), row[places[order]]
