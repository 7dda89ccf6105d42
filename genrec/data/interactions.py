"""Store the interactions of all users, and look up histories, targets and repeats by split.

This module deals with catalog rows only, not with prompts or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genrec.data.catalog import Catalog
from genrec.data.context import ContextColumn, read_column
from genrec.data.events import SPLITS, EventTable, History, Interaction, split_code
from genrec.data.ingest import EventOptions, ingest
from genrec.data.readers import files, huggingface
from genrec.data.readers.numbers import other_spelling
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, UnknownUserError
from genrec.types import BoolArray, FloatArray, IntArray

NEEDED = ("user_id", "item_id", "behavior", "timestamp", "position")


class Interactions:
    """All interactions of all users, sorted by user and time, each with a split label."""

    def __init__(self, catalog: Catalog, table: EventTable) -> None:
        """Wrap sorted events; use ``read`` or ``from_table`` to build them from a file or table."""
        self.catalog = catalog
        self.table = table
        self.user_ids = tuple(table.user_ids)
        self.behaviors = tuple(table.behaviors)
        self.columns = table.columns
        self.unit_name = table.unit_name
        self.unit_ids = None if table.unit_ids is None else tuple(table.unit_ids)
        self.text = table.text
        self.attributes = table.attributes
        self._code = {u: c for c, u in enumerate(self.user_ids)}
        self._start = np.searchsorted(self.columns.user, np.arange(len(self.user_ids) + 1))

    def __len__(self) -> int:
        return len(self.columns.row)

    @classmethod
    def read(
        cls,
        path: str | Path,
        catalog: Catalog,
        *,
        rejects: Rejects | None = None,
        **options: Any,
    ) -> Interactions:
        """Read interactions from a CSV, JSONL or Parquet file; see ``from_table``.

        CSV and JSONL files may be gzipped.
        """
        rejects = rejects or Rejects(Path(path).name, strict=True)
        return cls.from_table(
            files.read(path, rejects=rejects, scalar=NEEDED), catalog, rejects=rejects, **options
        )

    @classmethod
    def from_table(
        cls, table: pa.Table, catalog: Catalog, *, rejects: Rejects | None = None, **options: Any
    ) -> Interactions:
        """Build interactions from an Arrow table; see ``genrec.data.ingest.ingest``.

        Args:
            table: one row per event. Events with equal times stay in row order.
            catalog: the items; a row with any other item is rejected.
            rejects: the object that records bad rows; if it is None, the first one raises an error.
            **options: fields of ``genrec.data.ingest.EventOptions``.

        Raises:
            DataError: a column is missing, or no row is usable.
        """
        return cls(catalog, ingest(table, catalog, EventOptions(**options), rejects=rejects).events)

    @classmethod
    def from_hf(
        cls,
        data: Any,
        catalog: Catalog,
        split: str | None = None,
        *,
        rejects: Rejects | None = None,
        **options: Any,
    ) -> Interactions:
        """Build interactions from a Hugging Face dataset.

        The dataset has one row per event, or one row per user with lists of events.

        Args:
            data: a ``datasets.Dataset``, or the id of a dataset on the hub.
            catalog: the items; an event with any other item is rejected.
            split: the part of the dataset to read; see ``genrec.data.readers.huggingface.read``.
            rejects: the object that records bad rows; if it is None, the first one raises an error.
            **options: fields of ``genrec.data.ingest.EventOptions``, such as
                ``columns={"item_id": "history"}``.

        Raises:
            DataError: the dataset cannot be loaded, a column is missing, or no row is usable.
        """
        rejects = rejects or Rejects(huggingface.display_name(data, "interactions"), strict=True)
        return cls.from_table(huggingface.read(data, split), catalog, rejects=rejects, **options)

    @cached_property
    def context(self) -> tuple[ContextColumn, ...]:
        """The declared columns of the context with their values of all events.

        Raises:
            SettingsError: a column is not in the data; see ``genrec.data.context.read_column``.
        """
        table, times = self.table, self.columns.timestamp
        return tuple(
            read_column(name, table.attributes, times, dated=table.dated)
            for name in table.context_columns
        )

    def with_context(self, columns: Sequence[str], *, dated: bool) -> Interactions:
        """Return a copy whose events have a context.

        Args:
            columns: the columns of the context.
            dated: False if the times of the events are only positions.

        Raises:
            SettingsError: a column is not in the data.
        """
        table = replace(self.table, context_columns=tuple(columns), dated=dated)
        copy = Interactions(self.catalog, table)
        _ = copy.context  # unknown columns are reported at once
        return copy

    def context_at(self, index: int) -> dict[str, str]:
        """Return the context of the event at the given index in the columns."""
        return {c.name: c.values[c.codes[index]] for c in self.context if c.codes[index] >= 0}

    def users_with_target(self, behavior: str) -> list[int]:
        """For each split, count the users who have an event with this behavior and an item."""
        c = self.columns
        is_target = (c.behavior == self.behaviors.index(behavior)) & (c.row >= 0)
        return [len(np.unique(c.user[is_target & (c.split == s)])) for s in range(len(SPLITS))]

    def unknown_behavior(self, behavior: str) -> DataError:
        """Build the error for an unknown behavior, with a message that lists the known ones."""
        known = ", ".join(self.behaviors)
        return DataError(f"No interaction has the behavior {behavior!r}. Expected one of: {known}.")

    def with_split(self, split: IntArray) -> Interactions:
        """Return a copy with new (E,) split labels, coded as in ``EventColumns.split``."""
        return Interactions(
            self.catalog, replace(self.table, columns=replace(self.columns, split=split))
        )

    def withhold(self, hidden: BoolArray) -> Interactions:
        """Return a copy in which some events have no item, value, text or attributes.

        They keep their user, time, behavior, basket and split.

        Args:
            hidden: (E,) mask that is True for these events.
        """
        table, c = self.table, self.columns
        columns = replace(
            c, row=np.where(hidden, -1, c.row), value=np.where(hidden, np.nan, c.value)
        )
        shown = pa.array(np.arange(len(self)), mask=hidden)
        text = None if table.text is None else table.text.take(shown)
        attributes = None if table.attributes is None else table.attributes.take(shown)
        changed = replace(table, columns=columns, text=text, attributes=attributes)
        return Interactions(self.catalog, changed)

    def known_id(self, user_id: str) -> str:
        """Return a user's id as it is written in the data.

        Args:
            user_id: the user's id. If it is not in the data, a whole number also matches the same
                number with ``.0`` added or removed: ``17841`` finds ``17841.0``, and vice versa.

        Raises:
            UnknownUserError: the user is not in the data.
        """
        for spelling in (user_id, other_spelling(user_id)):
            if spelling is not None and spelling in self._code:
                return spelling
        some = ", ".join(self.user_ids[:3])
        wanted = str(user_id).strip().casefold()
        near = next((u for u in self.user_ids if u.casefold() == wanted), None)
        hint = "" if near is None else f"Did you mean {near!r}? "
        msg = (
            f"User {user_id!r} is not among the {len(self.user_ids):,} users of this dataset. {hint}"
            f"Expected a user_id such as {some}. For a new user, give a history instead."
        )
        raise UnknownUserError(msg)

    def events(self, user_id: str) -> slice:
        """Return the slice of the columns that holds a user's events.

        Raises:
            UnknownUserError: the user is not in the data; see ``known_id``.
        """
        code = self._code[self.known_id(user_id)]
        return slice(int(self._start[code]), int(self._start[code + 1]))

    def interaction(self, index: int) -> Interaction:
        """Return the event at the given index in the columns."""
        c = self.columns
        value = float(c.value[index])
        return Interaction(
            item_id=None if c.row[index] < 0 else self.catalog[int(c.row[index])].item_id,
            behavior=self.behaviors[c.behavior[index]],
            timestamp=float(c.timestamp[index]),
            value=None if np.isnan(value) else value,
            unit=None if self.unit_ids is None else self.unit_ids[c.unit[index]],
            text=None if self.text is None else self.text[index].as_py() or None,
            attributes={}
            if self.attributes is None
            else self.attributes.slice(index, 1).to_pylist()[0],
            context=self.context_at(index),
        )

    def history(self, user_id: str, *, before: str | None = None) -> History:
        """Return a user's history, optionally only the events before a split.

        Args:
            user_id: the user.
            before: the name of a split; only events of earlier splits are included. None includes
                all events.

        Raises:
            UnknownUserError: the user is not in the data.
        """
        where = self.events(user_id)
        limit = len(SPLITS) if before is None else split_code(before)
        indices = [i for i in range(where.start, where.stop) if self.columns.split[i] < limit]
        events = tuple(self.interaction(i) for i in indices)
        return History(events, self.known_id(user_id))

    def targets(self, user_id: str, split: str, behavior: str) -> list[Interaction]:
        """Return the events to predict for a user in a split.

        These are the user's events with the given behavior in the first unit of the split that has
        such events.
        """
        where = self.events(user_id)
        if behavior not in self.behaviors:
            raise self.unknown_behavior(behavior)
        c = self.columns
        code = self.behaviors.index(behavior)
        candidates = [
            i
            for i in range(where.start, where.stop)
            if c.split[i] == split_code(split) and c.behavior[i] == code and c.row[i] >= 0
        ]
        return [self.interaction(i) for i in candidates if c.unit[i] == c.unit[candidates[0]]]

    def repeat_share(self, behavior: str, after: str | None = None) -> float:
        """Return the fraction of a behavior's units that start with an item from an earlier unit.

        The fraction shows whether users return to the same items. Only units in train and
        validation are counted. The result is 0 if there are no units to count.

        Args:
            behavior: the behavior of the units that are counted.
            after: the behavior of the earlier events, such as ``view``; None means the same
                behavior. A unit is counted only if the user has such an event in an earlier unit.
        """
        c = self.columns
        target, had = self.behaviors.index(behavior), self.behaviors.index(after or behavior)
        use = np.isin(c.behavior, [target, had]) & (c.split < 2) & (c.row >= 0)
        user, unit, row, kind = c.user[use], c.unit[use], c.row[use], c.behavior[use]
        if target not in kind:
            return 0.0
        new_user = np.append(True, user[1:] != user[:-1])
        new_unit = new_user | np.append(True, unit[1:] != unit[:-1])
        run = np.cumsum(new_unit)  # the sequential number of each event's unit
        _, pair = np.unique(user * (int(row.max()) + 1) + row, return_inverse=True)
        size = max(int(pair.max()), int(user.max())) + 1
        earliest = np.full((2, size), run[-1])  # the first unit with `had`, by pair and by user
        old = kind == had
        np.minimum.at(earliest[0], pair[old], run[old])
        np.minimum.at(earliest[1], user[old], run[old])
        place = np.flatnonzero(kind == target)
        place = place[np.append(True, run[place][1:] != run[place][:-1])]  # the first of each unit
        place = place[earliest[1][user[place]] < run[place]]
        return float((earliest[0][pair[place]] < run[place]).mean()) if len(place) else 0.0

    def tied(self) -> int:
        """Count tied events, whose order is uncertain.

        They have the same user and time as the previous event but a different unit.
        """
        c = self.columns
        same = (c.user[1:] == c.user[:-1]) & (c.timestamp[1:] == c.timestamp[:-1])
        return int((same & ((c.unit[1:] != c.unit[:-1]) | (self.unit_ids is None))).sum())

    def to_table(self) -> pa.Table:
        """Return an Arrow table with one row per event, in which names replace the codes."""
        c = self.columns
        ids = pa.array([*(i.item_id for i in self.catalog), None], pa.string())
        data: dict[str, pa.Array] = {
            "user_id": _named(self.user_ids, c.user),
            "item_id": ids.take(pa.array(np.where(c.row < 0, len(self.catalog), c.row))),
            "behavior": _named(self.behaviors, c.behavior),
            "timestamp": pa.array(_integral(c.timestamp)),
            "value": pa.array(c.value, from_pandas=True),
            "split": _named(SPLITS, c.split),
        }
        if self.unit_ids is not None:
            data["unit"] = _named(self.unit_ids, c.unit)
        if self.text is not None:
            data["text"] = self.text
        if self.attributes is not None:
            for name in self.attributes.column_names:
                data[name] = self.attributes[name]
        return pa.table(data)


def _named(names: Sequence[str], codes: IntArray) -> pa.Array:
    """Replace codes with the names they stand for."""
    return pa.array(names, pa.string()).take(pa.array(codes))


def _integral(values: FloatArray) -> npt.NDArray[Any]:
    """Convert values to integers if all of them are whole numbers."""
    return values.astype(np.int64) if np.all(values == np.floor(values)) else values
