"""The store keeps what it has acknowledged, once, also when the process is killed."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import postgres
from support.amount import EXAMPLES, FULL

from genrec import Interaction, Item
from genrec.errors import DataError, SettingsError
from genrec.service.outcomes import acceptance
from genrec.service.store import ConflictError, Event, ShownList, Store
from genrec.service.tables import FILE, StoreError, sqlite_url


@pytest.fixture(scope="module")
def databases() -> Iterator[str]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return create_database(request.getfixturevalue("databases"))


def create_database(address: str) -> str:
    """Create an empty database of the server, and return its URL."""
    name = f"test_{secrets.token_hex(4)}"
    engine = sa.create_engine(address.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return address.format(name)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


def bought(user: str, item: str, list_id: str | None = None) -> Event:
    return Event(Interaction(item, "buy", 5.0), user, list_id=list_id)


def test_events_come_back_as_they_were(store: Store, url: str, tmp_path: Path) -> None:
    full = Interaction("i1", "rate", 1.5, 4.0, "order 7", "a comment")
    text = Interaction(None, "search", 2.0, text="红色杯子")
    numbers, repeated = store.add_events([Event(full, "u", list_id="l"), Event(text, "u")])
    store.add_events([Event(full, session_id="s")])
    assert not repeated
    again = Store(url)
    found = again.events_of(user_id="u")
    assert [e.interaction for e in found] == [full, text]
    assert [e.sequence for e in found] == numbers == sorted(numbers)
    assert found[0].list_id == "l"
    assert [e.interaction for e in again.events_of(session_id="s")] == [full]
    assert [e.sequence for e in again.events_after(numbers[0], "search")] == [numbers[1]]
    again.close()
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as plain:
            assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_dump_of_postgresql_can_be_restored(databases: str, tmp_path: Path) -> None:
    if shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    old, new = (create_database(databases) for _ in range(2))
    store = Store(old)
    store.add_events([bought("u", "a"), bought("u", "b")], key="k", digest="d")
    plain = [url.replace("+psycopg", "") for url in (old, new)]
    dump = str(tmp_path / "genrec.dump")
    subprocess.run(["pg_dump", "--format=custom", f"--file={dump}", plain[0]], check=True)
    store.close()
    subprocess.run(["pg_restore", "--no-owner", f"--dbname={plain[1]}", dump], check=True)
    store = Store(new)
    assert [e.interaction.item_id for e in store.events_of(user_id="u")] == ["a", "b"]
    assert store.add_events([bought("u", "a")], key="k", digest="d")[1]  # the key is known, too
    assert store.add_events([bought("u", "c")])[0] == [3]
    store.close()


def test_a_repeated_request_is_stored_once(store: Store) -> None:
    first = store.add_events([bought("u", "a"), bought("u", "b")], key="k", digest="d")
    assert store.add_events([bought("u", "a")], key="k", digest="d") == (first[0], True)
    assert len(store.events_of(user_id="u")) == 2
    with pytest.raises(ConflictError):
        store.add_events([bought("u", "c")], key="k", digest="other")
    store.forget_requests(time.time() + 8 * 86_400)
    assert store.add_events([bought("u", "a")], key="k", digest="d")[1] is False


def test_a_deleted_user_leaves_nothing_but_a_pseudonym(store: Store) -> None:
    store.add_events([bought("u", "a", list_id="l1"), bought("v", "a")])
    shown = ShownList("l1", 1.0, "u", None, None, "run", None, False, ("a", "b"))
    store.add_lists([shown])
    assert store.delete_user("u") == 1
    assert store.delete_user("u") == 0
    tables = [name for name, row in store.export() if "u" in row.values() or "l1" in row.values()]
    assert tables == []
    assert store.deletions().has("u")
    assert not store.deletions().has("v")
    assert len(store.events_of(user_id="v")) == 1
    numbers, _ = store.add_events([bought("w", "a")])
    assert numbers == [3]  # numbers are not used again


def test_items_keep_the_order_in_which_they_came(store: Store) -> None:
    new, other = Item("n", "new", {"price": 1.5, "tags": ["a"]}), Item("o", "other", {})
    store.put_items([new, other])
    store.put_items([Item("n", "newer", {"gone": float("nan")})], [other])
    assert store.items() == [(Item("n", "newer", {"gone": None}), False), (other, True)]


def test_scenarios_and_blocks_are_replaced(store: Store) -> None:
    assert not store.put_scenario("home", {"k": 3})
    assert store.put_scenario("home", {"k": 4})
    assert store.scenarios() == {"home": {"k": 4}}
    assert store.put_scenario("home", None)
    assert store.scenarios() == {}
    store.put_blocks({"item_ids": ["b", "a", "b"], "phrases": ["knife"]})
    store.put_blocks({"item_ids": ["c", "a"]})
    assert store.blocks() == {"item_ids": ["a", "c"], "conditions": [], "phrases": []}


def test_acceptance_counts_shown_items_that_were_taken(store: Store) -> None:
    def shown(name: str, scenario: str) -> ShownList:
        return ShownList(name, 1.0, "u", None, scenario, "run", None, False, ("a", "b"))

    store.add_lists([shown("l1", "home"), shown("l2", "home"), shown("l3", "cart")])
    taken = [("a", "buy"), ("a", "buy"), ("c", "buy"), ("b", "view")]
    store.add_events([Event(Interaction(i, b, 1.0), "u", list_id="l1") for i, b in taken])
    by_scenario = acceptance(store, "scenario", ["buy"])
    home = {"value": "home", "lists": 2, "items": 4, "items_accepted": 1, "lists_accepted": 1}
    cart = {"value": "cart", "lists": 1, "items": 2, "items_accepted": 0, "lists_accepted": 0}
    assert [{n: g[n] for n in home} for g in by_scenario] == [cart, home]
    assert [g["per_user"]["mean"] for g in by_scenario] == [0.0, 0.5]
    by_rank = acceptance(store, "rank", [])
    assert [g["behaviors"] for g in by_rank] == [
        {"buy": {"lists": 1, "items": 1}}, {"view": {"lists": 1, "items": 1}},
    ]  # fmt: skip
    assert [(g["value"], g["items_accepted"]) for g in by_rank] == [(1, 1), (2, 1)]


def test_a_store_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unable to open database file"):
        Store(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    with pytest.raises(SettingsError, match="Expected a URL"):
        Store("nonsense")
    (tmp_path / "text.db").write_text("not a database, but long enough to look like one" * 20)
    with pytest.raises(DataError, match="file is not a database"):
        Store(f"sqlite:///{tmp_path / 'text.db'}")


def test_a_store_of_another_format_is_refused_and_left_alone(store: Store, url: str) -> None:
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '2'")
        connection.exec_driver_sql("DROP TABLE blocks")
        connection.exec_driver_sql("ALTER TABLE events DROP COLUMN text")
    with pytest.raises(DataError, match=r"has the format 2\. Expected 1\."):
        Store(url)
    known = sa.inspect(store._engine)
    assert not known.has_table("blocks")
    assert "text" not in {c["name"] for c in known.get_columns("events")}


def test_a_full_disk_is_an_error_and_the_store_goes_on(tmp_path: Path) -> None:
    store = Store(sqlite_url(tmp_path))
    pages = [bought("u", "x" * 200) for _ in range(200)]

    def limit(raw: sqlite3.Connection, _: object) -> None:
        raw.execute("PRAGMA max_page_count=20")

    sa.event.listen(store._engine, "connect", limit)
    store._engine.dispose()
    with pytest.raises(StoreError, match="not stored: database or disk is full"):
        store.add_events(pages)
    assert store.events_of(user_id="u") == []
    store.close()


WRITER = """
import sys
from genrec import Interaction
from genrec.service.store import Event, Store
store, start = Store(sys.argv[1]), int(sys.argv[2])
for number in range(start, start + 1_000_000):
    events = [Event(Interaction(f"i{number}", "buy", 1.0), "u") for _ in range(2)]
    store.add_events(events, key=f"k{number}", digest="d")
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_acknowledged_event_and_doubles_none(tmp_path: Path) -> None:
    rounds = min(100, EXAMPLES * 2 // 5) if FULL else 3
    url, start, acknowledged = sqlite_url(tmp_path), 0, set[int]()
    for number in range(rounds):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(start)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(5 + number % 7):
                acknowledged.add(int(writer.stdout.readline()))
            writer.send_signal(signal.SIGKILL)
            acknowledged |= {int(line) for line in writer.stdout.read().split("\n")[:-1]}
        assert writer.returncode == -signal.SIGKILL
        start = max(acknowledged)  # the last request is sent again, as a client would
    store = Store(url)
    items = [e.interaction.item_id for e in store.events_of(user_id="u")]
    store.close()
    counts = {item: items.count(item) for item in items}
    assert set(counts.values()) == {2}
    assert {f"i{n}" for n in acknowledged} <= set(counts)
    assert len(counts) <= len(acknowledged) + rounds  # at most one more each time
