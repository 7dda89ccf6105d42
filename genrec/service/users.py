"""Keep what a shop says about its users, and list them in the order of their ids.

Labels are attributes of a user, such as a country or a tier. Lists do not depend on them, but on the
corrections of a user's profile.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa

from genrec.service import tables
from genrec.service.store import Store
from genrec.taste.edits import ProfileEdits

_LAST = "\U0010ffff"  # the highest code point


def labels_of(store: Store, user_id: str) -> dict[str, Any] | None:
    """Return the labels of a user; None if none were ever put."""
    c = tables.users.c
    with store.reading("The labels cannot be read") as connection:
        found = connection.scalar(sa.select(c.labels).where(c.user_id == user_id))
    labels: dict[str, Any] | None = None if found is None else json.loads(found)
    return labels


def put_labels(
    store: Store, user_id: str, labels: Mapping[str, Any], *, replace: bool
) -> dict[str, Any]:
    """Store labels of a user.

    Args:
        store: the store.
        user_id: the user, who need not have events.
        labels: the labels.
        replace: True to store these alone; False to keep those that are not named, and to remove
            those that are None.

    Returns:
        All labels of the user.
    """
    users = tables.users
    same = users.c.user_id == user_id
    with store.writing("The labels were not stored") as connection:
        old = connection.scalar(sa.select(users.c.labels).where(same))
        kept: dict[str, Any] = dict(labels)
        if not replace:
            before = {} if old is None else json.loads(old)
            kept = {n: v for n, v in {**before, **kept}.items() if n not in labels or v is not None}
        text = json.dumps(kept)
        if old is None:
            connection.execute(users.insert(), {"user_id": user_id, "labels": text})
        else:
            connection.execute(users.update().where(same).values(labels=text))
    return kept


def profile_of(store: Store, user_id: str) -> ProfileEdits:
    """Return the corrections of a user's profile; empty if there are none."""
    c = tables.users.c
    with store.reading("The profile cannot be read") as connection:
        found = connection.scalar(sa.select(c.profile).where(c.user_id == user_id))
    return ProfileEdits.of({} if found is None else json.loads(found))


def put_profile(
    store: Store, user_id: str, given: Mapping[str, Any], *, replace: bool
) -> ProfileEdits:
    """Store corrections of a user's profile, and return all of them.

    Args:
        store: the store.
        user_id: the user, who need not have events.
        given: lists of keywords by kind; see ``genrec.taste.edits.ProfileEdits``.
        replace: True to store these alone; False to keep the kinds that are not given.

    Raises:
        RequestError: the keywords are not valid. Nothing is changed.
    """
    users = tables.users
    same = users.c.user_id == user_id
    with store.writing("The profile was not stored") as connection:
        old = connection.execute(sa.select(users.c.profile).where(same)).first()
        kept = ProfileEdits()
        if old is not None and old[0] is not None and not replace:
            kept = ProfileEdits.of(json.loads(old[0]))
        kept = kept.changed(given)
        text = json.dumps(kept.to_dict())
        if old is None:
            row = {"user_id": user_id, "labels": "{}", "profile": text}
            connection.execute(users.insert(), row)
        else:
            connection.execute(users.update().where(same).values(profile=text))
    return kept


def stored_user_ids(store: Store, prefix: str, after: str, limit: int) -> list[str]:
    """Return ids of users with events or labels in the store, sorted by code points.

    The database reads them from its index, from the first wanted id on.

    Args:
        store: the store.
        prefix: the beginning of the ids.
        after: only ids that come after this one.
        limit: the highest number of ids.
    """
    found: set[str] = set()
    with store.reading("The users cannot be read") as connection:
        for table in (tables.events, tables.users):
            column: Any = table.c.user_id
            if connection.dialect.name == "postgresql":  # stores of earlier versions
                column = column.collate("C")
            wanted = sa.select(column).distinct().where(column > after)
            if prefix:
                wanted = wanted.where(column >= prefix)
            if (end := _end_of(prefix)) is not None:
                wanted = wanted.where(column < end)
            found.update(connection.scalars(wanted.order_by(column).limit(limit)))
    return sorted(found)[:limit]


def sorted_ids_after(
    ids: Sequence[str], prefix: str, after: str, limit: int, gone: frozenset[str]
) -> list[str]:
    """Return ids from a sorted sequence; see ``stored_user_ids``.

    Args:
        ids: the ids, sorted.
        prefix: the beginning of the ids.
        after: only ids that come after this one.
        limit: the highest number of ids.
        gone: ids to leave out.
    """
    first = max(bisect_right(ids, after), bisect_left(ids, prefix))
    end = _end_of(prefix)
    last = len(ids) if end is None else bisect_left(ids, end)
    left = (ids[n] for n in range(first, last) if ids[n] not in gone)
    return list(islice(left, limit))


def _end_of(prefix: str) -> str | None:
    """Return the first text that sorts after all that begin with a prefix; None if there is none."""
    rest = prefix.rstrip(_LAST)
    if not rest:
        return None
    following = ord(rest[-1]) + 1
    return rest[:-1] + chr(0xE000 if 0xD800 <= following < 0xE000 else following)
