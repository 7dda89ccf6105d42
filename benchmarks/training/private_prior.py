"""Measure priors from counts with noise on the demo: popularity, own items, and pairs of items.

    python -m benchmarks.training.private_prior

No language model is needed. Each prior ranks for all test users of demo-v1, and its counts are those of the train
and validation parts. Every table of counts is charged with the whole epsilon that its row names, so several at once
cost more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from genrec.baselines.sparse import count_transitions
from genrec.baselines.training_events import TrainingEvents
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.evaluation import metrics
from genrec.evaluation.bootstrap import bootstrap
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import Counts
from genrec.training.accountant import find_noise
from genrec.training.private_prior import MIX, PRIOR_NORM, clip_counts, shrink

KEPT = (3.5, 4.5)  # a pair is kept if its count is above this many standard deviations of the noise
SHARE = 0.1  # the share of the source of pairs


def main() -> None:
    """Print a line for each prior."""
    data = protocols.apply_protocol(load("online_retail_demo"), "demo-v1")
    cases = protocols.cases(data, "demo-v1")
    events = TrainingEvents.of(data.interactions, "buy", "test")
    n, users = len(data.catalog), len(np.unique(events.user))
    delta = users**-1.1
    rng = np.random.default_rng(0)
    results: dict[str, np.ndarray] = {}

    def measure(name: str, prior: CollaborativePrior) -> None:
        ranks, nats = [], []
        for case in cases:
            scores, row = prior.logprobs(case.history), data.catalog.row(case.target)
            ranks.append(int((scores >= scores[row]).sum()))
            nats.append(-float(scores[row]))
        results[name] = np.asarray(metrics.ndcg(ranks, 10))
        less = bootstrap(results[name] - results["all counts"])
        print(
            f"{name}: nats {bootstrap(nats)}, NDCG@10 {bootstrap(results[name])}, less {less}",
            flush=True,
        )

    def mixed(
        counts: np.ndarray, mix: dict[str, float], after: sparse.csr_array | None = None
    ) -> CollaborativePrior:
        known = replace(Counts.none(data.catalog), popularity=counts)
        return CollaborativePrior(known if after is None else replace(known, after=after), mix, {})

    print(f"{len(cases)} test users, {users} counted users, delta {delta:.2g}")
    measure("all counts", CollaborativePrior.fit(data))
    clipped = clip_counts(events.user, events.row, n)
    for epsilon in (0.5, 2.0):  # a quarter of 2 and of 8
        noise = find_noise(epsilon, delta, [(1.0, 1)])
        drawn = clipped + rng.normal(0, noise * PRIOR_NORM, n)
        measure(f"popularity, epsilon {epsilon}", mixed(np.maximum(drawn, 0), {"popular": 1.0}))
        shrunk = shrink(drawn, noise * PRIOR_NORM)
        measure(f"popularity, epsilon {epsilon}, shrunk", mixed(shrunk, {"popular": 1.0}))
        for own in (0.2, 0.35, 0.5):
            measure(f"and own items, share {own}", mixed(shrunk, {"popular": 1 - own, "own": own}))
    same = events.user[1:] == events.user[:-1]
    user, one, other = events.user[1:][same], events.row[:-1][same], events.row[1:][same]
    exact = count_transitions(one, other, n)
    print(
        f"{len(one):,} pairs in a row, {exact.nnz:,} of {n * n:,} cells, {(exact.data >= 5).sum()} of 5 or more"
    )
    with_pairs = {"popular": MIX["popular"] - SHARE, "own": MIX["own"], "followed": SHARE}
    measure("and exact pairs", mixed(shrunk, with_pairs, exact))
    weight = np.zeros(len(one))
    for u in np.unique(user):
        own_cells = one[user == u] * n + other[user == u]
        _, many = np.unique(own_cells, return_counts=True)
        weight[user == u] = min(1.0, 1.0 / float(np.linalg.norm(many)))
    total = sparse.csr_array((weight, (one, other)), shape=(n, n)).toarray()
    for epsilon in (2.0, 8.0):
        noise = find_noise(epsilon, delta, [(1.0, 1)])
        drawn = total + rng.normal(0, noise, (n, n))
        for limit in KEPT:
            kept = np.where(drawn > limit * noise, drawn, 0.0)
            real = int(((kept > 0) & (total > 0)).sum())
            print(
                f"pairs, epsilon {epsilon}, above {limit}: {(kept > 0).sum()} kept, {real} of them real"
            )
            measure(
                f"and pairs, epsilon {epsilon}, {limit}",
                mixed(shrunk, with_pairs, sparse.csr_array(kept)),
            )


if __name__ == "__main__":
    main()
