"""Split users between the arms of experiments, and say which arm is better.

The arm of a user is a hash of the experiment's salt and the user's id. It needs no memory, stays the
same, and does not depend on other experiments. This module knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby, repeat
from typing import Any

import numpy as np

from genrec.evaluation.sequential import Comparison, compare
from genrec.service.outcomes import LEVEL, Outcome, mean_per_user, outcomes
from genrec.service.store import Store

_DAY = 24.0  # hours


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of making lists.

    Attributes:
        name: the name of the arm.
        run: the name of the model.
        weight: its share of the users, relative to the other arms.
        scenario: the scenario whose options the arm uses instead of the request's; None for the latter.
        options: options that replace those of the request and of the scenario.
        model_role: ``explain`` if counting alone ranks; None if the model ranks as usual.
        search: ``sample`` if items are drawn at random by their probabilities; None for the best ones.
    """

    name: str
    run: str
    weight: float = 1.0
    scenario: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model_role: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment, which gives each user one of several arms.

    Attributes:
        name: its name.
        arms: the arms. The others are compared with the first one.
        scenario: only requests that name this scenario take part; None for requests whose scenario has
            no experiment of its own.
        salt: the text that is hashed with the id of a user.
        behaviors: the behaviors that count as accepting a list.
        window_hours: how long after a user's first list its other lists and its feedback count in the
            comparison. A user is compared when this time has passed, so that its value does not change
            any more.
        planned_users: the number of users at which the intervals of the comparison are tightest.
        started: the time in seconds since 1970.
        stopped: the time when it was stopped; None while it is running.
    """

    name: str
    arms: tuple[Arm, ...]
    scenario: str | None
    salt: str
    behaviors: tuple[str, ...]
    window_hours: float = _DAY
    planned_users: int = 2000
    started: float = 0.0
    stopped: float | None = None

    @property
    def running(self) -> bool:
        """True if requests are split between the arms."""
        return self.stopped is None

    def arm_of(self, unit: str) -> Arm:
        """Return the arm of a user or a session.

        Args:
            unit: the id, with a mark that keeps users and sessions apart.
        """
        digest = hashlib.blake2b(f"{self.salt}\n{unit}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64 * sum(a.weight for a in self.arms)
        for arm in self.arms:
            place -= arm.weight
            if place < 0:
                return arm
        return self.arms[-1]

    def definition(self) -> dict[str, Any]:
        """Return everything but the name and the times as values for JSON."""
        values = asdict(self)
        for name in ("name", "started", "stopped"):
            del values[name]
        return {**values, "arms": list(values["arms"]), "behaviors": list(self.behaviors)}

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment as values for JSON."""
        return {
            "name": self.name, "running": self.running,
            **self.definition(), "started": self.started, "stopped": self.stopped,
        }  # fmt: skip

    @classmethod
    def of(
        cls, name: str, definition: Mapping[str, Any], started: float, stopped: float | None
    ) -> Experiment:
        """Build an experiment from its stored definition."""
        arms = tuple(Arm(**arm) for arm in definition["arms"])
        kept = {**definition, "arms": arms, "behaviors": tuple(definition["behaviors"])}
        return cls(name, **kept, started=started, stopped=stopped)


class Experiments:
    """The experiments of a service, in memory and in the store.

    Attributes:
        on_change: a function that is called after each change, before it is acknowledged.
    """

    def __init__(self, store: Store, known: Sequence[Experiment] | None = None) -> None:
        """Read the experiments from the store, unless they are given.

        Args:
            store: the store.
            known: the experiments; None to read them.

        Raises:
            StoreError: they cannot be read.
        """
        self._store = store
        self.on_change: Callable[[], None] = lambda: None
        if known is None:
            known = [Experiment.of(n, *values) for n, values in store.experiments().items()]
        self._known: Mapping[str, Experiment] = {e.name: e for e in known}

    def all(self) -> list[Experiment]:
        """Return all experiments, the oldest first."""
        return list(self._known.values())

    def get(self, name: str) -> Experiment | None:
        """Return an experiment; None if there is none of this name."""
        return self._known.get(name)

    def running_for(self, scenario: str | None) -> Experiment | None:
        """Return the experiment that a request with a scenario takes part in; None if there is none."""
        running = {e.scenario: e for e in self._known.values() if e.running}
        return running.get(scenario, running.get(None))

    def put(self, experiment: Experiment) -> None:
        """Store an experiment. Requests that begin afterwards take part in it."""
        e = experiment
        self._store.put_experiment(e.name, e.definition(), e.started, e.stopped)
        self._known = {**self._known, e.name: e}
        self.on_change()

    def delete(self, name: str) -> None:
        """Forget an experiment. The lists that it showed stay in the store."""
        self._store.put_experiment(name, None)
        self._known = {n: e for n, e in self._known.items() if n != name}
        self.on_change()

    def results(self, experiment: Experiment) -> dict[str, Any]:
        """Return the results of each arm, and the comparison of each other arm with the first."""
        found = outcomes(self._store, experiment.name, experiment.started)
        return results(experiment, found, time.time())


def results(experiment: Experiment, lists: Iterable[Outcome], now: float) -> dict[str, Any]:
    """Return the results of an experiment as values for JSON.

    The lists are read one by one. A few numbers for each user stay in memory.

    Args:
        experiment: the experiment.
        lists: its lists; those of a user come together, oldest first.
        now: the time in seconds since 1970.

    Returns:
        For each arm, all its lists under ``arms``; and under ``comparisons``, for each arm but the
        first, the test against the first one, with the users whose ``window_hours`` have passed.
    """
    tallies = {arm.name: _Tally(experiment.behaviors) for arm in experiment.arms}
    began, which, values = array("d"), array("l"), array("d")  # of the users to compare
    place = {arm.name: n for n, arm in enumerate(experiment.arms)}
    for _, group in groupby(lists, key=lambda one: one.unit):
        mine = list(group)
        for name, tally in tallies.items():
            if shown := [one for one in mine if one.arm == name]:
                tally.add(shown)
        value = _value(experiment, mine, now)
        if value is not None:
            began.append(mine[0].shown)
            which.append(place.get(mine[0].arm, -1))
            values.append(value)
    order = np.argsort(began, kind="stable")  # in the order of their first lists
    arm_of, value_of = np.array(which)[order], np.array(values)[order]
    first, *others = experiment.arms
    level = 1 - (1 - LEVEL) / max(len(others), 1)  # so that all statements hold together
    compared = []
    for arm in others:
        either = (arm_of == 0) | (arm_of == place[arm.name])
        found = compare(
            value_of[either],
            arm_of[either] != 0,
            level=level,
            planned=experiment.planned_users,
        )
        compared.append(_verdict(first.name, arm.name, found, level))
    arms = [{"arm": name, **tally.to_dict()} for name, tally in tallies.items()]
    return {"arms": arms, "comparisons": compared, "complete_users": len(values)}


class _Tally:
    """Summarizes all lists of an arm, user by user."""

    def __init__(self, behaviors: Sequence[str]) -> None:
        """Store the behaviors that count as accepting a list."""
        self._wanted = frozenset(behaviors)
        self._users = self._lists = self._fallbacks = self._accepted = 0
        self._shares = array("d")  # of the users with an accepted list
        self._taken = Counter(dict.fromkeys(behaviors, 0))  # lists by behavior
        self._apart = defaultdict[str, "array[float]"](
            lambda: array("d")
        )  # as _shares, by behavior

    def add(self, lists: Sequence[Outcome]) -> None:
        """Add all lists of a user."""
        self._users += 1
        self._lists += len(lists)
        self._fallbacks += sum(one.fallback for one in lists)
        accepted = sum(bool(self._wanted & one.taken.keys()) for one in lists)
        self._accepted += accepted
        if accepted:
            self._shares.append(accepted / len(lists))
        for behavior, n in Counter(b for one in lists for b in one.taken).items():
            self._taken[behavior] += n
            self._apart[behavior].append(n / len(lists))

    def _per_user(self, shares: array[float]) -> dict[str, float | None]:
        return mean_per_user(chain(shares, repeat(0.0, self._users - len(shares))))

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as values for JSON."""
        apart = {
            behavior: {
                "lists": taken,
                "users": len(self._apart[behavior]),
                "per_user": self._per_user(self._apart[behavior]),
            }
            for behavior, taken in sorted(self._taken.items())
        }
        return {
            "users": self._users,
            "lists": self._lists,
            "fallbacks": self._fallbacks,
            "lists_accepted": self._accepted,
            "per_user": self._per_user(self._shares),
            "behaviors": apart,
        }


def _value(experiment: Experiment, lists: Sequence[Outcome], now: float) -> float | None:
    """Return the share of a user's lists within the window that were accepted within it.

    Args:
        experiment: the experiment.
        lists: all lists of the user, oldest first.
        now: the time in seconds since 1970.

    Returns:
        The share; None if the window has not passed.
    """
    end = lists[0].shown + experiment.window_hours * 3600
    if end > now:
        return None
    wanted = set(experiment.behaviors)
    taken = [
        any(b in wanted and t <= end for b, t in one.taken.items())
        for one in lists
        if one.shown <= end
    ]
    return sum(taken) / len(taken)


def _verdict(against: str, arm: str, found: Comparison, level: float) -> dict[str, Any]:
    finite = found.low > float("-inf")
    better = None
    if found.second_is_better is not None:
        better = arm if found.second_is_better else against
    return {
        "arm": arm,
        "against": against,
        "users": {against: found.users[0], arm: found.users[1]},
        "difference": None if found.difference != found.difference else found.difference,
        "low": found.low if finite else None,
        "high": found.high if finite else None,
        "level": level,
        "decided": better is not None,
        "decided_after": found.decided_after,
        "better": better,
    }
