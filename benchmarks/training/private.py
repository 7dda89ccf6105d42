"""Measure what differential privacy per user costs. Resumable.

    python -m benchmarks.training.private --targets 600 --users 60

Trains an adapter on the demo for each epsilon with equally many steps, drawn users and clipping, and once
without privacy in the usual way on as many targets, and compares the model alone on the same test users, with
paired differences from the base model. Runs and lists are kept in .results/training/private.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, commit
from benchmarks.training import federated
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.runs import RUN, Run
from genrec.training.trainer import train

FOLDER = ROOT / ".results" / "training" / "private"
EPSILONS = (2.0, 8.0, 1e6)  # the last one clips and draws users, but adds next to no noise


def trained(name: str, targets: int, more: dict[str, Any]) -> Path:
    """Train a run once, and return its folder."""
    folder = FOLDER / "runs" / f"{name}-{targets}"
    if not (folder / RUN).is_file():
        used = time.process_time()
        data = load("online_retail_demo")
        train(data, folder, "smollm2-135m", max_targets=targets, seed=1, **federated.USUAL, **more)
        print(f"{name}: {time.process_time() - used:.0f} s of processor time", flush=True)
    print(f"{name}: {Run.read(folder).metrics.get('privacy')}", flush=True)
    return folder


def main() -> None:
    """Train, evaluate and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=600)
    parser.add_argument("--users", type=int, default=60, help="test users")
    parser.add_argument("--drawn", type=int, default=8, help="expected users in a step")
    given = parser.parse_args()
    federated.FOLDER = FOLDER
    data = protocols.apply_protocol(load("online_retail_demo"), "demo-v1")
    found: dict[str, Path | None] = {"base": None}
    found["not private"] = trained("usual", given.targets, {})
    for epsilon in EPSILONS:
        name = f"epsilon {epsilon:g}"
        more = {"dp_epsilon": epsilon, "dp_users": given.drawn}
        found[name] = trained(name.replace(" ", "-"), given.targets, more)
    results = federated.evaluate(data, found, given.users)
    table = {
        name: {"alone": federated.show(r, None), "less base": federated.show(r, results["base"])}
        for name, r in results.items()
    }
    path = FOLDER / f"result-{given.targets}-{given.users}.json"
    path.write_text(
        json.dumps({"commit": commit(), **vars(given), "systems": table}, indent=1) + "\n"
    )
    for name, values in table.items():
        print(f"{name}\n  " + "\n  ".join(f"{k}: {v}" for k, v in values.items()))


if __name__ == "__main__":
    main()
