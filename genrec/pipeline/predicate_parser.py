"""Parse a condition such as ``price < 20 and in_stock`` into a tree of nodes.

The module ``predicates`` describes the grammar. The string is parsed with Python's ``ast`` and never
run as code. Anything outside the grammar is an error.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from genrec.errors import RequestError

Constant = bool | int | float | str

MAX_LENGTH = 10_000  # characters

MAX_DEPTH = 50  # levels of nested conditions

MAX_COMPARISONS = 500

_ALLOWED = (
    "Expected comparisons of columns with constants or columns, such as price < 20, "
    'brand == "A", brand in ("A", "B"), "mug" in title or brand is None, '
    'joined by and, or, not and parentheses; write col("unit price") for a name with spaces'
)

_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip

_DESCRIPTIONS: dict[type[ast.AST], str] = {
    ast.Attribute: "an attribute", ast.Subscript: "a subscript", ast.Lambda: "a lambda",
    ast.JoinedStr: "an f-string", ast.NamedExpr: "an assignment", ast.IfExp: "a choice by if",
    ast.Starred: "a star", ast.Dict: "a dictionary", ast.Set: "a set (write a tuple)",
    ast.Compare: "a comparison within a comparison", ast.BoolOp: "a condition within a comparison",
    ast.Tuple: "a tuple (write it after in)", ast.List: "a list (write it after in)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column, identified by its name."""

    name: str


Side = Column | Constant


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison of two sides with <, <=, >, >=, == or !=. At least one side is a column."""

    left: Side
    operator: str
    right: Side


@dataclass(frozen=True, slots=True)
class Among:
    """A condition that is true if the value of a column is one of several constants.

    If ``negated`` is True, the value must not be one of them.
    """

    column: Column
    values: tuple[Constant, ...]  # all of the same kind
    negated: bool


@dataclass(frozen=True, slots=True)
class Within:
    """A condition that is true if the text of a column contains the string ``part``.

    If ``negated`` is True, the text must not contain it.
    """

    part: str
    column: Column
    negated: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """A condition that is true if the value of a column is missing.

    If ``negated`` is True, the value must not be missing.
    """

    column: Column
    negated: bool


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that is true if another condition is false."""

    part: Node


@dataclass(frozen=True, slots=True)
class Join:
    """Several conditions that are joined by ``and`` or by ``or``."""

    all: bool  # True for ``and``, False for ``or``
    parts: tuple[Node, ...]


Node = Column | Compare | Among | Within | Missing | Not | Join


class ConditionParser:
    """A parser that turns a condition into a tree of nodes.

    Its error messages quote the part of the condition that is invalid.

    Attributes:
        text: the condition as a string.
        columns: the names of the columns in the condition, in order of first appearance.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: dict[str, None] = {}
        self._comparisons = 0

    def parse(self) -> Node:
        """Parse the condition, and return the root of the tree.

        Raises:
            RequestError: the string is not a condition, is too long, or is nested too deeply.
        """
        if not isinstance(self.text, str):
            self._refuse(f"it is of type {type(self.text).__name__}, not text")
        if not self.text.strip():
            self._refuse("it is empty")
        if len(self.text) > MAX_LENGTH:
            self._refuse(f"it has {len(self.text):,} characters, more than {MAX_LENGTH:,}")
        self.text = self.text.strip()
        try:
            return self._condition(ast.parse(self.text, mode="eval").body, 0)
        except SyntaxError as error:
            where = f" at character {error.offset}" if error.offset else ""
            self._refuse(f"{(error.msg or 'invalid syntax').rstrip('.')}{where}")
        except (RecursionError, MemoryError):
            self._refuse(f"it is nested more than {MAX_DEPTH} levels deep")
        except ValueError:
            self._refuse("it contains invalid characters (lone surrogates)")

    def _refuse(self, why: str, node: ast.AST | None = None) -> NoReturn:
        part = ast.get_source_segment(self.text, node) if node is not None else None
        quoted = f"{shorten(part)} is " if part else ""
        msg = f"The condition {shorten(self.text)} cannot be read: {quoted}{why}. {_ALLOWED}."
        raise RequestError(msg) from None

    def _condition(self, node: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._refuse(f"it is nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, ast.BoolOp):
            parts = tuple(self._condition(value, depth + 1) for value in node.values)
            return Join(isinstance(node.op, ast.And), parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Not(self._condition(node.operand, depth + 1))
        if isinstance(node, ast.Compare):
            return self._chain(node)
        column = self._column(node)
        if column is None:
            if isinstance(node, ast.Constant):
                self._refuse("a constant, where a condition is needed", node)
            self._refuse(_describe(node), node)
        self._count()
        return column

    def _chain(self, node: ast.Compare) -> Node:
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        parts = tuple(self._pair(node, *pair) for pair in pairs)
        return parts[0] if len(parts) == 1 else Join(True, parts)

    def _pair(self, whole: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Node:
        self._count()
        name = _OPERATORS[type(op)]
        if name in ("is", "is not"):
            return self._is_none(whole, left, name, right)
        if name in ("in", "not in"):
            return self._contained(whole, left, name, right)
        first, second = self._side(left), self._side(right)
        if not isinstance(first, Column) and not isinstance(second, Column):
            self._refuse("a comparison without a column", whole)
        return Compare(first, name, second)

    def _is_none(self, whole: ast.Compare, left: ast.expr, name: str, right: ast.expr) -> Missing:
        column = self._column(left)
        if column is None or not (isinstance(right, ast.Constant) and right.value is None):
            self._refuse("neither `column is None` nor `column is not None` (else write ==)", whole)
        return Missing(column, name == "is not")

    def _contained(self, whole: ast.Compare, left: ast.expr, name: str, right: ast.expr) -> Node:
        negated = name == "not in"
        column = self._column(left)
        if column is not None:
            if not isinstance(right, ast.Tuple | ast.List):
                self._refuse(
                    'not a tuple or list of constants, such as ("A", "B") or ("A",)', right
                )
            values = tuple(self._constant(value) for value in right.elts)
            kinds = {kind_of(value) for value in values}
            if len(kinds) != 1:
                self._refuse("empty or of mixed kinds; use only texts or only numbers", right)
            return Among(column, values, negated)
        inside = self._column(right)
        if inside is None:
            self._refuse("neither `column in (constants)` nor `text in column`", whole)
        part = self._constant(left)
        if not isinstance(part, str):
            self._refuse("not a text, which must stand before `in column`", left)
        return Within(part, inside, negated)

    def _side(self, node: ast.expr) -> Side:
        column = self._column(node)
        return self._constant(node) if column is None else column

    def _column(self, node: ast.expr) -> Column | None:
        """Return the column that a node such as ``price`` or ``col("unit price")`` stands for.

        The result is None if the node does not stand for a column.
        """
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id != "col":
                self._refuse("a call", node)
            match node.args, node.keywords:
                case [[ast.Constant(value=str(name))], []]:
                    pass
                case _:
                    self._refuse('not col("NAME") with one text', node)
        else:
            return None
        self.columns.setdefault(name)
        return Column(name)

    def _constant(self, node: ast.expr) -> Constant:
        value, sign = node, 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value, sign = node.operand, -1
        if not isinstance(value, ast.Constant):
            self._refuse(_describe(node), node)
        found: object = value.value
        if found is None:
            self._refuse("None, which cannot be compared (write `column is None`)", node)
        if sign < 0 and (isinstance(found, bool) or not isinstance(found, int | float)):
            self._refuse("a minus sign before something that is not a number", node)
        if isinstance(found, str):
            return self._text(found, node)
        if isinstance(found, bool):
            return found
        if not isinstance(found, int | float):
            self._refuse(f"a constant of type {type(found).__name__}", node)
        try:
            finite = bool(np.isfinite(float(found)))
        except OverflowError:
            finite = False
        if not finite:
            self._refuse("a number too large for double precision", node)
        return sign * (int(found) if found == int(found) else found)

    def _text(self, text: str, node: ast.expr) -> str:
        if not text.strip():
            self._refuse("blank, and blank text counts as missing (write `column is None`)", node)
        text.encode()  # raises ValueError if it contains lone surrogates
        return text

    def _count(self) -> None:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._refuse(f"it has more than {MAX_COMPARISONS} comparisons")


def kind_of(value: Constant) -> str:
    """Return the kind of a constant: ``truth``, ``text`` or ``number``."""
    if isinstance(value, bool):
        return "truth"
    return "text" if isinstance(value, str) else "number"


def _describe(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp):
        bitwise = isinstance(node.op, ast.BitAnd | ast.BitOr)
        return f"arithmetic (write {'and, or' if bitwise else 'a column or a constant alone'})"
    if isinstance(node, ast.UnaryOp):
        return "an unknown operator (write not, or - before a number)"
    return _DESCRIPTIONS.get(type(node), f"an unsupported expression ({type(node).__name__})")


def shorten(value: object, *, quote: bool = True) -> str:
    """Write a value as a string of at most 80 characters, for messages."""
    text = repr(value) if quote else str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
