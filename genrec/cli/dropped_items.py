"""Read which items ``prepare`` leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.cli import values

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog
    from genrec.pipeline.predicates import Predicate

_CONDITION = re.compile(r"[<>=]|\b(in|is|not)\b")


def read_drops(given: Sequence[str]) -> Collection[str] | Callable[[Catalog], Collection[str]]:
    """Read the items to leave out, given as ids, as files of ids or as conditions.

    Returns:
        The ids, or a function that chooses them from the catalog if there is a condition.
    """
    from genrec.pipeline.predicates import Predicate

    ids: list[str] = []
    conditions: list[Predicate] = []
    for one in given:
        if Path(one).is_file():
            ids += values.read_ids([one])
        elif _CONDITION.search(one):
            conditions.append(Predicate.parse(one))
        else:
            ids += values.read_list([one])
    if not conditions:
        return ids

    def choose(catalog: Catalog) -> list[str]:
        masks = [p.mask(catalog) for p in conditions]
        return ids + [i.item_id for row, i in enumerate(catalog) if any(m[row] for m in masks)]

    return choose
