"""Measure whether it helps the prior to know which events of a history were liked and disliked.

    python -m benchmarks.accuracy.opinions --data DIR
    python -m benchmarks.accuracy.opinions --data DIR --model smollm2-135m --users 150

DIR (or $GENREC_DATA) contains the folder ml-100k of benchmarks.accuracy.public_datasets. No public dataset with review
texts is at hand, so ratings stand in for polarity: 4 and 5 are liked, 1 and 2 are disliked, 3 is neither. The
prior counts train and validation of the ratings of all kinds. Targets by last-unit, of all users. An event of weight w counts as
the mixture w P(whole history) + (1 - w) P(history without such events), which is again a distribution. Nats of the target
(-ln p) and NDCG@10 over all items that the user has not rated, with paired differences to weight 1.

With --model, the prompt is measured instead: nats and NDCG@10 of the template ``next_item_opinions``, which writes
"(liked it)" or "(disliked it)" after the title of an event, against ``next_item``, on a seeded sample of users, by the model alone.
Each answer is kept in .results/opinions; run it again to continue.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import ROOT, commit
from genrec import Catalog, Dataset, History, Interactions, Recommender
from genrec.data import protocols
from genrec.data.datasets import recbole
from genrec.data.opinions import COLUMN, polarity_of
from genrec.evaluation.bootstrap import bootstrap
from genrec.priors.collaborative import CollaborativePrior
from genrec.types import FloatArray

WEIGHTS = (0.75, 0.5, 0.25, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--model", default=None, help="measure its prompt instead of the prior")
    parser.add_argument("--users", type=int, default=150, help="with --model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "opinions")
    arguments = parser.parse_args()
    if arguments.model is not None:
        measure_prompts(arguments)
        return
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


def with_opinions(data: Dataset) -> Dataset:
    """Return the dataset with the column that ``genrec sentiment`` would write, taken from ratings."""
    table = data.interactions.table
    value = table.columns.value
    column = pa.array(np.where(value >= 4, 1.0, np.where(value <= 2, 0.0, 0.5)))
    made = replace(table, attributes=pa.table({COLUMN: column}))
    return replace(data, interactions=Interactions(data.catalog, made), folder=None)


def measure_prompts(arguments: argparse.Namespace) -> None:
    """Print what the opinions in a prompt add."""
    data = with_opinions(recbole(arguments.data / "ml-100k", "ml-100k"))
    cases = protocols.cases(data, "last-unit", "test")
    order = np.random.default_rng(0).permutation(len(cases))[: arguments.users].tolist()
    arguments.out.mkdir(parents=True, exist_ok=True)
    both: list[tuple[Recommender, Path, dict[str, list[float]]]] = []
    for template in ("next_item", "next_item_opinions"):
        recommender = Recommender(
            data, arguments.model if not both else both[0][0].model, prior="none", max_events=15,
            template=template, values=False, threads=arguments.threads, prompt_memory=0,
        )  # fmt: skip
        path = arguments.out / f"{arguments.model}-{template}.jsonl"
        kept = {}
        if path.is_file():
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            kept = {line["user"]: line["found"] for line in lines}
        both.append((recommender, path, kept))
    found = np.zeros((len(order), 2, 2))
    for place, number in enumerate(sorted(order)):
        case = cases[number]
        user = str(case.history.user_id)
        for which, (recommender, path, kept) in enumerate(both):
            if user not in kept:
                answer, nats, _ = recommender.with_nats(case.history, 10, case.target)
                ids = [r.item_id for r in answer]
                rank = ids.index(case.target) + 1 if case.target in ids else 0
                kept[user] = [nats, 1 / float(np.log2(rank + 1)) if rank else 0.0]
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"user": user, "found": kept[user]}) + "\n")
            found[place, which] = kept[user]
    plain, told = found[:, 0], found[:, 1]
    print(f"ml-100k, {len(order)} users, {arguments.model} alone, commit {commit()}")
    print(f"nats: {bootstrap(plain[:, 0])}, with opinions {bootstrap(told[:, 0])}, ", end="")
    print(f"gain {bootstrap(plain[:, 0] - told[:, 0])}")
    print(f"NDCG@10: {bootstrap(plain[:, 1])}, with opinions {bootstrap(told[:, 1])}, ", end="")
    print(f"gain {bootstrap(told[:, 1] - plain[:, 1])}")


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
