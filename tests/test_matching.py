from __future__ import annotations

import pytest

from genrec import Catalog, Item
from genrec.matching import THRESHOLD, TextMatcher
from genrec.reader import HistoryReader

CATALOG = Catalog(
    [
        Item("1", "RED RETROSPOT MUG"),
        Item("2", "JUMBO BAG PINK POLKADOT"),
        Item("3", "Tea: a history; with notes; and cake"),
        Item("4", "bought: the book"),
        Item("5", "twin"),
        Item("6", "twin"),
        Item("x;y", "odd id"),
        Item("7", "红色杯子"),
    ]
)
READER = HistoryReader(
    CATALOG,
    {"buy": ("bought", "buy"), "view": ("viewed", "view"), "cart": ("added to cart",)},
    "buy",
)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", []),
        (" ; ;\n", []),
        ("RED RETROSPOT MUG", [("buy", "1", "exact")]),
        ("red  retrospot-mug!", [("buy", "1", "normalized")]),
        ("viewed: JUMBO BAG PINK POLKADOT", [("view", "2", "exact")]),
        ("View : jumbo bag pink polkadot", [("view", "2", "normalized")]),
        ("added to cart: 1; 2", [("cart", "1", "id"), ("buy", "2", "id")]),
        (
            "viewed: Tea: a history; with notes; and cake; 1",
            [("view", "3", "exact"), ("buy", "1", "id")],
        ),
        ("bought: the book", [("buy", "4", "exact")]),
        ("bought: bought: the book", [("buy", "4", "exact")]),
        (
            "bought:RED RETROSPOT MUG；viewed：红色杯子",
            [("buy", "1", "exact"), ("view", "7", "exact")],
        ),
        ("Poked: RED RETROSPOT MUG", [("poked", "1", "exact")]),
        ("nonsense; 1", [("buy", None, "none"), ("buy", "1", "id")]),
        ("viewed:", [("view", None, "none")]),
        ("\x00\x1b[31m", [("buy", None, "none")]),
    ],
)
def test_text(typed: str, expected: list[tuple[str, str | None, str]]) -> None:
    history, understood = READER.read(typed)
    assert [(u.behavior, u.item_id, u.match) for u in understood] == expected
    assert list(history.item_ids) == [i for _, i, _ in expected if i is not None]


def test_lists_of_ids_or_titles() -> None:
    history, understood = READER.read(["x;y", "viewed: red retrospot mug", "RED; MUG"])
    assert history.item_ids == ("x;y", "1")
    assert [i.behavior for i in history.interactions] == ["buy", "view"]
    assert [u.match for u in understood] == ["id", "normalized", "none"]


def test_a_shared_title_says_so() -> None:
    _, (found,) = READER.read("twin")
    assert (found.item_id, found.others) == ("5", ("6",))


@pytest.mark.parametrize(
    ("typed", "row"),
    [
        ("RED RETROSPT MUG", 0),
        ("reed retrospot mugs", 0),
        ("mug red retrospot", 0),
        ("jumbo bag pnik polkadot", 1),
        ("pink jumbo bag polkadot", 1),
        ("红色杯", None),  # too short to be sure of
        ("red mug", None),
        ("completely different", None),
        ("", None),
    ],
)
def test_near_misses(typed: str, row: int | None) -> None:
    match = TextMatcher(CATALOG).match(typed)
    assert match.rows[:1] == (() if row is None else (row,))
    if row is not None:
        assert match.how == "fuzzy"
        assert THRESHOLD <= match.similarity <= 1.0
    assert TextMatcher(CATALOG, threshold=1.01).match(typed).rows == ()


def test_numbers_must_agree_and_the_best_must_be_ahead() -> None:
    matcher = TextMatcher(
        Catalog(
            [
                Item("1", "SET OF 3 CAKE TINS PANTRY DESIGN"),
                Item("2", "SET OF 6 SPICE TINS PANTRY DESIGN"),
                Item("3", "wooden heart garland blue"),
                Item("4", "wooden heart garland blur"),
            ]
        )
    )
    assert matcher.match("set of 3 cake tins pantry desing").rows == (0,)
    assert matcher.match("set of 4 cake tins pantry design").how == "none"
    assert matcher.match("wooden heart garland blux").how == "none"


def test_typed_histories_forgive_typing_errors() -> None:
    history, understood = READER.read("bought: RED RETROSPT MUG; viwed: jumbo bag pink polkadott")
    assert history.item_ids == ("1", "2")
    assert [u.match for u in understood] == ["fuzzy", "fuzzy"]
    assert [u.behavior for u in understood] == ["buy", "viwed"]
    assert all(THRESHOLD <= u.similarity < 1 for u in understood)
