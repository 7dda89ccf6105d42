"""No list shows what the user sent back or has just bought, and new and old items are told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.titles import kinds, titles

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.config import SHOWS
from genrec.data.column_names import known
from genrec.data.datasets import load
from genrec.data.protocols import sample
from genrec.errors import RequestError
from genrec.reports.terminal import describe_rules
from genrec.text import normalized

WORDS = ["buy", "buy", "buy", "view", "cart", "return", "refunded", "Storno"]


def dataset(names: list[str], *, repeats: bool = True, led_by: Any = None) -> Dataset:
    """A shop in which users buy the same items again if ``repeats``."""
    ids = [f"i{n}" for n in range(len(names))]
    items = pa.table({"item_id": ids, "title": names})
    behaviors = ["buy", "view", "cart", "return"]
    events = {
        "user_id": ["u"] * 4,
        "item_id": [ids[0]] * 4,
        "behavior": behaviors,
        "timestamp": [1_500_000_000 + n for n in range(4)],
    }
    data = Dataset.from_tables(items, pa.table(events), name="s", target_behavior="buy")
    info = replace(data.info, exclude_seen=not repeats, led_by=led_by or {}, repeat_share=0.0)
    return replace(data, info=info)


def make(names: list[str], kind: str = "llama", **settings: Any) -> Recommender:
    how = {"repeats": settings.pop("repeats", True), "led_by": settings.pop("led_by", None)}
    data = dataset(names, **how)
    return Recommender(data, tiny.language_model(kind), prior="none", encoder="none", **settings)


def rules(
    history: History, show: str, lead_in: set[str], *, returned: bool, basket: bool
) -> dict[str, set[str]]:
    """The items that a list may not hold, by rule, computed event by event."""
    latest: dict[str, str] = {}
    seen, had = set(), set()
    last: Interaction | None = None
    for event in history.interactions:
        if event.item_id is None:
            continue
        latest[event.item_id] = event.behavior
        if event.behavior not in lead_in:
            seen.add(event.item_id)
        if event.behavior == "buy":
            had.add(event.item_id)
            last = event
    out: dict[str, set[str]] = {}
    if show == "new":
        out["seen"] = seen
    if show == "again":
        out["unseen"] = had
    if not returned:
        backs = ("return", "refunded", "Storno")
        out["returned"] = {item for item, behavior in latest.items() if behavior in backs}
    if not basket:
        out["last_basket"] = set() if last is None else {last.item_id or ""}
        for event in history.interactions:
            same = last is not None and event.unit is not None and event.unit == last.unit
            if same and event.behavior == "buy" and event.item_id is not None:
                out["last_basket"].add(event.item_id)
    return out


@given(
    names=st.lists(titles, min_size=1, max_size=14),
    kind=kinds,
    events=st.lists(
        st.tuples(
            st.integers(0, 13), st.sampled_from(WORDS), st.sampled_from([None, "A", "B", "C"])
        ),
        max_size=10,
    ),
    k=st.integers(1, 16),
    show=st.sampled_from([None, *SHOWS]),
    allowed=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    repeats=st.booleans(),
    leads=st.booleans(),
    deny=st.lists(st.integers(0, 13), max_size=3),
    search=st.sampled_from(["exact", "auto", "beam"]),
)
def test_lists_equal_filtering_all_scored_items(
    names: list[str],
    kind: str,
    events: list[tuple[int, str, str | None]],
    k: int,
    show: str | None,
    allowed: tuple[bool, bool, bool],
    repeats: bool,
    leads: bool,
    deny: list[int],
    search: str,
) -> None:
    led_by = {"view": 0.5} if leads else {}
    recommender = make(
        names, kind, repeats=repeats, led_by=led_by, search=search, beam_size=60, max_nodes=10_000
    )
    ids = [f"i{n}" for n in range(len(names))]
    history = History(
        (
            Interaction(None, "search", text="mug"),
            *(
                Interaction(ids[n % len(ids)], b, t, unit=unit)
                for t, (n, b, unit) in enumerate(events)
            ),
        )
    )
    returned, basket, same = allowed
    options: dict[str, Any] = {"allow_returned": returned, "allow_last_basket": basket}
    options |= {"allow_same_title": same, "per_group": None}
    options["deny"] = [ids[n % len(ids)] for n in deny]
    shown = show or ("all" if repeats else "new")
    lead_in = set(recommender.lead_in_behaviors)
    assert ("view" in lead_in) == leads
    ruled = rules(history, shown, lead_in, returned=returned, basket=basket)
    if not same and shown != "again" and ruled:
        titled = [normalized(name) or name for name in names]
        own = {titled[ids.index(i)] for left_out in ruled.values() for i in left_out}
        had = {e.item_id for e in history.interactions if e.behavior == "buy"}
        ruled["same_title"] = {i for i, t in zip(ids, titled, strict=True) if t in own} - had
    left = set(ids) - set(options["deny"])
    removed = {}
    for rule, own in ruled.items():
        kept = left & own if rule == "unseen" else left - own
        removed[rule], left = len(left) - len(kept), kept
    every = [r for r in recommender.score(history) if r.item_id in left]
    if not left:
        with pytest.raises(RequestError, match="No item may be returned"):
            recommender.recommend(history, k, show=show, **options)
        return
    answer = recommender.recommend(history, k, show=show, **options)
    assert len(answer) == min(k, len(left))
    assert {r.item_id for r in answer} <= left
    assert answer.show == shown
    assert answer.left_out == answer.to_dict()["left_out"] == removed
    by_id = {r.item_id: r.logprob for r in every}
    assert [r.logprob for r in answer] == pytest.approx(
        [by_id[r.item_id] for r in answer], abs=1e-4
    )
    if answer.details["certificate"]["exact"]:
        best = [r.logprob for r in every[:k]]
        assert [r.logprob for r in answer] == pytest.approx(best, abs=4e-4)
    ranked = recommender.rank(history, None, show=show, **options)
    assert {r.item_id for r in ranked} == left
    (many,) = recommender.recommend_many([history], k, show=show, **options)
    assert [r.item_id for r in many] == [r.item_id for r in answer]


def test_a_decoder_that_writes_follows_the_rules_too() -> None:
    names = [str(tiny.tokenizer("llama").decode([i])) + "x" for i in range(300, 330)]
    recommender = make(names, decoder="match", max_title_tokens=2, match_threshold=0.1)
    history = History(tuple(Interaction(f"i{n}", "buy", n, unit=str(n // 10)) for n in range(30)))
    for show, last in (("again", False), ("again", True), ("all", False)):
        answer = recommender.recommend(history, 30, show=show, allow_last_basket=last)
        assert last or not {f"i{n}" for n in range(20, 30)} & {r.item_id for r in answer}


def test_another_item_with_the_same_title_counts_like_it() -> None:
    recommender = make(["Red mug", "red mug!", "bag", "Bag", "lamp", "doll"], repeats=True)
    bought = [Interaction(f"i{n}", b, t) for t, (n, b) in enumerate(
        [(0, "buy"), (2, "buy"), (3, "buy"), (2, "return"), (5, "buy")])]  # fmt: skip
    history = History(tuple(bought))

    def listed(**options: Any) -> set[str]:
        answer = recommender.recommend(history, 6, per_group=None, **options)
        return {r.item_id for r in answer}

    assert listed(show="new") == {"i4"}
    assert listed(show="new", allow_same_title=True) == {"i1", "i4"}
    # The bag that was bought and kept is not the one that was returned.
    assert listed(show="all") == {"i0", "i1", "i3", "i4"}
    answer = recommender.recommend(history, 6, show="new", per_group=None)
    assert answer.left_out == {"seen": 4, "returned": 0, "last_basket": 0, "same_title": 1}
    assert "1 other item with the same title" in describe_rules(answer)
    assert "--allow-same-title" in describe_rules(answer)
    assert recommender.explain(history, "i1", show="new").excluded_by == "same_title"


def test_a_removed_item_also_counts_by_its_title() -> None:
    """A product that is listed again under a new id."""
    recommender = make(["mug", "bag", "lamp"])
    recommender.add_items([Item("j0", "Mug")])
    recommender.remove_items(["i0"])
    history = History((Interaction("i0", "buy", 0), Interaction("i1", "buy", 1)))
    assert {r.item_id for r in recommender.recommend(history, show="new")} == {"i2"}


def test_the_latest_event_of_an_item_decides() -> None:
    recommender = make(["mug", "bag", "lamp", "doll"])

    def listed(*events: tuple[int, str]) -> set[str]:
        history = History(tuple(Interaction(f"i{n}", b, t) for t, (n, b) in enumerate(events)))
        return {r.item_id for r in recommender.recommend(history, show="again")}

    last = (3, "buy")
    assert listed((0, "buy"), (1, "buy"), (0, "return"), last) == {"i1"}
    assert listed((0, "buy"), (0, "return"), (1, "buy"), (0, "buy"), last) == {"i0", "i1"}
    assert listed((0, "buy"), (0, "return"), (1, "buy"), (0, "view"), last) == {"i0", "i1"}


@pytest.mark.parametrize("word", [*known()["returns"], "Refunded", "Gutschrift"])
def test_every_word_for_a_return_is_one(word: str) -> None:
    history = History((Interaction("i0", "buy"), Interaction("i0", word), Interaction("i1", "buy")))
    answer = make(["mug", "bag", "lamp"]).recommend(history, show="all")
    assert {r.item_id for r in answer} == {"i2"}
    assert answer.left_out == {"returned": 1, "last_basket": 1, "same_title": 0}


def test_returns_can_be_what_is_predicted() -> None:
    recommender = make(["mug", "bag", "lamp"], target_behavior="return", exclude_seen=False)
    history = History(tuple(Interaction(f"i{n}", "return", n) for n in range(3)))
    assert {r.item_id for r in recommender.recommend(history)} == {"i0", "i1"}


def test_in_typed_histories_the_last_item_is_the_latest_basket() -> None:
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(["red mug", "doll", "bag", "lamp"]))
    recommender = Recommender(catalog, tiny.language_model(), exclude_seen=False)
    typed = "bought: red mug; bought: doll; viewed: bag"
    assert {r.item_id for r in recommender.recommend(typed)} == {"i0", "i2", "i3"}
    assert {r.item_id for r in recommender.recommend(typed, show="again")} == {"i0"}
    back = "bought: red mug; bought: doll; returned: red mug"
    assert {r.item_id for r in recommender.recommend(back)} == {"i2", "i3"}


@pytest.mark.parametrize(("setting", "show"), [(True, "all"), (True, "again"), (False, "new")])
def test_contradicting_options_are_refused(setting: bool, show: str) -> None:
    recommender = make(["mug", "bag", "lamp"], exclude_seen=setting)
    for call in (
        lambda: recommender.recommend("i0", show=show),
        lambda: recommender.recommend_many(["i0"], show=show),
        lambda: recommender.explain("i0", "i1", show=show),
        lambda: recommender.rank("i0", show=show),
    ):
        with pytest.raises(RequestError, match=f"show='{show}' contradicts exclude_seen={setting}"):
            call()


def test_agreeing_options_give_the_same_list() -> None:
    for setting, show in ((True, "new"), (False, "all")):
        recommender = make(["mug", "bag", "lamp"], exclude_seen=setting)
        plain = recommender.recommend("i0; i1")
        assert plain.show == show
        assert plain.recommendations == recommender.recommend("i0; i1", show=show).recommendations


@pytest.mark.parametrize(
    ("history", "options", "message"),
    [
        ("i0; i1; i2", {"show": "new"}, r"all items that the filters allow\. Include seen items \(show"),
        ("", {"show": "again"}, r"The user has not had any of the items .* Ask for new items"),
        ("viewed: i0", {"show": "again"}, "The user has not had any of the items"),
        ("i0", {"show": "again"}, r"leave out 1 item of the latest basket\. .*--allow-last-basket"),
        ("i0; returned: i0; i1", {"allow": ["i0", "i1"]},
         r"1 returned item and 1 item of the latest basket\. .*allow_returned=True .* and allow_last"),
    ],
)  # fmt: skip
def test_an_empty_list_says_why(history: str, options: dict[str, Any], message: str) -> None:
    recommender = make(["mug", "bag", "lamp"])
    with pytest.raises(RequestError, match=message):
        recommender.recommend(history, **options)
    (answer,) = recommender.recommend_many([history], **options)
    assert not answer
    assert "No item may be returned" in answer.notes[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"show": "old"}, "show='old' is not known. Expected one of: all, new, again."),
        ({"allow_returned": 1}, "allow_returned=1 is not valid. Expected True or False."),
        ({"allow_last_basket": "no"}, "allow_last_basket='no' is not valid."),
    ],
)
def test_wrong_values_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        make(["mug"]).recommend("", **options)
    assert message in str(caught.value)


def test_the_answer_says_what_was_left_out() -> None:
    recommender = make(["mug", "bag", "lamp", "doll"])
    history = "i0; i1; returned: i0; i1; i2"
    answer = recommender.recommend(history, show="new")
    assert answer.left_out == {"seen": 3, "returned": 0, "last_basket": 0, "same_title": 0}
    assert "left out: 3 items that the user has seen" in repr(answer).splitlines()
    again = recommender.recommend(history, show="again")
    assert again.left_out == {"unseen": 1, "returned": 1, "last_basket": 1}
    assert "left out: 1 returned item and 1 item of the latest basket" in repr(again).splitlines()
    free = recommender.recommend(history, show="all", allow_returned=True, allow_last_basket=True)
    assert free.left_out == {}
    assert "left out" not in repr(free)
    assert len(free) == 4


def test_an_explanation_names_the_rule() -> None:
    recommender = make(["mug", "bag", "lamp", "doll"])
    history = "i0; i1; returned: i0; i2"

    def reason(item: str, **options: Any) -> str | None:
        found = recommender.explain(history, item, evidence="fast", **options)
        assert found.allowed == (found.excluded_by is None)
        return found.excluded_by

    assert [reason(f"i{n}") for n in range(4)] == ["returned", None, "last_basket", None]
    assert [reason(f"i{n}", show="new") for n in range(4)] == [
        "returned", "seen", "last_basket", None,
    ]  # fmt: skip
    assert reason("i3", show="again") == "unseen"
    assert reason("i3", deny=["i3"]) == "filters"
    assert reason("i0", allow_returned=True) is None
    assert reason("i2", allow_last_basket=True) is None


@pytest.mark.model
@pytest.mark.parametrize("users", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_no_customer_of_the_demo_sees_what_the_rules_leave_out(
    users: int, demo_recommender: Recommender
) -> None:
    data = load("online_retail_demo")
    people = [str(u) for u in sample(list(data.interactions.user_ids), users)]  # type: ignore[arg-type]
    histories = [data.interactions.history(user) for user in people]
    for show in SHOWS:
        for history, answer in zip(
            histories, demo_recommender.recommend_many(histories, show=show), strict=True
        ):
            listed = {r.item_id for r in answer}
            last: dict[str | None, str] = {e.item_id: e.behavior for e in history.interactions}
            bought = [e for e in history.interactions if e.behavior == "buy"]
            basket = {e.item_id for e in bought if e.unit == bought[-1].unit}
            assert not {i for i in listed if last.get(i) == "return"}
            assert not listed & basket
            if show == "new":
                assert not listed & set(history.had(demo_recommender.lead_in_behaviors))
            if show == "again":
                assert listed <= {e.item_id for e in bought}
            assert listed or show == "again"


def test_what_left_nothing_is_named() -> None:
    recommender = make(["mug", "Mug"], repeats=False)
    with pytest.raises(RequestError, match="the same title") as error:
        recommender.recommend(History((Interaction("i0", "buy"),)))
    assert "--allow-same-title" in str(error.value)
    assert "--show all" in str(error.value)
    assert "all items that the filters allow" not in str(error.value)
