"""Compare `genrec batch` with a loop over ``generate`` for the same users: users a second of the processor.

    python -m benchmarks.speed.many_users --peer --minutes 20
    python -m benchmarks.speed.many_users --ours --rounds 3
    python -m benchmarks.speed.many_users

200 users of the demo with at least 8 events, in a random order that does not depend on how many are measured, with the
default model alone, K = 20, one thread. ``--peer`` decodes with ``generate(num_beams=20, prefix_allowed_tokens_fn=...)`` over
probabilities of legal tokens, one user at a time, from the same prompts. ``--ours`` computes shards as `genrec batch` does, with
reading of the input and writing of the files: with full attention, and with ``by_event`` without recent events in full and
with the lines of all titles stored by `genrec warm` before. Loading of the model and one shard of other users before are not counted. What
has been measured is kept in .results/many_users and not measured again.
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
from genrec.data.datasets import load
from genrec.models.language_model import LanguageModel

DATA = "online_retail_demo"
K = 20
USERS = 200
LEAST = 8  # events of a user
KEPT = ROOT / ".results" / "many_users"
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
        data=DATA, users=None if users is None else str(users),
        loading={"threads": 1, "device": "cpu", "dtype": "float32"},
        settings={"model_role": "fuse", "prior": "none", **WAYS[way]}, options={"k": K},
        shard_size=n, batch_size=batch_size,
    )  # fmt: skip


def lines(name: str) -> list[dict[str, Any]]:
    path = KEPT / f"{name}.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def keep(name: str, values: dict[str, Any]) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{name}.jsonl").open("a") as stream:
        stream.write(json.dumps(values) + "\n")


def measure_peer(minutes: float) -> None:
    """Decode one user after the other with ``generate``."""
    data = load(DATA)
    recommender = job_of("full", None, 1, 1).load_recommender(data, print)
    sequences = list(recommender.encoder.titles(recommender.catalog))
    done = {x["user"] for x in lines("peer")}
    left = [u for u in chosen(data) if u not in done]
    ends = time.monotonic() + 60 * minutes
    ids = {u: list(recommender.prompt(data.interactions.history(u)).ids) for u in left}
    model = LanguageModel.load("smollm2-135m", device="cpu", dtype="float32", threads=1).model
    generate(model, ids[left[-1]][-40:], sequences, 2, renormalize=True)  # warm
    for user in left:
        if time.monotonic() > ends:
            break
        began, wall = time.process_time(), time.monotonic()
        found = generate(model, ids[user], sequences, K, renormalize=True)
        took = time.process_time() - began
        keep("peer", {
            "user": user, "tokens": len(ids[user]), "seconds": took, "wall": time.monotonic() - wall,
            "best": [list(t) for t, _ in found[:10]],
        })  # fmt: skip
        print(user, len(ids[user]), round(took, 2), flush=True)


def write_users(path: Path, names: Sequence[str]) -> Path:
    path.write_text("user_id\n" + "\n".join(names) + "\n", encoding="utf-8")
    return path


def measure_ours(rounds: int, batch_size: int, only: Sequence[str]) -> None:
    """Compute all users in one shard per way, the ways in turn."""
    data = load(DATA)
    names = chosen(data)
    with tempfile.TemporaryDirectory() as place:
        users = write_users(Path(place) / "users.csv", names)
        others = write_users(Path(place) / "others.csv", chosen(data, batch_size, USERS))
        writers = {}
        for way in only:
            job = job_of(way, users, len(names), batch_size)
            recommender = job.load_recommender(data, print)
            if way == "by_event":
                recommender.warm(Path(place) / "lines", log=print)
            first = job_of(way, others, batch_size, batch_size)
            folder = Path(place) / f"{way}-first"
            folder.mkdir()
            ShardWriter(first, read_rows(first, data), recommender, folder).write(0)
            writers[way] = (job, recommender)
        for number in range(rounds):
            for way, (job, recommender) in writers.items():
                folder = Path(place) / f"{way}-{number}"
                folder.mkdir()
                began, wall = time.process_time(), time.monotonic()
                counts = ShardWriter(job, read_rows(job, data), recommender, folder).write(0)
                took = time.process_time() - began
                assert counts["rows"] == len(names)
                keep(f"ours-{way}", {
                    "users": len(names), "seconds": took, "wall": time.monotonic() - wall,
                    "batch_size": batch_size, "commit": commit(),
                })  # fmt: skip
                print(way, round(len(names) / took, 2), "users a second", flush=True)


def report() -> None:
    """Print the rates and their ratio, with an interval by bootstrap over the users of ``generate``."""
    peer = np.array([x["seconds"] for x in lines("peer")])
    draw = np.random.default_rng(0)
    means = [draw.choice(peer, len(peer)).mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    print(f"generate: {len(peer)} users, {peer.mean():.2f} s [{low:.2f}, {high:.2f}]")
    for way in WAYS:
        for x in lines(f"ours-{way}"):
            each = x["seconds"] / x["users"]
            print(
                f"{way}: {each:.3f} s, {1 / each:.2f} users a second, ratio {peer.mean() / each:.1f} "
                f"[{low / each:.1f}, {high / each:.1f}], batches of {x['batch_size']}, commit {x['commit']}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    if arguments.peer:
        measure_peer(arguments.minutes)
    elif arguments.ours:
        measure_ours(arguments.rounds, arguments.batch_size, arguments.ways)
    else:
        report()


if __name__ == "__main__":
    main()
