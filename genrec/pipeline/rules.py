"""Apply the options of a request that do not depend on the history: filters and boosts.

A boost multiplies the ranking score of all items that meet a condition. It changes the order of the
items, but not their probabilities. This module works with catalog rows, not with prompts or models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genrec.config import QueryOptions, Settings
from genrec.decoding.filters import Filter
from genrec.errors import RequestError
from genrec.pipeline.catalog_index import CatalogIndex, Order
from genrec.types import FloatArray


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts of a request that are the same for all histories.

    Attributes:
        allowed: a filter that allows the items that may be returned to every user.
        boosts: (N,) natural logarithm of the factor on the score of the item in each of N catalog
            rows; None if no option changes the scores.
    """

    allowed: Filter
    boosts: FloatArray | None = None


def apply_rules(
    options: QueryOptions, settings: Settings, index: CatalogIndex, order: Order
) -> Rules:
    """Apply the options that do not depend on the history.

    Args:
        options: the options of the request.
        settings: the settings of the recommender.
        index: the catalog index.
        order: the order of items that the filter refers to.

    Raises:
        RequestError: the options exclude every item, are invalid for this catalog, or do not work
            with the settings.
    """
    allowed = index.allowed(options, order)
    if allowed.count_items(order.n_items) < 1:
        msg = (
            "No item may be returned, because the filters exclude all items or there are no "
            "candidates. Expected at least one item. Relax the filters."
        )
        raise RequestError(msg)
    return Rules(allowed, _find_boosts(options, settings, index))


def _find_boosts(
    options: QueryOptions, settings: Settings, index: CatalogIndex
) -> FloatArray | None:
    """Return the logarithm of each item's factor, or None if no option changes the scores.

    The factors of all conditions that an item meets are multiplied.
    """
    if not options.boosts:
        return None
    if settings.search == "sample":
        msg = (
            "boosts do not work with search='sample', which draws items according to their "
            "probabilities. Leave them out, or choose another search."
        )
        raise RequestError(msg)
    if settings.decoder == "match":
        msg = (
            "boosts do not work with decoder='match', which does not score all items of the catalog. "
            "Leave them out, or use decoder='trie'."
        )
        raise RequestError(msg)
    logs = np.zeros(len(index.catalog))
    for condition, factor in options.boosts.items():
        logs[index.where(condition)] += math.log(factor)
    return logs
