"""Keywords and interests agree with slow counts, and find what was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.amount import FULL

from genrec import Catalog, Interaction, Item
from genrec.data.datasets import load
from genrec.prompts.profile import stop_words
from genrec.taste.interests import (
    find_interests,
    find_shifts,
    likelihood_ratio,
    recency,
)
from genrec.taste.keywords import KeywordIndex, holds, key_of

WORDS = ["red", "mugs", "mug", "tea", "hot", "bottle", "杯子", "红色", "red-hot", "3"]


def titles_of(pieces: list[list[str]]) -> Catalog:
    return Catalog(Item(f"i{n}", " ".join(words)) for n, words in enumerate(pieces))


@given(
    st.lists(st.lists(st.sampled_from([*WORDS, ",", "("]), min_size=1, max_size=5), min_size=1,
             max_size=8).filter(lambda p: all(any(c.isalnum() for c in "".join(t)) for t in p)),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
)  # fmt: skip
def test_the_index_finds_what_a_plain_scan_finds(
    pieces: list[list[str]], keyword: list[str]
) -> None:
    catalog, text = titles_of(pieces), " ".join(keyword)
    plain = [row for row in range(len(catalog)) if holds(catalog[row], text)]
    assert KeywordIndex(catalog).rows(text).tolist() == plain


def test_an_item_holds_whole_words_in_one_place() -> None:
    item = Item("1", "Hot Water Bottles, red", {"kind": "Tea pots", "n": 3})
    assert holds(item, "hot water bottle")
    assert holds(item, "TEA POT")
    assert not holds(item, "bottle red")  # a comma is between them
    assert not holds(item, "water bott")
    assert holds(Item("2", "红色的杯子"), "杯子")
    assert not holds(item, "")


def past(*rows: int) -> tuple[Interaction, ...]:
    return tuple(Interaction(f"i{n}", "buy") for n in rows)


SHOP = Catalog(
    Item(f"i{n}", title)
    for n, title in enumerate(
        ["green tea", "black tea", "hot water bottle", "blue water bottle", "pen", "ink", "desk"]
    )
)


def test_an_interest_has_its_events_and_the_figures_of_its_formula() -> None:
    index = KeywordIndex(SHOP, np.array([1, 1, 1, 1, 100, 100, 100]))
    events = past(0, 4, 1, 5)
    (tea,) = find_interests(index, events)
    assert (tea.keyword, tea.events) == ("tea", (0, 2))
    weights = recency(4)
    y, n, p = weights[0] + weights[2], weights.sum(), 2 / 304
    assert tea.share == pytest.approx(y / n)
    assert tea.usual == pytest.approx(p)
    other = (n - y) * math.log((n - y) / (n * (1 - p)))
    assert tea.ratio == pytest.approx(2 * (y * math.log(y / (n * p)) + other))
    assert likelihood_ratio(3, 10, 0.3) == pytest.approx(0.0, abs=1e-12)


def test_what_everybody_chooses_is_no_interest() -> None:
    index = KeywordIndex(SHOP, np.array([100, 100, 1, 1, 1, 1, 1]))
    assert find_interests(index, past(0, 4, 1, 5)) == ()


def test_a_phrase_that_always_goes_together_is_named_whole() -> None:
    index = KeywordIndex(SHOP, np.array([1, 1, 1, 1, 50, 50, 50]))
    (bottle,) = find_interests(index, past(2, 3, 2, 3, 4))
    assert bottle.keyword == "water bottle"
    chinese = Catalog(
        [Item("a", "溪流短节鱼竿 3米"), Item("b", "碳素溪流短节鱼竿"), Item("c", "茶")]
    )
    index = KeywordIndex(chinese, np.array([1, 1, 50]))
    found = find_interests(index, tuple(Interaction(i, "buy") for i in "abab"))
    assert [one.keyword for one in found] == ["溪流短节鱼竿"]


def test_removed_keywords_and_all_that_contain_them_are_not_found() -> None:
    index = KeywordIndex(SHOP, np.array([1, 1, 1, 1, 50, 50, 50]))
    assert find_interests(index, past(2, 3, 2, 3, 4), without=["Bottles"]) == ()


def test_shifts_compare_the_halves() -> None:
    index = KeywordIndex(SHOP)
    rises, falls = find_shifts(index, past(0, 1, 0, 1, 0, 1, 4, 5, 4, 4, 4, 4, 4, 4))
    assert (rises.keyword, rises.recent, rises.earlier, rises.rises) == ("pen", 6, 1, True)
    assert (falls.keyword, falls.recent, falls.earlier, falls.of_recent) == ("tea", 0, 6, 7)
    assert find_shifts(index, past(0, 1, 0, 1)) == ()


def test_interests_of_a_bundled_shop_are_sorted_distinct_and_above_chance() -> None:
    data = load("online_retail_demo")
    rows = data.interactions.columns.row
    index = KeywordIndex(
        data.catalog, np.bincount(rows[rows >= 0], minlength=len(data.catalog)), empty=stop_words()
    )
    for user in data.interactions.user_ids[: 100 if FULL else 10]:
        events = data.interactions.history(user).interactions
        found = find_interests(index, events)
        assert [f.ratio for f in found] == sorted((f.ratio for f in found), reverse=True)
        assert len({key_of(f.keyword) for f in found}) == len(found)
        for one in found:
            assert one.share > one.usual
            held = [
                holds(data.catalog[data.catalog.row(str(e.item_id))], one.keyword) for e in events
            ]
            assert [n for n, is_held in enumerate(held) if is_held] == list(one.events)
