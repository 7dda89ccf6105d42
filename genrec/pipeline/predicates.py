"""Evaluate conditions on the columns of a catalog, such as ``price < 20 and in_stock``.

This module uses the catalog but no model. ``predicate_parser`` parses the condition, which is never
run as code.

::

    condition   condition and condition | condition or condition | not condition | (condition)
                comparison | column                 a column of truth values can stand alone
    comparison  column < 20, 0 < price <= 5         < <= > >= == !=, which can be chained
                brand in ("A", "B")                 the value is in a tuple or list; also: not in
                "mug" in title                      the text contains exactly this string
                brand is None, brand is not None    the value is missing, or not missing
    column      price, title, item_id; or col("unit price") for a name with spaces
    constant    20, -1.5, "text", True, False

**Missing values** are None, NaN and blank text (files cannot express None in any other way). If all
other values of a text column are numbers, words such as NaN, null and n/a are missing values, too.
Any comparison with a missing value is False, even ``!=`` and ``not in``. A missing truth value is
False. ``not`` negates the result, so ``not price > 5`` is True for rows without a ``price``.

**Kinds.** Both sides of a comparison are numbers, text or truth values. When a text column is
compared with a number, its values are read as numbers, which requires that every value is a number.
When a column is compared with a truth value, or used by itself, it is read as truth values. It must
then contain only the words true, false, yes, no, 0 and 1 (in any case) or the numbers 0 and 1. Two
text columns are compared as text. Dates are ISO text. Text is compared by code point; case matters.
Whole numbers are compared exactly, and other numbers as doubles.
"""

from __future__ import annotations

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
from genrec.pipeline.predicate_parser import (
    Among,
    Column,
    Compare,
    ConditionParser,
    Constant,
    Join,
    Missing,
    Node,
    Not,
    Within,
    kind_of,
    shorten,
)
from genrec.types import BoolArray

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INSTEAD = {"number": "!= 0", "text": '== "TEXT"', "other": "is not None"}
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ARROW = {
    "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal",
    "==": "equal", "!=": "not_equal",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on the columns of a catalog. It is created from a string with ``parse``.

    Attributes:
        text: the condition as the user wrote it.
        columns: the names of the columns in the condition, in order of first appearance.
    """

    text: str
    columns: tuple[str, ...]
    _root: Node = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Parse a condition that follows the grammar in the module's docstring.

        Raises:
            RequestError: the string is not a condition, is too long, or is nested too deeply.
        """
        parser = ConditionParser(text)
        root = parser.parse()
        return cls(text, tuple(parser.columns), root)

    def mask(self, catalog: Catalog) -> BoolArray:
        """Evaluate the condition on a catalog.

        Returns:
            A mask that is True for each catalog row that meets the condition.

        Raises:
            RequestError: the catalog has no such column, or the type of a column does not match the
                condition.
        """
        for name in self.columns:
            if name not in catalog.columns:
                raise RequestError(_unknown(name, catalog.columns, self.text))
        return _Rows(self.text, catalog).of(self._root)


@dataclass(frozen=True, slots=True)
class _Values:
    """A column whose values have been prepared for comparisons. N is the number of rows.

    Attributes:
        name: the name of the column.
        kind: the kind of the values: ``number``, ``text``, ``truth``, ``other``, or ``nothing`` if
            all values are missing.
        data: (N,) the values. Numbers and truth values are NumPy arrays. Texts are Arrow arrays, in
            which null stands for a missing value.
        missing: (N,) a mask that is True for rows without a value.
    """

    name: str
    kind: str
    data: Any
    missing: BoolArray


class _Rows:
    """An evaluator of nodes on one catalog. Each result is a mask over the catalog's rows."""

    def __init__(self, text: str, catalog: Catalog) -> None:
        self._text = text
        self._catalog = catalog
        self._values: dict[str, _Values] = {}

    def of(self, node: Node) -> BoolArray:
        match node:
            case Join():
                combine = np.logical_and if node.all else np.logical_or
                found = self.of(node.parts[0])
                for part in node.parts[1:]:
                    found = combine(found, self.of(part))
                return found
            case Not():
                return ~self.of(node.part)
            case Missing():
                missing = self._column(node.column).missing
                return ~missing if node.negated else missing.copy()
            case Column():
                return self._alone(node)
            case Compare():
                return self._compared(node)
            case Among():
                return self._among(node)
            case Within():
                return self._within(node)

    def _column(self, column: Column) -> _Values:
        name = column.name
        if name not in self._values:
            self._values[name] = _values(name, self._catalog.column(name))
        return self._values[name]

    def _alone(self, column: Column) -> BoolArray:
        values = self._column(column)
        if values.kind == "nothing":
            return ~values.missing
        truth, fits = _as(values, "truth")
        if not fits.all():
            name = _written(values.name)
            self._refuse(
                f"column {name} stands alone and contains {_example(values, fits)}",
                f"Expected truth values (true, false, yes, no, 0, 1); write a comparison, such as "
                f"{name} {_INSTEAD[values.kind]}",
            )
        return np.asarray(truth & ~values.missing)

    def _compared(self, node: Compare) -> BoolArray:
        first, second = (
            self._column(s) if isinstance(s, Column) else s for s in (node.left, node.right)
        )
        columns = [v for v in (first, second) if isinstance(v, _Values)]
        missing = np.logical_or.reduce([v.missing for v in columns])
        if any(v.kind == "nothing" for v in columns):
            return np.zeros(len(missing), dtype=bool)
        kind = _common_kind(first, second)
        if kind == "truth" and node.operator not in ("==", "!="):
            self._refuse(
                f"it compares truth values by {node.operator}",
                "Expected == or != with True or False",
            )
        one, two = (self._fitted(v, other, kind) for v, other in ((first, second), (second, first)))
        if kind == "text":
            return _bools(pc.call_function(_ARROW[node.operator], [one, two]))
        return np.asarray(_NUMPY[node.operator](one, two) & ~missing)

    def _among(self, node: Among) -> BoolArray:
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

    def _within(self, node: Within) -> BoolArray:
        values = self._column(node.column)
        if values.kind == "nothing":
            return ~values.missing
        data = self._fitted(values, node.part, "text")
        found = _bools(pc.match_substring(data, node.part))
        return (~found if node.negated else found) & ~values.missing

    def _fitted(self, side: _Values | Constant, other: _Values | Constant, kind: str) -> Any:
        """Convert one side of a comparison to a kind of values, such as ``number``.

        The other side is only named in the error message.
        """
        if not isinstance(side, _Values):
            return side
        data, fits = _as(side, kind)
        if not fits.all():
            against = (
                f"column {_written(other.name)}" if isinstance(other, _Values) else repr(other)
            )
            self._refuse(
                f"column {_written(side.name)} contains {_example(side, fits)} and is compared with "
                f"{shorten(against, quote=False)}",
                "Expected two numbers, two texts (in quotes) or two truth values (True, False)",
            )
        return data

    def _refuse(self, why: str, expected: str) -> NoReturn:
        msg = f"The condition {shorten(self._text)} does not fit the catalog: {why}. {expected}."
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
            missing |= unknown  # NaN among numbers is a missing value
        return _of_kind(name, "text", pc.if_else(pa.array(missing), None, column), missing)
    return _of_kind(name, "other", column, missing)


def _of_kind(name: str, kind: str, data: Any, missing: BoolArray) -> _Values:
    return _Values(name, "nothing" if missing.all() else kind, data, missing)


def _as(values: _Values, kind: str) -> tuple[Any, BoolArray]:
    """Convert the values of a column to another kind, such as ``number``.

    Returns:
        The converted values, and a mask that is False for rows that cannot be converted.
    """
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
    """Convert texts to integers if all are whole numbers, and otherwise to floating-point numbers.

    Missing values become 0.
    """
    try:
        return np.asarray(words.cast(pa.int64()).fill_null(0))
    except pa.ArrowInvalid:
        return np.asarray(words.cast(pa.float64()).fill_null(0.0))


def _kind_of(side: _Values | Constant) -> str:
    return side.kind if isinstance(side, _Values) else kind_of(side)


def _common_kind(first: _Values | Constant, second: _Values | Constant) -> str:
    """Return the kind of values to which both sides of a comparison must be converted.

    A constant determines the kind. Between two columns, a column that is not text determines it.
    """
    for side in (first, second):
        if not isinstance(side, _Values):
            return _kind_of(side)
    kinds = {_kind_of(first), _kind_of(second)}
    return next(k for k in ("other", "truth", "number", "text") if k in kinds)


def _representable(values: Sequence[Constant], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the constants that fit into a NumPy type, as an array of that type."""
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        fits = [v for v in values if isinstance(v, int) and limits.min <= v <= limits.max]
        return np.array(fits, dtype=dtype)
    return np.array(values, dtype=dtype)


def _bools(column: Any) -> BoolArray:
    return np.asarray(column.fill_null(False), dtype=bool)


def _unknown(name: str, columns: Sequence[str], text: str) -> str:
    near = difflib.get_close_matches(name, columns, n=3)
    hint = f"Did you mean {' or '.join(map(_written, near))}? " if near else ""
    return (
        f"The condition {shorten(text)} names the column {name!r}, which the catalog does not have. "
        f"{hint}Expected one of its columns: {', '.join(map(_written, columns))}."
    )


def _written(name: str) -> str:
    """Write the name of a column in the form that conditions use, such as ``col('unit price')``."""
    plain = name.isidentifier() and not keyword.iskeyword(name)
    if plain and unicodedata.normalize("NFKC", name) == name:
        return name
    return f"col({name!r})"


def _example(values: _Values, fits: BoolArray) -> str:
    """Describe the first value that could not be converted, for an error message."""
    first = int(np.argmin(fits))
    if values.kind == "text":
        return f"the text {shorten(values.data[first].as_py())}"
    if values.kind == "number":
        return f"the number {values.data[first]}"
    return "truth values" if values.kind == "truth" else f"values of type {values.data.type}"
