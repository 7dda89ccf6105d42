"""Which items are variants of one product, by a column or by their titles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.titles import titles
from support.work import count_calls

from genrec import Catalog, Item
from genrec.cache import Cache
from genrec.data.groups import ALONE, Groups, find_groups, load_groups


def groups_of(names: Sequence[str], column: str = "", values: Sequence[Any] = ()) -> Groups:
    attributes: list[dict[str, Any]] = [{column: v} for v in values] or [{} for _ in names]
    return find_groups(
        Catalog(Item(f"i{n}", t, a) for n, (t, a) in enumerate(zip(names, attributes, strict=True)))
    )


@pytest.mark.parametrize(
    "variants",
    [
        ["ALARM CLOCK BAKELIKE RED", "ALARM CLOCK BAKELIKE IVORY"],
        ["Desk Lamp, Dark Brown", "Desk Lamp (light green)"],
        ["HEART OF WICKER SMALL", "LARGE WHITE HEART OF WICKER"],
        ["Cotton Crew Sock XL", "Cotton crew socks - M"],
        ["PACK OF 12 SKULL TISSUES", "PACK OF 20 SKULL TISSUES", "Skull tissue"],
        ["Peel Pads, 60 Count", "Peel Pads 60 pcs (Pack of 3)"],
        ["Vanilla Sugar Scrub 16oz", "Vanilla Sugar Scrub, 0.5-Fluid Ounce", "VANILLA SUGAR SCRUB 500ml"],
        ["Bunny Plush 13&quot;", "Bunny Plush 8&quot;"],
        ["POLYESTER PAD 45x45cm", "POLYESTER PAD 30x40cm"],
        ["METAL DOOR SIGN 2", "METAL DOOR SIGN 7"],
        ["Brettspiel Sammlung rot", "Brettspiel Sammlung grün, 2 Stück"],
        ["不锈钢保温杯 红色 500ml", "不锈钢保温杯 深蓝色 750ml", "不锈钢保温杯2个装"],
        ["Shape Sorting Clock", "SHAPE SORTING CLOCK"],
        ["Hide & Seek Board", "Hide and Seek Board"],
        ["Dominion", "Dominion: Prosperity", "Dominion - Alchemy"],
        ["Munchkin", "Munchkin 2 Unnatural Axe", "Munchkin Zombie Hunt Expansion"],
        ["Monopoly", "Monopoly City Edition", "Monopoly: Collector's Edition"],
        ["Catan: Seafarers Expansion", "Catan: Cities and Knights Extension"],
        ["JUMBO BAG STRAWBERRY", "JUMBO BAG RED RETROSPOT", "JUMBO BAG SPACEBOY DESIGN"],
        ["OPI Nail Lacquer, Simmer and Shimmer, 0.5 oz", "OPI Nail Lacquer - Pompeii Purple"],
        ["Carcassonne Big Box", "Carcasssonne Big Box"],
    ],
)  # fmt: skip
def test_variants_are_in_one_group(variants: list[str]) -> None:
    groups = groups_of([*variants, "Something Else Entirely"])
    assert groups.numbers.tolist() == [0] * len(variants) + [ALONE], groups.names


@pytest.mark.parametrize(
    "products",
    [
        ["RED MUG", "BLUE MUG"],  # too few words remain
        ["1984", "2001", "300"],
        ["Toy Story (1995)", "Toy Story 2 (1999)", "Toy Story 3 (2010)"],
        ["Hamlet (1990)", "Hamlet (1996)"],
        ["LEGO Castle 70401", "LEGO Castle 70402"],
        ["RED RETROSPOT MUG", "RED RETROSPOT APRON", "RED RETROSPOT PEG BAG"],
        ["real Techniques Blush Brush", "real Techniques Powder Brush"],
        ["Melissa & Doug Farm Cube Puzzle", "Melissa & Doug Farm Sound Puzzle"],
        ["LUNCH BAG SPACEBOY", "LUNCH BAG AND WATER BOTTLE"],
        ["Nail Lacquer Mint", "Nail Lacquer Thinner"],
        ["Thomas the Train: Castle Quest", "Thomas the Train: Risky Rails"],
        ["It", "It Ends with Us"],
        ["Transformers - Anniversary Edition - Unicron", "Transformers: First Edition Optimus"],
        ["Touch Learning System", "Touch Learning System - Carry Case"],
        ["Calvin Klein Euphoria for Men", "Calvin Klein Euphoria for Women"],
        ["CINNAMON SCENTED VOTIVE", "CINAMMON SCENTED VOTIVE"],  # two letters differ
        ["☕", "👩‍🚀"],
        ["保温杯", "水彩笔"],
    ],
)
def test_different_products_are_not(products: list[str]) -> None:
    assert groups_of(products).numbers.tolist() == [ALONE] * len(products)


@pytest.mark.parametrize("column", ["parent_asin", "item_group_id", "Parent ID", "group_id"])
def test_a_column_decides_before_the_titles(column: str) -> None:
    names = ["Desk Lamp Red", "Desk Lamp Blue", "Floor Lamp", "Wall Lamp Red", "Wall Lamp Blue"]
    groups = groups_of(names, column, ["P1", "P2", "P1", None, "n/a"])
    assert groups.numbers.tolist() == [0, ALONE, 0, 1, 1]
    assert groups.names == ("P1", "wall lamp")
    assert [groups.name(row) for row in range(3)] == ["P1", None, "P1"]


def test_a_column_in_which_all_values_differ_says_nothing() -> None:
    groups = groups_of(["Desk Lamp Red", "Desk Lamp Blue"], "parent_asin", ["P1", "P2"])
    assert groups.numbers.tolist() == [0, 0]


@given(st.lists(titles, min_size=1, max_size=12), st.randoms())
def test_groups_do_not_depend_on_the_order_of_items(names: list[str], random: Any) -> None:
    def sets(given: list[int]) -> set[frozenset[int]]:
        numbers = groups_of([names[n] for n in given]).numbers.tolist()
        return {
            frozenset(n for n, m in zip(given, numbers, strict=True) if m == number)
            for number in set(numbers) - {ALONE}
        }

    order = list(range(len(names)))
    mixed = random.sample(order, len(order))
    assert sets(order) == sets(mixed)
    assert all(len(group) > 1 for group in sets(order))


def test_the_work_grows_with_the_number_of_items_and_not_with_its_square() -> None:
    def work(n: int) -> int:
        catalog = Catalog(Item(f"i{i}", f"series{i % 9} product{i} shiny lamp") for i in range(n))
        return count_calls(lambda: find_groups(catalog))[0]

    assert work(8_000) < 10 * work(1_000)  # 8 times the items; 64 would be quadratic


def test_groups_are_kept_in_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def catalog(*parents: str) -> Catalog:
        names = ["Desk Lamp Red", "Desk Lamp Blue", "Floor Lamp"]
        return Catalog(Item(n, n, {"parent_id": p}) for n, p in zip(names, parents, strict=True))

    cache = Cache(tmp_path)
    first = load_groups(catalog("", "", ""), cache)
    other = load_groups(catalog("A", "B", "A"), cache)  # same ids and titles
    assert (first.names, other.names) == (("desk lamp",), ("A",))
    monkeypatch.setattr("genrec.data.groups.find_groups", None)
    again = load_groups(catalog("A", "B", "A"), cache)
    assert again.numbers.tolist() == other.numbers.tolist() == [0, ALONE, 0]
    assert again.names == other.names
