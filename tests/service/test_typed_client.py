"""The client has the names and the answers of the library."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from support import served
from support.served import client as client

from genrec import Client, History, Interaction, Item, Recommender
from genrec.service.client import InvalidRequestError, ServiceError
from genrec.service.client_types import ExperimentArm
from genrec.service.operations import Operations
from genrec.service.tables import StoreError
from genrec.taste.edits import ProfileEdits

SAME = ["recommend", "recommend_many", "recommend_rails", "rank", "score", "similar", "explain",
        "history", "put_items", "remove_items", "events_in_prompt", "chat"]  # fmt: skip


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


# Routes that need no method of the client, with the reason.
NO_METHOD = {
    ("GET", "/livez"): "for probes of the operating system, which see the status alone",
    ("GET", "/healthz"): "for probes",
    ("GET", "/readyz"): "for probes",
    ("GET", "/metrics"): "for Prometheus, in its own format",
    ("PUT", "/v1/item"): "put_items adds any number of items in one step",
    ("DELETE", "/v1/item"): "remove_items removes any number of items in one step",
    **dict.fromkeys(
        [
            *((method, "/v1/items/{item_id}") for method in ("GET", "PUT", "PATCH", "DELETE")),
            ("GET", "/v1/users/{user_id}"),
            ("PUT", "/v1/users/{user_id}"),
            ("PATCH", "/v1/users/{user_id}"),
            ("DELETE", "/v1/users/{user_id}"),
            *((method, "/v1/users/{user_id}/profile") for method in ("GET", "PUT", "PATCH")),
            ("DELETE", "/v1/sessions/{session_id}"),
        ],
        "the same request with the id in the query, where every id works, has one",
    ),
}


class Recording(httpx2.BaseTransport):
    """Sends requests to the application, and remembers their methods and paths."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seen = inner, list[tuple[str, str]]()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.raw_path.partition(b"?")[0].decode()
        self.seen.append((request.method, path))
        answer: httpx2.Response = self.inner.handle_request(request)
        return answer


def route_of(routes: Any, path: str) -> str:
    """The route of a path: the one with the fewest variables."""
    fitting = [
        r for r in routes if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(r)), path)
    ]
    found: str = min(fitting, key=lambda route: route.count("{"))
    return found


def call(method: Callable[..., Any], *given: Any) -> Any:
    """The answer of a method that may return nothing."""
    return method(*given)


def ask_everything(asking: Client) -> dict[str, Any]:
    """Call every method of the client, and return the answers by the name of the method."""
    u1: dict[str, Any] = {"user_id": "u1", "k": 2}
    other: dict[str, Any] = {"name": "model", "weight": 2.0}
    arms: list[ExperimentArm | Mapping[str, Any]] = [
        ExperimentArm("counts", model_role="explain"),
        other,
    ]
    return {
        "shop": asking.shop(),
        "models": asking.models(),
        "load_model": asking.load_model("second"),
        "choose_model": asking.choose_model("second"),
        "choose_model again": asking.choose_model("tiny"),
        "unload_model": asking.unload_model("second"),
        "put_scenario": asking.put_scenario("home", k=2),
        "scenarios": asking.scenarios(),
        "delete_scenario": call(asking.delete_scenario, "home"),
        "put_blocks": asking.put_blocks(phrases=["knife"]),
        "blocks": asking.blocks(),
        "put_experiment": asking.put_experiment("e", arms, behaviors=["buy"]),
        "recommend": asking.recommend(**u1),
        "recommend_many": asking.recommend_many(["", ""], 1),
        "recommend_rails": asking.recommend_rails(**u1),
        "recommend_session": asking.recommend_session(
            [Interaction("i1", "buy")], 1, session_id="s/1", keep=True
        ),
        "rank": asking.rank(candidates=["i1"], user_id="u1"),
        "score": asking.score(candidates=["i1"], user_id="u1"),
        "search": asking.search("mug", **u1),
        "chat": asking.chat(["a mug"], **u1),
        "similar": asking.similar("i0", 2),
        "explain": asking.explain(None, "i4", evidence="fast", **u1),
        "events_in_prompt": asking.events_in_prompt(user_id="u1"),
        "feedback": asking.feedback("u1", "i1", "buy"),
        "feedback_many": asking.feedback_many(
            [{"user_id": "u2", "item_id": "i1", "behavior": "buy"}]
        ),
        "put_labels": asking.put_labels("u1", {"country": "GB", "tier": 2}),
        "patch_labels": asking.patch_labels("u1", {"tier": None}),
        "put_profile": asking.put_profile("u1", ProfileEdits(added=("mug",))),
        "patch_profile": asking.patch_profile("u1", removed=["tin"]),
        "profile": asking.profile("u1"),
        "user": asking.user("u1", limit=2),
        "neighbors": asking.neighbors("u1", 3, items=True),
        "delete_event": call(asking.delete_event, asking.feedback("u3", "i1", "buy")),
        "delete_feedback": asking.delete_feedback("u2", "i1", "buy"),
        "users": [*asking.users("u1")],
        "history": asking.history("u1"),
        "put_items": call(asking.put_items, [Item("n", "green mug")]),
        "patch_item": asking.patch_item("n", attributes={"price": 2.0}),
        "item": asking.item("n"),
        "items": [*asking.items()],
        "remove_items": call(asking.remove_items, ["n"]),
        "experiments": asking.experiments(),
        "experiment": asking.experiment("e"),
        "acceptance": asking.acceptance("arm", ["buy"], "e"),
        "stop_experiment": asking.stop_experiment("e"),
        "delete_experiment": call(asking.delete_experiment, "e"),
        "export": [*asking.export()],
        "delete_session": asking.delete_session("s/1"),
        "delete_user": asking.delete_user("u1"),
    }


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[tuple[dict[str, Any], Recording, Any]]:
    (tmp_path / "runs" / "second").mkdir(parents=True)
    (tmp_path / "runs" / "second" / "run.json").write_text("{}")

    def load(folder: Path) -> Recommender:
        return served.recommender(served.made_shop(), prior="none")

    with served.opened(tmp_path, load=load, runs=tmp_path / "runs") as client:
        transport = Recording(client._transport)
        with Client("http://testserver", transport=transport) as asking:
            yield ask_everything(asking), transport, client.get("/openapi.json").json()["paths"]


def test_every_route_has_a_method_with_typed_answers(
    everything: tuple[dict[str, Any], Recording, Any],
) -> None:
    answers, transport, routes = everything
    reached = {(method, route_of(routes, path)) for method, path in transport.seen}
    offered = {(m.upper(), path) for path, methods in routes.items() for m in methods}
    assert offered - reached == NO_METHOD.keys()
    methods = {n for n in vars(Client) | vars(Operations) if not n.startswith("_")}
    assert methods == {name.partition(" ")[0] for name in answers}
    assert answers["shop"].name == "shop"
    assert answers["patch_profile"] == ProfileEdits(added=("mug",), removed=("tin",))
    assert answers["profile"]["edits"]["added"] == ["mug"]
    assert answers["shop"].columns[0]["name"] == "price"
    assert [m.name for m in answers["load_model"].models] == ["tiny", "second"]
    assert answers["choose_model"].default == "second"
    assert answers["models"].loadable == ("second",)
    assert answers["scenarios"] == {"home": {"k": 2}}
    assert (answers["put_blocks"].blocked, answers["blocks"].phrases) == (1, ["knife"])
    assert answers["put_experiment"].arms[1] == ExperimentArm("model", "tiny", 2.0)
    assert answers["put_experiment"].results is None
    results = answers["experiment"].results
    assert sum(arm.lists for arm in results.arms) == 4  # u1, both rails of u1, and the session
    assert results.comparisons[0].against == "counts"
    assert not results.comparisons[0].decided
    assert sum(group.lists for group in answers["acceptance"]) == 4
    assert answers["acceptance"][0].per_user.mean == 0
    assert not answers["stop_experiment"].running
    assert answers["recommend_session"].details["session_id"] == "s/1"
    assert answers["delete_session"] == 1
    assert {table for table, _ in answers["export"]} >= {"events", "lists", "impressions"}
    assert answers["users"] == ["u1", *(f"u1{n}" for n in range(10))]
    assert len(answers["items"]) == len(served.TITLES) + 1
    assert answers["patch_item"] == answers["item"] == Item("n", "green mug", {"price": 2.0})
    assert answers["user"].events == 6
    assert answers["user"].labels == answers["patch_labels"] == {"country": "GB"}
    assert isinstance(answers["user"].sequences[-1], int)
    assert len(answers["neighbors"]) == 3
    assert all(one.items for one in answers["neighbors"])
    assert answers["delete_feedback"] >= 1
    assert len(answers["user"].history) == 2
    library = served.recommender(served.made_shop())
    text, spans = library.events_in_prompt(library.history("u1"))
    assert answers["events_in_prompt"] == (text, tuple(map(tuple, spans)))


def test_an_export_that_breaks_off_is_an_error(asking: Client, client: TestClient) -> None:
    asking.feedback("u1", "i1", "buy")
    store = served.service_of(client).shop.store
    rows = [*store.export()]

    def breaks() -> Iterator[tuple[str, dict[str, Any]]]:
        yield from rows[:1]
        raise StoreError("gone")

    store.export = breaks  # type: ignore[method-assign]
    found = asking.export()
    assert next(found) == rows[0]
    with pytest.raises(ServiceError, match="not complete"):
        next(found)
