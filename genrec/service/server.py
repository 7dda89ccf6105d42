"""Run the application on a port until the process is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from genrec.errors import SettingsError
from genrec.files import describe_error
from genrec.service.lists import ListMaker

_MOST_CONNECTIONS = 1000
_MOST_WAITING = 2048  # connections that the system keeps until they are accepted


class _Server(uvicorn.Server):
    """A server that says when it accepts requests, and when it stops."""

    def __init__(
        self, config: uvicorn.Config, service: ListMaker, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for opened in sockets or ():
            opened.listen(_MOST_WAITING)  # connections, regardless of how many are accepted at once
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stopping = True
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket.

    Args:
        host: the address.
        port: the port; 0 for any free one.

    Raises:
        SettingsError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only if the protocol is named. With it, the second packet of
    # an answer would wait 40 ms for the client.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        msg = (
            f"{host}:{port} cannot be used: {describe_error(error)}. Expected an address of this machine "
            "and a free port. Choose another one with --port."
        )
        raise SettingsError(msg) from error
    return opened


def serve(
    app: ASGIApp,
    service: ListMaker,
    opened: socket.socket,
    ready: Callable[[], None],
    *,
    several: bool = False,
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    On either signal, no new connections are accepted, all requests that were accepted are answered,
    and the service is closed.

    Args:
        app: the application.
        service: what the application answers with; its ``stopping`` is set at the beginning of the end.
        opened: the socket; see ``listen``.
        ready: a function that is called when requests are accepted.
        several: True if other processes accept connections from the same socket.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        limit_concurrency=_MOST_CONNECTIONS,
        # asyncio accepts up to this number of connections at once. One by one, others get some, too.
        backlog=1 if several else _MOST_WAITING,
        h11_max_incomplete_event_size=64 * 1024,
    )
    # After a graceful stop, uvicorn raises the signal again for the handler that was there before.
    before = {number: signal.signal(number, _stopped) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Server(config, service, ready).run(sockets=[opened])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(number: int, frame: object) -> None:
    """Do nothing, because the service has already stopped."""
