"""Lists, scores, searches, sessions and explanations over HTTP, and what happens when it is too much."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import served
from support.served import buy, ids, recommend, service_of
from support.served import client as client
from support.served import shared as shared

from genrec.config import QueryOptions
from genrec.service.limits import Limits
from genrec.service.outcomes import mean_per_user
from genrec.service.schemas import OPTION_NAMES, SERVER_ONLY, Options, merge
from genrec.service.worker import Job


def test_the_options_are_those_of_the_library() -> None:
    names = set(QueryOptions.__dataclass_fields__)
    assert names - set(SERVER_ONLY) == OPTION_NAMES
    fields = QueryOptions.__dataclass_fields__
    for name, field in Options.model_fields.items():
        assert field.description == fields[name].metadata["help"]
    given: dict[str, Any] = {
        "k": 3, "allow": ["a"], "deny": ["b"], "pin": ["a"], "where": "price < 3", "at": "2025-12-24",
        "show": "new", "allow_returned": True, "allow_last_basket": True, "allow_same_title": True,
        "min_probability": 0.1, "per_title": 1, "per_group": 0, "caps": {"brand": 1},
        "boosts": {"price < 3": 2.0}, "half_life": 3.0, "age_column": "published", "diversity": 0.5,
        "explain": True, "evidence": "fast", "style": "short", "context": {"season": "winter"},
        "note": "a present", "query": "a mug", "query_weights": {"match": 20.0},
        "profile_edits": {"banned": ["candle"]},
    }  # fmt: skip
    assert given.keys() == OPTION_NAMES
    read = Options.model_validate(given).given()
    assert merge({}, read, {}) == QueryOptions(**given)
    assert merge({"k": 5}, {}, {"k": 7, "stock": "f"}).k == 5


def test_a_batch_answers_each_request_alone(shared: TestClient) -> None:
    asked: list[dict[str, Any]] = [
        {"user_id": "u1", "k": 3}, {"user_id": "u2", "k": 3}, {"user_id": "u3", "run": "none"},
        {"history": [{"item_id": "unknown", "behavior": "buy"}]}, {"user_id": "u1", "where": "1 +"},
        {"history": "bought: red mug", "k": 3},
    ]  # fmt: skip
    answers = shared.post("/v1/recommend:batch", json={"requests": asked}).json()["answers"]
    assert [a.get("status", 200) for a in answers] == [200, 200, 404, 422, 422, 200]
    for number in (0, 1, 5):
        alone = recommend(shared, **asked[number])
        assert ids(answers[number]) == ids(alone)
        scores = [r["score"] for r in alone["recommendations"]]
        batch = [r["score"] for r in answers[number]["recommendations"]]
        assert batch == pytest.approx(scores, abs=1e-3)
    assert "red mug" in json.dumps(answers[5]["understood"])


def test_rails_scenarios_and_given_options(client: TestClient) -> None:
    buy(client, "u1", "i0")
    rails = recommend(client, user_id="u1", k=2, shows=["new", "again"])["rails"]
    assert len(ids(rails["new"])) == 2
    assert set(ids(rails["again"])) <= {
        e["item_id"] for e in client.get("/v1/users/u1").json()["history"]
    }
    assert client.put("/v1/scenarios/home", json={"k": 2, "deny": ["i4"]}).status_code == 200
    answer = recommend(client, user_id="u1", scenario="home")
    assert (len(ids(answer)), answer["scenario"]) == (2, "home")
    assert len(ids(recommend(client, user_id="u1", scenario="home", k=3))) == 3
    assert "i4" not in ids(recommend(client, user_id="u1", scenario="home", k=100))
    assert client.put("/v1/scenarios/bad", json={"age_column": "x"}).status_code == 422
    assert client.post("/v1/recommend", json={"scenario": "none"}).status_code == 404
    assert client.delete("/v1/scenarios/home").status_code == 200
    assert client.delete("/v1/scenarios/home").status_code == 404


def test_ranks_scores_and_searches(shared: TestClient) -> None:
    history = [{"item_id": "i1", "behavior": "buy"}, {"item_id": "i3", "behavior": "buy"}]
    body = {"history": history, "candidates": ["i1", "i5", "nothing"]}
    ranked = shared.post("/v1/rank", json=body).json()
    assert (ids(ranked), ranked["unknown"]) == (["i5"], ["nothing"])
    scored = shared.post("/v1/score", json=body).json()
    assert sorted(ids(scored)) == ["i1", "i5"]
    assert shared.post("/v1/score", json={**body, "strict": True}).status_code == 422
    found = shared.post("/v1/search", json={"query": "mug", "history": history, "k": 2}).json()
    assert set(ids(found)) == {"i0", "i3"}
    assert [r["rank"] for r in found["recommendations"]] == [1, 2]
    for one in found["recommendations"]:
        assert one["title_match"] == 1.0
        assert one["score"] == pytest.approx(one["logprob"])
    typo = shared.post("/v1/search", json={"query": "glas vasse", "history": "", "k": 1}).json()
    assert ids(typo) == ["i4"]
    assert typo["recommendations"][0]["title_match"] < 1
    nothing = shared.post("/v1/search", json={"query": "!!!", "history": ""}).json()
    assert nothing["recommendations"] == []


def test_an_unknown_user_is_a_new_one(shared: TestClient) -> None:
    answer = recommend(shared, user_id="nobody", k=3)
    assert ids(answer) == ids(recommend(shared, history="", k=3))
    assert "no events" in answer["notes"][-1]
    assert answer["user_id"] == "nobody"


def test_sessions_keep_nothing_unless_asked(client: TestClient) -> None:
    events = [{"item_id": "i1", "behavior": "buy"}]
    first = client.post("/v1/sessions", json={"history": events, "k": 3}).json()
    assert "session_id" not in first
    kept = client.post("/v1/sessions", json={"history": events, "k": 3, "keep": True}).json()
    assert ids(kept) == ids(first)
    name = kept["session_id"]
    more = {"history": [{"item_id": "i3", "behavior": "buy"}], "session_id": name, "keep": True}
    again = client.post("/v1/sessions", json={**more, "k": 3}).json()
    assert again["prompt"]["events"] == 2
    assert recommend(client, session_id=name, k=3)["recommendations"] == again["recommendations"]
    rows = [json.loads(line) for line in client.get("/v1/export").text.splitlines()]
    assert {r["session_id"] for r in rows if r["table"] == "events"} == {name}
    assert {r["session_id"] for r in rows if r["table"] == "lists"} == {name}
    assert rows[-1] == {"table": "end"}
    assert client.delete(f"/v1/sessions/{name}").json()["events"] == 2


def test_feedback_is_joined_to_the_list_that_was_shown(client: TestClient) -> None:
    client.put("/v1/scenarios/home", json={"k": 3})
    shown = recommend(client, user_id="u1", scenario="home")
    recommend(client, user_id="u2", scenario="home")
    recommend(client, user_id="u2", scenario="home", impression=False)
    taken = ids(shown)[1]
    buy(client, "u1", taken, list_id=shown["list_id"])
    (group,) = client.get("/v1/acceptance", params={"behaviors": "buy"}).json()["groups"]
    assert group == {
        "value": "home", "lists": 2, "items": 6, "items_accepted": 1, "lists_accepted": 1,
        "users": 2, "per_user": mean_per_user([1.0, 0.0]),
        "behaviors": {"buy": {"lists": 1, "items": 1}},
    }  # fmt: skip
    by_rank = client.get("/v1/acceptance", params={"by": "rank"}).json()["groups"]
    assert [g["items_accepted"] for g in by_rank] == [0, 1, 0]
    by_run = client.get("/v1/acceptance", params={"by": "run", "behaviors": "view"}).json()[
        "groups"
    ]
    assert [(g["value"], g["lists"], g["lists_accepted"]) for g in by_run] == [("tiny", 2, 0)]


def test_a_repeated_request_with_feedback_is_stored_once(client: TestClient) -> None:
    event = {"user_id": "u1", "item_id": "i0", "behavior": "buy"}
    headers = {"Idempotency-Key": "order 7"}
    first = client.post("/v1/feedback", json=event, headers=headers).json()
    again = client.post("/v1/feedback", json=event, headers=headers).json()
    assert again == {**first, "repeated": True}
    other = client.post("/v1/feedback", json={**event, "item_id": "i1"}, headers=headers)
    assert other.status_code == 422
    assert client.get("/v1/users/u1").json()["events"] == 6
    unknown = {"events": [event, {**event, "item_id": "none"}]}
    assert client.post("/v1/feedback", json=unknown).status_code == 422
    assert client.get("/v1/users/u1").json()["events"] == 6
    text = {"user_id": "u1", "behavior": "search", "text": "a mug"}
    assert client.post("/v1/feedback", json=text).status_code == 200
    assert recommend(client, user_id="u1", k=1)["prompt"]["events"] == 7


def test_an_explanation_can_be_followed_as_it_comes(shared: TestClient) -> None:
    body = {"user_id": "u1", "item_id": "i4", "k": 3, "evidence": "fast"}
    plain = shared.post("/v1/explain", json=body).json()
    assert plain["title"] == "glass vase"
    streamed = shared.post("/v1/explain", json=body, headers={"Accept": "text/event-stream"})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = [part.split("\n", 1) for part in streamed.text.strip().split("\n\n")]
    assert [name for name, _ in events[:1]] == ["event: progress"]
    name, data = events[-1]
    assert name == "event: explanation"
    assert json.loads(data.removeprefix("data: "))["rank"] == plain["rank"]
    unknown = shared.post(
        "/v1/explain", json={**body, "item_id": "none"}, headers={"Accept": "text/event-stream"}
    )
    assert "event: problem" in unknown.text
    assert json.loads(unknown.text.rpartition("data: ")[2])["status"] == 422


class Hold:
    """Keeps the thread of the model busy until it is released."""

    def __init__(self, client: TestClient) -> None:
        self._open, began = threading.Event(), threading.Event()

        def run(given: Any) -> Any:
            began.set()
            assert self._open.wait(60)
            return given

        self.job = service_of(client).worker.submit(Job(run, None))
        assert began.wait(20)

    def release(self) -> None:
        self._open.set()
        self.job.result(20)


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[TestClient]:
    limits = Limits(queue=1, deadline=0.2, hangs_after=0.1, refresh=1000.0)
    with served.opened(tmp_path, limits=limits) as found:
        yield found


def test_a_late_list_is_made_by_counting_and_says_so(tight: TestClient) -> None:
    usual = recommend(tight, user_id="u1", k=3, deadline_ms=60_000)
    assert usual["fallback"] is None
    hold = Hold(tight)
    late = recommend(tight, user_id="u1", k=3, deny=["i4"])
    assert late["fallback"] == "deadline"
    assert len(ids(late)) == 3
    assert "i4" not in ids(late)
    rails = recommend(tight, user_id="u1", k=2, shows=["new"])
    assert rails["rails"]["new"]["fallback"] == "deadline"
    tight.put("/v1/items/i5", json={"title": "changed"})
    tight.delete("/v1/items/i6")
    listed = recommend(tight, history="", k=100)
    assert listed["fallback"] == "deadline"
    assert "changed" in {r["title"] for r in listed["recommendations"]}
    assert "i6" not in ids(listed)
    refused = tight.post("/v1/recommend", json={"user_id": "u1", "fallback": False})
    assert (refused.status_code, refused.json()["status"]) == (504, 504)
    assert tight.post("/v1/rank", json={"user_id": "u1"}).status_code == 504
    hold.release()
    assert recommend(tight, user_id="u1", k=3, deadline_ms=60_000)["fallback"] is None


def test_health_tells_the_truth_while_a_request_hangs(tight: TestClient) -> None:
    assert tight.get("/healthz").json()["status"] == "ok"
    hold = Hold(tight)
    time.sleep(0.15)
    for path in ("/healthz", "/readyz"):
        answer = tight.get(path)
        assert answer.status_code == 503
        assert "has been running" in answer.json()["problem"]
    assert tight.get("/livez").status_code == 200
    assert recommend(tight, user_id="u1", k=1, deadline_ms=600_000)["fallback"] == "deadline"
    hold.release()
    assert tight.get("/healthz").json()["status"] == "ok"


def test_a_full_queue_answers_429_at_once(tight: TestClient) -> None:
    hold = Hold(tight)
    service = service_of(tight)
    waiting = service.worker.submit(Job(lambda given: given, None))
    body = {"user_id": "u1", "candidates": ["i4"]}
    refused = tight.post("/v1/rank", json=body)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert "genrec_queue 1.0" in tight.get("/metrics").text
    stream = tight.post("/v1/explain", json={"user_id": "u1", "item_id": "i4"},
                        headers={"Accept": "text/event-stream"})  # fmt: skip
    assert stream.status_code == 429  # an ordinary answer, since no stream has begun
    waiting.cancel()
    hold.release()
    assert tight.post("/v1/rank", json={**body, "deadline_ms": 60_000}).status_code == 200


def test_a_model_that_fails_is_replaced_by_counting(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = service_of(client).shop.engines["tiny"]

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.recommender.model, "prefill_many", fail)
    assert recommend(client, user_id="u1", k=3)["fallback"] == "model"
    refused = client.post("/v1/recommend", json={"user_id": "u1", "fallback": False})
    assert refused.status_code == 500
    assert "memory" not in refused.text
    monkeypatch.undo()
    assert recommend(client, user_id="u1", k=3)["fallback"] is None
