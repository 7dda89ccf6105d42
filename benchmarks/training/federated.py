"""Compare federated averaging of adapters with central training and with each site alone. Resumable.

    python -m benchmarks.training.federated --targets 1000 --rounds 2 --users 100

The users of the demo are divided into two and into five parts at random. In each round, every part trains on
its share of ``--targets`` targets, from the same adapter, and the adapters are averaged, as tensors and as
products. Central training uses all users and as many targets, also in rounds, and a part alone goes on with
its own adapter. Figures are those of the model alone on the same test users, with paired differences. Every
training and every list is kept in .results/training/federated, so the command can be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, commit
from genrec import Dataset, Recommender
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.evaluation import evaluator
from genrec.evaluation.bootstrap import bootstrap
from genrec.evaluation.evaluator import Result
from genrec.models.language_model import LanguageModel
from genrec.runs import RUN
from genrec.training.federated import AVERAGES, federate
from genrec.training.shadows import of_users
from genrec.training.trainer import train

FOLDER = ROOT / ".results" / "training" / "federated"
USUAL: dict[str, Any] = {
    "behaviors": ("buy",), "protocol": "demo-v1", "eval_users": 0, "tune_users": 0, "threads": 1,
    "dtype": "float32", "schedule": "constant",
}  # fmt: skip
PARTS = (2, 5)
SHOWN_ALONE = {2: (0, 1), 5: (0,)}  # the parts that are also evaluated alone


def divide(data: Dataset, n: int) -> list[Dataset]:
    """Divide a dataset into parts with different users, at random."""
    users = np.random.default_rng(n).permutation(sorted(data.interactions.user_ids)).tolist()
    return [of_users(data, users[part::n]) for part in range(n)]


def trained(
    name: str, data: Dataset, targets: int, since: Path | None = None, seed: int = 0
) -> Path:
    """Train a run once, and return its folder."""
    folder = FOLDER / "runs" / name
    if not (folder / RUN).is_file():
        began, used = time.perf_counter(), time.process_time()
        train(
            data, folder, "smollm2-135m", since=since, max_targets=targets, seed=seed,
            resume=folder.exists(), **USUAL,
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        print(
            f"{name}: {targets} targets, {seconds:.0f} s, {cpu:.0f} s of processor time", flush=True
        )
    return folder


def averaged(name: str, folders: list[Path], average: str) -> Path:
    """Average runs once, and return the folder."""
    out = FOLDER / "runs" / name
    if not (out / RUN).is_file():
        found = federate(folders, out, average=average)
        print(f"{name}: kept {found.kept:.4f} of the products", flush=True)
    return out


def train_all(data: Dataset, targets: int, rounds: int) -> dict[str, Path | None]:
    """Train and average everything, and return the runs to evaluate by name."""
    found: dict[str, Path | None] = {"base": None}
    central: Path | None = None
    for r in range(1, rounds + 1):
        central = trained(f"central-{targets}-{r}", data, targets, central, seed=r)
    found["central"] = central
    for n in PARTS:
        sites = divide(data, n)
        mean: dict[str, Path | None] = dict.fromkeys(AVERAGES)
        alone: list[Path | None] = [None] * n
        for r in range(1, rounds + 1):
            local = [
                trained(f"alone-{n}-{s}-{targets}-{r}", sites[s], targets // n, alone[s], seed=r)
                for s in (range(n) if r == 1 else SHOWN_ALONE[n])
            ]
            for s, run in zip(range(n) if r == 1 else SHOWN_ALONE[n], local, strict=True):
                alone[s] = run
            for average in AVERAGES:
                began = mean[average]
                if began is None:  # the first round is the same for all
                    folders = local
                else:
                    folders = [
                        trained(
                            f"{average}-{n}-{s}-{targets}-{r}", sites[s], targets // n, began, r
                        )
                        for s in range(n)
                    ]
                mean[average] = averaged(f"{average}-{n}-{targets}-{r}", folders, average)
        found |= {f"{n} parts, {average}": mean[average] for average in AVERAGES}
        found |= {f"part {s + 1} of {n} alone": alone[s] for s in SHOWN_ALONE[n]}
    return found


def evaluate(data: Dataset, found: dict[str, Path | None], users: int) -> dict[str, Result]:
    """Evaluate the model alone with each run, on the same users."""
    results = {}
    for name, run in found.items():
        settings: dict[str, Any] = {"prior": "none", "model_role": "fuse"}
        model = (
            LanguageModel.load("smollm2-135m", threads=1, dtype="float32")
            if run is None
            else LanguageModel.of_run(run, threads=1, dtype="float32")
        )
        ours = (
            Recommender(data, model, **settings)
            if run is None
            else Recommender.load(run, data, model=model, **settings)
        )
        place = FOLDER / "lists" / f"{name.replace(' ', '-').replace(',', '')}-{users}"
        got = evaluator.evaluate(data, [(name, ours)], protocol="demo-v1", users=users, out=place)
        results[name] = got.results[0]
        print(f"{name}: {show(results[name], None)}", flush=True)
    return results


def show(result: Result, other: Result | None) -> str:
    """Return the figures of a system, or their paired differences from another one."""
    said = []
    for metric in ("nats", "ndcg@10"):
        values = result.per_user(metric) - (0 if other is None else other.per_user(metric))
        said.append(f"{metric} {bootstrap(values)}")
    return ", ".join(said)


def main() -> None:
    """Train, evaluate and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000, help="targets of all parts in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--users", type=int, default=100, help="test users")
    given = parser.parse_args()
    data = protocols.apply_protocol(load("online_retail_demo"), "demo-v1")
    began = time.process_time()
    found = train_all(data, given.targets, given.rounds)
    results = evaluate(data, found, given.users)
    table = {name: {"alone": show(r, None), "less base": show(r, results["base"]),
                    "less central": show(r, results["central"])}
             for name, r in results.items()}  # fmt: skip
    path = FOLDER / f"result-{given.targets}-{given.rounds}-{given.users}.json"
    about = {
        "commit": commit(),
        "processor_seconds": round(time.process_time() - began),
        **vars(given),
    }
    path.write_text(json.dumps({**about, "systems": table}, indent=1) + "\n")
    for name, values in table.items():
        print(f"{name}\n  " + "\n  ".join(f"{k}: {v}" for k, v in values.items()))


if __name__ == "__main__":
    main()
