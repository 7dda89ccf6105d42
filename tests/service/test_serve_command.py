"""`genrec serve` as people run it: the guide's steps, kill -9, a restart, and SIGTERM under load."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.amount import FULL
from support.commands import Run
from support.running import running, stop_under_load

import genrec
from genrec.data.dataset import Dataset
from genrec.service.client import ServiceError
from genrec.service.server import listen
from genrec.service.tables import FILE

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
GUIDE = (ROOT / "docs" / "guides" / "serve.md").read_text(encoding="utf-8")
ROLE = ("--prior", "collaborative", "--model-role", "explain", "--encoder", "ngrams")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "shop"
    data, _ = Dataset.prepare(SAMPLE / "items.csv.gz", SAMPLE / "interactions.csv.gz")
    data.save(folder)
    return folder


def post(url: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.skipif(
    not FULL, reason="the guide's test has one round; scripts/test --full has 20 more"
)
@pytest.mark.parametrize("number", range(20))
def test_sigterm_under_load(shop: Path, model: Path, number: int) -> None:
    with running(shop, "--model", model, *ROLE) as service:
        stop_under_load(service, "12493", "22720")
    assert not (shop / f"{FILE}-wal").exists()


def test_the_guide_kill_9_a_restart_and_sigterm(
    shop: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(shop, "--model", model, *ROLE) as service:
        bodies = re.findall(r"(/v1/\w+) .*?-d '(.*?)'", GUIDE, re.S)
        assert len(bodies) == 3
        answers = [post(service.url, path, json.loads(body)) for path, body in bodies]
        assert answers[0]["recommendations"]
        assert answers[1]["accepted"] == 1
        (block,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
        names: dict[str, Any] = {}
        exec(compile(block.replace("http://127.0.0.1:8000", service.url), "guide", "exec"), names)
        names["client"].close()
        printed = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in printed[:3]] == ["1", "2", "3"]
        with urllib.request.urlopen(f"{service.url}/docs", timeout=60) as page:
            assert b"GET" in page.read()
        sent: list[int] = []
        stop = threading.Event()

        def feed() -> None:
            with genrec.Client(service.url) as client:
                while not stop.is_set():
                    try:
                        sent.append(client.feedback("killed", "22720", "buy"))
                    except ServiceError:
                        return

        feeder = threading.Thread(target=feed)
        feeder.start()
        while len(sent) < 20:
            time.sleep(0.01)
        service.kill()
        stop.set()
        feeder.join()
    with running(shop, "--model", model, *ROLE) as service, genrec.Client(service.url) as client:
        kept = len(client.history("killed"))
        assert kept - len(sent) in {0, 1}  # one may have been stored without an acknowledgement
        assert "22720" not in [
            r.item_id for r in client.recommend(user_id="killed", show="new", k=50)
        ]
        stop_under_load(service, "12493", "22720")
    assert (shop / FILE).is_file()
    assert not (shop / f"{FILE}-wal").exists()  # the store was closed


def test_other_addresses_need_keys(run: Run, shop: Path, model: Path) -> None:
    code, _, err = run("serve", shop, "--model", model, "--host", "0.0.0.0")
    assert code == 2
    assert "genrec key keys.json" in err
    code, _, err = run("serve", shop, "--model", model, "--queue", "0")
    assert code == 2
    assert "queue=0" in err
    code, _, err = run("serve", shop, "--model", model, "--store", "nonsense")
    assert code == 2
    assert "Expected a URL" in err
    code, _, err = run("serve", shop, "--model", model, "--rate", "often")
    assert code == 2
    assert "600/minute" in err
    code, _, err = run("serve", shop, "--model", model, "--image-hosts", "https://cdn.example.com")
    assert code == 2
    assert "without https://" in err
    code, _, err = run("serve", shop, "--model", model, "--with-base")
    assert code == 2
    assert "--run" in err


def test_the_demo_is_served_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = ("--serve", "--language", "zh", "--run", "none", "--model", model)
    with running(tmp_path, "demo", *options) as service:
        answer = post(service.url, "/v1/recommend", {"user_id": "u01", "k": 2})
        assert len(answer["recommendations"]) == 2
        assert list(tmp_path.glob("genrec-demo-*/service.db"))
        service.process.terminate()
        assert service.process.wait(60) == 0
    assert not list(tmp_path.glob("genrec-demo-*"))


def test_answers_do_not_wait_for_acknowledgements_of_packets() -> None:
    with closing(listen("127.0.0.1", 0)) as opened:
        opened.listen()
        with closing(socket.create_connection(opened.getsockname())):
            accepted, _ = opened.accept()
            with closing(accepted):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert accepted.proto == socket.IPPROTO_TCP
