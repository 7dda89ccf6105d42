"""Turn dataclasses into stable hash keys, and read them from JSON written by other versions.

Unlike ``repr``, a key built here does not change when a class is renamed or new settings are added.
Fields that were added later are omitted as long as they have their default value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any


def spell(value: Any, name: str, named: Sequence[str]) -> str:
    """Represent a dataclass instance as ``name(field=value, ...)``.

    Args:
        value: an instance of a dataclass.
        name: the name of the class in the key, which may differ from its name in the code.
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
    """Select a dataclass's fields from stored values, which another version may have written.

    Args:
        kind: the dataclass.
        values: the stored values by name; unknown names are ignored.

    Returns:
        The values of the known fields, and the names of missing fields without a default.

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
