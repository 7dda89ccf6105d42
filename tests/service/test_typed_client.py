"""The client has the names and the answers of the library."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import served
from support.served import client as client

from genrec import Client, History, Interaction, Item, Recommender
from genrec.service.client import InvalidRequestError, ServiceError

SAME = ["recommend", "recommend_many", "recommend_rails", "rank", "score", "similar", "explain",
        "history", "put_items", "remove_items"]  # fmt: skip


@pytest.fixture
def asking(client: TestClient) -> Client:
    return Client("http://testserver", transport=client._transport)


def test_its_methods_have_the_names_of_the_library() -> None:
    for name in SAME:
        ours = list(inspect.signature(getattr(Client, name)).parameters)
        theirs = list(inspect.signature(getattr(Recommender, name)).parameters)
        shared = [p for p in ours if p in theirs]
        assert shared == [p for p in theirs if p in ours], name


def test_it_returns_what_the_library_returns(asking: Client) -> None:
    library = served.recommender(served.made_shop())
    history = library.history("u1")
    ours, theirs = asking.recommend(user_id="u1", k=3), library.recommend(history, 3)
    assert [r.item_id for r in ours] == [r.item_id for r in theirs]
    assert ours[0].probability == pytest.approx(theirs[0].probability, abs=1e-4)
    assert (ours.prompt_tokens, ours.events) == (theirs.prompt_tokens, theirs.events)
    assert ours.details["certificate"] == pytest.approx(theirs.details["certificate"])
    assert {"list_id", "run", "fallback"} <= ours.details.keys()
    assert repr(ours).splitlines()[0] == repr(theirs).splitlines()[0]
    events = [Interaction("i1", "buy", 1.0), Interaction("i3", "view", 2.0)]
    for given in (events, History(tuple(events)), ["i1", "i3"], "bought: red doll"):
        expected = library.recommend(given, 2)
        found = asking.recommend(given, 2)
        assert [r.item_id for r in found] == [r.item_id for r in expected]
        assert found.understood == expected.understood
    assert [r.item_id for r in asking.recommend(history, 3)] == [r.item_id for r in theirs]
    explained = asking.recommend("bought: red doll", 1, explain=True, evidence="fast")
    told, meant = (
        explained[0].explanation,
        library.recommend("bought: red doll", 1, explain=True, evidence="fast")[0].explanation,
    )
    assert told is not None
    assert meant is not None
    assert told.text == meant.text
    assert [e.title for e in told.evidence] == [e.title for e in meant.evidence]
    assert asking.similar("i0", 3) == library.similar("i0", 3)
    rails = asking.recommend_rails("bought: red doll", 2)
    assert list(rails) == ["new", "again"]
    both = asking.recommend_many(["bought: red doll", history], 2)
    assert [r.item_id for r in both[1]] == [r.item_id for r in theirs][:2]
    assert [r.item_id for r in asking.rank(None, ["i1", "i2"], user_id="u9")]
    assert {r.item_id for r in asking.score("", ["i1", "i2"])} == {"i1", "i2"}
    assert asking.search("mug", "", 1)[0].title.endswith("mug")
    assert asking.explain("", "i4", 3, evidence="fast")["title"] == "glass vase"


def test_it_tells_the_service_what_happened(asking: Client) -> None:
    number = asking.feedback("new", "i3", "buy", value=2.0, idempotency_key="k")
    assert asking.feedback("new", "i3", "buy", value=2.0, idempotency_key="k") == number
    (event,) = asking.history("new").interactions
    assert (event.item_id, event.behavior, event.value) == ("i3", "buy", 2.0)
    item = Item("n/1", "green mug", {"price": 2.5})
    asking.put_items([item], remove=["i4"])
    assert asking.item("n/1") == item
    assert asking.recommend("", 1, allow=["n/1"])[0].item_id == "n/1"
    asking.remove_items(["n/1"])
    assert asking.delete_user("new") == 1


def test_problems_are_exceptions_with_their_details(asking: Client) -> None:
    with pytest.raises(InvalidRequestError, match="catalog") as caught:
        asking.recommend("", 1, allow=["none"])
    assert caught.value.status == 422
    assert caught.value.problem["request_id"]
    with pytest.raises(InvalidRequestError) as caught:
        asking.item("none")
    assert caught.value.status == 404
    with pytest.raises(InvalidRequestError):
        asking.recommend_many(["", [Interaction("none", "buy")]])
    with pytest.raises(ServiceError, match="Expected a running `genrec serve`") as failed:
        Client("http://127.0.0.1:9", timeout=1).recommend("")
    assert failed.value.status == 0


def test_it_closes_its_connections(asking: Client) -> None:
    with asking as same:
        assert same is asking
    closed: Any = asking
    with pytest.raises(RuntimeError, match="closed"):
        closed.recommend("")
