"""Similar items are those that brute force over all items finds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from support import tiny_runs
from support.commands import Run, run

import genrec
from genrec import Catalog, Dataset, Item, SimilarItems
from genrec.config import QueryOptions
from genrec.data.datasets import load
from genrec.data.groups import find_groups
from genrec.errors import RequestError, SettingsError
from genrec.priors.mixture_fit import DEFAULT_MIX
from genrec.text import normalized
from genrec.types import FloatArray

__all__ = ["run"]
TITLES = [
    "red mug", "red mug with dots", "Red Mug!", "blue bag", "blue bag large", "tin of cakes",
    "cake tin", "paper cups", "???", "doll",
]  # fmt: skip
N = len(TITLES)
SOURCES = "markov,itemknn,nearest"
POWERS = {"itemknn": 1, "nearest": 3}
users = st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=5), min_size=1, max_size=6)


def shop(events: Sequence[Sequence[int]]) -> Dataset:
    """A dataset in which each user buys the items with the given numbers, one after the other."""
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(N)],
            "title": TITLES,
            "brand": ["a", "a", "b", "b", None, "a", "b", "a", "a", "b"],
            "price": list(range(N)),
        }
    )
    rows = [
        (f"u{user}", f"i{row}", "buy", float(time), "train")
        for user, bought in enumerate(events)
        for time, row in enumerate(bought)
    ]
    names = ("user_id", "item_id", "behavior", "timestamp", "split")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return Dataset.from_tables(items, pa.table(columns), name="shop")


def by_prior(events: Sequence[Sequence[int]], item: int) -> FloatArray:
    """What goes with an item by its definition: shares of cosines and transitions."""
    having = [{u for u, bought in enumerate(events) if row in bought} for row in range(N)]
    total = np.zeros(N)
    for source in SOURCES.split(","):
        values = np.zeros(N)
        for other in range(N):
            if source == "markov":
                for bought in events:
                    for one, two in pairwise(bought):
                        values[other] += (one, two) == (item, other)
                        values[other] += 0.3 * ((two, one) == (item, other))
            elif other != item and having[item] and having[other]:
                both = len(having[item] & having[other])
                cosine = both / (len(having[item]) * len(having[other])) ** 0.5
                values[other] = cosine ** POWERS[source]
        if values.sum():
            total += DEFAULT_MIX[source] * values / values.sum()
    total[item] = 0.0
    return np.asarray(total / (total.sum() or 1.0))


def by_titles(item: int) -> FloatArray:
    """The cosines between an item's title and all titles as vectors of character n-grams."""
    plain = [normalized(title) for title in TITLES]
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, sublinear_tf=True
    )
    vectorizer.fit(list(dict.fromkeys(title for title in plain if title)))
    vectors = vectorizer.transform(plain).toarray()
    cosines = vectors @ vectors[item]
    cosines[item] = 0.0
    return np.asarray(cosines)


def scores_of(events: Sequence[Sequence[int]], items: Sequence[int], by: str) -> FloatArray:
    """The scores of all items, computed from the definition in ``SimilarList.score_is``."""
    counted = [by_prior(events, item) for item in items]
    cosines = [by_titles(item) for item in items]
    cubes = [[value**3 for value in values] for values in cosines]
    shares = [[value / (sum(each) or 1.0) for value in each] for each in cubes]
    known = [values for values in counted if values.any()]
    if by == "titles" or not known:
        return np.asarray(np.mean(cosines, axis=0))
    if by == "prior":
        return np.asarray(np.mean(known, axis=0))
    each = [
        (one + two) / 2 if one.any() else two
        for one, two in zip(counted, map(np.array, shares), strict=True)
    ]
    return np.asarray(np.mean(each, axis=0))


def finder(events: Sequence[Sequence[int]]) -> SimilarItems:
    return SimilarItems(shop(events), encoder="ngrams", prior_sources=SOURCES)


options = st.fixed_dictionaries(
    {},
    optional={
        "allow": st.lists(st.sampled_from([f"i{n}" for n in range(N)]), min_size=6),
        "deny": st.lists(st.sampled_from([f"i{n}" for n in range(N)]), max_size=3),
        "where": st.sampled_from(["price < 7", 'brand == "a"', "price > 2"]),
        "per_title": st.integers(1, 2),
        "per_group": st.integers(0, 2),
        "caps": st.fixed_dictionaries({"brand": st.integers(1, 2)}),
        "boosts": st.just({"price > 4": 1.7, 'brand == "b"': 0.4}),
    },
)


@settings(max_examples=25, deadline=None)
@given(
    users,
    st.lists(st.integers(0, N - 1), min_size=1, max_size=3, unique=True),
    st.sampled_from(["both", "prior", "titles"]),
    st.integers(1, N),
    options,
)
def test_lists_are_those_of_brute_force(
    events: list[list[int]], items: list[int], by: str, k: int, wanted: dict[str, Any]
) -> None:
    ids = [f"i{row}" for row in items]
    finds = finder(events)
    every = finds.find(ids, N, by=by, per_group=0).similar
    whole = {item.item_id: item.score for item in every}
    scores = [whole.get(f"i{row}", 0.0) for row in range(N)]
    others = [row for row in range(N) if row not in items]
    assert [scores[row] for row in others] == pytest.approx(
        [scores_of(events, items, by)[row] for row in others], abs=1e-5
    )
    brands = ["a", "a", "b", "b", None, "a", "b", "a", "a", "b"]
    allowed = []
    for row in range(N):
        fits = {
            "price < 7": row < 7,
            'brand == "a"': brands[row] == "a",
            "price > 2": row > 2,
        }.get(wanted.get("where", ""), True)
        fits &= f"i{row}" in wanted.get("allow", [f"i{row}"])
        fits &= f"i{row}" not in wanted.get("deny", [])
        if fits:
            allowed.append(row)
        if "boosts" in wanted:
            scores[row] *= (1.7 if row > 4 else 1.0) * (0.4 if brands[row] == "b" else 1.0)
    if not allowed:
        with pytest.raises(RequestError, match="No item may be returned"):
            finds.find(ids, k, by=by, **wanted)
        return
    found = finds.find(ids, k, by=by, **wanted)
    expected: list[int] = []
    groups = find_groups(shop(events).catalog).values(np.arange(N))
    assert len(set(groups)) > 1
    for row in sorted(others, key=lambda row: (-scores[row], row)):
        title = normalized(TITLES[row]) or TITLES[row]
        titles = [normalized(TITLES[other]) or TITLES[other] for other in expected]
        same_brand = sum(brands[other] == brands[row] for other in expected)
        full = titles.count(title) >= wanted.get("per_title", N)
        capped = brands[row] is not None and same_brand >= wanted.get("caps", {"brand": N})["brand"]
        group = groups[row]
        variants = sum(groups[other] == group for other in expected)
        full |= group is not None and variants >= (wanted.get("per_group", 2) or N)
        if row in allowed and scores[row] > 0 and not full | capped and len(expected) < k:
            expected.append(row)
    assert [item.item_id for item in found.similar] == [f"i{row}" for row in expected]
    assert [item.score for item in found.similar] == pytest.approx([scores[r] for r in expected])
    assert [item.rank for item in found.similar] == list(range(1, len(expected) + 1))
    assert bool(found.notes) or len(expected) == k
    json.dumps(found.to_dict(), allow_nan=False)


EVENTS = [[0, 3, 5], [0, 3], [0, 5], [3, 6], [7]]


def test_each_item_has_its_parts() -> None:
    both = finder(EVENTS).find("red mug", 3)
    assert (both.by, both.used, both.behavior, both.titles) == ("both", "both", "buy", "ngrams")
    assert both.given == (("i0", "red mug"),)
    together = {"i3": 2, "i5": 2}
    for item in both.similar:
        row = int(item.item_id[1:])
        assert item.users == together.get(item.item_id, 0)
        assert item.prior == pytest.approx(by_prior(EVENTS, 0)[row])
        assert item.cosine == pytest.approx(by_titles(0)[row], abs=1e-6)
        assert {type(value) for value in astuple(item)} == {int, float, str}  # no numpy scalars
    prior = finder(EVENTS).find("i0", by="prior")
    assert prior.titles is None
    assert {item.cosine for item in prior.similar} == {None}
    assert prior.notes == (
        f"Only {len(prior.similar)} of the allowed items go with the given items by counts. With both "
        "counts and titles, there may be more.",
    )
    titles = finder(EVENTS).find("i0", by="titles")
    assert (titles.behavior, titles.similar[0].users, titles.similar[0].prior) == (None,) * 3
    assert sum(item.prior or 0 for item in finder(EVENTS).find("i0", N).similar) == pytest.approx(1)


@pytest.mark.parametrize("by", ["both", "prior"])
def test_an_item_without_events_is_compared_by_its_title(by: str) -> None:
    new = finder(EVENTS).find("i1", 2, by=by)
    assert (new.by, new.used, new.behavior) == (by, "titles", None)
    assert new.similar == finder(EVENTS).find("i1", 2, by="titles").similar or by == "both"
    assert [i.item_id for i in new.similar] == ["i0", "i2"]
    assert new.notes[0] == (
        "'red mug with dots' has no 'buy' events together with other items, so the items were chosen "
        "by their titles."
    )
    said = finder(EVENTS).find(["i1", "i0"], 2, by=by).notes[0]
    what = "so it counts only by title." if by == "both" else "so it does not count."
    assert said.endswith(what)
    said = finder(EVENTS).find(["i1", "i2", "i0"], 2, by=by).notes[0]
    assert "'red mug with dots', 'Red Mug!' have no 'buy' events" in said
    what = "so they count only by title." if by == "both" else "so they do not count."
    assert said.endswith(what)


def test_a_catalog_is_compared_by_its_titles() -> None:
    catalog = Catalog([Item("a", "red mug"), Item("b", "red mugs"), Item("c", "doll")])
    found = SimilarItems(catalog, encoder="none").find("a", 1)
    assert ([i.item_id for i in found.similar], found.used) == (["b"], "titles")
    assert found.notes[0] == (
        "There is a catalog without events, so the items were chosen by their titles."
    )


def test_diversity_prefers_other_titles() -> None:
    plain = finder(EVENTS).find("i1", 3, by="titles")
    varied = finder(EVENTS).find("i1", 3, by="titles", diversity=0.9)
    assert plain.similar[0] == varied.similar[0]
    assert [i.item_id for i in plain.similar] != [i.item_id for i in varied.similar]


def test_the_rules_of_a_shop_apply(tmp_path: Path) -> None:
    stock = tmp_path / "stock.csv"
    stock.write_text("item_id,quantity\ni3,0\ni5,2\nno such item,1\n", encoding="utf-8")
    found = finder(EVENTS).find("i0", by="prior", stock=str(stock))
    assert [item.item_id for item in found.similar] == ["i5"]
    assert any("no such item" in note for note in found.notes)


def test_what_is_counted_can_be_chosen() -> None:
    data = load("zh_mini")
    item = data.catalog[0].item_id
    lists = [
        [
            i.users
            for i in SimilarItems(data, prior_events=part, encoder="ngrams").find(item).similar
        ]
        for part in ("train", "all")
    ]
    assert lists[0] != lists[1]
    browse = SimilarItems(data, target_behavior="browse", encoder="ngrams").find(item, by="prior")
    assert browse.behavior == "browse"


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ("red mugg", {}, "similar titles are 'red mug'"),
        ("i99", {}, "Item 'i99' is not in the catalog of 10 items"),
        ([], {}, "Expected an item or a list of items"),
        (7, {}, "Expected an item or a list of items"),
        ("i0", {"by": "model"}, "by='model' is not known. Expected one of: both, prior, titles"),
        ("i0", {"k": 0}, "k=0 is not valid"),
        ("i0", {"min_probability": 0.1}, "min_probability does not apply to similar items"),
        ("i0", {"explain": True}, "explain does not apply to similar items"),
        ("i0", {"wher": "x"}, "'wher' is not an option. Did you mean 'where'"),
        ("i0", {"where": "prize < 3"}, "prize"),
        ("i0", {"caps": {"size": 1}}, "size"),
    ],
)
def test_mistakes_are_named(given: Any, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        finder(EVENTS).find(given, **wanted)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(SettingsError, match="Expected a Dataset or a Catalog"):
        SimilarItems("shop")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="'encode' is not a setting"):
        SimilarItems(shop(EVENTS), encode="ngrams")
    with pytest.raises(SettingsError, match="'view'"):
        SimilarItems(shop(EVENTS), target_behavior="view").find("i0")


def test_every_option_that_applies_is_an_option() -> None:
    assert {"allow", "where", "caps"} <= {*genrec.config.SIMILAR_OPTIONS}
    assert {*genrec.config.SIMILAR_OPTIONS} <= {*QueryOptions.__dataclass_fields__}


def test_the_command_prints_tables_and_json(run: Run, tmp_path: Path) -> None:
    shop(EVENTS).save(tmp_path / "shop")
    given = ("similar", tmp_path / "shop", "--encoder", "ngrams", "-k", 3)
    answer = json.loads(tiny_runs.done(run, [*map(str, given), "--item", "i0", "--json"]))
    expected = SimilarItems(shop(EVENTS), encoder="ngrams").find("i0", 3)
    assert answer == json.loads(json.dumps(expected.to_dict()))
    code, out, err = run(*given, "--item", "i0", "--item", "blue bag")
    assert code == 0
    assert out.splitlines()[0].split("\t") == [
        "rank", "score", "prior", "cosine", "users", "item_id", "title",
    ]  # fmt: skip
    assert "The score is the mean of two shares, on average over the given items." in err
    assert "events with the item and with a given item." in err
    for by, names in (("prior", ["users"]), ("titles", [])):
        code, out, err = run(*given, "--item", "i0", "--by", by)
        header = out.splitlines()[0].split("\t")
        assert header == ["rank", "score", *names, "item_id", "title"]
        assert "The score is " in err
    code, out, err = run(*given, "--item", "red mugg")
    assert (code, out) == (6, "")
    assert "similar titles are 'red mug'" in err
    code, _, err = run(*given, "--item", "i0", "--by", "model")
    assert code == 6
    assert "Expected one of: both, prior, titles" in err


def test_no_language_model_is_loaded(tmp_path: Path) -> None:
    shop(EVENTS).save(tmp_path / "shop")
    code = (
        "import sys, genrec\n"
        f"data = genrec.Dataset.load({str(tmp_path / 'shop')!r})\n"
        "finder = genrec.SimilarItems(data, encoder='ngrams')\n"
        "assert len(finder.find('i0', 2).similar) == 2\n"
        "loaded = {'torch', 'transformers'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_very_old_items_keep_their_order() -> None:
    """Factors that a float cannot represent neither lose an item nor tie two of them."""
    items = [Item(f"i{n}", f"mug {n}", {"published": f"{2020 - 10 * n}-01-01"}) for n in range(6)]
    finder = SimilarItems(Catalog(items), encoder="ngrams")
    found = finder.find("i0", 5, by="titles", half_life=0.5, age_column="published")
    assert [each.item_id for each in found.similar] == ["i1", "i2", "i3", "i4", "i5"]
    assert not found.notes
    assert all(each.score > 0 for each in found.similar)


def test_huge_factors_keep_their_order() -> None:
    items = [Item(f"i{n}", f"mug {n}", {"stock": n}) for n in range(6)]
    finder = SimilarItems(Catalog(items), encoder="ngrams")
    boosts = {f"stock > {n}": 1e200 for n in range(5)}
    found = finder.find("i0", 5, by="titles", boosts=boosts)
    assert [each.item_id for each in found.similar] == ["i5", "i4", "i3", "i2", "i1"]
    assert np.isfinite([each.score for each in found.similar]).all()
