"""A collector of spans, which speaks OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@contextmanager
def collecting(patch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Let processes that start inside the block send their spans to a list."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent = ExportTraceServiceRequest.FromString(body)
            spans.extend(s for r in sent.resource_spans for c in r.scope_spans for s in c.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        try:
            yield spans
        finally:
            server.shutdown()
