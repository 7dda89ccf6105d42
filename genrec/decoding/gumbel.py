"""Add random noise to the log-probabilities of trie nodes, so that a search draws random items."""

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
    """Add Gumbel noise to the log-probabilities of C nodes, which are the children of L parents.

    The noise is chosen so that the highest value among a parent's children equals the value of the
    parent. Then the k items with the highest values are a random draw of k items without
    replacement (Kool et al. 2019, Stochastic Beams and Where to Find Them,
    https://arxiv.org/abs/1903.06059, appendix B.3).

    Args:
        seed: (C,) random seeds. The noise depends only on seed, user and name.
        user: (C,) index of each child's user.
        name: (C,) number that identifies each child among the same user's nodes.
        logprob: (C,) log-probability of each child. Children of the same parent are adjacent.
        start: (L,) index of each parent's first child.
        source: (C,) index of each child's parent.
        above: (L,) log-probability of each parent, including noise.

    Returns:
        (C,) log-probabilities of the children, including noise.
    """
    noise = -np.log(-np.log(_uniform(seed, user, name)))
    value = logprob + noise
    peak = np.maximum.reduceat(value, start)[source]
    top = above[source]
    with np.errstate(divide="ignore"):
        v = top - value + np.log1p(-np.exp(np.minimum(value - peak, 0.0)))
    return np.asarray(top - np.maximum(v, 0.0) - np.log1p(np.exp(-np.abs(v))))


def _uniform(seed: Seeds, user: IntArray, name: IntArray) -> FloatArray:
    """Compute a pseudorandom number between 0 and 1 for each entry.

    The number is a splitmix64 hash (Steele et al. 2014) of the entry's seed, user and name. It is
    never exactly 0 or 1.
    """
    with np.errstate(over="ignore"):
        x = name.astype(np.uint64)
        for salt in (seed, user):
            x = x + salt.astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return np.asarray(((x >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52)
