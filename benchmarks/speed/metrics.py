"""Measure seconds and memory of the metrics over given lists.

python -m benchmarks.speed.metrics --users 100000 --places 100 --items 20000
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from genrec.evaluation import bootstrap, metrics

KS = (5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--places", type=int, default=100)
    parser.add_argument("--items", type=int, default=20_000)
    arguments = parser.parse_args()
    users, places, items = arguments.users, arguments.places, arguments.items
    rng = np.random.default_rng(0)
    ids = [f"item{i}" for i in range(items)]
    row_of = {item: row for row, item in enumerate(ids)}
    lists = [[ids[i] for i in rng.integers(0, items, places)] for _ in range(users)]
    targets = rng.integers(0, items, users)
    baskets, start = rng.integers(0, items, 3 * users), np.arange(0, 3 * users + 1, 3)
    vectors = sparse.random_array((items, 300), density=0.1, rng=rng, format="csr")
    print(f"{users:,} users x {places} places of {items:,} items, made in {_memory():.2f} GB")
    total, processor = time.perf_counter(), time.process_time()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        print(f"{name:32} {time.perf_counter() - started:6.2f} s")
        return result

    rows = timed("ids to rows", lambda: metrics.as_rows(lists, row_of))
    ranks = timed("ranks", lambda: metrics.ranks_of(targets, rows))
    hit = timed("hits of baskets of three", lambda: metrics.hits(baskets, start, rows))
    sizes = np.full(users, 3)
    timed("basket metrics", lambda: [metrics.set_metrics(hit, sizes, k) for k in KS])
    counts = timed("exposure", lambda: metrics.exposure(rows, items, 10))
    beyond = timed("novelty, popularity", lambda: [m(rows, counts, 10) for m in
                                                   (metrics.novelty, metrics.popularity)])  # fmt: skip
    beyond.append(timed("diversity@10", lambda: metrics.diversity(rows, vectors, 10)))
    timed("invalid lists", lambda: metrics.invalid(rows, places))
    values = np.stack([m(ranks, k) for k in KS for m in
                       (metrics.hit_rate, metrics.ndcg, metrics.mrr)], axis=1)  # fmt: skip
    values = np.concatenate([values, np.stack(beyond, axis=1)], axis=1)
    timed("intervals of twelve metrics", lambda: bootstrap.bootstraps(values))
    processor = time.process_time() - processor
    print(
        f"{'all':32} {time.perf_counter() - total:6.2f} s ({processor:.2f} s of processor time), "
        f"at most {_memory():.2f} GB"
    )


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
