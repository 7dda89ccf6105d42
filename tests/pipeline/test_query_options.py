"""What a request may ask for beside its history: filters, caps, diversity, least probabilities."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.titles import kinds

from genrec import Catalog, Item, Recommender
from genrec.config import QueryOptions
from genrec.errors import RequestError

WORDS = ["red", "blue", "mug", "doll", "set", "house", "1", "12"]


def shop(kind: str = "llama", n: int = 60, **settings: Any) -> Recommender:
    rng = np.random.default_rng(2)
    items = [
        Item(
            f"i{i}",
            " ".join(rng.choice(WORDS, size=3)),
            {"price": int(rng.integers(1, 40)), "brand": str(rng.choice(["a", "b", "c"]))},
        )
        for i in range(n)
    ]
    return Recommender(Catalog(items), tiny.language_model(kind), encoder="none", **settings)


@given(kinds, st.integers(1, 70), st.data(), st.sampled_from(["auto", "exact", "beam"]))
def test_filtering_commutes_with_ranking(kind: str, k: int, data: st.DataObject, how: str) -> None:
    recommender = shop(kind, search=how, beam_size=80)
    ids = [i.item_id for i in recommender.catalog]
    history = data.draw(st.sampled_from(["", "i3", "i3; i9; i20"]))
    allow = data.draw(st.none() | st.lists(st.sampled_from(ids), min_size=1, max_size=60))
    deny = data.draw(st.lists(st.sampled_from(ids), max_size=30))
    price = data.draw(st.none() | st.integers(5, 45))
    where = None if price is None else f'price < {price} and brand in ("a", "b")'
    ranked = recommender.score(history)
    seen = {u.item_id for u in recommender.understand(history)[1]}
    wanted = [
        r
        for r in ranked
        if r.item_id not in seen
        and (allow is None or r.item_id in allow)
        and r.item_id not in deny
        and (price is None or fits(recommender, r.item_id, price))
    ]
    if not wanted:
        with pytest.raises(RequestError, match="No item may be returned"):
            recommender.recommend(history, k, allow=allow, deny=deny, where=where)
        return
    answer = recommender.recommend(history, k, allow=allow, deny=deny, where=where, per_group=None)
    assert len(answer) == min(k, len(wanted))
    assert {r.item_id for r in answer} <= {r.item_id for r in wanted}
    by_id = {r.item_id: r.logprob for r in wanted}
    assert [r.logprob for r in answer] == pytest.approx(
        [by_id[r.item_id] for r in answer], abs=1e-4
    )
    if answer.details["certificate"]["exact"]:
        best = [r.logprob for r in wanted[:k]]
        assert [r.logprob for r in answer] == pytest.approx(best, abs=4e-4)
    else:
        assert how == "auto"


def fits(recommender: Recommender, item_id: str, price: int) -> bool:
    found = recommender.catalog[recommender.catalog.row(item_id)].attributes
    return bool(found["price"] < price and found["brand"] in {"a", "b"})


def test_a_batch_has_the_wishes_of_single_requests() -> None:
    recommender = shop()
    wishes: dict[str, Any] = {"where": "price > 10", "deny": ["i1"], "caps": {"brand": 2}}
    histories = ["i3", "", "i4; i5; i6; i7"]
    many = recommender.recommend_many(histories, 5, batch_size=2, **wishes)
    for answer, history in zip(many, histories, strict=True):
        alone = recommender.recommend(history, 5, **wishes)
        assert [r.item_id for r in answer] == [r.item_id for r in alone]
    with pytest.raises(RequestError, match="is not an option"):
        recommender.recommend_many([""], colour="red")
    for bad in (None, 5, "i3"):
        with pytest.raises(RequestError, match="histories is a single"):
            recommender.recommend_many(bad)  # type: ignore[arg-type]
    assert len(recommender.recommend_many([""], 3, caps=None)[0]) == 3
    with pytest.raises(RequestError, match="candidates=5"):
        recommender.score("", 5)  # type: ignore[arg-type]


def test_threads_may_ask_under_many_conditions() -> None:
    """What is kept between requests is thrown away while others look for it."""
    recommender = shop(n=5)

    class Emptied(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            return True  # as where another thread empties it right after the look

    recommender._index._made["conditions"] = Emptied()
    recommender._search._prefixes = Emptied()
    assert len(recommender.recommend("", 2, where="price > 1")) == 2
    assert len(recommender.recommend_many(["", "i3"], 2)) == 2


def test_a_batch_some_of_which_needs_a_longer_list() -> None:
    items = [
        Item(f"i{n}", f"{c} {t}", {"brand": "a" if n % 8 else str(n)})
        for n, (c, t) in enumerate((c, t) for c in range(20) for t in range(20))
    ]
    recommender = Recommender(Catalog(items), tiny.language_model(), encoder="none", search="exact")
    histories = ["", *(f"i{n}; i{n + 1}" * n for n in range(0, 300, 70))]
    many = recommender.recommend_many(histories, 30, batch_size=8, caps={"brand": 1})
    for answer, history in zip(many, histories, strict=True):
        values = {r.item_id: r.logprob for r in recommender.score(history)}
        assert len(answer) == 30
        assert [r.logprob for r in answer] == pytest.approx(
            [values[r.item_id] for r in answer], abs=2e-4
        )


def test_caps_hold_and_fill_the_list_from_further_down() -> None:
    recommender = shop(n=400, search="exact")
    answer = recommender.recommend("", 6, caps={"brand": 2}, per_group=None)
    brands = Counter(
        recommender.catalog[recommender.catalog.row(r.item_id)].attributes["brand"] for r in answer
    )
    assert brands == {"a": 2, "b": 2, "c": 2}
    assert answer.details["chosen_from"] >= 24
    assert "chosen_from" not in recommender.recommend("", 6, per_group=None).details
    assert len(recommender.recommend("", 10, caps={"brand": 3}, per_group=None)) == 9
    one = recommender.recommend("", 50, per_title=1, per_group=None)
    names = [r.title for r in one]
    assert len(set(names)) == len(names)
    firsts = dict.fromkeys(r.title for r in recommender.score(""))
    assert names == list(firsts)[: len(names)]


def test_diversity_trades_score_for_unlike_titles() -> None:
    recommender = shop(n=200, search="exact")
    plain = recommender.recommend("", 8)
    same = recommender.recommend("", 8, diversity=0.0)
    assert [r.item_id for r in same] == [r.item_id for r in plain]
    mixed = recommender.recommend("", 8, diversity=0.7)

    def likeness(answer: Any) -> float:
        rows = np.array(recommender.catalog.rows([r.item_id for r in answer]))
        vectors = recommender.title_vectors(rows)
        return float((vectors @ vectors.T)[np.triu_indices(len(rows), 1)].mean())

    assert mixed[0].item_id == plain[0].item_id
    assert likeness(mixed) < likeness(plain)


def test_a_least_probability_ends_the_list() -> None:
    recommender = shop(search="exact")
    everything = recommender.score("")
    bar = everything[4].probability * 0.999
    answer = recommender.recommend("", 30, min_probability=bar)
    wanted = [r.item_id for r in everything if r.probability >= bar]
    assert [r.item_id for r in answer] == wanted
    assert answer.details["certificate"]["exact"]
    assert len(recommender.recommend("", 5, min_probability=1.0)) == 0


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"k": None}, "k=None"),
        ({"where": "price <"}, "price <"),
        ({"where": "colour == 1"}, "colour"),
        ({"where": "__import__('os')"}, "Expected"),
        ({"allow": ["nobody"]}, "nobody"),
        ({"allow": []}, "No item may be returned"),
        ({"allow": "i1"}, "single string"),
        ({"deny": ["nobody"]}, "nobody"),
        ({"allow": 5}, "allow=5 is of type int"),
        ({"allow": [["i1"]]}, "not in the catalog"),
        ({"deny": 5}, "deny=5 is of type int"),
        ({"caps": "brand"}, "caps='brand'"),
        ({"caps": 5}, "caps=5"),
        ({"caps": {"colour": 2}}, "no column 'colour'"),
        ({"caps": {"brand": 0}}, "brand=0"),
        ({"per_title": 0}, "per_title=0"),
        ({"diversity": 1.5}, "diversity=1.5"),
        ({"min_probability": -0.1}, "min_probability=-0.1"),
        ({"min_probability": float("nan")}, "min_probability=nan"),
    ],
)
def test_wishes_that_cannot_be_met_are_said(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message.replace("(", r"\(")):
        shop(n=10).recommend("", **wish)


def test_options_given_whole_and_keywords_on_top() -> None:
    recommender = shop(n=8)
    options = QueryOptions(k=3, deny=("i1", "i2"))
    whole = recommender.recommend("", options=options)
    assert len(whole) == 3
    assert whole.recommendations == recommender.recommend("", 3, deny=["i1", "i2"]).recommendations
    assert len(recommender.recommend("", 2, options=options)) == 2
    assert len(recommender.recommend_many(["", "i3"], options=options)[1]) == 3
    assert {"i1", "i2"} <= {
        r.item_id for r in recommender.recommend("", 8, options=options, deny=())
    }


def test_a_short_list_says_so_and_options_have_a_type() -> None:
    recommender = shop(n=5)
    short = recommender.recommend("", 4, min_probability=0.9)
    assert len(short) < 4
    assert any(f"{len(short)} of 4 items" in note for note in short.notes)
    assert not any("items:" in note for note in recommender.recommend("", 9).notes)
    assert not any("items:" in note for note in recommender.recommend("", 5).notes)
    with pytest.raises(RequestError, match="options is of type dict"):
        recommender.recommend("", options={"k": 2})  # type: ignore[arg-type]
    wrong: Any
    for wrong in (b"i1", {"i1": 2}):
        with pytest.raises(RequestError, match="is not a history"):
            recommender.recommend(wrong)
