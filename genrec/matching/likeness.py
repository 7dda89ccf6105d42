"""Compare texts with all titles of a catalog by meaning, or by spelling if no encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from genrec.errors import ModelError
from genrec.matching.encoders import Embedder
from genrec.matching.matcher import SemanticMatcher, TextMatcher
from genrec.text import normalized
from genrec.types import Float32Array, FloatArray, IntArray


class TitleLikeness:
    """Compares texts with the titles of a catalog.

    A text that the matcher's encoder can read is compared by the cosine of their vectors. If there is no
    encoder, if it cannot read the text or if it can read less than half of the titles, the text is
    compared by the cosine of their character n-grams. Then ``by`` says so.
    """

    def __init__(self, matcher: TextMatcher, n_items: int) -> None:
        """Store the arguments. An encoder is loaded when it is first needed.

        Args:
            matcher: the matcher whose encoder and title vectors are used.
            n_items: the number of items in the catalog.
        """
        self._matcher, self._n = matcher, n_items

    @cached_property
    def _meaning(self) -> SemanticMatcher:
        given = self._matcher.meaning
        return SemanticMatcher(self._matcher.titles[0], "ngrams") if given is None else given

    @cached_property
    def _rows(self) -> tuple[IntArray, IntArray]:
        """The catalog rows, and the index of the distinct title of each."""
        rows = self._matcher.titles[1]
        titles = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        return np.array([r for each in rows for r in each], dtype=np.int64), titles

    @property
    def embedder(self) -> Embedder | None:
        """The encoder; None if there is none."""
        return self._meaning.embedder

    @cached_property
    def vectors(self) -> Float32Array:
        """(N, D) float32 vectors of the titles of all catalog rows; zeros for unreadable titles.

        Raises:
            ModelError: there is no encoder.
        """
        meaning, (rows, titles) = self._meaning, self._rows
        if meaning.embedder is None:
            msg = "There is no encoder, so titles have no vectors. Expected an encoder such as minilm."
            raise ModelError(msg)
        known = meaning.index.vectors
        distinct = np.zeros((len(meaning.titles), known.shape[1]), dtype=np.float32)
        distinct[meaning.readable] = known
        found = np.zeros((self._n, known.shape[1]), dtype=np.float32)
        found[rows] = distinct[titles]
        return found

    def by(self, text: str) -> str:
        """Return how a text is compared: ``embedding`` or ``ngrams``."""
        meaning = self._meaning
        embedder = meaning.embedder
        if embedder is None or not embedder.coverage.reads(text):
            return "ngrams"
        return "embedding" if 2 * len(meaning.readable) >= len(meaning.titles) else "ngrams"

    def cosines(self, texts: Sequence[str]) -> FloatArray:
        """Compare T texts with all titles.

        Args:
            texts: the T texts.

        Returns:
            (T, N) cosines of each text with the title of each catalog row; 0 for titles that cannot
            be compared.
        """
        found = np.zeros((len(texts), self._n))
        meaning, (rows, titles) = self._meaning, self._rows
        for place, text in enumerate(texts):
            alike = np.zeros(len(meaning.titles))
            if not len(alike):
                continue
            if self.by(text) == "embedding":
                assert meaning.embedder is not None
                vector = meaning.embedder.embed([text])[0]
                found[place] = self.vectors @ vector
                continue
            if normalized(text):
                alike = meaning.ngrams.cosines(normalized(text)).astype(np.float64)
            found[place, rows] = alike[titles]
        return found
