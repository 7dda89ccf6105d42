"""Make a prior for a private run: popularity from counts with noise, and each user's own items.

The noise is part of the run's epsilon. What a request's own history says needs no noise, as it is known to
whoever makes the request. Counts of pairs of items are left out: with a thousand users, nearly all of them
are smaller than the noise; see benchmarks/LOG.md.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import numpy as np

from genrec.baselines.training_events import TrainingEvents
from genrec.data.dataset import Dataset
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import Counts
from genrec.types import FloatArray, IntArray

PRIOR_NORM = 5.0  # the norm to which a user's counts are clipped
MIX = {"popular": 0.8, "own": 0.2}  # fixed, since fitting the shares would need users without noise


def noised_popularity(
    data: Dataset, behavior: str, before: str, noise: float
) -> CollaborativePrior:
    """Return a prior of popularity, from counts with noise, and of the items of the history.

    Each user's counts are clipped to the norm ``PRIOR_NORM``. Counts with noise are shrunk to their mean as
    far as their variance is that of the noise.

    Args:
        data: the dataset.
        behavior: the behavior to count.
        before: the first split whose events are not counted.
        noise: the standard deviation of the noise, as a multiple of ``PRIOR_NORM``.
    """
    events = TrainingEvents.of(data.interactions, behavior, before)
    clipped = clip_counts(events.user, events.row, len(data.catalog))
    source = np.random.default_rng(secrets.randbits(128))
    counts = shrink(
        clipped + source.normal(0, noise * PRIOR_NORM, len(clipped)), noise * PRIOR_NORM
    )
    return CollaborativePrior(replace(Counts.none(data.catalog), popularity=counts), MIX, {})


def shrink(counts: FloatArray, noise: float) -> FloatArray:
    """Move counts with noise to their mean, which lowers their expected error, and make them at least 0.

    Args:
        counts: (N,) counts with noise.
        noise: the standard deviation of the noise.

    >>> shrink(np.array([0.0, 4.0]), 1.0)
    array([0.5, 3.5])
    """
    variance = float(counts.var())
    kept = max(variance - noise**2, 0.0) / variance if variance else 0.0
    mean = float(counts.mean())
    return np.maximum(mean + (counts - mean) * kept, 0.0)


def clip_counts(user: IntArray, row: IntArray, items: int) -> FloatArray:
    """Sum the users' counts of items after clipping each user's counts to ``PRIOR_NORM``.

    >>> clip_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([1., 2.])
    """
    total = np.zeros(items)
    for one in np.unique(user):
        own = np.bincount(row[user == one], minlength=items)
        total += own * min(1.0, PRIOR_NORM / float(np.linalg.norm(own)))
    return total
