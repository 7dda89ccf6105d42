"""Weight items by a query together with a prior.

The weight of an item is exp(a * log(prior) + s), where s is the score of the query's match with the
item. The weights are normalized to a distribution over all items, so whatever searches with them
stays exact. This module deals with catalog rows and numbers, not with texts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genrec.data.events import History, Interaction
from genrec.priors.weights import LEAST_WEIGHT, ItemPrior, Weights
from genrec.types import BoolArray, FloatArray, IntArray

QUERY = "query"  # the name of this source and of its candidates


@dataclass(frozen=True, eq=False)
class QueryPrior:
    """A prior that takes a query into account.

    Attributes:
        base: the prior for histories without a query; None if there is none.
        exponent: a, the exponent of the base.
        scores: (N,) the score of the query's match with each catalog row, in nats.
        fits: (N,) True for the rows that satisfy the conditions of the query.
        liked: the items that the query says the wanted ones should be like, as events that are added to
            the history.
        most: the number of candidates that the model is asked about.
        examples: the items that stand for what the user says about themselves, as events. The base's
            distribution is then, in equal parts, that of the history with and without them.
    """

    base: ItemPrior | None
    exponent: float
    scores: FloatArray
    fits: BoolArray
    liked: tuple[Interaction, ...] = ()
    most: int = 100
    examples: tuple[Interaction, ...] = ()

    def prior_logs(self, history: History) -> tuple[FloatArray, tuple[str, ...]]:
        """Return the (N,) logarithms of the base's distribution, and the names of its sources."""
        n = len(self.scores)
        if self.base is None or not self.exponent:
            return np.zeros(n), ()
        whole = replace(history, interactions=(*history.interactions, *self.liked))
        weights = self.base.weights(whole)
        values = weights.to_dense(n)
        shares = values / values.sum()
        if self.examples:
            values = self._with_examples(whole).to_dense(n)
            shares = (shares + values / values.sum()) / 2
        return np.log(shares), weights.sources

    def _with_examples(self, history: History) -> Weights:
        """Return the base's weights for a history that begins with the examples."""
        assert self.base is not None
        events = (*self.examples, *history.interactions)
        return self.base.weights(replace(history, interactions=events))

    def weights(self, history: History) -> Weights:
        """Return the weights of all items for a history; see ``ItemPrior``."""
        logs, sources = self.prior_logs(history)
        total = self.exponent * logs + self.scores
        values = np.maximum(np.exp(total - total.max()), LEAST_WEIGHT)
        return Weights(values, sources=(*sources, QUERY))

    def candidates(self, history: History, values: FloatArray, most: int) -> dict[str, IntArray]:
        """Return the rows with the highest weights among those that satisfy the query's conditions."""
        del history, most
        rows = np.flatnonzero(self.fits)
        if not len(rows):
            return {}
        order = np.lexsort((rows, -values[rows]))
        return {QUERY: np.sort(rows[order[: self.most]])}
