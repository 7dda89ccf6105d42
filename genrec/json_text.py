"""Serialize plain values as JSON, and reject every other value."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(value: Any, *, indent: int | None = 2, escape: bool = False) -> str:
    """Serialize a value as JSON that can be parsed back to the same value, apart from tuples.

    The types must match exactly. A NumPy number is rejected even where ``json`` would accept it, since
    the same expression may give a plain number for one input and a NumPy number for another.

    Args:
        value: dictionaries with strings as keys, lists, tuples, strings, booleans, whole numbers,
            finite floating-point numbers and None, nested in any way.
        indent: the number of spaces per level; None to write everything on one line.
        escape: True to escape all characters that are not ASCII.

    Raises:
        TypeError: the value contains a value of another type. The message says where it is.
        ValueError: the value contains NaN or an infinite number. The message says where it is.
    """
    _check(value, "the value")
    return json.dumps(value, ensure_ascii=escape, indent=indent, allow_nan=False)


def _check(value: Any, where: str) -> None:
    """Check that a value and its contents are plain; ``where`` names its location in messages."""
    kind = type(value)
    if kind is dict:
        for key, inner in value.items():
            if type(key) is not str:
                msg = f"A key of {where} has the type {_name(key)}. Expected a string."
                raise TypeError(msg)
            _check(inner, f"{where}[{key!r}]")
    elif kind is list or kind is tuple:
        for index, inner in enumerate(value):
            _check(inner, f"{where}[{index}]")
    elif kind is float:
        if not math.isfinite(value):
            msg = f"{where} is {value}. Expected a finite number, or None for a missing one."
            raise ValueError(msg)
    elif value is not None and kind not in {str, int, bool}:
        msg = f"{where} has the type {_name(value)}. Expected a plain Python value."
        raise TypeError(msg)


def _name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
