"""Apply the options of a request that do not depend on the history: filters, boosts and pins.

Some filters depend on the time of the request: an item may be available only for a limited time, or
be out of stock. A boost multiplies the ranking score of all items that meet a condition. It changes
the order of the items, but not their probabilities. A pinned item comes first, regardless of its
score, unless a filter excludes it. This module works with catalog rows, not with prompts or models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from genrec.config import QueryOptions, Settings
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.item_times import FROM, UNTIL, is_available, read_item_times, read_years
from genrec.data.time_units import format_time
from genrec.data.times import parse_time
from genrec.decoding.filters import Filter
from genrec.errors import DataError, RequestError, SettingsError
from genrec.pipeline.catalog_index import CatalogIndex, Order, check_ids
from genrec.pipeline.keywords import added_boosts, edits_of, keyword_index
from genrec.pipeline.predicate_parser import shorten
from genrec.text import quantity
from genrec.types import BoolArray, FloatArray

_AGE_COLUMNS = (
    "published",
    FROM,
)  # the columns that can hold the age of items, most suitable first
_DAY = 86_400.0
UNBOOSTED = (
    "The keywords that the user added do not change this list, because draws and free texts have no "
    "scores that could be multiplied."
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts of a request that are the same for all histories.

    Attributes:
        allowed: a filter that allows the items that may be returned to every user.
        boosts: (N,) natural logarithm of the factor applied to the score of each of the N catalog
            rows; None if no option changes the scores.
        pins: the catalog rows of the pinned items in the given order, without duplicates.
        excluded: for each pinned row that may not be recommended to any user, the reason.
        notes: remarks for the user.
    """

    allowed: Filter
    boosts: FloatArray | None = None
    pins: tuple[int, ...] = ()
    excluded: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """The items that a rule leaves out.

    Attributes:
        mask: (N,) True for the catalog rows of these items.
        one: a clause that says why one of these items is left out, such as "it is out of stock".
        all: the clause to use if the rule leaves out every item, such as "every item is out of
            stock".
    """

    mask: BoolArray
    one: str
    all: str


def apply_rules(
    options: QueryOptions,
    settings: Settings,
    index: CatalogIndex,
    order: Order,
    dataset: Dataset | None = None,
) -> Rules:
    """Apply the options that do not depend on the history.

    Args:
        options: the options of the request.
        settings: the settings of the recommender.
        index: the catalog index.
        order: the order of items that the filter refers to.
        dataset: the dataset, whose events tell how usual keywords are; None if there is none.

    Raises:
        RequestError: the options exclude every item, are invalid for this catalog, or do not work
            with the settings.
        DataError: the stock file cannot be used.
    """
    moment = request_time(options)
    allowed = index.allowed(options, order)
    left_out: list[_LeftOut] = []
    notes: tuple[str, ...] = ()
    if moment is not None and (available := _find_available(index, moment)) is not None:
        when = format_time(round(moment))
        left_out.append(
            _LeftOut(
                ~available, f"it is not available at {when}", f"no item is available at {when}"
            )
        )
    if options.stock is not None:
        stock = index.stock(options.stock)
        gone = np.ones(len(index.catalog), dtype=np.bool_)
        gone[stock.rows] = False
        left_out.append(_LeftOut(gone, "it is out of stock", "every item is out of stock"))
        notes += stock.notes
    edits = edits_of(options)
    keywords = keyword_index(index, settings, dataset) if edits else None
    if keywords is not None and edits.banned:
        unwanted = np.zeros(len(index.catalog), dtype=np.bool_)
        unwanted[edits.banned_rows(keywords)] = True
        left_out.append(
            _LeftOut(
                unwanted, "it holds a keyword that the user banned",
                "every item holds a keyword that the user banned",
            )
        )  # fmt: skip
    for rule in left_out:
        rows = np.flatnonzero(rule.mask)
        allowed &= Filter.deny(order.positions_of(rows), order.n_positions)
    if allowed.count_items(order.n_items) < 1:
        raise RequestError(_nothing_left(left_out))
    pins = _find_pins(options, settings, index)
    excluded = _find_excluded_pins(pins, options, index)
    for rule in left_out:
        excluded |= {r: rule.one for r in pins if rule.mask[r] and r not in excluded}
    boosts, more = _find_boosts(options, settings, index, moment)
    if keywords is not None and edits.added:
        if settings.search == "sample" or settings.decoder == "match":
            notes += (UNBOOSTED,)
        else:
            added = added_boosts(edits, keywords)
            boosts = added if boosts is None else boosts + added
    return Rules(allowed, boosts, pins, excluded, (*notes, *more))


def request_time(options: QueryOptions) -> float | None:
    """Return the time of the request in seconds since 1970; None if the time is to be ignored."""
    if options.at == "any":
        return None
    if options.at == "now":
        return time.time()
    try:
        return parse_time(str(options.at), "s")
    except SettingsError:
        msg = (
            f"at={options.at!r} is not a time. Expected an ISO date such as 2025-12-24 or "
            "2025-12-24T18:00, seconds since 1970, now, or any to ignore the time."
        )
        raise RequestError(msg) from None


def _find_available(index: CatalogIndex, moment: float) -> BoolArray | None:
    """Return a mask of the catalog rows available at a time; None if they are always available."""
    columns = index.catalog.columns
    since, until = (_times(index, name) if name in columns else None for name in (FROM, UNTIL))
    return None if since is until else is_available(since, until, moment)


def _times(index: CatalogIndex, column: str) -> FloatArray:
    """Read the times in a column of the catalog, and cache them."""
    try:
        return index.made(("times", column), lambda: read_item_times(index.catalog, column))
    except DataError as error:
        raise RequestError(str(error)) from error


def _nothing_left(left_out: list[_LeftOut]) -> str:
    """Build the error message to show when the filters exclude every item."""
    for rule in left_out:
        if rule.mask.all():
            return (
                f"No item may be returned, because {rule.all}. Expected at least one item. Check the "
                "stock file, the times in the catalog and the time of the request (`at`, `--at`)."
            )
    return (
        "No item may be returned, because the filters exclude all items or there are no "
        "candidates. Expected at least one item. Relax the filters."
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
    """Find the pinned rows that the options exclude for every user, with the reason for each."""
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
    options: QueryOptions, settings: Settings, index: CatalogIndex, moment: float | None
) -> tuple[FloatArray | None, tuple[str, ...]]:
    """Compute the factor by which each item's score is multiplied.

    The factors of all conditions that an item meets and the factor for its age are multiplied.

    Returns:
        The logarithm of each item's factor, or None if no option changes the scores; and remarks for
        the user.
    """
    given = {"boosts": bool(options.boosts), "half_life": options.half_life is not None}
    names = [name for name, there in given.items() if there]
    if not names:
        return None, ()
    what = f"{' and '.join(names)} {'does' if names == ['half_life'] else 'do'} not work with"
    if settings.search == "sample":
        msg = (
            f"{what} search='sample', which draws items according to their probabilities. Leave "
            f"out {' and '.join(names)}, or choose another search."
        )
        raise RequestError(msg)
    if settings.decoder == "match":
        msg = (
            f"{what} decoder='match', which does not score all items of the catalog. Leave out "
            f"{' and '.join(names)}, or use decoder='trie'."
        )
        raise RequestError(msg)
    logs = np.zeros(len(index.catalog))
    for condition, factor in options.boosts.items():
        logs[index.where(condition)] += math.log(factor)
    if options.half_life is None:
        return logs, ()
    age, notes = _find_ages(options, index, time.time() if moment is None else moment)
    return logs - math.log(2) * age / options.half_life, notes


def _find_ages(
    options: QueryOptions, index: CatalogIndex, moment: float
) -> tuple[FloatArray, tuple[str, ...]]:
    """Compute the age of each item in days.

    An item without a date is as old as the median item. An item dated in the future has age 0.

    Returns:
        The (N,) ages, and remarks for the user.
    """
    column = options.age_column
    if column is None:
        column = next((n for n in _AGE_COLUMNS if n in index.catalog.columns), None)
    if column is None:
        msg = (
            "half_life needs a column with the time at which each item was released. The catalog "
            f"has neither a column {' nor a column '.join(_AGE_COLUMNS)}. Name another one with "
            "age_column (`--age-column`)."
        )
        raise RequestError(msg)
    index.column(column)  # checks that it exists
    dates = index.made(("years", column), lambda: read_years(index.catalog, column))
    if dates is None:
        dates = _times(index, column)
    known = np.isfinite(dates)
    if not known.any():
        msg = (
            f"The column {column!r} contains no readable times. Expected dates such as 2025-12-24. Name "
            "another column with age_column (`--age-column`), or leave out half_life."
        )
        raise RequestError(msg)
    age = np.maximum(moment - dates, 0.0) / _DAY
    age[~known] = np.median(age[known])
    undated = int((~known).sum())
    if not undated:
        return age, ()
    they = "has no readable time" if undated == 1 else "have no readable times"
    counts = "It counts" if undated == 1 else "They count"
    note = (
        f"{quantity(undated, 'item')} {they} in the column {column!r}. {counts} as old as the median "
        "item."
    )
    return age, (note,)
