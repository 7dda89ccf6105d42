"""Measure what the model's log-probability of the prior's best items adds to the lists.

    python -m benchmarks.accuracy.model_feature toys --data DIR --labels 3000 --users 2000
    python -m benchmarks.accuracy.model_feature demo --data DIR --run online_retail_demo --labels 0

The prior, with its learned ranking, names up to 100 candidates of each kind for a user, and the model
scores their titles. The exponents of both probabilities (see genrec.priors.model_feature) are fitted to
labels from validation, once with the best 30 candidates and once with 100, and the lists of test users
are compared by NDCG@10, paired by user. Without labels (``--labels 0``), which is right for a run that
has learned from validation, they are fitted crosswise: each half of the test users is measured with the
exponents of the other half. What only a fitted exponent of the prior changes is a row of its own.

Answers are kept as they come in ``--out``, one line of JSON for each user, and the same command
continues. ``--timed`` measures the processor time of scoring 30 and 100 candidates of each kind, in turn
with the fused list of the same settings, for so many users.

DIR is described in public_datasets.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.public_datasets import TASKS, Case, Task, interval
from benchmarks.common import ROOT, commit
from genrec.config import EXPLAIN, FUSE, Settings
from genrec.data import protocols
from genrec.priors.model_feature import Choice, Exponents, FirstStage, fit_exponents
from genrec.recommender import Recommender
from genrec.types import FloatArray

SIZES = (30, 100)
K = 10
Answer = dict[str, Any]


def load(task: Task, options: argparse.Namespace, role: str | None) -> Recommender:
    """Create a recommender whose prior counts train alone and has a learned ranking.

    Args:
        task: the task.
        options: the options of the command.
        role: the role of the model; None to leave out the prior.
    """
    settings: dict[str, Any] = {
        "threads": options.threads, "max_events": options.events, "exclude_seen": task.exclude_seen,
        "log": tell,
    }  # fmt: skip
    if role is None:
        settings["prior"] = "none"
    else:
        settings |= {"prior": "collaborative", "ranker": "lambdarank", "prior_events": "train"}
        settings["model_role"] = role
    if options.run:
        return Recommender.load(options.run, task.data, **settings)
    return Recommender(task.data, options.model, **settings)


def ask(
    prior: Any, model: Recommender, case: Case, exclude_seen: bool, size: int = max(SIZES)
) -> Answer:
    """Compute both log-probabilities of a user's candidates.

    Args:
        prior: the collaborative prior.
        model: a recommender without a prior.
        case: the user.
        exclude_seen: whether there are only new candidates.
        size: the maximum number of candidates of one kind.

    Returns:
        The catalog rows in the order of the prior, keyed by kind; the two logarithms, keyed by row;
        and the row of the target.
    """
    catalog = model.catalog
    stage = FirstStage.of(prior, case.history)
    kinds = prior.candidates(case.history, stage.values, size)
    if exclude_seen:
        kinds = {kind: rows for kind, rows in kinds.items() if kind == "new"}
    rows = [row for each in kinds.values() for row in each.tolist()]
    scored = model.score(case.history, [catalog[row].item_id for row in rows])
    logprobs = {r.item_id: r.logprob for r in scored if r.logprob is not None}
    return {
        "kinds": {kind: each.tolist() for kind, each in kinds.items()},
        "prior": {row: round(float(np.log(stage.values[row])), 5) for row in rows},
        "model": {row: round(logprobs[catalog[row].item_id], 5) for row in rows},
        "target": catalog.row(case.target),
    }


def choices(answers: Sequence[Answer], size: int) -> list[Choice]:
    """Return what each user chose among the best candidates of the target's kind."""
    found = []
    for answer in answers:
        for rows in answer["kinds"].values():
            some = rows[:size]
            if answer["target"] in some and len(some) > 1:
                prior, model = (
                    np.array([answer[name][str(row)] for row in some])
                    for name in ("prior", "model")
                )
                found.append(Choice(prior, model, some.index(answer["target"])))
    return found


def gain(answer: Answer, size: int, exponents: Exponents | None) -> float:
    """Compute NDCG@10 of a user's list, after reranking unless there are no exponents."""
    score: dict[int, float] = {int(row): value for row, value in answer["prior"].items()}
    for rows in answer["kinds"].values() if exponents else []:
        some = rows[:size]
        prior, model = (
            np.array([answer[name][str(row)] for row in some]) for name in ("prior", "model")
        )
        values = exponents.prior * prior + exponents.model * model  # type: ignore[union-attr]
        values += np.logaddexp.reduce(prior) - np.logaddexp.reduce(values)
        score |= dict(zip(some, values.tolist(), strict=True))
    if answer["target"] not in score:
        return 0.0
    rank = 1 + sum(value > score[answer["target"]] for value in score.values())
    return float(1 / np.log2(rank + 1)) if rank <= K else 0.0


def compare(labels: Sequence[Answer], users: Sequence[Answer]) -> None:
    """Print NDCG@10 of the prior and of each way to rerank, with paired differences."""
    half = np.random.default_rng(0).permutation(len(users)) % 2
    base = np.array([gain(u, 0, None) for u in users])
    print(f"prior with ranker, {len(users)} users: {interval(base)}")
    before: FloatArray = base
    for size in SIZES:
        for with_model in (False, True):
            values, fitted = np.zeros(len(users)), []
            for part in (0, 1):
                others = labels or [u for u, h in zip(users, half, strict=True) if h != part]
                exponents = fit_exponents(choices(others, size), with_model=with_model)
                fitted.append(f"{exponents.prior:.2f} {exponents.model:.2f}")
                for n in np.flatnonzero(half == part).tolist():
                    values[n] = gain(users[n], size, exponents)
            name = "and the model" if with_model else "exponent of the prior alone"
            print(
                f"{size} candidates, {name} ({'; '.join(dict.fromkeys(fitted))}): {interval(values)}, "
                f"less the prior {interval(values - base)}"
                + (f", less the row before {interval(values - before)}" if with_model else "")
            )
            before = values


def timed(task: Task, options: argparse.Namespace, cases: Sequence[Case]) -> None:
    """Print the processor time of the prior's list, the fused list, and scoring candidates, in turn.

    A list with the role ``feature`` takes as long as scoring its candidates and the prior's list.
    """
    counted, fused, model = (load(task, options, role) for role in (EXPLAIN, FUSE, None))
    prior = fused.prior
    calls: dict[str, Callable[[Case], object]] = {
        "the prior alone": lambda case: counted.recommend(case.history, K),
        "fused": lambda case: fused.recommend(case.history, K),
        **{
            f"scoring {size}": lambda case, size=size: ask(  # type: ignore[misc]
                prior, model, case, task.exclude_seen, size
            )
            for size in SIZES
        },
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for case in cases:
        for name, call in calls.items():
            began = time.process_time()
            call(case)
            seconds[name].append(time.process_time() - began)
    lists = np.array(seconds["fused"][1:])  # the first of each loads and caches
    for name, each in seconds.items():
        values = np.array(each[1:])
        print(
            f"{name}: median {np.median(values):.3f} s, {np.median(values / lists):.2f} of the fused list"
        )


def tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--run", help="the run whose adapter scores the titles")
    parser.add_argument("--labels", type=int, default=3000, help="validation users; 0: crosswise")
    parser.add_argument("--users", type=int, default=2000, help="test users")
    parser.add_argument("--events", type=int, default=Settings().max_events, help="in a prompt")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--timed", type=int, default=0, help="users whose lists are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "model_feature")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder, make = TASKS[options.set]
    task = make(options.data / folder)
    of = {"test": sampled(task.cases, options.users)}
    if options.labels:
        protocol = task.protocol or protocols.default_protocol(task.data)
        validation = [
            c for c in protocols.cases(task.data, protocol, "validation") if len(c.history)
        ]
        of["validation"] = sampled(validation, options.labels)
    if options.timed:
        timed(task, options, of["test"][: options.timed + 1])
        return
    name = Path(options.run).name if options.run else Path(options.model).name
    path = options.out / f"{options.set}-{name}-{options.events}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.open(encoding="utf-8")] if path.is_file() else []
    answers: dict[tuple[str, str], Answer] = {(a["part"], a["user"]): a for a in known}
    todo = [(part, case) for part, cases in of.items() for case in cases]
    order = np.random.default_rng(1).permutation(len(todo)).tolist()  # both parts grow together
    prior, model = load(task, options, FUSE).prior, load(task, options, None)
    began = time.monotonic()
    with path.open("a", encoding="utf-8") as out:
        for part, case in (todo[n] for n in order):
            if time.monotonic() - began > 60 * options.minutes:
                break
            if (part, case.user_id) not in answers:
                answer = json.dumps(
                    {
                        "part": part,
                        "user": case.user_id,
                        **ask(prior, model, case, task.exclude_seen),
                    }
                )
                out.write(answer + "\n")
                out.flush()
                answers[part, case.user_id] = json.loads(answer)
    print(f"commit {commit()}, {options.set}, {name}, {options.events} events")
    parts = {
        part: [answers[part, c.user_id] for c in cases if (part, c.user_id) in answers]
        for part, cases in of.items()
    }
    print(", ".join(f"{len(v)} users of {part}" for part, v in parts.items()))
    compare(parts.get("validation", []), parts["test"])


def sampled(cases: Sequence[Any], size: int) -> list[Any]:
    """Return a fixed random order of the cases, as many as wanted."""
    return [cases[n] for n in np.random.default_rng(0).permutation(len(cases))[:size].tolist()]


if __name__ == "__main__":
    main()
