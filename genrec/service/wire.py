"""Write what the processes of the service tell each other as JSON, and read it.

Each kind of value that JSON lacks is a list whose first element is a mark: a tuple, bytes, a time, or an object
of one of the classes in ``CLASSES``. Nothing else can be read, so a message cannot run code, as a pickled one
could.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np

from genrec.config import QueryOptions, default_count
from genrec.data.catalog import Item
from genrec.data.deletions import Deletions
from genrec.data.events import History, Interaction
from genrec.explain import types as explained
from genrec.matching.history_parser import Understood
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.service.experiments import Arm, Experiment
from genrec.service.jobs import Prepared, StaleError, Wanted
from genrec.service.mirror import State
from genrec.service.problems import Problem

_CLASSES: tuple[type, ...] = (
    Arm, Deletions, Experiment, History, Interaction, Item, Prepared, QueryOptions, Recommendation,
    RecommendationList, State, Understood, Wanted, explained.Evidence, explained.Explanation,
    explained.Older, explained.Rejected, explained.Without,
)  # fmt: skip
CLASSES: Mapping[str, type] = {kind.__name__: kind for kind in _CLASSES}
_ESCAPED = "list"  # the mark of a list, which no other list of JSON can be mistaken for
_TEXTS: Mapping[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "bytes": (bytes, lambda b: base64.b64encode(b).decode("ascii"), base64.b64decode),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),  # a datetime is also a date
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "decimal": (Decimal, str, Decimal),
}
_SETS: Mapping[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_DEFAULT = "default"
_PROBLEM, _STALE, _MAP = "problem", "stale", "map"


def encode(value: Any) -> bytes:
    """Write a value.

    Raises:
        TypeError: the value contains an object of another kind.
    """
    return json.dumps(_plain(value), separators=(",", ":")).encode("ascii")


def decode(text: bytes) -> Any:
    """Read a value that ``encode`` has written.

    Raises:
        ValueError: the text is no such value.
    """
    try:
        return _value(json.loads(text))
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        msg = f"The message of another process cannot be read: {error!r}."
        raise ValueError(msg) from error


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has, with marks."""
    kind = type(value)
    if value is None or kind in {bool, int, float, str}:
        return value
    if kind is type(default_count(0)):
        return [_DEFAULT, int(value)]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if kind.__name__ in CLASSES and kind is CLASSES[kind.__name__]:
        return [kind.__name__, {f.name: _plain(getattr(value, f.name)) for f in fields(value)}]
    if isinstance(value, StaleError):
        return [_STALE]
    if isinstance(value, Problem):
        told = [value.status, value.detail, value.headers, value.errors]
        return [_PROBLEM, [_plain(each) for each in told]]
    if isinstance(value, Mapping):
        return [_MAP, [[_plain(k), _plain(v)] for k, v in value.items()]]
    for mark, one in _SETS.items():
        if isinstance(value, one):
            return [mark, [_plain(each) for each in value]]
    if isinstance(value, list):
        return [_ESCAPED, [_plain(each) for each in value]]
    for mark, (one, write, _) in _TEXTS.items():
        if isinstance(value, one):
            return [mark, write(value)]
    msg = f"A {kind.__module__}.{kind.__qualname__} cannot be told to another process."
    raise TypeError(msg)


def _value(given: Any) -> Any:
    """Turn what JSON has into the value that it stands for."""
    if not isinstance(given, list):
        return given
    mark, *rest = given
    if mark == _STALE:
        return StaleError()
    (held,) = rest
    if mark == _ESCAPED:
        return [_value(each) for each in held]
    if mark in _SETS:
        return _SETS[mark](_value(each) for each in held)
    if mark == _MAP:
        return {_value(k): _value(v) for k, v in held}
    if mark == _DEFAULT:
        return default_count(int(held))
    if mark in _TEXTS:
        return _TEXTS[mark][2](held)
    if mark == _PROBLEM:
        status, detail, headers, errors = (_value(each) for each in held)
        return Problem(status, detail, headers=headers, errors=errors)
    return CLASSES[mark](**{name: _value(each) for name, each in held.items()})
