"""The stated probability of a drawn item is the probability with which it is drawn."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import served
from support.amount import FULL

from genrec import Recommender
from genrec.errors import RequestError
from genrec.pipeline.propensities import numbered, place_probabilities

ROLES: list[dict[str, Any]] = [
    {"model_role": "explain"},
    {"model_role": "fuse", "fusion": "node", "prior": "collaborative", "prior_weight": 0.5},
    {"prior": "none", "node_temperature": 3.0},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"deny": ["i0", "i4"], "per_group": 1},
    {"where": "price > 8", "k": 3},
    {"per_title": 1, "caps": {"shelf": 1}},
    {"pin": ["i2"], "per_group": 1},
    {"min_probability": 0.02},
]


def shop() -> Any:
    """A shop whose items stand on four shelves; two items have the same title."""
    data = served.made_shop()
    changed = [
        type(item)(item.item_id, "red mug" if n == 3 else item.title,
                   {**item.attributes, "shelf": n % 4 or None})
        for n, item in enumerate(data.catalog)
    ]  # fmt: skip
    return data, changed


def recommender(**settings: Any) -> Recommender:
    data, items = shop()
    made = served.recommender(data, search="sample", **settings)
    made.put_items(items)
    return made


def drawn_chance(
    chance: Sequence[float], allowed: Sequence[bool], caps: Sequence[tuple[Sequence[int], int]],
    first: Sequence[int], wanted: Sequence[int],
) -> float:  # fmt: skip
    """Add the probabilities of all orders of all items in which exactly these are listed first."""
    found = 0.0
    for order in itertools.permutations(range(len(chance))):
        probability, left = 1.0, 1.0
        for item in order:
            probability *= chance[item] / left if left > 1e-12 else 1.0
            left -= chance[item]
        listed = [*first]
        for item in order:
            room = all(
                values[item] < 0 or sum(values[i] == values[item] for i in listed) < most
                for values, most in caps
            )
            if allowed[item] and item not in first and room:
                listed.append(item)
        if listed[len(first) : len(first) + len(wanted)] == [*wanted]:
            found += probability
    return found


@given(st.data())
def test_it_is_the_sum_over_all_orders_that_lead_to_the_list(data: st.DataObject) -> None:
    n = data.draw(st.integers(3, 5))
    weights = np.array(data.draw(st.lists(st.floats(0.05, 1.0), min_size=n, max_size=n)))
    chance = weights / weights.sum()
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    values = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n)))
    most = data.draw(st.integers(1, 2))
    first = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=1)), dtype=np.int64)
    order = data.draw(st.permutations(range(n)))
    wanted = np.array(order[: data.draw(st.integers(1, 2))])
    found = place_probabilities(
        wanted, allowed, lambda i: chance[i], caps=[(values, most)], first=first
    )
    expected = drawn_chance(
        chance.tolist(),
        allowed.tolist(),
        [(values.tolist(), most)],
        first.tolist(),
        wanted.tolist(),
    )
    assert float(np.prod(found)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("settings", ROLES)
def test_the_probabilities_of_a_place_sum_to_one(settings: dict[str, Any]) -> None:
    drawing = recommender(**settings)
    history = drawing.dataset.interactions.history("u1")  # type: ignore[union-attr]
    for options in OPTIONS:
        kept = {n: v for n, v in options.items() if n not in {"pin", "k"}}
        one = drawing.recommend(history, 1, **kept)[0].item_id
        firsts = [drawing.propensities(history, [i.item_id], **kept)[0] for i in drawing.catalog]
        assert sum(firsts) == pytest.approx(1.0, abs=1e-4)
        others = [i.item_id for i in drawing.catalog if i.item_id != one]
        seconds = [drawing.propensities(history, [one, i], **kept)[1] for i in others]
        assert sum(seconds) == pytest.approx(1.0, abs=1e-4)
        assert min(*firsts, *seconds) >= 0


@pytest.mark.parametrize("settings", ROLES)
def test_a_drawn_list_states_its_propensities(settings: dict[str, Any]) -> None:
    drawing = recommender(**settings)
    histories = ["bought: red doll", "", "bought: glass vase; viewed: tea towel"]
    for options in OPTIONS:
        wanted = {"k": 4, **options}
        together = drawing.recommend_many(histories, batch_size=3, seeds=[5, 6, 7], **wanted)
        pinned = len(options.get("pin", ()))
        for history, answer, seed in zip(histories, together, (5, 6, 7), strict=True):
            (alone,) = drawing.recommend_many([history], seeds=[seed], **wanted)
            stated = [r.propensity for r in answer]
            assert [r.item_id for r in alone] == [r.item_id for r in answer]
            assert stated == pytest.approx([r.propensity for r in alone], abs=1e-4)
            assert stated[:pinned] == [1.0] * pinned
            if not pinned:
                given = {n: v for n, v in options.items() if n != "k"}
                items = [r.item_id for r in answer]
                again = drawing.propensities(history, items, **given)
                assert stated == pytest.approx(again, abs=1e-4)
            assert "propensity" in answer[0].to_dict()


@pytest.mark.parametrize("settings", ROLES[:2])
def test_items_are_drawn_as_often_as_stated(settings: dict[str, Any]) -> None:
    drawing, n = recommender(**settings), 4000 if FULL else 200
    given: dict[str, Any] = {"deny": ["i0", "i5"], "per_group": 1}
    history = "bought: red doll"

    @functools.cache
    def chances(before: tuple[str, ...]) -> dict[str, float]:
        """The probability of each item at the place after some others."""
        items = [i.item_id for i in drawing.catalog if i.item_id not in before]
        return {i: drawing.propensities(history, [*before, i], **given)[-1] for i in items}

    lists = drawing.recommend_many([history] * n, 2, batch_size=64, seeds=range(n), **given)
    for place in (0, 1):
        counts = Counter(answer[place].item_id for answer in lists)
        expected: Counter[str] = Counter()
        for answer in lists:  # given the item before it, each item has its own probability
            before = [r.item_id for r in answer][:place]
            for item, chance in chances(tuple(before)).items():
                expected[item] += chance  # type: ignore[assignment]
        assert sum(expected.values()) == pytest.approx(n)
        distance = sum((counts[i] - e) ** 2 / e for i, e in expected.items() if e > 0)
        assert distance < 35  # chi-square with at most 9 degrees of freedom: p = 6e-5


def test_seeds_decide_the_draw() -> None:
    drawing = recommender(model_role="explain")
    same = drawing.recommend_many([""] * 30, 3, seeds=[9] * 30)
    assert len({tuple(r.item_id for r in answer) for answer in same}) == 1
    different = drawing.recommend_many([""] * 30, 3, seeds=range(30))
    assert len({tuple(r.item_id for r in answer) for answer in different}) > 10
    rails = [drawing.recommend_rails("bought: red doll", 2, seed=s)["new"] for s in range(20)]
    assert len({tuple(r.item_id for r in rail) for rail in rails}) > 5
    assert all(r.propensity is not None for rail in rails for r in rail)


def test_what_has_no_probability_says_so() -> None:
    drawing = recommender(model_role="explain")
    answer = drawing.recommend("", 3, diversity=0.5)
    assert [r.propensity for r in answer] == [None] * 3
    assert "no propensity, because diversity chooses" in answer.notes[-1]
    with pytest.raises(RequestError, match="diversity, boosts and half_life cannot"):
        drawing.propensities("", ["i1"], diversity=0.5)
    ranked = drawing.with_settings(search="exact").recommend("", 3)
    assert "propensity" not in ranked[0].to_dict()
    assert drawing.with_settings(search="exact").propensities("", ["i1"])[0] > 0


def test_missing_values_are_not_numbered() -> None:
    assert numbered([1, None, float("nan"), " ", 1, "a"]).tolist() == [0, -1, -1, -1, 0, 1]
