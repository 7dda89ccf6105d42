"""Models behind a server: every text arrives, failures are repeated or said, and budgets hold."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.amount import FULL
from support.text_server import FAULTS, TextServer, running

from genrec import Recommender
from genrec.batch import Job, run
from genrec.data.datasets import load
from genrec.errors import GenrecError, ModelError, SettingsError
from genrec.models.base import GenerationOptions, TextModel
from genrec.models.openai import CHAT, BudgetError, OpenAIModel, Server, make_server
from genrec.models.packaged import ensure

ASKED = GenerationOptions(3, 20, "\n", 0.7)
"""A request for three texts."""


class Prompt:
    """A prompt as text."""

    ids: tuple[int, ...] = ()

    def __init__(self, text: str) -> None:
        self.text = text


def writes(prompt: str) -> list[str]:
    """Write three titles that depend on the prompt only."""
    titles = [item.title for item in load("zh_mini").catalog]
    return random.Random(prompt).sample(titles, 3)


def model(server: TextServer, **given: Any) -> OpenAIModel:
    values: dict[str, Any] = {"timeout": 0.5, "retries": 6, **given}
    return OpenAIModel(Server(base_url=server.url, model="writer", **values), api_key="secret")


@pytest.mark.parametrize("endpoint", ["completions", CHAT])
def test_texts_arrive_as_they_were_written(endpoint: str) -> None:
    with running(TextServer(writes)) as server:
        made = model(server, endpoint=endpoint)
        assert isinstance(made, TextModel)
        texts = made.generate(Prompt("bought: a\nbought:"), ASKED)
        assert [t.text for t in texts] == writes("bought: a\nbought:")
        assert all(t.finished and math.isnan(t.logprob) for t in texts)
        body = server.asked[0]
        assert (body["n"], body["stop"], body["max_tokens"]) == (3, ["\n"], 20)
        assert made.spent.tokens_in + made.spent.tokens_out == server.counted


def test_a_text_ends_where_it_should() -> None:
    with running(TextServer(writes, keeps_stop=True)) as server:
        texts = model(server).generate(Prompt("x"), ASKED)
    assert [t.text for t in texts] == writes("x")


def test_a_server_that_gives_one_text_is_asked_again_with_other_seeds() -> None:
    with running(TextServer(writes, texts_at_once=1)) as server:
        texts = model(server).generate(Prompt("x"), ASKED)
    assert len(texts) == 3
    assert len({body["seed"] for body in server.asked}) == 3


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in {"refusing", ""}])
def test_a_failed_request_is_repeated(fault: str) -> None:
    with running(TextServer(writes, [fault])) as server:
        texts = model(server).generate(Prompt("x"), ASKED)
    assert [t.text for t in texts] == writes("x")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["500"] * 9, r"failed 2 times, last with status 500.*overloaded or fails"),
        (["malformed"] * 9, "a damaged answer"),
        (["slow"] * 9, r"APITimeoutError.*raise its timeout"),
    ],
)
def test_a_server_that_keeps_failing_is_an_error(faults: list[str], message: str) -> None:
    with running(TextServer(writes, faults)) as server:
        made = model(server, retries=1)
        with pytest.raises(ModelError, match=message) as error:
            made.generate(Prompt("a secret history"), ASKED)
    assert len(server.asked) == 2
    assert "secret" not in str(error.value)
    used = made.spent.tokens_in + made.spent.tokens_out
    assert (used == 0) == (faults[0] == "500")  # the others may have cost something


def test_a_server_that_is_not_there() -> None:
    made = OpenAIModel(Server(base_url="http://127.0.0.1:9/v1", model="x", retries=0))
    with pytest.raises(ModelError, match=r"APIConnectionError.*Check that the server runs"):
        made.generate(Prompt("x"), ASKED)


def spend(made: OpenAIModel, rng: random.Random) -> None:
    for n in range(10_000):
        made.generate(Prompt("w " * rng.randrange(1, 40) + str(n)), ASKED)


@pytest.mark.parametrize("seed", range(50 if FULL else 4))
def test_no_budget_is_exceeded(seed: int) -> None:
    rng = random.Random(seed)
    faults = [rng.choice(("429", "500", "truncated", *[""] * 9)) for _ in range(200)]
    budget = rng.randrange(0, 4000)
    with running(TextServer(lambda prompt: ["a b c"] * 3, faults)) as server:
        made = model(server, max_tokens=budget)
        with pytest.raises(BudgetError, match=rf"The budget of {budget:,} tokens"):
            spend(made, rng)
        used = made.spent.tokens_in + made.spent.tokens_out
        assert server.counted <= used <= budget
        sent = len(server.asked)
        with pytest.raises(BudgetError):
            made.generate(Prompt("w " * 3000), ASKED)
        assert len(server.asked) == sent  # nothing was sent


def test_a_budget_of_money() -> None:
    with running(TextServer(lambda prompt: ["a b c"] * 3)) as server:
        made = model(server, max_cost=0.02, price_in=10.0, price_out=30.0)
        with pytest.raises(BudgetError, match=r"The budget of 0\.02"):
            spend(made, random.Random(0))
    assert 0 < made.spent.cost <= 0.02


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"endpoint": "edits"}, "endpoint='edits' is not valid"),
        ({"per_minute": "0"}, "per_minute=0 is not valid"),
        ({"timeout": "soon"}, "timeout='soon' is not valid"),
        ({"speed": "1"}, "'speed' is not an option of a model server"),
        ({"max_cost": "1"}, "needs the prices"),
    ],
)
def test_invalid_servers(given: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_server("m", "http://localhost:1/v1", given)
    with pytest.raises(SettingsError, match="is not an address"):
        make_server("m", "localhost:1", {})
    with pytest.raises(SettingsError, match="user name or a password") as error:
        make_server("m", "http://me:hidden@localhost:1/v1", {})
    assert "hidden" not in str(error.value)


def test_lists_from_a_server() -> None:
    data = load("zh_mini")
    with running(TextServer(writes)) as server:
        recommender = Recommender(
            data, model(server), decoder="match", encoder="ngrams", n_samples=3
        )
        answer = recommender.recommend(data.interactions.history("u01"), 3)
    assert answer.decoder == "match"
    assert "certificate" not in answer.details  # nothing is claimed to be exact
    assert {r.item_id for r in answer} <= {item.item_id for item in data.catalog}
    assert len(answer) >= 1


def job(server: TextServer, **given: str) -> Job:
    return Job(
        data="zh_mini", model="writer", settings={"encoder": "ngrams", "n_samples": 3}, options={"k": 2},
        server={"base_url": server.url, "timeout": "0.5", "retries": "8", **given}, shard_size=16,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(20 if FULL else 1))
def test_a_batch_loses_no_user_to_a_failing_server(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    faults = [rng.choice(FAULTS) for _ in range(30)]
    with running(TextServer(writes, faults)) as server:
        report = run(job(server), tmp_path)
    assert report.answered + report.rejected == report.rows == 60
    rows = [r["row"] for f in tmp_path.glob("*.parquet") for r in pq.read_table(f).to_pylist()]
    assert sorted(rows) == list(range(1, 61))
    assert report.answered >= 50


def test_a_batch_stops_at_its_budget_and_continues_with_a_larger_one(tmp_path: Path) -> None:
    with running(TextServer(writes)) as server:
        run(job(server), tmp_path / "whole")
        longest = max(len(body["prompt"].encode()) for body in server.asked)
        enough, server.counted = server.counted, 0
        small = job(server, concurrency="1", max_tokens=str(longest + enough // 2))
        with pytest.raises(BudgetError, match="Raise max_tokens to continue"):
            run(small, tmp_path / "out")
        assert server.counted <= longest + enough // 2
        finished = len(list((tmp_path / "out").glob("part-*")))
        assert 0 < finished < 4
        more = {**small.server, "max_tokens": "9000000"}
        report = run(replace(small, server=more), tmp_path / "out")
    assert (report.rows, report.resumed) == (60, finished)
    for part in (tmp_path / "whole").glob("*.parquet"):
        assert part.read_bytes() == (tmp_path / "out" / part.name).read_bytes()


def test_the_command_line(tmp_path: Path) -> None:
    load("zh_mini").save(tmp_path / "data")
    arguments = [
        sys.executable,
        "-m",
        "genrec",
        "recommend",
        str(tmp_path / "data"),
        "--user",
        "u01",
        "--json",
    ]
    with running(TextServer(writes)) as server:
        there = [
            "--backend",
            "openai",
            "--base-url",
            server.url,
            "--model",
            "writer",
            "--encoder",
            "ngrams",
        ]
        done = subprocess.run([*arguments, *there], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decoder"] == "match"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run": "online_retail_demo"}, "run cannot be used with a model behind a server"),
        ({"task": "score", "items": ["g001"]}, "task='score' cannot be used"),
        ({"server": {"base_url": "http://x/v1", "concurrency": "no"}}, "concurrency='no'"),
    ],
)
def test_invalid_jobs(values: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "server": {"base_url": "http://localhost:1/v1"},
        "model": "m",
        **values,
    }
    with pytest.raises(GenrecError, match=message):
        Job(data="zh_mini", **given)


@pytest.mark.model
@pytest.mark.skipif(not FULL, reason="starts a model server; scripts/test --full runs it")
def test_a_real_server(tmp_path: Path) -> None:
    folder = str(ensure("smollm2-135m"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        folder,
        "--device",
        "cpu",
        "--port",
        str(port),
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        serve, env=offline, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            there = f"http://localhost:{port}"
            for _ in range(600):
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"{there}/health") as answer,
                ):
                    if answer.status == 200:
                        break
                time.sleep(0.2)
            users = tmp_path / "users.csv"
            users.write_text("user_id\n12493\n12347\n12348\n", encoding="utf-8")
            for endpoint in ("completions", CHAT):
                job = Job(
                    data="online_retail_demo", users=str(users), model=folder, options={"k": 3},
                    settings={"encoder": "ngrams", "n_samples": 4},
                    server={"base_url": f"{there}/v1", "endpoint": endpoint, "concurrency": "1"},
                )  # fmt: skip
                report = run(job, tmp_path / endpoint)
                assert report.answered + report.rejected == report.rows == 3
                server = Server(
                    base_url=f"{there}/v1", model=folder, endpoint=endpoint, rerank=4, timeout=120
                )
                recommender = Recommender(
                    load("online_retail_demo"), OpenAIModel(server), model_role="explain",
                    encoder="ngrams",
                )  # fmt: skip
                answer = recommender.recommend("", 3)  # it scores nothing, which is a note
                assert len(answer) == 3
                assert any("cannot score candidates" in note for note in answer.notes)
                assert recommender.chat(["something for a picnic"], k=3).list
        finally:
            process.terminate()
