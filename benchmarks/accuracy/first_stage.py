"""Measure how often the first stage of a recommendation finds the target.

    python -m benchmarks.accuracy.first_stage demo retail beauty --data DIR

The first stage is the collaborative prior without a learned ranking: the best 100 items of its mixture
are the candidates that a learned ranking orders. Recall at k is the share of users whose target is among
the first k items, here of the mixture, of each source alone, and of all sources that have a share, which
take turns in the order of their shares (union). Where a task leaves seen items out, only new items are
ranked. Where it does not, the learned ranking has candidates of two kinds, 100 new and 100 seen ones, so
the rank among the items of the target's kind is measured as well (mixture by kind). All items compete, also for lastfm, whose lists have 20 candidates otherwise. Everything is
fitted on train. Sources that know nothing about a target do not find it, whatever k is.

DIR is described in public_datasets.py. A task with more users is measured on a fixed random sample.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.public_datasets import TASKS, Case, Task, chosen, interval
from benchmarks.common import commit
from genrec.baselines.ranking import top_rows
from genrec.config import COUNTED
from genrec.data.events import History
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.mixture import POPULAR, TRENDING, Mixture
from genrec.priors.mixture_fit import without
from genrec.priors.rank_features import seen_rows
from genrec.priors.rank_fit import to_dense
from genrec.types import BoolArray, FloatArray, IntArray

KS = (100, 300, 1000)
MIXTURE, BY_KIND, UNION = "mixture", "mixture by kind", "union"
USERS = 2000
_CHUNK = 64  # histories whose sources are computed at once


def ranks_of(task: Task, prior: CollaborativePrior) -> dict[str, IntArray]:
    """Rank each case's target by the mixture, by each source alone and by the union of sources.

    Args:
        task: the task.
        prior: the prior, without a learned ranking.

    Returns:
        For each of these, (cases,) ranks from 1; 0 if the target is not found. The union finds
        only targets that a source has among its first ``KS[-1]`` items.
    """
    found: dict[str, list[int]] = {}
    for case, scores in scores_of(task.cases, prior):
        target = task.data.catalog.row(case.target)
        new = np.ones(len(task.data.catalog), dtype=bool)
        new[seen_rows(prior.counts, case.history, prior.lead_in_behaviors)] = False
        allowed = new if task.exclude_seen else np.ones_like(new)
        if not task.exclude_seen:
            kind = new if new[target] else ~new
            found.setdefault(BY_KIND, []).append(rank_of(scores[MIXTURE], target, kind))
        for name, values in scores.items():
            found.setdefault(name, []).append(rank_of(values, target, allowed))
        by_share = sorted(prior.mix, key=lambda source: -prior.mix[source])
        lists = [
            top_rows(np.where(allowed & (scores[s] > 0), scores[s], -np.inf), KS[-1])
            for s in by_share
            if prior.mix[s] and s in scores
        ]
        found.setdefault(UNION, []).append(rank_in_turns(lists, target))
    return {name: np.array(ranks) for name, ranks in found.items()}


def scores_of(
    cases: Sequence[Case], prior: CollaborativePrior
) -> Iterator[tuple[Case, dict[str, FloatArray]]]:
    """Yield each case with the (N,) scores of all items by the mixture and by each source."""
    counts, mixture = prior.counts, prior._mixture
    same = {POPULAR: counts.base.values, TRENDING: counts.trend}
    others = [s for s in dict.fromkeys([*COUNTED, *prior.mix]) if s not in same]
    for first in range(0, len(cases), _CHUNK):
        some = cases[first : first + _CHUNK]
        read = [without(case.history, prior.unread) for case in some]
        parts = _parts(mixture, read, others)
        for number, case in enumerate(some):
            scores = {MIXTURE: to_dense(prior.weights(case.history)), **same}
            yield case, scores | {s: part[number] for s, part in parts.items()}


def _parts(
    mixture: Mixture, histories: Sequence[History], sources: Sequence[str]
) -> Mapping[str, FloatArray]:
    """Return each source's (H, N) distributions over the items for H histories."""
    shares = {s: mixture.shares(s, histories) for s in sources}
    return {s: m if isinstance(m, np.ndarray) else m.toarray() for s, m in shares.items()}


def rank_of(scores: FloatArray, target: int, allowed: BoolArray) -> int:
    """Return the target's rank from 1 among the allowed items with a positive score, or 0.

    Among equal scores, the lower row comes first, as in ``top_rows``.

    >>> rank_of(np.array([0.2, 0.5, 0.2, 0.0]), 2, np.array([True, True, True, True]))
    3
    """
    own = scores[target]
    if not allowed[target] or own <= 0:
        return 0
    equal = (scores[:target] == own) & allowed[:target]
    return 1 + int(((scores > own) & allowed).sum()) + int(equal.sum())


def rank_in_turns(lists: Sequence[IntArray], target: int) -> int:
    """Return the target's rank from 1 in a list that takes an item from each list in turn, or 0.

    An item that has been taken is not taken again.

    >>> rank_in_turns([np.array([4, 5, 6]), np.array([4, 6])], 6)
    3
    """
    places = [(int(np.argmax(rows == target)), n) for n, rows in enumerate(lists) if target in rows]
    if not places:
        return 0
    place, turn = min(places)
    before = [rows[: place + (n < turn)] for n, rows in enumerate(lists)]
    return 1 + len(np.unique(np.concatenate(before)))


def recall(ranks: IntArray, k: int) -> FloatArray:
    """Return 1 for each case whose target is among the first k items, and 0 for the others."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"commit {commit()}, recall at {', '.join(map(str, KS))}", flush=True)
    for name in arguments.sets:
        folder, make = TASKS[name]
        task = chosen(make(arguments.data / folder), arguments.users)
        prior = CollaborativePrior.fit(task.data)
        seen = "left out" if task.exclude_seen else "may come back"
        print(f"\n{name}: {len(task.cases):,} cases, seen items {seen}", flush=True)
        print("| source | share | " + " | ".join(f"recall@{k}" for k in KS) + " |")
        print("|---" * (len(KS) + 2) + "|")
        for source, ranks in ranks_of(task, prior).items():
            share = f"{prior.mix[source]:.3f}" if source in prior.mix else "-"
            cells = [interval(recall(ranks, k)) for k in KS]
            print(f"| {source} | {share} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
