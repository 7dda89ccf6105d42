"""Spell objects out for hashes: named fields in a fixed order, not whatever ``repr`` gives today.

A key made here outlives a new class name and new settings: fields that were added later are left
out while they have their default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any


def spell(value: Any, name: str, named: Sequence[str]) -> str:
    """Spell out a dataclass instance as ``name(field=value, ...)``.

    Args:
        value: an instance of a dataclass.
        name: what the class is called in keys, whatever it is called in code.
        named: the fields that are always spelled, in this order. Any other field follows, by name,
            where its value is not its default.

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
        field, given = known[other], getattr(value, other)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if default is MISSING or given != default:
            parts.append(f"{other}={given!r}")
    return f"{name}({', '.join(parts)})"
