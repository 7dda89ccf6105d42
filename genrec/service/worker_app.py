"""The application of an HTTP worker, which has no model of its own.

A worker parses, checks and answers the requests that are frequent: lists and feedback. It reads and writes
the store itself, and asks the process of the model only for lists. All other requests go to that process as they
are, and what changes the shop therefore happens in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.data.dataset import Dataset
from genrec.service import routes_data, routes_lists
from genrec.service.app import add_handlers, scope_of
from genrec.service.experiments import Experiments
from genrec.service.http import HEADERS, Gate, json_response, problem_response, read_headers
from genrec.service.jobs import Prepared, Wanted
from genrec.service.limits import Limits
from genrec.service.link import AwayError, Link
from genrec.service.lists import Answered, Left, ListMaker, until_left
from genrec.service.mirror import Mirror
from genrec.service.observe import Metrics
from genrec.service.problems import Problem
from genrec.service.recorder import Recorder
from genrec.service.security import Guard
from genrec.service.sign_in import has_cookie
from genrec.service.store import Store

_OWN = {"/v1/recommend", "/v1/recommend:batch", "/v1/sessions", "/v1/feedback"}  # with POST
_HEALTH = {"/livez", "/readyz", "/healthz"}
_LONGEST = 5.0  # seconds to wait for the health of the other process
_LEFT = 499
_KEPT = (
    "type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path", "path", "raw_path",
    "query_string", "headers",
)  # fmt: skip
health = APIRouter(tags=["Health"])


class HttpWorker(ListMaker):
    """What the routes of a worker need.

    Attributes:
        number: the number of the worker, from 1.
        mirror: the worker's copy of what it needs of the shop.
        link: calls the process of the model.
        stopping: True when the worker accepts nothing new.
    """

    def __init__(
        self,
        dataset: Dataset,
        store: Store,
        guard: Guard,
        limits: Limits,
        metrics: Metrics,
        *,
        fixed: Mapping[str, Any],
        link: Link,
        number: int,
    ) -> None:
        self.mirror = Mirror(dataset, store)
        recorder = Recorder(store, self.failed, metrics.unstored.inc)
        super().__init__(
            self.mirror, guard, limits, metrics, recorder, Experiments(store, ()), fixed
        )
        assert guard.shared is not None
        self.number, self.link, self._shared = number, link, guard.shared
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Take over all changes of the shop that have been acknowledged.

        Raises:
            AwayError: there are some, and the process of the model does not answer.
        """
        if self.mirror.revision < self._shared.revision:
            async with self._refreshing:
                if self.mirror.revision < self._shared.revision:
                    state = await self.link.call("state", self.mirror.revision)
                    self.mirror.apply(state)
                    self.experiments = Experiments(self.mirror.store, state.experiments)

    async def make_lists(
        self, ready: Prepared, wanted: Wanted, left: Left, request_id: str
    ) -> Answered:
        """Let the process of the model make the lists; see ``Service.make_lists``."""
        trace = self.metrics.tracing.current()
        call = self.link.call("lists", (ready, wanted, request_id, trace))
        found: Answered = await until_left(call, left)
        return found

    async def close(self) -> None:
        """Store the lists that were shown, and close the connections."""
        self.recorder.close()
        await self.link.close()
        self.mirror.store.close()
        self.metrics.tracing.close()


def create_worker_app(worker: HttpWorker) -> ASGIApp:
    """Create the application of a worker."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.link.start()
        yield
        await worker.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = worker
    for router in (health, routes_lists.router, routes_data.router):
        app.include_router(router)
    add_handlers(app)

    async def fresh(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in _OWN:
            await worker.refresh()
        await app(scope, receive, send)

    gate = Gate(
        fresh,
        guard=worker.guard,
        metrics=worker.metrics,
        scope_of=scope_of,
        most_bytes=worker.limits.most_bytes,
    )

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_own(scope):
            await gate(scope, receive, send)
        else:
            await _forward(worker, scope, receive, send)

    return choose


def _is_own(scope: Scope) -> bool:
    """Return True if the worker answers a request; only the other process knows sign-ins."""
    if scope["path"] in _HEALTH:
        return True
    signed_in = has_cookie(read_headers(scope))
    return scope["method"] == "POST" and scope["path"] in _OWN and not signed_in


async def _forward(worker: HttpWorker, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the process of the model answer a request, and pass on what it sends."""
    began = False

    async def pass_on(message: Message) -> None:
        nonlocal began
        began = True
        await send(message)

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        body = await _read_body(receive, worker.limits.most_bytes)
        given = {k: scope[k] for k in _KEPT if k in scope}, body
        await until_left(worker.link.call("http", given, pass_on), left)
    except Problem as problem:
        if began and problem.status == _LEFT:  # which a server also says when all is sent
            return
        if began:
            raise  # the connection breaks, so that nobody takes half an answer for a whole one
        answer = problem_response(problem, scope["path"], "")
        answer.headers.update(HEADERS)
        await answer(scope, receive, send)


async def _read_body(receive: Receive, most: int) -> bytes:
    """Read the body of a request.

    Raises:
        Problem: it is larger than ``most`` bytes, or the client has left.
    """
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(_LEFT, "The client has left.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise Problem(413, f"The body is too large. Expected at most {most:,} bytes.")
    return body


@health.get("/livez")
async def livez(request: Request) -> Response:
    """Say that this worker answers, and its number."""
    worker: HttpWorker = request.app.state.service
    return json_response({"status": "ok", "worker": worker.number})


@health.get("/healthz")
async def healthz(request: Request) -> Response:
    """Say whether the process of the model answers, and whether its thread works."""
    return await _health(request, "failing")


@health.get("/readyz")
async def readyz(request: Request) -> Response:
    """Say whether requests can be answered; see the same route of a service with one process."""
    return await _health(request, "not ready")


async def _health(request: Request, bad: str) -> Response:
    worker: HttpWorker = request.app.state.service
    name = request.url.path
    if worker.stopping and name == "/readyz":
        return json_response({"status": bad, "problem": "the service is stopping"}, 503)
    try:
        values, status = await asyncio.wait_for(worker.link.call("health", name), _LONGEST)
    except (AwayError, TimeoutError):
        problem = "the process of the model does not answer; it is started again if it has ended"
        values, status = {"status": bad, "problem": problem}, 503
    return json_response(values, status)
