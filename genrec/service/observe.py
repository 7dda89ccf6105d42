"""Count and log what the service does. Neither bodies nor histories nor keys are logged."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from genrec.service.tracing import Tracing
from genrec.service.worker import Job, Worker

LOG = logging.getLogger("genrec.service")
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable that names the folder in which processes count together
_OTHERS = "opentelemetry"  # the logger of a library that the service uses
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one service.

    Attributes:
        registry: the registry of what is counted.
        levels: the registry of what is read at the moment: the queue, and this process.
        tracing: receives the parts of requests, too.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.registry = r = CollectorRegistry()
        self.levels = CollectorRegistry()
        self.tracing = tracing or Tracing()
        ProcessCollector(registry=self.levels)
        self.requests = Counter(
            "genrec_requests", "Requests by route and status.", ["route", "status"], registry=r
        )
        self.seconds = Histogram(
            "genrec_request_seconds",
            "Time until the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=r,
        )
        self.passes = Counter("genrec_passes", "Passes of the model's thread.", registry=r)
        self.pass_seconds = Histogram(
            "genrec_pass_seconds", "Time of a pass.", buckets=_SECONDS, registry=r
        )
        self.pass_size = Histogram(
            "genrec_pass_size", "Requests that shared a pass.", buckets=(1, 2, 4, 8, 16), registry=r
        )
        self.stage_seconds = Histogram(
            "genrec_stage_seconds",
            "Time of the parts of requests: prepare (history and options), queue, model, counting "
            "(lists without the model), store (events).",
            ["stage"],
            buckets=_SECONDS,
            registry=r,
        )
        self.lists = Counter(
            "genrec_lists",
            "Lists by certainty: exact, uncertain or fallback.",
            ["kind"],
            registry=r,
        )
        self.fallbacks = Counter(
            "genrec_fallbacks",
            "Requests that counting alone answered: deadline or model.",
            ["reason"],
            registry=r,
        )
        self.tokens = Counter(
            "genrec_prompt_tokens",
            "Tokens of the prompts that the model ranked items for.",
            registry=r,
        )
        self.searched = Counter(
            "genrec_search_tokens", "Tokens that the model read after the prompts.", registry=r
        )
        self.lines = Counter(
            "genrec_lines",
            "Older events of prompts, by where their line was found: stored, or read by the model.",
            ["source"],
            registry=r,
        )
        self.remembered = Counter(
            "genrec_remembered_tokens",
            "Tokens of prompts that were known from an earlier request of the same user.",
            registry=r,
        )
        self.events = Counter("genrec_events", "Events that were stored.", registry=r)
        self.counted = Counter("genrec_events_counted", "Events added to the prior.", registry=r)
        self.unstored = Gauge(
            "genrec_lists_not_stored",
            "Shown lists that could not be stored.",
            multiprocess_mode="sum",
            registry=r,
        )
        self.background = Counter(
            "genrec_background_errors", "Failures of tasks in the background.", registry=r
        )

    def watch(self, worker: Worker) -> None:
        """Let the gauges show what the thread of the model says when the metrics are read."""
        self.levels.register(_Levels(worker))

    def count_pass(self, jobs: int, seconds: float) -> None:
        """Count a pass of the model's thread."""
        self.passes.inc()
        self.pass_seconds.observe(seconds)
        self.pass_size.observe(jobs)

    def count_stage(self, name: str, began: float, ended: float, **numbers: float) -> None:
        """Count the time of a part of a request, and add the part to the request's trace.

        Args:
            name: the name of the part.
            began: the time when it began, by ``time.monotonic``.
            ended: the time when it ended.
            numbers: what the trace says about the part.
        """
        self.stage_seconds.labels(name).observe(max(0.0, ended - began))
        self.tracing.add(name, began, ended, **numbers)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the ``with`` block as that of a part of a request."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.count_stage(name, began, time.monotonic())

    def count_job(self, job: Job) -> None:
        """Count the time that a request spent in the queue, and that of its pass if it has ended."""
        if job.queued:
            self.count_stage("queue", job.queued, job.began or time.monotonic())
        if job.ended:
            self.count_stage("model", job.began, job.ended, requests=job.shared)

    def count_list(self, answer: Mapping[str, Any], fallback: str | None) -> None:
        """Count a list; ``fallback`` says why counting alone made it, or is None."""
        certain = (answer.get("certificate") or {}).get("exact")
        kind = "exact" if certain else "uncertain"
        self.lists.labels("fallback" if fallback else kind).inc()
        self.count_reading(answer)

    def count_reading(self, answer: Mapping[str, Any]) -> None:
        """Count the tokens that an answer needed and the stored lines that it used.

        Args:
            answer: an answer of the library; see docs/reference/outputs.md.
        """
        if "model" in answer.get("parts", ("model",)):
            self.tokens.inc((answer.get("prompt") or {}).get("tokens", 0))
        self.searched.inc((answer.get("certificate") or {}).get("tokens", 0))
        attention = answer.get("attention") or {}
        if "remembered" in attention:  # then ``read`` is a number of tokens
            self.remembered.inc(attention["remembered"])
            return
        for source in ("stored", "read"):
            self.lines.labels(source).inc(attention.get(source, 0))

    def render(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus's text format, and its content type.

        If several processes count in the files of one folder, their counts are added up.
        """
        counted = self.registry
        if FOLDER in os.environ:
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        text = generate_latest(counted) + generate_latest(self.levels)
        return text, CONTENT_TYPE_PLAIN_0_0_4


class _Levels:
    """The gauges of the queue of the model."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges with their present values."""
        worker, tally = self._worker, self._worker.tally
        for name, text, value in (
            ("queue", "Requests that wait for the model.", worker.waiting),
            ("queue_places", "Requests that may wait at most.", worker.size),
            ("left", "Requests whose client left the queue.", tally.left),
            ("late", "Requests whose deadline passed before their turn.", tally.late),
            ("stopped", "Passes that stopped because nobody waited for them.", tally.stopped),
        ):
            yield GaugeMetricFamily(f"genrec_{name}", text, value)


class JsonLines(logging.Formatter):
    """Formats each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; values come from the attribute ``values`` of the record."""
        values = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "values", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            values["error"] = record.exc_info[0].__name__
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=True, default=str)


def log_to(stream: TextIO | None = None) -> None:
    """Write the log of the service as lines of JSON, by default to standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for log, level in ((LOG, logging.INFO), (logging.getLogger(_OTHERS), logging.WARNING)):
        log.handlers[:] = [handler]
        log.setLevel(level)
        log.propagate = False
