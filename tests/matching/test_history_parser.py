"""Test the parser of typed histories with many notations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.work import count_calls

from genrec import Catalog, Item, Recommender
from genrec.data.behaviors import spoken_verbs
from genrec.errors import RequestError
from genrec.matching.history_parser import HistoryParser

TITLES = [
    "Running shoes",
    "Sports socks",
    "Water bottle",
    "Salt, pepper and oil set",
    "How I bought a farm",
    "Then and now",
    "跑步鞋",
    "运动袜",
    "不锈钢保温杯 500毫升",
    "相机购买指南",
    "商品A",
    "商品B",
]
CATALOG = Catalog(Item(f"i{n}", t) for n, t in enumerate(TITLES))
VERBS = {**spoken_verbs(), "ask": ("ask", "asked"), "answer": ("answer", "answered")}
PARSER = HistoryParser(CATALOG, VERBS, "buy")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        # English, as in the sentence template, with and without separators
        ("browsed Running shoes, bought Sports socks", ["browse i0", "buy i1"]),
        (
            "The user browsed Running shoes, bought Sports socks, and next they will buy",
            ["browse i0", "buy i1"],
        ),
        ("bought Running shoes and then viewed Water bottle, next:", ["buy i0", "view i2"]),
        ("bought running shoes, sports socks and water bottle", ["buy i0", "buy i1", "buy i2"]),
        ("Running shoes, Sports socks", ["buy i0", "buy i1"]),
        ("i0, i2", ["buy i0", "buy i2"]),
        ("purchased Running shoes; looked at Sports socks", ["buy i0", "browse i1"]),
        ("asked Running shoes, answered: Sports socks", ["ask i0", "answer i1"]),
        ("BOUGHT RUNNING SHOES BROWSED SPORTS SOCKS", ["buy i0", "browse i1"]),
        # titles that hold separators or verbs
        ("bought Salt, pepper and oil set, Water bottle", ["buy i3", "buy i2"]),
        ("read How I bought a farm, bought Water bottle", ["read i4", "buy i2"]),
        ("Then and now", ["buy i5"]),
        ("bought Then and now and Water bottle", ["buy i5", "buy i2"]),
        # Chinese: colons, none, full width, no separator at all
        ("浏览：跑步鞋；购买：运动袜", ["browse i6", "buy i7"]),
        ("浏览商品A 购买商品B", ["browse i10", "buy i11"]),
        ("浏览商品A购买商品B", ["browse i10", "buy i11"]),
        ("用户浏览了跑步鞋，购买了运动袜，接下来会购买", ["browse i6", "buy i7"]),
        ("我买了跑步鞋，然后看了运动袜。", ["buy i6", "watch i7"]),
        ("跑步鞋、运动袜", ["buy i6", "buy i7"]),
        ("跑步鞋 运动袜", ["buy i6", "buy i7"]),
        ("阅读相机购买指南，购买跑步鞋", ["read i9", "buy i6"]),
        ("购买了不锈钢保温杯 500毫升 浏览跑步鞋", ["buy i8", "browse i6"]),
        ("浏览了Running shoes，bought 跑步鞋", ["browse i0", "buy i6"]),
        # near misses between known ones
        ("browsed Runing shoes, bought Sports socks", ["browse i0 fuzzy", "buy i1"]),
        ("bought Sports socks viewed watter bottle", ["buy i1", "view i2 fuzzy"]),
        # nothing known
        ("bought a spaceship, bought Water bottle", ["buy None", "buy i2"]),
    ],
)
def test_forms(typed: str, expected: list[str]) -> None:
    history, understood = PARSER.read(typed)
    found = [
        f"{u.behavior} {u.item_id}" + (" fuzzy" if u.match == "fuzzy" else "") for u in understood
    ]
    assert found == expected
    assert len(history) == sum(not e.endswith("None") for e in expected)


def test_values_and_texts() -> None:
    history, _ = PARSER.read(
        'rated Running shoes 5/5, bought Water bottle and wrote "too small", searched "red mug"'
    )
    rated, bought, searched = history.interactions
    assert (rated.item_id, rated.behavior, rated.value) == ("i0", "rate", 5.0)
    assert (bought.item_id, bought.text) == ("i2", "too small")
    assert (searched.item_id, searched.behavior, searched.text) == (None, "search", "red mug")
    history, _ = PARSER.read("浏览了运动袜，给跑步鞋打了4分，搜索“红色杯子”")
    assert [(i.item_id, i.behavior, i.value, i.text) for i in history.interactions] == [
        ("i7", "browse", None, None), ("i6", "rate", 4.0, None), (None, "search", None, "红色杯子"),
    ]  # fmt: skip


@given(
    st.lists(st.sampled_from(range(len(TITLES))), min_size=1, max_size=5),
    st.lists(st.sampled_from(["buy", "browse", "rate", "listen"]), min_size=5, max_size=5),
    st.sampled_from(["; ", "；", "\n"]),
    st.sampled_from([": ", "："]),
)
def test_what_is_written_with_verbs_colons_and_separators_is_read(
    items: list[int], behaviors: list[str], between: str, colon: str
) -> None:
    pairs = list(zip(items, behaviors, strict=False))
    for form in range(len(min((VERBS[b] for b in behaviors), key=len))):
        typed = between.join(f"{VERBS[b][form]}{colon}{TITLES[i]}" for i, b in pairs)
        history, _ = PARSER.read(typed)
        assert [(i.item_id, i.behavior) for i in history.interactions] == [
            (f"i{i}", b) for i, b in pairs
        ]


@given(st.text(max_size=200))
def test_any_text_is_read(typed: str) -> None:
    history, understood = PARSER.read(typed)
    assert len(history) <= len(understood)
    assert all(u.match == "none" or u.item_id or u.note for u in understood)


@given(st.lists(st.sampled_from(["bought", "浏览", ",", " ", "and", "跑步鞋", "water bottle", "5/5",
                                 "the user", "：", '"x"', "then", "看", "接下来", "i1"]), max_size=30))  # fmt: skip
def test_any_mixture_is_read_without_losing_known_titles(words: list[str]) -> None:
    history, _ = PARSER.read(" ".join(words))
    assert len(history) <= len(words)


OTHER_CATALOG = Catalog(Item(str(n), t) for n, t in enumerate(["red mug", "doll", "bag"]))


def make(**settings: Any) -> Recommender:
    return Recommender(OTHER_CATALOG, tiny.language_model(), **settings)


N = 9_000


LONG = {
    "spaces": "x" + " " * N + "y",
    "spaces after a comma": "," + " " * N + "x",
    "commas": "," * N,
    "pieces": "a;" * (N // 2),
    "parts": "a," * (N // 2),
    "给": "给" * N,
    "verbs": "and " * (N // 8) + "bought " * (N // 14),
    "then": "x then " * (N // 7),
    "next": "next " * (N // 5),
    "digits": "red mug " + "9" * N + "/5",
    "quotes": "“" * (N // 2) + "”" * (N // 2),
    "emoji": "👩‍🚀" * (N // 3),
    "right to left": "שלום " * (N // 5),
}


@pytest.mark.parametrize("typed", LONG.values(), ids=LONG.keys())
def test_long_typed_histories_are_read_in_reasonable_time(typed: str) -> None:
    calls, (history, _) = count_calls(lambda: make(encoder="ngrams").understand(typed))
    assert calls < 1000 * N  # the work grows with the length, and not with its square
    assert len(history) <= len(typed)


def test_very_long_typed_histories_are_refused() -> None:
    with pytest.raises(RequestError, match="Expected at most 20,000"):
        make().recommend("red mug; " * 12_000)
    assert len(make(exclude_seen=False).recommend(["red mug"] * 12_000)) == 2


def test_values_beyond_all_numbers_are_left_out() -> None:
    history, _ = make().understand("rated red mug " + "9" * 400 + "/5")
    assert [(i.item_id, i.value) for i in history.interactions] == [("0", None)]


def test_a_typed_subject_is_no_event() -> None:
    _, understood = make(encoder="none").understand("we bought a spaceship")
    assert [u.text for u in understood] == ["bought a spaceship"]
