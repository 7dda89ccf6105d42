"""Interactions: who did what with which item, when; histories and the three-part split.

Knows the catalog's rows, nothing of prompts or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec import tables
from genrec.catalog import Catalog
from genrec.errors import DataError, RequestError, UnknownUserError
from genrec.tables import Rejects

SPLITS = ("train", "validation", "test")
UNIT_COLUMNS = ("unit", "invoice", "basket", "basket_id", "order_id", "session", "session_id")
TIME_COLUMNS = ("position", "timestamp")  # a plain position decides where there are both
_SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user, one item, one behavior, one timestamp (seconds or any rising number)."""

    item_id: str
    behavior: str
    timestamp: float = 0.0
    value: float | None = None
    unit: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """One user's interactions, oldest first. ``user_id`` is None for somebody not in the data."""

    interactions: tuple[Interaction, ...] = ()
    user_id: str | None = None

    def __len__(self) -> int:
        return len(self.interactions)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of the items, oldest first, with repeats."""
        return tuple(i.item_id for i in self.interactions)

    def latest(self, n: int) -> History:
        """The last n interactions (all, where there are fewer)."""
        return History(self.interactions[max(0, len(self) - n) :], self.user_id)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The events as arrays, sorted by user, then time, then place in the file; E events."""

    user: IntArray  # (E,) code into user_ids, rising
    row: IntArray  # (E,) catalog row
    behavior: IntArray  # (E,) code into behaviors
    timestamp: npt.NDArray[np.float64]  # (E,)
    value: npt.NDArray[np.float64]  # (E,) NaN where there is none
    unit: IntArray  # (E,) code of the basket; every event its own where there are none
    split: IntArray  # (E,) 0 train, 1 validation, 2 test


class Interactions:
    """All interactions of all users, sorted, with a split label each."""

    def __init__(
        self,
        catalog: Catalog,
        user_ids: Sequence[str],
        behaviors: Sequence[str],
        unit_ids: Sequence[str] | None,
        columns: _Columns,
        attributes: pa.Table | None = None,
        unit_name: str | None = None,
        given_split: bool = False,
    ) -> None:
        """Wraps sorted columns; use ``from_table`` or ``read`` to make one from files."""
        self.given_split = given_split
        self.unit_name = unit_name
        self.catalog = catalog
        self.user_ids = tuple(user_ids)
        self.behaviors = tuple(behaviors)
        self.unit_ids = None if unit_ids is None else tuple(unit_ids)
        self.columns = columns
        self.attributes = attributes
        self._code = {u: c for c, u in enumerate(self.user_ids)}
        self._start = np.searchsorted(columns.user, np.arange(len(self.user_ids) + 1))

    def __len__(self) -> int:
        return len(self.columns.row)

    @classmethod
    def read(
        cls,
        path: str | Path,
        catalog: Catalog,
        *,
        unit: str | None = None,
        rejects: Rejects | None = None,
    ) -> Interactions:
        """Interactions from a CSV (also .gz) or Parquet file; see ``from_table``."""
        return cls.from_table(
            tables.read(path, rejects=rejects), catalog, unit=unit, rejects=rejects
        )

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        catalog: Catalog,
        *,
        unit: str | None = None,
        rejects: Rejects | None = None,
    ) -> Interactions:
        """Interactions from a table with user_id, item_id, behavior and timestamp or position.

        Optional columns: value (a number), a basket column (``unit``, ``invoice``, ``session``,
        ... or the one named), split (train, validation, test), any others (kept as attributes).

        Args:
            table: one row an event, in file order, which breaks ties in time.
            catalog: the items; a row with another item is rejected.
            unit: the basket column, ``"none"`` for no baskets, None to look for a usual name.
            rejects: where bad rows are recorded; without it the first one raises.

        Raises:
            DataError: a column is missing or nothing is left.
        """
        tables.require(table, ["user_id", "item_id", "behavior"], "interactions")
        unit = _unit_column(table, unit)
        when = next((c for c in TIME_COLUMNS if c in table.column_names), None)
        if when is None:
            tables.require(table, ["timestamp"], "interactions")
        raw = {n: tables.strings(table[n]) for n in ("user_id", "item_id", "behavior")}
        time = _times(table, when or "timestamp")
        numbers = tables.row_numbers(table)
        sink = rejects if rejects is not None else Rejects("interactions", strict=True)
        keep = _usable(raw, time, numbers, catalog, sink)
        if not keep.any():
            msg = (
                "No interaction is usable: every row was rejected"
                f"{sink.first_reason()}. Expected item_ids of the items file."
            )
            raise DataError(msg)
        users, user = _codes(raw["user_id"], keep)
        behaviors, behavior = _codes(raw["behavior"], keep)
        row = np.array([catalog.row(i) for i, k in zip(raw["item_id"], keep, strict=True) if k])
        order = np.lexsort((np.arange(len(user)), time[keep], user))
        used = {"user_id", "item_id", "behavior", when, "value", unit, "split", tables.ROW}
        rest = [n for n in table.column_names if n not in used]
        kept = table.filter(pa.array(keep)).take(pa.array(order))
        units, unit_code = _units(kept, unit, user[order])
        columns = _Columns(
            user=user[order],
            row=row[order],
            behavior=behavior[order],
            timestamp=time[keep][order],
            value=tables.numbers(kept["value"])
            if "value" in table.column_names
            else np.full(len(order), np.nan),
            unit=unit_code,
            split=_split_codes(kept),
        )
        attributes = pa.table({_free(n): tables.typed(kept[n]) for n in rest}) if rest else None
        return cls(
            catalog,
            users,
            behaviors,
            units,
            columns,
            attributes,
            unit,
            "split" in table.column_names,
        )

    def split_last_unit(self, target: str) -> Interactions:
        """The three-part split by last unit: a copy with new split labels.

        A unit is a basket where the data has baskets, else an event; units are counted where they
        hold an event of the target behavior. The user's last unit and all after its first event
        is test, the last but one validation, what is before train. A user with two units has no
        train part, one with a single unit has train only.

        Args:
            target: the behavior to be recommended for, such as ``buy``.

        Raises:
            DataError: no event has that behavior.
        """
        if target not in self.behaviors:
            msg = (
                f"No interaction has the behavior {target!r}. "
                f"Expected one of: {', '.join(self.behaviors)}."
            )
            raise DataError(msg)
        c = self.columns
        is_target = c.behavior == self.behaviors.index(target)
        test = self._last_unit_start(is_target)
        index = np.arange(len(self))
        validation = self._last_unit_start(is_target & (index < test[c.user]))
        two = validation >= 0  # users with at least two units
        split = np.zeros(len(self), dtype=np.int64)
        split[two[c.user] & (index >= validation[c.user])] = 1
        split[two[c.user] & (index >= test[c.user])] = 2
        return self._replace_split(split)

    def _last_unit_start(self, wanted: npt.NDArray[np.bool_]) -> IntArray:
        """(U,) the first event of the unit of each user's last wanted event; -1 without one."""
        c = self.columns
        index = np.arange(len(self))
        last = np.full(len(self.user_ids), -1)
        np.maximum.at(last, c.user[wanted], index[wanted])
        unit = np.where(last >= 0, c.unit[last], -1)
        same = c.unit == unit[c.user]
        first = np.full(len(self.user_ids), len(self))
        np.minimum.at(first, c.user[same], index[same])
        return np.where(last >= 0, first, -1)

    def _replace_split(self, split: IntArray) -> Interactions:
        c = self.columns
        columns = _Columns(c.user, c.row, c.behavior, c.timestamp, c.value, c.unit, split)
        return Interactions(
            self.catalog,
            self.user_ids,
            self.behaviors,
            self.unit_ids,
            columns,
            self.attributes,
            self.unit_name,
        )

    def events(self, user_id: str) -> slice:
        """The slice of the columns that holds a user's events.

        Raises:
            UnknownUserError: the user is not in the data.
        """
        if user_id not in self._code:
            some = ", ".join(self.user_ids[:3])
            msg = (
                f"User {user_id!r} is not among the {len(self.user_ids):,} users of this dataset. "
                f"Expected a user_id such as {some}; for somebody new give a history instead."
            )
            raise UnknownUserError(msg)
        code = self._code[user_id]
        return slice(int(self._start[code]), int(self._start[code + 1]))

    def interaction(self, index: int) -> Interaction:
        """The event at an index of the columns."""
        c = self.columns
        value = float(c.value[index])
        return Interaction(
            item_id=self.catalog[int(c.row[index])].item_id,
            behavior=self.behaviors[c.behavior[index]],
            timestamp=float(c.timestamp[index]),
            value=None if np.isnan(value) else value,
            unit=None if self.unit_ids is None else self.unit_ids[c.unit[index]],
            attributes={}
            if self.attributes is None
            else self.attributes.slice(index, 1).to_pylist()[0],
        )

    def history(self, user_id: str, *, before: str | None = None) -> History:
        """A user's history.

        Args:
            user_id: the user.
            before: a split; only what lies before the user's part of it. None for all events.

        Raises:
            UnknownUserError: the user is not in the data.
        """
        where = self.events(user_id)
        limit = len(SPLITS) if before is None else _split_code(before)
        indices = [i for i in range(where.start, where.stop) if self.columns.split[i] < limit]
        return History(tuple(self.interaction(i) for i in indices), user_id)

    def targets(self, user_id: str, split: str, behavior: str) -> list[Interaction]:
        """The target events of a user's split: those of the behavior in its first unit."""
        where = self.events(user_id)
        c = self.columns
        code = self.behaviors.index(behavior)
        hits = [
            i
            for i in range(where.start, where.stop)
            if c.split[i] == _split_code(split) and c.behavior[i] == code
        ]
        return [self.interaction(i) for i in hits if c.unit[i] == c.unit[hits[0]]]

    def repeat_share(self, behavior: str) -> float:
        """The share of a behavior's units that begin with an item the user had in an earlier unit.

        Counted over each user's units but the first, in train and validation; 0 where there are
        none. It says whether people in this data take again what they had.
        """
        c = self.columns
        code = self.behaviors.index(behavior)
        repeats = total = 0
        for user in range(len(self.user_ids)):
            seen: set[int] = set()
            basket: set[int] = set()
            unit = None
            for i in range(int(self._start[user]), int(self._start[user + 1])):
                if c.split[i] == 2:
                    break
                if c.behavior[i] != code:
                    continue
                if c.unit[i] != unit:
                    seen |= basket
                    basket = set()
                    if unit is not None:
                        total += 1
                        repeats += int(c.row[i]) in seen
                    unit = c.unit[i]
                basket.add(int(c.row[i]))
        return repeats / total if total else 0.0

    def tied(self) -> int:
        """How many events share user and time with the event before them, baskets aside."""
        c = self.columns
        same = (c.user[1:] == c.user[:-1]) & (c.timestamp[1:] == c.timestamp[:-1])
        return int((same & ((c.unit[1:] != c.unit[:-1]) | (self.unit_ids is None))).sum())

    def to_table(self) -> pa.Table:
        """An Arrow table, one row an event, with names in place of codes and the split."""
        c = self.columns
        ids = np.array([i.item_id for i in self.catalog], dtype=object)
        data: dict[str, pa.Array] = {
            "user_id": pa.array(np.array(self.user_ids, dtype=object)[c.user], pa.string()),
            "item_id": pa.array(ids[c.row], pa.string()),
            "behavior": pa.array(np.array(self.behaviors, dtype=object)[c.behavior], pa.string()),
            "timestamp": pa.array(_integral(c.timestamp)),
            "value": pa.array(c.value, from_pandas=True),
            "split": pa.array(np.array(SPLITS, dtype=object)[c.split], pa.string()),
        }
        if self.unit_ids is not None:
            data["unit"] = pa.array(np.array(self.unit_ids, dtype=object)[c.unit], pa.string())
        if self.attributes is not None:
            for name in self.attributes.column_names:
                data[name] = self.attributes[name]
        return pa.table(data)


def _free(name: str) -> str:
    """An attribute's name, out of the way of the columns that a dataset folder has."""
    taken = {"user_id", "item_id", "behavior", "timestamp", "value", "split", "unit"}
    return f"{name}_given" if name in taken else name


def _unit_column(table: pa.Table, unit: str | None) -> str | None:
    if unit == "none":
        return None
    if unit is not None:
        tables.require(table, [unit], "interactions")
        return unit
    return next((c for c in UNIT_COLUMNS if c in table.column_names), None)


def _times(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    time = tables.numbers(table[name])
    if not np.isnan(time).all():
        return time
    try:  # ISO dates and times
        stamps = table[name].cast(pa.timestamp("ms")).cast(pa.int64())
        return np.asarray(stamps.cast(pa.float64()).fill_null(np.nan)) / 1000.0
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return time


def _usable(
    raw: dict[str, list[str]],
    time: npt.NDArray[np.float64],
    numbers: list[int],
    catalog: Catalog,
    rejects: Rejects,
) -> npt.NDArray[np.bool_]:
    keep = np.ones(len(time), dtype=bool)
    finite = np.isfinite(time)
    cells = zip(raw["user_id"], raw["item_id"], raw["behavior"], strict=True)
    for index, (user, item, behavior) in enumerate(cells):
        reason = (
            "empty user_id"
            if not user
            else f"not in the items file: item_id {item!r}"
            if item not in catalog
            else "empty behavior"
            if not behavior
            else "time is empty or not a number or date"
            if not finite[index]
            else ""
        )
        if reason:
            keep[index] = False
            rejects.add(numbers[index], reason, [user, item, behavior, time[index]])
    return keep


def _codes(values: list[str], keep: npt.NDArray[np.bool_]) -> tuple[list[str], IntArray]:
    """Distinct kept values in order of first appearance, and each kept value's code."""
    encoded = pc.dictionary_encode(pa.array(values, pa.string()).filter(pa.array(keep)))
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)


def _units(kept: pa.Table, unit: str | None, user: IntArray) -> tuple[list[str] | None, IntArray]:
    """Unit names and codes; an event with an empty basket cell is a unit of its own."""
    if unit is None:
        return None, np.arange(len(user))
    names = [
        f"{u}\x1f{name}" if name else f"{u}\x1f\x1f{index}"
        for index, (u, name) in enumerate(zip(user, tables.strings(kept[unit]), strict=True))
    ]
    distinct, codes = _codes(names, np.ones(len(names), dtype=bool))
    return [n.split("\x1f")[1] for n in distinct], codes


def _split_codes(kept: pa.Table) -> IntArray:
    if "split" not in kept.column_names:
        return np.zeros(kept.num_rows, dtype=np.int64)
    names = [_SPLIT_NAMES.get(n, n) for n in tables.strings(kept["split"])]
    unknown = sorted(set(names) - set(SPLITS))
    if unknown:
        msg = f"The split column holds {unknown[0]!r}. Expected one of {', '.join(SPLITS)}."
        raise DataError(msg)
    return np.array([SPLITS.index(n) for n in names], dtype=np.int64)


def _split_code(split: str) -> int:
    if split not in SPLITS:
        msg = f"{split!r} is not a split. Expected one of {', '.join(SPLITS)}."
        raise RequestError(msg)
    return SPLITS.index(split)


def _integral(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    return values.astype(np.int64) if np.all(values == np.floor(values)) else values
