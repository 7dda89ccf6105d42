"""The OpenAPI document is true: its examples work, and answers are as it says. What Gorse offers is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient
from support import served
from support.amount import EXAMPLES
from support.served import client as client
from support.served import ids, recommend

from genrec.service import examples

WORDS = {
    examples.USER: "u1", examples.ITEM: "i0", examples.OTHER: "i1", examples.TITLE: "red mug",
    "default": "tiny",
}  # fmt: skip


def test_answers_are_as_documented(
    client: TestClient, record_property: Callable[[str, object], None]
) -> None:
    routes, sent = served.conform(client, max(2, EXAMPLES // 10))
    record_property("requests", f"{sent} to {routes} routes")  # see --junitxml
    assert routes > 40
    assert sent > routes
    assert client.get("/healthz").status_code == 200


def test_the_examples_work(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    sent = 0
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {})
            known = body.get("examples") or "{" in path or about.get("parameters")
            assert method == "get" or known, (method, path)
            for example in body.get("examples", {}).values():
                value = examples.fitted(example["value"], WORDS)
                place = path.replace("{item_id}", "vase-1").replace("{name}", "home")
                by_id = (
                    {"id": "vase-1"} if path in {"/v1/item", "/v1/user", "/v1/user/profile"} else {}
                )
                answer = client.request(method, place, json=value, params=by_id)
                assert answer.status_code == 200, (method, place, answer.text)
                sent += 1
        if path == "/v1/items/{item_id}":
            assert client.get("/v1/items/vase-1").json()["attributes"] == {"price": 3.95}
    assert sent >= 20
    assert described["info"]["version"]
    page = client.get("/docs").text
    for path in described["paths"]:
        assert path in page


def test_scenario_with_examples_of_every_option_is_described(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("Recommend", "Options", "Rank", "Search"):
        for field, about in schemas[name]["properties"].items():
            assert about.get("description") or field == "query", (name, field)


# What Gorse's REST interface offers, with the request here that does it.
Do = Callable[[TestClient], Any]


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


EVENT = {"user_id": "g", "item_id": "i3", "behavior": "buy"}


def restore(client: TestClient) -> None:
    rows = [json.loads(line) for line in client.get("/v1/export").text.splitlines()]
    assert rows[-1] == {"table": "end"}
    items = [r for r in rows if r["table"] == "items"]
    put = [
        {"item_id": r["item_id"], "title": r["title"], "attributes": json.loads(r["attributes"])}
        for r in items
    ]
    ok(client.post("/v1/items:bulk", json={"put": put}))
    names = ("user_id", "session_id", "item_id", "behavior", "timestamp", "value", "unit", "text",
             "list_id")  # fmt: skip
    events = [{n: r[n] for n in names if r[n] is not None} for r in rows if r["table"] == "events"]
    ok(client.post("/v1/feedback", json={"events": events}))


def take_back(client: TestClient) -> None:
    """Delete one event by what it says, and another one by its number."""
    before = ok(client.get("/v1/users/g"))["events"]
    number = ok(client.post("/v1/feedback", json=EVENT))["sequences"][0]
    assert ok(client.delete(f"/v1/feedback/{number}"))["events"] == 1
    assert client.delete(f"/v1/feedback/{number}").status_code == 404
    assert ok(client.get("/v1/users/g"))["events"] == before
    named = {"user_id": "g", "item_id": "i4", "behavior": "like"}
    ok(client.post("/v1/feedback", json=named))
    assert ok(client.delete("/v1/feedback", params=named))["events"] == 1
    assert ok(client.delete("/v1/feedback", params=named))["events"] == 0


GORSE: dict[str, Do] = {
    "POST /api/user, /api/users": lambda c: ok(
        c.put("/v1/users/g", json={"labels": {"country": "GB"}})
    ),
    "GET /api/user/{id}": lambda c: ok(c.get("/v1/users/u1")),
    "GET /api/users": lambda c: ok(c.get("/v1/users", params={"limit": 3})),
    "DELETE /api/user/{id}": lambda c: ok(c.delete("/v1/users/u3")),
    "PATCH /api/user/{id}": lambda c: ok(
        c.patch("/v1/users/g", json={"labels": {"tier": 2}})
    )["labels"] == {"country": "GB", "tier": 2},
    "POST /api/item": lambda c: ok(c.put("/v1/items/g1", json={"title": "g"})),
    "POST /api/items": lambda c: ok(
        c.post("/v1/items:bulk", json={"put": [{"item_id": "g1", "title": "g"}]})
    ),
    "GET /api/item/{id}": lambda c: ok(c.get("/v1/items/i1")),
    "GET /api/items": lambda c: ok(c.get("/v1/items", params={"limit": 3, "after": "3"})),
    "PATCH /api/item/{id}": lambda c: ok(c.patch("/v1/items/i1", json={"attributes": {"a": 1}})),
    "DELETE /api/item/{id}": lambda c: ok(c.delete("/v1/items/i7")),
    "PUT, DELETE /api/item/{id}/category/{c}": lambda c: ok(
        c.patch("/v1/items/i1", json={"attributes": {"category": "mugs"}})
    ),
    "POST /api/feedback": lambda c: ok(c.post("/v1/feedback", json={"events": [EVENT]})),
    "PUT /api/feedback": lambda c: ok(
        c.post("/v1/feedback", json=EVENT, headers={"Idempotency-Key": "g"})
    ),
    "GET /api/user/{id}/feedback": lambda c: ok(c.get("/v1/users/u1"))["history"],
    "GET /api/feedback": lambda c: c.get("/v1/export").text,
    "DELETE /api/feedback/{type}/{user}/{item}": take_back,
    "DELETE /api/feedback/{user}/{item}": lambda c: ok(
        c.delete("/v1/feedback", params={"user_id": "g", "item_id": "i4"})
    ),
    "GET /api/popular": lambda c: recommend(c, history="", k=3),
    "GET /api/popular/{category}": lambda c: recommend(c, history="", where="price < 5", k=3),
    "GET /api/latest": lambda c: ok(c.get("/v1/items", params={"order": "latest", "limit": 3})),
    "GET /api/item/{id}/neighbors": lambda c: ok(c.post("/v1/similar", json={"items": ["i0"]})),
    "GET /api/user/{id}/neighbors": lambda c: ok(
        c.post("/v1/neighbors", json={"user_id": "u1", "k": 3})
    )["neighbors"] != [],
    "GET /api/recommend/{user}": lambda c: recommend(c, user_id="u1", k=3),
    "GET /api/recommend/{user}/{category}": lambda c: recommend(c, user_id="u1", where="price < 9"),
    "GET /api/recommend/{user}?write-back-type=read": lambda c: ok(
        c.post("/v1/feedback", json={**EVENT, "behavior": "read",
                                     "list_id": recommend(c, user_id="g")["list_id"]})
    ),
    "POST /api/session/recommend": lambda c: ok(
        c.post("/v1/sessions", json={"history": [{"item_id": "i1", "behavior": "buy"}], "k": 3})
    ),
    "GET /api/dump, POST /api/restore": restore,
    "GET /api/health/live": lambda c: ok(c.get("/livez")),
    "GET /api/health/ready": lambda c: ok(c.get("/readyz")),
    "GET /metrics": lambda c: c.get("/metrics").text,
}  # fmt: skip


def test_what_gorse_offers_is_there(client: TestClient) -> None:
    ok(client.post("/v1/feedback", json=EVENT))
    for name, do in GORSE.items():
        assert do(client) is not False, name
    latest = ok(client.get("/v1/items", params={"order": "latest", "limit": 1}))["items"]
    assert latest[0]["item_id"] == "g1"
    assert ids(recommend(client, history="", k=100, allow=["g1"])) == ["g1"]
