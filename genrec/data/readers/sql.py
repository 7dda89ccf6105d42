"""Read the result of a query on an SQL database; SQLAlchemy is imported on first use.

Nothing is written to the database. The password and other secrets in a URL never appear in
messages.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from genrec.errors import DataError
from genrec.extras import how_to_install, install_command

_CHUNK = 50_000  # rows
_READS = {"select", "with", "values", "table", "from"}  # how a query begins that only reads
_READ_ONLY = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
_DRIVERS = {  # the packages of SQLAlchemy's drivers, by the module that is missing
    "psycopg2": "psycopg2-binary", "psycopg": "psycopg", "pg8000": "pg8000", "MySQLdb": "mysqlclient",
    "pymysql": "pymysql", "mariadb": "mariadb", "cx_Oracle": "oracledb", "oracledb": "oracledb",
    "pyodbc": "pyodbc",
}  # fmt: skip
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def read_query(sql: str, url: str, *, chunk: int = _CHUNK) -> pa.Table:
    """Run a query on a database and return its rows as a table.

    The rows are fetched in batches, so only the resulting table is held in memory. Decimals become
    integers if they are whole numbers and doubles otherwise. Bytes are read as UTF-8 text.

    Args:
        sql: a query that returns rows, such as ``select * from orders``.
        url: the URL of the database for SQLAlchemy, such as ``sqlite:///shop.db`` or
            ``postgresql://user:password@host/shop``.
        chunk: the number of rows to fetch at a time.

    Returns:
        A table with the types of the database. A column with values of several types becomes text.

    Raises:
        DataError: SQLAlchemy or the driver of the database is not installed, the database cannot be
            reached, or the query fails or does not return rows.
    """
    library = _library()
    address = _parse_url(library, url)
    shown = _display(address)
    first = re.match(r"\w*", _COMMENT.sub(" ", sql).lstrip("( \t\r\n"))
    if first is None or first[0].lower() not in _READS:
        msg = f"The query {sql!r:.80} is not a SELECT. Expected a query that only reads rows."
        raise DataError(msg)
    if address.get_backend_name() == "sqlite":
        _check_file(address.database)
    try:
        engine = library.create_engine(address, poolclass=library.pool.NullPool)
    except ImportError as error:
        missing = error.name or str(error)
        package = _DRIVERS.get(missing)
        how = f" Install it with: {install_command(package)}" if package else ""
        msg = (
            f"Reading {shown} needs the package {package or missing}, which is not installed. A URL "
            f"such as postgresql+DRIVER://... chooses another driver.{how}"
        )
        raise DataError(msg) from error
    except (library.exc.SQLAlchemyError, ValueError, TypeError) as error:
        raise DataError(_url_problem(_scrub(str(error), address))) from None
    try:
        with engine.connect() as connection:
            if address.get_backend_name() in _READ_ONLY:
                connection.exec_driver_sql(_READ_ONLY[address.get_backend_name()])
            options = {"stream_results": True, "no_parameters": True}
            result = connection.exec_driver_sql(sql, execution_options=options)
            names = [str(n).strip() for n in result.keys()]  # noqa: SIM118
            _check_names(names)
            return table_of_rows(names, result.partitions(chunk))
    except (library.exc.SQLAlchemyError, OSError, TypeError) as error:
        cause = getattr(error, "orig", None) or error
        reason = _scrub(str(cause), address).strip().partition("\n")[0]
        msg = (
            f"The query on {shown} failed: {reason}. Expected a query that returns rows. "
            "Check the query, and that the database can be reached."
        )
        raise DataError(msg) from None  # the cause holds the URL
    finally:
        engine.dispose()


def _library() -> Any:
    """Import SQLAlchemy."""
    try:
        import sqlalchemy
    except ImportError as error:
        msg = (
            "Reading a database needs SQLAlchemy (genrec's extra `sql`), which is not installed. "
            f"{how_to_install('sql')}"
        )
        raise DataError(msg) from error
    return sqlalchemy


def _parse_url(library: Any, url: str) -> Any:
    """Parse a URL. The error message for an invalid URL does not show it, to protect secrets."""
    try:
        return library.make_url(url)
    except (library.exc.ArgumentError, ValueError):
        raise DataError(_url_problem("it cannot be parsed")) from None


def _url_problem(problem: str) -> str:
    """Build the error message for an invalid database URL."""
    return (
        f"The database URL is invalid: {problem}. Expected an SQLAlchemy URL, such as "
        "sqlite:///shop.db or postgresql://user:password@host/shop. Write special characters in a "
        "password as %XX."
    )


def _display(address: Any) -> str:
    """Return a URL without its secrets, for use in messages."""
    return f"{address.drivername}://{address.host or ''}/{address.database or ''}"


def _scrub(text: str, address: Any) -> str:
    """Remove a URL's password and the values of its query string from a text."""
    secrets = [str(address.password or "")]
    for value in address.query.values():
        secrets += [value] if isinstance(value, str) else value
    for secret in filter(None, secrets):
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    return text


def _check_file(database: str | None) -> None:
    """Check that a SQLite database file exists, since connecting would create it."""
    if not database or database == ":memory:" or database.startswith("file:"):
        return
    if not Path(database).is_file():
        msg = (
            f"The SQLite database {database!r} does not exist. Expected a file. Check the URL: a "
            "relative path has three slashes (sqlite:///shop.db), an absolute path has four."
        )
        raise DataError(msg)


def _check_names(names: Sequence[str]) -> None:
    """Check that the column names of a query's result are distinct."""
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        msg = (
            f"The query returns two columns named {twice[0]!r}. Expected distinct names. Name them "
            "with AS, or list the columns instead of *."
        )
        raise DataError(msg)


def table_of_rows(names: Sequence[str], parts: Iterator[Sequence[Sequence[Any]]]) -> pa.Table:
    """Build a table from the rows of a query's result.

    Args:
        names: the names of the columns.
        parts: the rows in order, in batches of any size.

    Raises:
        DataError: a cell holds bytes that are not UTF-8 text.
    """
    columns: list[list[pa.Array]] = [[] for _ in names]
    for rows in parts:
        for name, values, arrays in zip(names, zip(*rows, strict=True), columns, strict=True):
            arrays.append(_array([_value(name, value) for value in values]))
    return pa.table({n: _joined(arrays) for n, arrays in zip(names, columns, strict=True)})


def _value(name: str, value: Any) -> Any:
    """Convert a database value to one of the types that tables read from files may contain."""
    if value is None or isinstance(value, str | bool | int | float | dt.date | dt.time):
        return value
    if isinstance(value, Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if whole else float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            msg = (
                f"The column {name!r} of the query holds bytes that are not UTF-8 text. Expected "
                "text, numbers or times. Convert it in the query, or leave it out."
            )
            raise DataError(msg) from error
    if isinstance(value, list | tuple):
        return [_value(name, one) for one in value]
    if isinstance(value, dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)  # such as a UUID or a duration


def _array(values: list[Any]) -> pa.Array:
    """Build an Arrow array; values of several types become text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.array([None if v is None else str(v) for v in values], pa.string())


def _joined(parts: list[pa.Array]) -> pa.ChunkedArray:
    """Join the batches of a column; if their types differ, they become doubles or text."""
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if kinds == {pa.int64(), pa.float64()}:
        kinds = {pa.float64()}
    if len(kinds) > 1:
        texts = ([None if v is None else str(v) for v in part.to_pylist()] for part in parts)
        parts = [pa.array(text, pa.string()) for text in texts]
    kind = kinds.pop() if len(kinds) == 1 else pa.string()
    return pa.chunked_array([part.cast(kind) for part in parts], kind)
