"""Results: per-user values of systems, their intervals, slices and paired differences."""

from __future__ import annotations

import json
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
from genrec.types import FloatArray

SCHEMA_VERSION = 1
LEAST_USERS = 500  # for saying that one system beats another
LOWER_IS_BETTER = ("nats", "seconds", "invalid")
SLICE_DRAWS = 2_000  # resamples for the interval of a slice
MAIN = ("nats", "hit_rate@1", "hit_rate@10", "ndcg@10")


@dataclass(frozen=True, slots=True)
class Result:
    """Ranked lists of one system over cases, with per-user values.

    Attributes:
        name: of the system.
        cases: (users,) the cases.
        ranked: (users,) lists of item ids.
        values: (users,) values by metric, as ``evaluate`` computes them.
        whole: figures of all lists together, which no user has: coverage, Gini, calibration.
        reliability: of the stated probabilities, where there are some.
    """

    name: str
    cases: Sequence[Case]
    ranked: Sequence[Sequence[str]]
    values: Mapping[str, FloatArray] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)
    reliability: Calibration | None = None

    def per_user(self, metric: str) -> FloatArray:
        """(users,) values of a metric.

        Args:
            metric: one of ``values``, or with any k ``hit_rate@K``, ``ndcg@K``, ``mrr@K`` of the
                target or ``recall@K`` of the whole basket.

        Raises:
            RequestError: there is no such metric.
        """
        if metric in self.values:
            return self.values[metric]
        name, _, k = metric.partition("@")
        if not k.isdecimal() or name not in {"recall", "hit_rate", "ndcg", "mrr"}:
            known = ", ".join([*self.values, "hit_rate@K", "ndcg@K", "mrr@K", "recall@K"])
            msg = f"metric={metric!r} is not known for {self.name}. Expected one of: {known}."
            raise RequestError(msg)
        if name == "recall":
            return metrics.recall([c.basket for c in self.cases], self.ranked, int(k))
        of_ranks = {"hit_rate": metrics.hit_rate, "ndcg": metrics.ndcg, "mrr": metrics.mrr}
        return of_ranks[name](self.ranks(), int(k))

    def ranks(self) -> list[int]:
        """(users,) the target's rank from 1; 0 where it is not in the list."""
        return [metrics.rank_of(c.target, r) for c, r in zip(self.cases, self.ranked, strict=True)]

    def mean(self, metric: str) -> Interval:
        """The mean over users with its 95% bootstrap interval."""
        return bootstrap.bootstrap(self.per_user(metric))

    def minus(self, other: Result, metric: str) -> Interval:
        """The paired difference per user, mean and 95% bootstrap interval.

        Raises:
            RequestError: there is no such metric, or no user for whom both have it.
        """
        difference = self.per_user(metric) - other.per_user(metric)
        difference = difference[~np.isnan(difference)]
        if not len(difference):
            msg = f"No user has {metric} with both {self.name} and {other.name}. Expected some."
            raise RequestError(msg)
        return bootstrap.bootstrap(difference)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference of two systems.

    Attributes:
        ours, other: their names.
        metric: which one.
        difference: ours - other per user, with its 95% bootstrap interval.
        users: how many.
        verdict: ``better``, ``worse`` or ``not distinguishable``.
    """

    ours: str
    other: str
    metric: str
    difference: Interval
    users: int
    verdict: str

    def __str__(self) -> str:
        """A plain sentence."""
        link = "from" if self.verdict == "not distinguishable" else "than"
        few = (
            f"; fewer than {LEAST_USERS} users, so this is a report and no claim"
            if self.users < LEAST_USERS and self.verdict != "not distinguishable"
            else ""
        )
        d = self.difference
        return (
            f"{self.ours} is {self.verdict} {link} {self.other} in {self.metric}: difference "
            f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {self.users:,} users{few}"
        )


def compare(result: Result, other: Result, metric: str = "ndcg@10") -> Comparison:
    """Compares two systems on the same users by the paired difference.

    Args:
        result: ours.
        other: the other's, over the same cases in the same order.
        metric: see ``Result.per_user``. Of nats, less is better; they compare only systems whose
            P is a distribution over all items.

    Raises:
        RequestError: the users or targets differ, or one of them lacks the metric.
    """
    mine, theirs = ([(c.user_id, c.target) for c in r.cases] for r in (result, other))
    if mine != theirs:
        msg = (
            f"{result.name} and {other.name} were evaluated on different users or targets "
            f"({len(mine):,} and {len(theirs):,}). Expected the same cases for a paired difference."
        )
        raise RequestError(msg)
    difference = result.minus(other, metric)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    verdict = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    return Comparison(result.name, other.name, metric, difference, len(mine), verdict)


@dataclass(frozen=True)
class Evaluation:
    """All systems over one sample of users, ours first.

    Attributes:
        dataset: its name.
        protocol, split, seed: what was asked.
        fitted_on: ``train`` or ``train + validation``, what the baselines counted.
        exclude_seen: whether items of the history were left out of the lists.
        vectors: what diversity was measured with.
        cases: (users,) in the order of the users.
        slices: kind of slice -> (users,) labels.
        results: one a system.
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
        """The result of a system."""
        for result in self.results:
            if result.name == name:
                return result
        names = ", ".join(r.name for r in self.results)
        msg = f"No system {name!r} was evaluated. Expected one of: {names}."
        raise RequestError(msg)

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """System -> metric -> mean and 95% interval; see ``metrics.bootstraps``."""
        return self._grouped({(r.name, m): v for r in self.results for m, v in r.values.items()})

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Ours, the first, against each of the others, in NDCG@10 or what there is of it."""
        metric = "hit_rate@1" if self.protocol.startswith("candidates") else "ndcg@10"
        ours, *others = self.results
        found = [compare(ours, other, metric) for other in others]
        return found + [compare(ours, o, "nats") for o in others if _both(ours, o, "nats")]

    @cached_property
    def by_slice(self) -> dict[str, dict[str, dict[str, dict[str, Interval]]]]:
        """Kind -> label -> system -> metric -> interval, for the main metrics.

        A kind of which all users have the same label is left out.
        """
        found: dict[str, dict[str, dict[str, dict[str, Interval]]]] = {}
        for kind, labels in self.slices.items():
            array = np.array(labels)
            several = sorted(set(labels), key=_natural) if len(set(labels)) > 1 else []
            for label in several:
                inside = array == label
                values = {
                    (r.name, m): r.values[m][inside]
                    for r in self.results
                    for m in MAIN
                    if m in r.values
                }
                found.setdefault(kind, {})[label] = self._grouped(values, SLICE_DRAWS)
        return found

    def _grouped(
        self, values: Mapping[tuple[str, str], FloatArray], draws: int | None = None
    ) -> dict[str, dict[str, Interval]]:
        found: dict[str, dict[str, Interval]] = {r.name: {} for r in self.results}
        for (name, metric), interval in intervals(values, draws).items():
            found[name][metric] = interval
        return found

    def to_dict(self) -> dict[str, Any]:
        """The whole as plain values for JSON; what no list gives (NaN) is left out."""
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
            "systems": {n: _plain(found) for n, found in self.intervals.items()},
            "whole": {r.name: dict(r.whole) for r in self.results},
            "diversity_over": self.vectors,
            "comparisons": [
                {
                    "system": c.ours,
                    "other": c.other,
                    "metric": c.metric,
                    **_interval(c.difference),
                    "verdict": c.verdict,
                    "said": str(c),
                }
                for c in self.comparisons
            ],
            "slices": {
                kind: {
                    label: {
                        "users": list(self.slices[kind]).count(label),
                        "systems": {n: _plain(found) for n, found in systems.items()},
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
        """Writes ``SYSTEM.parquet`` for each system, one row a user, and ``result.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for result in self.results:
            columns: dict[str, Any] = {
                "user_id": [c.user_id for c in self.cases],
                "target": [c.target for c in self.cases],
                **self.slices,
                **result.values,
                "items": [list(r) for r in result.ranked],
            }
            files.write_file(
                folder / f"{slug(result.name)}.parquet",
                partial(pq.write_table, pa.table(columns)),
            )
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        files.write_text(folder / "result.json", text)


def intervals(
    values: Mapping[tuple[str, str], FloatArray], draws: int | None = None
) -> dict[tuple[str, str], Interval]:
    """Mean and 95% interval of each over the users who have a value; none where nobody has."""
    whole = [name for name, v in values.items() if len(v) and not np.isnan(v).any()]
    found = {}
    if whole:
        together = bootstrap.bootstraps(np.stack([values[n] for n in whole], axis=1), draws=draws)
        found = dict(zip(whole, together, strict=True))
    for name, v in values.items():
        some = v[~np.isnan(v)]
        if name not in found and len(some):
            found[name] = bootstrap.bootstrap(some, draws=draws)
    return {name: found[name] for name in values if name in found}


def _natural(label: str) -> tuple[float, str]:
    number = re.match(r"\d+", label)
    return (float(number[0]) if number else -1.0, label)


def _both(one: Result, other: Result, metric: str) -> bool:
    return metric in one.values and metric in other.values


def _interval(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _plain(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {metric: _interval(interval) for metric, interval in found.items()}
