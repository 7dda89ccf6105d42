"""Import UCI Online Retail's file as it was published, without any option, and check what comes out.

The file is made from the folder online_retail in DIR with the faults of the published one
(uci_export.py), in three forms: release I in UTF-8 and in cp1252, and release II. Each form is
prepared by the command line in a process of its own. Then a list is made for one customer.

python -m benchmarks.speed.importing --data DIR
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import commit
from benchmarks.speed import uci_export
from benchmarks.speed.uci_export import Export, Line
from genrec.data.dataset import Dataset

FORMS = {"I": ("I", "utf-8-sig"), "I_cp1252": ("I", "cp1252"), "II": ("II", "utf-8")}
USER = "17850"
# A process of its own, since a process starts with the peak memory of the one that started it.
_MEASURED = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run([sys.executable, "-m", "genrec", *sys.argv[1:]]).returncode
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"[{seconds:.1f} s; processor {used.ru_utime + used.ru_stime:.1f} s;", end=" ")
print(f"peak memory {used.ru_maxrss / 1e6:.2f} GB]")
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the lines of a file.

    Attributes:
        kept: the number of events.
        rejected: the number of rejected rows by reason.
        counted: True if every line was either kept or rejected, once.
        exact: True if the events are what the lines say, with returns as returns.
        returns: the number of returns.
        titled: the number of items that customers bought whose title is right.
        several: the number of items of the file with several titles.
        items: the number of items that customers bought.
    """

    kept: int
    rejected: dict[str, int]
    counted: bool
    exact: bool
    returns: int
    titled: int
    several: int
    items: int


def check(export: Export, folder: Path) -> Outcome:
    """Compare a prepared dataset with the lines from which its file was made."""
    data = Dataset.load(folder)
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        rejected = list(csv.DictReader(stream))
    numbers = Counter(int(row["row"]) for row in rejected)
    others = [x for n, x in enumerate(export.lines, 1) if n not in numbers]
    events = data.interactions
    c = events.columns
    found = Counter(
        zip(
            (events.user_ids[u] for u in c.user.tolist()),
            (data.catalog[r].item_id for r in c.row.tolist()),
            (events.behaviors[b] for b in c.behavior.tolist()),
            c.timestamp.tolist(),
            c.value.tolist(),
            strict=True,
        )
    )
    wanted = Counter((x.user, x.code, behavior(x), x.time, abs(x.quantity)) for x in others)
    titles = {i.item_id: i.title for i in data.catalog}
    given: dict[str, set[str]] = {}
    for x in export.lines:
        given.setdefault(x.code, set()).update({x.title.strip()} - {""})
    return Outcome(
        kept=len(events),
        rejected=dict(Counter(row["reason"].split(" '")[0] for row in rejected)),
        counted=len(events) + len(numbers) == len(rejected) + len(others) == len(export.lines),
        exact=found == wanted,
        returns=data.info.behaviors.get("return", 0),
        titled=sum(titles[code].strip() == title for code, title in export.titles.items()),
        several=sum(len(names) > 1 for names in given.values()),
        items=len(export.titles),
    )


def behavior(line: Line) -> str:
    """Return what a line of an invoice says: a purchase or a return."""
    return "return" if line.quantity < 0 or line.invoice.startswith("C") else "buy"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--rows", type=int, default=uci_export.ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-list", action="store_true", help="make no list of recommendations")
    arguments = parser.parse_args()
    export = uci_export.make(arguments.data / "online_retail", rows=arguments.rows,
                             seed=arguments.seed)  # fmt: skip
    print(f"commit {commit()}, {len(export.lines):,} rows, seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for form, (release, encoding) in FORMS.items():
            path = place / f"online_retail_{form}.csv"
            uci_export.write(export.lines, path, release, encoding=encoding)
            print(f"\n$ genrec prepare {path.name}")
            print(run(["prepare", path.name], place, arguments.threads))
            report(check(export, place / path.stem))
        if not arguments.no_list:
            for user in (USER, f"{USER}.0"):
                print(f"\n$ genrec recommend {path.stem} --user {user}")
                print(run(["recommend", path.stem, "--user", user], place, arguments.threads))


def report(outcome: Outcome) -> None:
    """Print what became of the lines of a file."""
    print(
        f"rows in = kept + rejected: {outcome.counted}; kept {outcome.kept:,}; rejected "
        + ", ".join(f"{n:,} ({why})" for why, n in outcome.rejected.items())
    )
    print(f"events are what the lines say: {outcome.exact}; returns {outcome.returns:,}")
    print(
        f"items with several titles: {outcome.several:,}; the right title for {outcome.titled:,} of "
        f"{outcome.items:,} items that customers bought"
    )


def run(arguments: list[str], folder: Path, threads: int) -> str:
    """Run a command of genrec in a folder, and return its output and what it used.

    Raises:
        RuntimeError: the command failed.
    """
    count = str(threads)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": count,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace").rstrip()
    if done.returncode:
        raise RuntimeError(said)
    return said


if __name__ == "__main__":
    main()
