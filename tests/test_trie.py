from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import DictTrie

from genrec.errors import DataError
from genrec.trie import TitleTrie

END = 0
sequences = st.lists(
    st.lists(st.integers(1, 4), max_size=5).map(lambda s: [*s, END]), min_size=1, max_size=40
)


def walk(trie: TitleTrie, node: int = 0) -> dict[Any, Any]:
    children = trie.children(node)
    if not len(children):
        return {None: trie.rows(node).tolist()}
    return {int(trie.token[c]): walk(trie, int(c)) for c in children}


def all_nodes(trie: TitleTrie) -> Iterator[int]:
    return iter(range(len(trie)))


@given(sequences)
def test_equals_nested_dicts(titles: list[list[int]]) -> None:
    trie = TitleTrie(titles)
    assert walk(trie) == DictTrie(titles).root
    assert trie.n_items == len(titles)
    assert trie.max_depth == max(len(t) for t in titles)


@given(sequences)
def test_children_are_sorted_and_subtrees_are_intervals(titles: list[list[int]]) -> None:
    trie = TitleTrie(titles)
    assert sorted(trie.order.tolist()) == list(range(len(titles)))
    assert trie.order[trie.positions()].tolist() == list(range(len(titles)))
    for node in all_nodes(trie):
        children = trie.children(node)
        if len(children):
            assert np.all(np.diff(trie.token[children]) > 0)
            assert trie.low[children[0]] == trie.low[node]
            assert trie.high[children[-1]] == trie.high[node]
            assert np.array_equal(trie.high[children[:-1]], trie.low[children[1:]])


@given(sequences)
def test_skip_ends_at_the_first_branch_or_leaf(titles: list[list[int]]) -> None:
    trie = TitleTrie(titles)
    for node in all_nodes(trie):
        at = node
        tokens = [int(trie.token[node])]
        while len(trie.children(at)) == 1:
            at = int(trie.children(at)[0])
            tokens.append(int(trie.token[at]))
        assert trie.skip[node] == at
        assert trie.run(node, at) == tokens


def test_duplicates_share_a_leaf_in_row_order() -> None:
    trie = TitleTrie([[2, END], [1, END], [2, END], [2, END]])
    leaf = int(trie.skip[trie.children(0)[1]])
    assert trie.rows(leaf).tolist() == [0, 2, 3]


def test_a_prefix_of_another_title_is_refused() -> None:
    with pytest.raises(DataError, match="prefix of another"):
        TitleTrie([[1, 2], [1, 2, 3]])


@pytest.mark.parametrize(("titles", "message"), [([], "no titles"), ([[1], []], "no tokens")])
def test_nothing_to_build_from(titles: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TitleTrie(titles)
