"""Measure what the limit on variants of one product changes in lists of ten, and what it costs.

    python -m benchmarks.accuracy.groups demo toys beauty --data DIR
    python -m benchmarks.accuracy.groups demo --model 60
    python -m benchmarks.accuracy.groups demo toys beauty --data DIR --read 100

Lists are ranked by the prior alone, which counts train, for the test users of public_datasets.py; with
``--model N``, by the zero-shot model and the prior for N users. The table has the share of lists in which
more than half of the items belong to one group, without the limit and with it, and NDCG@10 with the paired
difference. ``--read N`` prints N random groups of each catalog instead, for judging by hand.
"""

from __future__ import annotations

import argparse
import html
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.public_datasets import TASKS, Task, chosen, interval
from benchmarks.common import commit
from genrec import Catalog, Recommender
from genrec.baselines.ranking import mask_seen, top_rows
from genrec.config import PROTOCOL
from genrec.data.groups import ALONE, Groups, find_groups
from genrec.evaluation import metrics
from genrec.pipeline.rerank import capped
from genrec.priors.collaborative import CollaborativePrior

K = 10
DEEP = 200  # the prior's best items among which a limited list is chosen; all if these are too few

Lists = list[list[int]]


def lists_of_prior(task: Task, groups: Groups, limit: int) -> tuple[Lists, Lists]:
    """Rank ten items for each case by the prior, without the limit and with it, as catalog rows."""
    prior = CollaborativePrior.fit(task.data, before="validation")
    catalog = task.data.catalog
    plain, limited = [], []
    for case in task.cases:
        scores = prior.logprobs(case.history)
        if task.exclude_seen:
            scores = mask_seen(catalog, case.history, scores, prior.lead_in_behaviors)
        for depth in (DEEP, len(catalog)):
            rows = top_rows(scores, depth)
            which = capped(groups.values(rows), K, limit)
            if len(which) == K:
                break
        plain.append(rows[:K].tolist())
        limited.append(rows[which].tolist())
    return plain, limited


def lists_of_model(task: Task, users: int, limit: int) -> tuple[Lists, Lists]:
    """Rank ten items for each case with the model and the prior, and print the time of a list."""
    recommender = Recommender(task.data, exclude_seen=task.exclude_seen)
    catalog = task.data.catalog
    recommender.recommend(task.cases[0].history, K)
    found: dict[int | None, Lists] = {None: [], limit: []}
    seconds: dict[int | None, list[float]] = {None: [], limit: []}
    for number, case in enumerate(task.cases[:users]):
        for per_group in sorted(found, key=str, reverse=bool(number % 2)):
            started = time.process_time()
            answer = recommender.recommend(case.history, K, options=PROTOCOL, per_group=per_group)
            seconds[per_group].append(time.process_time() - started)
            found[per_group].append([catalog.row(r.item_id) for r in answer])
    without, limited = (np.array(seconds[one]) for one in (None, limit))
    print(
        f"seconds of processor time a list: {without.mean():.2f} without the limit, {limited.mean():.2f} with it "
        f"(ratio of medians {np.median(limited) / np.median(without):.2f}, of means "
        f"{limited.mean() / without.mean():.2f})"
    )
    return found[None], found[limit]


def crowded(lists: Lists, groups: Groups) -> list[float]:
    """Return 1 for each list in which more than half of the items are of one group, otherwise 0."""
    most = []
    for rows in lists:
        counted = Counter(n for n in groups.numbers[rows].tolist() if n != ALONE)
        most.append(max(counted.values(), default=0))
    return [float(n > K // 2) for n in most]


def ndcg(lists: Lists, targets: Sequence[int]) -> np.ndarray:
    ranks = [r.index(t) + 1 if t in r else 0 for r, t in zip(lists, targets, strict=True)]
    return np.array(metrics.ndcg(ranks, K))


def report(name: str, task: Task, lists: tuple[Lists, Lists], groups: Groups) -> None:
    plain, limited = lists
    catalog = task.data.catalog
    targets = [catalog.row(c.target) for c in task.cases[: len(plain)]]
    changed = [float(a != b) for a, b in zip(plain, limited, strict=True)]
    before, after = ndcg(plain, targets), ndcg(limited, targets)
    cells = [
        name,
        f"{len(plain):,}",
        f"{int((groups.numbers != ALONE).sum()):,} of {len(catalog):,}",
        interval(crowded(plain, groups)),
        interval(crowded(limited, groups)),
        interval(changed),
        interval(before),
        interval(after),
        interval(after - before),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def show(name: str, catalog: Catalog, groups: Groups, n: int, seed: int) -> None:
    print(f"## {name}: {len(groups.names)} groups")
    for number in random.Random(seed).sample(range(len(groups.names)), min(n, len(groups.names))):
        rows = np.flatnonzero(groups.numbers == number).tolist()
        print(f"# {groups.names[number]} ({len(rows)})")
        for row in rows[:6]:
            print(f"    {html.unescape(catalog[row].title)[:110]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=None)
    parser.add_argument("--per-group", type=int, default=2)
    parser.add_argument("--model", type=int, default=None, metavar="N")
    parser.add_argument("--read", type=int, default=None, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.read is None:
        print(f"commit {commit()}, at most {arguments.per_group} of a group\n")
        print(
            "| data | lists | items in groups | more than half of one group | the same, limited | "
            f"changed | N@{K} | N@{K}, limited | difference |\n|---|---|---|---|---|---|---|---|---|"
        )
    for name in arguments.sets:
        folder, make = TASKS[name]
        task = chosen(make(arguments.data / folder), arguments.users or arguments.model)
        groups = find_groups(task.data.catalog)
        if arguments.read is not None:
            show(name, task.data.catalog, groups, arguments.read, arguments.seed)
        elif arguments.model is not None:
            lists = lists_of_model(task, arguments.model, arguments.per_group)
            report(f"{name}, model + prior", task, lists, groups)
        else:
            lists = lists_of_prior(task, groups, arguments.per_group)
            report(name, task, lists, groups)


if __name__ == "__main__":
    main()
