from __future__ import annotations

import pytest

from genrec import Catalog, Item
from genrec.matching import HistoryReader

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
