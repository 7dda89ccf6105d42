"""Measure ``attention="by_event"``: the time of a list, and what it costs in nats.

    python -m benchmarks.speed.by_event --users 20 --nats-users 60
    python -m benchmarks.speed.by_event --table --threads 1 --peer

Times are processor time of one thread, for lists of the model alone from prompts of at most 256 tokens, by users with
long histories. For each user in turn: full attention, by event with an empty store, by event again with all lines in
the store. The nats of a target are minus the log of its probability among all items, on validation. Differences are paired.

With ``--table``, prompts of 64, 256 and 1,000 tokens and lists of 10 and 20 items are measured on the same histories in turn:
full attention, a returning user's prompt with one more event (``prompt_memory``), by event with none and with 8 events in
full, cold and warm, and with ``--peer`` transformers' ``generate`` with as many beams and a prefix function. *After* is the
list less a pass over the prompt alone. Each has a row; ratios are medians of the ratios by history.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.common import commit
from benchmarks.speed.peer import generate
from genrec import Dataset, History, LanguageModel, Recommender
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.data.protocols import Case
from genrec.evaluation import bootstrap, evaluator

_PER_EVENT, _AROUND = 8.9, 14  # tokens of an event, and of the text around the events


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--nats-users", type=int, default=60)
    parser.add_argument("--recent", type=int, nargs="+", default=[0, 4, 8])
    parser.add_argument("--timed", type=int, default=8, help="recent events of the timed lists")
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--peer", action="store_true", help="also time generate, which takes long")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1000])
    parser.add_argument("--lists", type=int, nargs="+", default=[10, 20])
    arguments = parser.parse_args()
    data = load("online_retail_demo")
    model = LanguageModel.load(arguments.model, threads=arguments.threads, log=print)
    print(f"{model.describe()}, commit {commit()}")
    cases = evaluator.demo_v1(data, "validation")
    if arguments.table:
        for tokens in arguments.sizes:
            print_table(data, model, cases, tokens, arguments)
        return
    if arguments.users:
        time_lists(data, model, cases, arguments)
    if arguments.nats_users:
        some = evaluator.sample(cases, arguments.nats_users, seed=1)
        compare_nats(data, model, some, arguments.recent)


def time_lists(
    data: Dataset, model: LanguageModel, cases: Sequence[Case], arguments: argparse.Namespace
) -> None:
    """Time lists of users with long histories, alternating between the ways to read."""
    settings: dict[str, Any] = {
        "prior": "none",
        "max_events": 100,
        "max_prompt_tokens": arguments.tokens,
    }
    full = Recommender(data, model, **settings)
    ours = full.with_settings(attention="by_event", recent_events=arguments.timed)
    long = sorted(cases, key=lambda c: (-len(c.history), c.history.user_id))[: 5 * arguments.users]
    chosen = [long[i] for i in np.random.default_rng(0).permutation(len(long))[: arguments.users]]
    full.recommend(chosen[0].history, arguments.k, options=PROTOCOL)  # builds the trie
    ours.recommend(chosen[0].history, arguments.k, options=PROTOCOL)
    seconds: dict[str, list[float]] = defaultdict(list)
    tokens, same, read = [], [], []

    def run(name: str, recommender: Recommender, history: History) -> list[str]:
        started = time.process_time()
        answer = recommender.recommend(history, arguments.k, options=PROTOCOL)
        seconds[name].append(time.process_time() - started)
        if name.endswith("cold"):
            model.lines.clear()
        started = time.process_time()
        len(recommender.token_tree(recommender.prompt(history)).root)  # reads the prompt
        seconds[f"{name}, prompt only"].append(time.process_time() - started)
        return [r.item_id for r in answer[:10]]

    for case in chosen:
        full_list = run("full", full, case.history)
        model.lines.clear()
        run("by event, cold", ours, case.history)
        our_list = run("by event, warm", ours, case.history)
        same.append(len(set(full_list) & set(our_list)))
        prompt = ours.prompt(case.history)
        tokens.append(prompt.n_tokens)
        read.append(prompt.n_tokens - prompt.by_event(arguments.timed).gathered)
    use = model.lines.use()
    print(
        f"{len(chosen)} users, K={arguments.k}, {arguments.timed} events in full, "
        f"{statistics.median(tokens)} tokens, of which {statistics.median(read)} are read if warm; "
        f"{np.mean(same):.1f} of the first 10 items are the same; a line has "
        f"{use.bytes / use.lines / 1024:.0f} KB"
    )
    base = np.array(seconds["full"])
    for name, values in seconds.items():
        own = np.array(values)
        ratio = np.median(own / base)
        low, high = np.quantile(own, [0.25, 0.75])
        print(
            f"{name:28} median {np.median(own):.3f} s [{low:.3f}, {high:.3f}], of full {ratio:.2f}"
        )


def print_table(
    data: Dataset,
    model: LanguageModel,
    cases: Sequence[Case],
    tokens: int,
    arguments: argparse.Namespace,
) -> None:
    """Time all ways to make a list for prompts of about the given number of tokens."""
    settings: dict[str, Any] = {"prior": "none", "max_events": 1000, "max_prompt_tokens": 4000}
    full = Recommender(data, model, **settings)
    kinds = {f"by event, {n} in full": n for n in (0, 8)}
    others = {
        name: full.with_settings(attention="by_event", recent_events=n) for name, n in kinds.items()
    }
    kept = full.with_settings(prompt_memory=4096)
    events = [
        e for c in sorted(cases, key=lambda c: -len(c.history)) for e in c.history.interactions
    ]
    n = max(round((tokens - _AROUND) / _PER_EVENT), 2)
    histories = [
        History(tuple(events[i * n : (i + 1) * n]), f"u{i}") for i in range(arguments.users)
    ]
    sequences = list(full.encoder.titles(full.catalog))
    for k in arguments.lists:
        seconds: dict[str, list[float]] = defaultdict(list)
        after: dict[str, list[float]] = defaultdict(list)
        read: dict[str, list[int]] = defaultdict(list)

        def run(name: str, recommender: Recommender, history: History) -> list[str]:
            started = time.process_time()
            answer = recommender.recommend(history, k, options=PROTOCOL)  # noqa: B023
            taken = time.process_time() - started
            seconds[name].append(taken)  # noqa: B023
            read[name].append(answer.details["certificate"]["tokens"])  # noqa: B023
            return [r.item_id for r in answer]

        def prompt_alone(name: str, recommender: Recommender, history: History) -> None:
            started = time.process_time()
            len(recommender.token_tree(recommender.prompt(history)).root)
            after[name].append(seconds[name][-1] - (time.process_time() - started))  # noqa: B023

        same = 0
        for history in [histories[0], *histories]:  # the first one only warms up
            theirs = run("full", full, history)
            prompt_alone("full", full, history)
            model.memory.clear()
            kept.recommend(
                replace(history, interactions=history.interactions[:-1]), k, options=PROTOCOL
            )
            same += run("full, one event more", kept, history) == theirs
            for name, recommender in others.items():
                model.lines.clear()
                run(f"{name}, cold", recommender, history)
                run(f"{name}, warm", recommender, history)
                prompt_alone(f"{name}, warm", recommender, history)
            if arguments.peer:
                started = time.process_time()
                generate(model.model, full.prompt(history).ids, sequences, k, renormalize=True)
                seconds["generate"].append(time.process_time() - started)
        sizes = [full.prompt(h).n_tokens for h in histories]
        print(
            f"{np.median(sizes):.0f} tokens, K={k}, {arguments.threads} thread(s), {len(histories)} histories; "
            f"of {len(histories) + 1} lists with one event more, {same} are those of a new reading"
        )
        base = np.array(seconds["full"][1:])
        for name, values in seconds.items():
            own = np.array(values[1:])
            print(
                f"| {name} | {np.median(own):.3f} | {np.median(own / base):.2f} | "
                + (f"{np.median(after[name][1:]):.3f}" if name in after else "-")
                + (f" | {np.mean(read[name][1:]):.0f} |" if name in read else " | - |"),
                flush=True,
            )


def compare_nats(
    data: Dataset, model: LanguageModel, cases: Sequence[Case], recents: Sequence[int]
) -> None:
    """Compare the nats of targets with those of full attention, for the model alone."""
    full = Recommender(data, model, prior="none")
    found = {None: full} | {
        n: full.with_settings(attention="by_event", recent_events=n) for n in recents
    }
    base = None
    for recent, recommender in found.items():
        nats = np.array([-recommender.score(c.history, [c.target])[0].score for c in cases])
        base = nats if base is None else base
        name = "full" if recent is None else f"by event, {recent} in full"
        difference = bootstrap.bootstrap(nats - base)
        print(f"{name:24} {bootstrap.bootstrap(nats)}  difference {difference}", flush=True)


if __name__ == "__main__":
    main()
