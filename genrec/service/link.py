"""Carry calls from the workers to the process of the model over a local socket.

A message is its length in four bytes and a tuple as ``wire`` writes it. The socket lies in a folder that only
its owner may enter. This module does not know what is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec.service.observe import LOG
from genrec.service.problems import Problem, problem_of
from genrec.service.wire import decode, encode

_LENGTH = struct.Struct(">I")
_AGAIN = 0.05  # seconds between two attempts to connect
_CALL, _LEAVE, _PART, _ANSWER, _PROBLEM = range(5)  # kinds of messages


class AwayError(Problem):
    """Raised when the process of the model does not answer."""

    def __init__(self) -> None:
        detail = "The process of the model is being started. Try again in a moment."
        super().__init__(503, detail, headers={"Retry-After": "2"})


@dataclass(eq=False, slots=True)
class Call:
    """A call that is being answered.

    Attributes:
        left: set when the caller does not wait any more.
        send: sends a part of the answer before its end.
    """

    send: Callable[[Any], Awaitable[None]]
    left: asyncio.Event = field(default_factory=asyncio.Event)


Handler = Callable[[Any, Call], Awaitable[Any]]


async def _read(reader: asyncio.StreamReader) -> Any:
    """Read a message.

    Raises:
        EOFError: the other side has closed the connection, or has sent something else.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    packed = await reader.readexactly(length)
    try:
        return decode(packed)
    except ValueError as error:
        LOG.error("A message cannot be read.", extra={"values": {"reason": str(error)}})
        raise EOFError from error


async def _write(writer: asyncio.StreamWriter, *message: Any) -> None:
    packed = encode(message)
    writer.write(_LENGTH.pack(len(packed)) + packed)
    await writer.drain()


class Link:
    """The side of a worker: it calls, and connects again whenever the other side was away."""

    def __init__(self, path: Path) -> None:
        """Store the path of the socket."""
        self._path = path
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Queue[tuple[int, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect in the background, now and after each loss of the connection."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def connected(self) -> bool:
        """True if calls can be made at the moment."""
        return self._writer is not None

    async def close(self) -> None:
        """Close the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_unix_connection(self._path)
                self._writer = writer
                try:
                    while True:
                        number, kind, value = await _read(reader)
                        if (parts := self._calls.get(number)) is not None:
                            parts.put_nowait((kind, value))
                finally:
                    self._writer = None
                    for parts in self._calls.values():
                        parts.put_nowait((_PROBLEM, AwayError()))
                    writer.close()
            await asyncio.sleep(_AGAIN)

    async def call(
        self, name: str, value: Any, each: Callable[[Any], Awaitable[None]] | None = None
    ) -> Any:
        """Call the other side, and return its answer.

        If this is cancelled, the other side is told that nobody waits any more.

        Args:
            name: what to call.
            value: the argument; see ``wire.encode``.
            each: a function that is called with each part that comes before the answer.

        Raises:
            AwayError: the other side does not answer.
            Problem: the call failed.
        """
        if self._writer is None:
            raise AwayError
        number = next(self._numbers)
        parts = self._calls[number] = asyncio.Queue()
        kind = _PART
        try:
            try:
                await _write(self._writer, number, _CALL, (name, value))
            except OSError:
                raise AwayError from None
            while True:
                kind, part = await parts.get()
                if kind == _ANSWER:
                    return part
                if kind == _PROBLEM:
                    raise part
                if each is not None:
                    await each(part)
        finally:
            del self._calls[number]
            if kind == _PART and self._writer is not None:
                with contextlib.suppress(OSError):
                    await _write(self._writer, number, _LEAVE, None)


class LinkServer:
    """The side of the model: it answers the calls of all workers."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        """Store the functions that answer, keyed by the name of the call."""
        self._handlers = handlers
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen on a socket, and replace one that an earlier process has left."""
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self, seconds: float) -> None:
        """Accept nothing new, wait until the workers have closed their connections, and close the others.

        Args:
            seconds: how long to wait.
        """
        assert self._server is not None
        self._server.close()
        if self._open:
            await asyncio.wait(self._open, timeout=seconds)
        for task in tuple(self._open):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        calls: dict[int, Call] = {}
        try:
            while True:
                number, kind, value = await _read(reader)
                if kind == _LEAVE:
                    if number in calls:
                        calls[number].left.set()
                    continue
                calls[number] = Call(functools.partial(_write, writer, number, _PART))
                answering = asyncio.create_task(self._answer(writer, calls, number, *value))
                self._open.add(answering)
                answering.add_done_callback(self._open.discard)
        except (EOFError, OSError):
            for call in calls.values():
                call.left.set()
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        calls: dict[int, Call],
        number: int,
        name: str,
        value: Any,
    ) -> None:
        try:
            answer = _ANSWER, await self._handlers[name](value, calls[number])
        except Exception as error:
            answer = _PROBLEM, problem_of(error)
            if answer[1].status == 500:
                LOG.exception("A call failed.", extra={"values": {"call": name}})
        del calls[number]
        with contextlib.suppress(OSError):
            await _write(writer, number, *answer)
