"""Numbers in the spellings of spreadsheets and shops, and ids that became decimal numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import Catalog, Interactions, Item
from genrec.data.readers.numbers import (
    decimal_sign,
    other_spelling,
    read_numbers,
    restore_ids,
)
from genrec.errors import RequestError, UnknownUserError

NAN = float("nan")


def read(cells: Any) -> tuple[list[float], str | None]:
    numbers, remark = read_numbers(pa.chunked_array([pa.array(cells)]))
    return numbers.tolist(), remark


@pytest.mark.parametrize(
    ("cells", "numbers", "said"),
    [
        (["1", "-2.5", "1e3", "", ".5"], [1, -2.5, 1000, NAN, 0.5], None),
        (["£5", "£1,234.50"], [5, 1234.5], "thousands separators, currency signs (£)"),
        (["$5", "-$1.50", "$-2", "\u22123"], [5, -1.5, -2, -3], "currency signs ($)"),
        (["EUR 1.234,50", "3 EUR"], [1234.5, 3], "a decimal comma, thousands separators, cur"),
        (["1 234,50 zł", "12,00 zł"], [1234.5, 12], "a decimal comma, thousands separators"),
        (["1\u00a0234,50 €", "1\u202f000 €"], [1234.5, 1000], "currency signs (€)"),
        (["R$ 1.000,00", "R$10,00"], [1000, 10], "currency signs (R$)"),
        (["¥1,200", "¥30", "¥5.5"], [1200, 30, 5.5], "currency signs (¥)"),
        (["CHF 1'234.50", "CHF 1’000"], [1234.5, 1000], "currency signs (CHF)"),
        (["1,23,456.50"], [123456.5], "thousands separators"),
        (["1.234.567", "8"], [1234567, 8], "thousands separators"),
        (["(1.50)", "2.00", "($3)"], [-1.5, 2, -3], "parentheses for negative numbers"),
        (["1.50-", "3"], [-1.5, 3], "minus signs"),
        (["12%", "50 %"], [0.12, 0.5], "percentages as fractions"),
        (["49,-", "5,50"], [49, 5.5], "a decimal comma"),
        (["1,5", "nan", ""], [1.5, NAN, NAN], "a decimal comma"),
        (["£5", "€6"], [5, 6], "(£, €); the amounts are not converted"),
        (["1.234", "5.678"], [1.234, 5.678], "a decimal point; '1.234' is taken as 1.234"),
        (["1,234", "5,678"], [1234, 5678], "thousands separators; '1,234' is taken as 1234"),
        (["1,234", "0,125"], [1.234, 0.125], "a decimal comma"),
        (["1,234", "5,67"], [1.234, 5.67], "a decimal comma"),
        (["1,234", "5.67"], [1234, 5.67], "thousands separators"),
        (["1.234", "1,5"], [1234, 1.5], "a decimal comma, thousands separators"),
    ],
)
def test_spellings(cells: list[str], numbers: list[float], said: str | None) -> None:
    found, remark = read(cells)
    assert np.array_equal(found, numbers, equal_nan=True)
    assert (remark is None) == (said is None)
    assert said is None or said in str(remark)


@pytest.mark.parametrize(
    ("columns", "sign"),
    [
        ([["1", "2"], ["1.500", "12"]], ""),
        ([["1", "2"], ["1.500,5", "12"]], ","),
        ([["12", "2,75"], ["1.500", "12"]], ","),
        ([["12", "2.75"], ["1,500", "12"]], "."),
        ([["12", "2.75"], ["1,5", "12"]], ""),
        ([["12,5 EUR", "", "nan"], ["red", "1.5"]], ","),
        ([["01.03.2019", "02.03.2019"], ["1,2,3", "4,5,6"], []], ""),
    ],
)
def test_the_decimal_sign_of_a_file(columns: list[list[str]], sign: str) -> None:
    arrays = [pa.chunked_array([pa.array(c, pa.string())]) for c in columns]
    assert decimal_sign([*arrays, pa.chunked_array([pa.array([1.5])])]) == sign


@pytest.mark.parametrize(
    ("cells", "usual", "numbers"),
    [
        (["1.500", "12"], "", [1.5, 12]),
        (["1.500", "12"], ".", [1.5, 12]),
        (["1.500", "12"], ",", [1500, 12]),
        (["1,500", "12"], ",", [1.5, 12]),
        (["1,500", "12"], ".", [1500, 12]),
        (["1.500", "12.5"], ",", [1.5, 12.5]),
        (["£1.500", "£12"], ",", [1500, 12]),
    ],
)
def test_the_decimal_sign_of_the_file_decides_where_the_column_does_not(
    cells: list[str], usual: str, numbers: list[float]
) -> None:
    found, remark = read_numbers(pa.chunked_array([pa.array(cells)]), usual)
    assert found.tolist() == numbers
    assert ("is taken as" in (remark or "")) == (cells[1] != "12.5")


@pytest.mark.parametrize(
    "cells",
    [
        ["red", "blue"], ["ABC 123", "ABC 124"], ["5 ft", "6 ft"], ["1.2.3", "4"], ["(5", "5)"],
        ["£"], ["--5"], ["12,34,56"], ["A4", "£5"], ["2019-03-01"], ["12:30"], ["1-2"], ["(-5)"],
        ["5 £ 6"], ["1,5", "2.5"],
    ],
)  # fmt: skip
def test_text_is_no_number(cells: list[str]) -> None:
    found, remark = read(cells)
    assert remark is None
    plain = [float(c) if c.replace(".", "", 1).isdigit() else NAN for c in cells]
    assert np.array_equal(found, plain, equal_nan=True)


def test_few_cells_that_are_no_numbers_are_left_out() -> None:
    cells = [f"{n},50 €" for n in range(20)]
    found, _ = read([*cells, "free", "free"])
    assert np.isnan(found).tolist() == [False] * 20 + [True] * 2
    assert np.isnan(read([*cells, *["free"] * 5])[0]).all()
    numbers = [str(n) for n in range(536_000, 536_020)]
    assert read([*numbers, "C536021"])[1] is None  # nothing is unusual about those that are numbers


@pytest.mark.parametrize(
    "cells", [pa.array([1, None, 3]), pa.array([1.5, None]), pa.array([True]), pa.array([], "str")]
)
def test_other_columns(cells: pa.Array) -> None:
    found, remark = read_numbers(pa.chunked_array([cells]))
    assert found.shape == (len(cells),)
    assert remark is None


@given(
    amounts=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    decimal=st.sampled_from(".,"),
    thousands=st.sampled_from(["", " ", "\u00a0", "'", "other"]),
    form=st.sampled_from(["{}", "{} €", "$ {}", "EUR {}", "{}zł", "CHF {}"]),
)
def test_amounts_are_read_as_they_are(
    amounts: list[int], decimal: str, thousands: str, form: str
) -> None:
    group = {"other": "," if decimal == "." else "."}.get(thousands, thousands)
    texts = []
    for amount in amounts:
        spelled = f"{abs(amount) / 100:,.2f}".replace(",", "\0").replace(".", decimal)
        texts.append(form.format(("-" if amount < 0 else "") + spelled.replace("\0", group)))
    found, _ = read(texts)
    assert found == [amount / 100 for amount in amounts]


@pytest.mark.parametrize(
    ("cells", "ids"),
    [
        (["17841.0", "", "9.0"], ["17841", "", "9"]),
        (["17841.0", "nan", None], ["17841", "", ""]),
        (["17841", "17841.0"], ["17841", "17841"]),
        (["007.0", "-8.0"], ["007", "-8"]),
        ([17841.0, None, 123456789012.0], ["17841", None, "123456789012"]),
        ([17841.0, NAN], ["17841", None]),
        (pa.array(["1.0", "2.0"]).dictionary_encode(), ["1", "2"]),
    ],
)
def test_ids_are_restored(cells: Any, ids: list[str | None]) -> None:
    column = pa.chunked_array([cells if isinstance(cells, pa.Array) else pa.array(cells)])
    found, changed = restore_ids(column)
    assert changed
    assert found.to_pylist() == ids


@pytest.mark.parametrize(
    "cells",
    [
        ["1.5", "2.0"], ["85123A", "1.0"], ["1.0", "1e5"], ["12", "0013"], ["1.0", "2.00"], ["", None],
        [1.5, 2.0], [1, 2], [1e300], [float("inf")], [None],
    ],
)  # fmt: skip
def test_other_ids_stay(cells: list[Any]) -> None:
    column = pa.chunked_array([pa.array(cells)])
    found, changed = restore_ids(column)
    assert not changed
    assert found.to_pylist() == cells


def table(users: list[str]) -> pa.Table:
    size = len(users)
    return pa.table(
        {
            "user_id": users,
            "item_id": ["10"] * size,
            "behavior": ["buy"] * size,
            "timestamp": list(range(size)),
        }
    )


def test_users_and_items_are_found_by_either_spelling() -> None:
    catalog = Catalog(
        [Item("10", "Mug"), Item("11.0", "Bowl"), Item("12", "Jar"), Item("12.0", "Tin")]
    )
    assert [catalog.row(i) for i in ("10", "10.0", "11", "11.0", "12", "12.0")] == [
        0,
        0,
        1,
        1,
        2,
        3,
    ]
    for unknown in ("13", "10.00", "010", "", "10.0.0", None, 10):
        with pytest.raises(RequestError, match="is not in the catalog of 4 items"):
            catalog.row(unknown)  # type: ignore[arg-type]
    events = Interactions.from_table(table(["7", "8.0", "9", "9.0", "9.0"]), catalog)
    for given_id, known, size in [
        ("7", "7", 1), ("7.0", "7", 1), ("8", "8.0", 1), ("9", "9", 1), ("9.0", "9.0", 2),
    ]:  # fmt: skip
        history = events.history(given_id)
        assert (history.user_id, len(history.interactions)) == (known, size)
        assert events.targets(given_id, "train", "buy")
    with pytest.raises(UnknownUserError, match=r"User '6\.0' is not among the 4 users"):
        events.history("6.0")


def test_a_change_by_the_other_spelling_keeps_the_id() -> None:
    catalog = Catalog([Item("10", "Mug"), Item("11", "Bowl")])
    changed = catalog.edited(change=[Item("10.0", "Red mug")])
    assert [(i.item_id, i.title) for i in changed] == [("10", "Red mug"), ("11", "Bowl")]
    assert changed.row("10") == 0


@pytest.mark.parametrize(
    ("given_id", "other"),
    [("5.0", "5"), ("5", "5.0"), ("-5", "-5.0"), ("007", "007.0"), ("5.5", None), ("٣", None)],
)
def test_the_other_spelling(given_id: str, other: str | None) -> None:
    assert other_spelling(given_id) == other
