"""`genrec serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


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
