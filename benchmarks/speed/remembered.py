"""Measure what ``prompt_memory`` saves when a user comes back with one more event.

    python -m benchmarks.speed.remembered --users 20 --tokens 256 1000

Times are processor time of one thread, for lists of the model alone with full attention. For each user in turn: the
list after all events but the last, the list after all events with the prompt kept, and the same without. The lists of
the last two are compared. The events of several users are joined until the prompt has nearly the number of tokens
that is asked for; none of it is cut.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from benchmarks.common import commit
from genrec import LanguageModel, Recommender
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.data.events import History, Interaction
from genrec.evaluation import evaluator
from genrec.pipeline.types import RecommendationList


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("-k", type=int, default=20)
    arguments = parser.parse_args()
    data = load("online_retail_demo")
    model = LanguageModel.load(arguments.model, threads=1, dtype=arguments.dtype, log=print)
    print(f"{model.describe()}, commit {commit()}")
    cases = evaluator.demo_v1(data, "validation")
    for most in arguments.tokens:
        settings: dict[str, Any] = {"prior": "none", "max_events": 1000, "max_prompt_tokens": 4000}
        plain = Recommender(data, model, **settings)
        kept = plain.with_settings(prompt_memory=4096)
        histories = list(islice(joined([c.history for c in cases], plain, most), arguments.users))
        sizes = [plain.prompt(h).n_tokens for h in histories]
        seconds: dict[str, list[float]] = {"first": [], "one event more": [], "read again": []}
        prompts: list[float] = []
        same, read = [], []

        def run(name: str, recommender: Recommender, history: History) -> RecommendationList:
            started = time.process_time()
            answer = recommender.recommend(history, arguments.k, options=PROTOCOL)
            seconds[name].append(time.process_time() - started)  # noqa: B023
            return answer

        for warming in (True, False):
            for past in histories[:1] if warming else histories:
                model.memory.clear()
                run("first", kept, replace(past, interactions=past.interactions[:-1]))
                ours = run("one event more", kept, past)
                theirs = run("read again", plain, past)
                started = time.process_time()
                len(plain.token_tree(plain.prompt(past)).root)  # reads the prompt
                prompts.append(time.process_time() - started)
                same.append([r.item_id for r in ours] == [r.item_id for r in theirs])
                read.append(ours.details["attention"]["read"])
            if warming:
                measured: list[list[Any]] = [prompts, same, read, *seconds.values()]
                for values in measured:
                    values.clear()
        use = model.memory.use()
        base = np.array(seconds["read again"])
        print(
            f"at most {most} tokens: {len(sizes)} users, median {np.median(sizes):.0f} tokens, of which "
            f"{np.median(read):.0f} are read; {sum(same)} lists are the same; a prompt of {sizes[-1]} "
            f"tokens takes {use.bytes / use.prompts / 2**20:.1f} MiB"
        )
        for name, values in {**seconds, "the prompt alone": prompts}.items():
            own = np.array(values)
            low, high = np.quantile(own, [0.25, 0.75])
            print(
                f"{name:18} median {np.median(own):.3f} s [{low:.3f}, {high:.3f}], of the list "
                f"{np.median(own / base):.2f}"
            )


def joined(histories: Sequence[History], recommender: Recommender, most: int) -> Iterator[History]:
    """Join the events of several users until a prompt has nearly as many tokens as it may have."""
    past: tuple[Interaction, ...] = ()
    for history in histories:
        for event in history.interactions:
            past = (*past, event)
            size = recommender.prompt(History(past, "joined")).n_tokens
            if size > 0.9 * most:
                if size <= most:
                    yield History(past, f"joined {history.user_id}")
                past = ()


if __name__ == "__main__":
    main()
