"""Measure the processor time of whole commands, from the shell and on one thread.

python -m benchmarks.speed.startup
python -m benchmarks.speed.startup --data FOLDER --user 12493 --other ../older-checkout
python -m benchmarks.speed.startup --parts

Each command runs in a new process, several times after a first call that fills the caches. The
figure is the time of the process and its children in user and system mode. With ``--other``, the
commands of another checkout run in turn with those of this one, on a copy of the same dataset.
``--parts`` lists how long one ``recommend`` imports each library instead.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import ROOT, commit
from genrec.data.dataset import Dataset
from genrec.data.datasets import load

SAMPLE = "online_retail_demo"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a dataset folder; default: the bundled sample")
    parser.add_argument("--user", help="a user of the dataset; default: the first one")
    parser.add_argument("--other", type=Path, help="a second checkout to compare with")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--parts", action="store_true")
    arguments = parser.parse_args()
    checkouts = [ROOT] if arguments.other is None else [ROOT, arguments.other.resolve()]
    with tempfile.TemporaryDirectory() as work:
        dataset = Dataset.load(arguments.data) if arguments.data else load(SAMPLE)
        user = arguments.user or dataset.interactions.user_ids[0]
        folders = {}
        for number, checkout in enumerate(checkouts):
            folders[checkout] = Path(work) / f"data-{number}"
            dataset.save(folders[checkout])
        del dataset
        if arguments.parts:
            parts(folders[ROOT], user, Path(work))
            return
        print(
            f"commit {commit()}, {arguments.data or SAMPLE}, median (range) of seconds, first call"
        )
        for name, command in commands(user).items():
            if "--run" in command and arguments.data:
                continue  # the run of the sample
            compare(name, command, folders, Path(work), arguments.repetitions)


def commands(user: str) -> dict[str, list[str]]:
    """Return the commands by the names that the table shows; DATA stands for the dataset."""
    asked = ["DATA", "--user", user]
    recommend = ["recommend", *asked, "-k", "5", "--threads", "1"]
    return {
        "--help": ["--help"],
        "prompt": ["prompt", *asked],
        "rank, with an unknown user": ["rank", "DATA", "--user", "nobody"],
        "recommend": recommend,
        "recommend --run": [*recommend, "--run", SAMPLE],
    }


def compare(
    name: str, command: Sequence[str], folders: Mapping[Path, Path], work: Path, repetitions: int
) -> None:
    """Run a command of all checkouts in turn, and print a line for each checkout."""
    seconds: dict[Path, list[float]] = collections.defaultdict(list)
    for _ in range(repetitions + 1):
        for checkout, folder in folders.items():
            seconds[checkout].append(measure(checkout, command, folder, work))
    for checkout, (first, *later) in seconds.items():
        middle, span = statistics.median(later), f"{min(later):.2f}-{max(later):.2f}"
        print(f"{name:28} {checkout.name:12} {middle:6.2f} ({span}) {first:6.2f}", flush=True)


def measure(checkout: Path, command: Sequence[str], folder: Path, work: Path) -> float:
    """Return the processor time of a command in seconds."""
    before = os.times()
    run(checkout, command, folder, work)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def run(
    checkout: Path, command: Sequence[str], folder: Path, work: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of a checkout in a new process, with compiled modules as after an installation."""
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(checkout),
        "PYTHONPYCACHEPREFIX": str(work / "compiled"),
    }
    given = [str(folder) if argument == "DATA" else argument for argument in command]
    return subprocess.run(
        [sys.executable, *options, "-m", "genrec", *given],
        env=environment, cwd=work, capture_output=True, text=True, check=False,
    )  # fmt: skip


def parts(folder: Path, user: str, work: Path) -> None:
    """Print the seconds that a second ``recommend`` takes to import each library, as Python reports them."""
    command = commands(user)["recommend"]
    run(ROOT, command, folder, work)
    seconds: dict[str, float] = collections.defaultdict(float)
    for line in run(ROOT, command, folder, work, "-X", "importtime").stderr.splitlines():
        if found := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", line):
            seconds[found[2].partition(".")[0]] += int(found[1]) / 1e6
    for library, each in sorted(seconds.items(), key=lambda pair: -pair[1])[:15]:
        print(f"{library:24} {each:.2f}")
    print(f"{'all':24} {sum(seconds.values()):.2f}")


if __name__ == "__main__":
    main()
