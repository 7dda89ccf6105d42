"""Define what is understood of a query: texts, conditions, references and questions.

This module deals with texts and catalog columns, not with models.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from genrec.errors import RequestError
from genrec.text import one_line, visible

MOST_QUERY = 2000  # characters of a query
MOST_SHOWN = 1000  # characters of a query that a prompt shows
LIKE, NOT, THIS = "like", "not", "this"
CHEAPER, DEARER, NEWER, OLDER = "cheaper", "dearer", "newer", "older"
Value = str | float | bool


@dataclass(frozen=True, slots=True)
class Condition:
    """A hard condition on a column of the catalog.

    Attributes:
        column: the column.
        operator: ``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=``, ``between`` (both ends included), ``in``,
            ``not in`` or ``is`` (a truth value).
        values: the constants: one, two for ``between``, and one or more for ``in`` and ``not in``.
        text: the words of the query that say so.
        where: the same as a condition for ``QueryOptions.where``, such as ``price < 5``.
    """

    column: str
    operator: str
    values: tuple[Value, ...]
    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A part of a query that points at items.

    Attributes:
        kind: ``like`` (something like it), ``not`` (leave it out), ``this`` (the item itself), or what
            is wanted beside it: ``cheaper``, ``dearer``, ``newer`` or ``older``.
        text: the words of the query that say so.
        item_ids: the items; empty if it is not clear which ones are meant.
        place: the place in the list shown before, from 1; -1 for the last one, None if no place
            was named.
    """

    kind: str
    text: str
    item_ids: tuple[str, ...] = ()
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What has to be asked back, because a part of a query is unclear or impossible.

    Attributes:
        kind: ``no_column`` (the catalog has no column for a condition), ``no_value`` (a column does
            not have this value), ``contradiction``, ``ambiguous`` (there are several readings),
            ``reference`` (it is not clear which item is meant) or ``empty``.
        text: the words of the query that are unclear.
        question: the question, in the language of the query.
        choices: possible answers; may be empty.
    """

    kind: str
    text: str
    question: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What was understood of a query.

    Attributes:
        text: the query on one line.
        wanted: the words that say what is wanted, without those of conditions on numbers and
            dates, of counts, references and unwanted things. Values of columns, such as a color,
            remain, since titles may name them, too.
        unwanted: the words for each thing that is not wanted.
        conditions: the hard conditions, in the order of the query. All of them must hold.
        references: the items that the query points at.
        count: the number of items asked for; None if the query does not say.
        questions: what has to be asked back; empty if everything is clear.
        language: ``zh`` if the query is in Chinese, otherwise ``en``.
        accepted: the things that are said to be fine, such as "plastic" in "plastic is fine". In a
            conversation, they are no longer unwanted.
        about: True if the query asks for nothing, but says something about the speaker, such as "I bake
            a lot".
    """

    text: str
    wanted: str = ""
    unwanted: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    references: tuple[Reference, ...] = ()
    count: int | None = None
    questions: tuple[Question, ...] = ()
    language: str = "en"
    accepted: tuple[str, ...] = ()
    about: bool = False

    @property
    def where(self) -> str | None:
        """All conditions as one condition for ``QueryOptions.where``; None if there are none."""
        return join_conditions(self.conditions)

    @property
    def liked(self) -> tuple[str, ...]:
        """The ids of the items that the wanted ones should be like."""
        kinds = {LIKE, THIS, CHEAPER, DEARER, NEWER, OLDER}
        return tuple(
            dict.fromkeys(i for r in self.references if r.kind in kinds for i in r.item_ids)
        )

    @property
    def denied(self) -> tuple[str, ...]:
        """The ids of the items to leave out: unwanted ones, and those that others should be like."""
        return tuple(
            dict.fromkeys(i for r in self.references if r.kind != THIS for i in r.item_ids)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the query as a dictionary that can be written as JSON."""
        return {**to_plain(asdict(self)), "where": self.where}

    def without(self, questions: Sequence[Question]) -> Query:
        """Return the same query with other questions."""
        return replace(self, questions=tuple(questions))


def to_plain(value: Any) -> Any:
    """Return a value in which lists stand for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: to_plain(each) for name, each in value.items()}
    return [to_plain(each) for each in value] if isinstance(value, list | tuple) else value


def join_conditions(conditions: Sequence[Condition]) -> str | None:
    """Join conditions with ``and``; None if there are none."""
    parts = list(dict.fromkeys(c.where for c in conditions))
    if len(parts) < 2:
        return parts[0] if parts else None
    return " and ".join(f"({part})" for part in parts)


def check_query(given: object) -> str:
    """Check the text of a query, and return it on one line.

    Raises:
        RequestError: it is not a text, has no visible characters, or is too long.
    """
    if not isinstance(given, str):
        msg = f"The query is of type {type(given).__name__}. Expected a text."
        raise RequestError(msg)
    text = one_line(given)
    if not visible(text):
        msg = "The query is empty. Expected words that say what is wanted."
        raise RequestError(msg)
    if len(text) > MOST_QUERY:
        msg = (
            f"The query has {len(text):,} characters. Expected at most {MOST_QUERY:,}; shorten it."
        )
        raise RequestError(msg)
    return text


def shown_query(given: object) -> str:
    """Return the text of a query as a prompt shows it: the end of a long one.

    Raises:
        RequestError: it is not a valid query; see ``check_query``.
    """
    return check_query(given)[-MOST_SHOWN:].lstrip()


def write_column(name: str) -> str:
    """Write the name of a column as conditions do, such as ``price`` or ``col('unit price')``."""
    plain = name.isidentifier() and not keyword.iskeyword(name) and name.isascii()
    return name if plain else f"col({name!r})"


def condition(column: str, operator: str, values: Sequence[Value], text: str) -> Condition:
    """Build a condition; see ``Condition``.

    >>> condition("price", "between", [5.0, 10.0], "5 to 10").where
    '5 <= price <= 10'
    >>> condition("color", "not in", ["red"], "not red").where
    'not (color == "red")'
    """
    name, shown = write_column(column), [_constant(v) for v in values]
    if operator == "between":
        where = f"{shown[0]} <= {name} <= {shown[1]}"
    elif operator == "is":
        where = f"{name} == {shown[0]}"
    elif operator in {"in", "not in"}:
        inner = f"{name} in ({', '.join(shown)})" if len(shown) > 1 else f"{name} == {shown[0]}"
        where = inner if operator == "in" else f"not ({inner})"
    else:
        where = f"{name} {operator} {shown[0]}"
    return Condition(column, operator, tuple(values), text, where)


def negated(given: Condition, text: str) -> Condition:
    """Return the opposite of a condition; rows without a value satisfy it."""
    opposite = {"in": "not in", "not in": "in"}.get(given.operator)
    if opposite is not None:
        return condition(given.column, opposite, given.values, text)
    return replace(given, operator=f"not {given.operator}", text=text, where=f"not ({given.where})")


def _constant(value: Value) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, bool):
        return str(value)
    return f"{value:.15g}"
