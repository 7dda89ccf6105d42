"""What people say about themselves is told apart from what they ask for."""

from __future__ import annotations

import pytest

from genrec import Catalog, Item
from genrec.conversation.about import is_about_oneself
from genrec.conversation.parser import parse_query

CATALOG = Catalog(
    [
        Item("a", "Cake tin", {"price": 4.0, "color": "red"}),
        Item("b", "Cat basket", {"price": 9.0, "color": "blue"}),
    ]
)

ABOUT = [
    "I bake a lot and have two cats",
    "I'm a teacher. I like red things!",
    "Hi, I am interested in cats, gifts and tins.",
    "My kids love drawing",
    "We’ve just moved to the country",
    "我喜欢烘焙，家里有两只猫",
    "我是老师。我家有一个花园。",
]
ASKING = [
    "I want a cake tin",
    "I'd like something for a picnic",
    "I would love a mug",
    "I like mugs. Show me some",
    "I bake a lot, what can you recommend?",
    "I bake, please find me a tin",
    "something for someone who bakes",
    "a red mug",
    "we are looking for a basket",
    "I have two cats and need a basket",
    "presents for my mother",
    "我想要一个杯子",
    "我喜欢猫，推荐一些礼物",
    "红色的杯子",
    "",
]


@pytest.mark.parametrize("text", ABOUT)
def test_about(text: str) -> None:
    assert is_about_oneself(text)
    query = parse_query(text, CATALOG)
    assert query.about
    assert not query.conditions  # "I like red things" is no condition
    assert query.to_dict()["about"] is True


@pytest.mark.parametrize("text", ASKING)
def test_asking(text: str) -> None:
    assert not is_about_oneself(text)


def test_conditions_count_and_references_ask() -> None:
    for text in ("I like tins under 5", "I like 3 tins", "I like something like Cake tin"):
        assert not parse_query(text, CATALOG).about
    refused = parse_query("I bake a lot. I don't like cats", CATALOG)
    assert refused.about
    assert refused.unwanted == ("cats",)
