"""Cosines are those of plain counting, and the same bits for a few rows as for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from genrec.priors.cosines import Cosines
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


@given(users, histories, st.integers(1, 3))
def test_weighted_sums(owned: list[set[int]], known: list[dict[int, float]], power: int) -> None:
    items, weights = matrix([dict.fromkeys(own, 1.0) for own in owned]), matrix(known)
    expected = np.zeros((len(known), ITEMS))
    for number, row in enumerate(known):
        for one, weight in row.items():
            for two in range(ITEMS):
                both = sum({one, two} <= own for own in owned)
                if both and one != two:
                    counts = [sum(item in own for own in owned) for item in (one, two)]
                    expected[number, two] += weight * (both / np.sqrt(np.prod(counts))) ** power
    few, every = Cosines(items), Cosines(items)
    every.weigh(matrix([dict.fromkeys(range(ITEMS), 1.0)]), 1)  # more than N rows: all are kept
    found = few.weigh(weights, power)
    assert found.toarray() == pytest.approx(expected)
    assert found.toarray().tobytes() == every.weigh(weights, power).toarray().tobytes()


def test_all_are_computed_once_many_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cosines = Cosines(matrix([dict.fromkeys(range(ITEMS), 1.0)] * 2))
    computed: list[int] = []
    plain = Cosines._rows

    def rows(self: Cosines, wanted: IntArray) -> Any:
        computed.append(len(wanted))
        return plain(self, wanted)

    monkeypatch.setattr(Cosines, "_rows", rows)
    for _ in range(6):
        cosines.weigh(matrix([{0: 1.0, 3: 1.0, 5: 0.5}]), 2)
    assert computed == [3, 3, ITEMS]


@given(users, st.lists(st.integers(0, ITEMS - 1), min_size=1), st.sets(st.integers(0, ITEMS - 1)))
def test_between_items(owned: list[set[int]], rows: list[int], columns: set[int]) -> None:
    """The first request is for a few rows, and a later one is answered from all of them."""
    cosines, some = Cosines(matrix([dict.fromkeys(own, 1.0) for own in owned])), sorted(columns)
    every = cosines.weigh(sparse.csr_array(np.eye(ITEMS)), 1).toarray()
    fresh = Cosines(matrix([dict.fromkeys(own, 1.0) for own in owned]))
    for _ in range(3):
        found = fresh.between(np.array(rows), np.array(some, dtype=np.int64))
        assert found.tolist() == every[rows][:, some].tolist()
