"""The root of the checkout, the commit that is measured, and child processes, for all benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def commit() -> str:
    """Return the short hash of the checked-out commit, or "unknown"."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def child(module: str, *arguments: str) -> dict[str, Any]:
    """Run one step of a benchmark in a process of its own, whose peak memory is that of the step.

    Args:
        module: the benchmark, whose option ``--child`` runs a step and prints a line of JSON.
        arguments: the step and its arguments.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, "--child", *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
