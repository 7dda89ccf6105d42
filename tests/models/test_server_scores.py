"""Servers that score candidates: found out once, with each way that a server may know, and without any."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.text_server import TextServer, running

from genrec import Recommender
from genrec.batch import Job, run
from genrec.data.datasets import load
from genrec.errors import ModelError, SettingsError
from genrec.models.base import CandidateModel
from genrec.models.openai import CHAT, OpenAIModel, Server
from genrec.pipeline.types import RecommendationList

TITLES = [" red mug", " blue mug", " tea towel"]
WAYS = [("completions", "echo"), ("completions", "choices"), (CHAT, "labels"), (CHAT, "choices")]


class Prompt:
    """A prompt as text."""

    ids: tuple[int, ...] = ()
    text = "bought: cake tin\nbought:"


def nothing(prompt: str) -> list[str]:
    return ["I would rather talk about the weather"] * 8


def model(server: TextServer, **given: Any) -> OpenAIModel:
    values: dict[str, Any] = {"timeout": 5.0, "retries": 2, "rerank": 3, **given}
    return OpenAIModel(Server(base_url=server.url, model="writer", **values), api_key="secret")


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize(("endpoint", "way"), WAYS)
def test_the_way_is_found_out_once(endpoint: str, way: str, refuses: bool) -> None:
    can = frozenset({way})
    with running(TextServer(nothing, can=can, refuses=refuses, prefers="blue mug")) as server:
        made = model(server, endpoint=endpoint)
        assert isinstance(made, CandidateModel)
        first = made.score_candidates(Prompt(), TITLES, "\n")
        asked = len(server.asked)
        second = made.score_candidates(Prompt(), TITLES, "\n")
    assert made.way == way
    assert made.notes == ()
    assert np.argmax(first) == 1
    assert first.tolist() == second.tolist()
    assert asked == (2 if way == "choices" else 1)
    assert len(server.asked) == asked + 1
    used = made.spent.tokens_in + made.spent.tokens_out
    assert used == server.counted


def test_only_the_tokens_of_the_title_and_its_end_count() -> None:
    with running(TextServer(nothing, can=frozenset({"echo"}), prefers="blue mug")) as server:
        found = model(server).score_candidates(Prompt(), TITLES, "\n")
    assert found.tolist() == pytest.approx([-3.0, -0.03, -3.0])  # two words and the end of the line


def test_letters_that_are_not_reported_are_unlikely() -> None:
    titles = [f" mug {n}" for n in range(22)]
    with running(TextServer(nothing, can=frozenset({"labels"}), prefers="mug 2")) as server:
        found = model(server, endpoint=CHAT, rerank=22).score_candidates(Prompt(), titles, "\n")
    assert found[0] == pytest.approx(np.logaddexp(-4.0, -6.0))  # a letter with and without a space
    assert found[2] == pytest.approx(-0.1)
    assert found[5:20].tolist() == [-5.0] * 15
    assert np.isnan(found[20:]).all()


def test_shares_of_texts() -> None:
    with running(TextServer(nothing, can=frozenset({"choices"}), prefers="tea towel")) as server:
        found = model(server, scores="choices").score_candidates(Prompt(), TITLES, "\n")
    assert np.exp(found).tolist() == pytest.approx([0.5 / 9.5, 0.5 / 9.5, 8.5 / 9.5])


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("endpoint", ["completions", CHAT])
def test_a_server_that_can_do_nothing_is_a_note(endpoint: str, refuses: bool) -> None:
    with running(TextServer(nothing, refuses=refuses)) as server:
        made = model(server, endpoint=endpoint)
        assert np.isnan(made.score_candidates(Prompt(), TITLES, "\n")).all()
        asked = len(server.asked)
        assert np.isnan(made.score_candidates(Prompt(), TITLES, "\n")).all()
        assert len(server.asked) == asked  # it is not asked again
    assert made.way is None
    assert "cannot score candidates" in made.notes[0]


def test_a_failing_server_is_an_error_and_not_a_server_that_cannot() -> None:
    can = frozenset({"echo"})
    with running(TextServer(nothing, ["500"] * 3, can=can, prefers="red mug")) as server:
        made = model(server, retries=2)
        with pytest.raises(ModelError, match="status 500"):
            made.score_candidates(Prompt(), TITLES, "\n")
        assert np.argmax(made.score_candidates(Prompt(), TITLES, "\n")) == 0  # asked anew


def lists(server: TextServer, **given: Any) -> RecommendationList:
    data = load("online_retail_demo")
    recommender = Recommender(
        data, model(server, rerank=5, weight=1.0, **given), model_role="explain", encoder="ngrams",
    )  # fmt: skip
    return recommender.recommend(
        data.interactions.history("12493"), 5, allow_last_basket=True, per_group=0
    )


def test_the_priors_best_items_are_reranked() -> None:
    with running(TextServer(nothing)) as server:
        before = lists(server)
        assert before.details["certificate"]["exact"]
        assert before.details["parts"] == ["prior"]
        assert any("cannot score" in note for note in before.notes)
    last = before[-1]
    with running(TextServer(nothing, can=frozenset({"echo"}))) as server:
        server.prefers = last.title.lower()
        after = lists(server)
        assert len(server.asked[-1]["prompt"]) == 5
    assert after[0].item_id == last.item_id
    assert {r.item_id for r in after} == {r.item_id for r in before}
    assert "certificate" not in after.details
    assert after.details["parts"] == ["model", "prior"]
    assert after.details["scored"] == "echo"
    assert after[0].logprob_model is not None
    assert [r.probability for r in after] == pytest.approx([r.probability for r in before])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scores": "guess"}, "scores='guess' is not valid"),
        ({"scores": "echo", "endpoint": CHAT}, "scores='echo' needs endpoint='completions'"),
        ({"scores": "labels"}, "scores='labels' needs endpoint='chat'"),
        ({"scores": "labels", "endpoint": CHAT, "rerank": 21}, "at most 20"),
        ({"rerank": -1}, "rerank=-1 is not valid"),
    ],
)
def test_invalid_servers(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Server(base_url="http://x/v1", model="m", **given)


def test_reranking_needs_a_prior_that_ranks() -> None:
    with pytest.raises(SettingsError, match="rerank=5 needs model_role='explain'"):
        Job(data="zh_mini", model="m", server={"base_url": "http://x/v1", "rerank": "5"})
    with pytest.raises(SettingsError, match="decoder='trie' needs the probabilities"):
        Job(
            data="zh_mini",
            model="m",
            server={"base_url": "http://x/v1"},
            settings={"decoder": "trie"},
        )


def test_conversations_and_queries_with_a_server() -> None:
    """The catalog and the encoder find the items; the server is only asked for sentences."""
    data = load("online_retail_demo")
    roles: list[dict[str, Any]] = [{"decoder": "match"}, {"model_role": "explain"}]
    for role in roles:
        with running(TextServer(nothing)) as server:
            recommender = Recommender(data, model(server, rerank=0), encoder="ngrams", **role)
            answer = recommender.chat(["something for a picnic under 5", "not plastic"], k=4)
            assert not server.asked
            history = data.interactions.history("12493")
            told = recommender.recommend(history, 3, query="a red mug", explain=True)
            assert server.asked
        assert answer.list is not None
        assert len(answer.list) == 4
        assert "match" in answer.list.details["parts"]
        assert answer.list.decoder == "trie"
        assert answer.list.details["certificate"]["exact"]
        prices = data.catalog.column("median_price_gbp").to_pylist()
        rows = data.catalog.rows([r.item_id for r in answer.list])
        assert all(prices[row] < 5 for row in rows)
        assert all(r.explanation is not None for r in told)


def test_profiles_in_a_batch_need_no_request(tmp_path: Path) -> None:
    with running(TextServer(nothing)) as server:
        job = Job(
            data="zh_mini", model="writer", task="profile", server={"base_url": server.url},
            settings={"model_role": "explain"},
        )  # fmt: skip
        report = run(job, tmp_path)
        assert not server.asked
    assert report.answered == report.rows
    row = pq.read_table(tmp_path / "part-000000.parquet").slice(0, 1).to_pylist()[0]
    made = json.loads(row["profile"])
    assert made["user_id"] == row["id"]
    assert made["measured"] == "prior"


def test_the_command_line(tmp_path: Path) -> None:
    load("zh_mini").save(tmp_path / "data")
    with running(TextServer(nothing, can=frozenset({"labels"}))) as server:
        there = [
            "--backend", "openai", "--base-url", server.url, "--model", "writer", "--encoder", "ngrams",
            "--server", "endpoint=chat",
        ]  # fmt: skip
        start = [sys.executable, "-m", "genrec"]
        listed = [
            *start, "recommend", str(tmp_path / "data"), "--user", "u01", "--json",
            "--model-role", "explain", "--server", "rerank=4", *there,
        ]  # fmt: skip
        done = subprocess.run(listed, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["scored"] == "labels"
        talk = [*start, "chat", str(tmp_path / "data"), "--json", *there]
        done = subprocess.run(talk, input="手机\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["list"]["recommendations"]
