"""Send the parts of requests as spans to a collector of OpenTelemetry, if the operator asks for it.

A span has times, a method, a route, a status and numbers. It never has a text, a title, or the id of a
user, a session, an item or a key.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from genrec.extras import how_to_install
from genrec.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_WHERE = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_LONGEST_END = 3.0  # seconds to wait at the end for a collector that does not answer


class Trace:
    """The span of one request. This one is sent nowhere.

    Attributes:
        id: the id of the trace, for the log; None if it is sent nowhere.
    """

    id: str | None = None

    def end(self, route: str, status: int) -> None:
        """End the span."""


class Tracing:
    """Receives the spans of requests. This one sends them nowhere."""

    def begin(self, method: str, traceparent: str) -> Trace:
        """Begin the span of a request, to which parts are added until it ends.

        Args:
            method: the HTTP method.
            traceparent: the header with the span of the client; empty if there is none.
        """
        return Trace()

    def add(self, name: str, began: float, ended: float, **numbers: float) -> None:
        """Add a part of the current request.

        Args:
            name: the name of the part.
            began: the time when it began, by ``time.monotonic``.
            ended: the time when it ended.
            numbers: attributes.
        """

    def current(self) -> str:
        """Return the current request's span as a ``traceparent``, for another process; empty if there is none."""
        return ""

    @contextlib.contextmanager
    def continued(self, traceparent: str) -> Iterator[None]:
        """Add the parts of the ``with`` block to a request that another process answers.

        Args:
            traceparent: what ``current`` returned there.
        """
        yield

    def close(self) -> None:
        """Send what is left, for three seconds at most."""


class _Sent(Trace):
    """The span of one request that is sent to a collector."""

    def __init__(self, trace_id: str, finish: Callable[[str, int], None]) -> None:
        self.id, self._finish = trace_id, finish

    def end(self, route: str, status: int) -> None:
        self._finish(route, status)


class OpenTelemetry(Tracing):
    """Sends spans with the SDK of OpenTelemetry, which reads its standard environment variables."""

    def __init__(self, processors: Sequence[SpanProcessor]) -> None:
        """Store what receives the spans."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._carrier = TraceContextTextMapPropagator()
        named = "OTEL_SERVICE_NAME" in os.environ
        named = named or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if named else {"service.name": "genrec"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in processors:
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("genrec", __version__)

    def begin(self, method: str, traceparent: str) -> Trace:
        """Begin the span of a request."""
        from opentelemetry import context, trace

        method = method if method in _METHODS else "_OTHER"
        above = self._carrier.extract({"traceparent": traceparent})
        span = self._tracer.start_span(method, above, trace.SpanKind.SERVER)
        span.set_attribute("http.request.method", method)
        token = context.attach(trace.set_span_in_context(span))

        def finish(route: str, status: int) -> None:
            context.detach(token)
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(trace.StatusCode.ERROR)
            span.end()

        return _Sent(trace.format_trace_id(span.get_span_context().trace_id), finish)

    def add(self, name: str, began: float, ended: float, **numbers: float) -> None:
        """Add a part of the current request."""
        zero = time.time_ns() - time.monotonic_ns()
        start, end = (zero + round(1e9 * seconds) for seconds in (began, ended))
        span = self._tracer.start_span(name, start_time=start, attributes=numbers)
        span.end(end)

    def current(self) -> str:
        """Return the current request's span as a ``traceparent``."""
        found: dict[str, str] = {}
        self._carrier.inject(found)
        return found.get("traceparent", "")

    @contextlib.contextmanager
    def continued(self, traceparent: str) -> Iterator[None]:
        """Add the parts of the ``with`` block to a request that another process answers."""
        from opentelemetry import context

        token = context.attach(self._carrier.extract({"traceparent": traceparent}))
        try:
            yield
        finally:
            context.detach(token)

    def close(self) -> None:
        """Send what is left, for three seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_LONGEST_END)


def from_environment() -> tuple[Tracing, str]:
    """Return what the environment asks for, and a remark for the log if that is not possible.

    Spans are sent if ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` is set, unless
    ``OTEL_SDK_DISABLED`` is true.
    """
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not any(os.environ.get(name) for name in _WHERE):
        return Tracing(), ""
    if not is_installed():
        return Tracing(), f"Spans need the SDK of OpenTelemetry. {how_to_install('otel')}"
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return OpenTelemetry([BatchSpanProcessor(OTLPSpanExporter())]), ""


def is_installed() -> bool:
    """Return True if the packages that send spans are installed."""
    with contextlib.suppress(ImportError):
        name = "opentelemetry.exporter.otlp.proto.http"
        return all(importlib.util.find_spec(n) for n in ("opentelemetry.sdk", name))
    return False
