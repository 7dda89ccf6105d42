"""Cosines are those of plain counting, and the same bits for a few rows as for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from genrec.priors import cosines
from genrec.priors.cosines import LEAST, NEAR, Cosines
from genrec.types import IntArray

ITEMS = 9
users = st.lists(st.sets(st.integers(0, ITEMS - 1)), min_size=1, max_size=12)
histories = st.lists(
    st.dictionaries(st.integers(0, ITEMS - 1), st.floats(0.1, 1), max_size=4),
    min_size=1, max_size=3,
)  # fmt: skip


def matrix(rows: list[dict[int, float]]) -> sparse.csr_array:
    found = sparse.lil_array((len(rows), ITEMS))
    for number, row in enumerate(rows):
        for column, value in row.items():
            found[number, column] = value
    return found.tocsr()


def counted(owned: list[set[int]]) -> np.ndarray:
    """The cosines by plain counting."""
    found = np.zeros((ITEMS, ITEMS))
    for one in range(ITEMS):
        for two in range(ITEMS):
            both = sum({one, two} <= own for own in owned)
            if both and one != two:
                counts = [sum(item in own for own in owned) for item in (one, two)]
                found[one, two] = both / np.sqrt(np.prod(counts))
    return found


def completed(owned: list[set[int]]) -> Cosines:
    """Cosines that were asked for so often that all of them are kept."""
    found = Cosines(matrix([dict.fromkeys(own, 1.0) for own in owned]))
    found.weigh(sparse.csr_array(np.eye(ITEMS)), 1)
    return found


@given(users, histories, st.integers(1, 3), st.integers(1, 30))
def test_weighted_sums(
    owned: list[set[int]], known: list[dict[int, float]], power: int, block: int
) -> None:
    items, weights = matrix([dict.fromkeys(own, 1.0) for own in owned]), matrix(known)
    expected = weights @ counted(owned) ** power
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cosines, "_BLOCK", block)  # so that rows are computed in several parts
        found = Cosines(items).weigh(weights, power)
        every = completed(owned).weigh(weights, power)
    assert found.toarray() == pytest.approx(expected)
    assert found.toarray().tobytes() == every.toarray().tobytes()


@given(users, histories, st.integers(1, 3))
def test_in_a_large_catalog_the_highest_are_kept(
    owned: list[set[int]], known: list[dict[int, float]], near: int
) -> None:
    """They are the same whether a few are computed or all."""
    items, weights = matrix([dict.fromkeys(own, 1.0) for own in owned]), matrix(known)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MOST", 1), ("LEAST", near), ("NEAR", near)):
            patch.setattr(cosines, name, value)
        few, every = Cosines(items), completed(owned)
    if few.near == ITEMS:  # hardly any items share users
        assert sum(len(own) ** 2 for own in owned) <= 1
        return
    true = counted(owned)
    kept = few.between(np.arange(ITEMS), np.arange(ITEMS))
    assert kept[kept > 0] == pytest.approx(true[kept > 0])
    true.sort(axis=1)
    true[:, :-near] = 0.0
    assert np.sort(kept, axis=1) == pytest.approx(true)
    for power in (1, 2):
        found = few.weigh(weights, power)
        assert found.toarray() == pytest.approx(weights @ kept**power)
        assert found.toarray().tobytes() == every.weigh(weights, power).toarray().tobytes()


def test_how_many_are_kept_depends_on_the_size() -> None:
    """A bound on the number of pairs of items that share users decides."""
    few = sparse.csr_array((np.ones(6_000), (np.zeros(6_000, dtype=int), np.arange(6_000))))
    few.resize((1, 1_000_000))
    assert Cosines(few).near == 1_000_000  # 36 million pairs
    long = sparse.csr_array((np.ones(7_000), (np.zeros(7_000, dtype=int), np.arange(7_000))))
    assert Cosines(long).near == NEAR  # 49 million pairs
    long.resize((1, 1_000_000))
    assert Cosines(long).near == LEAST


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows in each computation."""
    found: list[int] = []
    plain = Cosines._rows

    def rows(self: Cosines, wanted: IntArray) -> Any:
        found.append(len(wanted))
        return plain(self, wanted)

    monkeypatch.setattr(Cosines, "_rows", rows)
    return found


def ask(found: Cosines, *rows: int) -> None:
    found.weigh(matrix([dict.fromkeys(rows, 1.0)]), 2)


@pytest.mark.parametrize("kept", [0, cosines._KEPT])
def test_all_are_computed_once_many_were_asked_for(
    computed: list[int], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of single items are kept as long as they are few."""
    monkeypatch.setattr(cosines, "_KEPT", kept)
    found = Cosines(matrix([dict.fromkeys(range(ITEMS), 1.0)] * 2))
    for first in (0, 3, 0, 1):
        ask(found, first, first + 1, first + 2)
    assert computed == ([3, 3] if kept else [3, 3, ITEMS])


def test_what_many_users_have_counts_for_more(computed: list[int]) -> None:
    """All are computed when that takes no longer than the requests before it did."""
    found = Cosines(matrix([dict.fromkeys(range(4), 1.0)] * 9 + [{8: 1.0}]))
    for _ in range(50):
        ask(found, 8)
        ask(found, 7)
    assert ITEMS not in computed
    for row in range(4):
        ask(found, row)
    assert computed[-1] == ITEMS


def test_the_same_items_are_computed_once(computed: list[int]) -> None:
    """The sources of a request use the same items, or some of them."""
    found = Cosines(matrix([dict.fromkeys(range(ITEMS), 1.0)] * 2))
    for _ in range(9):
        ask(found, 0, 3, 5)
        ask(found, 3, 5)
        ask(found, 5)
        ask(found)
        found.between(np.array([3, 0, 3]), np.array([1, 2]))
    assert computed == [3]
    ask(found, 4)
    assert computed == [3, 1]


def test_without_enough_memory_never_all_are_computed(
    computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosines, "free_memory", lambda: 100)
    monkeypatch.setattr(cosines, "_KEPT", 0)
    found = Cosines(matrix([dict.fromkeys(range(ITEMS), 1.0)] * 2))
    for first in (0, 3, 6, 0, 3, 6):
        ask(found, first, first + 1, first + 2)
    assert computed == [3] * 6


@given(users, st.lists(st.integers(0, ITEMS - 1), min_size=1), st.sets(st.integers(0, ITEMS - 1)))
def test_between_items(owned: list[set[int]], rows: list[int], columns: set[int]) -> None:
    """The first request is for a few rows, and a later one is answered from all of them."""
    found, some = completed(owned), sorted(columns)
    every = found.weigh(sparse.csr_array(np.eye(ITEMS)), 1).toarray()
    fresh = Cosines(matrix([dict.fromkeys(own, 1.0) for own in owned]))
    for _ in range(3):
        between = fresh.between(np.array(rows), np.array(some, dtype=np.int64))
        assert between.tolist() == every[rows][:, some].tolist()
