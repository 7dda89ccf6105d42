"""Compare the model alone, the prior alone and both fused on the same users. Resumable.

    python -m benchmarks.accuracy.fusion demo --threads 1 --users 250
    python -m benchmarks.accuracy.fusion beauty --data DIR --users 100 --tuned tuned.json

Data sets and protocols are those of public_datasets.py. The three ways to decode take turns in going first,
so that their seconds can be compared. Each user's ranks, nats and seconds are appended to .results/fusion;
run it again to continue. Nothing is fitted here: the weights are the defaults, those of --tuned, or those
given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.public_datasets import TASKS, Task, chosen
from benchmarks.common import ROOT, commit
from genrec import Recommender
from genrec.data import protocols
from genrec.data.events import History
from genrec.evaluation import bootstrap, metrics
from genrec.priors.collaborative import CollaborativePrior

K = 10
DECODED = ("zero-shot", "node", "score")
SYSTEMS = ("zero-shot", "prior", "node", "score")
METRICS: dict[str, Callable[[Any], Any]] = {
    "HR@10": lambda ranks: metrics.hit_rate(ranks, 10),
    "NDCG@10": lambda ranks: metrics.ndcg(ranks, 10),
}


def systems(task: Task, arguments: Any) -> dict[str, Recommender]:
    """Build the model alone and with the prior by node and by score, sharing model and counts."""
    shared = {"prior_events": arguments.fit, "exclude_seen": task.exclude_seen}
    tuned = {"tuned": arguments.tuned, "prior": "collaborative"}
    node = Recommender(
        task.data, arguments.model, threads=arguments.threads, log=print, fusion="node",
        prior_weight=arguments.prior_weight, node_temperature=arguments.node_temperature,
        **shared, **tuned,
    )  # fmt: skip
    return {
        "zero-shot": node.with_settings(prior="none", node_temperature=None),
        "node": node,
        "score": node.with_settings(fusion="score", prior_weight=None, node_temperature=None),
    }


def answered(system: Recommender, task: Task, history: History, number: int) -> dict[str, Any]:
    """Return the target's rank, its nats under what ranked, and the seconds."""
    case = task.cases[number]
    if task.candidates is None:
        answer, nats, seconds = system.with_nats(history, K, case.target)
        exact = answer.details["certificate"]["exact"]
    else:
        began = time.perf_counter()
        ids = [task.data.catalog[row].item_id for row in task.candidates[number]]
        answer = system.score(history, ids)
        seconds, exact = time.perf_counter() - began, True
        nats = next(-(r.logprob or 0.0) for r in answer if r.item_id == case.target)
    rank = metrics.rank_of(case.target, [r.item_id for r in answer])
    return {"rank": rank, "nats": nats, "seconds": seconds, "exact": exact}


def by_prior(
    prior: CollaborativePrior, task: Task, history: History, number: int
) -> dict[str, Any]:
    """Return the same figures for the prior alone."""
    case, began = task.cases[number], time.perf_counter()
    values = prior.logprobs(history)
    if task.candidates is None:
        ranked = prior.rank(history, K, exclude_seen=task.exclude_seen)
    else:
        rows = np.array(task.candidates[number])
        ranked = [
            task.data.catalog[r].item_id for r in rows[np.argsort(-values[rows], kind="stable")]
        ]
    seconds = time.perf_counter() - began
    nats = -float(values[task.data.catalog.row(case.target)])
    rank = metrics.rank_of(case.target, ranked)
    return {"rank": rank, "nats": nats, "seconds": seconds, "exact": True}


def measured(task: Task, arguments: Any, made: dict[str, Recommender]) -> list[dict[str, Any]]:
    """Measure every user, one line each, continuing the file of an earlier run."""
    prior = made["node"].prior
    assert isinstance(prior, CollaborativePrior)
    about = {n: [repr(s.settings), asdict(s.fusing)] for n, s in made.items()}
    state = [
        made["node"].model.fingerprint(),
        about,
        prior.mix,
        task.data.info.catalog_hash,
        task.candidates,
    ]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    path = arguments.out / f"{arguments.set}-{key}.jsonl"
    known = {}
    if path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        known = {line["user_id"]: line for line in map(json.loads, lines)}
    began, done = time.monotonic(), 0
    for number, case in enumerate(task.cases):
        if case.user_id in known:
            continue
        line: dict[str, Any] = {"user_id": case.user_id, "date": time.strftime("%Y-%m-%d")}
        history = case.history.latest(protocols.EVENTS)
        line["prior"] = by_prior(prior, task, history, number)
        turn = number % len(DECODED)
        for name in (*DECODED[turn:], *DECODED[:turn]):
            line[name] = answered(made[name], task, history, number)
        known[case.user_id] = line
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        done += 1
        if done % 20 == 0:
            each = (time.monotonic() - began) / done
            print(f"{len(known)} of {len(task.cases)} users, {each:.1f} s each", flush=True)
    return [known[case.user_id] for case in task.cases]


def said(values: Any) -> str:
    found = bootstrap.bootstrap(values, draws=2000)
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Format means with intervals, and what fusion adds to each part."""
    values: dict[str, dict[str, Any]] = {}
    for name in SYSTEMS:
        ranks = [line[name]["rank"] for line in lines]
        values[name] = {metric: measure(ranks) for metric, measure in METRICS.items()}
        if name != "score":  # which ranks and is no distribution
            values[name]["nats"] = np.array([line[name]["nats"] for line in lines])
    columns = [*METRICS, "nats"]
    rows = ["| system | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, found in values.items():
        cells = [said(found[c]) if c in found else "-" for c in columns]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    for one, two in (
        ("node", "zero-shot"), ("node", "prior"), ("score", "zero-shot"), ("score", "prior"),
        ("node", "score"),
    ):  # fmt: skip
        both = [c for c in columns if c in values[one] and c in values[two]]
        cells = [said(values[one][c] - values[two][c]) if c in both else "-" for c in columns]
        rows.append(f"| {one} - {two} | " + " | ".join(cells) + " |")
    return rows


def cost(lines: list[dict[str, Any]]) -> list[str]:
    """Format the ratio of fused to unfused seconds over all users, with its interval."""
    plain = np.array([line["zero-shot"]["seconds"] for line in lines])
    found = []
    for name in ("node", "score"):
        fused = np.array([line[name]["seconds"] for line in lines])
        rng, n = np.random.default_rng(0), len(lines)
        drawn = [(fused[i].sum() / plain[i].sum()) for i in rng.integers(n, size=(2000, n))]
        low, high = np.quantile(drawn, [0.025, 0.975])
        exact = np.mean([line[name]["exact"] for line in lines])
        found.append(
            f"{name}: {fused.mean():.2f} s a user against {plain.mean():.2f} s, "
            f"{fused.sum() / plain.sum():.2f} [{low:.2f}, {high:.2f}] times; median ratio "
            f"{np.median(fused / plain):.2f}; {exact:.1%} of the lists exact"
        )
    alone = np.mean([line["prior"]["seconds"] for line in lines])
    return [*found, f"prior alone: {alone * 1000:.0f} ms a user"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fit", default="train", help="train, train+validation: what is counted")
    parser.add_argument("--tuned", default=None, help="file that `genrec tune` wrote")
    parser.add_argument("--prior-weight", type=float, default=None, help="by node")
    parser.add_argument("--node-temperature", type=float, default=None, help="by node")
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "fusion")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    measured_at = commit()  # before the run: the tree may change while it goes on
    folder, make = TASKS[arguments.set]
    task = chosen(make(arguments.data / folder), arguments.users)
    made = systems(task, arguments)
    lines = measured(task, arguments, made)
    info = task.data.info
    seen = "left out" if task.exclude_seen else "may come back"
    print(f"\n{arguments.set}: {len(lines)} test users, {info.items:,} items, seen items {seen}")
    print(f"counted: {arguments.fit}; commit {measured_at}, {time.strftime('%Y-%m-%d')}")
    for name in ("node", "score"):
        fused = made[name].fusing
        print(f"{name}: weight {fused.weight:g}, node temperature {fused.temperature:g}")
    mix = made["node"].prior.mix  # type: ignore[union-attr]
    print("prior: " + ", ".join(f"{n} {w:.3f}" for n, w in mix.items()) + "\n")
    print("\n".join([*table(lines), "", *cost(lines)]))


if __name__ == "__main__":
    main()
