"""What fails says why and is counted; what does not need it goes on; and afterwards all is well again."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support import postgres, served
from support.amount import FULL
from support.running import running
from support.served import client as client
from support.served import made_shop, recommend, recommender, service_of

from genrec.service.app import create_app
from genrec.service.security import Guard
from genrec.service.service import Service
from genrec.service.shop import Engine, Shop
from genrec.service.store import Store
from genrec.service.tables import FILE


def feedback(client: TestClient, events: int = 1) -> Any:
    one = {"user_id": "u" * 200, "item_id": "i0", "behavior": "buy"}
    return client.post("/v1/feedback", json={"events": [one] * events})


def problem(answer: Any) -> str:
    """The detail of an answer that says that the store is away."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    detail: str = answer.json()["detail"]
    return detail


def test_a_full_disk_refuses_feedback_and_lists_go_on(client: TestClient) -> None:
    service = service_of(client)
    most = 60

    def limit(raw: sqlite3.Connection, _: object) -> None:
        raw.execute(f"PRAGMA max_page_count={most}")

    engine = service.shop.store._engine
    sa.event.listen(engine, "connect", limit)
    engine.dispose()
    assert "not stored: database or disk is full" in problem(feedback(client, 1000))
    assert client.get("/v1/users/" + "u" * 200).status_code == 404  # all of them or none
    most = 1  # SQLite takes this as the present size
    engine.dispose()
    for _ in range(30):  # shown lists fill the last pages, and are dropped
        recommend(client, user_id="u1", k=12)
        service.recorder.flush()
    assert service.recorder.dropped > 0
    assert f"genrec_lists_not_stored {service.recorder.dropped}.0" in client.get("/metrics").text
    assert client.get("/readyz").status_code == 200  # lists can still be made
    most = 100_000
    engine.dispose()
    assert feedback(client, 1000).status_code == 200
    assert recommend(client, user_id="u1", k=2)["recommendations"]


def test_a_store_that_was_moved_is_noticed(tmp_path: Path) -> None:
    file, away = tmp_path / FILE, tmp_path / "away"
    with served.opened(tmp_path) as client:
        assert client.get("/readyz").status_code == 200
        file.rename(away)
        file.mkdir()
        found = client.get("/readyz")
        assert found.status_code == 503
        assert "moved, deleted or replaced" in found.json()["problem"]
        assert recommend(client, user_id="u1", k=2)["recommendations"]
        file.rmdir()
        shutil.copy(away, file)  # a backup that is put back while the service runs
        assert client.get("/readyz").status_code == 503
        away.replace(file)
        assert client.get("/readyz").status_code == 200


def test_without_the_file_nothing_is_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / FILE
    with served.opened(tmp_path) as client:
        away = tmp_path / "away"
        away.mkdir()
        for part in tmp_path.glob(f"{FILE}*"):
            part.rename(away / part.name)
        file.mkdir()
        service_of(client).shop.store._engine.dispose()  # tasks in the background connect, too
        assert "unable to open database file" in problem(feedback(client))
        assert "unable to open database file" in problem(
            client.post("/v1/recommend", json={"user_id": "u1"})
        )
        assert recommend(client, history="bought: red mug", k=2)["recommendations"]
        file.rmdir()
        for part in away.iterdir():  # with the write-ahead log, if a connection was open
            part.rename(tmp_path / part.name)
        service_of(client).shop.store._engine.dispose()
        assert feedback(client).status_code == 200


@pytest.fixture
def database() -> Iterator[postgres.Server]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.running() as made:
        yield made


def test_a_database_that_is_away_is_said_and_used_again(database: postgres.Server) -> None:
    data = made_shop()
    store = Store(database.address.format("postgres"))
    shop = Shop(data, store, [Engine.of("tiny", recommender(data))])
    service = Service(shop, Guard(()))
    with TestClient(create_app(service)) as client:
        assert feedback(client).status_code == 200
        database.stop()
        try:
            assert problem(feedback(client)).startswith("The events were not stored: ")
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert "does not answer" in ready.json()["problem"]
            assert client.get("/healthz").status_code == 200  # the process need not be restarted
            problem(client.post("/v1/recommend", json={"user_id": "u1"}))
            assert recommend(client, history="bought: red mug", k=2)["recommendations"]
            service.recorder.flush()
            assert service.recorder.dropped == 1
        finally:
            database.start()
        assert feedback(client).status_code == 200
        assert client.get("/readyz").status_code == 200
        assert len(store.events_of(user_id="u" * 200)) == 2
        assert recommend(client, user_id="u1", k=2)["recommendations"]


def ask(url: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.skipif(not FULL, reason="starts a process; scripts/test --full runs it")
def test_a_process_that_may_not_write_more_says_so_and_goes_on(data: Path, model: Path) -> None:
    with running(data, "--model", model) as service:
        url, pid, unlimited = service.url, service.process.pid, resource.RLIM_INFINITY
        item = ask(url, "/v1/items")["items"][0]["item_id"]
        events = {"events": [{"user_id": "new", "item_id": item, "behavior": "view"}] * 500}
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (300_000, unlimited))
        sent, refused = 0, dict[str, Any]()
        while not refused and sent < 50:
            try:
                ask(url, "/v1/feedback", events)
                sent += 1
            except urllib.error.HTTPError as error:
                refused = json.load(error)
        assert refused["status"] == 503
        assert refused["detail"].startswith("The events were not stored: ")
        assert ask(url, "/v1/recommend", {"history": "", "k": 1})["recommendations"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        ask(url, "/v1/feedback", events)
        assert ask(url, "/v1/users/new")["events"] == 500 * (sent + 1)
