"""Read what a service kept: events, items, and the lists that it showed.

``GET /v1/export`` of ``genrec serve`` sends one JSON object per line. A file with these lines is read
in the same way. This module needs neither the service nor its packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.data.catalog import Item
from genrec.data.dataset import Dataset
from genrec.data.deletions import Deletions
from genrec.data.events import History, Interaction, join_events
from genrec.data.refusals import take_refusals
from genrec.errors import DataError, UnknownUserError

KEY = "GENREC_KEY"  # the environment variable with the key of the service
_TIMEOUT = 60.0  # seconds without an answer after which the service counts as not answering
_FIELDS = ("item_id", "behavior", "timestamp", "value", "unit", "text")


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event that the service received.

    Attributes:
        interaction: what happened.
        owner: the user, or the session.
        is_session: True if ``owner`` is a session.
        list_id: the list that showed the item; None if that is unknown.
        received: the time in seconds since 1970 when the service received it.
    """

    interaction: Interaction
    owner: str
    is_session: bool
    list_id: str | None
    received: float


@dataclass(frozen=True, slots=True)
class KeptList:
    """A list that the service showed.

    Attributes:
        list_id: its id.
        owner: the user, or the session; None for a list of another history.
        is_session: True if ``owner`` is a session.
        shown: the time in seconds since 1970.
        fallback: True if counting alone made it because the model did not answer.
        item_ids: the items in order.
        propensities: for each item, the probability with which it was drawn; None if it was not.
        options: the options of a random draw.
    """

    list_id: str
    owner: str | None
    is_session: bool
    shown: float
    fallback: bool
    item_ids: tuple[str, ...]
    propensities: tuple[float | None, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Export:
    """Everything that a service kept.

    Attributes:
        events: the events in the order in which they were received.
        by_owner: the same for each owner, which is a user or a session (True).
        lists: the lists in the order in which they were shown.
        items: items that were added or changed.
        removed: the ids of items that were removed.
        deleted: the events in the dataset that must not be used.
    """

    events: Sequence[KeptEvent]
    by_owner: Mapping[tuple[str, bool], Sequence[KeptEvent]]
    lists: Sequence[KeptList]
    items: Sequence[Item]
    removed: Sequence[str]
    deleted: Deletions

    def history(self, dataset: Dataset, owner: str, *, is_session: bool, before: float) -> History:
        """Return the history of a user or of a session as it was at a time, without refusals.

        Args:
            dataset: the dataset that the service was started with.
            owner: the user or the session.
            is_session: True for a session.
            before: the time; events that the service received later are left out.
        """
        mine = self.by_owner.get((owner, is_session), ())
        later = [e.interaction for e in mine if e.received <= before]
        start: tuple[Interaction, ...] = ()
        if not is_session and not self.deleted.has(str(owner)):
            with contextlib.suppress(UnknownUserError):
                start = dataset.interactions.history(owner).interactions
                start = self.deleted.left(owner, start)
        positions = dataset.info.time_unit == "position"
        events = join_events(start, later, positions=positions)
        whole = History(events, None if is_session else owner)
        return take_refusals(whole, dataset.interactions.behaviors)[0]


def read_export(place: str | Path) -> Export:
    """Read an export from a running service or from a file.

    Args:
        place: the address of a service, such as ``http://127.0.0.1:8000``, whose key is taken from the
            environment variable ``GENREC_KEY``; or a file.

    Raises:
        DataError: the service does not answer or refuses the request, or the export cannot be read or
            is not complete.
    """
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with _lines(place) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                tables[row.pop("table")].append(row)
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                msg = (
                    f"Line {number} of {place} is not a line of an export. Expected the lines of "
                    "GET /v1/export of `genrec serve`."
                )
                raise DataError(msg) from error
    if "end" not in tables:
        msg = f"The export {place} is not complete, because its last line is missing. Export it again."
        raise DataError(msg)
    try:
        return _parsed(tables)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The export {place} lacks a value ({error}). Expected an export of this version of genrec."
        raise DataError(msg) from error


@contextlib.contextmanager
def _lines(place: str | Path) -> Iterator[Iterable[bytes | str]]:
    """Open an export for reading line by line."""
    if not str(place).startswith(("http://", "https://")):
        try:
            with Path(place).open(encoding="utf-8") as file:
                yield file
        except (OSError, UnicodeDecodeError) as error:
            msg = f"The export {place} cannot be read: {error}. Expected the address of a service or a file."
            raise DataError(msg) from error
        return
    request = urllib.request.Request(f"{str(place).rstrip('/')}/v1/export")
    if key := os.environ.get(KEY):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        advice = (
            f"Set {KEY} to a key with the scope admin."
            if error.code in {401, 403}
            else "Expected a running `genrec serve`."
        )
        raise DataError(f"{place} answered with the status {error.code}. {advice}") from error
    except OSError as error:
        msg = f"{place} does not answer: {error}. Expected a running `genrec serve`."
        raise DataError(msg) from error


def _parsed(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Export:
    events = [
        KeptEvent(
            Interaction(**{name: row[name] for name in _FIELDS}),
            *_owner(row),
            row["list_id"],
            float(row["received"]),
        )
        for row in sorted(tables.get("events", ()), key=lambda row: row["sequence"])
    ]
    by_owner: dict[tuple[str, bool], list[KeptEvent]] = defaultdict(list)
    for event in events:
        by_owner[event.owner, event.is_session].append(event)
    places: dict[str, list[tuple[int, str, float | None]]] = defaultdict(list)
    for row in tables.get("impressions", ()):
        places[row["list_id"]].append((row["rank"], row["item_id"], row.get("propensity")))
    lists = []
    for row in sorted(tables.get("lists", ()), key=lambda row: (row["shown"], row["list_id"])):
        shown = sorted(places[row["list_id"]])
        owned = row["user_id"] is not None or row["session_id"] is not None
        owner, is_session = _owner(row) if owned else (None, False)
        lists.append(
            KeptList(
                list_id=row["list_id"],
                owner=owner,
                is_session=is_session,
                shown=float(row["shown"]),
                fallback=bool(row["fallback"]),
                item_ids=tuple(item for _, item, _ in shown),
                propensities=tuple(chance for _, _, chance in shown),
                options=json.loads(row.get("options") or "{}"),
            )
        )
    edits = tables.get("items", ())
    return Export(
        events,
        by_owner,
        lists,
        [
            Item(row["item_id"], row["title"], json.loads(row["attributes"]))
            for row in edits
            if not row["removed"]
        ],
        [row["item_id"] for row in edits if row["removed"]],
        Deletions(
            frozenset(row["user_id"] for row in tables.get("deleted_users", ())),
            frozenset(
                (row["user_id"], row["item_id"], row["behavior"])
                for row in tables.get("deleted_events", ())
            ),
            next((row["salt"] for row in tables.get("deleted_users", ()) if "salt" in row), ""),
        ),
    )


def _owner(row: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the user or the session of a row, and True for a session."""
    if row["user_id"] is not None:
        return row["user_id"], False
    return row["session_id"], True
