"""Keys decide who may do what; nothing that a client sent is in the log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.testclient import TestClient
from support import served
from support.commands import Run
from support.served import service_of
from support.served import shared as shared

from genrec.errors import SettingsError
from genrec.service.app import scope_of
from genrec.service.observe import LOG, log_to
from genrec.service.security import Guard, is_loopback, new_key, read_keys

# Every route, with the scope that it needs.
SCOPES = {
    None: ["GET /livez", "GET /readyz", "GET /healthz"],
    "read": [
        "POST /v1/recommend", "POST /v1/recommend:batch", "POST /v1/sessions", "POST /v1/rank",
        "POST /v1/score", "POST /v1/search", "POST /v1/similar", "POST /v1/explain", "POST /v1/prompt", "GET /v1/shop",
        "GET /v1/items", "GET /v1/items/{item_id}", "GET /v1/users", "GET /v1/users/{user_id}",
        "GET /v1/models", "GET /v1/scenarios", "GET /metrics", "GET /v1/item", "GET /v1/user",
        "POST /v1/neighbors", "POST /v1/chat", "GET /v1/user/profile", "GET /v1/users/{user_id}/profile",
    ],
    "feedback": ["POST /v1/feedback", "DELETE /v1/sessions/{session_id}", "DELETE /v1/session",
                 "DELETE /v1/feedback/{sequence}"],
    "admin": [
        "PUT /v1/item", "PATCH /v1/item", "DELETE /v1/item", "PUT /v1/user", "PATCH /v1/user",
        "PUT /v1/user/profile", "PATCH /v1/user/profile", "PUT /v1/users/{user_id}/profile",
        "PATCH /v1/users/{user_id}/profile",
        "DELETE /v1/user", "PUT /v1/users/{user_id}", "PATCH /v1/users/{user_id}",
        "DELETE /v1/feedback", "POST /v1/items:bulk", "PUT /v1/items/{item_id}", "PATCH /v1/items/{item_id}",
        "DELETE /v1/items/{item_id}", "DELETE /v1/users/{user_id}", "PUT /v1/models/default",
        "POST /v1/models/{name}", "DELETE /v1/models/{name}", "PUT /v1/scenarios/{name}",
        "DELETE /v1/scenarios/{name}", "GET /v1/blocks", "PUT /v1/blocks", "GET /v1/acceptance",
        "GET /v1/export", "GET /v1/experiments", "GET /v1/experiments/{name}",
        "PUT /v1/experiments/{name}", "DELETE /v1/experiments/{name}",
        "POST /v1/experiments/{name}/stop",
    ],
}  # fmt: skip


def test_every_route_needs_the_scope_that_it_should(shared: TestClient) -> None:
    document = shared.get("/openapi.json").json()
    routes = {
        f"{method.upper()} {path}": about.get("x-scope")
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    }
    assert routes == {route: scope for scope, those in SCOPES.items() for route in those}
    for path in ("/v1/recommend/", "/v1/items", "/v1/", "/", "/v1//recommend", "/openapi.json/"):
        assert scope_of("POST", path) == "admin"
    assert scope_of("GET", "/v1/nothing") == "admin"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.json"
    return {
        scope: new_key(file, f"the {scope}", [scope]) for scope in ("read", "feedback", "admin")
    }


@pytest.fixture
def guarded(tmp_path: Path, keys: dict[str, str]) -> Iterator[TestClient]:
    guard = Guard(read_keys(tmp_path / "keys.json"), rate="40/minute")
    with served.opened(tmp_path, guard=guard) as found:
        yield found


def test_a_key_allows_what_its_scopes_say(guarded: TestClient, keys: dict[str, str]) -> None:
    def ask(method: str, path: str, key: str | None, body: Any = None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return guarded.request(method, path, json=body, headers=headers).status_code

    event = {"user_id": "u1", "item_id": "i0", "behavior": "buy"}
    requests = [
        ("read", "POST", "/v1/recommend", {"user_id": "u1", "k": 1}),
        ("read", "GET", "/metrics", None),
        ("feedback", "POST", "/v1/feedback", event),
        ("admin", "PUT", "/v1/items/n", {"title": "new"}),
        ("admin", "GET", "/v1/export", None),
    ]
    for needed, method, path, body in requests:
        for scope, key in keys.items():
            allowed = scope in {needed, "admin"}
            assert (ask(method, path, key, body) == 200) is allowed, (scope, path)
            assert allowed or ask(method, path, key, body) == 403
        assert ask(method, path, None, body) == 401
        assert ask(method, path, keys["read"] + "x", body) == 401
        assert ask(method, path, "", body) == 401
    for path in ("/livez", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert ask("GET", path, None) == 200
    session = {"history": [{"item_id": "i1", "behavior": "buy"}], "keep": True}
    assert ask("POST", "/v1/sessions", keys["read"], session) == 403
    refused = guarded.get("/v1/models")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["title"] == "A key is needed"


def test_a_key_may_not_be_used_too_often(guarded: TestClient, keys: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {keys['read']}"}
    statuses = [guarded.get("/v1/models", headers=headers).status_code for _ in range(45)]
    assert statuses == [200] * 40 + [429] * 5
    refused = guarded.get("/v1/models", headers=headers)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    other = {"Authorization": f"Bearer {keys['admin']}"}
    assert guarded.get("/v1/models", headers=other).status_code == 200


def test_only_hashes_are_stored(tmp_path: Path, keys: dict[str, str]) -> None:
    file = tmp_path / "keys.json"
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    for key in keys.values():
        assert len(key) > 45
        assert key not in text
        assert key.removeprefix("genrec_") not in text
    changed = new_key(file, "the read", ["read", "feedback"])
    assert [k.name for k in read_keys(file)] == ["the feedback", "the admin", "the read"]
    assert changed != keys["read"]
    with pytest.raises(SettingsError, match="Expected one or more of: read, feedback, admin"):
        new_key(file, "x", ["write"])
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(SettingsError, match="file of keys"):
        read_keys(file)


def test_the_command_makes_keys(run: Run, tmp_path: Path) -> None:
    code, out, err = run("key", tmp_path / "k.json", "--name", "shop", "--scopes", "read,feedback")
    assert code == 0, err
    (key,) = read_keys(tmp_path / "k.json")
    assert key.scopes == ("read", "feedback")
    found = Guard([key]).check({"authorization": f"bearer {out.strip()}"}, "feedback")
    assert found == key


def test_pages_of_other_sites_cannot_use_a_service_without_keys(tmp_path: Path) -> None:
    guard = Guard((), hosts=("127.0.0.1", "localhost"))
    with served.opened(tmp_path, guard=guard) as client:
        client.base_url = cast("Any", "http://127.0.0.1:8000")
        assert client.get("/v1/models").status_code == 200
        rebound = client.get("/v1/models", headers={"Host": "evil.example:8000"})
        assert rebound.status_code == 421
        for origin in ("https://evil.example", "null", "http://127.0.0.1:9000"):
            body = {"user_id": "u1", "item_id": "i0", "behavior": "buy"}
            answer = client.post("/v1/feedback", json=body, headers={"Origin": origin})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        own = client.get("/v1/models", headers={"Origin": "http://127.0.0.1:8000"})
        assert own.status_code == 200


def test_loopback_is_recognized() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", ""):
        assert not is_loopback(host)


def test_every_answer_has_the_headers_that_protect_it(shared: TestClient) -> None:
    paths = ("/livez", "/v1/models", "/v1/nothing", "/docs")
    for answer in map(shared.get, paths):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    page = shared.get("/docs")
    assert "<script" not in page.text
    assert "unsafe" not in page.headers["content-security-policy"]


def test_the_log_has_no_bodies_no_ids_and_no_keys(shared: TestClient) -> None:
    stream = io.StringIO()
    handlers, level = LOG.handlers[:], LOG.level
    log_to(stream)
    try:
        secret = {"Authorization": "Bearer genrec_secret", "X-Request-ID": "known"}
        event = {"user_id": "a-secret-user", "item_id": "i0", "behavior": "buy"}
        shared.post("/v1/feedback", json=event, headers=secret)
        shared.post("/v1/recommend", json={"history": "bought: a-secret-thing"}, headers=secret)
        shared.get("/v1/users/a-secret-user?prefix=secret", headers=secret)
        shared.post("/v1/recommend", json={"user_id": "u1", "secret": "secret"}, headers=secret)
    finally:
        LOG.handlers[:] = handlers
        LOG.setLevel(level or logging.NOTSET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "secret" not in stream.getvalue()
    assert [line["route"] for line in lines] == [
        "/v1/feedback", "/v1/recommend", "/v1/users/{user_id:path}", "/v1/recommend",
    ]  # fmt: skip
    assert [line["status"] for line in lines] == [200, 200, 200, 422]
    assert {line["request_id"] for line in lines} == {"known"}
    assert service_of(shared).shop.delete_user("a-secret-user") == 1
