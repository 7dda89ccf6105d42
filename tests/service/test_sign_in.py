"""Signing in to the page, its files and its policy, without a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import served
from support.served import client as client
from support.served import shared as shared

from genrec.errors import SettingsError
from genrec.service import sign_in
from genrec.service.page_files import FOLDER, page_files, policy_of, read_hosts
from genrec.service.security import Guard, new_key, read_keys
from genrec.service.sign_in import COOKIE, SignIns

EVENT = {"user_id": "u1", "item_id": "i0", "behavior": "buy"}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.json"
    return {scope: new_key(file, f"the {scope}", [scope]) for scope in ("read", "feedback")} | {
        "admin": new_key(file, "the admin", ["admin"])
    }


@pytest.fixture
def guarded(tmp_path: Path, keys: dict[str, str]) -> Iterator[TestClient]:
    guard = Guard(read_keys(tmp_path / "keys.json"), rate="50/minute")
    with served.opened(tmp_path, guard=guard) as found:
        yield found


def enter(client: TestClient, key: str) -> Any:
    answer = client.post("/signin", json={"key": key})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_key_is_exchanged_for_a_cookie_without_it(
    guarded: TestClient, keys: dict[str, str]
) -> None:
    nobody = guarded.get("/session").json()
    assert nobody == {"key_needed": True, "name": None, "scopes": [], "token": None}
    assert guarded.get("/v1/models").status_code == 401
    answer = guarded.post("/signin", json={"key": keys["feedback"]})
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {*cookie.split("; ")}
    assert "Secure" not in cookie
    assert keys["feedback"] not in cookie + answer.text
    assert len(cookie.partition("=")[2].partition(";")[0]) > 40
    found = guarded.get("/session").json()
    assert found == answer.json()
    assert (found["name"], found["scopes"]) == ("the feedback", ["feedback"])
    assert guarded.get("/v1/models").status_code == 403  # the key may only store events
    token = {"X-CSRF-Token": found["token"]}
    assert guarded.post("/v1/feedback", json=EVENT, headers=token).status_code == 200
    for scheme in ({"X-Forwarded-Proto": "https"}, {"X-Forwarded-Proto": "HTTPS"}):
        behind = guarded.post("/signin", json={"key": keys["read"]}, headers=scheme)
        assert "; Secure" in behind.headers["set-cookie"]


def test_what_changes_something_needs_the_token(guarded: TestClient, keys: dict[str, str]) -> None:
    found = enter(guarded, keys["admin"])
    assert found["scopes"] == ["read", "feedback", "admin"]
    assert guarded.get("/v1/models").status_code == 200
    other = SignIns().open("x" * 64)[1].token
    wrong_tokens: list[dict[str, Any]] = [{"X-CSRF-Token": v} for v in ("", other, b"\xe9")]
    for headers in ({}, *wrong_tokens):
        for method, path in (
            ("POST", "/v1/feedback"),
            ("DELETE", "/v1/users/u1"),
            ("POST", "/signout"),
        ):
            refused = guarded.request(method, path, json=EVENT, headers=headers)
            assert refused.status_code == 403
            assert "X-CSRF-Token" in refused.json()["detail"]
    assert guarded.get("/v1/users/u1").json()["events"] == 5
    bearer = {"Authorization": f"Bearer {keys['feedback']}"}  # a key of its own needs no token
    assert guarded.post("/v1/feedback", json=EVENT, headers=bearer).status_code == 200
    wrong = {"Authorization": "Bearer wrong", "X-CSRF-Token": found["token"]}
    assert guarded.post("/v1/feedback", json=EVENT, headers=wrong).status_code == 401
    token = {"X-CSRF-Token": found["token"]}
    out = guarded.post("/signout", headers=token)
    assert out.json()["scopes"] == []
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert guarded.get("/session").json()["token"] is None


def test_signing_out_ends_the_session_and_not_only_the_cookie(
    guarded: TestClient, keys: dict[str, str]
) -> None:
    token = {"X-CSRF-Token": enter(guarded, keys["admin"])["token"]}
    stolen = {"Cookie": f"{COOKIE}={guarded.cookies[COOKIE]}; other=1"}
    guarded.cookies.clear()
    assert guarded.get("/v1/models", headers=stolen).status_code == 200
    assert guarded.post("/signout", headers={**stolen, **token}).status_code == 200
    assert guarded.get("/v1/models", headers=stolen).status_code == 401
    assert guarded.get("/v1/models", headers={"Cookie": f"{COOKIE}="}).status_code == 401


def test_unknown_keys_are_refused_and_counted(guarded: TestClient) -> None:
    statuses = [guarded.post("/signin", json={"key": f"k{n}"}).status_code for n in range(55)]
    assert statuses == [401] * 50 + [429] * 5
    assert guarded.post("/signin", content=b'{"key": "k"}').status_code == 422  # not sent as JSON
    assert guarded.post("/signin", json={"key": ""}).status_code == 422


def test_sign_ins_end_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SignIns()
    first, made = known.open("a" * 64)
    headers = {"cookie": f"{COOKIE}={first}"}
    assert known.find(headers) == made
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11 * 3600)
    assert known.find(headers)  # it is used, so it goes on
    monkeypatch.setattr(time, "monotonic", lambda: now + 22 * 3600)
    assert known.find(headers)
    monkeypatch.setattr(time, "monotonic", lambda: now + 35 * 3600)
    assert known.find(headers) is None
    monkeypatch.setattr(sign_in, "_MOST", 3)
    opened = [known.open("b" * 64)[0] for _ in range(5)]
    alive = [known.find({"cookie": f"{COOKIE}={one}"}) is not None for one in opened]
    assert alive == [False, False, True, True, True]


def test_without_keys_there_is_nothing_to_sign_in_to(shared: TestClient) -> None:
    found = shared.get("/session").json()
    assert found["scopes"] == ["read", "feedback", "admin"]
    assert not found["key_needed"]
    assert shared.post("/signin", json={"key": "k"}).status_code == 409


def test_the_page_and_its_files(guarded: TestClient) -> None:
    page = guarded.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy == policy_of(())
    assert "unsafe" not in policy
    assert "https:" not in policy
    assert "script-src 'self'; style-src 'self'; img-src 'self';" in policy
    assert page.headers["cache-control"] == "no-store"
    addresses = [part.partition('"')[0] for part in page.text.split('href="')[1:]]
    addresses += [part.partition('"')[0] for part in page.text.split('src="')[1:]]
    files = [a for a in addresses if a.startswith("/page/")]
    assert {*addresses} - {*files} == {"/docs"}
    assert len(files) > 15
    for address in files:
        answer = guarded.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    version = page_files().version
    for path in (
        f"/page/{version}/index.html", f"/page/{version}/../app.py", f"/page/{version}/%2e%2e/app.py",
        f"/page/{version}/..%2fapp.py", f"/page/{version}/vendor", f"/page/{version}//etc/passwd",
        f"/page/{version}/vendor%2f..%2f..%2fapp.py", "/page/0000000000000000/app.js", "/page/x",
    ):  # fmt: skip
        assert guarded.get(path).status_code in {404, 401}, path
    assert guarded.post("/", json={}).status_code == 401


def test_no_file_of_the_page_writes_html_or_asks_another_server() -> None:
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
        ):
            assert word not in text, (path, word)
        assert "http://" not in text, path
        assert len(text.splitlines()) <= 500, path
    assert "https://" not in (FOLDER / "index.html").read_text(encoding="utf-8")
    for name in ("preact", "htm", "uplot"):
        assert (FOLDER / "vendor" / f"{name}.LICENSE.txt").stat().st_size > 500


def test_both_languages_have_all_words() -> None:
    text = (FOLDER / "words.js").read_text(encoding="utf-8")
    tables = re.findall(r"^const (?:EN|ZH) = \{$(.*?)^\};$", text, re.M | re.S)
    entry = r'(?:^  | )"([^"]+)": "((?:[^"\\]|\\.)*)",(?=$| ")'  # some share a line
    names = [re.findall(entry, table, re.M) for table in tables]
    assert [len(pairs) for pairs in names] == [table.count('": "') for table in tables]
    english, chinese = (dict(pairs) for pairs in names)
    assert [len(pairs) for pairs in names] == [len(english), len(chinese)]  # none twice
    assert len(english) > 150
    assert english.keys() == chinese.keys()
    for name, words in english.items():
        assert sorted(re.findall(r"\{\w+\}", words)) == sorted(
            re.findall(r"\{\w+\}", chinese[name])
        )
    code = "".join(p.read_text(encoding="utf-8") for p in FOLDER.glob("*.js"))
    used = set(re.findall(r'\bt\(\s*"([^"]+)"', code))
    assert used <= english.keys()


def test_hosts_of_pictures_are_checked() -> None:
    assert read_hosts(None) == ()
    assert read_hosts("CDN.example.com, *.shop.example,cdn.example.com") == (
        "cdn.example.com",
        "*.shop.example",
    )
    policy = policy_of(read_hosts("cdn.example.com:8443,*.shop.example"))
    assert "img-src 'self' https://cdn.example.com:8443 https://*.shop.example;" in policy
    wrong = (
        "https://cdn.example.com", "cdn.example.com/a", "*", "*.com.*", "a b.example", "x.example; script-src *",
        "localhost", "'self'", "-a.example", "a..example", "data:", "example.com:0",
    )  # fmt: skip
    for host in wrong:
        with pytest.raises(SettingsError, match="Expected names of hosts without https"):
            read_hosts(host)


def test_the_shop_is_described(client: TestClient) -> None:
    found = client.get("/v1/shop").json()
    assert (found["name"], found["items"], found["behavior"]) == ("shop", 12, "buy")
    assert found["behaviors"] == ["buy", "view"]
    assert found["words"]["zh"]["buy"] == "购买了"
    assert found["columns"] == [{"name": "price", "kind": "number", "least": 1.0, "most": 12.0}]
    assert found["shows"] == ["new", "again"]
    assert found["counts"]
    values = {
        "color": "red", "new": True, "price": float("nan"), "sizes": [1, 2], "note": "x" * 200,
    }  # fmt: skip
    plain = {n: v for n, v in values.items() if v == v}
    assert client.put("/v1/items/n", json={"title": "n", "attributes": plain}).status_code == 200
    client.delete("/v1/items/i1")
    found = client.get("/v1/shop").json()
    assert found["items"] == 12
    kinds = {c["name"]: (c["kind"], c.get("values")) for c in found["columns"]}
    assert kinds == {
        "price": ("number", None), "color": ("text", ["red"]), "new": ("flag", None),
        "sizes": ("other", None), "note": ("text", []),
    }  # fmt: skip


def test_answers_have_attributes_only_if_they_are_asked_for(shared: TestClient) -> None:
    asked: dict[str, Any] = {
        "/v1/recommend": {"user_id": "u1", "k": 2}, "/v1/search": {"query": "mug"},
        "/v1/similar": {"items": ["i0"], "k": 2},
    }  # fmt: skip
    for path, body in asked.items():
        name = "similar" if path == "/v1/similar" else "recommendations"
        for one in shared.post(path, json=body).json()[name]:
            assert "attributes" not in one
        for one in shared.post(path, json={**body, "attributes": True}).json()[name]:
            assert one["attributes"] == {"price": float(one["item_id"][1:]) + 1}


def test_counting_makes_the_list_if_it_is_asked_to(shared: TestClient) -> None:
    both = {"user_id": "u1", "k": 7, "show": "new"}
    counted = shared.post("/v1/recommend", json={**both, "counting": True}).json()
    ranked = shared.post("/v1/recommend", json=both).json()
    assert (counted["fallback"], ranked["fallback"]) == ("asked", None)
    assert sorted(served.ids(counted)) == sorted(served.ids(ranked))
    priors = [r["logprob_prior"] for r in counted["recommendations"]]
    assert priors == sorted(priors, reverse=True)
    assert priors != [r["logprob_prior"] for r in ranked["recommendations"]]


def test_the_prompt_comes_in_pieces_of_events(shared: TestClient) -> None:
    history = [
        {"item_id": "i0", "behavior": "buy"}, {"text": "blue 🫖", "behavior": "search"},
        {"item_id": "i3", "behavior": "dislike"}, {"item_id": "i2", "behavior": "view"},
    ]  # fmt: skip
    found = shared.post("/v1/prompt", json={"history": history}).json()
    pieces = {p["event"]: p["text"] for p in found["pieces"] if p["event"] is not None}
    assert pieces == {
        0: "bought: red mug\n", 1: 'searched: "blue 🫖"\n', 2: "viewed: red doll house\n",
    }  # fmt: skip
    whole = "".join(p["text"] for p in found["pieces"])
    assert whole.startswith("A customer's history, oldest first:\nbought: red mug\n")
    assert whole.endswith("\nbought:")
    assert (found["events"], found["run"]) == (3, "tiny")
    assert found["tokens"] > 20


def test_what_a_user_refuses_is_in_no_list_and_speaks_for_nothing(client: TestClient) -> None:
    def listed(**more: Any) -> list[str]:
        return served.ids(served.recommend(client, user_id="u1", k=12, show="all", **more))

    before = listed()
    rank = {"user_id": "u1", "candidates": ["i0", "i3"]}
    event = {"user_id": "u1", "item_id": before[0], "behavior": "not_interested"}
    assert client.post("/v1/feedback", json=event).status_code == 200
    assert listed() == before[1:]  # the scores of the others do not change
    assert listed(deny=[before[1]]) == before[2:]
    client.post("/v1/feedback", json={**event, "item_id": before[1], "behavior": "dislike"})
    assert listed() == before[2:]
    told = client.post("/v1/explain", json={"user_id": "u1", "item_id": before[0]}).json()
    assert told["excluded_by"] == "filters"
    assert {e["behavior"] for e in told["explanation"]["evidence"]} <= {"buy", "view"}
    search = client.post("/v1/search", json={"user_id": "u1", "query": "mug"}).json()
    assert {*served.ids(search)} == {"i0", "i3"}
    assert {*served.ids(client.post("/v1/score", json=rank).json())} == {"i0", "i3"}
    client.post("/v1/feedback", json={**event, "behavior": "view"})  # the user thinks again
    assert before[0] in listed()
    assert before[1] not in listed()
