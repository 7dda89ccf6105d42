"""Predicates against a reference that evaluates every row alone, in plain Python."""

from __future__ import annotations

import contextlib
import datetime
import operator
import pickle
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from genrec.data.catalog import Catalog, Item
from genrec.errors import RequestError
from genrec.pipeline.predicate_parser import MAX_DEPTH, MAX_LENGTH
from genrec.pipeline.predicates import Predicate

Row = dict[str, Any]
Test = Callable[[Row], bool]

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
TRUE = {"true", "yes", "1"}
COLUMNS = {
    "price": st.one_of(st.none(), st.just(float("nan")), st.sampled_from([-1.5, 0.0, 2.0, 7.25])),
    "n": st.one_of(st.none(), st.integers(-2, 8), st.just(2**53 + 1)),
    "unit price": st.one_of(st.integers(-2, 8), st.sampled_from([0.5, 2.5])),
    "code": st.sampled_from(["007", "2", " 2.0 ", "-1.5", "1e0", "", None]),
    "brand": st.sampled_from(["A", "B", "ab", "ÄB", "红色", " ", None]),
    "origin": st.sampled_from(["A", "b", "%", "", None]),
    "stock": st.sampled_from(["yes", "No", "TRUE", "false", "1", "0 ", "", None]),
    "flag": st.sampled_from([True, False, None]),
    "bits": st.sampled_from([0, 1, None]),
    "none": st.none(),
}
NUMBERS = ["price", "n", "unit price", "code", "none"]
TEXTS = ["title", "brand", "origin", "code", "none"]
TRUTHS = ["stock", "flag", "bits", "none"]
TEXT_COLUMNS = {"title", "brand", "origin", "code", "stock"}


def is_missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def written(name: str) -> str:
    return name if name.isidentifier() else f'col("{name}")'


def as_number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def as_truth(value: Any) -> bool:
    return value.strip().lower() in TRUE if isinstance(value, str) else bool(value)


READ: dict[str, Callable[[Any], Any]] = {"number": as_number, "text": str, "truth": as_truth}


@st.composite
def sides(draw: st.DrawFn, kind: str) -> tuple[str, str | None, Any]:
    """Text, column (or None) and constant of one side of a comparison."""
    if draw(st.booleans()):
        name = draw(st.sampled_from({"number": NUMBERS, "text": TEXTS, "truth": TRUTHS}[kind]))
        return written(name), name, None
    value: Any = draw(CONSTANTS[kind])
    return repr(value), None, value


CONSTANTS: dict[str, st.SearchStrategy[Any]] = {
    "number": st.sampled_from([-1, 0, 1, 2, 7, -1.5, 2.0, 2.5, 7.25, 2**53, 2**53 + 1, 2**70]),
    "text": st.sampled_from(["A", "ab", "ÄB", "红色", "007", "2", "red mug", 'a "b"', "it's"]),
    "truth": st.booleans(),
}


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Test]:
    """A comparison of two or three sides, no two neighbours of which are constants."""
    kind = draw(st.sampled_from(["number", "text", "truth"]))
    chain = [draw(sides(kind)) for _ in range(draw(st.integers(2, 3)))]
    for at in range(len(chain) - 1):
        if chain[at][1] is None and chain[at + 1][1] is None:
            name = {"number": "price", "text": "brand", "truth": "flag"}[kind]
            chain[at + 1] = (name, name, None)
    columns = [side[1] for side in chain]
    pairs = [set(pair) for pair in pairwise(columns)]
    assume({"stock", "bits"} not in pairs)  # numbers beside words
    names = ["==", "!="] if kind == "truth" else list(OPERATORS)
    ops = [draw(st.sampled_from(names)) for _ in chain[1:]]
    text = chain[0][0] + "".join(
        f" {op} {side[0]}" for op, side in zip(ops, chain[1:], strict=True)
    )

    def holds(row: Row) -> bool:
        for (_, one, a), op, (_, two, b) in zip(chain, ops, chain[1:], strict=False):
            read = str if {one, two} <= TEXT_COLUMNS else READ[kind]
            left = a if one is None else row[one]
            right = b if two is None else row[two]
            if is_missing(left) or is_missing(right):
                return False
            left, right = read(left), read(right)
            if isinstance(left, float) or isinstance(right, float):  # as doubles
                left, right = (float(v) if kind == "number" else v for v in (left, right))
            if not OPERATORS[op](left, right):
                return False
        return True

    return text, holds


@st.composite
def others(draw: st.DrawFn) -> tuple[str, Test]:
    """in, text in text, is None, and a column alone."""
    negated = draw(st.booleans())
    form = draw(st.sampled_from(["among", "within", "missing", "alone"]))
    if form == "among":
        kind = draw(st.sampled_from(["number", "text", "truth"]))
        name = draw(st.sampled_from({"number": NUMBERS, "text": TEXTS, "truth": TRUTHS}[kind]))
        values = draw(st.lists(CONSTANTS[kind], min_size=1, max_size=3))
        listed = draw(st.sampled_from([values, tuple(values)]))
        text = f"{written(name)} {'not ' * negated}in {listed!r}"

        def holds(row: Row) -> bool:
            value = row[name]
            return not is_missing(value) and (READ[kind](value) in values) != negated
    elif form == "within":
        name = draw(st.sampled_from(TEXTS))
        part = draw(st.sampled_from(["A", "B", "ed m", "%", ".", "色", "mug", " x"]))
        text = f"{part!r} {'not ' * negated}in {written(name)}"

        def holds(row: Row) -> bool:
            return not is_missing(row[name]) and (part in row[name]) != negated
    elif form == "missing":
        name = draw(st.sampled_from(sorted({*COLUMNS, "title"})))
        text = f"{written(name)} is {'not ' * negated}None"

        def holds(row: Row) -> bool:
            return is_missing(row[name]) != negated
    else:
        name = draw(st.sampled_from(TRUTHS))
        text = written(name)

        def holds(row: Row) -> bool:
            return not is_missing(row[name]) and as_truth(row[name])

    return text, holds


def joined(parts: st.SearchStrategy[tuple[str, Test]]) -> st.SearchStrategy[tuple[str, Test]]:
    def of(word: str, pairs: list[tuple[str, Test]]) -> tuple[str, Test]:
        text = f" {word} ".join(f"({t})" for t, _ in pairs)
        over = all if word == "and" else any
        return text, lambda row: over(holds(row) for _, holds in pairs)

    def negated(pair: tuple[str, Test]) -> tuple[str, Test]:
        return f"not ({pair[0]})", lambda row: not pair[1](row)

    several = st.lists(parts, min_size=2, max_size=3)
    return st.one_of(st.builds(of, st.sampled_from(["and", "or"]), several), parts.map(negated))


conditions = st.recursive(st.one_of(comparisons(), others()), joined, max_leaves=6)
rows = st.fixed_dictionaries(
    {"title": st.sampled_from(["red mug", "RED MUG", 'a "b"', "it's 100% red"]), **COLUMNS}
)


def catalog_of(table: list[Row]) -> Catalog:
    return Catalog(
        Item(str(i), row["title"], {k: v for k, v in row.items() if k != "title"})
        for i, row in enumerate(table)
    )


@given(st.lists(rows, min_size=1, max_size=6), conditions)
def test_equals_each_row_alone(table: list[Row], condition: tuple[str, Test]) -> None:
    text, holds = condition
    predicate = Predicate.parse(text)
    mask = predicate.mask(catalog_of(table))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [holds(row) for row in table], text
    assert all(written(name) in text for name in predicate.columns)


SHOP: list[Row] = [
    {"title": "red mug", "price": 3.5, "stock": "yes", "brand": "A", "n": 1, "code": "007"},
    {"title": "blue cup", "price": None, "stock": "", "brand": "", "n": 5, "code": "x8"},
    {"title": "Red Cup", "price": 25, "stock": "no", "brand": "B", "n": 2**62, "code": "9"},
]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("price < 20 and stock", [0]),
        ("brand in ('A', 'B') and not (n == 1 or price != 3)", []),
        ("0 < price <= 5", [0]),
        ("price != 3.5", [2]),  # not where it is missing
        ("not price == 3.5", [1, 2]),
        ("price not in (3.5, 4)", [2]),
        ("brand is None", [1]),
        ("brand is not None", [0, 2]),
        ("'red' in title", [0]),
        ("'A' not in brand", [2]),
        ("stock", [0]),
        ("not stock", [1, 2]),
        ("stock == False", [2]),
        ("item_id >= '1' ", [1, 2]),
        ("title == 'red mug' or title > 'a'", [0, 1]),
        ("n > 4611686018427387903", [2]),
        ("n < 1e300 and n > -10", [0, 1, 2]),
        ("n in (4611686018427387904, 1.5)", [2]),
        ("code == '007'", [0]),
        ("price < n", [2]),
        ("(price\n < 20)  # cheap", [0]),
    ],
)
def test_examples(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(Predicate.parse(text).mask(catalog_of(SHOP))).tolist() == rows


def test_columns_come_once_in_order() -> None:
    predicate = Predicate.parse('price < 3 and col("unit price") < price or "x" in title')
    assert predicate.columns == ("price", "unit price", "title")
    assert pickle.loads(pickle.dumps(predicate)) == predicate  # noqa: S301
    assert hash(predicate) == hash(Predicate.parse(predicate.text))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "items.csv",
            "item_id,title,price,in_stock,sale,brand,code\n"
            "1,mug,3.50,true,1,A,007\n2,cup,,FALSE,0,,8\n3,pan,20,,,B,+9\n",
        ),
        (
            "items.jsonl",
            '{"item_id": "1", "title": "mug", "price": 3.5, "in_stock": true, "sale": 1, '
            '"brand": "A", "code": "007"}\n'
            '{"item_id": "2", "title": "cup", "in_stock": false, "sale": 0, "code": "8"}\n'
            '{"item_id": "3", "title": "pan", "price": 20, "brand": "B", "code": "+9"}\n',
        ),
    ],
)
def test_columns_of_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    catalog = Catalog.read(tmp_path / name)
    for text, rows in {
        "in_stock": [0],
        "sale": [0],
        "in_stock == False": [1],
        "in_stock is None": [2],
        "price < 5": [0],
        "price is None": [1],
        "brand is None": [1],
        "brand != 'A'": [2],
        "code >= 8": [1, 2],  # texts that are all numbers
        "code == '007'": [0],
    }.items():
        assert np.flatnonzero(Predicate.parse(text).mask(catalog)).tolist() == rows, text


def test_kinds_made_by_hand() -> None:
    catalog = Catalog(
        [
            Item("a", "t", {"day": datetime.date(2020, 1, 1), "cost": Decimal("1.50"), "tags": []}),
            Item("b", "u", {"mixed": 2**70, "nan": float("nan")}),
            Item("c", "v", {"mixed": -1, "nan": "x"}),
        ]
    )
    for text, rows in {
        "day >= '2020-01-01'": [0],
        "cost == 1.5": [0],
        "tags is not None": [0],
        "mixed > 5": [1],
        "nan is None": [0, 1],
    }.items():
        assert np.flatnonzero(Predicate.parse(text).mask(catalog)).tolist() == rows, text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prise < 3", r"names the column 'prise'.*Did you mean price\? .*item_id, title, price"),
        ("zzz", "one of its columns: item_id, title, price, stock, brand, n, code"),
        ("price < '5'", "column price contains the number 3.5 and is compared with '5'"),
        ("brand > 5", "column brand contains the text 'A' and is compared with 5"),
        ("code > 5", "column code contains the text 'x8' and is compared with 5"),
        ("price < title", "column title contains the text 'red mug' and is compared with column p"),
        ("brand == True", "column brand contains the text 'A'"),
        ("n in (True, False)", "column n contains the number 5 and is compared with True"),
        ("'x' in price", "column price contains the number"),
        ("price", r"price stands alone and contains the number 3.5.*such as price != 0"),
        ("brand", r"""stands alone and contains the text 'A'.*such as brand == "TEXT"\."""),
        ("stock > True", "compares truth values"),
        ("stock == n", "column stock contains the text 'yes' and is compared with column n"),
    ],
)
def test_what_does_not_fit_the_catalog(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Predicate.parse(text).mask(catalog_of(SHOP))


def test_lists_cannot_be_compared() -> None:
    catalog = Catalog([Item("a", "t", {"tags": ["x"], "flag": True})])
    for text in ("tags == 'x'", "'x' in tags", "tags == tags", "tags", "flag == tags"):
        with pytest.raises(RequestError, match=r"values of type list|column tags\."):
            Predicate.parse(text).mask(catalog)
    with pytest.raises(RequestError, match="flag contains truth values and is compared with 1"):
        Predicate.parse("flag == 1").mask(catalog)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("__import__('os').system('true')", "a call"),
        ("price < int('5')", "a call"),
        ("col('price')('x') < 3", "a call"),
        ("col(title) == 'x'", "one text"),
        ("col('a', 'b') == 'x'", "one text"),
        ("col(name='a') == 'x'", "one text"),
        ("col(*'a') == 'x'", "one text"),
        ("title.__class__ == 'x'", "an attribute"),
        ("().__class__.__bases__[0].__subclasses__()", "a call"),
        ("title[0] == 'x'", "a subscript"),
        ("lambda: title", "a lambda"),
        ("f'{title}' == 'x'", "an f-string"),
        ("(x := 5) < price", "an assignment"),
        ("price if stock else n", "a choice by if"),
        ("[p for p in price]", "ListComp"),
        ("price < 2 ** 9999999", "arithmetic"),
        ("'a' * 99999999 == title", "arithmetic"),
        ("price < 5 & stock", "write and, or"),
        ("stock | flag", "write and, or"),
        ("~stock", "an unknown operator"),
        ("+5 < price", "an unknown operator"),
        ("-price < 5", "an unknown operator"),
        ("-'a' == title", "a minus sign before something that is not a number"),
        ("-True == stock", "a minus sign"),
        ("- -5 < price", "an unknown operator"),
        ("price = 5", "invalid syntax"),
        ("price < 5 && stock", "invalid syntax"),
        ("!stock", "invalid syntax"),
        ("price <> 5", "cannot be read"),
        ("class == 'x'", "invalid syntax"),
        ("price < 5; stock", "invalid syntax"),
        ("price < 5\nstock", "invalid syntax"),
        ("import os", "invalid syntax"),
        ("(price < 5", "never closed"),
        ("'abc", "unterminated"),
        ("price < 5j", "type complex"),
        ("title == b'x'", "type bytes"),
        ("title == ...", "type ellipsis"),
        ("1e999 < price", "too large"),
        (f"price < 0x{'f' * 400}", "too large"),
        (f"price < {'9' * 5000}", "cannot be read"),
        ("price == None", "column is None"),
        ("brand in (None, 'A')", "column is None"),
        ("brand == ''", "blank"),
        ("' ' in title", "blank"),
        ("stock is True", "write =="),
        ("None is brand", "neither"),
        ("brand in 'A'", r'\("A",\)'),
        ("brand in ()", "empty or of mixed kinds"),
        ("brand in (1, 'A')", "empty or of mixed kinds"),
        ("brand in (1, True)", "empty or of mixed kinds"),
        ("brand in (title, 'A')", "unsupported"),
        ("brand in {'A'}", "not a tuple or list"),
        ("brand in title", "not a tuple or list"),
        ("brand in [*'A']", "a star"),
        ("5 in title", "not a text"),
        ("'a' in 'abc'", "neither"),
        ("(brand, n) == ('A', 1)", "a tuple"),
        ("price < (5, 6)", "a tuple"),
        ("(price < 5) == stock", "a comparison within a comparison"),
        ("(stock or flag) == True", "a condition within a comparison"),
        ("5 < 6", "without a column"),
        ("0 < 5 < price", "without a column"),
        ("True", "a constant, where a condition"),
        ("price < 20 or 5", "'5' is a constant, where a condition"),
        ("'title'", "a constant, where a condition"),
        ("", "it is empty"),
        (" \n ", "it is empty"),
        ("# nothing", "invalid syntax"),
        ("title == 'a\0b'", "null bytes"),
        ("title == '\ud800'", "invalid characters"),
        (r"title == '\ud800'", "invalid characters"),
        ("a" * (MAX_LENGTH + 1), "10,001 characters"),
        ("not " * (MAX_DEPTH + 1) + "stock", "50 levels deep"),
        ("not " * 2400 + "stock", "50 levels deep"),
        ("-" * 9000 + "1 < price", "50 levels deep|a sign"),
        ("(" * 4000 + "stock" + ")" * 4000, "too many nested|deep"),
        ("[" * 9000, "too many nested|deep|never closed"),
        ("a" + ".b" * 4000, "an attribute|deep"),
        ("a" + "()" * 4000, "a call|deep"),
        ("a" + "[0]" * 3000, "a subscript|deep"),
        ("1" + "+1" * 4000 + " < price", "arithmetic|deep"),
        ("lambda:" * 1400 + "1", "a lambda|deep"),
        (" or ".join(["stock"] * 501), "more than 500 comparisons"),
        ("price" + " < 5 < price" * 251, "more than 500 comparisons"),
    ],
)
def test_what_is_no_condition(text: str, part: str) -> None:
    with pytest.raises(RequestError, match=part) as caught:
        Predicate.parse(text)
    assert "Expected comparisons of columns" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_a_nan_among_numbers_in_a_file_is_missing() -> None:
    values = ["3.5", "NaN", "", " n/a ", "2", "null"]
    items = [Item(f"{n}", "t", {"price": v, "name": f"x{v}"}) for n, v in enumerate(values)]
    keeps = {
        text: np.flatnonzero(Predicate.parse(text).mask(Catalog(items))).tolist()
        for text in ("price < 3", "price is None", "name == 'xNaN'")
    }
    assert keeps == {"price < 3": [4], "price is None": [1, 2, 3, 5], "name == 'xNaN'": [1]}
    named = [Item("a", "t", {"brand": "Acme"}), Item("b", "t", {"brand": "Null"})]
    assert Predicate.parse("brand == 'Null'").mask(Catalog(named)).tolist() == [False, True]


def test_nan_and_inf_are_names_as_any_other() -> None:
    assert Predicate.parse("price < nan or price < inf").columns == ("price", "nan", "inf")


def test_a_text_it_must_be() -> None:
    with pytest.raises(RequestError, match="int, not text"):
        Predicate.parse(5)  # type: ignore[arg-type]


def test_many_conditions_are_not_deep() -> None:
    text = " or ".join(f"n == {i}" for i in range(499))
    assert Predicate.parse(text).mask(catalog_of(SHOP)).tolist() == [True, True, False]


@given(st.text(st.sampled_from("ab<>=!()[]{}'\"`.,:;0159 \n\t\\-+*~@#&|é红\ud800\0"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        Predicate.parse(text)


WORDS = ["price", "not", "and", "or", "in", "is", "None", "(", ")", ",", "<", "==", "5", "'a'",
         "-", "col", "True", "if", "else", "lambda", ":", "[", "]", "for", "f''", ":="]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    with contextlib.suppress(RequestError):
        Predicate.parse(" ".join(words)).mask(catalog_of(SHOP))
