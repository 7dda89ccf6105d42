from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.filters import Filter, Filters
from genrec.errors import RequestError

Mask = npt.NDArray[np.bool_]


@st.composite
def filters(draw: st.DrawFn, n: int) -> tuple[Filter, Mask]:
    """Draw a filter over n positions and the mask that it represents."""
    listed = draw(st.lists(st.integers(0, n - 1), max_size=2 * n))
    mask = np.isin(np.arange(n), listed)
    if draw(st.booleans()):
        return Filter.allow(listed, n), mask
    return Filter.deny(listed, n), ~mask


@st.composite
def batches(draw: st.DrawFn, size: int = 5) -> tuple[int, list[tuple[Filter, Mask]]]:
    n = draw(st.integers(1, 12))
    return n, draw(st.lists(filters(n), min_size=1, max_size=size))


def intervals(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return all intervals of n positions, including empty ones."""
    low, high = np.triu_indices(n + 1)
    return low.astype(np.int64), high.astype(np.int64)


def check(one: Filter, mask: Mask) -> None:
    low, high = intervals(one.n)
    assert len(one) == mask.sum()
    assert one.counts(low, high).tolist() == [mask[a:b].sum() for a, b in zip(low, high)]  # noqa: B905
    assert one.counts(low, high).dtype == np.int64
    assert one.keeps(np.arange(one.n)).tolist() == mask.tolist()


@given(batches())
def test_a_filter_is_its_mask(batch: tuple[int, list[tuple[Filter, Mask]]]) -> None:
    _, pairs = batch
    for one, mask in pairs:
        check(one, mask)


@given(batches())
def test_and_is_and(batch: tuple[int, list[tuple[Filter, Mask]]]) -> None:
    n, pairs = batch
    for one, mask in pairs:
        for two, other in pairs:
            check(one & two, mask & other)
        check(one & Filter.all(n), mask)


@given(batches(), st.booleans())
def test_a_batch_is_each_of_its_filters(
    batch: tuple[int, list[tuple[Filter, Mask]]], share: bool
) -> None:
    n, pairs = batch
    common, over_all = pairs[-1] if share else (Filter.all(n), np.ones(n, dtype=bool))
    joined = Filters([f for f, _ in pairs], common if share else None)
    masks = np.array([m & over_all for _, m in pairs])
    assert len(joined) == len(pairs)
    assert joined.totals.tolist() == masks.sum(axis=1).tolist()
    low, high = intervals(n)
    user = np.repeat(np.arange(len(pairs)), len(low))[::-1]
    low, high = np.tile(low, len(pairs)), np.tile(high, len(pairs))
    found = joined.counts(user, low, high)
    assert found.tolist() == [masks[u, a:b].sum() for u, a, b in zip(user, low, high, strict=True)]
    user, positions = np.divmod(np.arange(masks.size), n)
    assert joined.keeps(user, positions).tolist() == masks.ravel().tolist()


@given(batches(3))
def test_common_is_and(batch: tuple[int, list[tuple[Filter, Mask]]]) -> None:
    _, pairs = batch
    alone = [f for f, _ in pairs]
    low, high = intervals(alone[0].n)
    for user in range(len(alone)):
        users = np.full(len(low), user)
        assert np.array_equal(
            Filters(alone, alone[0]).counts(users, low, high),
            (alone[user] & alone[0]).counts(low, high),
        )


def test_a_few_of_many_cost_a_few() -> None:
    n = 10**8
    rows = np.array([n - 1, 0, 5, 5])
    tracemalloc.start()
    one = Filter.deny(rows, n) & Filter.deny([7], n)
    joined = Filters([one, Filter.allow([3, n - 1], n), Filter.all(n)], Filter.deny([3], n))
    user = np.array([0, 0, 1, 2])
    counts = joined.counts(user, np.zeros(4, dtype=np.int64), np.full(4, n))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(one) == n - 4
    assert counts.tolist() == [n - 5, n - 5, 1, n - 1]
    assert joined.totals.tolist() == [n - 5, 1, n - 1]
    assert peak < 1_000_000


def test_it_does_not_change() -> None:
    given_positions = np.array([1, 2])
    one = Filter.allow(given_positions, 3)
    with pytest.raises(ValueError, match="read-only"):
        one.listed[0] = 0
    given_positions[0] = 0
    assert one.listed.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([3], r"Position 3 is out of range\. Expected positions from 0 to 2"),
        ([0, -1], "Position -1 is out of range"),
        ([0.5], "type float64"),
        ([True, False, True], "flatnonzero"),
        ([[1]], r"shape \(1, 1\)"),
        (1, r"shape \(\)"),
        (["a"], "list of integers"),
    ],
)
def test_positions_that_cannot_be(positions: npt.ArrayLike, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Filter.allow(positions, 3)


def test_filters_that_do_not_go_together() -> None:
    with pytest.raises(RequestError, match="cover 3 and 4 positions"):
        Filter.all(3) & Filter.all(4)
    with pytest.raises(RequestError, match="cover 3 and 4 positions"):
        Filters([Filter.all(3), Filter.all(4)])
    with pytest.raises(RequestError, match="cover 3 and 4 positions"):
        Filters([Filter.all(3)], Filter.all(4))
    with pytest.raises(RequestError, match="no filters"):
        Filters([])


def test_removed_items_do_not_count() -> None:
    # 10 positions, two of them of removed items, which no list of positions contains
    assert Filter.allow([1, 2, 3], 10).count_items(8) == 3
    assert Filter.deny([1, 2, 3], 10).count_items(8) == 5
    assert Filter.all(10).count_items(8) == 8
