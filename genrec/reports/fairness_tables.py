"""Build the tables of an evaluation that show exposure of items and groups of users."""

from __future__ import annotations

from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.results import Evaluation

Titled = tuple[str, list[str], list[list[str]]]  # a heading, the header of a table and its rows

EXPOSURE = (
    "The columns items, events and targets are shares of the catalog, of the events that the systems were "
    "fitted on, and of what the users chose next. A share@10 is the part of the first ten places that a "
    "group of items takes; exposure@10 weights a place by 1 / log2(rank + 1). coverage@10 is the part of "
    "the group that is in any list."
)
GROUPS = (
    "Users are grouped by the value that is most frequent in their history; groups of fewer than 20 users "
    "are joined. 'less others' is the mean of a "
    "group minus the mean of all other users. With many groups, some differ from the others by chance "
    "alone; the groups may also differ in other ways, such as the lengths of their histories."
)


def exposure_tables(evaluation: Evaluation) -> list[Titled]:
    """Build three tables for each way of grouping items: shares, exposure and coverage."""
    names = [r.name for r in evaluation.results]
    tables: list[Titled] = []
    for by, groups in evaluation.exposure.items():
        metrics = dict.fromkeys(m for g in groups.values() for s in g.intervals.values() for m in s)
        for metric in metrics:
            rows = [
                [label, f"{g.items:,}", f"{g.item_share:.3f}", f"{g.event_share:.3f}",
                 f"{g.target_share:.3f}", *(_cell(g.intervals[n].get(metric)) for n in names)]
                for label, g in groups.items()
            ]  # fmt: skip
            header = [by, "number", "items", "events", "targets", *names]
            tables.append((f"{metric} by {by}", header, rows))
        covered = [
            [label, f"{g.items:,}", *(f"{g.coverage[n]:.3f}" for n in names)]
            for label, g in groups.items()
        ]
        tables.append((f"coverage@10 by {by}", [by, "number", *names], covered))
    return tables


def group_tables(evaluation: Evaluation) -> list[Titled]:
    """Build a table of each main metric by groups of users; none if users are not grouped."""
    if evaluation.user_groups is None:
        return []
    column, labels = evaluation.user_groups
    groups = evaluation.by_group
    if not groups:
        only = labels[0] if labels else "-"
        return [(f"Groups by {column}", [column, "users"], [[only, f"{len(labels):,}"]])]
    names = [r.name for r in evaluation.results]
    metrics = dict.fromkeys(
        m for g in groups.values() for s in g.slice.intervals.values() for m in s
    )
    header = [column, "users"]
    for name in names:
        header += [name, f"{name} less others"]
    tables: list[Titled] = []
    for metric in sorted(metrics, key=lambda m: m != evaluation.main_metric):
        rows = []
        for label, group in groups.items():
            row = [label, f"{group.slice.users:,}"]
            for name in names:
                row.append(_cell(group.slice.intervals.get(name, {}).get(metric)))
                row.append(_cell(group.differences.get(name, {}).get(metric)))
            rows.append(row)
        tables.append((f"{metric} by {column}", header, rows))
    return tables


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else str(interval)
