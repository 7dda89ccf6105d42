"""Lists hold at most ``per_group`` variants of one product, and are otherwise the best ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.scripted_model import Scripted
from support.titles import kinds

from genrec import Catalog, Item, Recommender
from genrec.data.groups import ALONE, find_groups
from genrec.errors import RequestError

PRODUCTS = ["desk lamp", "wool sock", "lunch bag", "mug tree", "Catan"]
VARIANTS = ["red", "blue", "12", "XL", "(2 pack)", "spaceboy", ": Seafarers Expansion", "oak", ""]


@st.composite
def shops(draw: st.DrawFn) -> Recommender:
    names = draw(
        st.lists(
            st.tuples(st.sampled_from(PRODUCTS), st.sampled_from(VARIANTS)), min_size=1, max_size=40
        )
    )
    parents = draw(st.none() | st.lists(st.sampled_from(["P", "Q", None]), min_size=40))
    items = [
        Item(f"i{n}", f"{p} {v}".strip(), {"price": n} | ({"parent_id": parents[n]} if parents else {}))
        for n, (p, v) in enumerate(names)
    ]  # fmt: skip
    model = tiny.language_model(draw(kinds))
    return Recommender(Catalog(items), model, encoder="none", search="exact")


@given(shops(), st.integers(1, 12), st.sampled_from([1, 2, 3, None]), st.data())
def test_a_grouped_list_equals_that_of_all_items(
    recommender: Recommender, k: int, per_group: int | None, data: st.DataObject
) -> None:
    catalog = recommender.catalog
    numbers = find_groups(catalog).numbers.tolist()
    deny = data.draw(st.lists(st.sampled_from([i.item_id for i in catalog]), max_size=9))
    price = data.draw(st.none() | st.integers(1, 40))
    where = None if price is None else f"price < {price}"
    wanted, taken = [], Counter[int]()
    for r in recommender.score(""):
        row = catalog.row(r.item_id)
        if r.item_id in deny or (price is not None and row >= price):
            continue
        if per_group is None or numbers[row] == ALONE or taken[numbers[row]] < per_group:
            wanted.append(r)
            taken[numbers[row]] += 1
    if not wanted:
        with pytest.raises(RequestError, match="No item may be returned"):
            recommender.recommend("", k, deny=deny, where=where, per_group=per_group)
        return
    answer = recommender.recommend("", k, deny=deny, where=where, per_group=per_group)
    assert [r.logprob for r in answer] == pytest.approx([r.logprob for r in wanted[:k]], abs=4e-4)
    counted = Counter(numbers[catalog.row(r.item_id)] for r in answer)
    del counted[ALONE]
    assert per_group is None or max(counted.values(), default=0) <= per_group


def lamps(**settings: Any) -> Recommender:
    """A shop whose best items are variants of each other."""
    items = [Item(f"l{n}", f"desk lamp {n}") for n in range(12)]
    items += [Item(f"o{n}", f"{word} chair") for n, word in enumerate(["oak", "ash", "elm", "fir"])]
    return Recommender(Catalog(items), tiny.language_model(), encoder="none", **settings)


def test_at_most_two_variants_by_default_and_any_number_on_request() -> None:
    recommender = lamps(search="exact")
    answer = recommender.recommend("", 6)
    groups = [r.to_dict().get("group") for r in answer]
    assert Counter(groups) == {"desk lamp": 2, None: 4}
    for none in (None, 0):
        plain = recommender.recommend("", 16, per_group=none)
        assert len(plain) == 16
        assert "chosen_from" not in plain.details
    assert Counter(r.group for r in plain) == {"desk lamp": 12, None: 4}
    many = recommender.recommend_many(["", "oak chair", "ash chair"], 4, per_group=1)
    assert all(Counter(r.group for r in a)["desk lamp"] <= 1 for a in many)
    assert [len(a) for a in many] == [4, 4, 4]
    short = recommender.recommend("", 8)
    assert (len(short), short.details["chosen_from"]) == (6, 16)
    assert any("per_group" in note for note in short.notes)


def test_a_longer_list_is_searched_only_if_the_first_one_exceeds_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recommender = lamps(search="exact")
    sizes: list[list[int]] = []
    search = recommender._search._search

    def counted(reading: Any, requests: Any, lengths: list[int], options: Any) -> Any:
        sizes.append(list(lengths))
        return search(reading, requests, lengths, options)

    monkeypatch.setattr(recommender._search, "_search", counted)
    chairs = recommender.recommend("", 3, allow=["o0", "o1", "o2", "l3", "l4"])
    assert sizes == [[3]]
    assert "chosen_from" not in chairs.details
    sizes.clear()
    recommender.recommend("", 3, allow=["l0", "l1", "l2", "l3", "o0"])
    assert sizes in ([[3]], [[3], [5]])
    sizes.clear()
    recommender.recommend("", 3, allow=["l0", "l1", "l2", "l3"])
    assert sizes == [[3], [4]]


@pytest.mark.parametrize(
    "pin", [["l7"], ["o1"], ["l7", "l2", "l3"], ["o0", "l1", "o1", "l2", "l4"]]
)
def test_pinned_items_count_towards_the_limit(pin: list[str]) -> None:
    recommender = lamps(search="exact")
    answer = recommender.recommend("", 5, pin=pin)
    taken = Counter(i[0] for i in pin)
    wanted = list(pin)
    for r in recommender.score(""):
        if r.item_id not in pin and (r.item_id[0] == "o" or taken["l"] < 2):
            wanted.append(r.item_id)
            taken[r.item_id[0]] += 1
    assert [r.item_id for r in answer] == wanted[:5]


def test_an_edit_changes_the_groups() -> None:
    recommender = lamps(search="exact")
    assert recommender.recommend("", 16, per_group=None)[0].group in {None, "desk lamp"}
    recommender.retitle_items({"o0": "elm chair (2 pack)"})
    groups = {r.item_id: r.group for r in recommender.recommend("", 16, per_group=None)}
    assert groups["o0"] == groups["o2"] == "elm chair"
    assert groups["o1"] is None


def test_explain_says_that_a_limit_leaves_an_item_out() -> None:
    recommender = lamps(search="exact")
    ranked = [r.item_id for r in recommender.score("")]
    third = [i for i in ranked if i.startswith("l")][2]
    k = ranked.index(third) + 1
    item = recommender.explain("", third, k)
    assert (item.rank, item.listed, item.recommended) == (k, False, False)
    assert any("'desk lamp'" in note and "--per-group" in note for note in item.notes)
    free = recommender.explain("", third, k, per_group=None)
    assert free.recommended
    assert free.notes == ()


def test_scores_know_no_limit() -> None:
    recommender = lamps()
    assert len(recommender.rank("")) == len(recommender.score("")) == 16
    assert Counter(r.group for r in recommender.score(""))["desk lamp"] == 12
    with pytest.raises(RequestError, match="per_group"):
        recommender.rank("", per_group=2)


def test_texts_that_name_variants_count_towards_the_limit() -> None:
    items = [
        Item(f"i{n}", t) for n, t in enumerate(["desk lamp red", "desk lamp blue", "oak chair"])
    ]
    texts = ["desk lamp red", "desk lamp blue", "desk lamp red", "oak chair"]
    model = Scripted(lambda prompt: texts)
    recommender = Recommender(Catalog(items), model, decoder="match", encoder="none", n_samples=4)
    answer = recommender.recommend("", 3, per_group=1)
    assert [r.item_id for r in answer] == ["i0", "i2"]
    assert answer[0].to_dict()["group"] == "desk lamp"


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2", float("nan")])
def test_limits_that_are_not_whole_numbers_are_rejected(wrong: Any) -> None:
    with pytest.raises(RequestError, match="per_group="):
        lamps().recommend("", 2, per_group=wrong)
    assert len(lamps().recommend("", 2, per_group=np.int64(1))) == 2
