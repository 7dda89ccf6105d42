"""Measure baselines, prior and model on one public data set, by its published protocol. Resumable.

    python -m benchmarks.accuracy.public_datasets beauty --data DIR --threads 1
    python -m benchmarks.accuracy.public_datasets lastfm --data DIR --systems popular,markov,sasrec --fit train
    python -m benchmarks.accuracy.public_datasets beauty --data DIR --systems zero-shot,few-shot --users 500
    python -m benchmarks.accuracy.public_datasets demo --systems prior
    python -m benchmarks.accuracy.public_datasets toys --data DIR --systems prior,ranker --fit train
    python -m benchmarks.accuracy.public_datasets toys --data DIR --systems ranker --fit train --network titlesasrec
    python -m benchmarks.accuracy.public_datasets lastfm --data DIR --systems zero-shot-prior --users 500
    python -m benchmarks.accuracy.public_datasets lastfm --data DIR --systems sasrec,prior --with sasrec
    python -m benchmarks.accuracy.public_datasets demo --systems tuned,tuned-prior --run RUN --fit train
    python -m benchmarks.accuracy.public_datasets demo --systems prior,ranker --fit train --slices

DIR (or $GENREC_DATA) contains the folders s3_beauty, s3_toys, msl_amazon_books, llara_lastfm,
online_retail, stackexchange_quantum and ml-100k (the atomic files of RecBole, which its wheel has);
demo is embedded in the package. Fits, their checkpoints and the ranks of every user are kept in
.results/accuracy; run it again to continue.

The weights of a prior beside a model are fitted on 200 validation users if there are any, as `genrec tune`
does, with a prior that counts train. They are kept in the same folder.

--slices also breaks the results down by groups of users, from the ranks that are kept.

Scoring is by item id. All items compete, except for lastfm, where the 20 candidates are the target and 19
other items, drawn once with a seed.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import hashlib
import json
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.accuracy import slices
from benchmarks.common import ROOT, commit
from genrec import Dataset, Recommender, runs
from genrec.baselines import registry
from genrec.baselines.base import Scorer
from genrec.config import NETWORKS, to_before, to_parts
from genrec.data import protocols
from genrec.data.dataset import TUNED
from genrec.data.datasets import load, recbole
from genrec.data.events import History, Interaction
from genrec.data.slices import days_since
from genrec.errors import RequestError
from genrec.evaluation import bootstrap, metrics, tuning
from genrec.priors.collaborative import COUNTED, LEARNED, CollaborativePrior
from genrec.priors.rank_features import FEATURES
from genrec.priors.tuned import Tuned

K = 20
PRIOR = "prior"  # the collaborative prior alone
RANKER = "ranker"  # the same with a learned ranking of its best items
WRITERS = ("zero-shot", "zero-shot-prior", "few-shot", "tuned", "tuned-prior")  # alone or fused
SHOTS = 2  # demonstrations of few-shot
AT = 10  # places of a list that a model writes
WRITING = 2  # version of how a model is asked: 2 has the whole history, ten places and nats
CANDIDATES = 20
DAY = 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Case:
    """One user to recommend to: what the system may see, and what came next.

    Attributes:
        user_id: the user.
        history: what the system may see.
        target: the item that came next.
        basket: all items of the unit that came next, with the target first.
        days: days from the last event of the history to the target, for slices only; None for an
            empty history, NaN if the times are unknown.
    """

    user_id: str
    history: History
    target: str
    basket: tuple[str, ...]
    days: float | None = math.nan


@dataclass(frozen=True)
class Task:
    """A data set with its protocol.

    Attributes:
        data: what is fitted on; its split says which events may be seen.
        cases: whom to rank for.
        exclude_seen: whether items of the history are left out.
        fits: ``train`` (as published rows are fitted) and, where there is one, ``both`` (train and
            validation).
        published: rows of others, copied from their papers or repositories.
        candidates: (cases, 20) rows; None where all items compete.
        protocol: whose validation users the weights beside a model are fitted on; None for that of
            the data's split.
    """

    data: Dataset
    cases: list[Case]
    exclude_seen: bool
    fits: Sequence[str] = ("train", "both")
    published: Sequence[str] = ()
    candidates: Sequence[list[int]] | None = None
    protocol: str | None = None

    @property
    def metrics(self) -> Sequence[str]:
        if self.candidates is not None:
            return ("hit_rate@1",)
        return ("hit_rate@5", "hit_rate@10", "ndcg@5", "ndcg@10")


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tables(folder: Path, columns: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """Read items and events of a folder; an item without a title takes its id as the title."""
    items = rows(folder / "items.csv.gz")
    events = rows(folder / "interactions.csv.gz")
    titles = [r["title"] or f"untitled {r['item_id']}" for r in items]
    found = pa.table({"item_id": [r["item_id"] for r in items], "title": titles})
    return found, pa.table({c: [r[c] for r in events] for c in columns})


def whole_histories(cases: Sequence[protocols.Case]) -> list[Case]:
    days = days_since(cases)
    return [
        Case(c.user_id, c.history, c.target, c.basket, d) for c, d in zip(cases, days, strict=True)
    ]


def sample(cases: Sequence[Case], users: int | None) -> list[Case]:
    """Return a fixed seeded sample of users in the order of the cases; all for None."""
    if users is None or users >= len(cases):
        return list(cases)
    chosen = np.random.default_rng(0).permutation(len(cases))[:users]
    return [cases[i] for i in sorted(chosen.tolist())]


def whole(data: Dataset) -> list[Case]:
    """Make a case of every user with a test event; the history includes validation."""
    c, ids = data.interactions.columns, [i.item_id for i in data.catalog]
    cases = []
    for user in data.interactions.user_ids:
        where = data.interactions.events(user)
        test = where.start + np.flatnonzero(c.split[where] == 2)
        if not len(test):
            continue
        past = tuple(
            Interaction(
                ids[c.row[i]], data.interactions.behaviors[c.behavior[i]], float(c.timestamp[i])
            )
            for i in range(where.start, int(test[0]))
        )
        target = ids[c.row[int(test[0])]]
        gap = float(c.timestamp[test[0]] - c.timestamp[test[0] - 1]) / DAY if past else None
        gap = math.nan if data.info.time_unit == "position" else gap
        cases.append(Case(user, History(past, user), target, (target,), gap))
    return cases


def amazon(folder: Path, published: Sequence[str], *, timed: bool = False) -> Task:
    """Make the Amazon task: leave-last-out in the order of ``position``, seen items left out.

    Args:
        folder: the folder of the data set.
        published: see ``Task``.
        timed: whether systems may read the days of the events, beside their order. A missing day is
            that of the user's event before, or else of the one after.
    """
    items, events = tables(folder, ["user_id", "item_id", "position", "behavior"])
    raw = rows(folder / "interactions.csv.gz")
    if timed:
        events = events.drop_columns(["position"]).append_column("timestamp", pa.array(days(raw)))
    data = Dataset.from_tables(items, events, name=folder.name)
    gaps = days_to_last(raw)
    cases = [replace(case, days=gaps[case.user_id]) for case in whole(data)]
    return Task(data, cases, True, published=published)


def days_to_last(events: Sequence[dict[str, str]]) -> dict[str, float]:
    """Return the days between the last two events of each user; NaN if a time is missing.

    Args:
        events: the events in the order of users and positions. Each user has two or more.
    """
    when = [float(e["timestamp"] or "nan") for e in events]
    last = {e["user_id"]: place for place, e in enumerate(events)}
    return {user: (when[place] - when[place - 1]) / DAY for user, place in last.items()}


def times(events: Sequence[dict[str, str]], windows: Sequence[dict[str, str]]) -> list[float]:
    """Infer each event's time from windows that state the time of their last event.

    An event between two such is as late as the next, one after them as the last, and one of a user
    without any is as early as all; none of test is earlier than the first that is known.
    """
    of, places = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for place, event in enumerate(events):
        of[event["user_id"]].append(int(event["item_id"]))
        places[event["user_id"]].append(place)
    known: dict[int, float] = {}
    for window in windows:
        seen, user = ast.literal_eval(window["item_ids"]), window["user_id"]
        n = len(seen)
        for last in range(n - 1, len(of[user])):
            if of[user][last - n + 1 : last + 1] == seen:
                known[places[user][last]] = float(window["timestamp"])
    first = min(known.values())
    test = min(t for place, t in known.items() if events[place]["split"] == "test")
    found = [first] * len(events)
    for each in places.values():
        when = max((known[p] for p in each if p in known), default=first)
        for place in reversed(each):
            when = known.get(place, when)
            found[place] = max(when, test) if events[place]["split"] == "test" else when
    return found


def days(events: Sequence[dict[str, str]]) -> list[float]:
    """Return the time of each event, in the order of users and positions; fill in missing ones."""
    known = [float(e["timestamp"]) for e in events if e["timestamp"]]
    found: list[float] = []
    before = {"user_id": ""}
    for event in events:
        same = event["user_id"] == before["user_id"]
        found.append(float(event["timestamp"] or (found[-1] if same else np.nan)))
        before = event
    for place in range(len(found) - 2, -1, -1):
        if np.isnan(found[place]) and events[place]["user_id"] == events[place + 1]["user_id"]:
            found[place] = found[place + 1]
    return [float(np.median(known)) if np.isnan(t) else t for t in found]


def books(folder: Path) -> Task:
    """Make the task of MSL's windows: the last id is the target; seen items may come back."""
    items, events = tables(folder, ["user_id", "item_id", "behavior", "split"])
    windows = [*rows(folder / "train.csv.gz"), *rows(folder / "test.csv.gz")]
    when = times(events.to_pylist(), windows)
    data = Dataset.from_tables(
        items, events.append_column("timestamp", pa.array(when)), name=folder.name
    )
    cases = []
    for number, row in enumerate(rows(folder / "test.csv.gz")):
        *past, target = map(str, ast.literal_eval(row["item_ids"]))
        if target in data.catalog:
            known = tuple(Interaction(i, "rate") for i in past if i in data.catalog)
            user = f"{row['user_id']}-{number}"
            cases.append(Case(user, History(known, user), target, (target,)))
    return Task(data, cases, False, fits=("train",))


def lastfm(folder: Path) -> Task:
    """Make the task of LLaRA's rows with at least 3 items: 20 candidates, HitRatio@1."""
    items, events = tables(folder, ["user_id", "item_id", "timestamp", "behavior", "split"])
    data = Dataset.from_tables(items, events, name=folder.name)
    rng = np.random.default_rng(0)
    cases, candidates = [], []
    for number, row in enumerate(rows(folder / "test.csv.gz")):
        past = [i for i in row["seq"].split() if i in data.catalog]
        if int(row["len_seq"]) < 3 or row["next"] not in data.catalog:
            continue
        history = History(tuple(Interaction(i, "listen") for i in past), f"te{number}")
        cases.append(Case(f"te{number}", history, row["next"], (row["next"],)))
        target, seen = data.catalog.row(row["next"]), set(data.catalog.rows(past))
        others = [
            r for r in rng.permutation(len(data.catalog)).tolist() if r not in {target, *seen}
        ]
        candidates.append(rng.permutation([target, *others[: CANDIDATES - 1]]).tolist())
    published = ["LLaRA (p): HR@1 .5246"]
    return Task(data, cases, False, ("train", "both"), published, candidates)


def retail(folder: Path) -> Task:
    """Make the retail task: the first item of the last invoice; seen items may come back."""
    columns = ["user_id", "item_id", "timestamp", "behavior", "value", "invoice"]
    items, events = tables(folder, columns)
    data = Dataset.from_tables(items, events, name=folder.name)
    cases = whole_histories(protocols.last_out(data))
    return Task(data, cases, data.info.exclude_seen, protocol="last-out")


def stackexchange(folder: Path) -> Task:
    """Make the Stack Exchange task: the last event of the most frequent behavior is the target."""
    items, events = tables(folder, ["user_id", "item_id", "timestamp", "behavior"])
    data = Dataset.from_tables(items, events, name=folder.name)
    cases = whole_histories(protocols.last_out(data))
    return Task(data, cases, data.info.exclude_seen, protocol="last-out")


def movielens(folder: Path) -> Task:
    """Make the MovieLens task: leave-last-out by time, seen items left out."""
    data = recbole(folder, "ml-100k")
    return Task(data, whole(data), True)


def demo(folder: Path) -> Task:
    """Make the task of protocol demo-v1; see genrec.data.protocols."""
    del folder
    data = load("online_retail_demo")
    return Task(data, whole_histories(protocols.demo_v1(data)), False, protocol="demo-v1")


BEAUTY = [
    "SASRec (p, phonism/genrec): R@5 .0469, R@10 .0688, N@5 .0305, N@10 .0375",
    "HSTU (p, phonism/genrec): R@5 .0486, R@10 .0708, N@5 .0340, N@10 .0412",
    "TIGER (p, paper): R@5 .0454, R@10 .0648, N@5 .0321, N@10 .0384",
    "LC-Rec (p, phonism/genrec): R@5 .0525, R@10 .0791, N@5 .0352, N@10 .0438",
    "RPG, RecBole SASRec-CE, GRLM, OpenOneRec (p): R@10 .0809, .0821, .0846, .0924",
    "FADE-0.6B (p): R@10 .1088, N@10 .0616",
]
TOYS = [
    "SASRec (p, phonism/genrec): R@5 .0483, R@10 .0700, N@5 .0304, N@10 .0374",
    "HSTU (p, phonism/genrec): R@5 .0504, R@10 .0685, N@5 .0368, N@10 .0427",
    "TIGER (p, paper): R@5 .0521, R@10 .0712, N@5 .0371, N@10 .0432",
    "LC-Rec (p, phonism/genrec): R@5 .0444, R@10 .0683, N@5 .0294, N@10 .0371",
    "RPG, GRLM, OpenOneRec (p): R@10 .0869, .0942, .0953",
    "FADE-0.6B (p): R@10 .1273, N@10 .0722",
]
TASKS: dict[str, tuple[str, Callable[[Path], Task]]] = {
    "beauty": ("s3_beauty", lambda folder: amazon(folder, BEAUTY)),
    "toys": ("s3_toys", lambda folder: amazon(folder, TOYS)),
    "beauty-times": ("s3_beauty", lambda folder: amazon(folder, BEAUTY, timed=True)),
    "toys-times": ("s3_toys", lambda folder: amazon(folder, TOYS, timed=True)),
    "books": ("msl_amazon_books", books),
    "lastfm": ("llara_lastfm", lastfm),
    "retail": ("online_retail", retail),
    "stackexchange": ("stackexchange_quantum", stackexchange),
    "ml-100k": ("ml-100k", movielens),
    "demo": ("", demo),
}


def chosen(task: Task, users: int | None) -> Task:
    """Restrict a task to a fixed seeded sample of users."""
    cases = sample(task.cases, users)
    candidates = None
    if task.candidates is not None:
        of = {c.user_id: r for c, r in zip(task.cases, task.candidates, strict=True)}
        candidates = [of[c.user_id] for c in cases]
    return replace(task, cases=cases, candidates=candidates)


def ranks_of(task: Task, scorer: Scorer) -> list[int]:
    """Return each target's rank from 1, (cases,), or 0 if it is not among the first 20."""
    histories = [c.history for c in task.cases]
    if task.candidates is None:
        lists = scorer.rank_many(histories, K, exclude_seen=task.exclude_seen)
        return [metrics.rank_of(c.target, r) for c, r in zip(task.cases, lists, strict=True)]
    ranks = []
    for first in range(0, len(histories), 256):
        scores = scorer.scores_many(histories[first : first + 256])
        some = slice(first, first + 256)
        for case, values, among in zip(
            task.cases[some], scores, task.candidates[some], strict=True
        ):
            order = np.argsort(-values[among], kind="stable")  # ties by the shuffled candidates
            ranks.append(1 + [among[i] for i in order].index(task.data.catalog.row(case.target)))
    return ranks


def ranks_by(task: Task, prior: CollaborativePrior) -> list[int]:
    """Return ``ranks_of`` the collaborative prior alone."""
    if task.candidates is None:
        lists = [prior.rank(c.history, K, exclude_seen=task.exclude_seen) for c in task.cases]
        return [metrics.rank_of(c.target, r) for c, r in zip(task.cases, lists, strict=True)]
    ranks = []
    for case, among in zip(task.cases, task.candidates, strict=True):
        order = np.argsort(-prior.logprobs(case.history)[among], kind="stable")
        ranks.append(1 + [among[i] for i in order].index(task.data.catalog.row(case.target)))
    return ranks


def written(
    recommender: Recommender, task: Task, done: Container[str]
) -> Iterator[tuple[str, int, float | None, float]]:
    """(user, rank, nats of the target, seconds of the list) of each case that is not done.

    No nats where prior and model are fused by score, which is no distribution.
    """
    ranks = recommender.prior is None or recommender.fusing.fusion == "node"
    for number, case in enumerate(task.cases):
        if case.user_id in done:
            continue
        if task.candidates is None:
            answer, nats, seconds = recommender.with_nats(case.history, AT, case.target)
            found = [r.item_id for r in answer]
        else:
            ids = [task.data.catalog[r].item_id for r in task.candidates[number]]
            began = time.monotonic()
            scores = recommender.score(case.history, ids)
            seconds = time.monotonic() - began
            found = [s.item_id for s in scores]
            logprob = scores[found.index(case.target)].logprob
            assert logprob is not None
            nats = -logprob
        yield case.user_id, metrics.rank_of(case.target, found), nats if ranks else None, seconds


def writer(name: str, system: str, fit: str, task: Task, arguments: Any) -> Recommender:
    """Load a language model, untrained or of a run, with a prior weighed on validation."""
    fused = system.endswith("-prior")
    options: dict[str, Any] = {"threads": arguments.threads, "exclude_seen": task.exclude_seen}
    options |= {
        "prior": "collaborative" if fused else "none",
        "prior_events": to_parts(to_before(fit)),
    }
    if fused and arguments.mixed:
        options["prior_sources"] = ",".join([*COUNTED, *arguments.mixed])
    if system == "few-shot":
        options["few_shot"] = SHOTS
    if system.startswith("tuned"):
        found = Recommender.load(arguments.run, task.data, log=print, **options)
    else:
        found = Recommender(task.data, arguments.model, log=print, **options)
    if not fused:
        return found
    key = hashlib.sha256(f"{adapter_of(system, arguments)}".encode()).hexdigest()[:16]
    path = arguments.out / "fits" / name / f"{key}-{TUNED}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if Tuned.load(path, found.tuning_key()) is None:
        try:
            tuning.tune(found, protocol=task.protocol).save(path)
        except RequestError as error:  # nobody in validation
            print(f"  default weights: {error}", flush=True)
            return found
    weighed = found.with_settings(tuned=str(path))
    print(f"  {Tuned.load(path, found.tuning_key())}", flush=True)
    return weighed


def adapter_of(system: str, arguments: Any) -> str:
    """Identify a model: the name of an untrained one, the digest of an adapter."""
    if not system.startswith("tuned"):
        return str(arguments.model)
    place = runs.find_run(arguments.run) / runs.ADAPTER / "adapter_model.safetensors"
    return hashlib.sha256(place.read_bytes()).hexdigest()


def measured(name: str, system: str, fit: str, task: Task, arguments: Any) -> dict[str, Any]:
    """Rank every case and take the time, continuing the file of an earlier run."""
    kinds: Any = {}
    if system in WRITERS:
        kinds = [WRITING, adapter_of(system, arguments), *[SHOTS] * (system == "few-shot")]
    elif system == RANKER:
        kinds = [*FEATURES]
        if arguments.network != "none":
            kinds += [arguments.network, dict(registry.load_classes()[arguments.network].defaults)]
    elif system != PRIOR:
        kinds = dict(registry.load_classes()[system].defaults)
    if system in (PRIOR, RANKER) or system.endswith("-prior"):
        kinds = [kinds, *arguments.mixed] if arguments.mixed else kinds
    if system in (PRIOR, RANKER) and arguments.seed:
        kinds = [kinds, arguments.seed]
    state = [
        kinds,
        registry.VERSION, name, system, fit, task.data.info.catalog_hash,
        [c.user_id for c in task.cases], task.candidates,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    path = arguments.out / f"{name}-{system}-{fit}-{key}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("done"):
        return found
    began = time.monotonic()
    if system in WRITERS:
        for key, value in {"ranks": {}, "nats": {}, "fit_s": 0.0, "rank_s": 0.0}.items():
            found.setdefault(key, value)
        recommender = writer(name, system, fit, task, arguments)
        found["fit_s"] += time.monotonic() - began
        for user, rank, nats, seconds in written(recommender, task, found["ranks"]):
            found["ranks"][user], found["nats"][user] = rank, nats
            found["rank_s"] += seconds
            _write(path, found)
            if len(found["ranks"]) % 20 == 0:
                print(f"{len(found['ranks'])} of {len(task.cases)} users", flush=True)
    else:
        if system in (PRIOR, RANKER):
            prior = weighing(system, fit, task.data, arguments)
            between = time.monotonic()
            values = ranks_by(task, prior)
        else:
            fitted = registry.fit(
                system,
                task.data,
                before=to_before(fit),
                folder=arguments.out / "fits" / name,
                log=lambda text: print(f"  {text}", flush=True),
            )
            between = time.monotonic()
            values = ranks_of(task, fitted)
        found = {
            "ranks": {c.user_id: r for c, r in zip(task.cases, values, strict=True)},
            "fit_s": round(between - began, 1),
            "rank_s": round(time.monotonic() - between, 1),
        }
    found = {**found, "done": True, "commit": commit(), "date": time.strftime("%Y-%m-%d")}
    _write(path, found)
    return found


def weighing(system: str, fit: str, data: Dataset, arguments: Any) -> CollaborativePrior:
    """Fit the collaborative prior; for the system ``ranker``, also learn to rank its best items."""
    sources, seed = (*COUNTED, *arguments.mixed), arguments.seed
    prior = CollaborativePrior.fit(data, before=to_before(fit), sources=sources, seed=seed)
    print("  " + ", ".join(f"{n} {w:.3f}" for n, w in prior.mix.items()), flush=True)
    if system == RANKER:
        behavior = data.info.target_behavior
        log = lambda text: print(f"  {text}", flush=True)  # noqa: E731
        prior.learn_to_rank(
            data, behavior, network=arguments.network, seed=seed, threads=arguments.threads, log=log
        )
        assert prior.rankers is not None
        for kind, ranker in prior.rankers.by_kind.items():
            print(f"  {kind}: {ranker.nats:.3f} nats in validation", flush=True)
    return prior


def _write(path: Path, values: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(values))
    new.replace(path)


def interval(values: Any, digits: int = 4) -> str:
    found = bootstrap.bootstrap(values, draws=2000)
    said = [
        re.sub(r"^(-?)0\.", r"\1.", f"{v:.{digits}f}") for v in (found.mean, found.low, found.high)
    ]
    return f"{said[0]} [{said[1]}, {said[2]}]"


def per_user(metric: str, ranks: Sequence[int]) -> Any:
    """Return hit_rate@k or ndcg@k of each case, (cases,)."""
    which, _, k = metric.partition("@")
    return {"hit_rate": metrics.hit_rate, "ndcg": metrics.ndcg}[which](ranks, int(k))


def differences(of: dict[str, Any], among: dict[str, Any], last: str) -> Iterator[str]:
    """Yield each fused or ranked row's differences from its parts and the best baseline.

    Args:
        of: the rows of one fit; system -> metric -> (cases,).
        among: these, and what models alone have.
        last: the metric that the best one is chosen by.
    """
    counting = {s: v for s, v in of.items() if s not in (*WRITERS, PRIOR, RANKER)}
    best = max(counting, key=lambda s: float(np.mean(counting[s][last])), default=None)
    for system in [s for s in of if s == RANKER or s.endswith("-prior")]:
        for other in (system.removesuffix("-prior"), PRIOR, best):
            if other in among and other != system:
                cells = [f"{m} {interval(of[system][m] - among[other][m])}" for m in among[other]]
                yield f"{system} less {other}: {', '.join(cells)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENREC_DATA", ".")))
    parser.add_argument("--systems", default=",".join(registry.NAMES))
    parser.add_argument("--fit", default="train,both", help="train, both (train + validation)")
    parser.add_argument("--users", type=int, default=None)
    parser.add_argument("--model", default="smollm2-135m", help="of the system zero-shot")
    parser.add_argument("--run", type=Path, help="run folder, of the systems tuned and tuned-prior")
    parser.add_argument("--with", dest="mixed", nargs="+", default=[], choices=LEARNED,
                        help="fitted baselines that the prior mixes in")  # fmt: skip
    parser.add_argument("--network", default="none", choices=NETWORKS[1:],
                        help="whose scores the system ranker uses as features")  # fmt: skip
    parser.add_argument("--encoder", help="encoder of titles for --network titlesasrec")
    parser.add_argument("--epochs", type=int, help="passes over the training events, of a network")
    parser.add_argument("--seed", type=int, default=0, help="of the systems prior and ranker")
    parser.add_argument("--slices", action="store_true", help="also show results by slice of users")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".results" / "accuracy")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    folder, make = TASKS[arguments.set]
    task = chosen(make(arguments.data / folder), arguments.users)
    for name in NETWORKS[2:]:
        changed = {"encoder": arguments.encoder} if name == "titlesasrec" else {}
        changed |= {"epochs": arguments.epochs}
        kind: Any = registry.load_classes()[name]
        kind.defaults = {**kind.defaults, **{n: v for n, v in changed.items() if v}}
    if arguments.mixed or arguments.network != "none":  # so that these are kept
        folder = arguments.out / "fits" / arguments.set
        task = replace(task, data=replace(task.data, folder=folder))
    data = task.data.info
    print(f"{arguments.set}: {data.users:,} users, {data.items:,} items, {data.events:,} events")
    seen = "left out" if task.exclude_seen else "may come back"
    print(f"{len(task.cases):,} cases, seen items {seen}, commit {commit()}\n", flush=True)
    lines = [f"| system | fitted on | {' | '.join(task.metrics)} | nats | fit s | rank s |"]
    lines.append("|---" * (len(task.metrics) + 5) + "|")
    rows_of: dict[str, dict[str, Any]] = {}
    for system in arguments.systems.split(","):
        for fit in [f for f in arguments.fit.split(",") if f in task.fits]:
            if system in ("zero-shot", "few-shot", "tuned") and fit != "train":
                continue
            found = measured(arguments.set, system, fit, task, arguments)
            ranks = [found["ranks"][c.user_id] for c in task.cases]
            values = {metric: per_user(metric, ranks) for metric in task.metrics}
            rows_of.setdefault(fit, {})[system] = values
            cells = [interval(v) for v in values.values()]
            said = {"train": "train", "both": "train + validation"}[fit]
            said = {"zero-shot": "nothing", "few-shot": f"{SHOTS} shown"}.get(system, said)
            said += (
                ", weights on validation" if system.endswith("-prior") and fit == "train" else ""
            )
            nats = found.get("nats", {})
            whole = len(nats) == len(ranks) and None not in nats.values()
            cells.append(interval(np.array(list(nats.values())), 3) if whole else "-")
            cells += [f"{found['fit_s']:.0f}", f"{found['rank_s']:.0f}"]
            name = system
            if arguments.mixed and (system in (PRIOR, RANKER) or system.endswith("-prior")):
                name += f" with {', '.join(arguments.mixed)}"
            if arguments.network != "none" and system == RANKER:
                name += f" with {arguments.network}"
            lines.append(f"| {name} | {said} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    print("\n" + "\n".join([*lines, "", *task.published]))
    for fit, of in rows_of.items():
        for line in differences(of, {**rows_of.get("train", {}), **of}, task.metrics[-1]):
            print(f"- {fit}: {line}")
        if arguments.slices:
            print(f"\nBy slices of users, fitted on {to_parts(to_before(fit))}:\n")
            labels = slices.labels_of(task, to_before(fit))
            for line in slices.tables(labels, of, task.metrics[-1]):
                print(line)


if __name__ == "__main__":
    main()
