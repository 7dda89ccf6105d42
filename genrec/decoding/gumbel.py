"""Add Gumbel noise to the nodes of a trie to sample items without replacement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genrec.types import FloatArray, IntArray

Seeds = npt.NDArray[np.uint64]


def perturb(
    seed: Seeds,
    user: IntArray,
    name: IntArray,
    logprob: FloatArray,
    start: IntArray,
    source: IntArray,
    above: FloatArray,
) -> FloatArray:
    """Add Gumbel noise to log-probabilities so that each group's maximum equals its parent's value.

    The k items with the highest perturbed values are k draws without replacement (Kool et al. 2019,
    Stochastic Beams and Where to Find Them, https://arxiv.org/abs/1903.06059, appendix B.3).

    Args:
        seed: (C,) seeds; the noise depends only on seed, user and name.
        user: (C,) user of each entry.
        name: (C,) number that identifies the entry among the same user's entries.
        logprob: (C,) log-probabilities.
        start: (L,) index at which each group starts.
        source: (C,) group of each entry.
        above: (L,) perturbed log-probability of each group's parent.

    Returns:
        (C,) perturbed log-probabilities.
    """
    noise = -np.log(-np.log(_uniform(seed, user, name)))
    value = logprob + noise
    peak = np.maximum.reduceat(value, start)[source]
    top = above[source]
    with np.errstate(divide="ignore"):
        v = top - value + np.log1p(-np.exp(np.minimum(value - peak, 0.0)))
    return np.asarray(top - np.maximum(v, 0.0) - np.log1p(np.exp(-np.abs(v))))


def _uniform(seed: Seeds, user: IntArray, name: IntArray) -> FloatArray:
    """Hash each entry to a number strictly between 0 and 1 with splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = name.astype(np.uint64)
        for salt in (seed, user):
            x = x + salt.astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return np.asarray(((x >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52)
