"""Measure what weights in few bits (bitsandbytes) save and cost. Resumable.

    python -m benchmarks.speed.quantize use --users 100 --threads 1
    python -m benchmarks.speed.quantize use --run online_retail_demo --users 100 --threads 1
    python -m benchmarks.speed.quantize train --turns 2 --threads 1

``use``: the model as it is, in int8 and in nf4, recommends to the same seeded test users of demo-v1 by turns,
without a prior. Printed are the bytes of the weights, seconds per list, HR@10, NDCG@10 and nats, with paired
differences. Each user's line is kept in .results/quantize. ``train``: LoRA targets per second on each of
them, turns alternating, and the peak memory of a process that trains with one of them alone (``--kinds
nf4``).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, commit
from benchmarks.training.recipe import CELLS, USUAL, ours
from genrec import Recommender
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.evaluation import bootstrap, metrics
from genrec.models.language_model import LanguageModel
from genrec.training import lora
from genrec.training.config import Training

KINDS = ("none", "int8", "nf4")


def use(arguments: argparse.Namespace) -> None:
    data = load("online_retail_demo")
    options = {"threads": arguments.threads, "device": arguments.device, "prior": "none"}
    systems = {
        kind: Recommender(data, arguments.model, quantize=kind, **options)
        if arguments.run is None
        else Recommender.load(arguments.run, data, quantize=kind, **options)
        for kind in arguments.kinds
    }
    for kind, system in systems.items():
        size = sum(p.numel() * p.element_size() for p in system.model.model.parameters()) / 1e6
        print(f"{kind}: {system.model.describe()}, weights {size:.0f} MB", flush=True)
    cases = protocols.sample(protocols.cases(data, "demo-v1", "test"), arguments.users)
    log = arguments.out / f"use-{arguments.run or arguments.model}-{'-'.join(systems)}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    with log.open("a") as stream:
        for case in cases[len(lines) :]:
            line: dict[str, list[float]] = {}
            for kind, system in systems.items():
                answer, nats, seconds = system.with_nats(case.history, 10, case.target)
                rank = metrics.rank_of(case.target, [r.item_id for r in answer])
                line[kind] = [rank, nats, seconds]
            lines.append(line)
            stream.write(json.dumps(line) + "\n")
            stream.flush()
    values = {k: np.array([line[k] for line in lines], dtype=float).T for k in systems}
    print(f"\n{len(lines)} users, commit {commit()}\n")
    print("| weights | HR@10 | NDCG@10 | nats | s a list | times as long |")
    print("|---|---|---|---|---|---|")
    whole = values[arguments.kinds[0]]
    for kind, (_, _, seconds) in values.items():
        cells = []
        for per_user in (metrics.hit_rate, metrics.ndcg, None):
            mine, other = (
                (v[1] if per_user is None else np.asarray(per_user(v[0].astype(int), 10)))
                for v in (values[kind], whole)
            )
            cell = f"{mine.mean():.4f}"
            if kind != arguments.kinds[0]:
                d = bootstrap.bootstrap(mine - other)
                cell += f" ({d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}])"
            cells.append(cell)
        times = np.median(seconds / whole[2])
        print(f"| {kind} | {' | '.join(cells)} | {np.median(seconds):.2f} | {times:.2f} |")


def train(arguments: argparse.Namespace) -> None:
    data = load("online_retail_demo")
    loading = {"threads": arguments.threads, "device": arguments.device}
    found: dict[str, list[float]] = {kind: [] for kind in arguments.kinds}
    for turn in range(arguments.turns):
        for kind in arguments.kinds:
            base = LanguageModel.load(arguments.model, quantize=kind, **loading)
            recipe = Training(**USUAL, **CELLS["tree, 0"], quantize=kind, max_targets=260)
            tuned = LanguageModel(lora.add_adapter(base.model, recipe), base.tokenizer)
            recommender = Recommender(data, base, prior="none")
            speed = ours(recommender, data, tuned, recipe, arguments.out / "train")
            found[kind].append(speed)
            print(f"turn {turn + 1}: {kind}: {speed:.2f} targets/s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\ncommit {commit()}, peak memory of the process {peak:.2f} GB\n")
    for kind, speeds in found.items():
        ratios = np.array(speeds) / np.array(found[arguments.kinds[0]])
        print(f"{kind}: {np.median(speeds):.2f} targets/s, {ratios.round(2).tolist()} times")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["use", "train"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--run", default=None, help="use: a run folder or name")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "quantize")
    arguments = parser.parse_args()
    started = time.monotonic()
    {"use": use, "train": train}[arguments.what](arguments)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
