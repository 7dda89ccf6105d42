"""Define data types for user events: single interactions, histories and arrays of all events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genrec.config import END
from genrec.data.statuses import is_return
from genrec.errors import RequestError
from genrec.types import IntArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Interaction:
    """A single event, in which a user did something with an item at a certain time.

    Attributes:
        item_id: the id of the item; None for an event that has only text.
        behavior: what the user did, such as ``buy`` or ``view``.
        timestamp: the time in seconds, or any number that increases with time.
        value: a number such as a rating or a quantity.
        unit: the basket or session of the event.
        text: a search query or a comment.
        attributes: the values of any other columns, by name.
        context: the values of the declared columns of the context, by name; see
            ``genrec.data.context``.
    """

    item_id: str | None
    behavior: str
    timestamp: float = 0.0
    value: float | None = None
    unit: str | None = None
    text: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """One user's interactions, and the circumstances of the next one.

    Attributes:
        interactions: the interactions, oldest first.
        user_id: the user; None for a user not in the data.
        context: the context of the next event, by column; see ``genrec.data.context``.
        note: what is known about the next event in free words; may be empty.
        query: what the user asks for, in words; may be empty.
        earlier: a line that stands for events before these, in a prompt that shows only the latest ones;
            may be empty.
    """

    interactions: tuple[Interaction, ...] = ()
    user_id: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    query: str = ""
    earlier: str = ""

    def __len__(self) -> int:
        return len(self.interactions)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Item ids, oldest first, including repeats. Events that have only text are skipped."""
        return tuple(i.item_id for i in self.interactions if i.item_id is not None)

    def had(self, lead_in_behaviors: Collection[str] = ()) -> tuple[str, ...]:
        """Return the ids of the items that count as seen for ``exclude_seen``.

        Args:
            lead_in_behaviors: behaviors that lead up to the target behavior, as a view leads up to
                a purchase. An item does not count as seen if all its events have one of these
                behaviors.
        """
        counting = (i for i in self.interactions if i.behavior not in lead_in_behaviors)
        return tuple(i.item_id for i in counting if i.item_id is not None)

    def had_by(self, behavior: str) -> tuple[str, ...]:
        """Return the ids of the items that have an event with a given behavior, such as ``buy``."""
        return tuple(
            i.item_id for i in self.interactions if i.behavior == behavior and i.item_id is not None
        )

    def returned(self) -> tuple[str, ...]:
        """Return the ids of the items whose latest event is a return (``statuses.is_return``)."""
        latest = {i.item_id: i.behavior for i in self.interactions if i.item_id is not None}
        return tuple(item_id for item_id, behavior in latest.items() if is_return(behavior))

    def latest_basket(self, behavior: str) -> tuple[str, ...]:
        """Return the ids of the items in the user's latest basket.

        The basket consists of all items with a target event in the same unit as the user's latest
        target event. An event without a unit, as in a typed history, forms a basket by itself.

        Args:
            behavior: the target behavior, such as ``buy``.
        """
        events = [i for i in self.interactions if i.behavior == behavior and i.item_id is not None]
        if not events:
            return ()
        unit = events[-1].unit
        basket = events[-1:] if unit is None else [i for i in events if i.unit == unit]
        return tuple(i.item_id for i in basket if i.item_id is not None)

    def latest(self, n: int) -> History:
        """Return a history with only the latest n interactions, or all if there are fewer."""
        return self.with_events(self.interactions[max(0, len(self) - n) :])

    def with_events(self, interactions: Sequence[Interaction]) -> History:
        """Return a history of the same user and in the same context with other interactions."""
        return replace(self, interactions=tuple(interactions))


def join_events(
    start: Sequence[Interaction], later: Sequence[Interaction], *, positions: bool
) -> tuple[Interaction, ...]:
    """Return the events of a dataset and those that came after it as one history, oldest first.

    Args:
        start: the user's events in the dataset.
        later: the events that came after it.
        positions: True if the times of the dataset are only positions. Then all later events come after
            those of the dataset.
    """
    if positions:
        return (*start, *sorted(later, key=lambda i: i.timestamp))
    return tuple(sorted([*start, *later], key=lambda i: i.timestamp)) if later else tuple(start)


@dataclass(frozen=True, slots=True)
class EventColumns:
    """All E events as arrays, sorted by user, then time, then position in the file."""

    user: IntArray  # (E,) code into user_ids, ascending
    row: IntArray  # (E,) catalog row, -1 for an event that only has text
    behavior: IntArray  # (E,) code into behaviors
    timestamp: npt.NDArray[np.float64]  # (E,)
    value: npt.NDArray[np.float64]  # (E,) NaN for an event without a value
    unit: IntArray  # (E,) code of the basket; without baskets, each event has a different code
    split: IntArray  # (E,) 0 train, 1 validation, 2 test


@dataclass(frozen=True, slots=True)
class EventTable:
    """All events, together with the ids of users and the names of behaviors and baskets.

    Attributes:
        user_ids: user ids by code.
        behaviors: names of behaviors by code.
        columns: the events.
        unit_name: the name of the basket column; None if the data has no baskets.
        unit_ids: names of baskets by code; None if the data has no baskets.
        text: (E,) the search query or comment of each event; None if there is no text column.
        attributes: any other columns, with E rows; None if there are no others.
        context_columns: the columns that are declared as the context of the events.
        dated: False if the times are only positions, so that no context is derived from them.
    """

    user_ids: Sequence[str]
    behaviors: Sequence[str]
    columns: EventColumns
    unit_name: str | None = None
    unit_ids: Sequence[str] | None = None
    text: pa.Array | None = None
    attributes: pa.Table | None = None
    context_columns: tuple[str, ...] = ()
    dated: bool = True


def split_code(split: str) -> int:
    """Return the code of a split: 0 for train, 1 for validation, 2 for test."""
    if split not in SPLITS:
        msg = f"{split!r} is not a split. Expected one of {', '.join(SPLITS)}."
        raise RequestError(msg)
    return SPLITS.index(split)


def count_splits(before: str) -> int:
    """Return the number of splits before a given one: 1 for validation, 2 for test, 3 for the end.

    An event may be counted if the code of its split is lower than this number.

    Args:
        before: ``validation``, ``test``, or ``end`` for all splits; see ``genrec.config.to_before``.

    Raises:
        RequestError: ``before`` has a different value.
    """
    counted = {"validation": 1, "test": 2, END: 3}
    if before not in counted:
        msg = f"Unknown value before={before!r}. Expected one of: {', '.join(counted)}."
        raise RequestError(msg)
    return counted[before]
