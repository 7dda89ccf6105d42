"""Represent dataclass instances as stable text keys, and pick a dataclass's fields from JSON.

The keys are hashed to recognize stored results. Unlike ``repr``, a key does not change when a class
is renamed or a setting is added, because a new field is left out while it has its default value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any


def spell(value: Any, name: str, named: Sequence[str]) -> str:
    """Represent a dataclass instance as the text ``name(field=value, ...)``.

    Args:
        value: an instance of a dataclass.
        name: the class name to write in the text, which may differ from the name in the code.
        named: the fields that are always included, in this order. Other fields follow, sorted by
            name, unless they have their default value.

    Raises:
        KeyError: the instance lacks a named field.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Renamed:
    ...     case: str = "lower"
    ...     new: int = 0
    >>> spell(Renamed(), "Form", ["case"]), spell(Renamed(new=2), "Form", ["case"])
    ("Form(case='lower')", "Form(case='lower', new=2)")
    """
    known = {f.name: f for f in fields(value)}
    parts = [f"{known[n].name}={getattr(value, n)!r}" for n in named]
    for other in sorted(set(known) - set(named)):
        given = getattr(value, other)
        default = _default(known[other])
        if default is MISSING or given != default:
            parts.append(f"{other}={given!r}")
    return f"{name}({', '.join(parts)})"


def pick_fields(kind: type, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Pick the stored values that belong to the fields of a dataclass.

    The values may have been stored by another version of genrec, which had more or fewer fields.

    Args:
        kind: the dataclass.
        values: the stored values by field name. Names that the dataclass does not have are ignored.

    Returns:
        The values of the dataclass's fields, and the names of the fields that have neither a stored
        value nor a default.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Form:
    ...     case: str
    ...     new: int = 0
    >>> pick_fields(Form, {"case": "lower", "old": 1}), pick_fields(Form, {})
    (({'case': 'lower'}, []), ({}, ['case']))
    """
    known = {f.name: values[f.name] for f in fields(kind) if f.name in values}
    lacking = [f.name for f in fields(kind) if f.name not in known and _default(f) is MISSING]
    return known, lacking


def _default(field: Field[Any]) -> Any:
    """Return the default of a field, or ``MISSING`` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()
