"""Let a model without probabilities of all tokens score the prior's best items.

The items that the model scored exchange the weights that the prior gives them, so that they are in the order of
prior * probability^weight. All other items keep their weights and stay below or between them. Scores of different
kinds (sums over tokens, letters, shares of texts) have different scales, so they decide only the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.models.base import CandidateModel, can_score_candidates
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.readings import Reading
from genrec.pipeline.request import Request
from genrec.priors.positions import DenseCache, PositionWeights
from genrec.priors.weights import Weights
from genrec.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Scored:
    """The weights of all items after the model scored some.

    Attributes:
        weights: the weights.
        logprobs: the trie positions of the scored items, and what the model said of them.
    """

    weights: Weights
    logprobs: tuple[IntArray, FloatArray]


def read_weights(
    model: object,
    requests: Sequence[Request],
    weights: Sequence[Weights],
    index: CatalogIndex,
    cache: DenseCache,
) -> Reading:
    """Return the weights by which items are ranked, after the model has scored some of them if it can.

    Args:
        model: the model.
        requests: the requests.
        weights: the prior's weights for the history of each request.
        index: the catalog index.
        cache: weights that were ordered before.

    Raises:
        ModelError: a model behind a server failed.
    """
    if not (can_score_candidates(model) and model.rerank):
        return Reading(None, PositionWeights(weights, index.trie, cache))
    scored = [score_by_server(model, r, w, index) for r, w in zip(requests, weights, strict=True)]
    ordered = PositionWeights([s.weights for s in scored], index.trie, cache)
    return Reading(None, ordered, alone=[s.logprobs for s in scored], scored=model.way)


def score_by_server(
    model: CandidateModel, request: Request, weights: Weights, index: CatalogIndex
) -> Scored:
    """Score the best of the items that may be returned for a request.

    Args:
        model: the model.
        request: the request.
        weights: the prior's weights for its history.
        index: the catalog index.

    Raises:
        ModelError: the model failed.
    """
    values = weights.to_dense(len(index.catalog))
    rows = np.flatnonzero(index.mask(request.allowed, request.order))
    rows = rows[np.lexsort((rows, -values[rows]))][: model.rerank]
    form = index.encoder.form
    titles = [f"{form.lead}{form.render(index.catalog[r].title)}" for r in rows.tolist()]
    found = model.score_candidates(request.prompt, titles, form.terminator)
    there = np.isfinite(found)
    rows, found = rows[there], found[there]
    order = np.lexsort((rows, -(np.log(values[rows]) + model.weight * found)))
    values[rows[order]] = values[rows]  # both best first
    changed = Weights(values, sources=weights.sources)
    return Scored(changed, (index.trie.find_positions(rows), found))
