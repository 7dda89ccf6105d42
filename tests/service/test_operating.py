"""Models are loaded, chosen and unloaded while requests run; who leaves frees a place; metrics tell."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import served
from support.served import client as client
from support.served import ids, recommend, service_of

from genrec import Item, Recommender
from genrec.errors import DataError, RequestError
from genrec.service.worker import Job


@pytest.fixture
def loading(tmp_path: Path) -> Iterator[TestClient]:
    runs = tmp_path / "runs"
    for name in ("second", "other"):
        (runs / name).mkdir(parents=True)
        (runs / name / "run.json").write_text("{}")
    (runs / "no-run").mkdir()

    def load(folder: Path) -> Recommender:
        assert folder.parent == runs
        return served.recommender(served.made_shop(), prior="none")

    with served.opened(tmp_path, load=load, runs=runs) as found:
        yield found


def test_a_run_goes_live_without_a_pause(loading: TestClient) -> None:
    client = loading
    client.delete("/v1/items/i1")
    client.put("/v1/items/n1", json={"title": "green mug"})
    assert client.get("/v1/models").json()["loadable"] == ["other", "second"]
    first = recommend(client, user_id="u1", k=3)
    failed: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = client.post("/v1/recommend", json={"user_id": "u1", "k": 3})
            failed.extend([answer.status_code] if answer.status_code != 200 else [])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert client.post("/v1/models/second").status_code == 200
        assert client.put("/v1/models/default", json={"name": "second"}).status_code == 200
    finally:
        stop.set()
        asking.join()
    assert failed == []
    second = recommend(client, user_id="u1", k=100)
    assert (first["run"], second["run"]) == ("tiny", "second")
    assert "n1" in ids(second)  # the new model knows what came in before it
    assert "i1" not in ids(second)
    assert (
        recommend(client, user_id="u1", k=3, run="tiny")["recommendations"]
        == first["recommendations"]
    )
    assert client.delete("/v1/models/second").status_code == 422  # it is the default
    assert client.delete("/v1/models/tiny").status_code == 200
    assert client.post("/v1/recommend", json={"user_id": "u1", "run": "tiny"}).status_code == 404
    assert client.delete("/v1/models/tiny").status_code == 404
    assert client.put("/v1/models/default", json={"name": "tiny"}).status_code == 404
    for name, status in {"no-run": 404, "none": 404, "..": 404, "a%2Fb": 422}.items():
        assert client.post(f"/v1/models/{name}").status_code in {status, 404, 405, 422}


def test_models_are_loaded_only_if_the_operator_said_from_where(client: TestClient) -> None:
    assert client.post("/v1/models/second").status_code == 409


def test_a_client_that_leaves_frees_its_place(client: TestClient) -> None:
    """The application is called as a server would call it, and told that the client has left."""
    service, app = service_of(client), client.app
    opened, began = threading.Event(), threading.Event()

    def hold(given: Any) -> Any:
        began.set()
        assert opened.wait(60)
        return given

    job = service.worker.submit(Job(hold, None))
    assert began.wait(20)
    assert leave_when(app, lambda: bool(service.worker.waiting)) == 499
    assert service.worker.waiting == 0
    assert service.worker.tally.left == 1
    opened.set()
    job.result(20)
    assert service.worker.tally.passes == 1


def test_what_runs_for_a_client_that_leaves_stops(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, began = service_of(client), threading.Event()
    model: Any = service.shop.engines["tiny"].recommender.model

    def read_on(*given: Any, **options: Any) -> None:
        while True:
            assert len(model.prefill([3, 4, 5]).root) == 1  # which is read when it is needed
            began.set()

    monkeypatch.setattr(Recommender, "rank", read_on)
    assert leave_when(client.app, began.is_set) == 499
    until = time.monotonic() + 20
    while not service.worker.tally.stopped and time.monotonic() < until:
        time.sleep(0.01)
    assert service.worker.tally.stopped == 1
    assert "genrec_stopped 1.0" in client.get("/metrics").text
    monkeypatch.undo()
    assert client.post("/v1/rank", json={"user_id": "u1", "candidates": ["i4"]}).status_code == 200


def leave_when(app: Any, ready: Callable[[], bool]) -> int:
    """Send a request as a server would, leave when it is ready, and return the answer's status."""
    body = json.dumps({"user_id": "u1", "candidates": ["i4"]}).encode()
    sent: list[Any] = []

    async def leave() -> None:
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            while not ready():
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/rank", "raw_path": b"/v1/rank",
            "headers": [(b"content-type", b"application/json"), (b"host", b"testserver")],
            "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("x", 1),
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), 20)

    asyncio.run(leave())
    return int(sent[0]["status"])


def test_metrics_count_what_happened(client: TestClient) -> None:
    recommend(client, user_id="u1", k=2)
    client.post("/v1/recommend", json={"user_id": ""})
    client.post("/v1/feedback", json={"user_id": "u1", "item_id": "i0", "behavior": "buy"})
    text = client.get("/metrics").text
    for line in (
        'genrec_requests_total{route="/v1/recommend",status="200"} 1.0',
        'genrec_requests_total{route="/v1/recommend",status="422"} 1.0',
        'genrec_lists_total{kind="exact"} 1.0',
        "genrec_events_total 1.0",
        "genrec_passes_total 1.0",
        "genrec_queue 0.0",
    ):
        assert line in text
    assert "u1" not in text


def test_items_are_put_and_removed_in_one_step() -> None:
    recommender = served.recommender(served.made_shop())
    recommender.put_items([Item("n", "green mug"), Item("i0", "scarlet mug")], remove=["i1"])
    listed = {r.item_id: r.title for r in recommender.recommend("", 100)}
    assert listed["n"] == "green mug"
    assert listed["i0"] == "scarlet mug"
    assert "i1" not in listed
    with pytest.raises(DataError):
        recommender.put_items([Item("m", "fine"), Item("i2", "\u200b")])
    with pytest.raises(RequestError):
        recommender.put_items([Item("m", "fine")], remove=["none"])
    assert "m" not in recommender.catalog
    recommender.put_items([Item("i1", "red doll again")])  # a removed item is restored
    assert "i1" in {r.item_id for r in recommender.recommend("", 100)}
    found = recommender.similar("i1", 3)
    assert "i1" not in {s.item_id for s in found.similar}
    assert recommender.similar("n", 1, by="titles").similar[0].title.endswith("mug")
