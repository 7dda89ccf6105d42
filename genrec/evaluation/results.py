"""Define the results of an evaluation, with confidence intervals and comparisons of systems."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec import files
from genrec.data.protocols import Case
from genrec.errors import RequestError
from genrec.evaluation import bootstrap, metrics
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.metrics import Calibration
from genrec.evaluation.systems import slug
from genrec.json_text import to_json
from genrec.types import BoolArray, FloatArray

SCHEMA_VERSION = 1
LEAST_USERS = 500  # with fewer users, it should not be claimed that one system beats another
LOWER_IS_BETTER = ("nats", "seconds", "invalid")
SLICE_DRAWS = 2_000  # the number of bootstrap resamples for a slice
MAIN_METRICS = ("nats", "hit_rate@1", "hit_rate@10", "ndcg@10")
KINDS = ("new", "repeat")  # the kinds of targets; every target is of one kind
TARGETS = ("all", *KINDS)


@dataclass(frozen=True, slots=True)
class Result:
    """The ranked lists of one system, with the values of metrics for each user.

    Attributes:
        name: the name of the system.
        cases: the cases, one for each user.
        ranked: the ranked item ids for each case, best first.
        values: for each metric that ``evaluate`` computed, an array with a value for each user.
        whole: the metrics that are computed over all lists together: coverage, the Gini coefficient
            and the calibration error.
        reliability: a comparison of the stated probabilities with the outcomes; None if the system
            states no probabilities.
        setup: a description of the system, with the keys ``model``, ``run``, ``template``,
            ``decoder`` and ``prior`` for a recommender, or ``baseline`` for a baseline. The value
            of ``prior`` is a mapping with the fields of ``Fusion``, or None.
        rules: a description of the shop rules that the lists follow, such as ``new items only``;
            empty if the lists follow the protocol.
    """

    name: str
    cases: Sequence[Case]
    ranked: Sequence[Sequence[str]]
    values: Mapping[str, FloatArray] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)
    reliability: Calibration | None = None
    setup: Mapping[str, Any] = field(default_factory=dict)
    rules: str = ""

    def per_user(self, metric: str, targets: str = "all") -> FloatArray:
        """Return the value of a metric for each user.

        Args:
            metric: a key of ``values``; or ``hit_rate@K``, ``ndcg@K`` or ``mrr@K`` for the target,
                or ``recall@K`` for the whole basket, where K is any positive integer.
            targets: ``all`` for all users, or ``new`` or ``repeat`` for the users whose target is
                of that kind (see ``find_targets``). In the latter case, recall covers only the
                items in the basket that are of the same kind.

        Raises:
            RequestError: the metric or the kind is unknown.
        """
        name, _, k = metric.partition("@")
        if targets != "all":
            chosen = find_targets(self.cases, targets)
            if name != "recall" or not k.isdecimal():
                return self.per_user(metric)[chosen]
            places = np.flatnonzero(chosen).tolist()
            relevant = [self.cases[place].same_kind for place in places]
            return metrics.recall(relevant, [self.ranked[place] for place in places], int(k))
        if metric in self.values:
            return self.values[metric]
        if not k.isdecimal() or name not in {"recall", "hit_rate", "ndcg", "mrr"}:
            known = ", ".join([*self.values, "hit_rate@K", "ndcg@K", "mrr@K", "recall@K"])
            msg = f"Unknown value metric={metric!r} for {self.name}. Expected one of: {known}."
            raise RequestError(msg)
        if name == "recall":
            return metrics.recall([c.basket for c in self.cases], self.ranked, int(k))
        by_rank = {"hit_rate": metrics.hit_rate, "ndcg": metrics.ndcg, "mrr": metrics.mrr}
        return by_rank[name](self.ranks(), int(k))

    def ranks(self) -> list[int]:
        """Return the rank of each user's target, starting at 1; 0 if it is not in the list."""
        return [metrics.rank_of(c.target, r) for c, r in zip(self.cases, self.ranked, strict=True)]

    def mean(self, metric: str, targets: str = "all") -> Interval:
        """Compute the mean of a metric over users, with its 95% bootstrap interval.

        Args:
            metric: see ``per_user``.
            targets: see ``per_user``.

        Raises:
            RequestError: the metric or the kind is unknown, or no target is of this kind.
        """
        values = self.per_user(metric, targets)
        if not len(values):
            raise RequestError(_describe_none(targets))
        return bootstrap.bootstrap(values)

    def minus(self, other: Result, metric: str, targets: str = "all") -> Interval:
        """Compute the mean difference from another system on the same users, with its 95% interval.

        Args:
            other: the result of the other system, for the same cases in the same order.
            metric: see ``per_user``.
            targets: see ``per_user``.

        Raises:
            RequestError: the metric or the kind is unknown, no target is of this kind, or no user has
                a value for the metric under both systems.
        """
        difference = self.per_user(metric, targets) - other.per_user(metric, targets)
        if not len(difference):
            raise RequestError(_describe_none(targets))
        difference = difference[~np.isnan(difference)]
        if not len(difference):
            msg = (
                f"No user has a value of {metric} for both {self.name} and {other.name}. Expected at "
                "least one such user. Choose another metric."
            )
            raise RequestError(msg)
        return bootstrap.bootstrap(difference)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between two systems in a metric, measured on the same users.

    Attributes:
        ours, other: the names of the systems.
        metric: the name of the metric.
        difference: the mean difference over users (ours minus other), with its 95% bootstrap
            interval.
        users: the number of users.
        verdict: ``better``, ``worse`` or ``not distinguishable``.
        targets: ``all``, or ``new`` or ``repeat`` if only users with such a target were compared.
    """

    ours: str
    other: str
    metric: str
    difference: Interval
    users: int
    verdict: str
    targets: str = "all"

    def __str__(self) -> str:
        """Return the comparison as a sentence without a final period."""
        link = "from" if self.verdict == "not distinguishable" else "than"
        few = (
            f"; fewer than {LEAST_USERS} users are too few to support a claim"
            if self.users < LEAST_USERS and self.verdict != "not distinguishable"
            else ""
        )
        on = {"new": " on new targets", "repeat": " on repeats"}.get(self.targets, "")
        d = self.difference
        return (
            f"{self.ours} is {self.verdict} {link} {self.other} in {self.metric}{on}: difference "
            f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {self.users:,} users{few}"
        )


def compare(
    result: Result, other: Result, metric: str = "ndcg@10", targets: str = "all"
) -> Comparison:
    """Compare two systems on the same users in one metric.

    Args:
        result: the result of your system.
        other: the result of the other system, for the same cases in the same order.
        metric: see ``Result.per_user``. The metric ``nats``, for which lower is better, exists only
            for systems that compute a probability for every item.
        targets: ``all`` to compare on all users, ``new`` to compare only on users whose target is
            new to them, or ``repeat`` to compare only on users who have already seen their target
            (see ``Result.per_user``).

    Raises:
        RequestError: the users or targets differ, one of the systems lacks the metric, or no target
            is of this kind.
    """
    mine, theirs = ([(c.user_id, c.target) for c in r.cases] for r in (result, other))
    if mine != theirs:
        msg = (
            f"{result.name} and {other.name} were evaluated on different users or targets "
            f"({len(mine):,} and {len(theirs):,}). Expected the same cases for paired differences."
        )
        raise RequestError(msg)
    difference = result.minus(other, metric, targets)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    verdict = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    users = int(find_targets(result.cases, targets).sum())
    return Comparison(result.name, other.name, metric, difference, users, verdict, targets)


def find_targets(cases: Sequence[Case], targets: str) -> BoolArray:
    """Find the users whose target is of the given kind.

    Args:
        cases: the cases of U users.
        targets: one of ``TARGETS``. A target is ``repeat`` if the user has already seen it in the
            events that the protocol shows, and ``new`` otherwise.

    Returns:
        (U,) a mask that is True for the users whose target is of this kind.

    Raises:
        RequestError: the kind is unknown.
    """
    if targets not in TARGETS:
        msg = f"Unknown value targets={targets!r}. Expected one of: {', '.join(TARGETS)}."
        raise RequestError(msg)
    repeat = np.array([case.repeat for case in cases], dtype=bool)
    return {"all": np.ones_like(repeat), "new": ~repeat, "repeat": repeat}[targets]


def _describe_none(targets: str) -> str:
    """Return a message saying that no user has a target of the given kind."""
    what = {"new": "is new to its user", "repeat": "is a repeat"}.get(targets, "was evaluated")
    return f"No target {what}. Expected at least one user with such a target."


@dataclass(frozen=True, slots=True)
class TargetKind:
    """The results of all systems for the users whose target is of one kind.

    Attributes:
        users: the number of these users.
        intervals: the mean and the 95% interval of each metric, keyed by system and metric.
        comparisons: comparisons of the first system with each of the others; empty if there are no
            such users.
    """

    users: int
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class Evaluation:
    """The results of all systems in an evaluation on one sample of users.

    Attributes:
        dataset: the name of the dataset.
        protocol, split, seed: the arguments of ``evaluate``.
        fitted_on: the data that the baselines were fitted on, ``train`` or ``train + validation``.
        exclude_seen: True if items of the history were left out of the lists.
        vectors: a description of the vectors that were used to measure diversity.
        cases: the cases, one for each user.
        slices: for each kind of slice, such as ``user``, the label of each user.
        results: the result of each system, starting with your own system.
    """

    dataset: str
    protocol: str
    split: str
    fitted_on: str
    exclude_seen: bool
    seed: int
    vectors: str
    cases: Sequence[Case]
    slices: Mapping[str, Sequence[str]]
    results: Sequence[Result]

    def __getitem__(self, name: str) -> Result:
        """Return the result of the system with this name.

        Raises:
            RequestError: no system has that name.
        """
        for result in self.results:
            if result.name == name:
                return result
        names = ", ".join(r.name for r in self.results)
        msg = f"No system {name!r} was evaluated. Expected one of: {names}."
        raise RequestError(msg)

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """The mean and the 95% interval of each metric, keyed by system and metric."""
        return self._by_system({(r.name, m): v for r in self.results for m, v in r.values.items()})

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Comparisons of the first system with each of the others, in NDCG@10 and nats.

        Lists that follow the rules of a shop are compared only with one another. For protocols that
        rank candidates, HR@1 is used instead of NDCG@10.
        """
        return self._compare("all")

    @cached_property
    def by_target(self) -> dict[str, TargetKind]:
        """The metrics and comparisons for each kind of target, ``new`` and ``repeat``."""
        kinds = {}
        for kind in KINDS:
            chosen = find_targets(self.cases, kind)
            values = {
                (r.name, m): r.per_user(m, kind) if m.startswith("recall@") else v[chosen]
                for r in self.results
                for m, v in r.values.items()
            }
            compared = self._compare(kind) if chosen.any() else []
            kinds[kind] = TargetKind(int(chosen.sum()), self._by_system(values), compared)
        return kinds

    def _compare(self, targets: str) -> list[Comparison]:
        metric = "hit_rate@1" if self.protocol.startswith("candidates") else "ndcg@10"
        compared = []
        for rules in dict.fromkeys(r.rules for r in self.results):
            ours, *others = [r for r in self.results if r.rules == rules]
            compared += [compare(ours, other, metric, targets) for other in others]
            with_nats = [o for o in others if _both_have(ours, o, "nats")]
            compared += [compare(ours, other, "nats", targets) for other in with_nats]
        return compared

    @cached_property
    def by_slice(self) -> dict[str, dict[str, dict[str, dict[str, Interval]]]]:
        """The intervals of the main metrics, keyed by kind of slice, label, system and metric.

        A kind of slice is left out if all users have the same label.
        """
        by_kind: dict[str, dict[str, dict[str, dict[str, Interval]]]] = {}
        for kind, labels in self.slices.items():
            array = np.array(labels)
            several = sorted(set(labels), key=_number_first) if len(set(labels)) > 1 else []
            for label in several:
                inside = array == label
                values = {
                    (r.name, m): r.values[m][inside]
                    for r in self.results
                    for m in MAIN_METRICS
                    if m in r.values
                }
                by_kind.setdefault(kind, {})[label] = self._by_system(values, SLICE_DRAWS)
        return by_kind

    def _by_system(
        self, values: Mapping[tuple[str, str], FloatArray], draws: int | None = None
    ) -> dict[str, dict[str, Interval]]:
        by_system: dict[str, dict[str, Interval]] = {r.name: {} for r in self.results}
        for (name, metric), interval in intervals(values, draws).items():
            by_system[name][metric] = interval
        return by_system

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as a dictionary of plain values that can be written as JSON.

        Metrics without a value are left out.
        """
        first = self.results[0]
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "split": self.split,
            "users": len(self.cases),
            "seed": self.seed,
            "fitted_on": self.fitted_on,
            "seen": "excluded" if self.exclude_seen else "included",
            "setups": {r.name: dict(r.setup) for r in self.results},
            "systems": {n: _plain(metrics) for n, metrics in self.intervals.items()},
            "whole": {r.name: dict(r.whole) for r in self.results},
            "diversity_over": self.vectors,
            "comparisons": _plain_comparisons(self.comparisons),
            "targets": {
                name: {
                    "users": kind.users,
                    "systems": {n: _plain(metrics) for n, metrics in kind.intervals.items()},
                    "comparisons": _plain_comparisons(kind.comparisons),
                }
                for name, kind in self.by_target.items()
            },
            "slices": {
                kind: {
                    label: {
                        "users": list(self.slices[kind]).count(label),
                        "systems": {n: _plain(metrics) for n, metrics in systems.items()},
                    }
                    for label, systems in labels.items()
                }
                for kind, labels in self.by_slice.items()
            },
            "reliability": {
                r.name: {
                    "stated": r.reliability.stated.tolist(),
                    "observed": r.reliability.observed.tolist(),
                    "count": r.reliability.count.tolist(),
                }
                for r in self.results
                if r.reliability is not None
            },
            "ours": first.name,
        }

    def save(self, folder: str | Path) -> None:
        """Write ``result.json`` and, for each system, ``SYSTEM.parquet`` with one row per user."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for result in self.results:
            columns: dict[str, Any] = {
                "user_id": [c.user_id for c in self.cases],
                "target": [c.target for c in self.cases],
                "repeat": [c.repeat for c in self.cases],
                **self.slices,
                **result.values,
                "items": [list(r) for r in result.ranked],
            }
            files.write_file(
                folder / f"{slug(result.name)}.parquet",
                partial(pq.write_table, pa.table(columns)),
            )
        files.write_text(folder / "result.json", to_json(self.to_dict()) + "\n")


def intervals(
    values: Mapping[tuple[str, str], FloatArray], draws: int | None = None
) -> dict[tuple[str, str], Interval]:
    """Compute the mean and the 95% interval of each metric over the users who have a value.

    A metric is left out if no user has a value.

    Args:
        values: the values of all users, keyed by system and metric; NaN for a user without a value.
        draws: the number of bootstrap resamples; see ``bootstrap.bootstrap``.
    """
    complete = [name for name, v in values.items() if len(v) and not np.isnan(v).any()]
    by_name = {}
    if complete:
        columns = np.stack([values[n] for n in complete], axis=1)
        by_name = dict(zip(complete, bootstrap.bootstraps(columns, draws=draws), strict=True))
    for name, v in values.items():
        known = v[~np.isnan(v)]
        if name not in by_name and len(known):
            by_name[name] = bootstrap.bootstrap(known, draws=draws)
    return {name: by_name[name] for name in values if name in by_name}


def _number_first(label: str) -> tuple[float, str]:
    number = re.match(r"\d+", label)
    return (float(number[0]) if number else -1.0, label)


def _both_have(one: Result, other: Result, metric: str) -> bool:
    return metric in one.values and metric in other.values


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _plain_comparisons(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "system": c.ours,
            "other": c.other,
            "metric": c.metric,
            **_interval(c.difference),
            "verdict": c.verdict,
            "said": str(c),
        }
        for c in comparisons
    ]


def _plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {metric: _interval(interval) for metric, interval in intervals.items()}
