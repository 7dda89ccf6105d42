"""Store factors that move items up or down in a ranking.

An item is identified by its position in the trie of titles. This module deals with numbers and
positions only, not with tries or items.
"""

from __future__ import annotations

import numpy as np

from genrec.types import FloatArray, IntArray


class Boosts:
    """Positive factors that change the order of items, but not their probabilities.

    The logarithm of an item's factor is added to the score by which the item is ranked.

    Attributes:
        logs: (N,) natural logarithm of the item's factor at each of N positions.
    """

    def __init__(self, logs: FloatArray) -> None:
        """Store the factors.

        Args:
            logs: (N,) natural logarithm of the factor at each position, which must be finite.
        """
        self.logs = logs
        self._padded = np.append(logs, -np.inf)  # so that a range may end at the last position

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        """Find the highest factor in each of C ranges of positions.

        Args:
            low: (C,) first position of each range.
            high: (C,) position after the end of each range. It must be greater than ``low``.

        Returns:
            (C,) natural logarithms of the highest factors.
        """
        if not len(low):
            return np.empty(0)
        bounds = np.stack([low, high], axis=1).ravel()
        return np.asarray(np.maximum.reduceat(self._padded, bounds)[::2])

    def at(self, positions: IntArray) -> FloatArray:
        """Look up the factors at P positions.

        Args:
            positions: (P,) positions.

        Returns:
            (P,) natural logarithms of the factors.
        """
        return self.logs[positions]
