"""Work with dataclasses that outlive a version: spell them out for hashes, read them from JSON.

A key made here survives a new class name and new settings, which ``repr`` would not: fields that
were added later are left out as long as they have their default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any


def spell(value: Any, name: str, named: Sequence[str]) -> str:
    """Spell out a dataclass instance as ``name(field=value, ...)``.

    Args:
        value: an instance of a dataclass.
        name: the name of the class in keys, whatever its name in code.
        named: the fields that are always spelled, in this order. Any other field follows, sorted by
            name, unless its value is its default.

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
    """Pick a dataclass's fields from stored values, which another version may have written.

    Args:
        kind: the dataclass.
        values: the stored values by name; unknown names are ignored.

    Returns:
        The values of known fields; the names of missing fields that have no default.

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
    """Return the default of a field, or ``MISSING``."""
    return field.default if field.default_factory is MISSING else field.default_factory()
