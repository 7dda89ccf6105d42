"""Measure what ``recommend_many`` saves: one batch of users beside a loop of single lists.

    python -m benchmarks.speed.batches --users 16 --recent 8 0

Times are processor time of one thread, for lists of the model from prompts of about the given number of tokens, with all
lines in the store ("warm"), or with full attention. Each round times the loop and the batch in turn, with other users.
The lists of both are compared. With ``--run``, the shipped run ranks with its prior; otherwise the model alone.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.common import commit
from genrec import History, Recommender
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.evaluation import evaluator
from genrec.models.lazy_model import lazy_model, lazy_run

DATA = "online_retail_demo"
_PER_EVENT, _AROUND = 8.9, 14  # tokens of an event, and of the text around the events


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256])
    parser.add_argument("--recent", type=int, nargs="+", default=[8, 0], help="-1: full attention")
    parser.add_argument("--run", action="store_true", help="the shipped run with its prior")
    parser.add_argument("-k", type=int, default=20)
    arguments = parser.parse_args()
    data = load(DATA)
    options: dict[str, Any] = {"log": print, "threads": 1}
    settings: dict[str, Any] = {"max_events": 1000, "max_prompt_tokens": 4000}
    if arguments.run:
        model = lazy_run(DATA, None, **options)
        full = Recommender.load(DATA, data, model=model, **settings)
    else:
        full = Recommender(data, lazy_model("smollm2-135m", **options), prior="none", **settings)
    print(f"{full.model.name}, commit {commit()}")
    cases = sorted(evaluator.demo_v1(data, "validation"), key=lambda c: -len(c.history))
    events = [e for c in cases for e in c.history.interactions]
    for tokens in arguments.tokens:
        rng = np.random.default_rng(0)
        n, first = (tokens - _AROUND) / _PER_EVENT, 0
        rounds: list[list[History]] = []
        for _ in range(arguments.rounds):
            rounds.append([])
            for user in range(arguments.users):  # prompts differ in length by up to a third
                size = max(int(n * rng.uniform(0.85, 1.15)), 1)
                rounds[-1].append(History(tuple(events[first : first + size]), f"u{user}"))
                first += size
        for recent in arguments.recent:
            ours = full
            if recent >= 0:
                ours = full.with_settings(attention="by_event", recent_events=recent)
            compare(ours, rounds, arguments.k, tokens, recent)


def compare(
    ours: Recommender, rounds: list[list[History]], k: int, tokens: int, recent: int
) -> None:
    """Time the loop and the batch in each round, and print medians and their ratio."""
    loops, batches, same = [], [], 0
    for histories in rounds:
        ours.recommend_many(histories, k, options=PROTOCOL, batch_size=4)  # fills the store
        started = time.process_time()
        alone = [ours.recommend(h, k, options=PROTOCOL) for h in histories]
        loops.append((time.process_time() - started) / len(histories))
        started = time.process_time()
        many = ours.recommend_many(histories, k, options=PROTOCOL, batch_size=len(histories))
        batches.append((time.process_time() - started) / len(histories))
        same += sum(
            [r.item_id for r in a] == [r.item_id for r in b]
            for a, b in zip(alone, many, strict=True)
        )
    ratio = np.array(loops) / np.array(batches)
    name = "full attention" if recent < 0 else f"by event, {recent} in full, warm"
    print(
        f"{tokens} tokens, {name}, {len(rounds[0])} users, K={k}: a list of the loop {np.median(loops):.3f} s, "
        f"of the batch {np.median(batches):.3f} s, ratio {np.median(ratio):.2f} "
        f"({ratio.min():.2f} to {ratio.max():.2f}); {same} of {len(rounds) * len(rounds[0])} lists are the same",
        flush=True,
    )


if __name__ == "__main__":
    main()
