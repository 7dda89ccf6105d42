"""What was acknowledged holds for the next answer: events, items, blocks and deletions."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support import served
from support.amount import EXAMPLES
from support.served import buy, ids, made_shop, recommend, recommender, service_of
from support.served import client as client

from genrec import History, Interaction, Item
from genrec.service.shop import Engine, Shop
from genrec.service.store import Event, Store
from genrec.service.tables import sqlite_url

ALL = len(served.TITLES)


def test_an_event_is_in_the_users_next_list(client: TestClient) -> None:
    before = recommend(client, user_id="u1", k=ALL)
    assert "i11" in ids(before)
    buy(client, "u1", "i11")
    after = recommend(client, user_id="u1", k=ALL)
    assert "i11" not in ids(after)
    assert after["prompt"]["events"] == before["prompt"]["events"] + 1
    assert after["recommendations"] != before["recommendations"]


def test_it_is_the_list_that_the_library_makes_of_the_same_history(client: TestClient) -> None:
    buy(client, "u1", "i11", timestamp=1.7e9)
    data = made_shop()
    events = (*data.interactions.history("u1").interactions, Interaction("i11", "buy", 1.7e9))
    expected = recommender(data).recommend(History(events, "u1"), 5)
    answer = recommend(client, user_id="u1", k=5)
    assert ids(answer) == [r.item_id for r in expected]
    scores = [r["score"] for r in answer["recommendations"]]
    assert scores == pytest.approx([r.score for r in expected], abs=1e-4)
    assert answer.keys() - expected.to_dict().keys() == {
        "list_id", "run", "scenario", "fallback", "experiment", "arm",
    }  # fmt: skip


def test_a_liked_item_stays_new_until_it_is_bought(client: TestClient, tmp_path: Path) -> None:
    like = {"user_id": "u1", "item_id": "i11", "behavior": "like"}
    assert client.post("/v1/feedback", json=like).status_code == 200
    assert "i11" in ids(recommend(client, user_id="u1", k=ALL, show="new"))
    assert "i11" not in ids(recommend(client, user_id="u1", k=ALL, show="again"))
    assert recommend(client, user_id="u1", k=1)["prompt"]["events"] == 6  # the model reads it
    buy(client, "u1", "i11")
    assert "i11" not in ids(recommend(client, user_id="u1", k=ALL, show="new"))
    films = recommender(made_shop(target="watch"))
    liked = History((Interaction("i0", "watch"), Interaction("i11", "like")))
    new = films.recommend(liked, ALL, show="new")
    assert "i11" not in [r.item_id for r in new]  # who likes a film has watched it


def test_events_are_in_the_order_of_their_times(client: TestClient) -> None:
    buy(client, "new", "i3", timestamp=30.0)
    buy(client, "new", "i1", timestamp=10.0)
    buy(client, "u1", "i11", timestamp=1.6e9 + 150)
    told = client.get("/v1/users/new").json()["history"]
    assert [e["item_id"] for e in told] == ["i1", "i3"]
    times = [e["timestamp"] for e in client.get("/v1/users/u1").json()["history"]]
    assert times == sorted(times)
    assert len(times) == 6


def test_a_new_item_can_be_recommended_and_a_removed_one_cannot(client: TestClient) -> None:
    assert client.put("/v1/items/new/1 ü", json={"title": "green mug"}).status_code == 200
    assert ids(recommend(client, user_id="u1", k=1, allow=["new/1 ü"])) == ["new/1 ü"]
    everything = recommend(client, history="", k=100, allow_same_title=True, per_group=0)
    assert sum(np.exp(r["logprob"]) for r in everything["recommendations"]) == pytest.approx(1)
    buy(client, "u1", "new/1 ü")
    similar = client.post("/v1/similar", json={"items": ["new/1 ü"], "k": 2}).json()
    assert similar["used"] == "titles"
    removed = client.delete("/v1/items/new/1 ü").json()
    assert removed["state"] == "removed"
    assert "new/1 ü" not in ids(recommend(client, history="", k=100))
    refused = client.post("/v1/recommend", json={"history": "", "allow": ["new/1 ü"]})
    assert refused.status_code == 422
    assert client.get("/v1/users/u1").json()["history"][-1]["title"] == "green mug"
    assert recommend(client, user_id="u1", k=1)["prompt"]["events"] == 6
    titles = client.get("/v1/items", params={"query": "green"}).json()["items"]
    assert titles == []
    patched = client.patch("/v1/items/new/1 ü", json={"title": "x"})
    assert patched.status_code == 409
    client.put("/v1/items/new/1 ü", json={"title": "green mug"})
    assert "new/1 ü" in ids(recommend(client, history="", k=100))


def test_a_changed_price_counts_at_once(client: TestClient) -> None:
    assert "i0" in ids(recommend(client, history="", k=100, where="price < 2"))
    changed = client.patch("/v1/items/i0", json={"attributes": {"price": 20.0}}).json()
    assert changed["attributes"] == {"price": 20.0}
    assert changed["title"] == "red mug"
    assert ids(recommend(client, history="", k=100, where="price > 19")) == ["i0"]


def test_edits_in_bulk_are_all_made_or_none(client: TestClient) -> None:
    good, bad = {"item_id": "n1", "title": "good"}, {"item_id": "n2", "title": "\u200b"}
    refused = client.post("/v1/items:bulk", json={"put": [good, bad], "remove": ["i1"]})
    assert refused.status_code == 422
    assert client.get("/v1/items/n1").status_code == 404
    assert client.get("/v1/items/i1").json()["state"] == "available"
    unknown = client.post("/v1/items:bulk", json={"put": [good], "remove": ["none"]})
    assert unknown.status_code == 404
    done = client.post("/v1/items:bulk", json={"put": [good], "remove": ["i1"]}).json()
    assert done == {"put": 1, "removed": 1}
    listed = ids(recommend(client, history="", k=100))
    assert "n1" in listed
    assert "i1" not in listed
    everything = {"remove": [f"i{n}" for n in range(ALL)] + ["n1"]}
    assert client.post("/v1/items:bulk", json=everything).status_code == 422
    assert "n1" in ids(recommend(client, history="", k=100))


def test_blocked_items_are_in_no_answer(client: TestClient) -> None:
    buy(client, "u1", "i0")
    entries = {"item_ids": ["i1"], "conditions": ["price > 11"], "phrases": ["Doll House", "mug"]}
    assert client.put("/v1/blocks", json=entries).json()["blocked"] == 5
    blocked = {"i0", "i1", "i2", "i3", "i11"}
    assert client.get("/v1/blocks").json() == entries
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/recommend", {"history": "", "k": 100}),
        ("/v1/recommend", {"user_id": "u1", "k": 100, "show": "all", "pin": ["i4"]}),
        ("/v1/search", {"query": "mug", "k": 100}),
        ("/v1/rank", {"history": "", "candidates": ["i0", "i4"]}),
        ("/v1/score", {"history": "", "candidates": ["i0", "i1", "i4"]}),
    ]
    for path, body in bodies:
        answer = client.post(path, json=body).json()
        assert not blocked & set(ids(answer)), path
    similar = client.post("/v1/similar", json={"items": ["i0"], "k": 100}).json()["similar"]
    assert similar
    assert not blocked & {s["item_id"] for s in similar}
    explained = client.post("/v1/explain", json={"user_id": "u1", "item_id": "i0"})
    assert explained.status_code == 422
    client.put("/v1/items/n", json={"title": "another MUG"})  # it is blocked before it is seen
    assert client.get("/v1/items/n").json()["state"] == "blocked"
    assert "n" not in ids(recommend(client, history="", k=100))
    client.put("/v1/blocks", json={})
    assert {"n", "i0", "i11"} <= set(ids(recommend(client, history="", k=100)))
    wrong = client.put("/v1/blocks", json={"conditions": ["nothing > 1"]})
    assert wrong.status_code == 422


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        buy(client, "new", "i3", "i4")
        client.put("/v1/items/n1", json={"title": "green mug"})
        client.put("/v1/items/n2", json={"title": "yellow mug"})
        client.delete("/v1/items/n2")
        client.delete("/v1/items/i1")
        client.put("/v1/blocks", json={"phrases": ["knife"]})
        client.put("/v1/scenarios/home", json={"k": 2, "show": "new"})
        client.delete("/v1/users/u2")
        before = recommend(client, user_id="new", k=100)
    with served.opened(tmp_path) as client:
        after = recommend(client, user_id="new", k=100)
        assert ids(after) == ids(before)
        assert not {"n2", "i1", "i11"} & set(ids(after))
        assert len(ids(recommend(client, user_id="new", scenario="home"))) == 2
        assert client.get("/v1/users/u2").status_code == 404
        assert client.put("/v1/blocks", json={}).json()["blocked"] == 0
        assert "i11" in ids(recommend(client, history="", k=100))


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    data = made_shop()
    made = Shop(data, Store(sqlite_url(tmp_path)), [Engine.of("tiny", recommender(data))])
    yield made
    made.close()


def counts_of(shop: Shop) -> tuple[Any, ...]:
    prior: Any = shop.engines["tiny"].recommender.prior
    counts = prior.counts
    users = sorted(u for n, u in enumerate(counts.user_ids) if counts.items[[n]].nnz)
    return users, counts.popularity.tolist(), counts.after.toarray().tolist()


def test_the_prior_takes_new_events_and_new_items(shop: Shop) -> None:
    shop.edit([Item("n", "green mug")])
    users, popularity, _ = counts_of(shop)
    events = [
        Event(Interaction(i, "buy", 1.8e9 + t), "new") for t, i in enumerate(["i3", "n", "n"])
    ]
    shop.store.add_events([*events, Event(Interaction("i3", "view", 2e9), "new")])
    assert shop.refresh() == 3
    assert shop.refresh() == 0
    more_users, more, after = counts_of(shop)
    assert more_users == sorted([*users, "new"])
    assert more == [p + (row == 3) for row, p in enumerate(popularity)] + [2.0]
    assert after[3][-1] == 1
    prior: Any = shop.engines["tiny"].recommender.prior
    assert "ease" in prior.counts.__dict__ or not prior.mix.get("ease")  # no request waits for it


def test_the_model_reads_only_new_events_and_forgets_deleted_users(tmp_path: Path) -> None:
    data = made_shop()
    made = recommender(data, prompt_memory=8, model_role="fuse")
    shop = Shop(data, Store(sqlite_url(tmp_path)), [Engine.of("tiny", made)])
    try:
        made.recommend(shop.history("u1"), k=3)
        shop.store.add_events([Event(Interaction("i3", "buy", 1.8e9), "u1")])
        told = made.recommend(shop.history("u1"), k=3).details["attention"]
        assert told["remembered"] > told["read"]
        model: Any = made.model
        assert model.memory.use().prompts == 1
        shop.delete_user("u1")
        assert model.memory.use().prompts == 0
    finally:
        shop.close()


def test_a_deleted_user_is_not_counted_any_more(shop: Shop) -> None:
    before = counts_of(shop)
    shop.store.add_events([Event(Interaction("i3", "buy", 1.8e9), "new")])
    shop.refresh()
    assert shop.delete_user("new") == 1
    assert counts_of(shop) == before
    own = [e.item_id for e in shop.history("u1").interactions if e.behavior == "buy"]
    assert shop.delete_user("u1") == 5
    users, popularity, _ = counts_of(shop)
    assert users == [u for u in before[0] if u != "u1"]
    gone = [own.count(f"i{row}") for row in range(ALL)]
    assert popularity == [p - g for p, g in zip(before[1], gone, strict=True)]
    assert shop.history("u1") == History((), "u1")
    shop.store.add_events([Event(Interaction("i3", "buy", 1.8e9), "u1")])
    assert [e.item_id for e in shop.history("u1").interactions] == ["i3"]  # a new start


def test_a_change_does_not_bring_back_what_was_removed_meanwhile(client: TestClient) -> None:
    """A PATCH that waits for a removal sees it, instead of what it found before."""
    shop = service_of(client).shop
    answers: list[int] = []

    def patch() -> None:
        answer = client.patch("/v1/items/i4", json={"attributes": {"price": 1.0}})
        answers.append(answer.status_code)

    thread = threading.Thread(target=patch)
    with shop.editing:
        thread.start()
        thread.join(0.5)  # it has reached the lock by now
        shop.edit([], ["i4"])
    thread.join()
    assert answers == [409]
    assert shop.state("i4") == "removed"


def test_lists_never_show_what_was_removed_while_the_catalog_changes(client: TestClient) -> None:
    """One thread adds and removes items while this one asks; acknowledgements order the two."""
    there: dict[str, tuple[int, bool]] = {}
    stop = threading.Event()

    def edit() -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            name = f"n{n % 4}"
            there.pop(name, None)  # from here to the acknowledgement, either answer is right
            if n % 8 < 4:
                client.put(f"/v1/items/{name}", json={"title": f"new thing {n}"})
            else:
                client.delete(f"/v1/items/{name}")
            there[name] = n, n % 8 < 4

    editor = threading.Thread(target=edit)
    editor.start()
    wrong, checked = [], 0
    try:
        for _ in range(EXAMPLES):
            before = dict(there)
            listed = set(ids(recommend(client, history="", k=100)))
            after = dict(there)
            for name, (n, expected) in before.items():
                if after.get(name) == (n, expected):
                    checked += 1
                    wrong += [name] if expected != (name in listed) else []
    finally:
        stop.set()
        editor.join()
    assert wrong == []
    assert checked
