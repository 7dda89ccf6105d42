"""Evaluation: protocols as lists of cases, and resumable runs over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genrec import metrics
from genrec.dataset import Dataset
from genrec.errors import DataError, RequestError
from genrec.interactions import History, Interaction
from genrec.metrics import FloatArray, Interval

DEMO_V1_MIN_EARLIER = 5
EVENTS = 25


@dataclass(frozen=True, slots=True)
class Case:
    """One user to recommend to.

    Attributes:
        user_id: the user.
        history: what the system may see, oldest first.
        target: the item that came next.
        basket: all items of the unit that came next, the target first.
    """

    user_id: str
    history: History
    target: str
    basket: tuple[str, ...]


def demo_v1(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``demo-v1``.

    Purchases only, users with at least 5 earlier ones, the last purchase invoice out (the one
    before it for split ``validation``), history the latest 25 purchases, seen items may be
    recommended, the target is the invoice's first item in file order.

    Args:
        dataset: ``genrec.datasets.load("online_retail_demo")`` or one of the same kind.
        split: ``test`` or ``validation``.
    """
    behavior = dataset.info.target_behavior
    return _cases(dataset, split, lambda i: i.behavior == behavior, DEMO_V1_MIN_EARLIER)


def last_out(dataset: Dataset, split: str = "test") -> list[Case]:
    """The cases of protocol ``last-out``, for data of several behaviors.

    The last unit with the target behavior out (the one before it for split ``validation``),
    everybody who has events before it, history the latest 25 events of any behavior; whether seen
    items may be recommended is the recommender's setting.

    Args:
        dataset: with a split.
        split: ``test`` or ``validation``.
    """
    return _cases(dataset, split, lambda i: True, 1)


def _cases(
    dataset: Dataset, split: str, shown: Callable[[Interaction], bool], least: int
) -> list[Case]:
    """Everybody with a target in the split and at least so many earlier events to show."""
    events = dataset.interactions
    cases = []
    for user in events.user_ids:
        past = tuple(i for i in events.history(user, before=split).interactions if shown(i))
        targets = events.targets(user, split, dataset.info.target_behavior)
        if len(past) < least or not targets:
            continue
        history = History(past, user).latest(EVENTS)
        basket = tuple(t.item_id for t in targets if t.item_id is not None)
        cases.append(Case(user, history, basket[0], basket))
    return cases


def sample(cases: Sequence[Case], users: int | None, seed: int = 0) -> list[Case]:
    """The same seeded sample of users every time, in the order of the cases; all for None."""
    if users is None or users >= len(cases):
        return list(cases)
    if users < 1:
        msg = f"users={users}. Expected 1 or more."
        raise RequestError(msg)
    chosen = np.random.default_rng(seed).permutation(len(cases))[:users]
    return [cases[i] for i in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Result:
    """Ranked lists of one system over cases, with per-user values.

    Attributes:
        name: of the system.
        cases: (users,) the cases.
        ranked: (users,) lists of item ids.
    """

    name: str
    cases: Sequence[Case]
    ranked: Sequence[Sequence[str]]

    def per_user(self, metric: str) -> FloatArray:
        """(users,) values of ``hit_rate@K``, ``ndcg@K`` or ``recall@K`` (of the whole basket)."""
        name, _, k = metric.partition("@")
        if name == "recall":
            return metrics.recall([c.basket for c in self.cases], self.ranked, int(k))
        ranks = [metrics.rank_of(c.target, r) for c, r in zip(self.cases, self.ranked, strict=True)]
        return {"hit_rate": metrics.hit_rate, "ndcg": metrics.ndcg}[name](ranks, int(k))

    def mean(self, metric: str) -> Interval:
        """The mean over users with its 95% bootstrap interval."""
        return metrics.bootstrap(self.per_user(metric))

    def minus(self, other: Result, metric: str) -> Interval:
        """The paired difference per user, mean and 95% bootstrap interval."""
        return metrics.bootstrap(self.per_user(metric) - other.per_user(metric))


def run(
    name: str,
    rank: Callable[[History], Sequence[str]],
    cases: Sequence[Case],
    *,
    log: Path | None = None,
    key: str = "",
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Ranks every case, resumably.

    Args:
        name: of the system.
        rank: a history to ranked item ids.
        cases: whom to rank for.
        log: a JSONL file to which each user's list is appended at once; users that it already
            holds are not ranked again, and a last line cut off by a kill is dropped.
        key: what the lists depend on (model, settings); a log written under another is refused.
        progress: called with the number of users done.

    Raises:
        DataError: the log was written by another system or for other settings.
    """
    done = _read_log(log, name, key) if log else {}
    ranked = []
    for number, case in enumerate(cases, start=1):
        if case.user_id not in done:
            done[case.user_id] = list(rank(case.history))
            if log:
                line = {"system": name, "key": key, "user_id": case.user_id}
                _append(log, json.dumps({**line, "items": done[case.user_id]}))
        ranked.append(done[case.user_id])
        if progress:
            progress(number)
    return Result(name, cases, ranked)


def _append(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def _read_log(log: Path, name: str, key: str) -> dict[str, list[str]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    if not log.exists():
        return {}
    text = log.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        log.write_bytes(whole)
    done = {}
    for line in whole.decode("utf-8").splitlines():
        entry = json.loads(line)
        if (entry["system"], entry["key"]) != (name, key):
            msg = (
                f"{log} was written for system {entry['system']!r} with key {entry['key']!r}, not "
                f"{name!r} with {key!r}. Expected the same run; choose another log or delete it."
            )
            raise DataError(msg)
        done[entry["user_id"]] = entry["items"]
    return done
