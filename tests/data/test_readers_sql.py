"""Queries on real SQLite databases: types, parts, secrets, and what is refused."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genrec import Dataset
from genrec.data.readers import sql
from genrec.errors import DataError


def database(folder: Path, *statements: str, rows: int = 0) -> str:
    """Make a database with a table of orders, and return its URL."""
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("create table orders (customer int, sku text, price real, at text)")
        connection.executemany(
            "insert into orders values (?, ?, ?, ?)",
            [(n % 7, f"i{n % 5}", n / 4, f"2024-01-{n % 28 + 1:02}") for n in range(rows)],
        )
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{folder / 'shop.db'}"


def test_the_rows_of_a_query_are_read_in_parts(tmp_path: Path) -> None:
    url = database(tmp_path, rows=25)
    whole = sql.read_query("select * from orders", url)
    assert whole.to_pylist()[9] == {"customer": 2, "sku": "i4", "price": 2.25, "at": "2024-01-10"}
    assert whole.num_rows == 25
    assert whole.schema.types == [pa.int64(), pa.string(), pa.float64(), pa.string()]
    assert sql.read_query("select * from orders", url, chunk=4).equals(whole)


def test_a_dataset_comes_from_a_query(tmp_path: Path) -> None:
    table = sql.read_query(
        "select customer as user_id, sku as item_id, 'Mug ' || sku as title, at as timestamp, "
        "'buy' as behavior, price as value from orders -- all of them",
        database(tmp_path, rows=60),
    )
    data = Dataset.from_tables(None, table, name="shop")
    assert (data.info.events, data.info.users, data.info.items) == (60, 7, 5)
    assert data.interactions.history("3").interactions[0].value == 0.75


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2.5], [1.0, None, 2.5]),
        ([None, None, 7], [None, None, 7]),
        ([None, None], [None, None]),
        ([1, "x", 2.5, None], ["1", "x", "2.5", None]),
        ([b"caf\xc3\xa9", "x"], ["café", "x"]),
        ([2**80], [str(2**80)]),
    ],
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_types_of_columns(
    tmp_path: Path, values: list[Any], expected: list[Any], chunk: int
) -> None:
    url = database(tmp_path)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("create table t (x)")
        given = [(str(v) if v == 2**80 else v,) for v in values]
        connection.executemany("insert into t values (?)", given)
    connection.close()
    assert sql.read_query("select x from t", url, chunk=chunk)["x"].to_pylist() == expected


def test_types_that_sqlite_does_not_have(tmp_path: Path) -> None:
    class Cell:
        def __str__(self) -> str:
            return "3f2a"

    now = dt.datetime(2024, 5, 1, 12, 30)
    parts: list[list[tuple[Any, ...]]] = [
        [(Decimal("3.00"), now, Cell(), {"a": Decimal(1)}, ["x", "y"], dt.timedelta(hours=1))],
        [(Decimal("2.5"), None, None, None, None, None)],
    ]
    table = sql.table_of_rows(["price", "at", "id", "data", "tags", "took"], iter(parts))
    assert table.to_pylist()[0] == {
        "price": 3.0, "at": now, "id": "3f2a", "data": '{"a": "1"}', "tags": ["x", "y"],
        "took": "1:00:00",
    }  # fmt: skip
    assert table["price"].to_pylist() == [3.0, 2.5]


def test_percent_signs_and_colons_are_left_alone(tmp_path: Path) -> None:
    url = database(tmp_path, rows=5)
    table = sql.read_query("select sku, '12:30 %s' as x from orders where sku like '%1'", url)
    assert table.to_pylist() == [{"sku": "i1", "x": "12:30 %s"}]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select * from nope", "no such table: nope"),
        ("select sku, sku from orders", "two columns named 'sku'"),
        ("selekt 1", "is not a SELECT"),
        ("", "is not a SELECT"),
        ("delete from orders", "is not a SELECT"),
        ("/* select */ drop table orders", "is not a SELECT"),
        ("with x as (select 1) delete from orders", "readonly"),
        ("select 1; delete from orders", "one statement at a time"),
        ("select x'ff' as raw", "bytes that are not UTF-8"),
    ],
)
def test_queries_that_cannot_be_used(tmp_path: Path, query: str, message: str) -> None:
    url = database(tmp_path, rows=3)
    with pytest.raises(DataError) as caught:
        sql.read_query(query, url)
    assert message in str(caught.value)
    assert "Expected" in str(caught.value)
    assert sql.read_query("select count(*) as n from orders", url)["n"].to_pylist() == [3]


def test_no_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist\. Expected a file"):
        sql.read_query("select 1", f"sqlite:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.iterdir())
    (tmp_path / "text.db").write_text("no database at all, but a text " * 50)
    with pytest.raises(DataError, match="file is not a database"):
        sql.read_query("select 1 from x", f"sqlite:///{tmp_path / 'text.db'}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shop.db", "it cannot be parsed"),
        ("postgres:secret@", "it cannot be parsed"),
        ("nosuch://u:secret@host/shop", "nosuch"),
        ("postgresql+psycopg2://u:secret@host/shop", "pip install psycopg2-binary"),
        ("mysql://u:secret@host/shop", "pip install mysqlclient"),
        ("sqlite:////tmp/none/x?password=secret", "does not exist"),
    ],
)
def test_urls_that_cannot_be_used_hide_their_password(url: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        sql.read_query("select 1", url)
    assert message in str(caught.value)
    error: BaseException | None = caught.value
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "options",
    ["check_same_thread=HUSH", "isolation_level=hush", "timeout=hush"],
)
def test_secrets_in_the_options_of_a_url_are_hidden(tmp_path: Path, options: str) -> None:
    url = database(tmp_path)
    with pytest.raises(DataError) as caught:
        sql.read_query("select hush", f"{url}?{options}")
    assert "hush" not in str(caught.value).lower()
    assert caught.value.__cause__ is None


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(DataError, match=r"extra `sql`.*pip install 'sqlalchemy>=2'"):
        sql.read_query("select 1", "sqlite://")
