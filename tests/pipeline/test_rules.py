"""Business rules change the order of a list as a plain calculation over all items does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support import tiny
from support.titles import kinds, titles

from genrec import Catalog, Item, Recommendation, RecommendationList, Recommender
from genrec.config import QueryOptions
from genrec.data.groups import find_groups
from genrec.decoding.types import FILL
from genrec.errors import RequestError, SettingsError
from genrec.priors.weights import Weights

BRANDS = ["a", "b", "c"]
BOOSTS: dict[str, Callable[[Item], bool]] = {
    "brand == 'a'": lambda item: bool(item.attributes["brand"] == "a"),
    "price < 10": lambda item: bool(item.attributes["price"] < 10),
    "item_id in ('i0', 'i3')": lambda item: item.item_id in {"i0", "i3"},
}
NEAR = 4e-4  # scores closer than this may be in any order


class Fixed:
    """A prior with the same weights for every history."""

    def __init__(self, n: int) -> None:
        self.values = np.random.default_rng(n).uniform(0.01, 1.0, n)

    def weights(self, history: Any) -> Weights:
        return Weights(self.values)


VARIANTS = ["desk lamp red", "desk lamp blue", "desk lamp 2", "desk lamp"]  # one product


@st.composite
def shops(draw: st.DrawFn) -> Recommender:
    names = [*draw(st.sampled_from([VARIANTS, []])), *draw(st.lists(titles, max_size=21))] or [
        "mug"
    ]
    items = [
        Item(
            f"i{n}",
            title,
            {"brand": draw(st.sampled_from(BRANDS)), "price": draw(st.integers(1, 20))},
        )
        for n, title in enumerate(names)
    ]
    normalization = draw(st.sampled_from(["catalog", "vocab"]))
    fusion = draw(st.sampled_from(["none", "score", "node"]))
    recommender = Recommender(
        Catalog(items),
        tiny.language_model(draw(kinds)),
        encoder="none",
        normalization=normalization,
        search=draw(st.sampled_from(["auto", "exact", "beam"])),
        beam_size=draw(st.sampled_from([None, 3, 30])),
        prior_weight=draw(st.sampled_from([0.3, 2.0])),
        fusion="score" if normalization == "vocab" else fusion.replace("none", "auto"),
    )
    if fusion != "none":
        recommender.prior = Fixed(len(items))
    return recommender


def factor(item: Item, boosts: Mapping[str, float]) -> float:
    return math.prod(f for condition, f in boosts.items() if BOOSTS[condition](item))


def boosted_scores(
    recommender: Recommender, plain: RecommendationList, boosts: Mapping[str, float]
) -> dict[str, float]:
    """Return the score of each item times its factor, from a list of all items without boosts."""
    catalog = recommender.catalog
    return {
        r.item_id: r.score + math.log(factor(catalog[catalog.row(r.item_id)], boosts))
        for r in plain
    }


def is_best(found: list[Recommendation], scores: Mapping[str, float], exact: bool) -> None:
    """Check that a list has the right scores, and the best ones if it is said to be exact."""
    got = [r.score for r in found]
    assert got == pytest.approx([scores[r.item_id] for r in found], abs=NEAR)
    assert len({r.item_id for r in found}) == len(found)
    assert all(a >= b for a, b in pairwise(got))
    if exact:
        assert got == pytest.approx(sorted(scores.values(), reverse=True)[: len(got)], abs=NEAR)


@given(
    shops(),
    st.integers(1, 12),
    st.dictionaries(st.sampled_from([*BOOSTS]), st.sampled_from([0.01, 0.5, 1, 1.2, 3.0, 1e4])),
    st.sampled_from(["", "i0", "i0; i1"]),
    st.booleans(),
)
def test_boosted_lists_equal_brute_force(
    recommender: Recommender, k: int, boosts: dict[str, float], history: str, filtered: bool
) -> None:
    known = [i for i in history.split("; ") if i in recommender.catalog]
    scores = boosted_scores(recommender, recommender.score(known), boosts)
    for item in recommender.catalog:
        if item.item_id in known or (filtered and item.attributes["price"] > 15):
            del scores[item.item_id]
    where = "price <= 15" if filtered else None
    if not scores:
        with pytest.raises(RequestError, match="No item may be returned"):
            recommender.recommend(known, k, boosts=boosts, where=where, allow_same_title=True)
        return
    answer = recommender.recommend(
        known, k, boosts=boosts, where=where, per_group=None, allow_same_title=True
    )
    assert len(answer) == min(k, len(scores))
    exact = answer.details["certificate"]["exact"]
    is_best(list(answer), scores, exact)
    assert exact or recommender.settings.search != "exact"
    for r in answer:
        item = recommender.catalog[recommender.catalog.row(r.item_id)]
        expected = pytest.approx(factor(item, boosts)) if boosts else None
        assert r.boost == expected
    everything = recommender.score(known, boosts=boosts)
    is_best(
        list(everything), boosted_scores(recommender, recommender.score(known), boosts), exact=True
    )


@given(
    shops(),
    st.integers(1, 12),
    st.dictionaries(st.sampled_from([*BOOSTS]), st.sampled_from([0.01, 1.2, 1e4]), max_size=2),
    st.lists(st.integers(0, 24), max_size=4),
    st.none() | st.integers(1, 3),
    st.sampled_from([1, 2, None]),
    st.booleans(),
)
def test_pinned_capped_grouped_filtered_and_boosted_lists_equal_brute_force(
    recommender: Recommender,
    k: int,
    boosts: dict[str, float],
    pinned: list[int],
    cap: int | None,
    per_group: int | None,
    filtered: bool,
) -> None:
    catalog = recommender.catalog
    groups = find_groups(catalog).values(np.arange(len(catalog)))
    recommender = recommender.with_settings(search="exact", exclude_seen=True)
    pin = [f"i{n % len(catalog)}" for n in pinned]
    deny = [catalog[len(catalog) // 2].item_id]
    scores = boosted_scores(recommender, recommender.score(["i0"]), boosts)
    allowed = [
        item
        for item in catalog
        if item.item_id not in {"i0", *deny} and not (filtered and item.attributes["price"] > 15)
    ]
    levels = sorted(scores.values())
    assume(all(b - a < 1e-12 or b - a > NEAR for a, b in pairwise(levels)))
    wishes: dict[str, Any] = {
        "where": "price <= 15" if filtered else None, "boosts": boosts, "pin": pin, "deny": deny,
        "caps": {"brand": cap} if cap else {}, "per_group": per_group, "allow_same_title": True,
    }  # fmt: skip
    if not allowed:
        with pytest.raises(RequestError, match="No item may be returned"):
            recommender.recommend(["i0"], k, **wishes)
        return
    by_id = {item.item_id: item for item in allowed}
    expected = [i for i in dict.fromkeys(pin) if i in by_id][:k]
    first = len(expected)
    for item_id in sorted(by_id, key=lambda i: (-round(scores[i], 9), catalog.row(i))):
        brands = [by_id[i].attributes["brand"] for i in expected]
        room = cap is None or brands.count(by_id[item_id].attributes["brand"]) < cap
        group, taken = (groups[catalog.row(item_id)], [groups[catalog.row(i)] for i in expected])
        room &= per_group is None or group is None or taken.count(group) < per_group
        if room and item_id not in expected and len(expected) < k:
            expected.append(item_id)
    answer = recommender.recommend(["i0"], k, **wishes)
    assert [r.item_id for r in answer] == expected
    assert [r.pinned for r in answer] == [n < first for n in range(len(expected))]
    assert [r.score for r in answer] == pytest.approx([scores[i] for i in expected], abs=NEAR)
    assert answer.details["certificate"]["exact"]
    left_out = [note for note in answer.notes if note.startswith("The pinned item")]
    assert len(left_out) == len(set(pin)) - first


def shop(n: int = 300, **settings: Any) -> Recommender:
    rng = np.random.default_rng(3)
    words = ["red", "blue", "mug", "doll", "set", "house", "1", "12"]
    items = [
        Item(
            f"i{i}",
            " ".join(rng.choice(words, size=rng.integers(1, 6))),
            {"brand": str(rng.choice(BRANDS)), "price": int(rng.integers(1, 40))},
        )
        for i in range(n)
    ]
    return Recommender(Catalog(items), tiny.language_model(), encoder="none", **settings)


@pytest.mark.parametrize("value", [0.001, 1.5, 1e6])
def test_probabilities_stay_and_few_prefixes_are_read(value: float) -> None:
    recommender = shop(search="exact")
    chances = {r.item_id: r.probability for r in recommender.score("i1")}
    plain = recommender.recommend("i1", 5, per_group=None)
    answer = recommender.recommend("i1", 5, boosts={"brand == 'a'": value}, per_group=None)
    assert [r.probability for r in answer] == pytest.approx(
        [chances[r.item_id] for r in answer], rel=1e-3
    )
    same = recommender.recommend("i1", 5, boosts={"price > 0": value}, per_group=None)
    assert [r.item_id for r in same] == [r.item_id for r in plain]
    assert [r.score for r in same] == pytest.approx([r.score + math.log(value) for r in plain])
    whole = recommender.score("i1").details["certificate"]["tokens"]
    assert answer.details["certificate"]["tokens"] < whole / 2


def test_a_factor_on_one_item_adds_little_work() -> None:
    """The bound of a prefix has the highest factor below it, and not that of the whole catalog."""
    recommender = shop(search="exact")
    plain = recommender.recommend("i1", 5, per_group=None).details["certificate"]
    worst = recommender.score("i1")[-1].item_id
    one = {f"item_id == '{worst}'": 1e9}
    answer = recommender.recommend("i1", 5, boosts=one, per_group=None)
    assert answer[0].item_id == worst
    assert answer.details["certificate"]["exact"]
    assert answer.details["certificate"]["tokens"] <= plain["tokens"] + FILL
    assert recommender.score("i1").details["certificate"]["tokens"] > plain["tokens"]


def test_boosts_change_batches_edited_catalogs_and_explanations() -> None:
    recommender = shop(40, search="exact")
    boosts = {"brand == 'a'": 5.0}
    recommender.remove_items(["i0", "i7"])
    recommender.add_items([Item("new", "red mug again", {"brand": "a", "price": 3})])
    histories = ["", "i3", "i4; i5"]
    for answer, history in zip(
        recommender.recommend_many(histories, 6, boosts=boosts), histories, strict=True
    ):
        scores = boosted_scores_by_brand(recommender, history)
        known = set(history.split("; "))
        is_best(list(answer), {i: s for i, s in scores.items() if i not in known}, exact=True)
    scores = boosted_scores_by_brand(recommender, "i3")
    del scores["i3"]
    order = sorted(scores, key=lambda i: -scores[i])
    explained = recommender.explain("i3", order[4], 6, boosts=boosts)
    assert explained.rank == 5
    assert explained.score == pytest.approx(scores[order[4]], abs=NEAR)
    assert [one[1] for one in explained.instead] == order[: len(explained.instead)]


def boosted_scores_by_brand(recommender: Recommender, history: str) -> dict[str, float]:
    catalog = recommender.catalog
    return {
        r.item_id: r.score
        + math.log(5.0) * (catalog[catalog.row(r.item_id)].attributes["brand"] == "a")
        for r in recommender.score(history)
    }


def test_a_note_says_why_a_pinned_item_is_left_out() -> None:
    recommender = shop(20)
    recommender.remove_items(["i9"])
    answer = recommender.recommend(
        "i1", 2, pin=["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i9"], deny=["i2"],
        allow=[f"i{n}" for n in range(20) if n not in {3, 9}], where="item_id != 'i4'",
    )  # fmt: skip
    assert [r.item_id for r in answer] == ["i5", "i6"]
    assert [n for n in answer.notes if "pinned" in n] == [
        "The pinned item 'i1' was left out, because the rules on items in the user's history exclude it.",
        "The pinned item 'i2' was left out, because it is also excluded (`deny`, `--exclude`).",
        "The pinned item 'i3' was left out, because it is not among the items to choose from (`allow`).",
        "The pinned item 'i4' was left out, because it does not satisfy the condition \"item_id != 'i4'\".",
        "The pinned item 'i7' was left out, because the list has only 2 places.",
        "The pinned item 'i9' was left out, because it was removed from the catalog.",
    ]
    assert answer.details["certificate"]["exact"]
    assert answer.details["certificate"]["certain_ranks"] == 2
    assert answer.to_dict()["recommendations"][0]["pinned"] is True


def test_pins_in_batches_draws_and_lists_of_dissimilar_titles() -> None:
    recommender = shop(60, search="exact")
    histories = ["i3", "", "i4; i5", "i8"]
    wishes: dict[str, Any] = {"pin": ["i4", "i8"], "min_probability": 1e-3}
    many = recommender.recommend_many(histories, 5, **wishes)
    for answer, history in zip(many, histories, strict=True):
        alone = recommender.recommend(history, 5, **wishes)
        assert [r.item_id for r in answer] == [r.item_id for r in alone]
        pins = [i for i in ("i4", "i8") if i not in history.split("; ")]
        assert [r.item_id for r in answer if r.pinned] == pins
        plain = recommender.recommend(history, 5, deny=["i4", "i8"], min_probability=1e-3)
        assert [r.item_id for r in answer][len(pins) :] == [
            r.item_id for r in plain[: 5 - len(pins)]
        ]
    twin = next(
        (one.item_id, two.item_id)
        for one in recommender.catalog
        for two in recommender.catalog
        if one.title == two.title and one.item_id < two.item_id
    )
    mixed = recommender.recommend("", 30, pin=twin[:1], diversity=1.0)
    assert mixed[0].item_id == twin[0]
    assert twin[1] not in {r.item_id for r in mixed[:20]}
    drawn = recommender.with_settings(search="sample").recommend("", 5, pin=["i4", "i8"])
    assert [r.item_id for r in drawn][:2] == ["i4", "i8"]
    assert len({r.item_id for r in drawn}) == 5


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("recommend", {"pin": "i1"}, "pin='i1' is a single string"),
        ("recommend", {"pin": ["nothing"]}, "Item 'nothing' is not in the catalog"),
        ("rank", {"pin": ["i1"]}, "diversity and pin do not apply"),
        ("score", {"pin": ["i1"]}, "diversity and pin do not apply"),
    ],
)
def test_pins_that_cannot_be_placed(method: str, options: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        getattr(shop(3), method)("", **options)


def test_pins_need_the_decoder_trie_and_do_not_change_a_rank() -> None:
    with pytest.raises(RequestError, match="pin does not work with decoder='match'"):
        shop(3, decoder="match", n_samples=2).recommend("", 2, pin=["i1"])
    with pytest.raises(RequestError, match="so pin does not apply"):
        shop(3).explain("", "i1", pin=["i1"])


@pytest.mark.parametrize(
    ("boosts", "message"),
    [
        ("brand", "boosts='brand' is not valid. Expected a mapping"),
        ({"brand == 'a'": 0}, "has the factor 0. Expected a positive number"),
        ({"brand == 'a'": -1.0}, "has the factor -1.0"),
        ({"brand == 'a'": math.inf}, "has the factor inf"),
        ({"brand == 'a'": math.nan}, "has the factor nan"),
        ({"brand == 'a'": True}, "has the factor True"),
        ({"brand == 'a'": "2"}, "has the factor '2'"),
        ({"brnd == 'a'": 2}, "names the column 'brnd'"),
        ({"brand ==": 2}, "condition"),
        ({5: 2}, "condition"),
    ],
)
def test_invalid_boosts_are_refused(boosts: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        shop(3).recommend("", 2, boosts=boosts)


def test_boosts_need_a_search_that_ranks() -> None:
    assert QueryOptions.of(QueryOptions(boosts={"price < 3": 2}), boosts=None).boosts == {}
    for settings in ({"search": "sample"}, {"decoder": "match", "n_samples": 2}):
        with pytest.raises(RequestError, match="boosts do not work with"):
            shop(3, **settings).recommend("", 2, boosts={"price < 3": 2})


def test_factors_on_the_command_line() -> None:
    from genrec.cli.values import read_factors

    assert read_factors(['a == "x: y": 2', "b < 3:.5"], "") == {'a == "x: y"': "2", "b < 3": ".5"}
    for bad in ("price < 3", "price < 3:", ": 2"):
        with pytest.raises(
            SettingsError, match=r"is not a condition with a factor\. Expected PAIR"
        ):
            read_factors([bad], "PAIR")
    with pytest.raises(SettingsError, match="with the factors 2 and 3"):
        read_factors(["a < 1: 2", "a < 1: 3"], "")
