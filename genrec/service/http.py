"""Check requests before they reach a route, and give every answer its headers and its log line."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.json_text import to_json
from genrec.service.observe import LOG, Metrics
from genrec.service.problems import MEDIA_TYPE, Problem, problem_of
from genrec.service.security import Guard

DEEPEST = 12  # levels of nesting in the JSON of a request
_LARGEST = 2**63  # numbers in attributes must be smaller than this
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SURROGATE = re.compile("[\ud800-\udfff]")
HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class StrictRequest(Request):
    """A request whose JSON must be plain: not deep, with finite numbers and valid text."""

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            Problem: the body is not such JSON.
        """
        if not hasattr(self, "_checked"):
            self._checked = parse_json(await self.body())
        return self._checked


class StrictRoute(APIRoute):
    """A route that reads the body of a request with ``StrictRequest``."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the handler of the route."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def parse_json(body: bytes) -> Any:
    """Parse the JSON of a request.

    Raises:
        Problem: it is not JSON in UTF-8, is nested too deeply, or contains NaN, an infinite or huge
            number, a lone surrogate or a NUL character.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "The body is not UTF-8. Expected JSON in UTF-8.") from None
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        raise Problem(400, f"The JSON is nested too deeply. Expected at most {DEEPEST} levels.")
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Problem(400, "The body is not valid JSON. Expected one JSON value.") from None
    _check(value)
    return value


def _refuse(name: str) -> None:
    raise ValueError(name)


def _depth(text: str) -> int:
    """Return the depth of the nesting of a JSON text, not counting brackets inside strings."""
    depth = most = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text, re.DOTALL):
        if mark in "[{":
            depth += 1
            most = max(most, depth)
        elif mark in "]}":
            depth -= 1
    return most


def _check(value: Any) -> None:
    """Check all texts and numbers of a parsed value."""
    if isinstance(value, str):
        if "\0" in value or _SURROGATE.search(value):
            msg = "A text contains a NUL character or half of a surrogate pair. Expected Unicode text."
            raise Problem(422, msg)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check(key)
            _check(inner)
    elif isinstance(value, list):
        for inner in value:
            _check(inner)
    elif isinstance(value, float | int) and not (math.isfinite(value) and abs(value) < _LARGEST):
        raise Problem(422, "A number is too large. Expected a finite number below 2^63.")


class Gate:
    """An ASGI application that stands before another one."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        metrics: Metrics,
        scope_of: Callable[[str, str], str | None],
        most_bytes: int,
    ) -> None:
        """Store the parts.

        Args:
            app: the application that answers.
            guard: checks the keys.
            metrics: counts the answers.
            scope_of: returns the scope that a method and a path need; None if no key is needed.
            most_bytes: the largest body of a request.
        """
        self._app, self._guard, self._metrics = app, guard, metrics
        self._scope_of, self._most = scope_of, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = read_headers(scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"], state["key"] = request_id, None
        began, status = time.perf_counter(), 0
        trace = self._metrics.tracing.begin(scope["method"], headers.get("traceparent", ""))

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {k for k, _ in message["headers"]}
                more = {**HEADERS, "x-request-id": request_id}
                added = [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            self._guard.check_host(headers)
            needed = self._scope_of(scope["method"], scope["path"])
            if needed is not None:
                state["key"] = self._guard.check(headers, needed, method=scope["method"])
            limited = self._limit(headers, receive)
            await self._app(scope, limited, answer)
        except Exception as error:
            problem = problem_of(error)
            if not isinstance(error, Problem):
                LOG.exception("A request failed.", extra={"values": {"request_id": request_id}})
            if not status:
                await problem_response(problem, scope["path"], request_id)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            values = {
                "request_id": request_id, "method": scope["method"], "route": route,
                "status": status, "milliseconds": round(seconds * 1000, 2),
                "key": getattr(state["key"], "name", None),
            }  # fmt: skip
            if trace.id is not None:
                values["trace_id"] = trace.id
            trace.end(route, status)
            LOG.info("request", extra={"values": values})

    def _limit(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """Return a function that receives the body and stops if it is too large."""
        large = Problem(413, f"The body is too large. Expected at most {self._most:,} bytes.")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:18]) > self._most:
            raise large
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise large
            return message

        return limited


def read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request, by their names in lower case."""
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """Return an answer of JSON."""
    text = to_json(value, indent=None)
    return Response(text, status, headers, media_type="application/json")


def problem_response(problem: Problem, path: str, request_id: str) -> Response:
    """Return the answer that describes a problem."""
    details = to_json(problem.to_dict(printable_path(path), request_id), indent=None)
    return Response(details, problem.status, problem.headers, media_type=MEDIA_TYPE)


def printable_path(path: str) -> str:
    """Return the beginning of a path without characters that a terminal or JSON could trip over."""
    return "".join(c if c.isprintable() else "?" for c in path[:200])
