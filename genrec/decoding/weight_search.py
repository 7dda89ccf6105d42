"""Rank items by the weights of a prior alone, without following the trie and without a model.

An item's probability is its share of the total weight. Since all weights are known, the result is
always exact. It is the limit of a search with fusion at the nodes if the temperature of the model's
logits grows without bound and the exponent of the prior is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.decoding.gumbel import perturb
from genrec.decoding.trie import ranges
from genrec.decoding.types import Allowed, Certificate, Options, Prior, Ranking, Trie
from genrec.types import FloatArray, IntArray


def search_weights(
    trie: Trie,
    prior: Prior,
    k: Sequence[int],
    *,
    allowed: Allowed | None = None,
    options: Options | None = None,
    alone: Sequence[tuple[IntArray, FloatArray]] | None = None,
) -> list[Ranking]:
    """Find the k items with the highest scores for each of U users.

    Args:
        trie: the catalog's trie, which defines the positions of the items.
        prior: the weights of the items for each user.
        k: (U,) number of items for each user, at least 1.
        allowed: the items that may be returned; None to allow all items. Probabilities refer to all
            items in either case.
        options: the search settings, of which ``boosts``, ``min_probability`` and ``draw`` have an
            effect; None for the defaults.
        alone: for each user, positions and the log-probabilities of their items under the model, as
            far as they are known. They are only reported, and are NaN for all other items.

    Returns:
        One ranking for each user, in which ``logprobs`` and ``prior`` are the same.
    """
    options = options or Options()
    _, low, high = trie.intervals(np.array([trie.root], dtype=np.int64))
    positions = ranges(low, high - low)
    rows = trie.rows_at(positions)
    boosts = 0.0 if options.boosts is None else options.boosts.at(positions)
    floor = np.log(options.min_probability) if options.min_probability > 0 else -np.inf
    draws = np.array([0 if options.draw is None else options.draw], dtype=np.uint64).ravel()
    rankings = []
    for user, size in enumerate(k):
        who = np.full(len(positions), user)
        logprobs = prior.at(who, positions)
        logprobs = logprobs - _logsumexp(logprobs)
        scores = logprobs + boosts
        if options.draw is not None:
            one, zero = np.zeros(1, dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
            seed, salt = np.resize(draws, len(k))[user], user * (len(draws) == 1)
            seeds = np.full(len(rows), seed)
            scores = perturb(seeds, zero + salt, ~rows, logprobs, one, zero, np.zeros(1))
        kept = logprobs >= floor
        if allowed is not None:
            kept &= allowed.keeps(who, positions)
        found = np.flatnonzero(kept)
        if size < len(found):  # sort only what may be among the best, and one more for ties
            least = np.partition(scores[found], len(found) - size)[len(found) - size]
            best = found[scores[found] >= least]
        else:
            best = found
        best = best[np.lexsort((rows[best], -scores[best]))]
        chosen = best[:size]
        certificate = Certificate(
            exact=True,
            ties=len(best) > len(chosen),
            certain_ranks=len(chosen),
            missed_mass_bound=0.0,
            nodes=0,
            tokens=0,
        )
        shares = logprobs[chosen]
        own = np.full(len(chosen), np.nan)
        if alone is not None:
            own = _look_up(positions[chosen], *alone[user])
        rankings.append(Ranking(rows[chosen], shares, scores[chosen], certificate, own, shares))
    return rankings


def _look_up(wanted: IntArray, positions: IntArray, values: FloatArray) -> FloatArray:
    """Return the values at the wanted positions; NaN for a position without a value."""
    known = dict(zip(positions.tolist(), values.tolist(), strict=True))
    return np.array([known.get(p, np.nan) for p in wanted.tolist()], dtype=np.float64)


def _logsumexp(values: FloatArray) -> float:
    peak = float(values.max())
    return peak + float(np.log(np.exp(values - peak).sum()))
