"""Turn scores into ranked items.

Handles ties and seen items. If there are no informative scores, items are ranked by popularity.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.types import FloatArray, IntArray


def mask_seen(
    catalog: Catalog, history: History, scores: FloatArray, lead_in_behaviors: Collection[str]
) -> FloatArray:
    """Return (N,) scores in which items already seen (see ``History.had``) are set to -inf."""
    allowed = scores.copy()
    allowed[catalog.rows(history.had(lead_in_behaviors))] = -np.inf
    return allowed


def top_rows(scores: FloatArray, k: int) -> IntArray:
    """Return the rows of the k highest scores, best first.

    Ties are broken by row. Rows with a score of -inf are never returned.

    >>> top_rows(np.array([1.0, 3.0, -np.inf, 3.0]), k=5)
    array([1, 3, 0])
    """
    n = min(k, int((scores > -np.inf).sum()))
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:n]


def fill_by_popularity(scores: FloatArray, popularity: FloatArray) -> FloatArray:
    """Rank items that have no positive score by popularity, below all other items.

    Args:
        scores: (U, N) scores.
        popularity: (N,) number of events of each item.

    Returns:
        (U, N) scores, in which the values at or below 0 are replaced.
    """
    return np.where(scores > 0, scores, popularity / (popularity.max() + 1.0) - 1.0)


def replace_unknown(
    scores: FloatArray, known: npt.NDArray[np.bool_], popularity: FloatArray
) -> FloatArray:
    """Replace the scores of uninformative histories by popularity.

    Args:
        scores: (U, N) scores.
        known: (U,) whether each history is informative, for example because it contains a known
            item.
        popularity: (N,) number of events of each item.
    """
    return np.where(np.asarray(known)[:, None], scores, popularity[None])
