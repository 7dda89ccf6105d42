"""Rows: the tokens before a target are what inference would read; packing; the trie's paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.baskets import dataset

from genrec import Dataset, Recommender
from genrec.data.events import History
from genrec.decoding.trie import TitleTrie
from genrec.errors import SettingsError
from genrec.prompts.template import Template
from genrec.training.sequences import RowMaker, RowOptions, make_rows, pack_rows
from genrec.training.title_paths import TitlePaths

BASKETS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from(["buy", "view"])), min_size=1, max_size=4
    ),
    min_size=1,
    max_size=6,
)


def maker(data: Dataset, recommender: Recommender, **options: Any) -> RowMaker:
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    return RowMaker(
        recommender.encoder, recommender.template, data.interactions, paths, RowOptions(**options)
    )


@given(
    BASKETS,
    st.sampled_from(["tree", "first", "as_is"]),
    st.sampled_from(["history", "window"]),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(["llama", "sentencepiece"]),
)
def test_before_a_target_stands_what_inference_reads(
    baskets: list[list[tuple[int, str]]],
    basket: str,
    layout: str,
    max_events: int,
    whole: bool,
    kind: str,
) -> None:
    data = dataset(baskets)
    recommender = Recommender(data, tiny.language_model(kind))
    if layout == "window" and basket != "first":
        basket = "tree"
    made = maker(
        data, recommender, basket=basket, layout=layout, max_events=max_events, whole_titles=whole
    )
    c = data.interactions.columns
    everything = np.ones(len(c.row), dtype=np.bool_)
    rows = make_rows(made, data.interactions, everything, everything)
    titles = list(recommender.encoder.titles(data.catalog))
    unit = np.arange(len(c.row)) if basket == "as_is" else c.unit
    found = []
    for row in rows:
        for g, event in enumerate(row.event.tolist()):
            found.append(event)
            first = int(np.flatnonzero(unit == unit[event])[0])
            known = [data.interactions.interaction(i) for i in range(first)]
            behavior = data.interactions.interaction(event).behavior
            texts = [
                list(
                    recommender.encoder.prompt(
                        recommender.template.render(
                            data.catalog,
                            History(tuple(known[len(known) - n :])),
                            behavior,
                            form=recommender.encoder.form,
                        )
                    ).ids
                )
                for n in range(min(len(known), max_events) + 1)
            ]
            before = row.text_before(g)
            assert before in (texts[-1:] if layout == "window" else texts)
            if first <= max_events:  # nothing had to be left out
                assert before == texts[-1]
            title = titles[row.item[g]]
            read = row.ids[row.at[g] : row.at[g] + len(title)].tolist()
            needed = int(TitlePaths(recommender.trie).needed[row.item[g]])  # type: ignore[arg-type]
            size = len(title) if whole else needed
            assert tuple(read[:size]) == title[:size]
            places = row.position[row.at[g] : row.at[g] + size]
            assert places.tolist() == list(range(len(before), len(before) + size))
    firsts = [int(np.flatnonzero(unit == u)[0]) for u in np.unique(unit)]
    assert sorted(found) == (sorted(firsts) if basket == "first" else list(range(len(c.row))))


def test_long_histories_make_windows_that_overlap() -> None:
    data = dataset([[(i % 7, "buy")] for i in range(40)])
    recommender = Recommender(data, tiny.language_model())
    made = maker(data, recommender, max_events=8, overlap=0.5)
    everything = np.ones(40, dtype=np.bool_)
    rows = make_rows(made, data.interactions, everything, everything)
    assert sorted(e for r in rows for e in r.event.tolist()) == list(range(40))
    titles = len([1 for r in rows for _ in r.event])
    assert titles == 40
    assert len(rows) > 4
    for row in rows[1:]:
        first = int(np.argmin(row.before))
        known = recommender.model.tokenizer.decode(row.text_before(first)).count("bought:") - 1
        assert known >= 4  # half of a window stands before its first target


def test_many_branches_make_several_rows() -> None:
    data = dataset([[(0, "buy")], [(i % 7, "buy") for i in range(60)]])
    recommender = Recommender(data, tiny.language_model())
    longest = max(len(t) for t in recommender.encoder.titles(data.catalog))
    made = maker(data, recommender, basket="tree", max_tokens=4 * longest + 60)
    everything = np.ones(61, dtype=np.bool_)
    rows = make_rows(made, data.interactions, everything, everything)
    assert len(rows) > 3
    assert all(len(r) <= 4 * longest + 60 for r in rows)
    assert sorted(e for r in rows for e in r.event.tolist()) == list(range(61))


def test_a_row_that_cannot_hold_a_title_is_refused() -> None:
    data = dataset([[(0, "buy")]])
    recommender = Recommender(data, tiny.language_model())
    with pytest.raises(SettingsError, match=r"pack_tokens=20 .* Expected at least"):
        maker(data, recommender, max_tokens=20)


def test_templates_whose_titles_differ_inside_a_history_need_windows() -> None:
    data = dataset([[(0, "buy")]])
    recommender = Recommender(data, tiny.language_model())
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    sentence = Template.load("sentence")
    with pytest.raises(
        SettingsError, match="layout='history' does not work with template 'sentence'"
    ):
        RowMaker(recommender.encoder, sentence, data.interactions, paths, RowOptions())
    window = RowOptions(layout="window")
    RowMaker(recommender.encoder, sentence, data.interactions, paths, window)


@given(
    st.lists(
        st.lists(st.integers(1, 3), max_size=4).map(lambda ids: (*ids, 0)), min_size=1, max_size=12
    )
)
def test_paths_are_what_a_walk_down_finds(titles: list[tuple[int, ...]]) -> None:
    trie = TitleTrie(titles)
    paths = TitlePaths(trie)
    for row, title in enumerate(titles):
        node, depth, walked = 0, 0, []
        while not trie.is_leaf(np.array([node]))[0]:
            children, _ = trie.children(np.array([node]))
            runs = trie.runs(children)
            (choice,) = [
                i for i, run in enumerate(runs) if list(title[depth : depth + len(run)]) == run
            ]
            if len(children) > 1:
                walked.append((node, choice, depth))
            node, depth = int(children[choice]), depth + len(runs[choice])
        steps, _ = paths.steps(np.array([row]))
        found = [paths.node[steps], paths.choice[steps], paths.offset[steps]]
        assert list(zip(*(a.tolist() for a in found), strict=True)) == walked
        assert paths.copies[row] == titles.count(title)
        assert paths.needed[row] == (walked[-1][2] if walked else 0)


def test_held_out_rows_have_no_path() -> None:
    titles = [(1, 0), (2, 0), (3, 0)]
    paths = TitlePaths(TitleTrie([titles[0], titles[2]]), np.array([0, 2]), 3)
    assert paths.copies.tolist() == [1, 0, 1]
    steps, count = paths.steps(np.array([0, 1, 2]))
    assert count.tolist() == [1, 0, 1]
    assert paths.choice[steps].tolist() == [0, 1]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(20, 60))
def test_packs_hold_every_row_once_and_are_no_larger_than_asked(
    sizes: list[int], most: int
) -> None:
    rows: Any = [range(n) for n in sizes]
    packs = pack_rows(rows, most)
    assert sorted(i for p in packs for i in p) == list(range(len(sizes)))
    assert all(len(p) == 1 or sum(sizes[i] for i in p) <= most for p in packs)
