"""Compare zero-shot or few-shot with popularity on all users of demo-v1. Resumable.

    python -m benchmarks.accuracy.demo_v1 --threads 1
    python -m benchmarks.accuracy.demo_v1 --threads 1 --few-shot 4 --users 100 --split validation

The ranked lists are appended to .results/, one line for each user; run it again to continue.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

from benchmarks.common import ROOT, commit
from genrec import Recommender
from genrec.baselines.counting import Popular
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.data.events import History
from genrec.evaluation import evaluator

METRICS = ("hit_rate@5", "hit_rate@10", "ndcg@5", "ndcg@10", "recall@10")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--few-shot", type=int, default=0)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--users", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / ".results")
    arguments = parser.parse_args()
    measured = commit()  # before the run: the tree may change while it goes on
    data = load("online_retail_demo")
    cases = evaluator.sample(evaluator.demo_v1(data, arguments.split), arguments.users)
    model = Recommender(
        data,
        arguments.model,
        threads=arguments.threads,
        few_shot=arguments.few_shot,
        prior="none",
        log=print,
    )
    name = f"{arguments.few_shot}-shot"
    state = [
        model.model.fingerprint(),
        model.template.hash,
        model.encoder.hash,
        repr(model.settings),
        data.info.catalog_hash,
        arguments.split,
        str(arguments.k),
    ]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    started, ranked = time.monotonic(), 0

    def rank(history: History) -> list[str]:
        nonlocal ranked
        ranked += 1
        answer = [r.item_id for r in model.recommend(history, arguments.k, options=PROTOCOL)]
        if ranked % 20 == 0:
            print(f"{ranked} users, {(time.monotonic() - started) / ranked:.2f} s each", flush=True)
        return answer

    log = arguments.out / f"demo-v1-{arguments.split}-{name}-{key}.jsonl"
    ours = evaluator.run(name, rank, cases, log_path=log, key=key)
    before = "validation" if arguments.split == "validation" else "test"
    popular = Popular(data.interactions, data.info.target_behavior, before=before)
    theirs = evaluator.run(popular.name, lambda h: popular.rank(h, arguments.k), cases)
    print(f"\ndemo-v1, {arguments.split}, {len(cases)} users, {model.model.describe()}")
    print(f"commit {measured}")
    for metric in METRICS:
        print(
            f"{metric:12} {ours.name} {ours.mean(metric)}  {theirs.name} {theirs.mean(metric)}  "
            f"difference {ours.minus(theirs, metric)}"
        )
    short = sum(len(r) != arguments.k or len(set(r)) != arguments.k for r in ours.ranked)
    print(f"invalid or short lists: {short}")


if __name__ == "__main__":
    main()
