"""Requests in a context: recommend, rank, explain, prompts, the command line and the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.commands import Run, answer
from support.commands import data as data
from support.commands import model as model
from support.commands import run as run
from support.served import client as client
from support.served import made_shop, recommend

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.errors import RequestError
from genrec.service.client import Client

WINTER = {"season": "winter"}


def test_prompts_are_the_same_without_context_and_have_it_otherwise() -> None:
    catalog = Catalog([Item("a", "red mug"), Item("b", "doll"), Item("c", "vase")])
    plain = Recommender(catalog, tiny.language_model(), encoder="none")
    before = plain.prompt("a; b").text
    assert "season" not in before
    history = plain.in_context("a; b", WINTER, "a present")
    assert plain.prompt(history).text == before.replace(
        "bought:", 'Note: "a present"\n[season: winter]\nbought:'
    ).replace('Note: "a present"\n[season: winter]\nbought: ', "bought: ", 2)
    assert plain.in_context(history, note="").context == WINTER
    assert plain.prompt(plain.in_context("a; b")).ids == plain.prompt("a; b").ids
    one = plain.recommend("a; b", 3, context=WINTER, note="a present", allow_last_basket=True)
    assert one.prompt_tokens == plain.prompt(history).n_tokens
    again = plain.recommend(history, 3, allow_last_basket=True)
    assert [r.logprob for r in one] == [r.logprob for r in again]
    other = plain.score("a; b", context={"season": "summer"})
    assert [r.logprob for r in other] != [r.logprob for r in plain.score("a; b", context=WINTER)]
    rails = plain.recommend_rails("a", 1, context=WINTER)
    assert rails["new"].prompt_tokens > plain.recommend("a", 1).prompt_tokens
    assert plain.would_like(history, "c") != plain.would_like("a; b", "c")
    explained = plain.explain("a; b", "c", context=WINTER)
    assert explained.to_dict()["item_id"] == "c"
    for bad in ({"device": "phone"}, {"season": "x"}, "winter", {"season": ["winter"]}):
        with pytest.raises(RequestError, match=r"context|device"):
            plain.recommend("a", context=bad)
    with pytest.raises(RequestError, match="note="):
        plain.recommend("a", note="x" * 501)
    declared = plain.with_settings(context_columns="device,season")
    assert declared.template.name == "next_item_context"
    shown = declared.prompt(declared.in_context("a", {"device": "phone"}, at="2025-07-01")).text
    assert shown.endswith("bought: red mug\n[device: phone, season: summer]\nbought:")


def test_declared_columns_follow_events_and_the_time_of_the_request() -> None:
    shop = made_shop().with_context(["weekday", "season"])
    recommender = Recommender(shop, tiny.language_model(), encoder="none", prior="none")
    history = recommender.history("u1", before="test")
    given = recommender.in_context(history, at="2026-01-05")
    assert given.context == {"weekday": "monday", "season": "winter"}
    assert recommender.in_context(history).context == {}
    said = recommender.in_context(history, {"weekday": "friday"}, at="2026-01-05").context
    assert said == {"weekday": "friday", "season": "winter"}
    text = recommender.prompt(given).text
    assert text.count("[weekday: sunday, season: autumn]") == len(history)
    live = [*history.interactions, Interaction("i0", "buy", 1_767_571_200.0)]
    later = recommender.in_context(History(tuple(live), "u1"), at=1_767_571_200.0)
    assert recommender.prompt(later).text.count("[weekday: monday, season: winter]") == 2
    now = recommender.recommend(history, 1)
    never = recommender.recommend(history, 1, at="any")
    assert now.prompt_tokens > never.prompt_tokens
    off = Recommender(shop, recommender.model, encoder="none", context_columns="none")
    bare = Recommender(made_shop(), recommender.model, encoder="none")
    assert off.prompt(off.history("u1")).ids == bare.prompt(bare.history("u1")).ids


def test_the_command_line(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    more = ("--user", "u", "--model", model, "--encoder", "none")
    context = ("--context", "season=winter", "--context", "weekday=friday", "--note", "for <b>")
    shown = answer(run, "prompt", data, *more, *context)
    assert 'Note: "for <b>"\n[season: winter, weekday: friday]\nbought:' in shown["text"]
    page = tmp_path / "why.html"
    typed = ("--history", "red mug", *more[2:])
    code, _, err = run("recommend", data, *typed, *context, "-k", "1", "--html", page)
    assert code == 0, err
    assert "for <b>" not in page.read_text()
    assert "for &lt;b&gt;" in page.read_text()
    files = ("--items", tmp_path / "items.csv", "--interactions", tmp_path / "events.csv")
    out = tmp_path / "with"
    report = answer(run, "prepare", *files, "--out", out, "--context-columns", "country")
    assert report["context"] == ["country"]
    shown = answer(run, "prompt", out, *more, "--context", "country=ES")
    assert "[country: FR]\nbought: Red mug\n[country: ES]\nbought:" in shown["text"]
    later = answer(
        run, "prompt", data, *more, "--context-columns", "country", "--context", "country=ES"
    )
    assert later["text"] == shown["text"]
    ranked = answer(run, "score", out, *more, "--context", "country=FR", "--prior", "none")
    assert len(ranked["recommendations"]) == 3
    for arguments, said in (
        (
            ("prepare", *files, "--out", tmp_path / "x", "--context-columns", "land"),
            "'land' cannot",
        ),
        (("recommend", out, *more, "--context", "countri=x"), "Did you mean 'country'"),
        (("recommend", data, *more, "--context", "country=x"), "--context-columns"),
        (("recommend", data, *more, "--context", "season"), "COLUMN=VALUE"),
        (
            ("recommend", data, *more, "--context-columns", "land"),
            "Expected one or more of: country",
        ),
    ):
        code, _, err = run(*arguments)
        assert code in {2, 6}, (arguments, err)
        assert said in err


def test_the_service_and_its_client(client: Any) -> None:
    asked = {"user_id": "u1", "k": 3, "context": WINTER, "note": "a <b>present</b>"}
    tokens = recommend(client, **asked)["prompt"]["tokens"]
    assert tokens > recommend(client, user_id="u1", k=3)["prompt"]["tokens"]
    pieces = client.post(
        "/v1/prompt", json={"user_id": "u1", "context": WINTER, "note": "a <b>present</b>"}
    ).json()["pieces"]
    assert 'Note: "a <b>present</b>"\n[season: winter]\n' in pieces[-1]["text"]
    refusals: list[Any] = [{"color": "red"}, {"season": "warm"}, {"season": {}}, "winter"]
    for bad in refusals:
        refused = client.post("/v1/recommend", json={**asked, "context": bad})
        assert refused.status_code == 422
    assert (
        "season, weekday, time_of_day"
        in client.post("/v1/recommend", json={**asked, "context": {"color": "red"}}).json()[
            "detail"
        ]
    )
    assert client.post("/v1/recommend", json={**asked, "note": "x" * 501}).status_code == 422
    library = Client(transport=client._transport)
    found = library.recommend(user_id="u1", k=3, context=WINTER, note="a <b>present</b>")
    assert found.prompt_tokens == tokens
