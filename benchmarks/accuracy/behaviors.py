"""Measure how well the next behavior is predicted: by counting, by the model, and by both. Resumable.

    python -m benchmarks.accuracy.behaviors --data DIR
    python -m benchmarks.accuracy.behaviors --data DIR --model none

DIR (or $GENREC_DATA) contains the folder stackexchange_quantum of benchmarks.accuracy.public_datasets, whose users
ask, answer and comment on questions, and more: five behaviors. The target is the behavior of each user's last
event, of any behavior; everything before it is the history. Transitions, half-life and strengths are counted without
the last events. Users with only one event are left out.

Systems: the user's most frequent behavior and the last one (their accuracy; as probabilities, they get
the share of hits that they have on the events before, shrunk, and the rest follows the shares of all events), the shares
of all events, counting (``genrec.taste.behaviors``), the model's likelihood of each verb after the history, normalized, and
both: P proportional to counted^a model^c, with a and c fitted on one half of the users and measured on the other.
Accuracy, nats (-ln p) and paired differences to counting. The model's answers are kept in .results/behaviors.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.context import stackexchange
from benchmarks.common import ROOT, commit
from genrec import Dataset, History, Recommender
from genrec.evaluation.bootstrap import bootstrap
from genrec.taste.behaviors import BehaviorCounts, fuse
from genrec.types import FloatArray, IntArray

GRID = [0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0]


def without_last(data: Dataset) -> tuple[Dataset, list[tuple[History, int]]]:
    """Return the dataset without each user's last event, and the cases."""
    events = data.interactions
    c = events.columns
    cases = []
    last = np.zeros(len(events), dtype=np.bool_)
    for user in events.user_ids:
        where = events.events(user)
        if where.stop - where.start < 2:
            continue
        history = events.history(user)
        kept = history.with_events(history.interactions[:-1])
        cases.append((kept, int(c.behavior[where.stop - 1])))
        last[where.stop - 1] = True
    split = np.where(last, 2, 0)
    return replace(data, interactions=events.with_split(split)), cases


def constant(
    cases: Sequence[tuple[History, int]], names: Sequence[str], shares: FloatArray, which: str
) -> FloatArray:
    """Return the probabilities of a rule that names one behavior: the most frequent or the last one."""
    found = []
    for history, _ in cases:
        done = [e.behavior for e in history.interactions]
        hits, tries = 0.0, 0
        for n in range(1, len(done)):
            hits += done[n] == _named(done[:n], which)
            tries += 1
        sure = (hits + 5 * 0.5) / (tries + 5)
        one = names.index(_named(done, which))
        rest = shares.copy()
        rest[one] = 0.0
        chances = (1 - sure) * rest / rest.sum()
        chances[one] = sure
        found.append(chances)
    return np.array(found)


def _named(done: Sequence[str], which: str) -> str:
    if which == "last":
        return done[-1]
    counts = Counter(done)
    most = max(counts.values())
    return next(b for b in reversed(done) if counts[b] == most)


def crosswise(counted: FloatArray, model: FloatArray, targets: IntArray) -> FloatArray:
    """Return the fused probabilities, each half of the users with the weights fitted to the other."""
    places = np.arange(len(targets))
    fused = np.empty_like(counted)
    for half in (0, 1):
        fit = places[places % 2 != half]
        best, least = (1.0, 0.0), np.inf
        for a in (0.5, 0.7, 0.85, 1.0, 1.15):
            for c in GRID:
                chances = fuse(counted[fit], model[fit], a, c)
                nats = -np.log(chances[np.arange(len(fit)), targets[fit]]).mean()
                if nats < least - 1e-9:
                    best, least = (a, c), nats
        print(f"half {half}: fitted on the other: counted^{best[0]} model^{best[1]}")
        own = places[places % 2 == half]
        fused[own] = fuse(counted[own], model[own], *best)
    return fused


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--users", type=int, default=400, help="most users, a seeded sample")
    parser.add_argument("--model", default="smollm2-135m", help="none to leave the model out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "behaviors")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data, cases = without_last(stackexchange(arguments.data)[0])
    chosen = np.random.default_rng(0).permutation(len(cases))[: arguments.users]
    cases = [cases[n] for n in sorted(chosen.tolist())]
    counts = BehaviorCounts.count(data.interactions, "validation")
    names, targets = counts.behaviors, np.array([t for _, t in cases], dtype=np.int64)
    print(
        f"Stack Exchange, {len(cases)} users, commit {commit()}; half-life {counts.half_life:g}, own "
        f"{counts.own:g}, followed {counts.followed:g}; shares "
        f"{dict(zip(names, counts.shares.round(3).tolist(), strict=True))}\n"
    )
    systems = {
        "shares of all events": np.tile(counts.shares, (len(cases), 1)),
        "own most frequent": constant(cases, names, counts.shares, "frequent"),
        "own last": constant(cases, names, counts.shares, "last"),
        "counted": np.array([counts.probabilities(h) for h, _ in cases]),
    }
    if arguments.model != "none":
        logs = ask(arguments, data, cases, names)
        model = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
        systems["model's verbs"] = model
        systems["counted and model"] = crosswise(systems["counted"], model, targets)
    best = nats_of(systems["counted"], targets)
    right = (systems["counted"].argmax(axis=1) == targets).astype(float)
    print("| system | accuracy | counted less it | nats | it less counted |\n|---|---|---|---|---|")
    for name, chances in systems.items():
        hits = (chances.argmax(axis=1) == targets).astype(float)
        nats = nats_of(chances, targets)
        cells = [bootstrap(hits), bootstrap(right - hits), bootstrap(nats), bootstrap(nats - best)]
        print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)


def nats_of(chances: FloatArray, targets: IntArray) -> FloatArray:
    return np.asarray(-np.log(chances[np.arange(len(targets)), targets]))


def ask(
    arguments: argparse.Namespace,
    data: Dataset,
    cases: Sequence[tuple[History, int]],
    names: Sequence[str],
) -> FloatArray:
    """Return the model's log-likelihood of each verb after each history."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.model}.jsonl"
    kept = {}
    if path.is_file():
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        kept = {line["user"]: line["logs"] for line in lines}
    recommender = Recommender(
        data, arguments.model, prior="none", threads=arguments.threads, max_events=15
    )
    found = []
    for history, _ in cases:
        user = str(history.user_id)
        if user not in kept:
            kept[user] = recommender.verb_logprobs(history, names).tolist()
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"user": user, "logs": kept[user]}) + "\n")
        found.append(kept[user])
    return np.array(found)


if __name__ == "__main__":
    main()
