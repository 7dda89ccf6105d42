"""Rows with blocks: what a target sees is what inference reads, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.baskets import dataset

from genrec import Dataset, Recommender
from genrec.data.events import History
from genrec.errors import SettingsError
from genrec.models.block_prompt import BlockPrompt
from genrec.prompts.template import Template
from genrec.training.block_rows import BlockRow, BlockRowMaker, Goal, make_block_row
from genrec.training.sequences import RowMaker, RowOptions, make_rows
from genrec.training.title_paths import TitlePaths

BASKETS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from(["buy", "view"])), min_size=1, max_size=4
    ),
    min_size=1,
    max_size=6,
)


def rows_of(data: Dataset, recommender: Recommender, recent: int, **options: Any) -> list[BlockRow]:
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    shared = (recommender.encoder, recommender.template, data.interactions, paths)
    maker = BlockRowMaker(*shared, RowOptions(**options), recent=recent)
    everything = np.ones(len(data.interactions), dtype=np.bool_)
    rows = make_rows(maker, data.interactions, everything, everything)
    assert all(isinstance(row, BlockRow) for row in rows)
    return rows  # type: ignore[return-value]


def read_apart(row: BlockRow, prompt: BlockPrompt, last: int) -> bool:
    """Whether a target's tokens, of which ``last`` is the last one, see the parts of a prompt."""
    seen = np.flatnonzero(row.seen_by(last))
    if tuple(row.ids[seen].tolist()) != prompt.ids:
        return False
    assert row.position[seen].tolist() == list(range(len(prompt.ids)))
    moved = {
        (int(token), int(source), int(shift))
        for source, shift, first in row.moved
        for token in np.flatnonzero(row.since == first)
    }
    start = prompt.head
    for i in range(start):
        assert row.seen_by(int(seen[i])).sum() == i + 1
    for stop in prompt.stops:
        for i in range(start, stop):
            token = int(seen[i])
            (ours,) = [np.flatnonzero(row.seen_by(token))]
            behind = {(s, d) for t, s, d in moved if t == token}
            if start == prompt.head:
                assert ours.tolist() == [*seen[:start], *seen[start : i + 1]]
                assert not behind
            else:
                assert ours.tolist() == seen[start : i + 1].tolist()
                assert behind == {(int(s), start - prompt.head) for s in seen[: prompt.head]}
        start = stop
    for i in range(prompt.gathered, len(prompt.ids)):
        assert np.flatnonzero(row.seen_by(int(seen[i]))).tolist() == seen[: i + 1].tolist()
    return True


@given(
    BASKETS,
    st.sampled_from(["tree", "first", "as_is"]),
    st.sampled_from(["history", "window"]),
    st.integers(0, 5),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from(["llama", "sentencepiece"]),
)
def test_a_target_sees_what_inference_reads(
    baskets: list[list[tuple[int, str]]],
    basket: str,
    layout: str,
    recent: int,
    max_events: int,
    whole: bool,
    kind: str,
) -> None:
    data = dataset(baskets)
    recommender = Recommender(data, tiny.language_model(kind))
    if layout == "window" and basket != "first":
        basket = "tree"
    rows = rows_of(
        data, recommender, recent, basket=basket, layout=layout, max_events=max_events,
        whole_titles=whole,
    )  # fmt: skip
    c = data.interactions.columns
    titles = list(recommender.encoder.titles(data.catalog))
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    unit = np.arange(len(c.row)) if basket == "as_is" else c.unit
    found = []
    for row in rows:
        for g, event in enumerate(row.event.tolist()):
            found.append(event)
            first = int(np.flatnonzero(unit == unit[event])[0])
            known = [data.interactions.interaction(i) for i in range(first)]
            behavior = data.interactions.interaction(event).behavior
            fitting = [
                recommender.encoder.prompt(
                    recommender.template.render(
                        data.catalog,
                        History(tuple(known[first - n :])),
                        behavior,
                        form=recommender.encoder.form,
                    )
                ).by_event(recent)
                for n in range(min(first, max_events) + 1)
            ]
            some = fitting[-1:] if layout == "window" or first <= max_events else fitting
            before = int(row.before[g])
            assert any(read_apart(row, prompt, before) for prompt in some)
            title, n = titles[row.item[g]], len(row.text_before(g))
            size = len(title) if whole else int(paths.needed[row.item[g]])
            where = slice(int(row.at[g]), int(row.at[g]) + size)
            assert tuple(row.ids[where].tolist()) == title[:size]
            assert row.position[where].tolist() == list(range(n, n + size))
            for i in range(size):
                seen = np.flatnonzero(row.seen_by(where.start + i))
                assert row.ids[seen].tolist() == [*row.text_before(g), *title[: i + 1]]
    firsts = [int(np.flatnonzero(unit == u)[0]) for u in np.unique(unit)]
    assert sorted(found) == (sorted(firsts) if basket == "first" else list(range(len(c.row))))


def test_without_blocks_rows_are_those_of_full_attention() -> None:
    data = dataset([[(i % 7, "buy"), (i % 5, "view")] for i in range(6)])
    recommender = Recommender(data, tiny.language_model())
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    options = RowOptions(basket="tree")
    shared = (recommender.encoder, recommender.template, data.interactions, paths)
    everything = np.ones(len(data.interactions), dtype=np.bool_)
    plain = make_rows(RowMaker(*shared, options), data.interactions, everything, everything)
    ours = rows_of(data, recommender, 12, basket="tree")
    assert len(plain) == len(ours) > 0
    for one, other in zip(plain, ours, strict=True):
        for name in ("ids", "position", "limit", "branch", "before", "at", "item", "event"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
        assert not len(other.moved)
        for g in range(len(one.item)):
            assert one.text_before(g) == other.text_before(g)


def test_rows_share_blocks_and_stay_within_their_size() -> None:
    data = dataset([[(i % 7, "buy") for i in range(9)] for _ in range(3)])
    recommender = Recommender(data, tiny.language_model())
    longest = max(map(len, recommender.encoder.titles(data.catalog)))
    whole = rows_of(data, recommender, 2, basket="tree", max_events=30)
    small = 4 * longest + 150
    several = rows_of(data, recommender, 2, basket="tree", max_events=30, max_tokens=small)
    assert len(whole) == 2  # targets without blocks, and the others
    assert len(several) > 2
    assert max(map(len, several)) <= small
    for rows in (whole, several):
        assert sorted(e for r in rows for e in r.event.tolist()) == list(range(27))


def goal(*title: int) -> Goal:
    return Goal(0, 0, title)


def test_a_row_by_hand() -> None:
    one = BlockPrompt((1, 2, 5, 6, 9), 2, (4,), (True, True))
    two = BlockPrompt((1, 2, 5, 6, 7, 8, 9), 2, (4, 6), (True,) * 3)
    row = make_block_row([(one, [goal(20, 21)]), (two, [goal(30), goal()])])
    assert row.ids.tolist() == [1, 2, 5, 6, 7, 8, 9, 20, 21, 9, 30]
    assert row.position.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 6, 6, 7]
    assert (row.before.tolist(), row.at.tolist()) == ([6, 9, 9], [7, 10, 11])
    assert row.moved.tolist() == [[0, 2, 4], [1, 2, 4]]
    seen = [np.flatnonzero(row.seen_by(i)).tolist() for i in range(len(row))]
    assert seen == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [4], [4, 5],
        [0, 1, 2, 3, 6], [0, 1, 2, 3, 6, 7], [0, 1, 2, 3, 6, 7, 8],
        [0, 1, 2, 3, 4, 5, 9], [0, 1, 2, 3, 4, 5, 9, 10],
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["history", "window"])
def test_templates_whose_events_are_joined_are_refused(layout: str) -> None:
    data = dataset([[(0, "buy")], [(1, "buy")], [(2, "buy")]])
    recommender = Recommender(data, tiny.language_model())
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    source = (
        "{#-\nevents: joined\n-#}\nHistory:\n{% for event in events -%}\n"
        "{{ event.verb }}: {{ event.title }}\n{% endfor -%}\n{{ next_verb }}: {{ target }}"
    )
    joined = Template("joined", source, recommender.template.verbs)
    everything = np.ones(3, dtype=np.bool_)
    for recent in (0, 8):
        maker = BlockRowMaker(
            recommender.encoder, joined, data.interactions, paths, RowOptions(layout=layout),
            recent=recent,
        )  # fmt: skip
        with pytest.raises(SettingsError, match="each event on lines of its own"):
            make_rows(maker, data.interactions, everything, everything)


def test_prompts_with_other_blocks_get_rows_of_their_own() -> None:
    """As those of a template that numbers its events from the end."""
    data = dataset([[(i, "buy")] for i in range(5)])
    recommender = Recommender(data, tiny.language_model())
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    source = (
        "{#-\nfor: tests\n-#}\nHistory:\n{% for event in events -%}\n{{ loop.revindex }}\n"
        "{{ event.verb }}: {{ event.title }}\n{% endfor -%}\n{{ next_verb }}: {{ target }}"
    )
    numbered = Template("numbered", source, recommender.template.verbs)
    everything = np.ones(5, dtype=np.bool_)
    maker = BlockRowMaker(
        recommender.encoder, numbered, data.interactions, paths, RowOptions(), recent=0
    )
    rows = make_rows(maker, data.interactions, everything, everything)
    assert [r.event.tolist() for r in rows] == [[0], [1], [2], [3], [4]]
    texts: Sequence[str] = [recommender.model.tokenizer.decode(r.text_before(0)) for r in rows]
    assert [text.count("\n") for text in texts] == [1, 3, 5, 7, 9]
    assert "4\nbought" in texts[4]
