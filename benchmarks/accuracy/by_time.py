"""Measure prior and baselines when all of test is later than all of train (protocol global-time).

    python -m benchmarks.accuracy.by_time --data DIR
    python -m benchmarks.accuracy.by_time --sets demo retail --data DIR

A table of each user's last event lets a system see what others did later. Here nothing in train or
validation is later than test, for anybody. The data sets are those of public_datasets.py whose events
have times. All systems count train and validation, the prior's weights are fitted on validation, and up
to 1,500 seeded users are asked.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from benchmarks.accuracy.public_datasets import TASKS, interval
from benchmarks.common import commit
from genrec.baselines import registry
from genrec.data import protocols
from genrec.evaluation import metrics
from genrec.priors.collaborative import CollaborativePrior
from genrec.types import FloatArray

SETS = ("demo", "retail", "ml-100k", "stackexchange")
SYSTEMS = ("popular", "markov", "itemknn", "userknn", "ease", "content")
USERS = 1500


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    arguments = parser.parse_args()
    print(f"commit {commit()}\n")
    print("| set | users | system | R@10 | N@10 | prior less it, R@10 | prior less it, N@10 |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.sets:
        folder, make = TASKS[name]
        data = protocols.apply_protocol(make(arguments.data / folder).data, "global-time")
        cases = protocols.sample(protocols.cases(data, "global-time", "test"), USERS)
        histories, seen = [c.history for c in cases], data.info.exclude_seen
        prior = CollaborativePrior.fit(data, before="test")
        lists: dict[str, list[list[str]]] = {
            "prior": [prior.rank(h, 10, exclude_seen=seen) for h in histories]
        }
        for system in SYSTEMS:
            fitted = registry.fit(system, data, before="test")
            lists[system] = list(fitted.rank_many(histories, 10, exclude_seen=seen))
        own: list[FloatArray] = []
        for system, found in lists.items():
            ranks = [metrics.rank_of(c.target, r) for c, r in zip(cases, found, strict=True)]
            values = [np.array(metrics.hit_rate(ranks, 10)), np.array(metrics.ndcg(ranks, 10))]
            own = own or values
            less = ["" if v is o else interval(o - v) for v, o in zip(values, own, strict=True)]
            cells = [name, str(len(cases)), system, *map(interval, values), *less]
            print(f"| {' | '.join(cells)} |", flush=True)
        mix = ", ".join(f"{n} {w:.2f}" for n, w in prior.mix.items() if w >= 0.01)
        print(f"{name}: {mix}; {sum(not len(h) for h in histories)} without a history", flush=True)


if __name__ == "__main__":
    main()
