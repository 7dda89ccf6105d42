"""A user's profile over HTTP: its corrections are stored, followed and deleted with the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support import served
from support.served import ids, recommend


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def exported(client: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get("/v1/export").text.splitlines()]


def test_the_next_list_follows_the_corrections(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        every = {"k": 12, "user_id": "u1", "show": "all", "allow_last_basket": True}
        before = recommend(client, **every)
        assert any("doll" in r["title"] for r in before["recommendations"])
        put = {"added": ["Candle"], "banned": ["dolls"]}
        kept = ok(client.put("/v1/users/u1/profile", json=put))
        assert kept == {
            "user_id": "u1",
            "edits": {"added": ["Candle"], "removed": [], "banned": ["dolls"]},
        }
        after = recommend(client, **every)
        assert not any("doll" in r["title"] for r in after["recommendations"])
        boosts = {r["title"]: r["boost"] for r in after["recommendations"]}
        assert {t for t, b in boosts.items() if b > 1.5} == {t for t in boosts if "candle" in t}
        assert ids(recommend(client, **every, profile_edits={})) == ids(before)
        assert ids(recommend(client, **{**every, "user_id": "u2"}))  # other users are not affected
        changed = ok(client.patch("/v1/user/profile", params={"id": "u1"}, json={"banned": None}))
        assert changed["edits"] == {"added": ["Candle"], "removed": [], "banned": []}
    with served.opened(tmp_path) as client:
        found = ok(client.get("/v1/users/u1/profile"))
        assert found["edits"]["added"] == ["Candle"]
        assert (found["user_id"], found["measured"]) == ("u1", "prior")
        assert ("Candle", "added") in [(i["keyword"], i["source"]) for i in found["interests"]]
        assert "Added by the customer: Candle." in found["text"]["en"]
        assert ok(client.get("/v1/users/u1"))["labels"] == {}
        assert ok(client.delete("/v1/users/u1"))["events"] > 0
        assert client.get("/v1/users/u1/profile").status_code == 404
        assert not [r for r in exported(client) if r["table"] == "users"]


def test_wrong_corrections_change_nothing(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        path = "/v1/users/u1/profile"
        ok(client.put(path, json={"added": ["tea"]}))
        wrongs: list[dict[str, Any]] = [
            {"added": "tea"}, {"liked": []}, {"added": ["..."]}, {"added": [""]},
            {"added": ["tea"] * 101}, {"banned": ["tea"], "added": ["teas"]}, {"banned": ["x" * 101]},
        ]  # fmt: skip
        for wrong in wrongs:
            assert client.put(path, json=wrong).status_code == 422, wrong
        assert ok(client.get(path))["edits"] == {"added": ["tea"], "removed": [], "banned": []}
        assert client.get("/v1/users/nobody/profile").status_code == 404
        ok(client.patch("/v1/users/nobody/profile", json={"removed": ["mug"]}))
        assert ok(client.get("/v1/users/nobody/profile"))["events"] == 0
