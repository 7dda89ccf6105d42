"""Split events into train, validation and test, by each user's last unit or by time.

A unit is a basket if the data has baskets, otherwise a single event. Every function returns a copy
with new split labels; no event is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.data.interactions import Interactions
from genrec.data.time_units import format_time
from genrec.data.times import parse_time
from genrec.errors import DataError, SettingsError
from genrec.types import BoolArray, FloatArray, IntArray

SPLIT_WAYS = ("last-unit", "global-time")
_VALIDATION_FROM, _TEST_FROM = 0.8, 0.9  # the fraction of events before each part


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """Options for splitting the events.

    Attributes:
        way: how to split: one of ``SPLIT_WAYS``. None keeps an existing split column, or splits by
            last unit if there is none.
        validation_from: the start of the validation part for ``global-time``, as an ISO date or as
            a number in the data's time unit. None selects the time before which 80% of the events
            occur.
        test_from: the start of the test part, in the same format. None selects the time before
            which 90% of the events occur.
    """

    way: str | None = None
    validation_from: str | float | None = None
    test_from: str | float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.way not in {None, *SPLIT_WAYS}:
            msg = f"Unknown value split={self.way!r}. Expected one of: {', '.join(SPLIT_WAYS)}."
            raise SettingsError(msg)
        if self.way != "global-time" and (self.validation_from, self.test_from) != (None, None):
            msg = (
                f"validation_from={self.validation_from!r} and test_from={self.test_from!r} were "
                f"given with split={self.way!r}. They are only allowed with split='global-time'. "
                "Remove them, or add --split global-time."
            )
            raise SettingsError(msg)


def split_events(
    events: Interactions, target: str, options: SplitOptions, *, time_unit: str, given: bool
) -> tuple[Interactions, str, dict[str, float]]:
    """Split events according to the options.

    Args:
        events: the events to split.
        target: the target behavior, such as ``buy``.
        options: how to split the events.
        time_unit: the unit of the timestamps in the file (``Ingested.time_unit``).
        given: True if the events already have labels from a split column.

    Returns:
        The events with new labels; the display name of the split (``last unit``, ``global time`` or
        ``given``); and for ``global time``, the starts of the validation and test parts.

    Raises:
        DataError: the data cannot be split in this way.
        SettingsError: a start is not a valid time.
    """
    if options.way == "global-time":
        starts = _part_starts(events, options, time_unit)
        events = split_global_time(events, starts["validation"], starts["test"])
        return events, "global time", starts
    if given and options.way is None:
        return events, "given", {}
    return split_last_unit(events, target), "last unit", {}


def _part_starts(events: Interactions, options: SplitOptions, time_unit: str) -> dict[str, float]:
    """Return the starts of the validation and test parts as stored timestamps."""
    if time_unit == "position":
        msg = (
            "split='global-time' needs times, but the data has positions, which cannot be compared "
            "between users. Expected timestamps. Use --split last-unit, or --time-unit s, ms or "
            "day if the numbers are times."
        )
        raise DataError(msg)
    parts = {
        "validation": (options.validation_from, _VALIDATION_FROM),
        "test": (options.test_from, _TEST_FROM),
    }
    return {
        part: time_quantile(events, share) if start is None else parse_time(start, time_unit)
        for part, (start, share) in parts.items()
    }


def split_last_unit(events: Interactions, target: str) -> Interactions:
    """Split the events by each user's last two units.

    Only units with an event of the target behavior count. Test begins with the first event of the
    user's last such unit, and validation with the first event of the unit before it. Everything
    earlier is train. A user with two such units has no target events in train; all events of a user
    with only one such unit are in train.

    Args:
        events: the events to split.
        target: the target behavior, such as ``buy``.

    Raises:
        DataError: no event has that behavior.
    """
    is_target = _is_target(events, target)
    c = events.columns
    test = _last_unit_start(events, is_target)
    index = np.arange(len(events))
    validation = _last_unit_start(events, is_target & (index < test[c.user]))
    two = validation >= 0  # users with at least two units
    split = np.zeros(len(events), dtype=np.int64)
    split[two[c.user] & (index >= validation[c.user])] = 1
    split[two[c.user] & (index >= test[c.user])] = 2
    return events.with_split(split)


def split_global_time(
    events: Interactions, validation_from: float | None = None, test_from: float | None = None
) -> Interactions:
    """Split the events at two points in time that are the same for all users.

    Units that start before ``validation_from`` are train, units that start at ``test_from`` or
    later are test, and all other units are validation. Baskets are never divided: all events of a
    basket are in the same part as its first event. Overlapping baskets of one user stay together.
    All events of a user may be in one part, and a part may contain many units of a user.
    ``Interactions.targets`` returns the first of these units, and ``Interactions.history(user,
    before=split)`` ends when the part starts.

    Args:
        events: the events to split.
        validation_from: the start of the validation part in seconds; None selects the time before
            which 80% of the events occur.
        test_from: the start of the test part in seconds; None selects the time before which 90% of
            the events occur.

    Raises:
        DataError: the times are in the wrong order, or train or test would be empty.
    """
    c = events.columns
    first = time_quantile(events, _VALIDATION_FROM) if validation_from is None else validation_from
    second = time_quantile(events, _TEST_FROM) if test_from is None else test_from
    time = _unit_times(events)
    split = (time >= first).astype(np.int64) + (time >= second)
    if not first <= second or not (split == 0).any() or not (split == 2).any():
        low, high = format_time(float(c.timestamp.min())), format_time(float(c.timestamp.max()))
        msg = (
            f"Validation from {format_time(first)} and test from {format_time(second)} leave "
            f"{(split == 0).sum():,} events for train and {(split == 2).sum():,} for test. "
            f"Expected two times between {low} and {high}, the earlier one first. Choose other times "
            "(--validation-from, --test-from), or split by last unit (--split last-unit)."
        )
        raise DataError(msg)
    return events.with_split(split)


def hold_last_train_unit(
    events: Interactions, target: str, users: BoolArray | None = None
) -> Interactions:
    """Hold out the last train unit of each user, or of some users, as validation.

    Users with fewer than two train units keep them all; units are counted as in
    ``split_last_unit``. The old validation part becomes part of test. Use this function if the data
    has no validation part but one is needed for fitting.

    Args:
        events: the events to split.
        target: the target behavior, such as ``buy``.
        users: (U,) mask of the users whose unit is held out; None for all users.

    Raises:
        DataError: no event has that behavior.
    """
    c, index = events.columns, np.arange(len(events))
    train = _is_target(events, target) & (c.split == 0)
    last = _last_unit_start(events, train)
    earlier = np.zeros(len(events.user_ids), dtype=np.bool_)
    earlier[c.user[train & (index < last[c.user])]] = True
    split = np.minimum(2 * c.split, 2)
    held = earlier if users is None else earlier & users
    split[(c.split == 0) & held[c.user] & (index >= last[c.user])] = 1
    return events.with_split(split)


def hold_latest_train(events: Interactions, target: str, share: float = 0.1) -> Interactions:
    """Hold out the latest part of train as validation, starting at the same time for all users.

    The new part begins at the time after which the given fraction of train's target events occurs.
    The old validation part becomes part of test. Baskets are never divided: all events of a basket
    are in the same part as its first event.

    Args:
        events: the events to split.
        target: the target behavior, such as ``buy``.
        share: the fraction of train's target events to hold out, 0 to 1.

    Raises:
        DataError: no train event has that behavior.
    """
    c = events.columns
    train = _is_target(events, target) & (c.split == 0)
    if not train.any():
        raise events.unknown_behavior(target)
    start = np.quantile(c.timestamp[train], 1 - share, method="higher")
    split = np.minimum(2 * c.split, 2)
    split[(c.split == 0) & (_unit_times(events) >= start)] = 1
    return events.with_split(split)


def is_test_after_train(events: Interactions) -> bool:
    """Check whether test is later than train for all users, ignoring about 1% of the events."""
    c = events.columns
    train, test = c.timestamp[c.split == 0], c.timestamp[c.split == 2]
    if not len(train) or not len(test):
        return False
    return bool(np.quantile(train, 0.99) <= np.quantile(test, 0.01))


def time_quantile(events: Interactions, share: float) -> float:
    """Return the time before which the given fraction (0 to 1) of all events occurs."""
    return float(np.quantile(events.columns.timestamp, share, method="higher"))


def _is_target(events: Interactions, target: str) -> BoolArray:
    """Return an (E,) mask of the events with the target behavior and an item."""
    if target not in events.behaviors:
        raise events.unknown_behavior(target)
    c = events.columns
    marked: BoolArray = (c.behavior == events.behaviors.index(target)) & (c.row >= 0)
    return marked


def _unit_times(events: Interactions) -> FloatArray:
    """Return the (E,) start times of the events' units; overlapping units of a user are merged."""
    c = events.columns
    last = np.zeros(len(events), dtype=np.int64)  # the index of each unit's last event
    last[c.unit] = np.arange(len(events))
    end = np.maximum.accumulate(last[c.unit])
    begins = np.append(True, end[:-1] < np.arange(1, len(events)))
    times: FloatArray = c.timestamp[begins][np.cumsum(begins) - 1]
    return times


def _last_unit_start(events: Interactions, wanted: BoolArray) -> IntArray:
    """Find where the unit with each user's last wanted event starts, as a (U,) array.

    The start is an index into the events, or -1 for users without a wanted event.
    """
    c = events.columns
    index = np.arange(len(events))
    last = np.full(len(events.user_ids), -1)
    np.maximum.at(last, c.user[wanted], index[wanted])
    unit = np.where(last >= 0, c.unit[last], -1)
    same = c.unit == unit[c.user]
    first = np.full(len(events.user_ids), len(events))
    np.minimum.at(first, c.user[same], index[same])
    return np.where(last >= 0, first, -1)
