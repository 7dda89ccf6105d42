"""A PostgreSQL server of its own, if this machine has one to start."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_USER = "postgres"  # the server does not run as root


def missing() -> str:
    """Say what is missing to start a server, or return an empty string."""
    for program in ("initdb", "pg_ctl", "postgres"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    return ""


@dataclass(frozen=True)
class Server:
    """A server in a folder."""

    folder: Path

    @property
    def address(self) -> str:
        """The URL, with a gap for the name of the database."""
        return f"postgresql+psycopg://{_USER}@/{{}}?host={self.folder}"

    def call(self, *command: str) -> None:
        user = _USER if os.geteuid() == 0 else None
        subprocess.run(command, check=True, user=user, cwd=self.folder, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses=''"
        log = str(self.folder / "log")
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")


@contextmanager
def running() -> Iterator[Server]:
    """Run a server that only this machine can reach."""
    folder = Path(tempfile.mkdtemp(prefix="genrec-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
    made = Server(folder)
    try:
        made.call("initdb", "-D", f"{folder}/data", "-U", _USER, "-A", "trust", "--no-sync")
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server() -> Iterator[str]:
    """Run a server that only this machine can reach, and yield its URL without a database."""
    with running() as made:
        yield made.address
