"""Describe the circumstances of an event or a request: its context.

The context of an event has values from two sources. ``season``, ``weekday`` and ``time_of_day`` are
derived from its time, here and nowhere else. All others are columns of the events, such as
``device`` or ``country``, which ``prepare`` or a recommender declares. A value is a short text; an
event without a value in a column has no entry for it.

The time of an event is read as it is stored, so in UTC, or in local time if the file had local times
without a time zone:

- ``season``: winter is December to February, spring March to May, summer June to August and autumn
  September to November, as meteorologists count in the north.
- ``weekday``: monday to sunday.
- ``time_of_day``: night from 0 to 6 o'clock, morning to 12, afternoon to 18, evening to 24.

A column of the events with one of these names replaces what would be derived. This module deals with
values, not with prompts or counts.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.errors import RequestError, SettingsError
from genrec.text import one_line, visible
from genrec.types import FloatArray, IntArray

SEASONS = ("winter", "spring", "summer", "autumn")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TIMES_OF_DAY = ("night", "morning", "afternoon", "evening")
DERIVED: dict[str, tuple[str, ...]] = {
    "season": SEASONS, "weekday": WEEKDAYS, "time_of_day": TIMES_OF_DAY,
}  # fmt: skip
"""The values of each column that is derived from an event's time."""

MOST_VALUE, MOST_NOTE = 100, 500  # maximum number of characters of a value and of a note
_FIRST_DATE = 1e8  # seconds since 1970; smaller times are positions, as in typed histories
_LAST_DATE = 1e11
_DAY = 86_400
_NOT_CONTEXT = ("user_id", "item_id", "behavior", "timestamp", "value", "unit", "text", "split")


@dataclass(frozen=True, slots=True)
class ContextColumn:
    """A column of the context with its values of all events.

    Attributes:
        name: the name of the column.
        values: the distinct values.
        codes: (E,) index in ``values`` of each event's value; -1 for an event without a value.
    """

    name: str
    values: tuple[str, ...]
    codes: IntArray

    def texts(self, places: IntArray) -> list[str]:
        """Return the values of the events at given places; empty for an event without a value."""
        words = np.array([*self.values, ""], dtype=object)
        return [str(text) for text in words[self.codes[places]]]


def to_text(value: object) -> str:
    r"""Return a value as the text of a context; empty if there is no value.

    >>> to_text("Phone\n"), to_text(3.0), to_text(True), to_text(None), to_text(float("nan"))
    ('Phone', '3', 'true', '', '')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = one_line(str(value))[:MOST_VALUE]
    return text if visible(text) else ""


def derive(column: str, times: FloatArray) -> IntArray:
    """Derive a column of the context from times; see the module's docstring.

    Args:
        column: a key of ``DERIVED``.
        times: (E,) times in seconds since 1970.

    Returns:
        (E,) index of each value in ``DERIVED[column]``; -1 for a time that is not a date.

    >>> when = np.array([1_766_580_000.0, 3.0])  # 2025-12-24 12:40, a Wednesday, and a position
    >>> [derive(column, when).tolist() for column in DERIVED]
    [[0, -1], [2, -1], [2, -1]]
    """
    known = (times >= _FIRST_DATE) & (times < _LAST_DATE)
    seconds = np.where(known, times, 0.0).astype(np.int64)
    if column == "season":
        month = seconds.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12
        codes = (month + 1) % 12 // 3
    elif column == "weekday":
        codes = (seconds // _DAY + 3) % 7  # 1970 began on a Thursday
    else:
        codes = seconds % _DAY // (_DAY // len(TIMES_OF_DAY))
    return np.where(known, codes, -1)


def read_column(
    name: str, attributes: pa.Table | None, times: FloatArray, *, dated: bool
) -> ContextColumn:
    """Read a column of the context for E events.

    Args:
        name: the name of the column.
        attributes: the further columns of the events, with E rows; None if there are none.
        times: (E,) the times of the events.
        dated: False if the times are only positions.

    Raises:
        SettingsError: there is no such column, or it cannot be derived from positions.
    """
    if attributes is not None and name in attributes.column_names:
        codes: dict[str, int] = {}
        texts = map(to_text, attributes[name].to_pylist())
        found = [codes.setdefault(text, len(codes)) if text else -1 for text in texts]
        return ContextColumn(name, tuple(codes), np.array(found, dtype=np.int64))
    if name in DERIVED and dated:
        return ContextColumn(name, DERIVED[name], derive(name, times))
    own = [] if attributes is None else attributes.column_names
    known = (
        ", ".join([*(DERIVED if dated else ()), *own]) or "none, since there are no such columns"
    )
    why = ""
    if name in DERIVED:
        why = " It is derived from the times of the events, but this data has only positions."
    if name in _NOT_CONTEXT:
        why = " This column says what the event is, which is not known before it happens."
    msg = (
        f"{name!r} cannot be a column of the context.{why} Expected one or more of: {known}. Correct "
        "--context-columns, or add the column to the events file."
    )
    raise SettingsError(msg)


def context_of(
    attributes: Mapping[str, Any], timestamp: float | None, columns: Collection[str]
) -> dict[str, str]:
    """Return the context of one event that is not part of a dataset.

    Args:
        attributes: the values of the event's further columns.
        timestamp: its time in seconds since 1970; a position or None gives no derived values.
        columns: the columns of the context.

    Returns:
        The values by column, without those that are unknown.
    """
    found = {}
    for name in columns:
        text = to_text(attributes.get(name))
        if not text and name in DERIVED and timestamp is not None:
            code = int(derive(name, np.array([timestamp], dtype=np.float64))[0])
            text = DERIVED[name][code] if code >= 0 else ""
        if text:
            found[name] = text
    return found


def check_context(
    given: object, declared: Sequence[str] = (), own: Collection[str] = ()
) -> dict[str, str]:
    """Check the context of a request, and return its values as texts.

    Args:
        given: the value for each column, as the caller gave it.
        declared: the columns of the events that were declared as context.
        own: the columns of the events whose names are those of derived ones, but which may have any
            value.

    Raises:
        RequestError: it is not a mapping, a column is unknown, or a value is not valid.
    """
    if not isinstance(given, Mapping):
        msg = (
            f"context={given!r:.80} is not valid. Expected a mapping from columns to values, such as "
            "{'season': 'winter'}."
        )
        raise RequestError(msg)
    known = list(dict.fromkeys([*DERIVED, *declared]))
    found = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = (
                f"{name!r:.80} is not a column of the context.{hint} Expected one of: "
                f"{', '.join(known)}. To use another column of the events, declare it with "
                "--context-columns (context_columns in Python)."
            )
            raise RequestError(msg)
        text = to_text(value) if isinstance(value, str | int | float) else ""
        if not text or (isinstance(value, str) and len(value) > MOST_VALUE):
            msg = (
                f"context[{name!r}]={value!r:.80} is not valid. Expected a text of 1 to {MOST_VALUE} "
                "characters, a number, True or False."
            )
            raise RequestError(msg)
        if name in DERIVED and name not in own:
            text = text.lower()
            if text not in DERIVED[name]:
                msg = (
                    f"context[{name!r}]={value!r:.80} is not known. Expected one of: "
                    f"{', '.join(DERIVED[name])}."
                )
                raise RequestError(msg)
        found[name] = text
    return found


def check_note(given: object) -> str:
    """Check the note of a request, and return it on one line.

    Raises:
        RequestError: it is not a text, or it is too long.
    """
    if not isinstance(given, str) or len(given) > MOST_NOTE:
        shown = f"{given!r:.80}" if not isinstance(given, str) else f"a text of {len(given):,}"
        msg = f"note={shown} is not valid. Expected a text of at most {MOST_NOTE} characters; shorten it."
        raise RequestError(msg)
    return one_line(given)
