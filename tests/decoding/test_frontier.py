"""The arrays of a search: open prefixes and the best items."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.frontier import Frontier
from genrec.decoding.scored_items import Items, TopItems

entries = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30)


def frontier(pairs: list[tuple[int, int]]) -> Frontier:
    """Return a frontier of users and bounds; the node is the index."""
    user = np.array([u for u, _ in pairs], dtype=np.int64)
    bound = np.array([float(b) for _, b in pairs])
    node = np.arange(len(pairs))
    return Frontier(user, node, node, bound, bound, bound)


@given(entries, st.integers(1, 5), st.integers(0, 9))
def test_each_user_gets_the_best_eligible_prefixes(
    pairs: list[tuple[int, int]], size: int, least: int
) -> None:
    prefixes = frontier(pairs)
    chosen = prefixes.best(size, prefixes.bound >= least)
    assert sorted(chosen.tolist()) == chosen.tolist()
    if len([b for _, b in pairs if b >= least]) > size:
        for user in range(4):
            bounds = sorted((b for u, b in pairs if u == user and b >= least), reverse=True)
            own = prefixes.bound[chosen][prefixes.user[chosen] == user]
            assert sorted(own.tolist(), reverse=True) == bounds[:size]
    rest = prefixes.without(chosen)
    assert len(rest) + len(chosen) == len(pairs)
    assert not set(rest.node.tolist()) & set(chosen.tolist())


@given(entries)
def test_prefixes_are_found_by_user_and_node(pairs: list[tuple[int, int]]) -> None:
    prefixes = frontier(pairs)
    wanted = np.array([[u, n] for u in range(4) for n in range(12)])
    index = prefixes.find(wanted[:, 0], wanted[:, 1])
    users = prefixes.user.tolist()
    expected = [n if n < len(users) and users[n] == u else -1 for u, n in wanted.tolist()]
    assert index.tolist() == expected


@given(entries, st.lists(st.integers(1, 4), min_size=4, max_size=4), st.integers(1, 30))
def test_the_best_items_are_kept_whatever_the_order(
    pairs: list[tuple[int, int]], k: list[int], step: int
) -> None:
    top = TopItems(np.array(k))
    for first in range(0, len(pairs), step):
        part = pairs[first : first + step]
        user = np.array([u for u, _ in part])
        score = np.array([float(s) for _, s in part])
        row = np.arange(first, first + len(part))
        top.add(Items(user, row, score, score, score, score))
    for user_index in range(4):
        rows = [n for n, (u, _) in enumerate(pairs) if u == user_index]
        rows.sort(key=lambda n: (-pairs[n][1], n))
        best, spare = top.of_user(user_index)
        most = k[user_index]
        assert best.row.tolist() == rows[:most]
        assert spare.row.tolist() == rows[most : most + 1]
        assert top.incomplete()[user_index] == (len(rows) < most)
        worst = pairs[rows[most - 1]][1] if len(rows) >= most else -np.inf
        assert top.worst[user_index] == worst
