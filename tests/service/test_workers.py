"""`genrec serve --workers`: what one worker acknowledges holds in the others, and what dies is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support import served
from support.amount import EXAMPLES, FULL
from support.collector import collecting
from support.running import Running, running, stop_under_load

from genrec import Interaction, Item
from genrec.service.jobs import StaleError
from genrec.service.link import AwayError, Call, Link, LinkServer
from genrec.service.mirror import Journal, Mirror
from genrec.service.model_process import Latest
from genrec.service.problems import Problem
from genrec.service.shared import Shared
from genrec.service.store import Event
from genrec.service.tables import FILE
from genrec.service.tracing import is_installed

ROUNDS = min(EXAMPLES, 100) if FULL else 6


def children(service: Running) -> list[int]:
    """The processes of a service: that of the model, and the workers in their order."""
    pid = service.process.pid
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(c): Path(f"/proc/{c}/cmdline").read_text() for c in found}
    return [child for child, line in lines.items() if "spawn_main" in line]


def connect(url: str, workers: int = 2) -> list[httpx2.Client]:
    """A connection to each worker."""
    made: dict[int, httpx2.Client] = {}
    until = time.monotonic() + 60
    while len(made) < workers and time.monotonic() < until:
        client = httpx2.Client(base_url=url, timeout=60)
        number = client.get("/livez").json()["worker"]
        if number in made:
            client.close()
        else:
            made[number] = client
    return [made[number] for number in sorted(made)]


def wait_until(client: httpx2.Client, status: int) -> None:
    until = time.monotonic() + 240
    while client.get("/readyz").status_code != status and time.monotonic() < until:
        time.sleep(0.1)
    assert client.get("/readyz").status_code == status


def ask(client: httpx2.Client, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_two_workers_and_the_end_of_each_process(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "--model", model, "--workers", 2, "--rate", "20000/minute"
    collector = collecting(monkeypatch) if is_installed() else contextlib.nullcontext()
    with collector as spans, running(data, *given) as service:
        clients = connect(service.url)
        item = clients[0].get("/v1/items").json()["items"][0]["item_id"]
        check_acknowledgements(clients)
        check_the_rest(clients)
        check_what_people_say(clients)
        if spans is not None:
            check_the_trace(clients[0], spans)
        model_pid, first, _ = children(service)
        for client in clients:
            client.close()
        check_that_the_model_may_die(service, model_pid)
        if FULL:  # another process has to be started
            os.kill(first, signal.SIGKILL)
            for client in connect(service.url):
                with contextlib.closing(client):
                    assert ask(client, user_id="new", k=1)["prompt"]["events"]
        stop_under_load(service, "new", item)
    assert not (data / f"{FILE}-wal").exists()
    assert "A process has ended and is started again." in (data / "log.txt").read_text()


def check_acknowledgements(clients: list[httpx2.Client]) -> None:
    """What one worker has acknowledged is in the next answer of the other."""
    item = clients[0].get("/v1/items").json()["items"][0]["item_id"]
    for number in range(ROUNDS):
        one, other = clients[:: 1 - 2 * (number % 2)]
        event = {"user_id": "new", "item_id": item, "behavior": "buy"}
        assert one.post("/v1/feedback", json=event).status_code == 200
        assert len(other.get("/v1/users/new").json()["history"]) == number + 1
        if number % 5 == 0:
            name, path = f"thing-{number}", f"/v1/items/thing-{number}"
            assert one.put(path, json={"title": f"new thing {number}"}).status_code == 200
            bought = {"user_id": "other", "item_id": name, "behavior": "buy"}
            assert other.post("/v1/feedback", json=bought).status_code == 200
            assert name in served.ids(ask(other, history="", k=100))
            assert one.delete(path).status_code == 200
            assert name not in served.ids(ask(other, history="", k=100))
    events = [ask(client, user_id="new", k=1)["prompt"]["events"] for client in clients]
    assert events[0] == events[1] > 0
    assert clients[0].delete("/v1/users/new").json()["events"] == ROUNDS
    assert ask(clients[1], user_id="new", k=1)["prompt"]["events"] == 0
    assert clients[1].post("/v1/feedback", json=event).status_code == 200


def check_the_rest(clients: list[httpx2.Client]) -> None:
    """What a worker forwards is answered as by a single process, and metrics are those of all workers."""
    one, other = clients
    for path in ("/healthz", "/readyz", "/docs", "/", "/v1/models", "/v1/shop"):
        assert one.get(path).status_code == 200, path
    assert one.get("/nothing").status_code == 404
    assert one.post("/v1/recommend", json={"k": 0}).status_code == 422
    assert one.post("/v1/recommend", json={"user_id": "new", "run": "none"}).status_code == 404
    item = one.get("/v1/items").json()["items"][0]["item_id"]
    headers = {"accept": "text/event-stream"}
    stream = one.post("/v1/explain", json={"user_id": "new", "item_id": item}, headers=headers)
    assert stream.text.rstrip().startswith("event: progress")
    assert "event: explanation" in stream.text
    counts = []
    for client in (one, other):
        ask(client, history="", k=1)
        (line,) = [
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith('genrec_requests_total{route="/v1/recommend",status="200"}')
        ]
        counts.append(float(line.split()[-1]))
    assert counts[1] == counts[0] + 1
    assert len([n for n in client.get("/metrics").text.splitlines() if "genrec_queue " in n]) == 3


def check_what_people_say(clients: list[httpx2.Client]) -> None:
    """Queries and conversations are answered, and what a profile bans through one worker holds in the other."""
    one, other = clients
    found = ask(one, user_id="new", query="something, not plastic", k=5)
    assert found["query"]["unwanted"] == ["plastic"]
    turns = [{"text": "something, not plastic"}]
    assert other.post("/v1/chat", json={"turns": turns, "k": 2}).json()["list"]["query"]
    titles = [r["title"] for r in ask(other, history="", k=5)["recommendations"]]
    word = max(titles[0].lower().split(), key=len)
    edits = one.put("/v1/users/new/profile", json={"banned": [word]})
    assert edits.status_code == 200, edits.text
    titles = [r["title"].lower() for r in ask(other, user_id="new", k=5)["recommendations"]]
    assert titles
    assert not [title for title in titles if word in title.split()]
    assert other.put("/v1/users/new/profile", json={}).status_code == 200


def check_the_trace(client: httpx2.Client, spans: list[Any]) -> None:
    """A list is one trace, whose parts come from the worker and from the process of the model."""
    trace, above = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{above}-01"}
    answer = client.post("/v1/recommend", json={"history": "", "k": 1}, headers=headers)
    assert answer.status_code == 200
    until, names = time.monotonic() + 20, {"POST /v1/recommend", "prepare", "queue", "model"}
    found: dict[str, Any] = {}
    while names - set(found) and time.monotonic() < until:
        time.sleep(0.05)
        found = {s.name: s for s in list(spans) if s.trace_id.hex() == trace}
    assert set(found) == names
    whole = found.pop("POST /v1/recommend")
    assert whole.parent_span_id.hex() == above
    assert {s.parent_span_id for s in found.values()} == {whole.span_id}


def check_that_the_model_may_die(service: Running, model_pid: int) -> None:
    """Meanwhile feedback is stored, lists are refused with 503, and nothing else happens."""
    stop, lists, stored = threading.Event(), Counter[int](), []

    def load() -> None:
        with httpx2.Client(base_url=service.url, timeout=60) as client:
            while not stop.is_set():
                answer = client.post("/v1/recommend", json={"user_id": "new", "k": 1})
                lists[answer.status_code] += 1
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) >= 1
                    time.sleep(0.2)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    with httpx2.Client(base_url=service.url, timeout=60) as client:
        item = client.get("/v1/items").json()["items"][0]["item_id"]
        event = {"user_id": "meanwhile", "item_id": item, "behavior": "buy"}
        for _ in range(600):  # lists are made before the process ends
            if lists[200]:
                break
            time.sleep(0.05)
        os.kill(model_pid, signal.SIGKILL)
        wait_until(client, 503)
        assert client.get("/livez").status_code == 200
        stored.append(client.post("/v1/feedback", json=event).status_code)
        wait_until(client, 200)
        assert ask(client, user_id="meanwhile", k=1)["prompt"]["events"] == 1
    stop.set()
    for thread in threads:
        thread.join()
    assert stored == [200]
    assert set(lists) == {200, 503}


# The parts


def test_a_rate_holds_over_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    one, other = Shared(path, ["a", "b"]), Shared(path, ["a", "b"])
    try:
        waits = [each.hit("a", 5, 1e6) for each in (one, other) * 4]
        assert [w > 0 for w in waits] == [False] * 5 + [True] * 3
        assert other.hit("b", 5, 1e6) == 0
        assert one.hit("b", 1, 1e-9) == 0  # a window that is long over does not count
        assert (one.count_change(), other.count_change(), one.revision) == (1, 2, 2)
    finally:
        one.close()
        other.close()


def test_a_worker_that_missed_changes_takes_them_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.service.mirror._MOST", 2)
    with served.service(tmp_path) as service:
        shop, shared = service.shop, Shared(tmp_path / "numbers")
        shop.edit([Item("before", "green mug")])
        journal = Journal(shop, service.experiments, shared)
        mirror = Mirror(served.made_shop(), shop.store)
        mirror.apply(journal.since(mirror.revision))
        assert "before" in mirror.catalog
        assert (mirror.models, mirror.default) == (("tiny",), "tiny")
        for number in range(6):
            shop.edit([Item(f"n{number}", f"yellow mug {number}")])
            if number % 3 == 0:  # the next time, two or three changes are missing
                assert mirror.revision < shared.revision
                mirror.apply(journal.since(mirror.revision))
                assert mirror.revision == shared.revision
                assert all(f"n{n}" in mirror.catalog for n in range(number + 1))
        shop.delete_user("u1")
        mirror.apply(journal.since(mirror.revision))
        assert all(f"n{n}" in mirror.catalog for n in range(6))
        assert mirror.history("u1").interactions == ()
        shop.store.add_events([Event(Interaction("n1", "buy", 1.8e9), "u2")])
        history, number = mirror.numbered_history("u2")
        assert (len(history.interactions), number) == (6, 1)
        shared.close()


def test_a_request_with_an_older_history_is_refused(tmp_path: Path) -> None:
    with served.service(tmp_path) as service:
        store = service.shop.store
        one, two = store.add_events([Event(Interaction("i1", "buy", 1.8e9), "u")] * 2)[0]
        latest = Latest(store)
        asyncio.run(latest.check("u", two))
        with pytest.raises(StaleError):
            asyncio.run(latest.check("u", one))
        asyncio.run(latest.check("u", two))
        store.delete_user("u")
        asyncio.run(latest.check("u", 0))  # there is no later event any more


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket must be short
        yield Path(folder) / "s"


def test_calls_end_with_an_answer_a_problem_or_the_other_side(socket: Path) -> None:
    left = asyncio.Event()

    async def double(value: int, call: Call) -> int:
        await call.send(value)
        if value < 0:
            raise Problem(422, "It is negative.", headers={"a": "b"})
        return 2 * value

    async def hang(_: None, call: Call) -> None:
        await call.left.wait()
        left.set()

    async def use() -> None:
        server, link = LinkServer({"double": double, "hang": hang}), Link(socket)
        with pytest.raises(AwayError):
            await link.call("double", 1)
        await server.start(socket)
        link.start()
        parts: list[int] = []

        async def keep(part: int) -> None:
            parts.append(part)

        while not link.connected:
            await asyncio.sleep(0.01)
        calls: list[Awaitable[int]] = [link.call("double", n, keep) for n in range(20)]
        assert await asyncio.gather(*calls) == [2 * n for n in range(20)]
        assert sorted(parts) == [*range(20)]
        with pytest.raises(Problem, match="negative") as caught:
            await link.call("double", -1)
        assert (caught.value.status, caught.value.headers) == (422, {"a": "b"})
        hanging = asyncio.ensure_future(link.call("hang", None))
        await asyncio.sleep(0.05)
        hanging.cancel()
        await asyncio.wait_for(left.wait(), 20)
        waiting = asyncio.ensure_future(link.call("hang", None))
        await asyncio.sleep(0.05)
        await server.close(0.0)
        with pytest.raises(AwayError):
            await asyncio.wait_for(waiting, 20)
        await link.close()

    asyncio.run(use())
