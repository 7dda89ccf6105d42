"""Measure whether it helps the prior to know which events of a history were liked and disliked.

    python -m benchmarks.accuracy.opinions --data DIR

DIR (or $GENREC_DATA) contains the folder ml-100k of benchmarks.accuracy.public_datasets. No public dataset with review
texts is at hand, so ratings stand in for polarity: 4 and 5 are liked, 1 and 2 are disliked, 3 is neither. The
prior counts train and validation of the ratings of all kinds. Targets by last-unit, of all users. An event of weight w counts as
the mixture w P(whole history) + (1 - w) P(history without such events), which is again a distribution. Nats of the target
(-ln p) and NDCG@10 over all items that the user has not rated, with paired differences to weight 1.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import commit
from genrec import Catalog, History
from genrec.data import protocols
from genrec.data.datasets import recbole
from genrec.evaluation.bootstrap import bootstrap
from genrec.priors.collaborative import CollaborativePrior
from genrec.taste.opinions import polarity_of
from genrec.types import FloatArray

WEIGHTS = (0.75, 0.5, 0.25, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    arguments = parser.parse_args()
    data = recbole(arguments.data / "ml-100k", "ml-100k")
    cases = protocols.cases(data, "last-unit", "test")
    known = protocols.withhold(protocols.apply_protocol(data, "last-unit"), "test")
    prior = CollaborativePrior.fit(known, before="test")
    targets = [data.catalog.row(c.target) for c in cases]
    whole: list[FloatArray] = []
    liked: list[FloatArray] = []
    not_disliked: list[FloatArray] = []
    shares: list[list[float]] = []
    for case in cases:
        events = case.history.interactions
        polarity = [polarity_of(e, 4, 2) for e in events]
        whole.append(np.exp(prior.logprobs(case.history)))
        for found, wanted in ((liked, (1.0,)), (not_disliked, (1.0, None))):
            kept = [e for e, p in zip(events, polarity, strict=True) if p in wanted]
            found.append(np.exp(prior.logprobs(History(tuple(kept), case.history.user_id))))
        shares.append([polarity.count(1.0) / len(events), polarity.count(0.0) / len(events)])
    print(
        f"ml-100k, {len(cases)} users, commit {commit()}: {np.mean(shares, axis=0)[0]:.0%} of the events liked, "
        f"{np.mean(shares, axis=0)[1]:.0%} disliked\n"
    )
    print("| events | weight | nats | gain | NDCG@10 | gain |\n|---|---|---|---|---|---|")
    base = measure(np.array(whole), cases, targets, data.catalog)
    print(f"| all | 1 | {bootstrap(base[0])} | | {bootstrap(base[1])} | |")
    for name, other in (("disliked", not_disliked), ("not liked", liked)):
        for weight in WEIGHTS:
            mixed = weight * np.array(whole) + (1 - weight) * np.array(other)
            nats, ndcg = measure(mixed, cases, targets, data.catalog)
            gains = bootstrap(base[0] - nats), bootstrap(ndcg - base[1])
            cells = [bootstrap(nats), gains[0], bootstrap(ndcg), gains[1]]
            print(f"| {name} | {weight:g} | {' | '.join(map(str, cells))} |", flush=True)


def measure(
    chances: FloatArray, cases: Sequence[protocols.Case], targets: Sequence[int], catalog: Catalog
) -> tuple[FloatArray, FloatArray]:
    """Return the nats and NDCG@10 of each user."""
    nats, ndcg = [], []
    for row, case, target in zip(chances, cases, targets, strict=True):
        nats.append(-np.log(row[target]))
        seen = {e.item_id for e in case.history.interactions}
        own = row.copy()
        for item in seen - {case.target}:
            own[catalog.row(str(item))] = 0.0
        rank = int((own > own[target]).sum()) + 1
        ndcg.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    return np.array(nats), np.array(ndcg)


if __name__ == "__main__":
    main()
