"""Measure seconds, peak memory and milliseconds per user of the prior on many items and events.

    python -m benchmarks.speed.priors
    python -m benchmarks.speed.priors --items 10000 100000 --events 1000000 --labels 500
    python -m benchmarks.speed.priors --sources markov,itemknn

Users, events and titles are synthetic (``synthetic.py``). They are written to a dataset folder by one process and
read by another, which fits the prior with the sources and the shares of the default (or those of ``--sources``)
and weights the items for users of the test part. With ``--labels``, it learns to rank from at most so many
histories for fitting and for validation, and does so again, since a list costs the same then. Fitting is measured
with an empty cache. Seconds are of the clock and of the processor; milliseconds are of the processor,
by user, and so is the time of a first request after loading. The peak is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import child, commit
from benchmarks.speed.scale import peak
from benchmarks.speed.synthetic import events, texts
from genrec.config import COUNTED
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.priors import rank_fit
from genrec.priors.collaborative import CollaborativePrior

MODULE = "benchmarks.speed.priors"
USERS = 500  # whose items are weighted
BEHAVIOR = "event"


def write(place: Path, items: int, users: int, total: int) -> dict[str, Any]:
    """Write a dataset folder of synthetic events."""
    import pyarrow as pa

    user, item, when = events(users, items, total)
    table = pa.table(
        {
            "user_id": pa.array(user).cast(pa.string()),
            "item_id": pa.array(item).cast(pa.string()),
            "timestamp": when,
            "behavior": pa.array([BEHAVIOR]).take(pa.array(np.zeros(len(user), dtype=np.int64))),
        }
    )
    titles = pa.table({"item_id": [str(i) for i in range(items)], "title": texts(items)})
    data = Dataset.from_tables(titles, table, name="synthetic")
    data.save(place)
    return {"items": len(data.catalog), "users": users, "events": len(data.interactions)}


def fit(place: Path, sources: Sequence[str], labels: int) -> dict[str, Any]:
    """Fit the prior, and weight the items for users of the test part."""
    loading = Clock()
    data = Dataset.load(place)
    report: dict[str, Any] = {"load_s": loading.clock(), "load_peak_gb": round(peak(), 2)}
    prior = fitted(data, sources, report)
    cases = protocols.sample(protocols.cases(data, protocols.default_protocol(data)), USERS)
    histories = [case.history for case in cases]
    report |= {"user_" + name: value for name, value in each(prior, histories).items()}
    if labels:
        rank_fit.MAX_TRAIN = rank_fit.MAX_VALIDATION = labels
        ranking = Clock()
        prior.learn_to_rank(data, BEHAVIOR, log=tell)
        report |= {
            "rank_s": ranking.clock(),
            "rank_cpu_s": ranking.processor(),
            "kinds": list(prior.rankers.by_kind) if prior.rankers else [],
        }
        report |= {"list_" + name: value for name, value in each(prior, histories).items()}
        report["rank_peak_gb"] = round(peak(), 2)
    return report


def fitted(data: Dataset, sources: Sequence[str], report: dict[str, Any]) -> CollaborativePrior:
    """Fit the prior twice, the second time from the cache, and add to the report."""
    fitting = Clock()
    CollaborativePrior.fit(data, sources=sources, log=tell)
    report |= {
        "fit_s": fitting.clock(),
        "fit_cpu_s": fitting.processor(),
        "fit_peak_gb": round(peak(), 2),
    }
    again = Clock()
    prior = CollaborativePrior.fit(data, sources=sources, log=tell)
    report |= {
        "cached_s": again.clock(),
        "mix": {name: round(share, 3) for name, share in prior.mix.items() if share},
    }
    return prior


def each(prior: CollaborativePrior, histories: Sequence[History]) -> dict[str, float]:
    """Return the processor milliseconds of the weights of one history, and the peak afterwards."""
    times = [milliseconds(lambda h=h: prior.weights(h)) for h in histories]  # type: ignore[misc]
    return {
        "first_ms": round(times[0], 2),
        "median_ms": round(float(np.median(times)), 2),
        "p95_ms": round(float(np.quantile(times, 0.95)), 2),
        "mean_ms": round(float(np.mean(times)), 2),
        "peak_gb": round(peak(), 2),
    }


def milliseconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1e3


class Clock:
    """Seconds since it was made, on the wall and of the processor."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def clock(self) -> float:
        return round(time.perf_counter() - self._wall, 1)

    def processor(self) -> float:
        return round(time.process_time() - self._processor, 1)


def tell(message: str) -> None:
    print(f"{time.process_time():.0f} s, {peak():.2f} GB: {message}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--sources", default=",".join(COUNTED))
    parser.add_argument(
        "--labels", type=int, default=0, help="learn to rank from so many histories"
    )
    parser.add_argument("--folder", type=Path, help="keep the datasets here, and use them again")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, place, *rest = arguments.child
        if kind == "write":
            print(json.dumps(write(Path(place), *map(int, rest))))
        else:
            print(json.dumps(fit(Path(place), rest[0].split(","), int(rest[1]))))
        return
    for items in arguments.items:
        size = [str(n) for n in (items, arguments.users, arguments.events)]
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.folder or Path(temporary)) / "-".join(size)
            report: dict[str, Any] = {"commit": commit()}
            if not folder.exists():
                report |= child(MODULE, "write", str(folder), *size)
            for old in folder.glob("cache/*"):
                old.unlink()
            report |= child(MODULE, "fit", str(folder), arguments.sources, str(arguments.labels))
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
