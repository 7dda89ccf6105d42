"""Metrics and spans tell what answers say: time per part, tokens, exact lists, stored lines, failures."""

from __future__ import annotations

import io
import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support import served
from support.served import client as client
from support.served import made_shop, recommend, recommender, service_of

from genrec.service import tracing
from genrec.service.app import create_app
from genrec.service.limits import Limits
from genrec.service.observe import LOG, log_to
from genrec.service.security import Guard
from genrec.service.service import Service
from genrec.service.shop import Engine, Shop
from genrec.service.store import Store
from genrec.service.tables import sqlite_url
from genrec.service.worker import Job

needs_otel = pytest.mark.skipif(
    not tracing.is_installed(), reason="the SDK of OpenTelemetry is not installed"
)
BUY = {"user_id": "u1", "item_id": "i0", "behavior": "buy"}


def value(client: TestClient, name: str, **labels: str) -> float:
    """The value of a sample of /metrics; 0 if it is missing."""
    text = client.get("/metrics").text
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def stages(client: TestClient) -> dict[str, float]:
    names = ("prepare", "queue", "model", "counting", "store")
    return {n: value(client, "genrec_stage_seconds_count", stage=n) for n in names}


def test_each_part_of_a_request_is_timed(client: TestClient) -> None:
    recommend(client, user_id="u1", k=2)
    client.post("/v1/rank", json={"user_id": "u1", "candidates": ["i4"]})
    client.post("/v1/feedback", json=BUY)
    client.post("/v1/explain", json={"user_id": "u1", "item_id": "i4"})
    stream = {"Accept": "text/event-stream"}
    client.post("/v1/explain", json={"user_id": "u1", "item_id": "i4"}, headers=stream)
    assert stages(client) == {"prepare": 4, "queue": 4, "model": 4, "counting": 0, "store": 1}
    assert value(client, "genrec_stage_seconds_sum", stage="model") <= value(
        client, "genrec_pass_seconds_sum"
    )


def test_a_late_list_has_waited_and_has_no_time_of_the_model(client: TestClient) -> None:
    worker, opened = service_of(client).worker, threading.Event()
    held = worker.submit(Job(lambda given: [opened.wait(60)], None))
    try:
        assert recommend(client, user_id="u1", k=2, deadline_ms=20)["fallback"] == "deadline"
    finally:
        opened.set()
    assert held.result(60)
    assert stages(client) == {"prepare": 1, "queue": 1, "model": 0, "counting": 1, "store": 0}
    assert value(client, "genrec_fallbacks_total", reason="deadline") == 1
    assert value(client, "genrec_lists_total", kind="fallback") == 1
    assert value(client, "genrec_stage_seconds_sum", stage="queue") > 0
    assert value(client, "genrec_prompt_tokens_total") == 0  # the model read nothing


def test_tokens_are_those_of_the_answers(client: TestClient) -> None:
    answers = [recommend(client, user_id=u, k=3) for u in ("u1", "u2")]
    body = {"user_id": "u3", "candidates": ["i4", "i5"]}
    answers.append(client.post("/v1/rank", json=body).json())
    prompts = sum(a["prompt"]["tokens"] for a in answers)
    after = sum(a["certificate"]["tokens"] for a in answers)
    assert min(prompts, after) > 0
    assert value(client, "genrec_prompt_tokens_total") == prompts
    assert value(client, "genrec_search_tokens_total") == after
    assert value(client, "genrec_lists_total", kind="exact") == 2
    assert value(client, "genrec_queue_places") == service_of(client).limits.queue


def test_hits_of_stored_lines_are_those_of_the_answers(tmp_path: Path) -> None:
    data = made_shop()
    by_event = recommender(data, prior="none", attention="by_event", recent_events=1)
    shop = Shop(data, Store(sqlite_url(tmp_path)), [Engine.of("tiny", by_event)])
    with TestClient(create_app(Service(shop, Guard(())))) as client:
        found = [recommend(client, user_id=u, k=2)["attention"] for u in ("u1", "u1", "u2")]
        for source in ("stored", "read"):
            expected = sum(a[source] for a in found)
            assert expected > 0
            assert value(client, "genrec_lines_total", source=source) == expected


def test_events_are_counted_when_they_are_stored_and_when_the_prior_has_them(
    tmp_path: Path,
) -> None:
    with served.opened(tmp_path, limits=Limits(refresh=0.01)) as client:
        client.post("/v1/feedback", json={"events": [BUY, {**BUY, "behavior": "view"}]})
        assert value(client, "genrec_events_total") == 2
        until = time.monotonic() + 20
        while not value(client, "genrec_events_counted_total") and time.monotonic() < until:
            time.sleep(0.01)
        assert value(client, "genrec_events_counted_total") == 1  # a view is not the target


def test_failures_in_the_background_are_counted(client: TestClient) -> None:
    service = service_of(client)
    service.shop.store._engine.dispose()
    with service.shop.store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE lists")
    recommend(client, user_id="u1", k=2)
    service.recorder.flush()
    assert value(client, "genrec_background_errors_total") == 1
    assert value(client, "genrec_lists_not_stored") == 1
    assert value(client, "process_resident_memory_bytes") > 1e6


# Spans


@pytest.fixture
def memory() -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def traced(tmp_path: Path, memory: Any) -> Iterator[TestClient]:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    made = tracing.OpenTelemetry([SimpleSpanProcessor(memory)])
    with served.opened(tmp_path, tracing=made) as found:
        yield found


@needs_otel
def test_a_request_is_a_span_with_its_parts(traced: TestClient, memory: Any) -> None:
    recommend(traced, user_id="u1", k=2)
    *parts, whole = memory.get_finished_spans()
    assert [p.name for p in parts] == ["prepare", "queue", "model"]
    assert whole.name == "POST /v1/recommend"
    assert whole.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
    }
    assert {p.parent.span_id for p in parts} == {whole.context.span_id}
    slack = 50_000_000  # nanoseconds; a clock that is set meanwhile moves the parts
    for part in parts:
        assert whole.start_time - slack <= part.start_time <= part.end_time
        assert part.end_time <= whole.end_time + slack
    assert parts[1].end_time <= parts[2].start_time + slack
    assert parts[2].attributes == {"requests": 1}
    memory.clear()
    traced.post("/v1/feedback", json=BUY)
    assert [s.name for s in memory.get_finished_spans()] == ["store", "POST /v1/feedback"]


@needs_otel
def test_a_batch_has_one_span_with_the_parts_of_all(traced: TestClient, memory: Any) -> None:
    requests = [{"user_id": u, "k": 2} for u in ("u1", "u2")]
    traced.post("/v1/recommend:batch", json={"requests": requests})
    *parts, whole = memory.get_finished_spans()
    assert sorted(p.name for p in parts) == [*["model"] * 2, *["prepare"] * 2, *["queue"] * 2]
    assert {p.parent.span_id for p in parts} == {whole.context.span_id}


@needs_otel
def test_spans_continue_the_clients_trace_and_the_log_names_it(
    traced: TestClient, memory: Any
) -> None:
    trace, above = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{above}-01", "tracestate": "secret=secret"}
    stream = io.StringIO()
    handlers, level = LOG.handlers[:], LOG.level
    log_to(stream)
    try:
        traced.get("/v1/users/secret-user?prefix=secret", headers=headers)
        traced.get("/secret", headers={"traceparent": "secret"})
        traced.request("SECRET", "/secret")
    finally:
        LOG.handlers[:] = handlers
        LOG.setLevel(level or logging.NOTSET)
    first, second, third = memory.get_finished_spans()
    assert format(first.context.trace_id, "032x") == trace
    assert format(first.parent.span_id, "016x") == above
    assert second.parent is None
    names = ["GET /v1/users/{user_id:path}", "GET other", "_OTHER other"]
    assert [s.name for s in (first, second, third)] == names
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    ids = [format(s.context.trace_id, "032x") for s in (first, second, third)]
    assert [line["trace_id"] for line in lines] == ids


@needs_otel
def test_spans_say_nothing_of_users_items_titles_or_texts(traced: TestClient, memory: Any) -> None:
    secrets = {"user_id": "secret-user", "item_id": "i0", "behavior": "secret-behavior"}
    traced.put("/v1/items/secret-item", json={"title": "secret title"})
    traced.post("/v1/feedback", json=secrets, headers={"X-Request-ID": "secret"})
    recommend(traced, history="bought: secret title", k=50)
    recommend(traced, user_id="secret-user", k=50)
    traced.post("/v1/recommend", json={"user_id": "secret", "secret": 1})
    spans = memory.get_finished_spans()
    assert len(spans) >= 10
    assert "secret" not in "".join(s.to_json() for s in spans)


@needs_otel
def test_a_server_error_is_an_error_of_the_span(
    traced: TestClient, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(service_of(traced).shop.store, "events_of", fail)
    assert traced.post("/v1/recommend", json={"user_id": "u1"}).status_code == 500
    *_, whole = memory.get_finished_spans()
    assert not whole.status.is_ok
    assert "secret" not in whole.to_json()


def test_spans_are_off_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    made, remark = tracing.from_environment()
    assert (type(made), remark) == (tracing.Tracing, "")
    assert made.begin("GET", "").id is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made, remark = tracing.from_environment()
    assert type(made) is tracing.Tracing
    assert "opentelemetry-sdk" in remark
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.from_environment()[1] == ""


@needs_otel
def test_a_collector_that_does_not_answer_disturbs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(tracing, "_LONGEST_END", 0.1)
    made, remark = tracing.from_environment()
    assert isinstance(made, tracing.OpenTelemetry)
    assert remark == ""
    with served.opened(tmp_path, tracing=made) as client:
        assert len(recommend(client, user_id="u1", k=2)["recommendations"]) == 2
        assert math.isfinite(value(client, "genrec_queue"))
