"""Build rankings from the items that a search has found and the prefixes that it has left open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.decoding.frontier import Frontier
from genrec.decoding.scored_items import TopItems
from genrec.decoding.types import Certificate, Ranking
from genrec.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Work:
    """What a search has done for each of U users.

    Attributes:
        pruned: (U,) highest bound of a prefix that was dropped because it cannot enter the list;
            -inf if there was none.
        nodes: (U,) number of prefixes from which the search continued.
        tokens: (U,) number of tokens that the model processed after the prompt.
    """

    pruned: FloatArray
    nodes: IntArray
    tokens: IntArray


def build_rankings(
    top: TopItems, rest: Frontier, work: Work, tolerance: float, with_prior: bool
) -> list[Ranking]:
    """Build the ranking of each user, with a certificate.

    Args:
        top: the best items that were found.
        rest: the prefixes that are left open.
        work: what the search has done.
        tolerance: scores that differ by less than this count as tied.
        with_prior: whether the rankings report the share of the prior.
    """
    n = len(top.k)
    bound, mass = rest.highest_bounds(n), rest.masses(n)
    rankings = []
    for user in range(n):
        items, spare = top.of_user(user)
        scores, best = items.score, float(bound[user])
        full = len(scores) == int(top.k[user])
        worst = float(scores[-1]) if full else -np.inf
        exact = best == -np.inf or best <= worst + tolerance
        outside = max([best, float(work.pruned[user]), *spare.score.tolist()])
        certificate = Certificate(
            exact=exact,
            ties=exact and full and outside > worst - tolerance,
            certain_ranks=int((scores >= best - tolerance).sum()),
            missed_mass_bound=float(min(mass[user], 1.0)),
            nodes=int(work.nodes[user]),
            tokens=int(work.tokens[user]),
        )
        prior = items.prior if with_prior else None
        rankings.append(Ranking(items.row, items.logprob, scores, certificate, items.alone, prior))
    return rankings
