"""Keep what happens after the dataset was prepared: events, items, scenarios and shown lists.

The files of the dataset are the start and are never changed. A write is on the disk when its method
returns. This module knows nothing of HTTP or models.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from genrec.data.catalog import Item
from genrec.data.deletions import Deletions
from genrec.data.events import Interaction
from genrec.data.pseudonyms import pseudonym
from genrec.service import tables
from genrec.service.tables import StoreError, file_of, identity, open_engine, store_errors

KINDS = ("item_ids", "conditions", "phrases")  # of entries on the block list
_SALT = "salt"  # the entry of ``meta`` with the key of pseudonyms
_LEAST_ID = 6  # characters of an id that are looked for in the keys of requests
_REMEMBERED = 7 * 86_400.0  # seconds for which a repeated request is recognized by its key


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a user or of an anonymous session.

    Attributes:
        interaction: what happened, with which item and when.
        user_id: the user; None for an event of a session.
        session_id: the session; None for an event of a user.
        list_id: the list in which the item was shown; None if that is unknown.
        sequence: the number of the event in the store; 0 if it has not been stored.
    """

    interaction: Interaction
    user_id: str | None = None
    session_id: str | None = None
    list_id: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class ShownList:
    """A list that was sent to a client.

    Attributes:
        list_id: the id of the list.
        shown: the time in seconds since 1970.
        user_id: the user; None for another history.
        session_id: the session; None if there is none.
        scenario: the name of the scenario; None if there is none.
        run: the name of the model that made the list.
        arm: the arm of the experiment; None if there is none.
        fallback: True if the list was made by counting alone because the model did not answer.
        item_ids: the items in order.
        experiment: the name of the experiment; None if there is none.
        propensities: for each item of a random draw, the probability with which it was drawn for its
            place; empty or None for other lists.
        options: the options of the request; they are stored only with propensities.
    """

    list_id: str
    shown: float
    user_id: str | None
    session_id: str | None
    scenario: str | None
    run: str
    arm: str | None
    fallback: bool
    item_ids: tuple[str, ...]
    experiment: str | None = None
    propensities: tuple[float | None, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class ConflictError(Exception):
    """Raised when an idempotency key comes again with another request."""


class Store:
    """A database with everything that came after the dataset."""

    def __init__(self, url: str) -> None:
        """Open the database; see ``tables.open_engine`` for its errors."""
        self._engine = open_engine(url)
        self._one_writer = threading.Lock()
        self._file = file_of(self._engine)
        self._opened = None if self._file is None else identity(self._file)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Read something, to find out whether the database answers.

        Raises:
            StoreError: it does not, or the file was moved, deleted or replaced. SQLite would go on with the
                old file.
        """
        if self._file is not None and identity(self._file) != self._opened:
            msg = (
                f"The file {self._file} was moved, deleted or replaced while the service was running. "
                "What is stored now is lost if the old file was deleted. Restart the service."
            )
            raise StoreError(msg)
        with self.reading("The store does not answer") as connection:
            connection.execute(sa.select(tables.meta.c.value)).all()

    @contextlib.contextmanager
    def reading(self, failed: str) -> Iterator[sa.Connection]:
        """Hold a connection while the ``with`` block runs; ``failed`` says what an error prevents."""
        with store_errors(failed), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, failed: str) -> Iterator[sa.Connection]:
        """Hold a transaction while the ``with`` block runs; ``failed`` says what an error prevents."""
        with store_errors(failed), self._one_writer, self._engine.begin() as connection:
            yield connection

    # Events

    def add_events(
        self, events: Sequence[Event], *, key: str | None = None, digest: str = ""
    ) -> tuple[list[int], bool]:
        """Store events, all or none of them.

        Args:
            events: the events.
            key: a key that identifies the request; a repeated request stores nothing.
            digest: a digest of the request's content.

        Returns:
            The number of each event, and True if the request is a repeated one.

        Raises:
            ConflictError: the key was used for another content.
            StoreError: nothing was stored.
        """
        with store_errors("The events were not stored"), self._one_writer:
            try:
                with self._engine.begin() as connection:
                    if key is not None and (known := self._known(connection, key, digest)):
                        return known, True
                    numbers = self._insert_events(connection, events)
                    if key is not None:
                        answer = json.dumps(numbers)
                        row = {"key": key, "digest": digest, "answer": answer}
                        connection.execute(
                            tables.requests.insert(), row | {"received": time.time()}
                        )
                    return numbers, False
            except sa.exc.IntegrityError:  # another process stored the same request just now
                if key is None:
                    raise
                with self._engine.begin() as connection:
                    known = self._known(connection, key, digest)
                    if known is None:
                        raise
                    return known, True

    @staticmethod
    def _known(connection: sa.Connection, key: str, digest: str) -> list[int] | None:
        """Return the answer to an earlier request with the same key, or None if there is none."""
        wanted = sa.select(tables.requests.c.digest, tables.requests.c.answer)
        row = connection.execute(wanted.where(tables.requests.c.key == key)).first()
        if row is None:
            return None
        if row.digest != digest:
            raise ConflictError(key)
        numbers: list[int] = json.loads(row.answer)
        return numbers

    @staticmethod
    def _insert_events(connection: sa.Connection, events: Sequence[Event]) -> list[int]:
        now = time.time()
        rows = [
            {
                **{n: getattr(e.interaction, n) for n in _OF_INTERACTION},
                "user_id": e.user_id, "session_id": e.session_id, "list_id": e.list_id,
                "received": now,
            }
            for e in events
        ]  # fmt: skip
        made = tables.events.insert().returning(
            tables.events.c.sequence, sort_by_parameter_order=True
        )
        return [int(n) for n in connection.scalars(made, rows)]

    def forget_requests(self, now: float) -> None:
        """Forget the keys of requests that are older than a week."""
        old = tables.requests.c.received < now - _REMEMBERED
        with self.writing("Old requests were not removed") as connection:
            connection.execute(tables.requests.delete().where(old))

    def events_of(
        self, *, user_id: str | None = None, session_id: str | None = None
    ) -> list[Event]:
        """Return the events of a user or of a session in the order in which they were stored."""
        c = tables.events.c
        which = c.user_id == user_id if session_id is None else c.session_id == session_id
        return list(self._events(which))

    def last_event_of(self, user_id: str) -> int:
        """Return the number of a user's last event in the store; 0 if there is none."""
        c = tables.events.c
        wanted = sa.select(sa.func.max(c.sequence)).where(c.user_id == user_id)
        with self.reading("The events cannot be read") as connection:
            return int(connection.scalar(wanted) or 0)

    def events_after(self, sequence: int, behavior: str | None = None) -> Iterator[Event]:
        """Yield the events after a number, in the order in which they were stored.

        Args:
            sequence: the number.
            behavior: the behavior of the events; None for all events.
        """
        c = tables.events.c
        which = c.sequence > sequence
        return self._events(which if behavior is None else which & (c.behavior == behavior))

    def _events(self, which: Any) -> Iterator[Event]:
        c = tables.events.c
        with self.reading("The events cannot be read") as connection:
            found = connection.execute(tables.events.select().where(which).order_by(c.sequence))
            for row in found.yield_per(1000):
                interaction = Interaction(**{n: getattr(row, n) for n in _OF_INTERACTION})
                yield Event(interaction, row.user_id, row.session_id, row.list_id, row.sequence)

    # Users

    def delete_user(self, user_id: str) -> int:
        """Delete a user's events, shown lists and labels, and remember not to use those of the dataset.

        Only a pseudonym of the id is remembered, and nothing is left of the rows in the files of SQLite.

        Returns:
            The number of deleted events.
        """
        gone = self._delete("user_id", user_id, remember=True)
        self.scrub()
        return gone

    def forget_user(self, user_id: str) -> int:
        """Delete everything about a user, also that the user was deleted.

        Returns:
            The number of deleted events.
        """
        gone = self._delete("user_id", user_id, remember=True)
        with self.writing("Nothing was deleted") as connection:
            same = tables.deleted_users.c.user_id == pseudonym(user_id, self._salt(connection))
            connection.execute(tables.deleted_users.delete().where(same))
        self.scrub()
        return gone

    def scrub(self) -> None:
        """Write the file of SQLite anew, so that nothing is left of deleted rows; see ``tables.scrub``."""
        if self._file is not None:
            with store_errors("Deleted rows are still in the file"), self._one_writer:
                tables.scrub(self._engine)

    @staticmethod
    def _salt(connection: sa.Connection) -> str:
        """Return the key of this store's pseudonyms, which is made when it is first needed."""
        salt = connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == _SALT))
        if salt is None:
            salt = secrets.token_hex(32)
            connection.execute(tables.meta.insert(), {"name": _SALT, "value": salt})
        return str(salt)

    def delete_session(self, session_id: str) -> int:
        """Delete a session's events and shown lists, and return the number of its events."""
        return self._delete("session_id", session_id)

    def _delete(self, column: str, value: str, *, remember: bool = False) -> int:
        with self.writing("Nothing was deleted") as connection:
            shown = sa.select(tables.lists.c.list_id).where(tables.lists.c[column] == value)
            of_them = tables.impressions.c.list_id.in_(shown)
            connection.execute(tables.impressions.delete().where(of_them))
            connection.execute(tables.lists.delete().where(tables.lists.c[column] == value))
            old = tables.events.delete().where(tables.events.c[column] == value)
            gone = connection.execute(old).rowcount
            if remember:
                known = pseudonym(value, self._salt(connection))
                for table in (tables.deleted_users, tables.deleted_events, tables.users):
                    same = table.c.user_id.in_([value, known])  # earlier versions kept the id
                    connection.execute(table.delete().where(same))
                if len(value) >= _LEAST_ID:  # clients choose the keys, so they may name the user
                    key = tables.requests.c.key
                    named = sa.func.replace(key, value, "") != key
                    connection.execute(tables.requests.delete().where(named))
                row = {"user_id": known, "deleted": time.time()}
                connection.execute(tables.deleted_users.insert(), row)
            return int(gone)

    def delete_events(
        self,
        item_id: str,
        behaviors: Iterable[str],
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        remember: bool = False,
    ) -> int:
        """Delete the events of a user or a session with an item.

        Args:
            item_id: the item.
            behaviors: only events of these behaviors.
            user_id: the user; None for a session.
            session_id: the session; None for a user.
            remember: True to remember not to use such events of the dataset.

        Returns:
            The number of deleted events.
        """
        c, old = tables.events.c, tables.deleted_events
        which = c.user_id == user_id if session_id is None else c.session_id == session_id
        named = list(behaviors)
        which &= (c.item_id == item_id) & c.behavior.in_(named)
        with self.writing("Nothing was deleted") as connection:
            if remember:
                same = (old.c.user_id == user_id) & (old.c.item_id == item_id)
                connection.execute(old.delete().where(same & old.c.behavior.in_(named)))
                row = {"user_id": user_id, "item_id": item_id, "deleted": time.time()}
                connection.execute(old.insert(), [{**row, "behavior": b} for b in named])
            return int(connection.execute(tables.events.delete().where(which)).rowcount)

    def delete_event(self, sequence: int) -> Event | None:
        """Delete the event with a number, and return it; None if there is none."""
        which = tables.events.c.sequence == sequence
        found = next(self._events(which), None)
        with self.writing("The event was not deleted") as connection:
            gone = connection.execute(tables.events.delete().where(which)).rowcount
        return found if gone else None

    def deletions(self) -> Deletions:
        """Return which events of the dataset must not be used."""
        users, c = tables.deleted_users.c, tables.deleted_events.c
        with self.reading("The store cannot be read") as connection:
            events = connection.execute(sa.select(c.user_id, c.item_id, c.behavior)).all()
            wanted = sa.select(tables.meta.c.value).where(tables.meta.c.name == _SALT)
            return Deletions(
                frozenset(connection.scalars(sa.select(users.user_id))),
                frozenset((user, item, behavior) for user, item, behavior in events),
                connection.scalar(wanted) or "",
            )

    # Items

    def put_items(self, put: Iterable[Item], removed: Iterable[Item] = ()) -> None:
        """Store added, changed and removed items, all or none of them."""
        rows = [_item_row(item, False) for item in put] + [_item_row(i, True) for i in removed]
        with self.writing("The items were not stored") as connection:
            for row in rows:
                changed = tables.items.update().where(tables.items.c.item_id == row["item_id"])
                if not connection.execute(changed.values(**row)).rowcount:
                    connection.execute(tables.items.insert().values(**row))

    def items(self) -> list[tuple[Item, bool]]:
        """Return the items in the order in which they came, each with True if it was removed."""
        wanted = tables.items.select().order_by(tables.items.c.sequence)
        with self.reading("The items cannot be read") as connection:
            return [
                (Item(row.item_id, row.title, json.loads(row.attributes)), bool(row.removed))
                for row in connection.execute(wanted)
            ]

    # Scenarios and the block list

    def scenarios(self) -> dict[str, dict[str, Any]]:
        """Return the options of each scenario, keyed by its name."""
        with self.reading("The scenarios cannot be read") as connection:
            found = connection.execute(tables.scenarios.select().order_by(tables.scenarios.c.name))
            return {row.name: json.loads(row.options) for row in found}

    def put_scenario(self, name: str, options: Mapping[str, Any] | None) -> bool:
        """Store a scenario, or delete it if the options are None; return True if it existed."""
        scenarios = tables.scenarios
        with self.writing("The scenario was not stored") as connection:
            old = connection.execute(scenarios.delete().where(scenarios.c.name == name))
            if options is not None:
                row = {"name": name, "options": json.dumps(options)}
                connection.execute(scenarios.insert(), row)
            return bool(old.rowcount)

    def blocks(self) -> dict[str, list[str]]:
        """Return the block list: item ids, conditions and phrases of titles."""
        found: dict[str, list[str]] = {kind: [] for kind in KINDS}
        with self.reading("The block list cannot be read") as connection:
            for row in connection.execute(tables.blocks.select().order_by(tables.blocks.c.value)):
                found[row.kind].append(row.value)
        return found

    def put_blocks(self, entries: Mapping[str, Sequence[str]]) -> None:
        """Replace the block list."""
        rows = [{"kind": k, "value": v} for k in KINDS for v in dict.fromkeys(entries.get(k, ()))]
        with self.writing("The block list was not stored") as connection:
            connection.execute(tables.blocks.delete())
            if rows:
                connection.execute(tables.blocks.insert(), rows)

    # Experiments

    def experiments(self) -> dict[str, tuple[dict[str, Any], float, float | None]]:
        """Return each experiment's definition and the times when it was started and stopped.

        The times are seconds since 1970; the second one is None while the experiment runs.
        """
        wanted = tables.experiments.select().order_by(tables.experiments.c.started)
        with self.reading("The experiments cannot be read") as connection:
            return {
                row.name: (json.loads(row.definition), row.started, row.stopped)
                for row in connection.execute(wanted)
            }

    def put_experiment(
        self,
        name: str,
        definition: Mapping[str, Any] | None,
        started: float = 0.0,
        stopped: float | None = None,
    ) -> None:
        """Store an experiment in place of that of the same name, or only delete it if it is None."""
        kept = tables.experiments
        with self.writing("The experiment was not stored") as connection:
            connection.execute(kept.delete().where(kept.c.name == name))
            if definition is not None:
                text = json.dumps(definition)
                row = {"name": name, "definition": text, "started": started, "stopped": stopped}
                connection.execute(kept.insert(), row)

    # Shown lists

    def add_lists(self, shown: Sequence[ShownList]) -> None:
        """Store lists that were sent to clients."""
        rows, places = [], []
        for one in shown:
            row = asdict(one)
            chances = row.pop("propensities") or [None] * len(one.item_ids)
            drawn = any(chance is not None for chance in chances)
            row["options"] = json.dumps(row["options"]) if drawn else None
            rows.append(row)
            items = zip(row.pop("item_ids"), chances, strict=True)
            places += [
                {"list_id": one.list_id, "rank": rank, "item_id": item, "propensity": chance}
                for rank, (item, chance) in enumerate(items, start=1)
            ]
        with self.writing("The lists were not stored") as connection:
            connection.execute(tables.lists.insert(), rows)
            if places:
                connection.execute(tables.impressions.insert(), places)

    # Everything

    def export(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every row of every table except the keys of requests, with the table's name.

        Deleted users are pseudonyms; their rows also have the key of the hash as ``salt``.
        """
        salt = self.deletions().salt
        with self.reading("The store cannot be read") as connection:
            for table in tables.metadata.sorted_tables:
                if table in (tables.requests, tables.meta):
                    continue
                found = connection.execute(table.select().order_by(*table.primary_key.columns))
                for row in found.yield_per(1000):
                    more = {"salt": salt} if table is tables.deleted_users else {}
                    yield table.name, {str(k): v for k, v in row._mapping.items()} | more


_OF_INTERACTION = ("item_id", "behavior", "timestamp", "value", "unit", "text")


def _item_row(item: Item, removed: bool) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "attributes": json.dumps(
            {n: None if v != v else v for n, v in item.attributes.items()}, default=str
        ),
        "removed": removed,
    }
