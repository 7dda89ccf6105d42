"""The times of items' events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.counted_shop import counted

from genrec import Interaction
from genrec.priors.event_times import EventTimes

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 9)), max_size=20)


@given(events=EVENTS, split=st.integers(0, 20), start=st.integers(-5, 11), end=st.integers(-5, 11))
def test_it_counts_what_a_loop_counts(
    events: list[tuple[int, int]], split: int, start: int, end: int
) -> None:
    """Some events are added later."""
    start, end = min(start, end), max(start, end)
    times = EventTimes()
    for part in (events[:split], events[split:]):
        row, when = (np.array(x) for x in zip(*part, strict=True)) if part else (np.empty(0),) * 2
        times = times.more(row.astype(np.int64), when.astype(np.float64))
    rows = np.array([3, 0, 5, 1, 0])
    of = [[t for r, t in events if r == row] for row in rows]
    assert len(times) == len(events)
    assert times.count(rows, start, end).tolist() == [
        sum(start <= t <= end for t in each) for each in of
    ]
    assert times.total(start, end) == sum(start <= t <= end for _, t in events)
    for found, best in ((times.first(rows), min), (times.last(rows), max)):
        np.testing.assert_equal(found, np.array([best(each) if each else np.nan for each in of]))


def test_updates_of_positions_keep_times_unknown() -> None:
    """If events cannot be ordered in time, new ones do not make a trend of their own."""
    prior = counted([[0, 1, 2], [3, 4]])
    prior._mixture = replace(
        prior._mixture,
        counts=replace(prior.counts, newest=prior.counts.newest[:0], times=EventTimes()),
    )
    prior.update({"w": ["i5"], "v": [Interaction("i5", "buy", 7.0)]})
    assert len(prior.counts.newest) == 0
    assert len(prior.counts.times) == 0
    assert prior.counts.popularity[5] == 2


def test_updates_without_a_date_have_no_time() -> None:
    times = EventTimes(np.array([0, 1]), np.array([1e9, 1.1e9]))
    prior = counted([[0, 1]])
    prior._mixture = replace(prior._mixture, counts=replace(prior.counts, times=times))
    prior.update({"w": [Interaction("i3", "buy"), Interaction("i2", "buy", 1.2e9)]})
    assert prior.counts.times.row.tolist() == [0, 1, 2]
    assert np.isnan(prior.counts.times.first(np.array([3]))).all()
