"""Find out which words of a query can refer to a catalog's columns and their values.

A column is recognized by the words of its name and the kind of its values. This module deals with
columns, not with queries.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from genrec.data.catalog import MISSING, Catalog
from genrec.text import normalized, script
from genrec.types import FloatArray

_PRICE = ("price", "cost", "rrp", "msrp", "preis", "价格", "售价", "单价", "价钱", "定价")
_RATING = ("rating", "star", "score", "评分", "星级")
_STOCK = (
    "in_stock", "stock", "available", "availability", "inventory", "库存", "有货", "现货",
)  # fmt: skip
_TIME = (  # words in the names of columns that say when an item came out, the most suitable first
    "year", "年份", "released", "release", "premiered", "published", "publication", "pubdate",
    "出版", "上映", "发行", "发布", "date", "日期", "年", "available_from",
)  # fmt: skip
_MAKERS = (
    "brand", "author", "publisher", "artist", "maker", "manufacturer", "director", "designer",
    "vendor", "label", "studio", "company", "writer", "band", "品牌", "作者", "出版社", "导演", "厂商",
)  # fmt: skip
_LOOKS = (
    "color", "colour", "size", "language", "material", "fabric", "finish", "format", "style", "颜色",
    "尺寸", "尺码", "语言", "材质", "材料",
)  # fmt: skip
_KINDS = (
    "category", "genre", "type", "department", "kind", "tag", "topic", "subject", "season", "flavor",
    "flavour", "类别", "分类", "类型", "种类", "主题", "商品类型",
)  # fmt: skip
_TRUTHS = {"true", "false", "yes", "no", "0", "1"}
_DATE = re.compile(r"^\d{4}-\d{2}(-\d{2})?([T ].*)?$")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)$")
_SEPARATORS = ("|", ";", ", ")
_LONGEST = 60  # characters of a value on average; longer texts are descriptions
_MOST_VALUES = 200  # values of a column that a condition lists
_DULL = {  # values that are also words of any query
    "a", "all", "an", "any", "in", "is", "it", "me", "more", "new", "no", "none", "not", "of", "on", "one",
    "other", "others", "some", "the", "this", "to", "unknown", "various", "yes", "item", "items", "product",
    "products", "good", "best", "like", "other items",
}  # fmt: skip


def stem(word: str) -> str:
    """Remove the plural ending of an English word.

    >>> stem("mugs"), stem("berries"), stem("glass"), stem("boxes")
    ('mug', 'berry', 'glass', 'box')
    """
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def stems(text: str) -> tuple[str, ...]:
    """Return the normalized words of a text without plural endings."""
    return tuple(stem(word) for word in normalized(text).split())


def is_han(text: str) -> bool:
    """Check whether a text has Chinese characters."""
    return any(script(c) == "han" for c in text)


@dataclass(frozen=True, slots=True)
class NamedValue:
    """A value of a column as a query may name it.

    Attributes:
        column: the column.
        values: the values of the column that count as this one; empty for a column of truth values
            that is named itself.
        shown: the value as the catalog writes it.
        bare: True if the value counts without the name of its column or a word such as "by".
    """

    column: str
    values: tuple[str, ...]
    shown: str
    bare: bool


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A column that says when items came out.

    Attributes:
        name: the column.
        dated: True if it has ISO dates as texts, False if it has years as numbers.
    """

    name: str
    dated: bool


class CatalogWords:
    """The words by which queries can refer to the columns of a catalog.

    Attributes:
        catalog: the catalog.
        numbers: the columns of numbers with their (N,) values, NaN where one is missing.
        truths: the columns of truth values.
        texts: the columns of short texts with the number of items for each value.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Sort the columns of a catalog by the kind of their values."""
        self.catalog = catalog
        self.numbers: dict[str, FloatArray] = {}
        self.truths: list[str] = []
        self.texts: dict[str, Counter[str]] = {}
        self._dates: list[str] = []
        for name in catalog.columns:
            if name not in {"item_id", "title"}:
                self._sort(name, catalog.column(name))

    def _sort(self, name: str, column: pa.Array) -> None:
        kind = column.type
        if pa.types.is_boolean(kind):
            self.truths.append(name)
            return
        if pa.types.is_temporal(kind):
            self._dates.append(name)
            return
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            values = np.asarray(column.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
            self._add_numbers(name, values)
            return
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return
        texts = [t if t is not None and t.strip().lower() not in MISSING else None
                 for t in column.to_pylist()]  # fmt: skip
        known = [t for t in texts if t is not None]
        if not known:
            return
        if all(_NUMBER.match(t.strip()) for t in known):
            self._add_numbers(
                name, np.array([np.nan if t is None else float(t) for t in texts], dtype=np.float64)
            )
        elif all(_DATE.match(t) for t in known):
            self._dates.append(name)
        elif {t.strip().lower() for t in known} <= _TRUTHS:
            self.truths.append(name)
        elif sum(map(len, known)) <= _LONGEST * len(known):
            self.texts[name] = Counter(known)

    def _add_numbers(self, name: str, values: FloatArray) -> None:
        found = set(np.unique(values[np.isfinite(values)]).tolist())
        if found and found <= {0.0, 1.0}:
            self.truths.append(name)
        elif found:
            self.numbers[name] = values

    # Columns with a meaning

    @cached_property
    def price(self) -> str | None:
        """The column of prices; None if there is none."""
        return _best(self.numbers, _PRICE)

    @cached_property
    def rating(self) -> str | None:
        """The column of ratings; None if there is none."""
        return _best(self.numbers, _RATING)

    @cached_property
    def stock(self) -> tuple[str, bool] | None:
        """The column that says what is in stock, and True if it counts; None if there is none."""
        truth = _best(self.truths, _STOCK)
        if truth is not None:
            return truth, False
        counted = _best(self.numbers, _STOCK)
        return None if counted is None else (counted, True)

    @cached_property
    def time(self) -> TimeColumn | None:
        """The column that says when items came out; None if there is none."""
        years = [
            name
            for name, values in self.numbers.items()
            if ((values >= 1000) & (values <= 2200) | np.isnan(values)).all()
        ]
        name = _best([*years, *self._dates], _TIME)
        return None if name is None else TimeColumn(name, name in self._dates)

    def number(self, words: str) -> str | None:
        """Return the column of numbers whose name has these words, such as "pages"."""
        wanted = set(stems(words))
        for name in self.numbers:
            if wanted and wanted <= set(stems(name)):
                return name
        if wanted & {"star", "point", "星", "分"}:
            return self.rating
        return None

    # Values

    @cached_property
    def _named(
        self,
    ) -> tuple[dict[tuple[str, ...], list[NamedValue]], list[tuple[str, NamedValue]]]:
        """Values by their stemmed words, and values with Chinese characters, longest first."""
        by_words: dict[tuple[str, ...], list[NamedValue]] = {}
        chinese: list[tuple[str, NamedValue]] = []
        for value in self._values():
            key = stems(value.shown)
            if is_han(value.shown):
                chinese.append((normalized(value.shown), value))
            elif key:
                by_words.setdefault(key, []).append(value)
        chinese.sort(key=lambda one: -len(one[0]))
        return by_words, chinese

    def _values(self) -> Iterable[NamedValue]:
        for name in self.truths:
            if name != (self.stock or ("",))[0]:
                yield NamedValue(name, (), name.removeprefix("is_").replace("_", " "), True)
        for name, counts in self.texts.items():
            known = any(stem(word) in _words(name) for word in (*_MAKERS, *_LOOKS, *_KINDS))
            repeated = len(counts) <= max(1, counts.total() // 2)
            parts: dict[tuple[str, ...], list[str]] = {}
            shown: dict[tuple[str, ...], str] = {}
            for value in counts:
                for part in _parts(value, self._separator(name)):
                    key = stems(part) or (part,)
                    shown.setdefault(key, part)
                    parts.setdefault(key, []).append(value)
            for key, values in parts.items():
                plain = normalized(shown[key])
                lettered = any(c.isalpha() for c in plain) and (len(plain) > 1 or is_han(plain))
                bare = (known or repeated) and lettered and plain not in _DULL
                yield NamedValue(name, tuple(values), shown[key], bare)

    def _separator(self, name: str) -> str | None:
        """Return what separates the values of a cell; None if a cell has one value."""
        counts, maker = self.texts[name], any(stem(w) in _words(name) for w in _MAKERS)
        for mark in _SEPARATORS:
            if maker and mark == ", ":
                continue  # "Austen, Jane" is one author
            several = [value for value in counts if mark in value]
            if len(several) * 10 < len(counts):
                continue
            parts = [part for value in counts for part in _parts(value, mark)]
            if len(set(parts)) * 3 <= len(parts) * 2:
                return mark
        return None

    def find(self, words: tuple[str, ...]) -> list[NamedValue]:
        """Return the values with these stemmed words."""
        return self._named[0].get(words, [])

    @cached_property
    def longest(self) -> int:
        """The largest number of words of a value."""
        return max((len(key) for key in self._named[0]), default=0)

    @property
    def chinese(self) -> list[tuple[str, NamedValue]]:
        """The normalized values with Chinese characters, longest first."""
        return self._named[1]

    @cached_property
    def column_words(self) -> dict[tuple[str, ...], str]:
        """The columns by the stemmed words of their names, without item_id and title."""
        names = [*self.texts, *self.truths, *self.numbers, *self._dates]
        found = {tuple(_words(name)): name for name in names}
        for words, name in list(found.items()):
            other = {"color": "colour", "colour": "color", "flavor": "flavour", "flavour": "flavor"}
            found.setdefault(tuple(other.get(word, word) for word in words), name)
        return found

    def too_many(self, value: NamedValue) -> bool:
        """Check whether a condition cannot list the cells that contain a value."""
        return len(value.values) > _MOST_VALUES


def fits_cue(column: str, cue: str) -> bool:
    """Check whether a word such as "by" can stand before the values of a column.

    Args:
        column: the column.
        cue: ``by``, ``in``, ``from`` or another word, which fits every column.
    """
    words = _words(column)
    makers = any(stem(w) in words for w in _MAKERS)
    looks = any(stem(w) in words for w in _LOOKS)
    return {"by": makers, "in": looks, "from": not looks}.get(cue, True)


def _words(name: str) -> list[str]:
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ")
    words = [stem(word) for word in normalized(split).split()]
    return [*words, *(w for w in (*_MAKERS, *_LOOKS, *_KINDS) if is_han(w) and w in split)]


def _parts(value: str, mark: str | None) -> list[str]:
    parts = [value] if mark is None else value.split(mark.strip())
    return [part.strip() for part in parts if part.strip()]


def _best(names: Iterable[str], words: tuple[str, ...]) -> str | None:
    """Return the name that contains the earliest of some words; shorter names first."""
    found: list[tuple[int, int, str]] = []
    for name in names:
        split = _words(name)
        for place, word in enumerate(words):
            if stem(word) in split or word == name.lower() or (is_han(word) and word in name):
                found.append((place, len(split), name))
                break
    return min(found)[2] if found else None
