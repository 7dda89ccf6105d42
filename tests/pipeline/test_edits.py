"""Edit the catalog of a recommender while it runs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.titles import kinds, titles

from genrec import Catalog, Item, Recommender
from genrec.errors import DataError, RequestError

edits = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "retitle"]), st.integers(0, 9), titles),
    max_size=12,
)


@given(kinds, st.lists(titles, min_size=1, max_size=6), edits, st.integers(1, 8))
def test_any_sequence_of_edits_equals_a_fresh_build(
    kind: str, names: list[str], sequence: list[tuple[str, int, str]], k: int
) -> None:
    model = tiny.language_model(kind)
    settings: dict[str, Any] = {"case": "lower", "search": "exact"}
    live = Recommender(Catalog(Item(f"i{n}", t) for n, t in enumerate(names)), model, **settings)
    now = {f"i{n}": t for n, t in enumerate(names)}
    for what, number, title in sequence:
        item_id = f"i{number}"
        if what == "add" and item_id not in now:
            live.add_items([Item(item_id, title)])
            now[item_id] = title
        elif what == "remove" and item_id in now and len(now) > 1:
            live.remove_items([item_id])
            del now[item_id]
        elif what == "retitle" and item_id in now:
            live.retitle_items({item_id: title})
            now[item_id] = title
    fresh = Recommender(Catalog(Item(i, t) for i, t in now.items()), model, **settings)
    assert live.trie.n_items == len(now)
    ours = {r.item_id: r for r in live.score("")}
    theirs = {r.item_id: r for r in fresh.score("")}
    assert ours.keys() == theirs.keys()
    for item_id, r in theirs.items():
        assert ours[item_id].logprob == pytest.approx(r.logprob, abs=1e-5 * (1 + abs(r.score)))
        assert ours[item_id].title == now[item_id]
    best, wanted = live.recommend("", k), fresh.recommend("", k)
    assert [r.logprob for r in best] == pytest.approx([r.logprob for r in wanted], abs=2e-4)
    deny = [next(iter(now))]
    if len(now) > 1:
        left = live.recommend("", k, deny=deny)
        assert len(left) == min(k, len(now) - 1)
        assert deny[0] not in {r.item_id for r in left}
    again = live.with_settings(search="beam", beam_size=50)
    assert [r.logprob for r in again.recommend("", k)] == pytest.approx(
        [r.logprob for r in wanted], abs=2e-4
    )


def shop(n: int = 30, **settings: Any) -> Recommender:
    items = [Item(f"i{i}", f"{c} {t}") for i, (c, t) in enumerate(PAIRS[:n])]
    return Recommender(Catalog(items), tiny.language_model(), **settings)


PAIRS = [
    (c, t)
    for c in ("red", "blue", "pink", "set", "re")
    for t in ("mug", "doll", "bag", "a", "b", "m")
]


def test_an_item_that_was_removed_is_still_read_in_histories() -> None:
    recommender = shop()
    before = recommender.prompt("i3").text
    recommender.remove_items(["i3"])
    assert recommender.prompt("i3").text == before
    assert "i3" not in {r.item_id for r in recommender.recommend("", 30)}
    assert len(recommender.recommend("i3; i4", 30)) == 28
    with pytest.raises(RequestError, match="'i3' is not in the catalog or was removed"):
        recommender.score("", ["i3"])
    recommender.add_items([Item("i3", "red bag new")])
    assert {r.title for r in recommender.recommend("", 30) if r.item_id == "i3"} == {"red bag new"}


def test_an_item_that_comes_back_has_its_new_attributes() -> None:
    items = [Item("a", "red mug", {"price": 8}), Item("b", "blue mug", {"price": 9})]
    recommender = Recommender(Catalog(items), tiny.language_model())
    assert [r.item_id for r in recommender.recommend("", where="price < 9")] == ["a"]
    recommender.remove_items(["a"])
    recommender.add_items([Item("a", "red mug", {"price": 99})])
    assert [r.item_id for r in recommender.recommend("", where="price < 10")] == ["b"]
    recommender.retitle_items({"a": "doll"})
    assert [r.title for r in recommender.recommend("", where="price > 10")] == ["doll"]


def odd(value: Any) -> Any:
    """Return a value of the wrong type, as a caller without a type checker might pass it."""
    return value


def test_mistakes_change_nothing() -> None:
    recommender = shop(3)
    before = recommender.score("").to_dict()
    mistakes: list[tuple[Any, type[Exception]]] = [
        (lambda: recommender.add_items([Item("i9", "new"), Item("i1", "x")]), DataError),
        (lambda: recommender.add_items([Item("i9", " ")]), DataError),
        (lambda: recommender.remove_items(["i0", "nobody"]), RequestError),
        (lambda: recommender.remove_items(["i0", "i1", "i2"]), RequestError),
        (lambda: recommender.retitle_items({"i0": "ok", "i1": ""}), DataError),
        (lambda: recommender.retitle_items({"nobody": "x"}), RequestError),
        (lambda: recommender.retitle_items(odd(["i0"])), RequestError),
        (lambda: recommender.add_items(odd(5)), DataError),
        (lambda: recommender.add_items(odd([5])), DataError),
    ]
    for mistake, error in mistakes:
        with pytest.raises(error):
            mistake()
        assert recommender.score("").to_dict() == before
    recommender.remove_items(["i2"])
    with pytest.raises(RequestError, match="was removed"):
        recommender.retitle_items({"i2": "x"})


def test_edits_while_requests_run() -> None:
    """Every list comes from one catalog: the one before an edit or the one after it."""
    recommender = shop(20, search="exact")
    problems: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answer = recommender.score("i0")
            total = sum(r.probability for r in answer)
            new = {r.item_id for r in answer} & {"n0", "n1"}
            if abs(total - 1) > 1e-5 or len(new) == 1:
                problems.append(f"{total} {new}")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        recommender.add_items([Item("n0", "red house"), Item("n1", "house red")])
        recommender.retitle_items({"i5": "set of 12"})
        recommender.remove_items(["n0", "n1"])
        recommender.retitle_items({"i5": "set of 1"})
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_catalog_is_rebuilt_after_many_edits() -> None:
    recommender = shop(3)
    for first in range(0, 2400, 400):
        some = range(first, first + 400)
        recommender.add_items([Item(f"n{n}", f"thing {n}") for n in some])
    assert len(recommender.trie.base) > 1000  # type: ignore[union-attr]
    assert len(recommender.score("")) == 2403
