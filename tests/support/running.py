"""`genrec serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import genrec
from genrec.service.client import ServiceError


@dataclass
class Running:
    """A running service: its process and its address."""

    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def running(folder: Path, *arguments: object) -> Iterator[Running]:
    """Run `genrec serve FOLDER` on a free port until the block ends; other commands may be given."""
    given = list(arguments) if arguments[:1] == ("demo",) else ["serve", folder, *arguments]
    command = [sys.executable, "-m", "genrec", *map(str, given), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)  # the first line comes at once even without it
    with (folder / "log.txt").open("a") as log, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+:\d+", line)
            assert found, (line, (folder / "log.txt").read_text())
            yield Running(process, found[0])
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def stop_under_load(service: Running, user: str, item: str) -> None:
    """Send SIGTERM while four clients ask, and check that nobody loses an answer."""
    answered: list[int] = []
    refused: list[tuple[int, str]] = []

    def load() -> None:
        with genrec.Client(service.url) as own:
            for number in range(200):
                try:
                    own.recommend(user_id=user, k=3, deny=[] if number % 2 else [item])
                    answered.append(number)
                except ServiceError as error:
                    refused.append((error.status, str(error.__cause__ or error)))
                    return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answered) < 10:
        time.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert service.process.wait(60) == 0
    # Later requests were refused before they were accepted.
    assert len(refused) == 4
    for status, reason in refused:
        assert status in {0, 503}, reason
        assert not re.search("read|incomplete", reason, re.I), reason
