"""Leave items out of lists based on the user's own history, as a shop would.

There are four rules. One leaves out the items that the user has seen, or all items that the user
has not had before. Two leave out items that the user returned and the items in the user's latest
basket. The last one leaves out other items with the title of such an item, since shops often list a
product under several ids. This module deals with histories and filters, not with prompts or models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from genrec.config import QueryOptions, Settings
from genrec.data.catalog import Catalog
from genrec.data.column_names import target_words
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.data.info import DatasetInfo
from genrec.data.refusals import APPROVALS
from genrec.data.statuses import is_return
from genrec.decoding.filters import Filter
from genrec.errors import RequestError
from genrec.pipeline.catalog_index import CatalogIndex, Order
from genrec.pipeline.types import describe_left_out
from genrec.text import title_key
from genrec.types import IntArray


class ShopRules:
    """The rules about a user's own items, with the defaults that the dataset or the settings give.

    Attributes:
        index: the catalog index.
        behavior: the target behavior, such as ``buy``.
    """

    def __init__(
        self, settings: Settings, dataset: Dataset | None, index: CatalogIndex, behavior: str
    ) -> None:
        """Store the data that all requests share.

        Args:
            settings: the settings of the recommender.
            dataset: the dataset, or None if only a catalog was given.
            index: the catalog index.
            behavior: the target behavior.
        """
        self._settings, self._dataset = settings, dataset
        self.index, self.behavior = index, behavior

    @cached_property
    def _habit(self) -> DatasetInfo | None:
        """The dataset's statistics, such as how often users repeat the target behavior.

        The value is None if there is no dataset.
        """
        if self._dataset is None:
            return None
        info, events = self._dataset.info, self._dataset.interactions
        if self.behavior == info.target_behavior or self.behavior not in events.behaviors:
            return info
        return info.with_target(self.behavior, events)

    @property
    def exclude_seen(self) -> bool:
        """True if items from the user's history are not recommended by default.

        This is the setting ``exclude_seen``, or the dataset's default if the setting is None.
        """
        if self._settings.exclude_seen is not None:
            return self._settings.exclude_seen
        return self._habit.exclude_seen if self._habit is not None else True

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """The behaviors that do not mark an item as seen; see ``DatasetInfo.lead_in_behaviors``."""
        return self._habit.lead_in_behaviors if self._habit is not None else frozenset()

    @cached_property
    def _approvals(self) -> frozenset[str]:
        """The behaviors with which customers of a shop approve of items that they do not have.

        A film that somebody likes was probably watched, so this holds only if items are bought. A
        behavior that the dataset has itself keeps the meaning that it has there.
        """
        if self.behavior not in target_words():
            return frozenset()
        own = () if self._dataset is None else self._dataset.interactions.behaviors
        return frozenset(APPROVALS) - {*own}

    def show(self, options: QueryOptions) -> str:
        """Return which items a request is about: ``all``, ``new`` or ``again``.

        This is the option ``show``. If it is not given, ``exclude_seen`` decides.

        Raises:
            RequestError: the option contradicts the setting ``exclude_seen``.
        """
        if options.show is None:
            return "new" if self.exclude_seen else "all"
        setting = self._settings.exclude_seen
        if setting is not None and setting != (options.show == "new"):
            flag = "--exclude-seen" if setting else "--include-seen"
            fitting = "show='new'" if setting else "show='all' or show='again'"
            msg = (
                f"show={options.show!r} contradicts exclude_seen={setting} ({flag}). Expected "
                f"{fitting}. Give only one of the two options."
            )
            raise RequestError(msg)
        return options.show

    def describe_seen(self, show: str) -> str:
        """Describe in a few words how seen items are treated, with any exceptions."""
        if show == "all":
            return "included"
        if show == "again":
            return "the only ones that are included"
        known = self._habit.led_by.keys() if self._habit is not None else frozenset()
        spared = sorted(self.lead_in_behaviors & known)
        return (
            f"excluded, except items with only {' or '.join(spared)} events"
            if spared
            else "excluded"
        )

    def filters(self, history: History, options: QueryOptions, order: Order) -> dict[str, Filter]:
        """Return a filter for each rule that applies to a request, keyed by the name of the rule.

        Args:
            history: the history of the user, whose items are all in the catalog.
            options: the options of the request.
            order: the order of items that the filters refer to.

        Raises:
            RequestError: the options contradict the settings; see ``show``.
        """
        show, n = self.show(options), order.n_positions
        had = history.had_by(self.behavior)
        denied: dict[str, Collection[str]] = {}
        if show == "new":
            denied["seen"] = history.had(self.lead_in_behaviors | self._approvals)
        if not (options.allow_returned or is_return(self.behavior)):
            denied["returned"] = history.returned()
        if not options.allow_last_basket:
            denied["last_basket"] = history.latest_basket(self.behavior)
        filters: dict[str, Filter] = {}
        if show == "again":
            filters["unseen"] = Filter.allow(self._places(had, order), n)
        elif denied and not options.allow_same_title:
            ids = chain.from_iterable(denied.values())
            denied["same_title"] = self._same_titles(list(ids)) - set(had)
        filters |= {name: Filter.deny(self._places(ids, order), n) for name, ids in denied.items()}
        return filters

    def _same_titles(self, item_ids: Sequence[str]) -> set[str]:
        """Return the ids of all items with the same title as one of the given items.

        Titles are compared without regard to case and punctuation.
        """
        if not item_ids:  # a new user needs no table of titles
            return set()
        catalog = self.index.catalog
        by_title = self.index.made("rows of titles", lambda: _rows_of_titles(catalog))
        titles = {title_key(catalog[row].title) for row in catalog.rows(item_ids)}
        return {catalog[row].item_id for title in titles for row in by_title[title]}

    def _places(self, item_ids: Iterable[str], order: Order) -> IntArray:
        """Return the positions of items in ascending order. Removed items are left out."""
        rows = self.index.catalog.rows(list(dict.fromkeys(item_ids)))
        return order.positions_of(np.array(rows, dtype=np.int64))


def _rows_of_titles(catalog: Catalog) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, title in enumerate(catalog.titles):
        rows.setdefault(title_key(title), []).append(row)
    return rows


def apply_filters(
    common: Filter, filters: Mapping[str, Filter], order: Order
) -> tuple[Filter, dict[str, int]]:
    """Apply the filters of several rules one after another, and count the items each one removes.

    Args:
        common: a filter of the items that all other options allow.
        filters: the filters, keyed by the name of the rule, in the order in which they are applied.
            An item that several rules remove counts for the first of them.
        order: the order of items that the filters refer to.

    Returns:
        A filter of the items that are left, and the number of items removed by each rule.
    """
    allowed, removed = common, {}
    size = common.count_items(order.n_items)
    for rule, one in filters.items():
        allowed &= one
        left = allowed.count_items(order.n_items)
        removed[rule], size = size - left, left
    return allowed, removed


def describe_nothing_left(options: QueryOptions, show: str, removed: Mapping[str, int]) -> str:
    """Explain that the rules leave no item, and say what to do.

    Args:
        options: the options of the request.
        show: which items the request is about; see ``ShopRules.show``.
        removed: the number of items that each rule removed.
    """
    none = "No item may be returned, because every item is excluded."
    own = {rule: n for rule, n in removed.items() if n and rule != "unseen"}
    if show == "new" and own.keys() <= {"seen"}:
        advice = (
            "Include seen items (exclude_seen=False, --include-seen)"
            if options.show is None
            else "Include seen items (show='all', --show all)"
        )
        return (
            f"{none} The user has already interacted with all items that the filters allow. {advice}, "
            "or relax the filters."
        )
    if not own:
        return (
            f"{none} The user has not had any of the items that the filters allow. Ask for new items "
            "(show='new', --show new), or relax the filters."
        )
    flags = " and ".join(
        "show='all' (--show all)"
        if rule == "seen"
        else f"allow_{rule}=True (--allow-{rule.replace('_', '-')})"
        for rule in own
    )
    return (
        f"{none} The rules on the user's own items leave out {describe_left_out(own)}. To include such "
        f"items, use {flags}. You can also relax the filters."
    )
