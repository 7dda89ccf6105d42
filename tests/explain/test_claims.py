"""Claims that the checker must reject, and claims that it must accept."""

from __future__ import annotations

import pytest

from genrec import Catalog, Interaction, Item
from genrec.explain.claims import Facts, find_problems, has_foreign_word
from genrec.explain.sentences import collect_facts
from genrec.explain.styles import load_explain_template

VERBS = {"buy": ("bought", "buy"), "view": ("viewed", "saw"), "like": ("liked", "like")}
ITEM = Item(
    "i1",
    'SET OF 6 "TEA" TIME CASES',
    {"price_gbp": 0.85, "color": "dark red", "weight_g": 120, "old": None},
)
FACTS = Facts(
    ITEM,
    (("buy", "RED MUG"), ("view", 'JUMBO BAG 12"'), ("view", "RED MUG")),
    VERBS,
    ("Like", ", is", "a the of for in with because they and costs"),
    "Like",
)
ZH = Facts(
    Item("g1", "速干跑步袜 3双装", {"category": "商品", "topic": "跑步"}),
    (("buy", "轻量透气跑步鞋"), ("view", "不锈钢水壶")),
    {"buy": ("购买了", "购买"), "view": ("浏览了", "浏览")},
    ("和", "一样，", "是", "一款", "的", "因为您", "了"),
    "和",
)


@pytest.mark.parametrize(
    "text",
    [
        'Like "RED MUG", "SET OF 6 "TEA" TIME CASES" is a set of 6 tea cases.',
        'Like "red mug", "SET OF 6 "TEA" TIME CASES" is dark red.',
        'Because they bought "RED MUG".',
        'Because they viewed "JUMBO BAG 12"" and "RED MUG".',
        'Because they viewed: "JUMBO BAG 12"".',
        "a case with the color dark red and price of 0.85 gbp.",
        "a weight of 120 g.",
        "costs 0.850 gbp",
        "Like “RED MUG”, is a tea case.",
        "",
    ],
)
def test_true_sentences_pass(text: str) -> None:
    assert find_problems(text, FACTS) == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('Like "RED MUGS", is a set.', "names 'RED MUGS'"),
        ('Like "BLUE MUG", is a set.', "neither the item nor in the history"),
        ("Like “BLUE MUG”, is a set.", "names 'BLUE MUG'"),
        ('Like "RED MUG" is "', "names ''"),
        ('Because they bought "JUMBO BAG 12"".', "claims a 'buy' event for 'JUMBO BAG 12\"'"),
        ('Because they bought "RED MUG" and "JUMBO BAG 12"".', " event for "),
        (
            'Because they liked "RED MUG".',
            "claims a 'like' event for 'RED MUG', which is not in the history",
        ),
        ('Because they saw "SET OF 6 "TEA" TIME CASES".', " event for "),
        ("they bought a red case.", "word 'bought'"),
        ("is a set of 12 tea cases.", "number 12"),
        ("is a price of 120 gbp.", "number 120"),
        ("costs 0.58 gbp.", "number 0.58"),
        ("is a green case.", "word 'green'"),
        ("is a set of six.", "word 'six'"),
        ("is not a case.", "word 'not'"),
        ("红色的杯子", "word '红色的杯子'"),
        ("红色的杯子", "not written in latin"),
    ],
)
def test_false_sentences_fail(text: str, why: str) -> None:
    assert why in "; ".join(find_problems(text, FACTS))


def test_chinese_sentences() -> None:
    assert find_problems("和“轻量透气跑步鞋”一样，“速干跑步袜 3双装”是一款速干的跑步袜。", ZH) == ()
    assert find_problems("因为您浏览了“不锈钢水壶”。", ZH) == ()
    for text in (
        "和“轻量跑步鞋”一样，是一款跑步袜。",
        "因为您购买了“不锈钢水壶”。",
        "是一款防水的跑步袜。",
        "是一款5双装。",
        "a running sock.",
    ):
        assert find_problems(text, ZH), text


def test_a_word_that_is_still_being_written_is_not_judged() -> None:
    assert not has_foreign_word(" a gre", FACTS)
    assert has_foreign_word(" a green ", FACTS)
    assert has_foreign_word(" a gre.", FACTS)
    assert not has_foreign_word(" a case.", FACTS)


SHOP = Catalog(
    [Item("a", "red mug"), Item("b", "CHOCOLATE BOX RIBBONS"), Item("c", "不锈钢保温杯")]
)


@pytest.mark.parametrize("style", ["reason", "short", "pitch"])
def test_shipped_templates_let_nothing_be_called_what_its_words_alone_may_not_mean(
    style: str,
) -> None:
    template = load_explain_template(style, "en", None)
    facts = collect_facts(template, SHOP, [Interaction("a", "buy")], 1)
    begins = f'{template.header["opening"]} "red mug"'
    link = template.header["link"].replace("{item}", ' "CHOCOLATE BOX RIBBONS"')
    assert find_problems(f"{begins}{link} chocolate and ribbons.", facts) == ()
    for wrong in ("is a chocolate box.", "for a box.", "chocolate in a box.", "from ribbons."):
        assert find_problems(f"{begins}{link} {wrong}", facts), wrong


def test_shipped_chinese_templates_name_key_words() -> None:
    template = load_explain_template("reason", "zh", None)
    facts = collect_facts(template, SHOP, [Interaction("a", "buy")], 2)
    assert find_problems("因为“red mug”，推荐“不锈钢保温杯”，关键词是保温杯。", facts) == ()
    assert find_problems("因为“red mug”，推荐“不锈钢保温杯”，是一款保温杯。", facts)
