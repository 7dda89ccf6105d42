"""Compare `genrec batch` with a loop over ``generate`` for the same users: users a second of the processor.

    python -m benchmarks.speed.many_users --turns 10
    python -m benchmarks.speed.many_users

200 users of the demo with at least 8 events, with the default model alone, K = 20, one thread; processor time. In every
turn, `genrec batch`'s own function computes a shard of 32 of them, with reading of the input and writing of the files: with full
attention, and with ``by_event`` without recent events in full and with the lines of all titles stored by `genrec warm` before. Then
``generate(num_beams=20, prefix_allowed_tokens_fn=...)`` over the probabilities of legal tokens decodes for two of the same users,
one after the other, from the prompts of full attention. Loading the models and a first shard are not counted. What has been measured
is kept in .results/many_users, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, commit
from benchmarks.speed.peer import generate
from genrec.batch.job import Job
from genrec.batch.plan import read_rows
from genrec.batch.shards import ShardWriter
from genrec.data.dataset import Dataset
from genrec.data.datasets import load
from genrec.models.language_model import LanguageModel

DATA = "online_retail_demo"
K = 20
USERS = 200
LEAST = 8  # events of a user
KEPT = ROOT / ".results" / "many_users"
SHOP = KEPT / "shop"
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "by_event": {"attention": "by_event", "recent_events": 0},
}


def chosen(data: Any, n: int = USERS, before: int = 0) -> list[str]:
    """Return users in an order that depends on the seed alone."""
    names = [u for u in data.interactions.user_ids if len(data.interactions.history(u)) >= LEAST]
    order = np.random.default_rng(29).permutation(len(names))
    return [names[i] for i in order[before : before + n]]


def job_of(way: str, users: Path | None, n: int, batch_size: int) -> Job:
    return Job(
        data=str(SHOP), users=None if users is None else str(users),
        loading={"threads": 1, "device": "cpu", "dtype": "float32"},
        settings={"model_role": "fuse", "prior": "none", **WAYS[way]}, options={"k": K},
        shard_size=n, batch_size=batch_size,
    )  # fmt: skip


def lines() -> list[dict[str, Any]]:
    path = KEPT / "turns.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def keep(values: dict[str, Any]) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "turns.jsonl").open("a") as stream:
        stream.write(json.dumps(values) + "\n")


def write_users(path: Path, names: Sequence[str]) -> Path:
    path.write_text("user_id\n" + "\n".join(names) + "\n", encoding="utf-8")
    return path


def measure(turns: int, batch_size: int, peers: int) -> None:
    """Let both sides take turns: shards of some users, and ``generate`` for a few of the same ones."""
    if not SHOP.exists():
        load(DATA).save(SHOP)
    data = Dataset.load(SHOP)  # with a folder, where `genrec warm` keeps the lines
    names = chosen(data)
    loaded = {way: job_of(way, None, 1, 1).load_recommender(data, print) for way in WAYS}
    print(loaded["by_event"].warm(), flush=True)
    model = LanguageModel.load("smollm2-135m", device="cpu", dtype="float32", threads=1).model
    plain = loaded["full"]
    sequences = list(plain.encoder.titles(plain.catalog))
    begun = len(lines())
    with tempfile.TemporaryDirectory() as place:
        for turn in range(-1, turns):
            first = (begun + max(turn, 0)) * batch_size % USERS
            some = (names + names)[first : first + batch_size]
            took: dict[str, float] = {}
            for way, recommender in loaded.items():
                users = write_users(Path(place) / "users.csv", some)
                job = job_of(way, users, len(some), batch_size)
                folder = Path(place) / f"{way}-{turn}"
                folder.mkdir()
                began = time.process_time()
                counts = ShardWriter(job, read_rows(job, data), recommender, folder).write(0)
                took[way] = (time.process_time() - began) / counts["rows"]
            if turn < 0:
                continue  # warm
            began = time.process_time()
            for user in some[:peers]:
                ids = list(plain.prompt(data.interactions.history(user)).ids)
                generate(model, ids, sequences, K, renormalize=True)
            took["generate"] = (time.process_time() - began) / peers
            keep({**took, "users": some, "peers": peers, "commit": commit()})
            print({n: round(t, 3) for n, t in took.items()}, flush=True)


def report() -> None:
    """Print the seconds a user and the ratios with an interval by bootstrap over turns."""
    found = lines()
    draw = np.random.default_rng(0)
    peer = np.array([x["generate"] for x in found])
    users = {u for x in found for u in x["users"]}
    n = sum(x["peers"] for x in found)
    print(
        f"{len(found)} turns, {len(users)} users, {n} of them also by generate: {peer.mean():.2f} s"
    )
    for way in WAYS:
        ours = np.array([x[way] for x in found])
        logs = np.log(peer / ours)
        means = np.exp([draw.choice(logs, len(logs)).mean() for _ in range(5000)])
        low, high = np.quantile(means, [0.025, 0.975])
        print(
            f"{way}: {ours.mean():.3f} s, {1 / ours.mean():.2f} users a second, generate takes "
            f"{np.exp(logs.mean()):.1f} times as long [{low:.1f}, {high:.1f}]"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=0, help="turns to add; 0 only reports")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--peers", type=int, default=2, help="users by generate in each turn")
    arguments = parser.parse_args()
    if arguments.turns:
        measure(arguments.turns, arguments.batch_size, arguments.peers)
    report()


if __name__ == "__main__":
    main()
