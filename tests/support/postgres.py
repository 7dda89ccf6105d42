"""A PostgreSQL server of its own, if this machine has one to start."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def server() -> Iterator[str]:
    """Run a server that only this machine can reach, and yield its URL without a database."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp(prefix="genrec-pg-"))
    user = _USER if root else None
    if root:
        shutil.chown(folder, _USER)

    def call(*command: str) -> None:
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    try:
        call("initdb", "-D", data, "-U", _USER, "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses=''"
        call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://{_USER}@/{{}}?host={folder}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
