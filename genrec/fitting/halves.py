"""Measure a collaborative prior on validation users that it was not fitted to.

The weights of a prior's sources are fitted to validation users, and a learned ranking stops on
them. So the validation users are divided into two halves. Each half is measured with a prior that
was fitted without the contents of its validation events. No half ever sees the test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.baselines.ranking import mask_seen
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import split_code
from genrec.data.protocols import Case
from genrec.errors import RequestError
from genrec.evaluation import metrics
from genrec.priors.collaborative import CollaborativePrior
from genrec.types import BoolArray, FloatArray

AT = 10  # the length of the lists whose NDCG is measured


@dataclass(frozen=True, eq=False)
class Half:
    """One half of the validation users.

    Attributes:
        known: the dataset without the contents of the test events, and without those of this half's
            validation events.
        cases: the users of this half, or a random sample of them.
    """

    known: Dataset
    cases: Sequence[Case]


def divide(dataset: Dataset, users: int, seed: int) -> tuple[Half, Half] | None:
    """Divide the validation users at random into two halves.

    Args:
        dataset: a dataset with a split.
        users: the maximum number of users to measure in both halves together.
        seed: the random seed.

    Returns:
        The halves; None if there are fewer than two validation users.
    """
    shown = protocols.withhold(dataset, "test")
    try:
        cases = protocols.cases(shown, protocols.default_protocol(shown), "validation")
    except RequestError:  # nobody has a target
        return None
    if len(cases) < 2:
        return None
    first = np.zeros(len(cases), dtype=np.bool_)
    first[np.random.default_rng(seed).permutation(len(cases))[::2]] = True
    return _half(shown, cases, first, users, seed), _half(shown, cases, ~first, users, seed)


def _half(shown: Dataset, cases: Sequence[Case], chosen: BoolArray, users: int, seed: int) -> Half:
    own = [case for case, inside in zip(cases, chosen.tolist(), strict=True) if inside]
    events = shown.interactions
    names = {case.user_id for case in own}
    of_half = np.array([user in names for user in events.user_ids])
    c = events.columns
    hidden = (c.split >= split_code("test")) | (
        (c.split >= split_code("validation")) & of_half[c.user]
    )
    known = replace(shown, interactions=events.withhold(hidden))
    return Half(known, protocols.sample(own, max(users // 2, 1), seed))


@dataclass(frozen=True, eq=False)
class Measured:
    """What a prior gives to the targets of U users, each of them unknown to it.

    Attributes:
        ndcg: (U,) NDCG@10 of each user's target.
        nats: (U,) the negative natural logarithm of the target's probability.
        seconds: how long fitting and measuring took.
        scoring: how many of these seconds measuring took, without fitting.
        reused: True if the figures come from the cache.
    """

    ndcg: FloatArray
    nats: FloatArray
    seconds: float
    scoring: float = 0.0
    reused: bool = False


def score(
    prior: CollaborativePrior,
    cases: Sequence[Case],
    *,
    exclude_seen: bool,
    check: Callable[[], None] = lambda: None,
) -> tuple[FloatArray, FloatArray]:
    """Compute NDCG@10 and the nats of each user's target under a prior alone.

    Items with the same score as the target are ranked by catalog row, as in a list.

    Args:
        prior: the prior.
        cases: the U users.
        exclude_seen: True if lists leave out items that the user has interacted with.
        check: a function that is called before each user, and may raise an error to stop.

    Returns:
        (U,) NDCG@10, and (U,) negative natural logarithms.
    """
    catalog, lead_in = prior.counts.catalog, prior.lead_in_behaviors
    ranks, nats = [], []
    for case in cases:
        check()
        history, row = case.history, catalog.row(case.target)
        scores = prior.logprobs(history)
        nats.append(-float(scores[row]))
        if exclude_seen:
            scores = mask_seen(catalog, history, scores, lead_in)
        better = int((scores > scores[row]).sum() + (scores[:row] == scores[row]).sum())
        ranks.append(better + 1 if np.isfinite(scores[row]) else 0)
    return np.asarray(metrics.ndcg(ranks, AT), dtype=np.float64), np.array(nats)
