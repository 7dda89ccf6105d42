"""Compare titles by their shared character n-grams.

This method needs no model and works in every script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genrec.types import Float32Array, FloatArray, IntArray

NEAR = 50  # maximum number of neighbors per title
MOST = 50_000  # in catalogs with more titles, no neighbors are found, since it would take too long
_POWER = 3  # exponent applied to the cosines, so that the nearest titles count most
_CHUNK = 256  # maximum number of titles that are compared with all others at a time
_CELLS = 2_000_000  # maximum number of cosines in memory at a time
_KEPT = 20_000  # maximum number of titles whose neighbors are cached


class NearestRows:
    """Finds the items whose vectors are most similar to the vector of an item in the same catalog.

    Neighbors are computed when they are first needed, and then cached. Finding those of one item
    among N items takes about 100 * N nanoseconds.

    Attributes:
        vectors: float32 matrix, sparse or dense, whose rows are unit vectors, or zero.
    """

    def __init__(self, vectors: Any, near: int = NEAR) -> None:
        """Store the vectors.

        Args:
            vectors: the vectors; see the attribute.
            near: maximum number of neighbors per item.
        """
        self.vectors = vectors
        self._near = near
        self._dense = isinstance(vectors, np.ndarray)
        self._empty = not (vectors.any() if self._dense else vectors.nnz)
        self._across = vectors.T if self._dense else vectors.T.tocsr()
        self._cache: dict[int, tuple[IntArray, FloatArray]] = {}

    def links(self, rows: IntArray) -> Any:
        """Link each of R items to the items that are most similar to it.

        Args:
            rows: (R,) int64 catalog rows of the items.

        Returns:
            A sparse float64 matrix with a row for each of the R items and a column for each item in
            the catalog. It holds the cubes of the cosine similarities to the nearest items.
        """
        from scipy import sparse

        if self._empty:
            return sparse.csr_array((len(rows), self.vectors.shape[0]))
        cache = self._cache
        links = {row: cache[row] for row in rows.tolist() if row in cache}
        new = [row for row in rows.tolist() if row not in links]
        size = max(1, min(_CHUNK, _CELLS // self.vectors.shape[0]))
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
        return sparse.csr_array((values, near, bounds), shape=(len(rows), self.vectors.shape[0]))

    def cosines(self, rows: IntArray, others: IntArray) -> FloatArray:
        """Compute the cosine similarities between R items and C other items.

        Args:
            rows: (R,) catalog rows of the items.
            others: (C,) catalog rows of the other items.

        Returns:
            (R, C) cosine similarities; NaN if no item has a vector.
        """
        if self._empty:
            return np.full((len(rows), len(others)), np.nan)
        found = self.vectors[rows] @ self.vectors[others].T
        return np.asarray(found if self._dense else found.toarray(), dtype=np.float64)

    def _nearest(self, rows: Sequence[int]) -> dict[int, tuple[IntArray, FloatArray]]:
        """Find the nearest neighbors of the items in the given catalog rows.

        Returns:
            For each of the rows, the catalog rows of its neighbors and the cubes of their cosine
            similarities.
        """
        found = self.vectors[rows] @ self._across
        cosines = found if self._dense else found.toarray()
        cosines[np.arange(len(rows)), rows] = 0.0
        size = min(self._near, cosines.shape[1])
        near = np.sort(np.argpartition(-cosines, size - 1, axis=1)[:, :size], axis=1)
        values = np.take_along_axis(cosines, near, axis=1).astype(np.float64) ** _POWER
        return {
            row: (near[number][some].astype(np.int64), values[number][some])
            for number, row in enumerate(rows)
            for some in [values[number] > 0]
        }


class AlikeTitles(NearestRows):
    """Finds the titles that are most similar to a title in the same catalog.

    The similarity of two titles is the cosine of their TF-IDF vectors over character 3- and
    4-grams. Indexing takes about 40 microseconds per title. ``vectors`` is sparse. In a catalog with
    too many titles to compare them, no titles are linked, and cosines are NaN.
    """

    def __init__(self, titles: Sequence[str], vectors: Any = None) -> None:
        """Index the titles of a catalog.

        Args:
            titles: the titles in the order of the catalog's rows.
            vectors: the ``vectors`` of an earlier index of the same titles; None to compute them.
        """
        super().__init__(_embed(titles) if vectors is None else vectors)


def _embed(titles: Sequence[str]) -> Any:
    """Return the TF-IDF vectors of titles as a sparse float32 matrix with a row for each title."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, dtype=np.float32
    )
    try:
        return vectorizer.fit_transform(titles if len(titles) <= MOST else [])
    except ValueError:  # the titles contain no n-grams
        return sparse.csr_array((len(titles), 1), dtype=np.float32)


class CharNgrams:
    """Compares texts with titles by the cosine of their TF-IDF vectors over character n-grams.

    The n-grams have 1 to 3 characters. This works in every script but ignores meaning.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        """Compute the n-gram vectors of the given titles."""
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
        """Return a sparse float32 matrix with the vector of each title as a row of unit length."""
        return self._matrix.T.tocsr()

    def cosines(self, text: str) -> Float32Array:
        """Return the (N,) float32 cosine similarities of a text to all titles."""
        found = (self._vectorizer.transform([text]) @ self._matrix).toarray()[0]
        return np.asarray(found, dtype=np.float32)

    def nearest(self, text: str, n: int) -> tuple[IntArray, Float32Array]:
        """Find the n titles that are nearest to a text, nearest first.

        Args:
            text: the text to compare with.
            n: number of titles to find.

        Returns:
            The (n,) int64 indices of the titles, and their (n,) float32 cosine similarities to the
            text. If there are fewer than n titles, all of them are returned.
        """
        row = self.cosines(text)
        n = min(n, len(row))
        places = np.argpartition(-row, n - 1)[:n]
        order = np.lexsort((places, -row[places]))
        return places[order].astype(np.int64), row[places[order]]
