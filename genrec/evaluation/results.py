"""Define the results of an evaluation, with confidence intervals and comparisons of systems."""

from __future__ import annotations

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
from genrec.evaluation import bootstrap, metrics, slices
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.comparisons import Comparison as Comparison
from genrec.evaluation.comparisons import (
    intervals,
    judge,
    plain_comparisons,
    plain_intervals,
)
from genrec.evaluation.exposure import GroupExposure, ItemGroups
from genrec.evaluation.group_quality import UserGroup, compare_groups
from genrec.evaluation.metrics import Calibration
from genrec.evaluation.slices import Slice
from genrec.evaluation.systems import slug
from genrec.json_text import to_json
from genrec.priors.collaborative import CollaborativePrior
from genrec.types import BoolArray, FloatArray

SCHEMA_VERSION = 1
MAIN_METRICS = ("nats", "hit_rate@1", "hit_rate@10", "ndcg@10")
EXPOSED = 10  # the places of a list whose exposure is measured
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
    users = int(find_targets(result.cases, targets).sum())
    verdict = judge(metric, difference)
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
        item_groups: the groups of items whose exposure is measured; None to measure none.
        user_groups: the column by which users are grouped, and the label of each user; None if they
            are not grouped.
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
    item_groups: ItemGroups | None = None
    user_groups: tuple[str, Sequence[str]] | None = None

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

    @property
    def main_metric(self) -> str:
        """The name of the metric for comparisons: NDCG@10, or HR@1 if candidates are ranked."""
        return "hit_rate@1" if self.protocol.startswith("candidates") else "ndcg@10"

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
        metric, compared = self.main_metric, []
        for rules in dict.fromkeys(r.rules for r in self.results):
            ours, *others = [r for r in self.results if r.rules == rules]
            compared += [compare(ours, other, metric, targets) for other in others]
            with_nats = [o for o in others if _both_have(ours, o, "nats")]
            compared += [compare(ours, other, "nats", targets) for other in with_nats]
        return compared

    @cached_property
    def by_slice(self) -> dict[str, dict[str, Slice]]:
        """The main metrics for each slice of users, keyed by kind of slice and label.

        Each combined system is compared with its best part, which is chosen by ``main_metric`` over
        all users. A kind of slice is left out if all users have the same label.
        """
        values, best = self._main_values()
        return slices.by_slice(self.slices, values, best)

    @cached_property
    def by_group(self) -> dict[str, UserGroup]:
        """The main metrics for each group of users, the largest group first; empty without groups."""
        if self.user_groups is None:
            return {}
        return compare_groups(self.user_groups[1], *self._main_values())

    @cached_property
    def exposure(self) -> dict[str, dict[str, GroupExposure]]:
        """How often the first ten places show each group of items; see ``ItemGroups.measure``."""
        if self.item_groups is None:
            return {}
        ranked = {r.name: r.ranked for r in self.results}
        return self.item_groups.measure(ranked, [case.target for case in self.cases], EXPOSED)

    def _main_values(self) -> tuple[dict[tuple[str, str], FloatArray], dict[str, str]]:
        """Return the users' values of the main metrics, and the best part of each combined system."""
        values = {
            (r.name, m): r.values[m] for r in self.results for m in MAIN_METRICS if m in r.values
        }
        return values, slices.best_parts(_find_parts(self.results), values, self.main_metric)

    def _by_system(
        self, values: Mapping[tuple[str, str], FloatArray]
    ) -> dict[str, dict[str, Interval]]:
        by_system: dict[str, dict[str, Interval]] = {r.name: {} for r in self.results}
        for (name, metric), interval in intervals(values).items():
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
            "systems": {n: plain_intervals(metrics) for n, metrics in self.intervals.items()},
            "whole": {r.name: dict(r.whole) for r in self.results},
            "diversity_over": self.vectors,
            "comparisons": plain_comparisons(self.comparisons),
            "targets": {
                name: {
                    "users": kind.users,
                    "systems": {
                        n: plain_intervals(metrics) for n, metrics in kind.intervals.items()
                    },
                    "comparisons": plain_comparisons(kind.comparisons),
                }
                for name, kind in self.by_target.items()
            },
            "slices": {
                kind: {label: each.to_dict() for label, each in labels.items()}
                for kind, labels in self.by_slice.items()
            },
            "exposure": {
                name: {label: each.to_dict() for label, each in groups.items()}
                for name, groups in self.exposure.items()
            },
            "groups": None
            if self.user_groups is None
            else {
                "column": self.user_groups[0],
                "groups": {label: each.to_dict() for label, each in self.by_group.items()},
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


def _find_parts(results: Sequence[Result]) -> dict[str, list[str]]:
    """Find the systems that each combined system consists of, among the evaluated ones.

    A combined system is a model with a prior, or a prior with a learned ranking. Its parts are the
    same model without a prior, the prior, and the prior with a learned ranking if it has one too.
    The lists of a part follow the same rules as those of the combined system.

    Returns:
        The names of the parts, keyed by the name of the combined system.
    """
    found: dict[str, list[str]] = {}
    for ours in results:
        for other in results:
            if ours.rules == other.rules and _is_part(other.setup, ours.setup):
                found.setdefault(ours.name, []).append(other.name)
    return found


def _is_part(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Return True if a system is a part of a combined system, given the setups of both."""
    if "model" in part:
        same = all(part.get(k) == whole.get(k) for k in ("model", "run", "template", "decoder"))
        return same and part.get("prior") is None and whole.get("prior") is not None
    if part.get("baseline") != CollaborativePrior.name:
        return False
    if "model" not in whole:  # the prior with a learned ranking consists of the prior
        is_prior = whole.get("baseline") == CollaborativePrior.name
        return is_prior and "ranker" in whole and "ranker" not in part
    is_prior = (whole.get("prior") or {}).get("prior") == "collaborative"
    return is_prior and ("ranker" in whole or "ranker" not in part)


def _both_have(one: Result, other: Result, metric: str) -> bool:
    return metric in one.values and metric in other.values
