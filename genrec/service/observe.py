"""Count and log what the service does. Neither bodies nor histories nor keys are logged."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

LOG = logging.getLogger("genrec.service")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one service.

    Attributes:
        registry: the registry that holds them.
    """

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
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
        self.queue = Gauge("genrec_queue", "Requests that wait for the model.", registry=r)
        self.lists = Counter(
            "genrec_lists",
            "Lists by certainty: exact, uncertain or fallback.",
            ["kind"],
            registry=r,
        )
        self.tokens = Counter("genrec_prompt_tokens", "Tokens of the prompts of lists.", registry=r)
        self.events = Counter("genrec_events", "Events that were stored.", registry=r)
        self.counted = Counter("genrec_events_counted", "Events added to the prior.", registry=r)
        self.dropped = Gauge("genrec_left", "Requests whose client left the queue.", registry=r)

    def count_pass(self, jobs: int, seconds: float) -> None:
        """Count a pass of the model's thread."""
        self.passes.inc()
        self.pass_seconds.observe(seconds)
        self.pass_size.observe(jobs)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus's text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4


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
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
