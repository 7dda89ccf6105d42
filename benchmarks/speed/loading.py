"""Measure seconds and peak memory of ``Dataset.prepare`` and ``Dataset.load`` on many events.

python -m benchmarks.speed.loading --events 10000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from genrec.data.dataset import Dataset


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    n, items = arguments.events, arguments.items
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        users = rng.integers(0, n // 20, n)
        table = pa.table(
            {
                "user_id": pa.array(users).cast(pa.string()),
                "item_id": pa.array(rng.integers(0, items, n)).cast(pa.string()),
                "timestamp": rng.integers(1_500_000_000, 1_700_000_000, n),
                "behavior": pa.array(["view", "buy"]).take(pa.array(rng.integers(0, 2, n))),
            }
        )
        pa_csv.write_csv(table, place / "events.csv")
        ids = [str(i) for i in range(items)]
        titles = [f"Title number {i}" for i in range(items)]
        pa_csv.write_csv(pa.table({"item_id": ids, "title": titles}), place / "items.csv")
        del table, users
        size = (place / "events.csv").stat().st_size / 1e6
        before = peak()
        started = time.perf_counter()
        data, _ = Dataset.prepare(place / "items.csv", place / "events.csv", log=print)
        prepared = time.perf_counter()
        data.save(place / "out")
        saved = time.perf_counter()
        del data
        Dataset.load(place / "out")
        loaded = time.perf_counter()
        print(
            f"{n:,} events, {items:,} items, {size:.0f} MB of CSV: prepare {prepared - started:.1f} "
            f"s, save {saved - prepared:.1f} s, load {loaded - saved:.1f} s; peak memory "
            f"{peak():.1f} GB (before: {before:.1f})"
        )


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
