"""Break the results on a public data set down by slices of users, from the ranks that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genrec.data import protocols, slices
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.slices import LEAST, Slice, best_parts, by_slice
from genrec.types import FloatArray

if TYPE_CHECKING:
    from benchmarks.accuracy.public_datasets import Task

PRIOR, RANKER = "prior", "ranker"
METRICS = ("hit_rate@1", "hit_rate@10", "ndcg@10")


def labels_of(task: Task, before: str) -> dict[str, list[str]]:
    """Label each case of a task, keyed by kind of slice.

    Args:
        task: the task.
        before: the first split whose events are not counted.
    """
    data = task.data
    rows = np.array(data.catalog.rows([case.target for case in task.cases]), dtype=np.int64)
    lead_in = data.info.lead_in_behaviors
    repeats = [case.target in case.history.had(lead_in) for case in task.cases]
    labels = {
        "target": ["repeat" if repeat else "new" for repeat in repeats],
        "popularity": slices.label_popularity(protocols.count_events(data, before), rows),
        "history": slices.label_lengths([len(case.history) for case in task.cases]),
    }
    days = slices.label_days([case.days for case in task.cases])
    return labels if set(days) <= {slices.UNKNOWN, "none"} else labels | {"last_event": days}


def parts_of(systems: Sequence[str]) -> dict[str, list[str]]:
    """Return the parts of each combined system, which may have been measured or not.

    >>> parts_of(["prior", "ranker", "tuned-prior"])
    {'ranker': ['prior'], 'tuned-prior': ['tuned', 'prior']}
    """
    fused = {s: [s.removesuffix("-prior"), PRIOR] for s in systems if s.endswith("-prior")}
    return {RANKER: [PRIOR], **fused} if RANKER in systems else fused


def tables(
    labels: Mapping[str, Sequence[str]],
    of: Mapping[str, Mapping[str, FloatArray]],
    last: str,
) -> Iterator[str]:
    """Yield the lines of a table for each metric, with a row for each slice.

    Args:
        labels: the labels of the cases, keyed by kind of slice.
        of: the values of the cases, keyed by system and metric.
        last: the metric that chooses the best part of a combined system.
    """
    values = {
        (system, metric): each
        for system, by_metric in of.items()
        for metric, each in by_metric.items()
        if metric in METRICS
    }
    best = best_parts(parts_of(list(of)), values, last)
    found = by_slice(labels, values, best)
    for metric in dict.fromkeys(metric for _, metric in values):
        header = [*of, *(f"{ours} less {other}" for ours, other in best.items())]
        yield f"| {metric}: slice | value | users | {' | '.join(header)} |"
        yield "|---" * (3 + len(header)) + "|"
        for kind, each in found.items():
            for label, one in each.items():
                cells = [*_cells(one, list(of), metric), *_differences(one, best, metric)]
                yield f"| {kind} | {label} | {one.users:,} | {' | '.join(cells)} |"
        yield ""
    yield f"Slices with fewer than {LEAST} users have no values."


def _cells(one: Slice, systems: Sequence[str], metric: str) -> list[str]:
    return [_said(one.intervals.get(system, {}).get(metric)) for system in systems]


def _differences(one: Slice, best: Mapping[str, str], metric: str) -> list[str]:
    return [_said(one.difference(ours, metric)) for ours in best]


def _said(interval: Interval | None) -> str:
    return "-" if interval is None else str(interval).replace("0.", ".")
