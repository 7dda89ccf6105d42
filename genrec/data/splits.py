"""Split events into train, validation and test: by each user's last unit, or by time.

Every function returns a copy with other split labels; no event is dropped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genrec.data.events import said_time
from genrec.data.interactions import Interactions
from genrec.errors import DataError
from genrec.types import IntArray


def split_last_unit(events: Interactions, target: str) -> Interactions:
    """The three-part split by last unit: a copy with new split labels.

    A unit is a basket where the data has baskets, else an event; units are counted where they
    hold an event of the target behavior. The user's last unit and all after its first event
    is test, the last but one validation, what is before train. A user with two units has no
    train part, one with a single unit has train only.

    Args:
        events: the events to split.
        target: the behavior to be recommended for, such as ``buy``.

    Raises:
        DataError: no event has that behavior.
    """
    if target not in events.behaviors:
        raise events.unknown_behavior(target)
    c = events.columns
    is_target = (c.behavior == events.behaviors.index(target)) & (c.row >= 0)
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
    """The three-part split by time, the same for all users: a copy with new split labels.

    What begins before ``validation_from`` is train, what begins at ``test_from`` or later is
    test, what lies between is validation. A basket is never cut, its first event decides; so
    do baskets of one user that overlap, together. A user's events may all be of one part, or
    of test only, and a part may hold many of a user's units: ``targets`` gives the first of
    them, and ``history(user, before=split)`` ends where the part begins.

    Args:
        events: the events to split.
        validation_from: in the unit of the timestamps (seconds); the time that 80% of the
            events lie before where None.
        test_from: likewise, 90%.

    Raises:
        DataError: the times are in the wrong order, or leave train or test without an event.
    """
    c = events.columns
    first = events.time_quantile(0.8) if validation_from is None else validation_from
    second = events.time_quantile(0.9) if test_from is None else test_from
    time = _unit_times(events)
    split = (time >= first).astype(np.int64) + (time >= second)
    if not first <= second or not (split == 0).any() or not (split == 2).any():
        low, high = said_time(float(c.timestamp.min())), said_time(float(c.timestamp.max()))
        msg = (
            f"validation from {said_time(first)} and test from {said_time(second)} leave "
            f"{(split == 0).sum():,} events for train and {(split == 2).sum():,} for test. "
            f"Expected two times in order between {low} and {high}; give others "
            "(--validation-from, --test-from), or split by last unit (--split last-unit)."
        )
        raise DataError(msg)
    return events.with_split(split)


def hold_last_train_unit(events: Interactions, target: str) -> Interactions:
    """A copy with another validation part: the last unit of everybody's train.

    Of users with at least two units there, counted as in ``split_last_unit``; what was validation
    is test. For what is fitted on validation where the data has none.

    Args:
        events: the events to split.
        target: the behavior to be recommended for, such as ``buy``.

    Raises:
        DataError: no event has that behavior.
    """
    if target not in events.behaviors:
        raise events.unknown_behavior(target)
    c, index = events.columns, np.arange(len(events))
    train = (c.behavior == events.behaviors.index(target)) & (c.row >= 0) & (c.split == 0)
    last = _last_unit_start(events, train)
    earlier = np.zeros(len(events.user_ids), dtype=np.bool_)
    earlier[c.user[train & (index < last[c.user])]] = True
    split = np.minimum(2 * c.split, 2)
    split[(c.split == 0) & earlier[c.user] & (index >= last[c.user])] = 1
    return events.with_split(split)


def hold_latest_train(events: Interactions, target: str, share: float = 0.1) -> Interactions:
    """A copy with another validation part: the latest of train, the same moment for all users.

    Validation is what begins once all but a share of train's target events are over; what was
    validation is test. A basket is never cut, its first event decides.

    Args:
        events: the events to split.
        target: the behavior to be recommended for, such as ``buy``.
        share: of train's target events, 0 to 1.

    Raises:
        DataError: no event of train has that behavior.
    """
    if target not in events.behaviors:
        raise events.unknown_behavior(target)
    c = events.columns
    train = (c.behavior == events.behaviors.index(target)) & (c.row >= 0) & (c.split == 0)
    if not train.any():
        raise events.unknown_behavior(target)
    moment = np.quantile(c.timestamp[train], 1 - share, method="higher")
    split = np.minimum(2 * c.split, 2)
    split[(c.split == 0) & (_unit_times(events) >= moment)] = 1
    return events.with_split(split)


def is_test_after_train(events: Interactions) -> bool:
    """Whether test comes after train by time for all users, as near as one event in a hundred."""
    c = events.columns
    train, test = c.timestamp[c.split == 0], c.timestamp[c.split == 2]
    if not len(train) or not len(test):
        return False
    return bool(np.quantile(train, 0.99) <= np.quantile(test, 0.01))


def _unit_times(events: Interactions) -> npt.NDArray[np.float64]:
    """(E,) when the unit of each event begins; units of a user that overlap begin together."""
    c = events.columns
    last = np.zeros(len(events), dtype=np.int64)  # the place of a unit's last event
    last[c.unit] = np.arange(len(events))
    end = np.maximum.accumulate(last[c.unit])
    begins = np.append(True, end[:-1] < np.arange(1, len(events)))
    found: npt.NDArray[np.float64] = c.timestamp[begins][np.cumsum(begins) - 1]
    return found


def _last_unit_start(events: Interactions, wanted: npt.NDArray[np.bool_]) -> IntArray:
    """(U,) the first event of the unit of each user's last wanted event; -1 without one."""
    c = events.columns
    index = np.arange(len(events))
    last = np.full(len(events.user_ids), -1)
    np.maximum.at(last, c.user[wanted], index[wanted])
    unit = np.where(last >= 0, c.unit[last], -1)
    same = c.unit == unit[c.user]
    first = np.full(len(events.user_ids), len(events))
    np.minimum.at(first, c.user[same], index[same])
    return np.where(last >= 0, first, -1)
