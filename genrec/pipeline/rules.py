"""Apply the options of a request that do not depend on the history: filters, boosts and pins.

A boost multiplies the ranking score of all items that meet a condition. It changes the order of the
items, but not their probabilities. A pinned item comes first, whatever its score, unless a filter
excludes it. This module works with catalog rows, not with prompts or models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from genrec.config import QueryOptions, Settings
from genrec.data.catalog import Catalog
from genrec.decoding.filters import Filter
from genrec.errors import RequestError
from genrec.pipeline.catalog_index import CatalogIndex, Order, check_ids
from genrec.pipeline.predicate_parser import shorten
from genrec.text import quantity
from genrec.types import FloatArray


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts of a request that are the same for all histories.

    Attributes:
        allowed: a filter that allows the items that may be returned to every user.
        boosts: (N,) natural logarithm of the factor on the score of the item in each of N catalog
            rows; None if no option changes the scores.
        pins: the catalog rows of the pinned items in the given order, without duplicates.
        excluded: for each pinned row that no user may be recommended, the reason.
    """

    allowed: Filter
    boosts: FloatArray | None = None
    pins: tuple[int, ...] = ()
    excluded: Mapping[int, str] = field(default_factory=dict)

    def place_pins(
        self, allowed: Filter, order: Order, catalog: Catalog, k: int
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Find the pinned items that a list begins with.

        Args:
            allowed: a filter that allows the items that may be returned to the user.
            order: the order of items that the filter refers to.
            catalog: the catalog.
            k: the length of the list.

        Returns:
            The catalog rows of at most k pinned items, and a note for each item that was left out.
        """
        placed: list[int] = []
        notes: list[str] = []
        places = order.find_positions(np.array(self.pins, dtype=np.int64)).tolist()
        for row, place in zip(self.pins, places, strict=True):
            reason = self.excluded.get(row)
            if reason is None and not allowed.keeps(np.array([place]))[0]:
                reason = "the rules on items in the user's history exclude it"
            if reason is None and len(placed) == k:
                reason = f"the list has only {quantity(k, 'place')}"
            if reason is None:
                placed.append(row)
            else:
                notes.append(
                    f"The pinned item {catalog[row].item_id!r} was left out, because {reason}."
                )
        return tuple(placed), tuple(notes)


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
    pins = _find_pins(options, settings, index)
    return Rules(
        allowed,
        _find_boosts(options, settings, index),
        pins,
        _find_excluded_pins(pins, options, index),
    )


def _find_pins(options: QueryOptions, settings: Settings, index: CatalogIndex) -> tuple[int, ...]:
    """Return the catalog rows of the pinned items in the given order, without duplicates."""
    if not options.pin:
        return ()
    if settings.decoder == "match":
        msg = "pin does not work with decoder='match'. Leave it out, or use decoder='trie'."
        raise RequestError(msg)
    check_ids(options.pin, "pin")
    return tuple(dict.fromkeys(index.row(item) for item in options.pin))


def _find_excluded_pins(
    pins: tuple[int, ...], options: QueryOptions, index: CatalogIndex
) -> dict[int, str]:
    """Return the reason for each pinned row that the options exclude for every user."""
    if not pins:
        return {}
    denied = set(index.rows(options.deny, "deny").tolist())
    allowed = None if options.allow is None else set(index.rows(options.allow, "allow").tolist())
    reasons: dict[int, str] = {}
    for row in pins:
        if row in index.removed:
            reasons[row] = "it was removed from the catalog"
        elif row in denied:
            reasons[row] = "it is also excluded (`deny`, `--exclude`)"
        elif allowed is not None and row not in allowed:
            reasons[row] = "it is not among the items to choose from (`allow`)"
        elif options.where is not None and not index.where(options.where)[row]:
            reasons[row] = f"it does not satisfy the condition {shorten(options.where)}"
    return reasons


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
