"""Measure pages of user ids, neighbors of a user and the results of an experiment on a large store.

python -m benchmarks.speed.stored_users

users     pages of 100 ids, beginning at random ones, with as many users in the dataset as in the store.
neighbors the ten nearest users of random ones; the first request builds the index.
results   the results of an experiment with two lists of each user in the store, and the highest memory that Python
          takes for them.

Processor time and memory are reported, because clocks are not reliable on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.common import commit
from genrec import Dataset, Interaction
from genrec.service.experiments import Arm, Experiment, results
from genrec.service.mirror import Mirror
from genrec.service.neighbors import NeighborIndex
from genrec.service.outcomes import outcomes
from genrec.service.store import Event, ShownList, Store
from genrec.service.tables import sqlite_url

_ITEMS = 2000
_TIMES = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100_000)
    arguments = parser.parse_args()
    print(f"commit {commit()}, {arguments}")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(sqlite_url(Path(folder)))
        data = _dataset(arguments.users, rng)
        _fill(store, arguments.users, rng)
        histories = Mirror(data, store)
        starts = [f"u{n}" for n in rng.integers(0, arguments.users, _TIMES).tolist()]
        first = _processor(lambda: histories.user_ids("", "", 100))
        pages = [_processor(lambda s=start: histories.user_ids("", s, 101)) for start in starts]  # type: ignore[misc]
        print(f"users: first page {first * 1000:.0f} ms, later ones {_describe(pages)}")
        index = NeighborIndex(data.interactions, "buy")
        build = _processor(lambda: index.add(store.events_after(0, "buy")))
        found = [_processor(lambda s=start: index.find(s, 10)) for start in starts]  # type: ignore[misc]
        print(f"neighbors: events of the store {build:.2f} s, each request {_describe(found)}")
        arms = (Arm("a", "run"), Arm("b", "run"))
        experiment = Experiment("e", arms, None, "e", ("buy",), window_hours=1.0)
        seconds = _processor(lambda: results(experiment, outcomes(store, "e", 0.0), 1e12))
        peak = _memory(lambda: results(experiment, outcomes(store, "e", 0.0), 1e12))
        lists = _memory(lambda: list(outcomes(store, "e", 0.0)))
        print(
            f"results: {seconds:.2f} s, highest memory {peak:.1f} MB; of a list of all {lists:.1f} MB"
        )
        store.close()


def _dataset(users: int, rng: Any) -> Dataset:
    """Five purchases of each user."""
    items = pa.table({"item_id": [f"i{n}" for n in range(_ITEMS)],
                      "title": [f"title {n}" for n in range(_ITEMS)]})  # fmt: skip
    rows = rng.integers(0, _ITEMS, 5 * users)
    events = pa.table(
        {
            "user_id": [f"u{n // 5}" for n in range(5 * users)],
            "item_id": [f"i{row}" for row in rows.tolist()],
            "behavior": ["buy"] * (5 * users),
            "timestamp": (1.6e9 + np.arange(5 * users)).tolist(),
        }
    )
    return Dataset.from_tables(items, events, name="many users")


def _fill(store: Store, users: int, rng: Any) -> None:
    """Two lists of ten items and a purchase for each of as many new users."""
    for first in range(0, users, 5000):
        lists, events = [], []
        for user in range(first, min(first + 5000, users)):
            name = f"v{user}"
            shown = [f"i{row}" for row in rng.integers(0, _ITEMS, 10).tolist()]
            for n in range(2):
                lists.append(
                    ShownList(
                        f"{name} {n}", float(user), name, None, None, "run", "ab"[user % 2], False,
                        tuple(shown), "e",
                    )
                )  # fmt: skip
            events.append(Event(Interaction(shown[0], "buy", 1.7e9), name, list_id=f"{name} 0"))
        store.add_lists(lists)
        store.add_events(events)


def _processor(run: Callable[[], object]) -> float:
    """Return the seconds of the processor that a call takes."""
    began = time.process_time()
    run()
    return time.process_time() - began


def _memory(run: Callable[[], object]) -> float:
    """Return the megabytes that Python takes for a call at most."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def _describe(seconds: Sequence[float]) -> str:
    times = [value * 1000 for value in seconds]
    return f"median {statistics.median(times):.2f} ms, longest {max(times):.2f} ms"


if __name__ == "__main__":
    main()
