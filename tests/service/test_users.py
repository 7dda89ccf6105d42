"""What is known of a user: labels, neighbors and the list of all ids; and single events that are deleted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from support import served
from support.amount import EXAMPLES
from support.served import buy, ids, recommend, service_of
from support.served import client as client

from genrec import Interaction
from genrec.data.exports import read_export
from genrec.data.feedback import add_feedback
from genrec.service.neighbors import NeighborIndex
from genrec.service.security import Guard, new_key, read_keys
from genrec.service.store import Event, Store
from genrec.service.users import put_labels, sorted_ids_after, stored_user_ids


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def counted(client: TestClient) -> dict[str, float]:
    """The scores of all items by counting alone, for a user whose own events stay as they are."""
    everything = {"k": 12, "show": "all", "allow_last_basket": True, "per_group": 0}
    answer = recommend(client, user_id="u2", counting=True, impression=False, **everything)
    return {r["item_id"]: r["score"] for r in answer["recommendations"]}


def test_labels_are_stored_shown_exported_and_deleted_with_the_user(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        assert ok(client.get("/v1/users/u1"))["labels"] == {}
        put = {"country": "GB", "tags": ["a", "b"], "tier": 2}
        assert ok(client.put("/v1/users/u1", json={"labels": put}))["labels"] == put
        changed = {"tier": None, "country": "DE"}
        kept = ok(client.patch("/v1/users/u1", json={"labels": changed}))["labels"]
        assert kept == {"country": "DE", "tags": ["a", "b"]}
        ok(client.put("/v1/users/new", json={"labels": {}}))  # no events yet
    with served.opened(tmp_path) as client:
        assert ok(client.get("/v1/users/u1"))["labels"] == kept
        assert ok(client.get("/v1/users/new"))["history"] == []
        assert "new" in ok(client.get("/v1/users", params={"prefix": "n"}))["users"]
        rows = [json.loads(line) for line in client.get("/v1/export").text.splitlines()]
        labels = {r["user_id"]: json.loads(r["labels"]) for r in rows if r["table"] == "users"}
        assert labels == {"u1": kept, "new": {}}
        before = recommend(client, user_id="u2", k=12)
        ok(client.put("/v1/users/u2", json={"labels": {"a": 1}}))
        assert ids(recommend(client, user_id="u2", k=12)) == ids(before)
        for user in ("u1", "new"):
            ok(client.delete(f"/v1/users/{user}"))
            assert client.get(f"/v1/users/{user}").status_code == 404
        rows = [json.loads(line) for line in client.get("/v1/export").text.splitlines()]
        assert [r["user_id"] for r in rows if r["table"] == "users"] == ["u2"]


def test_a_deleted_event_is_gone_from_lists_and_counts_at_once(client: TestClient) -> None:
    shop, everything = service_of(client).shop, len(served.TITLES)
    before = recommend(client, user_id="u1", k=everything)
    scores = counted(client)
    (number,) = buy(client, "u1", "i11")
    shop.refresh()
    assert counted(client) != pytest.approx(scores)
    assert "i11" not in ids(recommend(client, user_id="u1", k=everything))
    history = ok(client.get("/v1/users/u1"))["history"]
    assert [e["sequence"] for e in history] == [None] * 5 + [number]
    assert ok(client.delete(f"/v1/feedback/{number}")) == {"user_id": "u1", "events": 1}
    assert counted(client) == pytest.approx(scores)
    after = recommend(client, user_id="u1", k=everything)
    pairs = zip(after["recommendations"], before["recommendations"], strict=True)
    assert all(now == pytest.approx(then) for now, then in pairs)
    assert buy(client, "u1", "i11")[0] > number  # a number is never used again


def test_events_of_the_dataset_can_be_deleted_and_stay_deleted(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        first = ok(client.get("/v1/users/u1"))["history"][0]
        named = {"user_id": "u1", "item_id": first["item_id"], "behavior": first["behavior"]}
        buy(client, "u1", first["item_id"])
        answer = ok(client.delete("/v1/feedback", params=named))
        assert answer["events"] == 2
        left = [e["item_id"] for e in ok(client.get("/v1/users/u1"))["history"]]
        assert len(left) == 4
        assert first["item_id"] not in left
        plain = served.made_shop()
        mask = np.array(
            [
                plain.interactions.user_ids[plain.interactions.columns.user[n]] == "u1"
                and plain.interactions.interaction(n).item_id == first["item_id"]
                for n in range(len(plain.interactions))
            ]
        )
        scores = counted(client)
    with served.opened(tmp_path) as client:
        left_then = [e["item_id"] for e in ok(client.get("/v1/users/u1"))["history"]]
        assert left_then == left
        assert counted(client) == pytest.approx(scores)
        buy(client, "u1", first["item_id"])  # what comes later counts again
        assert len(ok(client.get("/v1/users/u1"))["history"]) == 5
        buy(client, "u9", "i11")
        (tmp_path / "export.jsonl").write_text(client.get("/v1/export").text, encoding="utf-8")
    export = read_export(tmp_path / "export.jsonl")
    assert export.deleted.mask(plain.interactions).tolist() == mask.tolist()
    longer, new = add_feedback(plain, export)
    assert len(longer.interactions) == len(plain.interactions) - 1 + int(new.sum())


def test_events_of_sessions_and_odd_requests(client: TestClient) -> None:
    kept = {"history": [{"item_id": "i1", "behavior": "view"}], "keep": True, "session_id": "s"}
    ok(client.post("/v1/sessions", json=kept))
    assert (
        ok(client.delete("/v1/feedback", params={"session_id": "s", "item_id": "i1"}))["events"]
        == 1
    )
    for query in (
        {"item_id": "i1"}, {"user_id": "u1"}, {"user_id": "u1", "session_id": "s", "item_id": "i1"},
        {"user_id": "a\0", "item_id": "i1"},
    ):  # fmt: skip
        assert client.delete("/v1/feedback", params=query).status_code == 422
    for number in ("0", "-1", "x", str(2**64)):
        assert client.delete(f"/v1/feedback/{number}").status_code == 422


def test_neighbors_are_those_of_plain_counting(client: TestClient) -> None:
    buy(client, "u1", "i11", "i11", "i0")
    buy(client, "new", "i11", "i1")
    buy(client, "gone", "i11", "i1")
    ok(client.delete("/v1/users/gone"))
    ok(client.delete("/v1/users/u5"))
    shop = service_of(client).shop
    users = {*shop.dataset.interactions.user_ids, "new"} - {"u5"}
    owned = {
        u: {str(e.item_id) for e in shop.history(u).interactions if e.behavior == "buy"}
        for u in users
    }
    for user in ("u1", "new", "u2"):
        expected = {
            u: len(owned[u] & owned[user]) / math.sqrt(len(owned[u]) * len(owned[user]))
            for u in users
            if u != user and owned[u] & owned[user]
        }
        answer = ok(client.post("/v1/neighbors", json={"user_id": user, "k": 100, "items": True}))
        found = {n["user_id"]: n["similarity"] for n in answer["neighbors"]}
        assert found == pytest.approx(expected)
        order = sorted(found, key=lambda u: (-found[u], u))
        assert [n["user_id"] for n in answer["neighbors"]] == order
        for one in answer["neighbors"]:
            assert one["items"] == sorted(owned[user] & owned[one["user_id"]])
    assert ok(client.post("/v1/neighbors", json={"user_id": "nobody"}))["neighbors"] == []
    ok(client.delete("/v1/feedback", params={"user_id": "new", "item_id": "i11"}))
    again = ok(client.post("/v1/neighbors", json={"user_id": "new", "k": 100, "items": True}))
    assert all(one["items"] == ["i1"] for one in again["neighbors"])


def test_what_others_did_needs_the_scope_admin(tmp_path: Path) -> None:
    keys = {s: new_key(tmp_path / "k.json", s, [s]) for s in ("read", "feedback", "admin")}
    with served.opened(tmp_path, guard=Guard(read_keys(tmp_path / "k.json"))) as client:

        def ask(scope: str, **body: Any) -> Any:
            headers = {"Authorization": f"Bearer {keys[scope]}"}
            return client.post("/v1/neighbors", json={"user_id": "u1", **body}, headers=headers)

        assert ask("feedback").status_code == 403
        assert ask("read", items=True).status_code == 403
        assert {*ok(ask("read"))["neighbors"][0]} == {"user_id", "similarity"}
        assert ok(ask("admin", items=True))["neighbors"][0]["items"]
        for scope, status in (("read", 403), ("feedback", 403), ("admin", 200)):
            headers = {"Authorization": f"Bearer {keys[scope]}"}
            query = {"user_id": "u1", "item_id": "i1"}
            assert (
                client.delete("/v1/feedback", params=query, headers=headers).status_code == status
            )
            put = client.put("/v1/user", params={"id": "u1"}, json={"labels": {}}, headers=headers)
            assert put.status_code == status


def test_later_events_of_known_users_count_once() -> None:
    data = served.made_shop(2)
    index = NeighborIndex(data.interactions, "buy")
    start = {e.item_id for e in data.interactions.history("u0").interactions if e.behavior == "buy"}
    index.add(Event(Interaction(item, "buy"), "other") for item in sorted(map(str, start)) * 2)
    index.add(
        [
            Event(Interaction(str(min(map(str, start))), "buy"), "u0"),
            Event(Interaction(None, "buy"), "u0"),
        ]
    )
    best = index.find("u0", 1)[0]
    assert best.user_id == "other"
    assert best.similarity == pytest.approx(1.0)
    assert NeighborIndex(data.interactions, "none").find("u0", 3) == []


NAMES = st.text(st.sampled_from("aAb-_%éß🙈\U0010ffff"), min_size=1, max_size=4)


@settings(max_examples=max(5, EXAMPLES // 3), deadline=None)
@given(
    st.sets(NAMES, max_size=12), st.sets(NAMES, max_size=6), NAMES | st.just(""), st.integers(1, 4)
)
def test_all_pages_together_are_the_sorted_ids(
    stored: set[str], labeled: set[str], prefix: str, limit: int
) -> None:
    store = Store("sqlite://")
    if stored:
        store.add_events([Event(Interaction("i", "buy", 1.0), name) for name in sorted(stored) * 2])
    for name in labeled:
        put_labels(store, name, {}, replace=True)
    expected = sorted(u for u in stored | labeled if u.startswith(prefix))
    found, after = [], ""
    while page := stored_user_ids(store, prefix, after, limit):
        found += page
        after = page[-1]
        assert len(page) <= limit
    store.close()
    assert found == expected
    everything = sorted(stored | labeled)
    gone = frozenset(everything[::3])
    kept = [u for u in expected if u not in gone]
    found, after = [], ""
    while page := sorted_ids_after(everything, prefix, after, limit, gone):
        found += page
        after = page[-1]
    assert found == kept
