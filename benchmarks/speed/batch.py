"""Measure what `genrec batch` costs beside the recommender's own function for several users.

    python -m benchmarks.speed.batch --users 48 --rounds 3

Both make the same lists of 20 items for users of the demo with the default model and the prior, in turn, on one thread. The
processor time of a batch includes reading its input and writing its files, but not loading the model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import commit
from genrec.batch.job import Job
from genrec.batch.plan import read_rows
from genrec.batch.shards import ShardWriter
from genrec.data.datasets import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    data = load("online_retail_demo")
    names = data.interactions.user_ids[: arguments.users]
    ratios, rates = [], []
    with tempfile.TemporaryDirectory() as place:
        users = Path(place) / "users.csv"
        users.write_text("user_id\n" + "\n".join(names) + "\n", encoding="utf-8")
        job = Job(
            data="online_retail_demo", users=str(users), loading={"threads": 1, "device": "cpu"},
            settings={"model_role": "fuse"}, options={"k": 20}, shard_size=arguments.users,
            batch_size=arguments.batch_size,
        )  # fmt: skip
        recommender = job.load_recommender(data, print)
        histories = [data.interactions.history(name) for name in names]
        recommender.recommend_many(histories[:4], options=job.query())  # the trie and the prior
        for number in range(arguments.rounds):
            began = time.process_time()
            lists = recommender.recommend_many(
                histories, batch_size=job.batch_size, options=job.query()
            )
            raw = time.process_time() - began
            began = time.process_time()
            folder = Path(place) / str(number)
            folder.mkdir()
            counts = ShardWriter(job, read_rows(job, data), recommender, folder).write(0)
            written = time.process_time() - began
            assert counts["rows"] == len(lists)
            ratios.append(written / raw)
            rates.append(len(names) / written)
            print(f"raw {raw:.2f} s, batch {written:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"commit {commit()}: {len(names)} users, ratio median {np.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), {np.median(rates):.2f} users a second of the processor"
    )


if __name__ == "__main__":
    main()
