"""The process that has the model, the prior and the trie, and answers the workers.

It is the service without a port of its own: workers forward the requests that they do not answer, and ask
for lists with histories and options that are already checked.
"""

from __future__ import annotations

import asyncio
import signal
from collections import OrderedDict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from genrec.errors import GenrecError
from genrec.service.app import create_app, health_of, readiness_of
from genrec.service.jobs import Prepared, StaleError, Wanted
from genrec.service.link import Call, Handler, LinkServer
from genrec.service.lists import Answered
from genrec.service.mirror import Journal, State
from genrec.service.service import Service
from genrec.service.store import Store

_MOST_USERS = 100_000  # whose latest event is remembered


class Latest:
    """Knows the number of the latest event with which a list of each user was asked for."""

    def __init__(self, store: Store) -> None:
        """Start without any user."""
        self._store = store
        self._known: OrderedDict[str, int] = OrderedDict()

    async def check(self, user_id: str, sequence: int) -> None:
        """Check that a request does not have an older history than an earlier one had.

        If its number is lower, the store decides, since events may also be deleted.

        Args:
            user_id: the user.
            sequence: the number of the last event of the request's history; 0 if there is none.

        Raises:
            StaleError: there are later events.
            StoreError: the store cannot be read.
        """
        known = self._known
        if sequence < known.get(user_id, 0):
            last = await asyncio.to_thread(self._store.last_event_of, user_id)
            if sequence < last:
                raise StaleError
        known[user_id] = sequence
        known.move_to_end(user_id)
        while len(known) > _MOST_USERS:
            known.popitem(last=False)


class ModelProcess:
    """Answers the calls of the workers."""

    def __init__(self, service: Service) -> None:
        """Store the service, and let the workers know that there is another shop now."""
        self._service, self._app = service, create_app(service)
        self._latest = Latest(service.shop.store)
        assert service.guard.shared is not None
        self._journal = Journal(service.shop, service.experiments, service.guard.shared)

    async def run(self, path: Path, ready: Callable[[], None], stop: Connection) -> None:
        """Answer calls until the supervisor says stop, or has ended.

        Args:
            path: the socket.
            ready: a function that is called when calls are accepted.
            stop: can be read when it is time to stop.
        """
        handlers: dict[str, Handler] = {
            "lists": self._lists, "state": self._state, "health": self._health, "http": self._http,
        }  # fmt: skip
        server, stopped = LinkServer(handlers), asyncio.Event()
        await server.start(path)
        asyncio.get_running_loop().add_reader(stop.fileno(), stopped.set)
        ready()
        await stopped.wait()
        asyncio.get_running_loop().remove_reader(stop.fileno())
        await server.close(self._service.limits.deadline)
        await asyncio.to_thread(self._service.close)

    async def _lists(self, given: tuple[Prepared, Wanted, str, str], call: Call) -> Answered:
        ready, wanted, request_id, trace = given
        user_id = getattr(ready.history, "user_id", None)
        if user_id is not None:
            await self._latest.check(user_id, ready.sequence)

        async def left() -> None:
            await call.left.wait()

        with self._service.metrics.tracing.continued(trace):
            return await self._service.make_lists(ready, wanted, left, request_id)

    async def _state(self, revision: int, _: Call) -> State:
        return self._journal.since(revision)

    async def _health(self, path: str, _: Call) -> tuple[dict[str, Any], int]:
        if path == "/healthz":
            return health_of(self._service)
        return await asyncio.to_thread(readiness_of, self._service)

    async def _http(self, given: tuple[Scope, bytes], call: Call) -> None:
        """Answer a request that a worker forwards."""
        scope, body = given
        await answer_forwarded(self._app, scope, body, call)


async def answer_forwarded(app: ASGIApp, scope: Scope, body: bytes, call: Call) -> None:
    """Let an application answer a request whose body has been read, and send each of its messages."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await call.left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await call.send(dict(message))

    await app({**scope}, receive, send)


def run_model(make: Callable[[], Service], path: Path, supervisor: Connection) -> None:
    """Load the service and answer calls; what happens is said to the supervisor.

    Only the supervisor ends this process, so that no worker loses it while it answers its last requests.

    Args:
        make: a function that loads the service.
        path: the socket.
        supervisor: is told ``None`` when calls are accepted, or an error.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        process = ModelProcess(make())
    except GenrecError as error:
        supervisor.send(error)
        return
    asyncio.run(process.run(path, lambda: supervisor.send(None), supervisor))
