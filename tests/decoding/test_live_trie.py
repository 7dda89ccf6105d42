"""Compare a trie with edits to one built anew from the remaining titles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.reference import DictTrie
from support.trie_walk import END, walk

from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options
from genrec.errors import DataError
from genrec.models.logits import Body
from genrec.models.plain_tree import PlainTree

Titles = dict[int, list[int]]
Edits = tuple[Titles, list[int]]  # what is added, what is removed

ended = st.lists(st.integers(1, 3), max_size=5).map(lambda s: [*s, END])
wide = st.lists(st.integers(1, 200_000), max_size=2).map(lambda s: [*s, END])
catalogs = st.lists(st.one_of(ended, wide), min_size=1, max_size=30)
steps = st.lists(
    st.dictionaries(st.integers(0, 40), st.one_of(st.none(), ended, wide), max_size=12), max_size=6
)


def edits(titles: Titles, step: dict[int, list[int] | None]) -> tuple[Titles, Edits]:
    """Return the titles after a step, and the edit that leads there."""
    remove = [row for row in step if row in titles]
    add = {row: title for row, title in step.items() if title is not None}
    return {r: t for r, t in titles.items() if r not in remove} | add, (add, remove)


def nested(live: LiveTrie, node: int) -> dict[Any, Any]:
    """Return the tree like ``walk``, and check each node's facts on the way."""
    one = np.array([node])
    children, (count,) = live.children(one)
    owner, low, high = live.intervals(one)
    rows = live.rows_at(np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)]))
    assert count == len(children)
    assert not owner.any()
    assert (low < high).all()
    assert (high[:-1] < low[1:]).all(), "rising, and in as few pieces as can be"
    assert live.is_leaf(one)[0] == (count == 0)
    if not count:
        return {None: sorted(rows.tolist())}
    assert count > 1 or node == live.root
    assert (np.diff(live.tokens(children)) > 0).all()
    runs = live.runs(children)
    assert live.run_lengths(children).tolist() == [len(r) for r in runs]
    assert live.tokens(children).tolist() == [r[0] for r in runs]
    # Together the children have the positions of their parent, each in its own place.
    owners, lows, highs = live.intervals(children)
    assert (np.diff(owners) >= 0).all()
    assert np.bincount(owners, highs - lows).sum() == len(rows)
    found: dict[Any, Any] = {}
    for child, run in zip(children.tolist(), runs, strict=True):
        below = nested(live, child)
        for token in reversed(run[1:]):
            below = {token: below}
        found[run[0]] = below
    assert sorted(leaves(found)) == sorted(rows.tolist())
    return found


def leaves(tree: dict[Any, Any]) -> list[int]:
    return [row for t, below in tree.items() for row in (below if t is None else leaves(below))]


def check(live: LiveTrie, titles: Titles) -> None:
    """Check that a snapshot equals a fresh trie of the titles, except for node and position numbers."""
    rows = sorted(titles)
    sequences = [titles[r] for r in rows]
    fresh = TitleTrie(sequences)
    tree = nested(live, live.root)
    assert tree == renamed(DictTrie(sequences).root, rows) == renamed(walk(fresh), rows)
    assert live.runs(np.array([live.root])) == [[]]
    assert live.n_items == fresh.n_items
    assert live.n_tokens == fresh.n_tokens
    assert live.inner_tokens == fresh.inner_tokens
    assert live.max_depth >= fresh.max_depth
    # Filters: rows to positions and back, in any order; those that are not there are left out.
    places = live.positions_of(np.array(rows[::-1]))
    assert live.rows_at(places).tolist() == rows[::-1]
    assert (places < live.n_positions).all()
    everyone = live.positions_of(np.arange(300))
    assert everyone.tolist() == places[::-1].tolist()
    _, low, high = live.intervals(np.array([live.root]))
    inside = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
    assert sorted(places.tolist()) == inside.tolist()


def renamed(tree: dict[Any, Any], rows: list[int]) -> dict[Any, Any]:
    return {
        t: [rows[r] for r in below] if t is None else renamed(below, rows)
        for t, below in tree.items()
    }


@given(catalogs, steps)
def test_equals_a_fresh_trie_and_leaves_old_snapshots_alone(
    catalog: list[list[int]], steps: list[dict[int, list[int] | None]]
) -> None:
    titles: Titles = dict(enumerate(catalog))
    live = LiveTrie(TitleTrie(catalog))
    snapshots = [(live, titles)]
    n_edits = 0
    for step in steps:
        after, (add, remove) = edits(titles, step)
        if not after:
            with pytest.raises(DataError, match="no titles"):
                live.edited(add, remove)
            continue
        live, titles = live.edited(add, remove), after
        n_edits += len(add) + len(remove)
        assert live.n_edits == n_edits
        check(live, titles)
        snapshots.append((live, titles))
    for live, titles in snapshots:
        check(live, titles)


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=8),
    st.dictionaries(
        st.integers(0, 12), st.one_of(st.none(), st.lists(st.integers(0, 2), max_size=4))
    ),
)
def test_refuses_what_a_fresh_trie_refuses(
    catalog: list[list[int]], step: dict[int, list[int] | None]
) -> None:
    try:
        live = LiveTrie(TitleTrie(catalog))
    except DataError:
        return
    titles: Titles = dict(enumerate(catalog))
    after, (add, remove) = edits(titles, step)
    try:
        TitleTrie([after[r] for r in sorted(after)])
    except DataError as error:
        kind = next(k for k in ("prefix of another", "no tokens", "no titles") if k in str(error))
        with pytest.raises(DataError, match=f"{kind}|no tokens"):
            live.edited(add, remove)
    else:
        check(live.edited(add, remove), after)
    check(live, titles)


@given(catalogs, steps, st.integers(1, 50))
def test_search_finds_what_it_finds_in_a_fresh_trie(
    catalog: list[list[int]], steps: list[dict[int, list[int] | None]], k: int
) -> None:
    model = Body(tiny.language_model().model)
    small = [[t % model.vocabulary for t in title[:-1]] + [END] for title in catalog]
    titles: Titles = dict(enumerate(small))
    live: Any = LiveTrie(TitleTrie(small))
    for step in steps:
        step = {
            r: t and [i % model.vocabulary or 1 for i in t[:-1]] + [END] for r, t in step.items()
        }
        after, (add, remove) = edits(titles, step)
        if after:
            live, titles = live.edited(add, remove), after
    rows = sorted(titles)
    fresh: Any = TitleTrie([titles[r] for r in rows])
    found, expected = (
        search(trie, PlainTree(model, [[5, 6, 7]]), k, options=Options(search="exact"))[0]
        for trie in (live, fresh)
    )
    assert found.rows.tolist() == [rows[r] for r in expected.rows.tolist()]
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-9)


def test_one_edit_touches_one_path() -> None:
    live = LiveTrie(TitleTrie([[a, b, END] for a in range(1, 101) for b in range(1, 101)]))
    edited = live.edited({10_000: [7, 200, END]})
    same = np.isin(edited.children(np.array([edited.root]))[0], live.children(np.array([0]))[0])
    assert same.sum() == 99
    (seven,) = edited.children(np.array([edited.root]))[0][~same]
    below = edited.children(np.array([seven]))[0]
    assert (below < len(live.base)).sum() == 100
    # Later edits there find the root's children as they are.
    again = edited.edited({10_001: [7, 201, END]}, [10_000])
    assert again.children(np.array([again.root]))[0].tolist() == (
        edited.children(np.array([edited.root]))[0].tolist()
    )


def test_splits_and_joins_of_runs() -> None:
    live = LiveTrie(TitleTrie([[1, 2, 3, 4, END], [9, END]]))

    def runs(live: LiveTrie) -> list[list[int]]:
        return live.runs(live.children(np.array([live.root]))[0])

    assert runs(live) == [[1, 2, 3, 4, END], [9, END]]
    split = live.edited({2: [1, 2, 5, END]})
    assert runs(split) == [[1, 2], [9, END]]
    (node,) = split.children(np.array([split.root]))[0][:1]
    assert split.runs(split.children(np.array([node]))[0]) == [[3, 4, END], [5, END]]
    assert runs(split.edited({}, [0])) == [[1, 2, 5, END], [9, END]]
    assert runs(split.edited({}, [2])) == [[1, 2, 3, 4, END], [9, END]]
    assert runs(split.edited({}, [1])) == [[1, 2]]
    assert runs(split.edited({1: [9, 9, END]}, [0, 1, 2])) == [[9, 9, END]]


def test_a_deep_path_title_by_title() -> None:
    deep = {n: [7] * n + [END] for n in range(194)}
    live = LiveTrie(TitleTrie([deep[0]]))
    for n in range(1, 194):
        live = live.edited({n: deep[n]})
    check(live, deep)
    check(live.edited({}, range(1, 194, 2)), {n: deep[n] for n in range(194) if n % 2 == 0})


def test_due_when_many_edits_lie_over_the_base() -> None:
    live = LiveTrie(TitleTrie([[n, END] for n in range(1, 31)]))
    assert not live.due()
    live = live.edited({n: [n + 1, END] for n in range(30, 900)})
    assert not live.due()
    for _ in range(100):
        live = live.edited({0: [5000, END]}, [0])
    assert live.due()


def test_nothing_is_added_or_removed_twice() -> None:
    live = LiveTrie(TitleTrie([[1, END], [2, END]]))
    with pytest.raises(DataError, match="Row 1 cannot be added because it is already in the trie"):
        live.edited({1: [3, END]})
    with pytest.raises(DataError, match="Row 7 cannot be removed because it is not in the trie"):
        live.edited({}, [7])
    with pytest.raises(DataError, match="Row 0 cannot be removed because it is not in the trie"):
        live.edited({}, [0]).edited({}, [0])
    with pytest.raises(DataError, match="the trie with no titles"):
        live.edited({}, [1, 0])
    with pytest.raises(DataError, match="row 3 has no tokens"):
        live.edited({3: []})
    with pytest.raises(DataError, match="Token id -4"):
        live.edited({3: [-4]})
    with pytest.raises(DataError, match="Row -1"):
        live.edited({-1: [4]})
    assert live.edited({}, [1, 1]).n_items == 1
