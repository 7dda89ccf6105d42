"""Compare titles by their character n-grams. This needs no model and works in every script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genrec.types import Float32Array, FloatArray, IntArray

NEAR = 50  # maximum number of neighbors per title
MOST = 50_000  # maximum number of titles; larger catalogs get no neighbors, as this takes too long
_POWER = 3  # exponent of the cosine, so that the nearest titles count most
_CHUNK = 256  # maximum number of titles compared at a time
_CELLS = 2_000_000  # maximum number of cosines in memory at a time
_KEPT = 20_000  # maximum number of titles whose neighbors are cached


class AlikeTitles:
    """The nearest neighbors of each title by TF-IDF cosine over character 3- and 4-grams.

    Neighbors are computed on demand and cached. Indexing takes about 40 microseconds per title.
    Finding the neighbors of one title among N titles takes about N * 100 nanoseconds.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        """Index N titles.

        Args:
            titles: the titles by catalog row.
        """
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, dtype=np.float32
        )
        try:
            self._vectors = vectorizer.fit_transform(titles if len(titles) <= MOST else [])
        except ValueError:  # the titles contain no n-grams
            self._vectors = sparse.csr_array((len(titles), 1), dtype=np.float32)
        self._across = self._vectors.T.tocsr()
        self._cache: dict[int, tuple[IntArray, FloatArray]] = {}

    def links(self, rows: IntArray) -> Any:
        """Return an (R, N) sparse matrix that links each title to its ``NEAR`` nearest titles.

        Args:
            rows: (R,) int64 catalog rows.

        Returns:
            The matrix, which holds the cubes of the cosines as float64.
        """
        from scipy import sparse

        if not self._vectors.nnz:
            return sparse.csr_array((len(rows), self._vectors.shape[0]))
        cache = self._cache
        links = {row: cache[row] for row in rows.tolist() if row in cache}
        new = [row for row in rows.tolist() if row not in links]
        size = max(1, min(_CHUNK, _CELLS // self._vectors.shape[0]))
        for first in range(0, len(new), size):
            links |= self._nearest(new[first : first + size])
        if len(cache) + len(new) > _KEPT:
            self._cache = links
        elif new:
            self._cache = {**cache, **links}
        parts = [links[row] for row in rows.tolist()]
        bounds = np.cumsum([0, *(len(near) for near, _ in parts)])
        near = np.concatenate([p for p, _ in parts]) if parts else np.empty(0, dtype=np.int64)
        values = np.concatenate([v for _, v in parts]) if parts else np.empty(0)
        return sparse.csr_array((values, near, bounds), shape=(len(rows), self._vectors.shape[0]))

    def _nearest(self, rows: Sequence[int]) -> dict[int, tuple[IntArray, FloatArray]]:
        """Find the neighbors of some rows.

        Returns:
            row -> (catalog rows of the neighbors, cubes of their cosines).
        """
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
    """Compares titles by the cosine of TF-IDF vectors of their character 1- to 3-grams.

    This works in every script but ignores meaning.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        """Count the n-grams of N titles."""
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
        """Return the sparse float32 matrix of N titles by n-grams. Its rows have unit length."""
        return self._matrix.T.tocsr()

    def nearest(self, text: str, n: int) -> tuple[IntArray, Float32Array]:
        """Find the n titles that are nearest to a text, nearest first.

        Args:
            text: the text to compare with.
            n: number of titles, at most N.

        Returns:
            (n,) int64 positions of the titles and (n,) float32 cosines.
        """
        row = (self._vectorizer.transform([text]) @ self._matrix).toarray()[0]
        n = min(n, len(row))
        places = np.argpartition(-row, n - 1)[:n]
        order = np.lexsort((places, -row[places]))
        return places[order].astype(np.int64), row[places[order]]
