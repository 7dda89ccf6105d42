"""Join feedback with the lists that were shown, and summarize it per user.

Users are the unit of all rates and intervals: the lists of one user resemble each other, so an interval
that counted lists or impressions as independent would be too narrow. The user of a list is its user, or
else its session, or else the list alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import NormalDist
from typing import Any

import numpy as np
import sqlalchemy as sa

from genrec.service import tables
from genrec.service.store import Store
from genrec.types import FloatArray

LEVEL = 0.95  # of all intervals


@dataclass(frozen=True, slots=True)
class Outcome:
    """A list of an experiment and what came of it.

    Attributes:
        list_id: the id of the list.
        arm: the arm that made it.
        unit: the user, or the session.
        shown: the time in seconds since 1970.
        fallback: True if counting alone made the list because the model did not answer.
        taken: for each behavior, the time when the service first received such feedback about an item
            of the list.
    """

    list_id: str
    arm: str
    unit: str
    shown: float
    fallback: bool
    taken: Mapping[str, float] = field(default_factory=dict)


def mean_per_user(values: Iterable[float]) -> dict[str, float | None]:
    """Return the mean of one value per user, each from 0 to 1, with its 95% interval.

    The interval is that of Agresti and Coull (1998) for means: two users with 0 and two with 1 are added
    before the normal interval is computed. So it is not empty if no user accepted anything.

    Returns:
        The ``mean`` of the given users, and ``low`` and ``high``. All are None without users.
    """
    given = np.fromiter(values, dtype=np.float64)
    if not len(given):
        return {"mean": None, "low": None, "high": None}
    more: FloatArray = np.concatenate([given, [0.0, 0.0, 1.0, 1.0]])
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    half = z * math.sqrt(float(more.var()) / len(more))
    middle = float(more.mean())
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return {"mean": float(given.mean()), "low": low, "high": high}


def acceptance(
    store: Store, by: str, behaviors: Sequence[str], experiment: str | None = None
) -> list[dict[str, Any]]:
    """Count how many shown items and lists were followed by feedback that names the list.

    Args:
        store: the store.
        by: ``scenario``, ``run``, ``arm`` or ``rank``.
        behaviors: the behaviors that count as feedback; empty for all.
        experiment: only lists of this experiment; None for all lists.

    Returns:
        For each value of ``by``: its ``value``, the number of ``lists`` and of ``items`` shown, of
        ``items_accepted``, and of ``lists_accepted`` with at least one such item; the number of
        ``users``; ``per_user``, the mean over users of their share of accepted lists (for a rank, of
        accepted items), with its interval; and ``behaviors``, the number of lists and of items with
        feedback of each behavior.
    """
    shown, place, event = tables.lists, tables.impressions, tables.events
    key = place.c.rank if by == "rank" else shown.c[by]
    told = (event.c.list_id == place.c.list_id) & (event.c.item_id == place.c.item_id)
    if behaviors:
        told &= event.c.behavior.in_(behaviors)
    source = place.join(shown, place.c.list_id == shown.c.list_id)
    accepted = sa.case((sa.exists().where(told), 1), else_=0).label("accepted")
    columns = key.label("value"), _unit().label("unit"), place.c.list_id, accepted
    rows = sa.select(*columns).select_from(source)
    told_rows = sa.select(key.label("value"), event.c.behavior, place.c.list_id, place.c.item_id)
    told_rows = told_rows.select_from(source.join(event, told)).distinct()
    if experiment is not None:
        rows = rows.where(shown.c.experiment == experiment)
        told_rows = told_rows.where(shown.c.experiment == experiment)
    one, each = rows.subquery(), told_rows.subquery()
    taken = sa.case((one.c.accepted == 1, one.c.list_id))
    count = sa.func.count
    per_unit = sa.select(
        one.c.value,
        one.c.unit,
        count(one.c.list_id.distinct()).label("lists"),
        count().label("items"),
        sa.func.sum(one.c.accepted).label("items_accepted"),
        count(taken.distinct()).label("lists_accepted"),
    ).group_by(one.c.value, one.c.unit).order_by(one.c.value)  # fmt: skip
    apart = sa.select(
        each.c.value, each.c.behavior, count(each.c.list_id.distinct()).label("lists"), count()
    ).group_by(each.c.value, each.c.behavior).order_by(each.c.behavior)  # fmt: skip
    names = "lists", "items", "items_accepted", "lists_accepted"
    groups: dict[Any, dict[str, Any]] = {}
    shares: dict[Any, list[float]] = defaultdict(list)
    with store.reading("The lists cannot be read") as connection:
        for row in connection.execute(per_unit):
            group = groups.setdefault(row.value, {"value": row.value, **dict.fromkeys(names, 0)})
            numbers = [int(getattr(row, name)) for name in names]
            for name, number in zip(names, numbers, strict=True):
                group[name] += number
            lists, items, items_accepted, lists_accepted = numbers
            share = items_accepted / items if by == "rank" else lists_accepted / lists
            shares[row.value].append(share)
        for value, group in groups.items():
            group["users"] = len(shares[value])
            group["per_user"] = mean_per_user(shares[value])
            group["behaviors"] = {}
        for value, behavior, lists, items in connection.execute(apart):
            groups[value]["behaviors"][behavior] = {"lists": int(lists), "items": int(items)}
    return list(groups.values())


def outcomes(store: Store, experiment: str, since: float) -> Iterator[Outcome]:
    """Yield the lists of an experiment that were shown since a time.

    Those of a user come together, oldest first. The database joins, groups and sorts them, so only one
    of them is in memory at a time.
    """
    shown, place, event = tables.lists, tables.impressions, tables.events
    told = place.join(
        event, (event.c.list_id == place.c.list_id) & (event.c.item_id == place.c.item_id)
    )
    source = shown.outerjoin(told, place.c.list_id == shown.c.list_id)
    unit = _unit().label("unit")
    one = shown.c.list_id, shown.c.arm, unit, shown.c.shown, shown.c.fallback
    wanted = (
        sa.select(*one, event.c.behavior, sa.func.min(event.c.received).label("received"))
        .select_from(source)
        .where((shown.c.experiment == experiment) & (shown.c.shown >= since))
        .group_by(*one, event.c.behavior)
        .order_by(unit, shown.c.shown, shown.c.list_id)
    )
    with store.reading("The lists cannot be read") as connection:
        found = connection.execute(wanted, execution_options={"yield_per": 1000})
        for list_id, rows in groupby(found, key=lambda row: row.list_id):
            each = list(rows)
            r = each[0]
            taken = {row.behavior: float(row.received) for row in each if row.behavior is not None}
            yield Outcome(list_id, r.arm, r.unit, r.shown, bool(r.fallback), taken)


def _unit() -> Any:
    """Return the expression for the user of a list. A mark keeps users and sessions apart."""
    shown = tables.lists.c
    marked = [
        (shown[name].is_not(None), sa.literal(mark) + shown[name])
        for name, mark in (("user_id", "u:"), ("session_id", "s:"))
    ]
    return sa.case(*marked, else_=sa.literal("l:") + shown.list_id)
