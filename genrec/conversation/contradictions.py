"""Find conditions that no item can satisfy together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from genrec.conversation.query import Condition, Question
from genrec.conversation.questions import Asker

_LOW, _HIGH = {">", ">=", "==", "between"}, {"<", "<=", "==", "between"}


def find_contradictions(
    conditions: Sequence[Condition], asker: Asker
) -> tuple[list[Condition], list[Question]]:
    """Separate conditions that contradict each other from the others.

    Args:
        conditions: the conditions, all of which should hold.
        asker: writes the questions.

    Returns:
        The conditions without those that contradict each other, and a question for each column with
        a contradiction.
    """
    columns: dict[str, list[Condition]] = {}
    for one in conditions:
        columns.setdefault(one.column, []).append(one)
    clashing = {name: c for name, c in columns.items() if _bounds_clash(c) or _values_clash(c)}
    questions = [asker.contradiction([c.text for c in several]) for several in clashing.values()]
    return [c for c in conditions if c.column not in clashing], questions


def _bounds_clash(conditions: Sequence[Condition]) -> bool:
    low, high, open_low, open_high = -math.inf, math.inf, False, False
    for one in conditions:
        if not all(isinstance(v, float) for v in one.values):
            continue
        first, last = float(one.values[0]), float(one.values[-1])
        if one.operator in _LOW and (first, one.operator == ">") > (low, open_low):
            low, open_low = first, one.operator == ">"
        if one.operator in _HIGH and (last, one.operator != "<") < (high, not open_high):
            high, open_high = last, one.operator == "<"
    return low > high or (low == high and (open_low or open_high))


def _values_clash(conditions: Sequence[Condition]) -> bool:
    wanted = [set(c.values) for c in conditions if c.operator == "in"]
    refused = {v for c in conditions if c.operator == "not in" for v in c.values}
    truths = {c.operator for c in conditions if c.operator in {"is", "not is"}}
    if len(truths) > 1:
        return True
    if not wanted:
        return False
    common = set.intersection(*wanted)
    return not common or common <= refused
