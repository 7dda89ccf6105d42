"""A run learns from the feedback of a service, and goes live without a dropped request."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from support import served
from support.commands import Run
from support.commands import run as run
from support.served import ids, recommend
from support.tiny_runs import FEW, saved

from genrec import Dataset, Recommender
from genrec.data.exports import KEY, read_export
from genrec.data.feedback import WEIGHT, add_feedback
from genrec.errors import DataError
from genrec.runs import Run as Trained
from genrec.service.app import create_app
from genrec.service.security import Guard, new_key, read_keys
from genrec.service.server import listen
from genrec.service.service import Service
from genrec.service.shop import Engine, Shop
from genrec.service.store import Store
from genrec.service.tables import sqlite_url
from genrec.training import trainer

SHORT = ["--tune-users", "0", "--threads", "1", "--device", "cpu", "--max-targets", "60"]


@contextlib.contextmanager
def listening(service: Service) -> Iterator[str]:
    """Answer requests on a port of this machine, from a thread."""
    opened = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        opened.close()


def test_a_run_learns_from_feedback_and_goes_live_under_load(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = served.made_shop()
    data.save(tmp_path / "shop")
    runs = tmp_path / "runs"
    trainer.train(data, runs / "one", str(saved(tmp_path)), **FEW)
    key = new_key(tmp_path / "keys.json", "operator", ["admin"])
    shop = Shop(
        data, Store(sqlite_url(tmp_path)), [Engine.of("one", Recommender.load(runs / "one", data))]
    )
    service = Service(
        shop, Guard(read_keys(tmp_path / "keys.json")), runs=runs,
        load=lambda folder: Recommender.load(folder, data),
    )  # fmt: skip
    import httpx2

    with listening(service) as address:
        headers = {"Authorization": f"Bearer {key}"}
        client = httpx2.Client(base_url=address, headers=headers, timeout=60)
        client.put("/v1/items/n1", json={"title": "green mug"}).raise_for_status()
        for n in range(12):
            answer = client.post("/v1/recommend", json={"user_id": f"u{n}", "k": 4}).json()
            event = {"user_id": f"u{n}", "behavior": "buy", "list_id": answer["list_id"]}
            taken = "n1" if n == 0 else ids(answer)[n % 4]
            client.post("/v1/feedback", json={**event, "item_id": taken}).raise_for_status()
        statuses: list[int] = []
        used: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx2.Client(base_url=address, headers=headers, timeout=60) as own:
                while not stop.is_set():
                    found = own.post("/v1/recommend", json={"user_id": "u1", "k": 3})
                    statuses.append(found.status_code)
                    used.append(found.json()["run"])

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            retrain = ["train", tmp_path / "shop", "--from", runs / "one", "--feedback", address,
                       "--feedback-weights", "position", "--out", runs / "two", *SHORT]  # fmt: skip
            code, _, err = run(*retrain)
            assert code == 3
            assert f"Set {KEY} to a key with the scope admin" in err
            monkeypatch.setenv(KEY, key)
            code, out, err = run(*retrain)
            assert code == 0, err
            assert "with 12 new events" in out
            client.post("/v1/models/two").raise_for_status()
            client.put("/v1/models/default", json={"name": "two"}).raise_for_status()
            seen = len(used)
            while len(used) < seen + 9:
                time.sleep(0.02)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        client.close()
    assert set(statuses) == {200}
    assert used[0] == "one"
    assert used[-1] == "two"
    learned = Dataset.load(runs / "two" / "data")
    assert len(learned.interactions) == len(data.interactions) + 12
    assert "n1" in learned.catalog
    assert Trained.read(runs / "two").targets > 0


def test_feedback_becomes_events_with_weights(tmp_path: Path) -> None:
    with served.opened(tmp_path) as client:
        client.put("/v1/items/n1", json={"title": "green mug"})
        shown = recommend(client, user_id="u1", k=4)
        served.buy(client, "u1", ids(shown)[3], list_id=shown["list_id"], timestamp=1.7e9)
        served.buy(client, "u1", "i11", timestamp=1.7e9 + 1)
        served.buy(client, "fresh", "n1", timestamp=1.7e9 + 2)
        event = {"session_id": "u1", "item_id": "i3", "behavior": "view"}
        client.post("/v1/feedback", json=event)
        client.post("/v1/feedback", json={**event, "behavior": "dislike"})  # no target, no event
        client.delete("/v1/users/u2")
        (tmp_path / "export.jsonl").write_text(client.get("/v1/export").text)
    export, data = read_export(tmp_path / "export.jsonl"), served.made_shop()
    both, new = add_feedback(data, export, weights="position")
    assert new.sum() == 4
    assert both.interactions.attributes is not None
    weights = np.array(both.interactions.attributes[WEIGHT].to_pylist(), dtype=np.float64)
    assert np.isnan(weights[~new]).all()
    assert sorted(weights[new]) == pytest.approx([1.0, 1.0, 1.0, math.log2(5)])
    assert both.interactions.history("u1").item_ids[-2:] == (ids(shown)[3], "i11")
    assert both.interactions.history("session u1").item_ids == ("i3",)
    assert both.interactions.history("fresh").item_ids == ("n1",)
    assert "u2" in data.interactions.user_ids
    assert "u2" not in both.interactions.user_ids  # the user was deleted
    plain, _ = add_feedback(data, export)
    assert plain.interactions.attributes is None
    (tmp_path / "empty.jsonl").write_text('{"table": "end"}\n')
    with pytest.raises(DataError, match="The export has no events"):
        add_feedback(data, read_export(tmp_path / "empty.jsonl"))


def test_options_for_feedback_are_checked(tmp_path: Path, run: Run) -> None:
    base = ("train", tmp_path / "shop", "--out", tmp_path / "run")
    for wrong, message in (
        (("--feedback", "x.jsonl"), "need --from RUN"),
        (("--from", "r", "--feedback", "x", "--interactions", "y.csv"), "does not work with"),
        (("--from", "r", "--feedback-weights", "position"), "--feedback-weights needs --feedback"),
        (("--from", "r", "--feedback", "x", "--feedback-weights", "often"), "Expected one of"),
    ):
        code, _, err = run(*base, *wrong)
        assert code == 2
        assert message in err
