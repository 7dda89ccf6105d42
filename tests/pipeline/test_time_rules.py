"""Availability, age and stock change lists as a plain calculation over all items does."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.made_shop import made

from genrec import Catalog, Dataset, Interactions, Item, Recommender
from genrec.data import protocols
from genrec.errors import DataError, RequestError
from genrec.evaluation.systems import RecommenderSystem

START = dt.datetime(2025, 12, 1, tzinfo=dt.UTC)
NEAR = 4e-4


def day(number: float | None) -> str | None:
    """Return the ISO time of a day in December 2025, where 1.5 is the noon of the first day."""
    if number is None:
        return None
    return (START + dt.timedelta(days=number - 1)).isoformat()


def shop(columns: dict[str, list[Any]], n: int = 12, **settings: Any) -> Recommender:
    words = ["red", "blue", "mug", "doll", "set", "house"]
    rng = np.random.default_rng(7)
    items = [
        Item(
            f"i{i}",
            f"{' '.join(rng.choice(words, size=rng.integers(1, 5)))} {i}",
            {name: values[i % len(values)] for name, values in columns.items()},
        )
        for i in range(n)
    ]
    return Recommender(Catalog(items), tiny.language_model(), encoder="none", **settings)


def ids(answer: Any) -> list[str]:
    return [r.item_id for r in answer]


days = st.none() | st.integers(1, 20).map(float) | st.integers(1, 20).map(lambda n: n + 0.5)


@given(st.lists(days, min_size=1, max_size=12), st.lists(days, min_size=1, max_size=12), days)
def test_only_available_items_are_recommended(
    since: list[float | None], until: list[float | None], at: float | None
) -> None:
    recommender = shop(
        {"available_from": [day(n) for n in since], "available_until": [day(n) for n in until]},
        search="exact",
    )
    moment = 30.25 if at is None else at
    expected = []
    for r in recommender.score(""):
        number = int(r.item_id[1:])
        start, end = since[number % len(since)], until[number % len(until)]
        if end is not None and end % 1 == 0:
            end += 1
        if (start is None or start <= moment) and (end is None or moment < end):
            expected.append(r.item_id)
    if not expected:
        with pytest.raises(RequestError, match="because no item is available at 2025-12-"):
            recommender.recommend("", 5, at=day(moment))
        return
    assert ids(recommender.recommend("", 5, at=day(moment))) == expected[:5]
    assert ids(recommender.rank("", at=day(moment))) == expected
    assert len(recommender.recommend("", 12, at="any")) == 12
    assert len(recommender.score("", at=day(moment))) == 12


def test_the_default_is_now_and_forms_of_time() -> None:
    now = dt.datetime.now(dt.UTC)
    ends = [(now + dt.timedelta(hours=h)).isoformat() for h in (-1, 1)]
    recommender = shop({"available_until": ends})
    assert {int(r.item_id[1:]) % 2 for r in recommender.recommend("", 12)} == {1}
    later = now + dt.timedelta(hours=2)
    for at in (later, later.isoformat(), later.timestamp(), str(later.timestamp())):
        with pytest.raises(RequestError, match="because no item is available at"):
            recommender.recommend("", 12, at=at)
    with pytest.raises(RequestError, match="at='tomorrow' is not a time"):
        recommender.recommend("", 2, at="tomorrow")
    # Unreadable cells do not limit anything, and two readings of a date are an error.
    assert len(shop({"available_until": ["soon", ends[1]]}).recommend("", 12)) == 12
    with pytest.raises(RequestError, match="could be read in several ways"):
        shop({"available_until": ["03/04/2025"]}).recommend("", 12)


@given(
    st.lists(days, min_size=1, max_size=12).filter(any),
    st.sampled_from([0.01, 1.0, 7.0, 1e5]),
    st.integers(1, 12),
    st.sampled_from(["none", "score"]),
)
def test_scores_are_halved_with_every_half_life(
    published: list[float | None], half_life: float, k: int, fusion: str
) -> None:
    recommender = shop({"published": [day(n) for n in published], "made": [2001]}, search="exact")
    at = 10.25
    if fusion == "score":
        from genrec.priors.weights import Weights

        recommender = recommender.with_settings(fusion="score", prior_weight=0.7)
        weights = Weights(np.random.default_rng(1).uniform(0.1, 1, 12))

        class Fixed:
            def weights(self, history: Any) -> Weights:
                return weights

        recommender.prior = Fixed()
    by_item = [published[n % len(published)] for n in range(12)]
    ages = [None if p is None else max(at - p, 0.0) for p in by_item]
    middle = float(np.median([a for a in ages if a is not None]))
    factors = [-math.log(2) * (middle if a is None else a) / half_life for a in ages]
    scores = {r.item_id: r.score + factors[int(r.item_id[1:])] for r in recommender.score("")}
    answer = recommender.recommend("", k, half_life=half_life, at=day(at))
    assert [r.score for r in answer] == pytest.approx([scores[i] for i in ids(answer)], abs=NEAR)
    best = sorted(scores.values(), reverse=True)[:k]
    assert [r.score for r in answer] == pytest.approx(best, abs=NEAR)
    assert answer.details["certificate"]["exact"]
    for r in answer:
        assert r.boost == pytest.approx(math.exp(factors[int(r.item_id[1:])]))
    undated = sum(a is None for a in ages)
    assert sum("as old as the median item" in n for n in answer.notes) == (undated > 0)
    same = recommender.recommend("", k, half_life=half_life, at=day(at), age_column="made")
    assert ids(same) == ids(recommender.recommend("", k))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"half_life": 3}, "neither a column published nor a column available_from"),
        ({"x": ["soon"]}, {"half_life": 3, "age_column": "x"}, "contains no readable times"),
        ({"x": [1]}, {"half_life": 3, "age_column": "y"}, "no column 'y'"),
        ({}, {"half_life": 0}, "half_life=0 is not valid"),
        ({}, {"half_life": True}, "half_life=True is not valid"),
        ({}, {"half_life": math.inf}, "half_life=inf is not valid"),
        ({}, {"age_column": "x"}, "age_column has no effect without half_life"),
    ],
)
def test_ages_that_cannot_be_used(
    columns: dict[str, list[Any]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        shop(columns).recommend("", 3, **options)


def test_age_needs_a_search_that_ranks() -> None:
    recommender = shop({"published": ["2025-01-01"]}, search="sample")
    with pytest.raises(RequestError, match="half_life does not work with search='sample'"):
        recommender.recommend("", 2, half_life=3)


def test_stock_changes_between_requests(tmp_path: Path) -> None:
    path = tmp_path / "stock.csv"
    path.write_text("item_id,quantity\ni1,1\ni2,5\ni3,0\nx,1\n")
    recommender = shop({"price": [1, 2]})
    wishes: dict[str, Any] = {"stock": str(path)}
    first = recommender.recommend("", 5, pin=["i3", "i2"], **wishes)
    assert ids(first) == ["i2", "i1"]
    assert any("'i3' was left out, because it is out of stock." in n for n in first.notes)
    assert any("does not have: 'x'" in n for n in first.notes)
    path.write_text("item_id,quantity\ni3,2\n")
    assert ids(recommender.recommend("", 5, **wishes)) == ["i3"]
    path.write_text("broken")
    kept = recommender.recommend_many(["", "i1"], 5, **wishes)
    assert [ids(answer) for answer in kept] == [["i3"], ["i3"]]
    assert all(any("cannot be used now" in n for n in a.notes) for a in kept)
    path.write_text("item_id\nnew\ni4\n")
    recommender.add_items([Item("new", "a new mug")])
    recommender.remove_items(["i4"])
    assert ids(recommender.recommend("", 5, **wishes)) == ["new"]
    assert len(recommender.score("", **wishes)) == 12
    path.write_text("item_id,quantity\ni1,0\n")
    with pytest.raises(RequestError, match="because every item is out of stock"):
        recommender.recommend("", 5, **wishes)
    with pytest.raises(DataError, match=r"none\.csv cannot be used: no such file"):
        recommender.recommend("", 5, stock=str(tmp_path / "none.csv"))


@pytest.mark.parametrize("settings", [{}, {"normalization": "vocab"}])
def test_evaluation_asks_for_lists_at_no_time(settings: dict[str, Any]) -> None:
    """An item that is not sold any more may still be what the user bought next."""
    whole = made()
    column = {"available_until": "2020-01-01"}
    catalog = Catalog(replace(item, attributes=column) for item in whole.catalog)
    systems = [
        RecommenderSystem(Recommender(data, tiny.language_model(), encoder="none", **settings))
        for data in (
            Dataset(catalog, Interactions(catalog, whole.interactions.table), whole.info),
            whole,
        )
    ]
    for protocol in ("last-out", "candidates-20"):
        cases = protocols.cases(whole, protocol)[:3]
        gone, always = (system.answers(cases, 5) for system in systems)
        assert [a.items for a in gone] == [a.items for a in always]
        assert all(len(a.items) == 5 for a in gone)
