"""Run one process with the model and several HTTP workers in front of it, and start again those that end.

The workers accept connections from the same socket, which stays open while one of them is started again.
At the end, the workers answer what they have accepted, and the process of the model ends after them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from genrec.errors import GenrecError, SettingsError
from genrec.service.model_process import run_model
from genrec.service.observe import FOLDER, LOG
from genrec.service.server import serve
from genrec.service.service import Service
from genrec.service.shared import SOCKET
from genrec.service.worker_app import HttpWorker, create_worker_app

_LONGEST_PATH = 100  # characters of the path of a local socket
_LONGEST_PAUSE = 30.0  # seconds before a process that ends again and again is started again
_STABLE = 60.0  # seconds after which a process counts as started well
_PROCESSES = multiprocessing.get_context("spawn")


@dataclass
class _Child:
    """A process of the service.

    Attributes:
        name: its name, for the log.
        run: what it runs, with a connection to this process as the last argument.
        given: the other arguments.
        began: when it was started, by ``time.monotonic``.
        failures: how often it ended soon after its start, in a row.
        due: when it is to be started again; None while it runs.
    """

    name: str
    run: Callable[..., None]
    given: Sequence[Any]
    began: float = 0.0
    failures: int = 0
    due: float | None = None
    process: Any = None
    connection: Connection = field(init=False)

    def start(self) -> None:
        self.connection, other = _PROCESSES.Pipe()
        self.process = _PROCESSES.Process(
            target=self.run, args=(*self.given, other), name=self.name, daemon=False
        )
        self.began, self.due = time.monotonic(), None
        self.process.start()
        other.close()

    def note_end(self) -> None:
        """Log that the process has ended, and plan when it is started again."""
        said = self._said()
        self.process.join()
        now = time.monotonic()
        self.failures = 0 if now - self.began > _STABLE else self.failures + 1
        pause = min(_LONGEST_PAUSE, 2.0 ** (self.failures - 2)) if self.failures > 1 else 0.0
        self.due = now + pause
        about = {"process": self.name, "exit_code": self.process.exitcode, "pause": pause}
        if said is not None:
            about["reason"] = str(said)
        LOG.error("A process has ended and is started again.", extra={"values": about})
        self.connection.close()

    def _said(self) -> Any:
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                said = self.connection.recv()
                if said is not None:
                    return said
        return None

    def stop(self) -> None:
        """Say that it is time to stop, and wait for the end."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join()


def supervise(
    make_service: Callable[[Path], Service],
    make_worker: Callable[[Path, int], HttpWorker],
    opened: socket.socket,
    workers: int,
    ready: Callable[[], None],
) -> None:
    """Answer requests with several processes until SIGTERM or SIGINT.

    Args:
        make_service: loads the service, given the folder that all processes share. It is called in the process
            of the model, so it must be a function that can be pickled.
        make_worker: makes a worker, given the folder and its number; called in the processes of the workers.
        opened: the socket; see ``server.listen``.
        workers: the number of workers.
        ready: a function that is called when requests are accepted.

    Raises:
        GenrecError: a process could not be started the first time.
    """
    with _shared_folder() as folder, _woken_by_signals() as woken:
        model = _Child("model", _run_model, (make_service, folder))
        fronts = [
            _Child(f"worker {n}", run_worker, (make_worker, folder, n, opened))
            for n in range(1, workers + 1)
        ]
        try:
            if not _start_first([model], woken) or not _start_first(fronts, woken):
                return
            ready()
            _watch([model, *fronts], woken)
        finally:
            _stop(model, fronts)


def _run_model(make: Callable[[Path], Service], folder: Path, supervisor: Connection) -> None:
    run_model(lambda: make(folder), folder / SOCKET, supervisor)


def run_worker(
    make: Callable[[Path, int], HttpWorker],
    folder: Path,
    number: int,
    opened: socket.socket,
    supervisor: Connection,
) -> None:
    """Answer requests in a process of its own until SIGTERM, or until the supervisor has ended.

    Args:
        make: makes the worker.
        folder: the folder that all processes share.
        number: the number of the worker.
        opened: the socket.
        supervisor: is told ``None`` when requests are accepted, or an error.
    """

    def end_with_supervisor() -> None:
        with contextlib.suppress(EOFError, OSError):
            supervisor.recv()
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        worker = make(folder, number)
    except GenrecError as error:
        supervisor.send(error)
        return
    watching = threading.Thread(target=end_with_supervisor, daemon=True)
    watching.start()
    app = create_worker_app(worker)
    serve(app, worker, opened, lambda: supervisor.send(None), several=True)


@contextlib.contextmanager
def _shared_folder() -> Iterator[Path]:
    """Make the folder of the processes' socket and numbers, which only this user may enter."""
    with tempfile.TemporaryDirectory(prefix="genrec-") as name:
        folder = Path(name)
        if len(str(folder / SOCKET)) > _LONGEST_PATH:
            msg = (
                f"The folder for temporary files, {folder.parent}, has too long a path for a local socket. "
                "Expected at most 80 characters. Set TMPDIR to another folder."
            )
            raise SettingsError(msg)
        counts = folder / "metrics"
        counts.mkdir()
        before = os.environ.get(FOLDER)
        os.environ[FOLDER] = str(counts)  # read when prometheus_client is imported
        try:
            yield folder
        finally:
            del os.environ[FOLDER]
            if before is not None:
                os.environ[FOLDER] = before


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Write a byte into a pipe at SIGTERM and SIGINT, and yield the end that can be read then."""
    reading, writing = os.pipe()
    stopped = threading.Event()

    def wake(number: int, frame: object) -> None:
        if not stopped.is_set():
            stopped.set()
            os.write(writing, b"\0")

    before = {number: signal.signal(number, wake) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _start_first(children: Sequence[_Child], woken: int) -> bool:
    """Start processes, and wait until they are ready; return False if a signal came first.

    Raises:
        GenrecError: one of them could not start.
    """
    for child in children:
        child.start()
    for child in children:
        if woken in wait([woken, child.connection]):
            return False
        try:
            said = child.connection.recv()
        except EOFError:
            child.process.join()
            msg = f"The {child.name} ended while it was started, with exit code {child.process.exitcode}."
            raise GenrecError(f"{msg} Its messages are in the log.") from None
        if said is not None:
            raise said
    return True


def _watch(children: Sequence[_Child], woken: int) -> None:
    """Start processes again that have ended, until a signal comes."""
    while True:
        alive = {c.process.sentinel: c for c in children if c.due is None}
        due = [c.due for c in children if c.due is not None]
        seconds = max(0.0, min(due) - time.monotonic()) if due else None
        found = wait([woken, *alive], timeout=seconds)
        if woken in found:
            return
        for sentinel in found:
            if (ended := alive.get(sentinel)) is not None:
                ended.note_end()
        now = time.monotonic()
        for child in children:
            if child.due is not None and child.due <= now:
                child.start()


def _stop(model: _Child, fronts: Sequence[_Child]) -> None:
    """Let the workers answer what they have accepted, and end the process of the model after them."""
    running = [f for f in fronts if f.process is not None and f.due is None]
    for front in running:
        front.process.terminate()
    for front in running:
        front.process.join()
    if model.process is not None and model.due is None:
        model.stop()
