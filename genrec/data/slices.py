"""Group the cases of an evaluation into slices, such as users with short histories.

A kind of slice gives every case one label. This module deals with data only, not with results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS
from genrec.data.protocols import Case, count_events
from genrec.text import main_script
from genrec.types import IntArray

_TAIL = 5  # the items of the long tail have together at most one event in this many
COLD, LONG_TAIL, HEAD = POPULARITY = ("cold", "long tail", "head")
LENGTHS = (1, 3, 6, 21)  # the smallest history length of each bin; a length of 0 has its own
DAYS = (1, 7, 30, 90)
UNKNOWN = "unknown"
_EVENTS = (1, 5, 20, 100)
_SECONDS_PER_DAY = 86_400.0


def label_slices(
    dataset: Dataset, cases: Sequence[Case], before: str = "validation"
) -> dict[str, list[str]]:
    """Label every case in several ways, so that results can be broken down.

    ``popularity`` says how popular the target is before the split, see ``label_popularity``.
    ``history`` is the length of the history, see ``label_lengths``. ``last_event`` is the number of
    days between the last event shown and the target, see ``label_days``; it is left out if the data
    has no times. ``target_events`` is the number of events of the target before the split, in bins.
    ``item`` is ``warm`` if the target has an event before the split, and ``cold`` otherwise;
    ``user`` is defined in the same way for the user. ``last_behavior`` is the behavior of the last
    event shown, and ``script`` is the script of the target's title.

    Args:
        dataset: a dataset with the protocol's split.
        cases: the cases of the protocol.
        before: the name of a split; the systems were fitted to the events before this split.
    """
    c = dataset.interactions.columns
    popularity = count_events(dataset, before)
    fitted = np.bincount(
        c.user[c.split < SPLITS.index(before)], minlength=len(dataset.interactions.user_ids)
    )
    rows = dataset.catalog.rows([case.target for case in cases])
    behaviors = dataset.interactions.behaviors
    first = [dataset.interactions.events(case.user_id).start for case in cases]
    labels = {
        "popularity": label_popularity(popularity, np.array(rows, dtype=np.int64)),
        "history": label_lengths([len(case.shown) for case in cases]),
    }
    if dataset.info.time_unit != "position":
        labels["last_event"] = label_days(days_since(cases))
    return labels | {
        "target_events": [_bin(int(popularity[row]), _EVENTS) for row in rows],
        "item": ["warm" if popularity[row] else "cold" for row in rows],
        "user": ["warm" if fitted[c.user[place]] else "cold" for place in first],
        "last_behavior": [
            behaviors[c.behavior[case.shown[-1]]] if len(case.shown) else "none" for case in cases
        ],
        "script": [main_script([dataset.catalog[row].title]) for row in rows],
    }


def label_popularity(counts: npt.ArrayLike, rows: IntArray) -> list[str]:
    """Label items by their popularity as ``cold``, ``long tail`` or ``head``.

    An item without any event is cold. The long tail consists of the least popular items that have
    together at most a fifth of all events, and all other items are the head. Yin et al. (2012,
    "Challenging the Long Tail Recommendation") divide items in this way. Items with the same number
    of events are never divided, so the long tail may have less than a fifth, or be empty.

    Args:
        counts: (N,) the number of events of each item in the catalog.
        rows: (n,) the catalog rows of the items to label.

    >>> label_popularity([0, 1, 1, 1, 5, 7], np.array([0, 1, 4, 5]))
    ['cold', 'long tail', 'head', 'head']
    """
    c = np.asarray(counts)
    events = np.bincount(c) * np.arange(int(c.max(initial=0)) + 1)
    most = int(np.searchsorted(np.cumsum(events), c.sum() / _TAIL, side="right")) - 1
    return [COLD if not n else LONG_TAIL if n <= most else HEAD for n in c[rows].tolist()]


def label_lengths(lengths: Sequence[int]) -> list[str]:
    """Label histories by their number of events.

    >>> label_lengths([0, 2, 3, 20, 21])
    ['0', '1-2', '3-5', '6-20', '21+']
    """
    return [_bin(n, LENGTHS) for n in lengths]


def days_since(cases: Sequence[Case]) -> list[float | None]:
    """Return the days between the last event shown and the target of each case.

    The value is None if no event is shown, and NaN if one of the two times is unknown.
    """
    return [
        (c.events.columns.timestamp[c.at] - c.events.columns.timestamp[c.shown[-1]])
        / _SECONDS_PER_DAY
        if len(c.shown)
        else None
        for c in cases
    ]


def label_days(days: Sequence[float | None]) -> list[str]:
    """Label cases by the days since the user's last event, rounded down.

    Args:
        days: the number of days; None if there is no such event, and NaN if its time is unknown.

    >>> label_days([0.9, 1.0, 45.0, 400.0, None, float("nan")])
    ['0 days', '1-6 days', '30-89 days', '90+ days', 'none', 'unknown']
    """
    return [
        "none" if d is None else UNKNOWN if np.isnan(d) else f"{_bin(max(int(d), 0), DAYS)} days"
        for d in days
    ]


def in_order(labels: Sequence[str]) -> list[str]:
    """Return the distinct labels of a kind in the order in which they should be shown.

    >>> in_order(["head", "cold", "long tail", "cold"]), in_order(["21+", "none", "3-5"])
    (['cold', 'long tail', 'head'], ['none', '3-5', '21+'])
    """
    return sorted(set(labels), key=_place)


def _place(label: str) -> tuple[float, int, str]:
    number = re.match(r"\d+", label)
    named = POPULARITY.index(label) if label in POPULARITY else len(POPULARITY)
    return (float(number[0]) if number else -1.0, named, label)


def _bin(n: int, edges: Sequence[int]) -> str:
    """Return the name of the bin that contains a number.

    >>> [_bin(n, (1, 5, 10)) for n in (0, 1, 4, 5, 10, 11)]
    ['0', '1-4', '1-4', '5-9', '10+', '10+']
    """
    bounds = [0, *edges]
    low = max(b for b in bounds if b <= n)
    above = [b for b in bounds if b > n]
    if not above:
        return f"{low}+"
    return str(low) if above[0] == low + 1 else f"{low}-{above[0] - 1}"
