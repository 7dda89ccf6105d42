"""Define the tables of the store, and open the database that holds them.

SQLite is used in WAL mode, and a commit is on the disk before it is acknowledged. Any other database
is reached through SQLAlchemy with the same tables.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from genrec.errors import DataError, SettingsError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

FORMAT = "1"
FILE = "service.db"  # the SQLite file in the dataset folder
_TRIES, _PAUSE = 20, 0.05  # how often, and after how many seconds, the log is emptied again
_WAIT = 10.0  # seconds to wait for another process that is writing

# Users are listed in the order of code points, as Python sorts them, whatever the database's language.
_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

metadata = sa.MetaData()
meta = sa.Table(
    "meta", metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)  # fmt: skip
items = sa.Table(
    "items", metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("item_id", sa.Text, nullable=False, unique=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("attributes", sa.Text, nullable=False),  # JSON
    sa.Column("removed", sa.Boolean, nullable=False),
)  # fmt: skip
events = sa.Table(
    "events", metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("user_id", _ID, index=True),
    sa.Column("session_id", sa.Text, index=True),
    sa.Column("item_id", sa.Text),
    sa.Column("behavior", sa.Text, nullable=False, index=True),
    sa.Column("timestamp", sa.Double, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("unit", sa.Text),
    sa.Column("text", sa.Text),
    sa.Column("list_id", sa.Text, index=True),
    sa.Column("received", sa.Double, nullable=False),
    sqlite_autoincrement=True,  # a number is never used again, even if its event was deleted
)  # fmt: skip
requests = sa.Table(
    "requests", metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),  # JSON
    sa.Column("received", sa.Double, nullable=False),
)  # fmt: skip
deleted_users = sa.Table(
    "deleted_users", metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("deleted", sa.Double, nullable=False),
)  # fmt: skip
deleted_events = sa.Table(
    "deleted_events", metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("item_id", sa.Text, primary_key=True),
    sa.Column("behavior", sa.Text, primary_key=True),
    sa.Column("deleted", sa.Double, nullable=False),
)  # fmt: skip
users = sa.Table(
    "users", metadata,
    sa.Column("user_id", _ID, primary_key=True),
    sa.Column("labels", sa.Text, nullable=False),  # JSON
    sa.Column("profile", sa.Text),  # JSON with the corrections of the profile
)  # fmt: skip
scenarios = sa.Table(
    "scenarios", metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("options", sa.Text, nullable=False),  # JSON
)  # fmt: skip
blocks = sa.Table(
    "blocks", metadata,
    sa.Column("kind", sa.Text, primary_key=True),  # item_ids, conditions or phrases
    sa.Column("value", sa.Text, primary_key=True),
)  # fmt: skip
lists = sa.Table(
    "lists", metadata,
    sa.Column("list_id", sa.Text, primary_key=True),
    sa.Column("shown", sa.Double, nullable=False),
    sa.Column("user_id", sa.Text, index=True),
    sa.Column("session_id", sa.Text, index=True),
    sa.Column("scenario", sa.Text),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("arm", sa.Text),
    sa.Column("fallback", sa.Boolean, nullable=False),
    sa.Column("experiment", sa.Text),
    sa.Column("options", sa.Text),  # JSON, for random draws only
)  # fmt: skip
impressions = sa.Table(
    "impressions", metadata,
    sa.Column("list_id", sa.Text, primary_key=True),
    sa.Column("rank", sa.Integer, primary_key=True),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("propensity", sa.Double),
)  # fmt: skip
experiments = sa.Table(
    "experiments", metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.Text, nullable=False),  # JSON
    sa.Column("started", sa.Double, nullable=False),
    sa.Column("stopped", sa.Double),
)  # fmt: skip


def sqlite_url(folder: Path) -> str:
    """Return the URL of the SQLite file in a dataset folder."""
    return f"sqlite:///{(folder / FILE).absolute()}"


def file_of(engine: Engine) -> Path | None:
    """Return the file of a SQLite database; None for another database or one in memory."""
    url = engine.url
    local = url.get_backend_name() == "sqlite" and url.database not in {None, "", ":memory:"}
    return Path(str(url.database)).absolute() if local else None


def identity(file: Path) -> tuple[int, int] | None:
    """Return numbers that tell a file from all others; None if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_engine(url: str) -> Engine:
    """Open a database, and create the tables and columns that are missing.

    Args:
        url: the URL of the database in SQLAlchemy's form.

    Raises:
        SettingsError: the URL is invalid, or its driver is not installed.
        DataError: the database cannot be opened or written, or has tables of another version.
    """
    try:
        parsed = sa.engine.make_url(url)
        local = parsed.get_backend_name() == "sqlite"
        given: dict[str, Any] = {"connect_args": {"timeout": _WAIT}} if local else {}
        engine = sa.create_engine(parsed, pool_pre_ping=not local, **given)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        msg = (
            f"The database {url!r} cannot be used: {error}. Expected a URL such as "
            "sqlite:///service.db or postgresql+psycopg://user@host/name."
        )
        raise SettingsError(msg) from error
    except ImportError as error:
        msg = f"The database needs the package {error.name}, which is not installed. Install it first."
        raise SettingsError(msg) from error
    if local:
        sa.event.listen(engine, "connect", _prepare_sqlite)
    name = parsed.render_as_string(hide_password=True)
    try:
        found = _read_format(engine)
        if found in {None, FORMAT}:
            metadata.create_all(engine)
            _add_columns(engine)
        if found is None:
            with engine.begin() as connection:
                connection.execute(meta.insert().values(name="format", value=FORMAT))
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()
        msg = (
            f"The store {name} cannot be opened: {reason(error)}. Expected a database that can be "
            "written. Check the path, the permissions and the free space, or choose another --store."
        )
        raise DataError(msg) from error
    if found not in {None, FORMAT}:
        engine.dispose()
        msg = f"The store {name} has the format {found}. Expected {FORMAT}. Use the version of genrec that wrote it."
        raise DataError(msg)
    return engine


def _read_format(engine: Engine) -> str | None:
    """Return the format of a store; None if it has none yet."""
    if not sa.inspect(engine).has_table(meta.name):
        return None
    with engine.connect() as connection:
        wanted = sa.select(meta.c.value).where(meta.c.name == "format")
        found: str | None = connection.scalar(wanted)
        return found


def _add_columns(engine: Engine) -> None:
    """Add the columns that a store of an earlier version lacks. All of them may be null."""
    known = sa.inspect(engine)
    for table in metadata.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                described = sa.schema.CreateColumn(column).compile(dialect=engine.dialect)
                with engine.begin() as connection:
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {described}")


def scrub(engine: Engine) -> None:
    """Write a SQLite file anew and empty its log, so that no deleted row is left in them.

    SQLite overwrites deleted rows with zeros (``secure_delete``), but copies of them may be left in pages
    from which rows were moved. While another process reads an old state, the log cannot be
    emptied; then it is at the next write or when the file is closed.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")
        for _ in range(_TRIES):
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            if not busy:
                return
            time.sleep(_PAUSE)


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Set up a new connection: readers do not block the writer, and commits reach the disk."""
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=ON")


def reason(error: BaseException) -> str:
    """Return the database's own message for an error of SQLAlchemy, in one line."""
    first = str(getattr(error, "orig", None) or error).strip().splitlines()
    return first[0].rstrip(".") if first else type(error).__name__


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn errors of the database into a ``StoreError`` that says what was not done."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(f"{what}: {reason(error)}. Try again later.") from error


class StoreError(DataError):
    """Raised when the store cannot be read or written at the moment."""
