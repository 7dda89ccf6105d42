"""Every id that a dataset may contain works in every request, with ``/v1/item?id=`` in a browser, too."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from support.amount import EXAMPLES
from support.served import ids, recommend
from support.served import shared as shared

from genrec import Dataset
from genrec.data.catalog import LONGEST_ID, Catalog
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError

HOSTILE = [
    ".", "..", "../..", "/", "a/../b", "a/b", "%2e%2e", "%2F", "%00", "%", "?id=i1", "#", "&id=i1",
    "i1/neighbors", "a b", "+", "\\", "a\nb", "a\tb", "\x7f", "\x1b[31m", "\u202e", "\ud7ff", "e\u0301",
    "null", "i0.0", "{item_id}", "<b>", "'; drop table events; --", "x" * LONGEST_ID, "🙈" * 100,
]  # fmt: skip


def accepted(item_id: str) -> str | None:
    """The id as ``prepare`` reads it; None if it is set aside."""
    table = pa.table({"item_id": [item_id, "other"], "title": ["a title", "another"]})
    read = next(iter(Catalog.from_table(table, rejects=Rejects("items")))).item_id
    return None if read == "other" else read


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def walk(client: TestClient, name: str) -> None:
    """Use an id as that of an item, of a user and of a session, in every request."""
    here = {"id": name}
    assert ok(client.put("/v1/item", params=here, json={"title": "odd mug"}))["item_id"] == name
    assert ok(client.get("/v1/item", params=here))["title"] == "odd mug"
    ok(client.patch("/v1/item", params=here, json={"attributes": {"price": 2.5}}))
    ok(client.post("/v1/items:bulk", json={"put": [{"item_id": name, "title": "odd mug"}]}))
    for owner in ("user_id", "session_id"):
        event = {owner: name, "item_id": name, "behavior": "buy"}
        ok(client.post("/v1/feedback", json=event))
        assert recommend(client, **{owner: name}, show="all", k=1)["prompt"]["events"] == 1
    assert ok(client.get("/v1/user", params=here))["history"][0]["item_id"] == name
    assert name in ok(client.get("/v1/users", params={"prefix": name}))["users"]
    after = ok(client.get("/v1/users", params={"after": name}))["users"]
    assert all(user > name for user in after)
    assert ids(recommend(client, history="", k=1, allow=[name])) == [name]
    assert name not in ids(recommend(client, history="", k=100, deny=[name]))
    events = [{"item_id": name, "behavior": "buy"}]
    ok(client.post("/v1/sessions", json={"history": events, "k": 1}))
    for path in ("/v1/rank", "/v1/score"):
        found = ok(client.post(path, json={"history": "", "candidates": [name, "i1"]}))
        assert name in ids(found)
    ok(client.post("/v1/similar", json={"items": [name], "k": 1}))
    asked = {"user_id": name, "item_id": name, "evidence": "fast"}
    assert ok(client.post("/v1/explain", json=asked))["item_id"] == name
    ok(client.post("/v1/prompt", json={"user_id": name}))
    assert ok(client.put("/v1/blocks", json={"item_ids": [name]}))["blocked"] == 1
    ok(client.put("/v1/blocks", json={}))
    assert ok(client.delete("/v1/session", params=here))["events"] == 1
    assert ok(client.delete("/v1/user", params=here))["events"] == 1
    assert ok(client.delete("/v1/item", params=here))["state"] == "removed"


@settings(max_examples=EXAMPLES // 10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=30))
@example(text="..")
@example(text="a/../b\n%2F" + "x" * (LONGEST_ID - 10))
@example(text="a\0b")
def test_every_id_that_a_dataset_may_contain_works(shared: TestClient, text: str) -> None:
    name = accepted(text)
    if name is None:
        answer = shared.get("/v1/item", params={"id": text})
        assert answer.status_code in {404, 422}
        return
    if name not in {"i0.0", *(f"i{n}" for n in range(12))}:
        walk(shared, name)
    # the path has it, too, as long as no browser stands between
    answer = shared.get(f"/v1/items/{quote(name, safe='')}")
    assert answer.status_code in {200, 404, 422}


def test_ids_that_no_database_can_keep_are_set_aside() -> None:
    good = "x" * LONGEST_ID
    for bad in ("x" * (LONGEST_ID + 1), "a\0b"):
        items = pa.table({"item_id": [good, bad], "title": ["one", "two"]})
        events = {"item_id": [good] * 6, "behavior": ["buy"] * 6, "timestamp": [*range(6)]}
        users = {"user_id": ["a", "a", "a", "b", "b", "b"]}
        kept = Rejects("items")
        assert [i.item_id for i in Catalog.from_table(items, rejects=kept)] == [good]
        with pytest.raises(DataError, match="more than 500 characters or contains a NUL"):
            Dataset.from_tables(items, pa.table(users | events), name="odd")
        users = {"user_id": ["a", "a", "a", bad, "b", "b"]}
        with pytest.raises(DataError, match="user_id has more than 500"):
            Dataset.from_tables(items[:1], pa.table(users | events), name="odd")
