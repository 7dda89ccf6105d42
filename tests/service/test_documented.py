"""The OpenAPI document is true: its examples work, and answers are as it says. What Gorse offers is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient
from support.amount import EXAMPLES
from support.served import client as client
from support.served import ids, recommend

from genrec.service import examples

WORDS = {
    examples.USER: "u1", examples.ITEM: "i0", examples.OTHER: "i1", examples.TITLE: "red mug",
    "default": "tiny",
}  # fmt: skip


def test_answers_are_as_documented(client: TestClient) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    routes, sent = 0, 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @settings(max_examples=max(2, EXAMPLES // 10), suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(
                checks=[
                    not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                ]
            )

        conforms()
        routes += 1
    assert routes > 30
    assert sent > routes
    assert client.get("/healthz").status_code == 200


def test_the_examples_work(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    sent = 0
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {})
            assert method == "get" or body.get("examples") or "{" in path, (method, path)
            for example in body.get("examples", {}).values():
                value = examples.fitted(example["value"], WORDS)
                place = path.replace("{item_id}", "vase-1").replace("{name}", "home")
                answer = client.request(method, place, json=value)
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


# What Gorse's REST interface offers, with the request here that does it. None: it is not offered.
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


GORSE: dict[str, Do | None] = {
    "POST /api/user, /api/users": lambda c: ok(c.post("/v1/feedback", json=EVENT)),  # no sign-up
    "GET /api/user/{id}": lambda c: ok(c.get("/v1/users/u1")),
    "GET /api/users": lambda c: ok(c.get("/v1/users", params={"limit": 3})),
    "DELETE /api/user/{id}": lambda c: ok(c.delete("/v1/users/u3")),
    "PATCH /api/user/{id}": None,  # users have no labels of their own
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
    "DELETE /api/feedback/{type}/{user}/{item}": None,  # only all events of a user are deleted
    "GET /api/popular": lambda c: recommend(c, history="", k=3),
    "GET /api/popular/{category}": lambda c: recommend(c, history="", where="price < 5", k=3),
    "GET /api/latest": lambda c: ok(c.get("/v1/items", params={"order": "latest", "limit": 3})),
    "GET /api/item/{id}/neighbors": lambda c: ok(c.post("/v1/similar", json={"items": ["i0"]})),
    "GET /api/user/{id}/neighbors": None,  # lists come from items, not from named other users
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
        if do is not None:
            assert do(client) is not False, name
    missing = sorted(name for name, do in GORSE.items() if do is None)
    assert len(missing) == 3
    latest = ok(client.get("/v1/items", params={"order": "latest", "limit": 1}))["items"]
    assert latest[0]["item_id"] == "g1"
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text(encoding="utf-8")
    assert "not offered" in guide
    assert ids(recommend(client, history="", k=100, allow=["g1"])) == ["g1"]
