"""A sentence can be read while the model writes it, and only the checked one is called checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import served
from support.served import service_of
from support.served import shared as shared

from genrec import Client, History, Interaction
from genrec.explain.drafts import Draft, listen, whole_words
from genrec.service.client import InvalidRequestError

WANTED: dict[str, Any] = {"k": 3, "evidence": "fast", "show": "all"}


def check(drafts: Sequence[Draft], explanation: Any) -> None:
    *before, last = drafts
    assert last == Draft(explanation["text"], last.attempt, checked=True)
    assert not any(draft.checked for draft in before)
    for attempt in (1, 2):
        mine = [draft.text for draft in before if draft.attempt == attempt]
        for one, following in itertools.pairwise(mine):
            assert following.startswith(one)
    rejected = [(d.text, d.rejected) for d in before if d.rejected is not None]
    assert rejected == [(r["text"], r["why"]) for r in explanation["rejected"]]


def test_the_sentence_grows_word_by_word(shared: TestClient) -> None:
    asking = Client("http://testserver", transport=shared._transport)
    written = 0
    for item in range(3):
        heard: list[Draft] = []
        found = asking.explain(None, f"i{item}", user_id="u1", told=heard.append, **WANTED)
        plain = asking.explain(None, f"i{item}", user_id="u1", **WANTED)
        assert found["explanation"] == plain["explanation"]
        check(heard, found["explanation"])
        if found["explanation"]["source"] == "generated" or found["explanation"]["rejected"]:
            assert len(heard) > 4  # many steps, not the whole sentence at once
            written += 1
    assert written
    with pytest.raises(InvalidRequestError, match="catalog"):
        asking.explain(None, "none", user_id="u1", told=heard.append)


def test_the_stream_says_what_is_a_draft(shared: TestClient) -> None:
    body = {"user_id": "u1", "item_id": "i0", **WANTED}
    answer = shared.post("/v1/explain", json=body, headers={"accept": "text/event-stream"})
    names = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names[0] == "progress"
    assert [n for n in names if n != "progress"][-2:] == ["sentence", "explanation"]
    assert set(names) <= {"progress", "draft", "sentence", "explanation"}


def test_only_a_single_sentence_is_heard(shared: TestClient) -> None:
    recommender = service_of(shared).shop.engines["tiny"].recommender
    history = History((Interaction("i0", "buy"), Interaction("i4", "buy")))
    heard: list[Draft] = []
    with listen(heard.append):
        several = recommender.recommend(history, 3, explain=True, evidence="fast")
        assert not heard
    one = served.recommender(served.made_shop()).recommend(
        history, 3, explain=True, evidence="fast"
    )
    assert [r.explanation for r in several] == [r.explanation for r in one]


def test_words_are_whole() -> None:
    assert whole_words("Because they bo") == "Because they"
    assert whole_words("Because they bought ") == "Because they bought"
    assert whole_words("Because") == ""
    assert whole_words("因为买了红杯\ufffd") == "因为买了红杯"


def test_the_plain_style_needs_no_model(shared: TestClient) -> None:
    """Counting explains at once, with the evidence of the counts and the fixed sentence."""
    body = {"user_id": "u1", "k": 3, "counting": True, "explain": True, "evidence": "fast"}
    passes = service_of(shared).worker.tally.passes
    answer = shared.post("/v1/recommend", json={**body, "style": "plain"}).json()
    assert service_of(shared).worker.tally.passes == passes
    counting = service_of(shared).shop.engines["tiny"].fallback
    assert counting is not None
    alone = counting.recommend(
        service_of(shared).shop.history("u1"), 3, explain=True, evidence="fast"
    )
    for row, expected in zip(answer["recommendations"], alone, strict=True):
        assert expected.explanation is not None
        assert row["explanation"]["source"] == "template"
        found = [e["nats"] for e in row["explanation"]["evidence"]]
        assert found == pytest.approx([e.nats for e in expected.explanation.evidence])
    other = shared.post("/v1/recommend", json={**body, "style": "reason"}).json()
    assert "explanation" not in other["recommendations"][0]  # the model would have to write
