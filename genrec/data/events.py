"""Events of users: Interaction, History and the columns that hold them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genrec.errors import RequestError
from genrec.types import IntArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user, one item, one behavior, one timestamp (seconds or any rising number).

    An interaction may carry ``text`` (a search, a comment); then ``item_id`` may be None.
    """

    item_id: str | None
    behavior: str
    timestamp: float = 0.0
    value: float | None = None
    unit: str | None = None
    text: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """One user's interactions, oldest first. ``user_id`` is None for somebody not in the data."""

    interactions: tuple[Interaction, ...] = ()
    user_id: str | None = None

    def __len__(self) -> int:
        return len(self.interactions)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of the items, oldest first, with repeats; events of text only have none."""
        return tuple(i.item_id for i in self.interactions if i.item_id is not None)

    def had(self, lead_in_behaviors: Collection[str] = ()) -> tuple[str, ...]:
        """The ids of the items that "seen" means: the one rule of ``exclude_seen``.

        Args:
            lead_in_behaviors: behaviors that lead to what is asked for, as a view to a purchase: an item of these
                events only does not count as seen.
        """
        found = (i for i in self.interactions if i.behavior not in lead_in_behaviors)
        return tuple(i.item_id for i in found if i.item_id is not None)

    def latest(self, n: int) -> History:
        """The last n interactions (all, where there are fewer)."""
        return History(self.interactions[max(0, len(self) - n) :], self.user_id)


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The events as arrays, sorted by user, then time, then place in the file; E events."""

    user: IntArray  # (E,) code into user_ids, rising
    row: IntArray  # (E,) catalog row, -1 for an event of text only
    behavior: IntArray  # (E,) code into behaviors
    timestamp: npt.NDArray[np.float64]  # (E,)
    value: npt.NDArray[np.float64]  # (E,) NaN where there is none
    unit: IntArray  # (E,) code of the basket; every event its own where there are none
    split: IntArray  # (E,) 0 train, 1 validation, 2 test


@dataclass(frozen=True, slots=True)
class EventTable:
    """All events with the names behind their codes: what reading a file yields.

    Attributes:
        user_ids: names of users, by code.
        behaviors: names of behaviors, by code.
        columns: the events.
        unit_name: the column that baskets came from, if there are any.
        unit_ids: names of baskets, by code.
        text: (E,) a search or comment per event.
        attributes: (E rows) any other columns.
    """

    user_ids: Sequence[str]
    behaviors: Sequence[str]
    columns: EventColumns
    unit_name: str | None = None
    unit_ids: Sequence[str] | None = None
    text: pa.Array | None = None
    attributes: pa.Table | None = None


def said_time(seconds: float) -> str:
    """Seconds since 1970 as an ISO time in UTC, or as a number where there is none.

    >>> said_time(978300760.0), said_time(1e13)
    ('2000-12-31T22:12:40Z', '10000000000000')
    """
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.15g}"
    return moment.isoformat().replace("+00:00", "Z")


def split_code(split: str) -> int:
    """Return the number of a split: 0 train, 1 validation, 2 test."""
    if split not in SPLITS:
        msg = f"{split!r} is not a split. Expected one of {', '.join(SPLITS)}."
        raise RequestError(msg)
    return SPLITS.index(split)
