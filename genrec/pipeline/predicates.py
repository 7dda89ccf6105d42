"""Conditions on the columns of a catalog, such as ``price < 20 and in_stock``. Knows no model.

A text is parsed by Python's ``ast`` and never run: what is not in the grammar is an error.

::

    condition   condition and condition | condition or condition | not condition | (condition)
                comparison | column                 a column of truth values alone
    comparison  column < 20, 0 < price <= 5         < <= > >= == !=, also chained
                brand in ("A", "B")                 in, not in a tuple or list of constants
                "mug" in title                      text within text, letter for letter
                brand is None, brand is not None    whether the value is missing
    column      price, title, item_id; or col("unit price") where the name is no Python name
    constant    20, -1.5, "text", True, False

**Missing values** are None, NaN and blank text (files have no other way to say None); in a column of
texts that are numbers also what says as much (NaN, null, n/a). A comparison
with a missing value is False whichever it is, ``!=`` and ``not in`` too; a missing truth value is
False. ``not`` turns the result round, so ``not price > 5`` holds where ``price`` is missing.

**Kinds.** Both sides of a comparison are numbers, texts or truth values. Beside a number, a text
column stands for numbers if every value is one; beside a truth value or alone, a column of texts
(true, false, yes, no, 0, 1, in any case) or of numbers (0, 1) stands for truth values. Two text
columns are compared as texts. Dates are ISO text. Texts are compared by code point, case and all;
whole numbers exactly, other numbers as doubles.
"""

from __future__ import annotations

import ast
import difflib
import keyword
import operator
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalog import MISSING, Catalog
from genrec.errors import RequestError
from genrec.types import BoolArray

Constant = bool | int | float | str

MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 50  # conditions within conditions
MAX_COMPARISONS = 500

_ALLOWED = (
    "Expected comparisons of columns with constants or columns, such as price < 20, "
    'brand == "A", brand in ("A", "B"), "mug" in title or brand is None, '
    'joined by and, or, not and brackets; col("unit price") for a name that is no Python name'
)
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INSTEAD = {"number": "!= 0", "text": '== "TEXT"', "other": "is not None"}
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip
_NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ARROW = {
    "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal",
    "==": "equal", "!=": "not_equal",
}  # fmt: skip
_SAID: dict[type[ast.AST], str] = {
    ast.Attribute: "an attribute", ast.Subscript: "a subscript", ast.Lambda: "a lambda",
    ast.JoinedStr: "an f-string", ast.NamedExpr: "an assignment", ast.IfExp: "a choice by if",
    ast.Starred: "a star", ast.Dict: "a dictionary", ast.Set: "a set (write a tuple)",
    ast.Compare: "a comparison within a comparison", ast.BoolOp: "a condition within a comparison",
    ast.Tuple: "a tuple (write it after in)", ast.List: "a list (write it after in)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Column:
    name: str


_Side = _Column | Constant


@dataclass(frozen=True, slots=True)
class _Compare:
    """Two sides, at least one of them a column, and an operator of ``_NUMPY``."""

    left: _Side
    operator: str
    right: _Side


@dataclass(frozen=True, slots=True)
class _Among:
    column: _Column
    values: tuple[Constant, ...]  # of one kind
    negated: bool


@dataclass(frozen=True, slots=True)
class _Within:
    part: str
    column: _Column
    negated: bool


@dataclass(frozen=True, slots=True)
class _Missing:
    column: _Column
    negated: bool


@dataclass(frozen=True, slots=True)
class _Not:
    part: _Node


@dataclass(frozen=True, slots=True)
class _Join:
    all: bool  # and; else or
    parts: tuple[_Node, ...]


_Node = _Column | _Compare | _Among | _Within | _Missing | _Not | _Join


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on catalog columns, read from a text by ``parse``.

    Attributes:
        text: as given.
        columns: the columns that it names, in order of first appearance.
    """

    text: str
    columns: tuple[str, ...]
    _root: _Node = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Reads a condition; the module says what may stand in one.

        Raises:
            RequestError: it is something else, or too long or too deep.
        """
        parser = _Parser(text)
        root = parser.parse()
        return cls(text, tuple(parser.columns), root)

    def mask(self, catalog: Catalog) -> BoolArray:
        """(N,) for which rows of a catalog the condition holds.

        Raises:
            RequestError: the catalog has no such column, or a column's kind does not fit.
        """
        for name in self.columns:
            if name not in catalog.columns:
                raise RequestError(_unknown(name, catalog.columns, self.text))
        return _Rows(self.text, catalog).of(self._root)


class _Parser:
    """From a text to nodes; every refusal quotes the part that it is about."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: dict[str, None] = {}
        self._comparisons = 0

    def parse(self) -> _Node:
        if not isinstance(self.text, str):
            self._refuse(f"it is {type(self.text).__name__}, not text")
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
            self._refuse(f"it is nested more than {MAX_DEPTH} deep")
        except ValueError:
            self._refuse("it holds characters that no text may hold")

    def _refuse(self, why: str, node: ast.AST | None = None) -> NoReturn:
        part = ast.get_source_segment(self.text, node) if node is not None else None
        quoted = f"{_short(part)} is " if part else ""
        msg = f"The condition {_short(self.text)} cannot be read: {quoted}{why}. {_ALLOWED}."
        raise RequestError(msg) from None

    def _condition(self, node: ast.expr, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            self._refuse(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(node, ast.BoolOp):
            parts = tuple(self._condition(value, depth + 1) for value in node.values)
            return _Join(isinstance(node.op, ast.And), parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _Not(self._condition(node.operand, depth + 1))
        if isinstance(node, ast.Compare):
            return self._chain(node)
        column = self._column(node)
        if column is None:
            if isinstance(node, ast.Constant):
                self._refuse("a constant where a condition is needed", node)
            self._refuse(_said(node), node)
        self._count()
        return column

    def _chain(self, node: ast.Compare) -> _Node:
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        parts = tuple(self._pair(node, *pair) for pair in pairs)
        return parts[0] if len(parts) == 1 else _Join(True, parts)

    def _pair(self, whole: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Node:
        self._count()
        name = _OPERATORS[type(op)]
        if name in ("is", "is not"):
            return self._is_none(whole, left, name, right)
        if name in ("in", "not in"):
            return self._contained(whole, left, name, right)
        first, second = self._side(left), self._side(right)
        if not isinstance(first, _Column) and not isinstance(second, _Column):
            self._refuse("a comparison without a column", whole)
        return _Compare(first, name, second)

    def _is_none(self, whole: ast.Compare, left: ast.expr, name: str, right: ast.expr) -> _Missing:
        column = self._column(left)
        if column is None or not (isinstance(right, ast.Constant) and right.value is None):
            self._refuse("neither `column is None` nor `column is not None` (else write ==)", whole)
        return _Missing(column, name == "is not")

    def _contained(self, whole: ast.Compare, left: ast.expr, name: str, right: ast.expr) -> _Node:
        negated = name == "not in"
        column = self._column(left)
        if column is not None:
            if not isinstance(right, ast.Tuple | ast.List):
                self._refuse('no tuple or list of constants, such as ("A", "B") or ("A",)', right)
            values = tuple(self._constant(value) for value in right.elts)
            kinds = {_kind_of(value) for value in values}
            if len(kinds) != 1:
                self._refuse("empty or of mixed kinds, not texts only or numbers only", right)
            return _Among(column, values, negated)
        inside = self._column(right)
        if inside is None:
            self._refuse("neither `column in (constants)` nor `text in column`", whole)
        part = self._constant(left)
        if not isinstance(part, str):
            self._refuse("no text, which is what stands before `in column`", left)
        return _Within(part, inside, negated)

    def _side(self, node: ast.expr) -> _Side:
        column = self._column(node)
        return self._constant(node) if column is None else column

    def _column(self, node: ast.expr) -> _Column | None:
        """The column that a name or ``col("...")`` stands for, else None."""
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
        return _Column(name)

    def _constant(self, node: ast.expr) -> Constant:
        value, sign = node, 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value, sign = node.operand, -1
        if not isinstance(value, ast.Constant):
            self._refuse(_said(node), node)
        found: object = value.value
        if found is None:
            self._refuse("nothing to compare with (write `column is None`)", node)
        if sign < 0 and (isinstance(found, bool) or not isinstance(found, int | float)):
            self._refuse("the negative of what is no number", node)
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
        text.encode()  # a ValueError where it holds lone surrogates
        return text

    def _count(self) -> None:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._refuse(f"it has more than {MAX_COMPARISONS} comparisons")


@dataclass(frozen=True, slots=True)
class _Values:
    """A column as what can be compared.

    Attributes:
        name: the column.
        kind: ``number``, ``text``, ``truth``, ``nothing`` (all missing) or ``other``.
        data: (N,) NumPy numbers or truth values, Arrow text with null where missing.
        missing: (N,) which rows have no value.
    """

    name: str
    kind: str
    data: Any
    missing: BoolArray


class _Rows:
    """Nodes over one catalog to (N,) masks."""

    def __init__(self, text: str, catalog: Catalog) -> None:
        self._text = text
        self._catalog = catalog
        self._values: dict[str, _Values] = {}

    def of(self, node: _Node) -> BoolArray:
        match node:
            case _Join():
                combine = np.logical_and if node.all else np.logical_or
                found = self.of(node.parts[0])
                for part in node.parts[1:]:
                    found = combine(found, self.of(part))
                return found
            case _Not():
                return ~self.of(node.part)
            case _Missing():
                missing = self._column(node.column).missing
                return ~missing if node.negated else missing.copy()
            case _Column():
                return self._alone(node)
            case _Compare():
                return self._compared(node)
            case _Among():
                return self._among(node)
            case _Within():
                return self._within(node)

    def _column(self, column: _Column) -> _Values:
        name = column.name
        if name not in self._values:
            self._values[name] = _values(name, self._catalog.column(name))
        return self._values[name]

    def _alone(self, column: _Column) -> BoolArray:
        values = self._column(column)
        if values.kind == "nothing":
            return ~values.missing
        truth, fits = _as(values, "truth")
        if not fits.all():
            name = _written(values.name)
            self._refuse(
                f"column {name} stands alone and holds {_example(values, fits)}",
                f"Expected truth values (true, false, yes, no, 0, 1); write a comparison, such as "
                f"{name} {_INSTEAD[values.kind]}",
            )
        return np.asarray(truth & ~values.missing)

    def _compared(self, node: _Compare) -> BoolArray:
        first, second = (
            self._column(s) if isinstance(s, _Column) else s for s in (node.left, node.right)
        )
        columns = [v for v in (first, second) if isinstance(v, _Values)]
        missing = np.logical_or.reduce([v.missing for v in columns])
        if any(v.kind == "nothing" for v in columns):
            return np.zeros(len(missing), dtype=bool)
        kind = _common_kind(first, second)
        if kind == "truth" and node.operator not in ("==", "!="):
            self._refuse(
                f"{node.operator} between truth values", "Expected == or != with True or False"
            )
        one, two = (self._fitted(v, other, kind) for v, other in ((first, second), (second, first)))
        if kind == "text":
            return _bools(pc.call_function(_ARROW[node.operator], [one, two]))
        return np.asarray(_NUMPY[node.operator](one, two) & ~missing)

    def _among(self, node: _Among) -> BoolArray:
        values = self._column(node.column)
        if values.kind == "nothing":
            return ~values.missing
        kind = _kind_of(node.values[0])
        data = self._fitted(values, node.values[0], kind)
        if kind == "text":
            found = _bools(pc.is_in(data, value_set=pa.array(node.values, pa.string())))
        else:
            found = np.isin(data, _representable(node.values, data.dtype))
        return (~found if node.negated else found) & ~values.missing

    def _within(self, node: _Within) -> BoolArray:
        values = self._column(node.column)
        if values.kind == "nothing":
            return ~values.missing
        data = self._fitted(values, node.part, "text")
        found = _bools(pc.match_substring(data, node.part))
        return (~found if node.negated else found) & ~values.missing

    def _fitted(self, side: _Values | Constant, other: _Values | Constant, kind: str) -> Any:
        """A side as values of a kind."""
        if not isinstance(side, _Values):
            return side
        data, fits = _as(side, kind)
        if not fits.all():
            against = (
                f"column {_written(other.name)}" if isinstance(other, _Values) else repr(other)
            )
            self._refuse(
                f"column {_written(side.name)} holds {_example(side, fits)} and is compared with "
                f"{_short(against, quote=False)}",
                "Expected two numbers, two texts (in quotes) or two truth values (True, False)",
            )
        return data

    def _refuse(self, why: str, expected: str) -> NoReturn:
        msg = f"The condition {_short(self._text)} does not fit the catalog: {why}. {expected}."
        raise RequestError(msg)


def _values(name: str, column: Any) -> _Values:
    kind = column.type
    if pa.types.is_temporal(kind):
        column = column.cast(pa.string())
        kind = column.type
    missing = np.asarray(column.is_null(), dtype=bool)
    if pa.types.is_integer(kind):
        return _of_kind(name, "number", np.asarray(column.fill_null(0)), missing)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        data = np.asarray(column.cast(pa.float64()).fill_null(np.nan))
        return _of_kind(name, "number", data, missing | np.isnan(data))
    if pa.types.is_boolean(kind):
        return _of_kind(name, "truth", np.asarray(column.fill_null(False)), missing)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words = pc.utf8_trim_whitespace(column)
        missing |= _bools(pc.equal(words, ""))
        unknown = _bools(pc.is_in(pc.utf8_lower(words), value_set=pa.array(sorted(MISSING))))
        if (missing | unknown | _bools(pc.match_substring_regex(words, _NUMBER))).all():
            missing |= unknown  # NaN among numbers is one that is missing
        return _of_kind(name, "text", pc.if_else(pa.array(missing), None, column), missing)
    return _of_kind(name, "other", column, missing)


def _of_kind(name: str, kind: str, data: Any, missing: BoolArray) -> _Values:
    return _Values(name, "nothing" if missing.all() else kind, data, missing)


def _as(values: _Values, kind: str) -> tuple[Any, BoolArray]:
    """A column's data as of a kind, and (N,) which rows can be read so; missing ones can."""
    data, fits = values.data, np.zeros(len(values.missing), dtype=bool)
    if kind == values.kind != "other":
        return data, ~fits
    if kind == "truth" and values.kind == "number":
        data = values.data == 1
        fits = data | (values.data == 0)
    elif kind == "truth" and values.kind == "text":
        words = pc.utf8_lower(pc.utf8_trim_whitespace(values.data))
        data = _bools(pc.is_in(words, value_set=pa.array(_TRUE)))
        fits = data | _bools(pc.is_in(words, value_set=pa.array(_FALSE)))
    elif kind == "number" and values.kind == "text":
        words = pc.utf8_trim_whitespace(values.data)
        fits = _bools(pc.match_substring_regex(words, _NUMBER))
        data = _numbers(words) if (fits | values.missing).all() else np.zeros(len(fits))
        fits &= np.isfinite(data)
    return data, fits | values.missing


def _numbers(words: Any) -> Any:
    """Texts that are numbers, as int64 where all can be, else as doubles; 0 where missing."""
    try:
        return np.asarray(words.cast(pa.int64()).fill_null(0))
    except pa.ArrowInvalid:
        return np.asarray(words.cast(pa.float64()).fill_null(0.0))


def _kind_of(value: _Values | Constant) -> str:
    if isinstance(value, _Values):
        return value.kind
    if isinstance(value, bool):
        return "truth"
    return "text" if isinstance(value, str) else "number"


def _common_kind(first: _Values | Constant, second: _Values | Constant) -> str:
    """As what two sides are compared: a constant's kind; of two columns the one not text."""
    for side in (first, second):
        if not isinstance(side, _Values):
            return _kind_of(side)
    kinds = {_kind_of(first), _kind_of(second)}
    return next(k for k in ("other", "truth", "number", "text") if k in kinds)


def _representable(values: Sequence[Constant], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The constants that a column of this type can hold, as an array of it."""
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        fits = [v for v in values if isinstance(v, int) and limits.min <= v <= limits.max]
        return np.array(fits, dtype=dtype)
    return np.array(values, dtype=dtype)


def _bools(column: Any) -> BoolArray:
    return np.asarray(column.fill_null(False), dtype=bool)


def _said(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp):
        bitwise = isinstance(node.op, ast.BitAnd | ast.BitOr)
        return f"arithmetic (write {'and, or' if bitwise else 'a column or a constant alone'})"
    if isinstance(node, ast.UnaryOp):
        return "a sign that is not known (write not, or - before a number)"
    return _SAID.get(type(node), f"of a kind ({type(node).__name__}) that is not known")


def _unknown(name: str, columns: Sequence[str], text: str) -> str:
    near = difflib.get_close_matches(name, columns, n=3)
    hint = f"Did you mean {' or '.join(map(_written, near))}? " if near else ""
    return (
        f"The condition {_short(text)} names the column {name!r}, which the catalog does not have. "
        f"{hint}Expected one of its columns: {', '.join(map(_written, columns))}."
    )


def _written(name: str) -> str:
    """A column's name as it is written in a condition."""
    plain = name.isidentifier() and not keyword.iskeyword(name)
    if plain and unicodedata.normalize("NFKC", name) == name:
        return name
    return f"col({name!r})"


def _example(values: _Values, fits: BoolArray) -> str:
    """What a column holds in the first row that does not fit, in words."""
    first = int(np.argmin(fits))
    if values.kind == "text":
        return f"the text {_short(values.data[first].as_py())}"
    if values.kind == "number":
        return f"the number {values.data[first]}"
    return "truth values" if values.kind == "truth" else f"values of type {values.data.type}"


def _short(value: object, *, quote: bool = True) -> str:
    text = repr(value) if quote else str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
