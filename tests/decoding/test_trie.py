from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reference import DictTrie
from support.trie_walk import END, walk

from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError

sequences = st.lists(
    st.lists(st.integers(1, 4), max_size=5).map(lambda s: [*s, END]), min_size=1, max_size=40
)
wide = st.lists(
    st.lists(st.integers(1, 200_000), max_size=3).map(lambda s: [*s, END]), min_size=1, max_size=40
)


@given(st.one_of(sequences, wide))
def test_equals_nested_dicts(titles: list[list[int]]) -> None:
    trie = TitleTrie(titles)
    assert walk(trie) == DictTrie(titles).root
    assert trie.n_items == len(titles)
    assert trie.max_depth == max(len(t) for t in titles)
    assert trie.n_tokens == sum(len(t) for t in titles)


@given(sequences)
def test_children_are_sorted_and_subtrees_are_intervals(titles: list[list[int]]) -> None:
    trie = TitleTrie(titles)
    assert sorted(trie.order.tolist()) == list(range(len(titles)))
    assert trie.order[trie.positions()].tolist() == list(range(len(titles)))
    rows = np.arange(len(titles))[::-2]
    assert trie.rows_at(trie.positions_of(rows)).tolist() == rows.tolist()
    assert [trie.title(p) for p in trie.positions().tolist()] == titles
    for node in range(len(trie)):
        children, (count,) = trie.children(np.array([node]))
        assert count == len(children)
        assert bool(trie.is_leaf(np.array([node]))[0]) == (count == 0)
        assert count != 1 or node == 0
        if len(children):
            assert np.all(np.diff(trie.token[children].astype(int)) > 0)
            assert trie.low[children[0]] == trie.low[node]
            assert trie.high[children[-1]] == trie.high[node]
            assert np.array_equal(trie.high[children[:-1]], trie.low[children[1:]])


@given(sequences)
def test_counts_of_tokens(titles: list[list[int]]) -> None:
    trie = TitleTrie(titles)
    nodes = np.arange(len(trie))
    assert trie.run_lengths(nodes).tolist() == [len(r) for r in trie.runs(nodes)]
    inner = nodes[~trie.is_leaf(nodes)]
    assert trie.inner_tokens == trie.run_lengths(inner).sum()


@given(st.one_of(sequences, wide), st.integers(1, 7))
def test_chunks_of_arrays_give_the_same_tree(titles: list[list[int]], size: int) -> None:
    chunks = (titles[i : i + size] for i in range(0, len(titles), size))
    arrays = [(np.concatenate([*map(np.array, c)]), np.array([*map(len, c)])) for c in chunks]
    same(TitleTrie.of_chunks(arrays), TitleTrie(titles))


def same(one: TitleTrie, two: TitleTrie) -> None:
    for name in ("token", "first_child", "low", "high", "run_start", "run", "order"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist()
        assert getattr(one, name).dtype == getattr(two, name).dtype
    assert (one.max_depth, one.n_tokens) == (two.max_depth, two.n_tokens)


@given(st.one_of(sequences, wide))
def test_saved_and_mapped(
    tmp_path_factory: pytest.TempPathFactory, titles: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("trie") / "trie.safetensors"
    trie = TitleTrie(titles)
    trie.save(path)
    loaded = TitleTrie.load(path)
    same(loaded, trie)
    assert walk(loaded) == walk(trie)
    assert isinstance(loaded.token, np.memmap)
    assert loaded.positions().dtype == loaded.order.dtype
    assert loaded.positions() is loaded.positions()


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
def test_a_broken_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trie.safetensors"
    TitleTrie([[1, END], [2, 3, END]]).save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="cannot be read"):
        TitleTrie.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        TitleTrie.load(tmp_path / "none")


def test_another_file_is_refused(tmp_path: Path) -> None:
    from genrec import files

    files.write_arrays(tmp_path / "x", {"a": np.arange(3)}, {})
    with pytest.raises(DataError, match="not a trie file of this version"):
        TitleTrie.load(tmp_path / "x")


def test_duplicates_share_a_leaf_in_row_order() -> None:
    trie = TitleTrie([[2, END], [1, END], [2, END], [2, END]])
    leaf = int(trie.children(np.array([0]))[0][1])
    assert trie.rows(leaf).tolist() == [0, 2, 3]


def test_a_deep_path_and_a_wide_root() -> None:
    deep = [[7] * n + [END] for n in range(194)]
    same(TitleTrie(deep[::-1][::-1]), TitleTrie(deep))
    assert walk(TitleTrie(deep)) == DictTrie(deep).root
    many = TitleTrie([[n, END] for n in range(1, 100_001)])
    assert len(many) == 100_001
    assert many.inner_tokens == 0
    assert many.token.dtype == np.uint32


@pytest.mark.parametrize("titles", [[[1, 2], [1, 2, 3]], [[1, 2, 3], [5], [1, 2], [1, 2]]])
def test_a_prefix_of_another_title_is_refused(titles: list[list[int]]) -> None:
    with pytest.raises(DataError, match="prefix of another"):
        TitleTrie(titles)


@pytest.mark.parametrize(
    ("titles", "message"),
    [([], "no titles"), ([[1], []], "no tokens"), ([[-1]], "Token id -1")],
)
def test_nothing_to_build_from(titles: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TitleTrie(titles)
