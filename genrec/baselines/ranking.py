"""Turn the scores of items into rankings.

This includes breaking ties, leaving out items that a user has already interacted with, and ranking
items by popularity if their scores are not informative.
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
    """Set the scores of items that a user has seen to -inf, so that they are not recommended.

    Args:
        catalog: the N items.
        history: the user's history.
        scores: (N,) scores in the order of the catalog's rows, which are not modified.
        lead_in_behaviors: behaviors that do not mark an item as seen; see ``History.had``.

    Returns:
        (N,) new scores.
    """
    allowed = scores.copy()
    allowed[catalog.rows(history.had(lead_in_behaviors))] = -np.inf
    return allowed


def top_rows(scores: FloatArray, k: int) -> IntArray:
    """Return the indices of the k highest scores, best first.

    Among equal scores, the lower index comes first. A score of -inf is never included.

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
    """Replace scores of 0 or less, so that these items are ranked by popularity below all others.

    Args:
        scores: (U, N) scores of N items for U users.
        popularity: (N,) number of events of each item.

    Returns:
        (U, N) new scores, in which all replaced values are negative.
    """
    return np.where(scores > 0, scores, popularity / (popularity.max() + 1.0) - 1.0)


def replace_unknown(
    scores: FloatArray, known: npt.NDArray[np.bool_], popularity: FloatArray
) -> FloatArray:
    """Use the items' popularity as the scores of users about whom nothing is known.

    Args:
        scores: (U, N) scores of N items for U users.
        known: (U,) mask of the users whose scores are based on a history.
        popularity: (N,) number of events of each item.

    Returns:
        (U, N) scores. For users who are not in the mask, these are the items' popularity.
    """
    return np.where(np.asarray(known)[:, None], scores, popularity[None])
